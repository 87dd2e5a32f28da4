"""What 6.4.3 and 6.4.5 share: namespaces join the mesh."""

from __future__ import annotations

from typing import Any

from runbooks import manifests, readiness
from runbooks.kinds import MEMBER_ROLL, ObjectRef
from runbooks.manifests import MEMBER_ROLL_NAME
from runbooks.plan import Desired, SharedList
from runbooks.procedure.section import Awaited, Basis, Erratum
from runbooks.situation import Situation

MEMBERS = SharedList(("spec", "members"))
TITLE = "Add the namespaces to the mesh"
TITLE_JA = (
    "サービスメッシュと統合する必要のある namespace をメンバーとして ServiceMeshMemberRoll オブジェクトに追加します。"
)

NOTHING_TAKEN_OUT = Erratum(
    said="the complete member roll is applied",
    done="missing members are added one by one, and nothing is taken out",
    reason="the list is replaced as a whole on apply: other teams' namespaces would fall out of the mesh",
    versions="every version",
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
