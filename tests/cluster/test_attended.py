"""A run with a person in front of it: nothing is changed but what they have approved.

``Witness`` stands in for the person and their widgets; the browser tests have the real ones.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runbooks import step
from runbooks.display import View
from runbooks.errors import ConnectionFailed, NotApproved, OutOfOrder, ParameterError
from runbooks.presence import Question
from runbooks.step import Runbook
from runbooks.wait import Look
from runbooks_sandbox import lifecycle
from runbooks_sandbox.world import MEMBER_ROLLS
from tests.conftest import ROOT, Sandbox

CELLS = [
    cell["id"]
    for cell in json.loads((ROOT / "notebooks" / "6.4.3-integrate-service-mesh.ipynb").read_text())["cells"]
    if cell["cell_type"] == "code"
]
STEPS = CELLS[CELLS.index("approve") + 1 : CELLS.index("outcome")]


@dataclass
class Witness:
    """A person who sees everything and answers when the test does."""

    attends: bool = True
    asks: bool = True
    asked: list[Question] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    holds: Callable[[], bool] = lambda: True

    def cell(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def ask(self, question: Question) -> None:
        self.asked.append(question)

    def watch(self, timeout_s: float) -> Callable[[Sequence[Look]], None]:
        return self.looks.extend

    def ended(self, outcome: Mapping[str, Any], holds: Callable[[], bool]) -> None:
        self.holds = holds


@pytest.fixture(scope="module")
def untouched(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """One that is ready for 6.4.3, for tests in which nothing may be changed."""
    found = new_sandbox()
    found.play("6.4.2")
    since = found.audit_position()
    yield found
    assert [] == found.writes(since)
    lifecycle.stop(found.state)


@pytest.fixture
def sandbox(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    found = new_sandbox()
    found.play("6.4.2")
    yield found
    lifecycle.stop(found.state)


def opened(sandbox: Sandbox, witness: Witness, **changes: object) -> Runbook:
    """6.4.3, stepped through until its approval is asked for."""
    runbook = step.open_runbook("6.4.3", sandbox.parameters("6.4.3", **changes), witness)
    runbook.preconditions()
    runbook.plan()
    return runbook


def approved(sandbox: Sandbox, **changes: object) -> tuple[Runbook, Witness]:
    """6.4.3, stepped through and approved as it is shown."""
    witness = Witness()
    runbook = opened(sandbox, witness, **changes)
    runbook.approve()
    witness.asked[0].approve("Sato", "")
    return runbook, witness


def go_on(runbook: Runbook) -> dict[str, View]:
    found = {}
    for cell in STEPS:
        verb, _, name = cell.partition("-")
        found[cell] = getattr(runbook, verb)(name)
    return found


def outcome(runbook: Runbook) -> dict[str, Any]:
    return dict(runbook.outcome().data)


def test_nothing_is_changed_before_the_plan_is_approved_and_then_just_the_plan(sandbox: Sandbox) -> None:
    witness, since = Witness(), sandbox.audit_position()
    runbook = opened(sandbox, witness)
    assert runbook.approve() is None
    assert {"Not run: the plan is not approved. Nothing is changed here."} == {
        str(view.data["note"]) for view in go_on(runbook).values()
    }
    assert ("plan", "changes pending") == (outcome(runbook)["mode"], outcome(runbook)["outcome"])
    assert [] == sandbox.writes(since)
    (question,) = witness.asked
    assert ("Approve 6 changes on 127.0.0.1", "platform-engineer", "") == (
        question.action.rpartition(":")[0],
        question.by,
        question.name,
    )
    view = question.approve(" Sato ", "")
    assert "Approved by Sato" in view.text
    go_on(runbook)
    found = outcome(runbook)
    assert ("apply", "done and proven") == (found["mode"], found["outcome"]), found["reason"]
    assert ("met", "Sato", found["plan"]["digest"]) == tuple(found["approval"][n] for n in ("verdict", "by", "digest"))
    assert "KnativeServing knative-serving/knative-serving" in {look.title for look in witness.looks}
    written = sandbox.audit_position()
    go_on(runbook)
    sandbox.audit_position()
    assert [] == sandbox.writes(written), "cells that are run again write nothing again"
    runbook = opened(sandbox, witness)
    view = runbook.approve()
    assert view is not None
    assert "Nothing to approve" in view.text
    go_on(runbook)
    found = outcome(runbook)
    proven = "nothing to change, 10 effects proven, not proven: Istiod takes the Gateways"  # there is none to ask
    assert ("no changes", proven) == (found["outcome"], found["reason"])
    assert ({}, 1, []) == (found["approval"], len(witness.asked), sandbox.writes(written))


def test_mode_apply_waits_for_the_approval_too(untouched: Sandbox) -> None:
    witness = Witness()
    runbook = opened(untouched, witness, mode="apply")
    assert runbook.approve() is None
    assert 1 == len(witness.asked)
    assert "the plan is not approved" in runbook.apply("member-roll").text


def test_where_the_cluster_changed_since_the_approval_nothing_is_changed_and_the_difference_is_named(
    sandbox: Sandbox,
) -> None:
    roll = {"apiVersion": "maistra.io/v1", "kind": "ServiceMeshMemberRoll", "metadata": {"name": "default"}}
    members = {"spec": {"members": ["default", "knative-serving"]}}
    sandbox.api.request("POST", MEMBER_ROLLS.path("istio-system"), {**roll, **members})
    runbook, witness = approved(sandbox)
    sandbox.patch(MEMBER_ROLLS, "istio-system", "default", {"spec": {"members": ["knative-serving"]}})
    since = sandbox.audit_position()
    views = go_on(runbook)
    said = "\n".join(views["apply-member-roll"].data["failure"])
    assert "Nothing was changed: the cluster is not what was approved any more" in said
    assert "ServiceMeshMemberRoll istio-system/default spec.members[+]: None → 'default'" in said
    assert "Not run" in views["apply-gateways"].text
    assert [] == sandbox.writes(since)
    assert ("plan", "failed", {}) == tuple(outcome(runbook)[n] for n in ("mode", "outcome", "approval"))
    with pytest.raises(NotApproved, match="the cluster has changed since"):
        witness.asked[0].approve("Sato", "")
    with pytest.raises(OutOfOrder):
        runbook.plan()
    runbook.preconditions()
    runbook.plan()
    runbook.approve()
    witness.asked[1].approve("Sato", "")
    go_on(runbook)
    assert "done and proven" == outcome(runbook)["outcome"]


def test_where_the_cluster_came_nearer_since_the_approval_the_rest_of_the_plan_is_applied(sandbox: Sandbox) -> None:
    runbook, _ = approved(sandbox)
    # the very same objects, by another run that was approved elsewhere
    sandbox.play("6.4.3")
    since = sandbox.audit_position()
    go_on(runbook)
    assert [] == sandbox.writes(since)
    assert "no changes" == outcome(runbook)["outcome"]


def test_an_approval_that_has_ended_changes_nothing(untouched: Sandbox) -> None:
    runbook, _ = approved(untouched)
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    assert runbook._story.consent is not None
    runbook._story.consent = replace(runbook._story.consent, until=past)
    assert "the approval by Sato ended at" in go_on(runbook)["apply-member-roll"].text


@pytest.mark.parametrize(
    ("by", "name", "changes", "said"),
    [
        ("", "", {}, "it does not say who approves it"),
        ("Sato", "", {"production": True}, "the name of the API server is missing"),
        ("Sato", "127.0.0.1", {"production": True}, "'127.0.0.1' is not 127.0.0.1:"),
    ],
)
def test_what_is_no_approval_is_refused(
    untouched: Sandbox, by: str, name: str, changes: dict[str, object], said: str
) -> None:
    witness = Witness()
    runbook = opened(untouched, witness, **changes)
    runbook.approve()
    with pytest.raises(NotApproved, match=said):
        witness.asked[0].approve(by, name)
    assert "Not run" in runbook.apply("member-roll").text


def test_in_production_the_name_of_the_api_server_is_typed(untouched: Sandbox) -> None:
    witness = Witness()
    runbook = opened(untouched, witness, production=True)
    runbook.approve()
    (question,) = witness.asked
    assert f"https://{question.name}" == runbook._connection.server
    assert "Approved by Sato" in question.approve("Sato", question.name).text


def test_what_apply_wants_besides_is_wanted_of_an_approval(untouched: Sandbox) -> None:
    witness = Witness()
    runbook = opened(untouched, witness, require_change_ticket=True)
    runbook.approve()
    with pytest.raises(ParameterError, match="change_ticket: missing"):
        witness.asked[0].approve("Sato", "")


def test_the_digest_typed_into_the_cell_stands_for_the_button(sandbox: Sandbox) -> None:
    """Also where nobody can be asked by a widget: the cell then says so itself."""
    runbook = step.open_runbook("6.4.3", sandbox.parameters("6.4.3", mode="plan"))
    runbook.preconditions()
    digest = str(runbook.plan().data["digest"])
    assert "Mode plan: nothing is changed here." == str(runbook.approve())
    with pytest.raises(NotApproved, match="the digest of the plan above is plan-sha256:"):
        runbook.approve("plan-sha256:" + 64 * "0", by="Sato")
    runbook.approve(digest, by="Sato")
    assert "ServiceMeshMemberRoll istio-system/default" in runbook.apply("member-roll").text


def test_an_approval_is_of_the_plan_that_was_shown_last(untouched: Sandbox) -> None:
    runbook, _ = approved(untouched)
    runbook.plan()
    assert "the plan is not approved" in runbook.apply("member-roll").text


def test_a_wait_that_ended_in_vain_is_run_again_and_what_follows_is_not_taken_for_done(sandbox: Sandbox) -> None:
    runbook, _ = approved(sandbox, timeout_s=1)
    sandbox.state.keep_faults({"stuck-operators": ""})
    views = go_on(runbook)
    assert "What to do" in views["wait-member-roll"].text
    assert "Not run, because of wait-member-roll." == views["prove-member-roll"].text
    sandbox.state.keep_faults({})
    sandbox.eventually(lambda: bool(sandbox.get(MEMBER_ROLLS, "istio-system", "default").get("status")))
    assert "✓" in runbook.wait("member-roll").text
    found = outcome(runbook)
    assert "could not tell" == found["outcome"]
    assert found["reason"].startswith("not run: prove-member-roll, apply-gateways")


def test_what_ends_the_second_look_permits_no_more_than_before(
    untouched: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt, or a server that is away for a moment, between the approval and the first change."""
    runbook, _ = approved(untouched)
    for error in (KeyboardInterrupt(), ConnectionFailed("reading", "it is away")):
        with monkeypatch.context() as patch:
            patch.setattr(runbook, "_planned", lambda error=error: (_ for _ in ()).throw(error))
            with pytest.raises(type(error)):
                runbook.apply("member-roll")
        assert "plan" == outcome(runbook)["mode"]
    runbook.plan()
    assert "the plan is not approved" in runbook.apply("member-roll").text
    assert runbook.approve() is None, "it is asked again"


