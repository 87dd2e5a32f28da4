"""6.4.6: the annotation, what it brings about in each version, and what it must not take away."""

from __future__ import annotations

import base64
import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from runbooks import cluster
from runbooks.cluster import Connection
from runbooks.parameters import check
from runbooks.procedure import SECTIONS
from runbooks.procedure.needed_rights import rights_to_read
from runbooks.readiness import deployment
from runbooks.rights import Right
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import ApiError, Resource
from runbooks_sandbox.world import CRDS, DEPLOYMENTS, KNATIVE_SERVINGS, NAMESPACES, PODS, SECRETS, within
from tests.conftest import Sandbox

SERVING = "knative-serving"
CONTROLLER = "net-istio-controller"
ANNOTATION = "serverless.openshift.io/enable-secret-informer-filtering"
VARIABLE = "ENABLE_SECRET_INFORMER_FILTERING_BY_CERT_UID"
LABEL = "networking.internal.knative.dev/certificate-uid"
DOMAIN_MAPPINGS = Resource("serving.knative.dev/v1beta1", "domainmappings", "DomainMapping")
TARGET = "KnativeServing knative-serving/knative-serving"
THE_PAGE = """
apiVersion: operator.knative.dev/v1beta1
kind: KnativeServing
metadata:
  name: knative-serving
  namespace: knative-serving
  annotations:
    serverless.openshift.io/enable-secret-informer-filtering: "true"
spec:
  ingress:
    istio:
      enabled: true
  deployments:
    - annotations:
        sidecar.istio.io/inject: "true"
        sidecar.istio.io/rewriteAppHTTPProbers: "true"
      name: activator
    - annotations:
        sidecar.istio.io/inject: "true"
        sidecar.istio.io/rewriteAppHTTPProbers: "true"
      name: autoscaler
"""


def with_istio(new_sandbox: Callable[..., Sandbox], **played: Any) -> Sandbox:
    found = new_sandbox(**played)
    for number in ("6.4.2", "6.4.3"):
        outcome = found.play(number)
        assert "done and proven" == outcome["outcome"], outcome["reason"]
    return found


