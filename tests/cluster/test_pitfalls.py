"""What goes wrong in practice, provoked on a real API server: the runbooks tell what it is, how it shows, what to do.

`docs/pitfalls.md` lists all of them, those of which nothing can tell included. Those that other modules provoke on
their way are not provoked here again.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks import certificates
from runbooks.certificates import LEAF_CRT, LEAF_CSR, LEAF_KEY, ROOT_CRT, ROOT_KEY, Pair, Rules
from runbooks.step import open_runbook
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import ApiError, Object, Resource
from runbooks_sandbox.world import (
    CONTROL_PLANES,
    KNATIVE_SERVICES,
    KNATIVE_SERVINGS,
    MEMBER_ROLLS,
    NETWORK_POLICIES,
    PODS,
    ROUTES,
    SECRETS,
    is_true,
)
from tests.conftest import Sandbox

MESH, SERVING, DOMAIN = "istio-system", "knative-serving", "apps.openshift.example.com"
WILDCARD = f"*.{DOMAIN}"
SECRET = (MESH, "wildcard-certs")
INJECT, REWRITE = "sidecar.istio.io/inject", "sidecar.istio.io/rewriteAppHTTPProbers"
PASSTHROUGH = "serving.knative.openshift.io/enablePassthrough"
FILTERING = "serverless.openshift.io/enable-secret-informer-filtering"
OPT_OUT = "serverless.openshift.io/disable-istio-net-policies-generation"
AUTHORIZATION_POLICIES = Resource("security.istio.io/v1beta1", "authorizationpolicies", "AuthorizationPolicy")
_ADMISSION = "admissionregistration.k8s.io/v1"
VALIDATING = Resource(_ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced=False)
CSVS = Resource("operators.coreos.com/v1alpha1", "clusterserviceversions", "ClusterServiceVersion")

Told = dict[str, str]


def finding(outcome: dict[str, Any], title: str) -> Told:
    """What a precondition says, of whichever section."""
    return dict(next(one for one in outcome["preconditions"] if title in one["title"]))


def proof(outcome: dict[str, Any], title: str) -> Told:
    """What a check of an effect says."""
    return dict(next(one for one in outcome["checks"] if title in one["title"]))


def warns(outcome: dict[str, Any], title: str, *words: str, remedy: str, see: str = "") -> None:
    """A warning that names what is wrong and how it shows, what to do, and the runbook that does it, if one does."""
    found = finding(outcome, title)
    assert ("warning", see) == (found["verdict"], found["see"]), found
    assert [] == [word for word in words if word not in found["said"]], found["said"]
    assert remedy in found["remedy"]
    assert "blocked" != outcome["outcome"], outcome["reason"]


def fails(outcome: dict[str, Any], title: str, *words: str, remedy: str) -> None:
    """A proof that fails, and with it the run."""
    found = proof(outcome, title)
    assert "failed" == found["proof"], found
    assert [] == [word for word in words if word not in found["observed"]], found["observed"]
    assert remedy in found["remedy"]
    assert outcome["exit_code"]


def blocks(outcome: dict[str, Any], title: str, *words: str, remedy: str, see: str = "") -> None:
    """A precondition that is not met."""
    found = finding(outcome, title)
    assert ("not met", see) == (found["verdict"], found["see"]), found
    assert [] == [word for word in words if word not in found["said"]], found["said"]
    assert remedy in found["remedy"]
    assert "blocked" == outcome["outcome"], outcome["reason"]


def differing(outcome: dict[str, Any]) -> dict[str, list[str]]:
    """The objects that differ, with their fields."""
    changes = [change for change in outcome["plan"]["changes"] if change["operation"] != "unchanged"]
    return {change["target"]: [field["path"] for field in change["fields"]] for change in changes}


def post(sandbox: Sandbox, resource: Resource, namespace: str, name: str, **body: Any) -> None:
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **body.pop("metadata", {})}
    sandbox.api.request("POST", resource.path(namespace), {**kind, "metadata": metadata, **body})


@pytest.fixture(scope="module")
def fresh(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A cluster before the first runbook."""
    found = new_sandbox()
    yield found
    lifecycle.stop(found.state)


