"""What a run leaves behind, finds again, and never touches; judged by the API server's own audit log."""

from __future__ import annotations

import base64
import concurrent.futures
import datetime as dt
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from runbooks import certificates
from runbooks.parameters import IntegrateServiceMesh, check
from runbooks.procedure import SECTIONS
from runbooks.procedure.needed_rights import rights_to_read
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import ApiError
from runbooks_sandbox.world import (
    CONTROL_PLANES,
    GATEWAYS,
    KNATIVE_SERVICES,
    KNATIVE_SERVINGS,
    MEMBER_ROLLS,
    SECRETS,
    SERVICES,
    WATCHED,
    is_true,
)
from tests.conftest import Sandbox

BOTH = ("6.4.2", "6.4.3")


def resource_versions(sandbox: Sandbox) -> dict[str, str]:
    """The resourceVersion of everything that a run could have written."""
    found = {}
    for resource in WATCHED:
        try:
            items = sandbox.api.request("GET", resource.path())["items"]
        except ApiError as error:
            if error.status != 404:  # its CRD comes later
                raise
            continue
        for live in items:
            metadata = live["metadata"]
            found[f"{resource} {metadata.get('namespace', '')}/{metadata['name']}"] = metadata["resourceVersion"]
    return found


class TestASecondRun:
    @pytest.mark.parametrize("number", BOTH)
    def test_changes_nothing_and_says_so(self, integrated: Sandbox, number: str) -> None:
        since = integrated.audit_position()
        outcome = integrated.play(number)
        assert ("no changes", 0) == (outcome["outcome"], outcome["exit_code"])
        assert [] == integrated.writes(since)

    @pytest.mark.parametrize("number", BOTH)
    def test_costs_reads_only_and_one_list_for_each_read(self, integrated: Sandbox, number: str) -> None:
        requests = integrated.play(number)["requests"]
        reads = SECTIONS[number].all_reads(check(SECTIONS[number].model, integrated.parameters(number)))
        assert len({(read.kind, read.namespace, read.labels, read.name) for read in reads}) == len(reads)
        identity = 3  # version, cluster id, and how a sandbox describes itself
        assert requests["GET"] == len(reads) + identity
        assert {"GET", "POST", "CONNECT"} >= requests.keys()  # POST: access reviews

    @pytest.mark.parametrize("mode", ["plan", "verify"])
    def test_in_a_mode_that_reads_moves_nothing(self, integrated: Sandbox, mode: str) -> None:
        before, since = resource_versions(integrated), integrated.audit_position()
        outcomes = [integrated.play(number, mode) for number in BOTH]
        assert [0, 0] == [outcome["exit_code"] for outcome in outcomes]
        assert before == resource_versions(integrated)
        assert [] == integrated.writes(since)


def test_plan_and_verify_of_a_fresh_cluster_say_what_is_missing(sandbox: Sandbox) -> None:
    before = resource_versions(sandbox)
    plans = [sandbox.play("6.4.2", "plan"), sandbox.play("6.4.3", "plan", preceded_by=["6.4.2"])]
    checks = [sandbox.play("6.4.2", "verify"), sandbox.play("6.4.3", "verify", preceded_by=["6.4.2"])]
    assert ["changes pending"] * 2 == [outcome["outcome"] for outcome in plans]
    assert ["drift"] * 2 == [outcome["outcome"] for outcome in checks]
    assert [2] * 4 == [outcome["exit_code"] for outcome in plans + checks]
    assert not sandbox.state.certificates.exists()
    assert before == resource_versions(sandbox)


def test_the_plan_of_an_equal_cluster_has_the_same_digest(new_sandbox: Callable[..., Sandbox]) -> None:
    digests = []
    for _ in range(2):
        found = new_sandbox()
        plans = [found.play("6.4.2", "plan"), found.play("6.4.3", "plan", preceded_by=["6.4.2"])]
        digests.append([outcome["plan"]["digest"] for outcome in plans])
        lifecycle.stop(found.state)
    assert digests[0] == digests[1]


# --- drift -------------------------------------------------------------------------------------------------------

SERVING = "knative-serving"


def _gateway_secret(sandbox: Sandbox) -> None:
    live = sandbox.get(GATEWAYS, SERVING, "knative-ingress-gateway")
    live["spec"]["servers"][0]["tls"]["credentialName"] = "other-certs"
    sandbox.patch(GATEWAYS, SERVING, "knative-ingress-gateway", {"spec": live["spec"]})


def _member_gone(sandbox: Sandbox) -> None:
    sandbox.patch(MEMBER_ROLLS, "istio-system", "default", {"spec": {"members": [SERVING]}})


