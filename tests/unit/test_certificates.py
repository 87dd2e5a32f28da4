"""Certificates: parsed again with `cryptography`, verified with TLS handshakes and, where there is one, `openssl`."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from runbooks import certificates
from runbooks.certificates import (
    LEAF_CRT,
    LEAF_CSR,
    LEAF_KEY,
    ROOT_CRT,
    ROOT_KEY,
    Decision,
    Description,
    Pair,
    Rules,
    Work,
)
from runbooks.errors import CertificateError

WILDCARD = "*.apps.openshift.example.com"
HOST = "hello-default.apps.openshift.example.com"
DAY = dt.timedelta(days=1)

MakeRoot = Callable[..., Pair]
MakeLeaf = Callable[..., Pair]

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on PATH to check against")


def openssl(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, timeout=20)
    assert 0 == done.returncode, done.stderr
    return done.stdout


def written(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        folder.joinpath(name.replace("_", ".")).write_bytes(content)
    return folder


def parsed(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def extensions(certificate: x509.Certificate) -> dict[str, tuple[bool, x509.ExtensionType]]:
    return {type(found.value).__name__: (found.critical, found.value) for found in certificate.extensions}


def key_usage(*granted: str) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in granted for name in names.split()})


def pem_of(key: PrivateKeyTypes, password: bytes = b"", form: str = "PKCS8") -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), encryption)


def handshake(server: Pair, anchors: bytes, host: str, *, strict: bool, folder: Path) -> str:
    """The name under which a client of Python's own making accepts the server; whoever refuses, raises."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.load_verify_locations(cadata=anchors.decode())
    if strict:
        client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder.joinpath("server.pem").write_bytes(server.key + server.chain)
    server_context.load_cert_chain(folder / "server.pem")
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client_context.wrap_bio(one, two, server_hostname=host),
        server_context.wrap_bio(two, one, server_side=True),
    ]
    for side in sides * 3:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    shown = sides[0].getpeercert()
    assert shown is not None
    return str(shown["subjectAltName"][0][1])


# --- making ------------------------------------------------------------------------------------------------------


def test_a_root_is_a_self_signed_authority_with_the_documented_subject(
    root: Pair, key: Callable[[str], bytes], now: dt.datetime
) -> None:
    certificate = parsed(root.chain)
    identifier = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    assert {
        "BasicConstraints": (True, x509.BasicConstraints(ca=True, path_length=None)),
        "KeyUsage": (True, key_usage("key_cert_sign", "crl_sign")),
        "SubjectKeyIdentifier": (False, identifier),
        "AuthorityKeyIdentifier": (False, x509.AuthorityKeyIdentifier(identifier.digest, None, None)),
    } == extensions(certificate)
    assert "CN=example.com,O=Example Inc." == certificate.subject.rfc4514_string({NameOID.COMMON_NAME: "CN"})
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert now + 365 * DAY == certificate.not_valid_after_utc
    assert now - DAY < certificate.not_valid_before_utc < now
    certificate.verify_directly_issued_by(certificate)


def test_a_leaf_is_a_server_certificate_for_the_wildcard_in_its_alternative_name(
    root: Pair, leaf: Pair, now: dt.datetime
) -> None:
    certificate, issuer = parsed(leaf.chain), parsed(root.chain)
    issuer_identifier = x509.SubjectKeyIdentifier.from_public_key(issuer.public_key())
    assert {
        "BasicConstraints": (True, x509.BasicConstraints(ca=False, path_length=None)),
        "KeyUsage": (True, key_usage("digital_signature", "key_encipherment")),
        "ExtendedKeyUsage": (False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])),
        "SubjectAlternativeName": (False, x509.SubjectAlternativeName([x509.DNSName(WILDCARD)])),
        "SubjectKeyIdentifier": (False, x509.SubjectKeyIdentifier.from_public_key(certificate.public_key())),
        "AuthorityKeyIdentifier": (False, x509.AuthorityKeyIdentifier(issuer_identifier.digest, None, None)),
    } == extensions(certificate)
    assert f"O=Example Inc.,CN={WILDCARD}" == certificate.subject.rfc4514_string()
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert certificate.not_valid_before_utc < now
    certificate.verify_directly_issued_by(issuer)


def test_serial_numbers_are_random_and_fit_rfc_5280(root: Pair, make_leaf: MakeLeaf) -> None:
    serials = {parsed(make_leaf(root).chain).serial_number for _ in range(3)}
    assert 3 == len(serials)
    assert all(0 < serial < 1 << 159 for serial in serials)


