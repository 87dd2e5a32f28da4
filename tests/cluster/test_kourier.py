"""6.4.5: the mesh beside Kourier, in one namespace and in many."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml

from runbooks.kinds import NETWORK_POLICY
from runbooks.parameters import check, read_file
from runbooks.procedure import SECTIONS
from runbooks.procedure.needed_rights import rights_to_read, rights_to_write
from runbooks.rights import Right, roles
from runbooks.situation import Situation
from runbooks.step import Runbook, open_runbook
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import Object, Resource
from runbooks_sandbox.world import (
    KNATIVE_SERVINGS,
    MEMBER_ROLLS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    is_true,
    within,
)
from tests.conftest import ROOT, Sandbox

NUMBER = "6.4.5"
SERVING, INGRESS = "knative-serving", "knative-serving-ingress"
POLICY, LABEL = "allow-from-serving-system-namespace", "knative.openshift.io/part-of"
TEAMS = ("billing", "shop")
QUOTAS = Resource("v1", "resourcequotas", "ResourceQuota")

PAGE = """
apiVersion: maistra.io/v1
kind: ServiceMeshMemberRoll
metadata:
  name: default
  namespace: istio-system
spec:
  members:
    - billing
    - shop
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-from-serving-system-namespace
  namespace: billing
spec:
  ingress:
    - from:
        - namespaceSelector:
            matchLabels:
              knative.openshift.io/part-of: "openshift-serverless"
  podSelector: {}
  policyTypes:
    - Ingress
---
apiVersion: v1
kind: Namespace
metadata:
  name: knative-serving
  labels:
    knative.openshift.io/part-of: openshift-serverless
---
apiVersion: v1
kind: Namespace
metadata:
  name: knative-serving-ingress
  labels:
    knative.openshift.io/part-of: openshift-serverless
"""
DOCUMENTS = list(yaml.safe_load_all(PAGE))
RESOURCES = {
    "ServiceMeshMemberRoll": MEMBER_ROLLS,
    "NetworkPolicy": NETWORK_POLICIES,
    "Namespace": NAMESPACES,
}


@dataclass
class KourierSandbox(Sandbox):
    """A cluster in which Kourier serves, with the environment of that path."""

    def parameters(self, number: str, **changes: object) -> dict[str, Any]:
        values = read_file(ROOT / "parameters" / "sandbox-kourier" / "cluster.yaml")
        own = {"kubeconfig": str(self.state.kubeconfig), "certificates_dir": str(self.state.certificates)}
        return {**values, **own, "members": list(TEAMS), "timeout_s": 60, **changes}

    def install(self, ingress: Object) -> None:
        """Knative Serving with an ingress, and wait until it is ready."""
        manifest = {
            "apiVersion": KNATIVE_SERVINGS.api_version,
            "kind": KNATIVE_SERVINGS.kind,
            "metadata": {"name": SERVING, "namespace": SERVING},
            "spec": {"ingress": ingress},
        }
        self.api.apply(manifest, KNATIVE_SERVINGS, "admin")
        self.eventually(lambda: is_true(self.get(KNATIVE_SERVINGS, SERVING, SERVING), "Ready"))

    def opened(self, **changes: object) -> Runbook:
        """The runbook before its first cell."""
        return open_runbook(NUMBER, self.parameters(NUMBER, mode="apply", **changes))

    def labels(self, namespace: str) -> dict[str, str]:
        return dict(self.get(NAMESPACES, "", namespace)["metadata"]["labels"])

    def policies(self) -> list[str]:
        """The namespaces that have the section's policy."""
        items = self.api.request("GET", NETWORK_POLICIES.path())["items"]
        return sorted(live["metadata"]["namespace"] for live in items if live["metadata"]["name"] == POLICY)


def kourier_sandbox(new_sandbox: Callable[..., Sandbox], **played: Any) -> KourierSandbox:
    found = new_sandbox(**played)
    sandbox = KourierSandbox(found.state, found.api)
    sandbox.install({"kourier": {"enabled": True}})
    sandbox.eventually(lambda: bool(_gateways(sandbox)))
    for name in TEAMS:
        sandbox.create_namespace(name)
    return sandbox


def _gateways(sandbox: Sandbox) -> list[Object]:
    pods = sandbox.api.request("GET", PODS.path(INGRESS))["items"]
    return [pod for pod in pods if pod["metadata"]["labels"]["app"] == "3scale-kourier-gateway"]


