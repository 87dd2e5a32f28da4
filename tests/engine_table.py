"""Play everything that can end a run under stock papermill and under this engine, and write docs/engine.md."""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from runbooks.record import keys
from runbooks.record.archive import Archive
from runbooks_sandbox import lifecycle
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.state import State
from tests import engine_cases as cases
from tests.engine_cases import CASES, OURS, STOCK, Case, Seen

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "engine.md"
ROUNDS = 7
KILLS = 100
RUNBOOKS_RUN = (  # what `runbooks run` does around the notebook
    "import sys; from pathlib import Path; from runbooks import run; "
    "run._engine().execute(Path(sys.argv[1]), Path(sys.argv[2]), {})"
)

HEAD = """# What a notebook says of its own run

Written by `python -m tests.engine_table`, which `make soak` runs. Each case is a notebook of three cells, *before*,
*during* and *after*, and something that happens in the second. A cell says `completed` only where it was, the one that
ran when the run ended says `failed`, and one that never ran says `pending`; **bold** is untrue. The engine also writes
into the notebook's metadata, `papermill.ended`, why the run ended, in a sentence, and which cell was running.

| case | stock papermill | this engine |
|---|---|---|
"""

FOOT = """
## Writing

The notebook is written to a spare file beside it, which is renamed over it, and at most a tenth of the time goes into
that; an output that is there already is never overwritten. The spare's space is allocated beforehand, so that a full
disk leaves room for the words that say so. A runner that is killed (SIGKILL) or loses power leaves the last state and
perhaps a spare, `.runbooks-….part`, and two small folders `runbooks-…` among the temporary files, which can be deleted;
the kernel's own holds what it wrote there, for example the client key of the kubeconfig (mode 0600). The kernel ends by
itself within a second or so.

A full disk is noticed at the next write, which may be a cell later; no further cell is sent then.

## What is stricter than papermill

A failing `!command` fails its cell; so do `quit()`, an exception that is shown and not raised, and one in a cell
tagged `raises-exception`. A cell tagged `skip-execution` stays `pending`. The output is a file on this machine. Exit
codes of `papermill --engine runbooks`: 1 for a failed cell, 138 where the kernel died, 130, 143 and 129 for SIGINT,
SIGTERM and SIGHUP. A kernel that does not run ipykernel has no failing `!command`.

The kernel is spoken to over Unix sockets in a private folder. One port on 127.0.0.1 stays: ipykernel's own, for what
forked children of the kernel print; it takes only messages that carry a random key.

## Time

A notebook of twelve cells, whole process, median of {rounds} rounds side by side:

| | s | |
|---|---|---|
"""


def says(case: Case, seen: Seen) -> str:
    """A result, in bold where it is untrue."""
    fine = seen.states == case.states and (seen.code != 0) == (case.code != 0) and not seen.orphan
    return seen.says() if fine else f"**{seen.says()}**"


def table(folder: Path) -> str:
    """A line for each case."""
    lines = []
    for number, case in enumerate(CASES):
        if case.meanwhile is cases.let_memory_run_out and not cases.can_limit_memory():
            continue
        seen = [says(case, cases.run(case, engine, folder / f"{number}-{engine}")) for engine in (STOCK, OURS)]
        lines.append(f"| {case.name} | {seen[0]} | {seen[1]} |\n")
        print(lines[-1], end="", flush=True)
    return "".join(lines)


def disks(folder: Path) -> str:
    """What a full disk and a read-only one leave behind; empty where this user may not mount any."""
    lines = []
    for name, options, sources in (
        ("disk full", "size=1m", cases.FILLS_UP),
        ("read-only folder", "size=1m,ro", ("open('began', 'w').close()",)),
    ):
        said = []
        for engine in (STOCK, OURS):
            here = folder / f"{name}-{engine}"
            here.mkdir()
            try:
                with cases.mounted(here / "disk", options) as disk:
                    done = cases.run_on(disk, engine, *sources)
                    states, how, _ = cases.read(disk / "out.ipynb")
            except PermissionError:
                return ""
            seen = Seen(done.returncode, states, how, None, done.stderr, 0, orphan=False)
            ran = (here / "began").exists()
            text = f"{seen.says()}; {'cells' if ran else 'no cell'} ran"
            said.append(f"**{text}**" if ran and states is None else text)
        lines.append(f"| {name} | {said[0]} | {said[1]} |\n")
    return "".join(lines)


