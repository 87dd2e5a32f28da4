"""What belongs to a mesh with a real istiod: its installation, and what net-istio makes for each Knative Ingress.

Pure, like every stand-in: from what is in the cluster to what should be. ``istiod`` runs the processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runbooks_sandbox.api import Object, Resource
from runbooks_sandbox.endpoints import HASH_HEADER
from runbooks_sandbox.serverless import SERVING
from runbooks_sandbox.service_mesh import GATEWAY, MEMBER_OF
from runbooks_sandbox.service_mesh import MANAGER as MESH_OPERATOR
from runbooks_sandbox.sidecar import PORTS, REVISION_LABEL, SIDECARS, AddressOf, Workload, redirection, workloads
from runbooks_sandbox.workloads import CONTROLLERS
from runbooks_sandbox.world import (
    CONFIG_MAPS,
    CONTROL_PLANES,
    DEPLOYMENTS,
    KNATIVE_INGRESSES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Remove,
    Want,
    World,
    is_true,
    owner,
)

_RBAC = "rbac.authorization.k8s.io/v1"
ROLES = Resource(_RBAC, "roles", "Role")
ROLE_BINDINGS = Resource(_RBAC, "rolebindings", "RoleBinding")
CLUSTER_ROLES = Resource(_RBAC, "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Resource(_RBAC, "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
ENVOY_FILTERS = Resource("networking.istio.io/v1alpha3", "envoyfilters", "EnvoyFilter")
VIRTUAL_SERVICES = Resource("networking.istio.io/v1", "virtualservices", "VirtualService")
WORKLOAD_ENTRIES = Resource("networking.istio.io/v1", "workloadentries", "WorkloadEntry")
WATCHED = (
    SERVICE_ACCOUNTS,
    ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    ENVOY_FILTERS,
    VIRTUAL_SERVICES,
    WORKLOAD_ENTRIES,
    SIDECARS,
)
NET_ISTIO = "net-istio-controller"
ISTIOD_ACCOUNT, GATEWAY_ACCOUNT = "istiod", f"{GATEWAY}-service-account"
PROBE_PATH = "/healthz"
_READ = ["get", "list", "watch"]
_RULES: tuple[Object, ...] = (
    {
        "apiGroups": [""],
        "resources": ["namespaces", "nodes", "pods", "services", "endpoints", "secrets", "serviceaccounts"],
        "verbs": _READ,
    },
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": [*_READ, "create", "update"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": _READ},
    {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": _READ},
    {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": _READ},
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": _READ},
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
        "verbs": _READ,
    },
    {
        "apiGroups": ["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"],
        "resources": ["*"],
        "verbs": [*_READ, "update", "patch"],  # the results of its analysis go into their status
    },
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
)


# --- the installation ---------------------------------------------------------------------------------------------


def ready_plane(world: World) -> Object | None:
    """The first control plane that is Ready; istiod runs from then on."""
    return next((plane for plane in world.objects(CONTROL_PLANES) if is_true(plane, "Ready")), None)


def installation(address: str, world: World, _: Mapping[str, str]) -> Iterable[Want]:
    """What the Service Mesh operator derives from a Ready control plane: mesh configuration, accounts, rights.

    Beside that the one thing that only a sandbox needs: the gateway's listeners on its own loopback address.
    """
    plane = ready_plane(world)
    if plane is None:
        return
    mesh = plane["metadata"]["namespace"]
    owned = {"namespace": mesh, "ownerReferences": [owner(plane, CONTROL_PLANES)]}
    yield _want(CONFIG_MAPS, {"metadata": {**owned, "name": "istio"}, "data": {"mesh": json.dumps(mesh_config(mesh))}})
    for account in (ISTIOD_ACCOUNT, GATEWAY_ACCOUNT):
        yield _want(SERVICE_ACCOUNTS, {"metadata": {**owned, "name": account}})
    name = f"istiod-{mesh}"
    subject = {"kind": "ServiceAccount", "name": ISTIOD_ACCOUNT, "namespace": mesh}
    yield _want(CLUSTER_ROLES, {"metadata": {"name": name}, "rules": list(_RULES)})
    yield _want(CLUSTER_ROLE_BINDINGS, _binding({"name": name}, "ClusterRole", name, subject))
    for name, account, verbs in (  # istiod keeps its CA in a Secret, the gateway reads certificates
        (ISTIOD_ACCOUNT, ISTIOD_ACCOUNT, [*_READ, "create", "update"]),
        (f"{GATEWAY}-sds", GATEWAY_ACCOUNT, _READ),
    ):
        metadata = {**owned, "name": name}
        rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}
        yield _want(ROLES, {"metadata": metadata, "rules": [rule]})
        yield _want(ROLE_BINDINGS, _binding(metadata, "Role", name, {**subject, "name": account}))
    yield _want(ENVOY_FILTERS, {"metadata": {**owned, "name": "sandbox-address"}, "spec": listening_at(address)})


def mesh_config(mesh: str) -> Object:
    """The mesh configuration: like the operator's, istiod sees the namespaces of the member roll and no other."""
    return {
        "rootNamespace": mesh,
        "trustDomain": "cluster.local",
        "discoverySelectors": [{"matchLabels": {MEMBER_OF: mesh}}],
        "enableAutoMtls": True,
        "enablePrometheusMerge": False,
        "defaultProviders": {},  # upstream's Envoy lacks Istio's own statistics filter
    }


