"""What can be made to go wrong in a running sandbox, to see how a runbook copes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from runbooks_sandbox.api import Api, ApiError, Object, Resource
from runbooks_sandbox.world import GATEWAYS, MEMBER_ROLLS, Remove, StandIn, Want, World

SLOW, STUCK, REFUSES, REVERTS = "slow-operators", "stuck-operators", "webhook-refuses", "operator-reverts"
_SLOW_S = 5
_MESH = "istio-system"
_TEAM, _ARGOCD = "another-team", "argocd-controller"
_ABSENT = "a-namespace-that-does-not-exist"
_REVERTED, _REVERTER = ("knative-local-gateway", "knative-serving"), "another-operator"
_CONTESTED = ("knative-ingress-gateway", "knative-serving")


@dataclass(frozen=True)
class Fault:
    """One thing that can go wrong.

    Args:
        name: as it is switched on.
        said: what happens, in a sentence.
        value: what its value means; empty where it takes none.
        fits: whether a value can be read.
        switched_on: what is done to the cluster at once, besides the stand-ins looking at the switch.
        switched_off: how that is undone.
        kills: the process that is killed, where the fault is an act: it is started again, and nothing stays on.
    """

    name: str
    said: str
    value: str = ""
    fits: Callable[[str], bool] = lambda _: True
    switched_on: Callable[[Api], None] = lambda _: None
    switched_off: Callable[[Api], None] = lambda _: None
    kills: str = ""

    def problem(self, value: str) -> str:
        """What is wrong with a value, or empty."""
        if value and not self.value:
            return "it takes no value"
        return "" if self.fits(value) else f"{value!r} is not {self.value}"


def _seconds(text: str) -> float:
    """A number of seconds, or NaN."""
    try:
        number = float(text or _SLOW_S)
    except ValueError:
        return math.nan
    return number if 0 <= number < math.inf else math.nan


def acting(operator: StandIn, clock: Callable[[], float] = time.monotonic) -> StandIn:
    """An operator that is slow or stuck while the fault is on; nobody else waits for it."""
    acted = -math.inf

    def act(world: World, faults: Mapping[str, str]) -> Iterable[Want | Remove]:
        nonlocal acted
        if STUCK in faults or (SLOW in faults and clock() - acted < _seconds(faults[SLOW])):
            return ()
        acted = clock()
        return operator(world, faults)

    return act


def reverting(world: World, faults: Mapping[str, str]) -> Iterable[Want]:
    """An operator that undoes each change of one Gateway for as long as the fault is on."""
    name, namespace = _REVERTED
    if REVERTS in faults and world.get(GATEWAYS, namespace, name):
        server = {"port": {"number": 8081, "name": "http", "protocol": "HTTP"}, "hosts": ["nobody.example.com"]}
        yield Want(
            GATEWAYS, {"metadata": {"name": name, "namespace": namespace}, "spec": {"servers": [server]}}, _REVERTER
        )


# --- what other people do to the cluster -------------------------------------------------------------------------


def _apply_gateway(api: Api, name: str, namespace: str, credential: str, manager: str) -> None:
    server: Object = {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "hosts": ["*"],
        "tls": {"mode": "SIMPLE", "credentialName": credential},
    }
    manifest: Object = {
        **_named(GATEWAYS, namespace, name),
        "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]},
    }
    api.apply(manifest, GATEWAYS, manager)


def _named(resource: Resource, namespace: str, name: str) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def _second_gateway(api: Api) -> None:
    _apply_gateway(api, "another-teams-gateway", _MESH, "other-certs", _TEAM)


def _foreign_manager(api: Api) -> None:
    _apply_gateway(api, *_CONTESTED, "certs-of-argocd", _ARGOCD)


def _no_foreign_manager(api: Api) -> None:
    """Give up what Argo CD owns: fields that nobody else owns go, and the Gateway where it made it alone."""
    name, namespace = _CONTESTED
    live = _get(api, GATEWAYS, namespace, name)
    if live is None:
        return
    if _managers(live) == {_ARGOCD}:
        api.delete(GATEWAYS, namespace, name)
    else:
        api.apply(_named(GATEWAYS, namespace, name), GATEWAYS, _ARGOCD)


def _absent_member(api: Api) -> None:
    live = _get(api, MEMBER_ROLLS, _MESH, "default")
    if live is None:
        empty = {**_named(MEMBER_ROLLS, _MESH, "default"), "spec": {"members": [_ABSENT]}}
        api.request("POST", MEMBER_ROLLS.path(_MESH), empty, query={"fieldManager": _TEAM})
    else:
        _set_members(api, live, [*(one for one in _members(live) if one != _ABSENT), _ABSENT])


def _no_absent_member(api: Api) -> None:
    live = _get(api, MEMBER_ROLLS, _MESH, "default")
    if live is None or _ABSENT not in _members(live):
        return
    if _members(live) == [_ABSENT] and _managers(live) == {_TEAM}:
        api.delete(MEMBER_ROLLS, _MESH, "default")
    else:
        _set_members(api, live, [one for one in _members(live) if one != _ABSENT])


def _set_members(api: Api, live: Object, members: list[str]) -> None:
    """Exactly these members; where somebody wrote in between the server refuses, and nothing is lost."""
    spec = live.get("spec")
    unchanged = [] if spec is None else [{"op": "test", "path": "/spec", "value": spec}]
    operations = [*unchanged, {"op": "add", "path": "/spec", "value": {**(spec or {}), "members": members}}]
    path, query = MEMBER_ROLLS.path(_MESH, "default"), {"fieldManager": _TEAM}
    api.request("PATCH", path, operations, query=query, content_type="application/json-patch+json")


def _members(roll: Object) -> list[str]:
    return list((roll.get("spec") or {}).get("members") or [])


def _get(api: Api, resource: Resource, namespace: str, name: str) -> Object | None:
    try:
        return dict(api.request("GET", resource.path(namespace, name)))
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _managers(live: Object) -> set[str]:
    """Who owns fields of an object, its status aside."""
    return {entry["manager"] for entry in live["metadata"].get("managedFields", []) if not entry.get("subresource")}


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(REFUSES, "the mesh's admission webhook refuses every member roll", "its message"),
        Fault(
            SLOW,
            "the operators take a while for each reaction",
            "a number of seconds, 5 unless given",
            lambda text: _seconds(text) >= 0,
        ),
        Fault(STUCK, "the operators do nothing at all, so no status comes, or it is of an old generation"),
        Fault(
            REVERTS, "another operator undoes every change of Gateway knative-local-gateway, and owns its servers then"
        ),
        Fault("api-server-restarts", "the API server is killed once, and starts again", kills="kube-apiserver"),
        Fault(
            "absent-member",
            "another team's member of the roll is a namespace that does not exist",
            switched_on=_absent_member,
            switched_off=_no_absent_member,
        ),
        Fault(
            "second-gateway",
            "another Gateway claims port 443 for every host",
            switched_on=_second_gateway,
            switched_off=lambda api: api.delete(GATEWAYS, _MESH, "another-teams-gateway"),
        ),
        Fault(
            "foreign-manager",
            "Argo CD owns the servers of knative-ingress-gateway, with another certificate",
            switched_on=_foreign_manager,
            switched_off=_no_foreign_manager,
        ),
    )
}
