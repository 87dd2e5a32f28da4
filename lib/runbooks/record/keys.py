"""Ed25519 keys in files: one that signs, and a folder of those that are trusted.

A key in a file can be read by whoever runs the runbooks. It proves that a record was not changed by others since, and
it proves nothing against its own holder: against that helps a head that is kept elsewhere. This is the only module of
the package that knows cryptography.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import platformdirs
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from runbooks.errors import SigningKeyError
from runbooks.record import durable

VARIABLE = "RUNBOOKS_KEY"
_APP = "serverless-mesh-runbooks"


class PublicKey:
    """A key that checks signatures.

    Args:
        key: what cryptography makes of its PEM text.
    """

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        self.pem = key.public_bytes(serialization.Encoding.PEM, info)
        der = key.public_bytes(serialization.Encoding.DER, info)
        self.id = hashlib.sha256(der).hexdigest()[:16]

    def fits(self, signature: bytes, data: bytes) -> bool:
        """Whether the signature was made over just these bytes, with the other half of this key."""
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class PrivateKey:
    """A key that signs.

    Args:
        key: what cryptography makes of its PEM text.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def sign(self, data: bytes) -> bytes:
        """The signature over these bytes."""
        return self._key.sign(data)


def default_path() -> Path:
    """Where the signing key lies: $RUNBOOKS_KEY, or this user's configuration."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_config_path(_APP) / "signing.key")


def trust_folder(key_path: Path | None = None) -> Path:
    """The folder of trusted public keys, beside the signing key."""
    return (key_path or default_path()).parent / "trusted"


def create(path: Path | None = None) -> PrivateKey:
    """Make a signing key, readable by its owner alone from its first byte on, and trust it here.

    Raises:
        SigningKeyError: there is one already, which is left alone, or none can be written.
    """
    path, key = path or default_path(), Ed25519PrivateKey.generate()
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    made = PrivateKey(key)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable.create(path, key.private_bytes(*form), durable.PRIVATE)
        trust(made.public, trust_folder(path))
    except FileExistsError as error:
        remedy = "runbooks keys show names it; records that it signed need its public half, so it is not replaced"
        raise SigningKeyError(f"making the signing key {path}", "there is one already", remedy) from error
    except OSError as error:
        remedy = f"make its folder writable, or name another file in {VARIABLE}"
        raise SigningKeyError(f"making the signing key {path}", error.strerror or str(error), remedy) from error
    return made


def trust(key: PublicKey, folder: Path) -> Path:
    """Put a public key into a folder of trusted ones; returns its file."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / f"{key.id}.pem"
    durable.replace(path, key.pem)
    return path


def load(path: Path | None = None) -> PrivateKey:
    """The signing key.

    Raises:
        SigningKeyError: it is missing, open to others, or no Ed25519 key.
    """
    path = path or default_path()
    attempted = f"reading the signing key {path}"
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            if mode & 0o077:
                raise SigningKeyError(attempted, f"others may read or change it (mode {mode:04o})", f"chmod 600 {path}")
            pem = file.read()
    except FileNotFoundError as error:
        remedy = f"runbooks keys init makes one; {VARIABLE} names one that lies elsewhere"
        raise SigningKeyError(attempted, "there is none", remedy) from error
    except OSError as error:
        raise SigningKeyError(attempted, error.strerror or str(error), "make it readable for this user") from error
    return _private(pem, attempted)


def _private(pem: bytes, attempted: str) -> PrivateKey:
    remedy = "use an Ed25519 key in PEM (PKCS8) without a password, as runbooks keys init makes it"
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError as error:
        raise SigningKeyError(attempted, "it has a password", remedy) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(attempted, "it is no private key in PEM", remedy) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(attempted, "it is a key of another kind", remedy)
    return PrivateKey(key)


def public(pem: bytes, named: str) -> PublicKey:
    """A public key out of its PEM text.

    Raises:
        SigningKeyError: it is none.
    """
    attempted, remedy = f"reading the public key {named}", "use what runbooks keys show prints, an Ed25519 key in PEM"
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningKeyError(attempted, "it is no public key in PEM", remedy) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SigningKeyError(attempted, "it is a key of another kind", remedy)
    return PublicKey(key)


def trusted(folder: Path) -> tuple[PublicKey, ...]:
    """The public keys of a folder (``*.pem``, ``*.pub``); none where there is no such folder.

    Raises:
        SigningKeyError: one of them cannot be read.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in (".pem", ".pub"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        said = error.strerror or str(error)
        raise SigningKeyError(f"reading trusted keys in {folder}", said, "name a folder of public keys") from error
    return distinct(public(_content(path), str(path)) for path in paths)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        said = error.strerror or str(error)
        raise SigningKeyError(f"reading the public key {path}", said, "make it readable, or remove it") from error


def distinct(keys: Iterable[PublicKey]) -> tuple[PublicKey, ...]:
    """Each key once."""
    return tuple({key.id: key for key in keys}.values())
