"""Envelopes: three different answers, and the same ones as another implementation gives."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as Theirs
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from runbooks.errors import NotChecked, NotTrusted, WrongSignature
from runbooks.record import envelope
from runbooks.record.keys import PrivateKey, PublicKey

PAYLOAD = '{"更新": 1}'.encode()


@pytest.fixture(scope="module")
def signer() -> PrivateKey:
    return PrivateKey(Ed25519PrivateKey.generate())


@pytest.fixture(scope="module")
def stranger() -> PrivateKey:
    return PrivateKey(Ed25519PrivateKey.generate())


def changed(text: bytes, **fields: Any) -> envelope.Envelope:
    return envelope.parse(json.dumps({**json.loads(text), **fields}).encode(), "a")


def test_what_was_signed_comes_back_byte_for_byte(signer: PrivateKey) -> None:
    read = envelope.parse(envelope.sign(PAYLOAD, signer), "a")
    assert PAYLOAD == read.payload
    assert signer.public is envelope.verify(read, [signer.public], "a")


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    # the example of https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    wanted = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert wanted == envelope.pre_authentication("http://example.com/HelloWorld", b"hello world")


def test_a_changed_payload_or_type_is_a_wrong_signature(signer: PrivateKey) -> None:
    text = envelope.sign(PAYLOAD, signer)
    for change in ({"payload": base64.b64encode(PAYLOAD + b" ").decode()}, {"payloadType": "application/json"}):
        with pytest.raises(WrongSignature, match="does not fit"):
            envelope.verify(changed(text, **change), [signer.public], "a")


def test_a_stranger_s_signature_is_not_trusted_and_not_wrong(signer: PrivateKey, stranger: PrivateKey) -> None:
    read = envelope.parse(envelope.sign(PAYLOAD, stranger), "a")
    with pytest.raises(NotTrusted, match=stranger.public.id):
        envelope.verify(read, [signer.public], "a")
    with pytest.raises(NotTrusted):
        envelope.verify(read, [], "a")
    with pytest.raises(NotTrusted, match="not signed"):
        envelope.verify(envelope.Envelope(PAYLOAD, envelope.IN_TOTO, ()), [signer.public], "a")


def test_a_key_id_is_only_a_hint(signer: PrivateKey, stranger: PrivateKey) -> None:
    [one] = json.loads(envelope.sign(PAYLOAD, signer))["signatures"]
    keys = [stranger.public, signer.public]
    for hint in ("", "0" * 16, stranger.public.id):
        read = changed(envelope.sign(PAYLOAD, signer), signatures=[{**one, "keyid": hint}])
        assert signer.public is envelope.verify(read, keys, "a")
    borrowed = json.loads(envelope.sign(PAYLOAD, stranger))["signatures"][0]
    read = changed(envelope.sign(PAYLOAD, stranger), signatures=[{**borrowed, "keyid": signer.public.id}])
    with pytest.raises(WrongSignature):
        envelope.verify(read, [signer.public], "a")


def test_a_part_of_an_envelope_could_not_be_checked(signer: PrivateKey) -> None:
    text = envelope.sign(PAYLOAD, signer)
    for size in range(len(text) - 2):
        with pytest.raises(NotChecked):
            envelope.parse(text[:size], "a")


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode()))
def test_what_is_no_envelope_is_refused_in_words(text: bytes) -> None:
    with pytest.raises(NotChecked, match=r"DSSE|empty"):
        envelope.parse(text, "a")


def test_securesystemslib_accepts_ours(signer: PrivateKey) -> None:
    theirs = Theirs.from_dict(json.loads(envelope.sign(PAYLOAD, signer)))
    key = SSlibKey.from_crypto(load_pem_public_key(signer.public.pem), signer.public.id)  # type: ignore[arg-type]
    assert {signer.public.id} == set(theirs.verify([key], 1))
    theirs.payload += b" "
    with pytest.raises(VerificationError):
        theirs.verify([key], 1)


def test_we_accept_what_securesystemslib_signs() -> None:
    their_key = CryptoSigner.generate_ed25519()
    theirs = Theirs(PAYLOAD, envelope.IN_TOTO, {})
    theirs.sign(their_key)
    read = envelope.parse(json.dumps(theirs.to_dict()).encode(), "theirs")
    key = PublicKey(Ed25519PublicKey.from_public_bytes(bytes.fromhex(their_key.public_key.keyval["public"])))
    assert PAYLOAD == read.payload
    assert key is envelope.verify(read, [key], "theirs")