def test_a_plan_that_is_made_anew_half_way_has_to_be_approved_anew(sandbox: Sandbox) -> None:
    runbook, witness = approved(sandbox)
    runbook.apply("member-roll")
    since = sandbox.audit_position()
    runbook.preconditions()
    with pytest.raises(NotApproved, match="another plan is being made"):
        witness.asked[0].approve("Sato", "")
    runbook.plan()
    with pytest.raises(NotApproved, match="the digest of the plan above is"):
        witness.asked[0].approve("Sato", "")
    assert "the plan is not approved" in runbook.apply("gateways").text
    assert [] == sandbox.writes(since)
    runbook.approve()
    witness.asked[1].approve("Tanaka", "")
    go_on(runbook)
    found = outcome(runbook)
    assert "done and proven" == found["outcome"], found["reason"]
    assert ["Sato", "Tanaka"] == [one["by"] for one in found["approvals"]]
    assert 6 == len(found["applied"]), "of both passes"
    assert witness.holds()
    runbook.wait("knative-service")
    assert not witness.holds(), "the outcome is of the cells before it"


def test_parameters_approve_nothing_where_a_person_can_be_asked(untouched: Sandbox) -> None:
    digest = str(opened(untouched, Witness()).plan().data["digest"])
    witness = Witness()
    runbook = opened(untouched, witness, mode="apply", approve=[digest], approved_by="Sato")
    assert runbook.approve() is None
    assert "the plan is not approved" in runbook.apply("member-roll").text
    found = outcome(runbook)
    assert ("blocked", "not met: The plan is approved (nobody has approved it yet)") == (
        found["outcome"],
        found["reason"],
    )


