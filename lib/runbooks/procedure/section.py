"""The words in which a section is described: sections, steps, errata."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from runbooks.checks.check import Check
from runbooks.errors import CertificateError
from runbooks.kinds import Kind, ObjectRef
from runbooks.parameters import Parameters
from runbooks.plan import Change, Desired, DesiredFile, DesiredRestart, SharedList, show_path
from runbooks.preconditions import Need
from runbooks.readiness import State
from runbooks.rights import Right
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.versions import EVERY_VERSION, Range, Version

Wanted = Desired | DesiredFile | DesiredRestart


class Basis(StrEnum):
    """Where the better form of an erratum is written down."""

    DOCUMENTED = "documented elsewhere on the page"
    NEWER = "documented in newer versions"
    STANDARD = "a standard outside the product"
    UNDOCUMENTED = "not documented"


@dataclass(frozen=True)
class Erratum:
    """Where the documented text is wrong, stale or contradicts itself, and what the runbook does instead.

    Args:
        said: what the text says.
        done: what the runbook does.
        reason: why.
        versions: the versions of OpenShift Serverless that it holds for.
        basis: where the better form is written down; ``strict_documentation`` turns the undocumented ones off.
        documented: the version from whose documentation on it is written down, where that is the basis.
        kept: the runbook does as the page has it, and newer documentation is what differs.
    """

    said: str
    done: str
    reason: str
    versions: Range
    basis: Basis
    documented: Version | None = None
    kept: bool = False

    def in_force(self, situation: Situation[Any]) -> bool:
        """Whether the runbook does the better form on this cluster."""
        return self.holds(situation) and not self._turned_off(situation)

    def holds(self, situation: Situation[Any]) -> bool:
        """Whether it holds for the version that was found."""
        return situation.profile.serverless in self.versions

    def _turned_off(self, situation: Situation[Any]) -> bool:
        return situation.parameters.strict_documentation and self.basis is Basis.UNDOCUMENTED

    @property
    def source(self) -> str:
        """Where the better form is written down, and from which version on."""
        return f"{self.basis}, from {self.documented.line} on" if self.documented else str(self.basis)

    @property
    def of_version(self) -> bool:
        """Whether it depends on the version."""
        return self.versions != EVERY_VERSION

    def line(self, situation: Situation[Any]) -> str:
        """One line: what the page says, what is done, and why."""
        head, done = "differs from the page", self.done
        if self._turned_off(situation):
            head, done = "as on the page, since strict_documentation is true", f"kept, in place of {self.done}"
        elif self.kept:
            head = "as on the page, though newer documentation differs"
        why = f"{self.versions}: {self.reason}" if self.of_version else self.reason
        return f"{head}: {self.said} → {done} ({why}; {self.source})"


def of_kind(changes: Iterable[Change], kind: Kind) -> tuple[Change, ...]:
    """The changes of objects of one kind."""
    return tuple(change for change in changes if change.identity[:2] == (kind.api_version, kind.name))


def added(changes: Iterable[Change], shared: SharedList) -> tuple[Any, ...]:
    """The entries that changes add to a shared list."""
    path = f"{show_path(shared.path)}[+]"
    return tuple(item.new for change in changes for item in change.fields if item.path == path)


@dataclass(frozen=True)
class Awaited:
    """An object that the cluster must report as ready before the next step."""

    ref: ObjectRef
    judge: Callable[[Live | None], State]


@dataclass(frozen=True)
class Step:
    """One documented step, or a few that make sense only together.

    Args:
        id: as the notebook's cells name it: ``apply-<id>``, ``wait-<id>``, ``prove-<id>``.
        title: what it does.
        title_ja: the documented step's own words.
        replaces: the commands that it stands for.
        objects: what it leaves behind; those of one step depend on no order among themselves, files aside.
        awaits: what must be ready before the next step.
        checks: the effects that prove it.
        rights: what it needs besides the rights to read and write its objects.
        consequences: what follows, in sentences, given the changes that are really made: which Pods are made anew,
            which traffic is cut meanwhile, what new clients can reach, and what stays as it is.
    """

    id: str
    title: str
    title_ja: str
    replaces: tuple[str, ...]
    objects: Callable[[Situation[Any]], tuple[Wanted, ...]]
    awaits: Callable[[Situation[Any]], tuple[Awaited, ...]] | None = None
    checks: tuple[Check, ...] = ()
    rights: Callable[[Any], tuple[Right, ...]] = lambda _: ()
    consequences: Callable[[Situation[Any], tuple[Change, ...]], tuple[str, ...]] = lambda _, __: ()

    def awaited(self, situation: Situation[Any]) -> tuple[Awaited, ...]:
        """The objects that must be ready in this situation."""
        return self.awaits(situation) if self.awaits else ()


@dataclass(frozen=True)
class Section:
    """One documented section, which is one runbook.

    Args:
        number: as documented.
        stem: the notebook's file name without its ending.
        title: what it does.
        heading_ja: the documented heading.
        changes: what it changes, in one sentence.
        model: its parameters.
        path: the ingress that it is for, or both.
        reads: what it reads of the cluster besides what its steps need.
        needs: its preconditions, given the parameters.
        steps: in an order that works.
        errata: where it differs from the text, and why.
        files: the certificate files that it looks at.
        asks: the rights that it asks the server about; by default those that its steps need, unless it only verifies.
        prepare: what it makes in memory before the plan.
        waiting: what must happen elsewhere, given what was prepared.
        inapplicable: why there is nothing to do on this cluster; empty where there is.
        reads_besides: what it reads besides, given what was found.
        rights: what verify needs besides one list for each of its reads.
        remark: why nothing is written on this cluster although the effects are proven; empty where that is not so.
    """

    number: str
    stem: str
    title: str
    heading_ja: str
    changes: str
    model: type[Parameters]
    path: Literal["both", "istio", "kourier"]
    reads: Callable[[Any], tuple[Read, ...]]
    needs: Callable[[Any], tuple[Need, ...]]
    steps: tuple[Step, ...]
    errata: tuple[Erratum, ...] = ()
    files: tuple[str, ...] = ()
    asks: Callable[[Situation[Any]], tuple[Right, ...]] | None = None
    prepare: Callable[[Situation[Any]], Any] = lambda _: None
    waiting: Callable[[Situation[Any]], str] = lambda _: ""
    inapplicable: Callable[[Situation[Any]], str] = lambda _: ""
    reads_besides: Callable[[Situation[Any]], tuple[Read, ...]] = lambda _: ()
    rights: Callable[[Any], tuple[Right, ...]] = lambda _: ()
    remark: Callable[[Situation[Any]], str] = lambda _: ""

    def prepared(self, situation: Situation[Any]) -> Any:
        """What the section makes in memory, or the reason why it cannot, which a precondition then reports."""
        try:
            return self.prepare(situation)
        except CertificateError as error:
            return error

    def differences(self, situation: Situation[Any], *, of_version: bool = False) -> tuple[str, ...]:
        """Where it differs from the page on this cluster, one line each, with the reason.

        Args:
            situation: what was found.
            of_version: only what the version decides.
        """
        found = (item for item in self.errata if item.holds(situation))
        return tuple(item.line(situation) for item in found if item.of_version or not of_version)

    @property
    def field_manager(self) -> str:
        """The name under which its objects are applied; one for each section, so that none undoes another's work."""
        return f"runbooks-{self.number}"

    def step(self, step_id: str) -> Step:
        """The step of an id.

        Raises:
            KeyError: there is none; the notebook and this file disagree.
        """
        return {step.id: step for step in self.steps}[step_id]

    def all_reads(self, parameters: Parameters) -> tuple[Read, ...]:
        """Every list request of the section: its own, its objects', and its checks'."""
        reads = list(self.reads(parameters))
        for step in self.steps:
            for check in step.checks:
                reads += check.all_reads(parameters)
        return tuple(dict.fromkeys(reads))