@contextlib.contextmanager
def held(sandbox: Sandbox) -> Iterator[None]:
    """The operators do nothing meanwhile, so that what was spoilt stays so, and what was mended needs no repair."""
    lifecycle.switch(sandbox.state, "stuck-operators", "", on=True)
    try:
        yield
    finally:
        lifecycle.switch(sandbox.state, "stuck-operators", "", on=False)
        for resource, namespace, name in ((KNATIVE_SERVINGS, SERVING, SERVING), (CONTROL_PLANES, MESH, "basic")):
            sandbox.eventually(partial(settled, sandbox, resource, namespace, name))


def settled(sandbox: Sandbox, resource: Resource, namespace: str, name: str) -> bool:
    """Whether its operator has seen an object as it is now."""
    live = sandbox.get(resource, namespace, name)
    return bool(live["metadata"]["generation"] == live["status"]["observedGeneration"]) and is_true(live, "Ready")


@contextlib.contextmanager
def patched(
    sandbox: Sandbox, resource: Resource, namespace: str, name: str, new: Object, old: Object
) -> Iterator[None]:
    """An object with a change, and afterwards without."""
    sandbox.patch(resource, namespace, name, new)
    try:
        yield
    finally:
        sandbox.patch(resource, namespace, name, old)


@contextlib.contextmanager
def serverless(sandbox: Sandbox, version: str) -> Iterator[None]:
    """The cluster says that another version of the operator is installed; its stand-in stays as it is."""
    where = "openshift-serverless"
    old = sandbox.api.request("GET", CSVS.path(where))["items"][0]
    was, name = old["metadata"]["name"], f"serverless-operator.v{version}"

    def replace(gone: str, here: str, spec: Object) -> None:
        sandbox.api.delete(CSVS, where, gone)
        post(sandbox, CSVS, where, here, spec=spec)
        sandbox.patch(CSVS, where, f"{here}/status", {"status": old["status"]}, "olm")

    replace(was, name, {**old["spec"], "version": version})
    try:
        yield
    finally:
        replace(name, was, old["spec"])


# --- certificates ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_the_page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the documented openssl commands make: a leaf with a common name alone, serial number 0, version 1."""
    folder = tmp_path_factory.mktemp("page")
    new = "-nodes -newkey rsa:2048"
    commands = (
        f"req -x509 -sha256 {new} -days 365 -keyout {ROOT_KEY} -out {ROOT_CRT} -subj",
        f"req {new} -keyout {LEAF_KEY} -out {LEAF_CSR} -subj",
        f"x509 -req -days 365 -set_serial 0 -CA {ROOT_CRT} -CAkey {ROOT_KEY} -in {LEAF_CSR} -out {LEAF_CRT}",
    )
    subjects: tuple[list[str], ...] = (["/O=Example Inc./CN=example.com"], [f"/CN={WILDCARD}/O=Example Inc."], [])
    for command, subject in zip(commands, subjects, strict=True):
        line = ["openssl", *command.split(), *subject]
        subprocess.run(line, cwd=folder, check=True, capture_output=True, timeout=60)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def issued(valid_days: int = 90, *, wildcard: str = WILDCARD, ago_days: int = 0) -> tuple[Pair, bytes]:
    """A pair, and the root that it leads to."""
    rules, then = Rules(wildcard, valid_days=valid_days), dt.datetime.now(dt.UTC) - dt.timedelta(days=ago_days)
    root_key, key = certificates.new_key(), certificates.new_key()
    root = Pair(certificates.create_root(rules, root_key, then), root_key)
    return Pair(certificates.sign_request(rules, certificates.create_request(rules, key), root, then), key), root.chain


@contextlib.contextmanager
def serving(sandbox: Sandbox, pair: Pair, namespace: str = MESH) -> Iterator[None]:
    """A Secret with a pair, of which nobody knows where it comes from."""
    data = {"tls.crt": base64.b64encode(pair.chain).decode(), "tls.key": base64.b64encode(pair.key).decode()}
    post(sandbox, SECRETS, namespace, SECRET[1], type="kubernetes.io/tls", data=data)
    try:
        yield
    finally:
        sandbox.api.delete(SECRETS, namespace, SECRET[1])


