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
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import urllib3
from rich.console import Console

from runbooks_sandbox import binaries, crds
from runbooks_sandbox.api import Api, ApiError
from runbooks_sandbox.control_plane import ANOTHER_PORT
from runbooks_sandbox.credentials import STAND_INS, token, write_kubeconfig
from runbooks_sandbox.faults import FAULTS
from runbooks_sandbox.furniture import stands_in
from runbooks_sandbox.state import READY, STARTING, SandboxError, Settings, State, WrongCall, placed, version

_END_TIMEOUT_S = 15
_TRIES = 3
_OLDEST_SERVERLESS = (1, 26)
_MESH_MAJORS = {"istio": (2,), "kourier": (1, 2)}


@dataclass(frozen=True)
class Played:
    """What a sandbox is asked to play; None leaves it as it was, or takes the default.

    Args:
        serverless: version of OpenShift Serverless.
        mesh: version of Service Mesh.
        ingress: istio or kourier.
        crds: folder of exported CRDs.
        own_crds: load the sandbox's own CRDs again.
        gateway: istio, files or auto.
    """

    serverless: str | None = None
    mesh: str | None = None
    ingress: str | None = None
    crds: Path | None = None
    own_crds: bool = False
    gateway: str | None = None


# --- starting ----------------------------------------------------------------------------------------------------


def start(state: State, played: Played, console: Console) -> bool:
    """Start a sandbox; returns False where it was running already.

    Raises:
        SandboxError: it cannot be started, or plays something else than asked for.
        BinariesUnavailable: there is no API server to start.
    """
    with state.locked():
        settings = _asked(state.settings(), played)
        _refuse_change(state, settings)
        return _start(state, settings, console)


def _start(state: State, settings: Settings, console: Console) -> bool:
    if state.phase() == READY:
        if not state.kubeconfig.exists():
            write_kubeconfig(state.kubeconfig, state.pki, _server(state))
            console.print(f"{state.kubeconfig} was gone: written again")
        return False
    found = binaries.find(console, istiod=settings.gateway == "istio")
    console.print(_gateway(settings, found))
    for tries_left in reversed(range(_TRIES)):
        for line in _clean_up(state):
            console.print(line)
        settings, moved = placed(settings, state.folder)
        for line in moved:
            console.print(line)
        state.keep(settings)
        try:
            _launch(state, found, console)
            break
        except SandboxError as error:
            # a port that the system gave out may be somebody else's before we listen there
            if error.remedy != ANOTHER_PORT or not tries_left:
                raise
            console.print(f"{error.attempted}: {error.said}; it takes another port")
    return True


def _gateway(settings: Settings, found: binaries.Binaries) -> str:
    """Who configures the gateway, and why."""
    if settings.gateway == "files" or (settings.gateway == "auto" and settings.ingress == "kourier"):
        return "gateway: Envoy by files"
    if found.istiod is None:
        return "gateway: Envoy by files; runbooks sandbox prepare --gateway istio brings the real istiod"
    return f"gateway: Envoy by istiod, {found.istiod}"


def _asked(known: Settings, played: Played) -> Settings:
    """The settings known, with what is asked for."""
    if played.own_crds and played.crds:
        raise WrongCall("choosing CRDs", "--crds and --own-crds exclude each other", "give one of them")
    wanted = replace(known, crds="") if played.own_crds else known
    if played.serverless:
        wanted = replace(wanted, serverless=_full("--serverless", played.serverless))
        if tuple(map(int, wanted.serverless.split(".")[:2])) < _OLDEST_SERVERLESS:
            raise WrongCall(
                f"playing Serverless {wanted.serverless}", "the procedure is for 1.26 and later", "give such a version"
            )
    if played.mesh:
        wanted = replace(wanted, mesh=_full("--mesh", played.mesh))
    if played.ingress:
        wanted = replace(wanted, ingress=played.ingress)
    major = int(wanted.mesh.split(".")[0])
    if major not in _MESH_MAJORS[wanted.ingress]:
        raise WrongCall(
            f"playing Service Mesh {wanted.mesh} with ingress {wanted.ingress}",
            "the procedure is for Service Mesh 2, beside Kourier for 1 as well, and so are the stand-ins",
            "give --ingress kourier too" if major == 1 else "give a version like 2.3",
        )
    if played.gateway:
        wanted = replace(wanted, gateway=played.gateway)
    if wanted.gateway == "istio" and major == 1:
        raise WrongCall(
            "configuring the gateway by istiod",
            f"Service Mesh {wanted.mesh} has no istiod of today's kind",
            "give --mesh 2.3, or leave --gateway out",
        )
    if played.crds:
        wanted = replace(wanted, crds=str(played.crds.absolute()))
    if wanted.crds:
        _check_crds(Path(wanted.crds))
    return wanted


