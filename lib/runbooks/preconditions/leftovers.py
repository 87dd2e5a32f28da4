"""What others left in the cluster that Knative Serving would run into."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from runbooks.errors import RBAC
from runbooks.kinds import (
    AUTHORIZATION_POLICY,
    KNATIVE_SERVING,
    MUTATING_WEBHOOK,
    POD,
    VALIDATING_WEBHOOK,
)
from runbooks.manifests import SERVING_NAMESPACE
from runbooks.preconditions.finding import met, warned
from runbooks.readiness import running
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.verdicts import Finding, few

_WEBHOOKS = (MUTATING_WEBHOOK, VALIDATING_WEBHOOK)
_IN_THE_MESH = ("activator", "autoscaler")


def leftover_webhooks(situation: Situation[Any]) -> Finding:
    """No webhook of an earlier Knative Serving is left where there is none (a known issue of 1.37's release notes)."""
    title = "No webhook of an earlier Knative Serving is left"
    snapshot = situation.snapshot
    if said := next(filter(None, map(snapshot.unreadable, _WEBHOOKS)), ""):
        return warned(title, said, RBAC)
    if snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE):
        return met(title, "Knative Serving is installed, and those there are its own")
    left = [(kind, live["metadata"]["name"]) for kind in _WEBHOOKS for live in snapshot.objects(kind) if _asks(live)]
    if not left:
        return met(title, "there is none")
    said = (
        f"{few(f'{kind} {name}' for kind, name in left)} asks a Service in {SERVING_NAMESPACE}, where nobody answers: "
        "the next installation stops at 'no endpoints available for service'"
    )
    return warned(title, said, few((f"oc delete {kind.name.lower()} {name}" for kind, name in left), " && "))


def _asks(configuration: Live) -> bool:
    return any(
        ((webhook.get("clientConfig") or {}).get("service") or {}).get("namespace") == SERVING_NAMESPACE
        for webhook in configuration.get("webhooks") or []
    )


def authorization_policies(situation: Situation[Any]) -> Finding:
    """No AuthorizationPolicy keeps everybody from activator and autoscaler, which 6.4.3 takes into the mesh.

    The documentation of newer versions denies by default, and then has a policy for each of the two.
    """
    title = "AuthorizationPolicies let requests in to activator and autoscaler"
    if situation.snapshot.not_served(AUTHORIZATION_POLICY):
        return met(title, "the cluster does not know any")
    if said := situation.snapshot.unreadable(AUTHORIZATION_POLICY):
        return warned(title, said, RBAC)
    # those of the control plane's namespace hold for the whole mesh
    where = (SERVING_NAMESPACE, situation.parameters.mesh_namespace)
    found = [live for one in where for live in situation.snapshot.objects(AUTHORIZATION_POLICY, one)]
    closed = {app: shut for app in _IN_THE_MESH if (shut := closing(found, _labels(situation, app)))}
    if not closed:
        return met(title, "none keeps everybody out")
    said = (
        f"{few(sorted({name for names in closed.values() for name in names}))} keeps everybody out of "
        f"{' and '.join(closed)}, and no other lets anybody in: Services that sleep answer with 403 (RBAC: access "
        "denied), although they are reported as ready"
    )
    remedy = (
        f"first a policy with action ALLOW for each: activator from {SERVING_NAMESPACE} and {where[1]}, autoscaler "
        f"from {SERVING_NAMESPACE}; then the one that denies"
    )
    return warned(title, said, remedy)


def _labels(situation: Situation[Any], app: str) -> dict[str, str]:
    """The labels of an application's Pods, as far as one runs."""
    pods = running(situation.snapshot.objects(POD, SERVING_NAMESPACE))
    labels = [pod["metadata"].get("labels") or {} for pod in pods]
    return next((dict(found) for found in labels if found.get("app") == app), {"app": app})


def closing(policies: Iterable[Live], labels: dict[str, str]) -> list[str]:
    """The AuthorizationPolicies that leave nobody in; empty where anybody may get in.

    One with ALLOW and no rule matches no request, and where there is any with ALLOW, what none matches is denied.

    Args:
        policies: those that hold for the Pod's namespace.
        labels: the Pod's labels.
    """
    specs = {
        f"{live['metadata']['namespace']}/{live['metadata']['name']}": live.get("spec") or {}
        for live in policies
        if (((live.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}).items() <= labels.items()
    }
    denying = [name for name, spec in specs.items() if spec.get("action") == "DENY" and {} in (spec.get("rules") or [])]
    allowing = {name: spec for name, spec in specs.items() if spec.get("action", "ALLOW") == "ALLOW"}
    unmatched = [] if any(spec.get("rules") for spec in allowing.values()) else list(allowing)
    return [*denying, *unmatched]