def listening_at(address: str) -> Object:
    """An EnvoyFilter's spec that puts the gateway's listeners on one address, with the ports that they have."""
    value = {"address": {"socket_address": {"address": address}}}
    patch = {
        "applyTo": "LISTENER",
        "match": {"context": "GATEWAY"},
        "patch": {"operation": "MERGE", "value": value},
    }
    return {"workloadSelector": {"labels": {"istio": "ingressgateway"}}, "configPatches": [patch]}


def _binding(metadata: Object, kind: str, role: str, subject: Object) -> Object:
    reference = {"apiGroup": _RBAC.split("/")[0], "kind": kind, "name": role}
    return {"metadata": metadata, "roleRef": reference, "subjects": [subject]}


def _want(resource: Resource, manifest: Object) -> Want:
    return Want(resource, manifest, MESH_OPERATOR)


# --- what net-istio makes ----------------------------------------------------------------------------------------


def routes(application: int, address_of: AddressOf, world: World, _: Mapping[str, str]) -> Iterable[Want | Remove]:
    """For each Knative Ingress the VirtualService that net-istio makes, and what its destination is.

    Args:
        application: the port of the application's stand-in on 127.0.0.1, which stands behind every revision.
        address_of: the loopback address of a workload's sidecar.
        world: what is in the cluster.
    """
    injected = {(one.namespace, one.revision): one for one in workloads(world)}
    behind: list[Want] = []
    gateways = configured_gateways((world.get(CONFIG_MAPS, SERVING, "config-istio") or {}).get("data") or {})
    for ingress in world.objects(KNATIVE_INGRESSES):
        namespace = ingress["metadata"]["namespace"]
        for revision in sorted({split["serviceName"] for split in _splits(ingress)}):
            metadata = {"name": revision, "namespace": namespace, "ownerReferences": _owners(ingress)}
            selector = {REVISION_LABEL: revision}
            ports = [{"name": "http", "port": 80, "targetPort": "http"}]
            service = {"metadata": metadata, "spec": {"selector": selector, "ports": ports}}
            yield Want(SERVICES, service, NET_ISTIO)
            if is_true(world.get(DEPLOYMENTS, namespace, f"{revision}-deployment"), "Available"):
                workload = injected.get((namespace, revision))
                behind += (
                    _with_sidecar(metadata, workload, address_of(workload), application)
                    if workload
                    else [
                        _entry(metadata, {"address": "127.0.0.1", "labels": selector, "ports": {"http": application}})
                    ]
                )
        yield Want(VIRTUAL_SERVICES, virtual_service(ingress, *gateways), NET_ISTIO)
    yield from behind
    yield from _left_over(world, behind)


def _entry(metadata: Object, spec: Object) -> Want:
    """An endpoint may not have a loopback address, a WorkloadEntry may; it comes and goes with the Pod."""
    return Want(WORKLOAD_ENTRIES, {"metadata": metadata, "spec": spec}, NET_ISTIO)


