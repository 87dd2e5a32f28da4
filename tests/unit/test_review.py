"""What a plan says besides its fields: what waits on a change, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from runbooks import manifests
from runbooks.certificates import Pair, fingerprint, load_chain
from runbooks.kinds import CONTROL_PLANE, DOMAIN_MAPPING, MEMBER_ROLL, NETWORK_POLICY, POD, SECRET, Kind
from runbooks.plan import Change, Desired, FieldChange, Operation, Plan, change_of, compare
from runbooks.procedure import SECTIONS
from runbooks.procedure.review import reviewed
from runbooks.secret_filtering import LABEL
from runbooks.situation import Situation
from runbooks.snapshot import Live

Situate = Callable[..., Situation[Any]]
SHOP: dict[str, Any] = {"members": ["shop"], "service_namespace": "shop"}
Found = Mapping[Kind, tuple[Live, ...]]


def planned(number: str, situation: Situation[Any]) -> Plan:
    """The plan by what was read, without the server's opinion."""
    section = SECTIONS[number]
    changes = []
    for step in section.steps:
        for wanted in step.objects(situation):
            if isinstance(wanted, Desired):
                live = situation.snapshot.of(wanted.ref)
                changes.append(change_of(step.id, wanted, live, compare(wanted, live)))
    return reviewed(section, situation, changes)


def said(plan: Plan, step: str) -> str:
    return "\n".join(text for of, text in plan.consequences if of == step)


def roll(*members: str, manager: str = "argocd") -> Live:
    entry = {"manager": manager, "operation": "Apply", "time": "2026-02-01T00:00:00Z", "fieldsV1": {"f:spec": {}}}
    live = manifests.member_roll("istio-system", members)
    return {**live, "metadata": {**live["metadata"], "uid": "1", "managedFields": [entry]}}


def plane(**security: Any) -> Live:
    return {"metadata": {"name": "basic", "namespace": "istio-system"}, "spec": {"security": security}}


# --- what waits --------------------------------------------------------------------------------------------------


def test_what_is_awaited_keeps_its_proofs_and_the_later_steps_waiting(situate: Situate) -> None:
    found = {change.step: change.waits for change in planned("6.4.3", situate("6.4.3", mode="plan")).changes}
    assert found["gateways"] is None
    assert found["member-roll"] is not None
    assert ("ServiceMeshMemberRoll istio-system/default",) == found["member-roll"].objects
    assert ("prove-member-roll", "gateways", "knative-serving", "knative-service") == found["member-roll"].behind
    assert found["knative-service"] is not None
    assert ("prove-knative-service",) == found["knative-service"].behind


def test_an_object_may_be_awaited_by_a_later_step(situate: Situate) -> None:
    changes = planned("6.4.5", situate("6.4.5", mode="plan", members=["shop"])).changes
    waits = changes[0].waits
    assert waits is not None
    assert ("network-policies", ("prove-network-policies",)) == (waits.step, waits.behind)
    assert [None] * 3 == [change.waits for change in changes[1:]]


def test_what_an_operator_makes_of_it_is_awaited_too(situate: Situate) -> None:
    (change,) = planned("6.4.6", situate("6.4.6", mode="plan", serverless_version="1.28")).changes
    assert change.waits is not None
    assert ("Deployment knative-serving/net-istio-controller",) == change.waits.objects


# --- what follows ------------------------------------------------------------------------------------------------


def test_namespaces_that_join_are_closed_and_those_that_are_members_stay(situate: Situate) -> None:
    situation = situate("6.4.3", {MEMBER_ROLL: (roll("other", "knative-serving"),)}, mode="plan", **SHOP)
    text = said(planned("6.4.3", situation), "member-roll")
    assert "shop: Pods outside of the mesh can reach nothing there any more" in text
    assert "Pods that run in shop get no sidecar until they are made anew" in text
    assert "the members that are in the list already, 2, stay in it" in text
    assert "knative-serving:" not in text


def test_where_the_operator_keeps_no_policies_nobody_is_kept_out(situate: Situate) -> None:
    situation = situate("6.4.3", {CONTROL_PLANE: (plane(manageNetworkPolicy=False),)}, mode="plan")
    assert "nobody is kept out by the membership" in said(planned("6.4.3", situation), "member-roll")


def test_nothing_is_said_of_what_stays_as_it_is(situate: Situate) -> None:
    situation = situate("6.4.3", {MEMBER_ROLL: (roll("knative-serving", "shop"),)}, mode="plan", **SHOP)
    plan = planned("6.4.3", situation)
    assert Operation.UNCHANGED is plan.changes[0].operation
    assert "" == said(plan, "member-roll")
    assert plan.changes[0].waits is None
    assert ["argocd"] == [owner.manager for owner in plan.changes[0].managed_by]


