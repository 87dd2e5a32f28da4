"""X.509 as section 6.4.2 needs it: a root, a wildcard leaf, a signing request, and a judgement of what exists.

Pure functions over bytes; the caller reads and writes files. Names are those of X.509. The profiles are spelled
out in full because clients differ in what they insist on: Go wants a subject alternative name, Python 3.13 and
later a key usage in the root, and all of them will sooner or later refuse the serial number 0 of the documented
``openssl x509 -set_serial 0``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runbooks.errors import CertificateError
from runbooks.verdicts import few

ROOT_KEY, ROOT_CRT = "root.key", "root.crt"
LEAF_KEY, LEAF_CSR, LEAF_CRT = "wildcard.key", "wildcard.csr", "wildcard.crt"

# what cryptography says of bytes that are no certificate, or one of a kind that it does not know
_UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)
_KEY_BITS = 2048  # the documented -newkey rsa:2048
_CLOCK_SKEW = dt.timedelta(minutes=5)  # a verifier whose clock is a little behind still accepts a new certificate
_LONGEST_COMMON_NAME = 64  # RFC 5280, ub-common-name


@dataclass(frozen=True)
class Rules:
    """What the parameters ask of the certificates.

    Args:
        wildcard: the DNS name to cover, for example ``*.apps.example.com``.
        organization: O of both subjects.
        root_common_name: CN of the root.
        root_valid_days: how long a new root is valid.
        valid_days: how long a new leaf is valid; never longer than its root.
        renew_before_days: how long before its end a leaf is renewed, and a root refused.
    """

    wildcard: str
    organization: str = "Example Inc."
    root_common_name: str = "example.com"
    root_valid_days: int = 365
    valid_days: int = 365
    renew_before_days: int = 30


@dataclass(frozen=True)
class Pair:
    """A certificate chain and the private key of its first certificate, both PEM."""

    chain: bytes
    key: bytes


@dataclass(frozen=True)
class Description:
    """What a person wants to know of a certificate, and nothing secret."""

    subject: str
    issuer: str
    dns_names: tuple[str, ...]
    not_before: dt.datetime
    not_after: dt.datetime
    serial_number: str
    fingerprint: str
    public_key: str

    def as_dict(self) -> dict[str, str | list[str]]:
        """The description for a record; times in UTC, ISO 8601."""
        return {
            "subject": self.subject,
            "issuer": self.issuer,
            "dns_names": list(self.dns_names),
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "serial_number": self.serial_number,
            "fingerprint": self.fingerprint,
            "public_key": self.public_key,
        }


# --- reading -----------------------------------------------------------------------------------------------------


def load_chain(pem: bytes, origin: str) -> list[x509.Certificate]:
    """The certificates of a PEM file, in their order.

    Args:
        pem: the bytes of the file.
        origin: where they come from, for the message.

    Raises:
        CertificateError: there is no certificate in it, or one cannot be read.
    """
    try:
        chain = x509.load_pem_x509_certificates(pem)
        for certificate in chain:
            _read_whole(certificate)
    except _UNREADABLE as error:
        raise CertificateError(
            f"reading the certificates in {origin}",
            str(error),
            "give a PEM file that holds -----BEGIN CERTIFICATE-----",
        ) from error
    return chain


def _read_whole(found: x509.Certificate | x509.CertificateSigningRequest) -> None:
    """Read now what cryptography would read, and refuse, only where it is asked for."""
    found.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if isinstance(found, x509.Certificate):
        describe(found)
    else:
        _ = (found.subject, found.extensions)


def load_key(pem: bytes, origin: str) -> PrivateKeyTypes:
    """The private key of a PEM file.

    Raises:
        CertificateError: it is encrypted, garbage, or of a kind that TLS servers do not use.
    """
    attempted = f"reading the private key in {origin}"
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise CertificateError(
            attempted, "the key is encrypted", "the gateway needs it in clear: openssl pkey -in FILE -out NEWFILE"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(attempted, str(error), "give one private key in PEM form") from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        # Envoy's TLS accepts RSA and ECDSA; others are stored by the API server and then refused by the gateway
        raise CertificateError(
            attempted, f"{type(key).__name__} is not a key that the gateway can use", "use an RSA or an EC key"
        )
    return key


def describe(certificate: x509.Certificate) -> Description:
    """The facts of a certificate that a plan, a notebook and a record show."""
    return Description(
        subject=shown_name(certificate.subject),
        issuer=shown_name(certificate.issuer),
        dns_names=tuple(_dns_names(certificate)),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        serial_number=f"{certificate.serial_number:x}",
        fingerprint=fingerprint(certificate),
        public_key=_public_key(certificate),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the certificate's DER bytes, as ``openssl x509 -fingerprint -sha256`` shows it, without colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def shown_name(name: x509.Name) -> str:
    """A distinguished name in the form that openssl takes, for example ``/O=Example Inc./CN=example.com``."""
    return "/".join(["", *(f"{part.rfc4514_attribute_name}={part.value!s}" for part in name)])


def _dns_names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.DNSName)


def _public_key(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return type(key).__name__


# --- making ------------------------------------------------------------------------------------------------------


def new_key() -> bytes:
    """A new RSA key of 2048 bits, PEM, not encrypted (the documented ``-nodes``)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(oid, value)
            for oid, value in parts
            # a longer name stands in the subject alternative name alone, where clients look for it anyway
            if oid != NameOID.COMMON_NAME or len(value) <= _LONGEST_COMMON_NAME
        ]
    )


