"""The ingress gateway: a real Envoy, configured by files with what istiod would have made of the cluster.

``routing`` is the judgement, pure; ``FilesGateway`` writes it down where Envoy sees it and runs Envoy.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from runbooks_sandbox.api import Object
from runbooks_sandbox.control_plane import spawn
from runbooks_sandbox.serverless import SERVING
from runbooks_sandbox.service_mesh import GATEWAY
from runbooks_sandbox.world import (
    CONTROL_PLANES,
    DEPLOYMENTS,
    GATEWAYS,
    KNATIVE_INGRESSES,
    SECRETS,
    StandIn,
    World,
    is_true,
    members_of,
)

HTTPS_PORT, LOCAL_PORT = 8443, 8081
_POD_LABELS = {"app": "istio-ingressgateway", "istio": "ingressgateway"}
TYPES = "type.googleapis.com/envoy."
_SECRET_TIMEOUT = "1s"  # how long a listener waits for a certificate that never comes; Istio's Envoy waits 15 s  # noqa: S105


@dataclass(frozen=True)
class Host:
    """One virtual host: its names, and whether a Pod stands behind it."""

    names: tuple[str, ...]
    healthy: bool


@dataclass(frozen=True)
class Routing:
    """What the gateway does.

    Args:
        https: whether it listens on 8443.
        credential: the name of the Secret that the winning Gateway asks for.
        public: what it answers for there.
        local: what it answers for on 8081, or None where it does not listen.
    """

    https: bool
    credential: str
    public: tuple[Host, ...]
    local: tuple[Host, ...] | None


def _mesh(world: World) -> str:
    return next((plane["metadata"]["namespace"] for plane in world.objects(CONTROL_PLANES)), "")


def _servers(world: World) -> Iterable[tuple[Object, Object]]:
    """Gateways of member namespaces that mean these Pods, with their servers, the oldest first."""
    mesh = _mesh(world)
    seen = members_of(world, mesh)
    for live in sorted(world.objects(GATEWAYS), key=_age):
        spec = live.get("spec") or {}
        if live["metadata"]["namespace"] in seen and (spec.get("selector") or {}).items() <= _POD_LABELS.items():
            for server in spec.get("servers") or []:
                yield live, server


def _age(live: Object) -> tuple[str, str]:
    """As istiod sorts them: times count in whole seconds, so that names decide between two that were made together."""
    metadata = live["metadata"]
    return metadata["creationTimestamp"], f"{metadata['name']}.{metadata['namespace']}"


def _winner(world: World, port: int) -> tuple[Object, Object] | None:
    """Of two Gateways that claim a port for every host, the older one wins and the other is ignored."""
    return next(((live, server) for live, server in _servers(world) if server["port"]["number"] == port), None)


def _is(live: Object, name: str) -> bool:
    return (live["metadata"]["namespace"], live["metadata"]["name"]) == (SERVING, name)


def _hosts(world: World, visibility: str) -> tuple[Host, ...]:
    members = members_of(world, _mesh(world))
    found = []
    for ingress in world.objects(KNATIVE_INGRESSES):
        namespace = ingress["metadata"]["namespace"]
        if namespace in members:
            for rule in ingress["spec"]["rules"]:
                if rule.get("visibility") == visibility:
                    revision = rule["http"]["paths"][0]["splits"][0]["serviceName"]
                    deployment = world.get(DEPLOYMENTS, namespace, f"{revision}-deployment")
                    found.append(Host(tuple(rule["hosts"]), is_true(deployment, "Available")))
    return tuple(found)


def routing(world: World) -> Routing:
    """What istiod would make of the Gateways, the member roll and the Knative Ingresses."""
    https, local = _winner(world, 443), _winner(world, LOCAL_PORT)
    credential = str((https[1].get("tls") or {}).get("credentialName", "")) if https else ""
    # the virtual services name the two documented Gateways; behind another winner they answer nothing
    public = _hosts(world, "ExternalIP") if https and _is(https[0], "knative-ingress-gateway") else ()
    inside = _hosts(world, "ClusterLocal") if local and _is(local[0], "knative-local-gateway") else ()
    return Routing(https is not None, credential, public, inside if local else None)


def certificate(world: World, credential: str) -> tuple[str, str] | None:
    """Chain and key of the Secret that the gateway would read, or None where they are missing or do not match.

    The gateway reads Secrets of the namespace that its own Pods run in, and of no other.
    """
    secret = world.get(SECRETS, _mesh(world), credential)
    data = (secret or {}).get("data") or {}
    try:
        chain, key = (base64.b64decode(data[name]) for name in ("tls.crt", "tls.key"))
        public = x509.load_pem_x509_certificate(chain).public_key()
        private = serialization.load_pem_private_key(key, password=None).public_key()
    except (KeyError, ValueError, TypeError):
        return None
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if public.public_bytes(encoding, form) != private.public_bytes(encoding, form):
        return None
    return chain.decode(), key.decode()


def would_serve(world: World, ingress: Object) -> bool:
    """Whether a probe of the gateway for this Knative Ingress would succeed, whatever the certificate says."""
    state = routing(world)
    names = {name for host in state.public for name in host.names}
    routed = any(name in names for rule in ingress["spec"]["rules"] for name in rule["hosts"])
    # a gateway that has a certificate keeps it when the Secret goes
    return routed and (is_true(ingress, "Ready") or certificate(world, state.credential) is not None)


Starter = Callable[[], subprocess.Popen[bytes]]


class Gateway(Protocol):
    """What stands behind the gateway's address; the files gateway is one way, the real Istio another."""

    stand_ins: Mapping[str, StandIn]  # what has to be in the cluster for it

    def update(self, world: World) -> None:
        """Bring the gateway in line with the world."""

    def would_serve(self, ingress: Object) -> bool:
        """Whether a probe of the gateway for a Knative Ingress would succeed."""

    def due(self) -> Iterable[tuple[str, Starter]]:
        """The processes that should run by now, with what starts each."""

    def over(self) -> Iterable[str]:
        """The processes that have nothing to do any more."""

    def close(self) -> None:
        """Let go of everything but the processes."""

    def serving(self) -> bool:
        """Whether it does what it should with what the cluster has."""

    def locate(self, pod: str, port: int) -> tuple[str, int] | None:
        """Where a port of one of the mesh's Pods is answered on this machine, if anywhere."""


