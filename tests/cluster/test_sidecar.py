"""The application's real sidecar: what it refuses, what it lets in, and what the runbooks say of it.

Each case is provoked, seen in what gateway and sidecar really do, and, where a runbook looks at it, detected by its
verification with words that name the cause.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import signal
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import psutil
import pytest
from cryptography import x509

from runbooks import probes
from runbooks.probes import ProbeFailed
from runbooks_sandbox import binaries, lifecycle
from runbooks_sandbox.api import Object, Resource
from runbooks_sandbox.certificates import Certificate, Issued, Refused, field, fields, issue
from runbooks_sandbox.istio import GATEWAY_ACCOUNT, SERVICE_ACCOUNTS, VIRTUAL_SERVICES, WORKLOAD_ENTRIES
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.proxy import Node, Proxy
from runbooks_sandbox.sidecar import SIDECARS, TLS_LABEL
from runbooks_sandbox.state import free_address
from runbooks_sandbox.supervisor import _ENVOY
from runbooks_sandbox.world import (
    CONTROL_PLANES,
    KNATIVE_SERVICES,
    PEER_AUTHENTICATIONS,
    PODS,
    SECRETS,
    SERVICES,
    is_true,
)
from tests.conftest import MakesSandboxes, Sandbox, started

HOST, MESH, APP = "hello-default.apps.openshift.example.com", "istio-system", "default"
HTTP, METRICS = 8012, 8444
GATEWAYS_IDENTITY = f"cluster.local/ns/{MESH}/sa/{GATEWAY_ACCOUNT}"
AUTHORIZATION_POLICIES = Resource("security.istio.io/v1beta1", "authorizationpolicies", "AuthorizationPolicy")
DESTINATION_RULES = Resource("networking.istio.io/v1beta1", "destinationrules", "DestinationRule")


def istiod_is_here() -> bool:
    found = binaries.find_installed()
    return found is not None and found.istiod is not None


pytestmark = pytest.mark.skipif(
    not istiod_is_here(), reason="istiod is not on this machine: runbooks sandbox prepare --gateway istio"
)


@dataclass
class Mesh:
    """A sandbox with the documented application, as those see it who speak to gateway and sidecar."""

    sandbox: Sandbox

    @property
    def revision(self) -> str:
        return str(self.sandbox.get(KNATIVE_SERVICES, APP, "hello")["status"]["latestCreatedRevisionName"])

    @property
    def process(self) -> str:
        """The sidecar's name among the sandbox's processes."""
        return f"sidecar-{self.revision}.{APP}"

    @property
    def sidecar(self) -> str:
        """The loopback address that stands for the Pod's."""
        return str(self.entry(self.revision)["address"])

    def has_entry(self) -> bool:
        entries = self.sandbox.api.request("GET", WORKLOAD_ENTRIES.path(APP))["items"]
        return self.revision in {live["metadata"]["name"] for live in entries}

    def entry(self, name: str) -> Object:
        return dict(self.sandbox.get(WORKLOAD_ENTRIES, APP, name)["spec"])

    def answers(self, host: str = HOST) -> int | str:
        """The status that a client gets through the gateway, or why it gets none."""
        root = (self.sandbox.state.certificates / "root.crt").read_bytes()
        try:
            return probes.https_get(host, f"{self.sandbox.state.settings().gateway_address}:8443", root).status
        except ProbeFailed as error:
            return str(error)

    def plaintext(self, port: int) -> int | str:
        """The status that a client without mTLS gets at the Pod's address, or ``refused``."""
        if not self.has_entry():
            return "no entry"  # while the Pod is made anew
        client = http.client.HTTPConnection(self.sidecar, port, timeout=5)
        try:
            client.request("GET", "/")
            return client.getresponse().status
        except (ConnectionResetError, ConnectionRefusedError, http.client.RemoteDisconnected):
            return "refused"
        finally:
            client.close()

    def seen(self) -> tuple[int | str, int | str, int | str]:
        """Through the gateway, and in clear at both ports."""
        return self.answers(), self.plaintext(HTTP), self.plaintext(METRICS)

    def settles(self, *seen: int | str, timeout_s: float = 20) -> None:
        """Wait until it is seen, and look once more after it was."""
        deadline = time.monotonic() + timeout_s
        while self.seen() != seen and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        assert seen == self.seen()

    def has_sidecars(self, *names: str) -> bool:
        return list(names) == [name for name in self.sandbox.state.processes() if name.startswith("sidecar-")]

    def token(self, namespace: str, account: str) -> str:
        path = SERVICE_ACCOUNTS.path(namespace, account, "token")
        spec = {"audiences": ["istio-ca"], "expirationSeconds": 3600}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.sandbox.api.request("POST", path, body)["status"]["token"])

    @property
    def authority(self) -> str:
        """Where istiod's gRPC listens."""
        arguments = psutil.Process(self.sandbox.state.processes()["istiod"].pid).cmdline()
        return next(one for one in arguments if one.startswith("--grpcAddr=")).partition("=")[2]

    def told(self, number: str = "6.4.3") -> str:
        """All that a verification says is wrong."""
        cells = self.sandbox.play_until("", number, "verify")
        said = [cells["outcome"]["reason"]]
        for cell in cells.values():
            failed = (one for one in cell.get("checks", ()) if one["proof"] == "failed")
            said += [f"{one['observed']} ({one['remedy']})" for one in failed]
        return "\n".join(said)

    @contextlib.contextmanager
    def having(self, resource: Resource, namespace: str, spec: Object) -> Iterator[None]:
        """Somebody's object, for a while."""
        name = "somebodys"
        manifest = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec}
        self.sandbox.api.request("POST", resource.path(namespace), manifest)
        try:
            yield
        finally:
            self.sandbox.api.delete(resource, namespace, name)

    @contextlib.contextmanager
    def kept_down(self, name: str) -> Iterator[None]:
        """One of the processes ends whenever it is started."""
        over = threading.Event()

        def kill() -> None:
            while not over.wait(0.01):
                found = self.sandbox.state.processes()[name].alive()
                if found is not None:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            over.set()
            killer.join()

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """One of the processes is there, and does nothing."""
        process = psutil.Process(self.sandbox.state.processes()[name].pid)
        process.suspend()
        try:
            yield
        finally:
            process.resume()


