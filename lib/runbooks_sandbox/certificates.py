"""Certificates of service accounts: from istiod's CA, renewed before they end, handed to Envoy as its SDS.

Both are gRPC; of their messages a few fields of text are needed, so the wire format is spelled out here: the
generated classes come in a package of the same name as Envoy's own.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from runbooks_sandbox.gateway import TYPES

LIFE_S = 24 * 3600  # as Istio's own agent asks for
_RENEW_AT = 0.5  # of its life, as Istio's own agent does it
_TIMEOUT_S = 2
_STREAMS = 16  # an Envoy has one for the certificate and one for the root
_CREATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
_SDS = "envoy.service.secret.v3.SecretDiscoveryService"
_SECRET_TYPE = f"{TYPES}extensions.transport_sockets.tls.v3.Secret"
ROOT = "ROOTCA"  # as istiod's configuration names it; the other name is "default"


class Refused(Exception):
    """istiod's CA gave no certificate."""


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, PEM each."""

    key: bytes
    chain: bytes
    root: bytes

    def leaf(self) -> x509.Certificate:
        """The certificate itself."""
        return x509.load_pem_x509_certificate(self.chain)


def issue(authority: str, token: str, life_s: int = LIFE_S) -> Issued:
    """Ask istiod's CA for a certificate of the service account that a token belongs to.

    Args:
        authority: HOST:PORT of istiod's gRPC.
        token: the service account's.
        life_s: how long it should be valid.

    Raises:
        Refused: there is no answer, or it is a no.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    # istiod takes the name from the token, and nothing but the key from the request
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    body = field(1, request.public_bytes(serialization.Encoding.PEM)) + number(3, life_s)
    metadata = (("authorization", f"Bearer {token}"), ("clusterid", "Kubernetes"))
    try:
        with grpc.insecure_channel(authority) as channel:  # a new one each time, so that none remembers a failure
            answer = channel.unary_unary(_CREATE)(body, metadata=metadata, timeout=_TIMEOUT_S)
    except grpc.RpcError as error:
        raise Refused(f"{error.code().name}: {error.details()}") from error
    *chain, root = [value for number, value in fields(answer) if number == 1]
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Issued(pem, b"".join(chain), root)


class Certificate:
    """One service account's certificate, always a valid one.

    Args:
        authority: HOST:PORT of istiod's gRPC.
        life_s: how long each is valid.
    """

    def __init__(self, authority: str, life_s: int = LIFE_S) -> None:
        self._authority, self._life_s = authority, life_s
        self._issued: Issued | None = None
        self._version = 0
        self._renew_at = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._changed = threading.Condition()
        self._server: grpc.Server | None = None

    def keep_fresh(self, token: str) -> None:
        """Get another certificate where the one there has lived half its life.

        Raises:
            Refused: istiod does not answer, or refuses.
        """
        now = dt.datetime.now(dt.UTC)
        if now < self._renew_at:
            return
        issued = issue(self._authority, token, self._life_s)
        with self._changed:
            self._issued, self._version = issued, self._version + 1
            self._changed.notify_all()
        self._renew_at = now + (issued.leaf().not_valid_after_utc - now) * _RENEW_AT

    def serve(self, socket: Path) -> None:
        """Answer an Envoy's questions for secrets on a Unix socket, again with each new certificate."""
        self._server = grpc.server(ThreadPoolExecutor(_STREAMS))
        stream = grpc.stream_stream_rpc_method_handler(self._stream)
        handler = grpc.method_handlers_generic_handler(_SDS, {"StreamSecrets": stream})
        self._server.add_generic_rpc_handlers((handler,))
        # a socket's path may have a hundred letters, which a folder of somebody's may exceed by itself
        self._server.add_insecure_port(f"unix:{os.path.relpath(socket)}")
        socket.chmod(0o600)
        self._server.start()

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.stop(None)

    def _stream(self, requests: Iterable[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Each request but the first says that the answer before was taken: the next one is due when there is news."""
        context.add_callback(self._wake)
        sent = 0
        for request in requests:
            names = [value.decode() for number, value in fields(request) if number == 3]
            with self._changed:
                while self._version == sent and context.is_active():
                    self._changed.wait()
                sent, issued = self._version, self._issued
            if issued is None or not context.is_active():
                return
            yield discovered(names, issued, sent)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


# --- the messages ------------------------------------------------------------------------------------------------


def discovered(names: Iterable[str], issued: Issued, version: int) -> bytes:
    """A DiscoveryResponse with the secrets of these names."""
    any_type = field(1, _SECRET_TYPE.encode())
    secrets = b"".join(field(2, any_type + field(2, _secret(name, issued))) for name in names)
    told = str(version).encode()
    return field(1, told) + secrets + field(4, _SECRET_TYPE.encode()) + field(5, told)


def _secret(name: str, issued: Issued) -> bytes:
    if name == ROOT:
        return field(1, name.encode()) + field(4, field(1, _inline(issued.root)))
    return field(1, name.encode()) + field(2, field(1, _inline(issued.chain)) + field(2, _inline(issued.key)))


def _inline(content: bytes) -> bytes:
    return field(2, content)


def field(tag: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return _varint(tag << 3 | 2) + _varint(len(content)) + content


def number(tag: int, value: int) -> bytes:
    """A field of a whole number."""
    return _varint(tag << 3) + _varint(value)


def _varint(value: int) -> bytes:
    more, rest = value >> 7, value & 0x7F
    return bytes([rest | 0x80]) + _varint(more) if more else bytes([rest])


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of bytes of a message with their numbers; whole numbers are passed over."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position, value, shift = position + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while position < len(message):
        tag, kind = divmod(varint(), 8)
        if kind == 0:
            varint()
        elif kind == 2:
            length = varint()
            yield tag, message[position : position + length]
            position += length
        else:
            raise ValueError(f"field {tag} has the wire type {kind}, which none of our messages has")
