"""DSSE envelopes: opaque bytes with signatures over just these bytes, never over a re-serialisation.

"The signature is wrong", "nobody trusted signed it" and "it could not be checked" are three different answers.
The specification: https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass

from runbooks.errors import NotChecked, NotTrusted, WrongSignature
from runbooks.record.keys import PrivateKey, PublicKey

IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Envelope:
    """Bytes, what they are, and who signed them.

    Args:
        payload: the signed bytes.
        payload_type: what they are; it is signed too.
        signatures: pairs of key id and signature; the id is only a hint and may be empty.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]


def pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed: type and payload with their lengths, so that neither can pass for the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, key: PrivateKey, payload_type: str = IN_TOTO) -> bytes:
    """An envelope around these bytes, as the text of a file."""
    signature = key.sign(pre_authentication(payload_type, payload))
    envelope = {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.public.id, "sig": base64.b64encode(signature).decode()}],
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"


def parse(text: bytes, named: str) -> Envelope:
    """The envelope in a file's text; nothing is checked yet.

    Raises:
        NotChecked: it is none, or only a part of one.
    """
    try:
        found = json.loads(text)
        signatures = tuple((str(one.get("keyid", "")), _decoded(one["sig"])) for one in found["signatures"])
        return Envelope(_decoded(found["payload"]), str(found["payloadType"]), signatures)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotChecked(
            f"reading the envelope {named}",
            "it is cut short, or no DSSE envelope" if text.strip() else "it is empty",
            "take the file from a copy of the archive; runbooks records verify tells what else is amiss",
        ) from error


def _decoded(text: str) -> bytes:
    """Base64 in either alphabet, as the specification wants it."""
    try:
        return base64.b64decode(text.translate(str.maketrans("-_", "+/")), validate=True)
    except binascii.Error as error:
        raise ValueError(text) from error


def verify(envelope: Envelope, trusted: Iterable[PublicKey], named: str) -> PublicKey:
    """Who of the trusted keys signed this.

    Raises:
        WrongSignature: a trusted key should have, by its id, and its signature does not fit.
        NotTrusted: none of them did.
    """
    keys = tuple(trusted)
    data = pre_authentication(envelope.payload_type, envelope.payload)
    for hint, signature in envelope.signatures:
        # the likeliest first; the id decides nothing
        for key in sorted(keys, key=lambda key: key.id != hint):
            if key.fits(signature, data):
                return key
    return refuse({hint for hint, _ in envelope.signatures}, keys, named)


def refuse(hints: Iterable[str], keys: Iterable[PublicKey], named: str) -> PublicKey:
    """Say why no signature counts; never returns.

    Raises:
        WrongSignature: one of the keys should have made it.
        NotTrusted: none should have.
    """
    claimed = sorted(hints)
    if known := sorted({key.id for key in keys} & set(claimed)):
        said = f"the signature of key {known[0]} does not fit its content"
        raise WrongSignature(f"checking {named}", said, "it was altered after it was signed: compare it with a copy")
    who = f"signed by key {', '.join(claimed)}" if any(claimed) else "not signed"
    remedy = "get the public key from who made the records, compare its id, and put it into the trust folder"
    raise NotTrusted(f"checking {named}", f"it is {who}, which is not among the trusted keys", remedy)
