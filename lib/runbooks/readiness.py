"""When an object is as it should be: pure judgement of one live object, one function per kind.

Nothing here waits; ``wait`` asks these functions until they say done.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runbooks.snapshot import Live, leaving
from runbooks.verdicts import few


@dataclass(frozen=True)
class State:
    """How far an object is.

    Args:
        done: it is as it should be.
        message: the server's own reason where it is not, in one line.
    """

    done: bool
    message: str = ""


_MISSING = State(False, "it does not exist yet")


def _absent(live: Live | None) -> State | None:
    """Where an object is not there, or is on its way out."""
    if live is None:
        return _MISSING
    said = leaving(live)
    return State(False, said) if said else None


def _unseen(live: Live) -> State | None:
    """Where the status of an object is of an earlier generation."""
    generation = live.get("metadata", {}).get("generation", 0)
    observed = (live.get("status") or {}).get("observedGeneration", generation)
    if observed < generation:
        return State(False, f"its operator has seen generation {observed}, not yet {generation}")
    return None


def condition(live: Live, name: str) -> Mapping[str, Any]:
    """One entry of ``status.conditions``; empty where there is none."""
    for entry in live.get("status", {}).get("conditions", []):
        if entry.get("type") == name:
            return dict(entry)
    return {}


def conditions(live: Live | None, *names: str) -> State:
    """Done when all the named conditions are True for the object's current generation."""
    if live is None:
        return _MISSING
    if amiss := _absent(live) or _unseen(live):
        return amiss
    pending = [_words(name, condition(live, name)) for name in names if condition(live, name).get("status") != "True"]
    return State(not pending, "; ".join(pending))


def _words(name: str, entry: Mapping[str, Any]) -> str:
    if not entry:
        return f"{name} is not reported yet"
    reason = " ".join(part for part in (entry.get("reason", ""), entry.get("message", "")) if part)
    return f"{name} is {entry.get('status')}" + (f": {reason}" if reason else "")


def exists(live: Live | None) -> State:
    """Done when the object is there."""
    return _absent(live) or State(True)


def running(pods: Iterable[Live]) -> list[Live]:
    """The Pods that are neither finished nor on their way out."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]


def replaced(pods: Iterable[Live], gone: Live, count: int) -> State:
    """Done when one Pod has gone and as many of its kind as before are ready.

    Args:
        pods: the Pods of the same workload now.
        gone: the Pod that was evicted.
        count: how many there were before.
    """
    others = [pod for pod in running(pods) if pod["metadata"]["uid"] != gone["metadata"]["uid"]]
    ready = [pod for pod in others if condition(pod, "Ready").get("status") == "True"]
    return State(len(ready) >= count, f"{len(ready)} of {count} Pods are ready")


def control_plane(live: Live | None) -> State:
    """ServiceMeshControlPlane: installed, reconciled and its components ready."""
    return conditions(live, "Reconciled", "Ready")


def member_roll(live: Live | None, members: Iterable[str]) -> State:
    """ServiceMeshMemberRoll: the given members are configured; other teams' pending members do not count."""
    if live is None:
        return _MISSING
    if amiss := _absent(live) or _unseen(live):
        return amiss
    status = live.get("status", {})
    configured = set(status.get("configuredMembers") or [])
    reasons = {entry["namespace"]: entry.get("conditions", []) for entry in status.get("memberStatuses") or []}
    pending = [
        f"{member} is not configured{_member_reason(reasons.get(member, []))}"
        for member in members
        if member not in configured
    ]
    return State(not pending, few(pending, "; "))


def _member_reason(entries: Iterable[Mapping[str, Any]]) -> str:
    for entry in entries:
        if entry.get("status") != "True":
            return f" ({entry.get('reason', '')} {entry.get('message', '')}".rstrip() + ")"
    return ""


def knative_serving(live: Live | None) -> State:
    """KnativeServing: installed, its dependencies and Deployments available."""
    return conditions(live, "InstallSucceeded", "DependenciesInstalled", "DeploymentsAvailable", "Ready")


def knative_service(live: Live | None) -> State:
    """Knative Service: its revision runs and its route leads to it."""
    return conditions(live, "ConfigurationsReady", "RoutesReady", "Ready")


def deployment(live: Live | None) -> State:
    """Deployment: every replica is of the present template and available, and none of an earlier one is left."""
    if live is None:
        return _MISSING
    generation, status = live["metadata"].get("generation", 0), live.get("status") or {}
    if status.get("observedGeneration", 0) < generation:
        return State(False, f"its rollout to generation {generation} has not begun")
    wanted = (live.get("spec") or {}).get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if updated < wanted:
        return State(False, f"{updated} of {wanted} replicas are updated{_hindrance(live)}")
    if earlier := status.get("replicas", 0) - updated:
        return State(False, f"{earlier} of an earlier template are still there")
    if available < wanted:
        return State(False, f"{available} of {wanted} are available{_hindrance(live)}")
    return State(True)


def _hindrance(live: Live) -> str:
    """Why a rollout does not get on, in the words of its controller."""
    for name, bad in (("ReplicaFailure", "True"), ("Progressing", "False")):
        entry = condition(live, name)
        if entry.get("status") == bad:
            return f": {entry.get('message', '')}"
    return ""
