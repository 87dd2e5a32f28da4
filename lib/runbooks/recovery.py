"""Closing a run that vanished: what it left behind, what its journal says, and what the cluster says now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from runbooks import disclosure, handled_secrets, journal
from runbooks.errors import RunbookError
from runbooks.keeper import MIME
from runbooks.plan import Operation
from runbooks.procedure import section_of
from runbooks.record import archive as archives
from runbooks.record import hygiene, statement
from runbooks.record.archive import Archive, Record, Run
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
    with archive.taken_over(record) as run:
        return _close(archive, run, record)


def _close(archive: Archive, run: Run, record: Record) -> dict[str, Any]:
    paths, facts = archive.left_behind(record.id), record.facts()
    left = {path.name: archives.read_file(path) for path in paths}
    announced = "intent" in record.phases
    with disclosure.listening() as confidant:
        looked = look(facts) if announced or _heard(run) else {}
        heard = [Value(*one) for one in confidant.heard()]
    values = [*_handled(facts), *heard]
    lost = _heard(run) - {value.name for value in values}
    hits = {name: _hits(name, content, values, lost) for name, content in left.items()}
    withheld = frozenset(name for name, found in hits.items() if found)
    written, under_way = journal.read(left.get(journal.NAME, b""))
    said = hygiene.shown(looked.get("said", ""), values)
    told: dict[str, Any] = {
        "outcome": "unknown",
        "reason": "; ".join(filter(None, (_vanished(record, written, under_way), said if announced else ""))),
        "left_behind": sorted(left),
    }
    more: dict[str, Any] = {"looked": {**looked, "said": said}} if announced else {}
    if (written or under_way) and journal.NAME not in withheld:
        more["journal"] = {"written": written, "under_way": under_way}
    found = hygiene.scan_value(more, values, "(recovery)")
    told |= {} if found else more
    if found := [hit for name in sorted(withheld) for hit in hits[name]] + found:
        told["hygiene"] = {"hits": [hit.as_dict() for hit in found]}
    run.close("recovery", paths, told, withheld)
    kept = sorted(set(left) - withheld)
    return {"id": record.id, "reason": told["reason"], "kept": kept, "withheld": sorted(withheld)}


def _heard(run: Run) -> set[str]:
    """The names of the secrets that the run's kernel had told its runner."""
    notes = run.workspace / disclosure.NOTES
    return set(notes.read_text().splitlines()) if notes.exists() else set()


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
    objects = [{"step": one["step"], "target": one["target"], "now": _now(one)} for one in changes]
    count = sum(one["now"] == _NOW[Operation.UNCHANGED] for one in objects)
    said = f"now {count} of {len(objects)} objects are as it wanted them"
    told = {name: value for name, value in target.items() if name not in ("view", "brief")}
    return {"at": at, "said": said, "target": told, "objects": objects}


def _now(change: Mapping[str, Any]) -> str:
    if said := change.get("unread"):
        return f"not known ({said})"
    return _NOW[Operation(change["operation"])]


def _handled(facts: Mapping[str, Any]) -> list[Value]:
    section = section_of(str((facts.get("runbook") or {}).get("section", "")))
    return handled_secrets.of_run(section, facts.get("parameters") or {}) if section else []


def _hits(name: str, content: bytes, values: list[Value], lost: set[str]) -> list[Hit]:
    """Every secret in a file; what could not be searched for counts as found."""
    unknown = [Hit(f"({name})", secret, "not searched for: its value is not known any more") for secret in sorted(lost)]
    return hygiene.scan_file(name, content, values) + unknown