def judged(sandbox: Sandbox, tmp_path: Path, pair: Pair, root: bytes) -> dict[str, Any]:
    (tmp_path / "anchor.crt").write_bytes(root)
    with serving(sandbox, pair):
        return sandbox.play("6.4.3", "plan", trust_anchor=f"{tmp_path}/anchor.crt")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the page's own commands need openssl")
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_the_pages_own_certificate_has_a_common_name_alone_and_strict_clients_refuse_it(
    fresh: Sandbox, tmp_path: Path, by_the_page: dict[str, bytes]
) -> None:
    pair = Pair(by_the_page[LEAF_CRT], by_the_page[LEAF_KEY])
    outcome = judged(fresh, tmp_path, pair, by_the_page[ROOT_CRT])
    title, said = "holds a usable certificate", f"the subject alternative names (none) do not cover {WILDCARD}"
    blocks(outcome, title, said, remedy="run 6.4.2 first", see="6.4.2")
    found = finding(outcome, "Clients as strict as Python 3.13")
    assert ("warning", "6.4.2") == (found["verdict"], found["see"])
    for words in ("X.509 version 1", "serial number is 0", "states no key usage", "Python 3.13 and others"):
        assert words in found["said"]
    assert "have it signed anew" in found["remedy"]


PAIRS: dict[str, tuple[Callable[[], tuple[Pair, bytes]], str]] = {
    "another domain": (lambda: issued(wildcard="*.example.org"), f"(*.example.org) do not cover {WILDCARD}"),
    "expired": (lambda: issued(5, ago_days=10), "expired on "),
    "another root": (lambda: (issued()[0], issued()[1]), "is not the trust anchor"),
    "another key": (lambda: _mixed(), "the private key does not belong to the certificate"),
}


def _mixed() -> tuple[Pair, bytes]:
    pair, root = issued()
    return Pair(pair.chain, certificates.new_key()), root


@pytest.mark.parametrize("case", PAIRS)
def test_a_pair_that_cannot_serve_is_refused_before_anything_is_made(fresh: Sandbox, tmp_path: Path, case: str) -> None:
    make, said = PAIRS[case]
    outcome = judged(fresh, tmp_path, *make())
    blocks(outcome, "holds a usable certificate", said, remedy="run 6.4.2 first", see="6.4.2")


def test_a_secret_in_the_namespace_of_knative_is_not_where_the_gateway_looks(fresh: Sandbox, tmp_path: Path) -> None:
    pair, root = issued()
    (tmp_path / "anchor.crt").write_bytes(root)
    with serving(fresh, pair, SERVING):
        outcome = fresh.play("6.4.3", "plan", trust_anchor=f"{tmp_path}/anchor.crt")
    title = f"Secret {MESH}/wildcard-certs holds a usable certificate"
    blocks(outcome, title, "there is no such Secret", remedy="run 6.4.2 first", see="6.4.2")


# --- the mesh ----------------------------------------------------------------------------------------------------


def test_a_member_roll_of_another_name_is_ignored(fresh: Sandbox) -> None:
    title = "No member roll but the one named default"
    with pytest.raises(ApiError, match="must be"):
        post(fresh, MEMBER_ROLLS, MESH, "shop", spec={"members": ["shop"]})
    # where the mesh's webhook was away, such a roll is there all the same
    webhook = next(
        live for live in fresh.api.request("GET", VALIDATING.path())["items"] if "maistra" in live["metadata"]["name"]
    )
    name = webhook["metadata"]["name"]
    fresh.api.delete(VALIDATING, "", name)

    def made() -> bool:
        with contextlib.suppress(ApiError):
            post(fresh, MEMBER_ROLLS, MESH, "shop", spec={"members": ["shop"]})
            return True
        return False

    fresh.eventually(made)
    outcome = fresh.play("6.4.1")
    fresh.api.delete(MEMBER_ROLLS, MESH, "shop")
    post(fresh, VALIDATING, "", name, webhooks=webhook["webhooks"])
    said = f"the operator ignores {MESH}/shop for its name: shop joins no mesh by it, and gets no sidecars"
    warns(outcome, title, said, remedy="name those namespaces in members", see="6.4.3")


