"""Where a sandbox keeps its things, and which processes are its own."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import Field, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

import psutil

APP = "serverless-mesh-runbooks"
INGRESSES = ("istio", "kourier")
GATEWAYS = ("auto", "istio", "files")
_CHOICES = {"ingress": INGRESSES, "gateway": GATEWAYS}
_NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_GATEWAY_PORTS = (8443, 8081)
_LOCK_TIMEOUT_S = 30.0  # longer than a start takes that builds nothing
STARTING, READY, ENDING = "starting", "ready", "ending"


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

    @classmethod
    def of(cls, attempted: str, error: OSError) -> SandboxError:
        """The system's refusal, in our words."""
        said = (error.strerror or str(error)) + (f": {error.filename}" if error.filename else "")
        return cls(
            attempted,
            said,
            _REMEDIES.get(error.errno or 0, "mend that, or let XDG_STATE_HOME name another folder, then try again"),
        )


_REMEDIES = {
    errno.ENOSPC: "free some disk space, then try again",
    errno.EDQUOT: "free some disk space, then try again",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "mend the permissions, or let XDG_STATE_HOME name a folder that you may write to",
    ),
}


class WrongCall(SandboxError):
    """The command line asks for something that there is not."""


@dataclass(frozen=True)
class Settings:
    """What a sandbox plays, and where it listens; kept from one start to the next.

    Args:
        serverless: version of OpenShift Serverless that is played.
        mesh: version of Service Mesh that is played.
        ingress: istio, or kourier for a cluster on which Knative Serving is there already, with Kourier.
        crds: folder of exported CRDs, or empty for our own.
        gateway: who configures the ingress gateway: istio (a real istiod), files, or auto (istio where it is there).
        api_port: port of the API server; 0 where none was given out yet.
        gateway_address: the loopback address of the ingress gateway.
    """

    serverless: str = "1.26.0"
    mesh: str = "2.3.0"
    ingress: str = "istio"
    crds: str = ""
    gateway: str = "auto"
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
        except psutil.Error:
            return None
        return None


