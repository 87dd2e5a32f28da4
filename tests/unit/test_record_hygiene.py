"""Secrets that are found in every dress, and look-alikes that are left alone."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from runbooks import certificates
from runbooks.certificates import Pair, Rules
from runbooks.record import envelope, hygiene
from runbooks.record.hygiene import Hit, Value
from runbooks.record.keys import PrivateKey

NAME = "Secret istio-system/wildcard-certs tls.key"
PASSWORD = Value("Secret shop/database password", b'correct horse "battery" staple+')


def notebook(text: str, place: str = "stdout") -> bytes:
    """A notebook with a text in one place."""
    cell: dict[str, Any] = {"cell_type": "code", "id": "prove-gateway", "source": "", "metadata": {}, "outputs": []}
    metadata: dict[str, Any] = {}
    if place == "source":
        cell["source"] = text
    elif place == "stdout":
        half = len(text) // 2
        cell["outputs"] = [
            {"output_type": "stream", "name": "stdout", "text": part} for part in (text[:half], text[half:])
        ]
    elif place == "html":
        cell["outputs"] = [{"output_type": "display_data", "data": {"text/html": text.splitlines(keepends=True)}}]
    elif place == "structured":
        cell["outputs"] = [{"output_type": "execute_result", "data": {"application/json": {"a": [{"b": text}]}}}]
    elif place == "traceback":
        cell["outputs"] = [
            {"output_type": "error", "ename": "E", "evalue": "", "traceback": [f"\x1b[31m{text}\x1b[0m"]}
        ]
    elif place == "cell metadata":
        cell["metadata"] = {"note": text}
    else:
        metadata = {"widgets": {"state": {"x": {"value": text}}}}
    return json.dumps({"cells": [cell], "metadata": metadata}).encode()


PLACES = ["source", "stdout", "html", "structured", "traceback", "cell metadata", "widget state"]


def pem_keys() -> dict[str, bytes]:
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    rsa = serialization.load_pem_private_key(certificates.new_key(), None)
    curve = ec.generate_private_key(ec.SECP256R1())
    pkcs8, old = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL
    return {
        "rsa": rsa.private_bytes(pem, pkcs8, none),
        "rsa pkcs1": rsa.private_bytes(pem, old, none),
        "ec": curve.private_bytes(pem, pkcs8, none),
        "ec sec1": curve.private_bytes(pem, old, none),
        "ed25519": ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, none),
    }


KEYS = pem_keys()


def der(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


def body(pem: bytes) -> str:
    return b"".join(pem.splitlines()[1:-1]).decode()


KEY_FORMS: dict[str, Callable[[bytes], str]] = {
    "as it is": bytes.decode,
    "base64, as in a Secret": lambda pem: base64.b64encode(pem).decode(),
    "base64, wrapped": lambda pem: textwrap.fill(base64.b64encode(pem).decode(), 60),
    "base64 of base64": lambda pem: base64.b64encode(base64.b64encode(pem)).decode(),
    "gzip in base64": lambda pem: base64.b64encode(gzip.compress(pem)).decode(),
    "body without header": body,
    "body without header and first line": lambda pem: body(pem)[64:] if len(body(pem)) > 400 else body(pem),
    "DER in hex": lambda pem: der(pem).hex(),
    "DER in capital hex": lambda pem: der(pem).hex().upper(),
    "JSON-escaped": lambda pem: json.dumps({"tls.key": pem.decode()}),
    "JSON in JSON": lambda pem: json.dumps(json.dumps({"tls.key": pem.decode()})),
    "HTML": lambda pem: pem.decode().replace("\n", "<br>\n"),
}


@pytest.mark.parametrize("form", KEY_FORMS)
@pytest.mark.parametrize("kind", KEYS)
def test_a_key_that_was_handled_is_found_in_every_dress(kind: str, form: str) -> None:
    found = hygiene.scan_notebook(notebook(KEY_FORMS[form](KEYS[kind])), [Value(NAME, KEYS[kind])])
    assert ("prove-gateway", NAME) in {(hit.cell, hit.secret) for hit in found}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [PASSWORD, Value(NAME, KEYS["rsa"])], ids=["password", "key"])
def test_it_is_found_in_every_place(place: str, value: Value) -> None:
    found = hygiene.scan_notebook(notebook(f"said: {value.content.decode()}!", place), [value])
    assert value.name in {hit.secret for hit in found}
    assert {"(notebook metadata)" if place == "widget state" else "prove-gateway"} == {hit.cell for hit in found}


@pytest.mark.parametrize("shift", range(3))
def test_a_password_is_found_in_base64_wherever_it_stands(shift: int) -> None:
    text = base64.b64encode(b"x" * shift + b"user:" + PASSWORD.content + b"@host").decode()
    found = hygiene.scan(f"Authorization: Basic {text}".encode(), [PASSWORD])
    assert Hit("(file)", PASSWORD.name, "base64") in found


def test_json_lines_and_what_is_no_notebook_are_looked_at_too() -> None:
    line = json.dumps({"new": PASSWORD.content.decode()}).encode()
    assert [PASSWORD.name] == [hit.secret for hit in hygiene.scan(line, [PASSWORD], "journal.jsonl")]
    assert [PASSWORD.name] == [hit.secret for hit in hygiene.scan_notebook(b'{"cells": [' + line, [PASSWORD])]


def test_a_hit_shows_nothing_of_the_secret() -> None:
    hits = hygiene.scan_notebook(notebook(KEYS["rsa"].decode()), [Value(NAME, KEYS["rsa"])])
    text = json.dumps([hit.as_dict() for hit in hits])
    assert not any(piece in text for piece in (body(KEYS["rsa"])[start : start + 8] for start in range(0, 1600, 8)))
    assert hashlib.sha256(KEYS["rsa"]).hexdigest() not in text


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
UNKNOWN = {
    "PEM": KEYS["rsa"].decode(),
    "encrypted PEM": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE",
    "Secret": f"tls.key: {base64.b64encode(KEYS['ec']).decode()}",
    "DER": base64.b64encode(der(KEYS["ec sec1"])).decode(),
    "bearer": "Authorization: Bearer abcdefghijklmnopqrstuvwx",
    "OpenShift": "oc login --token=sha256~4F9sJ2kL0aQwErTyUiOpAsDfGhJkLzXcVbNm1234567",
    "JWT": f"token is {JWT}",
    "kubeconfig token": "users:\n- user:\n    token: abcdefghij0123456789",
    "kubeconfig key": f'"client-key-data": "{base64.b64encode(KEYS["ed25519"]).decode()}"',
    "pull secret": '{"auths": {"quay.io": {"auth": "dXNlcjpwYXNzd29yZA=="}}}',
    "URL": "https://admin:hunter22@registry.example.com/v2",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_looks_like_a_secret_is_found(kind: str, place: str) -> None:
    assert hygiene.scan_notebook(notebook(UNKNOWN[kind], place))


def test_what_only_looks_like_a_secret_is_left_alone(root: Pair, leaf: Pair, rules: Rules) -> None:
    signer = PrivateKey(ed25519.Ed25519PrivateKey.generate())
    request = certificates.create_request(rules, leaf.key)
    key = serialization.load_pem_private_key(leaf.key, None)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = envelope.sign(json.dumps({"digest": hashlib.sha256(b"x").hexdigest()}).encode(), signer)
    harmless = {
        "certificate": leaf.chain.decode(),
        "bundle": (root.chain + leaf.chain).decode(),
        "certificate in a Secret": f"tls.crt: {base64.b64encode(leaf.chain).decode()}",
        "certificate in hex": der(root.chain).hex(),
        "request": request.decode(),
        "public key": public.decode(),
        "digests": f"sha256:{hashlib.sha256(b'y').hexdigest()} plan-sha256:{hashlib.sha256(b'z').hexdigest()}",
        "envelope": signed.decode(),
        "envelope of a certificate": envelope.sign(leaf.chain, signer).decode(),
        "picture": base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8).decode(),
        "uuid": "audit_id: 50389e64-ecc1-4d0f-8ce4-67c6dc675e89",
        "words": "The bearer of this notebook holds no token: see the Secret's keys tls.crt and tls.key (1704 bytes)",
        "URL": "https://127.0.0.1:6443/api/v1/namespaces/istio-system/secrets",
    }
    handled = [Value(NAME, leaf.key), Value("root", root.key), PASSWORD]
    for name, text in harmless.items():
        for place in PLACES:
            assert [] == hygiene.scan_notebook(notebook(text, place), handled), name


def test_short_values_and_what_is_public_are_no_secrets(leaf: Pair) -> None:
    values = [Value("short", b"abc"), Value("certificate", leaf.chain), Value("empty", b"")]
    assert [] == hygiene.scan(b"abcdef " + leaf.chain, values)


def test_the_project_s_own_notebooks_hold_none() -> None:
    for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"):
        assert [] == hygiene.scan_notebook(path.read_bytes()), path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nothing in it", "nothing in it"),
        ("it was correct-horse before", "it was ‹the token› before"),
        ("in base64: Y29ycmVjdC1ob3JzZQ==", "‹not shown: it holds the token›"),
        ("-----BEGIN PRIVATE KEY-----", "‹not shown: it holds a private key›"),
    ],
)
def test_a_text_is_shown_without_secrets(text: str, shown: str) -> None:
    assert shown == hygiene.shown(text, [Value("the token", b"correct-horse\n")])


LINES = b"user=admin\npassword=correct-horse\n-----BEGIN CERTIFICATE-----\nabcd\n-----END CERTIFICATE-----\n"


def test_a_line_of_a_value_is_found_and_a_certificate_in_it_is_not() -> None:
    value = Value("the Secret", LINES)
    assert [("the Secret", "raw")] == [
        (hit.secret, hit.form) for hit in hygiene.scan(b"password=correct-horse", [value])
    ]
    assert [] == hygiene.scan(b"-----BEGIN CERTIFICATE-----\nabcd\n-----END CERTIFICATE-----", [value])
    assert "‹not shown: it holds the Secret›" == hygiene.shown("password=correct-horse", [value])


def test_of_two_values_that_begin_alike_the_longer_one_is_replaced() -> None:
    values = [Value("A", b"abcdef"), Value("B", b"abcdef-ghijkl")]
    assert "‹B› and ‹A›" == hygiene.shown("abcdef-ghijkl and abcdef", values)
