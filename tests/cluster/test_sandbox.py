"""The stand-ins do what the real operators, controllers and webhooks do, where a runbook or its reader would notice."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import Api, ApiError, Object, Resource
from runbooks_sandbox.crds import SERVING_CRDS, exported, split
from runbooks_sandbox.furniture import load_crds
from runbooks_sandbox.knative import route_name
from runbooks_sandbox.serverless import config_maps, uses_istio
from runbooks_sandbox.world import (
    CONFIG_MAPS,
    CONTROL_PLANES,
    DEPLOYMENTS,
    GATEWAYS,
    KNATIVE_INGRESSES,
    KNATIVE_SERVICES,
    KNATIVE_SERVINGS,
    MEMBER_ROLLS,
    MEMBERS,
    NAMESPACES,
    NETWORK_POLICIES,
    PODS,
    ROUTES,
    SECRETS,
    is_true,
)
from tests.conftest import REAL_CRDS, Sandbox

MESH, HOST = "istio-system", "hello-default.apps.openshift.example.com"
RBAC = "rbac.authorization.k8s.io/v1"
ROLES = Resource(RBAC, "roles", "Role")
ROLE_BINDINGS = Resource(RBAC, "rolebindings", "RoleBinding")


def eventually(there: Callable[[], Any], within_s: float = 15) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := there()):
        assert time.monotonic() < deadline, f"not there after {within_s} s"
        time.sleep(0.05)
    return found


def manifest(resource: Resource, namespace: str, name: str, **content: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **content.pop("metadata", {})}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **content}


def create(sandbox: Sandbox, resource: Resource, body: Object, api: Api | None = None, *, dry_run: bool = False) -> Any:
    path = resource.path(body["metadata"].get("namespace", ""))
    query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
    return (api or sandbox.api).request("POST", path, body, query=query)


def names(sandbox: Sandbox, resource: Resource, namespace: str) -> set[str]:
    return {item["metadata"]["name"] for item in sandbox.api.request("GET", resource.path(namespace))["items"]}


def members(sandbox: Sandbox, *listed: str) -> Object:
    """The roll with these members, when the operator has looked at it."""
    path = MEMBER_ROLLS.path(MESH, "default")
    body = {"spec": {"members": list(listed)}}
    generation = sandbox.api.request("PATCH", path, body, content_type="application/merge-patch+json")["metadata"][
        "generation"
    ]

    missing = [one for one in listed if one.startswith("no-")]

    def settled() -> Object | None:
        live = sandbox.get(MEMBER_ROLLS, MESH, "default")
        status = live.get("status", {})
        seen = status.get("observedGeneration") == generation
        return live if seen and (status["pendingMembers"] == missing) else None

    return dict(eventually(settled))


def account(sandbox: Sandbox, name: str) -> Api:
    """A ServiceAccount of a namespace of its own, without any right, by TokenRequest."""
    sandbox.create_namespace(name)
    path = f"/api/v1/namespaces/{name}/serviceaccounts"
    sandbox.api.request("POST", path, {"metadata": {"name": name}})
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = sandbox.api.request("POST", f"{path}/{name}/token", body)["status"]["token"]
    server = f"https://127.0.0.1:{sandbox.state.settings().api_port}"
    return Api(server, token, str(sandbox.state.pki / "ca.crt"))


def allow(sandbox: Sandbox, namespace: str, subject: str, rule: Mapping[str, list[str]]) -> None:
    name = f"{subject}-{'-'.join(rule['resources'])}"
    create(sandbox, ROLES, manifest(ROLES, namespace, name, rules=[rule]))
    binding = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": subject, "namespace": subject}],
    }
    create(sandbox, ROLE_BINDINGS, manifest(ROLE_BINDINGS, namespace, name, **binding))


# --- definitions -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["own", "exported"])
def any_crds(request: pytest.FixtureRequest, new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A cluster with our own CRDs, and one with those of real systems; Serving's are loaded at once."""
    if request.param == "exported" and not REAL_CRDS.is_dir():
        pytest.skip("the exported CRDs are not beside this checkout")
    found = new_sandbox(**({"crds": REAL_CRDS} if request.param == "exported" else {}))
    given = exported(REAL_CRDS) if request.param == "exported" else ()
    load_crds(found.api, split(given, serverless=(1, 26, 0), mesh=(2, 3, 0))[1])
    yield found
    lifecycle.stop(found.state)