def _full(option: str, text: str) -> str:
    numbers = version(text)
    if numbers is None:
        raise WrongCall(f"reading {option} {text}", "this is no version", "write it like 1.26 or 1.26.0")
    return ".".join(map(str, numbers))


def _check_crds(folder: Path) -> None:
    try:
        crds.exported(folder)
    except ValueError as error:
        remedy = f"oc get crd -o yaml > {folder}/crds.yaml exports them; runbooks sandbox reset --own-crds does without"
        raise SandboxError(f"reading CRDs from {folder}", str(error), remedy) from error


def _refuse_change(state: State, wanted: Settings) -> None:
    """A sandbox does not change what it plays while it has data."""
    known = state.settings()
    # who configures the gateway may change: it works from whatever is in the cluster
    if state.etcd.exists() and replace(wanted, gateway=known.gateway) != known:
        plays = f"Serverless {known.serverless} with Service Mesh {known.mesh}, ingress {known.ingress}"
        raise SandboxError(
            f"starting sandbox {state.name}",
            f"it plays {plays}, CRDs: {known.crds or 'its own'}",
            "runbooks sandbox reset begins anew, with other versions",
        )


def _launch(state: State, found: binaries.Binaries, console: Console) -> None:
    """Start the supervisor and follow its progress until it is ready; on Ctrl-C take it down again."""
    paths = {name: str(path) if path else "" for name, path in asdict(found).items()}
    state.logs.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "false"}  # its children run other programs at once
    command = [sys.executable, "-m", "runbooks_sandbox.supervisor", str(state.folder), json.dumps(paths)]
    with (
        (state.logs / "supervisor.err").open("wb") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,
            text=True,
        ) as launcher,  # it forks and ends; the supervisor stays in its process group
    ):
        assert launcher.stdout is not None
        said = ""
        try:
            for line in launcher.stdout:
                said = line.strip()
                if said == READY:
                    break
                if not said.startswith("failed "):
                    console.print(f"  {said}")
        except BaseException:
            _take_down(launcher, state)
            raise
    if said == READY and _becomes_ready(state):
        return
    if said.startswith("failed "):
        raise SandboxError(**json.loads(said.removeprefix("failed ")))
    raise SandboxError(f"starting sandbox {state.name}", _last_words(state), f"the logs are in {state.logs}")


def _becomes_ready(state: State) -> bool:
    """Whether the supervisor, which says so first, notes that it is ready; not where it ended at that moment."""
    while state.phase() == STARTING:
        time.sleep(0.01)
    return state.phase() == READY


def _take_down(launcher: subprocess.Popen[str], state: State) -> None:
    """End a supervisor that was still starting: politely, so that it takes the others with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(launcher.pid, signal.SIGTERM)
    launcher.wait()  # it has forked already, or is ended by the signal
    _clean_up(state)


def _last_words(state: State) -> str:
    lines = (state.logs / "supervisor.err").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its supervisor ended without a word"


# --- stopping ----------------------------------------------------------------------------------------------------


def stop(state: State) -> tuple[bool, list[str]]:
    """Stop a sandbox; returns whether it was running, and what else had to be done."""
    with state.locked():
        return _stop(state)


def _stop(state: State) -> tuple[bool, list[str]]:
    return state.phase() == READY, _clean_up(state)


def _end_supervisor(state: State) -> None:
    """Ask the supervisor to end, which takes all others down; insist where it does not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _END_TIMEOUT_S
        while time.monotonic() < deadline:
            supervisor = state.processes().get("supervisor")
            if not state.phase():
                return
            if supervisor is not None:  # it holds the lock, so the id is not somebody else's
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(supervisor.pid)
                    process.send_signal(number)
                    process.wait(_END_TIMEOUT_S)
            time.sleep(0.05)
    raise SandboxError(f"stopping sandbox {state.name}", "its supervisor does not end", f"see {state.logs}")


