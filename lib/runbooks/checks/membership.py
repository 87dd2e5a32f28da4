"""The namespaces that were added to the mesh really are in it."""

from __future__ import annotations

from runbooks.checks.check import Check, compared
from runbooks.cluster import Connection
from runbooks.kinds import MEMBER_ROLL, NAMESPACE
from runbooks.manifests import MEMBER_ROLL_NAME
from runbooks.parameters import Parameters
from runbooks.rights import Right
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.verdicts import Checked, few

MEMBER_OF = "maistra.io/member-of"


def _members_configured(title: str, situation: Situation[Parameters], _: Connection) -> Checked:
    given = situation.parameters
    roll = situation.snapshot.get(MEMBER_ROLL, given.mesh_namespace, MEMBER_ROLL_NAME) or {}
    configured = set(roll.get("status", {}).get("configuredMembers") or [])
    faults = []
    for member in given.all_members:
        namespace = situation.snapshot.get(NAMESPACE, "", member) or {"metadata": {}}
        mesh = (namespace["metadata"].get("labels") or {}).get(MEMBER_OF)
        if member not in configured:
            faults.append(f"{member} is not in status.configuredMembers")
        elif mesh != given.mesh_namespace:
            faults.append(f"namespace {member} carries {MEMBER_OF}={mesh}")
    return compared(
        title,
        f"{few(given.all_members)} in status.configuredMembers and labelled {MEMBER_OF}={given.mesh_namespace}",
        faults,
        "the member roll's status and the labels that the operator put on the namespaces",
        "see the member roll's status.memberStatuses for the operator's reason",
    )


def _member_reads(given: Parameters) -> tuple[Read, ...]:
    return (Read(MEMBER_ROLL, given.mesh_namespace), Read(NAMESPACE))


def membership_rights(given: Parameters) -> tuple[Right, ...]:
    """The mesh's own webhook asks for update on Pods in each namespace that joins."""
    return tuple(Right("", "pods", "update", member) for member in given.all_members)


MEMBERS_CONFIGURED = Check("The namespaces are configured members", _members_configured, _member_reads)
