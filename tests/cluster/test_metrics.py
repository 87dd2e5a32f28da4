"""6.4.4: metrics under mTLS, in an order that leaves no Pod behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runbooks_sandbox import lifecycle
from runbooks_sandbox.world import (
    CONTROL_PLANES,
    KNATIVE_SERVINGS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    is_true,
    within,
)
from tests.conftest import Sandbox, documented

NUMBER = "6.4.4"
SERVING, MESH = "knative-serving", "istio-system"
POLICY = "allow-from-openshift-monitoring-ns"
PAGE = {
    "backend": documented("""
spec:
  config:
    observability:
      metrics.backend-destination: "prometheus"
"""),
    "policy": documented("""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-from-openshift-monitoring-ns
  namespace: knative-serving
spec:
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          name: "openshift-monitoring"
  podSelector: {}
"""),
}
EXCLUDED = {"proxy": {"networking": {"trafficControl": {"inbound": {"excludedPorts": [8444]}}}}}
METRICS_ON = {"config": {"observability": {"metrics.backend-destination": "prometheus"}}}


@pytest.fixture(scope="module")
def measured(integrated: Sandbox) -> Sandbox:
    outcome = integrated.play(NUMBER)
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    return integrated


@pytest.fixture
def in_page_order(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A cluster where metrics were switched on before the port was excluded, as the page has it."""
    found = new_sandbox()
    for number in ("6.4.2", "6.4.3"):
        assert 0 == found.play(number)["exit_code"]
    found.patch(KNATIVE_SERVINGS, SERVING, SERVING, {"spec": METRICS_ON})
    found.eventually(lambda: len(serving_pods(found)) == 4)
    found.patch(CONTROL_PLANES, MESH, "basic", {"spec": EXCLUDED})
    found.eventually(lambda: is_true(found.get(CONTROL_PLANES, MESH, "basic"), "Ready"))
    yield found
    lifecycle.stop(found.state)


def serving_pods(sandbox: Sandbox) -> list[str]:
    """The Pods of activator and autoscaler that serve 8444."""
    return sorted(
        pod["metadata"]["name"]
        for pod in sandbox.api.request("GET", PODS.path(SERVING))["items"]
        if pod["metadata"]["labels"]["app"] in ("activator", "autoscaler")
        and any(container["name"] == "kube-rbac-proxy" for container in pod["spec"]["containers"])
        and not pod["metadata"].get("deletionTimestamp")
    )


def test_the_pages_objects_are_there_field_for_field(measured: Sandbox) -> None:
    assert within(PAGE["backend"], measured.get(KNATIVE_SERVINGS, SERVING, SERVING))
    assert within(PAGE["policy"], measured.get(NETWORK_POLICIES, SERVING, POLICY))
    assert within({"spec": EXCLUDED}, measured.get(CONTROL_PLANES, MESH, "basic"))


def test_no_pod_has_to_be_restarted_in_this_order(measured: Sandbox) -> None:
    assert 4 == len(serving_pods(measured))
    outcome = measured.play(NUMBER)
    assert "no changes" == outcome["outcome"], outcome["reason"]


def test_a_second_run_writes_nothing(measured: Sandbox) -> None:
    since = measured.audit_position()
    for mode in ("apply", "plan", "verify"):
        outcome = measured.play(NUMBER, mode)
        assert 0 == outcome["exit_code"], outcome["reason"]
    assert [] == measured.writes(since)


def test_the_operators_policy_is_recognised_and_left_alone(measured: Sandbox) -> None:
    changes = measured.play(NUMBER, "plan")["plan"]["changes"]
    policy = next(change for change in changes if change["step"] == "allow-scraping")
    assert ("unchanged", ["already provided by the operator, for KnativeServing knative-serving"]) == (
        policy["operation"],
        policy["notes"],
    )
    managers = measured.get(NETWORK_POLICIES, SERVING, POLICY)["metadata"]["managedFields"]
    assert ["openshift-knative-operator"] == [entry["manager"] for entry in managers]


def test_6_4_3_again_takes_nothing_of_it_out(measured: Sandbox) -> None:
    outcome = measured.play("6.4.3")
    assert "no changes" == outcome["outcome"], outcome["reason"]
    assert 0 == measured.play(NUMBER, "verify")["exit_code"]


def _port_gone(sandbox: Sandbox) -> None:
    sandbox.patch(CONTROL_PLANES, MESH, "basic", {"spec": {"proxy": None}})


def _metrics_off(sandbox: Sandbox) -> None:
    off = {"config": {"observability": {"metrics.backend-destination": "none"}}}
    sandbox.patch(KNATIVE_SERVINGS, SERVING, SERVING, {"spec": off})
    sandbox.eventually(lambda: not serving_pods(sandbox))


