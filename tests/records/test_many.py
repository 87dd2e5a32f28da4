"""Many records: a sample always, ten thousand by ``make soak``, with what verifying and searching them takes."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runbooks.record import envelope, index, keys, log, statement, verification
from runbooks.record.archive import Archive
from runbooks.record.verification import Verdict

FACTS = {"section": "6.4.4", "runbook": "6.4.4-enable-serving-metrics", "mode": "apply", "outcome": "done and proven"}


def build(path: Path, key: keys.PrivateKey, count: int) -> Archive:
    """An archive of many runs with notebooks of 10 kB, made without waiting for the disk."""
    archive = Archive.open(path, signer=key)
    previous, lines, closes = log.digest((path / "ARCHIVE.json").read_bytes()), [], dict[str, str]()
    for number in range(count):
        moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=number)
        name = f"{moment:%Y%m%dT%H%M%SZ}-6.4.4-apply-{number:06x}"
        folder = path / "records" / name
        folder.mkdir()
        notebook = f'{{"cells": [], "number": {number}, "padding": "{"x" * 10_000}"}}'.encode()
        (folder / "6.4.4.ipynb").write_bytes(notebook)
        closes.clear()
        for phase in ("start", "intent", "result"):
            ended = phase == "result"
            subject = {"6.4.4.ipynb": log.digest(notebook)} if ended else {f"run:{name}": log.digest(name.encode())}
            place = statement.Place(archive.id, phase, len(lines) + 1, previous, name, dict(closes), moment)
            facts = {**FACTS, "reason": f"証明書を更新した。Run {number}"} if ended else {}
            text = envelope.sign(statement.make(place, subject, facts), key)
            (folder / f"{phase}.dsse.json").write_bytes(text)
            previous = closes[phase] = log.digest(text)
            lines.append(log.Entry(place.sequence, phase, name, previous, statement.stamp(moment)).line())
    (path / "log.jsonl").write_bytes(b"".join(lines))
    head = log.sign_head(archive.id, len(lines), log.digest(b"".join(lines)), key)
    (path / "head").write_text(f"{head.line()}\n")
    return archive


def best_of(count: int, work: Callable[[], object]) -> float:
    """The shortest time, for the machine may have other things to do."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.soak)])
def test_many_are_verified_and_searched_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(index.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setattr(verification, "_MANY", 100)  # also a sample is shared among processes
    key = keys.create(tmp_path / "key" / "signing.key")
    archive = build(tmp_path / "archive", key, count)
    report = verification.verify(archive, [key.public])
    assert (Verdict.VERIFIED, count, 3 * count) == (report.verdict, len(report.records), report.entries)
    verified = best_of(3, lambda: verification.verify(archive, [key.public]))
    made = best_of(1, lambda: index.search(archive, ["absent"]))
    searched = best_of(3, lambda: index.search(archive, ["証明書", "更新", str(count - 1)]))
    assert f"{count - 1:06x}" in {found.id[-6:] for found in index.search(archive, ["証明書", str(count - 1)])}
    appended = best_of(3, lambda: archive.begin({}).finish(None, {})) / 2
    print(f"\n{count:,} records: verified in {verified:.2f} s, index made in {made:.2f} s, "
          f"searched in {searched:.3f} s, an entry added in {appended * 1000:.0f} ms")  # fmt: skip
    assert verified < 3
    assert searched < 0.2
