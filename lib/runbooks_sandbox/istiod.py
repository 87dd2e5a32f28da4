"""The mesh's data plane by a real istiod: the gateway's Envoy, and one for each Pod of an application in the mesh."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import urllib3

from runbooks_sandbox import istio, sidecar
from runbooks_sandbox.api import Api, ApiError, Object
from runbooks_sandbox.control_plane import spawn
from runbooks_sandbox.endpoints import HASH_HEADER, PROBE_HEADER
from runbooks_sandbox.faults import acting
from runbooks_sandbox.gateway import HTTPS_PORT, LOCAL_PORT, Starter, routing
from runbooks_sandbox.proxy import Node, Proxy
from runbooks_sandbox.service_mesh import GATEWAY
from runbooks_sandbox.sidecar import Workload
from runbooks_sandbox.state import SandboxError, State, free_address, free_port, is_free
from runbooks_sandbox.tokens import Token, write_secretly
from runbooks_sandbox.world import KNATIVE_INGRESSES, SERVICE_ACCOUNTS, StandIn, World, members_of

_LOG = logging.getLogger(__name__)
_PROBE_AGAIN_S = 0.1
_PROBE_TIMEOUT_S = 2
_GATEWAYS_ENVOY = "envoy"  # its name among the processes
_PATIENCE_S = 5.0  # at a start, for an application that does not answer
METRICS_PORT = 15014  # of istiod's Pod, as documented by Istio
_SETTINGS = {
    "REVISION": "default",
    "CLUSTER_ID": "Kubernetes",
    "XDS_AUTH_PLAINTEXT": "true",  # a proxy has to prove its service account, though it asks on loopback
    "ENABLE_CA_SERVER": "true",
    "PILOT_CERT_PROVIDER": "none",  # its own servers speak plaintext, on loopback
    "ENABLE_LEADER_ELECTION": "false",
    # filters that only Istio's own build of Envoy has
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_ENABLE_TELEMETRY_LABEL": "false",
    "PILOT_ENDPOINT_TELEMETRY_LABEL": "false",
    "PILOT_ENABLE_GATEWAY_API": "false",
    "PILOT_ENABLE_ANALYSIS": "true",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "PILOT_DEBOUNCE_AFTER": "50ms",
    "PILOT_DEBOUNCE_MAX": "500ms",
}


class IstioGateway:
    """istiod and its Envoys, from the moment on at which a control plane is Ready.

    Args:
        istiod: the executable.
        envoy: the executable.
        state: the sandbox's folder.
        api: a connection that may ask for tokens.
        address: the loopback address that the listeners bind to.
        application: port of the application behind it, on 127.0.0.1.
        answer_at: has the application answer at these addresses, too, and at no others.
        world: what is in the cluster.
    """

    def __init__(
        self,
        istiod: Path,
        envoy: Path,
        state: State,
        api: Api,
        address: str,
        application: int,
        answer_at: Callable[[set[tuple[str, int]]], None],
        world: World,
    ) -> None:
        self._istiod, self._envoy, self._state, self._api = istiod, envoy, state, api
        self._address, self._answer_at, self._world = address, answer_at, world
        self._folder = state.envoy
        self._ports = {name: free_port() for name in ("http", "grpc", "metrics")}
        self._token: Token | None = None
        self._mesh = ""
        self._proxies: dict[str, Proxy] = {}
        self._addresses: dict[str, str] = {}
        self._listening_since = 0.0
        self._answers = False
        self._probes = Probes(address, world)
        self.stand_ins: Mapping[str, StandIn] = {
            "istio": acting(partial(istio.installation, address)),
            "virtual-services": partial(istio.routes, application, self._address_of),
        }
        for folder in (self._folder, state.sidecars):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def update(self, world: World) -> None:
        """The cluster istiod sees itself; only what a sidecar is not in front of is the application's own."""
        found = sidecar.workloads(world)
        self._answer_at({(self._address_of(one), port) for one in found for port in one.left_alone()})

    def would_serve(self, ingress: Object) -> bool:
        """Whether the gateway has answered a probe for this Knative Ingress as it is now."""
        return self._probes.succeeded(ingress)

    def due(self) -> Iterable[tuple[str, Starter]]:
        """What may run by now: istiod as soon as its account is there, each Envoy as soon as istiod answers.

        Their tokens and certificates are kept fresh meanwhile.
        """
        if self._token is None:
            plane = istio.ready_plane(self._world)
            if plane is None or not self._installed():
                return
            threading.Thread(target=self._probes.run, name="probes", daemon=True).start()
            self._mesh = plane["metadata"]["namespace"]
            self._token = Token(self._api, (self._mesh, istio.ISTIOD_ACCOUNT), "", self._keep_istiod_token)
            labels = {"app": GATEWAY, "istio": "ingressgateway"}
            node = Node("router", self._address, self._mesh, GATEWAY, istio.GATEWAY_ACCOUNT, labels)
            self._proxies[_GATEWAYS_ENVOY] = self._proxy(self._folder, _GATEWAYS_ENVOY, node)
        try:
            self._token.keep_fresh(self._uid(self._mesh, istio.ISTIOD_ACCOUNT))
        except (ApiError, urllib3.exceptions.HTTPError) as error:
            _LOG.info("istiod's token: %s", error)
            return
        yield "istiod", self._start_istiod
        if self._is_answering():
            self._meet_sidecars()
            for name, proxy in self._proxies.items():
                if proxy.may_start(self._uid(proxy.node.namespace, proxy.node.account)):
                    yield name, proxy.start

    def over(self) -> Iterable[str]:
        """The sidecars whose Pods are gone."""
        wanted = {one.name for one in sidecar.workloads(self._world)}
        for name in self._proxies.keys() - wanted - {_GATEWAYS_ENVOY}:
            self._proxies.pop(name).close()
            yield name

    def close(self) -> None:
        """Hand out no more certificates."""
        for proxy in self._proxies.values():
            proxy.close()

    def serving(self) -> bool:
        """Whether the gateway listens as it should, or has nothing to listen for yet.

        Applications in the mesh are waited for too, though not for long: that one of them does not answer may be
        somebody's experiment.
        """
        if not self._answers or (routing(self._world).https and is_free(self._address, HTTPS_PORT)):
            return False
        members = members_of(self._world, self._mesh)
        self._listening_since = self._listening_since or time.monotonic()
        ingresses = [one for one in self._world.objects(KNATIVE_INGRESSES) if one["metadata"]["namespace"] in members]
        return all(map(self._probes.succeeded, ingresses)) or time.monotonic() > self._listening_since + _PATIENCE_S

    def locate(self, pod: str, port: int) -> tuple[str, int] | None:
        """Where a port of a Pod of the mesh's is answered on this machine."""
        if pod.startswith(f"{GATEWAY}-") and port in (LOCAL_PORT, HTTPS_PORT):
            return self._address, port
        return ("127.0.0.1", self._ports["metrics"]) if pod.startswith("istiod-") and port == METRICS_PORT else None

    def _installed(self) -> bool:
        wanted = [
            (one.resource, one.manifest["metadata"]) for one in istio.installation(self._address, self._world, {})
        ]
        return all(self._world.get(kind, found.get("namespace", ""), found["name"]) for kind, found in wanted)

    def _uid(self, namespace: str, account: str) -> str:
        found = self._world.get(SERVICE_ACCOUNTS, namespace, account)
        return str(found["metadata"]["uid"]) if found else ""

    # --- istiod --------------------------------------------------------------------------------------------------

    def _keep_istiod_token(self, token: str) -> None:
        write_secretly(self._folder / "istiod.token", token)
        cluster = {"server": self._api.server, "certificate-authority": str(self._state.pki / "ca.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sandbox",
            "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "istiod"}}],
            "clusters": [{"name": "sandbox", "cluster": cluster}],
            "users": [{"name": "istiod", "user": {"tokenFile": str(self._folder / "istiod.token")}}],
        }
        write_secretly(self._folder / "istiod.kubeconfig", json.dumps(config))

    def _start_istiod(self) -> subprocess.Popen[bytes]:
        ports = self._ports
        command: list[str | Path] = [
            self._istiod,
            "discovery",
            "--kubeconfig",
            self._folder / "istiod.kubeconfig",
            "--registries=Kubernetes",
            "--clusterID=Kubernetes",
            f"--httpAddr=127.0.0.1:{ports['http']}",
            f"--grpcAddr=127.0.0.1:{ports['grpc']}",
            f"--monitoringAddr=127.0.0.1:{ports['metrics']}",
            "--secureGRPCAddr=",
            "--httpsAddr=",
            "--ctrlz_port=0",
            "--domain=cluster.local",
            "--keepaliveMaxServerConnectionAge=24h",
            "--log_output_level=default:info",
        ]
        settings = {**_SETTINGS, "POD_NAMESPACE": self._mesh, "POD_NAME": "istiod-sandbox"}
        return spawn(command, self._state.logs / "istiod.log", self._folder, settings)

    def _is_answering(self) -> bool:
        """Whether istiod has been ready once; Envoy copes with everything after that by itself."""
        if not self._answers:
            connection = http.client.HTTPConnection("127.0.0.1", self._ports["http"], timeout=1)
            try:
                connection.request("GET", "/ready")
                self._answers = connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()
        return self._answers

    # --- its Envoys ----------------------------------------------------------------------------------------------

    def _meet_sidecars(self) -> None:
        """A proxy for each workload that has none yet; its account is there a moment after its Pod."""
        for one in sidecar.workloads(self._world):
            account = self._world.get(SERVICE_ACCOUNTS, one.namespace, one.account)
            if one.name not in self._proxies and account is not None:
                address, more = self._address_of(one), {"INTERCEPTION_MODE": "NONE"}
                node = Node("sidecar", address, one.namespace, one.revision, one.account, one.labels, more)
                self._proxies[one.name] = self._proxy(self._state.sidecars / one.name, one.name, node)

    def _proxy(self, folder: Path, name: str, node: Node) -> Proxy:
        return Proxy(self._envoy, folder, self._state.logs / f"{name}.log", node, self._api, self._ports["grpc"])

    def _address_of(self, workload: Workload) -> str:
        """The loopback address of a sidecar, which it keeps; the ports are those of a Pod."""
        if workload.name not in self._addresses:
            found = free_address(f"{self._address} {workload.name}", sidecar.PORTS.values())
            if found is None:
                said = f"ports {' and '.join(map(str, sidecar.PORTS.values()))} are taken on all of them"
                raise SandboxError(f"finding a loopback address for {workload.name}", said, "stop a sandbox")
            self._addresses[workload.name] = found
        return self._addresses[workload.name]


class Probes:
    """Requests to the gateway until it answers as a Knative Ingress is now, in a thread of their own.

    As net-istio's probes, they look at no certificate, and take any answer but 404 and 503 for a good one.

    Args:
        address: the gateway's.
        world: what is told as soon as a probe has succeeded.
    """

    def __init__(self, address: str, world: World) -> None:
        self._address, self._world = address, world
        self._wanted: dict[str, tuple[str, str]] = {}  # uid to host and digest
        self._succeeded: dict[str, str] = {}  # uid to digest
        self._tls = ssl.create_default_context()
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE

    def succeeded(self, ingress: Object) -> bool:
        """Whether a probe for this state of a Knative Ingress has succeeded; else one is on its way."""
        uid, digest = ingress["metadata"]["uid"], istio.digest(ingress)
        if self._succeeded.get(uid) == digest:
            return True
        public = [rule for rule in ingress["spec"]["rules"] if rule.get("visibility") == "ExternalIP"]
        if public:
            self._wanted[uid] = (public[0]["hosts"][0], digest)
        return False

    def run(self) -> None:
        """Probe until the world stops."""
        while not self._world.stopped.wait(_PROBE_AGAIN_S):
            for uid, (host, digest) in list(self._wanted.items()):
                if self._answered(host, digest):
                    self._succeeded[uid] = digest
                    self._wanted.pop(uid, None)
                    self._world.changed.set()

    def _answered(self, host: str, digest: str) -> bool:
        headers = {"Host": host, PROBE_HEADER: "probe", HASH_HEADER: "override"}
        request = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        try:
            with (
                socket.create_connection((self._address, HTTPS_PORT), _PROBE_TIMEOUT_S) as plain,
                self._tls.wrap_socket(plain, server_hostname=host) as secured,
            ):
                secured.sendall(f"GET {istio.PROBE_PATH} HTTP/1.1\r\n{request}Connection: close\r\n\r\n".encode())
                answer = http.client.HTTPResponse(secured)
                answer.begin()
                told = answer.headers.get(HASH_HEADER)
        except (OSError, http.client.HTTPException):
            return False
        return told == digest if answer.status == 200 else answer.status not in (404, 503)
