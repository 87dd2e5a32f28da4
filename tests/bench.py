"""Measure what a user waits for, on this machine, and write docs/measurements.md.

Every figure is the median of several runs in fresh sandboxes, side by side in one call; trust the ratios.
"""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from runbooks import manifests
from runbooks.batch import CONNECTIONS
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import Api
from runbooks_sandbox.credentials import STAND_INS, token
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.state import State
from runbooks_sandbox.world import MEMBER_ROLLS, NETWORK_POLICIES

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


# --- 1,000 namespaces --------------------------------------------------------------------------------------------

NAMESPACES = 1000
_PLANNING = ("connect", "preconditions", "desired", "plan")
_WRITING = ("apply-member-roll", "apply-system-labels", "apply-network-policies")


def thousand(root: Path) -> list[str]:
    """6.4.5 in 1,000 namespaces, beside the same requests by a bare client, and by kubectl where there is one."""
    state = State("thousand", root)
    lifecycle.start(state, Played(ingress="kourier"), Console(file=io.StringIO()))
    try:
        api = connected(state)
        ours = [f"team-{number}" for number in range(NAMESPACES)]
        theirs = [f"bare-{number}" for number in range(NAMESPACES)]
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            list(
                pool.map(
                    lambda name: api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}}), ours + theirs
                )
            )
        folder = root / "parameters"
        shutil.copytree(ROOT / "parameters" / "sandbox-kourier", folder)
        with (folder / "6.4.5-integrate-with-kourier.yaml").open("a") as file:
            file.write(f"\nmembers: {json.dumps(ours)}\ntimeout_s: 600\n")
        applied, verified = (cells(state, folder, mode) for mode in ("apply", "verify"))
        bare_plan, bare_write, bare_list = bare(api, theirs)
        planned, written = (sum(applied[cell] for cell in names) for names in (_PLANNING, _WRITING))
        looked = sum(verified[cell] for cell in _PLANNING)
        lines = [
            "| what | runbook, s | bare client with 16 connections, s | ratio |",
            "|---|---|---|---|",
            _compared("plan: one list a kind, 1,000 dry runs", planned, bare_plan),
            _compared("apply: member roll, 1,000 policies", written, bare_write),
            _compared("verify: one list a kind, compared here", looked, bare_list),
        ]
        goal = "The goal, a ratio of 1.5 for apply and verify, holds where the last column says so."
        return [*lines, "", goal, "", *kubectl(state, theirs)]
    finally:
        lifecycle.stop(state)


def connected(state: State) -> Api:
    """The bare client: one pool of connections, JSON in and out."""
    server = f"https://127.0.0.1:{state.settings().api_port}"
    return Api(server, token(state.pki, STAND_INS), str(state.pki / "ca.crt"))


def _compared(what: str, ours: float, theirs: float) -> str:
    return f"| {what} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} |"


def cells(state: State, folder: Path, mode: str) -> dict[str, float]:
    """Run 6.4.5 and return the seconds that each cell took."""
    home = state.folder.parents[2]
    variables = {**os.environ, "XDG_STATE_HOME": str(home), "RUNBOOKS_SANDBOX": state.name}
    command = [Path(sys.executable).parent / "runbooks", "run", "6.4.5", "--json", "--mode", mode]
    command += ["--parameters", folder, "--records", home / "records"]
    answer = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=900)
    ran = json.loads(answer.stdout)["runs"][0]
    assert ran["exit_code"] == 0, ran["reason"]
    notebook = json.loads(Path(ran["notebook"]).read_text())
    return {
        cell["id"]: cell["metadata"]["papermill"]["duration"]
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    }


def bare(api: Api, names: list[str]) -> tuple[float, float, float]:
    """The same requests as a plan, an apply and a verify make, without anything around them."""

    def send(name: str, dry_run: bool) -> None:
        policy = manifests.serving_system_policy(name)
        policy["metadata"]["resourceVersion"] = "1"  # create only, as the runbook does
        query = {"fieldManager": "bare", "fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        path = NETWORK_POLICIES.path(name, policy["metadata"]["name"])
        api.request("PATCH", path, policy, query=query, content_type="application/apply-patch+yaml")

    def all_of(dry_run: bool) -> float:
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda name: send(name, dry_run), names))
        return time.monotonic() - began

    planned, written = all_of(dry_run=True), all_of(dry_run=False)
    began = time.monotonic()
    for path in (NETWORK_POLICIES.path(), "/api/v1/namespaces", MEMBER_ROLLS.path("istio-system")):
        api.request("GET", path)
    return planned, written, time.monotonic() - began


def kubectl(state: State, names: list[str]) -> list[str]:
    """The same policies by ``kubectl apply``, where the machine has one."""
    program = shutil.which("kubectl")
    if program is None:
        return ["kubectl was not on this machine's PATH, so it was not measured."]
    documents = [manifests.serving_system_policy(name) for name in names]
    for document in documents:
        document["metadata"]["name"] += "-kubectl"
    path = state.folder / "policies.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    found, api = [], connected(state)
    for option in ("--server-side", "--server-side=false"):
        command = [program, f"--kubeconfig={state.kubeconfig}", "apply", option, "-f", str(path)]
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, timeout=900)
        found.append(f"`kubectl apply {option}` of the same 1,000 policies: {time.monotonic() - began:.1f} s.")
        names_of = [f"/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies" for name in names]
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda where: api.request("DELETE", where), names_of))
    return found


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
    with tempfile.TemporaryDirectory() as folder:
        lines += ["", f"## 6.4.5 in {NAMESPACES:,} namespaces, without the wait for the operator", ""]
        lines += thousand(Path(folder) / "serverless-mesh-runbooks" / "sandbox")
    (ROOT / "docs" / "measurements.md").write_text("\n".join([*lines, ""]))
    print("docs/measurements.md is written")


if __name__ == "__main__":
    main()
