"""The sandbox's command line as a hostile user meets it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from runbooks_sandbox.api import Api
from runbooks_sandbox.credentials import STAND_INS, token
from runbooks_sandbox.state import State
from tests.conftest import ISTIOD_IS_HERE

# what runs, on a machine with istiod and on one without
PARTS = sorted(["envoy", "etcd", "kube-apiserver", "supervisor", *(["istiod"] if ISTIOD_IS_HERE else [])])
RUNBOOKS = Path(sys.executable).with_name("runbooks")


class Shell:
    """One sandbox and its command line; whatever a command says, it is never a traceback."""

    def __init__(self, home: Path, name: str) -> None:
        self.home = home
        self.state = State(name, home / "serverless-mesh-runbooks" / "sandbox")

    def popen(self, *words: str) -> subprocess.Popen[str]:
        command = [str(RUNBOOKS), "sandbox", *words, "--name", self.state.name]
        environment = {**os.environ, "XDG_STATE_HOME": str(self.home)}
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finished(self, process: subprocess.Popen[str], timeout_s: float = 60) -> tuple[int, str]:
        said, _ = process.communicate(timeout=timeout_s)
        assert "Traceback" not in said, said
        return process.returncode, said

    def run(self, *words: str, code: int = 0) -> str:
        found, said = self.finished(self.popen(*words))
        assert code == found, said
        return said

    @property
    def api(self) -> Api:
        server = f"https://127.0.0.1:{self.state.settings().api_port}"
        return Api(server, token(self.state.pki, STAND_INS), str(self.state.pki / "ca.crt"))

    def pid(self, name: str) -> int:
        return self.state.processes()[name].pid

    def left(self) -> list[str]:
        """Processes whose command line names the sandbox's folder."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if str(self.state.folder) in words:
                found.append(words[:200])
        return found

    def nothing_is_left(self, within_s: float = 10) -> None:
        eventually(lambda: not self.left(), within_s, lambda: f"still running: {self.left()}")

    def end(self) -> None:
        """Take everything down, whatever state a test left it in."""
        if self.state.folder.exists():
            self.finished(self.popen("stop"))
            self.nothing_is_left()


def eventually(there: Callable[[], bool], within_s: float, otherwise: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A sandbox that was never started."""
    found = Shell(tmp_path, "faults")
    yield found
    found.end()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A running sandbox; tests that share it leave it running."""
    found = Shell(tmp_path_factory.mktemp("running"), "running")
    found.run("start")
    yield found
    found.end()


@contextmanager
def listening(*addresses: tuple[str, int]) -> Iterator[None]:
    """Somebody else listens there."""
    sockets = []
    try:
        for address in addresses:
            listener = socket.socket()
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        yield
    finally:
        for listener in sockets:
            listener.close()


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system of its own at a folder; only root can do that, and only on Linux."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root, on Linux")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C: the whole foreground process group gets it."""
    os.killpg(process.pid, signal.SIGINT)
