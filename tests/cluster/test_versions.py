"""Each version that differs, played in a sandbox: what the runbooks say of it, and what is on the cluster afterwards.

One sandbox for each pair of versions; the runbooks of its path are planned, applied, and run a second time.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runbooks.procedure import path_of
from runbooks.secret_filtering import VARIABLE
from runbooks.step import open_runbook
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import ApiError, Object, Resource
from runbooks_sandbox.state import State, WrongCall
from runbooks_sandbox.world import (
    CONFIG_MAPS,
    CONTROL_PLANES,
    CONTROL_PLANES_V1,
    CRDS,
    DEPLOYMENTS,
    KNATIVE_SERVINGS,
    NAMESPACES,
    NETWORK_POLICIES,
    PEER_AUTHENTICATIONS,
    PODS,
    is_true,
)
from tests.cluster.test_kourier import KourierSandbox
from tests.conftest import Sandbox

SERVING, KOURIER, MESH = "knative-serving", "knative-serving-ingress", "istio-system"
TEAMS = ("billing", "shop")
LABEL = "knative.openshift.io/part-of"
ANNOTATION = "serverless.openshift.io/enable-secret-informer-filtering"
POLICY = "allow-from-openshift-monitoring-ns"
OPT_OUT = "serverless.openshift.io/disable-istio-net-policies-generation"
CSVS = Resource("operators.coreos.com/v1alpha1", "clusterserviceversions", "ClusterServiceVersion")
OLD_KEY, NEW_KEYS = ("metrics.backend-destination",), ("metrics-protocol", "request-metrics-protocol")

# words of the lines that say what a version has differ from the page
GATEWAYS, INJECTION = "the Gateways select istio: ingressgateway", "sidecar.istio.io/inject is an annotation"
KEYS, BESIDE = "the key metrics.backend-destination", "Service Mesh can be used where Kourier is enabled"
IGNORED, OVERRULED = "the annotation puts ENABLE_SECRET", "nothing about a workload's entry"
NEWEST = {"6.4.3": (GATEWAYS, INJECTION), "6.4.4": (KEYS,), "6.4.5": (BESIDE,), "6.4.6": (IGNORED, OVERRULED)}

# titles of preconditions, of which a version or the example of the page makes warnings
DRAIN = "The sidecars leave port 8022 alone, on which Pods are drained"
OPERATOR, MTLS = "OpenShift Serverless Operator is installed", "mTLS of the data plane"
MESH_OPERATOR = "Red Hat OpenShift Service Mesh 2.0.5 or later is installed"
DEPRECATED = "Service Mesh beside Kourier is documented for this version"


@dataclass(frozen=True)
class Pair:
    """Versions that are played together, and what is expected of them.

    Args:
        serverless: of OpenShift Serverless.
        mesh: of Service Mesh.
        ingress: istio or kourier.
        lines: words of the lines that say what differs from the page, by section.
        warned: what 6.4.1 warns of.
        strict: the outcome of 6.4.4 with strict_documentation, and that of the next one without.
        keys: the settings that send metrics to Prometheus.
        relabelled: the namespaces whose lost label the runbook has to write, since no operator does.
    """

    serverless: str
    mesh: str
    ingress: str = "istio"
    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warned: frozenset[str] = frozenset()
    strict: tuple[str, str] = ("done and proven", "no changes")
    keys: tuple[str, ...] = OLD_KEY
    relabelled: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.serverless} with mesh {self.mesh}, {self.ingress}"

    def since(self, minor: int) -> bool:
        """Whether a minor version of Serverless, or a later one, is played."""
        return int(self.serverless.split(".")[1]) >= minor


PAIRS = (
    Pair("1.26", "2.0.5"),
    Pair("1.28", "2.3", lines={"6.4.6": (OVERRULED,)}),
    Pair(
        "1.32",
        "2.0.5",
        lines={"6.4.3": (GATEWAYS,), "6.4.6": (IGNORED, OVERRULED)},
        warned=frozenset({DRAIN, MESH_OPERATOR}),
    ),
    Pair(
        "1.35",
        "2.6",
        lines={"6.4.3": (GATEWAYS, INJECTION), "6.4.6": (IGNORED, OVERRULED)},
        warned=frozenset({DRAIN}),
    ),
    Pair(
        "1.38",
        "2.6",
        lines={number: lines for number, lines in NEWEST.items() if number != "6.4.5"},
        warned=frozenset({DRAIN}),
        strict=("failed", "done and proven"),
        keys=NEW_KEYS,
    ),
    Pair("1.26", "1.1", "kourier", warned=frozenset({MTLS}), relabelled=(SERVING,)),
    Pair(
        "1.35",
        "2.6",
        "kourier",
        lines={"6.4.5": (BESIDE,)},
        warned=frozenset({MTLS, DEPRECATED}),
        relabelled=(SERVING, KOURIER),
    ),
)


@dataclass
class Played:
    """A pair, played: its sandbox, and each runbook's cells.

    Args:
        pair: the versions.
        sandbox: still running.
        planned: each section's cells in mode plan, before it was applied.
        strict: the outcome of 6.4.4 with strict_documentation.
        applied: each section's outcome.
        again: each section's outcome the second time.
        writes: what the second time wrote, out of the API server's own audit log.
    """

    pair: Pair
    sandbox: Sandbox
    planned: dict[str, dict[str, Any]] = field(default_factory=dict)
    strict: dict[str, Any] = field(default_factory=dict)
    applied: dict[str, dict[str, Any]] = field(default_factory=dict)
    again: dict[str, dict[str, Any]] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)

    @property
    def sections(self) -> list[str]:
        return [section.number for section in path_of(self.pair.ingress)]


def made(new_sandbox: Callable[..., Sandbox], pair: Pair) -> Sandbox:
    """A sandbox that plays a pair; beside Kourier, the namespaces have lost their label."""
    found = new_sandbox(serverless=pair.serverless, mesh=pair.mesh, ingress=pair.ingress)
    if pair.ingress == "istio":
        return found
    found.eventually(lambda: has(found, DEPLOYMENTS, KOURIER, "3scale-kourier-gateway"))
    for name in TEAMS:
        found.create_namespace(name)
    for name in (SERVING, KOURIER):
        found.patch(NAMESPACES, "", name, {"metadata": {"labels": {LABEL: None}}})
    found.eventually(lambda: {SERVING, KOURIER} - labelled(found) == set(pair.relabelled))
    return KourierSandbox(found.state, found.api)


def has(sandbox: Sandbox, resource: Resource, namespace: str, name: str) -> bool:
    try:
        sandbox.get(resource, namespace, name)
    except ApiError as error:
        if error.status != 404:
            raise
        return False
    return True


def labelled(sandbox: Sandbox) -> set[str]:
    items = sandbox.api.request("GET", NAMESPACES.path())["items"]
    return {live["metadata"]["name"] for live in items if LABEL in (live["metadata"].get("labels") or {})}


@pytest.fixture(scope="module")
def start(new_sandbox: Callable[..., Sandbox]) -> Iterator[Callable[[Pair], Sandbox]]:
    """Starts a pair's sandbox, and the next pair's while that one is played."""
    ahead: dict[int, Future[Sandbox]] = {}
    with ThreadPoolExecutor(1) as pool:

        def begin(pair: Pair) -> Sandbox:
            position = PAIRS.index(pair)
            for number in (position, position + 1):
                if number < len(PAIRS) and number not in ahead:
                    ahead[number] = pool.submit(made, new_sandbox, PAIRS[number])
            return ahead[position].result()

        yield begin


@pytest.fixture(scope="module", params=PAIRS, ids=str)
def played(request: pytest.FixtureRequest, start: Callable[[Pair], Sandbox]) -> Iterator[Played]:
    """Every runbook of a pair's path: planned, applied, and run again."""
    pair: Pair = request.param
    found = Played(pair, start(pair))
    for number in found.sections:
        found.planned[number] = found.sandbox.play_until("", number, "plan")
        if number == "6.4.4":
            limit = 10 if "failed" in pair.strict else 60
            found.strict = found.sandbox.play_until("", number, strict_documentation=True, timeout_s=limit)
        found.applied[number] = found.sandbox.play(number)
    since = found.sandbox.audit_position()
    for number in found.sections:
        found.again[number] = found.sandbox.play(number)
    found.sandbox.audit_position()
    found.writes = found.sandbox.writes(since)
    yield found
    lifecycle.stop(found.sandbox.state)


