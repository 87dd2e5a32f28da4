"""Looking from outside: handshakes in memory, and real TLS and HTTP servers on this machine."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from runbooks import certificates, probes
from runbooks.certificates import Pair, Rules
from runbooks.probes import Answer, NotTrusted, ProbeFailed

WILDCARD = "*.apps.openshift.example.com"
HOST = "hello-default.apps.openshift.example.com"
DAY = dt.timedelta(days=1)

MakeLeaf = Callable[..., Pair]
Talk = Callable[[socket.socket], None]


def authority(name: str, key: bytes, now: dt.datetime, issuer: Pair | None = None, *, key_usage: bool = True) -> Pair:
    """A certificate authority, signed by itself or by another one."""
    private_key = serialization.load_pem_private_key(key, None)
    assert isinstance(private_key, rsa.RSAPrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, signer_key = subject, private_key
    signer_public = private_key.public_key()
    if issuer:
        above = certificates.load_chain(issuer.chain, name)[0]
        above_key = serialization.load_pem_private_key(issuer.key, None)
        assert isinstance(above_key, rsa.RSAPrivateKey)
        signer, signer_key, signer_public = above.subject, above_key, above_key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 300 * DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_public), critical=False)
    )
    if key_usage:
        usage = dict.fromkeys(
            ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False
        )
        ends = {"key_cert_sign": True, "crl_sign": True, "encipher_only": False, "decipher_only": False}
        builder = builder.add_extension(x509.KeyUsage(**usage, **ends), critical=True)
    signed = builder.sign(signer_key, hashes.SHA256())
    return Pair(signed.public_bytes(serialization.Encoding.PEM), key)


# --- in memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("host", [HOST, HOST.upper()])
def test_a_client_that_trusts_the_anchor_accepts(root: Pair, leaf: Pair, host: str, strict: bool) -> None:
    probes.handshake(leaf, host, root.chain, strict=strict)


def test_a_client_accepts_when_any_of_its_anchors_signed(root: Pair, other_root: Pair, leaf: Pair) -> None:
    probes.handshake(leaf, HOST, other_root.chain + root.chain, strict=True)


@pytest.mark.parametrize("host", ["a.b.apps.openshift.example.com", "apps.openshift.example.com", "192.0.2.1"])
def test_a_client_refuses_another_name(root: Pair, leaf: Pair, host: str) -> None:
    with pytest.raises(NotTrusted, match=r"^the certificate is not accepted: .*mismatch"):
        probes.handshake(leaf, host, root.chain)


def test_a_client_without_the_anchor_refuses(leaf: Pair, other_root: Pair) -> None:
    for anchors in (b"", other_root.chain, None):
        with pytest.raises(NotTrusted, match="unable to get local issuer certificate"):
            probes.handshake(leaf, HOST, anchors)


def test_a_client_refuses_what_is_out_of_its_time(
    make_root: Callable[..., Pair], make_leaf: MakeLeaf, now: dt.datetime
) -> None:
    root = make_root(now=now - 10 * DAY)
    expired = make_leaf(root, now=now - 3 * DAY, rules=Rules(WILDCARD, valid_days=2))
    early = make_leaf(root, now=now + 2 * DAY)
    with pytest.raises(NotTrusted, match="certificate has expired"):
        probes.handshake(expired, HOST, root.chain)
    with pytest.raises(NotTrusted, match="certificate is not yet valid"):
        probes.handshake(early, HOST, root.chain)


def test_only_a_strict_client_refuses_a_root_that_does_not_say_it_may_sign(
    make_leaf: MakeLeaf, key: Callable[[str], bytes], now: dt.datetime
) -> None:
    lax = authority("lax", key("root"), now, key_usage=False)
    leaf = make_leaf(lax)
    probes.handshake(leaf, HOST, lax.chain)
    with pytest.raises(NotTrusted, match="key usage"):
        probes.handshake(leaf, HOST, lax.chain, strict=True)


@pytest.fixture(scope="session")
def intermediate(root: Pair, key: Callable[[str], bytes], now: dt.datetime) -> Pair:
    return authority("between", key("other root"), now, root)


def test_a_chain_is_accepted_with_its_intermediate_and_refused_without(
    root: Pair, intermediate: Pair, make_leaf: MakeLeaf
) -> None:
    leaf = make_leaf(intermediate)
    probes.handshake(Pair(leaf.chain + intermediate.chain, leaf.key), HOST, root.chain, strict=True)
    with pytest.raises(NotTrusted):
        probes.handshake(leaf, HOST, root.chain)


def test_an_anchor_need_not_be_a_root(intermediate: Pair, make_leaf: MakeLeaf) -> None:
    # curl --cacert takes it, and so does the judgement of the chain
    leaf = make_leaf(intermediate)
    probes.handshake(Pair(leaf.chain + intermediate.chain, leaf.key), HOST, intermediate.chain)


@pytest.mark.parametrize("broken", ["key of another", "chain in the wrong order", "garbage", "no key", "nothing"])
def test_a_server_that_cannot_use_the_pair_is_no_matter_of_trust(
    broken: str, root: Pair, leaf: Pair, key: Callable[[str], bytes]
) -> None:
    pair = {
        "key of another": Pair(leaf.chain, key("another")),
        "chain in the wrong order": Pair(root.chain + leaf.chain, leaf.key),
        "garbage": Pair(b"garbage", b"garbage"),
        "no key": Pair(leaf.chain, b""),
        "nothing": Pair(b"", b""),
    }[broken]
    with pytest.raises(ProbeFailed, match=r"^a TLS server cannot use the pair: ") as caught:
        probes.handshake(pair, HOST, root.chain)
    assert not isinstance(caught.value, NotTrusted)


def test_a_key_that_no_client_takes_is_no_matter_of_trust(now: dt.datetime, rules: Rules) -> None:
    key = ec.generate_private_key(ec.SECP256K1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pair = Pair(certificates.create_root(rules, key, now), key)
    with pytest.raises(ProbeFailed, match=r"^the TLS handshake failed: ") as caught:
        probes.handshake(pair, HOST, pair.chain)
    assert not isinstance(caught.value, NotTrusted)


def test_an_encrypted_key_fails_and_asks_nobody_for_a_password(leaf: Pair, tmp_path: Path) -> None:
    encrypted = serialization.load_pem_private_key(leaf.key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    (tmp_path / "tls.key").write_bytes(encrypted)
    (tmp_path / "tls.crt").write_bytes(leaf.chain)
    script = f"""
