"""The only orchestration: plan, apply, wait and prove a section over a connection. A notebook's cells call this.

A cell that finds something wrong says so in its output and lets the notebook run on: the cells after it change
nothing any more, and the last two tell the outcome. So an executed notebook always holds the whole story.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

from runbooks import batch, certificate_folder, cluster, display, readiness, wait
from runbooks.checks.check import Check
from runbooks.cluster import Connection
from runbooks.display import View
from runbooks.errors import (
    ChangedSincePlan,
    Conflict,
    Forbidden,
    NotDone,
    OutOfOrder,
    RunbookError,
    ServerRefused,
    TimedOut,
    WrongCluster,
)
from runbooks.kinds import CLUSTER_VERSION, CONFIG_MAP, POD, ObjectRef
from runbooks.manifests import Manifest
from runbooks.parameters import Parameters, from_globals
from runbooks.plan import (
    Change,
    Desired,
    DesiredFile,
    DesiredRestart,
    Operation,
    Plan,
    admitted,
    applied_manifest,
    change_of,
    change_of_file,
    change_of_restart,
    compare,
    masked,
    stale,
    take_overs,
)
from runbooks.procedure import SECTIONS
from runbooks.procedure.needed_rights import rights_to_write
from runbooks.procedure.section import Awaited, Section, Step, Wanted
from runbooks.readiness import State
from runbooks.rights import Right
from runbooks.situation import Situation
from runbooks.snapshot import Live, Snapshot
from runbooks.verdicts import EXIT_CODES, Checked, Finding, Proof, Verdict, blocking, conclude, few

SANDBOX = ObjectRef(CONFIG_MAP, "kube-public", "runbooks-sandbox")
_PLAN_ATTEMPTS = 5
_MANY = 10  # of rights alike, from which on one question for all namespaces is worth it
_EFFECT_TIMEOUT_S = 60.0  # how long a change may take from the API server to the last proxy
_FILE_PARAMETERS = ("key_file", "chain_file", "trust_anchor")


def open_runbook(section: str, given: Mapping[str, object]) -> Runbook:
    """Bind a runbook to its parameters and its target. Nothing has happened yet besides saying hello.

    Args:
        section: the documented number, for example ``"6.4.3"``.
        given: the notebook's ``globals()``.

    Raises:
        ParameterError: a parameter is unknown, missing, or not usable.
        ConnectionFailed: the cluster cannot be reached, or is not the one that the parameters name.
    """
    found = SECTIONS[section]
    parameters = from_globals(found.model, given)
    connection = cluster.connect(parameters.kubeconfig, parameters.context)
    return Runbook(found, parameters, connection, _identify(connection, parameters))


def _identify(connection: Connection, parameters: Parameters) -> dict[str, Any]:
    """Who answers, and who we are to it."""
    version = connection.version()
    if parameters.api_server and parameters.api_server.rstrip("/") != connection.server.rstrip("/"):
        raise WrongCluster(
            f"connecting with context {parameters.context}",
            f"it leads to {connection.server}, and api_server is {parameters.api_server}",
            "correct the context or api_server; nothing was changed",
        )
    cluster_id, openshift = _cluster_identity(connection)
    if parameters.cluster_id and parameters.cluster_id != cluster_id:
        raise WrongCluster(
            f"connecting to {connection.server}",
            f"its cluster id is {cluster_id or 'unknown'}, and cluster_id is {parameters.cluster_id}",
            "correct the context or cluster_id; nothing was changed",
        )
    return {
        "server": connection.server,
        "kubernetes": version,
        "openshift": openshift,
        "cluster_id": cluster_id,
        "context": parameters.context,
        "user": connection.whoami(),
        "mode": parameters.mode,
        "sandbox": _sandbox(connection),
    }


def _cluster_identity(connection: Connection) -> tuple[str, str]:
    """Cluster id and OpenShift version; empty where the account may not read them, or there are none."""
    try:
        live = connection.get(CLUSTER_VERSION, "", "version") or {}
    except ServerRefused:
        return "", ""
    desired = live.get("status", {}).get("desired", {})
    return str(live.get("spec", {}).get("clusterID", "")), str(desired.get("version", ""))


def _sandbox(connection: Connection) -> dict[str, str]:
    """How the sandbox describes itself; empty on a real cluster."""
    try:
        live = connection.get(SANDBOX.kind, SANDBOX.namespace, SANDBOX.name)
    except Forbidden:
        return {}
    return dict((live or {}).get("data") or {})


@dataclass
class _Story:
    """What has happened so far in this kernel."""

    findings: tuple[Finding, ...] | None = None
    plan: Plan | None = None
    written: list[dict[str, Any]] = field(default_factory=list)
    waited: list[dict[str, Any]] = field(default_factory=list)
    checked: list[Checked] = field(default_factory=list)
    failure: str = ""
    snapshot_is_old: bool = False


class Runbook:
    """One section over one connection; its methods are what the notebook's cells call, in their order.

    Args:
        section: what to do.
        parameters: how.
        connection: where.
        identity: who answered, and who we are to it.
    """

    def __init__(
        self, section: Section, parameters: Parameters, connection: Connection, identity: Mapping[str, Any]
    ) -> None:
        self._section = section
        self._parameters = parameters
        self._connection = connection
        self._identity = dict(identity)
        self._started = dt.datetime.now(dt.UTC)
        self._situation: Situation[Parameters] = Situation(parameters, self._started)
        self._story = _Story()

    # --- before anything is changed ------------------------------------------------------------------------------

    @property
    def target(self) -> View:
        """Which cluster answered, in which version, and who we are to it."""
        return display.target(self._section, self._identity)

    def preconditions(self) -> View:
        """Read what the section depends on, and judge each precondition.

        What is not met is reported and blocks every change; the cells run on.
        """
        self._story = _Story()
        section, parameters = self._section, self._parameters
        denied: tuple[Right, ...] = ()
        if section.asks:
            denied = self._denied(section.asks(self._situation))
        elif parameters.mode != "verify":
            denied = self._denied(rights_to_write(section, self._situation))
        situation = Situation(
            parameters,
            dt.datetime.now(dt.UTC),
            self._connection.survey(section.all_reads(parameters)),
            certificate_folder.read(parameters.certificates_dir, section.files) if parameters.certificates_dir else {},
            _given_files(parameters),
            denied,
            self._identity["sandbox"],
        )
        if more := section.reads_besides(situation):
            situation = replace(situation, snapshot=situation.snapshot.plus(self._connection.survey(more)))
        self._situation = replace(situation, prepared=section.prepared(situation))
        if not section.steps:
            self._story.plan = Plan(())
        self._story.findings = tuple(self._finding(need(self._situation)) for need in section.needs(parameters))
        return display.preconditions(self._story.findings)

    def _denied(self, asked: Iterable[Right]) -> tuple[Right, ...]:
        """The rights that the account lacks; one that is needed in many places is first asked for in all of them."""
        alike: defaultdict[Right, list[Right]] = defaultdict(list)
        for right in asked:
            alike[replace(right, namespace="", name="")].append(right)
        single = [
            right
            for everywhere, rights in alike.items()
            if not (len(rights) > _MANY and self._connection.may(everywhere))
            for right in rights
        ]
        answers = batch.each(self._connection.may, single, _say, "rights asked for")
        if answers.errors:
            raise answers.errors[0]
        return tuple(right for right, granted in zip(single, answers.results, strict=True) if not granted)

    def _finding(self, found: Finding) -> Finding:
        """A precondition that an earlier runbook of the same call will fulfil is waited for, not missing."""
        given = self._parameters
        if found.verdict is Verdict.NOT_MET and found.see in given.preceded_by and given.mode != "apply":
            return replace(found, verdict=Verdict.WAITING)
        return found

    def desired(self) -> View:
        """Build the objects in memory and show them; nothing is sent."""
        self._after("preconditions", self._story.findings is not None)
        manifests: list[Manifest] = []
        files: list[tuple[str, str]] = []
        for step in self._section.steps:
            for wanted in self._objects(step):
                if isinstance(wanted, DesiredFile):
                    files.append((wanted.path, "stays as it is" if wanted.content is None else str(wanted.shown)))
                elif isinstance(wanted, Desired):
                    manifests.append(_shown_manifest(wanted))
        nothing = self._section.inapplicable(self._situation) or self._section.remark(self._situation)
        return display.desired(self._section, manifests, files, nothing)

    def _objects(self, step: Step) -> tuple[Wanted, ...]:
        """What a step wants; nothing where the section has nothing to do on this cluster."""
        return () if self._section.inapplicable(self._situation) else step.objects(self._situation)

    def plan(self) -> View:
        """Compare every object of the section with the cluster, and ask the server what it would say.

        In verify, and where a precondition blocks, the comparison is local and the server is not asked.
        """
        self._after("preconditions", self._story.findings is not None)
        work = [(step, wanted) for step in self._section.steps for wanted in self._objects(step)]
        planned = batch.each(lambda one: self._planned(*one), work, _say, "objects compared")
        if planned.errors:
            raise planned.errors[0]
        plan = Plan(tuple(change for change in planned.results if change is not None))
        self._story.plan = plan
        if plan.problems:
            said = few(plan.problems, "; ")
            found = Finding("The server accepts the plan", Verdict.NOT_MET, said, "each problem says what to do")
            self._story.findings = (*(self._story.findings or ()), found)
        if plan.refused:
            said = few(plan.refused, "; ")
            remedy = "settle it first, or go on: these will fail, and the others are made"
            found = Finding("The server accepts every change", Verdict.WARNING, said, remedy)
            self._story.findings = (*(self._story.findings or ()), found)
        return display.plan(plan, self._parameters.mode)

    def _planned(self, step: Step, wanted: Wanted) -> Change:
        if isinstance(wanted, DesiredFile):
            return change_of_file(step.id, wanted)
        if isinstance(wanted, DesiredRestart):
            return change_of_restart(step.id, wanted)
        live = self._situation.snapshot.of(wanted.ref)
        change = change_of(step.id, wanted, live, compare(wanted, live))
        if wanted.provided_by:
            note = f"already provided by {wanted.provided_by}"
            return replace(change, operation=Operation.UNCHANGED, fields=(), notes=(note,))
        if live is None and (judged := self._unread(wanted, change)):
            return judged
        if change.operation is Operation.UNCHANGED or self._parameters.mode == "verify" or self._blocked:
            return change
        return self._with_opinion(step, wanted, live, change)

    def _unread(self, wanted: Desired, change: Change) -> Change | None:
        """The change of an object that is not there, where that alone settles what is planned."""
        snapshot, kind = self._situation.snapshot, wanted.ref.kind
        if snapshot.not_served(kind) and wanted.brought_by:
            note = f"planned without the server's opinion: its CRD comes with {wanted.brought_by}"
            return replace(change, notes=(note,))
        if snapshot.not_served(kind):
            said = f"the cluster does not know {kind.plural}.{kind.group}; install the operator that brings it"
            return replace(change, problems=(said,))
        if said := snapshot.unreadable(kind):
            return replace(change, notes=(f"planned without the server's opinion: {said}",))
        if wanted.amend and self._waits:
            return replace(
                change, notes=("planned without the server's opinion: an earlier runbook brings the object",)
            )
        if wanted.amend:
            return replace(change, problems=("there is no such object, and this section creates none",))
        return None

    def _with_opinion(self, step: Step, wanted: Desired, live: Live | None, change: Change) -> Change:
        """The change, corrected by what the server answers to a dry run."""
        for _ in range(_PLAN_ATTEMPTS):
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
                change = change_of(step.id, wanted, live, compare(wanted, live))
            except ServerRefused as error:
                if wanted.independent:
                    return replace(change, refused=error.said)
                return replace(change, problems=(*change.problems, error.said))
        return replace(change, problems=(*change.problems, said))

    def _dry_run(self, wanted: Desired, live: Live | None, change: Change) -> Change:
        manager = self._section.field_manager
        manifest = applied_manifest(wanted, live, manager)
        kind = wanted.ref.kind
        try:
            answer = self._connection.apply(kind, manifest, field_manager=manager, dry_run=True)
        except Conflict as error:
            if live is None or not error.causes:
                raise
            change = take_overs(error.causes, change, live, self._parameters.take_over)
            if change.problems:
                return change
            answer = self._connection.apply(kind, manifest, field_manager=manager, force=True, dry_run=True)
        return admitted(change, wanted, live, answer.live)

    # --- changing ------------------------------------------------------------------------------------------------

    def apply(self, step_id: str) -> View:
        """Make the planned changes of one step; in verify and plan, say that nothing is changed."""
        return self._carried_out("applied", "apply", self._section.step(step_id), self._apply)

    def _apply(self, step: Step) -> View:
        self._after("plan", self._story.plan is not None)
        assert self._story.plan is not None
        planned = zip(self._objects(step), self._story.plan.of_step(step.id), strict=True)
        pending = [(wanted, change) for wanted, change in planned if change.operation is not Operation.UNCHANGED]
        objects = [(wanted, change) for wanted, change in pending if isinstance(wanted, Desired)]
        before = len(self._story.written)
        for wanted, change in pending:  # files and restarts one at a time, in their order
            if not isinstance(wanted, Desired):
                self._written(self._write_alone(wanted, change))
        done = batch.each(lambda one: self._write_object(*one), objects, _say, "written", self._written)
        if done.errors:
            raise _together(done.errors, len(objects))
        return display.applied(step, self._story.written[before:])

    def _written(self, entry: dict[str, Any] | None) -> None:
        if entry:
            self._story.written.append(entry)
            self._story.snapshot_is_old = True

    def _write_alone(self, wanted: DesiredFile | DesiredRestart, planned: Change) -> dict[str, Any] | None:
        if isinstance(wanted, DesiredFile):
            certificate_folder.write(wanted.path, wanted.content or b"")
            return _entry(planned)
        return self._restart(wanted, planned)

    def _restart(self, wanted: DesiredRestart, planned: Change) -> dict[str, Any] | None:
        """Evict one Pod, unless it is gone already, and wait until a new one is ready in its place."""
        pod = wanted.pod
        live = self._connection.get(pod.kind, pod.namespace, pod.name)
        if live is None or live["metadata"]["uid"] != wanted.uid:
            return None
        before = list(self._alike(live))
        audit_id = self._connection.evict(pod.namespace, pod.name)
        judge = {f"a new Pod for {pod.name}": lambda: readiness.replaced(self._alike(live), live, len(before))}
        wait.until(judge, self._parameters.timeout_s, _say)
        return {**_entry(planned), "audit_id": audit_id}

    def _alike(self, pod: Live) -> Iterator[Live]:
        """The Pods of the same workload."""
        selector = f"app={pod['metadata']['labels']['app']}"
        return self._connection.objects(POD, pod["metadata"]["namespace"], label_selector=selector)

    def _write_object(self, wanted: Desired, planned: Change) -> dict[str, Any]:
        """Write one object; returns what the record says of it."""
        ref = wanted.ref
        if planned.operation is Operation.CREATE:
            # nothing need be read first: the server refuses to create what another run has just created
            with contextlib.suppress(Conflict):
                return {**_entry(planned), "audit_id": self._server_side_apply(wanted, None, planned)}
        live = self._connection.get(ref.kind, ref.namespace, ref.name)
        difference = compare(wanted, live)
        if said := stale(change_of(planned.step, wanted, live, difference), planned):
            raise ChangedSincePlan(
                f"applying {ref}", "; ".join(said), "run the notebook again: it will plan what is there now"
            )
        audit_ids = []
        if live is None or difference.leaves:
            try:
                audit_ids.append(self._server_side_apply(wanted, live, planned))
            except Conflict as error:
                raise ChangedSincePlan(f"applying {ref}", error.said, "run the notebook again") from error
        if live is not None:
            audit_ids += [written.audit_id for written in self._connection.add_to_lists(wanted)]
        return {**_entry(planned), "audit_id": " ".join(audit_ids)}

    def _server_side_apply(self, wanted: Desired, live: Live | None, planned: Change) -> str:
        manager, kind = self._section.field_manager, wanted.ref.kind
        manifest = applied_manifest(wanted, live, manager)
        try:
            written = self._connection.apply(kind, manifest, field_manager=manager)
        except Conflict as error:
            permitted = {(path, owner.manager) for path, owner in planned.takes_over}
            if not error.causes or not permitted.issuperset(error.causes):
                raise
            written = self._connection.apply(kind, manifest, field_manager=manager, force=True)
        answered = admitted(planned, wanted, live, written.live)
        if answered.problems:
            said = "; ".join(answered.problems)
            raise ServerRefused(f"applying {wanted.ref}", said, "compare the operator's version", status=200)
        return written.audit_id

    # --- after a change ------------------------------------------------------------------------------------------

    def wait(self, step_id: str) -> View:
        """Wait until the cluster reports what the step brought; in verify, look once."""
        return self._carried_out("waited", "wait", self._section.step(step_id), self._wait, verify=True)

    def _wait(self, step: Step) -> View:
        awaited = () if self._section.inapplicable(self._situation) else step.awaited(self._situation)
        snapshot = self._situation.snapshot
        # what may not be read is told by its check; it must not look as if it were missing
        seen = [entry for entry in awaited if snapshot.of(entry.ref) or not snapshot.forbidden(entry.ref.kind)]
        states = {entry.ref: entry.judge(snapshot.of(entry.ref)) for entry in seen}
        looked = self._parameters.mode == "verify" or not self._story.snapshot_is_old
        if self._parameters.mode == "apply" and not (looked and all(state.done for state in states.values())):
            done = wait.until(
                {str(entry.ref): self._judge(entry) for entry in awaited}, self._parameters.timeout_s, _say
            )
            entries = [{"target": one.title, "ready": True, "said": f"after {one.seconds} s"} for one in done]
        else:
            entries = [
                {"target": str(ref), "ready": state.done, "said": state.message or "ready"}
                for ref, state in states.items()
            ]
        self._story.waited += entries
        return display.waited(step, entries)

    def _judge(self, entry: Awaited) -> Callable[[], State]:
        ref = entry.ref
        return lambda: entry.judge(self._connection.get(ref.kind, ref.namespace, ref.name))

    def prove(self, step_id: str) -> View:
        """Look at the effects of a step by an independent path; a failed one fails the run."""
        return self._carried_out("proved", "prove", self._section.step(step_id), self._prove, verify=True)

    def _prove(self, step: Step) -> View:
        if reason := self._section.inapplicable(self._situation):
            return display.note("proved", step.id, f"Nothing to prove: {reason}")
        missing = [
            change.target
            for change in (self._story.plan.of_step(step.id) if self._story.plan else ())
            if change.operation is Operation.CREATE
        ]
        if self._parameters.mode == "verify" and missing:
            said = f"{missing[0]} is missing"
            checked = [Checked(check.title, Proof.SKIPPED, "", said, "") for check in step.checks]
        else:
            checked = self._looked_at(step)
        self._story.checked += checked
        failed = [f"{check.title}: {check.observed}" for check in checked if check.proof is Proof.FAILED]
        if failed and self._parameters.mode == "apply":
            self._story.failure = f"prove-{step.id}: {'; '.join(failed)}"
        return display.proved(step, checked)

    def _looked_at(self, step: Step) -> list[Checked]:
        """Every check of a step; after a change they get a while to come true, since a proxy learns of it later."""
        if not self._story.snapshot_is_old:
            return [check.look(self._situation, self._connection) for check in step.checks]
        latest: dict[str, Checked] = {}

        def judge(check: Check) -> Callable[[], State]:
            def look() -> State:
                fresh = self._connection.survey(check.all_reads(self._parameters))
                snapshot = Snapshot({**self._situation.snapshot.found, **fresh.found}, fresh.refused)
                situation = replace(self._situation, snapshot=snapshot, files=self._files())
                found = check.look(situation, self._connection)
                latest[check.title] = found
                return State(found.proof is not Proof.FAILED, found.observed)

            return look

        deadline = min(_EFFECT_TIMEOUT_S, self._parameters.timeout_s)
        with contextlib.suppress(TimedOut):  # what is not proven by now is told by its own verdict
            wait.until({check.title: judge(check) for check in step.checks}, deadline, _say)
        return [latest[check.title] for check in step.checks]

    def _files(self) -> dict[str, bytes]:
        folder = self._parameters.certificates_dir
        return certificate_folder.read(folder, self._section.files) if folder else {}

    # --- the end -------------------------------------------------------------------------------------------------

    def outcome(self) -> View:
        """The one structured result of the run."""
        self._after("preconditions", self._story.findings is not None)
        return display.outcome(self._outcome())

    def _outcome(self) -> dict[str, Any]:
        story, parameters = self._story, self._parameters
        found, reason = conclude(
            parameters.mode,
            story.findings or (),
            changes=len(story.plan.pending) if story.plan else None,
            applied=len(story.written),
            unready=[f"{entry['target']}: {entry['said']}" for entry in story.waited if not entry["ready"]],
            checked=story.checked,
            elsewhere=self._section.waiting(self._situation),
            inapplicable=self._section.inapplicable(self._situation),
            failure=story.failure,
        )
        reason = "; ".join(filter(None, (reason, self._section.remark(self._situation))))
        finished = dt.datetime.now(dt.UTC)
        return {
            "section": self._section.number,
            "runbook": self._section.stem,
            "version": metadata.version("serverless-mesh-runbooks"),
            "mode": parameters.mode,
            "outcome": str(found),
            "reason": reason,
            "exit_code": EXIT_CODES[found],
            "target": self._identity,
            "parameters": parameters.model_dump(),
            "preconditions": [display.finding_dict(finding) for finding in story.findings or ()],
            "plan": display.plan_dict(story.plan) if story.plan else {},
            "applied": story.written,
            "waited": story.waited,
            "checks": [display.checked_dict(check) for check in story.checked],
            "requests": dict(sorted(self._connection.requests.items())),
            "started": self._started.isoformat(timespec="milliseconds"),
            "finished": finished.isoformat(timespec="milliseconds"),
        }

    def verdict(self) -> View:
        """The last word: nothing where the mode's wish came true, an error where it did not.

        Raises:
            NotDone: the run failed, is blocked, could not tell, or found drift in verify.
        """
        result = self._outcome()
        if result["exit_code"] == 1 or (result["exit_code"] == 2 and self._parameters.mode == "verify"):
            raise NotDone(
                f"runbook {self._section.number} in mode {self._parameters.mode}: {result['outcome']}", result["reason"]
            )
        return display.note("verdict", "", f"{result['outcome']}: {result['reason']}")

    # --- shared by the cells -------------------------------------------------------------------------------------

    @property
    def _blocked(self) -> bool:
        return bool(blocking(self._story.findings or ())) or (self._waits and self._parameters.mode == "apply")

    @property
    def _waits(self) -> bool:
        return any(finding.verdict is Verdict.WAITING for finding in self._story.findings or ())

    def _after(self, cell: str, has_run: bool) -> None:
        if not has_run:
            raise OutOfOrder("this cell", f"the cell {cell} has not been run in this kernel", "run it first")

    def _carried_out(
        self, kind: str, verb: str, step: Step, work: Callable[[Step], View], *, verify: bool = False
    ) -> View:
        """Run the work of a cell, unless the mode, a blocking precondition or an earlier failure forbids it."""
        self._after("plan", self._story.plan is not None)
        mode = self._parameters.mode
        if mode == "plan" or (mode == "verify" and not verify):
            return display.note(kind, step.id, f"Mode {mode}: nothing is changed here.")
        if self._blocked and mode == "apply":
            return display.note(kind, step.id, "Not run: a precondition is not met, see above.")
        if self._story.failure:
            return display.note(kind, step.id, f"Not run, because of {self._story.failure.partition(':')[0]}.")
        try:
            return work(step)
        except RunbookError as error:
            self._story.failure = f"{verb}-{step.id}: {error.lines()[0]}"
            return display.failure(kind, step.id, error.lines())


def _entry(planned: Change) -> dict[str, Any]:
    """What the record says of a write that has just been made."""
    return {
        "step": planned.step,
        "target": planned.target,
        "operation": str(planned.operation),
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
    }


def _together(errors: Sequence[RunbookError], count: int) -> RunbookError:
    """Several failures as one error that names each object."""
    if len(errors) == 1:
        return errors[0]
    said = few((error.lines()[0] for error in errors), "; ")
    return RunbookError(f"writing {count} objects, of which {len(errors)} failed", said, errors[0].remedy)


def _given_files(parameters: Parameters) -> dict[str, bytes]:
    """The files that parameters name; a missing chain_file is what the CA has not sent yet."""
    found = {}
    for name in _FILE_PARAMETERS:
        path = getattr(parameters, name, "")
        if path and path != "system":
            found[name] = certificate_folder.read_file(path)
    return found


def _shown_manifest(wanted: Desired) -> Manifest:
    """A manifest as it may be shown: no secret values."""
    if "data" not in wanted.manifest:
        return wanted.manifest
    data = {
        key: wanted.shown.get(f"data[{key}]", masked(wanted.ref, ("data", key), value))
        for key, value in wanted.manifest["data"].items()
    }
    return {**wanted.manifest, "data": data}


def _say(line: str) -> None:
    """A line of progress; in a notebook it becomes the cell's output, so that a record shows the wait."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