@pytest.fixture
def calling_itself(played: Played) -> Iterator[Callable[[str], None]]:
    """Lets the Serverless operator of the cluster say that it is of another version."""
    api, namespace, name = (
        played.sandbox.api,
        "openshift-serverless",
        f"serverless-operator.v{played.pair.serverless}.0",
    )
    live = played.sandbox.get(CSVS, namespace, name)

    def put(content: Object) -> None:
        kind = {"apiVersion": CSVS.api_version, "kind": CSVS.kind}
        api.apply({**kind, **content, "status": live["status"]}, CSVS, "olm")
        api.apply({**kind, "metadata": content["metadata"], "status": live["status"]}, CSVS, "olm", status=True)

    others = list[str]()

    def say(version: str) -> None:
        api.delete(CSVS, namespace, name)
        others.append(f"serverless-operator.v{version}")
        put({"metadata": {"name": others[-1], "namespace": namespace}, "spec": live["spec"]})

    yield say
    for other in others:
        api.delete(CSVS, namespace, other)
    put({"metadata": {"name": name, "namespace": namespace}, "spec": live["spec"]})


def of_version(lines: list[str], wanted: tuple[str, ...]) -> list[str]:
    """Which words the lines have in them, in their order."""
    return [words for line in lines for words in wanted if words in line]


