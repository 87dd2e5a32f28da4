"""What a plan says of a real cluster besides its fields: who else manages an object, and what follows."""

from __future__ import annotations

import base64
from typing import Any

from runbooks_sandbox.world import MEMBER_ROLLS, SECRETS
from tests.conftest import Sandbox

ROLL = ("istio-system", "default")


def plan_of(sandbox: Sandbox, number: str, **changes: object) -> dict[str, Any]:
    return sandbox.play_until("plan", number, "plan", **changes)["plan"]


def of_roll(plan: dict[str, Any]) -> dict[str, Any]:
    return next(change for change in plan["changes"] if change["step"] == "member-roll")


def said(plan: dict[str, Any], step: str) -> list[str]:
    return [one["said"] for one in plan["consequences"] if one["step"] == step]


def test_another_manager_is_named_and_changes_no_digest(integrated: Sandbox) -> None:
    integrated.create_namespace("team-review")
    before = plan_of(integrated, "6.4.3", members=["default", "team-review"])
    assert [] == of_roll(before)["managed_by"]
    label = {"metadata": {"labels": {"team": "mesh"}}}
    integrated.patch(MEMBER_ROLLS, *ROLL, label, manager="argocd-controller")
    try:
        after = plan_of(integrated, "6.4.3", members=["default", "team-review"])
    finally:
        nothing: dict[str, Any] = {"metadata": {"labels": {"team": None}}}
        integrated.patch(MEMBER_ROLLS, *ROLL, nothing, manager="argocd-controller")
    (other,) = of_roll(after)["managed_by"]
    assert ("argocd-controller", "Update") == (other["manager"], other["operation"])
    assert other["since"]
    assert before["digest"] == after["digest"]


def test_what_follows_is_said_of_what_is_added_and_not_of_what_is_there(integrated: Sandbox) -> None:
    joining = plan_of(integrated, "6.4.3", members=["default", "team-review"])
    closed, sidecars, stay = said(joining, "member-roll")
    assert closed.startswith("team-review: Pods outside of the mesh can reach nothing there any more")
    assert sidecars.startswith("Pods that run in team-review get no sidecar")
    assert stay.startswith("the members that are in the list already, 2, stay")
    assert {"member-roll"} == {one["step"] for one in joining["consequences"]}
    assert "gateways" in of_roll(joining)["waits"]["behind"]
    unchanged = plan_of(integrated, "6.4.3")
    assert "unchanged" == of_roll(unchanged)["operation"]
    assert ([], False) == (unchanged["consequences"], "waits" in of_roll(unchanged))
    verified = integrated.play_until("plan", "6.4.3", "verify", members=["default", "team-review"])["plan"]
    assert ([], joining["digest"]) == (verified["consequences"], verified["digest"])


def test_the_same_key_in_a_file_and_in_a_secret_has_the_same_number(sandbox: Sandbox) -> None:
    plan = plan_of(sandbox, "6.4.2")
    numbers = {
        (change["identity"][-1], item["path"]): item["secret"]
        for change in plan["changes"]
        for item in change["fields"]
        if "secret" in item
    }
    assert {
        ("root.key", "content"): {"old": None, "new": 1},
        ("wildcard.key", "content"): {"old": None, "new": 2},
        ("wildcard-certs", "data[tls.key]"): {"old": None, "new": 2},
    } == numbers
    assert "A NEW ROOT" in said(plan, "root")[0]


def test_a_secret_that_is_replaced_shows_that_its_key_is_another_one(sandbox: Sandbox) -> None:
    assert "done and proven" == sandbox.play("6.4.2")["outcome"]
    live = sandbox.get(SECRETS, "istio-system", "wildcard-certs")
    broken = {"data": {**live["data"], "tls.key": base64.b64encode(b"another key").decode()}}
    sandbox.patch(SECRETS, "istio-system", "wildcard-certs", broken)
    plan = plan_of(sandbox, "6.4.2")
    (change,) = (change for change in plan["changes"] if change["identity"][-1] == "wildcard-certs")
    (field,) = change["fields"]
    assert ("data[tls.key]", {"old": 1, "new": 2}) == (field["path"], field["secret"])
    assert "another key" not in str(plan)
    assert ["kubectl-edit"] == [owner["manager"] for owner in change["managed_by"]]
    assert "no traffic is cut: a running gateway serves the new certificate within seconds" in said(plan, "secret")[0]
