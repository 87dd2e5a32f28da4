"""Kubeconfigs and servers that are not what they should be: each ends in words, in time, and with nothing changed.

The servers are small stand-ins on the loopback interface, at ports that the system chooses; what the real one answers
is asked in ``test_refusals.py``.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ipaddress
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from runbooks import cluster
from runbooks.errors import ConnectionFailed, RunbookError, ServerRefused
from runbooks.kinds import CONFIG_MAP, SECRET
from runbooks.parameters import IntegrateServiceMesh, check
from runbooks.rights import Right
from runbooks.target import identify

TOKEN = "sha256~a-token-that-nobody-may-read"
SLOW_S = 0.4  # in place of the minutes that a real call is given
pytestmark = pytest.mark.timeout(30)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cluster, "_TIMEOUT_S", (SLOW_S, SLOW_S))
    monkeypatch.setattr(cluster, "_ANSWER_S", SLOW_S)
    monkeypatch.setattr(cluster, "_LOGIN_S", SLOW_S)


# --- stand-ins ---------------------------------------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def standing_in(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers every request alike."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.close_connection = True
            with contextlib.suppress(OSError):  # whoever asked has gone
                answer(self)

        do_POST = do_PATCH = do_GET  # noqa: N815 http.server finds them by name

        def log_message(self, *_: object) -> None:
            """Nothing: a test is told by what comes of it."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """A client that refuses our certificate goes away in the middle."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        server.shutdown()


