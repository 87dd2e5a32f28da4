"""What goes wrong at the gateway, against the real istiod and against the files that stand in for it.

Each case is provoked, seen in what the gateway really does, and detected by 6.4.3 with words that name the cause.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import io
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runbooks import certificates, probes
from runbooks.certificates import Pair
from runbooks.probes import ProbeFailed
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import Object
from runbooks_sandbox.istio import ROLE_BINDINGS
from runbooks_sandbox.world import GATEWAYS, KNATIVE_SERVICES, MEMBER_ROLLS, PODS, SECRETS, SERVICES
from tests.conftest import ISTIOD_IS_HERE, MakesSandboxes, Sandbox

HOST, SERVING, MESH = "hello-default.apps.openshift.example.com", "knative-serving", "istio-system"
PUBLIC, LOCAL, SECRET = "knative-ingress-gateway", "knative-local-gateway", "wildcard-certs"


needs_istiod = pytest.mark.skipif(
    not ISTIOD_IS_HERE, reason="istiod is not on this machine: runbooks sandbox prepare --gateway istio"
)


@dataclass
class Site:
    """A sandbox that 6.4.2 and 6.4.3 have been applied to, as its users' clients see it."""

    sandbox: Sandbox
    gateway: str
    secret: Object = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.secret = self.sandbox.get(SECRETS, MESH, SECRET)

    @property
    def address(self) -> str:
        return self.sandbox.state.settings().gateway_address

    @property
    def root(self) -> bytes:
        return (self.sandbox.state.certificates / "root.crt").read_bytes()

    def serves(self) -> str:
        """The fingerprint of the certificate that is served, or why none is."""
        try:
            return probes.served_fingerprint(HOST, f"{self.address}:8443", self.root)
        except ProbeFailed as error:
            return str(error)

    def answers(self) -> int | str:
        """The status that a client gets, or why it gets none."""
        try:
            return probes.https_get(HOST, f"{self.address}:8443", self.root).status
        except ProbeFailed as error:
            return str(error)

    def listens(self, port: int) -> bool:
        with socket.socket() as client:
            client.settimeout(2)
            return client.connect_ex((self.address, port)) == 0

    def eventually(self, holds: Callable[[], bool], timeout_s: float = 20) -> None:
        self.sandbox.eventually(holds, timeout_s)

    def told(self) -> str:
        """All that a verification by 6.4.3 says is wrong: differences, failed effects and preconditions."""
        with contextlib.redirect_stdout(io.StringIO()):
            cells = self.sandbox.play_until("", "6.4.3", "verify")
        said = [cells["outcome"]["reason"]]
        for cell in cells.values():
            for one in cell.get("checks", ()):
                if one["proof"] not in ("proven", "not run"):
                    said.append(f"{one['title']}: {one['observed']} ({one['remedy']})")
        said.append(json.dumps(cells["plan"], ensure_ascii=False))
        return "\n".join(said)

    def set_gateway(self, name: str, spec: Object) -> None:
        self.sandbox.patch(GATEWAYS, SERVING, name, {"spec": spec})

    def spec(self, name: str) -> Any:
        return self.sandbox.get(GATEWAYS, SERVING, name)["spec"]

    def restart(self, name: str) -> None:
        """Kill one of the processes; the sandbox starts it again."""
        before = self.sandbox.state.processes()[name]
        before.alive().kill()  # type: ignore[union-attr]
        self.eventually(lambda: self.sandbox.state.processes()[name] != before)
        if name == "envoy":
            self.eventually(lambda: self.listens(8443))


@pytest.fixture(scope="module", params=["files", pytest.param("istio", marks=needs_istiod)])
def site(request: pytest.FixtureRequest, new_sandbox: MakesSandboxes) -> Iterator[Site]:
    """A served application; each test puts back what it changes."""
    sandbox = new_sandbox(gateway=request.param)
    for number, changes in (("6.4.2", {"valid_days": 90}), ("6.4.3", {})):
        outcome = sandbox.play(number, **changes)
        assert "done and proven" == outcome["outcome"], outcome["reason"]
    yield Site(sandbox, request.param)
    lifecycle.stop(sandbox.state)


