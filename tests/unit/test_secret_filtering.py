"""6.4.6, judged without a cluster: what switches the filter on, what it hides, what it saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks import manifests, preconditions, readiness
from runbooks.checks.secret_filtering import FILTERED, MEASURED, savings, unfiltered
from runbooks.cluster import only_metadata, size_estimate
from runbooks.errors import ConnectionFailed, Forbidden, NotServed
from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
    CONFIG_MAP,
    DEPLOYMENT,
    DOMAIN_MAPPING,
    KNATIVE_SERVING,
    POD,
    SECRET,
)
from runbooks.plan import Desired
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Basis
from runbooks.readiness import State
from runbooks.rights import Right
from runbooks.secret_filtering import (
    LABEL,
    VARIABLE,
    Needed,
    Override,
    is_on,
    label_command,
    needed,
    override,
    rolled_out,
    shared,
    sightless,
    variable,
)
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read, Snapshot
from runbooks.verdicts import Proof, Verdict
from runbooks.versions import Operator, SecretFiltering, Version, Versions, profile

Situate = Callable[..., Situation[Any]]
Csv = Callable[..., Live]
SECTION = SECTIONS["6.4.6"]


# --- versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.26.0", SecretFiltering.ANNOTATION),
        ("1.27.1", SecretFiltering.ANNOTATION),
        ("1.28.0", SecretFiltering.DEPRECATED_ANNOTATION),
        ("1.31.9", SecretFiltering.DEPRECATED_ANNOTATION),
        ("1.32.0", SecretFiltering.DEFAULT),
        ("1.38.0", SecretFiltering.DEFAULT),
        ("1.39.0", SecretFiltering.DEFAULT),
    ],
)
def test_what_decides_in_each_version(version: str, expected: SecretFiltering) -> None:
    found = Operator("serverless-operator", Version.parse(version), "Succeeded")
    assert expected is profile(Versions(found, None, None, "")).secret_filtering


def test_every_mode_has_its_sentence() -> None:
    assert set(SecretFiltering) == preconditions.FILTERING_RULES.keys()


# --- the section -------------------------------------------------------------------------------------------------


def at_version(situate: Situate, csv: Csv, version: str, serving: Live | None = None) -> Situation[Any]:
    operators = (csv(f"serverless-operator.v{version}"), csv("servicemeshoperator.v2.4.1"))
    return situate("6.4.6", {CLUSTER_SERVICE_VERSION: operators, KNATIVE_SERVING: (serving,) if serving else ()})


def test_the_page_is_amended_and_never_created(situate: Situate, csv: Csv) -> None:
    wanted = SECTION.steps[0].objects(at_version(situate, csv, "1.26.0"))
    assert (Desired(manifests.secret_filtering(), amend=True),) == wanted
    annotations = {"serverless.openshift.io/enable-secret-informer-filtering": "true"}
    assert annotations == manifests.secret_filtering()["metadata"]["annotations"]
    assert "spec" not in manifests.secret_filtering()


@pytest.mark.parametrize(("version", "count"), [("1.26.0", 1), ("1.31.0", 1), ("1.32.0", 0), ("1.38.1", 0)])
def test_it_is_written_only_where_it_is_honoured(situate: Situate, csv: Csv, version: str, count: int) -> None:
    situation = at_version(situate, csv, version)
    assert count == len(SECTION.steps[0].objects(situation))
    assert bool(count) == (SECTION.remark(situation) == "")
    finding = preconditions.filtering_rule(situation)
    assert Verdict.MET is finding.verdict
    assert finding.said.startswith(f"{version}: ")


def test_an_unknown_version_is_no_reason_to_guess(situate: Situate) -> None:
    situation = situate("6.4.6", {CLUSTER_SERVICE_VERSION: ()})
    assert Verdict.UNKNOWN is preconditions.filtering_rule(situation).verdict
    assert "" == SECTION.remark(situation)


def test_the_right_to_list_every_secret_is_for_measuring(situate: Situate) -> None:
    everywhere = Right.on(SECRET, "list")
    members = {Right.on(SECRET, "list", name) for name in ("shop", "billing")}
    given_ = situate("6.4.6", members=["shop", "billing"]).parameters
    assert members == set(SECTION.rights(given_))
    measuring = situate("6.4.6", members=["shop", "billing"], measure_secrets=True).parameters
    assert members | {everywhere} == set(SECTION.rights(measuring))


def test_nothing_that_it_does_otherwise_is_undocumented() -> None:
    assert Basis.UNDOCUMENTED not in {erratum.basis for erratum in SECTION.errata}


# --- the variable ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("T", True), ("1", True), ("True", True), ("tRUE", False), ("yes", False), ("", False)],
)
def test_what_the_controller_takes_for_true(value: str, expected: bool) -> None:
    assert expected == is_on(value)
    assert not is_on(None)


def entry(value: str, name: str = "net-istio-controller", container: str = "controller") -> Live:
    variables = [{"name": "OTHER", "value": "x"}, {"name": VARIABLE, "value": value}]
    return {"name": name, "env": [{"container": container, "envVars": variables}]}


def serving(**spec: Any) -> Live:
    metadata = {"name": "knative-serving", "namespace": "knative-serving"}
    return {"metadata": metadata, "spec": {"ingress": {"istio": {"enabled": True}}, **spec}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, None),
        ({"workloads": None, "deployments": []}, None),
        ({"workloads": [{"name": "net-istio-controller", "replicas": 3}]}, None),
        ({"workloads": [entry("false", name="activator")]}, None),
        ({"workloads": [entry("false", container="istio-proxy")]}, None),
        ({"workloads": [entry("false")]}, Override("spec.workloads", "false")),
        ({"deployments": [entry("false")]}, Override("spec.deployments", "false")),
        # the operator applies both lists, deployments first
        ({"deployments": [entry("false")], "workloads": [entry("true")]}, Override("spec.workloads", "true")),
    ],
)
def test_the_entry_that_sets_the_variable(spec: dict[str, Any], expected: Override | None) -> None:
    assert expected == override(serving(**spec))


@pytest.mark.parametrize(
    ("version", "value", "expected"),
    [
        ("1.26.0", "false", Verdict.WARNING),
        ("1.28.0", "false", Verdict.NOT_MET),
        ("1.31.0", "sure", Verdict.NOT_MET),
        ("1.31.0", "true", Verdict.MET),
        ("1.38.0", "false", Verdict.NOT_MET),
    ],
)
def test_an_entry_that_wins_is_recognised_before_anything_is_written(
    situate: Situate, csv: Csv, version: str, value: str, expected: Verdict
) -> None:
    found = preconditions.filtering_not_overridden(at_version(situate, csv, version, serving(workloads=[entry(value)])))
    assert expected is found.verdict
    assert f"spec.workloads sets {VARIABLE}={value}" in found.said
    assert bool(found.remedy) == (expected is not Verdict.MET)


def test_without_an_entry_nothing_is_overridden(situate: Situate, csv: Csv) -> None:
    for one in (serving(), None):
        assert Verdict.MET is preconditions.filtering_not_overridden(at_version(situate, csv, "1.30.0", one)).verdict


# --- Deployment and Pods -----------------------------------------------------------------------------------------


def pod_spec(value: str | None) -> Live:
    environment = [{"name": "SYSTEM_NAMESPACE", "value": "knative-serving"}]
    environment += [{"name": VARIABLE, "value": value}] if value is not None else []
    # a sidecar of the same variable would be another container's
    sidecar = {"name": "istio-proxy", "env": [{"name": VARIABLE, "value": "sidecar"}]}
    return {"containers": [sidecar, {"name": "controller", "env": environment}]}


def deployment(value: str | None, **status: int) -> Live:
    metadata = {"name": "net-istio-controller", "namespace": "knative-serving", "generation": 2}
    through = {
        "observedGeneration": 2,
        "replicas": 2,
        "updatedReplicas": 2,
        "availableReplicas": 2,
    }
    selector = {"matchLabels": {"app": "net-istio-controller"}}
    spec = {"replicas": 2, "selector": selector, "template": {"spec": pod_spec(value)}}
    return {"metadata": metadata, "spec": spec, "status": {**through, **status}}


def pod(name: str, value: str | None, app: str = "net-istio-controller", **metadata: Any) -> Live:
    own = {"name": name, "namespace": "knative-serving", "labels": {"app": app}, **metadata}
    return {"metadata": own, "spec": pod_spec(value), "status": {"phase": "Running"}}


def test_the_variable_is_read_from_the_controllers_container() -> None:
    assert "true" == variable(pod_spec("true"))
    assert variable(pod_spec(None)) is None
    assert variable({}) is None
    assert variable({"containers": [{"name": "controller"}]}) is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, State(True)),
        ({"observedGeneration": 1}, State(False, "its rollout to generation 2 has not begun")),
        ({"updatedReplicas": 1, "replicas": 3}, State(False, "1 of 2 replicas are updated")),
        ({"replicas": 3}, State(False, "1 of an earlier template are still there")),
        ({"availableReplicas": 1}, State(False, "1 of 2 are available")),
    ],
)
def test_a_rollout_is_through_when_only_the_new_replicas_are_there(status: dict[str, int], expected: State) -> None:
    assert expected == readiness.deployment(deployment("true", **status))


def test_a_rollout_that_does_not_get_on_says_why() -> None:
    live = deployment("true", updatedReplicas=0)
    quota = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    live["status"]["conditions"] = [{"type": "Progressing", "status": "True", "message": "fine"}, quota]
    assert "0 of 2 replicas are updated: exceeded quota" == readiness.deployment(live).message
    late = {"type": "Progressing", "status": "False", "message": "ReplicaSet has timed out progressing."}
    live["status"]["conditions"] = [late]
    assert "0 of 2 replicas are updated: ReplicaSet has timed out progressing." == readiness.deployment(live).message
    assert not readiness.deployment(None).done


def test_a_deployment_that_nobody_has_looked_at_yet_is_not_through() -> None:
    live = deployment("true")
    live["status"] = {}
    assert not readiness.deployment(live).done
    del live["status"]
    assert not readiness.deployment(live).done


@pytest.mark.parametrize(
    ("value", "words"), [("false", f"({VARIABLE}=false)"), (None, f"(no {VARIABLE})"), ("sure", f"({VARIABLE}=sure)")]
)
def test_a_rollout_before_the_operator_saw_the_annotation_does_not_count(value: str | None, words: str) -> None:
    state = rolled_out(deployment(value))
    assert not state.done
    assert words in state.message


def test_a_rollout_with_the_filter_on_counts() -> None:
    assert rolled_out(deployment("true")).done
    assert not rolled_out(deployment("true", availableReplicas=0)).done
    assert not rolled_out(None).done


def test_every_running_pod_of_the_controller_is_looked_at() -> None:
    pods = [
        pod("new", "true"),
        pod("old", "false"),
        pod("bare", None),
        pod("leaving", "false", deletionTimestamp="2026-01-01T00:00:00Z"),
        pod("other", None, app="activator"),
    ]
    assert [
        f"Pod old runs with {VARIABLE}=false",
        f"Pod bare runs with no {VARIABLE}",
    ] == unfiltered(deployment("true"), pods)
    assert [
        f"Deployment net-istio-controller has {VARIABLE}=false",
        "no Pod of net-istio-controller runs",
    ] == unfiltered(deployment("false"), [])


def looked(situate: Situate, found: dict[Any, Any], **more: Any) -> Any:
    return FILTERED.look(situate("6.4.6", found, **more), None)  # type: ignore[arg-type]


def test_the_effect_is_judged_by_deployment_and_pods(situate: Situate) -> None:
    pods = (pod("new", "true"),)
    assert Proof.PROVEN is looked(situate, {DEPLOYMENT: (deployment("true"),), POD: pods}).proof
    found = looked(situate, {DEPLOYMENT: (deployment("false"),), POD: (pod("new", "false"),)})
    assert Proof.FAILED is found.proof
    assert 2 == found.observed.count(f"{VARIABLE}=false")
    missing = looked(situate, {DEPLOYMENT: (), POD: ()})
    assert (Proof.FAILED, True) == (missing.proof, "no Deployment" in missing.observed)


# --- what the filter would hide ----------------------------------------------------------------------------------


def mapping(host: str, secret: str = "", namespace: str = "shop") -> Live:
    spec = {"ref": {"name": "hello"}, **({"tls": {"secretName": secret}} if secret else {})}
    return {"metadata": {"name": host, "namespace": namespace}, "spec": spec}


def secret(name: str, labels: dict[str, str] | None, namespace: str = "shop") -> Live:
    return {"metadata": {"name": name, "namespace": namespace, **({"labels": labels} if labels is not None else {})}}


def test_only_mappings_with_tls_need_a_secret() -> None:
    mappings = [mapping("b", "cert"), mapping("a", "cert"), mapping("c"), {**mapping("d"), "spec": {"tls": None}}]
    assert (Needed("shop", "cert", "a"), Needed("shop", "cert", "b")) == needed(mappings)


def test_the_labels_key_counts_and_not_its_value_nor_an_annotation() -> None:
    wanted = [Needed("shop", name, f"{name}.example") for name in ("empty", "labelled", "none", "gone", "annotated")]
    annotated = secret("annotated", {})
    annotated["metadata"]["annotations"] = {LABEL: "x"}
    secrets = [
        secret("empty", {LABEL: ""}),
        secret("labelled", {LABEL: "x"}),
        secret("none", None),
        secret("gone", {LABEL: "x"}, namespace="elsewhere"),
        annotated,
    ]
    hidden, missing = sightless(wanted, secrets)
    assert ["none", "annotated"] == [one.secret for one in hidden]
    assert ["gone"] == [one.secret for one in missing]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("123")), unique=True))
def test_each_secret_is_seen_hidden_or_missing_and_never_two_of_these(triples: list[tuple[str, str, str]]) -> None:
    wanted = [Needed(*triple) for triple in triples]
    secrets = [secret("x", {LABEL: ""}, "a"), secret("y", {}, "a"), secret("x", None, "b")]
    hidden, missing = sightless(wanted, secrets)
    assert {one for one in wanted if (one.namespace, one.secret) in (("a", "y"), ("b", "x"))} == set(hidden)
    assert {one for one in wanted if (one.namespace, one.secret) == ("b", "y")} == set(missing)


def test_the_command_names_secret_namespace_and_label() -> None:
    assert f"oc label secret cert -n shop {LABEL}=in-use" == label_command(Needed("shop", "cert", "www.example"))


def test_secrets_of_several_hosts() -> None:
    wanted = needed([mapping("a", "wild"), mapping("b", "wild"), mapping("c", "own"), mapping("d", "wild", "other")])
    assert {"shop/wild": ["a", "b"]} == shared(wanted)


def hiding(situate: Situate, mappings: tuple[Live, ...], secrets: dict[str, Any]) -> Situation[Any]:
    """A situation with DomainMappings, and the Secrets of each namespace: a tuple, or the server's refusal."""
    reads = {Read(SECRET, namespace, metadata_only=True): answer for namespace, answer in secrets.items()}
    more = Snapshot(
        {read: answer for read, answer in reads.items() if isinstance(answer, tuple)},
        {read: answer for read, answer in reads.items() if not isinstance(answer, tuple)},
    )
    situation = situate("6.4.6", {DOMAIN_MAPPING: mappings})
    return replace(situation, snapshot=situation.snapshot.plus(more))


