"""Writing files so that a process that is killed, or a machine that loses power, leaves the old or the new, never half.

The one place of the package that creates files. Order matters everywhere: content is on the disk before a name leads
to it, and a name is on the disk before anybody is told of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

READABLE = 0o444  # whoever wants to change a record has to mean it
PRIVATE = 0o600


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a new file and wait until its content is on the disk; its name is not, see ``sync``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def sync(*folders: Path) -> None:
    """Wait until the names in these folders are on the disk."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole, in place of what was there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # what a killed process of the same number left
    try:
        write(temporary, content, mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def create(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole where there is none.

    Raises:
        FileExistsError: there is one; it is left alone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        write(temporary, content, mode)
        path.hardlink_to(temporary)  # unlike a rename this never replaces anything
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def take_in(source: Path, target: Path, mode: int, *, keep: bool) -> None:
    """Bring a file's bytes to another name.

    Without ``keep`` a second name for the same file is enough, which needs no room on a disk that is full; the caller
    takes the first name away once the second one counts.
    """
    if not keep:
        with contextlib.suppress(OSError):
            target.hardlink_to(source)
            target.chmod(mode)
            _sync_file(target)
            return
    target.unlink(missing_ok=True)
    with (
        source.open("rb") as coming,
        os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as to,
    ):
        shutil.copyfileobj(coming, to)
        to.flush()
        os.fsync(to.fileno())


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def extend(path: Path, size: int, content: bytes) -> None:
    """Make the file its first ``size`` bytes and ``content``, durably; once or several times is the same.

    Raises:
        OSError: there is no room; the file is its first ``size`` bytes.
    """
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)
        try:
            _write_all(descriptor, content)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:  # a disk that is nearly full takes a part, and refuses only the next one
        content = content[os.write(descriptor, content) :]


def cut(path: Path, size: int) -> None:
    """Make the file its first ``size`` bytes."""
    os.truncate(path, size)
    _sync_file(path)


def is_full(error: OSError) -> bool:
    """Whether there is no room left, or none that this user may use."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def discarded(folder: Path) -> Iterator[Path]:
    """A folder for work in progress that is gone afterwards, unless it was given another name."""
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