def test_a_new_key_is_an_rsa_key_of_2048_bits_in_clear() -> None:
    pem = certificates.new_key()
    key = serialization.load_pem_private_key(pem, password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert (b"-----BEGIN PRIVATE KEY-----", 2048) == (pem.splitlines()[0], key.key_size)


@pytest.mark.parametrize("strict", [False, True])
def test_clients_accept_the_leaf_with_its_root(root: Pair, leaf: Pair, tmp_path: Path, strict: bool) -> None:
    assert WILDCARD == handshake(leaf, root.chain, HOST, strict=strict, folder=tmp_path)


def test_a_client_with_two_roots_accepts_the_leaf(root: Pair, other_root: Pair, leaf: Pair, tmp_path: Path) -> None:
    assert WILDCARD == handshake(leaf, other_root.chain + root.chain, HOST, strict=True, folder=tmp_path)


def test_a_client_with_another_root_refuses_the_leaf(other_root: Pair, leaf: Pair, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(leaf, other_root.chain, HOST, strict=True, folder=tmp_path)


def test_elliptic_curve_keys_of_root_and_leaf_are_used(now: dt.datetime, rules: Rules, tmp_path: Path) -> None:
    root_key, leaf_key = (
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(ec.generate_private_key(ec.SECP256R1())),
    )
    root = Pair(certificates.create_root(rules, root_key, now), root_key)
    request = certificates.create_request(rules, leaf_key)
    leaf = Pair(certificates.sign_request(rules, request, root, now), leaf_key)
    assert WILDCARD == handshake(leaf, root.chain, HOST, strict=True, folder=tmp_path)


@pytest.mark.parametrize(
    ("long", "subjects"),
    [
        (Rules("*." + "a" * 62 + ".example.com"), ("/O=Example Inc./CN=example.com", "/O=Example Inc.")),
        (Rules(WILDCARD, root_common_name="r" * 65), ("/O=Example Inc.", f"/CN={WILDCARD}/O=Example Inc.")),
    ],
    ids=["wildcard", "root"],
)
def test_a_name_too_long_for_the_common_name_is_left_out_of_it(
    long: Rules, subjects: tuple[str, str], make_root: MakeRoot, make_leaf: MakeLeaf, tmp_path: Path
) -> None:
    root = make_root(rules=long)
    leaf = make_leaf(root, rules=long)
    assert subjects == tuple(certificates.describe(parsed(pair.chain)).subject for pair in (root, leaf))
    host = long.wildcard.replace("*", "hello")
    assert long.wildcard == handshake(leaf, root.chain, host, strict=True, folder=tmp_path)


EC_KEY = pem_of(ec.generate_private_key(ec.SECP256R1()))


@given(st.integers(1, 800), st.integers(1, 3650), st.floats(0, 1, exclude_max=True))
def test_a_leaf_never_outlives_its_root(root_valid_days: int, valid_days: int, elapsed: float) -> None:
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    rules = Rules(WILDCARD, root_valid_days=root_valid_days, valid_days=valid_days)
    root = Pair(certificates.create_root(rules, EC_KEY, start), EC_KEY)
    later = start + int(root_valid_days * 86400 * elapsed) * dt.timedelta(seconds=1)
    leaf = parsed(certificates.sign_request(rules, certificates.create_request(rules, EC_KEY), root, later))
    end = start + root_valid_days * DAY
    assert min(end, later + valid_days * DAY) == leaf.not_valid_after_utc
    assert parsed(root.chain).not_valid_before_utc <= leaf.not_valid_before_utc < later


def test_a_request_asks_for_the_wildcard_in_both_names(rules: Rules, key: Callable[[str], bytes]) -> None:
    csr = x509.load_pem_x509_csr(certificates.create_request(rules, key("leaf")))
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert csr.is_signature_valid
    assert f"/CN={WILDCARD}/O=Example Inc." == certificates.shown_name(csr.subject)
    assert [WILDCARD] == names.get_values_for_type(x509.DNSName)


def test_signing_grants_nothing_that_a_request_asks_for_besides(root: Pair, leaf: Pair, now: dt.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "*.bank.example")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("*.bank.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    signed = parsed(
        certificates.sign_request(Rules(WILDCARD), greedy.public_bytes(serialization.Encoding.PEM), root, now)
    )
    ours = parsed(leaf.chain)
    assert key.public_key() == signed.public_key()
    assert ours.subject == signed.subject
    assert {**extensions(ours), "SubjectKeyIdentifier": None} == {**extensions(signed), "SubjectKeyIdentifier": None}


def test_a_root_without_key_identifier_can_sign(rules: Rules, now: dt.datetime, key: Callable[[str], bytes]) -> None:
    private_key = serialization.load_pem_private_key(key("root"), None)
    bare = self_signed(private_key, now, [(x509.BasicConstraints(ca=True, path_length=None), True)])
    request = certificates.create_request(rules, key("leaf"))
    leaf = parsed(certificates.sign_request(rules, request, Pair(bare, key("root")), now))
    leaf.verify_directly_issued_by(parsed(bare))
    identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert x509.AuthorityKeyIdentifier.from_issuer_public_key(private_key.public_key()) == identifier


def self_signed(
    key: PrivateKeyTypes, now: dt.datetime, added: list[tuple[x509.ExtensionType, bool]], name: str = "bare"
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - DAY)
        .not_valid_after(now + 300 * DAY)
    )
    for extension, critical in added:
        builder = builder.add_extension(extension, critical)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


# --- with openssl as a second opinion ----------------------------------------------------------------------------


@needs_openssl
def test_openssl_verifies_the_leaf_strictly(root: Pair, leaf: Pair, tmp_path: Path) -> None:
    folder = written(tmp_path, root_crt=root.chain, wildcard_crt=leaf.chain)
    options = ["-x509_strict", "-purpose", "sslserver", "-verify_hostname", HOST, "-CAfile", ROOT_CRT]
    assert "wildcard.crt: OK\n" == openssl("verify", *options, LEAF_CRT, folder=folder)


@needs_openssl
def test_openssl_shows_the_fingerprint_that_we_show(leaf: Pair, tmp_path: Path) -> None:
    folder = written(tmp_path, wildcard_crt=leaf.chain)
    shown = openssl("x509", "-in", LEAF_CRT, "-noout", "-fingerprint", "-sha256", folder=folder)
    assert shown.strip().partition("=")[2].replace(":", "").lower() == certificates.fingerprint(parsed(leaf.chain))


@needs_openssl
def test_openssl_verifies_the_request(rules: Rules, key: Callable[[str], bytes], tmp_path: Path) -> None:
    folder = written(tmp_path, wildcard_csr=certificates.create_request(rules, key("leaf")))
    shown = openssl("req", "-in", LEAF_CSR, "-verify", "-noout", "-text", folder=folder)
    assert f"DNS:{WILDCARD}" in shown


@pytest.fixture(scope="session")
def documented(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the documented commands leave behind, word for word."""
    folder = tmp_path_factory.mktemp("documented")
    subject = f"/CN={WILDCARD}/O=Example Inc."
    root = ["-subj", "/O=Example Inc./CN=example.com", "-keyout", ROOT_KEY, "-out", ROOT_CRT]
    openssl("req", "-x509", "-sha256", "-nodes", "-days", "365", "-newkey", "rsa:2048", *root, folder=folder)
    leaf = ["-subj", subject, "-keyout", LEAF_KEY, "-out", LEAF_CSR]
    openssl("req", "-nodes", "-newkey", "rsa:2048", *leaf, folder=folder)
    signed = ["-CA", ROOT_CRT, "-CAkey", ROOT_KEY, "-in", LEAF_CSR, "-out", LEAF_CRT]
    openssl("x509", "-req", "-days", "365", "-set_serial", "0", *signed, folder=folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@needs_openssl
@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_the_documented_certificate_is_renewed_from_the_documented_root(
    documented: dict[str, bytes], rules: Rules, make_leaf: MakeLeaf, tmp_path: Path
) -> None:
    served = Pair(documented[LEAF_CRT], documented[LEAF_KEY])
    reason = f"the subject alternative names (none) do not cover {WILDCARD}"
    reasons = (f"the Secret: {reason}", f"/f/{LEAF_CRT}: {reason}")
    now = dt.datetime.now(dt.UTC)
    assert Decision(Work.KEEP, Work.RENEW, None, reasons) == certificates.decide(documented, served, rules, now, "/f")
    root = Pair(documented[ROOT_CRT], documented[ROOT_KEY])
    # not strictly: that root says of itself that it is an authority, and not that it may sign
    assert WILDCARD == handshake(make_leaf(root, now=now), root.chain, HOST, strict=False, folder=tmp_path)


@needs_openssl
def test_the_documented_request_is_not_used_since_it_asks_for_no_alternative_name(
    documented: dict[str, bytes], rules: Rules
) -> None:
    problem = certificates.request_problem(documented[LEAF_CSR], documented[LEAF_KEY], rules, "wildcard.csr")
    assert "wildcard.csr asks for no subject alternative name" == problem


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_chain_is_read_in_its_order_and_around_comments(root: Pair, leaf: Pair) -> None:
    pem = b"subject=/CN=leaf\n" + leaf.chain + "# Főtanúsítvány\n".encode() + root.chain
    assert [parsed(leaf.chain), parsed(root.chain)] == certificates.load_chain(pem, "chain.crt")


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"garbage",
        b"\xff\xfe\x00",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        EC_KEY,
    ],
    ids=["empty", "text", "bytes", "cut off", "broken", "a key"],
)
def test_what_holds_no_certificate_is_refused_by_its_origin(pem: bytes) -> None:
    with pytest.raises(CertificateError, match=r"^reading the certificates in chain\.crt: .+"):
        certificates.load_chain(pem, "chain.crt")


RSA_KEY = rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
@pytest.mark.parametrize("key", [RSA_KEY, ec.generate_private_key(ec.SECP256R1())], ids=["RSA", "EC"])
def test_keys_that_the_gateway_can_use_are_read_in_both_forms(key: PrivateKeyTypes, form: str) -> None:
    read = certificates.load_key(pem_of(key, form=form), "wildcard.key")
    assert pem_of(key) == pem_of(read)


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (pem_of(RSA_KEY, b"secret"), "the key is encrypted"),
        (pem_of(RSA_KEY, b"secret", "TraditionalOpenSSL"), "the key is encrypted"),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), "Ed25519PrivateKey is not a key that the gateway can use"),
        (b"", ""),
        (b"garbage", ""),
        (b"\xff\xfe\x00", ""),
        (b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", ""),
        (self_signed(RSA_KEY, dt.datetime.now(dt.UTC), []), ""),
    ],
    ids=["encrypted", "encrypted, traditional", "Ed25519", "empty", "text", "bytes", "broken", "a certificate"],
)
def test_keys_that_the_gateway_cannot_use_are_refused_by_their_origin(pem: bytes, said: str) -> None:
    with pytest.raises(CertificateError) as caught:
        certificates.load_key(pem, "wildcard.key")
    assert "reading the private key in wildcard.key" == caught.value.attempted
    assert caught.value.said.startswith(said)
    assert "secret" not in str(caught.value)
    assert caught.value.remedy


def test_a_description_holds_what_a_certificate_says_of_itself(leaf: Pair, now: dt.datetime) -> None:
    certificate = parsed(leaf.chain)
    described = certificates.describe(certificate)
    assert (
        Description(
            subject=f"/CN={WILDCARD}/O=Example Inc.",
            issuer="/O=Example Inc./CN=example.com",
            dns_names=(WILDCARD,),
            not_before=now - dt.timedelta(minutes=5),
            not_after=now + 365 * DAY,
            serial_number=f"{certificate.serial_number:x}",
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            public_key="RSA 2048",
        )
        == described
    )
    # as_dict is what a record keeps: JSON, times in UTC
    assert {
        "subject": f"/CN={WILDCARD}/O=Example Inc.",
        "issuer": "/O=Example Inc./CN=example.com",
        "dns_names": [WILDCARD],
        "not_before": f"{now - dt.timedelta(minutes=5):%Y-%m-%dT%H:%M:%S}+00:00",
        "not_after": f"{now + 365 * DAY:%Y-%m-%dT%H:%M:%S}+00:00",
        "serial_number": described.serial_number,
        "fingerprint": described.fingerprint,
        "public_key": "RSA 2048",
    } == json.loads(json.dumps(described.as_dict()))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "EC secp256r1"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (ed448.Ed448PrivateKey.generate(), "Ed448PublicKey"),
    ],
    ids=["EC", "Ed25519", "another"],
)
def test_a_description_names_other_kinds_of_key(key: PrivateKeyTypes, said: str, now: dt.datetime) -> None:
    described = certificates.describe(parsed(self_signed(key, now, [])))
    assert (said, ()) == (described.public_key, described.dns_names)


# --- judging -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "host", "covered"),
    [
        (["*.apps.example.com"], "hello.apps.example.com", True),
        (["*.apps.example.com"], "HELLO.Apps.Example.com.", True),
        (["*.Apps.example.com"], "hello.apps.example.com", True),
        (["*.apps.example.com"], "*.apps.example.com", True),
        (["*.apps.example.com"], "a.b.apps.example.com", False),
        (["*.apps.example.com"], "apps.example.com", False),
        (["*.example.com"], "*.apps.example.com", False),
        (["hello.apps.example.com"], "*.apps.example.com", False),
        (["hello.apps.example.com"], "hello.apps.example.com", True),
        (["other.example.com", "*.apps.example.com"], "hello.apps.example.com", True),
        (["*.apps.example.com.evil.example"], "hello.apps.example.com", False),
        ([], "hello.apps.example.com", False),
    ],
)
def test_only_the_alternative_names_cover_a_host_and_a_wildcard_is_one_label(
    names: list[str], host: str, covered: bool, now: dt.datetime
) -> None:
    added = [(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)] if names else []
    # the common name would match, but clients no longer look at it
    certificate = parsed(self_signed(RSA_KEY, now, added, name="hello.apps.example.com"))
    assert certificates.covers(certificate, host) is covered


def test_a_key_matches_its_own_certificate_only(leaf: Pair, root: Pair) -> None:
    keys = [certificates.load_key(pair.key, "") for pair in (leaf, root)]
    assert [True, False] == [certificates.key_matches(parsed(leaf.chain), key) for key in keys]


def an_intermediate(root: Pair, start: dt.datetime, end: dt.datetime) -> Pair:
    """An authority between root and leaf, as organisations have them; always the same name and key."""
    issuer = parsed(root.chain)
    root_key = serialization.load_pem_private_key(root.key, None)
    assert isinstance(root_key, rsa.RSAPrivateKey)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key = serialization.load_pem_private_key(EC_KEY, None).public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "between")]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(8)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage("key_cert_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), EC_KEY)


@pytest.fixture(scope="session")
def chained(root: Pair, make_leaf: MakeLeaf, now: dt.datetime) -> Pair:
    """A leaf with the intermediate that signed it."""
    intermediate = an_intermediate(root, now - DAY, now + 300 * DAY)
    leaf = make_leaf(intermediate)
    return Pair(leaf.chain + intermediate.chain, leaf.key)


def test_a_chain_leads_to_its_anchor(root: Pair, leaf: Pair, chained: Pair, tmp_path: Path) -> None:
    anchor = parsed(root.chain)
    for chain in (leaf.chain, leaf.chain + root.chain, chained.chain, chained.chain + root.chain):
        assert "" == certificates.chain_problem(certificates.load_chain(chain, "c"), [anchor])
    first, second = certificates.load_chain(chained.chain, "c")
    assert "" == certificates.chain_problem([first], [second])  # an anchor need not be self-signed
    assert WILDCARD == handshake(chained, root.chain, HOST, strict=True, folder=tmp_path)


def test_a_chain_in_the_wrong_order_says_where(root: Pair, leaf: Pair) -> None:
    found = certificates.chain_problem([parsed(root.chain), parsed(leaf.chain)], [parsed(root.chain)])
    assert (
        "certificate 1 of the chain (/O=Example Inc./CN=example.com) was not issued by certificate 2 "
        f"(/CN={WILDCARD}/O=Example Inc.): the order must be leaf first, root last"
    ) == (found)


def test_a_chain_with_a_gap_says_where(root: Pair, chained: Pair) -> None:
    leaf = certificates.load_chain(chained.chain, "c")[0]
    assert (
        f"certificate 1 of the chain (/CN={WILDCARD}/O=Example Inc.) was not issued by certificate 2 "
        "(/O=Example Inc./CN=example.com): the order must be leaf first, root last"
    ) == (certificates.chain_problem([leaf, parsed(root.chain)], [parsed(root.chain)]))


def test_a_chain_to_somewhere_else_names_both_ends(leaf: Pair, other_root: Pair) -> None:
    chain = [parsed(leaf.chain)]
    said = "the chain ends with an issuer /O=Example Inc./CN=example.com that is not the trust anchor"
    assert f"{said} (/O=Other Inc./CN=other.example)" == certificates.chain_problem(chain, [parsed(other_root.chain)])
    assert f"{said} (none)" == certificates.chain_problem(chain, [])


def test_a_root_of_the_same_name_and_another_key_is_no_anchor(leaf: Pair, make_root: MakeRoot) -> None:
    twin = parsed(make_root("other root").chain)
    assert certificates.chain_problem([parsed(leaf.chain)], [twin]) != ""


def found_problems(pair: Pair, anchors: list[bytes] | None, now: dt.datetime, renew_before_days: int = 0) -> list[str]:
    certificates_ = None if anchors is None else [parsed(anchor) for anchor in anchors]
    return certificates.problems(
        pair, WILDCARD, certificates_, now, origin="the Secret", renew_before_days=renew_before_days
    )


def test_a_good_pair_has_no_problems(root: Pair, leaf: Pair, chained: Pair, now: dt.datetime) -> None:
    assert [] == found_problems(leaf, [root.chain], now, 30)
    assert [] == found_problems(chained, [root.chain], now, 30)
    # with the system's anchors only a handshake can tell
    assert [] == found_problems(leaf, None, now, 30)


def test_every_problem_of_a_pair_is_named(leaf: Pair, other_root: Pair, key: Callable[[str], bytes]) -> None:
    certificate = parsed(leaf.chain)
    pair, late = Pair(leaf.chain, key("another")), certificate.not_valid_after_utc
    found = certificates.problems(
        pair, "*.other.example.com", [parsed(other_root.chain)], late, origin="the Secret", renew_before_days=30
    )
    assert [
        "the private key does not belong to the certificate",
        f"the subject alternative names ({WILDCARD}) do not cover *.other.example.com",
        f"/CN={WILDCARD}/O=Example Inc. expired on {late}",
        (
            "the chain ends with an issuer /O=Example Inc./CN=example.com that is not the trust anchor "
            "(/O=Other Inc./CN=other.example)"
        ),
    ] == found


def test_a_certificate_of_the_future_is_a_problem(root: Pair, leaf: Pair, now: dt.datetime) -> None:
    start = parsed(leaf.chain).not_valid_before_utc
    assert [f"/CN={WILDCARD}/O=Example Inc. is not valid before {start}"] == found_problems(
        leaf, [root.chain], start - DAY
    )


def test_an_expired_certificate_anywhere_in_the_chain_is_a_problem(root: Pair, chained: Pair, now: dt.datetime) -> None:
    leaf = chained.chain.partition(b"-----END CERTIFICATE-----\n")
    outdated = an_intermediate(root, now - 2 * DAY, now - DAY)
    pair = Pair(leaf[0] + leaf[1] + outdated.chain, chained.key)
    assert [f"/CN=between expired on {now - DAY}"] == found_problems(pair, [root.chain], now)


@pytest.mark.parametrize(
    ("days_left", "renew_before_days", "found"),
    [
        (30, 30, []),
        (29.5, 30, ["it ends in 29 days, on {end:%Y-%m-%d}"]),
        (0.5, 30, ["it ends in 0 days, on {end:%Y-%m-%d}"]),
        (0.5, 0, []),
    ],
)
def test_a_certificate_near_its_end_is_a_problem_where_it_is_asked_for(
    root: Pair, leaf: Pair, days_left: float, renew_before_days: int, found: list[str]
) -> None:
    end = parsed(leaf.chain).not_valid_after_utc
    expected = [text.format(end=end) for text in found]
    assert expected == found_problems(leaf, [root.chain], end - days_left * DAY, renew_before_days)


def test_what_cannot_be_read_is_the_one_problem(leaf: Pair, root: Pair, now: dt.datetime) -> None:
    encrypted = Pair(leaf.chain, pem_of(RSA_KEY, b"secret"))
    remedy = "the gateway needs it in clear: openssl pkey -in FILE -out NEWFILE"
    assert [f"reading the private key in the Secret: the key is encrypted ({remedy})"] == found_problems(
        encrypted, [root.chain], now
    )
    (said,) = found_problems(Pair(b"garbage", leaf.key), [root.chain], now)
    assert said.startswith("reading the certificates in the Secret: ")


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP256K1()),
        # Envoy takes no other curve than P-256 up to 1.32, and the one in Service Mesh 2 is older
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["RSA 1024", "secp256k1", "P-384"],
)
def test_a_key_that_the_gateways_envoy_refuses_is_a_problem(key: PrivateKeyTypes, root: Pair, now: dt.datetime) -> None:
    rules = Rules(WILDCARD)
    request = certificates.create_request(rules, pem_of(key))
    pair = Pair(certificates.sign_request(rules, request, root, now), pem_of(key))
    assert found_problems(pair, [root.chain], now) != []


# --- deciding ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def folder(root: Pair, leaf: Pair, rules: Rules) -> dict[str, bytes]:
    request = certificates.create_request(rules, leaf.key)
    return {
        ROOT_KEY: root.key,
        ROOT_CRT: root.chain,
        LEAF_KEY: leaf.key,
        LEAF_CSR: request,
        LEAF_CRT: leaf.chain,
    }


def only(files: dict[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: files[name] for name in names}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), Decision(Work.CREATE, Work.CREATE, None, ("there is no root certificate yet",))),
        # interrupted after the first file
        ((ROOT_KEY,), Decision(Work.CREATE, Work.CREATE, None, ("there is no root certificate yet",))),
        ((ROOT_KEY, ROOT_CRT), Decision(Work.KEEP, Work.CREATE, None, ("there is no wildcard certificate yet",))),
        # interrupted before the leaf was signed
        (
            (ROOT_KEY, ROOT_CRT, LEAF_KEY),
            Decision(Work.KEEP, Work.CREATE, None, ("there is no wildcard certificate yet",)),
        ),
        (
            (ROOT_KEY, ROOT_CRT, LEAF_KEY, LEAF_CSR),
            Decision(Work.KEEP, Work.CREATE, None, ("there is no wildcard certificate yet",)),
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_missing_in_the_folder_is_created(
    names: tuple[str, ...], expected: Decision, folder: dict[str, bytes], rules: Rules, now: dt.datetime
) -> None:
    assert expected == certificates.decide(only(folder, *names), None, rules, now, "/f")


def test_a_certificate_that_never_reached_the_secret_is_served(
    folder: dict[str, bytes], leaf: Pair, rules: Rules, now: dt.datetime
) -> None:
    assert Decision(Work.KEEP, Work.KEEP, leaf, ()) == certificates.decide(folder, None, rules, now, "/f")


def test_a_good_secret_is_kept_where_the_folder_has_the_root_certificate_alone(
    folder: dict[str, bytes], leaf: Pair, rules: Rules, now: dt.datetime
) -> None:
    found = certificates.decide(only(folder, ROOT_CRT), leaf, rules, now, "/f")
    assert Decision(Work.KEEP, Work.KEEP, leaf, ()) == found


@pytest.mark.parametrize("ahead", ["folder", "Secret"])
def test_the_newer_of_folder_and_secret_is_served_after_an_interrupted_renewal(
    ahead: str, folder: dict[str, bytes], root: Pair, make_leaf: MakeLeaf, rules: Rules, now: dt.datetime
) -> None:
    old = make_leaf(root, "another", rules=Rules(WILDCARD, valid_days=60))
    new = make_leaf(root, rules=Rules(WILDCARD, valid_days=90))
    local, secret = (new, old) if ahead == "folder" else (old, new)
    files = {**folder, LEAF_CRT: local.chain, LEAF_KEY: local.key}
    stale = ahead == "Secret"
    assert Decision(Work.KEEP, Work.KEEP, new, (), stale) == certificates.decide(files, secret, rules, now, "/f")


def test_a_broken_leaf_in_the_folder_is_stale_where_the_secret_is_good(
    folder: dict[str, bytes], leaf: Pair, rules: Rules, now: dt.datetime
) -> None:
    found = certificates.decide({**folder, LEAF_CRT: b"garbage"}, leaf, rules, now, "/f")
    assert (Work.KEEP, leaf, True) == (found.leaf, found.served, found.stale)
    assert found.reasons[0].startswith("/f/wildcard.crt: reading the certificates in /f/wildcard.crt: ")


def test_an_expired_leaf_in_the_folder_is_stale_where_the_secret_is_good(
    folder: dict[str, bytes], root: Pair, leaf: Pair, make_leaf: MakeLeaf, rules: Rules, now: dt.datetime
) -> None:
    old = make_leaf(root, "another", rules=Rules(WILDCARD, valid_days=1))
    files = {**folder, LEAF_CRT: old.chain, LEAF_KEY: old.key}
    reason = f"/f/wildcard.crt: /CN={WILDCARD}/O=Example Inc. expired on {now + DAY}"
    expected = Decision(Work.KEEP, Work.KEEP, leaf, (reason,), stale=True)
    assert expected == certificates.decide(files, leaf, rules, now + 2 * DAY, "/f")


def test_the_same_certificate_in_other_words_is_not_stale(
    folder: dict[str, bytes], root: Pair, leaf: Pair, rules: Rules, now: dt.datetime
) -> None:
    secret = Pair(b"# with its root\n" + leaf.chain + root.chain, leaf.key)
    assert Decision(Work.KEEP, Work.KEEP, secret, ()) == certificates.decide(folder, secret, rules, now, "/f")


def test_a_certificate_near_its_end_is_renewed_from_the_same_root(
    folder: dict[str, bytes], root: Pair, make_leaf: MakeLeaf, rules: Rules, now: dt.datetime
) -> None:
    short = make_leaf(root, rules=Rules(WILDCARD, valid_days=20))
    files = {**folder, LEAF_CRT: short.chain, LEAF_KEY: short.key}
    ends = f"it ends in 20 days, on {now + 20 * DAY:%Y-%m-%d}"
    reasons = (f"the Secret: {ends}", f"/f/{LEAF_CRT}: {ends}")
    assert Decision(Work.KEEP, Work.RENEW, None, reasons) == certificates.decide(files, short, rules, now, "/f")


def test_a_certificate_for_another_domain_is_renewed(
    folder: dict[str, bytes], leaf: Pair, now: dt.datetime, rules: Rules
) -> None:
    moved = Rules("*.apps.new.example.com")
    reason = f"the subject alternative names ({WILDCARD}) do not cover *.apps.new.example.com"
    found = certificates.decide(folder, leaf, moved, now, "/f")
    reasons = (f"the Secret: {reason}", f"/f/{LEAF_CRT}: {reason}")
    assert Decision(Work.KEEP, Work.RENEW, None, reasons) == found


def test_a_secret_with_the_key_of_another_certificate_is_renewed(
    folder: dict[str, bytes], leaf: Pair, key: Callable[[str], bytes], rules: Rules, now: dt.datetime
) -> None:
    found = certificates.decide(only(folder, ROOT_CRT, ROOT_KEY), Pair(leaf.chain, key("another")), rules, now, "/f")
    reasons = ("the Secret: the private key does not belong to the certificate",)
    assert Decision(Work.KEEP, Work.RENEW, None, reasons) == found


def test_after_a_change_of_root_the_secret_is_renewed_and_the_reason_names_both_roots(
    folder: dict[str, bytes], other_root: Pair, make_leaf: MakeLeaf, rules: Rules, now: dt.datetime
) -> None:
    found = certificates.decide(only(folder, ROOT_CRT, ROOT_KEY), make_leaf(other_root), rules, now, "/f")
    reason = (
        "the Secret: the chain ends with an issuer /O=Other Inc./CN=other.example that is not the trust anchor "
        "(/O=Example Inc./CN=example.com)"
    )
    assert Decision(Work.KEEP, Work.RENEW, None, (reason,)) == found


def refusal(files: dict[str, bytes], secret: Pair | None, rules: Rules, now: dt.datetime) -> CertificateError:
    with pytest.raises(CertificateError) as caught:
        certificates.decide(files, secret, rules, now, "/f")
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(("days_left", "word"), [(29, "ends"), (0, "ended"), (-1, "ended")])
def test_a_root_near_its_end_is_never_used_and_never_replaced(
    days_left: int, word: str, folder: dict[str, bytes], leaf: Pair, rules: Rules, root: Pair
) -> None:
    end = parsed(root.chain).not_valid_after_utc
    refused = refusal(folder, leaf, rules, end - days_left * DAY)
    assert ("using the root /f/root.crt", f"it {word} on {end:%Y-%m-%d}") == (refused.attempted, refused.said)
    assert "give clients both roots" in refused.remedy


def test_a_root_is_used_up_to_the_day_before_it_counts_as_near_its_end(
    folder: dict[str, bytes], root: Pair, rules: Rules
) -> None:
    last_good = parsed(root.chain).not_valid_after_utc - 30 * DAY
    assert certificates.decide(only(folder, ROOT_CRT, ROOT_KEY), None, rules, last_good, "/f").leaf is Work.CREATE


def test_a_root_key_that_is_gone_is_asked_for_only_when_it_is_needed(
    folder: dict[str, bytes], rules: Rules, now: dt.datetime
) -> None:
    refused = refusal(only(folder, ROOT_CRT), None, rules, now)
    assert [
        "signing a certificate with /f/root.key: there is no such file",
        "What to do: bring the key of /O=Example Inc./CN=example.com back",
    ] == refused.lines()


def test_a_root_key_of_another_root_is_refused(
    folder: dict[str, bytes], other_root: Pair, rules: Rules, now: dt.datetime
) -> None:
    refused = refusal({**only(folder, ROOT_CRT), ROOT_KEY: other_root.key}, None, rules, now)
    assert "the key does not belong to root.crt" == refused.said


def test_a_garbled_root_is_refused(folder: dict[str, bytes], rules: Rules, now: dt.datetime) -> None:
    refused = refusal({**folder, ROOT_CRT: b"garbage"}, None, rules, now)
    assert "reading the certificates in /f/root.crt" == refused.attempted


def test_no_new_root_is_made_where_clients_trust_the_one_that_signed_the_secret(
    leaf: Pair, rules: Rules, now: dt.datetime
) -> None:
    refused = refusal({}, leaf, rules, now)
    assert "looking for /f/root.crt" == refused.attempted
    assert "the Secret holds a certificate issued by /O=Example Inc./CN=example.com" in refused.said
    # nor where an interrupted run, or another one, left a key
    assert refused.said == refusal({ROOT_KEY: leaf.key}, leaf, rules, now).said


def test_no_new_root_is_made_beside_certificates_of_an_unknown_one(
    folder: dict[str, bytes], rules: Rules, now: dt.datetime
) -> None:
    refused = refusal(only(folder, ROOT_KEY, LEAF_KEY, LEAF_CRT), None, rules, now)
    assert "it is not there, but the folder holds wildcard.crt, wildcard.key" == refused.said


# --- requests and hosts ------------------------------------------------------------------------------------------


def test_a_request_of_the_same_key_and_name_is_used_again(rules: Rules, key: Callable[[str], bytes]) -> None:
    request = certificates.create_request(rules, key("leaf"))
    assert "" == certificates.request_problem(request, key("leaf"), rules, "wildcard.csr")


def test_a_request_that_cannot_be_used_again_says_why(rules: Rules, key: Callable[[str], bytes]) -> None:
    request = certificates.create_request(rules, key("leaf"))
    other = Rules("*.apps.new.example.com")
    assert "a.csr was made with another key" == certificates.request_problem(request, key("root"), rules, "a.csr")
    assert "a.csr does not ask for *.apps.new.example.com" == (
        certificates.request_problem(request, key("leaf"), other, "a.csr")
    )
    assert certificates.request_problem(b"garbage", key("leaf"), rules, "a.csr").startswith("a.csr cannot be read: ")
