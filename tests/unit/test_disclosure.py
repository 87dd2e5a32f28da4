"""The kernel tells what it reads of secrets; without anybody who hears it, it does not go on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runbooks import disclosure
from runbooks.disclosure import VARIABLE, Confidant, Disclosure, listening
from runbooks.errors import NotRecorded


@pytest.fixture
def confidant() -> Iterator[Confidant]:
    found = Confidant()
    yield found
    found.close()


def test_a_value_is_known_as_soon_as_it_was_told(confidant: Confidant) -> None:
    kernel = Disclosure(confidant.path)
    for value in (b"one", b"\x00\xff\n", b"one", b"x" * 1_000_000):
        kernel.tell("Secret a/b c", value)
        assert ("Secret a/b c", value) in confidant.heard()
    assert [b"one", b"\x00\xff\n", b"x" * 1_000_000] == [value for _, value in confidant.heard()]


def test_nothing_is_told_where_no_runner_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    Disclosure.from_environment().tell("Secret a/b c", b"one")


def test_a_runner_that_is_gone_stops_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    confidant = Confidant()
    monkeypatch.setenv(VARIABLE, str(confidant.path))
    kernel = Disclosure.from_environment()
    confidant.close()
    with pytest.raises(NotRecorded, match=r"naming Secret a/b c to the runner.*No such file"):
        kernel.tell("Secret a/b c", b"one")


def test_nothing_is_left_of_the_socket() -> None:
    confidant = Confidant()
    folder = Path(confidant.path).parent
    assert 0o700 == folder.stat().st_mode & 0o777
    confidant.close()
    assert not folder.exists()


def test_many_threads_are_heard(confidant: Confidant) -> None:
    kernels = [Disclosure(confidant.path) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: kernels[n % 16].tell(f"Secret {n}", b"value"), range(400)))
    assert 400 == len(confidant.heard())


@pytest.mark.timeout(30)
def test_whoever_connects_and_says_nothing_stops_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disclosure, "_ANSWER_S", 0.5)
    confidant = Confidant()
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as torn:
        torn.connect(str(confidant.path))
        torn.sendall(b'{"name"')
        torn.close()
        Disclosure(confidant.path).tell("Secret a/b c", b"one")
        silent.connect(str(confidant.path))
        began = time.monotonic()
        confidant.close()
        assert time.monotonic() - began < 5
    assert ("", "") == capsys.readouterr()


def test_names_are_noted_for_whoever_comes_after(tmp_path: Path) -> None:
    with listening(tmp_path / "heard") as confidant:
        Disclosure.from_environment().tell("Secret a/b c", b"one")
        assert [("Secret a/b c", b"one")] == confidant.heard()
    assert "Secret a/b c\n" == (tmp_path / "heard").read_text()
