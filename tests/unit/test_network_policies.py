"""NetworkPolicies, evaluated: each table is one rule of networking.k8s.io/v1."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runbooks.manifests import monitoring_policy, serving_system_policy
from runbooks.network_policies import Peer, admitted, policies_for, selects

KOURIER = Peer("ingress", {"of": "knative"}, {"app": "gateway"})
NEIGHBOUR = Peer("shop", {"team": "shop"}, {"app": "web"})
STRANGER = Peer("elsewhere", {}, {})
PORT = 8012


def policy(spec: str, namespace: str = "shop") -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": yaml.safe_load(spec)}


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("{}", {}, True),
        ("{}", {"app": "web"}, True),
        ("null", {"app": "web"}, False),
        ("{matchLabels: {app: web}}", {"app": "web", "tier": "front"}, True),
        ("{matchLabels: {app: web}}", {"app": "db"}, False),
        ("{matchLabels: {app: web}}", {}, False),
        ("{matchLabels: {app: web, tier: front}}", {"app": "web"}, False),
        ("{matchLabels: null}", {}, True),
        ("{matchExpressions: [{key: app, operator: In, values: [web, db]}]}", {"app": "db"}, True),
        ("{matchExpressions: [{key: app, operator: In, values: [web, db]}]}", {"app": "x"}, False),
        ("{matchExpressions: [{key: app, operator: In, values: [web, db]}]}", {}, False),
        ("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}", {"app": "db"}, True),
        ("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}", {}, True),
        ("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}", {"app": "web"}, False),
        ("{matchExpressions: [{key: app, operator: Exists}]}", {"app": ""}, True),
        ("{matchExpressions: [{key: app, operator: Exists}]}", {}, False),
        ("{matchExpressions: [{key: app, operator: DoesNotExist}]}", {}, True),
        ("{matchExpressions: [{key: app, operator: DoesNotExist}]}", {"app": "web"}, False),
        (
            "{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: Exists}]}",
            {"app": "web"},
            False,
        ),
    ],
)
def test_a_selector_matches_when_everything_in_it_does(selector: str, labels: dict[str, str], expected: bool) -> None:
    assert expected is selects(yaml.safe_load(selector), labels)


@pytest.mark.parametrize(
    ("spec", "namespace", "labels", "expected"),
    [
        ("{podSelector: {}}", "shop", {}, True),
        ("{podSelector: {}}", "billing", {}, False),
        ("{}", "shop", {"app": "web"}, True),
        ("{podSelector: {matchLabels: {app: web}}}", "shop", {"app": "web"}, True),
        ("{podSelector: {matchLabels: {app: web}}}", "shop", {}, False),
        ("{podSelector: {}, policyTypes: [Ingress]}", "shop", {}, True),
        ("{podSelector: {}, policyTypes: [Ingress, Egress]}", "shop", {}, True),
        ("{podSelector: {}, policyTypes: [Egress]}", "shop", {}, False),
        ("{podSelector: {}, policyTypes: []}", "shop", {}, True),
    ],
)
def test_a_policy_restricts_the_pods_that_it_selects_in_its_own_namespace(
    spec: str, namespace: str, labels: dict[str, str], expected: bool
) -> None:
    found = policy(spec)
    assert ([found] if expected else []) == policies_for([found], namespace, labels)


@pytest.mark.parametrize(
    ("peers", "kourier", "neighbour", "stranger"),
    [
        ("[{}]", True, True, True),  # a rule without from
        ("[{from: []}]", True, True, True),
        ("[]", False, False, False),
        ("null", False, False, False),
        ("[{from: [{podSelector: {}}]}]", False, True, False),
        ("[{from: [{podSelector: {matchLabels: {app: web}}}]}]", False, True, False),
        ("[{from: [{podSelector: {matchLabels: {app: gateway}}}]}]", False, False, False),
        ("[{from: [{namespaceSelector: {}}]}]", True, True, True),
        ("[{from: [{namespaceSelector: {matchLabels: {of: knative}}}]}]", True, False, False),
        (
            "[{from: [{namespaceSelector: {matchLabels: {of: knative}}, podSelector: {matchLabels: {app: gateway}}}]}]",
            True,
            False,
            False,
        ),
        (
            "[{from: [{namespaceSelector: {matchLabels: {of: knative}}, podSelector: {matchLabels: {app: web}}}]}]",
            False,
            False,
            False,
        ),
        # two peers are alternatives, one peer with two selectors is not
        (
            "[{from: [{namespaceSelector: {matchLabels: {of: knative}}}, {podSelector: {matchLabels: {app: web}}}]}]",
            True,
            True,
            False,
        ),
        ("[{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]", False, False, False),
        ("[{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {namespaceSelector: {}}]}]", True, True, True),
        (
            "[{from: [{podSelector: {}}]}, {from: [{namespaceSelector: {matchLabels: {of: knative}}}]}]",
            True,
            True,
            False,
        ),
    ],
)
def test_who_gets_in(peers: str, kourier: bool, neighbour: bool, stranger: bool) -> None:
    found = [policy(f"{{podSelector: {{}}, ingress: {peers}}}")]
    assert (kourier, neighbour, stranger) == tuple(
        admitted(found, "shop", {"app": "any"}, peer, PORT) for peer in (KOURIER, NEIGHBOUR, STRANGER)
    )


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ("[]", True),
        ("[{port: 8012}]", True),
        ("[{port: 8012, protocol: TCP}]", True),
        ("[{port: 8012, protocol: UDP}]", False),
        ("[{protocol: TCP}]", True),
        ("[{protocol: SCTP}]", False),
        ("[{port: 8013}]", False),
        ("[{port: 8013}, {port: 8012}]", True),
        ("[{port: 8000, endPort: 8100}]", True),
        ("[{port: 8012, endPort: 8012}]", True),
        ("[{port: 8000, endPort: 8011}]", False),
        ("[{port: 8013, endPort: 9000}]", False),
        ("[{port: queue-port}]", False),
    ],
)
def test_by_which_port(ports: str, expected: bool) -> None:
    found = [policy(f"{{podSelector: {{}}, ingress: [{{ports: {ports}}}]}}")]
    assert expected is admitted(found, "shop", {}, STRANGER, PORT)


CLOSED, OPEN = "{podSelector: {}, ingress: []}", "{podSelector: {}, ingress: [{}]}"


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ((), True),
        ((CLOSED,), False),
        ((CLOSED, OPEN), True),
        ((CLOSED, "{podSelector: {matchLabels: {app: db}}, ingress: [{}]}"), False),
        (("{podSelector: {matchLabels: {app: db}}, ingress: []}",), True),
        (("{podSelector: {}, policyTypes: [Egress]}",), True),
    ],
)
def test_what_no_policy_selects_is_open_and_one_that_lets_in_is_enough(
    policies: tuple[str, ...], expected: bool
) -> None:
    found = [policy(spec) for spec in policies]
    assert expected is admitted(found, "shop", {"app": "web"}, STRANGER, PORT)


def test_policies_of_other_namespaces_do_not_matter() -> None:
    found = [policy(CLOSED, "billing"), policy(CLOSED, "shop"), policy(OPEN, "billing")]
    assert not admitted(found, "shop", {}, STRANGER, PORT)
    assert admitted(found, "billing", {}, STRANGER, PORT)
    assert admitted(found, "elsewhere", {}, STRANGER, PORT)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"knative.openshift.io/part-of": "openshift-serverless"}, True),
        ({"knative.openshift.io/part-of": "openshift-serverless", "maistra.io/member-of": "istio-system"}, True),
        ({"knative.openshift.io/part-of": "openshift-pipelines"}, False),
        ({"part-of": "openshift-serverless"}, False),
        ({}, False),
    ],
)
def test_the_documented_policy_goes_by_the_label_of_the_namespace(labels: dict[str, str], expected: bool) -> None:
    peer = Peer("knative-serving-ingress", labels, {"app": "3scale-kourier-gateway"})
    assert expected is admitted([serving_system_policy("shop")], "shop", {}, peer, PORT)


@pytest.mark.parametrize(("label", "expected"), [("name", True), ("kubernetes.io/metadata.name", False)])
def test_a_policy_without_types_restricts_what_comes_in(label: str, expected: bool) -> None:
    peer = Peer("openshift-monitoring", {"name": "openshift-monitoring"}, {})
    assert expected is admitted([monitoring_policy("openshift-monitoring", label)], "knative-serving", {}, peer, 8444)
