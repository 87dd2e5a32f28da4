"""The rights that a section needs, from what it reads and leaves behind."""

from __future__ import annotations

from typing import Any

from runbooks.kinds import CLUSTER_VERSION, ObjectRef
from runbooks.manifests import UNKNOWN_NAME
from runbooks.parameters import Parameters
from runbooks.plan import Desired
from runbooks.procedure.section import Section
from runbooks.rights import Right
from runbooks.situation import Situation

_WRITE_VERBS = ("get", "create", "patch")


def rights_to_read(section: Section, parameters: Parameters) -> tuple[Right, ...]:
    """What verify needs: one list for each read, the cluster's own id, and what the section names besides.

    The cluster-local proof needs ``create pods/portforward`` besides; without it that effect is "not proven".
    """
    found = {Right.on(read.kind, "list", read.namespace, read.name) for read in section.all_reads(parameters)}
    found |= set(section.rights(parameters))
    return tuple(sorted(found | {Right.on(CLUSTER_VERSION, "get", name="version")}))


def rights_to_write(section: Section, situation: Situation[Any]) -> tuple[Right, ...]:
    """What plan (with the server's opinion) and apply need besides.

    A create by server-side apply is authorised with the object's name, so the right may be bound to it.
    """
    found = set()
    for step in section.steps:
        for desired in step.objects(situation):
            if isinstance(desired, Desired):
                ref = desired.ref
                verbs = _WRITE_VERBS if not desired.amend else ("get", "patch")
                found |= {_right(ref, verb) for verb in verbs}
        found |= {_right(awaited.ref, "get") for awaited in step.awaited(situation)}
        found |= set(step.rights(situation.parameters))
    return tuple(sorted(found))


def _right(ref: ObjectRef, verb: str) -> Right:
    """The right on one object, or on any of its namespace where its name is not known yet."""
    return Right.on(ref.kind, verb, ref.namespace, "" if ref.name == UNKNOWN_NAME else ref.name)
