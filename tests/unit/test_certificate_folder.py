"""The certificate folder: real files, and what others may see of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks import certificate_folder
from runbooks.errors import CertificateError, ChangedSincePlan


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    """Whatever protects a key here must not be the umask."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {path.name: f"{path.stat().st_mode & 0o777:o}" for path in folder.iterdir()}


def test_files_that_are_written_are_read_back_and_others_are_absent(tmp_path: Path) -> None:
    certificate_folder.write(str(tmp_path / "root.key"), b"key\n", None)
    certificate_folder.write(str(tmp_path / "root.crt"), b"\x00\xff", None)
    found = certificate_folder.read(str(tmp_path), ("root.key", "root.crt", "wildcard.crt"))
    assert {"root.key": b"key\n", "root.crt": b"\x00\xff"} == found
    assert b"key\n" == certificate_folder.read_file("key_file", str(tmp_path / "root.key"))


def test_keys_are_for_their_owner_only_and_nothing_else_is_left_behind(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    for name in ("root.key", "root.crt", "wildcard.csr"):
        certificate_folder.write(str(folder / name), b"content", None)
    assert {"certificates": "700"} == modes(tmp_path)
    assert {"root.key": "600", "root.crt": "644", "wildcard.csr": "644"} == modes(folder)
    assert 0o600 == certificate_folder.mode(str(folder / "root.key"))


def test_a_key_that_others_could_read_is_replaced_by_one_that_they_cannot(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    certificate_folder.write(str(path), b"new", b"old")
    assert (b"new", {"root.key": "600"}) == (path.read_bytes(), modes(tmp_path))


def test_a_key_is_never_written_into_a_file_that_was_there_before(tmp_path: Path) -> None:
    # what a killed process of the same number left, or somebody else put there
    waiting = tmp_path / "elsewhere"
    waiting.write_bytes(b"")
    waiting.chmod(0o644)
    (tmp_path / f".root.key.{os.getpid()}.tmp").hardlink_to(waiting)
    certificate_folder.write(str(tmp_path / "root.key"), b"secret", None)
    assert b"" == waiting.read_bytes()
    assert {"root.key": "600", "elsewhere": "644"} == modes(tmp_path)


def test_replacing_a_file_leaves_what_was_opened_before_whole(tmp_path: Path) -> None:
    path = tmp_path / "wildcard.crt"
    certificate_folder.write(str(path), b"old certificate", None)
    with path.open("rb") as reader:
        certificate_folder.write(str(path), b"new", b"old certificate")
        assert (b"old certificate", b"new") == (reader.read(), path.read_bytes())


CHANGED = {
    "it has appeared": (b"of another run", None, "it was not there when the plan was made, and it is now"),
    "it is another one": (b"of another run", b"old", "its content is no longer what the plan was made from"),
    "it is gone": (None, b"old", "it was there when the plan was made, and it is gone"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_file_that_is_not_what_the_plan_saw_is_left_as_it_is(tmp_path: Path, case: str) -> None:
    present, expected, said = CHANGED[case]
    path = tmp_path / "root.key"
    if present is not None:
        path.write_bytes(present)
    with pytest.raises(ChangedSincePlan) as caught:
        certificate_folder.write(str(path), b"new", expected)
    assert (f"writing {path}", said) == (caught.value.attempted, caught.value.said)
    assert "run the notebook again" in caught.value.remedy
    assert ([] if present is None else [present]) == [file.read_bytes() for file in tmp_path.iterdir()]


def test_of_several_runs_at_once_one_alone_writes_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "root.key"
    program = (
        "import sys; from runbooks import certificate_folder as f; f.write(sys.argv[1], sys.argv[2].encode(), None)"
    )
    runs = {
        name: subprocess.Popen([sys.executable, "-c", program, str(path), name], stderr=subprocess.DEVNULL)
        for name in ("a", "b", "c", "d")
    }
    wrote = [name for name, run in runs.items() if run.wait(60) == 0]
    assert wrote == [path.read_text()]
    assert ["root.key"] == [file.name for file in tmp_path.iterdir()]


def test_what_cannot_be_written_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "root.key" / "below").mkdir(parents=True)
    with pytest.raises(CertificateError) as caught:
        certificate_folder.write(str(tmp_path / "root.key"), b"secret", b"old")
    assert [
        f"writing {tmp_path}/root.key: Is a directory",
        "What to do: make the folder writable",
    ] == caught.value.lines()
    assert ["root.key"] == [path.name for path in tmp_path.iterdir()]


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CertificateError, match=r"^writing .*/file/root\.key: "):
        certificate_folder.write(str(tmp_path / "file/root.key"), b"secret", None)
    with pytest.raises(CertificateError, match=r"^reading .*/file/root\.key: Not a directory"):
        certificate_folder.read(str(tmp_path / "file"), ("root.key",))


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "root.crt").mkdir()
    with pytest.raises(CertificateError, match=r"^reading .*/root\.crt: Is a directory"):
        certificate_folder.read(str(tmp_path), ("root.crt",))
    with pytest.raises(CertificateError, match=r"^reading chain_file .*/root\.crt: Is a directory"):
        certificate_folder.read_file("chain_file", str(tmp_path / "root.crt"))
    assert certificate_folder.read_file("chain_file", str(tmp_path / "missing.crt")) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="to root no file is closed")
def test_a_file_of_somebody_else_is_said(tmp_path: Path) -> None:
    (tmp_path / "root.key").write_bytes(b"")
    (tmp_path / "root.key").chmod(0)
    with pytest.raises(CertificateError, match=r"^reading .*/root\.key: Permission denied"):
        certificate_folder.read(str(tmp_path), ("root.key",))


def test_a_folder_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert {} == certificate_folder.read(str(tmp_path / "missing"), ("root.key",))
    assert certificate_folder.mode(str(tmp_path / "missing" / "root.key")) is None