def test_a_person_whom_no_control_can_be_shown_types_the_approval(untouched: Sandbox) -> None:
    runbook = opened(untouched, Witness(asks=False), mode="apply")
    view = runbook.approve()
    assert view is not None
    assert f'runbook.approve("{view.data["digest"]}", by="your name")' in view.text
    assert "the plan is not approved" in runbook.apply("member-roll").text


def test_a_proof_that_is_older_than_a_write_counts_no_longer(sandbox: Sandbox) -> None:
    runbook, _ = approved(sandbox)
    go_on(runbook)
    sandbox.patch(MEMBER_ROLLS, "istio-system", "default", {"spec": {"members": ["knative-serving"]}})
    assert "update" in runbook.apply("member-roll").text
    found = outcome(runbook)
    assert "could not tell" == found["outcome"]
    assert found["reason"].startswith("not run: wait-member-roll, prove-member-roll, prove-gateways")


def test_what_came_after_nothing_to_approve_is_no_success(sandbox: Sandbox) -> None:
    sandbox.play("6.4.3")
    runbook = opened(sandbox, Witness())
    assert "Nothing to approve" in str(runbook.approve())
    sandbox.patch(MEMBER_ROLLS, "istio-system", "default", {"spec": {"members": ["knative-serving"]}})
    go_on(runbook)
    assert "failed" == outcome(runbook)["outcome"]
