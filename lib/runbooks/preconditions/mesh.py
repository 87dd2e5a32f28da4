"""The mesh: namespaces, control plane, mTLS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runbooks import readiness
from runbooks.errors import RBAC
from runbooks.kinds import (
    CONTROL_PLANE,
    CONTROL_PLANE_V1,
    KNATIVE_SERVING,
    MEMBER_ROLL,
    NAMESPACE,
    NETWORK_POLICY,
    Kind,
)
from runbooks.manifests import MEMBER_ROLL_NAME, SERVING_NAMESPACE
from runbooks.network_policies import Peer, admitted
from runbooks.parameters import (
    EnableServingMetrics,
    IntegrateServiceMesh,
)
from runbooks.preconditions.finding import met, not_met, unreadable, warned
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.verdicts import Finding, Verdict, few
from runbooks.versions import DRAIN_PORT_FROM, POLICIES_OPT_OUT_FROM

DRAIN_PORT = 8022  # where queue-proxy is asked, before its Pod goes, whether it has answered everything
_AUTOSCALER_PORT = 8080
_MUTUAL_TLS = "mTLS of the data plane"
_POLICIES_OPT_OUT = "serverless.openshift.io/disable-istio-net-policies-generation"


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
    title = _MUTUAL_TLS
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
    return Finding(_MUTUAL_TLS, Verdict.WARNING, said, remedy)


def sole_member_roll(situation: Situation[Any]) -> Finding:
    """The members stand in the roll that the operator reads (6.4.3, 6.4.5): that is named default."""
    title = "No member roll but the one named default"
    if said := situation.snapshot.unreadable(MEMBER_ROLL):
        return warned(title, said, RBAC)
    mesh = situation.parameters.mesh_namespace
    rolls = situation.snapshot.objects(MEMBER_ROLL, mesh)
    others = [live for live in rolls if live["metadata"]["name"] != MEMBER_ROLL_NAME]
    if not others:
        return met(title, "there is none")
    names = few(f"{mesh}/{live['metadata']['name']}" for live in others)
    listed = few(sorted({one for live in others for one in (live.get("spec") or {}).get("members") or []}))
    said = f"the operator ignores {names} for its name: {listed or 'nothing'} joins no mesh by it, and gets no sidecars"
    remedy = "name those namespaces in members, which puts them into the roll default, and delete the other roll"
    return warned(title, said, remedy, situation.parameters.section)


def excluded_ports(plane: Live) -> list[int]:
    """The inbound ports that a control plane's sidecars leave alone."""
    value: Any = plane.get("spec") or {}
    for key in ("proxy", "networking", "trafficControl", "inbound", "excludedPorts"):
        value = (value or {}).get(key)
    return list(value or [])


def drain_port(situation: Situation[Any]) -> Finding:
    """The sidecars leave the port alone on which a Pod is drained (documented beside 6.4.4's port from 1.31 on)."""
    title = f"The sidecars leave port {DRAIN_PORT} alone, on which Pods are drained"
    found = situation.versions.serverless
    if found is None or found.version < DRAIN_PORT_FROM:
        return met(title, f"documented from {DRAIN_PORT_FROM} on")
    planes = [plane for plane in control_planes(situation) if mutual_tls_on(plane)]
    if all(DRAIN_PORT in excluded_ports(plane) for plane in planes):
        return met(title, "it is excluded" if planes else "mTLS is off, or there is no control plane")
    said = (
        f"excludedPorts lacks {DRAIN_PORT}: a Pod that goes cannot be asked whether it has answered everything, and "
        "requests are dropped on scale-down"
    )
    remedy = (
        f"add {DRAIN_PORT} to spec.proxy.networking.trafficControl.inbound.excludedPorts of the control plane, set "
        "terminationDrainDuration: 35s in its meshConfig.defaultConfig, and restart the applications' Pods"
    )
    return warned(title, said, remedy)


def policies_of_the_mesh(situation: Situation[IntegrateServiceMesh]) -> Finding:
    """Knative's own Pods reach each other where the mesh's operator keeps no NetworkPolicies (6.4.3).

    The Serverless operator's policy for monitoring selects every Pod of its namespace. What keeps the activator's way
    to the autoscaler open beside it is the policy of the mesh, which manageNetworkPolicy: false takes away.
    """
    title = "NetworkPolicies let Knative Serving's Pods reach each other"
    planes = control_planes(situation)
    if all(((p.get("spec") or {}).get("security") or {}).get("manageNetworkPolicy") is not False for p in planes):
        return met(title, "the operator of the mesh sees to it")
    if said := situation.snapshot.unreadable(NETWORK_POLICY):
        return warned(title, said, RBAC)
    serving = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    found = situation.versions.serverless
    able = found is not None and found.version >= POLICIES_OPT_OUT_FROM
    # an operator that is older keeps its policies whatever the annotation says
    opted_out = able and any(
        (live["metadata"].get("annotations") or {}).get(_POLICIES_OPT_OUT) == "true" for live in serving
    )
    if opted_out or (serving and _autoscaler_is_reached(situation)):
        return met(title, "the Serverless operator adds none" if opted_out else "those that are there do")
    said = (
        "the control plane says manageNetworkPolicy: false, and the Serverless operator's own policy closes "
        f"{SERVING_NAMESPACE} to all but monitoring: the activator does not reach the autoscaler (i/o timeout on port "
        f"{_AUTOSCALER_PORT}), and requests to Services that sleep are not answered"
    )
    remedy = (
        f'annotate KnativeServing with {_POLICIES_OPT_OUT}: "true"'
        if able
        else f"create a NetworkPolicy in {SERVING_NAMESPACE} that lets the namespaces of the mesh in"
    )
    return warned(title, said, remedy)


def _autoscaler_is_reached(situation: Situation[Any]) -> bool:
    namespace = situation.snapshot.get(NAMESPACE, "", SERVING_NAMESPACE) or {"metadata": {}}
    activator = Peer(SERVING_NAMESPACE, namespace["metadata"].get("labels") or {}, {"app": "activator"})
    policies = situation.snapshot.objects(NETWORK_POLICY, SERVING_NAMESPACE)
    return admitted(policies, SERVING_NAMESPACE, {"app": "autoscaler"}, activator, _AUTOSCALER_PORT)
