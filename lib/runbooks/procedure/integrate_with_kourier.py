"""What 6.4.5 is: Service Mesh beside Kourier, which stays the ingress of Knative Serving."""

from __future__ import annotations

from runbooks import manifests, preconditions
from runbooks.checks import serving_system as checks
from runbooks.checks.membership import MEMBERS_CONFIGURED, membership_rights
from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
    CONTROL_PLANE,
    CONTROL_PLANE_V1,
    KNATIVE_SERVING,
    MEMBER_ROLL,
    NAMESPACE,
    NETWORK_POLICY,
)
from runbooks.manifests import KOURIER_NAMESPACE, SERVING_NAMESPACE, SERVING_SYSTEM_POLICY
from runbooks.parameters import IntegrateWithKourier
from runbooks.plan import Change, Desired, Operation
from runbooks.procedure import membership
from runbooks.procedure.section import Basis, Erratum, Section, Step, added
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.verdicts import few
from runbooks.versions import BESIDE_KOURIER_UNTIL, EVERY_VERSION, OPERATORS_NAMESPACE, SERVERLESS_NAMESPACE, Range

_SYSTEM_NAMESPACES = (SERVING_NAMESPACE, KOURIER_NAMESPACE)


def _labels(_: Situation[IntegrateWithKourier]) -> tuple[Desired, ...]:
    return tuple(Desired(manifests.serving_system_label(name), amend=True) for name in _SYSTEM_NAMESPACES)


def _policies(situation: Situation[IntegrateWithKourier]) -> tuple[Desired, ...]:
    return tuple(
        Desired(manifests.serving_system_policy(member), exact=(("spec", "ingress"),), independent=True)
        for member in situation.parameters.all_members
    )


def _joining(situation: Situation[IntegrateWithKourier], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows for namespaces that join, and what is cut until each has its NetworkPolicy."""
    without = [
        member
        for member in added(changes, membership.MEMBERS)
        if situation.snapshot.get(NETWORK_POLICY, member, SERVING_SYSTEM_POLICY) is None
    ]
    cut = (
        f"{few(without)}: requests to Knative Services are cut from the joining until the NetworkPolicy of this plan "
        "is there, seconds later, since Kourier and the activator are outside of the mesh"
    )
    return (*membership.joining(situation, changes), *([cut] if without else []))


def _known_by_label(_: Situation[IntegrateWithKourier], changes: tuple[Change, ...]) -> tuple[str, ...]:
    names = few(change.identity[-1] for change in changes)
    return (
        (
            f"{names}: the Pods there are let in wherever a NetworkPolicy names the label; none of them restarts; "
            "other labels stay"
        ),
    )


def _let_in(_: Situation[IntegrateWithKourier], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows from the NetworkPolicies, new ones and changed ones."""
    names = few(change.identity[2] for change in changes)
    found = [
        (
            f"{names}: every Pod of Knative's two namespaces can reach every Pod there on every port; what other "
            "NetworkPolicies there let in stays, and whoever is let in by none is kept out"
        ),
    ]
    if changed := few(change.identity[2] for change in changes if change.operation is Operation.UPDATE):
        found.append(f"{changed}: whoever only the present rules of {SERVING_SYSTEM_POLICY} let in is kept out")
    return tuple(found)


INTEGRATE_WITH_KOURIER = Section(
    number="6.4.5",
    stem="6.4.5-integrate-with-kourier",
    title="Integrate Service Mesh with OpenShift Serverless where Kourier is enabled",
    heading_ja="Kourier が有効にされている場合のサービスメッシュの OpenShift Serverless との統合",
    changes="member roll, a NetworkPolicy in each application namespace, and a label on Knative's two namespaces",
    model=IntegrateWithKourier,
    path="kourier",
    reads=lambda given: (
        Read(CLUSTER_SERVICE_VERSION, SERVERLESS_NAMESPACE),
        Read(CLUSTER_SERVICE_VERSION, OPERATORS_NAMESPACE),
        Read(NAMESPACE),
        Read(CONTROL_PLANE, given.mesh_namespace),
        Read(CONTROL_PLANE_V1, given.mesh_namespace),
        Read(MEMBER_ROLL, given.mesh_namespace),
        Read(KNATIVE_SERVING, SERVING_NAMESPACE),
        checks.policies_read(given),
    ),
    needs=lambda _: (
        preconditions.account_rights,
        preconditions.serverless_operator,
        preconditions.mesh_operator_beside_kourier,
        preconditions.documented_beside_kourier,
        preconditions.control_plane,
        preconditions.mutual_tls_beside_kourier,
        preconditions.kourier_path,
        preconditions.member_namespaces,
        preconditions.sole_member_roll,
    ),
    steps=(
        # nothing waits for the members here: each namespace closes as it joins, so the door follows at once
        Step(
            id="member-roll",
            title=membership.TITLE,
            title_ja=membership.TITLE_JA,
            replaces=("oc apply -f member-roll.yaml",),
            objects=membership.member_roll,
            rights=membership_rights,
            consequences=_joining,
        ),
        Step(
            id="system-labels",
            title="Label the namespaces of Knative's system Pods",
            title_ja=(
                "knative.openshift.io/part-of ラベルを knative-serving および knative-serving-ingress "
                "ネームスペースに追加します。"
            ),
            replaces=(
                "oc label namespace knative-serving knative.openshift.io/part-of=openshift-serverless",
                "oc label namespace knative-serving-ingress knative.openshift.io/part-of=openshift-serverless",
            ),
            objects=_labels,
            consequences=_known_by_label,
        ),
        Step(
            id="network-policies",
            title="Let Knative's system Pods in to the application namespaces",
            title_ja=(
                "Knative システム Pod から Knative サービスへのトラフィックフローを許可する"
                "ネットワークポリシーを作成します。"
            ),
            replaces=("oc apply -f network-policy.yaml",),
            objects=_policies,
            awaits=membership.member_roll_ready,
            checks=(MEMBERS_CONFIGURED, checks.SYSTEM_ADMITTED, checks.STRANGER_REFUSED),
            consequences=_let_in,
        ),
    ),
    errata=(
        membership.NOTHING_TAKEN_OUT,
        Erratum(
            said="the label has to be added with Serverless 1.21.1 and earlier",
            done="it is added wherever it is missing",
            reason="the operator labels a namespace when it creates it; one that was there before never gets the label",
            versions=EVERY_VERSION,
            basis=Basis.DOCUMENTED,
        ),
        Erratum(
            said="Service Mesh can be used where Kourier is enabled",
            done="done as shown, with a warning",
            reason="the combination is deprecated, and newer documentation leaves it out",
            versions=Range(BESIDE_KOURIER_UNTIL),
            basis=Basis.NEWER,
            documented=BESIDE_KOURIER_UNTIL,
            kept=True,
        ),
        Erratum(
            said="nothing about mTLS",
            done="a warning where the control plane has it switched on",
            reason="Kourier and the activator have no sidecar, so Pods that have one refuse what they send",
            versions=EVERY_VERSION,
            basis=Basis.DOCUMENTED,
        ),
    ),
)
