"""Measure what a user waits for, on this machine, and write docs/measurements.md.

Every figure is the median of several runs in fresh sandboxes, side by side in one call; trust the ratios.
"""

from __future__ import annotations

import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_namespaces
from rich.console import Console

from runbooks_sandbox import lifecycle
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.state import State

ROOT = Path(__file__).parents[1]
ROUNDS = 3
REAL_CRDS = ROOT.parent / "shared" / "crds"
MODES = (("apply", "first apply"), ("apply", "second apply"), ("plan", "plan"), ("verify", "verify"))


def started(state: State, played: Played) -> float:
    """Start a sandbox; returns the seconds until it was usable."""
    began = time.monotonic()
    lifecycle.start(state, played, Console(file=io.StringIO()))
    return time.monotonic() - began


def runs(state: State, environment: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Every runbook of a path, in every mode; returns the outcome by section and occasion."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    home = state.folder.parents[2]
    variables = {**os.environ, "XDG_STATE_HOME": str(home), "RUNBOOKS_SANDBOX": state.name}
    for mode, occasion in MODES:
        command = [Path(sys.executable).parent / "runbooks", "run", "all", "--json", "--mode", mode]
        command += ["--parameters", ROOT / "parameters" / environment, "--records", home / "records"]
        answer = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=300)
        for ran in json.loads(answer.stdout)["runs"]:
            assert ran["exit_code"] == 0, ran
            found.setdefault(ran["section"], {})[occasion] = ran
    return found


def row(section: str, rounds: list[dict[str, dict[str, dict[str, Any]]]]) -> str:
    """One section's line: seconds and requests for each occasion."""
    cells = []
    for _, occasion in MODES:
        ran = [one[section][occasion] for one in rounds]
        seconds = statistics.median(one["seconds"] for one in ran)
        requests = ran[-1]["facts"]["requests"]
        # 3 reads bind the target; access reviews and dry runs are named apart
        shown = ", ".join(f"{count} {verb}" for verb, count in requests.items())
        cells.append(f"{seconds:.1f} s<br>{shown}")
    return f"| {section} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and write the page."""
    ready: dict[str, list[float]] = {"own CRDs": [], "exported CRDs of real products": []}
    rounds: dict[str, list[dict[str, dict[str, dict[str, Any]]]]] = {"istio": [], "kourier": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "serverless-mesh-runbooks" / "sandbox"
        for number in range(ROUNDS):
            for ingress, environment in (("istio", "sandbox"), ("kourier", "sandbox-kourier")):
                state = State(f"{ingress}-{number}", root)
                seconds = started(state, Played(ingress=ingress))
                if ingress == "istio":
                    ready["own CRDs"].append(seconds)
                rounds[ingress].append(runs(state, environment))
                lifecycle.stop(state)
                print(f"round {number + 1} of {ROUNDS}: {ingress}", flush=True)
            if REAL_CRDS.is_dir():
                state = State(f"real-{number}", root)
                ready["exported CRDs of real products"].append(started(state, Played(crds=REAL_CRDS)))
                lifecycle.stop(state)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [
        "# Measurements",
        "",
        f"Made by `make bench` on {machine}: medians of {ROUNDS} rounds in fresh sandboxes, in one call.",
        "Trust the ratios more than the seconds.",
        "",
        "## Sandbox: from start to usable, warm cache",
        "",
        "| CRDs | seconds |",
        "|---|---|",
        *(f"| {name} | {statistics.median(values):.1f} |" for name, values in ready.items() if values),
        "",
        "## Each runbook: seconds (kernel included) and requests",
        "",
        "| section | " + " | ".join(occasion for _, occasion in MODES) + " |",
        "|---|" + "---|" * len(MODES),
    ]
    for ingress, measured in rounds.items():
        sections = [section for section in measured[0] if ingress == "istio" or section == "6.4.5"]
        lines += [row(section, measured) for section in sections]
    lines += ["", *bench_namespaces.measured(ROUNDS)]
    (ROOT / "docs" / "measurements.md").write_text("\n".join([*lines, ""]))
    print("docs/measurements.md is written")


if __name__ == "__main__":
    main()
