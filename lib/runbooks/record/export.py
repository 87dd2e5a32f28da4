"""One record as a zip that an auditor checks with bash, jq and openssl, by the README inside it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from runbooks.errors import RecordError
from runbooks.record import archive as archives
from runbooks.record import durable, envelope
from runbooks.record.archive import Archive, Record, read_file
from runbooks.record.keys import PublicKey

_SCRIPT = Path(__file__).with_name("verify.sh")
_README = """\
One change record, with all that is needed to check it
=======================================================

Record {record}
Archive {archive}

  record/            the executed notebook, and signed envelopes (DSSE, with an in-toto Statement inside)
  log.jsonl, head    every entry of the archive in order, and one signed line over them
  key.pem            the public key, id {key}
  verify.sh          checks everything below; needs bash, jq and openssl 3

Check it
--------

    bash verify.sh key.pem

The key in this zip proves nothing by itself. Ask the owner of the archive, by another way than this zip, for the id
of the key, and compare it with the one that the script prints; or use a key.pem that you already have.

Was anything taken out of the archive since? Keep a head that you were given earlier (a line that begins with
runbooks-head-v1) in a file, and name it:

    bash verify.sh key.pem kept-head.txt

Or by hand
----------

The notebook is what was signed (compare both digests):

    openssl dgst -sha256 record/*.ipynb
    jq -r .payload record/{phase}.dsse.json | openssl base64 -d -A | jq .subject

The envelope is signed:

    jq -r .payload record/{phase}.dsse.json | openssl base64 -d -A > payload
    type=$(jq -r .payloadType record/{phase}.dsse.json)
    size=$(jq -r '.payload | @base64d | utf8bytelength' record/{phase}.dsse.json)
    printf 'DSSEv1 %d %s %d %s' ${{#type}} "$type" $size "$(<payload)" > message
    jq -r '.signatures[0].sig' record/{phase}.dsse.json | openssl base64 -d -A > signature
    openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in message -sigfile signature

What it says (who, where, what changed from what to what, which checks, how it ended):

    jq .predicate payload

What it cannot say
------------------

Whoever holds the private key could have made all of this anew, except for what a head that was kept elsewhere covers.
"""


def bundle(archive: Archive, record: Record, trusted: Sequence[PublicKey]) -> bytes:
    """The zip.

    Raises:
        RecordError: a file cannot be read, or nobody trusted signed the record.
    """
    last = record.entries[-1]
    name = f"{last.phase}.dsse.json"
    signer = envelope.verify(envelope.parse(read_file(record.folder / name), name), trusted, name)
    readme = _README.format(record=record.id, archive=archive.id, key=signer.id, phase=last.phase)
    files = {
        "README.txt": readme.encode(),
        "verify.sh": read_file(_SCRIPT),
        "key.pem": signer.pem,
        "record.json": json.dumps({"record": record.id, "archive": archive.id}).encode() + b"\n",
        **{name: read_file(archive.path / name) for name in (archives.SELF, archives.LOG, archives.HEAD)},
        **{f"record/{path}": read_file(record.folder / path) for path in _own_files(record)},
    }
    moment = tuple(
        int(last.signed[start:end]) for start, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as found:
        for path, content in files.items():
            entry = zipfile.ZipInfo(f"{record.id}/{path}", moment)  # type: ignore[arg-type]
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            found.writestr(entry, content)
    return packed.getvalue()


def _own_files(record: Record) -> list[str]:
    """The envelopes, and the files that the last one is about; nothing that somebody else put beside them."""
    names = [f"{entry.phase}.dsse.json" for entry in record.entries]
    subjects = record.statements()[-1].subjects if record.entries[-1].phase not in ("start", "intent") else {}
    return [*names, *(name for name in subjects if (record.folder / name).is_file() and "/" not in name)]


def save(path: Path, content: bytes) -> None:
    """Write the zip; a file that is there already is left alone.

    Raises:
        RecordError: it cannot be written.
    """
    try:
        durable.create(path.absolute(), content, 0o644)
    except FileExistsError as error:
        raise RecordError(
            f"writing {path}", "it is there already", "remove it, or name another file with -o"
        ) from error
    except OSError as error:
        said = "the disk is full" if durable.is_full(error) else error.strerror or str(error)
        raise RecordError(f"writing {path}", said, "name another file with -o") from error