ALL_LINES = tuple({words: None for lines in NEWEST.values() for words in lines})


# --- what is said ------------------------------------------------------------------------------------------------


def test_each_notebook_says_in_a_line_what_the_version_has_differ_from_the_page(played: Played) -> None:
    told = {
        number: tuple(of_version(list(cells["desired"]["differs"]), ALL_LINES))
        for number, cells in played.planned.items()
        if "desired" in cells
    }
    assert dict(played.pair.lines) == {number: lines for number, lines in told.items() if lines}


def test_6_4_1_says_it_of_every_section_of_the_path(played: Played) -> None:
    title = "What this version makes of the page"
    findings = played.planned["6.4.1"]["preconditions"]["findings"]
    told = {one["section"]: one["said"].split("; ") for one in findings if one["title"] == title}
    assert set(played.sections) & set(NEWEST) == told.keys()
    assert dict(played.pair.lines) == {
        number: tuple(found) for number, said in told.items() if (found := of_version(said, ALL_LINES))
    }


def test_6_4_1_warns_of_what_the_version_makes_a_risk_and_of_nothing_else(played: Played) -> None:
    findings = played.planned["6.4.1"]["preconditions"]["findings"]
    assert played.pair.warned == {one["title"] for one in findings if one["verdict"] == "warning"}
    assert "no changes" == played.applied["6.4.1"]["outcome"], played.applied["6.4.1"]["reason"]


# --- what is done ------------------------------------------------------------------------------------------------


def test_each_runbook_comes_to_a_good_end(played: Played) -> None:
    ends = {number: outcome["outcome"] for number, outcome in played.applied.items()}
    expected = dict.fromkeys(played.sections, "done and proven") | {"6.4.1": "no changes"}
    if played.pair.ingress == "istio":
        expected["6.4.4"] = played.pair.strict[1]
        expected["6.4.6"] = "no changes" if played.pair.since(32) else "done and proven"
    assert expected == ends, [outcome["reason"] for outcome in played.applied.values()]


def test_the_second_time_nothing_is_written(played: Played) -> None:
    ends = {outcome["outcome"] for outcome in played.again.values()}
    assert {"no changes"} == ends, [outcome["reason"] for outcome in played.again.values()]
    assert [] == played.writes


def test_strict_documentation_keeps_to_the_key_of_the_page_and_claims_no_success(played: Played) -> None:
    if played.pair.ingress == "kourier":
        assert {} == played.strict  # the path has no 6.4.4
        return
    outcome = played.strict["outcome"]
    assert played.pair.strict[0] == outcome["outcome"], outcome["reason"]
    (serving,) = [one for one in played.strict["desired"]["manifests"] if one["kind"] == "KnativeServing"]
    assert {"metrics.backend-destination": "prometheus"} == serving["spec"]["config"]["observability"]
    kept = [line for line in played.strict["desired"]["differs"] if "since strict_documentation is true" in line]
    renamed = [line for line in kept if KEYS in line]
    assert (played.pair.keys == NEW_KEYS) is bool(renamed)
    assert (played.pair.keys == NEW_KEYS) is ("this version reads metrics-protocol" in outcome["reason"])
    # where other keys take its place, the plan says that it goes
    fields = [item for change in played.applied["6.4.4"]["plan"]["changes"] for item in change["fields"]]
    going = [(item["old"], item["new"]) for item in fields if "metrics.backend-destination" in item["path"]]
    assert ([("prometheus", None)] if played.pair.keys == NEW_KEYS else []) == going


