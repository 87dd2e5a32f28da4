"""When an object is ready: YAML as a server returns it, and the whole judgement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from runbooks import readiness
from runbooks.readiness import State

MISSING = State(False, "it does not exist yet")
CONTROL_PLANE = """
metadata: {name: basic, generation: 3}
status:
  observedGeneration: 3
  conditions:
  - {type: Installed, status: "True"}
  - {type: Reconciled, status: "True"}
  - {type: Ready, status: "True"}
"""
SERVING = """
metadata: {name: knative-serving, generation: 1}
status:
  observedGeneration: 1
  conditions:
  - {type: DependenciesInstalled, status: "True"}
  - {type: DeploymentsAvailable, status: "True"}
  - {type: InstallSucceeded, status: "True"}
  - {type: Ready, status: "True"}
"""
SERVICE = """
metadata: {name: hello, generation: 2}
status:
  observedGeneration: 2
  conditions:
  - {type: ConfigurationsReady, status: "True"}
  - {type: Ready, status: "True"}
  - {type: RoutesReady, status: "True"}
"""


@pytest.mark.parametrize(
    ("judge", "text", "expected"),
    [
        (readiness.control_plane, CONTROL_PLANE, State(True)),
        (readiness.knative_serving, SERVING, State(True)),
        (readiness.knative_service, SERVICE, State(True)),
        (readiness.exists, "metadata: {name: wildcard-certs}", State(True)),
        # the conditions are those of the spec before
        (
            readiness.control_plane,
            CONTROL_PLANE.replace("generation: 3}", "generation: 4}"),
            State(False, "its operator has seen generation 3, not yet 4"),
        ),
        # an operator that reports no observedGeneration is taken at its conditions
        (readiness.control_plane, CONTROL_PLANE.replace("  observedGeneration: 3\n", ""), State(True)),
        (
            readiness.control_plane,
            CONTROL_PLANE.replace(
                '{type: Ready, status: "True"}',
                '{type: Ready, status: "False", reason: ComponentsNotReady, message: istiod is not available}',
            ),
            State(False, "Ready is False: ComponentsNotReady istiod is not available"),
        ),
        (
            readiness.knative_serving,
            "metadata: {name: knative-serving, generation: 1}",
            State(
                False,
                "InstallSucceeded is not reported yet; DependenciesInstalled is not reported yet; "
                "DeploymentsAvailable is not reported yet; Ready is not reported yet",
            ),
        ),
        (
            readiness.knative_serving,
            SERVING.replace(
                'DeploymentsAvailable, status: "True"',
                'DeploymentsAvailable, status: "False", reason: NotReady, message: "Waiting on: activator"',
            ).replace('Ready, status: "True"', 'Ready, status: Unknown, reason: ""'),
            State(False, "DeploymentsAvailable is False: NotReady Waiting on: activator; Ready is Unknown"),
        ),
        (
            readiness.knative_service,
            SERVICE.replace(
                'Ready, status: "True"}\n  - {type: RoutesReady', 'Ready, status: "True"}\n  - {type: Other'
            ),
            State(False, "RoutesReady is not reported yet"),
        ),
    ],
)
def test_an_object_is_ready_when_its_conditions_say_so_of_its_present_spec(
    judge: Callable[[object], State], text: str, expected: State
) -> None:
    assert expected == judge(yaml.safe_load(text))


@pytest.mark.parametrize(
    "judge",
    [
        readiness.exists,
        readiness.control_plane,
        readiness.knative_serving,
        readiness.knative_service,
        readiness.deployment,
        lambda live: readiness.member_roll(live, ["default"]),
    ],
)
def test_what_does_not_exist_is_not_ready(judge: Callable[[object], State]) -> None:
    assert MISSING == judge(None)


ROLL = yaml.safe_load("""
metadata: {name: default, generation: 2}
status:
  configuredMembers: [knative-serving, shop]
  pendingMembers: [billing, gone]
  memberStatuses:
  - namespace: knative-serving
    conditions: [{type: Reconciled, status: "True"}]
  - namespace: billing
    conditions:
    - {type: Ready, status: "True"}
    - {type: Reconciled, status: "False", reason: NamespaceNotExists, message: Namespace billing does not exist}
  - namespace: new
    conditions: []
