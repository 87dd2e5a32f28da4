"""How a precondition says what it found, in the words that all of them share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runbooks.errors import RBAC
from runbooks.kinds import (
    Kind,
)
from runbooks.situation import Situation
from runbooks.verdicts import Finding, Verdict

Need = Callable[[Situation[Any]], Finding]


def met(title: str, said: str) -> Finding:
    """It holds."""
    return Finding(title, Verdict.MET, said)


def not_met(title: str, said: str, remedy: str, see: str = "") -> Finding:
    """It does not hold, and what to do."""
    return Finding(title, Verdict.NOT_MET, said, remedy, see)


def warned(title: str, said: str, remedy: str, see: str = "") -> Finding:
    """It forbids nothing, and will be felt."""
    return Finding(title, Verdict.WARNING, said, remedy, see)


def unreadable(title: str, situation: Situation[Any], kind: Kind) -> Finding | None:
    """A finding where a kind could not be read at all: its CRD is missing, or the account may not read it."""
    said = situation.snapshot.unreadable(kind)
    if not said:
        return None
    if error := situation.snapshot.why_not_served(kind):
        if error.versions:
            return not_met(title, error.said, error.remedy)
        remedy = f"install the operator that brings {kind.plural}.{kind.group}"
        return not_met(title, f"the cluster does not know {kind.name} ({kind.api_version})", remedy)
    return Finding(title, Verdict.UNKNOWN, said, RBAC)