def test_metrics_go_to_prometheus_by_the_keys_that_the_version_reads(played: Played) -> None:
    data = played.sandbox.get(CONFIG_MAPS, SERVING, "config-observability")["data"]
    assert dict.fromkeys(played.pair.keys, "prometheus") == {key: data.get(key) for key in played.pair.keys}


def test_the_policy_for_monitoring_is_the_operators_own(played: Played) -> None:
    if played.pair.ingress == "kourier":
        assert not has(played.sandbox, NETWORK_POLICIES, SERVING, POLICY)
        return
    live = played.sandbox.get(NETWORK_POLICIES, SERVING, POLICY)
    ((source,),) = [rule["from"] for rule in live["spec"]["ingress"]]
    key = "kubernetes.io/metadata.name" if played.pair.since(32) else "name"
    assert {key: "openshift-monitoring"} == source["namespaceSelector"]["matchLabels"]
    assert ["openshift-knative-operator"] == [entry["manager"] for entry in live["metadata"]["managedFields"]]


def test_where_the_operator_is_told_to_keep_no_policies_that_of_the_page_is_made(played: Played) -> None:
    """From 1.32 on it can be told; before, it keeps them whatever the annotation says."""
    if played.pair.ingress == "kourier":
        assert not has(played.sandbox, NETWORK_POLICIES, SERVING, "net-istio-webhook")
        return
    sandbox, told = played.sandbox, played.pair.since(32)

    def annotate(value: str | None) -> None:
        # an annotation raises no generation; a setting beside it does, and tells when the operator has seen both
        spec = {"config": {"network": {"seen": value}}}
        sandbox.patch(KNATIVE_SERVINGS, SERVING, SERVING, {"metadata": {"annotations": {OPT_OUT: value}}, "spec": spec})
        sandbox.eventually(lambda: is_true(sandbox.get(KNATIVE_SERVINGS, SERVING, SERVING), "Ready"))

    annotate("true")
    sandbox.api.delete(NETWORK_POLICIES, SERVING, POLICY)
    if not told:
        sandbox.eventually(lambda: has(sandbox, NETWORK_POLICIES, SERVING, POLICY))
    outcome = sandbox.play("6.4.4")
    assert ("done and proven" if told else "no changes") == outcome["outcome"], outcome["reason"]
    assert ([f"NetworkPolicy {SERVING}/{POLICY}"] if told else []) == [one["target"] for one in outcome["applied"]]
    source = sandbox.get(NETWORK_POLICIES, SERVING, POLICY)["spec"]["ingress"][0]["from"][0]["namespaceSelector"]
    assert {"name": "openshift-monitoring"} == source["matchLabels"]
    annotate(None)
    sandbox.api.delete(NETWORK_POLICIES, SERVING, POLICY)
    sandbox.eventually(lambda: has(sandbox, NETWORK_POLICIES, SERVING, POLICY))


def test_the_filter_is_on_and_by_what(played: Played) -> None:
    """From 1.32 on without anybody's doing; for Kourier, too."""
    kourier = played.pair.ingress == "kourier"
    name, namespace = ("net-kourier-controller", KOURIER) if kourier else ("net-istio-controller", SERVING)
    pods = played.sandbox.api.request("GET", PODS.path(namespace))["items"]
    found = {
        entry["value"]
        for pod in pods
        if pod["metadata"]["labels"]["app"] == name
        for container in pod["spec"]["containers"]
        for entry in container.get("env") or []
        if entry["name"] == VARIABLE
    }
    assert (set() if kourier and not played.pair.since(32) else {"true"}) == found
    annotations = played.sandbox.get(KNATIVE_SERVINGS, SERVING, SERVING)["metadata"].get("annotations") or {}
    assert (not kourier and not played.pair.since(32)) is (annotations.get(ANNOTATION) == "true")