def default_root() -> Path:
    """The folder of all sandboxes of this user; parameters files name the kubeconfig by this path, on any system."""
    try:
        home = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    except RuntimeError as error:
        raise SandboxError("finding the folder for sandboxes", str(error), "set HOME or XDG_STATE_HOME") from error
    return home.absolute() / APP / "sandbox"


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
            said = "a name has up to 40 lower-case letters, digits and dashes"
            raise WrongCall(f"naming a sandbox {name!r}", said, "choose another name")
        self.name = name
        self.folder = (root or default_root()) / name
        self.kubeconfig = self.folder / "kubeconfig"
        self.certificates = self.folder / "certificates"
        self.pki = self.folder / "pki"
        self.etcd = self.folder / "etcd"
        self.envoy = self.folder / "envoy"
        self.sidecars = self.folder / "sidecars"
        self.logs = self.folder / "logs"
        self.audit_log = self.logs / "audit.log"
        self.faults = self.folder / "faults.json"
        self._settings = self.folder / "settings.json"
        self._processes = self.folder / "processes.json"
        self._supervised = self.folder / "supervisor.lock"

    # --- files ---------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether such a sandbox was ever started."""
        return self._settings.exists()

    def settings(self) -> Settings:
        """The settings of the last start; what is missing or broken there has its default."""
        found = _read(self._settings)
        return Settings(**{one.name: found[one.name] for one in fields(Settings) if _sound(one, found.get(one.name))})

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
    def locked(self, timeout_s: float = _LOCK_TIMEOUT_S) -> Iterator[None]:
        """Keep other starts and stops of this sandbox out; waits for one that is at work.

        Raises:
            SandboxError: another one is still at work.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / "lock").open("a") as file:
            if not _lock(file, timeout_s):
                said = "another command is starting or stopping it, and is not done yet"
                raise SandboxError(f"locking sandbox {self.name}", said, "wait until it is done, then try again")
            yield

    @contextlib.contextmanager
    def supervised(self, timeout_s: float) -> Iterator[Supervision]:
        """Be the sandbox's one supervisor.

        Raises:
            SandboxError: another supervisor does not end.
        """
        with self._supervised.open("a+") as file:
            if not _lock(file, timeout_s):
                raise SandboxError(f"supervising sandbox {self.name}", "another supervisor is at work", "stop it first")
            supervision = Supervision(self._supervised, file)
            supervision.note(STARTING)
            yield supervision

    def phase(self) -> str:
        """How far the supervisor is, or empty where none runs."""
        try:
            with self._supervised.open() as file:
                return "" if _lock(file, 0, fcntl.LOCK_SH) else file.read() or STARTING
        except FileNotFoundError:
            return ""

    # --- processes -----------------------------------------------------------------------------------------------

    def processes(self) -> dict[str, Process]:
        """The processes that the last start noted, whether they still run or not."""
        found = {}
        for name, entry in _read(self._processes).items():
            with contextlib.suppress(KeyError, TypeError, ValueError):
                found[name] = Process(int(entry["pid"]), float(entry["created"]))
        return found

    def keep_processes(self, processes: Mapping[str, Process]) -> None:
        """Note the processes of this run."""
        _write(self._processes, {name: asdict(process) for name, process in processes.items()})

    def forget_processes(self) -> None:
        """Forget all noted processes."""
        self._processes.unlink(missing_ok=True)

    def running(self) -> bool:
        """Whether a supervisor runs."""
        return bool(self.phase())


class Supervision:
    """The lock that tells whether a sandbox runs, in the hands of its supervisor.

    The kernel lets go of it however the supervisor ends, and unlike a process id it is never given to somebody else.

    Args:
        path: the lock file.
        file: the same, open and locked.
    """

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file

    def note(self, phase: str) -> None:
        """Note how far the supervisor is."""
        self._file.truncate(0)
        self._file.write(phase)
        self._file.flush()

    def holds(self) -> bool:
        """Whether this is still the file that others look at; not where somebody removed the folder."""
        try:
            return self._path.stat().st_ino == os.fstat(self._file.fileno()).st_ino
        except FileNotFoundError:
            return False


def _sound(field: Field[Any], value: Any) -> bool:
    if type(value) is not type(field.default):
        return False
    if field.name in _CHOICES:
        return value in _CHOICES[field.name]
    return field.name not in ("serverless", "mesh") or version(str(value)) is not None


def version(text: str) -> tuple[int, int, int] | None:
    """A version's three numbers, the last one 0 where it is left out; None where the text is no version."""
    parts = text.split(".")
    if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        return None
    major, minor, patch = (int(part) for part in [*parts, "0"][:3])
    return major, minor, patch


def _lock(file: TextIO, timeout_s: float, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock a file for as long as it is open; returns whether that went well in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


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
        except (OSError, OverflowError):
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
    if not kept or not _fits(kept, _GATEWAY_PORTS):
        address = free_address(str(folder), _GATEWAY_PORTS)
        if address is None:
            ports = " and ".join(map(str, _GATEWAY_PORTS))
            raise SandboxError(
                "finding a loopback address", f"ports {ports} are taken on all of them", "stop a sandbox"
            )
        if kept:
            said.append(f"{kept} is in use now: the gateway moves to {address}")
        settings = replace(settings, gateway_address=address)
    return settings, said


def free_address(whose: str, ports: Collection[int]) -> str | None:
    """A loopback address on which ports are free; the same one for the same name, where it still is."""
    return next((one for one in _addresses(whose) if _fits(one, ports)), None)


def _fits(address: str, ports: Iterable[int]) -> bool:
    return all(is_free(address, port) for port in ports)


def _addresses(whose: str) -> Iterator[str]:
    """Candidates, different for each name; where only 127.0.0.1 exists (macOS) that one last."""
    for attempt in range(50):
        digest = hashlib.sha256(f"{whose} {attempt}".encode()).digest()
        yield f"127.{64 + digest[0] % 64}.{digest[1]}.{2 + digest[2] % 250}"
    yield "127.0.0.1"