def test_nothing_follows_in_verify_or_from_what_is_refused(situate: Situate) -> None:
    plan = planned("6.4.3", situate("6.4.3", mode="verify"))
    assert ((), {None}) == (plan.consequences, {change.waits for change in plan.changes})
    refused = Change("member-roll", "x", ("",) * 4, Operation.UPDATE, refused="a webhook says no")
    bad = Change("gateways", "x", ("",) * 4, Operation.UPDATE, problems=("not ours",))
    assert () == reviewed(SECTIONS["6.4.3"], situate("6.4.3", mode="plan"), [refused, bad]).consequences


@pytest.mark.parametrize("number", [number for number in SECTIONS if number != "6.4.1"])
def test_the_digest_is_that_of_the_changes_alone(number: str, situate: Situate) -> None:
    situation = situate(number, mode="plan", serverless_version="1.28")
    plan = planned(number, situation)
    assert Plan(plan.changes).digest == plan.digest


def test_the_gateways_say_who_can_reach_what(situate: Situate) -> None:
    text = said(planned("6.4.3", situate("6.4.3", mode="plan")), "gateways")
    assert (
        "HTTPS on port 443 of the ingress gateway, with the certificate in Secret istio-system/wildcard-certs" in text
    )
    assert "by their cluster-local names, over HTTP on port 8081" in text
    assert "none of its Pods restarts" in text
    https = said(planned("6.4.3", situate("6.4.3", mode="plan", local_gateway="https")), "gateways")
    assert "the older one wins, and nothing listens on port 8081" in https


def serving_change(operation: Operation, *paths: str) -> Change:
    identity = ("operator.knative.dev/v1beta1", "KnativeServing", "knative-serving", "knative-serving")
    fields = tuple(FieldChange(path, None, {"name": "autoscaler"}) for path in paths)
    return Change("knative-serving", "KnativeServing", identity, operation, fields)


@pytest.mark.parametrize(
    ("change", "words", "never"),
    [
        (serving_change(Operation.CREATE), "the operator installs Knative Serving", "rolls"),
        (
            serving_change(Operation.UPDATE, "spec.deployments[activator].annotations.x", "spec.deployments[+]"),
            "rolls the Deployments activator, autoscaler: their Pods are made anew",
            "installs",
        ),
        (serving_change(Operation.UPDATE, "spec.ingress.istio.enabled"), "installs net-istio", "rolls"),
    ],
)
def test_serving_says_which_pods_are_made_anew(change: Change, words: str, never: str, situate: Situate) -> None:
    text = said(reviewed(SECTIONS["6.4.3"], situate("6.4.3", mode="plan"), [change]), "knative-serving")
    assert words in text
    assert never not in text


def test_a_knative_service_says_its_host_or_its_revision(situate: Situate) -> None:
    situation = situate("6.4.3", mode="plan", ingress_domain="apps.example.com")
    plan = planned("6.4.3", situation)
    assert "https://hello-default.apps.example.com" in said(plan, "knative-service")
    identity = ("serving.knative.dev/v1", "Service", "default", "hello")
    for path, words in (
        ("spec.template.spec", "a new revision"),
        ("metadata.annotations[x]", "the certificate of the"),
    ):
        change = Change("knative-service", "x", identity, Operation.UPDATE, (FieldChange(path, None, "true"),))
        assert words in said(reviewed(SECTIONS["6.4.3"], situation, [change]), "knative-service")


def test_metrics_say_which_pods_keep_the_old_setting_and_which_restart(situate: Situate) -> None:
    proxy = {"name": "istio-proxy"}
    metrics = {"name": "m", "ports": [{"containerPort": 8444}]}
    pod = {
        "metadata": {"name": "a-1", "namespace": "knative-serving", "uid": "1", "labels": {"app": "activator"}},
        "spec": {"containers": [proxy, metrics]},
    }
    found: Found = {CONTROL_PLANE: (plane(),), POD: (pod,)}
    plan = planned("6.4.4", situate("6.4.4", found, mode="plan"))
    assert "those made before keep the present setting until their Pods restart" in said(plan, "exclude-port")
    assert "Pods in knative-serving with the present setting: 1" in said(plan, "exclude-port")
    assert "the operator rolls activator, autoscaler" in said(plan, "set-backend")
    assert "the first NetworkPolicy there, so everybody else is kept out" in said(plan, "allow-scraping")
    other = {"metadata": {"name": "other", "namespace": "knative-serving"}, "spec": {"podSelector": {}}}
    beside = planned("6.4.4", situate("6.4.4", {**found, NETWORK_POLICY: (other,)}, mode="plan"))
    assert "what other NetworkPolicies let in stays" in said(beside, "allow-scraping")
    restart = Change("restart-pods", "Pod x", ("v1", "Pod", "knative-serving", "activator"), Operation.RESTART)
    evicted = reviewed(SECTIONS["6.4.4"], situate("6.4.4", found, mode="plan"), [restart])
    assert "1 Pod is evicted, one at a time" in said(evicted, "restart-pods")
    assert "activator: it has one Pod, so it serves nothing until" in said(evicted, "restart-pods")
    assert evicted.changes[0].waits is not None
    assert ("a new Pod of activator",) == evicted.changes[0].waits.objects


