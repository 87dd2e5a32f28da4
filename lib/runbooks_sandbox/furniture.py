"""What a fresh OpenShift with both operators installed has, before any runbook is run."""

from __future__ import annotations

import base64
import concurrent.futures
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from runbooks_sandbox.api import Api, ApiError, Object, Resource
from runbooks_sandbox.crds import served_at
from runbooks_sandbox.credentials import ENGINEER
from runbooks_sandbox.endpoints import GREETING, Ports
from runbooks_sandbox.serverless import KOURIER_NAMESPACE, PART_OF_SERVERLESS, created_at_start
from runbooks_sandbox.state import SandboxError, Settings, version
from runbooks_sandbox.workloads import NODE
from runbooks_sandbox.world import (
    CONFIG_MAPS,
    CONTROL_PLANES,
    CONTROL_PLANES_V1,
    CRDS,
    INGRESS_CONFIGS,
    KNATIVE_SERVINGS,
    NAMESPACES,
    NODES,
)

DOMAIN = "apps.openshift.example.com"
MESH_NAMESPACE = "istio-system"
MANAGER = "sandbox"
_STANDS_IN = (
    "operators (Service Mesh, Serverless), Knative controllers, workload controllers, sidecar injection, node, "
    "application"
)

_SERVED_TIMEOUT_S = 30
_CLUSTER_VERSIONS = Resource("config.openshift.io/v1", "clusterversions", "ClusterVersion", namespaced=False)
_CSVS = Resource("operators.coreos.com/v1alpha1", "clusterserviceversions", "ClusterServiceVersion")
_SUBSCRIPTIONS = Resource("operators.coreos.com/v1alpha1", "subscriptions", "Subscription")
_WEBHOOKS = Resource(
    "admissionregistration.k8s.io/v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)
_CLUSTER_ROLE_BINDINGS = Resource(
    "rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)

_ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
_ROLE_BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
_RBAC = "rbac.authorization.k8s.io"
INTRODUCTION = "runbooks-sandbox"

_NAMESPACES: Mapping[str, dict[str, str]] = {
    "kube-public": {},  # the API server makes it too, at some moment after it is ready
    "openshift-operators": {},
    "openshift-serverless": {},
    "openshift-monitoring": {"name": "openshift-monitoring", "openshift.io/cluster-monitoring": "true"},
    "openshift-ingress": {"network.openshift.io/policy-group": "ingress"},
    MESH_NAMESPACE: {},
    # the Serverless operator creates it at its own start, with this label since 1.22
    "knative-serving": PART_OF_SERVERLESS,
}


def stands_in(gateway: str) -> str:
    """What is no real part of a sandbox, in words.

    Args:
        gateway: who configures the ingress gateway, istio or files.
    """
    if gateway == "files":
        return f"{_STANDS_IN}, and istiod, in whose place files configure the gateway"
    return (
        f"{_STANDS_IN}; the application's Pods have real sidecars, with certificates from istiod's CA, but Sidecar "
        "objects take the place of redirection and excluded ports (iptables in a Pod), probes are not rewritten, and "
        "Knative's own Pods have none; istiod is upstream Istio's, not the one of the mesh's own release"
    )


def load_crds(api: Api, crds: Iterable[Object]) -> None:
    """Load definitions and wait until their objects are served; several at a time, since the server takes a while.

    Raises:
        SandboxError: the server refuses a definition, or does not serve it.
    """

    def load(crd: Object) -> None:
        name = crd["metadata"]["name"]
        try:
            api.apply(crd, CRDS, MANAGER)
        except ApiError as error:
            raise SandboxError(f"loading the CRD {name}", error.message, "export it again, or leave it out") from error
        if not _served(api, served_at(crd)):
            said = f"its objects are not served after {_SERVED_TIMEOUT_S} s"
            raise SandboxError(f"loading the CRD {name}", said, "oc describe crd shows its conditions")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(load, crds))


def _served(api: Api, path: str) -> bool:
    deadline = time.monotonic() + _SERVED_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            api.request("GET", path, query={"limit": "1"})
        except ApiError as error:
            if error.status != 404:
                raise
            time.sleep(0.05)
        else:
            return True
    return False


def connect_node(api: Api, port: int) -> None:
    """Tell the API server where the node's stand-in listens this time."""
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "StandIn", "message": "a stand-in"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    _put(api, NODES, {"metadata": {"name": NODE}, "status": status})


def furnish(api: Api, settings: Settings) -> None:
    """Put the furniture in: namespaces first, then everything that lies in them."""
    of_kourier = {KOURIER_NAMESPACE: PART_OF_SERVERLESS} if created_at_start(version(settings.serverless) or ()) else {}
    for name, labels in {**_NAMESPACES, **of_kourier}.items():
        _put(api, NAMESPACES, {"metadata": {"name": name, "labels": labels}})
    _put(
        api,
        _CLUSTER_ROLE_BINDINGS,
        {
            "metadata": {"name": ENGINEER},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": ENGINEER}],
        },
    )
    for resource, manifest in _objects(settings.serverless, settings.mesh):
        _put(api, resource, manifest)
    if settings.ingress == "kourier":
        address = {"name": "knative-serving", "namespace": "knative-serving"}
        _put(api, KNATIVE_SERVINGS, {"metadata": address, "spec": {"ingress": {"kourier": {"enabled": True}}}})


def _put(api: Api, resource: Resource, manifest: Object) -> None:
    body = {"apiVersion": resource.api_version, "kind": resource.kind, **manifest}
    status = body.pop("status", None)
    api.apply(body, resource, MANAGER)
    if status is not None:
        metadata = {key: body["metadata"][key] for key in ("name", "namespace") if key in body["metadata"]}
        api.apply({**body, "metadata": metadata, "status": status}, resource, MANAGER, status=True)


def _objects(serverless: str, mesh: str) -> Iterable[tuple[Resource, Object]]:
    cluster_id = str(uuid.uuid5(uuid.NAMESPACE_URL, "serverless-mesh-runbooks sandbox"))
    desired = {"version": "4.12.0", "image": "stand-in", "url": ""}
    yield (
        _CLUSTER_VERSIONS,
        {
            "metadata": {"name": "version"},
            "spec": {"clusterID": cluster_id, "channel": "stable-4.12"},
            "status": {
                "desired": desired,
                "history": [],
                "observedGeneration": 1,
                "versionHash": "",
                "availableUpdates": None,
            },
        },
    )
    yield from _readers()
    yield INGRESS_CONFIGS, {"metadata": {"name": "cluster"}, "spec": {"domain": DOMAIN}}
    operators = (
        ("openshift-serverless", "serverless-operator", serverless),
        ("openshift-operators", "servicemeshoperator", mesh),
    )
    for namespace, package, installed in operators:
        name = f"{package}.v{installed}"
        yield (
            _CSVS,
            {
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "displayName": package,
                    "version": installed,
                    "install": {"strategy": "deployment", "spec": {"deployments": []}},
                },
                "status": {
                    "phase": "Succeeded",
                    "reason": "InstallSucceeded",
                    "message": "install strategy completed with no errors",
                },
            },
        )
        yield (
            _SUBSCRIPTIONS,
            {
                "metadata": {"name": package, "namespace": namespace},
                "spec": {
                    "name": package,
                    "source": "redhat-operators",
                    "sourceNamespace": "openshift-marketplace",
                    "startingCSV": name,
                },
            },
        )
    yield _control_plane(mesh)