REFUSED = Forbidden("listing Secrets", "secrets is forbidden", status=403)


@pytest.mark.parametrize(
    ("mappings", "secrets", "expected", "words"),
    [
        ((), {}, Verdict.MET, "none is needed"),
        ((mapping("a"),), {}, Verdict.MET, "none is needed"),
        ((mapping("a", "cert"),), {"shop": (secret("cert", {LABEL: ""}),)}, Verdict.MET, "1 needed"),
        ((mapping("a", "cert"),), {"shop": (secret("cert", {}),)}, Verdict.NOT_MET, "Secret shop/cert"),
        ((mapping("a", "cert"),), {"shop": ()}, Verdict.WARNING, "does not exist"),
        ((mapping("a", "cert"),), {"shop": REFUSED}, Verdict.UNKNOWN, "could not be looked at"),
        # what was not read at all is not missing either
        ((mapping("a", "cert"),), {}, Verdict.UNKNOWN, "could not be looked at"),
        # what is known to be hidden stops the run, whatever else is not known
        (
            (mapping("a", "cert"), mapping("b", "cert", "other")),
            {"shop": REFUSED, "other": (secret("cert", {}, "other"),)},
            Verdict.NOT_MET,
            "DomainMapping other/b",
        ),
    ],
)
def test_what_the_filter_would_hide_is_found_before_it_is_on(
    situate: Situate, mappings: tuple[Live, ...], secrets: dict[str, Any], expected: Verdict, words: str
) -> None:
    found = preconditions.needed_secrets_labelled(hiding(situate, mappings, secrets))
    assert (expected, True) == (found.verdict, words in found.said), found