ISTIO = {"ingress": {"istio": {"enabled": True}}}
SERVING = manifest(KNATIVE_SERVINGS, "knative-serving", "knative-serving", spec=ISTIO)
HTTPS_AS_TEXT = {"number": "443", "name": "https", "protocol": "HTTPS"}
SERVICE = manifest(
    KNATIVE_SERVICES, "default", "hello", spec={"template": {"spec": {"containers": [{"image": "example.com/hello"}]}}}
)


def with_annotation(value: object) -> list[tuple[Resource, Object]]:
    annotations = {"sidecar.istio.io/inject": value}
    deployments = [{"name": "activator", "annotations": annotations}]
    template = {**SERVICE["spec"]["template"], "metadata": {"annotations": annotations}}
    return [
        (KNATIVE_SERVINGS, {**SERVING, "spec": {**SERVING["spec"], "deployments": deployments}}),
        (KNATIVE_SERVICES, {**SERVICE, "spec": {"template": template}}),
    ]


class TestDefinitions:
    def test_an_unquoted_true_is_refused(self, any_crds: Sandbox) -> None:
        for resource, body in with_annotation(True):
            with pytest.raises(ApiError, match=r"inject.*(string|cannot unmarshal bool)"):
                create(any_crds, resource, body, dry_run=True)

    def test_the_quoted_one_is_taken(self, any_crds: Sandbox) -> None:
        for resource, body in with_annotation("true"):
            create(any_crds, resource, body, dry_run=True)

    @pytest.mark.parametrize(
        ("resource", "spec"),
        [
            (MEMBER_ROLLS, {"members": [7]}),
            (MEMBER_ROLLS, {"members": "default"}),
            (
                GATEWAYS,
                {"servers": [{"port": {"number": "443", "name": "https", "protocol": "HTTPS"}, "hosts": ["*"]}]},
            ),
            (CONTROL_PLANES, {"security": {"dataPlane": {"mtls": "yes"}}}),
            (ROUTES, {"to": {"kind": "Service", "name": "a"}, "tls": {"termination": "none"}}),
        ],
        ids=lambda value: str(value)[:60],
    )
    def test_what_is_of_the_wrong_type_is_refused(self, any_crds: Sandbox, resource: Resource, spec: Object) -> None:
        with pytest.raises(ApiError, match=r"nvalid|Unsupported|unmarshal"):
            create(any_crds, resource, manifest(resource, MESH, "default", spec=spec), dry_run=True)

    def test_every_status_is_a_subresource(self, any_crds: Sandbox) -> None:
        for crd in any_crds.api.request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")["items"]:
            if crd["metadata"]["name"] in {one["metadata"]["name"] for one in SERVING_CRDS} or "maistra" in str(crd):
                assert all("status" in version.get("subresources", {}) for version in crd["spec"]["versions"])


# --- the mesh ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mesh(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A cluster with an empty member roll."""
    found: Sandbox = new_sandbox()
    create(found, MEMBER_ROLLS, manifest(MEMBER_ROLLS, MESH, "default", spec={"members": []}))
    yield found
    lifecycle.stop(found.state)