@pytest.fixture
def fresh(new_sandbox: Callable[..., Sandbox]) -> Iterator[KourierSandbox]:
    """A cluster with Kourier for one test."""
    found = kourier_sandbox(new_sandbox)
    yield found
    lifecycle.stop(found.state)


@pytest.fixture(scope="module")
def done(new_sandbox: Callable[..., Sandbox]) -> Iterator[KourierSandbox]:
    """A cluster that 6.4.5 has been applied to; tests that share it put back what they change."""
    found = kourier_sandbox(new_sandbox)
    outcome = found.play(NUMBER)
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    yield found
    lifecycle.stop(found.state)


# --- one run after the other -------------------------------------------------------------------------------------


def test_a_fresh_cluster_is_planned_verified_applied_and_then_as_desired(fresh: KourierSandbox) -> None:
    since = fresh.audit_position()
    plan = fresh.play(NUMBER, "plan")
    assert ("changes pending", 2) == (plan["outcome"], plan["exit_code"]), plan["reason"]
    assert {"create": 3, "unchanged": 2} == _operations(plan)
    assert "drift" == fresh.play(NUMBER, "verify")["outcome"]
    assert [] == fresh.writes(since)

    first = fresh.play(NUMBER)
    assert ("done and proven", 0) == (first["outcome"], first["exit_code"]), first["reason"]
    assert plan["plan"]["digest"] == first["plan"]["digest"]
    assert ["proven"] * 3 == [effect["proof"] for effect in first["checks"]]
    assert list(TEAMS) == fresh.get(MEMBER_ROLLS, "istio-system", "default")["spec"]["members"]

    since = fresh.audit_position()
    assert "no changes" == fresh.play(NUMBER)["outcome"]
    assert "as desired" == fresh.play(NUMBER, "verify")["outcome"]
    assert "no changes" == fresh.play(NUMBER, "plan")["outcome"]
    assert [] == fresh.writes(since)


def _operations(outcome: dict[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}
    for change in outcome["plan"]["changes"]:
        found[change["operation"]] = found.get(change["operation"], 0) + 1
    return found


def test_a_second_run_lists_each_kind_once(done: KourierSandbox) -> None:
    outcome = done.play(NUMBER, "verify")
    identity = 3  # version, cluster id, and how a sandbox describes itself
    reads = SECTIONS[NUMBER].all_reads(check(SECTIONS[NUMBER].model, done.parameters(NUMBER)))
    assert len(reads) + identity == outcome["requests"]["GET"]
    assert {"GET", "POST"} >= outcome["requests"].keys()


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: f"{page['kind']} {page['metadata']['name']}")
def test_what_the_page_shows_is_there_field_for_field(done: KourierSandbox, page: dict[str, Any]) -> None:
    metadata = page["metadata"]
    live = done.get(RESOURCES[page["kind"]], metadata.get("namespace", ""), metadata["name"])
    assert within(page, live)
    if page["kind"] == "NetworkPolicy":
        assert page["spec"] == live["spec"]


def test_knative_serving_stays_outside_of_the_mesh(done: KourierSandbox) -> None:
    assert SERVING not in done.get(MEMBER_ROLLS, "istio-system", "default")["spec"]["members"]
    assert "maistra.io/member-of" not in done.labels(SERVING)


# --- drift -------------------------------------------------------------------------------------------------------


def _policy_deleted(sandbox: Sandbox) -> None:
    sandbox.api.delete(NETWORK_POLICIES, "shop", POLICY)


def _policy_names_another_label(sandbox: Sandbox) -> None:
    source = {"namespaceSelector": {"matchLabels": {LABEL: "something-else"}}}
    sandbox.patch(NETWORK_POLICIES, "shop", POLICY, {"spec": {"ingress": [{"from": [source]}]}})


def _policy_narrowed(sandbox: Sandbox) -> None:
    source = {
        "namespaceSelector": {"matchLabels": {LABEL: "openshift-serverless"}},
        "podSelector": {"matchLabels": {"app": "activator"}},
    }
    sandbox.patch(NETWORK_POLICIES, "shop", POLICY, {"spec": {"ingress": [{"from": [source]}]}})


def _policy_for_some_pods(sandbox: Sandbox) -> None:
    sandbox.patch(NETWORK_POLICIES, "shop", POLICY, {"spec": {"podSelector": {"matchLabels": {"app": "web"}}}})


def _label_removed(sandbox: Sandbox) -> None:
    sandbox.patch(NAMESPACES, "", SERVING, {"metadata": {"labels": {LABEL: None}}})


def _label_of_another(sandbox: Sandbox) -> None:
    sandbox.patch(NAMESPACES, "", SERVING, {"metadata": {"labels": {LABEL: "something-else"}}})