@pytest.fixture
def istio(site: Site) -> Site:
    """The same, where it is the real istiod."""
    if site.gateway != "istio":
        pytest.skip("files configure this gateway: there is no istiod to look at")
    return site


@pytest.fixture(autouse=True)
def _as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves the site broken would break those after it: it fails itself."""
    yield
    if "site" in request.fixturenames:
        site: Site = request.getfixturevalue("site")
        site.eventually(lambda: site.answers() == 200)
        site.eventually(lambda: site.sandbox.play("6.4.3", "verify")["outcome"] == "as desired")


@contextlib.contextmanager
def operators_stuck(sandbox: Sandbox) -> Iterator[None]:
    """Nobody puts right what a test takes away."""
    lifecycle.switch(sandbox.state, "stuck-operators", "", on=True)
    try:
        yield
    finally:
        lifecycle.switch(sandbox.state, "stuck-operators", "", on=False)


def put_secret(site: Site, namespace: str = MESH) -> None:
    body = {"metadata": {"name": SECRET, "namespace": namespace}, "type": site.secret["type"]}
    site.sandbox.api.apply(
        {"apiVersion": "v1", "kind": "Secret", **body, "data": site.secret["data"]}, SECRETS, "kubectl-edit"
    )


# --- the certificate ----------------------------------------------------------------------------------------------


def test_an_old_certificate_is_served_on_after_the_secret_is_gone_until_a_restart(site: Site) -> None:
    before = site.serves()
    site.sandbox.api.delete(SECRETS, MESH, SECRET)
    try:
        time.sleep(1)  # as long as anything here takes to be served
        assert (before, 200) == (site.serves(), site.answers())
        said = site.told()
        assert f"Secret {MESH}/{SECRET} holds a usable certificate (there is no such Secret)" in said
        assert f"there is no such Secret; the gateway still serves the certificate {before[:16]}" in said
        if site.gateway == "istio":
            site.restart("envoy")
            site.eventually(lambda: "reset" in site.serves())
            assert "there is no such Secret, and the TLS handshake" in site.told()
    finally:
        put_secret(site)


def test_a_secret_in_the_namespace_of_the_gateways_is_not_read(site: Site) -> None:
    site.sandbox.api.delete(SECRETS, MESH, SECRET)
    put_secret(site, SERVING)
    try:
        if site.gateway == "istio":
            site.restart("envoy")
            site.eventually(lambda: "reset" in site.serves())
        assert f"Secret {MESH}/{SECRET} holds a usable certificate (there is no such Secret)" in site.told()
    finally:
        site.sandbox.api.delete(SECRETS, SERVING, SECRET)
        put_secret(site)


def test_a_credential_that_no_secret_has_is_found_in_the_gateway(site: Site) -> None:
    servers = site.spec(PUBLIC)["servers"]
    wrong = [{**servers[0], "tls": {**servers[0]["tls"], "credentialName": "other"}}]
    site.set_gateway(PUBLIC, {"servers": wrong})
    try:
        # istiod's Envoy goes on with the old one for a quarter of a minute, while it waits for the new one
        site.eventually(lambda: "handshake" in site.serves(), 30)
        said = site.told()
        assert "The gateway serves the Secret's certificate: the TLS handshake" in said
        assert '"credentialName": "other"' in said or "other" in said
        assert f"check that Secret {SECRET} lies in {MESH}" in said
    finally:
        site.set_gateway(PUBLIC, {"servers": servers})


@pytest.mark.parametrize("key", [b"garbage", certificates.new_key()], ids=["garbage", "another certificate's"])
def test_a_key_that_does_not_fit_is_not_taken(site: Site, key: bytes) -> None:
    before = site.serves()
    site.sandbox.patch(SECRETS, MESH, SECRET, {"data": {"tls.key": base64.b64encode(key).decode()}})
    try:
        time.sleep(1)
        assert (before, 200) == (site.serves(), site.answers())
        assert f"Secret {MESH}/{SECRET} holds a usable certificate (" in site.told()
    finally:
        put_secret(site)


def test_a_certificate_for_another_name_is_served_and_refused_by_every_client(site: Site) -> None:
    rules = certificates.Rules("*.apps.other.example.com")
    root = Pair(site.root, (site.sandbox.state.certificates / "root.key").read_bytes())
    key = certificates.new_key()
    chain = certificates.sign_request(rules, certificates.create_request(rules, key), root, dt.datetime.now(dt.UTC))
    data = {name: base64.b64encode(text).decode() for name, text in (("tls.crt", chain), ("tls.key", key))}
    site.sandbox.patch(SECRETS, MESH, SECRET, {"data": data})
    try:
        site.eventually(lambda: "Hostname mismatch" in site.serves())
        assert "Hostname mismatch" in site.told()
    finally:
        put_secret(site)


# --- the Gateways -------------------------------------------------------------------------------------------------


def test_a_selector_that_means_no_pod_closes_the_listener(site: Site) -> None:
    site.set_gateway(PUBLIC, {"selector": {"istio": "other"}})
    try:
        site.eventually(lambda: not site.listens(8443))
        said = site.told()
        assert "Connection refused" in said
        assert "spec.selector" in said
    finally:
        site.set_gateway(PUBLIC, {"selector": {"istio": "ingressgateway"}})


def test_the_https_variant_takes_the_local_listener_away_and_the_older_gateway_wins(site: Site) -> None:
    public, local = site.spec(PUBLIC), site.spec(LOCAL)
    site.set_gateway(LOCAL, {"servers": public["servers"]})
    try:
        site.eventually(lambda: not site.listens(8081))
        assert 200 == site.answers(), "knative-ingress-gateway is the older one"
        if site.gateway == "istio":
            site.eventually(lambda: f"{LOCAL}: IST0145, another Gateway claims the same port and hosts" in site.told())
        assert "The cluster-local name answers: no HTTP answer" in site.told()
        site.sandbox.api.delete(GATEWAYS, SERVING, PUBLIC)
        time.sleep(1.1)  # the age of objects counts in seconds
        made = {"apiVersion": GATEWAYS.api_version, "kind": "Gateway", "metadata": {"name": PUBLIC}, "spec": public}
        site.sandbox.api.request("POST", GATEWAYS.path(SERVING), made)
        site.eventually(lambda: site.answers() == 404)
        assert "The application answers over HTTPS: status 404" in site.told()
    finally:
        site.set_gateway(LOCAL, {"servers": local["servers"]})


# --- the member roll ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "seen"), [(SERVING, "no connection"), ("default", 404)], ids=["the gateways'", "the application's"]
)
def test_a_namespace_that_is_no_member_is_not_seen(site: Site, namespace: str, seen: int | str) -> None:
    members = site.sandbox.get(MEMBER_ROLLS, MESH, "default")["spec"]["members"]
    others = [member for member in members if member != namespace]
    site.sandbox.patch(MEMBER_ROLLS, MESH, "default", {"spec": {"members": others}})
    try:
        site.eventually(lambda: str(seen) in str(site.answers()))
        assert f"{namespace} is not in status.configuredMembers" in site.told()
    finally:
        site.sandbox.patch(MEMBER_ROLLS, MESH, "default", {"spec": {"members": members}})


# --- what stands behind and beside -------------------------------------------------------------------------------


def test_an_application_without_pods_is_a_503(site: Site) -> None:
    api, path = site.sandbox.api, "/api/v1/namespaces/default/resourcequotas"
    hard = {"hard": {"pods": "0"}}
    api.request("POST", path, {"metadata": {"name": "none"}, "spec": hard})
    full = {"status": {**hard, "used": {"pods": "0"}}}  # what a controller would count
    api.request("PATCH", f"{path}/none/status", full, content_type="application/merge-patch+json")
    try:
        for pod in api.request("GET", PODS.path("default"))["items"]:
            api.delete(PODS, "default", pod["metadata"]["name"], now=True)
        site.eventually(lambda: site.answers() == 503)
        assert "The application answers over HTTPS: status 503" in site.told()
        assert "the gateway finds no healthy Pod" in site.told()
    finally:
        api.request("DELETE", f"{path}/none")


@needs_istiod
def test_without_its_service_the_gateway_does_not_listen_where_it_should(istio: Site) -> None:
    with operators_stuck(istio.sandbox):
        istio.sandbox.api.delete(SERVICES, MESH, "istio-ingressgateway")
        istio.eventually(lambda: not istio.listens(8443))
        assert "no connection to" in istio.told()
    istio.eventually(lambda: istio.listens(8443))


@needs_istiod
def test_a_gateway_that_may_not_read_secrets_has_no_certificate_after_a_restart(istio: Site) -> None:
    with operators_stuck(istio.sandbox):
        istio.sandbox.api.delete(ROLE_BINDINGS, MESH, "istio-ingressgateway-sds")
        istio.restart("istiod")  # which remembers for a minute who may read Secrets, and who may not
        istio.restart("envoy")
        istio.eventually(lambda: "reset" in istio.serves(), 60)
        assert "may read Secrets there" in istio.told()
    istio.restart("istiod")


@needs_istiod
def test_the_gateway_serves_on_without_istiod_and_follows_it_when_it_is_back(istio: Site) -> None:
    before = istio.sandbox.state.processes()["istiod"]
    process = before.alive()
    assert process is not None
    process.suspend()  # killed, it would be there again before anybody has asked
    assert 200 == istio.answers()
    process.kill()
    istio.eventually(lambda: istio.sandbox.state.processes()["istiod"] != before)
    members = istio.sandbox.get(MEMBER_ROLLS, MESH, "default")["spec"]["members"]
    for wanted, status in (([SERVING], 404), (members, 200)):
        istio.sandbox.patch(MEMBER_ROLLS, MESH, "default", {"spec": {"members": wanted}})
        istio.eventually(lambda status=status: istio.answers() == status, 30)


@needs_istiod
def test_a_run_goes_on_when_istiod_and_envoy_are_killed_in_the_middle_of_it(istio: Site) -> None:
    site = istio
    site.sandbox.api.delete(KNATIVE_SERVICES, "default", "hello")
    ended = [site.sandbox.state.processes()[name] for name in ("istiod", "envoy")]

    killed = list[int]()

    def kill() -> None:
        site.eventually(lambda: site.sandbox.api.request("GET", KNATIVE_SERVICES.path("default"))["items"], 60)
        for process in ended:
            process.alive().kill()  # type: ignore[union-attr]
            killed.append(process.pid)

    killer = threading.Thread(target=kill)  # as soon as the run has written; it waits and proves after that
    killer.start()
    outcome = site.sandbox.play("6.4.3")
    killer.join()
    assert len(ended) == len(killed)
    if outcome["outcome"] != "done and proven":
        assert outcome["reason"]
        outcome = site.sandbox.play("6.4.3")
    assert outcome["outcome"] in ("done and proven", "no changes"), outcome["reason"]


# --- rotation and clients ----------------------------------------------------------------------------------------

GO_CLIENT = """
package main