def test_knative_serving_outside_of_the_mesh_is_named(integrated: Sandbox) -> None:
    members = {"spec": {"members": [SERVING, "default"]}}
    with patched(integrated, MEMBER_ROLLS, MESH, "default", {"spec": {"members": ["default"]}}, members):
        integrated.eventually(lambda: SERVING not in configured(integrated))
        outcome = integrated.play("6.4.3", "verify")
    integrated.eventually(lambda: SERVING in configured(integrated))
    assert f"ServiceMeshMemberRoll {MESH}/default" in differing(outcome)
    said = f"{SERVING} is not in status.configuredMembers"
    fails(outcome, "The namespaces are configured members", said, remedy="status.memberStatuses")


def configured(sandbox: Sandbox) -> list[str]:
    return list(sandbox.get(MEMBER_ROLLS, MESH, "default").get("status", {}).get("configuredMembers") or [])


def test_a_pod_without_a_sidecar_is_named(integrated: Sandbox) -> None:
    spec = {"containers": [{"name": "activator", "image": "stand-in"}], "nodeName": "sandbox"}
    post(integrated, PODS, SERVING, "activator-old", metadata={"labels": {"app": "activator"}}, spec=spec)
    outcome = integrated.play("6.4.3", "verify")
    integrated.api.delete(PODS, SERVING, "activator-old", now=True)
    said = "Pod activator-old has no container istio-proxy"
    fails(outcome, "Activator and autoscaler have sidecars", said, remedy="older than the membership have none")


def test_probes_that_are_not_rewritten_differ(integrated: Sandbox) -> None:
    annotations = {"annotations": {INJECT: "true", REWRITE: "true"}}
    entries = [{"name": name, **annotations} for name in ("activator", "autoscaler")]
    bare = [{"name": name, "annotations": {INJECT: "true"}} for name in ("activator", "autoscaler")]
    spoilt, whole = ({"spec": {"deployments": one}} for one in (bare, entries))
    with held(integrated), patched(integrated, KNATIVE_SERVINGS, SERVING, SERVING, spoilt, whole):
        outcome = integrated.play("6.4.3", "verify")
    fields = differing(outcome)[f"KnativeServing {SERVING}/{SERVING}"]
    assert 2 == len([path for path in fields if REWRITE in path])
    integrated.eventually(lambda: is_true(integrated.get(KNATIVE_SERVINGS, SERVING, SERVING), "Ready"))


def test_policies_of_the_operator_without_those_of_the_mesh_close_knative_to_itself(integrated: Sandbox) -> None:
    title, plane = "let Knative Serving's Pods reach each other", (CONTROL_PLANES, MESH, "basic")
    off, on = ({"spec": {"security": {"manageNetworkPolicy": value}}} for value in (False, None))
    with patched(integrated, *plane, off, on):
        integrated.eventually(partial(settled, integrated, *plane))
        assert "met" == finding(integrated.play("6.4.3", "plan"), title)["verdict"]
        for policy in ("istio-mesh-basic", "istio-expose-route-basic"):
            integrated.api.delete(NETWORK_POLICIES, SERVING, policy)
        outcome = integrated.play("6.4.3", "plan")
        with serverless(integrated, "1.32.0"):
            newer = integrated.play("6.4.3", "plan")
            annotated, bare = ({"metadata": {"annotations": {OPT_OUT: value}}} for value in ("true", None))
            with patched(integrated, KNATIVE_SERVINGS, SERVING, SERVING, annotated, bare):
                assert "met" == finding(integrated.play("6.4.3", "plan"), title)["verdict"]
    integrated.eventually(partial(settled, integrated, *plane))
    said = ("manageNetworkPolicy: false", "i/o timeout on port 8080")
    warns(outcome, title, *said, remedy=f"create a NetworkPolicy in {SERVING}")
    warns(newer, title, *said, remedy=f'{OPT_OUT}: "true"')


def test_a_drain_port_that_is_not_excluded_is_told_where_it_is_documented(integrated: Sandbox) -> None:
    title = "port 8022"
    assert "met" == finding(integrated.play("6.4.1"), title)["verdict"]
    with serverless(integrated, "1.31.0"):
        outcome = integrated.play("6.4.1")
    warns(outcome, title, "excludedPorts lacks 8022", "dropped on scale-down", remedy="terminationDrainDuration: 35s")