def _member_removed(sandbox: Sandbox) -> None:
    sandbox.patch(MEMBER_ROLLS, "istio-system", "default", {"spec": {"members": ["billing"]}})
    sandbox.eventually(
        lambda: "maistra.io/member-of" not in (sandbox.get(NAMESPACES, "", "shop")["metadata"].get("labels") or {})
    )


SYSTEM, MEMBERS = "NetworkPolicies let Kourier and the activator in", "The namespaces are configured members"
DRIFTS: dict[str, tuple[Callable[[Sandbox], None], str, str]] = {
    "policy deleted": (_policy_deleted, f"NetworkPolicy shop/{POLICY}", ""),
    "policy for another label": (_policy_names_another_label, f"NetworkPolicy shop/{POLICY}", SYSTEM),
    "policy narrowed": (_policy_narrowed, f"NetworkPolicy shop/{POLICY}", SYSTEM),
    "policy for some Pods": (_policy_for_some_pods, f"NetworkPolicy shop/{POLICY}", SYSTEM),
    "label removed": (_label_removed, f"Namespace {SERVING}", SYSTEM),
    "label changed": (_label_of_another, f"Namespace {SERVING}", SYSTEM),
    "member removed": (_member_removed, "ServiceMeshMemberRoll istio-system/default", MEMBERS),
}


@pytest.mark.parametrize("case", DRIFTS)
def test_drift_is_found_named_and_repaired_and_nothing_else_is_touched(done: KourierSandbox, case: str) -> None:
    spoil, target, effect = DRIFTS[case]
    spoil(done)
    found = done.play(NUMBER, "verify")
    assert ("drift", 2) == (found["outcome"], found["exit_code"])
    assert [target] == [c["target"] for c in found["plan"]["changes"] if c["operation"] != "unchanged"]
    failed = [effect["title"] for effect in found["checks"] if effect["proof"] == "failed"]
    assert ([effect] if effect else []) == failed
    since = done.audit_position()
    repaired = done.play(NUMBER)
    assert "done and proven" == repaired["outcome"], repaired["reason"]
    assert [target] == [entry["target"] for entry in repaired["applied"]]
    assert {target.rpartition(" ")[2].rpartition("/")[2]} == {path.rpartition("/")[2] for path in done.writes(since)}
    assert "as desired" == done.play(NUMBER, "verify")["outcome"]


def test_a_label_that_is_missing_is_written_on_every_version(new_sandbox: Callable[..., Sandbox]) -> None:
    newest = kourier_sandbox(new_sandbox, serverless="1.38.0")
    _label_removed(newest)
    outcome = newest.play(NUMBER)
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    assert "openshift-serverless" == newest.labels(SERVING)[LABEL]
    warned = [finding["title"] for finding in outcome["preconditions"] if finding["verdict"] == "warning"]
    assert "Service Mesh beside Kourier is documented for this version" in warned
    lifecycle.stop(newest.state)


# --- others ------------------------------------------------------------------------------------------------------


