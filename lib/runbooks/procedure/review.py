"""What a reader of a plan wants to know besides its fields: what waits on a change, and what follows from it; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from runbooks.kinds import ObjectRef
from runbooks.plan import Change, Operation, Plan, Waits, numbered
from runbooks.procedure.section import Section, Step
from runbooks.situation import Situation

Identity = tuple[str, ...]


def reviewed(section: Section, situation: Situation[Any], changes: Iterable[Change]) -> Plan:
    """The plan with all that a reviewer needs; its digest is that of the changes alone.

    In verify nothing is made, so nothing waits and nothing follows.
    """
    changes = numbered(changes)
    if situation.parameters.mode == "verify":
        return Plan(changes)
    waits = _waits(section, situation, changes)
    changes = tuple(replace(change, waits=waits.get((change.step, change.identity))) for change in changes)
    return Plan(changes, _consequences(section, situation, changes))


def _consequences(
    section: Section, situation: Situation[Any], changes: tuple[Change, ...]
) -> tuple[tuple[str, str], ...]:
    found = []
    for step in section.steps:
        made = tuple(change for change in changes if change.step == step.id and _is_made(change))
        found += [(step.id, said) for said in step.consequences(situation, made)] if made else []
    return tuple(found)


def _is_made(change: Change) -> bool:
    """Whether a change is really made: not what is there already, nor what the server or the plan itself refuses."""
    return change.operation is not Operation.UNCHANGED and not change.refused and not change.problems


def _waits(
    section: Section, situation: Situation[Any], changes: tuple[Change, ...]
) -> Mapping[tuple[str, Identity], Waits]:
    """What waits on each change that is made: on its object, or on what an operator makes of it."""
    planned = {change.identity for change in changes}
    own: dict[Identity, Waits] = {}
    made_of_it: dict[str, Waits] = {}
    for step, behind in _behind(section):
        refs = [entry.ref for entry in step.awaited(situation)]
        for ref in refs:
            own.setdefault(_identity(ref), Waits((str(ref),), step.id, behind))
        if brought := tuple(str(ref) for ref in refs if _identity(ref) not in planned):
            made_of_it[step.id] = Waits(brought, step.id, behind)
    after = {step.id: behind for step, behind in _behind(section)}
    found = {}
    for change in filter(_is_made, changes):
        waits = own.get(change.identity) or made_of_it.get(change.step)
        if change.operation is Operation.RESTART:
            waits = Waits((f"a new Pod of {change.identity[-1]}",), change.step, after[change.step])
        if waits:
            found[change.step, change.identity] = waits
    return found


def _behind(section: Section) -> list[tuple[Step, tuple[str, ...]]]:
    """Each step with what comes only once it has waited."""
    later = [step.id for step in section.steps]
    return [
        (step, (*([f"prove-{step.id}"] if step.checks else []), *later[position + 1 :]))
        for position, step in enumerate(section.steps)
    ]


def _identity(ref: ObjectRef) -> Identity:
    return (ref.kind.api_version, ref.kind.name, ref.namespace, ref.name)