def test_secrets_are_read_only_where_a_mapping_needs_one(situate: Situate) -> None:
    mappings = (mapping("a", "cert"), mapping("b", "other"), mapping("c"), mapping("d", "cert", "billing"))
    reads = SECTION.reads_besides(situate("6.4.6", {DOMAIN_MAPPING: mappings}))
    assert {Read(SECRET, name, metadata_only=True) for name in ("shop", "billing")} == set(reads)
    assert () == SECTION.reads_besides(situate("6.4.6", {DOMAIN_MAPPING: (mapping("c"),)}))


def test_domain_mappings_that_are_not_served_or_not_shown(situate: Situate) -> None:
    absent = situate("6.4.6", refused={DOMAIN_MAPPING: NotServed("listing", "not found", status=404)})
    assert Verdict.MET is preconditions.needed_secrets_labelled(absent).verdict
    hidden = situate("6.4.6", refused={DOMAIN_MAPPING: Forbidden("listing", "forbidden", status=403)})
    assert Verdict.UNKNOWN is preconditions.needed_secrets_labelled(hidden).verdict


def test_a_shared_secret_is_a_warning(situate: Situate) -> None:
    found = preconditions.secrets_not_shared(
        situate("6.4.6", {DOMAIN_MAPPING: (mapping("a", "wild"), mapping("b", "wild"))})
    )
    assert (Verdict.WARNING, "shop/wild serves a, b") == (found.verdict, found.said)
    assert Verdict.MET is preconditions.secrets_not_shared(situate("6.4.6", {DOMAIN_MAPPING: ()})).verdict


