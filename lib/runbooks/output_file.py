"""A file that is whole at every instant, also on a disk that fills up.

Each state is written to a spare file beside it and renamed over it. The spare's space is allocated before it is
needed: the state that says why a run ended can be written when nothing else can.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
from pathlib import Path

from runbooks.errors import UsageError

_SLACK = 64 * 1024  # what a notebook may grow by after the disk is full: states of cells, one error


class OutputFile:
    """The file that a run writes again and again.

    Args:
        path: where; its folder must be there, the file must not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._spare: Path | None = None
        self._room = 0
        self._claimed = False

    @property
    def room(self) -> int:
        """How many bytes the next state may have and be written for certain."""
        return self._room

    def claim(self, content: bytes) -> None:
        """Write the first state; the file is this run's from now on.

        Raises:
            UsageError: there is such a file already, or none can be written there.
        """
        attempted = f"writing {self.path}"
        try:
            self._spare, self._room = self._allocated(len(content) + _SLACK)
            self.write(content)
        except FileExistsError as error:
            self.close()
            remedy = "an executed notebook is never overwritten: name another file; nothing was run"
            raise UsageError(attempted, "it is there already", remedy) from error
        except OSError as error:
            self.close()
            remedy = "name a file in a folder that can be written; nothing was run"
            raise UsageError(attempted, error.strerror or str(error), remedy) from error

    def write(self, content: bytes, *, last: bool = False) -> None:
        """Replace the state; after an error the one before is still there, and so is the room for the next.

        Args:
            content: the whole of it.
            last: no other will follow, so that no room is made for one.

        Raises:
            OSError: the disk is full, or the like.
        """
        assert self._spare is not None, "claimed before, not yet closed"
        following: tuple[Path | None, int] = (None, 0)
        try:
            with self._spare.open("r+b", buffering=0) as file:
                _write_all(file, content)
                if not last:  # while the room of this one is still whole
                    following = self._allocated(len(content) + _SLACK)
                file.truncate(len(content))
                os.fsync(file.fileno())
            self._put_in_place(self._spare)
        except OSError:
            if following[0]:
                following[0].unlink()
            os.truncate(self._spare, self._room)
            raise
        self._spare, self._room = following
        _sync_folder(self.path.parent)

    def close(self) -> None:
        """Remove the spare file."""
        if self._spare is not None:
            self._spare.unlink(missing_ok=True)
        self._spare, self._room = None, 0

    def _put_in_place(self, spare: Path) -> None:
        if self._claimed:
            spare.replace(self.path)
            return
        try:
            os.link(spare, self.path)  # fails where a file is, which a rename does not
            spare.unlink()
        except PermissionError:  # a file system without links
            if self.path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self.path)) from None
            spare.replace(self.path)
        self._claimed = True

    def _allocated(self, size: int) -> tuple[Path, int]:
        """A new spare file that owns its blocks, as far as the file system can promise that."""
        spare = self.path.parent / f".runbooks-{secrets.token_hex(6)}.part"
        descriptor = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
                return spare, 0
            spare.unlink()
            raise
        finally:
            os.close(descriptor)
        return spare, size


def _write_all(file: io.FileIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