def root_subject(rules: Rules) -> x509.Name:
    """The documented ``/O=Example Inc./CN=example.com``."""
    return _subject((NameOID.ORGANIZATION_NAME, rules.organization), (NameOID.COMMON_NAME, rules.root_common_name))


def leaf_subject(rules: Rules) -> x509.Name:
    """The documented ``/CN=*.apps.openshift.example.com/O=Example Inc.``."""
    return _subject((NameOID.COMMON_NAME, rules.wildcard), (NameOID.ORGANIZATION_NAME, rules.organization))


def _signing_key(pem: bytes, origin: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    key = load_key(pem, origin)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)  # load_key refuses all others
    return key


def _usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not key_cert_sign,
        content_commitment=False,
        key_encipherment=not key_cert_sign,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def create_root(rules: Rules, key: bytes, now: dt.datetime) -> bytes:
    """A self-signed root certificate, PEM (documented: ``openssl req -x509 -sha256 -nodes -days 365``).

    Args:
        rules: subject and validity.
        key: the root's private key, PEM.
        now: the time of issue, with a time zone.
    """
    private_key = _signing_key(key, ROOT_KEY)
    subject = root_subject(rules)
    identifier = x509.SubjectKeyIdentifier.from_public_key(private_key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=rules.root_valid_days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(private_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def create_request(rules: Rules, key: bytes) -> bytes:
    """A certificate signing request for the wildcard name, PEM (documented: ``openssl req -nodes -newkey``).

    It asks for the subject alternative name, which the documented command leaves out.
    """
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(leaf_subject(rules))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(rules.wildcard)]), critical=False)
        .sign(_signing_key(key, LEAF_KEY), hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM)


