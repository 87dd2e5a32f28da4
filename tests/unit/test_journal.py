"""What a run wrote down of its own writes, whole or torn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbooks import journal
from runbooks.errors import NotRecorded
from runbooks.journal import Journal
from runbooks.plan import Change, FieldChange, Operation

ONE = Change("a", "Secret x/y", ("v1",), Operation.CREATE, (FieldChange("data[tls.key]", None, "‹secret›"),))
TWO = Change("b", "Gateway x/z", ("v1",), Operation.UPDATE)


def test_it_tells_what_was_written_and_what_was_under_way(tmp_path: Path) -> None:
    path = tmp_path / journal.NAME
    kept = Journal(path)
    kept.before(ONE)
    kept.after(ONE, "audit-1")
    kept.before(TWO)
    written, under_way = journal.read(path.read_bytes())
    assert [("Secret x/y", "audit-1")] == [(entry["target"], entry["audit_id"]) for entry in written]
    assert [{"path": "data[tls.key]", "old": None, "new": "‹secret›"}] == written[0]["fields"]
    assert ["Gateway x/z"] == [entry["target"] for entry in under_way]


@pytest.mark.parametrize("cut", [2, 10, 40])
def test_a_torn_last_line_says_nothing(tmp_path: Path, cut: int) -> None:
    path = tmp_path / journal.NAME
    kept = Journal(path)
    kept.before(ONE)
    whole = path.read_bytes()
    kept.after(ONE, "audit-1")
    torn = path.read_bytes()[:-cut]
    assert ([], [json.loads(whole)]) == journal.read(torn)


def test_what_cannot_be_said_durably_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotRecorded):
        Journal(tmp_path / "no-such-folder" / journal.NAME).before(ONE)


def test_without_a_runner_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(journal.VARIABLE, raising=False)
    Journal.from_environment().before(ONE)
