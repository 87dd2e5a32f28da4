"""6.4.5 without a cluster: its preconditions, its evaluated policies, and what it has of the foundation for many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import pytest
import yaml

from runbooks import cluster, display, manifests, preconditions, readiness
from runbooks.checks.check import Check, compared
from runbooks.checks.membership import MEMBERS_CONFIGURED, membership_rights
from runbooks.checks.serving_system import QUEUE_PORTS, STRANGER_REFUSED, SYSTEM_ADMITTED
from runbooks.cluster import Connection
from runbooks.errors import Forbidden, NotServed, ParameterError, ServerRefused
from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
    CONTROL_PLANE,
    CONTROL_PLANE_V1,
    KNATIVE_SERVING,
    MEMBER_ROLL,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
)
from runbooks.parameters import IntegrateWithKourier
from runbooks.parameters import check as check_parameters
from runbooks.plan import Change, Desired, Operation, Plan, change_of, compare
from runbooks.procedure import SECTIONS, path_of
from runbooks.procedure.membership import MEMBERS
from runbooks.procedure.needed_rights import rights_to_read, rights_to_write
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.verdicts import Finding, Proof, Verdict

NUMBER = "6.4.5"
NOBODY = cast(Connection, None)  # the checks here judge what was read, and ask nobody
PART_OF = manifests.PART_OF_SERVERLESS
POLICY = manifests.SERVING_SYSTEM_POLICY
FORBIDDEN = Forbidden("listing", "it is forbidden", status=403)
ABSENT = NotServed("listing", "the server could not find the requested resource", status=404)

Situate = Callable[..., Situation[Any]]


def names(count: int) -> list[str]:
    return [f"team-{number:03}" for number in range(count)]


# --- what it is --------------------------------------------------------------------------------------------------


def test_the_policy_is_the_pages() -> None:
    page = """
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: allow-from-serving-system-namespace
      namespace: shop
    spec:
      ingress:
        - from:
            - namespaceSelector:
                matchLabels:
                  knative.openshift.io/part-of: "openshift-serverless"
      podSelector: {}
      policyTypes:
        - Ingress
    """
    assert yaml.safe_load(page) == manifests.serving_system_policy("shop")


def test_the_label_is_that_of_oc_label_namespace() -> None:
    assert {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "knative-serving", "labels": {"knative.openshift.io/part-of": "openshift-serverless"}},
    } == manifests.serving_system_label("knative-serving")


def test_namespaces_are_amended_and_only_policies_are_on_their_own(situate: Situate) -> None:
    section = SECTIONS[NUMBER]
    found = {
        step.id: [cast(Desired, wanted) for wanted in step.objects(situate(NUMBER, members=["shop", "billing"]))]
        for step in section.steps
    }
    assert ["knative-serving", "knative-serving-ingress"] == [one.ref.name for one in found["system-labels"]]
    assert all(one.amend for one in found["system-labels"])
    assert ["shop", "billing"] == [one.ref.namespace for one in found["network-policies"]]
    assert all(one.independent and not one.amend for one in found["network-policies"])
    assert ["shop", "billing"] == found["member-roll"][0].manifest["spec"]["members"]


def test_each_path_has_its_sections_in_the_documented_order() -> None:
    assert list(SECTIONS) == sorted(SECTIONS)
    assert NUMBER in [section.number for section in path_of("kourier")]
    assert not {"6.4.2", "6.4.3", "6.4.4", "6.4.6"} & {section.number for section in path_of("kourier")}
    assert NUMBER not in [section.number for section in path_of("istio")]


def test_one_list_for_all_namespaces_and_rights_for_each() -> None:
    given = IntegrateWithKourier(context="x", members=["shop", "billing"])
    reads = [str(right) for right in rights_to_read(SECTIONS[NUMBER], given)]
    assert "list networkpolicies.networking.k8s.io" in reads
    assert not [right for right in reads if "networkpolicies" in right and "shop" in right]
    policies = next(read for read in SECTIONS[NUMBER].all_reads(given) if read.kind == NETWORK_POLICY)
    assert ("shop", "billing") == policies.otherwise
    assert ["update pods in namespace shop", "update pods in namespace billing"] == [
        str(right) for right in membership_rights(given)
    ]


def test_writing_needs_no_right_to_create_a_namespace(situate: Situate) -> None:
    writes = [str(right) for right in rights_to_write(SECTIONS[NUMBER], situate(NUMBER, members=["shop"]))]
    assert f"create networkpolicies.networking.k8s.io {POLICY} in namespace shop" in writes
    assert "patch namespaces knative-serving-ingress" in writes
    assert not [right for right in writes if right.startswith("create namespaces")]


@pytest.mark.parametrize("name", ["knative-serving", "knative-serving-ingress"])
def test_knatives_own_namespaces_stay_outside(name: str) -> None:
    with pytest.raises(ParameterError, match=f"members: '{name}' stays outside of the mesh"):
        check_parameters(IntegrateWithKourier, {"context": "x", "members": ["shop", name]})


# --- preconditions -----------------------------------------------------------------------------------------------


def judged(finding: Finding) -> tuple[Verdict, str]:
    assert finding.remedy or finding.verdict is Verdict.MET
    return finding.verdict, finding.said


def serving(ingress: dict[str, Any] | None, ready: str = "True") -> Live:
    names = ("InstallSucceeded", "DependenciesInstalled", "DeploymentsAvailable", "Ready")
    conditions = [{"type": name, "status": ready, "message": "not yet"} for name in names]
    spec = {} if ingress is None else {"ingress": ingress}
    metadata = {"name": "knative-serving", "namespace": "knative-serving"}
    return {"metadata": metadata, "spec": spec, "status": {"conditions": conditions}}


ON = {"enabled": True}
PRESENT = "knative-serving/knative-serving"


@pytest.mark.parametrize(
    ("ingress", "verdict", "said"),
    [
        ({"kourier": ON}, Verdict.MET, f"{PRESENT} with Kourier"),
        ({"kourier": ON, "istio": ON}, Verdict.MET, f"{PRESENT} with Kourier"),
        ({"kourier": ON, "istio": {"enabled": False}}, Verdict.MET, f"{PRESENT} with Kourier"),
        ({}, Verdict.MET, f"{PRESENT} with Kourier, the default"),
        (None, Verdict.MET, f"{PRESENT} with Kourier, the default"),
        ({"istio": {"enabled": False}}, Verdict.MET, f"{PRESENT} with Kourier, the default"),
        ({"istio": ON}, Verdict.NOT_MET, "Istio is the only ingress of this cluster"),
        ({"istio": ON, "kourier": {"enabled": False}}, Verdict.NOT_MET, "Istio is the only ingress of this cluster"),
        ({"contour": ON}, Verdict.NOT_MET, "contour serves on this cluster"),
        ({"contour": ON, "istio": ON}, Verdict.NOT_MET, "contour and istio serves on this cluster"),
    ],
)
def test_kourier_serves(ingress: dict[str, Any] | None, verdict: Verdict, said: str, situate: Situate) -> None:
    found = preconditions.kourier_path(situate(NUMBER, {KNATIVE_SERVING: [serving(ingress)]}, ingress="kourier"))
    assert (verdict, said) == judged(found)
    assert ("6.4.3" if said.startswith("Istio") else "") == found.see


def test_serving_that_is_not_installed_is_said_so_with_what_to_create(situate: Situate) -> None:
    found = preconditions.kourier_path(situate(NUMBER, {KNATIVE_SERVING: []}, ingress="kourier"))
    assert (Verdict.NOT_MET, "Knative Serving is not installed") == judged(found)
    assert "spec.ingress.kourier.enabled: true" in found.remedy


def test_serving_that_is_not_ready_yet_is_a_warning(situate: Situate) -> None:
    found = preconditions.kourier_path(situate(NUMBER, {KNATIVE_SERVING: [serving({}, "False")]}, ingress="kourier"))
    assert Verdict.WARNING is judged(found)[0]
    assert "DeploymentsAvailable is False: not yet" in found.said


def test_an_environment_of_the_istio_path_is_sent_to_6_4_3(situate: Situate) -> None:
    found = preconditions.kourier_path(situate(NUMBER, {KNATIVE_SERVING: [serving({"kourier": ON})]}))
    assert (Verdict.NOT_MET, "cluster.yaml says ingress: istio, and 6.4.5 is of the Kourier path") == judged(found)
    assert "6.4.3" == found.see


@pytest.mark.parametrize(
    ("error", "verdict"), [(FORBIDDEN, Verdict.UNKNOWN), (ABSENT, Verdict.NOT_MET)], ids=["forbidden", "absent"]
)
def test_serving_that_cannot_be_read(error: ServerRefused, verdict: Verdict, situate: Situate) -> None:
    found = preconditions.kourier_path(situate(NUMBER, refused={KNATIVE_SERVING: error}, ingress="kourier"))
    assert verdict is judged(found)[0]


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("servicemeshoperator.v1.0.0", Verdict.MET),
        ("servicemeshoperator.v1.1.18-0", Verdict.MET),
        ("servicemeshoperator.v2.0.4", Verdict.MET),
        ("servicemeshoperator.v2.6.1", Verdict.MET),
        ("servicemeshoperator.v2.7.0", Verdict.WARNING),
        ("servicemeshoperator3.v3.0.0", Verdict.NOT_MET),
        ("something-else.v1.0.0", Verdict.NOT_MET),
    ],
)
def test_the_mesh_may_be_1_or_2(name: str, verdict: Verdict, situate: Situate, csv: Callable[..., Live]) -> None:
    found = preconditions.mesh_operator_beside_kourier(situate(NUMBER, {CLUSTER_SERVICE_VERSION: [csv(name)]}))
    assert verdict is judged(found)[0]


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("1.26.0", Verdict.MET), ("1.30.2", Verdict.MET), ("1.31.0", Verdict.WARNING), ("1.38.0", Verdict.WARNING)],
)
def test_from_1_31_on_the_combination_is_no_longer_documented(
    version: str, verdict: Verdict, situate: Situate, csv: Callable[..., Live]
) -> None:
    situation = situate(NUMBER, {CLUSTER_SERVICE_VERSION: [csv(f"serverless-operator.v{version}")]})
    assert verdict is judged(preconditions.documented_beside_kourier(situation))[0]


def plane(spec: dict[str, Any] | None = None) -> Live:
    conditions = [{"type": name, "status": "True"} for name in ("Reconciled", "Ready")]
    metadata = {"name": "basic", "namespace": "istio-system"}
    return {"metadata": metadata, "spec": spec or {}, "status": {"conditions": conditions}}


def test_a_control_plane_of_service_mesh_1_will_do(situate: Situate) -> None:
    situation = situate(NUMBER, {CONTROL_PLANE_V1: [plane()]}, refused={CONTROL_PLANE: ABSENT})
    assert (Verdict.MET, "istio-system/basic") == judged(preconditions.control_plane(situation))


def test_where_service_mesh_1_has_no_control_plane_that_is_what_is_said(situate: Situate) -> None:
    situation = situate(NUMBER, {CONTROL_PLANE_V1: []}, refused={CONTROL_PLANE: ABSENT})
    assert (Verdict.NOT_MET, "there is none in istio-system") == judged(preconditions.control_plane(situation))


def test_where_neither_api_is_served_the_operator_is_missing(situate: Situate) -> None:
    situation = situate(NUMBER, refused={CONTROL_PLANE: ABSENT, CONTROL_PLANE_V1: ABSENT})
    found = preconditions.control_plane(situation)
    assert (Verdict.NOT_MET, "the cluster does not know ServiceMeshControlPlane (maistra.io/v2)") == judged(found)


@pytest.mark.parametrize(
    ("kind", "spec", "mtls", "verdict"),
    [
        (CONTROL_PLANE, {}, "any", Verdict.MET),
        (CONTROL_PLANE, {"security": {"dataPlane": {"mtls": True}}}, "any", Verdict.WARNING),
        (CONTROL_PLANE, {"security": {"dataPlane": {"mtls": True}}}, "required", Verdict.WARNING),
        (CONTROL_PLANE, {"security": {"dataPlane": {"mtls": False}}}, "any", Verdict.MET),
        (CONTROL_PLANE, {}, "required", Verdict.NOT_MET),
        (CONTROL_PLANE_V1, {"istio": {"global": {"mtls": {"enabled": True}}}}, "any", Verdict.WARNING),
        (CONTROL_PLANE_V1, {"istio": {"global": {}}}, "any", Verdict.MET),
    ],
)
def test_mutual_tls_beside_kourier_is_a_warning(
    kind: Any, spec: dict[str, Any], mtls: str, verdict: Verdict, situate: Situate
) -> None:
    refused = {} if kind is CONTROL_PLANE else {CONTROL_PLANE: ABSENT}
    situation = situate(NUMBER, {kind: [plane(spec)]}, refused=refused, mtls=mtls)
    assert verdict is judged(preconditions.mutual_tls_beside_kourier(situation))[0]


def test_a_right_that_is_missing_in_many_namespaces_is_named_once(situate: Situate) -> None:
    members = names(1000)
    rights = rights_to_write(SECTIONS[NUMBER], situate(NUMBER, members=members))
    found = preconditions.account_rights(situate(NUMBER, denied=rights, members=members, mode="apply"))
    assert Verdict.NOT_MET is found.verdict
    assert "update pods in 1,000 namespaces; " in found.said
    assert f"create networkpolicies.networking.k8s.io {POLICY} in 1,000 namespaces" in found.said
    assert "patch namespaces knative-serving-ingress" in found.said
    assert len(found.said) < 1000


@pytest.mark.parametrize("error", [FORBIDDEN, ABSENT], ids=["forbidden", "absent"])
def test_mutual_tls_that_cannot_be_read_is_not_off(error: ServerRefused, situate: Situate) -> None:
    situation = situate(NUMBER, refused={CONTROL_PLANE: error, CONTROL_PLANE_V1: error})
    assert judged(preconditions.mutual_tls_beside_kourier(situation))[0] in (Verdict.UNKNOWN, Verdict.NOT_MET)


def test_of_many_missing_namespaces_ten_are_named(situate: Situate) -> None:
    found = preconditions.member_namespaces(situate(NUMBER, {NAMESPACE: []}, members=names(1000)))
    assert Verdict.NOT_MET is found.verdict
    assert found.said.startswith("team-000, team-001, ")
    assert found.said.endswith("team-009, and 990 more does not exist")
    assert 10 == found.remedy.count("oc new-project")


# --- effects -----------------------------------------------------------------------------------------------------


def namespace(name: str, labels: dict[str, str] | None = None) -> Live:
    return {"metadata": {"name": name, "labels": labels} if labels else {"name": name}}


def pod(name: str, where: str, app: str, phase: str = "Running") -> Live:
    return {"metadata": {"name": name, "namespace": where, "labels": {"app": app}}, "status": {"phase": phase}}


GATEWAY = pod("gateway-1", "knative-serving-ingress", "3scale-kourier-gateway")
ACTIVATOR = pod("activator-1", "knative-serving", "activator")


def of_mesh(name: str) -> Live:
    source = {"namespaceSelector": {"matchLabels": {"maistra.io/member-of": "istio-system"}}}
    spec = {"podSelector": {}, "ingress": [{"from": [source]}], "policyTypes": ["Ingress"]}
    return {"metadata": {"name": "istio-mesh-basic", "namespace": name}, "spec": spec}


def integrated(
    situate: Situate,
    members: list[str],
    *,
    policies: Iterable[Live] | None = None,
    pods: Iterable[Live] = (GATEWAY, ACTIVATOR),
    ingress_labels: dict[str, str] | None = PART_OF,
    serving_labels: dict[str, str] | None = PART_OF,
) -> Situation[Any]:
    """What a cluster looks like after 6.4.5, with whatever is wrong."""
    good = [policy for name in members for policy in (of_mesh(name), manifests.serving_system_policy(name))]
    namespaces = [namespace("knative-serving", serving_labels), namespace("knative-serving-ingress", ingress_labels)]
    namespaces += [namespace(name, {"maistra.io/member-of": "istio-system"}) for name in members]
    found = {NETWORK_POLICY: good if policies is None else policies, NAMESPACE: namespaces, POD: pods}
    roll = {
        "metadata": {"name": "default", "namespace": "istio-system"},
        "status": {"configuredMembers": members},
    }
    return situate(NUMBER, {**found, MEMBER_ROLL: [roll]}, members=members)


def looked(check: Check, situation: Situation[Any]) -> tuple[Proof, str]:
    found = check.look(situation, NOBODY)
    return found.proof, found.observed


def test_where_everything_is_as_wanted_all_is_proven(situate: Situate) -> None:
    situation = integrated(situate, ["billing", "shop"])
    for check in (SYSTEM_ADMITTED, STRANGER_REFUSED, MEMBERS_CONFIGURED):
        assert Proof.PROVEN is looked(check, situation)[0]


@pytest.mark.parametrize(
    ("wrong", "observed"),
    [
        (
            {"ingress_labels": None},
            "3scale-kourier-gateway in knative-serving-ingress does not get in to billing, shop",
        ),
        ({"serving_labels": {**PART_OF, "knative.openshift.io/part-of": "x"}}, "activator in knative-serving does not"),
        ({"pods": (ACTIVATOR,)}, "no Pod of 3scale-kourier-gateway runs in knative-serving-ingress"),
        ({"pods": (GATEWAY, {**ACTIVATOR, "status": {"phase": "Failed"}})}, "no Pod of activator runs"),
        (
            {"policies": [of_mesh("billing"), manifests.serving_system_policy("billing"), of_mesh("shop")]},
            "3scale-kourier-gateway in knative-serving-ingress does not get in to shop",
        ),
    ],
)
def test_what_keeps_kourier_or_the_activator_out_is_named(
    wrong: dict[str, Any], observed: str, situate: Situate
) -> None:
    proof, said = looked(SYSTEM_ADMITTED, integrated(situate, ["billing", "shop"], **wrong))
    assert Proof.FAILED is proof
    assert said.startswith(observed)


def test_a_policy_for_one_port_is_not_enough(situate: Situate) -> None:
    narrow = manifests.serving_system_policy("shop")
    narrow["spec"]["ingress"][0]["ports"] = [{"port": QUEUE_PORTS[0]}]
    proof, _ = looked(SYSTEM_ADMITTED, integrated(situate, ["shop"], policies=[narrow]))
    assert Proof.FAILED is proof


def test_of_a_thousand_namespaces_ten_are_named_for_each_kind_of_pod(situate: Situate) -> None:
    members = names(1000)
    situation = integrated(situate, members, policies=[of_mesh(name) for name in members])
    found = SYSTEM_ADMITTED.look(situation, NOBODY)
    assert 2 == found.observed.count("and 990 more")
    assert len(found.observed) < 400
    assert len(found.expected) < 300
    assert Proof.PROVEN is looked(SYSTEM_ADMITTED, integrated(situate, members))[0]
    assert len(MEMBERS_CONFIGURED.look(situation, NOBODY).expected) < 300


def opened(name: str) -> Live:
    return {"metadata": {"name": "allow-all", "namespace": name}, "spec": {"podSelector": {}, "ingress": [{}]}}


def ours_opened(name: str) -> Live:
    found = manifests.serving_system_policy(name)
    return {**found, "spec": {**found["spec"], "ingress": [{}]}}


@pytest.mark.parametrize(
    ("policies", "proof", "observed"),
    [
        ([], Proof.FAILED, "no policy keeps anybody out of shop"),
        ([of_mesh("shop")], Proof.PROVEN, "it gets in to none of shop"),
        ([ours_opened("shop")], Proof.FAILED, f"{POLICY} lets it in to shop"),
        ([manifests.serving_system_policy("shop"), opened("shop")], Proof.UNPROVEN, "others let everybody in"),
        ([ours_opened("shop"), opened("shop")], Proof.FAILED, f"{POLICY} lets it in to shop"),
    ],
)
def test_a_stranger_does_not_get_in(policies: list[Live], proof: Proof, observed: str, situate: Situate) -> None:
    found, said = looked(STRANGER_REFUSED, integrated(situate, ["shop"], policies=policies))
    assert proof is found
    assert said.startswith(observed)


@pytest.mark.parametrize("kind", [NETWORK_POLICY, NAMESPACE])
def test_what_may_not_be_read_could_not_be_told(kind: Any, situate: Situate) -> None:
    situation = integrated(situate, ["shop"])
    reads = STRANGER_REFUSED.all_reads(situation.parameters)
    refused = {read: FORBIDDEN for read in reads if read.kind == kind}
    snapshot = replace(situation.snapshot, refused=refused)
    assert Proof.UNKNOWN is looked(STRANGER_REFUSED, replace(situation, snapshot=snapshot))[0]


# --- many of a kind ----------------------------------------------------------------------------------------------


def test_of_many_faults_ten_are_named() -> None:
    found = compared("title", "expected", names(15), "way", "remedy")
    assert (Proof.FAILED, True) == (found.proof, found.observed.endswith("team-009; and 5 more"))


def test_of_many_pending_members_ten_are_named() -> None:
    state = readiness.member_roll({"status": {"configuredMembers": []}}, names(1000))
    assert state.message.startswith("team-000 is not configured; ")
    assert state.message.endswith("team-009 is not configured; and 990 more")


def desired(name: str) -> Desired:
    return Desired(manifests.serving_system_policy(name), exact=(("spec", "ingress"),), independent=True)


def change(name: str, live: Live | None = None) -> Change:
    wanted = desired(name)
    return change_of("network-policies", wanted, live, compare(wanted, live))


@pytest.mark.parametrize(
    "added",
    [
        {"ports": [{"port": 80}]},
        {"from": [{"namespaceSelector": {"matchLabels": PART_OF}, "podSelector": {"matchLabels": {"app": "x"}}}]},
        {"from": [{"namespaceSelector": {"matchLabels": {**PART_OF, "more": "x"}}}]},
        {"from": []},
    ],
)
def test_a_rule_that_somebody_narrowed_or_widened_differs(added: dict[str, Any]) -> None:
    wanted = desired("shop")
    assert Operation.UNCHANGED is compare(wanted, wanted.manifest).operation
    rule = wanted.manifest["spec"]["ingress"][0]
    live = {**wanted.manifest, "spec": {**wanted.manifest["spec"], "ingress": [{**rule, **added}]}}
    found = compare(wanted, live)
    assert [(("spec", "ingress"), live["spec"]["ingress"], wanted.manifest["spec"]["ingress"])] == list(found.leaves)


def test_a_short_plan_shows_each_change() -> None:
    view = display.plan(Plan(tuple(map(change, names(30)))), "plan")
    assert 30 == view.text.count(f"/{POLICY}  [network-policies]")


def test_a_long_plan_shows_those_that_are_alike_as_one_and_keeps_all() -> None:
    changes = [change(name) for name in names(1000)]
    changes[7] = change("team-007", {**manifests.serving_system_policy("team-007"), "spec": {"podSelector": {}}})
    changes[8] = replace(changes[8], refused="exceeded quota")
    view = display.plan(Plan(tuple(changes)), "apply")
    heads = [line for line in view.text.splitlines() if "[network-policies]" in line]
    assert [
        f"+ create  NetworkPolicy {POLICY} in 998 namespaces  [network-policies]",
        f"~ update  NetworkPolicy team-007/{POLICY}  [network-policies]",
        f"+ create  NetworkPolicy team-008/{POLICY}  [network-policies]",
    ] == heads
    assert len(view.text) < 2500
    assert "and 988 more" in view.text
    assert all(name in view.html for name in names(1000))
    assert 1000 == len(view.data["changes"])
    assert "exceeded quota" == view.data["changes"][8]["refused"]
    assert ("999 to create, 1 to update, 0 unchanged", True) == (
        view.text.splitlines()[-2].partition(". ")[0],
        f"! NetworkPolicy team-008/{POLICY}: exceeded quota" in view.brief,
    )


def test_of_many_refusals_ten_are_told_in_brief() -> None:
    changes = tuple(replace(change(name), refused="no") for name in names(100))
    brief = display.plan(Plan(changes), "plan").brief
    assert (10, "… and 90 more") == (sum(line.startswith("!") for line in brief), brief[-1])
    assert len(brief) < 20


def test_many_entries_of_one_list_are_one_line() -> None:
    roll = Desired(manifests.member_roll("istio-system", names(1000)), shared_lists=(MEMBERS,))
    view = display.plan(Plan((change_of("member-roll", roll, None, compare(roll, None)),)), "plan")
    assert [
        "+ create  ServiceMeshMemberRoll istio-system/default  [member-roll]",
        f"      spec.members: + 1,000 entries: {', '.join(names(10))}, and 990 more",
    ] == view.text.splitlines()[:2]
    assert 1000 == len(view.data["changes"][0]["fields"])


def test_many_objects_are_shown_as_one_of_their_kind() -> None:
    objects = [manifests.member_roll("istio-system", ["shop"]), *map(manifests.serving_system_policy, names(100))]
    view = display.desired(objects, [])
    shown = list(yaml.safe_load_all(view.text.partition("\n")[2]))
    assert objects[:2] == shown
    assert "# and the same in 99 more namespaces: team-001, " in view.text
    assert objects == view.data["manifests"]
    assert ("101 objects",) == view.brief


def test_many_writes_are_shown_in_part() -> None:
    written = [{"operation": "create", "target": f"NetworkPolicy {name}/{POLICY}"} for name in names(100)]
    view = display.applied(SECTIONS[NUMBER].step("network-policies"), written)
    assert (31, True) == (len(view.text.splitlines()), "and 70 more" in view.text)
    assert written == view.data["written"]


ADMISSION = (
    f'networkpolicies.networking.k8s.io "{POLICY}" is forbidden: exceeded quota: none, requested: x=1, used: x=0',
    'networkpolicies "x" is forbidden: unable to create new content in namespace y because it is being terminated',
    'admission webhook "policies.example.com" denied the request: no policies on Fridays',
)
AUTHORISATION = (
    'pods is forbidden: User "dev" cannot list resource "pods" in API group "" at the cluster scope',
    "",
)


@pytest.mark.parametrize("message", [*ADMISSION, *AUTHORISATION])
def test_admission_that_says_no_is_no_missing_right(message: str) -> None:
    with pytest.raises(ServerRefused) as caught:
        cluster._raise_for(403, {"message": message}, "applying", "audit")
    assert (message in AUTHORISATION) is isinstance(caught.value, Forbidden)
    assert (message in AUTHORISATION) is ("--rbac" in caught.value.remedy)
    assert 403 == caught.value.status
