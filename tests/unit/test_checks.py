"""A check never takes what could not be read for absent."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.unit.conftest import Situate

from runbooks.checks.check import Check
from runbooks.checks.serving_metrics import MONITORING_ADMITTED
from runbooks.checks.sole_ingress import KOURIER_NAMESPACE, SOLE_INGRESS
from runbooks.checks.way_in import ROUTE_PASSTHROUGH
from runbooks.cluster import Connection
from runbooks.errors import ServerRefused
from runbooks.kinds import NAMESPACE, NETWORK_POLICY, POD, ROUTE
from runbooks.manifests import SERVING_NAMESPACE
from runbooks.snapshot import Read, Snapshot
from runbooks.verdicts import Proof

AWAY = ServerRefused("listing", "conversion webhook failed", status=500)
NOBODY = cast("Connection", None)  # these checks only judge what was read


@pytest.mark.parametrize(
    ("check", "number", "read"),
    [
        (MONITORING_ADMITTED, "6.4.4", Read(NETWORK_POLICY, SERVING_NAMESPACE)),
        (SOLE_INGRESS, "6.4.3", Read(POD, KOURIER_NAMESPACE)),
    ],
)
def test_a_server_error_is_could_not_tell(check: Check, number: str, read: Read, situate: Situate) -> None:
    situation = situate(number)
    found: dict[Read, tuple[Any, ...]] = {one: () for one in check.all_reads(situation.parameters) if one != read}
    found[Read(NAMESPACE)] = ({"metadata": {"name": KOURIER_NAMESPACE}},)
    unread = type(situation)(situation.parameters, situation.now, Snapshot(found, {read: AWAY}))
    looked = check.look(unread, NOBODY)
    assert (Proof.UNKNOWN, AWAY.said) == (looked.proof, looked.observed)


@pytest.mark.parametrize(
    ("conditions", "proof"),
    [
        ([], Proof.UNPROVEN),
        ([{"type": "Admitted", "status": "True"}], Proof.PROVEN),
        ([{"type": "Admitted", "status": "False", "reason": "HostAlreadyClaimed"}], Proof.FAILED),
    ],
)
def test_a_route_that_no_router_has_taken_proves_nothing(
    conditions: list[dict[str, str]], proof: Proof, situate: Situate
) -> None:
    spec = {"host": "hello-default.apps.openshift.example.com", "tls": {"termination": "passthrough"}}
    metadata = {"name": "route", "namespace": "istio-system"}
    route = {"metadata": metadata, "spec": spec, "status": {"ingress": [{"conditions": conditions}]}}
    assert proof is ROUTE_PASSTHROUGH.look(situate("6.4.3", {ROUTE: [route]}), NOBODY).proof