from pathlib import Path
from runbooks import probes
from runbooks.certificates import Pair
pair = Pair(Path("tls.crt").read_bytes(), Path("tls.key").read_bytes())
try:
    probes.handshake(pair, {HOST!r}, pair.chain)
except probes.ProbeFailed as error:
    print(error)
"""
    # without a terminal OpenSSL asks on standard input, where nobody answers
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(probes.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        process.wait(timeout=8)
    except subprocess.TimeoutExpired:
        process.kill()
    said, _ = process.communicate()
    assert said.decode().startswith("a TLS server cannot use the pair: ")


@pytest.mark.parametrize("comment", ["# Főtanúsítvány\n", "# 証明機関\n"])
def test_anchors_may_have_comments_in_any_language(root: Pair, leaf: Pair, comment: str) -> None:
    probes.handshake(leaf, HOST, comment.encode() + root.chain)


def test_anchors_that_are_none_fail_the_probe(leaf: Pair) -> None:
    with pytest.raises(ProbeFailed):
        probes.handshake(leaf, HOST, b"garbage")


# --- over the network --------------------------------------------------------------------------------------------


def server_context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pair.key + pair.chain)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@contextlib.contextmanager
def serving(talk: Talk, pair: Pair | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """A server for one connection, with TLS where it has a pair; gives its address."""
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.settimeout(5)

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as connection:
            connection.settimeout(5)
            if pair is None:
                talk(connection)
            else:
                with server_context(pair).wrap_socket(connection, server_side=True) as secured:
                    talk(secured)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"[{host}]:{listener.getsockname()[1]}" if ":" in host else f"{host}:{listener.getsockname()[1]}"
    finally:
        thread.join(5)
        listener.close()


def read_request(connection: socket.socket) -> bytes:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        more = connection.recv(4096)
        if not more:
            break
        request += more
    return request


def answering(answer: bytes, requests: list[bytes] | None = None) -> Talk:
    def talk(connection: socket.socket) -> None:
        request = read_request(connection)
        if requests is not None:
            requests.append(request)
        connection.sendall(answer)

    return talk


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def shown_fingerprint(pair: Pair) -> str:
    return certificates.fingerprint(certificates.load_chain(pair.chain, "served")[0])


def test_an_answer_over_tls_comes_with_the_certificate_that_was_shown(root: Pair, leaf: Pair) -> None:
    requests: list[bytes] = []
    with serving(answering(http(b"Hello Openshift!\n"), requests), leaf) as address:
        found = probes.https_get(HOST, address, root.chain)
    assert Answer(200, "Hello Openshift!\n") == found
    lines = requests[0].decode().split("\r\n")
    assert "GET / HTTP/1.1" == lines[0]
    assert f"Host: {HOST}" in lines


def test_the_certificate_alone_can_be_asked_for(root: Pair, leaf: Pair) -> None:
    with serving(lambda _: None, leaf) as address:
        assert shown_fingerprint(leaf) == probes.served_fingerprint(HOST, address, root.chain)


def test_an_address_may_be_of_ip_version_6(root: Pair, leaf: Pair) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no ::1")
    with serving(answering(http(b"six")), leaf, "::1") as address:
        assert "six" == probes.https_get(HOST, address, root.chain).body


@pytest.mark.parametrize("probe", [probes.https_get, probes.served_fingerprint])
def test_a_certificate_that_is_not_accepted_is_told_from_a_server_that_is_away(
    probe: Callable[..., Any], root: Pair, other_root: Pair, leaf: Pair, make_leaf: MakeLeaf
) -> None:
    with serving(answering(http(b"")), leaf) as address, pytest.raises(NotTrusted, match="local issuer certificate"):
        probe(HOST, address, other_root.chain)
    with serving(answering(http(b"")), leaf) as address, pytest.raises(NotTrusted, match="mismatch"):
        probe("other.example.com", address, root.chain)


@pytest.mark.parametrize("probe", [probes.https_get, probes.served_fingerprint])
def test_where_nobody_listens_there_is_no_connection(probe: Callable[..., Any], root: Pair) -> None:
    # bound, so that nobody else takes the port, and not listening
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ProbeFailed, match=f"^no connection to {address}: Connection refused$"):
            probe(HOST, address, root.chain)


def test_a_name_that_does_not_resolve_is_no_connection(root: Pair) -> None:
    with pytest.raises(ProbeFailed, match=r"^no connection to nowhere\.invalid:443: "):
        probes.https_get(HOST, "nowhere.invalid:443", root.chain)


@pytest.mark.parametrize(
    "talk",
    [
        lambda connection: connection.recv(4096) and connection.sendall(http(b"no TLS here")),
        lambda connection: connection.recv(4096) and None,
        lambda _: None,
    ],
    ids=["speaks HTTP", "listens and closes", "closes"],
)
def test_what_is_no_tls_server_fails_the_handshake(talk: Talk, root: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(talk) as address:
        with pytest.raises(ProbeFailed, match=f"^the TLS handshake with {address} failed: ") as caught:
            probes.https_get(HOST, address, root.chain)
        assert not isinstance(caught.value, NotTrusted)


def test_a_server_that_never_answers_is_given_up(root: Pair, leaf: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "TIMEOUT_S", 0.1)
    over = threading.Event()
    with serving(lambda _: over.wait(5) and None) as address:
        with pytest.raises(ProbeFailed, match=f"^the TLS handshake with {address} failed: "):
            probes.https_get(HOST, address, root.chain)
        over.set()
    over.clear()
    with serving(lambda _: over.wait(5) and None, leaf) as address:
        with pytest.raises(ProbeFailed, match=f"^no HTTP answer for {HOST}: .*timed out"):
            probes.https_get(HOST, address, root.chain)
        over.set()


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n"])
def test_what_is_no_http_answer_fails_the_probe(answer: bytes, root: Pair, leaf: Pair) -> None:
    with (
        serving(answering(answer), leaf) as address,
        pytest.raises(ProbeFailed, match=f"^no HTTP answer for {HOST}: ."),
    ):
        probes.https_get(HOST, address, root.chain)


@pytest.mark.parametrize("status", ["302 Found", "404 Not Found", "503 Service Unavailable"])
def test_every_status_is_an_answer_and_no_redirect_is_followed(status: str) -> None:
    with serving(answering(http(b"upstream connect error", status))) as address:
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port))) as connection:
            found = probes.http_get("hello.default.svc.cluster.local", connection)
    assert Answer(int(status[:3]), "upstream connect error") == found


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("こんにちは".encode(), "こんにちは"),
        (b"\xff\xfe!", "\ufffd\ufffd!"),
        (b"x" * 100_000, "x" * 65_536),
    ],
    ids=["text", "bytes", "long"],
)
def test_a_body_is_read_as_text_and_only_its_start(body: bytes, expected: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=answering(http(body)), args=(theirs,))
        thread.start()
        assert Answer(200, expected) == probes.http_get("hello", ours)
        ours.close()
        thread.join(5)


def test_the_probe_names_the_host_that_it_wants_before_the_certificate_is_chosen(root: Pair, leaf: Pair) -> None:
    names: list[str | None] = []
    context = server_context(leaf)
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.sendall(b"")

    with serving(talk) as address:
        probes.served_fingerprint(HOST, address, root.chain)
    assert [HOST] == names


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on PATH to compare with")
def test_curl_sees_what_the_probe_sees(root: Pair, leaf: Pair, tmp_path: Path) -> None:
    (tmp_path / "root.crt").write_bytes(root.chain)
    with serving(answering(http(b"Hello Openshift!")), leaf) as address:
        connect = ["--noproxy", "*", "--cacert", "root.crt", "--connect-to", f"{HOST}:443:{address}"]
        done = subprocess.run(
            ["curl", "-sS", *connect, f"https://{HOST}/"], cwd=tmp_path, capture_output=True, text=True, timeout=10
        )
    assert (0, "Hello Openshift!", "") == (done.returncode, done.stdout, done.stderr)
    with serving(answering(http(b"Hello Openshift!")), leaf) as address:
        assert done.stdout == probes.https_get(HOST, address, root.chain).body
