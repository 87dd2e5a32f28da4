"""Everything that can end a run: a notebook of three cells, and what is done to it while its second cell runs."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil

from runbooks import recovery
from runbooks.record import keys, verification
from runbooks.record.archive import Archive, unfinished
from runbooks.record.verification import Verdict

# The command papermill, with the import blocked that takes it 0.7 s: the tests have 2 cores.
PAPERMILL = (
    sys.executable,
    "-c",
    "import sys; sys.modules['rfc3987_syntax'] = None; from papermill.cli import papermill; papermill()",
)
STOCK, OURS = "nbclient", "runbooks"
WAIT = "open('running', 'w').close(); import time; time.sleep(30)"
COMPLETED, FAILED, PENDING = "completed", "failed", "pending"
DONE = (COMPLETED, COMPLETED, COMPLETED)
HALTED = (COMPLETED, FAILED, PENDING)
MEMORY = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Case:
    """One way to end.

    Args:
        name: as the table says it.
        source: of the second cell.
        reason: what the notebook has to say.
        code: the exit code under ours.
        states: what is true of the three cells.
        arguments: more of papermill's.
        meanwhile: what is done while the second cell runs.
        said: a part of what the notebook says.
    """

    name: str
    source: str
    reason: str = "exception"
    code: int = 1
    states: tuple[str, ...] = HALTED
    arguments: tuple[str, ...] = ()
    meanwhile: Callable[[subprocess.Popen[str], Path], None] | None = None
    said: str = ""


@dataclass(frozen=True)
class Seen:
    """What became of a case."""

    code: int
    states: tuple[str, ...] | None  # None: there is no notebook, or it cannot be read
    how: Mapping[str, Any]
    failed: bool | None
    stderr: str
    took: float
    orphan: bool  # whether the kernel still ran a second after papermill

    def says(self) -> str:
        """For the table."""
        if self.states is None:
            return f"exit {self.code}; no readable notebook"
        states = ", ".join(self.states)
        why = f"; {self.how['reason']}" if self.how.get("reason", "completed") != "completed" else ""
        return f"exit {self.code}; {states}{why}" + ("; the kernel runs on" if self.orphan else "")


def notebook(path: Path, *sources: str, **more: str) -> Path:
    """A notebook of code cells; ids are before, during, after."""
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}, **more}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell, name in zip(cells, ("before", "during", "after", *map(str, range(len(cells)))), strict=False):
        cell["id"] = name
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={**metadata, "language_info": {"name": "python"}}), path
    )
    return path


def as_in_a_terminal() -> None:
    """Let this process hand down no ignored signals, as one in the background of a shell does."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def start(engine: str, source: Path, target: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Papermill, as its own process."""
    command = [*PAPERMILL, "--engine", engine, "--no-progress-bar", *arguments, str(source), str(target)]
    return subprocess.Popen(
        command,
        cwd=source.parent,
        env={**os.environ, **environment},
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(case: Case, engine: str, folder: Path) -> Seen:
    """Play a case."""
    folder.mkdir(exist_ok=True)
    first = "import os; open('kernel', 'w').write(str(os.getpid())); 1"
    source, target = notebook(folder / "in.ipynb", first, case.source, "2"), folder / "out.ipynb"
    process = start(engine, source, target, *case.arguments)
    began = time.monotonic()
    if case.meanwhile:
        eventually((folder / "running").exists)
        began = time.monotonic()
        case.meanwhile(process, folder)
    _, stderr = process.communicate(timeout=60)
    took = time.monotonic() - began
    return Seen(process.returncode, *read(target), stderr, took, runs_on(folder))


@dataclass(frozen=True)
class Killed:
    """What a runner that got a SIGKILL left behind."""

    states: tuple[str, ...] | None
    finished: bool
    orphans: int
    announced: str  # the id of its record, where one was printed

    @property
    def possible(self) -> bool:
        """Whether the states can be those of a run that was cut off: done, then one that runs, then none."""
        order = ("completed", "running", "pending")
        found = list(self.states or ())
        return self.finished or (sorted(found, key=order.index) == found and found.count("running") <= 1)


def killed(engine: str, folder: Path, instants: Iterable[float]) -> Iterator[Killed]:
    """Kill runners at these many seconds after they began to write; ours keeps records in ``folder/records``."""
    sources = ["import time; time.sleep(0.02); print('x' * 20_000)"] * 40
    source = notebook(folder / f"{engine}.ipynb", *sources, runbook="6.4.3")
    recording = {"RUNBOOKS_RECORDS": str(folder / "records"), "RUNBOOKS_KEY": str(folder / "signing.key")}
    for number, instant in enumerate(instants):
        target = folder / f"{engine}-{number}.ipynb"
        process = start(engine, source, target, **recording)
        eventually(target.exists)
        time.sleep(instant)
        kernels = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        _, stderr = process.communicate()
        states, how, _ = read(target)
        _, alive = psutil.wait_procs(kernels, timeout=3)
        printed = re.search(r"Record: +(\S+)", stderr)
        finished = bool(how) or set(states or ()) == {"completed"}
        yield Killed(states, finished, len(alive), printed[1] if printed else "")


def recorded(folder: Path, announced: Iterable[str]) -> bool:
    """Whether the archive has one good record of each announced run, closed by now, and no other."""
    key = keys.load(folder / "signing.key")
    archive = Archive.open(folder / "records", signer=key)
    for record in unfinished(archive.records()):
        recovery.close(archive, record)
    one_each = sorted(record.id for record in archive.records()) == sorted(announced)
    return one_each and verification.verify(archive, [key.public]).verdict is Verdict.VERIFIED


@contextlib.contextmanager
def mounted(folder: Path, options: str = "size=1m") -> Iterator[Path]:
    """A small file system.

    Raises:
        PermissionError: this user may not mount one.
    """
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if mount.returncode:
        raise PermissionError("this user may not mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


FILLS_UP = (
    "open('began', 'w').close(); print('kept')",
    "import time; print('early', flush=True); time.sleep(0.5); print('x' * 3_000_000)",
    "time.sleep(1)",  # gives the write that fails the time that is its share
    "open('ran', 'w').close()",
)


def run_on(disk: Path, engine: str, *sources: str) -> subprocess.CompletedProcess[str]:
    """Execute a notebook that lies beside a mounted file system, onto it."""
    process = start(engine, notebook(disk.parent / "in.ipynb", *sources), disk / "out.ipynb")
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess([], process.returncode, stdout, stderr)


def read(target: Path) -> tuple[tuple[str, ...] | None, Mapping[str, Any], bool | None]:
    """The states of the cells, how the notebook says that it ended, and whether by an exception."""
    try:
        found = json.loads(target.read_bytes())
    except (OSError, ValueError):
        return None, {}, None
    states = [
        cell["metadata"]["papermill"]["status"]
        for cell in found["cells"]
        if "papermill-error-cell-tag" not in cell["metadata"].get("tags", [])
    ]
    said = found["metadata"]["papermill"]
    return tuple(states), said.get("ended", {}), said["exception"]


def runs_on(folder: Path, patience_s: float = 1) -> bool:
    """Whether the kernel still runs after a while."""
    try:
        process = psutil.Process(int((folder / "kernel").read_text()))
        process.wait(patience_s)
    except (OSError, psutil.NoSuchProcess):
        return False
    except psutil.TimeoutExpired:
        return True
    return False


def eventually(holds: Callable[[], Any], timeout_s: float = 30) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def send(number: signal.Signals, process: subprocess.Popen[str], _: Path) -> None:
    """A signal to papermill."""
    process.send_signal(number)


def let_memory_run_out(_: subprocess.Popen[str], folder: Path) -> None:
    """Let the system's out-of-memory killer end the kernel, which takes more than its group may have."""
    with group(folder.name) as found:
        (found / "cgroup.procs").write_text((folder / "kernel").read_text())
        (folder / "limited").touch()
        eventually(lambda: not runs_on(folder, 0))


@contextlib.contextmanager
def group(name: str) -> Iterator[Path]:
    """A control group of little memory."""
    found = MEMORY / f"runbooks-{os.getpid()}-{name}"
    found.mkdir()
    (found / "memory.limit_in_bytes").write_text(str(96 << 20))
    yield found
    eventually(lambda: not (found / "cgroup.procs").read_text())
    found.rmdir()


def can_limit_memory() -> bool:
    """Whether this user may make control groups (of the first version, as they are on this machine)."""
    return os.access(MEMORY / "cgroup.procs", os.W_OK)


CASES = (
    Case("nothing", "1", "completed", 0, DONE),
    Case("exception", "1 / 0", said="ZeroDivisionError: division by zero"),
    Case(
        "kernel: SIGKILL", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "kernel died", 138, said="SIGKILL"
    ),
    Case("kernel: os._exit(0)", "import os; os._exit(0)", "kernel died", 138, said="exit code 0"),
    Case(
        "kernel: out of memory",
        "import os, time; open('running', 'w').close()\n"
        "while not os.path.exists('limited'): time.sleep(0.01)\n"
        "taken = b'x' * (1 << 30)",
        "kernel died",
        138,
        meanwhile=let_memory_run_out,
        said="memory",
    ),
    Case("Ctrl-C", WAIT, "signal", 130, meanwhile=functools.partial(send, signal.SIGINT), said="SIGINT"),
    Case("SIGTERM", WAIT, "signal", 143, meanwhile=functools.partial(send, signal.SIGTERM), said="SIGTERM"),
    Case("SIGHUP", WAIT, "signal", 129, meanwhile=functools.partial(send, signal.SIGHUP), said="SIGHUP"),
    Case(
        "cell takes too long",
        WAIT,
        "time-out",
        arguments=("--execution-timeout", "1"),
        said="no end in the cell during",
    ),
    Case(
        "cell takes too long, ignores the interrupt",
        "import time\ntry: time.sleep(20)\nexcept KeyboardInterrupt: pass",
        "time-out",
        arguments=("--execution-timeout", "1"),
    ),
    Case("sys.exit(0)", "import sys; sys.exit(0)", said="SystemExit"),
    Case("quit()", "quit()", said="QuitCalled"),
    Case("!false", "!false", said="CalledProcessError"),
    Case("x = !false", "x = !false", said="CalledProcessError"),
    Case("!false in a first line", "!false\n!true", said="CalledProcessError"),
    Case("unknown magic", "%nosuchmagic", said="nosuchmagic"),
    Case("input()", "input('name? ')", said="StdinNotImplementedError"),
    Case(
        "exception shown, not raised",
        "try: 1 / 0\nexcept ZeroDivisionError: get_ipython().showtraceback()",
        said="ZeroDivisionError",
    ),
    Case("10 MB of output", "for _ in range(100): print('x' * 99_999)", "completed", 0, DONE),
    Case("invalid UTF-8", r"!printf '\377\376 ok\n\0\n'", "completed", 0, DONE),
)