def _label_gone(sandbox: Sandbox) -> None:
    sandbox.patch(NAMESPACES, "", "openshift-monitoring", {"metadata": {"labels": {"name": None}}})


DRIFTS: dict[str, tuple[Callable[[Sandbox], None], str]] = {
    "excluded port taken out": (_port_gone, "ServiceMeshControlPlane istio-system/basic"),
    "metrics switched off": (_metrics_off, "KnativeServing knative-serving/knative-serving"),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_drift_is_found_named_and_repaired(measured: Sandbox, drift: str) -> None:
    change, target = DRIFTS[drift]
    change(measured)
    found = measured.play(NUMBER, "verify")
    assert ("drift", 2) == (found["outcome"], found["exit_code"])
    assert [target] == [one["target"] for one in found["plan"]["changes"] if one["operation"] != "unchanged"]
    repaired = measured.play(NUMBER)
    assert "done and proven" == repaired["outcome"], repaired["reason"]
    assert [target] == [entry["target"] for entry in repaired["applied"]]


def test_a_label_that_the_policy_asks_for_and_the_namespace_lacks_is_drift(measured: Sandbox) -> None:
    _label_gone(measured)
    found = measured.play(NUMBER, "verify")
    measured.patch(NAMESPACES, "", "openshift-monitoring", {"metadata": {"labels": {"name": "openshift-monitoring"}}})
    assert 2 == found["exit_code"]
    assert "NetworkPolicies let Prometheus in" in found["reason"]


def test_other_teams_excluded_ports_survive(measured: Sandbox) -> None:
    ports: Any = {"proxy": {"networking": {"trafficControl": {"inbound": {"excludedPorts": [8022]}}}}}
    measured.patch(CONTROL_PLANES, MESH, "basic", {"spec": ports}, "another-team")
    measured.eventually(lambda: is_true(measured.get(CONTROL_PLANES, MESH, "basic"), "Ready"))
    assert "done and proven" == measured.play(NUMBER)["outcome"]
    spec = measured.get(CONTROL_PLANES, MESH, "basic")["spec"]
    assert [8022, 8444] == spec["proxy"]["networking"]["trafficControl"]["inbound"]["excludedPorts"]


class TestInThePagesOrder:
    def test_the_pods_that_keep_prometheus_out_are_named(self, in_page_order: Sandbox) -> None:
        pods = serving_pods(in_page_order)
        outcome = in_page_order.play(NUMBER)
        assert ("applied, restart pending", 1) == (outcome["outcome"], outcome["exit_code"]), outcome["reason"]
        assert [] == [pod for pod in pods if pod not in outcome["reason"]]
        assert pods == serving_pods(in_page_order)

    def test_restart_pods_evicts_them_one_at_a_time_and_shows_it_first(self, in_page_order: Sandbox) -> None:
        pods = serving_pods(in_page_order)
        planned = in_page_order.play(NUMBER, "plan", restart_pods=True)
        restarts = [change["target"] for change in planned["plan"]["changes"] if change["operation"] == "restart"]
        assert sorted(f"Pod {SERVING}/{pod}" for pod in pods) == sorted(restarts)
        since = in_page_order.audit_position()
        outcome = in_page_order.play(NUMBER, restart_pods=True)
        assert "done and proven" == outcome["outcome"], outcome["reason"]
        evictions = [write for write in in_page_order.writes(since) if write.endswith("/eviction")]
        assert len(pods) == len(evictions)
        assert set(pods).isdisjoint(serving_pods(in_page_order))
        assert "no changes" == in_page_order.play(NUMBER, restart_pods=True)["outcome"]


def test_where_mutual_tls_is_off_there_is_nothing_to_do(integrated: Sandbox) -> None:
    def switch(on: bool) -> None:
        integrated.patch(CONTROL_PLANES, MESH, "basic", {"spec": {"security": {"dataPlane": {"mtls": on}}}})

    switch(False)
    since = integrated.audit_position()
    outcomes = [integrated.play(NUMBER, mode) for mode in ("plan", "apply", "verify")]
    switch(True)
    assert ["no changes", "no changes", "as desired"] == [outcome["outcome"] for outcome in outcomes]
    assert [] == [outcome["reason"] for outcome in outcomes if "mTLS is off" not in outcome["reason"]]
    assert [] == integrated.writes(since)


def test_before_6_4_3_it_is_blocked_and_sends_the_reader_there(sandbox: Sandbox) -> None:
    outcome = sandbox.play(NUMBER)
    assert "blocked" == outcome["outcome"]
    assert "6.4.3" in [finding["see"] for finding in outcome["preconditions"]]
