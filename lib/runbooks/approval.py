"""Whether a plan is what somebody approved. A guard against accidents and stale plans, not against the account's owner.

An approval names a plan by its digest. The digest is over every single change, so whoever has the approved changes
can show that they are the approved ones: no signature is needed to believe them.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks.plan import Change, Plan, digest_of_field, digest_over
from runbooks.verdicts import Finding, Verdict, few

VARIABLE = "RUNBOOKS_APPROVED"
TITLE = "The plan is approved"
_NEW_ROOT = "the new root "  # as a plan shows an issuer that it makes itself
_ROOT = "root.crt"


@dataclass(frozen=True)
class Approved:
    """An approved plan, as an earlier run recorded it.

    Args:
        changes: its changes, as a plan shows them.
        wrote: the targets that runs under this approval have written since.
    """

    changes: tuple[Mapping[str, Any], ...]
    wrote: frozenset[str] = frozenset()

    @property
    def digest(self) -> str:
        """The digest of its changes, by which it is believed."""
        return digest_over(digest for _, digest in self.fields)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Each field change in words, and its digest."""
        return [
            (_words(one["target"], item["path"], item["old"], item["new"]), _digest(one, item))
            for one in self.changes
            if one.get("operation") != "unchanged"
            for item in one.get("fields") or ()
        ]


@dataclass(frozen=True)
class Consent:
    """An approval that somebody gave in the notebook, of the plan that stands there.

    Args:
        changes: the plan's changes, as it shows them.
        digest: the plan's digest.
        by: who approved it; nobody has to approve a plan without changes.
        given: when.
        until: how long it holds.
    """

    changes: tuple[Mapping[str, Any], ...]
    digest: str
    by: str
    given: dt.datetime
    until: dt.datetime

    @property
    def ended(self) -> str:
        """What is said when it holds no longer."""
        until = self.until.isoformat(timespec="seconds")
        return f"the approval by {self.by} ended at {until}" if self.by else f"the plan was made before {until}"

    def judge(self, plan: Plan, now: dt.datetime) -> Finding:
        """Whether a plan made now is the approved one, or what is left of it."""
        known = {self.digest: Approved(self.changes)}
        return judge(plan, (self.digest,), by=self.by, until=self.until.isoformat(), found=known, now=now)


def _digest(change: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    # a record of an older version has no identity, so its digest is another one
    return digest_of_field(change.get("identity") or (), item["path"], item["old"], item["new"])


def _words(target: str, path: str, old: Any, new: Any) -> str:
    return f"{target} {path}: {old!r} → {new!r}"


def known(environment: Mapping[str, str]) -> dict[str, Approved]:
    """The approved plans that the runner found in its records; those that are not what their digest says are left out.

    Args:
        environment: ``RUNBOOKS_APPROVED`` names the file, where there is a runner.
    """
    path = environment.get(VARIABLE)
    if not path or not Path(path).exists():
        return {}
    found = {
        digest: Approved(tuple(one["changes"]), frozenset(one["wrote"]))
        for digest, one in json.loads(Path(path).read_bytes()).items()
    }
    return {digest: approved for digest, approved in found.items() if approved.digest == digest}


def judge(
    plan: Plan, digests: Iterable[str], *, by: str, until: str, found: Mapping[str, Approved], now: dt.datetime
) -> Finding:
    """Whether a plan may be applied: it is an approved one, or what is left of one.

    Args:
        plan: what would be done now.
        digests: of the plans that are approved.
        by: who approved them.
        until: until when, ISO 8601 with a zone; empty for no end.
        found: approved plans whose changes are known.
        now: the time.
    """
    digests = tuple(digests)
    ask = f"look at the plan, then --approve {plan.digest} --approved-by NAME"
    if not digests:
        return Finding(TITLE, Verdict.NOT_MET, "no approval was given", ask)
    if until and now > dt.datetime.fromisoformat(until):
        return Finding(TITLE, Verdict.NOT_MET, f"the approval by {by} ended at {until}", ask)
    if plan.digest in digests:
        return Finding(TITLE, Verdict.MET, f"as a whole, by {by}")
    beyond = {digest: _beyond(plan, found[digest]) for digest in digests if digest in found}
    if not beyond:
        said = f"{few(digest[:24] + '…' for digest in digests)} is another plan, and no record here tells what is in it"
        return Finding(TITLE, Verdict.NOT_MET, said, ask)
    nearest = min(beyond, key=lambda digest: len(beyond[digest]))
    if beyond[nearest]:
        said = f"beyond {nearest[:24]}… it would do: {few(beyond[nearest], '; ')}"
        return Finding(TITLE, Verdict.NOT_MET, said, ask)
    return Finding(TITLE, Verdict.MET, f"as a part of {nearest}, by {by}")


def _beyond(plan: Plan, approved: Approved) -> list[str]:
    """The field changes of a plan that an approved one does not have, in words."""
    left = Counter(digest for _, digest in approved.fields)  # of restarts several may be alike
    digests = set(left)

    def covered(change: Change, path: str, old: Any, new: Any) -> bool:
        digest = digest_of_field(change.identity, path, old, new)
        left[digest] -= 1
        return left[digest] >= 0

    return [
        _words(change.target, item.path, item.old, item.new)
        for change in plan.pending
        for item in change.fields
        if not covered(change, item.path, item.old, item.new)
        and not (_made_root(approved) and _under_new_root(change, item.path, item.old, item.new, digests, approved))
    ]


def _made_root(approved: Approved) -> bool:
    return any(target.startswith("File ") and target.endswith(f"/{_ROOT}") for target in approved.wrote)


def _under_new_root(change: Change, path: str, old: Any, new: Any, digests: set[str], approved: Approved) -> bool:
    """Whether this is an approved certificate whose issuer was a root to be made, and has been made since."""
    if not (isinstance(new, Mapping) and "issuer" in new):
        return False
    issuers = {
        item["new"]["issuer"]
        for one in approved.changes
        for item in one["fields"]
        if isinstance(item["new"], Mapping) and str(item["new"].get("issuer", "")).startswith(_NEW_ROOT)
    }
    return any(digest_of_field(change.identity, path, old, {**new, "issuer": one}) in digests for one in issuers)
