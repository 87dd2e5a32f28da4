"""Whether a plan is an approved one or a part of it, and what it would do beyond."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from runbooks import approval
from runbooks.approval import Approved, Consent
from runbooks.display import plan_dict
from runbooks.plan import Change, FieldChange, Operation, Plan
from runbooks.verdicts import Finding, Verdict

NOW = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)
ROOT = "CN=example.com"


def change(name: str, *fields: tuple[str, Any, Any], operation: Operation = Operation.UPDATE) -> Change:
    items = tuple(FieldChange(*one) for one in fields)
    return Change("step", f"Kind a/{name}", ("v1", "Kind", "a", name), operation, items)


def recorded(plan: Plan, *wrote: str) -> dict[str, Approved]:
    """A plan as a record gives it back: through JSON."""
    changes = json.loads(json.dumps(plan_dict(plan)["changes"]))
    return {plan.digest: Approved(tuple(changes), frozenset(wrote))}


def judged(plan: Plan, *digests: str, found: dict[str, Approved] | None = None, until: str = "") -> Finding:
    return approval.judge(plan, digests, by="Sato", until=until, found=found or {}, now=NOW)


WHOLE = Plan((change("one", ("spec.a", 1, 2), ("spec.b", None, [1])), change("two", ("spec.c", None, {"x": "y"}))))
PART = Plan((change("one", operation=Operation.UNCHANGED), change("two", ("spec.c", None, {"x": "y"}))))
MORE = Plan((*WHOLE.changes, change("three", ("spec.d", "old", "new"))))
OTHER = Plan((change("one", ("spec.a", 7, 2)),))


def test_the_digest_of_a_record_is_the_one_of_its_plan() -> None:
    ((digest, approved),) = recorded(WHOLE).items()
    assert digest == approved.digest


def test_an_approved_plan_needs_no_record() -> None:
    assert (Verdict.MET, "as a whole, by Sato") == (
        judged(WHOLE, WHOLE.digest).verdict,
        judged(WHOLE, WHOLE.digest).said,
    )


def test_what_is_left_of_an_approved_plan_is_approved() -> None:
    found = judged(PART, WHOLE.digest, found=recorded(WHOLE))
    assert (Verdict.MET, f"as a part of {WHOLE.digest}, by Sato") == (found.verdict, found.said)


@pytest.mark.parametrize(
    ("plan", "beyond"),
    [(MORE, "Kind a/three spec.d: 'old' → 'new'"), (OTHER, "Kind a/one spec.a: 7 → 2")],
    ids=["more", "another old value"],
)
def test_what_goes_beyond_is_named(plan: Plan, beyond: str) -> None:
    found = judged(plan, WHOLE.digest, found=recorded(WHOLE))
    assert (Verdict.NOT_MET, f"beyond {WHOLE.digest[:24]}… it would do: {beyond}") == (found.verdict, found.said)
    assert f"--approve {plan.digest}" in found.remedy


def test_of_several_approved_plans_the_nearest_is_compared() -> None:
    found = judged(MORE, OTHER.digest, WHOLE.digest, found=recorded(OTHER) | recorded(WHOLE))
    assert found.said.startswith(f"beyond {WHOLE.digest[:24]}…")


def test_a_part_of_a_plan_that_nobody_knows_is_not_approved() -> None:
    found = judged(PART, WHOLE.digest)
    assert (Verdict.NOT_MET, True) == (found.verdict, "no record here tells what is in it" in found.said)


@pytest.mark.parametrize(
    ("until", "verdict"),
    [
        ("2026-12-01T00:00:00Z", Verdict.MET),
        ("2026-12-01T09:00:00+09:00", Verdict.MET),
        ("2026-11-30T23:59:59Z", Verdict.NOT_MET),
        ("2026-12-01T08:59:00+09:00", Verdict.NOT_MET),
    ],
)
def test_an_approval_holds_until_its_end(until: str, verdict: Verdict) -> None:
    assert verdict is judged(WHOLE, WHOLE.digest, until=until).verdict


def certificate(issuer: str) -> Plan:
    return Plan((change("cert", ("content", None, {"subject": "*.apps", "issuer": issuer})),))


@pytest.mark.parametrize(
    ("wrote", "verdict"),
    [(("File /x/root.crt",), Verdict.MET), (("File /x/root.key",), Verdict.NOT_MET), ((), Verdict.NOT_MET)],
)
def test_a_new_root_counts_once_it_was_made_under_the_approval(wrote: tuple[str, ...], verdict: Verdict) -> None:
    approved = certificate(f"the new root {ROOT}")
    assert verdict is judged(certificate("SHA256:1"), approved.digest, found=recorded(approved, *wrote)).verdict


def test_another_root_than_a_new_one_never_counts_as_the_new_one() -> None:
    approved = certificate("SHA256:1")
    found = recorded(approved, "File /x/root.crt")
    assert Verdict.NOT_MET is judged(certificate("SHA256:2"), approved.digest, found=found).verdict


def test_a_record_that_is_not_what_the_digest_says_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "approved.json"
    changes = plan_dict(MORE)["changes"]
    path.write_text(json.dumps({WHOLE.digest: {"changes": changes, "wrote": []}}))
    assert {} == approval.known({approval.VARIABLE: str(path)})
    path.write_text(json.dumps({MORE.digest: {"changes": changes, "wrote": []}}))
    assert [MORE.digest] == list(approval.known({approval.VARIABLE: str(path)}))
    assert {} == approval.known({})


def test_a_record_of_an_older_version_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "approved.json"
    changes = [{name: one[name] for name in one if name != "identity"} for one in plan_dict(WHOLE)["changes"]]
    path.write_text(json.dumps({WHOLE.digest: {"changes": [*changes, {"operation": "create"}], "wrote": []}}))
    assert {} == approval.known({approval.VARIABLE: str(path)})


# --- given in the notebook ---------------------------------------------------------------------------------------


def consent(plan: Plan) -> Consent:
    changes = tuple(plan_dict(plan)["changes"])
    return Consent(changes, plan.digest, "Sato", NOW, NOW + dt.timedelta(minutes=60))


def test_a_person_s_consent_covers_the_plan_and_what_is_left_of_it_and_nothing_else() -> None:
    one, other = change("a", ("spec.x", 1, 2)), change("b", ("spec.y", None, "z"))
    given = consent(Plan((one, other)))
    assert Verdict.MET == given.judge(Plan((one, other)), NOW).verdict
    assert Verdict.MET == given.judge(Plan((other,)), NOW).verdict
    refused = given.judge(Plan((one, change("b", ("spec.y", "w", "z")))), NOW)
    assert (Verdict.NOT_MET, True) == (refused.verdict, "'w' → 'z'" in refused.said)


def test_a_person_s_consent_ends() -> None:
    plan = Plan((change("a", ("spec.x", 1, 2)),))
    assert Verdict.NOT_MET == consent(plan).judge(plan, NOW + dt.timedelta(minutes=61)).verdict
    assert "the approval by Sato ended at" in consent(plan).ended


def restarts(count: int) -> Plan:
    alike = (FieldChange("excludedPorts", "", "8444"),)
    identity = ("v1", "Pod", "shop", "hello")
    return Plan(
        tuple(Change("restart", f"Pod shop/hello-{n}", identity, Operation.RESTART, alike) for n in range(count))
    )


def test_one_approved_restart_is_not_five() -> None:
    assert restarts(1).digest != restarts(5).digest
    assert Verdict.NOT_MET == consent(restarts(1)).judge(restarts(5), NOW).verdict
    assert Verdict.MET == consent(restarts(5)).judge(restarts(1), NOW).verdict
