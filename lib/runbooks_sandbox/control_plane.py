"""etcd and kube-apiserver as two local processes, with the flags that work without root and without a cluster."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import urllib3

from runbooks_sandbox.api import Api, ApiError
from runbooks_sandbox.credentials import STAND_INS
from runbooks_sandbox.state import SandboxError, State

ANOTHER_PORT = "start it again: it will take another port"  # the remedy for a port that is taken
_READY_TIMEOUT_S = 60
_PR_SET_PDEATHSIG = 1


_LIBC = ctypes.CDLL(None)  # loaded before any fork


def _die_with(parent: int) -> None:
    """Ask the kernel to end this child when the supervisor is gone, however it went (Linux)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it went before we asked


def spawn(
    command: Sequence[str | Path], log: Path, cwd: Path, settings: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start one of the sandbox's processes; it never outlives the supervisor.

    Args:
        command: executable and arguments.
        log: where its output goes.
        cwd: its working folder.
        settings: variables of its environment, beside ours.

    Raises:
        SandboxError: it cannot be started.
    """
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env={**os.environ, **(settings or {})},
                preexec_fn=partial(_die_with, os.getpid()) if sys.platform == "linux" else None,
            )
    except OSError as error:
        raise SandboxError(f"starting {command[0]}", str(error), "check the executable") from error


def start_etcd(executable: Path, state: State, client_port: int, peer_port: int) -> subprocess.Popen[bytes]:
    """Start etcd; it forgoes fsync, since a sandbox may be lost."""
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    command: list[str | Path] = [
        executable,
        "--data-dir",
        state.etcd,
        "--listen-client-urls",
        client,
        "--advertise-client-urls",
        client,
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
        "--initial-cluster",
        f"default={peer}",
        "--unsafe-no-fsync",
        "--log-level",
        "warn",
    ]
    return spawn(command, state.logs / "etcd.log", state.folder)


def start_api_server(executable: Path, state: State, port: int, etcd_port: int) -> subprocess.Popen[bytes]:
    """Start kube-apiserver: RBAC on, audited, loopback only."""
    pki = state.pki
    policy = state.folder / "audit-policy.json"
    policy.write_text(json.dumps(_audit_policy()))
    command: list[str | Path] = [
        executable,
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={pki / 'serving.crt'}",
        f"--tls-private-key-file={pki / 'serving.key'}",
        f"--cert-dir={pki}",
        f"--service-account-key-file={pki / 'service-account.key'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/16",
        "--authorization-mode=RBAC",
        f"--token-auth-file={pki / 'tokens.csv'}",
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",  # a loopback address is refused as an endpoint
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={state.audit_log}",
        "--audit-log-maxsize=50",
        "--audit-log-maxbackup=1",
        "--watch-cache=true",
    ]
    return spawn(command, state.logs / "kube-apiserver.log", state.folder)


def _audit_policy() -> dict[str, object]:
    """Every request of people and runbooks, and none of the sandbox's own."""
    own = {"level": "None", "users": [STAND_INS, "system:apiserver", "system:anonymous"]}
    mesh = {"level": "None", "userGroups": ["system:serviceaccounts:istio-system"]}
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [own, mesh, {"level": "Metadata"}],
    }


def wait_ready(
    api: Api, processes: dict[str, subprocess.Popen[bytes]], state: State, go_on: Callable[[], None]
) -> None:
    """Wait until the API server says that it is ready.

    Args:
        api: a connection to it.
        processes: what must not end meanwhile.
        state: where the logs are.
        go_on: called again and again; raises where there is nothing to wait for any more.

    Raises:
        SandboxError: a process ended, or it took too long; the message holds the log's last lines.
    """
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        go_on()
        for name, process in processes.items():
            if process.poll() is not None:
                said = why(_log(state, name))
                raise SandboxError(f"starting {name}", f"it ended with {process.returncode}: {said}", _remedy(said))
        try:
            api.request("GET", "/readyz", timeout_s=1)
        except (ApiError, urllib3.exceptions.HTTPError, OSError):
            time.sleep(0.05)
            continue
        return
    said = f"not ready after {_READY_TIMEOUT_S} s: {why(_log(state, 'kube-apiserver'))}"
    raise SandboxError("starting kube-apiserver", said, "runbooks sandbox stop, then start it again")


def _log(state: State, name: str) -> str:
    try:
        return (state.logs / f"{name}.log").read_text(errors="replace")
    except FileNotFoundError:
        return ""


def why(log: str) -> str:
    """The line of a process's log that tells why it ended: an error, rather than the stack trace after it."""
    lines = [line for line in log.splitlines()[-200:] if line.strip()]
    for line in reversed(lines):
        if line.startswith('{"level":"') and not line.startswith(('{"level":"info', '{"level":"warn')):
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                return ": ".join(str(entry[key]) for key in ("msg", "error") if key in entry)
        if re.match(r"[EF]\d{4} ", line):
            return line.partition("] ")[2][:300]
    return lines[-1][:300] if lines else "it said nothing"


def _remedy(log: str) -> str:
    if "no space left" in log:
        return "free some disk space, then start it again"
    if "address already in use" in log:
        return ANOTHER_PORT
    return "runbooks sandbox reset begins with empty data; the whole log is in the sandbox's folder"


def end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """End a process of ours: politely first."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
