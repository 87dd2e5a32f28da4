"""What an executed notebook says of its own run, however it ended: real papermill processes with real kernels."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from runbooks import run as runs
from runbooks.errors import RunbookError, UsageError
from runbooks.keeper import MIME
from runbooks.record import keys, verification
from runbooks.record.archive import Archive
from runbooks.record.verification import Verdict
from tests import engine_cases as cases
from tests.engine_cases import CASES, HALTED, OURS, STOCK, Case, Seen

NAMED = {case.name: case for case in CASES}
LIES = ("kernel: os._exit(0)", "sys.exit(0)", "!false")  # three of stock papermill's, to know them when they are gone
engine = runs._engine()


Played = Mapping[str, tuple[Path, "concurrent.futures.Future[Seen]"]]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The cases that are asked for, three at a time: a kernel that starts leaves a core idle now and then."""
    cases.as_in_a_terminal()
    asked = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    found = {case.name: tmp_path_factory.mktemp("case") for case in CASES if case.name in asked}
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        yield {name: (folder, pool.submit(cases.run, NAMED[name], OURS, folder)) for name, folder in found.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_says_truly_how_it_ended(case: Case, played: Played) -> None:
    if case.meanwhile is cases.let_memory_run_out and not cases.can_limit_memory():
        pytest.skip("this user may not make a control group of little memory")
    folder, playing = played[case.name]
    seen = playing.result()
    assert (case.code, case.states) == (seen.code, seen.states), seen.stderr
    assert case.reason == seen.how["reason"]
    assert case.said in seen.how["said"]
    assert ("during" if case.states == HALTED else "") == seen.how["cell"]
    assert (True if case.states == HALTED else None) == seen.failed
    assert not seen.orphan
    assert "never retrieved" not in seen.stderr
    assert "was destroyed" not in seen.stderr
    assert case.states == HALTED or "WARNING" not in seen.stderr
    assert [] == list(folder.glob(".*")), "a spare file is left"
    if case.reason == "signal":
        assert seen.took < 3, "the kernel ends within a second, papermill soon after"
    if case.states == HALTED:
        failed = nbformat.read(folder / "out.ipynb", as_version=4).cells[1]
        assert "error" in [output.output_type for output in failed.outputs], "a reader sees it in the cell"


@pytest.mark.parametrize("name", LIES)
def test_stock_papermill_does_not(name: str, tmp_path: Path) -> None:
    case = NAMED[name]
    seen = cases.run(case, STOCK, tmp_path)
    assert (case.code, case.states) != (seen.code, seen.states)


def test_keeps_what_is_not_utf_8(tmp_path: Path) -> None:
    source = cases.notebook(tmp_path / "in.ipynb", r"!printf '\377 ok\n\0\n'", "1")
    content = json.loads(source.read_text())
    content["cells"][1]["source"] = ["# \ud800 日本"]
    source.write_text(json.dumps(content))
    process = cases.start(OURS, source, tmp_path / "out.ipynb")
    process.communicate(timeout=60)
    bytes_, surrogate = json.loads((tmp_path / "out.ipynb").read_bytes())["cells"]
    assert "\ufffd ok" in "".join(line for output in bytes_["outputs"] for line in output["text"])
    assert ["# \ud800 日本"] == surrogate["source"]


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(cases.mounted(tmp_path / "disk", getattr(request, "param", "size=1m")))
        except PermissionError as error:
            pytest.skip(str(error))
        yield found


def test_a_full_disk_destroys_nothing(disk: Path) -> None:
    done = cases.run_on(disk, OURS, *cases.FILLS_UP)
    assert 1 == done.returncode
    assert "No space left on device" in done.stderr
    states, how, failed = cases.read(disk / "out.ipynb")
    assert states is not None
    assert ("completed", "completed", "pending") == (*states[:2], states[3])
    assert ("out of disk", True) == (how["reason"], failed)
    assert not (disk.parent / "ran").exists(), "a cell ran without a record"
    text = (disk / "out.ipynb").read_text()
    assert "kept" in text
    assert '"early' in text
    assert "More output is lost: the notebook could not be written: No space left on device" in text
    assert ["out.ipynb"] == [path.name for path in disk.iterdir()]


def test_a_disk_that_others_fill_up(disk: Path) -> None:
    fill = f"open('{disk}/filler', 'wb').write(b'x' * 2_000_000)"
    done = cases.run_on(disk, OURS, "print('kept')", fill, "1")
    assert 1 == done.returncode
    states, how, _ = cases.read(disk / "out.ipynb")
    assert HALTED == states
    assert ("exception", "during") == (how["reason"], how["cell"])


def test_stock_papermill_destroys_what_it_had_written(disk: Path) -> None:
    cases.run_on(disk, STOCK, *cases.FILLS_UP)
    assert cases.read(disk / "out.ipynb")[0] is None


@pytest.mark.parametrize("disk", ["size=1m,ro"], indirect=True)
def test_a_folder_that_cannot_be_written_runs_nothing(disk: Path) -> None:
    done = cases.run_on(disk, OURS, "open('ran', 'w').close()")
    assert 1 == done.returncode
    assert "Read-only file system" in done.stderr
    assert not (disk.parent / "ran").exists()


class TestTarget:
    def test_that_is_there_already_is_left_alone(self, tmp_path: Path) -> None:
        source = cases.notebook(tmp_path / "in.ipynb", "open('ran', 'w').close()")
        target = tmp_path / "out.ipynb"
        target.write_text("mine")
        with pytest.raises(UsageError, match="never overwritten"):
            engine.execute(source, target, {})
        assert "mine" == target.read_text()
        assert {"in.ipynb", "out.ipynb"} == {path.name for path in tmp_path.iterdir()}

    @pytest.mark.parametrize("name", ["-", "https://example.invalid/out.ipynb"])
    def test_that_is_no_file_here_is_refused(self, tmp_path: Path, name: str) -> None:
        source = cases.notebook(tmp_path / "in.ipynb", "open('ran', 'w').close()")
        done = subprocess.run(
            [*cases.PAPERMILL, "--engine", OURS, str(source), name], cwd=tmp_path, capture_output=True, text=True
        )
        assert 1 == done.returncode
        assert "a record is kept in a file on this machine" in done.stderr
        assert ["in.ipynb"] == [path.name for path in tmp_path.iterdir()]

    def test_is_written_while_a_cell_runs(self, tmp_path: Path) -> None:
        source = cases.notebook(tmp_path / "in.ipynb", "1", f"print('said', flush=True); {cases.WAIT}")
        process = cases.start(OURS, source, tmp_path / "out.ipynb")
        cases.eventually((tmp_path / "running").exists)
        cases.eventually(lambda: b'"said' in (tmp_path / "out.ipynb").read_bytes())
        assert ("completed", "running") == cases.read(tmp_path / "out.ipynb")[0]
        process.terminate()
        process.communicate(timeout=10)


def survives(folder: Path, instants: Sequence[float]) -> None:
    keys.create(folder / "signing.key")
    announced = []
    for instant, found in zip(instants, cases.killed(OURS, folder, instants), strict=True):
        assert found.states is not None, (instant, "the notebook cannot be read")
        assert found.possible, (instant, found.states)
        assert not found.orphans, instant
        announced.append(found.announced)
    assert all(announced)
    assert cases.recorded(folder, announced)


def test_a_killed_runner_leaves_a_readable_notebook_one_record_and_no_kernel(tmp_path: Path) -> None:
    survives(tmp_path, [random.uniform(0, 1.2) for _ in range(5)])


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_runner_killed_at_a_hundred_instants(tmp_path: Path) -> None:
    survives(tmp_path, [random.uniform(0, 2) for _ in range(100)])


def test_writing_takes_a_tenth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[tuple[float, float]] = []
    save = engine._State.save

    def measured(self: Any, **more: Any) -> None:
        began = time.monotonic()
        save(self, **more)
        writes.append((began, time.monotonic()))

    monkeypatch.setattr(engine._State, "save", measured)
    source = cases.notebook(tmp_path / "in.ipynb", *["print('x' * 20_000)"] * 100)
    engine.execute(source, tmp_path / "out.ipynb", {})
    assert len(writes) > 2
    for (began, ended), (next_began, _) in itertools.pairwise(writes):  # the last one aside, which is always made
        assert next_began - ended > 8.5 * (ended - began)
    assert {"completed"} == set(cases.read(tmp_path / "out.ipynb")[0] or ())


# --- who keeps the record ----------------------------------------------------------------------------------------


class Notes:
    """A keeper that writes down what it is told, and refuses where a test wants it."""

    def __init__(self, refuses: str = "") -> None:
        self.told: list[Any] = []
        self.refuses = refuses
        self.digest = ""

    def _note(self, name: str, *what: Any) -> None:
        self.told.append((name, *what))
        if name == self.refuses:
            raise RunbookError("signing the entry", "the archive is full")

    def began(self) -> None:
        self._note("began")

    def planned(self, value: dict[str, Any]) -> None:
        self._note("planned", value["digest"])

    def ended(self, notebook: Path, how: Mapping[str, Any]) -> None:
        self.digest = hashlib.sha256(notebook.read_bytes()).hexdigest()
        self._note("ended", how["reason"])


def planning(folder: Path) -> Path:
    """A notebook whose second cell is a plan and whose third leaves a trace."""
    shown = json.dumps({MIME: {"view": "plan", "digest": "plan-sha256:1"}})
    show = f"from IPython.display import display; display({shown}, raw=True)"
    path = cases.notebook(folder / "in.ipynb", "open('kernel', 'w').close()", show, "open('ran', 'w').close()")
    path.write_text(path.read_text().replace('"during"', '"plan"'))
    return path


class TestKeeper:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_is_told_of_the_beginning_the_plan_and_the_end(self, tmp_path: Path) -> None:
        notes, target = Notes(), tmp_path / "out.ipynb"
        engine.execute(planning(tmp_path), target, {}, keeper=notes)
        assert [("began",), ("planned", "plan-sha256:1"), ("ended", "completed")] == notes.told
        assert notes.digest == hashlib.sha256(target.read_bytes()).hexdigest(), "written after it was signed"
        assert (tmp_path / "ran").exists()

    def test_who_refuses_the_beginning_keeps_the_kernel_from_starting(self, tmp_path: Path) -> None:
        notes = Notes("began")
        with pytest.raises(RunbookError, match="the archive is full"):
            engine.execute(planning(tmp_path), tmp_path / "out.ipynb", {}, keeper=notes)
        assert [("began",)] == notes.told
        assert not (tmp_path / "kernel").exists()
        states, how, failed = cases.read(tmp_path / "out.ipynb")
        assert (("pending",) * 3, "not recorded", True) == (states, how["reason"], failed)

    def test_who_refuses_the_plan_keeps_the_next_cell_from_being_sent(self, tmp_path: Path) -> None:
        notes = Notes("planned")
        with pytest.raises(RunbookError, match="the archive is full"):
            engine.execute(planning(tmp_path), tmp_path / "out.ipynb", {}, keeper=notes)
        assert ["began", "planned", "ended"] == [name for name, *_ in notes.told]
        assert not (tmp_path / "ran").exists()
        states, how, failed = cases.read(tmp_path / "out.ipynb")
        assert (("completed", "completed", "pending"), "not recorded", True) == (states, how["reason"], failed)

    def test_who_cannot_note_the_end_fails_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(RunbookError, match="the archive is full"):
            engine.execute(planning(tmp_path), tmp_path / "out.ipynb", {}, keeper=Notes("ended"))
        assert {"completed"} == set(cases.read(tmp_path / "out.ipynb")[0] or ())

    def test_is_told_of_a_failure(self, tmp_path: Path) -> None:
        notes, source = Notes(), cases.notebook(tmp_path / "in.ipynb", "1", "1 / 0", "1")
        with pytest.raises(engine.CellFailed, match="the cell during failed"):
            engine.execute(source, tmp_path / "out.ipynb", {}, keeper=notes)
        assert [("began",), ("ended", "exception")] == notes.told
        assert notes.digest == hashlib.sha256((tmp_path / "out.ipynb").read_bytes()).hexdigest()


# --- beside other things -----------------------------------------------------------------------------------------


def test_runs_in_a_thread_that_has_a_loop_and_beside_another_run(tmp_path: Path) -> None:
    """As Airflow or a notebook would call it: outside of the main thread, which alone has signals."""
    source = cases.notebook(tmp_path / "in.ipynb", "1")

    def inside(name: str) -> None:
        async def call() -> None:
            engine.execute(source, tmp_path / name, {})

        asyncio.run(call())

    # papermill changes the folder of the whole process for a moment, so that two threads need absolute paths
    threads = [threading.Thread(target=inside, args=(f"{number}.ipynb",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [("completed",)] * 2 == [cases.read(tmp_path / f"{number}.ipynb")[0] for number in range(2)]


def test_a_path_with_braces_and_a_relative_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = cases.notebook(tmp_path / "{a} 日本.ipynb", "1")
    engine.execute(source, Path("{b}.ipynb"), {"a": 1}, cwd="/")
    assert (tmp_path / "{b}.ipynb").exists()


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    source = cases.notebook(tmp_path / "in.ipynb", "1", "open('running', 'w').close(); import time; time.sleep(0.5)")
    command = [*cases.PAPERMILL, "--engine", OURS, str(source), str(tmp_path / "out.ipynb")]
    process = subprocess.Popen(["nohup", *command], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cases.eventually((tmp_path / "running").exists)
    process.send_signal(1)
    assert 0 == process.wait(20)


def test_the_entry_point_costs_other_papermill_commands_nothing() -> None:
    code = "import sys; import runbooks.papermill_engine; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"papermill", "pydantic", "kubernetes", "runbooks.step", "runbooks.engine"} & set(
        json.loads(done.stdout.replace("'", '"'))
    )


def record_of_a_runbook(
    folder: Path, key: Path, *cells: str, given: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Plain papermill with this engine, on a notebook that says that it is a runbook."""
    source = cases.notebook(folder / "in.ipynb", *cells, runbook="6.4.3")
    command = [*cases.PAPERMILL, "--engine", OURS, "-p", "mode", "verify", *given]
    command += [str(source), str(folder / "out.ipynb")]
    environment = {**os.environ, "RUNBOOKS_KEY": str(key), "RUNBOOKS_RECORDS": str(folder / "archive")}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_plain_papermill_leaves_a_signed_record_too(tmp_path: Path) -> None:
    signer = keys.create(tmp_path / "signing.key")
    done = record_of_a_runbook(tmp_path, tmp_path / "signing.key", "open('ran', 'w').close()", "1 / 0")
    assert (1, True) == (done.returncode, (tmp_path / "ran").exists()), done.stderr
    archive = Archive.open(tmp_path / "archive")
    (record,) = archive.records()
    assert f"Record:          {record.id}" in done.stderr
    assert ["start", "result"] == [entry.phase for entry in record.entries]
    kept = record.folder / "out.ipynb"
    assert kept.read_bytes() == (tmp_path / "out.ipynb").read_bytes()
    assert "failed" in json.dumps(record.facts().get("outcome"))
    assert Verdict.VERIFIED == verification.verify(archive, [signer.public]).verdict


def test_plain_papermill_runs_no_runbook_without_a_key(tmp_path: Path) -> None:
    done = record_of_a_runbook(tmp_path, tmp_path / "none.key", "open('ran', 'w').close()")
    assert 1 == done.returncode
    assert "runbooks keys init" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.ipynb").exists()


CANARIES = {  # by form: what a cell prints of a credential that looks like nothing in particular
    "raw": "print('x' + TOKEN)",
    "base64": "import base64; print(base64.b64encode(b'a' + TOKEN.encode()).decode())",
    "in a traceback": "raise ValueError(TOKEN)",
    "in metadata": "from IPython.display import display; display({'text/plain': 'x'}, raw=True, metadata={'t': TOKEN})",
}


@pytest.mark.parametrize("cell", CANARIES.values(), ids=CANARIES)
def test_no_credential_of_the_kubeconfig_gets_into_the_archive(cell: str, tmp_path: Path) -> None:
    canary = "-".join(("correct", "horse", "battery", "staple"))
    users = f"users: [{{name: nightly, user: {{token: {canary}}}}}]"
    (tmp_path / "kubeconfig").write_text(users)
    keys.create(tmp_path / "signing.key")
    read = "TOKEN = open('kubeconfig').read().split('token: ')[1].split('}')[0]"
    given = ("-p", "context", "prod", "-p", "kubeconfig", str(tmp_path / "kubeconfig"))
    done = record_of_a_runbook(tmp_path, tmp_path / "signing.key", read, cell, given=given)
    assert 1 == done.returncode
    assert "token of user nightly in kubeconfig in the cell during" in done.stderr
    (record,) = Archive.open(tmp_path / "archive").records()
    assert "failed: secret found" in json.dumps(record.facts())
    holding = [
        path for path in (tmp_path / "archive").rglob("*") if path.is_file() and canary.encode() in path.read_bytes()
    ]
    assert {"quarantine"} >= {path.relative_to(tmp_path / "archive").parts[0] for path in holding}
    quarantined = [path for path in (tmp_path / "archive" / "quarantine").rglob("*") if path.is_file()]
    assert [0o600] == [path.stat().st_mode & 0o777 for path in quarantined]


def test_talks_to_the_kernel_over_no_port(tmp_path: Path) -> None:
    """One port is left: ipykernel's own, on which forked children of the kernel give back what they print."""
    source = cases.notebook(tmp_path / "in.ipynb", "1", cases.WAIT)
    process = cases.start(OURS, source, tmp_path / "out.ipynb")
    cases.eventually((tmp_path / "running").exists)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    ports = [found for member in family for found in member.net_connections("inet")]
    assert len(ports) <= 1
    assert {"127.0.0.1"} >= {port.laddr.ip for port in ports}
    folder = Path(family[1].cmdline()[-1]).parent if family[1].cmdline()[-2] == "-f" else None
    process.terminate()
    process.communicate(timeout=10)
    assert folder is None or not folder.exists()