DENY: dict[str, tuple[str, Object]] = {
    "nothing is allowed": (SERVING, {}),
    "nothing is allowed in the whole mesh": (MESH, {}),
    "everything is denied": (SERVING, {"action": "DENY", "rules": [{}]}),
}


@pytest.mark.parametrize("case", DENY)
def test_a_policy_that_denies_before_one_allows(integrated: Sandbox, case: str) -> None:
    namespace, spec = DENY[case]
    title = "AuthorizationPolicies let requests in"
    post(integrated, AUTHORIZATION_POLICIES, namespace, "deny-all-by-default", spec=spec)
    outcome = integrated.play("6.4.1")
    for app in ("activator", "autoscaler"):
        allowing = {"selector": {"matchLabels": {"app": app}}, "action": "ALLOW", "rules": [{}]}
        post(integrated, AUTHORIZATION_POLICIES, SERVING, f"allow-traffic-to-{app}", spec=allowing)
    allowed = integrated.play("6.4.1")
    for app in ("activator", "autoscaler"):
        integrated.api.delete(AUTHORIZATION_POLICIES, SERVING, f"allow-traffic-to-{app}")
    integrated.api.delete(AUTHORIZATION_POLICIES, namespace, "deny-all-by-default")
    said = (f"{namespace}/deny-all-by-default keeps everybody out of activator and autoscaler", "403")
    warns(outcome, title, *said, remedy="first a policy with action ALLOW for each")
    expected = "warning" if spec.get("action") == "DENY" else "met"
    assert expected == finding(allowed, title)["verdict"]


# --- Knative Serving and its ingress -----------------------------------------------------------------------------


def test_kourier_beside_istio_wins(integrated: Sandbox) -> None:
    both, istio = ({"spec": {"ingress": {"kourier": value}}} for value in ({"enabled": True}, None))
    with held(integrated), patched(integrated, KNATIVE_SERVINGS, SERVING, SERVING, both, istio):
        outcome = integrated.play("6.4.3", "verify")
    title = "has Istio as its only ingress"
    blocks(outcome, title, "kourier serves on this cluster", remedy="6.4.5 adds the mesh beside Kourier", see="6.4.5")


def test_another_gateway_for_every_host(integrated: Sandbox) -> None:
    lifecycle.switch(integrated.state, "second-gateway", "", on=True)
    outcome = integrated.play("6.4.3", "plan")
    lifecycle.switch(integrated.state, "second-gateway", "", on=False)
    said = (f"{MESH}/another-teams-gateway claims port 443", "answered with its certificate, and with 404")
    blocks(outcome, "No other Gateway claims port 443", *said, remedy="give that Gateway hosts of its own")


def test_a_webhook_of_an_earlier_knative_serving(fresh: Sandbox) -> None:
    title, name = "No webhook of an earlier Knative Serving is left", "validation.webhook.serving.knative.dev"
    client = {"service": {"name": "webhook", "namespace": SERVING, "path": "/resource-validation"}}
    webhook = {"name": name, "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"]}
    post(fresh, VALIDATING, "", name, webhooks=[webhook])
    outcome = fresh.play("6.4.1")
    fresh.api.delete(VALIDATING, "", name)
    said = (f"ValidatingWebhookConfiguration {name}", "no endpoints available for service")
    warns(outcome, title, *said, remedy=f"oc delete validatingwebhookconfiguration {name}")
    assert "met" == finding(fresh.play("6.4.1"), title)["verdict"]


# --- Knative Services --------------------------------------------------------------------------------------------

TEMPLATE = {INJECT: "true", REWRITE: "true"}
SERVICES: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "inject-on-the-service": ({PASSTHROUGH: "true", INJECT: "true"}, {}, "so its Pods get no sidecar"),
    "passthrough-on-the-template": ({}, {**TEMPLATE, PASSTHROUGH: "true"}, "stands on the template"),
    "no-passthrough": ({}, TEMPLATE, "is missing, so its Route terminates TLS, and leads to a port without a Gateway"),
    "passthrough-false": ({PASSTHROUGH: "false"}, TEMPLATE, "passes TLS through all the same"),
    "no-rewrite": ({PASSTHROUGH: "true"}, {INJECT: "true"}, "probes fail under mTLS"),
}


