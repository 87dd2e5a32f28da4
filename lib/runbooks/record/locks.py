"""Locks of the kernel (flock): whoever dies lets go, so no lock is ever left behind."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from runbooks.errors import ArchiveUnusable, NotRecorded

_PATIENCE_S = 60.0
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Be the only writer.

    Raises:
        ArchiveUnusable: the file system has no locks.
        NotRecorded: somebody else holds the lock and does not let go.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(descriptor, path):
            if time.monotonic() > deadline:
                said = f"another process has held the lock for {_PATIENCE_S:.0f} s"
                raise NotRecorded(f"locking {path}", said, f"see who: fuser -v {path}; nothing was written")
            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311 so that those who wait do not march in step
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        said = f"the file system has no locks ({error.strerror})"
        remedy = "name a folder on a local disk with --records; nothing was written"
        raise ArchiveUnusable(f"locking {path}", said, remedy) from error
    return True


@contextlib.contextmanager
def shared(path: Path) -> Iterator[None]:
    """Wait until no writer is at work; a copy that cannot be locked has none."""
    descriptor = None
    try:
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


class Alive:
    """A sign that a process is at work, which vanishes with it.

    Args:
        path: the file that carries it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(self._descriptor, path):
            os.close(self._descriptor)
            raise ArchiveUnusable(f"locking {path}", "the run is still going on", "wait for its end")

    def end(self) -> None:
        """Take the sign away."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_alive(path: Path) -> bool:
    """Whether a process carries this sign."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(descriptor)
    return False