def _control_plane(mesh: str) -> tuple[Resource, Object]:
    """With mTLS, which 6.4.4 is about; beside Kourier it is a warning."""
    line = f"v{'.'.join(mesh.split('.')[:2])}"
    if mesh.startswith("1."):
        spec = {"version": line, "template": "default", "istio": {"global": {"mtls": {"enabled": True}}}}
        return CONTROL_PLANES_V1, {"metadata": {"name": "basic-install", "namespace": MESH_NAMESPACE}, "spec": spec}
    spec = {"version": line, "profiles": ["default"], "security": {"dataPlane": {"mtls": True}}}
    return CONTROL_PLANES, {"metadata": {"name": "basic", "namespace": MESH_NAMESPACE}, "spec": spec}


def _readers() -> Iterable[tuple[Resource, Object]]:
    """Whoever may log in may read how the sandbox describes itself, however few rights the account has."""
    metadata = {"name": INTRODUCTION, "namespace": "kube-public"}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [INTRODUCTION], "verbs": ["get"]}
    yield _ROLES, {"metadata": metadata, "rules": [rule]}
    yield (
        _ROLE_BINDINGS,
        {
            "metadata": metadata,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": INTRODUCTION},
            "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": "system:authenticated"}],
        },
    )


def introduce(
    api: Api, name: str, address: str, gateway: str, played: Mapping[str, str], real: Mapping[str, str]
) -> None:
    """The ConfigMap in which the sandbox describes itself, for whoever connects and for every record."""
    data = {
        "name": name,
        "ingress_address": address,
        "plays": ", ".join(f"{what} {version}" for what, version in played.items()),
        "real": ", ".join(f"{what} {version}" for what, version in real.items()),
        "stands_in": stands_in(gateway),
        "application": f"answers {GREETING!r} whatever its image",
    }
    _put(api, CONFIG_MAPS, {"metadata": {"name": INTRODUCTION, "namespace": "kube-public"}, "data": data})


def register_webhook(api: Api, ports: Ports, authority: Path) -> None:
    """Tell the API server where the mesh's validation of member rolls is served."""
    client = {
        "url": f"https://127.0.0.1:{ports.webhook}/member-roll",
        "caBundle": base64.b64encode(authority.read_bytes()).decode(),
    }
    rule = {
        "apiGroups": ["maistra.io"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["servicemeshmemberrolls"],
    }
    webhook = {
        "name": "smmr.validation.maistra.io",
        "clientConfig": client,
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 10,
    }
    name = "openshift-operators.servicemesh-resources.maistra.io"
    _put(api, _WEBHOOKS, {"metadata": {"name": name}, "webhooks": [webhook]})
