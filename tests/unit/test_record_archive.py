"""The archive: what is announced has one record, whatever comes."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runbooks.errors import ArchiveUnusable, NotChecked, NotRecorded, NotTrusted, RecordError, UsageError
from runbooks.record import archive as archives
from runbooks.record import durable, log
from runbooks.record.archive import Archive, Record
from runbooks.record.keys import PrivateKey
from runbooks.record.log import Entry

FACTS = {"section": "6.4.4", "runbook": "6.4.4-enable-serving-metrics", "mode": "apply"}
PLAN = {"plan": {"digest": f"plan-sha256:{'0' * 64}", "changes": []}}


@pytest.fixture(scope="session")
def signer() -> PrivateKey:
    return PrivateKey(Ed25519PrivateKey.generate())


@pytest.fixture
def archive(tmp_path: Path, signer: PrivateKey) -> Archive:
    return Archive.open(tmp_path / "archive", signer=signer)


def play(archive: Archive, notebook: bytes = b"{}", **facts: Any) -> str:
    run = archive.begin(FACTS)
    path = run.workspace / "6.4.4-enable-serving-metrics.ipynb"
    path.write_bytes(notebook)
    run.intend(PLAN)
    run.finish(path, {"outcome": "done and proven", **facts})
    return run.id


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_one_folder_with_its_entries_and_the_notebook_byte_for_byte(archive: Archive) -> None:
    content = b'{"cells": []}\r\n  '
    name = play(archive, content)
    folder = archive.path / "records" / name
    notebook = folder / "6.4.4-enable-serving-metrics.ipynb"
    assert {"start.dsse.json", "intent.dsse.json", "result.dsse.json", notebook.name} == files(folder)
    assert content == notebook.read_bytes()
    assert {0o444} == {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set() == files(archive.path / "tmp")
    assert re.fullmatch(r"\d{8}T\d{6}Z-6\.4\.4-apply-[0-9a-f]{6}", name)


def test_entries_are_chained_and_name_the_earlier_ones_of_their_run(archive: Archive) -> None:
    play(archive)
    play(archive)
    state = archive.read()
    assert [1, 2, 3, 4, 5, 6] == [entry.sequence for entry in state.entries]
    previous = log.digest((archive.path / "ARCHIVE.json").read_bytes())
    for record in archive.records():
        for entry in record.entries:
            assert previous == record.statement(entry).predicate["previous"]
            previous = entry.envelope
        result = record.statement(record.phases["result"]).predicate
        assert record.phases["start"].envelope == result["run"]["start"]
        assert record.phases["intent"].envelope == result["run"]["intent"]


def test_the_start_is_on_the_disk_before_a_run_is_announced(archive: Archive) -> None:
    run = archive.begin(FACTS)
    assert {"start.dsse.json"} == files(run.folder)
    assert "running" == archive.record(run.id).state
    run.leave()
    assert "unfinished" == archive.record(run.id).state


def test_a_run_without_a_notebook_is_recorded_too(archive: Archive) -> None:
    run = archive.begin(FACTS)
    run.finish(None, {"outcome": "failed", "reason": "the kernel would not start"})
    assert "the kernel would not start" == archive.record(run.id).facts()["outcome"]["reason"]
    assert not run.workspace.exists()


def test_a_run_ends_once(archive: Archive) -> None:
    run = archive.begin(FACTS)
    run.finish(None, {"outcome": "failed"})
    before = archive.head
    for again in (lambda: run.finish(None, {}), lambda: run.intend(PLAN)):
        with pytest.raises(RecordError, match="already"):
            again()
    assert before == archive.head


def test_the_head_is_one_line_that_is_found_in_any_text(archive: Archive) -> None:
    assert "" == archive.head
    play(archive)
    assert archive.head.startswith(f"runbooks-head-v1 {archive.id} 3 sha256:")
    assert [archive.head] == [head.line() for head in log.heads(f"CHG1: see {archive.head}. Thanks!\n")]
    assert f"{archive.head}\n" == (archive.path / "head").read_text()


def test_what_a_secret_was_found_in_goes_into_quarantine(archive: Archive) -> None:
    run = archive.begin(FACTS)
    path = run.workspace / "a.ipynb"
    path.write_bytes(b"hunter2")
    hit = {"cell": "plan", "secret": "istio-system/wildcard-certs tls.key", "form": "base64"}
    run.withhold([path], [path], [hit], {})
    facts = archive.record(run.id).facts()
    assert "failed: secret found" == facts["outcome"]["outcome"]
    assert "plan" == facts["hygiene"]["hits"][0]["cell"]
    assert log.digest(b"hunter2") == facts["hygiene"]["withheld"][0]["sha256"]
    kept = archive.path / "quarantine" / run.id / "a.ipynb"
    assert (b"hunter2", 0o600, 0o700) == (
        kept.read_bytes(),
        stat.S_IMODE(kept.stat().st_mode),
        stat.S_IMODE((archive.path / "quarantine").stat().st_mode),
    )
    assert {"start.dsse.json", "result.dsse.json"} == files(run.folder)


def recover(archive: Archive, record: Record) -> None:
    with archive.taken_over(record) as run:
        run.close("recovery", archive.left_behind(record.id), {"outcome": "unknown"})


def test_a_run_that_vanished_is_closed_with_what_it_left_behind(archive: Archive) -> None:
    run = archive.begin(FACTS)
    (run.workspace / "a.ipynb").write_bytes(b"half")
    (run.workspace / "journal.jsonl").write_bytes(b"{}\n")
    (run.workspace / ".a.ipynb.tmp").write_bytes(b"a quarter")
    with pytest.raises(ArchiveUnusable, match="still going on"):
        recover(archive, archive.record(run.id))
    run.leave()
    recover(archive, archive.record(run.id))
    assert "recovered" == archive.record(run.id).state
    assert {"start.dsse.json", "recovery.dsse.json", "a.ipynb", "journal.jsonl"} == files(run.folder)
    assert not run.workspace.exists()


def test_an_adopted_notebook_stays_where_it_is(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "更新.ipynb"
    path.write_bytes(b"{}")
    entry = archive.adopt(path, {"cannot_be_vouched_for": ["who ran it"]})
    assert b"{}" == path.read_bytes() == (archive.path / "records" / entry.record / path.name).read_bytes()
    assert "adopted" == archive.record(entry.record).state


@pytest.mark.parametrize("name", ["", "nothing", "20"])
def test_a_record_that_cannot_be_told_is_not_found(archive: Archive, name: str) -> None:
    play(archive)
    play(archive)
    with pytest.raises(UsageError, match="runbooks records list"):
        archive.record(name)


# --- what may be wrong with the folder --------------------------------------------------------------------------------


def test_reading_never_makes_an_archive(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no ARCHIVE\.json"):
        Archive.open(tmp_path / "absent")
    assert [] == list(tmp_path.iterdir())


def test_files_that_were_there_before_are_left_alone(tmp_path: Path, signer: PrivateKey) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    play(Archive.open(tmp_path, signer=signer))
    assert "mine" == (tmp_path / "notes.txt").read_text()


def test_a_newer_format_is_not_touched(archive: Archive, signer: PrivateKey) -> None:
    path = archive.path / "ARCHIVE.json"
    found = {**json.loads(path.read_text()), "format": 2}
    durable.replace(path, json.dumps(found).encode())
    with pytest.raises(ArchiveUnusable, match="format 2, and this version knows format 1"):
        Archive.open(archive.path, signer=signer)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1}', b'{"format": 1, "id": "x"}', b"\xff"])
def test_a_foreign_archive_json_is_refused(tmp_path: Path, signer: PrivateKey, content: bytes) -> None:
    (tmp_path / "ARCHIVE.json").write_bytes(content)
    with pytest.raises(ArchiveUnusable, match="not what this package wrote"):
        Archive.open(tmp_path, signer=signer)


def test_an_archive_is_not_made_anew_over_records(archive: Archive, signer: PrivateKey) -> None:
    play(archive)
    (archive.path / "ARCHIVE.json").unlink()
    with pytest.raises(ArchiveUnusable, match="is gone"):
        Archive.open(archive.path, signer=signer)


def test_a_file_system_without_locks_is_refused(
    tmp_path: Path, signer: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ArchiveUnusable, match="has no locks"):
        Archive.open(tmp_path / "archive", signer=signer)


def test_a_lock_that_is_never_let_go_is_reported(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.locks, "_PATIENCE_S", 0.05)
    with archives.locks.exclusive(archive.path / "lock"), pytest.raises(NotRecorded, match="held the lock"):
        archive.begin(FACTS)


def drop(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def swap_letters(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"apply", b"paply", 1))


def add_line(path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[-1])


@pytest.mark.parametrize(("name", "change"), [
    ("head", drop), ("head", cut),
    ("log.jsonl", drop), ("log.jsonl", cut), ("log.jsonl", swap_letters), ("log.jsonl", add_line),
])  # fmt: skip
def test_a_log_that_somebody_touched_is_never_signed_anew(
    archive: Archive, name: str, change: Callable[[Path], None]
) -> None:
    play(archive)
    change(archive.path / name)
    before = {path: (archive.path / path).read_bytes() for path in files(archive.path)}
    with pytest.raises(ArchiveUnusable, match="nothing was written"):
        archive.begin(FACTS)
    assert before == {path: (archive.path / path).read_bytes() for path in files(archive.path)}


def test_another_key_goes_on_only_where_the_one_before_is_trusted(archive: Archive, signer: PrivateKey) -> None:
    play(archive)
    other = PrivateKey(Ed25519PrivateKey.generate())
    with pytest.raises(NotTrusted, match="nothing was written"):
        Archive.open(archive.path, signer=other).begin(FACTS)
    play(Archive.open(archive.path, signer=other, trusted=[signer.public]))
    assert 6 == len(archive.read().entries)


def test_a_clock_that_went_back_is_told_and_stops_nothing(archive: Archive) -> None:
    play(archive)
    archive.clock = lambda: dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    run = archive.begin(FACTS)
    assert ["chronyc" in remark and "3,600 s" in remark for remark in run.remarks] == [True]
    run.finish(None, {"outcome": "failed"})
    assert 3590 < archive.record(run.id).facts()["time"]["clock_back_s"] < 3610


# --- a disk that is full ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "extend", "take_in", "sync"])
def test_a_full_disk_leaves_the_archive_as_it_was(archive: Archive, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    run = archive.begin(FACTS)
    notebook = run.workspace / "a.ipynb"
    notebook.write_bytes(b"{}")
    before = files(archive.path), archive.head

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(durable, call, refuse)
        with pytest.raises(NotRecorded, match="the disk is full"):
            run.finish(notebook, {"outcome": "done"})
    assert before == (files(archive.path), archive.head)
    run.finish(notebook, {"outcome": "done"})
    assert "finished" == archive.record(run.id).state


# --- what a dead process left -----------------------------------------------------------------------------------------


class Died(BaseException):
    """Nobody cleans up after this."""


@pytest.mark.parametrize("step", range(1, 26))
def test_whoever_comes_next_finishes_what_a_dead_process_left(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The process dies before the n-th change of the disk; with ``die`` nothing after it happens, as with a kill."""
    play(archive)
    run = archive.begin(FACTS)
    notebook = run.workspace / "a.ipynb"
    notebook.write_bytes(b"{}")
    count = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count >= step:
                raise Died
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in ("write", "sync", "extend", "take_in"):
            patched.setattr(durable, name, dying(getattr(durable, name)))
        for name in ("rename", "mkdir", "unlink"):
            patched.setattr(Path, name, dying(getattr(Path, name)))
        patched.setattr(archives.shutil, "rmtree", dying(archives.shutil.rmtree))
        with contextlib.suppress(Died):
            run.finish(notebook, {"outcome": "done"})
    state = archive.read()
    assert "" == archives.disagreement(state, archive.id)
    ended = archive.record(run.id).state != "running"
    if not ended:
        assert notebook.exists()
        run.finish(notebook, {"outcome": "done"})
    assert {"start.dsse.json", "result.dsse.json", "a.ipynb"} == files(run.folder)
    play(archive)
    assert 8 == len(archive.read().entries)
    assert set() == {name for name in files(archive.path / "tmp") if "staging" in name or "next" in name}


