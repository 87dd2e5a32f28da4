"""The only orchestration: plan, apply, wait and prove a section over a connection. A notebook's cells call this.

A cell that finds something wrong says so in its output and lets the notebook run on: the cells after it change
nothing any more, and the last two tell the outcome. So an executed notebook always holds the whole story.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any, ParamSpec, TypeVar

from runbooks import approval, batch, certificate_folder, cluster, display, patience, wait
from runbooks.approval import Consent
from runbooks.checks.check import Check
from runbooks.cluster import Connection
from runbooks.display import View
from runbooks.errors import (
    CertificateError,
    NotApproved,
    NotDone,
    OutOfOrder,
    RunbookError,
    TimedOut,
)
from runbooks.journal import Journal
from runbooks.kinds import NAMESPACE
from runbooks.manifests import Manifest
from runbooks.parameters import Parameters, check
from runbooks.plan import (
    Change,
    Desired,
    DesiredFile,
    Operation,
    Plan,
    masked,
    undone,
)
from runbooks.planning import Planning
from runbooks.presence import NOBODY, Person, Question
from runbooks.procedure import SECTIONS
from runbooks.procedure.needed_rights import rights_to_write
from runbooks.procedure.review import reviewed
from runbooks.procedure.section import Awaited, Section, Step, Wanted
from runbooks.readiness import State
from runbooks.rights import Right
from runbooks.situation import Situation
from runbooks.snapshot import leaving
from runbooks.target import identify
from runbooks.verdicts import EXIT_CODES, NEXT, Checked, Finding, Outcome, Proof, Verdict, blocking, conclude, few
from runbooks.wait import Waited
from runbooks.writing import Writing

P = ParamSpec("P")
R = TypeVar("R")

_MANY = 10  # of rights alike, from which on one question for all namespaces is worth it
_LAST_LOOK_S = 5.0
_STOOD_S = 1.0  # what an operator reverts it reverts as soon as it is told, which takes a fraction of that
_EFFECT_TIMEOUT_S = 60.0  # how long a change may take from the API server to the last proxy
_UNAPPROVED = "Not run: the plan is not approved. Nothing is changed here."
_LOOK = "look at the plan above, and approve what it shows"
_PLAN_AGAIN = "Run the cells from the preconditions on again, and approve what the plan then shows."
_FILE_PARAMETERS = ("key_file", "chain_file", "trust_anchor")


def open_runbook(section: str, given: Mapping[str, object], person: Person = NOBODY) -> Runbook:
    """Bind a runbook to its parameters and its target. Nothing has happened yet besides saying hello.

    Args:
        section: the documented number, for example ``"6.4.3"``.
        given: names and values.
        person: who may be asked.

    Raises:
        ParameterError: a parameter is unknown, missing, or not usable.
        ConnectionFailed: the cluster cannot be reached, or is not the one that the parameters name.
    """
    found = SECTIONS[section]
    parameters = check(found.model, given)
    patience_s = min(parameters.timeout_s, cluster.PATIENCE_S)
    connection = cluster.connect(parameters.kubeconfig, parameters.context, patience_s)
    connection.tell(_say)
    return Runbook(found, parameters, connection, identify(connection, parameters), person)


def _cell(call: Callable[P, R]) -> Callable[P, R]:
    """A call that a cell makes: where a person is there, what goes wrong in it is shown as they want to read it."""

    @functools.wraps(call)
    def called(*args: P.args, **keywords: P.kwargs) -> R:
        runbook = args[0]
        assert isinstance(runbook, Runbook)
        with runbook.person.cell():
            found = call(*args, **keywords)
        return runbook.marked(found) if isinstance(found, View) else found  # type: ignore[return-value]

    return called


@dataclass
class _Story:
    """One pass through the cells, from its preconditions on.

    Args:
        mode: verify, plan or apply; with a person there a pass is a plan until its first approved change.
        consent: what permits changes beyond what the parameters permit; it is of ``plan``.
        outdated: the cluster is not what the plan was made from, so another one has to be made from the start.
        made: the objects and files that this pass has written.
        waited: by step, since a cell may be run again.
        checked: likewise.
        run: the cells whose work was done, and has not been overtaken by a later write.
        undone: what of the writes was not there any more in the end; None until somebody has looked.
    """

    mode: str
    findings: tuple[Finding, ...] | None = None
    plan: Plan | None = None
    approval: dict[str, str] = field(default_factory=dict)
    consent: Consent | None = None
    outdated: bool = False
    made: set[str] = field(default_factory=set)
    waited: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    checked: dict[str, list[Checked]] = field(default_factory=dict)
    failure: str = ""
    snapshot_is_old: bool = False
    written_at: dt.datetime | None = None
    run: set[str] = field(default_factory=set)
    undone: tuple[str, ...] | None = None


class Runbook:
    """One section over one connection; its methods are what the notebook's cells call, in their order.

    Args:
        section: what to do.
        parameters: how.
        connection: where.
        identity: who answered, and who we are to it.
        person: who may be asked.
    """

    def __init__(
        self,
        section: Section,
        parameters: Parameters,
        connection: Connection,
        identity: Mapping[str, Any],
        person: Person = NOBODY,
    ) -> None:
        self._section = section
        self._given = parameters
        self._connection = connection
        self._identity = dict(identity)
        self.person = person
        self._started = dt.datetime.now(dt.UTC)
        self._situation: Situation[Parameters] = Situation(parameters, self._started)
        self._story = _Story(self._first_mode)
        self._written: list[dict[str, Any]] = []
        self._approvals: list[dict[str, str]] = []
        self._calls = 0
        self._noting = threading.Lock()
        self._journal = Journal.from_environment()

    @property
    def _first_mode(self) -> str:
        """With a person there nothing is changed until they have approved what they see."""
        return "plan" if self.person.attends and self._given.mode == "apply" else self._given.mode

    @property
    def _parameters(self) -> Parameters:
        """The parameters, with the mode of this pass."""
        return self._given.model_copy(update={"mode": self._story.mode})

    def marked(self, view: View) -> View:
        """A view that says of which run it is, since a notebook may hold cells of several."""
        return replace(view, data={**view.data, "run": self._started.isoformat(timespec="milliseconds")})

    # --- before anything is changed ------------------------------------------------------------------------------

    @property
    def target(self) -> View:
        """Which cluster answered, in which version, and who we are to it."""
        return display.target(self._section, self._identity)

    @_cell
    def preconditions(self) -> View:
        """Read what the section depends on, and judge each precondition.

        What is not met is reported and blocks every change; the cells run on.
        """
        self._calls += 1
        return display.preconditions(self._judged(self._first_mode))

    def _judged(self, mode: str) -> tuple[Finding, ...]:
        """A new story: what is there now, and how each precondition comes out."""
        self._story = _Story(mode)
        section, parameters = self._section, self._parameters
        situation = Situation(
            parameters,
            dt.datetime.now(dt.UTC),
            self._connection.survey(section.all_reads(parameters)),
            certificate_folder.read(parameters.certificates_dir, section.files) if parameters.certificates_dir else {},
            _given_files(parameters),
            sandbox=self._identity["sandbox"],
        )
        if more := section.reads_besides(situation):
            situation = replace(situation, snapshot=situation.snapshot.plus(self._connection.survey(more)))
        situation = replace(situation, denied=self._denied(self._asked(situation)))
        self._situation = replace(situation, prepared=section.prepared(situation))
        if not section.steps:
            self._story.plan = Plan(())
        self._story.findings = tuple(self._finding(need(self._situation)) for need in section.needs(parameters))
        return self._story.findings

    def _asked(self, situation: Situation[Parameters]) -> tuple[Right, ...]:
        """The rights to ask the server about: what is found decides which objects there are to write."""
        if self._section.asks:
            return self._section.asks(situation)
        return () if self._parameters.mode == "verify" else rights_to_write(self._section, situation)

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
        answers = batch.every(self._connection.may, single, _say, "rights asked for")
        return tuple(right for right, granted in zip(single, answers, strict=True) if not granted)

    def _finding(self, found: Finding) -> Finding:
        """A precondition that an earlier runbook of the same call will fulfil is waited for, not missing."""
        given = self._parameters
        if found.verdict is Verdict.NOT_MET and found.see in given.preceded_by and given.mode != "apply":
            return replace(found, verdict=Verdict.WAITING)
        return found

    @_cell
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
        differences = [self._section.differences(self._situation, of_version=only) for only in (False, True)]
        return display.desired(manifests, files, nothing, *differences)

    def _objects(self, step: Step) -> tuple[Wanted, ...]:
        """What a step wants; nothing where the section has nothing to do on this cluster."""
        return () if self._section.inapplicable(self._situation) else step.objects(self._situation)

    @_cell
    def plan(self) -> View:
        """Compare every object of the section with the cluster, and ask the server what it would say.

        In verify, and where a precondition blocks, the comparison is local and the server is not asked.
        """
        self._calls += 1
        self._after("preconditions", self._story.findings is not None and not self._story.outdated)
        self._story.mode, self._story.approval = self._first_mode, {}
        plan = self._planned()
        self._story.consent = None  # it was of the plan before, also where it came while this one was made
        return display.plan(plan, self._parameters.mode, self._approval(plan))

    def _planned(self) -> Plan:
        mode = self._story.mode
        planning = Planning(
            self._connection,
            self._section.field_manager,
            self._situation,
            asks=mode != "verify" and not self._blocked,
            waits=self._waits,
        )
        wanted = [(step.id, one) for step in self._section.steps for one in self._objects(step)]
        plan = reviewed(self._section, self._situation, planning.changes(wanted, _say))
        self._story.plan = plan
        if plan.problems:
            said = few(plan.problems, "; ")
            found = Finding("The plan can be applied", Verdict.NOT_MET, said, "each problem says what to do")
            self._story.findings = (*(self._story.findings or ()), found)
        if plan.refused:
            said = few(plan.refused, "; ")
            remedy = "settle it first, or go on: these will fail, and the others are made"
            found = Finding("The server accepts every change", Verdict.WARNING, said, remedy)
            self._story.findings = (*(self._story.findings or ()), found)
        return plan

    def _approval(self, plan: Plan) -> Finding | None:
        """Whether the plan is approved, where that is asked for; a plan without changes needs nobody's approval."""
        given = self._parameters
        if given.mode != "apply" or not plan.pending or not (given.require_approval or given.approve):
            return None
        found = approval.judge(
            plan,
            given.approve,
            by=given.approved_by,
            until=given.approve_until,
            found=approval.known(os.environ),
            now=dt.datetime.now(dt.UTC),
        )
        self._story.findings = (*(self._story.findings or ()), found)
        told = {"digest": plan.digest, "by": given.approved_by, "until": given.approve_until}
        self._story.approval = {"verdict": str(found.verdict), "said": found.said, **told}
        return found

    # --- approving -----------------------------------------------------------------------------------------------

    @_cell
    def approve(self, digest: str = "", by: str = "", name: str = "") -> View | None:
        """Ask for the approval of the plan above, or take it: the digest and a name stand for the button.

        An approval switches this kernel to ``apply``, for this plan and for ``approval_minutes``. The cells below make
        the changes when they are run; before the first one the cluster is looked at again.

        Args:
            digest: of the plan that is approved, as the cell above prints it; empty to be asked.
            by: who approves it.
            name: the name of the API server, which has to be given where ``production`` is set.

        Returns:
            What is to be said; nothing where a person is asked, who sees the question instead.

        Raises:
            NotApproved: what was given approves nothing.
        """
        self._calls += 1
        self._after("plan", self._story.plan is not None)
        plan, mode = self._story.plan, self._story.mode
        assert plan is not None
        if digest or by or name:
            return self._consent(digest, by, name)
        if reason := self._nothing_to_approve(plan):
            if self.person.attends and mode == "plan" and not (self._blocked or self._story.outdated):
                self._agreed(plan, "")  # to nothing; so the cells below prove what is there
            return display.note("approval", "", reason)
        if self._story.approval:
            return display.note("approval", "", f"The plan is approved: {self._story.approval['said']}.")
        if mode == "apply":
            return display.note("approval", "", "No approval is asked for (require_approval, approve).")
        if not self.person.attends:
            return display.unchanging("approval", "", mode)
        question = display.question(plan, self._host, self._given.approval_minutes)
        if not self.person.asks:
            return question
        self.person.ask(
            Question(
                question,
                f"Approve {display.counted(len(plan.pending), 'change')} on {self._host}",
                str(self._identity["user"]),
                self._host if self._given.production else "",
                lambda by, name: self._consent(plan.digest, by, name),
            )
        )
        return None

    def _nothing_to_approve(self, plan: Plan) -> str:
        if self._story.mode == "verify":
            return "Mode verify: nothing is changed, so there is nothing to approve."
        if self._blocked:
            return "Nothing can be approved: a precondition is not met, see above."
        if self._story.outdated:
            return f"Nothing can be approved: the cluster has changed since. {_PLAN_AGAIN}"
        if not plan.pending:
            return "Nothing to approve: everything is as wanted."
        return ""

    @property
    def _host(self) -> str:
        return self._connection.server.partition("://")[2].partition("/")[0]

    def _consent(self, digest: str, by: str, name: str) -> View:
        attempted, plan, given = "approving the plan", self._story.plan, self._given
        if plan is None or digest != plan.digest:
            now = f"the digest of the plan above is {plan.digest}" if plan else "another plan is being made"
            raise NotApproved(attempted, f"{now}, not {digest or 'given'}", _LOOK)
        if self._story.mode != "plan":
            raise NotApproved(attempted, f"mode {self._story.mode} takes none here", "run the cell plan again")
        if reason := self._nothing_to_approve(plan):
            raise NotApproved(attempted, reason, _LOOK)
        if not by.strip():
            raise NotApproved(attempted, "it does not say who approves it", "give a name; it is kept in the record")
        if given.production and name.strip() != self._host:
            said = f"{name.strip()!r} is not {self._host}" if name.strip() else "the name of the API server is missing"
            raise NotApproved(attempted, said, f"this cluster is in production: type {self._host}")
        check(type(given), given.model_dump() | {"mode": "apply"})  # what apply wants besides, a reason maybe
        return display.consented(self._agreed(plan, by.strip()), self._host, len(plan.pending))

    def _agreed(self, plan: Plan, by: str) -> Consent:
        now = dt.datetime.now(dt.UTC)
        until = now + dt.timedelta(minutes=self._given.approval_minutes)
        consent = Consent(tuple(display.plan_dict(plan)["changes"]), plan.digest, by, now, until)
        self._story.consent = consent
        return consent

    def _refused(self, verb: str, kind: str, step: Step) -> View | None:
        """Why a cell may change nothing now; nothing where it may.

        With a person there every change needs their consent, which has not ended, whatever the parameters say.
        """
        consent = self._story.consent
        if consent is None:
            if self.person.attends:
                return display.note(kind, step.id, _UNAPPROVED)
            return None
        if dt.datetime.now(dt.UTC) > consent.until:
            return display.note(kind, step.id, f"Not run: {consent.ended}. {_PLAN_AGAIN}")
        if self._story.mode == "apply":
            return None
        story, situation = self._story, self._situation
        try:
            amiss = self._looked_again(consent)
        except BaseException:  # an interrupt, too: nothing has happened, and nothing is permitted more than before
            self._story, self._situation = story, situation
            raise
        if not amiss:
            return None
        self._story, self._situation = story, situation
        lines = ["Nothing was changed: the cluster is not what was approved any more", *amiss, _PLAN_AGAIN]
        story.consent, story.outdated = None, True
        story.failure = f"{verb}-{step.id}: {'; '.join(lines[:-1])}"
        return display.failure(kind, step.id, lines)

    def _looked_again(self, consent: Consent) -> list[str]:
        """Begin to apply, with a story of this moment; or what keeps from it, where this is not the approved plan.

        What is left of the approved plan counts as approved.
        """
        self._judged("apply")
        now = dt.datetime.now(dt.UTC)
        found = consent.judge(self._planned(), now)
        if amiss := blocking((*(self._story.findings or ()), found)):
            return [f"{one.title}: {one.said}" for one in amiss]
        self._story.consent = consent
        if consent.by:
            times = {"given": consent.given, "until": consent.until}
            told = {name: one.isoformat(timespec="seconds") for name, one in times.items()}
            said = {"verdict": str(found.verdict), "said": found.said, "digest": consent.digest, "by": consent.by}
            self._story.approval = {**said, **told}
            self._approvals.append(self._story.approval)
        return []

    # --- changing ------------------------------------------------------------------------------------------------

    @_cell
    def apply(self, step_id: str) -> View:
        """Make the planned changes of one step; in verify and plan, say that nothing is changed."""
        return self._carried_out("applied", "apply", self._section.step(step_id), self._apply)

    def _apply(self, step: Step) -> View:
        assert self._story.plan is not None
        planned = zip(self._objects(step), self._story.plan.of_step(step.id), strict=True)
        due = [(wanted, self._due(wanted, change)) for wanted, change in planned]
        pending = [(wanted, change) for wanted, change in due if change.operation is not Operation.UNCHANGED]
        before = len(self._written)
        writing = Writing(
            self._connection, self._section.field_manager, self._situation, self._journal, self._note_written, _say
        )
        try:
            writing.carry_out(pending)
        finally:
            if len(self._written) > before:
                self._overtake(step)
        return display.applied(step, self._written[before:])

    def _overtake(self, written: Step) -> None:
        """What was waited for and proven of a step, and of those after it, holds no longer once it is written."""
        steps = [step.id for step in self._section.steps]
        for step_id in steps[steps.index(written.id) :]:
            self._story.waited.pop(step_id, None)
            self._story.checked.pop(step_id, None)
            self._story.run -= {f"wait-{step_id}", f"prove-{step_id}"}

    def _due(self, wanted: Wanted, change: Change) -> Change:
        """What is left of a planned change; a cell that is run again finds there what it has made."""
        if change.target not in self._story.made:
            return change
        done = isinstance(wanted, DesiredFile)  # an object is looked at again, whether all of it is there
        return replace(change, operation=Operation.UNCHANGED if done else Operation.UPDATE)

    def _note_written(self, entry: Mapping[str, Any]) -> None:
        with self._noting:  # objects of one step are written from several threads
            self._written.append(dict(entry))
            self._story.made.add(str(entry["target"]))
            self._story.snapshot_is_old = True
            self._story.written_at = dt.datetime.now(dt.UTC)

    # --- after a change ------------------------------------------------------------------------------------------

    @_cell
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
            judges = {str(entry.ref): self._judge(entry) for entry in awaited}
            done = self._until(judges, self._parameters.timeout_s)
            self._story.snapshot_is_old = True
            entries = [{"target": one.title, "ready": True, "said": f"after {one.seconds} s"} for one in done]
        else:
            entries = [
                {"target": str(ref), "ready": state.done, "said": state.message or "ready"}
                for ref, state in states.items()
            ]
        self._story.waited[step.id] = entries
        return display.waited(step, entries)

    def _until(self, judges: Mapping[str, Callable[[], State]], timeout_s: float) -> tuple[Waited, ...]:
        """Wait, watched by the person, or else told in lines, which become the cell's output."""
        if watch := self.person.watch(timeout_s):
            return wait.until(judges, timeout_s, lambda _: None, watch)
        return wait.until(judges, timeout_s, _say)

    def _judge(self, entry: Awaited) -> Callable[[], State]:
        ref = entry.ref
        return lambda: entry.judge(self._connection.get(ref.kind, ref.namespace, ref.name))

    @_cell
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
        self._story.checked[step.id] = checked
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
                snapshot = self._situation.snapshot.renewed(fresh)
                situation = replace(self._situation, snapshot=snapshot, files=self._files())
                found = check.look(situation, self._connection)
                if check.timed and found.proof is Proof.PROVEN and self._story.written_at:
                    took = (dt.datetime.now(dt.UTC) - self._story.written_at).total_seconds()
                    found = replace(found, observed=f"{found.observed}, {took:.1f} s after the last write")
                latest[check.title] = found
                return State(found.proof is not Proof.FAILED, found.observed)

            return look

        deadline = min(_EFFECT_TIMEOUT_S, self._parameters.timeout_s)
        with contextlib.suppress(TimedOut):  # what is not proven by now is told by its own verdict
            judges = {check.title: judge(check) for check in step.checks}
            self._until(judges, deadline)
        return [latest.get(check.title) or _unseen(check) for check in step.checks]

    def _files(self) -> dict[str, bytes]:
        folder = self._parameters.certificates_dir
        return certificate_folder.read(folder, self._section.files) if folder else {}

    # --- the end -------------------------------------------------------------------------------------------------

    @_cell
    def outcome(self) -> View:
        """The one structured result of the run."""
        self._after("preconditions", self._story.findings is not None)
        self._story.undone = None
        found, calls = self._outcome(), self._calls
        self.person.ended(found, lambda: self._calls == calls)
        return display.outcome(found)

    def _outcome(self) -> dict[str, Any]:
        story, parameters = self._story, self._parameters
        waited = [entry for entries in story.waited.values() for entry in entries]
        checked = [check for checks in story.checked.values() for check in checks]
        findings = (*(story.findings or ()), *self._unapproved())
        found, reason = conclude(
            parameters.mode,
            findings,
            changes=len(story.plan.pending) if story.plan else None,
            applied=len(self._written),
            unready=[f"{entry['target']}: {entry['said']}" for entry in waited if not entry["ready"]],
            checked=checked,
            elsewhere=self._section.waiting(self._situation),
            inapplicable=self._section.inapplicable(self._situation),
            failure="; ".join(filter(None, (story.failure, *self._undone()))),
            unrun=self._unrun(),
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
            "target": {**self._identity, "mode": parameters.mode},
            "parameters": parameters.model_dump(),
            "preconditions": [display.finding_dict(finding) for finding in findings],
            "plan": display.plan_dict(story.plan) if story.plan else {},
            "approval": story.approval,
            **({"approvals": self._approvals} if len(self._approvals) > 1 else {}),
            "applied": self._written,
            "waited": waited,
            "checks": [display.checked_dict(check) for check in checked],
            "requests": dict(sorted(self._connection.requests.items())),
            "started": self._started.isoformat(timespec="milliseconds"),
            "finished": finished.isoformat(timespec="milliseconds"),
        }

    def _undone(self) -> tuple[str, ...]:
        """What this pass has written, and an operator, admission or another hand has taken out again since."""
        story = self._story
        if story.undone is None:
            try:
                # what has failed already is not waited for much longer
                with patience.within(_LAST_LOOK_S if story.failure else self._given.timeout_s):
                    story.undone = tuple(self._looked_back())
            except RunbookError as error:
                said = f"whether what was written is still there could not be told: {error.lines()[0]}"
                story.undone = () if story.failure else (said,)
        return story.undone

    def _looked_back(self) -> Iterable[str]:
        if self._story.plan is None or not self._story.made:
            return
        pairs = [
            (wanted, change)
            for step in self._section.steps
            for wanted, change in zip(self._objects(step), self._story.plan.of_step(step.id), strict=True)
            if isinstance(wanted, Desired) and change.target in self._story.made
        ]
        if pairs and not self._story.failure:
            self._let_stand()
        kinds = {NAMESPACE, *(wanted.ref.kind for wanted, _ in pairs)}
        reads = [read for read in self._section.all_reads(self._parameters) if read.kind in kinds]
        now = self._connection.survey(reads)
        for wanted, change in pairs:
            namespace = now.get(NAMESPACE, "", wanted.ref.namespace)
            if (said := now.unreadable(wanted.ref.kind)) and now.of(wanted.ref) is None:
                yield f"{change.target} cannot be read any more: {said}"
            elif said := leaving(namespace):
                yield f"{change.target} was written, and goes with namespace {wanted.ref.namespace}: {said}"
            else:
                yield from undone(change, wanted, now.of(wanted.ref))

    def _let_stand(self) -> None:
        """Give whoever does not want the last write the time to undo it, where nothing has been waited for since."""
        if self._story.written_at is not None:
            since = (dt.datetime.now(dt.UTC) - self._story.written_at).total_seconds()
            time.sleep(min(max(_STOOD_S - since, 0), _STOOD_S))

    def _unapproved(self) -> list[Finding]:
        """Where apply was asked for, and the person who is taken to be there has not approved it."""
        pending = self._story.plan is not None and self._story.plan.pending
        if self._given.mode != "apply" or self._story.mode == "apply" or not pending:
            return []
        return [Finding(approval.TITLE, Verdict.NOT_MET, "nobody has approved it yet", _LOOK)]

    def _unrun(self) -> list[str]:
        """The cells that have not come to their end in this kernel although the outcome rests on them."""
        if self._parameters.mode == "plan" or self._section.inapplicable(self._situation):
            return []
        due = []
        for step in self._section.steps:
            due += [f"apply-{step.id}"] if self._parameters.mode == "apply" else []
            due += [f"wait-{step.id}"] if step.awaits else []
            due += [f"prove-{step.id}"] if step.checks else []
        return [cell for cell in due if cell not in self._story.run]

    @_cell
    def verdict(self) -> View:
        """The last word: nothing where the mode's wish came true, an error where it did not.

        Raises:
            NotDone: the run failed, is blocked, could not tell, or found drift in verify.
        """
        result = self._outcome()
        if result["exit_code"] == 1 or (result["exit_code"] == 2 and self._parameters.mode == "verify"):
            attempted = f"runbook {self._section.number} in mode {self._parameters.mode}: {result['outcome']}"
            raise NotDone(attempted, result["reason"], NEXT[Outcome(result["outcome"])])
        return display.note("verdict", "", f"{result['outcome']}: {result['reason']}")

    def state(self) -> tuple[Outcome, str, tuple[Finding, ...]]:
        """Where the section stands on the cluster, by its objects alone: neither waits nor proofs are looked at.

        Returns:
            What would come of a plan, why, and each precondition.
        """
        self.preconditions()
        needs = self._story.findings or ()
        self.plan()
        story = self._story
        inapplicable = self._section.inapplicable(self._situation)
        pending = len(story.plan.pending) if story.plan else None
        outcome, reason = conclude(
            "plan", needs, changes=pending, applied=0, unready=(), checked=(), inapplicable=inapplicable
        )
        return outcome, reason, needs

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
        self._calls += 1
        self._after("plan", self._story.plan is not None)
        cell = f"{verb}-{step.id}"
        if verb == "apply" and self._story.mode != "verify" and (refused := self._refused(verb, kind, step)):
            return refused
        mode, pending = self._story.mode, self._story.plan is not None and self._story.plan.pending
        if mode == "plan" and self.person.attends and pending:
            return display.note(kind, step.id, _UNAPPROVED)
        if mode == "plan" or (mode == "verify" and not verify):
            return display.unchanging(kind, step.id, mode)
        if self._blocked and mode == "apply":
            return display.note(kind, step.id, "Not run: a precondition is not met, see above.")
        failed = self._story.failure.partition(":")[0]
        if failed and failed != cell:
            return display.note(kind, step.id, f"Not run, because of {failed}.")
        self._story.run.discard(cell)
        self._story.failure = ""  # where it is this one it is tried again
        try:
            view = work(step)
        except RunbookError as error:
            self._story.failure = f"{cell}: {error.lines()[0]}"
            return display.failure(kind, step.id, error.lines(), error.see)
        self._story.run.add(cell)
        return view


def _unseen(check: Check) -> Checked:
    said = "the cluster could not be reached for as long as a proof may take"
    return Checked(check.title, Proof.UNKNOWN, "", said, "", "run the notebook again when it is back")


def _given_files(parameters: Parameters) -> dict[str, bytes | CertificateError]:
    """The files that parameters name, or why there is none, which a precondition then reports."""
    found: dict[str, bytes | CertificateError] = {}
    for name in _FILE_PARAMETERS:
        path = getattr(parameters, name, "")
        if not path or path == "system":
            continue
        try:
            content = certificate_folder.read_file(name, path)
        except CertificateError as error:
            found[name] = error
            continue
        if content is not None:
            found[name] = content
        elif not (name == "chain_file" and getattr(parameters, "certificate_source", "") == "request"):
            # a chain that was asked for is what the CA has not sent yet; everything else has to be there
            found[name] = certificate_folder.unreadable(name, path, "there is no such file")
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