@pytest.fixture(scope="module")
def integrated_mesh(new_sandbox: MakesSandboxes) -> Iterator[Mesh]:
    found = new_sandbox(gateway="istio")
    for number in ("6.4.2", "6.4.3"):
        outcome = found.play(number)
        assert "done and proven" == outcome["outcome"], outcome["reason"]
    yield Mesh(found)
    lifecycle.stop(found.state)


@pytest.fixture
def mesh(integrated_mesh: Mesh) -> Iterator[Mesh]:
    """The documented mesh; a test that leaves it otherwise fails."""
    integrated_mesh.settles(200, "refused", "refused")
    yield integrated_mesh
    integrated_mesh.settles(200, "refused", "refused")


def handshake(address: str, issued: Issued | None, folder: Path, status: int = 200) -> x509.Certificate:
    """A request by TLS to a sidecar, with or without a certificate of our own; returns the sidecar's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if issued is not None:
        pair = folder / "client.pem"
        pair.write_bytes(issued.key + issued.chain)
        context.load_cert_chain(pair)
        context.load_verify_locations(cadata=issued.root.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["istio"])
    with socket.create_connection((address, HTTP), 5) as plain, context.wrap_socket(plain) as secured:
        secured.sendall(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")
        answer, shown = secured.recv(100), secured.getpeercert(binary_form=True)
    assert answer.startswith(f"HTTP/1.1 {status}".encode()), answer
    assert shown is not None
    return x509.load_der_x509_certificate(shown)


def identity(certificate: x509.Certificate) -> str:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])


# --- what the sidecar judges -------------------------------------------------------------------------------------


def test_the_documented_mesh_refuses_plaintext_and_the_way_through_the_gateway_works(mesh: Mesh) -> None:
    mesh.settles(200, "refused", "refused")
    assert "as desired" == mesh.sandbox.play("6.4.3", "verify")["outcome"]


def test_where_mutual_tls_is_off_the_operator_makes_it_permissive_and_plaintext_is_let_in(mesh: Mesh) -> None:
    mesh.sandbox.patch(CONTROL_PLANES, MESH, "basic", {"spec": {"security": {"dataPlane": {"mtls": False}}}})
    try:
        mesh.settles(200, 200, 200)
        assert "mTLS is off" in mesh.sandbox.play("6.4.4", "verify")["reason"]
    finally:
        mesh.sandbox.patch(CONTROL_PLANES, MESH, "basic", {"spec": {"security": {"dataPlane": {"mtls": True}}}})


def test_one_port_may_be_left_open(mesh: Mesh) -> None:
    selector = {"matchLabels": {"serving.knative.dev/revision": mesh.revision}}
    spec = {"selector": selector, "mtls": {"mode": "STRICT"}, "portLevelMtls": {"8444": {"mode": "DISABLE"}}}
    with mesh.having(PEER_AUTHENTICATIONS, APP, spec):
        mesh.settles(200, "refused", 200)


def allowing(principal: str) -> Object:
    return {"action": "ALLOW", "rules": [{"from": [{"source": {"principals": [principal]}}]}]}


def test_an_authorization_policy_for_somebody_else_is_refused_and_named(mesh: Mesh) -> None:
    with mesh.having(AUTHORIZATION_POLICIES, APP, allowing("cluster.local/ns/default/sa/somebody")):
        mesh.settles(403, "refused", "refused")
        told = mesh.told()
    assert "an AuthorizationPolicy of the mesh refuses the request" in told


def test_an_authorization_policy_for_the_gateway_lets_it_in_and_nobody_else(mesh: Mesh, tmp_path: Path) -> None:
    somebody = issue(mesh.authority, mesh.token(APP, "default"))

    def refused() -> bool:
        with contextlib.suppress(AssertionError):
            handshake(mesh.sidecar, somebody, tmp_path, status=403)
            return True
        return False

    assert not refused()
    with mesh.having(AUTHORIZATION_POLICIES, APP, allowing(GATEWAYS_IDENTITY)):
        mesh.sandbox.eventually(refused)
        mesh.settles(200, "refused", "refused")
        assert "as desired" == mesh.sandbox.play("6.4.3", "verify")["outcome"]


def test_a_destination_rule_without_tls_is_refused_and_named(mesh: Mesh) -> None:
    spec = {"host": f"{mesh.revision}.default.svc.cluster.local", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
    with mesh.having(DESTINATION_RULES, APP, spec):
        mesh.settles(503, "refused", "refused")
        told = mesh.told()
    assert "a DestinationRule whose tls.mode is not ISTIO_MUTUAL" in told


def test_another_identity_than_a_destination_rule_expects_is_refused_and_named(mesh: Mesh) -> None:
    tls = {"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://cluster.local/ns/default/sa/somebody"]}
    spec = {"host": f"{mesh.revision}.default.svc.cluster.local", "trafficPolicy": {"tls": tls}}
    with mesh.having(DESTINATION_RULES, APP, spec):
        mesh.settles(503, "refused", "refused")
        told = mesh.told()
    assert "it shows another identity than the gateway expects" in told


@pytest.mark.parametrize(("account", "status"), [("somebody", 503), ("default", 200)])
def test_the_gateway_insists_on_the_service_account_of_the_endpoint(mesh: Mesh, account: str, status: int) -> None:
    host = "other-default.apps.openshift.example.com"
    labels = {"app": "other", **TLS_LABEL}
    ports = [{"name": "http", "port": 80, "targetPort": HTTP}]
    entry = {"address": mesh.sidecar, "serviceAccount": account, "labels": labels}
    route = [{"destination": {"host": "somebodys.default.svc.cluster.local", "port": {"number": 80}}}]
    gateways = ["knative-serving/knative-ingress-gateway"]
    with (
        mesh.having(SERVICES, APP, {"selector": {"app": "other"}, "ports": ports}),
        mesh.having(WORKLOAD_ENTRIES, APP, entry),
        mesh.having(VIRTUAL_SERVICES, APP, {"hosts": [host], "gateways": gateways, "http": [{"route": route}]}),
    ):
        mesh.sandbox.eventually(lambda: mesh.answers(host) == status)
        time.sleep(0.3)
        assert status == mesh.answers(host)


def test_a_client_is_let_in_by_a_certificate_of_istiods_ca_and_by_no_other(mesh: Mesh, tmp_path: Path) -> None:
    ours = issue(mesh.authority, mesh.token(APP, "default"))
    shown = handshake(mesh.sidecar, ours, tmp_path)
    assert "spiffe://cluster.local/ns/default/sa/default" == identity(shown) == identity(ours.leaf())
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        handshake(mesh.sidecar, None, tmp_path)
    with pytest.raises(Refused, match="UNAUTHENTICATED"):
        issue(mesh.authority, "not a token")


# --- when parts go down ------------------------------------------------------------------------------------------


def test_a_sidecar_that_is_down_is_named_and_started_again(mesh: Mesh) -> None:
    with mesh.kept_down(mesh.process):
        mesh.sandbox.eventually(lambda: mesh.answers() == 503)
        told = mesh.told()
    assert "either it does not run" in told
    mesh.settles(200, "refused", "refused")


def test_while_istiod_does_nothing_all_is_as_strict_as_before(mesh: Mesh) -> None:
    with mesh.paused("istiod"):
        mesh.settles(200, "refused", "refused")
        assert "as desired" == mesh.sandbox.play("6.4.3", "verify")["outcome"]


def test_after_istiod_was_killed_new_rules_arrive_again(mesh: Mesh) -> None:
    before = mesh.sandbox.state.processes()["istiod"]
    psutil.Process(before.pid).send_signal(signal.SIGKILL)
    assert (200, "refused", "refused") == mesh.seen()
    with mesh.having(PEER_AUTHENTICATIONS, APP, {"mtls": {"mode": "PERMISSIVE"}}):
        mesh.settles(200, 200, 200, timeout_s=60)
    assert before != mesh.sandbox.state.processes()["istiod"]


# --- certificates ------------------------------------------------------------------------------------------------


def test_an_envoy_takes_a_renewed_certificate_without_a_restart(mesh: Mesh, tmp_path: Path) -> None:
    address = free_address(str(tmp_path), (HTTP,))
    assert address is not None
    labels = {"app": "short-lived"}
    node = Node("sidecar", address, APP, "short", "default", labels, {"INTERCEPTION_MODE": "NONE"})
    port = int(mesh.authority.rpartition(":")[2])
    proxy = Proxy(_ENVOY, tmp_path / "proxy", tmp_path / "log", node, mesh.sandbox.api, port, life_s=8)
    ours = issue(mesh.authority, mesh.token(APP, "default"))
    ingress = {"port": {"number": HTTP, "protocol": "HTTP", "name": "http"}, "bind": address, "captureMode": "NONE"}
    ingress["defaultEndpoint"] = mesh.sandbox.get(SIDECARS, APP, f"sandbox-{mesh.revision}")["spec"]["ingress"][0][
        "defaultEndpoint"
    ]
    with mesh.having(SIDECARS, APP, {"workloadSelector": {"labels": labels}, "ingress": [ingress]}):
        assert proxy.may_start("a uid")
        process = proxy.start()
        try:
            shown: list[x509.Certificate] = []
            deadline = time.monotonic() + 40
            while len({one.serial_number for one in shown}) < 3:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                proxy.may_start("a uid")
                with contextlib.suppress(ConnectionRefusedError):
                    shown.append(handshake(address, ours, tmp_path))
                    assert dt.datetime.now(dt.UTC) < shown[-1].not_valid_after_utc
                time.sleep(0.1)
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()
            proxy.close()


def test_a_certificate_outlives_an_istiod_that_is_down_and_is_renewed_afterwards(mesh: Mesh, tmp_path: Path) -> None:
    token = mesh.token(APP, "default")
    certificate = Certificate(mesh.authority, life_s=2)
    certificate.keep_fresh(token)
    certificate.serve(tmp_path / "s")
    asked: Iterator[bytes] = iter([field(3, b"default")] * 3)
    with grpc.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
        method = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
        stream = channel.stream_stream(method)(asked, timeout=60)
        first = next(stream)
        time.sleep(1.1)
        with mesh.kept_down("istiod"):
            mesh.sandbox.eventually(lambda: _refused(certificate, token))
        mesh.sandbox.eventually(lambda: not _refused(certificate, token), 40)
        assert first != next(stream)
        assert b"default" == dict(fields(dict(fields(dict(fields(first))[2]))[2]))[1]
    certificate.stop()


def _refused(certificate: Certificate, token: str) -> bool:
    try:
        certificate.keep_fresh(token)
    except Refused:
        return True
    return False


def test_the_ca_is_kept_from_one_start_to_the_next(mesh: Mesh) -> None:
    kept = mesh.sandbox.get(SECRETS, MESH, "istio-ca-secret")["data"]["ca-cert.pem"]
    lifecycle.stop(mesh.sandbox.state)
    assert [] == [name for name, one in mesh.sandbox.state.processes().items() if one.alive()]
    assert [] == list(mesh.sandbox.state.sidecars.glob("*.sock"))
    again = started(mesh.sandbox.state, Played())
    assert kept == again.get(SECRETS, MESH, "istio-ca-secret")["data"]["ca-cert.pem"]
    assert 200 == mesh.answers(), "the sidecar serves as soon as the sandbox has started"


def test_what_holds_keys_and_tokens_is_its_owners_alone(mesh: Mesh) -> None:
    folder = mesh.sandbox.state.sidecars
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if not path.is_dir()}
    assert {"bootstrap.json", "token.json"} < found.keys()
    assert {0o600} == set(found.values())
    assert {0o700} == {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / mesh.process)}
    listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    own = {process.pid for process in mesh.sandbox.state.processes().values()}
    assert {"127"} == {one.laddr.ip.split(".")[0] for one in listening if one.pid in own}


# --- what stays translated ---------------------------------------------------------------------------------------


def test_the_sandbox_and_its_checks_say_what_is_no_real_part(mesh: Mesh) -> None:
    said = lifecycle.status(mesh.sandbox.state)["stands_in"]
    assert "the application's Pods have real sidecars" in said
    assert "Sidecar objects take the place of redirection and excluded ports" in said
    cells = mesh.sandbox.play_until("", "6.4.3", "verify")
    ways = {one["title"]: one["way"] for cell in cells.values() for one in cell.get("checks", ())}
    resting = {title for title, way in ways.items() if "sidecar injection is a stand-in here" in way}
    assert {"Activator and autoscaler have sidecars", "The application's Pods have sidecars"} == resting


def test_a_new_revision_brings_its_own_sidecar_and_identity(mesh: Mesh, tmp_path: Path) -> None:
    sandbox = mesh.sandbox
    sandbox.api.request("POST", SERVICE_ACCOUNTS.path(APP), {"metadata": {"name": "hello"}})
    live = sandbox.get(KNATIVE_SERVICES, APP, "hello")["spec"]["template"]["spec"]
    for account in ("hello", None):
        before = mesh.process
        template = {"template": {"spec": {**live, "serviceAccountName": account}}}
        sandbox.patch(KNATIVE_SERVICES, APP, "hello", {"spec": template})
        sandbox.eventually(lambda: is_true(sandbox.get(KNATIVE_SERVICES, APP, "hello"), "Ready"))
        sandbox.eventually(lambda: mesh.answers() == 200)
        name = mesh.revision
        assert before != mesh.process
        assert account == mesh.entry(name)["serviceAccount"] or account is None
        ours = issue(mesh.authority, mesh.token(APP, "default"))
        shown = handshake(mesh.entry(name)["address"], ours, tmp_path)
        assert f"spiffe://cluster.local/ns/default/sa/{account or 'default'}" == identity(shown)
        sandbox.eventually(partial(mesh.has_sidecars, f"sidecar-{name}.default"))
        entries = sandbox.api.request("GET", WORKLOAD_ENTRIES.path(APP))["items"]
        assert [name] == [one["metadata"]["name"] for one in entries]


def test_a_port_is_reachable_once_6_4_4_has_excluded_it_and_the_pod_was_made_anew(mesh: Mesh) -> None:
    sandbox = mesh.sandbox
    outcome = sandbox.play("6.4.4")
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    mesh.settles(200, "refused", "refused")
    _make_pods_anew(sandbox)
    mesh.settles(200, "refused", 200)
    found = sandbox.play("6.4.4", "verify")
    assert "as desired" == found["outcome"], found["reason"]
    inbound = {"trafficControl": {"inbound": {"excludedPorts": None}}}
    sandbox.patch(CONTROL_PLANES, MESH, "basic", {"spec": {"proxy": {"networking": inbound}}})
    sandbox.eventually(lambda: is_true(sandbox.get(CONTROL_PLANES, MESH, "basic"), "Ready"))
    mesh.settles(200, "refused", 200)
    assert "drift" == sandbox.play("6.4.4", "verify")["outcome"]
    _make_pods_anew(sandbox)
    mesh.settles(200, "refused", "refused")


def test_a_pod_without_injection_has_no_sidecar_and_6_4_3_says_so(mesh: Mesh) -> None:
    sandbox = mesh.sandbox
    before = sandbox.get(KNATIVE_SERVICES, APP, "hello")["spec"]["template"]["metadata"]

    def inject(wanted: str) -> None:
        annotations = {**before["annotations"], "sidecar.istio.io/inject": wanted}
        sandbox.patch(
            KNATIVE_SERVICES, APP, "hello", {"spec": {"template": {"metadata": {"annotations": annotations}}}}
        )
        sandbox.eventually(lambda: is_true(sandbox.get(KNATIVE_SERVICES, APP, "hello"), "Ready"))

    inject("false")
    sandbox.eventually(mesh.has_sidecars)
    assert (200, "127.0.0.1") == (mesh.answers(), mesh.entry(mesh.revision)["address"])
    assert "has no container istio-proxy" in mesh.told()
    inject("true")
    sandbox.eventually(lambda: mesh.has_sidecars(mesh.process))


def _make_pods_anew(sandbox: Sandbox) -> None:
    """As somebody does who deletes them."""
    old = {pod["metadata"]["name"] for pod in sandbox.api.request("GET", PODS.path(APP))["items"]}
    for name in old:
        sandbox.api.delete(PODS, APP, name)

    def there() -> bool:
        pods = sandbox.api.request("GET", PODS.path(APP))["items"]
        new = bool(pods) and old.isdisjoint(pod["metadata"]["name"] for pod in pods)
        return new and bool(sandbox.api.request("GET", WORKLOAD_ENTRIES.path(APP))["items"])

    sandbox.eventually(there)