def _no_port_translation_label(sandbox: Sandbox) -> None:
    label: dict[str, Any] = {"experimental.istio.io/disable-gateway-port-translation": None}
    sandbox.patch(SERVICES, "istio-system", "knative-local-gateway", {"metadata": {"labels": label}})


def _activator_without_sidecar(sandbox: Sandbox) -> None:
    live = sandbox.get(KNATIVE_SERVINGS, SERVING, SERVING)
    live["spec"]["deployments"][0]["annotations"].pop("sidecar.istio.io/inject")
    sandbox.patch(KNATIVE_SERVINGS, SERVING, SERVING, {"spec": {"deployments": live["spec"]["deployments"]}})


def _service_without_passthrough(sandbox: Sandbox) -> None:
    annotation: dict[str, Any] = {"serving.knative.openshift.io/enablePassthrough": None}
    sandbox.patch(KNATIVE_SERVICES, "default", "hello", {"metadata": {"annotations": annotation}})


def _gateway_deleted(sandbox: Sandbox) -> None:
    sandbox.api.delete(GATEWAYS, SERVING, "knative-local-gateway")


DRIFTS = {
    "Gateway knative-serving/knative-ingress-gateway": _gateway_secret,
    "ServiceMeshMemberRoll istio-system/default": _member_gone,
    "Service istio-system/knative-local-gateway": _no_port_translation_label,
    "KnativeServing knative-serving/knative-serving": _activator_without_sidecar,
    "Knative Service default/hello": _service_without_passthrough,
    "Gateway knative-serving/knative-local-gateway": _gateway_deleted,
}


@pytest.mark.parametrize("target", DRIFTS)
def test_drift_is_found_named_and_repaired_and_nothing_else_is_touched(integrated: Sandbox, target: str) -> None:
    DRIFTS[target](integrated)
    found = integrated.play("6.4.3", "verify")
    assert ("drift", 2) == (found["outcome"], found["exit_code"])
    differing = {change["target"] for change in found["plan"]["changes"] if change["operation"] != "unchanged"}
    assert {target} == differing
    since = integrated.audit_position()
    repaired = integrated.play("6.4.3")
    assert "done and proven" == repaired["outcome"], repaired["reason"]
    assert [target] == [entry["target"] for entry in repaired["applied"]]
    assert {path.rpartition("/")[2] for path in integrated.writes(since)} == {target.rpartition("/")[2]}
    assert "as desired" == integrated.play("6.4.3", "verify")["outcome"]


def test_drift_says_who_changed_it_and_since_when(integrated: Sandbox) -> None:
    _no_port_translation_label(integrated)
    label = {"experimental.istio.io/disable-gateway-port-translation": "false"}
    integrated.patch(SERVICES, "istio-system", "knative-local-gateway", {"metadata": {"labels": label}}, "a-colleague")
    changes = integrated.play("6.4.3", "verify")["plan"]["changes"]
    fields = [field for change in changes for field in change["fields"]]
    assert [("false", "true", "a-colleague")] == [
        (field["old"], field["new"], field["set_by"][0]["manager"]) for field in fields
    ]
    assert fields[0]["set_by"][0]["since"]
    blocked = integrated.play("6.4.3")
    assert ("blocked", 1) == (blocked["outcome"], blocked["exit_code"])
    assert "a-colleague" in blocked["reason"]
    assert "take_over" in blocked["reason"]
    taken = integrated.play("6.4.3", take_over=["a-colleague"])
    assert "done and proven" == taken["outcome"], taken["reason"]


def _certificate_replaced(sandbox: Sandbox) -> None:
    secret = sandbox.get(SECRETS, "istio-system", "wildcard-certs")["data"]
    sandbox.patch(SECRETS, "istio-system", "wildcard-certs", {"data": {"tls.crt": secret["tls.key"]}})


def _secret_gone(sandbox: Sandbox) -> None:
    sandbox.api.delete(SECRETS, "istio-system", "wildcard-certs")


def _another_pair(sandbox: Sandbox) -> None:
    """A good pair of a root that no client knows."""
    rules = certificates.Rules("*.apps.openshift.example.com", organization="Somebody")
    root_key, key, now = certificates.new_key(), certificates.new_key(), dt.datetime.now(dt.UTC)
    root = certificates.Pair(certificates.create_root(rules, root_key, now), root_key)
    leaf = certificates.sign_request(rules, certificates.create_request(rules, key), root, now)
    data = {"tls.crt": base64.b64encode(leaf).decode(), "tls.key": base64.b64encode(key).decode()}
    sandbox.patch(SECRETS, "istio-system", "wildcard-certs", {"data": data})


