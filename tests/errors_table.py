"""Every error as a user meets it, with cause and remedy (``python -m tests.errors_table``).

Kept here are the headings alone. What an error says, why and what to do is read out of the source, and the cause that
all errors of a class have in common is the first paragraph of its docstring.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runbooks import errors
from runbooks.procedure import SECTIONS
from runbooks.record.verification import Found
from runbooks.verdicts import Checked, Finding
from runbooks.widgets import person
from runbooks_sandbox import supervisor
from runbooks_sandbox.binaries import BinariesUnavailable
from runbooks_sandbox.state import SandboxError, WrongCall
from tests.wordings import CLOSE, ERRORS, OPEN, Raised, Wording, is_hole, pending, raised, wordings

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"

_JUDGEMENTS = {Finding: "precondition", Checked: "check", Found: "while"}
# what ends the program or a cell without any words of its own, and what tells a programmer of a mistake
FOR_THE_PROGRAM = (SystemExit, AssertionError, AttributeError, person.Stopped, supervisor.Stopped)


@dataclass(frozen=True)
class Group:
    """Errors that a user meets at the same moment.

    Args:
        title: the heading.
        words: when they are met.
        kinds: what stands here, with their subclasses where these have no group of their own.
        inside: the modules whose own reasons stand in the words of these errors.
    """

    title: str
    words: str
    kinds: tuple[type, ...]
    inside: tuple[str, ...] = ()


GROUPS = (
    Group(
        "Parameters, files and calls",
        "Before the cluster is asked anything; nothing was changed.",
        (errors.UsageError,),
        ("runbooks.parameters", "runbooks.input_file"),
    ),
    Group("Keys and certificates", "What lies in files or in the Secret cannot serve.", (errors.CertificateError,)),
    Group(
        "Reaching the cluster",
        "*attempted* is the request that was made.",
        (errors.ConnectionFailed,),
        ("runbooks.cluster",),
    ),
    Group("Rights", "The API server knows the account, and refuses what it asks for.", (errors.Forbidden,)),
    Group(
        "What the server refused",
        "*attempted* is the request that was made, *message* what the server said to it.",
        (errors.ServerRefused, errors.RunbookError),
    ),
    Group(
        "Preconditions",
        "Judged before anything is changed, and by 6.4.1 for every section. Those that are not met, and those that "
        "could not be told, block every change; a warning blocks nothing.",
        (Finding,),
    ),
    Group(
        "Plan and approval",
        "Between the plan and the end of the run.",
        (errors.ChangedSincePlan, errors.NotApproved, errors.OutOfOrder, errors.NotDone),
    ),
    Group(
        "Waits",
        "What was applied is stored, and what it should bring about has not come. *reasons* is what the object itself "
        "says of that, for each that is waited for.",
        (errors.TimedOut,),
        ("runbooks.readiness",),
    ),
    Group(
        "Checks of effects",
        "In `prove-…`. One that failed, or that could not tell, fails the run; what is not proven is named and fails "
        "nothing.",
        (Checked,),
        ("runbooks.probes",),
    ),
    Group(
        "The end of a run",
        "What ended a run that did not come to its last cell; [engine.md](engine.md) has how each way to end is told.",
        (errors.GivenUp,),
        ("runbooks.engine",),
    ),
    Group("Records", "Of the archive, its signatures and its keys.", (errors.RecordError, Found)),
    Group(
        "The sandbox",
        "Of `runbooks sandbox`, on this machine.",
        (SandboxError, BinariesUnavailable),
        (
            "runbooks_sandbox.crds",
            "runbooks_sandbox.binaries",
            "runbooks_sandbox.certificates",
            "runbooks_sandbox.endpoints",
        ),
    ),
)


def group_of(kind: type) -> Group:
    """Where a class of errors stands.

    Raises:
        LookupError: it has no place on the page.
    """
    for one in kind.__mro__:
        for group in GROUPS:
            # the base of all would take in whatever nobody has thought of
            if one in group.kinds and (one is kind or one is not errors.RunbookError):
                return group
    raise LookupError(f"no group of docs/errors.md for {kind.__name__}")


def place_of(one: Wording) -> Group:
    """Where one stands; what is found of a plan is no precondition, although it blocks like one."""
    planned = one.kind is Finding and not one.module.startswith("runbooks.preconditions.")
    return group_of(errors.NotApproved if planned else one.kind)


def cause(kind: type) -> str:
    """The cause that all errors of a class have in common."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())


