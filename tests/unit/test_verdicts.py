"""How a run ends: from findings, plan, waits and proofs to an outcome and an exit code."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from runbooks.verdicts import EXIT_CODES, Checked, Finding, Outcome, Proof, Verdict, blocking, conclude, few

MODES = ["verify", "plan", "apply"]

MET = Finding("A is there", Verdict.MET, "a")
WARNING = Finding("B is new", Verdict.WARNING, "b")
WAITING = Finding("C is ready", Verdict.WAITING, "not yet", see="6.4.2")
NOT_MET = Finding("D is there", Verdict.NOT_MET, "no d")
UNKNOWN = Finding("E is there", Verdict.UNKNOWN, "forbidden")
COMES = Finding("F is there", Verdict.COMES, "comes with Knative Serving", see="6.4.3")


def check(proof: Proof, title: str = "It answers", observed: str = "status 503") -> Checked:
    return Checked(title, proof, "status 200", observed, "a request")


PROVEN, FAILED, UNTOLD = check(Proof.PROVEN), check(Proof.FAILED), check(Proof.UNKNOWN)
RESTART = check(Proof.RESTART, "The port is excluded", "Pod a/b has to restart")
UNPROVEN, SKIPPED = check(Proof.UNPROVEN, "The local name answers"), check(Proof.SKIPPED)

GOOD: dict[str, Any] = {"changes": 0, "applied": 0, "unready": (), "checked": (PROVEN,)}


def concluded(mode: str, *findings: Finding, **given: Any) -> tuple[Outcome, str]:
    return conclude(mode, findings, **(GOOD | given))


@pytest.mark.parametrize(
    ("mode", "findings", "given", "expected"),
    [
        # verify
        ("verify", [MET], {}, (Outcome.AS_DESIRED, "every object as wanted, 1 effect proven")),
        ("verify", [WARNING], {}, (Outcome.AS_DESIRED, "every object as wanted, 1 effect proven")),
        ("verify", [COMES], {}, (Outcome.AS_DESIRED, "every object as wanted, 1 effect proven")),
        ("verify", [], {"checked": ()}, (Outcome.AS_DESIRED, "every object as wanted, 0 effects proven")),
        (
            "verify",
            [],
            {"checked": (PROVEN, PROVEN, UNPROVEN, SKIPPED)},
            (Outcome.AS_DESIRED, "every object as wanted, 2 effects proven, not proven: The local name answers"),
        ),
        ("verify", [], {"changes": 2}, (Outcome.DRIFT, "2 objects differ")),
        ("verify", [], {"changes": 1}, (Outcome.DRIFT, "1 object differs")),
        ("verify", [], {"checked": (PROVEN, FAILED)}, (Outcome.DRIFT, "It answers: status 503")),
        ("verify", [], {"unready": ("Service a/b: not ready",)}, (Outcome.DRIFT, "Service a/b: not ready")),
        ("verify", [WAITING], {}, (Outcome.DRIFT, "waiting for 6.4.2: C is ready")),
        ("verify", [], {"elsewhere": "have your CA sign it"}, (Outcome.DRIFT, "have your CA sign it")),
        (
            "verify",
            [WAITING],
            {"changes": 3, "unready": ("u",), "checked": (FAILED, UNTOLD), "elsewhere": "sign it"},
            (Outcome.DRIFT, "3 objects differ; waiting for 6.4.2: C is ready; sign it; u; It answers: status 503"),
        ),
        ("verify", [], {"checked": (RESTART, UNTOLD)}, (Outcome.DRIFT, "The port is excluded: Pod a/b has to restart")),
        ("verify", [], {"inapplicable": "mTLS is off"}, (Outcome.AS_DESIRED, "nothing to do: mTLS is off")),
        ("verify", [], {"checked": (PROVEN, UNTOLD)}, (Outcome.UNKNOWN, "It answers: status 503")),
        ("verify", [UNKNOWN], {"changes": 2}, (Outcome.UNKNOWN, "could not tell: E is there (forbidden)")),
        ("verify", [], {"changes": None}, (Outcome.UNKNOWN, "no plan could be made")),
        ("verify", [MET, NOT_MET], {"checked": (FAILED,)}, (Outcome.BLOCKED, "not met: D is there (no d)")),
        # plan
        ("plan", [MET], {}, (Outcome.NO_CHANGES, "everything is as wanted")),
        ("plan", [], {"changes": 1}, (Outcome.CHANGES_PENDING, "1 change to make")),
        ("plan", [WARNING], {"changes": 3}, (Outcome.CHANGES_PENDING, "3 changes to make")),
        ("plan", [WAITING], {}, (Outcome.CHANGES_PENDING, "waiting for 6.4.2: C is ready")),
        (
            "plan",
            [WAITING],
            {"changes": 2, "elsewhere": "have your CA sign it"},
            (Outcome.CHANGES_PENDING, "2 changes to make; waiting for 6.4.2: C is ready; have your CA sign it"),
        ),
        ("plan", [COMES], {}, (Outcome.NO_CHANGES, "everything is as wanted")),
        ("plan", [WAITING], {"inapplicable": "mTLS is off"}, (Outcome.NO_CHANGES, "nothing to do: mTLS is off")),
        (
            "plan",
            [UNKNOWN],
            {"inapplicable": "mTLS is off"},
            (Outcome.BLOCKED, "could not tell: E is there (forbidden)"),
        ),
        # effects are not looked at in plan, so they decide nothing
        ("plan", [], {"checked": (FAILED, UNTOLD), "unready": ("u",)}, (Outcome.NO_CHANGES, "everything is as wanted")),
        (
            "plan",
            [UNKNOWN, UNKNOWN],
            {},
            (Outcome.BLOCKED, "could not tell: E is there (forbidden); could not tell: E is there (forbidden)"),
        ),
        ("plan", [NOT_MET, UNKNOWN], {"changes": None}, (Outcome.BLOCKED, "not met: D is there (no d)")),
        ("plan", [], {"changes": None}, (Outcome.BLOCKED, "no plan could be made")),
        # apply
        ("apply", [MET], {}, (Outcome.NO_CHANGES, "nothing to change, 1 effect proven")),
        ("apply", [MET], {"changes": 2, "applied": 2}, (Outcome.DONE, "2 written, 1 effect proven")),
        (
            "apply",
            [],
            {"applied": 2, "checked": (PROVEN, UNPROVEN)},
            (Outcome.DONE, "2 written, 1 effect proven, not proven: The local name answers"),
        ),
        (
            "apply",
            [],
            {"applied": 2, "checked": (PROVEN, RESTART)},
            (Outcome.RESTART_PENDING, "The port is excluded: Pod a/b has to restart"),
        ),
        ("apply", [], {"checked": (RESTART, UNTOLD)}, (Outcome.UNKNOWN, "It answers: status 503")),
        ("apply", [], {"applied": 1, "checked": (RESTART, FAILED)}, (Outcome.FAILED, "It answers: status 503")),
        ("apply", [], {"inapplicable": "mTLS is off"}, (Outcome.NO_CHANGES, "nothing to do: mTLS is off")),
        ("apply", [NOT_MET], {"inapplicable": "mTLS is off"}, (Outcome.BLOCKED, "not met: D is there (no d)")),
        ("apply", [], {"applied": 2, "checked": (FAILED,)}, (Outcome.FAILED, "It answers: status 503")),
        (
            "apply",
            [WAITING],
            {"applied": 2, "unready": ("u",), "checked": (FAILED, UNTOLD)},
            (Outcome.FAILED, "u; It answers: status 503"),
        ),
        ("apply", [], {"applied": 2, "checked": (UNTOLD,)}, (Outcome.UNKNOWN, "It answers: status 503")),
        ("apply", [], {"elsewhere": "have your CA sign it"}, (Outcome.BLOCKED, "have your CA sign it")),
        ("apply", [WAITING], {}, (Outcome.BLOCKED, "waiting for 6.4.2: C is ready")),
        ("apply", [NOT_MET], {}, (Outcome.BLOCKED, "not met: D is there (no d)")),
        ("apply", [UNKNOWN], {}, (Outcome.BLOCKED, "could not tell: E is there (forbidden)")),
        ("apply", [], {"changes": None}, (Outcome.BLOCKED, "no plan could be made")),
    ],
)
def test_the_outcome_of_a_run(
    mode: str, findings: list[Finding], given: dict[str, Any], expected: tuple[Outcome, str]
) -> None:
    assert expected == concluded(mode, *findings, **given)


@pytest.mark.parametrize("mode", MODES)
def test_a_failure_beats_everything_else(mode: str) -> None:
    for findings, changes, applied in product([(), (NOT_MET,), (UNKNOWN, WAITING)], [None, 0, 2], [0, 2]):
        found = concluded(mode, *findings, changes=changes, applied=applied, failure="the server refused")
        assert (Outcome.FAILED, "the server refused") == found


EVERYTHING = [
    (
        mode,
        findings,
        {"changes": changes, "applied": applied, "unready": unready, "checked": checked, "elsewhere": text},
    )
    for mode, findings, changes, applied, unready, checked, text in product(
        MODES,
        [(), (MET,), (WARNING,), (WAITING,), (COMES,), (NOT_MET,), (UNKNOWN,)],
        [None, 0, 2],
        [0, 2],
        [(), ("u",)],
        [(), (PROVEN,), (FAILED,), (UNTOLD,), (RESTART,), (UNPROVEN,), (SKIPPED,)],
        ["", "elsewhere"],
    )
]


def test_a_run_exits_with_0_only_where_nothing_is_amiss() -> None:
    for mode, findings, given in EVERYTHING:
        outcome, _ = concluded(mode, *findings, **given)
        amiss = (
            set(findings) & {NOT_MET, UNKNOWN, WAITING}
            or given["changes"] is None
            or given["elsewhere"]
            or (given["changes"] and mode != "apply")
            or (mode != "plan" and (given["unready"] or set(given["checked"]) & {FAILED, UNTOLD, RESTART}))
        )
        assert (EXIT_CODES[outcome] == 0) is (not amiss), (mode, findings, given)


def test_each_mode_has_its_own_words() -> None:
    words: dict[str, set[Outcome]] = {mode: set() for mode in MODES}
    for mode, findings, given in EVERYTHING:
        words[mode].add(concluded(mode, *findings, **given)[0])
    assert {
        "verify": {Outcome.AS_DESIRED, Outcome.DRIFT, Outcome.BLOCKED, Outcome.UNKNOWN},
        "plan": {Outcome.NO_CHANGES, Outcome.CHANGES_PENDING, Outcome.BLOCKED},
        "apply": {
            Outcome.NO_CHANGES,
            Outcome.DONE,
            Outcome.RESTART_PENDING,
            Outcome.FAILED,
            Outcome.BLOCKED,
            Outcome.UNKNOWN,
        },
    } == words


def test_the_exit_code_of_every_outcome() -> None:
    assert {
        "as desired": 0,
        "no changes": 0,
        "done and proven": 0,
        "drift": 2,
        "changes pending": 2,
        "applied, restart pending": 1,
        "blocked": 1,
        "failed": 1,
        "could not tell": 1,
        "not run": 1,
    } == {str(outcome): EXIT_CODES[outcome] for outcome in Outcome}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, ""),
        (1, "0"),
        (10, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        (11, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 1 more"),
        (2010, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, and 2,000 more"),
    ],
)
def test_of_many_things_ten_are_named(count: int, expected: str) -> None:
    assert expected == few(map(str, range(count)))
    assert expected.replace(", ", "; ") == few(map(str, range(count)), "; ")


def test_what_is_not_met_and_what_could_not_be_told_forbid_a_change() -> None:
    assert (NOT_MET, UNKNOWN) == blocking([MET, NOT_MET, WARNING, UNKNOWN, WAITING, COMES])
    assert () == blocking([])


@pytest.mark.parametrize("mode", ["apply", "verify"])
def test_a_cell_that_was_left_out_is_never_a_success(mode: str) -> None:
    found, reason = conclude(mode, (), changes=0, applied=0, unready=(), checked=(), unrun=["prove-gateways"])
    assert (Outcome.UNKNOWN, "not run: prove-gateways") == (found, reason)