import ("context"; "crypto/tls"; "crypto/x509"; "fmt"; "io"; "net"; "net/http"; "os")

func main() {
	roots := x509.NewCertPool()
	if os.Args[2] != "" { pem, _ := os.ReadFile(os.Args[2]); roots.AppendCertsFromPEM(pem) }
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, os.Args[1])
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	answer, err := client.Get("https://" + os.Args[3] + "/")
	if err != nil { fmt.Println(err); os.Exit(1) }
	body, _ := io.ReadAll(answer.Body)
	fmt.Print(string(body))
}
"""


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HTTPS client of Go, which takes a certificate by its SAN and by nothing else."""
    folder = tmp_path_factory.mktemp("go")
    source, client = folder / "client.go", folder / "client"
    source.write_text(GO_CLIENT)
    code, said = said_by("go", "build", "-o", client, source, timeout_s=500)  # the first time with Go's own library
    assert code == 0, said
    return client


def said_by(*command: str | Path, timeout_s: float = 60) -> tuple[int, str]:
    """How a client of the machine ends, and what it says."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on this machine")
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def test_curl_takes_the_line_that_the_notebook_prints(site: Site) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        cells = site.sandbox.play_until("prove-knative-service", "6.4.3", "verify")
    (way,) = (
        one["way"] for one in cells["prove-knative-service"]["checks"] if one["title"].endswith("answers over HTTPS")
    )
    assert f"--connect-to {HOST}:443:{site.address}:8443" in way
    command = way.split()
    assert (0, "Hello Openshift!\n") == said_by(command[0], "-sS", *command[1:])
    anchor = command.index("--cacert")
    code, said = said_by(command[0], "-sS", *command[1:anchor], *command[anchor + 2 :])
    assert (60, True) == (code, "SSL certificate problem" in said)


def test_openssl_accepts_the_site_with_the_root_and_refuses_it_without(site: Site, tmp_path: Path) -> None:
    nothing = tmp_path / "none.pem"
    nothing.touch()
    strictly = ("-verify_return_error", "-verify_hostname", HOST, "-servername", HOST, "-brief")
    connect = ("openssl", "s_client", "-connect", f"{site.address}:8443", *strictly)
    trusting = (*connect, "-CAfile", site.sandbox.state.certificates / "root.crt", "-no-CApath", "-no-CAstore")
    code, said = said_by(*trusting)
    assert (0, True) == (code, "Verification: OK" in said), said
    code, said = said_by(*connect, "-no-CAfile", "-no-CApath", "-no-CAstore")
    assert code != 0
    assert "verify error" in said or "verification error" in said.lower()


def test_a_go_client_accepts_the_site_with_the_root_and_refuses_it_without(site: Site, go_client: Path) -> None:
    address, root = f"{site.address}:8443", site.sandbox.state.certificates / "root.crt"
    assert (0, "Hello Openshift!\n") == said_by(str(go_client), address, root, HOST)
    code, said = said_by(str(go_client), address, "", HOST)
    assert (1, True) == (code, "certificate signed by unknown authority" in said)


def test_no_request_fails_while_the_certificate_is_renewed(site: Site) -> None:
    statuses, done = list[int | str](), threading.Event()

    def ask() -> None:
        while not done.wait(0.06):
            statuses.append(site.answers())

    clients = [threading.Thread(target=ask) for _ in range(4)]  # about 50 requests a second
    before = site.serves()
    for client in clients:
        client.start()
    site.eventually(lambda: len(statuses) > 50)
    cells = site.sandbox.play_until("", "6.4.2", "apply", renew_before_days=100)
    site.eventually(lambda: site.serves() != before)
    enough = len(statuses) + 50
    site.eventually(lambda: len(statuses) > enough)
    done.set()
    for client in clients:
        client.join()
    site.secret = site.sandbox.get(SECRETS, MESH, SECRET)
    outcome, proof = cells["outcome"], cells["prove-secret"]["checks"][-1]
    assert "done and proven" == outcome["outcome"], outcome["reason"]
    assert re.search(r" is served, \d+\.\d s after the last write$", proof["observed"]), proof
    assert {200} == set(statuses), f"of {len(statuses)} requests"