def test_services_that_say_it_where_it_does_not_count(integrated: Sandbox) -> None:
    title = "Knative Services in the mesh are annotated where it counts"
    assert "met" == finding(integrated.play("6.4.1"), title)["verdict"]
    for name, (own, template, _) in SERVICES.items():
        spec = {"template": {"metadata": {"annotations": template}, "spec": {"containers": [{"image": "stand-in"}]}}}
        post(integrated, KNATIVE_SERVICES, "default", name, metadata={"annotations": own}, spec=spec)
    outcome = integrated.play("6.4.1")
    for name in SERVICES:
        integrated.api.delete(KNATIVE_SERVICES, "default", name)
    warns(outcome, title, remedy="belongs into metadata.annotations of the Service", see="6.4.3")
    told = finding(outcome, title)["said"].split("; ")
    assert len(SERVICES) == len(told)
    for name, (_, _, said) in SERVICES.items():
        assert [said in one for one in told if one.startswith(f"default/{name}: ")] == [True], told


def test_a_route_whose_host_an_older_one_has(integrated: Sandbox) -> None:
    host = f"hello-default.{DOMAIN}"
    post(integrated, ROUTES, "default", "old", spec={"host": host, "to": {"kind": "Service", "name": "old"}})
    routes = integrated.api.request("GET", ROUTES.path(MESH))["items"]
    ours = next(live["metadata"]["name"] for live in routes if live["spec"]["host"] == host)
    integrated.api.delete(ROUTES, MESH, ours)
    integrated.eventually(lambda: admitted(integrated, ours) == "False")
    outcome = integrated.play("6.4.3", "verify")
    integrated.api.delete(ROUTES, "default", "old")
    integrated.eventually(lambda: admitted(integrated, ours) == "True")
    said = f"Route {ours} is not admitted: HostAlreadyClaimed"
    fails(outcome, "The Route passes TLS through", said, remedy="remove the older Route for the host")


def admitted(sandbox: Sandbox, name: str) -> str:
    try:
        ingress = sandbox.get(ROUTES, MESH, name).get("status", {}).get("ingress") or [{"conditions": []}]
    except ApiError:
        return ""
    return next((str(one["status"]) for one in ingress[0]["conditions"] if one["type"] == "Admitted"), "")


# --- the filter of Secrets ---------------------------------------------------------------------------------------


def test_an_annotation_that_the_version_ignores(integrated: Sandbox) -> None:
    title = "The annotation says what the operator does"
    off, gone = ({"metadata": {"annotations": {FILTERING: value}}} for value in ("false", None))
    with patched(integrated, KNATIVE_SERVINGS, SERVING, SERVING, off, gone):
        assert "met" == finding(integrated.play("6.4.6", "plan"), title)["verdict"]
        with serverless(integrated, "1.32.0"):
            outcome = integrated.play("6.4.6", "plan")
    warns(outcome, title, f"{FILTERING}=false is ignored", "the filter is on", remedy="an entry net-istio-controller")


# --- what cannot happen ------------------------------------------------------------------------------------------


def test_true_without_quotes_is_refused_by_the_server_and_never_rendered(integrated: Sandbox) -> None:
    unquoted = {"metadata": {"annotations": {PASSTHROUGH: True}}}
    with pytest.raises(ApiError) as error:
        integrated.patch(KNATIVE_SERVICES, "default", "hello", unquoted)
    assert 400 <= error.value.status < 500
    runbook = open_runbook("6.4.3", integrated.parameters("6.4.3", mode="plan"))
    runbook.preconditions()
    _, _, text = runbook.desired().text.partition("\n")
    for manifest in yaml.safe_load_all(text):
        for metadata in metadata_in(manifest):
            values = {**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})}.values()
            assert [] == [value for value in values if not isinstance(value, str)], manifest


def metadata_in(manifest: Object) -> list[Object]:
    spec = manifest.get("spec") or {}
    return [manifest["metadata"], (spec.get("template") or {}).get("metadata") or {}, *(spec.get("deployments") or [])]
