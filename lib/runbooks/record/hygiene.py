"""Secrets in what is about to be kept: the values that a run handled, in every dress, and what looks like a secret.

Values are compared in memory and nothing is made of them: no hash, no excerpt. What is found is named by the cell and
the secret's name. Of a private key only its private parts count, for the public ones are in every certificate, too.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

_SHORTEST = 6  # what is shorter stands everywhere
_LINE = 12  # of a value of several lines; a shorter line may stand anywhere
_PIECE = 24
_DEPTH = 3
_UNPACKED_AT_MOST = 20_000_000


_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class Value:
    """A secret that a run handled.

    Args:
        name: what to call it, for example ``Secret istio-system/wildcard-certs tls.key``.
        content: its bytes.
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class Hit:
    """A secret that was found, without a trace of its value.

    Args:
        cell: the cell's id, or which part of the file.
        secret: the secret's name, or what it looks like.
        form: how it was written.
    """

    cell: str
    secret: str
    form: str

    def as_dict(self) -> dict[str, str]:
        """The hit for a record."""
        return asdict(self)


def scan_notebook(content: bytes, values: Iterable[Value] = ()) -> list[Hit]:
    """Every secret in a notebook, by cell: sources, outputs, tracebacks, metadata, widget state."""
    needles = _needles(values)
    try:
        notebook = json.loads(content)
        parts = list(_parts(notebook))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return scan(content, values)  # whatever it is, it may hold a secret
    found = [Hit(cell, *hit) for cell, text in parts for hit in _hits(text.encode(errors="replace"), needles)]
    return list(dict.fromkeys(found))


def scan(content: bytes, values: Iterable[Value] = (), named: str = "(file)") -> list[Hit]:
    """Every secret in another file: a journal, a page, an envelope."""
    return list(dict.fromkeys(Hit(named, *hit) for hit in _hits(content, _needles(values))))


def shown(text: str, values: Iterable[Value] = ()) -> str:
    """A text as it may be shown: values by their names; nothing of it where it still holds a secret in any dress."""
    values = list(values)
    for value in sorted(values, key=lambda value: -len(value.content)):  # one may begin with another
        raw = value.content.decode(errors="replace").strip()
        if len(raw) >= _SHORTEST:
            text = text.replace(raw, f"‹{value.name}›")
    hits = scan(text.encode(errors="replace"), values)
    names = ", ".join(dict.fromkeys(hit.secret for hit in hits))
    return f"‹not shown: it holds {names}›" if hits else text


def scan_value(value: Mapping[str, Any], values: Iterable[Value] = (), named: str = "(value)") -> list[Hit]:
    """Every secret in what is about to be signed."""
    return scan(json.dumps(value, default=str, ensure_ascii=False).encode(errors="replace"), values, named)


def scan_file(name: str, content: bytes, values: Iterable[Value] = ()) -> list[Hit]:
    """Every secret in a file: by cell where it is a notebook."""
    return scan_notebook(content, values) if name.endswith(".ipynb") else scan(content, values, f"({name})")


# --- what a notebook consists of --------------------------------------------------------------------------------------


