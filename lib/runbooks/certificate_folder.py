"""The folder of keys and certificates on this machine: the only place where the library writes files of its own.

Keys are written with mode 0600 from their first byte on, every file appears whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from runbooks.errors import CertificateError


def read(folder: str, names: Iterable[str]) -> dict[str, bytes]:
    """The content of the named files; those that do not exist are absent.

    Raises:
        CertificateError: the folder or a file cannot be read.
    """
    found = {}
    for name in names:
        path = Path(folder, name)
        try:
            found[name] = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise CertificateError(f"reading {path}", error.strerror or str(error), "make it readable") from error
    return found


def read_file(path: str) -> bytes:
    """The content of one file that a parameter names.

    Raises:
        CertificateError: it does not exist or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CertificateError(f"reading {path}", error.strerror or str(error), "give a readable PEM file") from error


def write(path: str, content: bytes) -> None:
    """Write one file whole, durably, and without ever showing a key to others.

    Raises:
        CertificateError: the folder or the file cannot be written.
    """
    target = Path(path)
    mode = 0o600 if target.suffix == ".key" else 0o644
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            temporary.unlink(missing_ok=True)  # what a killed process of the same number left
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(target.parent)
    except OSError as error:
        raise CertificateError(f"writing {path}", error.strerror or str(error), "make the folder writable") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mode(path: str) -> int | None:
    """The permission bits of a file, or None where there is none."""
    try:
        return Path(path).stat().st_mode & 0o777
    except FileNotFoundError:
        return None
