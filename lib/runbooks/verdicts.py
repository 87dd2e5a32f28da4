"""The words in which judgements are passed on: findings of preconditions, proofs of effects, outcome of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_NAMED = 10


def few(items: Iterable[str], separator: str = ", ") -> str:
    """The items in a row; of more than ten the first ten, and how many more there are."""
    items = tuple(items)
    more = (f"and {len(items) - _NAMED:,} more",) if len(items) > _NAMED else ()
    return separator.join(items[:_NAMED] + more)


class Verdict(StrEnum):
    """How one judgement came out."""

    MET = "met"
    WARNING = "warning"
    WAITING = "waiting"
    COMES = "left to a later runbook"
    NOT_MET = "not met"
    UNKNOWN = "could not tell"


@dataclass(frozen=True)
class Finding:
    """One precondition, judged.

    Args:
        title: what is asked for, in a few words.
        verdict: how it came out.
        said: what was found.
        remedy: what to do where it is not met.
        see: the section whose runbook fulfils it.
        section: the section that asks for it, where that is not the runbook's own.
    """

    title: str
    verdict: Verdict
    said: str = ""
    remedy: str = ""
    see: str = ""
    section: str = ""


class Proof(StrEnum):
    """How one check of an effect came out.

    ``not proven`` is an effect that this account or this place cannot look at: it is named and fails nothing.
    ``could not tell`` is one that should have been seen and was not. ``restart pending`` is one that waits for
    somebody to restart the Pods that are named.
    """

    PROVEN = "proven"
    FAILED = "failed"
    UNKNOWN = "could not tell"
    UNPROVEN = "not proven"
    RESTART = "restart pending"
    SKIPPED = "not run"


@dataclass(frozen=True)
class Checked:
    """One effect, checked.

    Args:
        title: what should hold.
        proof: how it came out.
        expected: what was to be seen.
        observed: what was seen.
        way: by which path it was looked at.
        remedy: what to do where it does not hold.
        see: the section whose runbook mends it.
    """

    title: str
    proof: Proof
    expected: str
    observed: str
    way: str
    remedy: str = ""
    see: str = ""


class Outcome(StrEnum):
    """How a run of a runbook ended."""

    AS_DESIRED = "as desired"
    DRIFT = "drift"
    NO_CHANGES = "no changes"
    CHANGES_PENDING = "changes pending"
    DONE = "done and proven"
    RESTART_PENDING = "applied, restart pending"
    BLOCKED = "blocked"
    FAILED = "failed"
    UNKNOWN = "could not tell"
    NOT_RUN = "not run"


EXIT_CODES = {
    Outcome.AS_DESIRED: 0,
    Outcome.NO_CHANGES: 0,
    Outcome.DONE: 0,
    Outcome.DRIFT: 2,
    Outcome.CHANGES_PENDING: 2,
    Outcome.RESTART_PENDING: 1,
    Outcome.BLOCKED: 1,
    Outcome.FAILED: 1,
    Outcome.UNKNOWN: 1,
    Outcome.NOT_RUN: 1,
}

# what to do where a notebook ends like that, and its mode asks for another end
NEXT = {
    Outcome.DRIFT: "look at what differs above, then run this runbook in mode apply, which mends it",
    Outcome.BLOCKED: "do what is said above of it, then run this runbook again",
    Outcome.FAILED: "do what the cell that failed says, then run this runbook again: what is done already is kept",
    Outcome.UNKNOWN: "let this account and machine see what could not be seen, leave no cell out, and run it again",
    Outcome.RESTART_PENDING: "restart the Pods that are named, then run this runbook again",
}


def blocking(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that forbid a change: what is not met, and what could not be told."""
    return tuple(finding for finding in findings if finding.verdict in (Verdict.NOT_MET, Verdict.UNKNOWN))