def kills(folder: Path) -> str:
    """What runners leave behind that are killed."""
    instants = random.Random(1)
    moments = [instants.uniform(0, 2) for _ in range(KILLS)]
    keys.create(folder / "signing.key")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        playing = [pool.submit(lambda e=engine: list(cases.killed(e, folder, moments))) for engine in (STOCK, OURS)]
    stock, ours = (one.result() for one in playing)
    said = []
    for found in (stock, ours):
        unreadable, orphans = sum(one.states is None for one in found), sum(one.orphans for one in found)
        text = f"{unreadable} unreadable, {orphans} kernels left"
        said.append(f"**{text}**" if unreadable or orphans else text)
    announced = [one.announced for one in ours if one.announced]
    good = cases.recorded(folder, announced)
    record = (
        f"{len(announced)} record ids printed, {'one good record of each' if good else '**not one record of each**'}"
    )
    return f"| runner: SIGKILL at {KILLS} instants | {said[0]} | {said[1]}; {record} |\n"


def server_gone(folder: Path) -> str:
    """What is said where the API server goes away while 6.4.3 waits for what it wrote."""
    said = []
    for engine in (STOCK, OURS):
        state = State(f"gone-{engine}", folder / "serverless-mesh-runbooks" / "sandbox")
        lifecycle.start(state, Played(), Console(file=io.StringIO()))
        try:
            said.append(_without_server(folder, engine, state))
        finally:
            lifecycle.stop(state)
    return f"| API server gone in the middle of a step (6.4.3) | {said[0]} | {said[1]} |\n"


def _without_server(folder: Path, engine: str, state: State) -> str:
    environment = {"XDG_STATE_HOME": str(folder), "RUNBOOKS_SANDBOX": state.name}
    environment |= {"RUNBOOKS_RECORDS": str(folder / "gone"), "RUNBOOKS_KEY": str(folder / "signing.key")}
    given = ROOT / "parameters" / "sandbox"
    command = [Path(sys.executable).parent / "runbooks", "run", "6.4.2", "--mode", "apply", "--parameters", given]
    subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True, timeout=120)
    state.keep_faults({"stuck-operators": ""})  # so that the step has a middle
    stem = "6.4.3-integrate-service-mesh"
    target = folder / f"gone-{engine}.ipynb"
    arguments = ["-f", str(given / "cluster.yaml"), "-f", str(given / f"{stem}.yaml"), "-p", "mode", "apply"]
    process = cases.start(
        engine, ROOT / "notebooks" / f"{stem}.ipynb", target, *arguments, "-p", "timeout_s", "20", **environment
    )
    cases.eventually(lambda: target.exists() and b"is not configured" in target.read_bytes(), 60)
    lifecycle.stop(state)
    process.communicate(timeout=120)
    cells = json.loads(target.read_bytes())["cells"]
    states = {cell.get("id"): cell["metadata"].get("papermill", {}).get("status") for cell in cells}
    text = f"exit {process.returncode}; the cell *verdict* {states.get('verdict', 'is not there')}"
    if engine == STOCK:
        return text
    archive = Archive.open(folder / "gone")
    (record,) = (one for one in archive.records() if "6.4.3" in one.id)
    return f"{text}; one record: {record.facts()['outcome']['outcome']}, {record.facts()['outcome']['reason']}"


def seconds(folder: Path) -> Mapping[str, float]:
    """How long a notebook of twelve cells takes."""
    source = cases.notebook(folder / "twelve.ipynb", *["1"] * 12)
    papermill = str(Path(sys.executable).parent / "papermill")
    commands = {
        "`papermill`": [papermill, "--no-progress-bar"],
        "`papermill --engine runbooks`": [papermill, "--no-progress-bar", "--engine", OURS],
        "`runbooks run`": [sys.executable, "-c", RUNBOOKS_RUN],
    }
    took: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(ROUNDS):
        for name, command in commands.items():
            target = folder / f"{len(took[name])}-{list(commands).index(name)}-{number}.ipynb"
            began = time.monotonic()
            subprocess.run([*command, source, target], capture_output=True, check=True)
            took[name].append(time.monotonic() - began)
    return {name: statistics.median(found) for name, found in took.items()}


def main() -> None:
    """Write the page."""
    cases.as_in_a_terminal()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = seconds(folder)
        page = HEAD + table(folder) + disks(folder) + kills(folder) + server_gone(folder) + FOOT.format(rounds=ROUNDS)
    stock = found["`papermill`"]
    page += "".join(f"| {name} | {took:.2f} | {took / stock:.2f} |\n" for name, took in found.items())
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
