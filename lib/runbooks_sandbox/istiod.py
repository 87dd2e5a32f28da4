"""The ingress gateway as a mesh has it: a real istiod that judges, and a real Envoy that it configures."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import urllib3

from runbooks_sandbox import istio
from runbooks_sandbox.api import Api, ApiError, Object
from runbooks_sandbox.control_plane import spawn
from runbooks_sandbox.endpoints import HASH_HEADER, PROBE_HEADER
from runbooks_sandbox.faults import acting
from runbooks_sandbox.gateway import HTTPS_PORT, LOCAL_PORT, TYPES, Starter, routing, socket_address
from runbooks_sandbox.service_mesh import GATEWAY
from runbooks_sandbox.state import State, free_port, is_free
from runbooks_sandbox.tokens import Token, write_secretly
from runbooks_sandbox.world import StandIn, World

_LOG = logging.getLogger(__name__)
_AUDIENCE = "istio-ca"  # whom a proxy's token is for
_PROBE_AGAIN_S = 0.1
_PROBE_TIMEOUT_S = 2
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
METRICS_PORT = 15014  # of istiod's Pod, as documented by Istio
_SETTINGS = {
    "REVISION": "default",
    "CLUSTER_ID": "Kubernetes",
    "XDS_AUTH_PLAINTEXT": "true",  # a gateway has to prove its service account, though it asks on loopback
    "ENABLE_CA_SERVER": "false",
    "PILOT_CERT_PROVIDER": "none",
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
    """istiod and Envoy, from the moment on at which a control plane is Ready.

    Args:
        istiod: the executable.
        envoy: the executable.
        state: the sandbox's folder.
        api: a connection that may ask for tokens.
        address: the loopback address that the listeners bind to.
        application: port of the application behind it, on 127.0.0.1.
        world: what is in the cluster.
    """

    def __init__(
        self, istiod: Path, envoy: Path, state: State, api: Api, address: str, application: int, world: World
    ) -> None:
        self._istiod, self._envoy, self._state, self._api = istiod, envoy, state, api
        self._address, self._world = address, world
        self._folder = state.envoy
        self._ports = {name: free_port() for name in ("http", "grpc", "metrics")}
        self._tokens: list[Token] = []
        self._mesh = ""
        self._answers = False
        self._probes = Probes(address, world)
        self.stand_ins: Mapping[str, StandIn] = {
            "istio": acting(partial(istio.installation, address)),
            "virtual-services": partial(istio.routes, application),
        }
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def update(self, _: World) -> None:
        """Nothing: istiod sees the cluster itself."""

    def would_serve(self, ingress: Object) -> bool:
        """Whether the gateway has answered a probe for this Knative Ingress as it is now."""
        return self._probes.succeeded(ingress)

    def due(self) -> Iterable[tuple[str, Starter]]:
        """What may run by now: istiod as soon as its account is there, Envoy as soon as istiod answers.

        Their tokens are kept fresh meanwhile.
        """
        if not self._tokens:
            plane = istio.ready_plane(self._world)
            if plane is None or not self._installed():
                return
            threading.Thread(target=self._probes.run, name="probes", daemon=True).start()
            self._mesh = plane["metadata"]["namespace"]
            self._tokens = [
                Token(self._api, (self._mesh, istio.ISTIOD_ACCOUNT), "", self._keep_istiod_token),
                Token(self._api, (self._mesh, istio.GATEWAY_ACCOUNT), _AUDIENCE, self._keep_gateway_token),
            ]
        for token in self._tokens:
            try:
                token.keep_fresh()
            except (ApiError, urllib3.exceptions.HTTPError) as error:
                _LOG.info("a token: %s", error)
                return
        yield "istiod", self._start_istiod
        if self._is_answering():
            yield "envoy", self._start_envoy

    def serving(self) -> bool:
        """Whether the gateway listens as it should, or has nothing to listen for yet."""
        if not self._answers:
            return False
        return not routing(self._world).https or not is_free(self._address, HTTPS_PORT)

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

    # --- Envoy ---------------------------------------------------------------------------------------------------

    def _keep_gateway_token(self, token: str) -> None:
        """As a file that Envoy watches: it asks istiod with the newest one."""
        secret = {
            "@type": f"{TYPES}extensions.transport_sockets.tls.v3.Secret",
            "name": "token",
            "generic_secret": {"secret": {"inline_string": token}},
        }
        write_secretly(self._folder / "token.json", json.dumps({"resources": [secret]}))

    def _start_envoy(self) -> subprocess.Popen[bytes]:
        write_secretly(self._folder / "bootstrap.json", json.dumps(self._bootstrap()))
        command: list[str | Path] = [self._envoy, "-c", "bootstrap.json", "--concurrency", "1", "--disable-hot-restart"]
        return spawn([*command, "--log-level", "warning"], self._state.logs / "envoy.log", self._folder)

    def _bootstrap(self) -> Object:
        source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
        pod = f"{GATEWAY}-sandbox"
        return {
            "node": {
                "id": f"router~{self._address}~{pod}.{self._mesh}~{self._mesh}.svc.cluster.local",
                "cluster": f"{GATEWAY}.{self._mesh}",
                "metadata": {
                    "NAMESPACE": self._mesh,
                    "NAME": pod,
                    "WORKLOAD_NAME": GATEWAY,
                    "SERVICE_ACCOUNT": istio.GATEWAY_ACCOUNT,
                    "CLUSTER_ID": "Kubernetes",
                    "MESH_ID": "cluster.local",
                    "INSTANCE_IPS": self._address,
                    "LABELS": {"app": GATEWAY, "istio": "ingressgateway"},
                },
            },
            "dynamic_resources": {
                "lds_config": source,
                "cds_config": source,
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": True,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
                },
            },
            "static_resources": {"clusters": [self._istiod_cluster()]},
        }

    def _istiod_cluster(self) -> Object:
        """The way to istiod; each request on it carries the token that is in the file at that moment."""
        file = {"path": str(self._folder / "token.json"), "watched_directory": {"path": str(self._folder)}}
        credential = {
            "@type": f"{TYPES}extensions.http.injected_credentials.generic.v3.Generic",
            "credential": {
                "name": "token",
                "sds_config": {"path_config_source": file, "resource_api_version": "V3"},
            },
            "header": "authorization",
            "header_value_prefix": "Bearer ",
        }
        injector = {
            "@type": f"{TYPES}extensions.filters.http.credential_injector.v3.CredentialInjector",
            "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": credential},
        }
        codec = {"@type": f"{TYPES}extensions.filters.http.upstream_codec.v3.UpstreamCodec"}
        options = {
            "@type": f"{TYPES}extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
            "http_filters": [
                {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
                {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
            ],
        }
        endpoint = {"endpoint": {"address": socket_address("127.0.0.1", self._ports["grpc"])}}
        return {
            "name": "xds-grpc",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {_HTTP_OPTIONS: options},
            "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }


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