def conclude(
    mode: str,
    findings: Iterable[Finding],
    *,
    changes: int | None,
    applied: int,
    unready: Iterable[str],
    checked: Iterable[Checked],
    elsewhere: str = "",
    failure: str = "",
    inapplicable: str = "",
    unrun: Iterable[str] = (),
) -> tuple[Outcome, str]:
    """The outcome of a run and the reason for it, in words.

    Args:
        mode: verify, plan or apply.
        findings: the preconditions.
        changes: how many changes the plan holds, or None where no plan could be made.
        applied: how many objects were written.
        unready: what the cluster does not report as ready.
        checked: the effects that were checked.
        elsewhere: what must happen outside the cluster before the section can be finished, or empty.
        failure: what stopped the run, or empty.
        inapplicable: why there is nothing to do on this cluster, or empty.
        unrun: the cells that were left out although the outcome rests on them.
    """
    findings, checked, unready = tuple(findings), tuple(checked), tuple(unready)
    if failure:
        return Outcome.FAILED, failure
    if missing := [finding for finding in findings if finding.verdict is Verdict.NOT_MET]:
        return Outcome.BLOCKED, "; ".join(f"not met: {finding.title} ({finding.said})" for finding in missing)
    doubts = [
        f"could not tell: {finding.title} ({finding.said})"
        for finding in findings
        if finding.verdict is Verdict.UNKNOWN
    ]
    waiting = [f"waiting for {f.see}: {f.title}" for f in findings if f.verdict is Verdict.WAITING]
    waiting += [elsewhere] if elsewhere else []
    if changes is None or doubts:
        return (Outcome.UNKNOWN if mode == "verify" else Outcome.BLOCKED), "; ".join(doubts) or "no plan could be made"
    if unrun := list(unrun):
        return Outcome.UNKNOWN, f"not run: {few(unrun)}"
    if inapplicable:
        return (Outcome.AS_DESIRED if mode == "verify" else Outcome.NO_CHANGES), f"nothing to do: {inapplicable}"
    if mode == "plan":
        return _plan_outcome(changes, waiting)
    return _effect_outcome(mode, changes, applied, waiting, unready, checked)


def _plan_outcome(changes: int, waiting: list[str]) -> tuple[Outcome, str]:
    if changes or waiting:
        reasons = [f"{changes} change{'s' if changes != 1 else ''} to make"] if changes else []
        return Outcome.CHANGES_PENDING, "; ".join(reasons + waiting)
    return Outcome.NO_CHANGES, "everything is as wanted"


def _effect_outcome(
    mode: str, changes: int, applied: int, waiting: list[str], unready: tuple[str, ...], checked: tuple[Checked, ...]
) -> tuple[Outcome, str]:
    failed = [f"{check.title}: {check.observed}" for check in checked if check.proof is Proof.FAILED]
    unknown = [f"{check.title}: {check.observed}" for check in checked if check.proof is Proof.UNKNOWN]
    restarts = [f"{check.title}: {check.observed}" for check in checked if check.proof is Proof.RESTART]
    effects = _effects(checked)
    if mode == "verify":
        drift = [f"{changes} object{' differs' if changes == 1 else 's differ'}"] if changes else []
        if drift := drift + waiting + list(unready) + failed + restarts:
            return Outcome.DRIFT, "; ".join(drift)
        if unknown:
            return Outcome.UNKNOWN, "; ".join(unknown)
        return Outcome.AS_DESIRED, f"every object as wanted, {effects}"
    if failed or unready:
        return Outcome.FAILED, "; ".join([*unready, *failed])
    if waiting:
        return Outcome.BLOCKED, "; ".join(waiting)
    if unknown:
        return Outcome.UNKNOWN, "; ".join(unknown)
    if restarts:
        return Outcome.RESTART_PENDING, "; ".join(restarts)
    if applied:
        return Outcome.DONE, f"{applied} written, {effects}"
    return Outcome.NO_CHANGES, f"nothing to change, {effects}"


def _effects(checked: tuple[Checked, ...]) -> str:
    proven = sum(check.proof is Proof.PROVEN for check in checked)
    text = f"{proven} effect{'s' if proven != 1 else ''} proven"
    unproven = [check.title for check in checked if check.proof is Proof.UNPROVEN]
    return f"{text}, not proven: {', '.join(unproven)}" if unproven else text
