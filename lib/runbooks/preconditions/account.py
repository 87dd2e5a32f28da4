"""What the account may do."""

from __future__ import annotations

from typing import Any

from runbooks.errors import RBAC
from runbooks.preconditions.finding import met, not_met
from runbooks.rights import in_words
from runbooks.situation import Situation
from runbooks.verdicts import Finding, Verdict


def account_rights(situation: Situation[Any]) -> Finding:
    """The account has the rights that the section needs (the page asks for a cluster administrator)."""
    title = "The account has the rights that are needed"
    if not situation.denied:
        return met(title, "every right asked for is granted")
    said = "missing: " + "; ".join(in_words(situation.denied))
    remedy = RBAC
    if situation.parameters.mode == "apply":
        return not_met(title, said, remedy)
    # a plan without the server's opinion is still a plan
    return Finding(title, Verdict.WARNING, said, remedy)