class FilesGateway:
    """Envoy, configured by files that it watches.

    Args:
        envoy: the executable.
        folder: where its files lie; they hold the private key, so they are made for their owner only.
        address: the loopback address that the listeners bind to.
        application: port of the application behind it, on 127.0.0.1.
        log: where Envoy's own words go.
        world: what is in the cluster.
    """

    stand_ins: Mapping[str, StandIn] = {}

    def __init__(self, envoy: Path, folder: Path, address: str, application: int, log: Path, world: World) -> None:
        self._envoy, self._folder, self._address, self._log = envoy, folder, address, log
        self._world = world
        self._application = application
        self._written: dict[str, str] = {}
        self._served: dict[str, tuple[str, str]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def would_serve(self, ingress: Object) -> bool:
        """Whether a probe of the gateway for a Knative Ingress would succeed, whatever the certificate says."""
        return would_serve(self._world, ingress)

    def due(self) -> Iterable[tuple[str, Starter]]:
        """Envoy, from the beginning on."""
        yield "envoy", self._start

    def over(self) -> Iterable[str]:
        """None ever is."""
        return ()

    def close(self) -> None:
        """There is nothing but a process."""

    def serving(self) -> bool:
        """It always does: its files are written before anything is said to be ready."""
        return True

    def locate(self, pod: str, port: int) -> tuple[str, int] | None:
        """Only the gateway's Pod has something behind it."""
        return (self._address, port) if pod.startswith(f"{GATEWAY}-") and port == LOCAL_PORT else None

    def _start(self) -> subprocess.Popen[bytes]:
        """Start Envoy on what the files say."""
        for name in ("lds", "cds"):
            if not (self._folder / f"{name}.json").exists():
                self._write(name, [])
        bootstrap = self._folder / "bootstrap.json"
        bootstrap.write_text(json.dumps(self._bootstrap()))
        command: list[str | Path] = [
            self._envoy,
            "-c",
            bootstrap,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "--log-level",
            "warning",
        ]
        return spawn(command, self._log, self._folder)

    def update(self, world: World) -> None:
        """Write what changed; Envoy picks it up within milliseconds."""
        state = routing(world)
        found = certificate(world, state.credential)
        if found:
            self._served[state.credential] = found  # kept when the Secret is gone or broken, as the real one does
        for name, pair in self._served.items():
            self._write(_secret_file(name), [self._secret(name, *pair)])
        self._write("cds", [self._cluster()])
        for name, hosts in (("public", state.public), ("local", state.local or ())):
            self._write(f"rds-{name}", [_routes(name, hosts)])  # Envoy takes one route configuration a file
        self._write("lds", [*self._https(state), *self._local(state)])

    def _write(self, name: str, resources: list[Any]) -> None:
        content = json.dumps({"resources": resources})
        if self._written.get(name) == content:
            return
        temporary = self._folder / f".{name}.json"
        temporary.touch(mode=0o600)
        temporary.write_text(content)
        temporary.replace(self._folder / f"{name}.json")
        self._written[name] = content

    def _bootstrap(self) -> Object:
        return {
            "node": {"id": "sandbox", "cluster": "sandbox"},
            "dynamic_resources": {"lds_config": self._source("lds"), "cds_config": self._source("cds")},
        }

    def _source(self, name: str, timeout: str = "0s") -> Object:
        return {
            "path_config_source": {
                "path": str(self._folder / f"{name}.json"),
                "watched_directory": {"path": str(self._folder)},
            },
            "resource_api_version": "V3",
            "initial_fetch_timeout": timeout,
        }

    def _secret(self, name: str, chain: str, key: str) -> Object:
        certificates = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
        kind = f"{TYPES}extensions.transport_sockets.tls.v3.Secret"
        return {"@type": kind, "name": name, "tls_certificate": certificates}

    def _cluster(self) -> Object:
        endpoint = {"address": socket_address("127.0.0.1", self._application)}
        return {
            "@type": f"{TYPES}config.cluster.v3.Cluster",
            "name": "application",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "application",
                "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
            },
        }

    def _https(self, state: Routing) -> list[Object]:
        if not state.https:
            return []
        name = state.credential or "none"
        if not (self._folder / f"{_secret_file(name)}.json").exists():
            self._write(_secret_file(name), [])
        secret = {"name": name, "sds_config": self._source(_secret_file(name), _SECRET_TIMEOUT)}
        context = {
            "@type": f"{TYPES}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [secret],
            },
        }
        chain = {
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
            "filters": [self._http("public")],
        }
        return [self._listener("https", HTTPS_PORT, chain)]

    def _local(self, state: Routing) -> list[Object]:
        if state.local is None:
            return []
        return [self._listener("local", LOCAL_PORT, {"filters": [self._http("local")]})]

    def _listener(self, name: str, port: int, chain: Object) -> Object:
        return {
            "@type": f"{TYPES}config.listener.v3.Listener",
            "name": name,
            "address": socket_address(self._address, port),
            "filter_chains": [chain],
        }

    def _http(self, routes: str) -> Object:
        router = {"@type": f"{TYPES}extensions.filters.http.router.v3.Router"}
        manager = {
            "@type": f"{TYPES}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": routes,
            "strip_any_host_port": True,
            "rds": {"route_config_name": routes, "config_source": self._source(f"rds-{routes}")},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        }
        return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def socket_address(address: str, port: int) -> Object:
    """An address as Envoy's configuration spells it."""
    return {"socket_address": {"address": address, "port_value": port}}


def _secret_file(credential: str) -> str:
    """The file of one Secret; a credentialName may hold anything."""
    return f"sds-{hashlib.sha256(credential.encode()).hexdigest()[:12]}"


def _routes(name: str, hosts: tuple[Host, ...]) -> Object:
    answer: Object = {"route": {"cluster": "application"}}
    refusal: Object = {"direct_response": {"status": 503}}
    return {
        "@type": f"{TYPES}config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": [
            {
                "name": host.names[0],
                "domains": list(host.names),
                "routes": [{"match": {"prefix": "/"}, **(answer if host.healthy else refusal)}],
            }
            for host in hosts
        ],
    }