class TestTheMesh:
    def test_everybody_may_read_how_the_sandbox_describes_itself(self, mesh: Sandbox) -> None:
        nobody = account(mesh, "reader")
        found = nobody.request("GET", CONFIG_MAPS.path("kube-public", "runbooks-sandbox"))
        assert mesh.state.name == found["data"]["name"]
        with pytest.raises(ApiError, match="forbidden"):
            nobody.request("GET", CONFIG_MAPS.path("kube-public"))

    def test_existing_members_are_configured_and_missing_ones_pending(self, mesh: Sandbox) -> None:
        mesh.create_namespace("shop")
        roll = members(mesh, "shop", "no-such-namespace")
        assert ["shop"] == roll["status"]["configuredMembers"]
        assert ["no-such-namespace"] == roll["status"]["pendingMembers"]
        assert not is_true(roll, "Ready")
        missing = next(one for one in roll["status"]["memberStatuses"] if one["namespace"] != "shop")
        assert "NamespaceNotExists" == missing["conditions"][0]["reason"]
        mesh.create_namespace("no-such-namespace")
        eventually(lambda: is_true(mesh.get(MEMBER_ROLLS, MESH, "default"), "Ready"))

    def test_a_member_has_label_member_and_policies_and_loses_them_again(self, mesh: Sandbox) -> None:
        mesh.create_namespace("stall")
        members(mesh, "stall")
        assert MESH == mesh.get(NAMESPACES, "", "stall")["metadata"]["labels"]["maistra.io/member-of"]
        assert {"default"} == names(mesh, MEMBERS, "stall")
        eventually(lambda: names(mesh, NETWORK_POLICIES, "stall") == {"istio-mesh-basic", "istio-expose-route-basic"})
        policy = mesh.get(NETWORK_POLICIES, "stall", "istio-mesh-basic")
        peer = {"namespaceSelector": {"matchLabels": {"maistra.io/member-of": MESH}}}
        assert [{"from": [peer]}] == policy["spec"]["ingress"]
        members(mesh)
        eventually(lambda: not names(mesh, NETWORK_POLICIES, "stall") | names(mesh, MEMBERS, "stall"))
        eventually(
            lambda: "maistra.io/member-of" not in (mesh.get(NAMESPACES, "", "stall")["metadata"].get("labels") or {})
        )

    def test_the_webhook_wants_the_right_to_update_pods(self, mesh: Sandbox) -> None:
        mesh.create_namespace("bakery")
        clerk = account(mesh, "clerk")
        allow(
            mesh,
            MESH,
            "clerk",
            {"apiGroups": ["maistra.io"], "resources": ["servicemeshmemberrolls"], "verbs": ["get", "patch"]},
        )
        path, body = MEMBER_ROLLS.path(MESH, "default"), {"spec": {"members": ["bakery"]}}

        def patch() -> Any:
            return clerk.request("PATCH", path, body, content_type="application/merge-patch+json")

        with pytest.raises(ApiError, match="does not have permission to access namespaces") as refusal:
            patch()
        assert "bakery" in refusal.value.message
        allow(mesh, "bakery", "clerk", {"apiGroups": [""], "resources": ["pods"], "verbs": ["update"]})
        assert ["bakery"] == eventually(lambda: patch())["spec"]["members"]

    @pytest.mark.parametrize(
        ("name", "listed", "said"),
        [
            ("other", ["default"], "must be"),
            ("default", ["default", "default"], "duplicate members"),
            ("default", [MESH], "cannot be listed as a member"),
        ],
    )
    def test_the_webhook_refuses_what_the_real_one_refuses(
        self, mesh: Sandbox, name: str, listed: list[str], said: str
    ) -> None:
        body = manifest(MEMBER_ROLLS, MESH, name, spec={"members": listed})
        with pytest.raises(ApiError, match=said):
            mesh.api.apply(body, MEMBER_ROLLS, "somebody")

    @pytest.mark.parametrize(
        ("namespace", "asked", "injected"),
        [("garden", "true", True), ("garden", "false", False), ("garden", None, False), ("street", "true", False)],
    )
    def test_a_sidecar_comes_only_to_members_that_ask_for_one(
        self, mesh: Sandbox, namespace: str, asked: str | None, injected: bool
    ) -> None:
        if "garden" not in names(mesh, NAMESPACES, ""):
            mesh.create_namespace("garden")
            mesh.create_namespace("street")
            members(mesh, "garden")
        app = f"app-{asked}".lower()
        annotations = {} if asked is None else {"sidecar.istio.io/inject": asked}
        template = {
            "metadata": {"labels": {"app": app}, "annotations": annotations},
            "spec": {"containers": [{"name": "main", "image": "example.com/main"}]},
        }
        spec = {"selector": {"matchLabels": {"app": app}}, "template": template}
        create(mesh, DEPLOYMENTS, manifest(DEPLOYMENTS, namespace, app, spec=spec))
        eventually(lambda: is_true(mesh.get(DEPLOYMENTS, namespace, app), "Available"))
        pods = [
            item
            for item in mesh.api.request("GET", PODS.path(namespace))["items"]
            if item["metadata"]["labels"]["app"] == app
        ]
        assert [injected] == ["istio-proxy" in [one["name"] for one in pod["spec"]["containers"]] for pod in pods]


# --- Serving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ingress", "istio"),
    [
        ({"istio": {"enabled": True}}, True),
        ({"istio": {"enabled": True}, "kourier": {"enabled": False}}, True),
        ({"istio": {"enabled": True}, "kourier": {"enabled": True}}, False),
        ({"kourier": {"enabled": True}}, False),
        ({}, False),
    ],
)
def test_kourier_wins_wherever_it_is_enabled(ingress: Object, istio: bool) -> None:
    serving = {"spec": {"ingress": ingress}}
    assert istio == uses_istio(serving)
    kind = "istio" if istio else "kourier"
    found = config_maps((1, 26, 0), serving, "example.com")["config-network"]["ingress.class"]
    assert f"{kind}.ingress.networking.knative.dev" == found


