"""The Knative Services that are in the mesh already: whether what they say of sidecar and Route takes effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runbooks.errors import RBAC
from runbooks.kinds import KNATIVE_SERVICE, MEMBER_ROLL
from runbooks.manifests import INJECT, MEMBER_ROLL_NAME, PASSTHROUGH, REWRITE_PROBES
from runbooks.preconditions.finding import met, warned
from runbooks.preconditions.mesh import control_planes, mutual_tls_on
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.verdicts import Finding, few

_VISIBILITY = "networking.knative.dev/visibility"


def annotated_services(situation: Situation[Any]) -> Finding:
    """Each Knative Service of the mesh says where it counts what 6.4.3, last step, has it say."""
    title = "Knative Services in the mesh are annotated where it counts"
    snapshot = situation.snapshot
    if snapshot.not_served(KNATIVE_SERVICE):
        return met(title, "Knative Services come with Knative Serving")
    if said := snapshot.unreadable(KNATIVE_SERVICE):
        return warned(title, said, RBAC)
    roll = snapshot.get(MEMBER_ROLL, situation.parameters.mesh_namespace, MEMBER_ROLL_NAME) or {}
    members = (roll.get("status") or {}).get("configuredMembers") or []
    strict = any(map(mutual_tls_on, control_planes(situation)))
    of_mesh = [live for live in snapshot.objects(KNATIVE_SERVICE) if live["metadata"]["namespace"] in members]
    faults = [
        f"{live['metadata']['namespace']}/{live['metadata']['name']}: {fault}"
        for live in of_mesh
        for fault in misplaced(live, strict=strict)
    ]
    if faults:
        remedy = (
            f"{PASSTHROUGH} belongs into metadata.annotations of the Service, {INJECT} and {REWRITE_PROBES} into "
            "spec.template.metadata.annotations"
        )
        return warned(title, few(faults, "; "), remedy, "6.4.3")
    return met(title, f"{len(of_mesh)} looked at" if of_mesh else "there is none")


def misplaced(service: Live, *, strict: bool) -> Iterator[str]:
    """What a Knative Service says in vain, or does not say, and how that shows.

    Args:
        service: the live object.
        strict: whether the mesh insists on mTLS.
    """
    own = service["metadata"].get("annotations") or {}
    template = ((service.get("spec") or {}).get("template") or {}).get("metadata") or {}
    asked = {**(template.get("annotations") or {}), **(template.get("labels") or {})}
    if INJECT in own and INJECT not in asked:
        yield f"{INJECT} stands on the Service and not on its template, so its Pods get no sidecar"
    if asked.get(INJECT) == "true" and asked.get(REWRITE_PROBES) != "true" and strict:
        yield f"{REWRITE_PROBES} is missing beside {INJECT}, so probes fail under mTLS, and its Pods are never ready"
    if (service["metadata"].get("labels") or {}).get(_VISIBILITY) == "cluster-local":
        return
    if PASSTHROUGH not in own:
        where = "stands on the template and not on the Service" if PASSTHROUGH in asked else "is missing"
        yield f"{PASSTHROUGH} {where}, so its Route terminates TLS, and leads to a port without a Gateway: 503"
    elif own[PASSTHROUGH] != "true":
        yield f"{PASSTHROUGH}={own[PASSTHROUGH]} passes TLS through all the same, since the key alone counts"
