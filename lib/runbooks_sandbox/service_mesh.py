"""Stand-in for the operator of Service Mesh 2, or 1: control plane, member roll, and what it leaves in each member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runbooks_sandbox.api import Object, Resource
from runbooks_sandbox.world import (
    CONTROL_PLANES,
    CONTROL_PLANES_V1,
    DEPLOYMENTS,
    MEMBER_ROLLS,
    MEMBERS,
    NAMESPACES,
    NETWORK_POLICIES,
    PEER_AUTHENTICATIONS,
    SERVICES,
    WATCHED,
    Remove,
    Want,
    World,
    condition,
    control_planes,
    is_true,
    members_of,
    owner,
)

MANAGER = "maistra-istio-operator"
MEMBER_OF, OWNER, CREATED_BY = "maistra.io/member-of", "maistra.io/owner", "maistra.io/created-by"
GATEWAY = "istio-ingressgateway"
_IGNORE_LABEL_GONE_FROM = (2, 4)
_OF_MESH_2 = (2, 0)


def watched(version: tuple[int, int, int]) -> tuple[Resource, ...]:
    """What a sandbox looks at that plays a version: Service Mesh 1 serves its control plane in maistra.io/v1 alone."""
    return WATCHED if version[:2] >= _OF_MESH_2 else (*WATCHED, CONTROL_PLANES_V1)


def _api_of(version: tuple[int, int, int]) -> Resource:
    return CONTROL_PLANES if version[:2] >= _OF_MESH_2 else CONTROL_PLANES_V1


def service_mesh(version: tuple[int, int, int], world: World, _: Mapping[str, str]) -> Iterable[Want | Remove]:
    """Everything that the operator of a version wants, for every control plane there is."""
    claimed: set[str] = set()
    for plane in control_planes(world):
        mesh = plane["metadata"]["namespace"]
        roll = world.get(MEMBER_ROLLS, mesh, "default")
        configured = _claimed(world, plane, roll)
        claimed |= {f"{mesh}/{member}" for member in configured}
        yield from _control_plane(version, world, plane)
        for member in configured:
            yield from _member(world, plane, member)
    for roll in world.objects(MEMBER_ROLLS):
        yield _roll_status(version, world, roll)
    yield from _left_over(world, claimed)


# --- the control plane -------------------------------------------------------------------------------------------


def _control_plane(version: tuple[int, int, int], world: World, plane: Object) -> Iterable[Want]:
    mesh, name = plane["metadata"]["namespace"], plane["metadata"]["name"]
    labels = {MEMBER_OF: mesh}
    if version[:2] < _IGNORE_LABEL_GONE_FROM:
        labels["maistra.io/ignore-namespace"] = "ignore"
    yield Want(NAMESPACES, {"metadata": {"name": mesh, "labels": labels}}, MANAGER)
    owners = {"ownerReferences": [owner(plane, _api_of(version))]}
    for component, selected in components(version).items():
        yield Want(DEPLOYMENTS, _deployment(component, mesh, selected, owners), MANAGER)
    yield Want(SERVICES, _gateway_service(mesh, owners), MANAGER)
    if version[:2] >= _OF_MESH_2:
        mode = "STRICT" if mutual_tls(plane) else "PERMISSIVE"
        metadata = {"name": "default", "namespace": mesh, **owners}
        yield Want(PEER_AUTHENTICATIONS, {"metadata": metadata, "spec": {"mtls": {"mode": mode}}}, MANAGER)
    status = {"metadata": {"name": name, "namespace": mesh}, "status": _status(version, world, plane)}
    yield Want(_api_of(version), status, MANAGER)


_GATEWAY_LABELS = {"app": GATEWAY, "istio": "ingressgateway"}
_BEFORE_ISTIOD = ("istio-pilot", "istio-citadel", "istio-galley", "istio-sidecar-injector")


def components(version: tuple[int, int, int]) -> dict[str, dict[str, str]]:
    """The Deployments of a control plane, with the labels of their Pods."""
    names = ("istiod",) if version[:2] >= _OF_MESH_2 else _BEFORE_ISTIOD
    return {**{name: {"app": name} for name in names}, GATEWAY: _GATEWAY_LABELS}


def mutual_tls(plane: Object) -> bool:
    """Whether the control plane has mTLS switched on, in either version of its API."""
    spec = plane.get("spec") or {}
    of_mesh_1 = ((spec.get("istio") or {}).get("global") or {}).get("mtls") or {}
    return bool((spec.get("security") or {}).get("dataPlane", {}).get("mtls") or of_mesh_1.get("enabled"))


def excluded_ports(plane: Object) -> list[int]:
    """The inbound ports that the control plane keeps out of the sidecar."""
    value: Any = plane.get("spec") or {}
    for key in ("proxy", "networking", "trafficControl", "inbound", "excludedPorts"):
        value = (value or {}).get(key)
    return list(value or [])


def _deployment(name: str, namespace: str, labels: dict[str, str], owners: Object) -> Object:
    template = {
        "metadata": {"labels": labels, "annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {"containers": [{"name": "istio-proxy" if name == GATEWAY else "discovery", "image": "stand-in"}]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels, **owners}, "spec": spec}


def _gateway_service(mesh: str, owners: Object) -> Object:
    labels = _GATEWAY_LABELS
    ports = [("status-port", 15021, 15021), ("http2", 80, 8080), ("https", 443, 8443)]
    spec = {
        "type": "ClusterIP",
        "selector": labels,
        "ports": [{"name": name, "port": port, "targetPort": target} for name, port, target in ports],
    }
    return {"metadata": {"name": GATEWAY, "namespace": mesh, "labels": labels, **owners}, "spec": spec}


def _status(version: tuple[int, int, int], world: World, plane: Object) -> Object:
    mesh = plane["metadata"]["namespace"]
    parts = components(version)
    ready = [name for name in parts if is_true(world.get(DEPLOYMENTS, mesh, name), "Available")]
    waiting = [name for name in parts if name not in ready]
    done = not waiting
    text = "All component deployments are Available" if done else f"Not ready: {', '.join(waiting)}"
    return {
        "observedGeneration": plane["metadata"]["generation"],
        "operatorVersion": ".".join(map(str, version)),
        "chartVersion": ".".join(map(str, version)),
        "annotations": {"readyComponentCount": f"{len(ready)}/{len(parts)}"},
        "readiness": {"components": {"ready": ready, "unready": waiting, "pending": []}},
        "conditions": [
            condition(plane, "Installed", True, "InstallSuccessful", "Successfully installed all mesh components"),
            condition(plane, "Reconciled", True, "InstallSuccessful", "Successfully installed all mesh components"),
            condition(plane, "Ready", done, "ComponentsReady" if done else "ComponentsNotReady", text),
        ],
    }


# --- members -----------------------------------------------------------------------------------------------------


def _named(roll: Object) -> list[str]:
    return list((roll.get("spec") or {}).get("members") or [])


def _configured(world: World, roll: Object, mesh: str) -> list[str]:
    """The members that can be configured: they exist, and belong to no other mesh."""
    found = []
    for member in _named(roll):
        namespace = world.get(NAMESPACES, "", member)
        if namespace and not namespace["metadata"].get("deletionTimestamp"):
            if (namespace["metadata"].get("labels") or {}).get(MEMBER_OF, mesh) == mesh:
                found.append(member)
    return found


def _claimed(world: World, plane: Object, roll: Object | None) -> list[str]:
    """The members of a mesh: those of its roll, which go with it, or while the mesh is not ready those there are."""
    mesh = plane["metadata"]["namespace"]
    if roll and is_true(plane, "Ready"):
        return _configured(world, roll, mesh)
    return [
        live["metadata"]["namespace"]
        for live in world.objects(MEMBERS)
        if _mesh_of(live) == mesh and (roll or CREATED_BY not in (live["metadata"].get("annotations") or {}))
    ]


def _mesh_of(member: Object) -> str:
    return str((member.get("spec") or {}).get("controlPlaneRef", {}).get("namespace", ""))


def _member(world: World, plane: Object, member: str) -> Iterable[Want]:
    mesh, name = plane["metadata"]["namespace"], plane["metadata"]["name"]
    yield Want(NAMESPACES, {"metadata": {"name": member, "labels": {MEMBER_OF: mesh}}}, MANAGER)
    if world.get(MEMBERS, member, "default") is None:
        metadata = {"name": "default", "namespace": member, "annotations": {CREATED_BY: "ServiceMeshMemberRoll"}}
        reference = {"controlPlaneRef": {"name": name, "namespace": mesh}}
        yield Want(MEMBERS, {"metadata": metadata, "spec": reference}, MANAGER)
    if ((plane.get("spec") or {}).get("security") or {}).get("manageNetworkPolicy") is not False:
        for policy, spec in _policies(mesh).items():
            metadata = {"name": f"{policy}-{name}", "namespace": member, "labels": {OWNER: mesh}}
            yield Want(NETWORK_POLICIES, {"metadata": metadata, "spec": spec}, MANAGER)


def _policies(mesh: str) -> dict[str, Object]:
    from_mesh = {"from": [{"namespaceSelector": {"matchLabels": {MEMBER_OF: mesh}}}]}
    from_router = {"from": [{"namespaceSelector": {"matchLabels": {"network.openshift.io/policy-group": "ingress"}}}]}
    exposed = {"matchLabels": {"maistra.io/expose-route": "true"}}
    return {
        "istio-mesh": {"podSelector": {}, "ingress": [from_mesh], "policyTypes": ["Ingress"]},
        "istio-expose-route": {"podSelector": exposed, "ingress": [from_router], "policyTypes": ["Ingress"]},
    }


def _left_over(world: World, claimed: set[str]) -> Iterable[Want | Remove]:
    """What the operator takes back from namespaces that are no longer members."""
    for live in world.objects(MEMBERS):
        namespace = live["metadata"]["namespace"]
        if CREATED_BY in (live["metadata"].get("annotations") or {}) and f"{_mesh_of(live)}/{namespace}" not in claimed:
            yield Remove(MEMBERS, namespace, "default")
    for live in world.objects(NETWORK_POLICIES):
        mesh = (live["metadata"].get("labels") or {}).get(OWNER)
        if mesh and f"{mesh}/{live['metadata']['namespace']}" not in claimed:
            yield Remove(NETWORK_POLICIES, live["metadata"]["namespace"], live["metadata"]["name"])
    for live in world.objects(NAMESPACES):
        name, mesh = live["metadata"]["name"], (live["metadata"].get("labels") or {}).get(MEMBER_OF)
        if mesh and mesh != name and f"{mesh}/{name}" not in claimed:
            yield Want(NAMESPACES, {"metadata": {"name": name}}, MANAGER)


def _roll_status(version: tuple[int, int, int], world: World, roll: Object) -> Want:
    mesh, name = roll["metadata"]["namespace"], roll["metadata"]["name"]
    planes = control_planes(world, mesh)
    members = _named(roll)
    noted = {live["metadata"]["namespace"] for live in world.objects(MEMBERS) if _mesh_of(live) == mesh}
    done = noted & members_of(world, mesh)
    configured = [member for member in members if member in done and planes and name == "default"]
    pending = [member for member in members if member not in configured]
    problem, text = _problem(name, planes, pending)
    metadata = {"name": name, "namespace": mesh}
    if version[:2] < _OF_MESH_2:  # as little as any 1.x tells: whoever waits for more waits in vain
        told = {"observedGeneration": roll["metadata"]["generation"], "configuredMembers": configured}
        return Want(MEMBER_ROLLS, {"metadata": metadata, "status": told}, MANAGER)
    status: Object = {
        "observedGeneration": roll["metadata"]["generation"],
        "annotations": {"configuredMemberCount": f"{len(configured)}/{len(members)}"},
        "members": members,
        "configuredMembers": configured,
        "pendingMembers": pending,
        "terminatingMembers": [],
        "memberStatuses": [_member_status(world, roll, member, member in configured) for member in members],
        "conditions": [condition(roll, "Ready", not problem, problem or "Configured", text)],
    }
    return Want(MEMBER_ROLLS, {"metadata": metadata, "status": status}, MANAGER)


def _problem(name: str, planes: list[Object], pending: list[str]) -> tuple[str, str]:
    if name != "default":
        return "ErrInvalidName", 'the ServiceMeshMemberRoll name is invalid; must be "default"'
    if not planes:
        return "ErrSMCPMissing", "No ServiceMeshControlPlane exists in the namespace"
    if not is_true(planes[0], "Ready"):
        return "SMCPReconciling", "The initial service mesh installation has not completed yet"
    if pending:
        return "ReconcileError", f"The following namespaces are not yet configured: {pending}"
    return "", "All namespaces have been configured successfully"


def _member_status(world: World, roll: Object, member: str, configured: bool) -> Object:
    known = next(
        (entry for entry in roll.get("status", {}).get("memberStatuses") or [] if entry["namespace"] == member), None
    )
    live = {"status": known} if known else None
    if world.get(NAMESPACES, "", member) is None:
        entry = condition(live, "Reconciled", False, "NamespaceNotExists", f"Namespace {member} does not exist")
    else:
        entry = condition(live, "Reconciled", configured, "" if configured else "Reconciling")
    return {"namespace": member, "conditions": [entry]}