def test_what_other_teams_have_put_there_survives(fresh: KourierSandbox) -> None:
    fresh.create_namespace("theirs")
    roll = {"apiVersion": MEMBER_ROLLS.api_version, "kind": MEMBER_ROLLS.kind}
    address = {"name": "default", "namespace": "istio-system", "labels": {"team": "theirs"}}
    fresh.api.apply({**roll, "metadata": address, "spec": {"members": ["theirs"]}}, MEMBER_ROLLS, "team-theirs")
    fresh.patch(NAMESPACES, "", SERVING, {"metadata": {"labels": {"team": "platform", LABEL: None}}}, "platform")
    policy = {"apiVersion": NETWORK_POLICIES.api_version, "kind": NETWORK_POLICIES.kind}
    spec = {"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}
    own = {**policy, "metadata": {"name": "own", "namespace": "shop"}, "spec": spec}
    fresh.api.apply(own, NETWORK_POLICIES, "team-shop")
    outcome = fresh.play(NUMBER)
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    live = fresh.get(MEMBER_ROLLS, "istio-system", "default")
    assert ["theirs", *TEAMS] == live["spec"]["members"]
    assert {"team": "theirs"} == live["metadata"]["labels"]
    assert {"team": "platform", LABEL: "openshift-serverless"}.items() <= fresh.labels(SERVING).items()
    assert within(spec, fresh.get(NETWORK_POLICIES, "shop", "own")["spec"])
    assert list(TEAMS) == fresh.policies()


def test_a_namespace_that_its_team_opened_to_everybody_is_named_and_fails_nothing(done: KourierSandbox) -> None:
    policy = {
        "apiVersion": NETWORK_POLICIES.api_version,
        "kind": NETWORK_POLICIES.kind,
        "metadata": {"name": "allow-all", "namespace": "shop"},
        "spec": {"podSelector": {}, "ingress": [{}]},
    }
    done.api.apply(policy, NETWORK_POLICIES, "team-shop")
    outcome = done.play(NUMBER, "verify")
    done.api.delete(NETWORK_POLICIES, "shop", "allow-all")
    assert "as desired" == outcome["outcome"], outcome["reason"]
    stranger = outcome["checks"][-1]
    assert ("not proven", "others let everybody in: shop/allow-all") == (stranger["proof"], stranger["observed"])


def test_a_policy_that_a_controller_owns_is_not_taken_from_it(done: KourierSandbox) -> None:
    source = {"namespaceSelector": {"matchLabels": {LABEL: "argo"}}}
    done.patch(NETWORK_POLICIES, "shop", POLICY, {"spec": {"ingress": [{"from": [source]}]}}, "argocd-controller")
    since = done.audit_position()
    outcome = done.play(NUMBER)
    assert ("blocked", 1) == (outcome["outcome"], outcome["exit_code"])
    assert "argocd-controller" in outcome["reason"]
    assert [] == done.writes(since)
    assert "done and proven" == done.play(NUMBER, take_over=["argocd-controller"])["outcome"]


# --- many, of which some fail ------------------------------------------------------------------------------------


def no_policies_in(sandbox: Sandbox, namespace: str) -> None:
    """A quota that allows no further NetworkPolicy, and wait until the server counts by it."""
    hard = {"count/networkpolicies.networking.k8s.io": "0"}
    quota = {
        "apiVersion": QUOTAS.api_version,
        "kind": QUOTAS.kind,
        "metadata": {"name": "no-policies", "namespace": namespace},
        "spec": {"hard": hard},
    }
    path = QUOTAS.path(namespace)
    sandbox.api.request("POST", path, quota)
    # no controller counts here; the server refuses until somebody has
    status = {**quota, "status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
    sandbox.api.request(
        "PUT", f"{path}/no-policies/status", {**sandbox.get(QUOTAS, namespace, "no-policies"), **status}
    )


def test_a_refused_namespace_is_reported_while_the_others_are_written(fresh: KourierSandbox) -> None:
    names = [f"team-{number:02}" for number in range(8)]
    for name in names:
        fresh.create_namespace(name)
    no_policies_in(fresh, "team-03")
    plan = fresh.play(NUMBER, "plan", members=names)
    assert "changes pending" == plan["outcome"], plan["reason"]
    warning = next(item for item in plan["preconditions"] if item["title"] == "The server accepts every change")
    assert ("warning", True) == (warning["verdict"], "team-03" in warning["said"] and "quota" in warning["said"])
    outcome = fresh.play(NUMBER, members=names)
    assert ("failed", 1) == (outcome["outcome"], outcome["exit_code"])
    assert f"NetworkPolicy team-03/{POLICY}" in outcome["reason"]
    assert "exceeded quota" in outcome["reason"]
    others = [name for name in names if name != "team-03"]
    assert others == fresh.policies()
    assert {f"NetworkPolicy {name}/{POLICY}" for name in others} == {
        entry["target"] for entry in outcome["applied"] if entry["step"] == "network-policies"
    }
    fresh.api.delete(QUOTAS, "team-03", "no-policies")
    again = fresh.play(NUMBER, members=names)
    assert "done and proven" == again["outcome"], again["reason"]
    assert [f"NetworkPolicy team-03/{POLICY}"] == [entry["target"] for entry in again["applied"]]


def test_a_namespace_that_is_missing_before_the_start_blocks_everything(done: KourierSandbox) -> None:
    since = done.audit_position()
    outcome = done.play(NUMBER, members=[*TEAMS, "no-such-team"])
    assert ("blocked", 1) == (outcome["outcome"], outcome["exit_code"])
    assert "no-such-team does not exist" in outcome["reason"]
    assert [] == done.writes(since)


def test_a_namespace_that_goes_while_it_runs_is_reported_and_the_others_are_written(fresh: KourierSandbox) -> None:
    fresh.create_namespace("leaving")
    members = [*TEAMS, "leaving"]
    runbook = fresh.opened(members=members)
    runbook.preconditions()
    runbook.plan()
    # without a controller a namespace stays on its way out, and the server accepts nothing new in it
    fresh.api.request("DELETE", NAMESPACES.path("", "leaving"))
    runbook.apply("member-roll")
    runbook.apply("system-labels")
    failed = runbook.apply("network-policies")
    assert "leaving" in failed.text
    outcome = runbook.outcome().data
    assert ("failed", 1) == (outcome["outcome"], outcome["exit_code"])
    assert "leaving" in outcome["reason"]
    assert "--rbac" not in failed.text
    assert list(TEAMS) == fresh.policies()


def test_thirty_namespaces_in_one_run(fresh: KourierSandbox) -> None:
    names = [f"team-{number:03}" for number in range(30)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(fresh.create_namespace, names))
    cells = fresh.play_until("", NUMBER, members=names)
    outcome = cells["outcome"]
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    assert names == fresh.policies()
    assert {"create": 31, "unchanged": 2} == _operations(outcome)
    assert ["proven"] * 3 == [effect["proof"] for effect in outcome["checks"]]
    assert all("and 20 more" in effect["expected"] for effect in outcome["checks"])
    assert outcome["requests"]["POST"] < 20  # rights alike are asked for in all namespaces at once
    since = fresh.audit_position()
    again = fresh.play(NUMBER, members=names)
    assert "no changes" == again["outcome"]
    assert [] == fresh.writes(since)


@pytest.mark.parametrize("everywhere", [True, False], ids=["may list all policies", "may list those of its namespaces"])
def test_apply_needs_just_the_rights_that_are_printed_for_it(fresh: KourierSandbox, everywhere: bool) -> None:
    names = [f"team-{number:02}" for number in range(12)]
    for name in names:
        fresh.create_namespace(name)
    kubeconfig = limited(fresh, names, everywhere=everywhere)
    outcome = fresh.play(NUMBER, members=names, kubeconfig=kubeconfig)
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    assert "system:serviceaccount:default:nightly" == outcome["target"]["user"]
    assert names == fresh.policies()
    again = fresh.play(NUMBER, "verify", members=names, kubeconfig=kubeconfig)
    assert "as desired" == again["outcome"], again["reason"]


def limited(sandbox: KourierSandbox, members: list[str], *, everywhere: bool) -> str:
    """A kubeconfig with just the rights that are printed; or with lists of policies in the members alone."""
    section, given = SECTIONS[NUMBER], check(SECTIONS[NUMBER].model, sandbox.parameters(NUMBER, members=members))
    rights = {*rights_to_read(section, given), *rights_to_write(section, Situation(given, dt.datetime.now(dt.UTC)))}
    if not everywhere:
        rights.remove(all_policies := Right.on(NETWORK_POLICY, "list"))
        rights |= {replace(all_policies, namespace=member) for member in members}
    subject = {"kind": "ServiceAccount", "namespace": "default", "name": "nightly"}
    sandbox.api.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "nightly"}})
    for document in roles(rights, "nightly", subject):
        namespace = document["metadata"].get("namespace")
        where = f"/namespaces/{namespace}" if namespace else ""
        path = f"/apis/rbac.authorization.k8s.io/v1{where}/{document['kind'].lower()}s"
        sandbox.api.request("POST", path, document)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    path = "/api/v1/namespaces/default/serviceaccounts/nightly/token"
    token = sandbox.api.request("POST", path, request)["status"]["token"]
    config = yaml.safe_load(sandbox.state.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    target = sandbox.state.folder / "kubeconfig-nightly"
    target.write_text(yaml.safe_dump(config))
    return str(target)


# --- where it is not the way -------------------------------------------------------------------------------------


def test_where_istio_is_the_only_ingress_the_reader_is_sent_to_6_4_3(new_sandbox: Callable[..., Sandbox]) -> None:
    found = new_sandbox()
    sandbox = KourierSandbox(found.state, found.api)
    for name in TEAMS:
        sandbox.create_namespace(name)
    nothing = sandbox.play(NUMBER)
    assert ("blocked", True) == (nothing["outcome"], "Knative Serving is not installed" in nothing["reason"])
    sandbox.install({"istio": {"enabled": True}})
    since = sandbox.audit_position()
    outcome = sandbox.play(NUMBER)
    assert "blocked" == outcome["outcome"]
    assert "Istio is the only ingress of this cluster" in outcome["reason"]
    unmet = [finding for finding in outcome["preconditions"] if finding["verdict"] == "not met"]
    assert {"6.4.3"} == {finding["see"] for finding in unmet if "Kourier" in finding["title"]}
    assert [] == sandbox.writes(since)
    lifecycle.stop(found.state)
