"""The folder of keys and certificates on this machine: the only place where the library writes files of its own.

Keys are written with mode 0600 from their first byte on, every file appears whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from runbooks import input_file
from runbooks.errors import CertificateError, ChangedSincePlan


def read(folder: str, names: Iterable[str]) -> dict[str, bytes]:
    """The content of the named files; those that do not exist are absent.

    Raises:
        CertificateError: the folder or a file cannot be read.
    """
    found = {}
    for name in names:
        path = Path(folder, name)
        try:
            found[name] = input_file.read(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            remedy = "let certificates_dir name a folder whose files can be read"
            raise CertificateError(f"reading {path}", error.strerror or str(error), remedy) from error
    return found


def read_file(parameter: str, path: str) -> bytes | None:
    """The content of one file that a parameter names, or None where there is no such file.

    Raises:
        CertificateError: it is there and cannot be read.
    """
    try:
        return input_file.read(Path(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(parameter, path, error.strerror or str(error)) from error


def unreadable(parameter: str, path: str, said: str) -> CertificateError:
    """What to say of a file that a parameter names and that cannot be read."""
    return CertificateError(f"reading {parameter} {path}", said, f"let {parameter} name a PEM file that can be read")


def write(path: str, content: bytes, expected: bytes | None) -> None:
    """Write one file whole, durably, and without ever showing a key to others.

    Args:
        path: where.
        content: what.
        expected: what the plan saw there, or None where it saw no such file. Anything else is left as it is: it may
            be the key of another run.

    Raises:
        ChangedSincePlan: what is there now is not what the plan saw.
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
            _put(temporary, target, expected)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(target.parent)
    except OSError as error:
        raise CertificateError(f"writing {path}", error.strerror or str(error), "make the folder writable") from error


def _put(temporary: Path, target: Path, expected: bytes | None) -> None:
    """Give the finished file its name, if what has the name now is what the plan saw."""
    if expected is None:
        try:
            target.hardlink_to(temporary)  # unlike a rename it fails where there is such a file, in one step
        except FileExistsError as error:
            raise _changed(target, "it was not there when the plan was made, and it is now") from error
        return
    try:
        present = target.read_bytes()
    except FileNotFoundError as error:
        raise _changed(target, "it was there when the plan was made, and it is gone") from error
    if present != expected:
        raise _changed(target, "its content is no longer what the plan was made from")
    temporary.replace(target)


def _changed(target: Path, said: str) -> ChangedSincePlan:
    remedy = "it was left as it is; let no other run use the folder, then run the notebook again from its first cell"
    return ChangedSincePlan(f"writing {target}", said, remedy)


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