def test_what_a_version_has_of_its_own_is_played(played: Played) -> None:
    """What the runbooks do not depend on, and have to live with."""
    sandbox, pair = played.sandbox, played.pair
    assert has(sandbox, DEPLOYMENTS, SERVING, "domain-mapping") is not pair.since(32)
    served = sandbox.get(CRDS, "", "knativeservings.operator.knative.dev")["spec"]["versions"]
    assert (["v1beta1"] if pair.since(29) else ["v1beta1", "v1alpha1"]) == [one["name"] for one in served]
    ignored = sandbox.get(NAMESPACES, "", MESH)["metadata"]["labels"].get("maistra.io/ignore-namespace")
    assert (None if pair.mesh == "2.6" else "ignore") == ignored
    first = pair.mesh.startswith("1.")
    planes = {
        one.api_version: has(sandbox, one, MESH, "basic-install" if first else "basic")
        for one in (CONTROL_PLANES, CONTROL_PLANES_V1)
    }
    assert {"maistra.io/v2": not first, "maistra.io/v1": True} == planes
    assert has(sandbox, PEER_AUTHENTICATIONS, MESH, "default") is not first
    assert has(sandbox, DEPLOYMENTS, MESH, "istio-pilot") is first


def test_the_label_is_written_wherever_it_is_missing(played: Played) -> None:
    expected = {SERVING} if played.pair.ingress == "istio" and not played.pair.since(35) else {SERVING, KOURIER}
    assert expected == labelled(played.sandbox)
    written = {
        entry["target"].removeprefix("Namespace ")
        for outcome in played.applied.values()
        for entry in outcome["applied"]
        if entry["target"].startswith("Namespace ")
    }
    assert set(played.pair.relabelled) == written


@pytest.mark.parametrize(
    ("asked", "remedy"),
    [({"mesh": "1.1"}, "--ingress kourier"), ({"mesh": "3.0", "ingress": "kourier"}, "a version like 2.3")],
)
def test_a_mesh_that_is_not_played_is_refused_before_anything_starts(
    asked: dict[str, str], remedy: str, tmp_path: Path
) -> None:
    state = State("never", tmp_path)
    with pytest.raises(WrongCall, match="Service Mesh 2, beside Kourier for 1 as well") as refused:
        lifecycle.start(state, lifecycle.Played(**asked), Console(file=io.StringIO()))
    assert remedy in refused.value.remedy
    assert not state.exists()


# --- versions that are not known ---------------------------------------------------------------------------------


def test_1_25_is_refused_with_reason_and_remedy(played: Played, calling_itself: Callable[[str], None]) -> None:
    calling_itself("1.25.0")
    since = played.sandbox.audit_position()
    for number in (played.sections[0], played.sections[-1]):
        outcome = played.sandbox.play(number)
        assert ("blocked", 1) == (outcome["outcome"], outcome["exit_code"])
        assert "serverless-operator 1.25.0 is older than 1.26.0" in outcome["reason"]
        (found,) = {
            (one["said"], one["remedy"])
            for one in outcome["preconditions"]
            if one["title"] == OPERATOR and one["verdict"] == "not met"
        }
        assert "the first with KnativeServing v1beta1" in found[0]
        assert "update the operator to 1.26.0 or later" in found[1]
    assert [] == played.sandbox.writes(since)


def test_1_99_is_treated_as_the_newest_known_with_a_warning(
    played: Played, calling_itself: Callable[[str], None]
) -> None:
    calling_itself("1.99.0")
    opened = open_runbook("6.4.1", played.sandbox.parameters("6.4.1"))
    (shown,) = [line for line in opened.preconditions().brief if OPERATOR in line]  # what a terminal shows
    assert shown.startswith("! ")
    assert "1.99.0; newer than 1.38" in shown
    assert "compare with the release notes before you apply" in shown
    for number in played.sections:
        cells = played.sandbox.play_until("desired", number, "plan")
        findings = cells["preconditions"]["findings"]
        said = [one["said"] for one in findings if one["title"] == OPERATOR and one["verdict"] == "warning"]
        if number != "6.4.2":  # which no version decides anything of
            assert "1.99.0; newer than 1.38, the newest known here; it is treated like that one" in said[0]
        if number in NEWEST:
            assert NEWEST[number] == tuple(of_version(list(cells["desired"]["differs"]), ALL_LINES))
