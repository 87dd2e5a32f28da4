"""What can be made to go wrong in a running sandbox, to see how a runbook copes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runbooks_sandbox.api import Api, ApiError, Object
from runbooks_sandbox.world import GATEWAYS, MEMBER_ROLLS, Remove, StandIn, Want, World

SLOW, STUCK, REFUSES = "slow-operators", "stuck-operators", "webhook-refuses"
_MESH = "istio-system"


@dataclass(frozen=True)
class Fault:
    """One thing that can go wrong.

    Args:
        name: as it is switched on.
        said: what happens, in a sentence.
        value: what its value means; empty where it takes none.
        switched_on: what is done to the cluster at once, besides the stand-ins looking at the switch.
        switched_off: how that is undone.
    """

    name: str
    said: str
    value: str = ""
    switched_on: Callable[[Api], None] = lambda _: None
    switched_off: Callable[[Api], None] = lambda _: None


def acting(operator: StandIn) -> StandIn:
    """An operator that is slow or stuck while the fault is on."""

    def act(world: World, faults: Mapping[str, str]) -> Iterable[Want | Remove]:
        if STUCK in faults:
            return ()
        if SLOW in faults:
            world.stopped.wait(float(faults[SLOW] or 5))
        return operator(world, faults)

    return act


def _second_gateway(api: Api) -> None:
    server: Object = {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "hosts": ["*"],
        "tls": {"mode": "SIMPLE", "credentialName": "other-certs"},
    }
    _apply_gateway(api, "another-teams-gateway", _MESH, server, "another-team")


def _apply_gateway(api: Api, name: str, namespace: str, server: Object, manager: str) -> None:
    manifest: Object = {
        "apiVersion": GATEWAYS.api_version,
        "kind": GATEWAYS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]},
    }
    api.apply(manifest, GATEWAYS, manager)


def _foreign_manager(api: Api) -> None:
    server: Object = {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "hosts": ["*"],
        "tls": {"mode": "SIMPLE", "credentialName": "certs-of-argocd"},
    }
    _apply_gateway(api, "knative-ingress-gateway", "knative-serving", server, "argocd-controller")


def _absent_member(api: Api) -> None:
    path = MEMBER_ROLLS.path(_MESH, "default")
    manifest: Object = {
        "apiVersion": MEMBER_ROLLS.api_version,
        "kind": MEMBER_ROLLS.kind,
        "metadata": {"name": "default", "namespace": _MESH},
    }
    try:
        live: Any = api.request("GET", path)
    except ApiError as error:
        if error.status != 404:
            raise
        live = api.request("POST", MEMBER_ROLLS.path(_MESH), {**manifest, "spec": {"members": []}})
    members = [*((live.get("spec") or {}).get("members") or []), "a-namespace-that-does-not-exist"]
    api.request("PUT", path, {**live, "spec": {"members": list(dict.fromkeys(members))}})


FAULTS = {
    fault.name: fault
    for fault in (
        Fault(REFUSES, "the mesh's admission webhook refuses every member roll", "its message"),
        Fault(SLOW, "the operators take a while for each reaction", "seconds, 5 unless given"),
        Fault(STUCK, "the operators do nothing at all"),
        Fault(
            "absent-member",
            "another team's member of the roll is a namespace that does not exist",
            switched_on=_absent_member,
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
        ),
    )
}
