"""What can be switched on while a sandbox runs, and processes that die under it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import urllib3

from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import ApiError, Object
from runbooks_sandbox.faults import FAULTS, acting
from runbooks_sandbox.world import (
    CONFIG_MAPS,
    CONTROL_PLANES,
    GATEWAYS,
    MEMBER_ROLLS,
    NAMESPACES,
    is_true,
)
from tests.faults.conftest import PARTS, Shell, eventually

ABSENT = "a-namespace-that-does-not-exist"


def get(shell: Shell, resource: Any, namespace: str, name: str) -> Object | None:
    found = shell.api.request("GET", resource.path(namespace))["items"]
    return next((one for one in found if one["metadata"]["name"] == name), None)


def members(shell: Shell) -> list[str]:
    return list((get(shell, MEMBER_ROLLS, "istio-system", "default") or {}).get("spec", {}).get("members", []))


def add_roll(shell: Shell, *names: str) -> None:
    manifest = {
        "apiVersion": "maistra.io/v1",
        "kind": "ServiceMeshMemberRoll",
        "metadata": {"name": "default", "namespace": "istio-system"},
        "spec": {"members": list(names)},
    }
    shell.api.apply(manifest, MEMBER_ROLLS, "somebody")


def remove_roll(shell: Shell) -> None:
    shell.api.delete(MEMBER_ROLLS, "istio-system", "default")


def configured(shell: Shell) -> list[str]:
    roll = get(shell, MEMBER_ROLLS, "istio-system", "default") or {}
    return list(roll.get("status", {}).get("configuredMembers", []))


# --- each fault, on and off --------------------------------------------------------------------------------------


def test_a_fault_is_on_until_it_is_switched_off(running: Shell) -> None:
    assert "stuck-operators is on" in running.run("fault", "on", "stuck-operators")
    assert {"stuck-operators": ""} == running.state.faults_on()
    assert "stuck-operators is off" in running.run("fault", "off", "stuck-operators")
    assert {} == running.state.faults_on()


def test_every_fault_goes_on_and_off_and_on_again(running: Shell) -> None:
    for name in (name for name, fault in FAULTS.items() if not fault.kills):
        for on in (True, True, False, False, True, False):
            lifecycle.switch(running.state, name, "", on=on)
    assert {} == running.state.faults_on()
    assert [] == running.api.request("GET", GATEWAYS.path())["items"]
    assert [] == running.api.request("GET", MEMBER_ROLLS.path())["items"]


def test_an_absent_member_is_added_and_taken_out_again(running: Shell) -> None:
    add_roll(running, "default")
    running.run("fault", "on", "absent-member")
    assert ["default", ABSENT] == members(running)
    eventually(lambda: configured(running) == ["default"], 10)
    roll = get(running, MEMBER_ROLLS, "istio-system", "default") or {}
    assert [ABSENT] == roll["status"]["pendingMembers"]
    assert not is_true(roll, "Ready")
    running.run("fault", "off", "absent-member")
    assert ["default"] == members(running)
    remove_roll(running)


def test_another_manager_takes_a_gateway_over_and_gives_it_back(running: Shell) -> None:
    server = {"port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"]}
    manifest = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "Gateway",
        "metadata": {"name": "knative-ingress-gateway", "namespace": "knative-serving"},
        "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]},
    }
    running.api.apply(manifest, GATEWAYS, "runbooks-6.4.3")
    running.run("fault", "on", "foreign-manager")
    live = get(running, GATEWAYS, "knative-serving", "knative-ingress-gateway") or {}
    owners = [
        one["manager"] for one in live["metadata"]["managedFields"] if "f:servers" in one["fieldsV1"].get("f:spec", {})
    ]
    assert ["argocd-controller"] == owners
    running.run("fault", "off", "foreign-manager")
    live = get(running, GATEWAYS, "knative-serving", "knative-ingress-gateway") or {}
    assert {"runbooks-6.4.3"} == {one["manager"] for one in live["metadata"]["managedFields"]}
    running.api.delete(GATEWAYS, "knative-serving", "knative-ingress-gateway")


def test_the_webhook_refuses_with_the_message_given(running: Shell) -> None:
    running.run("fault", "on", "webhook-refuses", "not on a Friday")
    with pytest.raises(ApiError, match="not on a Friday"):
        add_roll(running, "default")
    said = running.run("fault", "on", "absent-member", code=1)
    assert "the API server answered" in said
    assert "not on a Friday" in said
    assert {"webhook-refuses": "not on a Friday"} == running.state.faults_on()
    running.run("fault", "off", "webhook-refuses")


def test_stuck_operators_do_nothing_until_they_are_let_go(running: Shell) -> None:
    running.run("fault", "on", "stuck-operators")
    add_roll(running, "default")
    with pytest.raises(AssertionError):
        eventually(lambda: bool(configured(running)), 1)
    running.run("fault", "off", "stuck-operators")
    eventually(lambda: configured(running) == ["default"], 10)
    remove_roll(running)


def test_a_slow_operator_acts_when_its_time_has_come() -> None:
    clock = [0.0]
    operator = acting(lambda *_: ["acted"], lambda: clock[0])
    acted = []
    for clock[0] in (0.0, 2.0, 4.9, 5.0, 7.0):
        acted.append(bool(operator(None, {"slow-operators": "5"})))
    assert [True, False, False, True, False] == acted
    assert operator(None, {})
    assert not operator(None, {"stuck-operators": ""})


def test_data_and_faults_stay_over_a_restart_and_no_fault_keeps_it_from_starting(shell: Shell) -> None:
    shell.run("start")
    data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "namespace": "default"}}
    shell.api.apply(data, CONFIG_MAPS, "somebody")
    settings = shell.state.settings()
    for name, value in (("slow-operators", "30"), ("webhook-refuses", ""), ("second-gateway", "")):
        lifecycle.switch(shell.state, name, value, on=True)
    shell.run("stop")
    assert "slow-operators 30" in shell.run("start")
    assert settings == shell.state.settings()
    assert get(shell, CONFIG_MAPS, "default", "kept")
    assert is_true(get(shell, CONTROL_PLANES, "istio-system", "basic"), "Ready")
    assert get(shell, GATEWAYS, "istio-system", "another-teams-gateway")
    assert {"slow-operators", "webhook-refuses", "second-gateway"} == shell.state.faults_on().keys()
    for name in ("slow-operators", "webhook-refuses"):
        lifecycle.switch(shell.state, name, "", on=False)
    add_roll(shell, "default")
    eventually(lambda: configured(shell) == ["default"], 10)


def test_a_fault_needs_a_running_sandbox(shell: Shell) -> None:
    assert "does not run" in shell.run("fault", "on", "stuck-operators", code=1)


def test_an_operator_undoes_what_is_changed_until_it_is_switched_off(running: Shell) -> None:
    def servers(host: str) -> dict[str, Any]:
        one = {"port": {"number": 8081, "name": "http", "protocol": "HTTP"}, "hosts": [host]}
        address = {"name": "knative-local-gateway", "namespace": "knative-serving"}
        kind = {"apiVersion": "networking.istio.io/v1alpha3", "kind": "Gateway"}
        return {**kind, "metadata": address, "spec": {"selector": {"istio": "ingressgateway"}, "servers": [one]}}

    def hosts() -> list[str]:
        live = get(running, GATEWAYS, "knative-serving", "knative-local-gateway") or {}
        return list(live["spec"]["servers"][0]["hosts"])

    running.api.apply(servers("*"), GATEWAYS, "somebody")
    running.run("fault", "on", "operator-reverts")
    for _ in range(2):
        eventually(lambda: hosts() == ["nobody.example.com"], 10)
        running.api.apply(servers("*"), GATEWAYS, "somebody")
    eventually(lambda: hosts() == ["nobody.example.com"], 10)
    running.run("fault", "off", "operator-reverts")
    eventually(lambda: settled(running, servers("*"), hosts), 10)
    running.api.delete(GATEWAYS, "knative-serving", "knative-local-gateway")


def settled(shell: Shell, manifest: dict[str, Any], hosts: Callable[[], list[str]]) -> bool:
    """Whether what somebody applies stays for a while."""
    shell.api.apply(manifest, GATEWAYS, "somebody")
    time.sleep(1)
    return hosts() == ["*"]


def test_a_restart_is_an_act_and_leaves_no_fault_on(running: Shell) -> None:
    before = running.pid("kube-apiserver")
    assert "api-server-restarts: done" in running.run("fault", "on", "api-server-restarts")
    assert {} == running.state.faults_on()
    eventually(lambda: running.pid("kube-apiserver") != before, 10)
    eventually(lambda: answers(running), 30)
    running.run("fault", "off", "api-server-restarts")
    assert answers(running)


# --- processes that die ------------------------------------------------------------------------------------------


def answers(shell: Shell) -> bool:
    try:
        return bool(shell.api.request("GET", "/readyz", timeout_s=1))
    except (ApiError, urllib3.exceptions.HTTPError):
        return False


@pytest.mark.parametrize("name", [name for name in PARTS if name != "supervisor"])
def test_a_killed_process_is_started_again_and_everything_recovers(running: Shell, name: str) -> None:
    before = running.pid(name)
    os.kill(before, signal.SIGKILL)
    running.run("status")  # whatever it can tell at this moment
    eventually(lambda: running.pid(name) != before, 10)
    eventually(lambda: answers(running), 30)
    add_roll(running, "default")  # the webhook answers, a watch tells, an operator acts
    eventually(lambda: configured(running) == ["default"], 20)
    remove_roll(running)
    eventually(lambda: "maistra.io/member-of" not in labels(running, "default"), 20)
    assert PARTS == sorted(running.state.processes())


def labels(shell: Shell, namespace: str) -> dict[str, str]:
    return dict((get(shell, NAMESPACES, "", namespace) or {})["metadata"].get("labels") or {})
