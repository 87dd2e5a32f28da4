"""Real processes, real kills, a real disk that is full: what was announced has one record, and nothing is half said."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runbooks.errors import NotChecked, NotRecorded
from runbooks.record import archive as archives
from runbooks.record import keys
from runbooks.record.archive import Archive
from runbooks.record.verification import Verdict
from tests.records.conftest import Kept


def play_some(path: Path, key: Path, count: int) -> None:
    kept = Kept(Archive.open(path, signer=keys.load(key)), keys.load(key), path)
    for number in range(count):
        kept.play(number)


def test_two_hundred_runs_eight_at_a_time(tmp_path: Path) -> None:
    key = keys.create(tmp_path / "key" / "signing.key")
    # not forked, so that each one makes or finds the archive by itself
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=play_some, args=(tmp_path / "archive", tmp_path / "key" / "signing.key", 25))
        for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [0] * 8 == [worker.exitcode for worker in workers]
    report = Kept(Archive.open(tmp_path / "archive"), key, tmp_path).verify()
    assert (Verdict.VERIFIED, 200, 600) == (report.verdict, len(report.records), report.entries)
    assert [] == [*(tmp_path / "archive" / "tmp").iterdir()]


# --- kills ------------------------------------------------------------------------------------------------------------

CALLS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir", "link", "chmod", "ftruncate")


def killed_before(step: int, work: Callable[[], None]) -> bool:
    """Do the work in a process that is killed before its n-th call that touches the disk; whether it came to that."""
    child = os.fork()
    if child == 0:
        counter = itertools.count(1)

        def dying(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if next(counter) == step:
                    if name == "write":
                        real(args[0], args[1][: len(args[1]) // 2])  # half a file, half a line of the log
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return call

        for name in CALLS:
            setattr(os, name, dying(name, getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_a_kill_at_any_point_loses_nothing_and_leaves_nothing_half_said(tmp_path: Path) -> None:
    key = keys.create(tmp_path / "key" / "signing.key")
    path, told = tmp_path / "archive", tmp_path / "told"
    kept = Kept(Archive.open(path, signer=key), key, path)
    kept.play()
    told.touch()
    descriptor, write = os.open(told, os.O_WRONLY | os.O_APPEND), os.write

    def work() -> None:
        archive = Archive.open(path, signer=key)
        run = archive.begin({"section": "6.4.4"})
        write(descriptor, f"{run.id} start\n".encode())
        notebook = run.workspace / "6.4.4.ipynb"
        notebook.write_text("{}")
        run.intend({})
        write(descriptor, f"{run.id} intent\n".encode())
        run.finish(notebook, {"outcome": "done"})
        write(descriptor, f"{run.id} result\n".encode())

    kills = next(step for step in itertools.count() if not killed_before(step + 1, work))
    os.close(descriptor)
    assert kills > 60
    archive = Archive.open(path, signer=key)
    logged = {(entry.record, entry.phase) for entry in archive.read().entries}
    acknowledged = {tuple(line.split()) for line in told.read_text().splitlines()}
    assert set() == acknowledged - logged
    assert len(logged) == len(archive.read().entries)
    report = kept.verify()
    assert {Verdict.VERIFIED, Verdict.INCOMPLETE} == {record.verdict for record in report.records}, report
    assert () == report.found
    for record in archives.unfinished(archive.records()):
        with archive.taken_over(record) as run:
            run.close("recovery", archive.left_behind(record.id), {"outcome": "unknown"})
    assert Verdict.VERIFIED is kept.verify().verdict


def test_after_each_kill_the_next_one_goes_on(tmp_path: Path) -> None:
    """Kills while the half-said is being finished: whoever comes after that finishes it."""
    key = keys.create(tmp_path / "key" / "signing.key")
    kept = Kept(Archive.open(tmp_path / "archive", signer=key), key, tmp_path)
    kept.play()

    def work() -> None:
        Archive.open(tmp_path / "archive", signer=key).begin({"section": "6.4.4"})

    for step in range(10, 50, 4):
        for again in range(1, 25, 4):
            killed_before(step, work)
            killed_before(again, Archive.open(tmp_path / "archive").settle)
    kept.archive.settle()
    assert {Verdict.VERIFIED, Verdict.INCOMPLETE} == {record.verdict for record in kept.verify().records}
    assert () == kept.verify().found


# --- a disk that is full ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path, leave: int) -> None:
    """Take all room but some pages."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    os.truncate(path, max(0, path.stat().st_size - leave * 4096))


def test_a_full_disk_destroys_nothing_and_the_run_is_recorded_once_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    key = keys.create(tmp_path / "key" / "signing.key")
    kept = Kept(Archive.open(small_disk / "archive", signer=key), key, tmp_path)
    kept.play()
    refused = 0
    for pages in range(12):
        before = kept.archive.read().count
        fill(small_disk / "ballast", pages)
        try:
            run = kept.archive.begin({"section": "6.4.4"})
            try:
                run.finish(None, {"outcome": "done"})
            finally:
                run.leave()
        except NotRecorded as error:
            refused += error.said == "the disk is full"
        report = kept.verify()
        assert () == report.found, report
        assert {Verdict.VERIFIED, Verdict.INCOMPLETE} >= {record.verdict for record in report.records}
        assert kept.archive.read().count >= before
        (small_disk / "ballast").unlink()
    assert 0 < refused < 12
    run = kept.archive.begin({"section": "6.4.4"})
    notebook = run.workspace / "6.4.4.ipynb"
    notebook.write_bytes(b"x" * 60_000)
    fill(small_disk / "ballast", 0)
    with pytest.raises(NotRecorded, match="the disk is full"):
        run.finish(notebook, {"outcome": "done"})
    assert 60_000 == notebook.stat().st_size
    (small_disk / "ballast").unlink()
    run.finish(notebook, {"outcome": "done"})
    assert "finished" == kept.archive.record(run.id).state


# --- somebody else, who may only look ---------------------------------------------------------------------------------


def test_whoever_may_only_read_can_check(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    key = keys.create(tmp_path / "key" / "signing.key")
    folder = Path("/tmp") / f"archive-{os.getpid()}"  # pytest's own folders are closed to others
    try:
        kept = Kept(Archive.open(folder, signer=key), key, tmp_path)
        kept.play()
        done = kept.archive.begin({})

        def look() -> None:
            os.setuid(65534)
            verdicts = {record.verdict for record in kept.verify().records}
            os._exit(0 if verdicts == {Verdict.VERIFIED, Verdict.INCOMPLETE} and not kept.verify().found else 1)

        assert 0 == in_a_process(look)
        (folder / "tmp" / "next").mkdir(mode=0o700)
        (folder / "tmp" / "next" / "entry.json").touch()

        def look_again() -> None:
            os.setuid(65534)
            with contextlib.suppress(NotChecked):
                kept.verify()
                os._exit(1)
            os._exit(0)

        assert 0 == in_a_process(look_again)
        done.leave()
    finally:
        shutil.rmtree(folder)


def in_a_process(work: Callable[[], None]) -> int:
    """Its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