def _clean_up(state: State) -> list[str]:
    """End what an earlier run left behind; says what it did."""
    said = []
    if phase := state.phase():  # we hold the lock, so the command that it belonged to is gone
        _end_supervisor(state)
        if phase == STARTING:
            said.append("an earlier start was killed before it was done: ended what it had begun")
    noted = state.processes()
    if noted and not any(process.alive() for process in noted.values()):
        said.append("an earlier run ended without a stop (a kill or a reboot): nothing of it runs any more")
    for name, process in noted.items():
        found = process.alive()
        if found is not None:
            with contextlib.suppress(psutil.Error):
                found.kill()
                found.wait(_END_TIMEOUT_S)
            said.append(f"ended {name} ({process.pid}), which an earlier run had left behind")
    state.forget_processes()
    return said


def reset(state: State, played: Played, console: Console) -> bool:
    """Begin anew with empty data; a running sandbox is started again. Returns whether it was running."""
    with state.locked():
        wanted = _asked(state.settings(), played)
        was_running, said = _stop(state)
        for line in said:
            console.print(line)
        for folder in (state.etcd, state.certificates, state.envoy, state.sidecars, state.logs):
            if folder.exists():
                shutil.rmtree(folder)
        state.keep_faults({})
        state.keep(wanted)
        return was_running and _start(state, wanted, console)


# --- describing --------------------------------------------------------------------------------------------------


def status(state: State) -> dict[str, Any]:
    """What a sandbox is, for people and for programs."""
    settings, phase = state.settings(), state.phase()
    real = _real(state) if phase == READY else {}
    return {
        "name": state.name,
        "running": bool(phase),
        "ready": bool(real),
        "kubeconfig": str(state.kubeconfig),
        "context": "sandbox",
        "api_server": _server(state) if settings.api_port else "",
        "gateway_address": f"{settings.gateway_address}:8443" if settings.gateway_address else "",
        "certificates": str(state.certificates),
        "plays": {
            "OpenShift Serverless": settings.serverless,
            "Service Mesh": settings.mesh,
            "ingress": settings.ingress,
        },
        "real": real,
        "gateway": "istio" if "istiod" in real else "files",
        "stands_in": stands_in("istio" if "istiod" in real else "files"),
        "crds": settings.crds or "its own",
        "faults": state.faults_on(),
        "audit_log": str(state.audit_log),
        "logs": str(state.logs),
        "processes": {name: asdict(process) for name, process in state.processes().items() if process.alive()},
    }


def _real(state: State) -> dict[str, str]:
    """The versions of the real parts, as the sandbox describes itself in the cluster; empty where it cannot now."""
    with contextlib.suppress(SandboxError, KeyError, ValueError), _answering(state, "asking the sandbox"):
        path = "/api/v1/namespaces/kube-public/configmaps/runbooks-sandbox"
        data = _api(state).request("GET", path, timeout_s=3)["data"]
        return dict(part.split(" ") for part in data["real"].split(", "))
    return {}


def _server(state: State) -> str:
    return f"https://127.0.0.1:{state.settings().api_port}"


def _api(state: State) -> Api:
    return Api(_server(state), token(state.pki, STAND_INS), str(state.pki / "ca.crt"))


@contextlib.contextmanager
def _answering(state: State, attempted: str) -> Iterator[None]:
    """Errors of the sandbox's API server, in our words."""
    try:
        yield
    except ApiError as error:
        raise SandboxError(attempted, f"the API server answered: {error.message}", "see runbooks sandbox status") from (
            error
        )
    except urllib3.exceptions.HTTPError as error:
        remedy = f"wait a moment if it was just started again, else see {state.logs}"
        raise SandboxError(attempted, "the API server does not answer", remedy) from error


def switch(state: State, name: str, value: str, *, on: bool) -> None:
    """Switch a fault on or off in a running sandbox.

    Raises:
        SandboxError: there is no such fault, its value is wrong, or the sandbox does not run.
    """
    attempted = f"switching the fault {name} {'on' if on else 'off'}"
    fault = FAULTS.get(name)
    if fault is None:
        raise WrongCall(attempted, "there is no such fault", f"one of {', '.join(FAULTS)}")
    if problem := fault.problem(value):
        raise WrongCall(attempted, problem, "runbooks sandbox fault list shows what each takes")
    if state.phase() != READY:
        raise SandboxError(attempted, f"sandbox {state.name} does not run", "runbooks sandbox start")
    if fault.kills:
        process = state.processes()[fault.kills].alive() if on else None
        if process is not None:
            process.kill()
        return
    with state.locked(), _answering(state, attempted):
        (fault.switched_on if on else fault.switched_off)(_api(state))
        others = {key: text for key, text in state.faults_on().items() if key != name}
        state.keep_faults({**others, name: value} if on else others)
