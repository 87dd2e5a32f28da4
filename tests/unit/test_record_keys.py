"""Keys in files: who may see them, and what is said where one cannot be used."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from runbooks.errors import SigningKeyError
from runbooks.record import durable, keys


@pytest.fixture(autouse=True)
def generous_umask() -> Iterator[None]:
    """Whatever protects a key here must not be the umask."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_key_is_made_for_its_owner_only_and_trusted_here(tmp_path: Path) -> None:
    path = tmp_path / "config" / "signing.key"
    made = keys.create(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert ["signing.key", "trusted"] == sorted(entry.name for entry in path.parent.iterdir())
    assert made.public.id == keys.load(path).public.id
    assert [made.public.id] == [key.id for key in keys.trusted(keys.trust_folder(path))]


def test_a_key_has_its_mode_from_its_first_byte_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = os.fsync
    monkeypatch.setattr(
        durable.os, "fsync", lambda handle: (modes.append(os.fstat(handle).st_mode & 0o777), real(handle))
    )
    keys.create(tmp_path / "config" / "signing.key")
    assert 0o600 == modes[0]


def test_the_id_is_what_openssl_makes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    made = keys.create(path)
    der = subprocess.run(
        ["openssl", "pkey", "-in", path, "-pubout", "-outform", "DER"], check=True, capture_output=True
    ).stdout
    assert hashlib.sha256(der).hexdigest()[:16] == made.public.id


def test_there_is_never_a_second_key_in_place_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    keys.create(path)
    before = path.read_bytes()
    with pytest.raises(SigningKeyError, match="there is one already"):
        keys.create(path)
    assert before == path.read_bytes()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602])
def test_a_key_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "signing.key"
    keys.create(path)
    path.chmod(mode)
    with pytest.raises(SigningKeyError, match=f"chmod 600 {path}"):
        keys.load(path)


def test_a_missing_key_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match="runbooks keys init"):
        keys.load(tmp_path / "signing.key")


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    key, form = generate_private_key(SECP256R1()), serialization.PrivateFormat.PKCS8
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    password = serialization.BestAvailableEncryption(b"hunter2hunter2")
    cases = {
        "another kind": key.private_bytes(pem, form, none),
        "has a password": key.private_bytes(pem, form, password),
        "no private key": b"-----BEGIN NOTHING-----\n",
    }
    for said, content in cases.items():
        path = tmp_path / f"{said}.key"
        durable.write(path, content, 0o600)
        with pytest.raises(SigningKeyError, match=said):
            keys.load(path)


def test_a_trust_folder_holds_public_keys_and_nothing_else(tmp_path: Path) -> None:
    assert () == keys.trusted(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("not a key")
    assert () == keys.trusted(tmp_path)
    (tmp_path / "broken.pem").write_text("not a key")
    with pytest.raises(SigningKeyError, match=r"broken\.pem"):
        keys.trusted(tmp_path)


def test_the_environment_names_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.VARIABLE, str(tmp_path / "mine.key"))
    assert tmp_path / "mine.key" == keys.default_path()
    monkeypatch.delenv(keys.VARIABLE)
    assert "signing.key" == keys.default_path().name
