"""Whatever is changed in an archive is seen."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runbooks.errors import RecordError
from runbooks.record import envelope, keys, log, statement
from runbooks.record.archive import Archive
from runbooks.record.verification import Verdict
from tests.records.conftest import Kept


def folders(kept: Kept) -> list[Path]:
    return [record.folder for record in kept.archive.records()]


def rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_an_untouched_archive_is_verified(kept: Kept) -> None:
    report = kept.verify()
    assert (Verdict.VERIFIED, 0, 5, 15) == (report.verdict, report.exit_code, len(report.records), report.entries)
    assert report.rollback.startswith("rollback not checked")
    assert kept.verify(kept.anchor).rollback.endswith("good up to entry 12; 3 entries are newer")


@pytest.mark.timeout(300)
def test_every_change_of_a_single_byte_is_seen(grown: Callable[[int], Kept]) -> None:
    kept = grown(1)
    unseen = []
    for path in sorted(path for path in kept.archive.path.rglob("*") if path.is_file()):
        path.chmod(0o644)
        content = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            for position, byte in enumerate(content):
                os.pwrite(file.fileno(), bytes([byte ^ (1 << position % 8)]), position)
                try:
                    if kept.verify().verdict is Verdict.VERIFIED:
                        unseen.append((path.name, position))
                except RecordError:
                    pass
                os.pwrite(file.fileno(), bytes([byte]), position)
    assert [] == unseen
    assert Verdict.VERIFIED is kept.verify().verdict


def remove_a_cell(kept: Kept) -> None:
    path = folders(kept)[2] / "6.4.4.ipynb"
    notebook = json.loads(path.read_text())
    rewrite(path, json.dumps({"cells": notebook["cells"][1:]}).encode())


def indent_anew(kept: Kept) -> None:
    path = folders(kept)[2] / "6.4.4.ipynb"
    rewrite(path, json.dumps(json.loads(path.read_text()), indent=1).encode())


def delete_a_record(kept: Kept) -> None:
    shutil.rmtree(folders(kept)[2])


def delete_a_record_and_its_lines(kept: Kept) -> None:
    folder = folders(kept)[2]
    lines = (kept.archive.path / "log.jsonl").read_bytes().splitlines(keepends=True)
    shutil.rmtree(folder)
    (kept.archive.path / "log.jsonl").write_bytes(b"".join(line for line in lines if folder.name.encode() not in line))


def delete_a_notebook(kept: Kept) -> None:
    (folders(kept)[2] / "6.4.4.ipynb").unlink()


def swap_two_records(kept: Kept) -> None:
    one, two, *_ = folders(kept)
    one.rename(one.with_name("x"))
    two.rename(one)
    one.with_name("x").rename(two)


def swap_two_notebooks(kept: Kept) -> None:
    one, two, *_ = (folder / "6.4.4.ipynb" for folder in folders(kept))
    first, second = one.read_bytes(), two.read_bytes()
    rewrite(one, second)
    rewrite(two, first)


def reorder_the_log(kept: Kept) -> None:
    first, second, *rest = (kept.archive.path / "log.jsonl").read_bytes().splitlines(keepends=True)
    (kept.archive.path / "log.jsonl").write_bytes(b"".join([second, first, *rest]))


def reorder_and_renumber_the_log(kept: Kept) -> None:
    lines = [json.loads(line) for line in (kept.archive.path / "log.jsonl").read_text().splitlines()]
    lines[0], lines[3] = {**lines[3], "sequence": 1}, {**lines[0], "sequence": 4}
    (kept.archive.path / "log.jsonl").write_bytes(b"".join(log.Entry(**line).line() for line in lines))


def cut_the_log_back(kept: Kept) -> None:
    lines = (kept.archive.path / "log.jsonl").read_bytes().splitlines(keepends=True)
    (kept.archive.path / "log.jsonl").write_bytes(b"".join(lines[:-3]))


def delete_the_head(kept: Kept) -> None:
    (kept.archive.path / "head").unlink()


def delete_the_log(kept: Kept) -> None:
    (kept.archive.path / "log.jsonl").unlink()


def delete_log_and_head(kept: Kept) -> None:
    delete_the_log(kept)
    delete_the_head(kept)


def add_a_record_of_one_s_own(kept: Kept) -> None:
    folder = folders(kept)[0]
    shutil.copytree(folder, folder.with_name("20270101T000000Z-6.4.4-apply-abcdef"))


def add_a_second_ending(kept: Kept) -> None:
    folder = folders(kept)[0]
    shutil.copy(folder / "result.dsse.json", folder / "recovery.dsse.json")


def edit_what_is_said(kept: Kept) -> None:
    path = folders(kept)[1] / "result.dsse.json"
    found = envelope.parse(path.read_bytes(), "")
    stranger = keys.create(kept.archive.path.parent / "other" / "signing.key")
    rewrite(path, envelope.sign(found.payload.replace(b"done and proven", b"failed"), stranger))


ATTACKS = [
    remove_a_cell,
    indent_anew,
    delete_a_record,
    delete_a_record_and_its_lines,
    delete_a_notebook,
    swap_two_records,
    swap_two_notebooks,
    reorder_the_log,
    reorder_and_renumber_the_log,
    cut_the_log_back,
    delete_the_head,
    delete_the_log,
    delete_log_and_head,
    add_a_record_of_one_s_own,
    add_a_second_ending,
    edit_what_is_said,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_it_is_seen_without_a_kept_head(kept: Kept, attack: Callable[[Kept], None]) -> None:
    attack(kept)
    report = kept.verify()
    assert (Verdict.TAMPERED, 1) == (report.verdict, report.exit_code), report
    assert Verdict.TAMPERED is kept.verify(kept.anchor).verdict


@pytest.mark.parametrize("attack", [remove_a_cell, delete_a_notebook, edit_what_is_said], ids=lambda a: a.__name__)
def test_only_the_record_that_was_touched_is_blamed(kept: Kept, attack: Callable[[Kept], None]) -> None:
    attack(kept)
    report = kept.verify()
    assert () == report.found
    assert 1 == sum(record.verdict is Verdict.TAMPERED for record in report.records)


def roll_back(kept: Kept, count: int) -> None:
    """Put the archive back to what it was some runs ago, with the head of that time."""
    path = kept.archive.path
    lines = (path / "log.jsonl").read_bytes().splitlines(keepends=True)[: count * 3]
    for folder in folders(kept)[count:]:
        shutil.rmtree(folder)
    (path / "log.jsonl").write_bytes(b"".join(lines))
    head = log.sign_head(kept.archive.id, count * 3, log.digest(b"".join(lines)), kept.key)
    (path / "head").write_text(f"{head.line()}\n")


def test_a_roll_back_to_an_older_head_is_seen_with_a_kept_head_only(kept: Kept) -> None:
    roll_back(kept, 3)
    report = kept.verify()
    assert Verdict.VERIFIED is report.verdict
    assert report.rollback.startswith("rollback not checked")
    report = kept.verify(kept.anchor)
    assert (Verdict.TAMPERED, "cut back") == (report.verdict, report.found[0].said.rpartition(": ")[2])


def test_a_roll_back_to_what_the_kept_head_names_is_within_its_window(kept: Kept) -> None:
    roll_back(kept, 4)
    assert kept.verify(kept.anchor).rollback.endswith("0 entries are newer")


def test_the_key_holder_cannot_leave_a_record_out_where_a_head_was_kept(kept: Kept) -> None:
    """Signs everything anew, without the second run, in an archive of the same id and with the same times."""
    path = kept.archive.path
    old = [(record, record.statements()) for record in kept.archive.records()]
    rebuilt = path.with_name("rebuilt")
    (rebuilt / "records").mkdir(parents=True)
    for name in ("ARCHIVE.json", "lock"):
        shutil.copy(path / name, rebuilt / name)
    previous, lines = log.digest((path / "ARCHIVE.json").read_bytes()), b""
    for number, (record, said) in enumerate(old):
        if number == 1:
            continue
        shutil.copytree(record.folder, rebuilt / "records" / record.id)
        closes: dict[str, str] = {}
        for entry, read in zip(record.entries, said, strict=True):
            sequence = lines.count(b"\n") + 1
            changes = {"sequence": sequence, "previous": previous, "run": {"id": record.id, **closes}}
            subject = [{"name": name, "digest": {"sha256": digest}} for name, digest in read.subjects.items()]
            whole = {"_type": statement.STATEMENT, "subject": subject, "predicateType": statement.PREDICATE}
            text = envelope.sign(json.dumps({**whole, "predicate": {**read.predicate, **changes}}).encode(), kept.key)
            rewrite(rebuilt / entry.path, text)
            previous = closes[entry.phase] = log.digest(text)
            lines += log.Entry(sequence, entry.phase, record.id, previous, entry.signed).line()
    (rebuilt / "log.jsonl").write_bytes(lines)
    head = log.sign_head(kept.archive.id, 12, log.digest(lines), kept.key)
    (rebuilt / "head").write_text(f"{head.line()}\n")
    forged = Kept(Archive.open(rebuilt), kept.key, kept.anchor)
    assert Verdict.VERIFIED is forged.verify().verdict  # what a key in a file cannot prove
    assert Verdict.TAMPERED is forged.verify(kept.anchor).verdict


def test_another_archive_in_its_place_is_seen_with_a_kept_head(kept: Kept, grown: Callable[[int], Kept]) -> None:
    other = grown(1)
    report = other.verify(kept.anchor)
    assert (Verdict.NOT_TRUSTED, 3) == (report.verdict, report.exit_code)
    assert "none of the kept heads is of this archive" in report.found[0].said


def test_a_kept_head_that_was_altered_says_nothing_about_the_archive(kept: Kept, tmp_path: Path) -> None:
    altered = tmp_path / "altered.txt"
    [head] = log.heads(kept.anchor.read_text())
    altered.write_text(kept.anchor.read_text().replace(head.digest, "0" * 64))
    assert Verdict.NOT_TRUSTED is kept.verify(altered).verdict


def test_what_strangers_signed_is_not_trusted_and_not_called_tampered(kept: Kept, tmp_path: Path) -> None:
    stranger = keys.create(tmp_path / "other" / "signing.key")
    foreign = Kept(kept.archive, stranger, kept.anchor)
    assert {Verdict.NOT_TRUSTED} == {record.verdict for record in foreign.verify().records}
    assert 3 == foreign.verify().exit_code
    # missing trust never turns a no into a maybe
    remove_a_cell(kept)
    assert 1 == foreign.verify().exit_code