@pytest.mark.parametrize("drift", [_certificate_replaced, _secret_gone, _another_pair])
def test_drift_of_the_certificate_is_found_and_repaired(integrated: Sandbox, drift: Callable[[Sandbox], None]) -> None:
    drift(integrated)
    found = integrated.play("6.4.2", "verify")
    assert ("drift", 2) == (found["outcome"], found["exit_code"]), found["reason"]
    assert "done and proven" == integrated.play("6.4.2")["outcome"]
    # the gateway takes the new pair up a moment after it is in the Secret
    integrated.eventually(lambda: 0 == integrated.play("6.4.3", "verify")["exit_code"])


def test_a_key_that_others_may_read_is_drift(integrated: Sandbox) -> None:
    key = integrated.state.certificates / "root.key"
    key.chmod(0o644)
    found = integrated.play("6.4.2", "verify")
    key.chmod(0o600)
    assert 2 == found["exit_code"]
    assert "root.key has the mode 0644" in found["reason"]


# --- others ------------------------------------------------------------------------------------------------------


def test_what_other_teams_have_put_there_survives(sandbox: Sandbox) -> None:
    sandbox.create_namespace("shop")
    roll = {"apiVersion": MEMBER_ROLLS.api_version, "kind": MEMBER_ROLLS.kind}
    address = {"name": "default", "namespace": "istio-system", "labels": {"team": "shop"}}
    sandbox.api.apply({**roll, "metadata": address, "spec": {"members": ["shop"]}}, MEMBER_ROLLS, "team-shop")
    for number in BOTH:
        assert "done and proven" == sandbox.play(number)["outcome"]
    live = sandbox.get(MEMBER_ROLLS, "istio-system", "default")
    assert ["shop", "knative-serving", "default"] == live["spec"]["members"]
    assert {"team": "shop"} == live["metadata"]["labels"]
    serving = sandbox.get(KNATIVE_SERVINGS, SERVING, SERVING)
    theirs = {"name": "webhook", "annotations": {"team": "shop"}}
    deployments = [*serving["spec"]["deployments"], theirs]
    spec = {"deployments": deployments, "config": {"observability": {"metrics.backend-destination": "prometheus"}}}
    annotations = {"serverless.openshift.io/enable-secret-informer-filtering": "true"}
    sandbox.patch(KNATIVE_SERVINGS, SERVING, SERVING, {"metadata": {"annotations": annotations}, "spec": spec}, "other")
    _gateway_deleted(sandbox)
    assert "done and proven" == sandbox.play("6.4.3")["outcome"]
    after = sandbox.get(KNATIVE_SERVINGS, SERVING, SERVING)
    assert deployments == after["spec"]["deployments"]
    assert spec["config"] == after["spec"]["config"]
    assert annotations.items() <= after["metadata"]["annotations"].items()


ORDERS = (("6.4.4", "6.4.6", "6.4.3"), ("6.4.6", "6.4.3", "6.4.4"), ("6.4.3", "6.4.4", "6.4.6", "6.4.2", "6.4.3"))


def test_what_others_have_survives_every_section_in_every_order(integrated: Sandbox) -> None:
    integrated.create_namespace("survivors")
    theirs = {"labels": {"team": "x"}, "annotations": {"team": "x"}}
    roll = integrated.get(MEMBER_ROLLS, "istio-system", "default")["spec"]["members"]
    integrated.patch(MEMBER_ROLLS, "istio-system", "default", {"spec": {"members": [*roll, "survivors"]}}, "team-x")
    ports: Any = {"proxy": {"networking": {"trafficControl": {"inbound": {"excludedPorts": [8022]}}}}}
    integrated.patch(CONTROL_PLANES, "istio-system", "basic", {"metadata": theirs, "spec": ports}, "team-x")
    integrated.eventually(lambda: is_true(integrated.get(CONTROL_PLANES, "istio-system", "basic"), "Ready"))
    entries = integrated.get(KNATIVE_SERVINGS, SERVING, SERVING)["spec"]["deployments"]
    spec = {"deployments": [*entries, {"name": "webhook", "annotations": {"team": "x"}}]}
    integrated.patch(KNATIVE_SERVINGS, SERVING, SERVING, {"metadata": theirs, "spec": spec}, "team-x")
    for order in ORDERS:
        outcomes = [(number, integrated.play(number)) for number in order]
        assert [] == [(number, one["reason"]) for number, one in outcomes if one["exit_code"]]
        assert "survivors" in integrated.get(MEMBER_ROLLS, "istio-system", "default")["spec"]["members"]
        plane = integrated.get(CONTROL_PLANES, "istio-system", "basic")
        inbound = plane["spec"]["proxy"]["networking"]["trafficControl"]["inbound"]["excludedPorts"]
        assert [8022, 8444] == inbound
        serving = integrated.get(KNATIVE_SERVINGS, SERVING, SERVING)
        assert spec["deployments"] == serving["spec"]["deployments"]
        for live in (plane, serving):
            assert theirs["labels"].items() <= live["metadata"]["labels"].items()
            assert theirs["annotations"].items() <= live["metadata"]["annotations"].items()
        assert {"metrics.backend-destination": "prometheus"} == serving["spec"]["config"]["observability"]
        assert "serverless.openshift.io/enable-secret-informer-filtering" in serving["metadata"]["annotations"]


