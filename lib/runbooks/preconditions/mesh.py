"""The mesh: namespaces, control plane, mTLS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runbooks import readiness
from runbooks.kinds import (
    CONTROL_PLANE,
    CONTROL_PLANE_V1,
    NAMESPACE,
    Kind,
)
from runbooks.parameters import (
    EnableServingMetrics,
    IntegrateServiceMesh,
)
from runbooks.preconditions.finding import met, not_met, unreadable
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.verdicts import Finding, Verdict, few


def mesh_namespace(situation: Situation[Any]) -> Finding:
    """The namespace of the control plane exists; the project creates none."""
    name = situation.parameters.mesh_namespace
    return namespaces_exist("The mesh namespace exists", situation, [name])


def member_namespaces(situation: Situation[IntegrateServiceMesh]) -> Finding:
    """Every namespace that is to join the mesh exists."""
    return namespaces_exist("The member namespaces exist", situation, situation.parameters.all_members)


def monitoring_namespace(situation: Situation[EnableServingMetrics]) -> Finding:
    """The namespace in which Prometheus runs exists."""
    name = situation.parameters.monitoring_namespace
    return namespaces_exist("The monitoring namespace exists", situation, [name])


def namespaces_exist(title: str, situation: Situation[Any], names: Iterable[str]) -> Finding:
    """The named namespaces are there, and none is being deleted."""
    if finding := unreadable(title, situation, NAMESPACE):
        return finding
    found = {live["metadata"]["name"]: live for live in situation.snapshot.objects(NAMESPACE)}
    missing = [name for name in names if name not in found]
    if missing:
        commands = few((f"oc new-project {name}" for name in missing), " && ")
        return not_met(title, f"{few(missing)} does not exist", f"create it first: {commands}")
    ending = [name for name in names if found[name]["metadata"].get("deletionTimestamp")]
    if ending:
        return not_met(title, f"{few(ending)} is being deleted", "wait until it is gone, then create it anew")
    return met(title, few(names))


def control_plane(situation: Situation[Any]) -> Finding:
    """A ServiceMeshControlPlane exists in the mesh namespace and is ready."""
    title, namespace = "A ServiceMeshControlPlane is ready", situation.parameters.mesh_namespace
    if finding := unreadable(title, situation, _control_plane_kind(situation)):
        return finding
    planes = control_planes(situation)
    if not planes:
        remedy = f"create a ServiceMeshControlPlane in {namespace}, or set mesh_namespace"
        return not_met(title, f"there is none in {namespace}", remedy)
    name = planes[0]["metadata"]["name"]
    state = readiness.control_plane(planes[0])
    if not state.done:
        return not_met(title, f"{namespace}/{name}: {state.message}", "see its status; the operator's log has more")
    return met(title, f"{namespace}/{name}")


def _control_plane_kind(situation: Situation[Any]) -> Kind:
    """Service Mesh 1 serves maistra.io/v1 alone; a section that supports it has read both."""
    answered = any(read.kind == CONTROL_PLANE_V1 for read in situation.snapshot.found)
    return CONTROL_PLANE_V1 if answered and situation.snapshot.not_served(CONTROL_PLANE) else CONTROL_PLANE


def control_planes(situation: Situation[Any]) -> tuple[Live, ...]:
    """The control planes in the mesh namespace, where one is expected."""
    return situation.snapshot.objects(_control_plane_kind(situation), situation.parameters.mesh_namespace)


def mutual_tls_on(plane: Live) -> bool:
    """Whether a control plane has mTLS of the data plane switched on, in either version of its API."""
    spec = plane.get("spec") or {}
    of_mesh_1 = ((spec.get("istio") or {}).get("global") or {}).get("mtls") or {}
    return ((spec.get("security") or {}).get("dataPlane") or {}).get("mtls") is True or of_mesh_1.get("enabled") is True


def mutual_tls(situation: Situation[Any]) -> Finding:
    """The mTLS setting as the control plane has it; only ``mtls: required`` insists on it."""
    title = "mTLS of the data plane"
    if finding := unreadable(title, situation, _control_plane_kind(situation)):
        return finding
    planes = control_planes(situation)
    switched_on = bool(planes) and mutual_tls_on(planes[0])
    if switched_on or situation.parameters.mtls == "any":
        return met(title, "on" if switched_on else "off")
    return not_met(
        title, "off, and mtls is required", "set spec.security.dataPlane.mtls: true in the ServiceMeshControlPlane"
    )


def mutual_tls_beside_kourier(situation: Situation[Any]) -> Finding:
    """Kourier and activator are outside of the mesh, so Pods with a sidecar that insist on mTLS refuse them."""
    found = mutual_tls(situation)
    if found.verdict is not Verdict.MET or not any(map(mutual_tls_on, control_planes(situation))):
        return found
    said = "on, and Kourier and the activator have no sidecar: Pods that have one refuse what they send"
    remedy = "give those namespaces a PeerAuthentication with mode PERMISSIVE, or take the Istio path"
    return Finding(found.title, Verdict.WARNING, said, remedy)