""")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (["knative-serving", "shop"], State(True)),
        # other teams' pending members do not count
        (["shop"], State(True)),
        ([], State(True)),
        (
            ["shop", "billing", "new", "unheard-of"],
            State(
                False,
                "billing is not configured (NamespaceNotExists Namespace billing does not exist); "
                "new is not configured; unheard-of is not configured",
            ),
        ),
    ],
)
def test_a_member_roll_is_ready_when_the_given_members_are_configured(members: list[str], expected: State) -> None:
    assert expected == readiness.member_roll(ROLL, members)


@pytest.mark.parametrize("status", ["{}", "{status: {}}", "{status: {configuredMembers: null, memberStatuses: null}}"])
def test_a_member_roll_that_nobody_has_looked_at_has_no_members(status: str) -> None:
    expected = State(False, "shop is not configured")
    assert expected == readiness.member_roll({"metadata": {}, **yaml.safe_load(status)}, ["shop"])


def test_one_condition_is_found_by_its_type() -> None:
    live = yaml.safe_load(SERVING)
    assert {"type": "Ready", "status": "True"} == readiness.condition(live, "Ready")
    assert readiness.condition(live, "Unheard") == readiness.condition({}, "Ready") == {}


def test_of_many_members_that_are_not_configured_ten_are_named() -> None:
    found = readiness.member_roll(ROLL, [f"n{number}" for number in range(12)])
    named = "; ".join(f"n{number} is not configured" for number in range(10))
    assert State(False, f"{named}; and 2 more") == found


DEPLOYMENT = """
metadata: {name: activator, generation: 4}
spec: {replicas: 2}
status:
  observedGeneration: 4
  replicas: 2
  updatedReplicas: 2
  availableReplicas: 2
  conditions:
  - {type: Available, status: "True"}
  - {type: Progressing, status: "True", reason: NewReplicaSetAvailable, message: it has progressed}
"""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], State(True)),
        # one is the default
        ([("{replicas: 2}", "{}"), ("eplicas: 2", "eplicas: 1")], State(True)),
        ([("{replicas: 2}", "{replicas: 0}"), ("eplicas: 2", "eplicas: 0")], State(True)),
        (
            [("observedGeneration: 4", "observedGeneration: 3")],
            State(False, "its rollout to generation 4 has not begun"),
        ),
        ([("updatedReplicas: 2", "updatedReplicas: 1")], State(False, "1 of 2 replicas are updated")),
        (
            [("  replicas: 2", "  replicas: 3")],
            State(False, "1 of an earlier template are still there"),
        ),
        ([("availableReplicas: 2", "availableReplicas: 1")], State(False, "1 of 2 are available")),
        # the words of its controller
        (
            [
                ("updatedReplicas: 2", "updatedReplicas: 0"),
                ('Progressing, status: "True"', 'Progressing, status: "False"'),
            ],
            State(False, "0 of 2 replicas are updated: it has progressed"),
        ),
        (
            [("availableReplicas: 2", "availableReplicas: 0"), ("Progressing", "ReplicaFailure")],
            State(False, "0 of 2 are available: it has progressed"),
        ),
    ],
)
def test_a_deployment_is_ready_when_only_pods_of_its_present_template_are_left_and_available(
    changes: list[tuple[str, str]], expected: State
) -> None:
    text = DEPLOYMENT
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    assert expected == readiness.deployment(yaml.safe_load(text))


def test_a_deployment_that_its_controller_has_not_seen_is_not_ready() -> None:
    said = State(False, "its rollout to generation 1 has not begun")
    assert said == readiness.deployment({"metadata": {"generation": 1}, "spec": {}})


def pod(uid: str, ready: str = "True") -> dict[str, object]:
    return {"metadata": {"uid": uid}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([pod("new"), pod("other")], State(True, "2 of 2 Pods are ready")),
        # the one that goes does not count, however ready it still is
        ([pod("gone"), pod("other")], State(False, "1 of 2 Pods are ready")),
        ([pod("gone"), pod("new"), pod("other")], State(True, "2 of 2 Pods are ready")),
        ([pod("new", "False"), pod("other")], State(False, "1 of 2 Pods are ready")),
        ([], State(False, "0 of 2 Pods are ready")),
    ],
)
def test_a_pod_is_replaced_when_as_many_others_are_ready(pods: list[dict[str, object]], expected: State) -> None:
    assert expected == readiness.replaced(pods, pod("gone"), 2)


DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/stuck"]}


@pytest.mark.parametrize(
    "judge",
    [
        readiness.exists,
        readiness.control_plane,
        readiness.knative_serving,
        readiness.knative_service,
        lambda live: readiness.member_roll(live, []),
    ],
)
def test_what_is_being_deleted_is_never_ready(judge: Callable[[Any], State]) -> None:
    names = ("InstallSucceeded", "DependenciesInstalled", "DeploymentsAvailable", "Ready", "Reconciled")
    conditions = [{"type": name, "status": "True"} for name in (*names, "ConfigurationsReady", "RoutesReady")]
    live = {"metadata": {"generation": 1}, "status": {"conditions": conditions, "observedGeneration": 1}}
    assert State(True) == judge(live)
    said = "it is being deleted (since 2026-01-01T00:00:00Z), and waits for its finalizers example.com/stuck"
    assert State(False, said) == judge({**live, "metadata": {"generation": 1, **DELETED}})


def test_members_that_an_earlier_generation_of_the_roll_had_do_not_count() -> None:
    roll = {"metadata": {"generation": 3}, "status": {"observedGeneration": 1, "configuredMembers": ["shop"]}}
    assert State(False, "its operator has seen generation 1, not yet 3") == readiness.member_roll(roll, ["shop"])
    roll["status"]["observedGeneration"] = 3
    assert State(True) == readiness.member_roll(roll, ["shop"])
