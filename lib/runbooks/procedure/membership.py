"""What 6.4.3 and 6.4.5 share: namespaces join the mesh."""

from __future__ import annotations

from typing import Any

from runbooks import manifests, readiness
from runbooks.kinds import CONTROL_PLANE, MEMBER_ROLL, ObjectRef
from runbooks.manifests import MEMBER_ROLL_NAME
from runbooks.plan import Change, Desired, SharedList
from runbooks.procedure.section import Awaited, Basis, Erratum, added
from runbooks.situation import Situation
from runbooks.verdicts import few
from runbooks.versions import EVERY_VERSION

MEMBERS = SharedList(("spec", "members"))
TITLE = "Add the namespaces to the mesh"
TITLE_JA = (
    "サービスメッシュと統合する必要のある namespace をメンバーとして ServiceMeshMemberRoll オブジェクトに追加します。"
)

NOTHING_TAKEN_OUT = Erratum(
    said="the complete member roll is applied",
    done="missing members are added one by one, and nothing is taken out",
    reason="the list is replaced as a whole on apply: other teams' namespaces would fall out of the mesh",
    versions=EVERY_VERSION,
    basis=Basis.STANDARD,
)


def member_roll(situation: Situation[Any]) -> tuple[Desired, ...]:
    """The member roll, of which only the missing members are ever written."""
    given = situation.parameters
    return (Desired(manifests.member_roll(given.mesh_namespace, given.all_members), shared_lists=(MEMBERS,)),)


def member_roll_ready(situation: Situation[Any]) -> tuple[Awaited, ...]:
    """The member roll with every member of this section configured."""
    given = situation.parameters
    ref = ObjectRef(MEMBER_ROLL, given.mesh_namespace, MEMBER_ROLL_NAME)
    return (Awaited(ref, lambda live: readiness.member_roll(live, given.all_members)),)


def joining(situation: Situation[Any], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows for namespaces that join the mesh."""
    new = added(changes, MEMBERS)
    if not new:
        return ()
    live = situation.snapshot.get(MEMBER_ROLL, situation.parameters.mesh_namespace, MEMBER_ROLL_NAME) or {}
    present = (live.get("spec") or {}).get("members") or []
    found = [
        _closed(situation, few(new)),
        (
            f"Pods that run in {few(new)} get no sidecar until they are made anew, and nothing here restarts them; "
            "Pods made from then on get one where they ask for it"
        ),
    ]
    if present:
        found.append(
            f"the members that are in the list already, {len(present)}, stay in it, and nothing changes for them"
        )
    return tuple(found)


def _closed(situation: Situation[Any], names: str) -> str:
    if _keeps_policies(situation):
        return (
            f"{names}: Pods outside of the mesh can reach nothing there any more, as soon as the operator has put "
            "its NetworkPolicies there; members of the mesh can, and so can whoever another NetworkPolicy there lets in"
        )
    return (
        f"{names}: nobody is kept out by the membership, since the control plane says manageNetworkPolicy: false and "
        "the operator adds no NetworkPolicies"
    )


def _keeps_policies(situation: Situation[Any]) -> bool:
    """Whether the operator of the mesh keeps NetworkPolicies in its members, which it does unless it is told not to."""
    planes = situation.snapshot.objects(CONTROL_PLANE, situation.parameters.mesh_namespace)
    return all(((p.get("spec") or {}).get("security") or {}).get("manageNetworkPolicy") is not False for p in planes)
