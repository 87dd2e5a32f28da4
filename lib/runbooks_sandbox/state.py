"""Where a sandbox keeps its things, and which processes are its own."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs
import psutil

APP = "serverless-mesh-runbooks"
_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_GATEWAY_PORTS = (8443, 8081)


class SandboxError(Exception):
    """The sandbox cannot do what was asked.

    Args:
        attempted: what was tried.
        said: what stood in the way.
        remedy: what to do about it.
    """

    def __init__(self, attempted: str, said: str = "", remedy: str = "") -> None:
        self.attempted, self.said, self.remedy = attempted, said, remedy
        super().__init__(attempted, said, remedy)

    def __str__(self) -> str:
        first = f"{self.attempted}: {self.said}" if self.said else self.attempted
        return f"{first}\nWhat to do: {self.remedy}" if self.remedy else first


@dataclass(frozen=True)
class Settings:
    """What a sandbox plays, and where it listens; kept from one start to the next.

    Args:
        serverless: version of OpenShift Serverless that is played.
        mesh: version of Service Mesh that is played.
        crds: folder of exported CRDs, or empty for our own.
        api_port: port of the API server; 0 where none was given out yet.
        gateway_address: the loopback address of the ingress gateway.
    """

    serverless: str = "1.26.0"
    mesh: str = "2.3.0"
    crds: str = ""
    api_port: int = 0
    gateway_address: str = ""


@dataclass(frozen=True)
class Process:
    """A process of ours: its id, and when it began, so that a recycled id is never mistaken for it."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this id now."""
        return cls(pid, psutil.Process(pid).create_time())

    def alive(self) -> psutil.Process | None:
        """The process, or None where it has ended."""
        try:
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.created) < 1 and found.status() != psutil.STATUS_ZOMBIE:
                return found
        except psutil.NoSuchProcess:
            return None
        return None


def default_root() -> Path:
    """The folder of all sandboxes of this user."""
    return platformdirs.user_state_path(APP) / "sandbox"


class State:
    """The folder of one sandbox.

    Args:
        name: the sandbox's name.
        root: the folder of all sandboxes.

    Raises:
        SandboxError: the name cannot be a folder's name.
    """

    def __init__(self, name: str, root: Path | None = None) -> None:
        if not name or len(name) > 40 or not set(name) <= _NAME_LETTERS:
            raise SandboxError(f"naming a sandbox {name!r}", "", "use up to 40 lower-case letters, digits and dashes")
        self.name = name
        self.folder = (root or default_root()) / name
        self.kubeconfig = self.folder / "kubeconfig"
        self.certificates = self.folder / "certificates"
        self.pki = self.folder / "pki"
        self.etcd = self.folder / "etcd"
        self.envoy = self.folder / "envoy"
        self.logs = self.folder / "logs"
        self.audit_log = self.logs / "audit.log"
        self.faults = self.folder / "faults.json"
        self._settings = self.folder / "settings.json"
        self._processes = self.folder / "processes.json"

    # --- files ---------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether such a sandbox was ever started."""
        return self._settings.exists()

    def settings(self) -> Settings:
        """The settings of the last start."""
        return Settings(**_read(self._settings)) if self.exists() else Settings()

    def keep(self, settings: Settings) -> None:
        """Keep the settings for the next start."""
        _write(self._settings, asdict(settings))

    def faults_on(self) -> dict[str, str]:
        """The faults that are switched on, with their values."""
        return {name: str(value) for name, value in _read(self.faults).items()}

    def keep_faults(self, faults: dict[str, str]) -> None:
        """Switch faults on and off."""
        _write(self.faults, faults)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other starts and stops of this sandbox out.

        Raises:
            SandboxError: another one is at work.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                said = "another command is starting or stopping it at this moment"
                raise SandboxError(f"locking sandbox {self.name}", said, "wait until it is done") from error
            yield

    # --- processes -----------------------------------------------------------------------------------------------

    def processes(self) -> dict[str, Process]:
        """The processes that the last start noted, whether they still run or not."""
        return {name: Process(entry["pid"], entry["created"]) for name, entry in _read(self._processes).items()}

    def note(self, name: str, process: Process | None) -> None:
        """Note that a process of ours has begun, or (None) ended."""
        known = {key: asdict(value) for key, value in self.processes().items()}
        known.pop(name, None)
        _write(self._processes, known if process is None else {**known, name: asdict(process)})

    def forget_processes(self) -> None:
        """Forget all noted processes."""
        self._processes.unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether the supervisor runs."""
        supervisor = self.processes().get("supervisor")
        return supervisor is not None and supervisor.alive() is not None


def _read(path: Path) -> dict[str, Any]:
    """The content of one of our files; one that a kill or a full disk left broken counts as empty."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2))
    temporary.replace(path)


# --- addresses and ports -----------------------------------------------------------------------------------------


def free_port() -> int:
    """A port on 127.0.0.1 that the system gives out."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_free(address: str, port: int) -> bool:
    """Whether we could listen there."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True


def placed(settings: Settings, folder: Path) -> tuple[Settings, list[str]]:
    """The settings with a free API port and gateway address, and what had to be changed, in words.

    The ones of the last start are kept where they are free, so that an open notebook finds the sandbox again.

    Raises:
        SandboxError: no loopback address is left.
    """
    said = []
    if settings.api_port and not is_free("127.0.0.1", settings.api_port):
        said.append(f"port {settings.api_port} is in use now: the API server takes another one")
        settings = replace(settings, api_port=0)
    if not settings.api_port:
        settings = replace(settings, api_port=free_port())
    kept = settings.gateway_address
    if not kept or not _gateway_fits(kept):
        address = next((one for one in _addresses(folder) if _gateway_fits(one)), None)
        if address is None:
            ports = " and ".join(map(str, _GATEWAY_PORTS))
            raise SandboxError(
                "finding a loopback address", f"ports {ports} are taken on all of them", "stop a sandbox"
            )
        if kept:
            said.append(f"{kept} is in use now: the gateway moves to {address}")
        settings = replace(settings, gateway_address=address)
    return settings, said


def _gateway_fits(address: str) -> bool:
    return all(is_free(address, port) for port in _GATEWAY_PORTS)


def _addresses(folder: Path) -> Iterator[str]:
    """Candidates for the gateway, different for each sandbox; where only 127.0.0.1 exists (macOS) that one last."""
    for attempt in range(50):
        digest = hashlib.sha256(f"{folder} {attempt}".encode()).digest()
        yield f"127.{64 + digest[0] % 64}.{digest[1]}.{2 + digest[2] % 250}"
    yield "127.0.0.1"
