"""Closing a run that vanished: what it left behind, what its journal says, and what the cluster says now."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Iterator, Mapping
from typing import Any

from runbooks import disclosure, handled_secrets, journal
from runbooks.disclosure import Confidant
from runbooks.errors import RunbookError
from runbooks.keeper import MIME
from runbooks.plan import Operation
from runbooks.procedure import section_of
from runbooks.record import archive as archives
from runbooks.record import hygiene, statement
from runbooks.record.archive import Archive, Record
from runbooks.record.hygiene import Hit, Value

_NOW = {
    Operation.UNCHANGED: "as wanted",
    Operation.CREATE: "not there",
    Operation.UPDATE: "not as wanted",
    Operation.RESTART: "not restarted",
}


def close(archive: Archive, record: Record) -> dict[str, Any]:
    """Close one run with everything that can be found out.

    Args:
        archive: where it is, opened with a signing key.
        record: an unfinished run.

    Returns:
        For whoever asked: its id, what is known now, and which files were kept or withheld.

    Raises:
        RecordError: the run goes on still, or the entry could not be written.
    """
    left = {path.name: archives.read_file(path) for path in archive.left_behind(record.id)}
    facts = record.facts()
    with _confidant() as confidant:
        looked = look(facts) if "intent" in record.phases else {}
        values = [*_handled(facts), *(Value(*one) for one in confidant.heard())]
    hits = {name: _hits(name, content, values) for name, content in left.items()}
    withheld = [name for name, found in hits.items() if found]
    written, under_way = journal.read(left.get(journal.NAME, b""))
    told: dict[str, Any] = {
        "outcome": "unknown",
        "reason": "; ".join(filter(None, (_vanished(record, written, under_way), looked.get("said")))),
        "left_behind": sorted(left),
        "looked": looked,
    }
    if (written or under_way) and journal.NAME not in withheld:
        told["journal"] = {"written": written, "under_way": under_way}
    if withheld:
        told["hygiene"] = {"hits": [hit.as_dict() for name in withheld for hit in hits[name]]}
    archive.recover(record, told, withheld=withheld)
    return {"id": record.id, "reason": told["reason"], "kept": sorted(set(left) - set(withheld)), "withheld": withheld}


def _vanished(record: Record, written: list[Any], under_way: list[Any]) -> str:
    if "intent" not in record.phases:
        return "it vanished before it announced any change"
    if not (written or under_way):
        return "it vanished after it announced changes, and left no word of having made any"
    return (
        f"it vanished; its journal names {len(written)} changes that it made, and {len(under_way)} that were under way"
    )


def look(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the cluster with what the run wanted, with the run's own parameters; nothing is changed.

    Args:
        facts: what the record says of the run.

    Returns:
        ``at``, and ``said`` in a sentence; with ``target`` and ``objects`` (step, target, now) where it could be done.
    """
    at = statement.stamp(dt.datetime.now(dt.UTC))
    section = section_of(str((facts.get("runbook") or {}).get("section", "")))
    if section is None:
        return {"at": at, "said": "the cluster was not looked at: this version does not know the runbook"}
    from runbooks.step import open_runbook  # the client's import is for those who need a cluster

    try:
        runbook = open_runbook(section.number, {**(facts.get("parameters") or {}), "mode": "verify"})
        target = runbook.target._repr_mimebundle_()[MIME]
        runbook.preconditions()
        changes = runbook.plan()._repr_mimebundle_()[MIME]["changes"]
    except RunbookError as error:
        return {"at": at, "said": f"the cluster could not be looked at: {error.lines()[0]}"}
    objects = [
        {"step": one["step"], "target": one["target"], "now": _NOW[Operation(one["operation"])]} for one in changes
    ]
    count = sum(one["now"] == _NOW[Operation.UNCHANGED] for one in objects)
    said = f"now {count} of {len(objects)} objects are as it wanted them"
    told = {name: value for name, value in target.items() if name not in ("view", "brief")}
    return {"at": at, "said": said, "target": told, "objects": objects}


@contextlib.contextmanager
def _confidant() -> Iterator[Confidant]:
    confidant = Confidant()
    os.environ[disclosure.VARIABLE] = str(confidant.path)
    try:
        yield confidant
    finally:
        del os.environ[disclosure.VARIABLE]
        confidant.close()


def _handled(facts: Mapping[str, Any]) -> list[Value]:
    section = section_of(str((facts.get("runbook") or {}).get("section", "")))
    return handled_secrets.of_run(section, facts.get("parameters") or {}) if section else []


def _hits(name: str, content: bytes, values: list[Value]) -> list[Hit]:
    if name.endswith(".ipynb"):
        return hygiene.scan_notebook(content, values)
    return hygiene.scan(content, values, f"({name})")