def says(body: bytes | object, status: int = 200, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        # it closes after each answer, and a client that is not told sends its next request into the closed line
        said = {"Content-Length": str(len(content)), "Connection": "close", **headers}
        for name, value in said.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def hangs(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(5 * SLOW_S)


def trickles(handler: BaseHTTPRequestHandler) -> None:
    """Never silent for as long as a client waits for the next word, and never at an end."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(SLOW_S / 8)


def breaks_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"gitVersion": "v1.')


def speaks_no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def redirects(handler: BaseHTTPRequestHandler) -> None:
    says(b"", 302, Location="/login")(handler)


def kubeconfig(tmp_path: Path, server: object, user: object = None, **more: object) -> str:
    path = tmp_path / "kubeconfig"
    content = {
        "clusters": [{"name": "c", "cluster": {"server": server, **more}}],
        "users": [{"name": "u", "user": {"token": TOKEN} if user is None else user}],
        "contexts": [{"name": "prod-a", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def greet(path: str, **more: Any) -> dict[str, Any]:
    """What the first cell that asks a cluster does."""
    parameters = check(IntegrateServiceMesh, {"context": "prod-a", "kubeconfig": path, **more})
    return identify(cluster.connect(path, "prod-a"), parameters)


def refused(path: str) -> str:
    with pytest.raises((ConnectionFailed, ServerRefused)) as caught:
        greet(path)
    said = str(caught.value)
    assert 1 == caught.value.exit_code
    assert caught.value.remedy
    assert TOKEN not in said
    assert len(said) < 2000
    return said


# --- servers -----------------------------------------------------------------------------------------------------

SERVERS: dict[str, tuple[Answer, str]] = {
    "HTML": (says(b"<html><body>Welcome to nginx"), "did not answer in JSON but with '<html><body>Welcome"),
    "HTML that clears the screen": (says(b"\x1b[2J<html>"), r"\x1b[2J<html>"),
    "HTML for a missing page": (says(b"<html>Not Found", 404), "did not answer in JSON"),
    "HTML of a proxy that wants a login": (says(b"<html>Login", 401), "did not answer in JSON"),
    "a redirection without end": (redirects, "too many redirects"),
    "an overload without end": (says({"message": "busy"}, 503), "busy"),
    "a list": (says([]), "answered list"),
    "a number": (says(b"42"), "answered int"),
    "an empty object": (says({}), "answered in JSON, but without gitVersion"),
    "JSON of something else": (says({"status": "ok"}), "answered in JSON, but without gitVersion"),
    "JSON without end": (says(b"[" * 100_000), "did not answer in JSON"),
    "not UTF-8": (says(b'{"gitVersion": "\xff"}'), "did not answer in JSON"),
    "half an answer": (breaks_off, "IncompleteRead"),
    "no answer": (lambda _: None, "Connection aborted"),
    "another protocol": (speaks_no_http, "BadStatusLine"),
    "silence": (hangs, "Read timed out"),
    "an answer that trickles": (trickles, "the answer had not ended after 0.4 seconds"),
}


@pytest.mark.parametrize("case", SERVERS)
def test_what_is_no_api_server_is_said_in_time(case: str, tmp_path: Path) -> None:
    answer, words = SERVERS[case]
    with standing_in(answer) as server:
        began = time.monotonic()
        said = refused(kubeconfig(tmp_path, server))
    assert time.monotonic() - began < 6
    assert f"connecting to {server}" in said
    assert words in said


def test_a_server_that_takes_no_connection_is_said_in_time(tmp_path: Path) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with contextlib.ExitStack() as waiting:
            for _ in range(3):  # a full queue: further connections are neither taken nor refused
                one = waiting.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            said = refused(kubeconfig(tmp_path, f"http://127.0.0.1:{full.getsockname()[1]}"))
    assert "timed out" in said


STATUS = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "not found"}


def test_a_server_of_a_newer_version_is_taken_and_its_version_told(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        said = {"gitVersion": "v2.1.0", "emulationMajor": "2", "new": {}} if handler.path == "/version" else STATUS
        says(said, 200 if handler.path == "/version" else 404)(handler)

    with standing_in(answer) as server:
        found = greet(kubeconfig(tmp_path, server))
    assert ("v2.1.0", "unknown", "") == (found["kubernetes"], found["user"], found["cluster_id"])


WRONG_ANSWERS: dict[str, tuple[Callable[[cluster.Connection], object], str]] = {
    "who we are": (lambda connection: connection.whoami(), "status.userInfo.username"),
    "what we may": (lambda connection: connection.may(Right("", "pods", "get")), "status.allowed"),
    "a list": (lambda connection: list(connection.objects(CONFIG_MAP)), "with no list"),
    "a list of secrets": (lambda connection: list(connection.objects(SECRET)), "with no list"),
    "names of a list": (lambda connection: connection.count(SECRET), "with no list"),
    "an object": (lambda connection: connection.get(SECRET, "a", "b"), "without metadata.name"),
}


@pytest.mark.parametrize("body", [{"status": "ok"}, {"items": 5}, {"items": [5]}, {"metadata": 5, "items": None}, {}])
@pytest.mark.parametrize("case", WRONG_ANSWERS)
def test_json_that_is_none_of_kubernetes_is_never_taken_for_an_answer(case: str, body: object, tmp_path: Path) -> None:
    ask, missing = WRONG_ANSWERS[case]
    with standing_in(says(body)) as server, pytest.raises(RunbookError) as caught:
        ask(cluster.connect(kubeconfig(tmp_path, server), "prod-a"))
    assert missing in str(caught.value)
    assert "is this the address of an API server?" in str(caught.value)


# --- TLS ---------------------------------------------------------------------------------------------------------


def server_certificate(tmp_path: Path, name: str, *, ends: dt.timedelta = dt.timedelta(days=1)) -> ssl.SSLContext:
    """A TLS server with a certificate that it signed itself, which lies in ``server.pem``."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(name))] if name[0].isdigit() else []
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now + ends)
        .add_extension(x509.SubjectAlternativeName(names or [x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "server.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


CHECKED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an unknown authority": ({"name": "127.0.0.1"}, {}, "certificate-authority does not belong"),
    "another host": ({"name": "192.0.2.1"}, {"certificate-authority": "server.pem"}, "look at the certificate"),
    "expired": (
        {"name": "127.0.0.1", "ends": dt.timedelta(hours=-1)},
        {"certificate-authority": "server.pem"},
        "this machine's clock",
    ),
    "an authority that is garbage": (
        {"name": "127.0.0.1"},
        {"certificate-authority-data": base64.b64encode(b"garbage").decode()},
        "connecting to https://",
    ),
}


@pytest.mark.parametrize("case", CHECKED)
def test_a_server_that_shows_a_wrong_certificate_is_not_talked_to(case: str, tmp_path: Path) -> None:
    certificate, more, words = CHECKED[case]
    heard: list[str] = []
    with standing_in(lambda handler: heard.append(handler.path), server_certificate(tmp_path, **certificate)) as server:
        said = refused(kubeconfig(tmp_path, server, **more))
    assert words in said
    assert [] == heard


def test_a_server_without_tls_where_tls_is_expected_is_not_talked_to(tmp_path: Path) -> None:
    with standing_in(says({})) as server:
        assert "connecting to https" in refused(kubeconfig(tmp_path, server.replace("http", "https")))


# --- kubeconfigs -------------------------------------------------------------------------------------------------

AWAY = "https://127.0.0.1:1"
CLUSTERS: dict[str, tuple[object, dict[str, Any], str]] = {
    "no server": (None, {}, "server"),
    "an empty server": ("", {}, "and not an https:// address"),
    "a number": (6443, {}, "it is not as a kubeconfig should be"),
    "words": ("the cluster of the shop", {}, "and not an https:// address"),
    "another scheme": ("ftp://127.0.0.1:1", {}, "and not an https:// address"),
    "half an address": ("https://[::1", {}, "it is not as a kubeconfig should be"),
    "a port that cannot be": ("https://127.0.0.1:99999", {}, "127.0.0.1:99999"),
    "a server that breaks the line": ("https://127.0.0.1:1\r\nX: y", {}, ""),
    "a proxy that is away": (AWAY, {"proxy-url": "http://127.0.0.1:1"}, "Unable to connect to proxy"),
    "a proxy without a scheme": (AWAY, {"proxy-url": "://x"}, "Proxy URL had no scheme"),
    "a proxy in words": (AWAY, {"proxy-url": "not a proxy"}, "not a proxy"),
    "a proxy that is a number": (AWAY, {"proxy-url": 5}, "it is not as a kubeconfig should be"),
    "a proxy of a kind that is not installed": (AWAY, {"proxy-url": "socks5://127.0.0.1:1"}, "socks"),
    "an authority that is not there": (AWAY, {"certificate-authority": "/no/ca.crt"}, "/no/ca.crt"),
    "an authority that is no base64": (AWAY, {"certificate-authority-data": "%"}, ""),
    "a switch in quotes": (AWAY, {"insecure-skip-tls-verify": "no"}, "any text would switch the check"),
}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.DependencyWarning")  # of the proxy's kind
@pytest.mark.parametrize("case", CLUSTERS)
def test_an_entry_of_a_cluster_that_leads_nowhere(case: str, tmp_path: Path) -> None:
    server, more, words = CLUSTERS[case]
    assert words in refused(kubeconfig(tmp_path, server, **more))


USERS: dict[str, tuple[dict[str, Any], str]] = {
    "a token that breaks the line": ({"token": TOKEN + "\nX: y"}, "its token holds characters that no token has"),
    "a token in Japanese": ({"token": TOKEN + "証明書"}, "its token holds characters that no token has"),
    "a token file that is not there": ({"tokenFile": "/no/token", "password": TOKEN}, ""),
    "a client key that is not there": ({"client-certificate": "/no/crt", "client-key": "/no/key"}, "/no/"),
    "a provider that is gone": ({"auth-provider": {"name": "gcp"}, "password": TOKEN}, ""),
    "a provider without a token": ({"auth-provider": {"name": "oidc", "config": {"client-secret": TOKEN}}}, "{…}"),
    "a provider that is a number": ({"auth-provider": 5, "password": TOKEN}, "it is not as a kubeconfig should be"),
}


@pytest.mark.parametrize("case", USERS)
def test_an_entry_of_a_user_that_cannot_be_used_is_not_quoted(case: str, tmp_path: Path) -> None:
    user, words = USERS[case]
    assert words in refused(kubeconfig(tmp_path, AWAY, user))


@pytest.mark.parametrize("wrong", [5, "x", [5], [None], [{}], [{"name": "c"}], [{"name": None, "token": TOKEN}]])
@pytest.mark.parametrize("part", ["clusters", "users", "contexts"])
def test_a_kubeconfig_of_another_shape(part: str, wrong: object, tmp_path: Path) -> None:
    path = Path(kubeconfig(tmp_path, AWAY))
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {part: wrong}))
    assert refused(str(path))
    with pytest.raises(ConnectionFailed):
        cluster.contexts(str(path))


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 1024 * 1024)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (Path.mkdir, "it is not a file"),
    "a pipe": (_pipe, "it is not a plain file"),
    "100 MB": (_huge, "104,857,600 bytes"),
    "brackets without end": (lambda path: path.write_text("a: " + "[" * 5000), "it is not as a kubeconfig should be"),
    "not UTF-8": (lambda path: path.write_bytes("users: 証明書".encode("euc-jp")), "codec can't decode"),
    "a list": (lambda path: path.write_text("- 1"), "it is not as a kubeconfig should be"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_kubeconfig_that_cannot_be_read(case: str, tmp_path: Path) -> None:
    make, words = FILES[case]
    path = tmp_path / "kubeconfig"
    make(path)
    said = refused(str(path))
    assert words in said
    assert str(path) in said


V1 = "client.authentication.k8s.io/v1"
CREDENTIAL = {"apiVersion": V1, "kind": "ExecCredential"}
PROGRAMS: dict[str, tuple[str, str]] = {
    "hangs": ("sleep 20", "/bin/sh did not end in 0.4 seconds"),
    "leaves a child that holds the line": ("sleep 20 & exit 0", "did not end in 0.4 seconds"),
    "asks a question": ("read answer; exit 7", "ended with 7"),
    "fails and clears the screen": (r"printf '\033[2Jno' >&2; exit 3", r"ended with 3. \x1b[2Jno"),
    "fails with a page": ("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 3", "ended with 3. xxx"),
    "is killed": ("kill -9 $$", "ended with -9"),
    "says nothing": ("true", "printed no ExecCredential"),
    "says a token": (f"echo {TOKEN}", "printed no ExecCredential"),
    "says bytes": ("head -c 100 /dev/urandom", "printed no ExecCredential"),
    "says a list": ("echo []", "printed no ExecCredential"),
    "says no status": (f"echo '{json.dumps({**CREDENTIAL, 'status': None})}'", "printed no ExecCredential"),
    "is of another version": (f"echo '{json.dumps({'apiVersion': 'v2', 'status': {}})}'", "printed no ExecCredential"),
    "says half": (
        f"echo '{json.dumps({**CREDENTIAL, 'status': {'clientCertificateData': TOKEN}})}'",
        "missing clientKeyData",
    ),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_login_program_that_gives_no_login(case: str, tmp_path: Path) -> None:
    script, words = PROGRAMS[case]
    program = {"apiVersion": V1, "command": "/bin/sh", "args": ["-c", script], "interactiveMode": "Never"}
    began = time.monotonic()
    assert words in refused(kubeconfig(tmp_path, AWAY, {"exec": program}))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("command", ["/no/such/program", "/etc/passwd", "/tmp", 5])
def test_a_login_program_that_is_none(command: object, tmp_path: Path) -> None:
    said = refused(kubeconfig(tmp_path, AWAY, {"exec": {"apiVersion": V1, "command": command}}))
    assert str(command) in said or "not int" in said


def test_a_login_program_that_gives_a_login_is_used(tmp_path: Path) -> None:
    heard: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        heard.append(handler.headers["Authorization"])
        says({"gitVersion": "v1.30.0"} if handler.path == "/version" else STATUS)(handler)

    script = f"echo '{json.dumps({**CREDENTIAL, 'status': {'token': TOKEN}})}'"
    program = {"apiVersion": V1, "command": "/bin/sh", "args": ["-c", script]}
    with standing_in(answer) as server:
        connection = cluster.connect(kubeconfig(tmp_path, server, {"exec": program}), "prod-a")
        assert "v1.30.0" == connection.version()
    assert [f"Bearer {TOKEN}"] == heard


def test_a_way_to_a_pod_that_nobody_opens_is_given_up(tmp_path: Path) -> None:
    with standing_in(hangs) as server:
        connection = cluster.connect(kubeconfig(tmp_path, server), "prod-a")
        with pytest.raises(ConnectionFailed, match="there was no answer in 1 seconds"):
            connection.port_forward("istio-system", "gateway", 8443)
