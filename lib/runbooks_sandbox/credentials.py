"""Keys, certificates and tokens of one sandbox: its own authority, made once, never used anywhere else."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import secrets
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ENGINEER = "platform-engineer"
STAND_INS = "sandbox-stand-ins"
_VALID = dt.timedelta(days=3650)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: str, issuer: str, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _keep(path: Path, content: bytes | str) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def make(folder: Path) -> None:
    """Make authority, serving certificate, ServiceAccount key and tokens, unless all are there and can be read."""
    if _sound(folder):
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = (
        _builder("sandbox authority", "sandbox authority", authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    serving = (
        _builder("sandbox", "sandbox authority", key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    _keep(folder / "ca.crt", authority.public_bytes(encoding))
    _keep(folder / "serving.crt", serving.public_bytes(encoding))
    _keep(folder / "serving.key", _pem(key))
    _keep(folder / "service-account.key", _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
    rows = [
        f"{secrets.token_urlsafe(24)},{ENGINEER},{ENGINEER},",
        f'{secrets.token_urlsafe(24)},{STAND_INS},{STAND_INS},"system:masters"',
    ]
    _keep(folder / "tokens.csv", "\n".join(rows) + "\n")


def _sound(folder: Path) -> bool:
    """Whether everything is there as we made it; a kill, a full disk or a hand may have cut it short."""
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        authority, serving = (
            x509.load_pem_x509_certificate((folder / name).read_bytes()) for name in ("ca.crt", "serving.crt")
        )
        serving.verify_directly_issued_by(authority)
        key, account_key = (
            serialization.load_pem_private_key((folder / name).read_bytes(), None)
            for name in ("serving.key", "service-account.key")
        )
        known = {token(folder, user) for user in (ENGINEER, STAND_INS)}
    except (FileNotFoundError, ValueError, TypeError, KeyError, InvalidSignature):
        return False
    fits = key.public_key().public_bytes(encoding, form) == serving.public_key().public_bytes(encoding, form)
    return fits and isinstance(account_key, rsa.RSAPrivateKey) and all(map(len, known))


def token(folder: Path, user: str) -> str:
    """The token of a user.

    Raises:
        KeyError: there is no such user.
    """
    rows = [line.split(",") for line in (folder / "tokens.csv").read_text().splitlines()]
    return {row[1]: row[0] for row in rows if len(row) > 1}[user]


def write_kubeconfig(path: Path, folder: Path, server: str) -> None:
    """A kubeconfig with one context, ``sandbox``, for the platform engineer."""
    authority = base64.b64encode((folder / "ca.crt").read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "clusters": [{"name": "sandbox", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": ENGINEER, "user": {"token": token(folder, ENGINEER)}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": ENGINEER, "namespace": "default"}}],
    }
    temporary = path.with_name(f".{path.name}")
    _keep(temporary, yaml.safe_dump(content, sort_keys=False))
    temporary.replace(path)