def _with_sidecar(metadata: Object, workload: Workload, address: str, application: int) -> Iterable[Want]:
    """What leads to a Pod with a sidecar; the service account is what the gateway insists on."""
    if workload.account == "default":  # which every namespace has, by a controller that does not run here
        account = {"metadata": {"name": "default", "namespace": workload.namespace}}
        yield Want(SERVICE_ACCOUNTS, account, CONTROLLERS)
    named = {**metadata, "name": f"sandbox-{workload.revision}"}
    yield Want(SIDECARS, {"metadata": named, "spec": redirection(workload, address, application)}, "sandbox")
    whose = {"serviceAccount": workload.account, "labels": workload.labels}
    yield _entry(metadata, {"address": address, "ports": {"http": PORTS["http"]}, **whose})


def _left_over(world: World, behind: Iterable[Want]) -> Iterable[Remove]:
    """What led to Pods that are gone, or have no sidecar any more."""
    kept = {(one.resource, one.manifest["metadata"]["namespace"], one.manifest["metadata"]["name"]) for one in behind}
    for resource in (WORKLOAD_ENTRIES, SIDECARS):
        for live in world.objects(resource):
            owners = live["metadata"].get("ownerReferences") or []
            address = (live["metadata"]["namespace"], live["metadata"]["name"])
            if any(one["kind"] == KNATIVE_INGRESSES.kind for one in owners) and (resource, *address) not in kept:
                yield Remove(resource, *address)


def _owners(ingress: Object) -> list[Object]:
    return [owner(ingress, KNATIVE_INGRESSES)]


def _splits(ingress: Object) -> Iterable[Object]:
    return (split for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"] for split in path["splits"])


def configured_gateways(config: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The public and the cluster-local gateways of ``config-istio``, as NAMESPACE/NAME; else the default ones."""
    found = []
    for prefix, default in (("gateway.", "knative-ingress-gateway"), ("local-gateway.", "knative-local-gateway")):
        named = [key.removeprefix(prefix).replace(".", "/", 1) for key in config if key.startswith(prefix)]
        found.append(named or [f"{SERVING}/{default}"])
    return found[0], found[1]


def digest(ingress: Object) -> str:
    """What a probe's answer has to carry, so that an answer from before a change does not count."""
    return hashlib.sha256(json.dumps(ingress["spec"], sort_keys=True).encode()).hexdigest()


def virtual_service(ingress: Object, public: Sequence[str], local: Sequence[str]) -> Object:
    """The VirtualService of a Knative Ingress."""
    name, namespace = ingress["metadata"]["name"], ingress["metadata"]["namespace"]
    hosts, http = [], []
    for rule in ingress["spec"]["rules"]:
        gateways = list(public if rule.get("visibility") == "ExternalIP" else local)
        hosts += rule["hosts"]
        for path in rule["http"]["paths"]:
            for host in rule["hosts"]:
                where = {"authority": {"prefix": host}, "gateways": gateways}
                probed = {**where, "headers": {HASH_HEADER: {"exact": "override"}}}
                http.append(_route(probed, path["splits"], {HASH_HEADER: digest(ingress)}))
                http.append(_route(where, path["splits"], {}))
    return {
        "metadata": {"name": f"{name}-ingress", "namespace": namespace, "ownerReferences": _owners(ingress)},
        "spec": {"gateways": [*public, *local], "hosts": hosts, "http": http},
    }


def _route(match: Object, splits: Iterable[Object], headers: Mapping[str, str]) -> Object:
    destinations: list[Any] = []
    for split in splits:
        service, namespace = split["serviceName"], split["serviceNamespace"]
        told = {**headers, "Knative-Serving-Namespace": namespace, "Knative-Serving-Revision": service}
        host = f"{service}.{namespace}.svc.cluster.local"
        destinations.append(
            {
                "destination": {"host": host, "port": {"number": split["servicePort"]}},
                "headers": {"request": {"set": told}},
                "weight": split["percent"],
            }
        )
    return {"match": [match], "retries": {}, "route": destinations}