def _parts(notebook: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text in a notebook with the id of its cell; a stream that came in pieces is one text."""
    yield "(notebook metadata)", _joined(notebook.get("metadata", {}))
    for number, cell in enumerate(notebook["cells"]):
        name = str(cell.get("id") or f"number {number}")
        outputs = cell.get("outputs", [])
        yield name, _text(cell.get("source", ""))
        yield name, _joined({key: value for key, value in cell.items() if key not in ("source", "outputs", "id")})
        for stream in ("stdout", "stderr"):
            yield name, "".join(_text(output.get("text", "")) for output in outputs if output.get("name") == stream)
        for output in outputs:
            yield name, _joined({key: value for key, value in output.items() if key != "text"})


def _text(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, list) else str(value)


def _joined(value: Any) -> str:
    """All strings of a structure with their keys, a line each; lines of one text are one text again."""
    return "\n".join(_strings(value))


def _strings(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _strings(part, str(name))
    elif isinstance(value, list):
        if value and all(isinstance(part, str) for part in value):
            yield f"{key}: {''.join(value)}"
        for part in value:
            yield from _strings(part, key)
    else:
        yield f"{key}: {value}"


# --- the values that were handled -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Needle:
    secret: str
    form: str
    content: bytes
    ignores_case: bool = False


def _needles(values: Iterable[Value]) -> list[_Needle]:
    return [needle for value in values for needle in _of(value)]


def _of(value: Value) -> Iterator[_Needle]:
    keys = [der for der in _pem_bodies(value.content) if der is not None]
    for part in (part for der in [*keys, value.content] for part in _private_parts(der)):
        yield from _dresses(value.name, part, binary=True)
    if _is_private_der(value.content):
        return
    # what is public of a PEM file stands in every certificate, too
    stripped = _PEM.sub(b"", value.content).strip()
    lines = [line.strip() for line in stripped.splitlines() if len(line.strip()) >= _LINE]
    for text in dict.fromkeys([stripped, *(lines if b"\n" in stripped else [])]):
        if len(text) >= _SHORTEST:
            yield from _dresses(value.name, text, binary=False)


def _dresses(name: str, content: bytes, *, binary: bool) -> Iterator[_Needle]:
    """The ways in which a value is written; of a long one every piece counts, so that a part of it is found, too."""
    pieces = [content[start : start + _PIECE] for start in range(0, len(content), _PIECE)] if binary else [content]
    for piece in pieces:
        if len(piece) < _SHORTEST or len(set(piece)) < 4:
            continue
        yield _Needle(name, "raw", piece)
        yield _Needle(name, "hex", piece.hex().encode(), ignores_case=True)
        for shift in range(3):
            text = _inner_base64(piece, shift)
            if len(text) >= _SHORTEST:
                yield _Needle(name, "base64", text)
                yield _Needle(name, "base64", text.replace(b"+", b"-").replace(b"/", b"_"))


def _inner_base64(content: bytes, shift: int) -> bytes:
    """The characters of base64 that this content alone decides, where it stands ``shift`` bytes after a boundary."""
    text = base64.b64encode(bytes(shift) + content)
    first, bits = -(-shift * 8 // 6), (shift + len(content)) * 8
    return text[first : bits // 6]


def _pem_bodies(content: bytes) -> Iterator[bytes]:
    for match in re.finditer(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(.*?)-----END", content, re.DOTALL):
        # an encrypted one has headers of its own, and no parts that could be told
        body = re.sub(rb"(?m)^[A-Za-z-]+:.*$", b"", match[1])
        if (der := _base64(re.sub(rb"\s", b"", body))) is not None:
            yield der


def _private_parts(der: bytes) -> Iterator[bytes]:
    """The private numbers of a key in DER: PKCS1, PKCS8, SEC1, and Ed25519's seed."""
    top = _children(der)
    if len(top) != 1 or top[0][0] != 0x30:
        return
    inner = _children(top[0][1])
    if len(inner) < 2 or inner[0][0] != 0x02:
        return
    if len(inner) >= 9 and all(tag == 0x02 for tag, _ in inner[:9]):  # RSA: version, n, e, and then what is private
        yield from (number.lstrip(b"\0") for _, number in inner[3:9])
    elif inner[1][0] == 0x04:  # SEC1
        yield inner[1][1]
    elif len(inner) >= 3 and inner[1][0] == 0x30 and inner[2][0] == 0x04:  # PKCS8 around one of the above
        content = inner[2][1]
        seed = _children(content)
        if len(seed) == 1 and seed[0][0] == 0x04:
            yield seed[0][1]
        else:
            yield from _private_parts(content)


def _children(der: bytes) -> list[tuple[int, bytes]]:
    """Tags and contents, one after another; as far as they can be read."""
    found, position = [], 0
    while position + 2 <= len(der):
        tag, length = der[position], der[position + 1]
        position += 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4:
                break
            length = int.from_bytes(der[position : position + size], "big")
            position += size
        if position + length > len(der):
            break
        found.append((tag, der[position : position + length]))
        position += length
    return found


# --- what looks like a secret -----------------------------------------------------------------------------------------

_LOOKS = {
    "a private key": rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----",
    "a bearer token": rb"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{16,}",
    "an OpenShift token": rb"\bsha256~[A-Za-z0-9_-]{20,}",
    "a JSON web token": rb"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    "a kubeconfig's token or key": (
        rb"(?:^|[\s{,;])[\"']?(?:token|client-key-data)[\"']?\s*:\s*[\"']?[A-Za-z0-9+/_=.~-]{16,}"
    ),
    "a registry's credentials": rb"\"auth\"\s*:\s*\"[A-Za-z0-9+/=]{12,}\"",
    "a password in a URL": rb"\bhttps?://[^/\s:@\"']+:[^/\s@\"']+@",
}
_PATTERNS = {name: re.compile(pattern) for name, pattern in _LOOKS.items()}
_RUN = re.compile(rb"[A-Za-z0-9+/_-]{40,}={0,2}")


