"""Searching, in two languages, with an index that may be thrown away."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbooks.record import index
from runbooks.record.archive import Archive
from runbooks.record.keys import PrivateKey


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setattr(index.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    return Archive.open(tmp_path / "archive", signer=PrivateKey(Ed25519PrivateKey.generate()))


def add(archive: Archive, section: str, reason: str) -> str:
    run = archive.begin({"section": section, "mode": "apply", "parameters": {"change_ticket": f"CHG-{section}"}})
    run.finish(None, {"outcome": "done and proven", "reason": reason})
    return run.id


def found(archive: Archive, *words: str) -> list[str]:
    return [summary.fields["section"] for summary in index.search(archive, words)]


def test_words_are_found_in_both_languages_and_all_have_to_occur(archive: Archive) -> None:
    add(archive, "6.4.2", "本番環境のワイルドカード証明書を更新した")
    add(archive, "6.4.4", "Knative Serving のメトリクスを有効化、証明書は変更なし")
    assert ["6.4.4", "6.4.2"] == found(archive)
    assert ["6.4.4", "6.4.2"] == found(archive, "証明書")
    assert ["6.4.2"] == found(archive, "更新")
    assert ["6.4.2"] == found(archive, "書を更")
    assert ["6.4.2"] == found(archive, "新")
    assert [] == found(archive, "新更")
    assert ["6.4.4"] == found(archive, "証明書", "KNATIVE")
    assert ["6.4.4"] == found(archive, "knat")
    assert ["6.4.4"] == found(archive, "6.4.4")
    assert ["6.4.2"] == found(archive, "chg-6.4.2")
    assert ["6.4.2"] == found(archive, "ワイルド")
    assert ["6.4.2"] == found(archive, "ﾜｲﾙﾄﾞｶｰﾄﾞ")
    assert [] == found(archive, "absent")


@pytest.mark.parametrize("word", ['"', "'", "*", "a OR b", "NEAR(", "-", "^zq", "{zq}", "text:"])
def test_no_word_is_taken_for_a_command(archive: Archive, word: str) -> None:
    add(archive, "6.4.2", "x")
    assert [] == found(archive, word)


def test_a_log_that_went_on_is_followed(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    add(archive, "6.4.2", "one")
    assert ["6.4.2"] == found(archive)
    put = []
    real = index._put
    monkeypatch.setattr(index, "_put", lambda database, record: (put.append(record.id), real(database, record)))
    run = archive.begin({"section": "6.4.3"})
    assert ["6.4.3", "6.4.2"] == found(archive)
    assert ["running", "finished"] == [summary.state for summary in index.search(archive, [])]
    run.finish(None, {"outcome": "failed", "reason": "later words"})
    assert ["6.4.3"] == found(archive, "later")
    assert [run.id, run.id] == put


def test_another_log_means_a_new_index(archive: Archive) -> None:
    add(archive, "6.4.2", "one")
    found(archive)
    [path] = (archive.path.parent / "cache" / "index").iterdir()
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE stamp SET digest = 'x'")
        database.execute("UPDATE records SET section = 'wrong'")
    assert ["6.4.2"] == found(archive)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_a_broken_index_is_made_anew(archive: Archive, content: bytes) -> None:
    add(archive, "6.4.2", "one")
    found(archive)
    [path] = (archive.path.parent / "cache" / "index").iterdir()
    path.write_bytes(content)
    assert ["6.4.2"] == found(archive, "one")


def test_no_place_for_an_index_is_no_reason_to_find_nothing(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    add(archive, "6.4.2", "one")
    (archive.path.parent / "file").write_text("")
    monkeypatch.setattr(index.platformdirs, "user_cache_path", lambda _: archive.path.parent / "file")
    assert ["6.4.2"] == found(archive, "one")


def test_an_adopted_notebook_is_found_by_its_text_and_its_bytes(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    path.write_text('{"cells": [{"cell_type": "code", "source": ["oc get pods"], "outputs": [{"text": "稼働中"}]}]}')
    entry = archive.adopt(path, {"outcome": "unknown"})
    assert [entry.record] == [summary.id for summary in index.search(archive, ["稼働"])]
    assert entry.record == index.adopted_as(archive, index.log.digest(path.read_bytes()))
    assert "" == index.adopted_as(archive, "0" * 64)
