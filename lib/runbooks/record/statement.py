"""What an entry says: an in-toto Statement about a notebook's exact bytes, made from the facts of a run; pure.

The facts are what the runbook's own ``outcome`` and ``plan`` cells put out, and what whoever started the run knows
(host, ticket, how it ended). Facts that have no field of their own are kept under ``other``: nothing is dropped.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runbooks.errors import NotChecked

# RFC 4151; .example can never belong to anybody, and the meaning of a tag never changes
PREDICATE = "tag:serverless-mesh-runbooks.example,2026:change-record/v1"
STATEMENT = "https://in-toto.io/Statement/v1"
STAND_INS = ("plan:", "source:", "run:")  # what a statement is about where there is no file yet; no file is called so

# field of the predicate: its own names, and the facts that they are taken from
_FIELDS: Mapping[str, Mapping[str, str]] = {
    "runbook": {
        "section": "section",
        "name": "runbook",
        "version": "version",
        "mode": "mode",
        "source": "source",
    },
    "time": {"started": "started", "finished": "finished"},
    "outcome": {
        "outcome": "outcome",
        "reason": "reason",
        "exit_code": "exit_code",
        "ended_by": "ended_by",
        "cell": "cell",
    },
}
_WHOLE = (
    "parameters",
    "requests",
    "waited",
    "hygiene",
    "notebook",
    "cannot_be_vouched_for",
    "journal",
    "looked",
    "approval",
)
_ACTOR = ("user", "groups", "uid", "impersonated_by")
_TAKEN = {fact for fields in _FIELDS.values() for fact in fields.values()} | {
    *_WHOLE,
    *("target", "plan", "applied", "checks", "preconditions", "change", "machine", "view", "brief"),
}


@dataclass(frozen=True)
class Place:
    """Where in the archive an entry stands.

    Args:
        archive: the archive's id.
        phase: start, intent, result, recovery or adoption.
        sequence: its position in the log.
        previous: sha256 of the envelope before it; for the first one, of ``ARCHIVE.json``.
        run: the run's id.
        closes: sha256 of the run's earlier envelopes, by phase.
        signed: when.
        clock_back_s: by how much the clock stands before the entry before; 0 where it went forward.
    """

    archive: str
    phase: str
    sequence: int
    previous: str
    run: str
    closes: Mapping[str, str]
    signed: dt.datetime
    clock_back_s: float = 0.0


def make(place: Place, subjects: Mapping[str, str], facts: Mapping[str, Any]) -> bytes:
    """The statement as the bytes that are signed.

    Args:
        place: where in the archive it stands.
        subjects: names of files in the record's folder, and the sha256 of their bytes.
        facts: what is known of the run.
    """
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": PREDICATE,
        "predicate": predicate(place, facts),
    }
    text = json.dumps(statement, ensure_ascii=False, indent=1, default=str)
    return text.encode(errors="backslashreplace")  # half a character pair, from bytes that were no text, as JSON has it


def predicate(place: Place, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a change record, as far as the facts have them."""
    target, plan = dict(facts.get("target") or {}), facts.get("plan") or {}
    found: dict[str, Any] = {
        "phase": place.phase,
        "sequence": place.sequence,
        "previous": place.previous,
        "archive": place.archive,
        "run": {"id": place.run, **place.closes},
        **_who(place.phase, target, facts.get("machine") or {}),
        "cluster": {name: value for name, value in target.items() if name not in (*_ACTOR, "mode")},
        "change": _change(facts),
        "plan": {name: plan[name] for name in ("digest", "consequences") if plan.get(name)},
        "objects": objects(facts),
        "checks": _checks(facts),
        **{name: _picked(facts, fields) for name, fields in _FIELDS.items()},
        **{name: facts.get(name) for name in _WHOLE},
        "other": {name: value for name, value in facts.items() if name not in _TAKEN},
    }
    found["time"] |= {"signed": stamp(place.signed)}
    if place.clock_back_s:
        found["time"]["clock_back_s"] = round(place.clock_back_s, 3)
    return {name: value for name, value in found.items() if value not in (None, {}, [])}


def stamp(moment: dt.datetime) -> str:
    """A moment as records have it: UTC, to the millisecond."""
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _picked(facts: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: facts[fact] for name, fact in fields.items() if facts.get(fact) not in (None, "")}


def _who(phase: str, target: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Who, as the API server sees them, and from which machine; whoever closes or adopts a run is somebody else."""
    actor = {name: target[name] for name in _ACTOR if target.get(name)}
    if phase in ("recovery", "adoption"):
        return {"actor": actor, "signed_by": dict(machine)}
    return {"actor": actor | dict(machine)}


def _change(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The ticket and the reason: given by whoever starts the run, or parameters of the runbook."""
    parameters = facts.get("parameters") or {}
    asked = {"ticket": parameters.get("change_ticket"), "reason": parameters.get("reason")}
    return {name: value for name, value in {**asked, **(facts.get("change") or {})}.items() if value}


def objects(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every object that was to change, with old and new values, and for what was written when and the audit id."""
    written = {(entry.get("step"), entry.get("target")): entry for entry in facts.get("applied") or ()}
    found = []
    for change in (facts.get("plan") or {}).get("changes", ()):
        key = (change.get("step"), change.get("target"))
        found.append({**change, **_written(written.pop(key, None))})
    # a write that no plan announced is the last thing that a record may leave out
    return found + [{**entry, **_written(entry), "planned": False} for entry in written.values()]


def _written(entry: Mapping[str, Any] | None) -> dict[str, Any]:
    if entry is None:
        return {"written": False}
    return {"written": True, **{name: entry[name] for name in ("at", "audit_id") if entry.get(name)}}


def _checks(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    before = [{"when": "before", **finding} for finding in facts.get("preconditions") or ()]
    return before + [{"when": "after", **check} for check in facts.get("checks") or ()]


@dataclass(frozen=True)
class Read:
    """A statement as it was read from an envelope.

    Args:
        subjects: names of files and the sha256 of their bytes.
        predicate: the fields of the change record.
    """

    subjects: Mapping[str, str]
    predicate: Mapping[str, Any]


def read(payload: bytes, named: str) -> Read:
    """The statement in an envelope.

    Raises:
        NotChecked: it is none of ours.
    """
    try:
        found = json.loads(payload)
        if found["predicateType"] != PREDICATE or found["_type"] != STATEMENT:
            raise ValueError(found["predicateType"])
        subjects = {str(one["name"]): str(one["digest"]["sha256"]) for one in found["subject"]}
        return Read(subjects, dict(found["predicate"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        said, remedy = "it is no change record of a known version", "use the version of this package that made it"
        raise NotChecked(f"reading the statement in {named}", said, remedy) from error


def overall(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All that a run's entries say, in their order: what comes later counts, and what it leaves out stays."""
    found: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            older = found.get(name)
            both = isinstance(older, Mapping) and isinstance(value, Mapping)
            found[name] = {**older, **value} if both else value  # type: ignore[dict-item]
    return found
