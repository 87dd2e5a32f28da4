"""Knative Serving, its ingress, and the Gateways beside ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runbooks import readiness
from runbooks.errors import RBAC
from runbooks.kinds import (
    GATEWAY,
    KNATIVE_SERVING,
    MEMBER_ROLL,
)
from runbooks.manifests import GATEWAY_SELECTOR, INGRESS_GATEWAY, LOCAL_GATEWAY, MEMBER_ROLL_NAME, SERVING_NAMESPACE
from runbooks.parameters import (
    IntegrateServiceMesh,
)
from runbooks.preconditions.finding import met, not_met, unreadable
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.verdicts import Finding, Verdict


def istio_path(situation: Situation[Any]) -> Finding:
    """6.4.3 is for clusters where Istio is the only ingress; where Kourier serves, 6.4.5 integrates the mesh."""
    title = "Knative Serving is not installed yet, or has Istio as its only ingress"
    if situation.parameters.ingress != "istio":
        said = f"cluster.yaml says ingress: {situation.parameters.ingress}, and 6.4.3 is of the Istio path"
        return not_met(title, said, "run 6.4.5, or set ingress: istio", see="6.4.5")
    if finding := unreadable(title, situation, KNATIVE_SERVING):
        return finding
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    if not servings:
        return met(title, "not installed yet")
    enabled = _ingresses(servings[0])
    if enabled == ["istio"]:
        return met(title, f"{SERVING_NAMESPACE}/{servings[0]['metadata']['name']} with Istio only")
    said = f"{_others(enabled)} serves on this cluster"
    return not_met(title, said, "6.4.5 adds the mesh beside Kourier", see="6.4.5")


def _others(enabled: Iterable[str]) -> str:
    return " and ".join(name for name in enabled if name != "istio") or "Kourier, the default,"


def _ingresses(serving: Live) -> list[str]:
    """The ingresses that a KnativeServing enables; none means Kourier, the default."""
    ingress = (serving.get("spec") or {}).get("ingress") or {}
    return sorted(name for name, value in ingress.items() if isinstance(value, dict) and value.get("enabled"))


def kourier_path(situation: Situation[Any]) -> Finding:
    """6.4.5 is for clusters where Kourier serves already; where Istio is the only ingress, 6.4.3 is the way."""
    title = "Knative Serving is installed with Kourier"
    if situation.parameters.ingress != "kourier":
        said = f"cluster.yaml says ingress: {situation.parameters.ingress}, and 6.4.5 is of the Kourier path"
        return not_met(title, said, "run 6.4.3, or set ingress: kourier", see="6.4.3")
    if finding := unreadable(title, situation, KNATIVE_SERVING):
        return finding
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    if not servings:
        remedy = (
            f"create a KnativeServing {SERVING_NAMESPACE} in namespace {SERVING_NAMESPACE} with "
            "spec.ingress.kourier.enabled: true; to have Istio as the only ingress instead, run 6.4.3"
        )
        return not_met(title, "Knative Serving is not installed", remedy)
    enabled, name = _ingresses(servings[0]), f"{SERVING_NAMESPACE}/{servings[0]['metadata']['name']}"
    if enabled == ["istio"]:
        return not_met(title, "Istio is the only ingress of this cluster", "run 6.4.3", see="6.4.3")
    if enabled and "kourier" not in enabled:
        said = f"{' and '.join(enabled)} serves on this cluster"
        return not_met(title, said, "set spec.ingress.kourier.enabled: true in KnativeServing")
    state = readiness.knative_serving(servings[0])
    if not state.done:
        return Finding(title, Verdict.WARNING, f"{name}: {state.message}", "see its status; the proofs need it ready")
    return met(title, f"{name} with Kourier" + ("" if enabled else ", the default"))


def serving_with_istio(situation: Situation[Any]) -> Finding:
    """Knative Serving is installed with Istio as its only ingress, as 6.4.3 leaves it."""
    title = "Knative Serving is installed with Istio as its ingress"
    if finding := unreadable(title, situation, KNATIVE_SERVING):
        return finding
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    if not servings:
        return not_met(title, f"there is no KnativeServing in {SERVING_NAMESPACE}", "run 6.4.3 first", see="6.4.3")
    if (enabled := _ingresses(servings[0])) != ["istio"]:
        remedy = "this section is of the Istio path; 6.4.5 adds the mesh beside Kourier"
        return not_met(title, f"{_others(enabled)} serves on this cluster", remedy, see="6.4.5")
    return met(title, f"{SERVING_NAMESPACE}/{servings[0]['metadata']['name']}")


def no_other_gateway(situation: Situation[Any]) -> Finding:
    """No other Gateway of the mesh claims port 443 for every host; of two, the older one wins."""
    title = "No other Gateway claims port 443 for every host"
    if finding := unreadable(title, situation, GATEWAY):
        return finding
    ours = {(SERVING_NAMESPACE, INGRESS_GATEWAY), (SERVING_NAMESPACE, LOCAL_GATEWAY)}
    in_mesh = _mesh_members(situation)
    found = [
        f"{live['metadata']['namespace']}/{live['metadata']['name']}"
        for live in situation.snapshot.objects(GATEWAY)
        if live["metadata"]["namespace"] in in_mesh
        and (live["metadata"]["namespace"], live["metadata"]["name"]) not in ours
        and _claims_everything(live)
    ]
    if found:
        said = (
            f"{', '.join(found)} claims port 443 with hosts '*' for the same gateway Pods: the older Gateway wins, and "
            "requests for the hosts of the other are answered with its certificate, and with 404"
        )
        return not_met(title, said, "give that Gateway hosts of its own, or remove it")
    if situation.snapshot.is_narrowed(GATEWAY):
        said = "none does in the namespaces that could be read; those of other members were not"
        return Finding(title, Verdict.WARNING, said, RBAC)
    return met(title, "none does")


def _mesh_members(situation: Situation[Any]) -> set[str]:
    """The namespaces whose Gateways the mesh's control plane sees, those that are to join included."""
    given = situation.parameters
    roll = situation.snapshot.get(MEMBER_ROLL, given.mesh_namespace, MEMBER_ROLL_NAME) or {}
    listed = (roll.get("spec") or {}).get("members") or []
    # a roll may select its members by labels instead of naming them; the status names all that are in
    configured = (roll.get("status") or {}).get("configuredMembers") or []
    return {given.mesh_namespace, SERVING_NAMESPACE, *given.members, *listed, *configured}


def _claims_everything(gateway: Live) -> bool:
    spec = gateway.get("spec") or {}
    selector = spec.get("selector") or {}
    # Istio applies a Gateway without a selector to every gateway of the mesh
    if selector and not GATEWAY_SELECTOR.items() <= selector.items():
        return False
    return any(
        (server.get("port") or {}).get("number") == 443
        and any(host.rpartition("/")[2] == "*" for host in server.get("hosts") or [])
        for server in spec.get("servers") or []
    )


def local_gateway_variant(situation: Situation[IntegrateServiceMesh]) -> Finding:
    """The HTTPS variant of the page is applied as asked for, with a warning."""
    title = "Variant of knative-local-gateway"
    if situation.parameters.local_gateway == "http":
        return met(title, "HTTP on port 8081")
    said = (
        "HTTPS: it claims port 443 for every host a second time, so the older of the two Gateways wins, "
        "and nothing listens on 8081 for cluster-local traffic"
    )
    return Finding(title, Verdict.WARNING, said, "prefer local_gateway: http")