def test_serving_with_kourier_is_installed_beside_its_own_gateway(mesh: Sandbox) -> None:
    ingress = {"istio": {"enabled": True}, "kourier": {"enabled": True}}
    create(mesh, KNATIVE_SERVINGS, {**SERVING, "spec": {"ingress": ingress}})
    eventually(lambda: is_true(mesh.get(KNATIVE_SERVINGS, "knative-serving", "knative-serving"), "Ready"))
    conditions = mesh.get(KNATIVE_SERVINGS, "knative-serving", "knative-serving")["status"]["conditions"]
    dependencies = {"DependenciesInstalled", "InstallSucceeded", "VersionMigrationEligible", "DeploymentsAvailable"}
    assert {*dependencies, "Ready"} == {one["type"] for one in conditions}
    network = mesh.get(CONFIG_MAPS, "knative-serving", "config-network")["data"]
    assert "kourier.ingress.networking.knative.dev" == network["ingress.class"]
    assert {"activator", "autoscaler", "controller", "webhook"} <= names(mesh, DEPLOYMENTS, "knative-serving")
    assert "net-istio-controller" not in names(mesh, DEPLOYMENTS, "knative-serving")
    assert "3scale-kourier-gateway" in names(mesh, DEPLOYMENTS, "knative-serving-ingress")
    eventually(lambda: names(mesh, KNATIVE_SERVICES, "default") == set())  # Serving's kinds are served now


# --- routes and the gateway --------------------------------------------------------------------------------------


def test_a_route_is_named_after_its_host() -> None:
    assert "route-0a1b-323533656437" == route_name("0a1b", HOST)


def test_the_route_lies_with_the_gateway_and_not_with_the_application(integrated: Sandbox) -> None:
    uid = integrated.get(KNATIVE_INGRESSES, "default", "hello")["metadata"]["uid"]
    route = integrated.get(ROUTES, MESH, f"route-{uid}-323533656437")
    assert HOST == route["spec"]["host"]
    assert {"kind": "Service", "name": "istio-ingressgateway", "weight": 100} == route["spec"]["to"]
    assert {"termination": "passthrough", "insecureEdgeTerminationPolicy": "Redirect"} == route["spec"]["tls"]
    assert "https" == route["spec"]["port"]["targetPort"]
    labels = route["metadata"]["labels"]
    assert ("hello", "default") == tuple(
        labels[f"serving.knative.openshift.io/ingress{what}"] for what in ("Name", "Namespace")
    )
    assert set() == names(integrated, ROUTES, "default")


def test_serving_with_istio_brings_its_own_policies(integrated: Sandbox) -> None:
    expected = {"webhook", "net-istio-webhook", "allow-from-openshift-monitoring-ns"}
    assert expected <= names(integrated, NETWORK_POLICIES, "knative-serving")


def address(sandbox: Sandbox) -> str:
    return sandbox.state.settings().gateway_address


def served(sandbox: Sandbox, host: str = HOST) -> x509.Certificate:
    """The certificate of a real handshake, whoever signed it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((address(sandbox), 8443), 5) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        found = tls.getpeercert(binary_form=True)
        assert found
        return x509.load_der_x509_certificate(found)


def answer(sandbox: Sandbox, host: str) -> int:
    """The HTTP status for a host, over TLS, as a client that does not verify sees it; 0 where there is none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        contextlib.suppress(OSError),
        socket.create_connection((address(sandbox), 8443), 5) as plain,
        context.wrap_socket(plain, server_hostname=host) as tls,
    ):
        tls.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(tls.recv(65536).split(b" ")[1])
    return 0