def test_a_torn_tail_is_made_whole(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    play(archive)

    def tear(path: Path, size: int, content: bytes) -> None:
        with path.open("ab") as file:
            file.write(content[:10])
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(durable, "extend", tear)
        with pytest.raises(Died):
            archive.begin(FACTS)
    assert not (archive.path / "log.jsonl").read_bytes().endswith(b"\n")
    assert 4 == len(archive.read().entries)
    assert (archive.path / "log.jsonl").read_bytes().endswith(b"\n")


def test_what_cannot_be_finished_here_is_said(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    play(archive)
    decided = archive.path / "tmp" / "next"
    decided.mkdir()
    (decided / "entry.json").write_text("{}")
    real = os.open
    monkeypatch.setattr(
        archives.locks.os,
        "open",
        lambda path, flags, *mode: (
            (_ for _ in ()).throw(PermissionError(errno.EROFS, "Read-only file system"))
            if flags & os.O_RDWR
            else real(path, flags, *mode)
        ),
    )
    with pytest.raises(NotChecked, match="cannot be finished here"):
        archive.read()


# --- the log, pure ----------------------------------------------------------------------------------------------------


def test_a_line_that_is_no_entry_is_named() -> None:
    good = Entry(1, "start", "a-run", "0" * 64, "2026-11-23T00:00:00.000Z")
    assert (good,) == log.parse(good.line(), "log")
    for bad in (
        b"{}\n",
        b"\xff\n",
        b"[1]\n",
        good.line().replace(b"start", b"begin"),
        good.line().replace(b"a-run", b"../x"),
    ):
        with pytest.raises(ArchiveUnusable, match="line 2"):
            log.parse(good.line() + bad, "log")
    with pytest.raises(ArchiveUnusable, match="line 2"):
        log.parse(good.line() * 2, "log")


def test_a_head_has_one_spelling(signer: PrivateKey) -> None:
    head = log.sign_head("34a628ec-42d6-40d2-a722-8d9503e89ae4", 3, "0" * 64, signer)
    text = f"{head.line()}\n".encode()
    assert head == log.parse_head(text, "head")
    head.verify([signer.public])
    for position in range(len(text)):
        for bit in range(8):
            changed = bytes([*text[:position], text[position] ^ (1 << bit), *text[position + 1 :]])
            with pytest.raises(RecordError):
                log.parse_head(changed, "head").verify([signer.public])