# --- how much it saves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "labelled", "stored", "words"),
    [
        (10_001, 50, 54_300_000, ("10,001 Secrets, about 54.3 MB", "50 with it, in proportion 271.5 kB", "estimate")),
        (300, 10, None, ("300 Secrets", "10 with it", "could not be told")),
        (3, 0, 999, ("3 Secrets, about 999 bytes", "0 with it, in proportion 0 bytes")),
        (0, 0, 0, ("0 Secrets", "could not be told")),
    ],
)
def test_what_is_known_of_the_saving_is_said_as_such(
    total: int, labelled: int, stored: int | None, words: tuple[str, ...]
) -> None:
    text = savings(total, labelled, stored)
    assert [] == [word for word in words if word not in text], text


class Counting:
    """A connection that counts, or may not."""

    def __init__(self, *counts: int) -> None:
        self._counts = list(counts)

    def count(self, *_: Any) -> int:
        if not self._counts:
            raise REFUSED
        return self._counts.pop(0)

    def stored_bytes(self, _: Any) -> int:
        return 1000


def test_measuring_is_asked_for_and_fails_nothing(situate: Situate) -> None:
    def look(connection: Any, **parameters: Any) -> Proof:
        return MEASURED.look(situate("6.4.6", **parameters), connection).proof

    assert Proof.SKIPPED is look(None)
    assert Proof.PROVEN is look(Counting(10, 1), measure_secrets=True)
    assert Proof.UNPROVEN is look(Counting(), measure_secrets=True)