def _cell(text: str) -> str:
    for sign in "\\|*_<`":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split()).replace(OPEN, "*").replace(CLOSE, "*")


def _cells(texts: Iterable[str]) -> str:
    return "<br>".join(_cell(text) for text in texts)


def _remedy(texts: Iterable[str]) -> str:
    return "<br>".join("as that error says" if is_hole(text) else _cell(text) for text in texts)


def address(number: str) -> str:
    """Where docs/steps.md has a section, as GitHub names its heading."""
    heading = f"{number} {SECTIONS[number].title}".lower().replace(" ", "-")
    return "steps.md#" + "".join(letter for letter in heading if letter.isalnum() or letter == "-")


def _runbook(see: Iterable[str]) -> str:
    known = filter(None, see)
    return ", ".join(f"[{one}]({address(one)})" if one in SECTIONS else "the section's own" for one in known)


def _errors(kind: type, found: Iterable[Wording]) -> list[str]:
    # the command line ends like that on every wrong call of its own, too
    code = errors.UsageError.exit_code if kind is WrongCall else getattr(kind, "exit_code", 1)
    lines = [f"### {kind.__name__}", "", f"{cause(kind)} Exit code {code}.", ""]
    lines += ["| while | cause | what to do | runbook |", "|---|---|---|---|"]
    rows = [(_cells(w.title), _cells(w.said), _remedy(w.remedy), _runbook(w.see)) for w in found]
    return [*lines, *(f"| {' | '.join(row)} |" for row in sorted(set(rows))), ""]


def _judgements(found: Iterable[Wording], head: str) -> list[str]:
    """Judgements in a table; those that say the same stand in one row."""
    alike: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for one in found:
        row = (one.verdict or "failed", _cells(one.said), _remedy(one.remedy), _runbook(one.see))
        alike[row] += [title for title in one.title if title not in alike[row]]
    lines = [f"| {head} | verdict | cause | what to do | runbook |", "|---|---|---|---|---|"]
    return [*lines, *sorted(f"| {_cells(titles)} | {' | '.join(row)} |" for row, titles in alike.items()), ""]


def _inside(group: Group, found: Iterable[Raised]) -> list[str]:
    texts = {text for one in found for text in one.said if one.module in group.inside}
    said = sorted(map(_cell, texts | set(pending() if "runbooks.readiness" in group.inside else ())))
    if not said:
        return []
    return [
        "What can stand in the words of these; what to do is said by the error around it:",
        "",
        *(f"- {text}" for text in said),
        "",
    ]


def _group(group: Group, found: Iterable[Wording]) -> list[str]:
    lines = [f"## {group.title}", "", group.words, ""]
    kinds: defaultdict[type, list[Wording]] = defaultdict(list)
    for one in found:
        kinds[one.kind].append(one)
    for kind, own in sorted(kinds.items(), key=lambda item: (item[0] not in _JUDGEMENTS, item[0].__name__)):
        if kind in _JUDGEMENTS:
            lines += _judgements(own, _JUDGEMENTS[kind])
        else:
            lines += _errors(kind, own)
    return lines


def inner() -> list[Raised]:
    """What the library raises for itself, and takes up into the words of an error that a user meets."""
    return [one for one in raised() if one.kind and one.said and not issubclass(one.kind, (*ERRORS, *FOR_THE_PROGRAM))]


def page() -> str:
    """All of them, by the moment at which they are met."""
    placed: defaultdict[str, list[Wording]] = defaultdict(list)
    for one in wordings():
        placed[place_of(one).title].append(one)
    words = (
        "Every error says what was attempted, what was said to it, and what to do. What stands in italics is put in at "
        "run time; *reason* is what the system, the server or another error said. The column *runbook* names the one "
        "that mends it, where one does."
    )
    lines = ["# Errors", "", "Made from the source of `runbooks` and `runbooks_sandbox` by `make docs`.", "", words, ""]
    reasons = inner()
    for group in GROUPS:
        lines += _group(group, placed[group.title]) + _inside(group, reasons)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
