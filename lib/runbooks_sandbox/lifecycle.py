"""Starting, stopping and describing a sandbox, from outside; each copes with whatever an earlier one left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from runbooks_sandbox import binaries, crds
from runbooks_sandbox.api import Api
from runbooks_sandbox.credentials import STAND_INS, token
from runbooks_sandbox.faults import FAULTS
from runbooks_sandbox.furniture import STANDS_IN
from runbooks_sandbox.state import Process, SandboxError, Settings, State, placed

_END_TIMEOUT_S = 15


@dataclass(frozen=True)
class Played:
    """What a sandbox is asked to play; None leaves it as it was, or takes the default."""

    serverless: str | None = None
    mesh: str | None = None
    crds: Path | None = None


def _full(version: str) -> str:
    parts = version.split(".")
    if not 2 <= len(parts) <= 3 or not all(part.isdigit() for part in parts):
        raise SandboxError(f"reading the version {version!r}", "", "write it like 1.26 or 1.26.0")
    return ".".join([*parts, "0"][:3])


def start(state: State, played: Played, console: Console) -> bool:
    """Start a sandbox; returns False where it was running already.

    Raises:
        SandboxError: it cannot be started, or plays something else than asked for.
        BinariesUnavailable: there is no API server to start.
    """
    with state.locked():
        settings = _asked(state, played)
        if state.running():
            return False
        for line in clean_up(state):
            console.print(line)
        found = binaries.find(console)
        settings, moved = placed(settings, state.folder)
        for line in moved:
            console.print(line)
        state.keep(settings)
        _launch(state, found, console)
        return True


def _asked(state: State, played: Played) -> Settings:
    """The settings of the last start, or those asked for; a sandbox does not change what it plays while it has data."""
    known = wanted = state.settings()
    if played.serverless:
        wanted = replace(wanted, serverless=_full(played.serverless))
    if played.mesh:
        wanted = replace(wanted, mesh=_full(played.mesh))
    if played.crds:
        wanted = replace(wanted, crds=str(played.crds.absolute()))
        try:
            crds.exported(played.crds)
        except ValueError as error:
            remedy = "oc get crd -o yaml > DIR/crds.yaml exports them"
            raise SandboxError(f"reading CRDs from {played.crds}", str(error), remedy) from error
    if state.etcd.exists() and wanted != known:
        plays = (
            f"it plays Serverless {known.serverless} with Service Mesh {known.mesh}, CRDs: {known.crds or 'its own'}"
        )
        raise SandboxError(
            f"starting sandbox {state.name}", plays, "runbooks sandbox reset begins anew, with other versions"
        )
    return wanted


def _launch(state: State, found: binaries.Binaries, console: Console) -> None:
    """Start the supervisor and follow its progress until it is ready; on Ctrl-C take it down again."""
    paths = {"kube_apiserver": str(found.kube_apiserver), "etcd": str(found.etcd), "source": found.source}
    state.logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "runbooks_sandbox.supervisor", str(state.folder), json.dumps(paths)]
    with (
        (state.logs / "supervisor.err").open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, text=True
        ) as launcher,  # it forks and ends; the supervisor stays in its process group
    ):
        assert launcher.stdout is not None
        said = ""
        try:
            for line in launcher.stdout:
                said = line.strip()
                if said == "ready":
                    return
                if not said.startswith("failed "):
                    console.print(f"  {said}")
        except BaseException:
            _take_down(launcher.pid, state)
            raise
    reason = json.loads(said.removeprefix("failed ")) if said.startswith("failed ") else _last_words(state)
    raise SandboxError(f"starting sandbox {state.name}", reason, f"the logs are in {state.logs}")


def _take_down(group: int, state: State) -> None:
    """End a supervisor that was still starting: politely, so that it takes the others with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
    for _ in range(int(_END_TIMEOUT_S / 0.05)):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    clean_up(state)


def _last_words(state: State) -> str:
    lines = (state.logs / "supervisor.err").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its supervisor ended without a word"


def stop(state: State) -> tuple[bool, list[str]]:
    """Stop a sandbox; returns whether it was running, and what else had to be done."""
    with state.locked():
        supervisor = (state.processes().get("supervisor") or Process(0, 0)).alive()
        if supervisor is not None:
            supervisor.send_signal(signal.SIGTERM)
            try:
                supervisor.wait(_END_TIMEOUT_S)
            except psutil.TimeoutExpired:
                supervisor.kill()
        return supervisor is not None, clean_up(state)


def clean_up(state: State) -> list[str]:
    """End what an earlier run left behind; says what it did."""
    said, noted = [], state.processes()
    if noted and not any(process.alive() for process in noted.values()):
        said.append("an earlier run ended without a stop (a kill or a reboot): nothing of it runs any more")
    for name, process in noted.items():
        found = process.alive()
        if found is not None:
            found.kill()
            found.wait(_END_TIMEOUT_S)
            said.append(f"ended {name} ({process.pid}), which an earlier run had left behind")
    state.forget_processes()
    return said


def reset(state: State, played: Played, console: Console) -> bool:
    """Begin anew with empty data; a running sandbox is started again. Returns whether it was running."""
    was_running, _ = stop(state)
    settings = state.settings()
    with state.locked():
        for folder in (state.etcd, state.certificates, state.envoy, state.logs):
            shutil.rmtree(folder, ignore_errors=True)
        state.keep_faults({})
        state.keep(settings)
    if was_running:
        start(state, played, console)
    else:
        state.keep(_asked(state, played))
    return was_running


def status(state: State) -> dict[str, Any]:
    """What a sandbox is, for people and for programs."""
    settings = state.settings()
    running = state.running()
    return {
        "name": state.name,
        "running": running,
        "kubeconfig": str(state.kubeconfig),
        "context": "sandbox",
        "api_server": f"https://127.0.0.1:{settings.api_port}" if settings.api_port else "",
        "gateway_address": f"{settings.gateway_address}:8443" if settings.gateway_address else "",
        "certificates": str(state.certificates),
        "plays": {"OpenShift Serverless": settings.serverless, "Service Mesh": settings.mesh},
        "real": _real(state) if running else {},
        "stands_in": STANDS_IN,
        "crds": settings.crds or "its own",
        "faults": state.faults_on(),
        "audit_log": str(state.audit_log),
        "logs": str(state.logs),
        "processes": {name: asdict(process) for name, process in state.processes().items() if process.alive()},
    }


def _real(state: State) -> dict[str, str]:
    """The versions of the real parts, as the sandbox describes itself in the cluster."""
    data = _api(state).request("GET", "/api/v1/namespaces/kube-public/configmaps/runbooks-sandbox")["data"]
    return dict(part.split(" ") for part in data["real"].split(", "))


def _api(state: State) -> Api:
    server = f"https://127.0.0.1:{state.settings().api_port}"
    return Api(server, token(state.pki, STAND_INS), str(state.pki / "ca.crt"))


def switch(state: State, name: str, value: str, *, on: bool) -> None:
    """Switch a fault on or off in a running sandbox.

    Raises:
        SandboxError: there is no such fault, or the sandbox does not run.
    """
    if name not in FAULTS:
        raise SandboxError(f"switching the fault {name}", "there is no such fault", f"one of {', '.join(FAULTS)}")
    if not state.running():
        raise SandboxError(
            f"switching the fault {name}", f"sandbox {state.name} does not run", "runbooks sandbox start"
        )
    faults = state.faults_on()
    if on:
        faults[name] = value
    else:
        faults.pop(name, None)
    state.keep_faults(faults)
    fault = FAULTS[name]
    (fault.switched_on if on else fault.switched_off)(_api(state))