def test_beside_kourier_what_is_cut_meanwhile_is_named_where_no_policy_is_there_yet(situate: Situate) -> None:
    policy = manifests.serving_system_policy("shop")
    plan = planned("6.4.5", situate("6.4.5", {NETWORK_POLICY: (policy,)}, mode="plan", members=["shop", "billing"]))
    text = said(plan, "member-roll")
    assert "shop, billing: Pods outside of the mesh can reach nothing" in text
    assert "\nbilling: requests to Knative Services are cut from the joining" in text
    assert "billing: every Pod of Knative's two namespaces can reach" in said(plan, "network-policies")
    widened = {**policy, "spec": {**policy["spec"], "ingress": [{}]}}
    changed = planned("6.4.5", situate("6.4.5", {NETWORK_POLICY: (widened,)}, mode="plan", members=["shop"]))
    assert "shop: whoever only the present rules of" in said(changed, "network-policies")


@pytest.mark.parametrize(
    ("labels", "words"),
    [({LABEL: "x"}, "Secrets that DomainMappings need: 1, all with the label"), ({}, "OUTAGE: Secret shop/tls")],
)
def test_the_filter_says_whether_a_host_goes_out(labels: dict[str, str], words: str, situate: Situate) -> None:
    mapping = {"metadata": {"name": "a.example", "namespace": "shop"}, "spec": {"tls": {"secretName": "tls"}}}
    secret = {"metadata": {"name": "tls", "namespace": "shop", "labels": labels}}
    found: Found = {DOMAIN_MAPPING: (mapping,), SECRET: (secret,)}
    text = said(planned("6.4.6", situate("6.4.6", found, mode="plan", serverless_version="1.28")), "annotation")
    assert "rolls the Deployment net-istio-controller" in text
    assert words in text


def test_where_no_domain_mapping_needs_a_secret_no_host_is_lost(situate: Situate) -> None:
    text = said(planned("6.4.6", situate("6.4.6", mode="plan", serverless_version="1.28")), "annotation")
    assert "so no host is lost by it" in text


# --- certificates ------------------------------------------------------------------------------------------------

SERVED = ("v1", "Secret", "istio-system", "wildcard-certs")


def renewed(old: str, new: str) -> Change:
    shown = (FieldChange("data[tls.crt]", {"issuer": old}, {"issuer": new}),)
    return Change("secret", "Secret istio-system/wildcard-certs", SERVED, Operation.UPDATE, shown)


def test_a_renewed_certificate_cuts_nothing_and_another_issuer_locks_out(situate: Situate, root: Pair) -> None:
    section = SECTIONS["6.4.2"]
    situation = situate("6.4.2", mode="plan", files={"root.crt": root.chain})
    own = load_chain(root.chain, "root.crt")[0]
    name = "/O=Example Inc./CN=example.com"
    same = said(reviewed(section, situation, [renewed(name, fingerprint(own))]), "secret")
    assert "serves the new certificate within seconds, without a restart" in same
    assert "NEW ROOT" not in same
    for old, new in (("/CN=other", fingerprint(own)), (name, "/CN=other")):
        assert "A NEW ROOT: the certificate was issued by" in said(
            reviewed(section, situation, [renewed(old, new)]), "secret"
        )


def test_a_new_root_is_trusted_by_nobody_and_a_first_certificate_cuts_nothing(situate: Situate) -> None:
    section, situation = SECTIONS["6.4.2"], situate("6.4.2", mode="plan")
    files = [
        Change("root", f"File /c/{name}", ("", "File", "", name), Operation.CREATE) for name in ("root.key", "root.crt")
    ]
    assert "" == said(reviewed(section, situation, files[:1]), "root")
    assert "A NEW ROOT: nobody trusts it yet" in said(reviewed(section, situation, files), "root")
    first = Change("secret", "Secret", SERVED, Operation.CREATE)
    assert "no traffic is cut" in said(reviewed(section, situation, [first]), "secret")