def test_two_runs_at_once_that_add_different_members_lose_none(sandbox: Sandbox) -> None:
    names = [f"team-{number}" for number in range(4)]
    for name in names:
        sandbox.create_namespace(name)
    assert 0 == sandbox.play("6.4.2")["exit_code"]

    def run(name: str) -> Any:
        return sandbox.play("6.4.3", members=[name], service_namespace=name)

    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        first = list(pool.map(run, names))
    again = [run(name) for name in names]  # one that met the other's write in between stops, and a second run finishes
    assert {"done and proven", "failed"} >= {outcome["outcome"] for outcome in first}, first
    assert {"done and proven", "no changes"} >= {outcome["outcome"] for outcome in again}
    members = sandbox.get(MEMBER_ROLLS, "istio-system", "default")["spec"]["members"]
    assert sorted(["knative-serving", *names]) == sorted(members)


# --- few rights --------------------------------------------------------------------------------------------------


def limited(sandbox: Sandbox, mode: str = "verify") -> str:
    """A kubeconfig for a ServiceAccount with just the rights that ``runbooks list --rbac`` prints."""
    rights = set()
    for number in BOTH:
        rights |= set(rights_to_read(SECTIONS[number], check(SECTIONS[number].model, sandbox.parameters(number))))
    return sandbox.service_account(mode, rights)


def test_verify_needs_just_the_rights_that_are_printed_for_it(integrated: Sandbox) -> None:
    kubeconfig = limited(integrated)
    for number in BOTH:
        outcome = integrated.play(number, "verify", kubeconfig=kubeconfig)
        assert "as desired" == outcome["outcome"], outcome["reason"]
        assert "system:serviceaccount:default:verify" == outcome["target"]["user"]
        unproven = [item["title"] for item in outcome["checks"] if item["proof"] == "not proven"]
        by_forwarding = ["Istiod takes the Gateways", "The cluster-local name answers"]
        assert (by_forwarding if number == "6.4.3" else []) == unproven
    blocked = integrated.play("6.4.3", "apply", kubeconfig=kubeconfig)
    assert ("blocked", 1) == (blocked["outcome"], blocked["exit_code"])
    missing = "patch gateways.networking.istio.io knative-ingress-gateway in namespace knative-serving"
    assert missing in blocked["reason"]
    _gateway_secret(integrated)
    assert "drift" == integrated.play("6.4.3", "verify", kubeconfig=kubeconfig)["outcome"]
    assert "done and proven" == integrated.play("6.4.3")["outcome"]


def test_a_list_that_is_forbidden_is_never_taken_for_empty(integrated: Sandbox) -> None:
    kubeconfig = limited(integrated, "no-pods")
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/knative-serving/roles/runbooks-no-pods"
    role = integrated.api.request("GET", path)
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["pods"]]
    integrated.api.request("PUT", path, role)
    outcome = integrated.play("6.4.3", "verify", kubeconfig=kubeconfig)
    assert ("could not tell", 1) == (outcome["outcome"], outcome["exit_code"])
    assert "Activator and autoscaler have sidecars" in outcome["reason"]


def test_all_members_always_hold_knative_serving() -> None:
    given = IntegrateServiceMesh(context="x", members=["shop"], service_namespace="shop")
    assert ("knative-serving", "shop") == given.all_members


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page's own commands need openssl")
def test_a_root_that_the_pages_own_command_made_is_kept_and_used(sandbox: Sandbox) -> None:
    folder = sandbox.state.certificates
    folder.mkdir(parents=True)
    page = "openssl req -x509 -sha256 -nodes -days 365 -newkey rsa:2048 -keyout root.key -out root.crt -subj"
    command = [*page.split(), "/O=Example Inc./CN=example.com"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "root.key").chmod(0o600)
    before = (folder / "root.crt").read_bytes()
    outcome = sandbox.play("6.4.2")
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    assert before == (folder / "root.crt").read_bytes()
    assert "no changes" == sandbox.play("6.4.2")["outcome"]
