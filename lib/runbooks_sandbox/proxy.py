"""One Envoy that istiod configures: as whom it asks, with which token and which certificate."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from runbooks_sandbox.api import Api, ApiError, Object
from runbooks_sandbox.certificates import LIFE_S, Certificate, Refused
from runbooks_sandbox.control_plane import spawn
from runbooks_sandbox.gateway import TYPES, socket_address
from runbooks_sandbox.tokens import Token, write_secretly

_LOG = logging.getLogger(__name__)
_AUDIENCE = "istio-ca"  # whom a proxy's token is for
_AGAIN_S = 1.0
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True)
class Node:
    """As whom an Envoy asks istiod.

    Args:
        kind: router or sidecar.
        address: its own.
        namespace: that of its Pod.
        workload: what the Pod belongs to.
        account: the Pod's service account.
        labels: the Pod's labels.
        more: more of its metadata.
    """

    kind: str
    address: str
    namespace: str
    workload: str
    account: str
    labels: Mapping[str, str]
    more: Mapping[str, str] = field(default_factory=dict)

    def described(self) -> Object:
        """As Envoy's bootstrap spells it."""
        pod, namespace = f"{self.workload}-sandbox", self.namespace
        return {
            "id": f"{self.kind}~{self.address}~{pod}.{namespace}~{namespace}.svc.cluster.local",
            "cluster": f"{self.workload}.{namespace}",
            "metadata": {
                "NAMESPACE": namespace,
                "NAME": pod,
                "WORKLOAD_NAME": self.workload,
                "SERVICE_ACCOUNT": self.account,
                "CLUSTER_ID": "Kubernetes",
                "MESH_ID": "cluster.local",
                "INSTANCE_IPS": self.address,
                "LABELS": dict(self.labels),
                **self.more,
            },
        }


class Proxy:
    """One Envoy, with what it needs to be believed.

    Args:
        envoy: the executable.
        folder: where its files lie; they hold its token, and its socket gives its key away.
        log: where its own words go.
        node: as whom it asks.
        api: a connection that may ask for tokens.
        istiod: the port of istiod's gRPC, on 127.0.0.1.
        life_s: how long each of its certificates is valid.
    """

    def __init__(
        self, envoy: Path, folder: Path, log: Path, node: Node, api: Api, istiod: int, life_s: int = LIFE_S
    ) -> None:
        self.node = node
        self._envoy, self._folder, self._log, self._istiod = envoy, folder, log, istiod
        self._token = Token(api, (node.namespace, node.account), _AUDIENCE, self._keep_token)
        self._certificate = Certificate(f"127.0.0.1:{istiod}", life_s)
        self._told = ""
        self._not_before = 0.0
        folder.mkdir(mode=0o700, exist_ok=True)
        self._socket = folder.with_name(f"{hashlib.sha256(folder.name.encode()).hexdigest()[:12]}.sock")
        self._certificate.serve(self._socket)

    def may_start(self, uid: str) -> bool:
        """Keep token and certificate fresh; whether it has what it needs to ask istiod.

        Args:
            uid: of its service account as it is now, empty while it is not there.
        """
        if time.monotonic() >= self._not_before:
            try:
                self._token.keep_fresh(uid)
                self._certificate.keep_fresh(self._told)
            except (ApiError, Refused, urllib3.exceptions.HTTPError) as error:
                self._not_before = time.monotonic() + _AGAIN_S
                _LOG.info("%s/%s: %s", self.node.namespace, self.node.account, error)
        return bool(self._told)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it."""
        write_secretly(self._folder / "bootstrap.json", json.dumps(self._bootstrap()))
        command: list[str | Path] = [self._envoy, "-c", "bootstrap.json", "--concurrency", "1", "--disable-hot-restart"]
        # connections that are open learn of new rules with their next request, as with Istio's own agent
        draining = ["--drain-strategy", "immediate", "--drain-time-s", "1"]
        return spawn([*command, *draining, "--log-level", "warning"], self._log, self._folder)

    def close(self) -> None:
        """Hand out no more certificates."""
        self._certificate.stop()
        self._socket.unlink(missing_ok=True)

    def _keep_token(self, token: str) -> None:
        """As a file that Envoy watches: it asks istiod with the newest one."""
        self._told = token
        secret = {
            "@type": f"{TYPES}extensions.transport_sockets.tls.v3.Secret",
            "name": "token",
            "generic_secret": {"secret": {"inline_string": token}},
        }
        write_secretly(self._folder / "token.json", json.dumps({"resources": [secret]}))

    def _bootstrap(self) -> Object:
        source = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
        istiod = _cluster("xds-grpc", socket_address("127.0.0.1", self._istiod), self._with_token())
        pipe = {"pipe": {"path": f"../{self._socket.name}"}}
        secrets = _cluster("sds-grpc", pipe, [])  # the name is istiod's choice
        return {
            "node": self.node.described(),
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
            "static_resources": {"clusters": [istiod, secrets]},
        }

    def _with_token(self) -> list[Object]:
        """Filters with which each request carries the token that is in the file at that moment."""
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
        return [
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
            {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
        ]


def _cluster(name: str, address: Object, filters: list[Object]) -> Object:
    """A cluster that is asked by gRPC."""
    options = {
        "@type": f"{TYPES}extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
        **({"http_filters": filters} if filters else {}),
    }
    endpoint = {"endpoint": {"address": address}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {_HTTP_OPTIONS: options},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