METRICS = """# HELP apiserver_resource_size_estimate_bytes [ALPHA] Estimated size of stored objects
# TYPE apiserver_resource_size_estimate_bytes gauge
apiserver_resource_size_estimate_bytes{group="",resource="configmaps"} 12345
apiserver_resource_size_estimate_bytes{group="example.com",resource="secrets"} 7
apiserver_resource_size_estimate_bytes{group="",resource="secrets"} 5.43e+07
apiserver_resource_size_estimate_bytes{group="apps",resource="deployments"} -1
"""


def test_the_size_is_the_one_of_this_kind() -> None:
    assert 54_300_000 == size_estimate(METRICS, SECRET)
    assert 12_345 == size_estimate(METRICS, CONFIG_MAP)
    # -1 is how the server says that it does not know
    assert size_estimate(METRICS, DEPLOYMENT) is None
    assert size_estimate(METRICS, POD) is None
    assert size_estimate("", SECRET) is None
    assert 9 == size_estimate('apiserver_resource_size_estimate_bytes{resource="secrets"} 9', SECRET)


def test_a_list_without_content_is_what_was_asked_for() -> None:
    item = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}}
    answer = {"kind": "PartialObjectMetadataList", "items": [item]}
    assert answer == only_metadata(answer, "counting")
    assert {"kind": "PartialObjectMetadataList"} == only_metadata({"kind": "PartialObjectMetadataList"}, "counting")


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "SecretList", "items": []},
        {"kind": "SecretList", "items": [{"metadata": {"name": "a"}, "data": {"password": "eA=="}}]},
        {"kind": "PartialObjectMetadataList", "items": [{"metadata": {"name": "a"}, "data": {"password": "eA=="}}]},
    ],
)
def test_a_list_with_content_is_refused_and_not_repeated(answer: dict[str, Any]) -> None:
    with pytest.raises(ConnectionFailed) as error:
        only_metadata(answer, "counting Secret objects")
    assert "eA==" not in str(error.value)