def pair() -> dict[str, str]:
    """Chain and key of somebody else's making, as a Secret holds them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another")]), dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    content = {
        "tls.crt": certificate.public_bytes(pem),
        "tls.key": key.private_bytes(pem, form, serialization.NoEncryption()),
    }
    return {name: base64.b64encode(value).decode() for name, value in content.items()}


def serial(data: Mapping[str, str]) -> int:
    return x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"])).serial_number


class TestTheGateway:
    def test_a_new_certificate_is_picked_up_and_a_broken_one_is_not(self, integrated: Sandbox) -> None:
        before = integrated.get(SECRETS, MESH, "wildcard-certs")["data"]
        assert serial(before) == served(integrated).serial_number
        new, other = pair(), pair()
        integrated.patch(SECRETS, MESH, "wildcard-certs", {"data": new})
        eventually(lambda: served(integrated).serial_number == serial(new), 5)
        integrated.patch(SECRETS, MESH, "wildcard-certs", {"data": {**new, "tls.key": other["tls.key"]}})
        time.sleep(1)
        assert serial(new) == served(integrated).serial_number
        integrated.patch(SECRETS, MESH, "wildcard-certs", {"data": before})
        eventually(lambda: served(integrated).serial_number == serial(before), 5)

    def test_the_old_certificate_is_served_when_the_secret_is_gone(self, integrated: Sandbox) -> None:
        live = integrated.get(SECRETS, MESH, "wildcard-certs")
        integrated.api.delete(SECRETS, MESH, "wildcard-certs")
        time.sleep(1)
        assert serial(live["data"]) == served(integrated).serial_number
        create(integrated, SECRETS, manifest(SECRETS, MESH, "wildcard-certs", type=live["type"], data=live["data"]))

    def test_a_secret_in_the_gateways_namespace_only_counts_where_the_pods_run(self, integrated: Sandbox) -> None:
        before = served(integrated).serial_number
        body = manifest(SECRETS, "knative-serving", "wildcard-certs", type="kubernetes.io/tls", data=pair())
        create(integrated, SECRETS, body)
        time.sleep(1)
        assert before == served(integrated).serial_number
        integrated.api.delete(SECRETS, "knative-serving", "wildcard-certs")

    def test_only_ready_services_of_members_are_served(self, integrated: Sandbox) -> None:
        assert 200 == answer(integrated, HOST)
        assert 404 == answer(integrated, "other-default.apps.openshift.example.com")
        roll = integrated.get(MEMBER_ROLLS, MESH, "default")
        integrated.create_namespace("outside")
        create(integrated, KNATIVE_SERVICES, {**SERVICE, "metadata": {"name": "hello", "namespace": "outside"}})
        eventually(lambda: "hello" in names(integrated, KNATIVE_INGRESSES, "outside"))
        assert 404 == answer(integrated, "hello-outside.apps.openshift.example.com")
        service = integrated.get(KNATIVE_SERVICES, "outside", "hello")
        assert not is_true(service, "Ready")
        members(integrated, *roll["spec"]["members"], "outside")
        eventually(lambda: answer(integrated, "hello-outside.apps.openshift.example.com") == 200)
        eventually(lambda: is_true(integrated.get(KNATIVE_SERVICES, "outside", "hello"), "Ready"))
        members(integrated, "knative-serving")
        eventually(lambda: answer(integrated, HOST) == 404)
        members(integrated, *roll["spec"]["members"])
        eventually(lambda: answer(integrated, HOST) == 200)

    def test_of_two_gateways_on_443_the_older_one_is_served(self, integrated: Sandbox) -> None:
        lifecycle.switch(integrated.state, "second-gateway", "", on=True)
        time.sleep(1)
        assert 200 == answer(integrated, HOST)
        live = integrated.get(GATEWAYS, "knative-serving", "knative-ingress-gateway")
        integrated.api.delete(GATEWAYS, "knative-serving", "knative-ingress-gateway")
        time.sleep(1)
        again = manifest(GATEWAYS, "knative-serving", "knative-ingress-gateway", spec=live["spec"])
        integrated.api.apply(again, GATEWAYS, "runbooks-6.4.3")
        time.sleep(1)
        assert 0 == answer(integrated, HOST)  # the other team's Gateway won, and its certificate is nowhere
        lifecycle.switch(integrated.state, "second-gateway", "", on=False)
        eventually(lambda: answer(integrated, HOST) == 200)


def test_two_sandboxes_serve_on_8443_side_by_side(integrated: Sandbox, mesh: Sandbox) -> None:
    assert address(integrated) != address(mesh)
    body = manifest(
        GATEWAYS,
        MESH,
        "any",
        spec={
            "selector": {"istio": "ingressgateway"},
            "servers": [
                {
                    "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
                    "hosts": ["*"],
                    "tls": {"mode": "SIMPLE", "credentialName": "any"},
                }
            ],
        },
    )
    create(mesh, GATEWAYS, body)
    data = pair()
    create(mesh, SECRETS, manifest(SECRETS, MESH, "any", type="kubernetes.io/tls", data=data))

    def has_it() -> bool:
        with contextlib.suppress(OSError):
            return served(mesh).serial_number == serial(data)
        return False

    eventually(has_it)
    assert serial(data) != served(integrated).serial_number


def test_the_audit_log_has_not_been_rotated(integrated: Sandbox) -> None:
    """It would be at 50 MB: tests that count its lines would miss what is in the older file."""
    assert ["audit.log"] == [path.name for path in integrated.state.logs.glob("audit*")]
    assert integrated.state.audit_log.stat().st_size < 25_000_000
