"""What a kernel reads of secrets, told to the process that will search the record for them.

The values go over a socket in a private folder and are written nowhere. A value is with the runner before the kernel
has it in its hands, so a kernel that is killed in the middle of anything has told what it knew.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from runbooks.errors import NotRecorded

VARIABLE = "RUNBOOKS_DISCLOSURE"
NOTES = ".heard"  # in a run's workspace; hidden, for it is nothing of the run's own
_ANSWER_S = 10.0
_RECEIVED = b"+"
_LONGEST_FOLDER = 60  # of the 103 bytes that the path of a socket may have on macOS, 107 on Linux


def folder_for_sockets() -> tempfile.TemporaryDirectory[str]:
    """A private temporary folder; it is in /tmp where the path of a socket in the usual one would be too long."""
    too_long = len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER
    return tempfile.TemporaryDirectory(prefix="runbooks-", dir="/tmp" if too_long else None)  # noqa: S108 mode 0700


class _Server(socketserver.UnixStreamServer):
    request_queue_size = 128  # one too many is refused at once

    def handle_error(self, *_: object) -> None:
        """A kernel that died in the middle of a word has told nothing, and waits for no answer."""


class Confidant:
    """The runner's end: it hears the names and values of the secrets that its kernel reads.

    Args:
        notes: a file that is given the names, without the values, as they are heard; so that somebody who comes after
            a runner that died knows what to search for.
    """

    def __init__(self, notes: Path | None = None) -> None:
        self._folder = folder_for_sockets()  # apart from the archive, whose own path may be long
        self.path = Path(self._folder.name) / "secrets"
        self._heard: dict[tuple[str, bytes], None] = {}
        heard = self._heard

        class Hearing(socketserver.StreamRequestHandler):
            timeout = _ANSWER_S

            def handle(self) -> None:
                found = json.loads(self.rfile.readline())
                if notes:
                    with notes.open("a") as file:
                        file.write(f"{found['name']}\n")
                heard[found["name"], base64.b64decode(found["content"])] = None
                self.wfile.write(_RECEIVED)

        self._server = _Server(str(self.path), Hearing)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def heard(self) -> list[tuple[str, bytes]]:
        """Names and values, in the order in which they were read."""
        return list(self._heard)

    def close(self) -> None:
        """Hear nothing any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()


@contextlib.contextmanager
def exported(name: str, value: Path) -> Iterator[None]:
    """Set an environment variable for the kernel that will be started, and put it back afterwards."""
    before = os.environ.get(name)
    os.environ[name] = str(value)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def listening(notes: Path | None = None) -> Iterator[Confidant]:
    """A confidant for the kernel that will be started, or for this process itself."""
    confidant = Confidant(notes)
    try:
        with exported(VARIABLE, confidant.path):
            yield confidant
    finally:
        confidant.close()


class Disclosure:
    """The kernel's end, or nothing where no runner asked for it.

    Args:
        path: the socket, or None.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        self._told: set[tuple[str, bytes]] = set()

    @classmethod
    def from_environment(cls) -> Disclosure:
        """The one that the runner asks for in ``RUNBOOKS_DISCLOSURE``."""
        path = os.environ.get(VARIABLE)
        return cls(Path(path) if path else None)

    def tell(self, name: str, content: bytes) -> None:
        """Tell one value, once; it is known when this returns.

        Args:
            name: what the value is called where it is found, for example ``Secret istio-system/certs tls.key``.
            content: the value's bytes.

        Raises:
            NotRecorded: nobody hears it, so a record could not be kept free of it.
        """
        if self._path is None:
            return
        with self._lock:  # a survey reads several lists at once
            if (name, content) not in self._told:
                self._tell(self._path, name, content)
                self._told.add((name, content))

    def _tell(self, path: Path, name: str, content: bytes) -> None:
        told = json.dumps({"name": name, "content": base64.b64encode(content).decode()}).encode() + b"\n"
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(_ANSWER_S)
                line.connect(str(path))
                line.sendall(told)
                answer = line.recv(1)
        except OSError as error:
            raise _unheard(name, error.strerror or str(error)) from error
        if answer != _RECEIVED:
            raise _unheard(name, "the runner did not take it")


def _unheard(name: str, said: str) -> NotRecorded:
    remedy = "start the run anew; without its runner no record of it can be kept free of secrets"
    return NotRecorded(f"naming {name} to the runner", said, remedy)
