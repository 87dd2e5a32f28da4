"""Looking from outside: TLS handshakes and HTTP requests, as a client of the application would make them.

Each probe opens its own connection and checks the certificate itself; none of them asks the API server.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from runbooks.certificates import Pair

TIMEOUT_S = 10
_MOST_OF_A_BODY = 64 * 1024


class ProbeFailed(Exception):
    """The other side could not be reached, or what it showed was not accepted."""


class Unreachable(ProbeFailed):
    """Nothing answers at the address, or no way leads there from here."""


class NotTrusted(ProbeFailed):
    """The certificate that was shown is not accepted: wrong name, wrong issuer, or out of its time."""


@dataclass(frozen=True)
class Answer:
    """What an HTTP request was answered with.

    Args:
        status: the HTTP status code.
        body: the start of the body, as text.
    """

    status: int
    body: str


def _client_context(anchors: bytes | None, *, strict: bool = False) -> ssl.SSLContext:
    """A TLS client that checks the host name.

    Args:
        anchors: PEM certificates to trust, empty for none at all, or None for the system's store.
        strict: insist on RFC 5280 in every detail, as Python does from 3.13 on. Not the default, since curl, which
            the documented text proves with, does not.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # as curl does: an anchor need not be a root
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if anchors is None:
        context.load_default_certs()
    elif anchors:
        # comments in other scripts are no part of a certificate, and the ssl module takes ASCII only
        context.load_verify_locations(cadata=anchors.decode("ascii", errors="ignore"))
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@contextlib.contextmanager
def _connected(address: str) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)
    except OSError as error:
        raise Unreachable(f"no connection to {address}: {error.strerror or error}") from error
    with connection:
        yield connection


@contextlib.contextmanager
def _secured(host: str, address: str, anchors: bytes | None) -> Iterator[ssl.SSLSocket]:
    with _connected(address) as connection:
        try:
            secured = _client_context(anchors).wrap_socket(connection, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(f"the certificate is not accepted: {error.verify_message}") from error
        except OSError as error:
            raise ProbeFailed(f"the TLS handshake with {address} failed: {error.strerror or error}") from error
        with secured:
            yield secured


def _fingerprint(secured: ssl.SSLSocket) -> str:
    return hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()


def served_fingerprint(host: str, address: str, anchors: bytes | None) -> str:
    """The fingerprint of the certificate that a server shows for a host name, after checking it.

    Args:
        host: the name asked for (SNI) and checked.
        address: HOST:PORT to connect to.
        anchors: PEM certificates to trust; None for the system's store.

    Raises:
        NotTrusted: the certificate is not accepted.
        ProbeFailed: there is no connection.
    """
    with _secured(host, address, anchors) as secured:
        return _fingerprint(secured)


def https_get(host: str, address: str, anchors: bytes | None) -> Answer:
    """``curl --cacert ANCHORS --connect-to HOST:443:ADDRESS https://HOST/``.

    Raises:
        NotTrusted: the certificate is not accepted.
        ProbeFailed: there is no connection, or no HTTP answer.
    """
    with _secured(host, address, anchors) as secured:
        return _get(host, secured)


def http_get(host: str, connection: socket.socket, path: str = "/", most: int = _MOST_OF_A_BODY) -> Answer:
    """An HTTP request in clear over a connection that is already there.

    Args:
        host: whom the request names.
        connection: where it is sent.
        path: what is asked for.
        most: how many bytes of the body are read.

    Raises:
        ProbeFailed: there is no HTTP answer.
    """
    connection.settimeout(TIMEOUT_S)
    return _get(host, connection, path, most)


def _get(host: str, connection: socket.socket, path: str = "/", most: int = _MOST_OF_A_BODY) -> Answer:
    client = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    client.sock = connection
    try:
        client.request("GET", path, headers={"User-Agent": "serverless-mesh-runbooks", "Connection": "close"})
        response = client.getresponse()
        body = response.read(most).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise ProbeFailed(f"no HTTP answer for {host}: {error or type(error).__name__}") from error
    return Answer(response.status, body)


def handshake(pair: Pair, host: str, anchors: bytes | None, *, strict: bool = False) -> None:
    """A whole TLS handshake in memory, between a server that has the pair and a client that trusts the anchors.

    Raises:
        NotTrusted: the client does not accept the certificate.
        ProbeFailed: the server cannot use the pair, or the handshake fails otherwise.
    """
    try:
        server_context = _server_context(pair)
    except (OSError, ssl.SSLError) as error:
        raise ProbeFailed(f"a TLS server cannot use the pair: {error}") from error
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        client_context = _client_context(anchors, strict=strict)
    except OSError as error:
        raise ProbeFailed(f"the trust anchors cannot be used: {error}") from error
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    try:
        # each turn answers the other's last flight; TLS 1.3 needs two turns, 1.2 three
        for _ in range(4):
            for side in (client, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise NotTrusted(f"the certificate is not accepted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise ProbeFailed(f"the TLS handshake failed: {error}") from error
    if not client.version() or not client.getpeercert(binary_form=True):
        raise ProbeFailed("the TLS handshake did not come to an end")


def _server_context(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # the ssl module reads keys from files only; where it can, the file lives in memory
    memory = "/dev/shm"  # noqa: S108 the file inside is unguessable, mode 0600, and gone at once
    folder = memory if os.access(memory, os.W_OK) else None
    with tempfile.NamedTemporaryFile(dir=folder, prefix="runbooks-", suffix=".pem") as file:
        file.write(pair.key + b"\n" + pair.chain)
        file.flush()
        # without a password OpenSSL would ask for one on the terminal, and wait
        context.load_cert_chain(file.name, password="")
    return context