def sign_request(rules: Rules, request: bytes, root: Pair, now: dt.datetime) -> bytes:
    """The wildcard certificate, PEM (documented: ``openssl x509 -req -days 365 -CA root.crt``).

    The name comes from the rules and the public key from the request; whatever else a request asks for is not
    granted. The certificate never outlives its root.
    """
    issuer = load_chain(root.chain, ROOT_CRT)[0]
    root_key = _signing_key(root.key, ROOT_KEY)
    csr = x509.load_pem_x509_csr(request)
    public_key = csr.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(leaf_subject(rules))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - _CLOCK_SKEW, issuer.not_valid_before_utc))
        .not_valid_after(min(now + dt.timedelta(days=rules.valid_days), issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(rules.wildcard)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority(issuer), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def _authority(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


# --- judging -----------------------------------------------------------------------------------------------------


def covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether a client accepts the certificate for this host name or wildcard.

    Only the subject alternative name counts: clients other than curl no longer read the common name. A wildcard
    stands for exactly one label.
    """
    host = host.lower().rstrip(".")
    for pattern in (name.lower().rstrip(".") for name in _dns_names(certificate)):
        if pattern == host:
            return True
        if pattern.startswith("*.") and host.partition(".")[2] == pattern[2:] and not host.startswith("*."):
            return True
    return False


def states_key_usage(certificate: x509.Certificate) -> bool:
    """Whether a certificate says what its key may do; Python 3.13 and later refuse a root that does not."""
    try:
        certificate.extensions.get_extension_for_class(x509.KeyUsage)
    except x509.ExtensionNotFound:
        return False
    return True


def strict_faults(chain: Sequence[x509.Certificate], anchors: Iterable[x509.Certificate]) -> list[str]:
    """What clients that keep RFC 5280 to the letter, such as Python 3.13, refuse although others take it.

    The documented openssl commands leave all of this behind.

    Args:
        chain: the chain that is served, leaf first.
        anchors: what clients trust; only those that the chain leads to count.
    """
    leaf, found = chain[0], []
    if leaf.version is not x509.Version.v3:
        found.append("it is of X.509 version 1, which has no extensions")
    elif not _names_issuer_key(leaf):
        found.append("it names no key of its issuer (authority key identifier)")
    if leaf.serial_number <= 0:
        found.append(f"its serial number is {leaf.serial_number}, and must be positive")
    for anchor in anchors:
        if (chain[-1] == anchor or _issued_by(chain[-1], anchor)) and not states_key_usage(anchor):
            found.append(f"the root {shown_name(anchor.subject)} states no key usage")
    return found


def _names_issuer_key(certificate: x509.Certificate) -> bool:
    try:
        certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return False
    return True


def key_matches(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    """Whether the private key belongs to the certificate."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(encoding, form) == key.public_key().public_bytes(encoding, form)


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def chain_problem(chain: Sequence[x509.Certificate], anchors: Iterable[x509.Certificate]) -> str:
    """Why the chain does not lead to one of the trust anchors; empty where it does."""
    anchors = list(anchors)
    for position, (certificate, issuer) in enumerate(pairwise(chain), start=1):
        if not _issued_by(certificate, issuer):
            return (
                f"certificate {position} of the chain ({shown_name(certificate.subject)}) was not issued by "
                f"certificate {position + 1} ({shown_name(issuer.subject)}): the order must be leaf first, root last"
            )
    last = chain[-1]
    if any(last == anchor or _issued_by(last, anchor) for anchor in anchors):
        return ""
    known = ", ".join(shown_name(anchor.subject) for anchor in anchors) or "none"
    return f"the chain ends with an issuer {shown_name(last.issuer)} that is not the trust anchor ({known})"


def _unusable_key(leaf: x509.Certificate) -> str:
    """Why Envoy refuses the key: it takes RSA from 2048 bits on and, up to 1.32, P-256 alone of the curves."""
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _KEY_BITS:
        return f"its key has {key.key_size} bits, the gateway takes RSA from {_KEY_BITS} bits on"
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, ec.SECP256R1):
        return f"its key is on the curve {key.curve.name}, the gateway takes P-256 (secp256r1) only"
    return ""


def problems(
    pair: Pair,
    wildcard: str,
    anchors: Iterable[x509.Certificate] | None,
    now: dt.datetime,
    *,
    origin: str,
    key_origin: str = "",
    renew_before_days: int = 0,
) -> list[str]:
    """Everything that keeps a chain and its key from serving the wildcard name; empty where it is good.

    Args:
        pair: chain and key.
        wildcard: the name that must be covered.
        anchors: the trust anchors, or None where the system's own are to be used and only a handshake can tell.
        now: the time of the judgement, with a time zone.
        origin: where the pair comes from, for messages about unreadable bytes.
        key_origin: where the key comes from, if that is elsewhere.
        renew_before_days: how many days must be left.
    """
    try:
        chain, key = load_chain(pair.chain, origin), load_key(pair.key, key_origin or origin)
    except CertificateError as error:
        return [f"{error.attempted}: {error.said} ({error.remedy})"]
    leaf, found = chain[0], []
    if reason := _unusable_key(leaf):
        found.append(reason)
    if not key_matches(leaf, key):
        found.append("the private key does not belong to the certificate")
    if not covers(leaf, wildcard):
        names = few(_dns_names(leaf)) or "none"
        found.append(f"the subject alternative names ({names}) do not cover {wildcard}")
    for certificate in chain:
        if certificate.not_valid_before_utc > now:
            found.append(f"{shown_name(certificate.subject)} is not valid before {certificate.not_valid_before_utc}")
        if certificate.not_valid_after_utc <= now:
            found.append(f"{shown_name(certificate.subject)} expired on {certificate.not_valid_after_utc}")
    left = leaf.not_valid_after_utc - now
    if renew_before_days and dt.timedelta() < left < dt.timedelta(days=renew_before_days):
        found.append(f"it ends in {left.days} days, on {leaf.not_valid_after_utc:%Y-%m-%d}")
    if anchors is not None and (reason := chain_problem(chain, anchors)):
        found.append(reason)
    return found


# --- deciding ----------------------------------------------------------------------------------------------------


class Work(StrEnum):
    """What has to be done about one certificate."""

    KEEP = "keep"
    CREATE = "create"
    RENEW = "renew"


@dataclass(frozen=True)
class Decision:
    """What 6.4.2 has to do, decided from what exists.

    Args:
        root: keep or create.
        leaf: keep, create, or renew from the same root.
        served: the pair that the Secret should hold where the leaf is kept.
        reasons: in words, for the reader.
        stale: whether the leaf in the folder is not the one that is kept.
    """

    root: Work
    leaf: Work
    served: Pair | None
    reasons: tuple[str, ...]
    stale: bool = False


_ROLLOVER = (
    "a root cannot be renewed unseen, because every client holds a copy of it: make a new root in a new folder, "
    "give clients both roots (a file with both is a valid trust_anchor), then point certificates_dir at the new folder"
)


def decide(files: Mapping[str, bytes], secret: Pair | None, rules: Rules, now: dt.datetime, folder: str) -> Decision:
    """What to create, renew or keep, given the certificate folder and the Secret.

    Args:
        files: the content of the folder by file name; files that do not exist are absent.
        secret: what the cluster's Secret holds, or None where there is none.
        rules: what the parameters ask for.
        now: the time of the judgement, with a time zone.
        folder: the folder's path, for messages.

    Raises:
        CertificateError: to go on would break what works: the root is near its end, its key is gone while it is
            needed, or the Secret was signed by a root that is not here.
    """
    if ROOT_CRT not in files:
        return _decide_without_root(files, secret, folder)
    root = load_chain(files[ROOT_CRT], f"{folder}/{ROOT_CRT}")[0]
    left = root.not_valid_after_utc - now
    if left < dt.timedelta(days=rules.renew_before_days):
        said = f"it {'ends' if left > dt.timedelta() else 'ended'} on {root.not_valid_after_utc:%Y-%m-%d}"
        raise CertificateError(f"using the root {folder}/{ROOT_CRT}", said, _ROLLOVER)
    local = Pair(files[LEAF_CRT], files[LEAF_KEY]) if {LEAF_CRT, LEAF_KEY} <= files.keys() else None
    good, reasons = [], []
    for origin, pair in (("the Secret", secret), (f"{folder}/{LEAF_CRT}", local)):
        if pair is None:
            continue
        found = problems(pair, rules.wildcard, [root], now, origin=origin, renew_before_days=rules.renew_before_days)
        reasons += [f"{origin}: {reason}" for reason in found]
        if not found:
            good.append(pair)
    if good:
        # after an interrupted renewal the folder is ahead of the Secret
        newest = max(good, key=lambda pair: _leaf_of(pair).not_valid_after_utc)
        # the same certificate may be written down in other words, with comments or with its root
        stale = local is not None and not (local in good and _leaf_of(local) == _leaf_of(newest))
        return Decision(Work.KEEP, Work.KEEP, newest, tuple(reasons) if stale else (), stale)
    _require_root_key(files, root, folder)
    work = Work.RENEW if secret or local else Work.CREATE
    return Decision(Work.KEEP, work, None, tuple(reasons) or ("there is no wildcard certificate yet",))


def _leaf_of(pair: Pair) -> x509.Certificate:
    return load_chain(pair.chain, "the certificate")[0]


def _decide_without_root(files: Mapping[str, bytes], secret: Pair | None, folder: str) -> Decision:
    if secret is not None:
        issuer = shown_name(load_chain(secret.chain, "the Secret")[0].issuer)
        raise CertificateError(
            f"looking for {folder}/{ROOT_CRT}",
            f"it is not there, but the Secret holds a certificate issued by {issuer}; a new root would lock out "
            "every client that trusts the old one",
            "point certificates_dir at the folder that holds the root, or set certificate_source to secret",
        )
    # an interrupted run leaves a root key and nothing else; it is used
    present = sorted(files.keys() - {ROOT_KEY})
    if present:
        raise CertificateError(
            f"looking for {folder}/{ROOT_CRT}",
            f"it is not there, but the folder holds {', '.join(present)}",
            "point certificates_dir at the folder that holds the root, or at an empty one to make a new root",
        )
    return Decision(Work.CREATE, Work.CREATE, None, ("there is no root certificate yet",))


def _require_root_key(files: Mapping[str, bytes], root: x509.Certificate, folder: str) -> None:
    attempted = f"signing a certificate with {folder}/{ROOT_KEY}"
    if ROOT_KEY not in files:
        raise CertificateError(attempted, "there is no such file", f"bring the key of {shown_name(root.subject)} back")
    if not key_matches(root, load_key(files[ROOT_KEY], f"{folder}/{ROOT_KEY}")):
        raise CertificateError(attempted, f"the key does not belong to {ROOT_CRT}", "bring the matching pair back")


def request_problem(request: bytes, key: bytes, rules: Rules, origin: str) -> str:
    """Why a signing request on disk cannot be used as it is; empty where it can."""
    try:
        csr = x509.load_pem_x509_csr(request)
        _read_whole(csr)
    except _UNREADABLE as error:
        return f"{origin} cannot be read: {error}"
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    public_key = load_key(key, LEAF_KEY).public_key()
    if csr.public_key().public_bytes(encoding, form) != public_key.public_bytes(encoding, form):
        return f"{origin} was made with another key"
    try:
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return f"{origin} asks for no subject alternative name"
    if rules.wildcard not in names.get_values_for_type(x509.DNSName):
        return f"{origin} does not ask for {rules.wildcard}"
    return ""
