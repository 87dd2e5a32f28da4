"""Reading a file that a parameter names: a plain file of a size that makes sense, or a reason why not.

A named pipe would keep a run waiting for ever, and a wrong path can lead to a disk image.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 4 * 1024 * 1024  # a bundle of all public authorities has a quarter of a megabyte


def read(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: it is missing, cannot be read, is no plain file, or is too large; ``strerror`` says which.
    """
    # without O_NONBLOCK opening a pipe waits for somebody to write into it
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 flags
        found = os.fstat(file.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        said = f"it has {found.st_size:,} bytes, and more than {MOST_BYTES:,} are not read"
        raise OSError(errno.EFBIG, said, str(path))
    return content
