"""What happens between the plan and the write, between two cells, or in the middle of the reads."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import pytest

from runbooks.step import Runbook, open_runbook
from runbooks_sandbox.world import CONTROL_PLANES, KNATIVE_SERVINGS, PODS
from tests.conftest import Sandbox

SERVING, MESH = "knative-serving", "istio-system"


def planned(sandbox: Sandbox, number: str, **changes: object) -> Runbook:
    """A runbook in mode apply, run until its plan is made."""
    runbook = open_runbook(number, sandbox.parameters(number, mode="apply", **changes))
    with redirect_stdout(io.StringIO()):
        runbook.preconditions()
        runbook.desired()
        runbook.plan()
    return runbook


def outcome_of(runbook: Runbook) -> dict[str, Any]:
    return dict(runbook.outcome().data)


def test_cells_that_were_left_out_are_named_and_nothing_is_called_done(integrated: Sandbox) -> None:
    runbook = planned(integrated, "6.4.3")
    runbook.apply("member-roll")
    outcome = outcome_of(runbook)
    assert ("could not tell", 1) == (outcome["outcome"], outcome["exit_code"])
    assert "prove-knative-service" in outcome["reason"]


def _serving_deleted(sandbox: Sandbox) -> None:
    sandbox.api.delete(KNATIVE_SERVINGS, SERVING, SERVING)


def _plane_made_anew(sandbox: Sandbox) -> None:
    live = sandbox.get(CONTROL_PLANES, MESH, "basic")
    sandbox.api.delete(CONTROL_PLANES, MESH, "basic")
    body = {key: live[key] for key in ("apiVersion", "kind", "spec")}
    sandbox.api.request("POST", CONTROL_PLANES.path(MESH), {**body, "metadata": {"name": "basic"}})


@pytest.mark.parametrize(
    ("number", "step", "change", "words"),
    [
        ("6.4.6", "annotation", _serving_deleted, "deleted since"),
        ("6.4.4", "exclude-port", _plane_made_anew, "made anew since"),
    ],
)
def test_an_object_that_went_away_after_the_plan_is_not_created(
    sandbox: Sandbox, number: str, step: str, change: Callable[[Sandbox], None], words: str
) -> None:
    for before in ("6.4.2", "6.4.3"):
        assert 0 == sandbox.play(before)["exit_code"]
    runbook = planned(sandbox, number)
    change(sandbox)
    since = sandbox.audit_position()
    runbook.apply(step)
    outcome = outcome_of(runbook)
    assert "failed" == outcome["outcome"]
    assert words in outcome["reason"]
    assert [] == sandbox.writes(since)


def test_an_entry_that_a_controller_owns_is_not_overwritten_unseen(sandbox: Sandbox) -> None:
    assert 0 == sandbox.play("6.4.2")["exit_code"]
    theirs = [{"name": "activator", "annotations": {"sidecar.istio.io/inject": "false"}}]
    spec = {"ingress": {"istio": {"enabled": True}}, "deployments": theirs}
    kind = {"apiVersion": KNATIVE_SERVINGS.api_version, "kind": KNATIVE_SERVINGS.kind}
    metadata = {"name": SERVING, "namespace": SERVING}
    sandbox.api.apply({**kind, "metadata": metadata, "spec": spec}, KNATIVE_SERVINGS, "argocd-controller")
    outcome = sandbox.play("6.4.3")
    assert "blocked" == outcome["outcome"]
    assert "spec.deployments belongs to the field manager argocd-controller" in outcome["reason"]
    assert theirs == sandbox.get(KNATIVE_SERVINGS, SERVING, SERVING)["spec"]["deployments"]
    taken = sandbox.play("6.4.3", take_over=["argocd-controller"])
    assert "done and proven" == taken["outcome"], taken["reason"]


def test_an_application_without_a_sidecar_is_found(integrated: Sandbox) -> None:
    body = {"apiVersion": "v1", "kind": "Pod"}
    labels = {"serving.knative.dev/service": "hello"}
    spec = {"containers": [{"name": "user-container", "image": "stand-in"}], "nodeName": "sandbox"}
    metadata = {"name": "old", "namespace": "default", "labels": labels}
    integrated.api.request("POST", PODS.path("default"), {**body, "metadata": metadata, "spec": spec})
    outcome = integrated.play("6.4.3", "verify")
    integrated.api.delete(PODS, "default", "old", now=True)
    assert "drift" == outcome["outcome"]
    assert "Pod old has no container istio-proxy" in outcome["reason"]
