"""What a check is, and how it says what it saw."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from runbooks.cluster import Connection
from runbooks.errors import RBAC
from runbooks.parameters import Parameters
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.verdicts import Checked, Proof, few


@dataclass(frozen=True)
class Check:
    """One effect to prove.

    Args:
        title: what should hold, in a few words.
        judge: looks, and says how it came out.
        reads: what it needs to have been read of the cluster; where the account may not, it cannot tell.
        copes: reads that it can do without, and says so itself.
        timed: say how long after the last write it was seen.
        rests_on: what of a cluster it takes for real that a sandbox may only play, in the sandbox's own words.
    """

    title: str
    judge: Callable[[str, Situation[Any], Connection], Checked]
    reads: Callable[[Any], tuple[Read, ...]] = lambda _: ()
    copes: Callable[[Any], tuple[Read, ...]] = lambda _: ()
    timed: bool = False
    rests_on: str = ""

    def all_reads(self, parameters: Parameters) -> tuple[Read, ...]:
        """Everything that it looks at."""
        return (*self.reads(parameters), *self.copes(parameters))

    def look(self, situation: Situation[Any], connection: Connection) -> Checked:
        """Judge the effect; what may not be read is never taken for absent."""
        refused = situation.snapshot.refusals(self.reads(situation.parameters))
        if refused:
            return Checked(self.title, Proof.UNKNOWN, "", "; ".join(refused), "", RBAC)
        found = self.judge(self.title, situation, connection)
        if self.rests_on and self.rests_on in situation.sandbox.get("stands_in", ""):
            return replace(found, way=f"{found.way} ({self.rests_on} is a stand-in here)")
        return found


def proven(title: str, expected: str, way: str, observed: str = "") -> Checked:
    """An effect that was seen."""
    return Checked(title, Proof.PROVEN, expected, observed or expected, way)


def compared(
    title: str, expected: str, faults: Iterable[str], way: str, remedy: str, *, seen: str = "", see: str = ""
) -> Checked:
    """Proven where a comparison found no faults, else failed with all of them.

    Args:
        title: the check's title.
        expected: what was to be seen.
        faults: where it was not.
        way: by which path it was looked at.
        remedy: what to do where it does not hold.
        seen: what was seen where it holds, for example the Pods that were looked at; empty: just what was expected.
        see: the section whose runbook mends it.
    """
    faults = list(faults)
    if not faults:
        return proven(title, expected, way, seen)
    return Checked(title, Proof.FAILED, expected, few(faults, "; "), way, remedy, see)
