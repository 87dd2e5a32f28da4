"""The sandbox's own servers: the application, the mesh's admission webhook, and the node's port-forward.

All listen on loopback, on ports that the system gives out, in one thread.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tornado.httpserver
import tornado.iostream
import tornado.netutil
import tornado.tcpclient
import tornado.web
import tornado.websocket

from runbooks_sandbox.api import Api, ApiError, Object

_LOG = logging.getLogger(__name__)
GREETING = "Hello Openshift!"
PROBE_HEADER, HASH_HEADER = "K-Network-Probe", "K-Network-Hash"  # Knative's own

Locate = Callable[[str, str, int], tuple[str, int] | None]


@dataclass(frozen=True)
class Ports:
    """Where the servers listen, on 127.0.0.1."""

    application: int
    webhook: int
    kubelet: int


class _Application(tornado.web.RequestHandler):
    """Stand-in for every Knative Service's container."""

    def get(self, _: str) -> None:
        if PROBE_HEADER in self.request.headers:  # a probe is answered by the queue-proxy, with what it was sent
            self.set_header(HASH_HEADER, self.request.headers.get(HASH_HEADER, ""))
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.write(f"{GREETING}\n")


class _MemberRollWebhook(tornado.web.RequestHandler):
    """Stand-in for the mesh's validation of member rolls: the rules of the real one, and its demand for a right."""

    def initialize(self, api: Api, faults: Callable[[], Mapping[str, str]]) -> None:
        self._api, self._faults = api, faults

    async def post(self) -> None:
        request = json.loads(self.request.body)["request"]
        loop = asyncio.get_running_loop()
        if "webhook-refuses" in self._faults():
            refusal = self._faults()["webhook-refuses"] or "the fault webhook-refuses is switched on"
        else:
            refusal = await loop.run_in_executor(None, self._judge, request)
        response: Object = {"uid": request["uid"], "allowed": not refusal}
        if refusal:
            response["status"] = {"code": 403, "message": refusal}
        self.write({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})

    def _judge(self, request: Object) -> str:
        roll, old = request["object"], request.get("oldObject") or {}
        mesh, name = request["namespace"], roll["metadata"]["name"]
        members = (roll.get("spec") or {}).get("members") or []
        known = set((old.get("spec") or {}).get("members") or [])
        if name != "default":
            return 'the ServiceMeshMemberRoll name is invalid; must be "default"'
        if len(set(members)) != len(members):
            repeated = sorted({member for member in members if members.count(member) > 1})
            return f"duplicate members in the ServiceMeshMemberRoll: {repeated}"
        if mesh in members:
            return f"mesh project/namespace cannot be listed as a member: {mesh}"
        refused = [member for member in members if member not in known and not self._may(request["userInfo"], member)]
        if refused:
            return f"user '{request['userInfo']['username']}' does not have permission to access namespaces {refused}"
        return ""

    def _may(self, user: Object, namespace: str) -> bool:
        spec = {
            "user": user["username"],
            "groups": user.get("groups") or [],
            "resourceAttributes": {"verb": "update", "resource": "pods", "namespace": namespace},
        }
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        try:
            answer = self._api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        except ApiError as error:
            _LOG.warning("access review: %s", error)
            return False
        return bool(answer["status"]["allowed"])


class _PortForward(tornado.websocket.WebSocketHandler):
    """Stand-in for a kubelet's port-forward: streams to what listens for a Pod on this machine.

    The protocol is the one of Kubernetes over WebSocket: a channel number before each message, two channels a port
    (data, errors), and the port's number as the first message of each.
    """

    def initialize(self, locate: Locate) -> None:
        self._locate = locate
        self._stream: tornado.iostream.IOStream | None = None

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return next((name for name in subprotocols if name in ("v4.channel.k8s.io", "portforward.k8s.io")), None)

    async def open(self, namespace: str, pod: str) -> None:
        port = int(self.get_query_argument("port"))
        for channel in (0, 1):
            await self.write_message(struct.pack("<BH", channel, port), binary=True)
        address = self._locate(namespace, pod, port)
        try:
            if address is None:
                raise OSError(f"nothing listens on port {port} of pod {namespace}/{pod}: it is a stand-in")
            self._stream = await tornado.tcpclient.TCPClient().connect(*address)
        except OSError as error:
            await self.write_message(b"\x01" + str(error).encode(), binary=True)
            self.close()
            return
        tornado.ioloop.IOLoop.current().spawn_callback(self._copy_back)

    async def _copy_back(self) -> None:
        assert self._stream is not None
        try:
            while True:
                data = await self._stream.read_bytes(65536, partial=True)
                await self.write_message(b"\x00" + data, binary=True)
        except (tornado.iostream.StreamClosedError, tornado.websocket.WebSocketClosedError):
            self.close()

    async def on_message(self, message: str | bytes) -> None:
        if isinstance(message, bytes) and message[:1] == b"\x00" and self._stream is not None:
            await self._stream.write(message[1:])

    def on_close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def check_origin(self, origin: str) -> bool:  # noqa: ARG002 the API server sends none that means anything
        return True


class Endpoints:
    """All servers of a sandbox, in a thread of their own.

    Args:
        certificate: file with the serving certificate and its chain.
        key: file with its key.
        api: connection for access reviews.
        faults: the faults that are switched on.
        locate: where on this machine a Pod's port is answered, if anywhere.
    """

    def __init__(
        self, certificate: Path, key: Path, api: Api, faults: Callable[[], Mapping[str, str]], locate: Locate
    ) -> None:
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        self._applications: dict[str, tornado.web.Application] = {
            "application": tornado.web.Application([(r"/(.*)", _Application)], log_function=_quiet),
            "webhook": tornado.web.Application(
                [(r"/member-roll", _MemberRollWebhook, {"api": api, "faults": faults})], log_function=_quiet
            ),
            "kubelet": tornado.web.Application(
                [(r"/portForward/([^/]+)/([^/]+)", _PortForward, {"locate": locate})], log_function=_quiet
            ),
        }
        self._loop: asyncio.AbstractEventLoop | None = None
        self._more: dict[tuple[str, int], tornado.httpserver.HTTPServer] = {}

    def start(self) -> Ports:
        """Listen; returns the ports that the system gave out."""
        started: dict[str, int] = {}
        ready = threading.Event()
        threading.Thread(target=self._serve, args=(started, ready), name="endpoints", daemon=True).start()
        ready.wait(10)
        return Ports(**started)

    def answer_at(self, addresses: set[tuple[str, int]]) -> None:
        """Let the application answer at these addresses, too, and at no others.

        Raises:
            OSError: somebody else listens there.
        """
        if addresses != self._more.keys():
            assert self._loop is not None
            asyncio.run_coroutine_threadsafe(self._move(addresses), self._loop).result(10)

    async def _move(self, addresses: set[tuple[str, int]]) -> None:
        for gone in self._more.keys() - addresses:
            self._more.pop(gone).stop()
        for address, port in addresses - self._more.keys():
            server = tornado.httpserver.HTTPServer(self._applications["application"])
            server.listen(port, address)
            self._more[address, port] = server

    def _serve(self, started: dict[str, int], ready: threading.Event) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            for name, application in self._applications.items():
                tls = None if name == "application" else self._tls
                server = tornado.httpserver.HTTPServer(application, ssl_options=tls)
                sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
                server.add_sockets(sockets)
                started[name] = sockets[0].getsockname()[1]
            ready.set()
            await asyncio.Event().wait()

        asyncio.run(main())


def _quiet(handler: Any) -> None:
    """No access log: the audit log of the API server is the record."""
    del handler