def _is_private_der(content: bytes) -> bool:
    """Whether this begins as a private key does: a sequence that begins with a small version number.

    A certificate, a request or a signature begins with another sequence or a large number.
    """
    match = re.match(
        rb"\x30(?:[\x02-\x7f]|\x81.|\x82..|\x83...)\x02\x01[\x00\x01\x03]([\x02\x04\x30])", content, re.DOTALL
    )
    return match is not None and len(content) >= 40


# --- looking ----------------------------------------------------------------------------------------------------------


def _hits(content: bytes, needles: Iterable[_Needle], depth: int = 0) -> Iterator[tuple[str, str]]:
    if not content:
        return
    needles = list(needles)
    variants = [content] if depth and not _is_text(content) else _variants(content)
    for variant in variants:
        lower = variant.lower() if needles else b""
        for needle in needles:
            if needle.content in (lower if needle.ignores_case else variant):
                yield needle.secret, needle.form if not depth else f"{needle.form} in base64"
        for name, pattern in _PATTERNS.items():
            if pattern.search(variant):
                yield name, "pattern" if not depth else "pattern in base64"
    if depth < _DEPTH:
        for decoded in {decoded for variant in variants for decoded in _decoded(variant)}:
            if _is_private_der(decoded):
                yield "a private key", "base64"
            yield from _hits(decoded, needles, depth + 1)


def _is_text(content: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\r\n\x1b" for byte in content[:400])


def _variants(content: bytes) -> list[bytes]:
    """A text as it is, with escapes undone, and with whatever breaks lines gone."""
    plain = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", content)
    unescaped = _unescaped(plain)
    found = [content, plain, unescaped, html.unescape(unescaped.decode(errors="replace")).encode()]
    squeezed = [re.sub(rb"<[^<>]{0,200}>|\s+|\\[nrt]", b"", text) for text in found]
    return list(dict.fromkeys([*found, *squeezed]))


_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b'"': b'"', b"/": b"/", b"\\": b"\\"}


def _unescaped(text: bytes) -> bytes:
    """JSON's escapes undone, also in the middle of something that is no JSON."""

    def plain(match: re.Match[bytes]) -> bytes:
        if match[0][1:2] == b"u":
            return chr(int(match[0][2:], 16)).encode(errors="replace")
        return _ESCAPES[match[0][1:]]

    once = re.sub(rb"\\(?:u[0-9a-fA-F]{4}|[nrt\"/\\])", plain, text)
    return re.sub(rb"\\(?:u[0-9a-fA-F]{4}|[nrt\"/\\])", plain, once)


def _decoded(text: bytes) -> Iterator[bytes]:
    for match in _RUN.finditer(text):
        decoded = _base64(match[0])
        if decoded is None:
            continue
        if decoded.startswith(b"\x1f\x8b"):
            decoded = _unpacked(decoded)
        yield decoded


def _base64(text: bytes) -> bytes | None:
    text = text.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    text = text[: len(text) - (len(text) % 4 == 1)]
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None


def _unpacked(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(content, _UNPACKED_AT_MOST)
    except zlib.error:
        return content
