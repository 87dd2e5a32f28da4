"""The only place where a runbook changes anything: one planned change after the other, each noted once it is made.

Whatever happened between the plan and the write stops it: what is written is what was planned, or a part of it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from runbooks import batch, certificate_folder, readiness, wait
from runbooks.cluster import Connection
from runbooks.errors import ChangedSincePlan, Conflict, RunbookError, ServerRefused
from runbooks.journal import Journal
from runbooks.kinds import POD
from runbooks.plan import (
    Change,
    Desired,
    DesiredFile,
    DesiredRestart,
    Operation,
    admitted,
    applied_manifest,
    change_of,
    compare,
    stale,
)
from runbooks.situation import Situation
from runbooks.snapshot import Live, leaving
from runbooks.verdicts import few

Pending = tuple[Desired | DesiredFile | DesiredRestart, Change]
_AGAIN = "run the notebook again: it will plan what is there now"


class Writing:
    """The writes of one step.

    Args:
        connection: where to write.
        field_manager: under whose name.
        situation: what the plan was made from.
        journal: told durably before and after each write.
        note: called with each write as soon as the server has answered, from several threads.
        say: called with lines of progress.
    """

    def __init__(
        self,
        connection: Connection,
        field_manager: str,
        situation: Situation[Any],
        journal: Journal,
        note: Callable[[Mapping[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self._connection, self._manager, self._situation = connection, field_manager, situation
        self._journal, self._note, self._say = journal, note, say

    def carry_out(self, pending: Sequence[Pending]) -> None:
        """Make the changes: files and restarts one at a time in their order, objects several at a time.

        Args:
            pending: what is wanted, with its planned change.

        Raises:
            RunbookError: at least one change could not be made; the others were.
        """
        for wanted, change in pending:
            if isinstance(wanted, DesiredFile):
                self._journal.before(change)
                seen = self._situation.files.get(wanted.path.rpartition("/")[2])
                certificate_folder.write(wanted.path, wanted.content or b"", seen)
                self._made(change)
            elif isinstance(wanted, DesiredRestart):
                self._restart(wanted, change)
        objects = [(wanted, change) for wanted, change in pending if isinstance(wanted, Desired)]
        done = batch.each(lambda one: self._object(*one), objects, self._say, "written")
        if done.errors:
            raise _together(done.errors, len(objects))

    def _made(self, planned: Change, audit_id: str = "") -> None:
        self._journal.after(planned, audit_id)
        entry = {"step": planned.step, "target": planned.target, "operation": str(planned.operation)}
        self._note({**entry, "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), "audit_id": audit_id})

    # --- Pods ----------------------------------------------------------------------------------------------------

    def _restart(self, wanted: DesiredRestart, planned: Change) -> None:
        """Evict one Pod, unless it is gone already, and wait until a new one is ready in its place."""
        pod = wanted.pod
        live = self._connection.get(pod.kind, pod.namespace, pod.name)
        if live is None or live["metadata"]["uid"] != wanted.uid:
            return
        before = len(readiness.running(self._alike(live, wanted.workload)))
        self._journal.before(planned)
        self._made(planned, self._connection.evict(pod.namespace, pod.name))
        judge = {
            f"a new Pod for {pod.name}": lambda: readiness.replaced(self._alike(live, wanted.workload), live, before)
        }
        wait.until(judge, self._situation.parameters.timeout_s, self._say)

    def _alike(self, pod: Live, app: str) -> Iterator[Live]:
        """The Pods of the same workload."""
        return self._connection.objects(POD, pod["metadata"]["namespace"], label_selector=f"app={app}")

    # --- objects -------------------------------------------------------------------------------------------------

    def _object(self, wanted: Desired, planned: Change) -> None:
        lost = False
        if planned.operation is Operation.CREATE:
            # nothing need be read first: the server refuses to create what another run has just created
            try:
                self._server_side_apply(wanted, None, planned)
            except Conflict as error:
                lost = error.repeated
            else:
                return
        live = self._unchanged(wanted, planned)
        difference = compare(wanted, live)
        if lost and difference.operation is Operation.UNCHANGED:
            self._made(planned)  # the first attempt was carried out, and its answer never came
        if live is None or difference.leaves:
            try:
                self._server_side_apply(wanted, live, planned)
            except Conflict as error:
                raise ChangedSincePlan(f"applying {wanted.ref}", error.said, _AGAIN) from error
        if live is not None and difference.additions:
            self._journal.before(planned)
            for written in self._connection.add_to_lists(wanted):
                self._made(planned, written.audit_id)

    def _unchanged(self, wanted: Desired, planned: Change) -> Live | None:
        """The object as it is now.

        Raises:
            ChangedSincePlan: it is not what the plan was made for: other values, deleted, or another one of its name.
        """
        ref = wanted.ref
        live, seen = self._connection.get(ref.kind, ref.namespace, ref.name), self._situation.snapshot.of(ref)
        if going := leaving(live):
            raise ChangedSincePlan(f"applying {ref}", going, f"see to it that it can go, then {_AGAIN}")
        if planned.operation is Operation.UPDATE:
            if live is None:
                raise ChangedSincePlan(f"applying {ref}", "it was deleted since it was planned", _AGAIN)
            if seen is not None and live["metadata"]["uid"] != seen["metadata"]["uid"]:
                raise ChangedSincePlan(f"applying {ref}", "it was deleted and made anew since it was planned", _AGAIN)
        if said := stale(change_of(planned.step, wanted, live, compare(wanted, live)), planned):
            raise ChangedSincePlan(f"applying {ref}", "; ".join(said), _AGAIN)
        return live

    def _server_side_apply(self, wanted: Desired, live: Live | None, planned: Change) -> None:
        manifest, kind = applied_manifest(wanted, live, self._manager), wanted.ref.kind
        self._journal.before(planned)
        try:
            written = self._connection.apply(kind, manifest, field_manager=self._manager)
        except Conflict as error:
            permitted = {(path, owner.manager) for path, owner in planned.takes_over}
            if not error.causes or not permitted.issuperset(error.causes):
                raise
            written = self._connection.apply(kind, manifest, field_manager=self._manager, force=True)
        self._made(planned, written.audit_id)
        answered = admitted(planned, wanted, live, written.live)
        if answered.problems:
            said, remedy = "; ".join(answered.problems), "mend what it says; the object was written without it"
            raise ServerRefused(f"applying {wanted.ref}", said, remedy, status=200)


def _together(errors: Sequence[RunbookError], count: int) -> RunbookError:
    """Several failures as one error that names each object."""
    if len(errors) == 1:
        return errors[0]
    said = few((error.lines()[0] for error in errors), "; ")
    return RunbookError(f"writing {count} objects, of which {len(errors)} failed", said, errors[0].remedy)
