"""The kernel tells what it reads of secrets; without anybody who hears it, it does not go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks.disclosure import VARIABLE, Confidant, Disclosure
from runbooks.errors import NotRecorded


@pytest.fixture
def confidant() -> Iterator[Confidant]:
    found = Confidant()
    yield found
    found.close()


def test_a_value_is_known_as_soon_as_it_was_told(confidant: Confidant) -> None:
    disclosure = Disclosure(confidant.path)
    for value in (b"one", b"\x00\xff\n", b"one", b"x" * 1_000_000):
        disclosure.tell("Secret a/b c", value)
        assert ("Secret a/b c", value) in confidant.heard()
    assert [b"one", b"\x00\xff\n", b"x" * 1_000_000] == [value for _, value in confidant.heard()]


def test_nothing_is_told_where_no_runner_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    Disclosure.from_environment().tell("Secret a/b c", b"one")


def test_a_runner_that_is_gone_stops_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    confidant = Confidant()
    monkeypatch.setenv(VARIABLE, str(confidant.path))
    disclosure = Disclosure.from_environment()
    confidant.close()
    with pytest.raises(NotRecorded, match=r"naming Secret a/b c to the runner.*No such file"):
        disclosure.tell("Secret a/b c", b"one")


def test_nothing_is_left_of_the_socket() -> None:
    confidant = Confidant()
    folder = Path(confidant.path).parent
    assert 0o700 == folder.stat().st_mode & 0o777
    confidant.close()
    assert not folder.exists()
