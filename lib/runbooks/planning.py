"""From what is wanted to what will change: compared with what was read, and with what the server says to a dry run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from runbooks import batch
from runbooks.cluster import Connection
from runbooks.errors import Conflict, Forbidden, ServerRefused
from runbooks.kinds import NAMESPACE
from runbooks.plan import (
    Change,
    Desired,
    DesiredFile,
    DesiredRestart,
    Operation,
    admitted,
    applied_manifest,
    change_of,
    change_of_file,
    change_of_restart,
    compare,
    list_take_overs,
    take_overs,
)
from runbooks.procedure.section import Wanted
from runbooks.situation import Situation
from runbooks.snapshot import Live, leaving

_ATTEMPTS = 5


class Planning:
    """The changes of a section.

    Args:
        connection: whom to ask.
        field_manager: under whose name the changes would be made.
        situation: the parameters, and what was read.
        asks: whether the server is asked; without it the comparison is local.
        waits: whether an earlier runbook of the same call has still to bring something.
    """

    def __init__(
        self, connection: Connection, field_manager: str, situation: Situation[Any], *, asks: bool, waits: bool
    ) -> None:
        self._connection, self._manager, self._situation = connection, field_manager, situation
        self._given = situation.parameters
        self._asks, self._waits = asks, waits

    def changes(self, wanted: Sequence[tuple[str, Wanted]], say: Callable[[str], None]) -> tuple[Change, ...]:
        """Each change, in the order given.

        Args:
            wanted: steps' ids, and what they want.
            say: called with lines of progress.
        """
        compared = [self._compared(*one) for one in wanted]
        asked = [(change, one) for change, one in compared if one]
        answers = iter(batch.every(lambda one: self._with_opinion(*one), asked, say, "objects compared"))
        return tuple(next(answers) if one else change for change, one in compared)

    def _compared(self, step: str, wanted: Wanted) -> tuple[Change, Desired | None]:
        """The change by what was read; with it the object, where the server has still to be asked about it."""
        if isinstance(wanted, DesiredFile):
            return change_of_file(step, wanted), None
        if isinstance(wanted, DesiredRestart):
            return change_of_restart(step, wanted), None
        live = self._situation.snapshot.of(wanted.ref)
        change = change_of(step, wanted, live, compare(wanted, live))
        if said := self._going(wanted, live):
            return replace(change, problems=(said,)), None
        if wanted.provided_by:
            note = f"already provided by {wanted.provided_by}"
            return replace(change, operation=Operation.UNCHANGED, fields=(), notes=(note,)), None
        if live is None and (judged := self._unread(wanted, change)):
            return judged, None
        if live is not None and wanted.shared_lists:
            change = list_take_overs(change, wanted, live, self._given.take_over)
        settled = change.operation is Operation.UNCHANGED or not self._asks
        return change, None if settled else wanted

    def _going(self, wanted: Desired, live: Live | None) -> str:
        """That the object is on its way out, or its namespace: what is written into it goes with it."""
        if said := leaving(live):
            return f"{said}; see to it that it can go, then run this again"
        namespace = self._situation.snapshot.get(NAMESPACE, "", wanted.ref.namespace)
        if said := leaving(namespace):
            return f"namespace {wanted.ref.namespace}: {said}; wait until it is gone, then create it anew"
        return ""

    def _unread(self, wanted: Desired, change: Change) -> Change | None:
        """The change of an object that is not there, where that alone settles what is planned."""
        snapshot, kind = self._situation.snapshot, wanted.ref.kind
        unknown = snapshot.why_not_served(kind)
        if unknown and wanted.brought_by and not unknown.versions:
            note = f"planned without the server's opinion: its CRD comes with {wanted.brought_by}"
            return replace(change, notes=(note,))
        if unknown and unknown.versions:
            return replace(change, problems=(f"{unknown.said}; {unknown.remedy}",))
        if unknown:
            said = f"the cluster does not know {kind.plural}.{kind.group}; install the operator that brings it"
            return replace(change, problems=(said,))
        if (said := snapshot.unreadable(kind)) and self._given.mode == "verify":
            # what could not be read is neither missing nor as it should be
            return replace(change, operation=Operation.UNCHANGED, fields=(), unread=said)
        if said:
            return replace(change, notes=(f"planned without the server's opinion: {said}",))
        if wanted.amend and self._waits:
            return replace(
                change, notes=("planned without the server's opinion: an earlier runbook brings the object",)
            )
        if wanted.amend:
            said = "there is no such object, and this section creates none; 6.4.1 names what brings it"
            return replace(change, problems=(said,))
        return None

    def _with_opinion(self, change: Change, wanted: Desired) -> Change:
        """The change, corrected by what the server answers to a dry run."""
        live = self._situation.snapshot.of(wanted.ref)
        for _ in range(_ATTEMPTS):
            difference = compare(wanted, live)
            try:
                if live is None or difference.leaves:
                    change = self._dry_run(wanted, live, change)
                if live is not None and difference.additions and not change.problems:
                    self._connection.add_to_lists(wanted, dry_run=True)
                return change
            except Forbidden as error:
                return replace(change, notes=(*change.notes, f"planned without the server's opinion: {error.said}"))
            except Conflict as error:
                # somebody else wrote the object since it was read: look again
                said, ref = error.said, wanted.ref
                live = self._connection.get(ref.kind, ref.namespace, ref.name)
                change = change_of(change.step, wanted, live, compare(wanted, live))
                if live is not None:
                    change = list_take_overs(change, wanted, live, self._given.take_over)
            except ServerRefused as error:
                if wanted.independent:
                    return replace(change, refused=error.said)
                return replace(change, problems=(*change.problems, error.said))
        return replace(change, problems=(*change.problems, said))

    def _dry_run(self, wanted: Desired, live: Live | None, change: Change) -> Change:
        manager = self._manager
        manifest = applied_manifest(wanted, live, manager)
        kind = wanted.ref.kind
        try:
            answer = self._connection.apply(kind, manifest, field_manager=manager, dry_run=True)
        except Conflict as error:
            if live is None or not error.causes:
                raise
            change = take_overs(error.causes, change, live, self._given.take_over)
            if change.problems:
                return change
            answer = self._connection.apply(kind, manifest, field_manager=manager, force=True, dry_run=True)
        return admitted(change, wanted, live, answer.live)
