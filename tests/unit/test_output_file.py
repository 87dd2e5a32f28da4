"""The file that is whole at every instant, on file systems that can less than others and on disks that fill up."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from runbooks.errors import UsageError
from runbooks.output_file import OutputFile


@pytest.fixture
def file(tmp_path: Path) -> OutputFile:
    found = OutputFile(tmp_path / "out.ipynb")
    found.claim(b"first")
    return found


def failing(number: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def names(file: OutputFile) -> list[str]:
    return sorted(path.name for path in file.path.parent.iterdir())


def test_each_state_replaces_the_one_before(file: OutputFile) -> None:
    assert b"first" == file.path.read_bytes()
    for content in (b"a longer state", b"short", b"x" * 200_000, b"y"):
        file.write(content)
        assert content == file.path.read_bytes()
        assert file.room > len(content)
    file.write(b"last", last=True)
    file.close()
    assert b"last" == file.path.read_bytes()
    assert ["out.ipynb"] == names(file)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_leaves_the_state_and_the_room(
    file: OutputFile, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    room = file.room
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", failing(number))
        with pytest.raises(OSError, match=os.strerror(number)):
            file.write(b"second")
    assert (b"first", room) == (file.path.read_bytes(), file.room)
    assert 2 == len(names(file))
    file.write(b"last" * 1000, last=True)
    assert b"last" * 1000 == file.path.read_bytes()


@pytest.mark.parametrize("name", ["link", "posix_fallocate"])
def test_a_file_system_without_links_or_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, name, failing(errno.EPERM if name == "link" else errno.EOPNOTSUPP))
    file = OutputFile(tmp_path / "out.ipynb")
    file.claim(b"first")
    file.write(b"second")
    file.close()
    assert b"second" == file.path.read_bytes()
    with pytest.raises(UsageError, match="there already"):
        OutputFile(file.path).claim(b"other")
    assert b"second" == file.path.read_bytes()
    assert ["out.ipynb"] == names(file)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        OutputFile(tmp_path / "missing" / "out.ipynb").claim(b"first")