@pytest.fixture(scope="module")
def filtered(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """Serverless 1.26 with 6.4.6 applied; tests that share it put back what they change."""
    found = with_istio(new_sandbox, serverless="1.26.0")
    assert {"false"} == running_values(found)
    applied = found.play("6.4.6")
    assert "done and proven" == applied["outcome"], applied["reason"]
    assert [TARGET] == [entry["target"] for entry in applied["applied"]]
    yield found
    lifecycle.stop(found.state)


@pytest.fixture(scope="module")
def deprecated(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """Serverless 1.28, where an entry for the workload wins over the annotation."""
    found = with_istio(new_sandbox, serverless="1.28.0")
    yield found
    lifecycle.stop(found.state)


@pytest.fixture(scope="module")
def by_default(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """Serverless 1.32, where the operator has the filter on by itself."""
    found = with_istio(new_sandbox, serverless="1.32.0")
    yield found
    lifecycle.stop(found.state)


def value(pod_spec: dict[str, Any]) -> str:
    container = next(container for container in pod_spec["containers"] if container["name"] == "controller")
    return next(variable["value"] for variable in container["env"] if variable["name"] == VARIABLE)


def pods(sandbox: Sandbox) -> list[dict[str, Any]]:
    listed = sandbox.api.request("GET", PODS.path(SERVING), query={"labelSelector": f"app={CONTROLLER}"})["items"]
    return [pod for pod in listed if not pod["metadata"].get("deletionTimestamp")]


def running_values(sandbox: Sandbox) -> set[str]:
    """The variable's values in the Deployment and in its Pods, and whether its status still tells of a rollout."""
    live = sandbox.get(DEPLOYMENTS, SERVING, CONTROLLER)
    rolling = set() if deployment(live).done else {"rolling out"}
    return {value(live["spec"]["template"]["spec"]), *(value(pod["spec"]) for pod in pods(sandbox)), *rolling}


def failed(outcome: dict[str, Any]) -> list[str]:
    return [item["observed"] for item in outcome["checks"] if item["proof"] == "failed"]


def annotate(sandbox: Sandbox, text: str | None, manager: str = "kubectl-edit") -> None:
    body = {"metadata": {"annotations": {ANNOTATION: text}}}
    sandbox.patch(KNATIVE_SERVINGS, SERVING, SERVING, body, manager)


def workloads(text: str) -> list[dict[str, Any]]:
    """An entry that sets the variable for the controller."""
    part = {"container": "controller", "envVars": [{"name": VARIABLE, "value": text}]}
    return [{"name": CONTROLLER, "env": [part]}]


def set_workloads(sandbox: Sandbox, entries: list[dict[str, Any]] | None) -> None:
    sandbox.patch(KNATIVE_SERVINGS, SERVING, SERVING, {"spec": {"workloads": entries}}, "somebody")


# --- what it leaves behind ---------------------------------------------------------------------------------------


def test_the_filter_is_on_in_the_deployment_and_in_every_pod(filtered: Sandbox) -> None:
    assert {"true"} == running_values(filtered)
    assert 2 == len(pods(filtered))


def test_what_the_page_shows_is_there_field_for_field(filtered: Sandbox) -> None:
    assert within(yaml.safe_load(THE_PAGE), filtered.get(KNATIVE_SERVINGS, SERVING, SERVING))


@pytest.mark.parametrize("mode", ["verify", "plan", "apply"])
def test_a_second_run_writes_nothing_and_says_so(filtered: Sandbox, mode: str) -> None:
    since = filtered.audit_position()
    outcome = filtered.play("6.4.6", mode)
    expected = "as desired" if mode == "verify" else "no changes"
    assert (expected, 0) == (outcome["outcome"], outcome["exit_code"]), outcome["reason"]
    assert [] == filtered.writes(since)
    reads = SECTIONS["6.4.6"].all_reads(check(SECTIONS["6.4.6"].model, filtered.parameters("6.4.6")))
    proofs = 0 if mode == "plan" else 3  # two counts and one look at the metrics
    assert len(reads) + 3 + proofs == outcome["requests"]["GET"]


def test_the_fields_of_others_survive(filtered: Sandbox) -> None:
    theirs = {
        "metadata": {"annotations": {"team": "shop"}, "labels": {"owner": "shop"}},
        "spec": {"config": {"deployment": {"progress-deadline": "120s"}}, "high-availability": {"replicas": 3}},
    }
    filtered.patch(KNATIVE_SERVINGS, SERVING, SERVING, theirs, "other")
    before = filtered.get(KNATIVE_SERVINGS, SERVING, SERVING)
    annotate(filtered, None)
    outcome = filtered.play("6.4.6")
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    after = filtered.get(KNATIVE_SERVINGS, SERVING, SERVING)
    assert before["spec"] == after["spec"]
    assert before["metadata"]["annotations"] == after["metadata"]["annotations"]
    assert before["metadata"]["labels"] == after["metadata"]["labels"]
    again = filtered.play("6.4.3")
    assert 0 == again["exit_code"], again["reason"]
    assert "true" == filtered.get(KNATIVE_SERVINGS, SERVING, SERVING)["metadata"]["annotations"][ANNOTATION]


# --- drift -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "manager"), [(None, ""), ("false", "kubectl-edit"), ("sure", "kubectl-edit")])
def test_an_annotation_that_somebody_changed_is_found_named_and_repaired(
    filtered: Sandbox, text: str | None, manager: str
) -> None:
    annotate(filtered, text)
    filtered.eventually(lambda: running_values(filtered) == {text or "false"})
    found = filtered.play("6.4.6", "verify")
    assert ("drift", 2) == (found["outcome"], found["exit_code"])
    assert f"Deployment {CONTROLLER} has {VARIABLE}={text or 'false'}" in failed(found)[0]
    fields = [field for change in found["plan"]["changes"] for field in change["fields"]]
    assert [(f"metadata.annotations[{ANNOTATION}]", text, "true")] == [
        (field["path"], field["old"], field["new"]) for field in fields
    ]
    assert ([manager] if manager else []) == [owner["manager"] for owner in fields[0]["set_by"]]
    since = filtered.audit_position()
    repaired = filtered.play("6.4.6")
    assert "done and proven" == repaired["outcome"], repaired["reason"]
    # a take-over is two requests: one that the server refuses, and one by force
    assert {f"patch {KNATIVE_SERVINGS.path(SERVING, SERVING)}"} == set(filtered.writes(since))
    assert {"true"} == running_values(filtered)
    assert "as desired" == filtered.play("6.4.6", "verify")["outcome"]


def test_the_value_of_another_manager_is_not_taken_over_unasked(filtered: Sandbox) -> None:
    annotate(filtered, "false", "a-colleague")
    blocked = filtered.play("6.4.6")
    assert ("blocked", 1) == (blocked["outcome"], blocked["exit_code"])
    assert "a-colleague" in blocked["reason"]
    taken = filtered.play("6.4.6", take_over=["a-colleague"])
    assert "done and proven" == taken["outcome"], taken["reason"]


def test_a_pod_that_still_runs_with_the_old_value_is_found(filtered: Sandbox) -> None:
    container = {"name": "controller", "image": "stand-in", "env": [{"name": VARIABLE, "value": "false"}]}
    metadata = {"name": "net-istio-controller-old", "namespace": SERVING, "labels": {"app": CONTROLLER}}
    spec = {"containers": [container], "nodeName": "sandbox"}
    filtered.api.request("POST", PODS.path(SERVING), {"metadata": metadata, "spec": spec})
    found = filtered.play("6.4.6", "verify")
    filtered.api.delete(PODS, SERVING, "net-istio-controller-old", now=True)
    assert ("drift", 2) == (found["outcome"], found["exit_code"])
    assert [f"Pod net-istio-controller-old runs with {VARIABLE}=false"] == failed(found)
    assert "as desired" == filtered.play("6.4.6", "verify")["outcome"]


# --- versions ----------------------------------------------------------------------------------------------------


def test_an_entry_of_the_workload_blocks_before_anything_is_written(deprecated: Sandbox) -> None:
    set_workloads(deprecated, workloads("false"))
    since = deprecated.audit_position()
    for mode in ("plan", "apply"):
        blocked = deprecated.play("6.4.6", mode)
        assert ("blocked", 1) == (blocked["outcome"], blocked["exit_code"])
        assert f"spec.workloads sets {VARIABLE}=false for {CONTROLLER}, and that wins" in blocked["reason"]
    assert [] == deprecated.writes(since)
    set_workloads(deprecated, None)
    applied = deprecated.play("6.4.6")
    assert "done and proven" == applied["outcome"], applied["reason"]
    assert {"true"} == running_values(deprecated)


def test_an_entry_that_somebody_adds_later_is_a_failed_effect(deprecated: Sandbox) -> None:
    assert 0 == deprecated.play("6.4.6")["exit_code"]
    set_workloads(deprecated, workloads("false"))
    deprecated.eventually(lambda: running_values(deprecated) == {"false"})
    found = deprecated.play("6.4.6", "verify")
    assert 1 == found["exit_code"]
    assert VARIABLE in found["reason"]
    assert f"Deployment {CONTROLLER} has {VARIABLE}=false" in failed(found)[0]
    set_workloads(deprecated, workloads("true"))
    deprecated.eventually(lambda: running_values(deprecated) == {"true"})
    assert "as desired" == deprecated.play("6.4.6", "verify")["outcome"]
    set_workloads(deprecated, None)
    deprecated.eventually(lambda: running_values(deprecated) == {"true"})


@pytest.mark.parametrize("mode", ["verify", "plan", "apply"])
def test_from_1_32_on_nothing_is_written_and_the_reason_says_why(by_default: Sandbox, mode: str) -> None:
    since = by_default.audit_position()
    outcome = by_default.play("6.4.6", mode)
    assert 0 == outcome["exit_code"], outcome["reason"]
    assert "from 1.32 on the annotation is ignored" in outcome["reason"]
    assert [] == outcome["plan"]["changes"]
    assert [] == by_default.writes(since)
    assert {"true"} == running_values(by_default)
    proofs = [item["proof"] for item in outcome["checks"]]
    assert ([] if mode == "plan" else ["proven", "proven"]) == proofs


def test_from_1_32_on_the_entry_of_the_workload_is_the_only_way_to_switch_it_off(by_default: Sandbox) -> None:
    annotate(by_default, "false")
    assert 0 == by_default.play("6.4.6", "verify")["exit_code"]
    annotate(by_default, None)
    set_workloads(by_default, workloads("false"))
    by_default.eventually(lambda: running_values(by_default) == {"false"})
    found = by_default.play("6.4.6", "verify")
    set_workloads(by_default, None)
    by_default.eventually(lambda: running_values(by_default) == {"true"})
    assert ("blocked", 1) == (found["outcome"], found["exit_code"])
    assert f"Deployment {CONTROLLER} has {VARIABLE}=false" in failed(found)[0]


def test_without_knative_serving_the_reader_is_sent_to_6_4_3(sandbox: Sandbox) -> None:
    blocked = sandbox.play("6.4.6")
    assert ("blocked", 1) == (blocked["outcome"], blocked["exit_code"])
    assert "6.4.3" in [finding["see"] for finding in blocked["preconditions"] if finding["verdict"] == "not met"]
    for mode in ("plan", "verify"):
        waiting = sandbox.play("6.4.6", mode, preceded_by=["6.4.2", "6.4.3"])
        assert 2 == waiting["exit_code"], waiting["reason"]
        assert "waiting for 6.4.3" in waiting["reason"]
    assert [] == sandbox.api.request("GET", KNATIVE_SERVINGS.path())["items"]


# --- what the filter would hide ----------------------------------------------------------------------------------


def make_secret(sandbox: Sandbox, namespace: str, name: str, labels: dict[str, str] | None = None) -> None:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    body = {"metadata": metadata, "stringData": {"tls.crt": "never to be read"}}
    sandbox.api.request("POST", SECRETS.path(namespace), body)


def make_mapping(sandbox: Sandbox, namespace: str, host: str, secret: str = "") -> None:
    spec: dict[str, Any] = {"ref": {"kind": "Service", "name": "hello", "apiVersion": "serving.knative.dev/v1"}}
    if secret:
        spec["tls"] = {"secretName": secret}
    kind = {"apiVersion": DOMAIN_MAPPINGS.api_version, "kind": DOMAIN_MAPPINGS.kind}
    body = {**kind, "metadata": {"name": host, "namespace": namespace}, "spec": spec}
    sandbox.api.request("POST", DOMAIN_MAPPINGS.path(namespace), body)


@pytest.fixture
def mapped(filtered: Sandbox) -> Iterator[Sandbox]:
    """A DomainMapping with a Secret that lacks the label, in a namespace that is no member, and one without TLS."""
    filtered.create_namespace("boutique")
    make_secret(filtered, "boutique", "own-cert")
    make_mapping(filtered, "boutique", "www.example.com", "own-cert")
    make_mapping(filtered, "default", "plain.example.com")
    yield filtered
    for live in filtered.api.request("GET", DOMAIN_MAPPINGS.path())["items"]:
        filtered.api.delete(DOMAIN_MAPPINGS, live["metadata"]["namespace"], live["metadata"]["name"])
    filtered.api.delete(SECRETS, "boutique", "own-cert")
    filtered.api.delete(NAMESPACES, "", "boutique")
    # there is no namespace controller in the sandbox that would finish it
    path = f"{NAMESPACES.path('', 'boutique')}/finalize"
    filtered.api.request("PUT", path, {"metadata": {"name": "boutique"}, "spec": {"finalizers": []}})


def test_an_unlabelled_secret_stops_the_run_until_it_is_labelled(mapped: Sandbox) -> None:
    annotate(mapped, None)
    since = mapped.audit_position()
    blocked = mapped.play("6.4.6")
    assert ("blocked", 1) == (blocked["outcome"], blocked["exit_code"])
    for words in ("Secret boutique/own-cert", "DomainMapping boutique/www.example.com", LABEL):
        assert words in blocked["reason"]
    unmet = [finding for finding in blocked["preconditions"] if finding["verdict"] == "not met"]
    assert [f"oc label secret own-cert -n boutique {LABEL}=in-use"] == [finding["remedy"] for finding in unmet]
    assert [] == mapped.writes(since)
    mapped.patch(SECRETS, "boutique", "own-cert", {"metadata": {"labels": {LABEL: "in-use"}}})
    applied = mapped.play("6.4.6")
    assert "done and proven" == applied["outcome"], applied["reason"]


def test_6_4_1_finds_the_unlabelled_secret_too(mapped: Sandbox) -> None:
    outcome = mapped.play("6.4.1", "verify")
    found = [finding for finding in outcome["preconditions"] if "is hidden" in finding["title"]]
    assert ["not met"] == [finding["verdict"] for finding in found]
    assert "Secret boutique/own-cert" in found[0]["said"]


def test_a_secret_that_several_hosts_share_and_one_that_is_missing_are_warnings(mapped: Sandbox) -> None:
    mapped.patch(SECRETS, "boutique", "own-cert", {"metadata": {"labels": {LABEL: ""}}})
    make_mapping(mapped, "boutique", "shop.example.com", "own-cert")
    make_mapping(mapped, "boutique", "new.example.com", "not-yet")
    outcome = mapped.play("6.4.6", "verify")
    assert "as desired" == outcome["outcome"], outcome["reason"]
    warnings = [finding["said"] for finding in outcome["preconditions"] if finding["verdict"] == "warning"]
    assert [
        "Secret boutique/not-yet, which DomainMapping boutique/new.example.com needs, does not exist",
        "boutique/own-cert serves shop.example.com, www.example.com",
    ] == warnings


def test_domain_mappings_may_not_be_served_at_all(by_default: Sandbox) -> None:
    name = "domainmappings.serving.knative.dev"
    versions = by_default.get(CRDS, "", name)["spec"]["versions"]
    unserved = [{**version, "served": version["name"] != "v1beta1"} for version in versions]
    by_default.patch(CRDS, "", name, {"spec": {"versions": unserved}})
    by_default.eventually(lambda: not served(by_default))
    found = by_default.play("6.4.6", "verify")
    by_default.patch(CRDS, "", name, {"spec": {"versions": versions}})
    by_default.eventually(lambda: served(by_default))
    assert "as desired" == found["outcome"], found["reason"]
    said = [finding["said"] for finding in found["preconditions"] if "is hidden" in finding["title"]]
    assert ["the cluster does not serve DomainMapping (serving.knative.dev/v1beta1)"] == said


def served(sandbox: Sandbox) -> bool:
    try:
        sandbox.api.request("GET", DOMAIN_MAPPINGS.path())
    except ApiError:
        return False
    return True


# --- few rights --------------------------------------------------------------------------------------------------


def limited(sandbox: Sandbox, name: str, left_out: Callable[[Right], bool] = lambda _: False, **changes: Any) -> str:
    """A kubeconfig for a ServiceAccount with just the rights that are printed for verify, but those left out."""
    given = check(SECTIONS["6.4.6"].model, sandbox.parameters("6.4.6", **changes))
    rights = [right for right in rights_to_read(SECTIONS["6.4.6"], given) if not left_out(right)]
    return sandbox.service_account(name, rights)


def test_verify_needs_just_the_rights_that_are_printed_for_it(filtered: Sandbox) -> None:
    make_secret(filtered, "default", "labelled", {LABEL: "x"})
    make_mapping(filtered, "default", "www.example.org", "labelled")
    kubeconfig = limited(filtered, "few", measure_secrets=False)
    verified = filtered.play("6.4.6", "verify", kubeconfig=kubeconfig, measure_secrets=False)
    measured = filtered.play("6.4.6", "verify", kubeconfig=kubeconfig, measure_secrets=True)
    filtered.api.delete(DOMAIN_MAPPINGS, "default", "www.example.org")
    filtered.api.delete(SECRETS, "default", "labelled")
    assert "as desired" == verified["outcome"], verified["reason"]
    # what one may not count is named, and fails nothing
    assert "as desired" == measured["outcome"], measured["reason"]
    assert ["not proven"] == [item["proof"] for item in measured["checks"] if "keeps away" in item["title"]]


def test_secrets_that_may_not_be_looked_at_are_not_taken_for_labelled(mapped: Sandbox) -> None:
    kubeconfig = limited(mapped, "members-only", measure_secrets=False)
    found = mapped.play("6.4.6", "verify", kubeconfig=kubeconfig, measure_secrets=False)
    assert ("could not tell", 1) == (found["outcome"], found["exit_code"])
    assert "Secret boutique/own-cert" in found["reason"]


@pytest.mark.parametrize("resource", ["deployments", "pods"])
def test_what_may_not_be_read_is_not_taken_for_missing(filtered: Sandbox, resource: str) -> None:
    kubeconfig = limited(filtered, f"no-{resource}", lambda right: right.resource == resource, measure_secrets=False)
    found = filtered.play("6.4.6", "verify", kubeconfig=kubeconfig, measure_secrets=False)
    assert ("could not tell", 1) == (found["outcome"], found["exit_code"])
    assert "The controller filters" in found["reason"]


def test_the_right_to_list_every_secret_is_asked_for_only_to_measure(filtered: Sandbox) -> None:
    section = SECTIONS["6.4.6"]
    for measure in (False, True):
        given = check(section.model, filtered.parameters("6.4.6", measure_secrets=measure))
        assert measure == (Right("", "secrets", "list") in rights_to_read(section, given))


# --- how much it saves -------------------------------------------------------------------------------------------


def test_secrets_are_counted_and_never_read(filtered: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    namespaces = [f"team-{number}" for number in range(3)]
    for name in namespaces:
        filtered.create_namespace(name)
    wanted = [
        (namespaces[number % 3], f"secret-{number:03}", {LABEL: str(number)} if number % 30 == 0 else {})
        for number in range(300)
    ]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: make_secret(filtered, *one), wanted))
    received: list[tuple[str, dict[str, Any]]] = []
    request = Connection._request

    def overheard(self: Connection, method: str, path: str, *args: Any, **options: Any) -> Any:
        answer = request(self, method, path, *args, **options)
        received.append((path, answer[0]))
        return answer

    monkeypatch.setattr(Connection, "_request", overheard)
    present = len(filtered.api.request("GET", SECRETS.path())["items"])
    outcome = filtered.play("6.4.6", "verify", measure_secrets=True)
    observed = next(item["observed"] for item in outcome["checks"] if "keeps away" in item["title"])
    assert observed.startswith(f"{present:,} Secrets"), observed
    assert "10 with it" in observed
    assert "about" in observed or "could not be told" in observed
    lists = [answer for path, answer in received if path.endswith("/secrets")]
    assert 2 == len(lists)
    assert ["PartialObjectMetadataList"] * 2 == [answer["kind"] for answer in lists]
    items = [item for answer in lists for item in answer["items"]]
    assert 11 == len(items)
    assert [] == [item for item in items if "data" in item]
    assert base64.b64encode(b"never to be read").decode() not in str(received)


def test_many_pages_are_counted_without_content(filtered: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PAGE", 3)
    observed = [
        item["observed"]
        for item in filtered.play("6.4.6", "verify", measure_secrets=True)["checks"]
        if "keeps away" in item["title"]
    ]
    assert "10 with it" in observed[0]
