"""How results look: each as one structured value with a text twin and an HTML twin, pure.

The structured value is what the command line, a record and the next program read; the twins are what a person reads,
in a terminal, in JupyterLab or on paper, also where nothing of this project is installed. All words that a user
meets outside of error messages are made here, in ``procedure`` and in ``preconditions``.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import yaml

from runbooks.approval import Consent
from runbooks.keeper import MIME
from runbooks.ownership import Owner
from runbooks.plan import Change, FieldChange, Operation, Plan, Waits
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Section, Step
from runbooks.verdicts import Checked, Finding, Proof, Verdict, few
from runbooks.wait import Look

_SIGNS = {
    Verdict.MET: "✓",
    Verdict.WARNING: "!",
    Verdict.WAITING: "…",
    Verdict.COMES: "…",
    Verdict.NOT_MET: "✗",
    Verdict.UNKNOWN: "?",
    Proof.PROVEN: "✓",
    Proof.FAILED: "✗",
    Proof.UNKNOWN: "?",
    Proof.UNPROVEN: "–",
    Proof.RESTART: "↻",
    Proof.SKIPPED: "–",
    Operation.CREATE: "+",
    Operation.UPDATE: "~",
    Operation.RESTART: "↻",
    Operation.UNCHANGED: "=",
}
_ADDED = "[+]"  # how the path of an addition to a list ends
_LONGEST_VALUE = 200
_MANY = 30  # from which on objects that differ in their namespace alone are shown as one
_BRIEF = 10


@dataclass(frozen=True)
class View:
    """One result as a notebook's cell shows it.

    Args:
        kind: what it is: target, preconditions, desired, plan, applied, waited, proved, outcome.
        data: the structured value, JSON only.
        text: what a terminal shows.
        html: what a browser shows.
        brief: what a terminal shows of it while the run goes on: a line, and one more for each thing amiss.
    """

    kind: str
    data: Mapping[str, Any]
    text: str
    html: str
    brief: tuple[str, ...]

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        """What IPython stores as the cell's output (its documented hook)."""
        structured = {"view": self.kind, "brief": list(self.brief), **self.data}
        html = f'<div class="mathjax_ignore">{self.html}</div>'  # a $ is a variable here, and no mathematics
        return {MIME: structured, "text/html": html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text


def _table_text(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    return "\n".join(
        indent + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def _table_html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    left = ' style="text-align:left;vertical-align:top"'
    top = "".join(f"<th{left}>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td{left}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, Mapping) and value:
        return ", ".join(f"{name} {_value(part)}" for name, part in value.items())
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _titled(title: str, body: str) -> str:
    return f"<p><b>{escape(title)}</b></p>{body}"


def counted(count: int, words: str) -> str:
    """``1 object``, ``2 objects``; empty for none."""
    return f"{count} {words}" + ("s" if count != 1 else "") if count else ""


def _tally(values: Iterable[Any]) -> str:
    """How many of each, for example ``5 met, 1 warning``."""
    return ", ".join(f"{count} {value}" for value, count in Counter(values).items())


def note(kind: str, step: str, text: str) -> View:
    """A sentence in place of a result, where there is nothing to do or nothing may be done."""
    return View(kind, {"step": step, "note": text}, text, f"<p>{escape(text)}</p>", (text,))


def unchanging(kind: str, step: str, mode: str) -> View:
    """What a cell says that changes or approves, in a mode in which nothing is changed; a terminal is spared of it."""
    return replace(note(kind, step, f"Mode {mode}: nothing is changed here."), brief=())


def target(section: Section, data: Mapping[str, Any]) -> View:
    """Which cluster, as whom, in which mode; shown before anything else happens."""
    rows = [(name.replace("_", " "), _value(value)) for name, value in data.items() if value not in ("", {}, None)]
    title = f"Runbook {section.number}: {section.title}"
    html = _table_html(("target", ""), [(escape(name), escape(value)) for name, value in rows])
    brief = f"{data['server']}, Kubernetes {data['kubernetes']}, as {data['user']}"
    return View("target", dict(data), f"{title}\n{_table_text(rows, '  ')}", _titled(title, html), (brief,))


def overview(
    environment: str,
    folder: Path,
    rows: Sequence[tuple[Section, str, str, Sequence[Finding]]],
    others: Sequence[str],
) -> View:
    """The runbooks of an environment: what each changes and needs, and where it stands on the cluster.

    Args:
        environment: its name.
        folder: where its files lie.
        rows: section, state in a word or two, the reason, and its preconditions.
        others: the environments that lie beside it.
    """
    foot = f"Others beside it: {', '.join(others)}." if others else ""
    table = _table_text([(one.stem, state, said, f"changes {one.changes}") for one, state, said, _ in rows])
    text = "\n".join(filter(None, (f"Environment {environment} ({folder})", table, foot)))
    cells = [
        (
            f'<a href="{escape(one.stem)}.ipynb">{escape(f"{one.number} {one.title}")}</a><br>{escape(one.heading_ja)}',
            escape(one.changes),
            f"<b>{escape(state)}</b><br>{escape(said)}{_needs(needs)}",
        )
        for one, state, said, needs in rows
    ]
    html = f"<p><b>Environment {escape(environment)}</b></p>"
    html += _table_html(("runbook", "changes", "where it stands"), cells) + (f"<p>{escape(foot)}</p>" if foot else "")
    data = {"environment": environment, "runbooks": [[one.number, state, said] for one, state, said, _ in rows]}
    return View("overview", data, text, html, tuple(f"{one.number} {state}" for one, state, _, _ in rows))


def _needs(findings: Sequence[Finding]) -> str:
    """Preconditions as a line that opens."""
    if not findings:
        return ""
    listed = [f"{_SIGNS[one.verdict]} {one.title}: {one.said}{_remedy(one)}" for one in findings]
    items = "".join(f"<li>{escape(line)}</li>" for line in listed)
    return f"<details><summary>needs: {_tally(one.verdict for one in findings)}</summary><ul>{items}</ul></details>"


def values(section: Section, given: Mapping[str, Any], rest: Mapping[str, Any], wrong: Sequence[str]) -> View:
    """The values in force: those that are set, what is wrong with them, and, folded, those at their defaults."""
    title = f"Values in force for runbook {section.number}"
    rows = [(name, _value(value)) for name, value in given.items()] or [("(none is set)", "")]
    left = [(name, _value(value)) for name, value in rest.items()]
    amiss = [f"✗ {said}" for said in wrong]
    text = "\n".join([title, _table_text(rows, "  "), f"  and {len(left)} at their defaults", *amiss])
    html = _table_html(("parameter", "value"), [tuple(map(escape, row)) for row in rows])
    defaults = _table_html(("parameter", "default"), [tuple(map(escape, row)) for row in left])
    html += f"<details><summary>{len(left)} at their defaults</summary>{defaults}</details>"
    html += "".join(f"<p>{escape(said)}</p>" for said in amiss)
    # a name that is no parameter may be bound to anything: it is told, and has to be shown for that
    everything = json.loads(json.dumps({**given, **rest}, default=repr))
    data = {"values": everything, "given": list(given), "wrong": list(wrong)}
    return View("values", data, text, _titled(title, html), (f"{len(given)} set, {len(left)} at defaults", *amiss))


def finding_dict(finding: Finding) -> dict[str, str]:
    """A finding as JSON."""
    return {
        "title": finding.title,
        "verdict": str(finding.verdict),
        "said": finding.said,
        "remedy": finding.remedy,
        "see": finding.see,
        "section": finding.section,
    }


def preconditions(findings: Sequence[Finding]) -> View:
    """Every precondition and how it came out; one that several sections share stands there once, with all of them."""
    rows, html, brief = [], [], []
    for found, sections in _shared(findings):
        verdict, asked = f"{_SIGNS[found.verdict]} {found.verdict}", ", ".join(sections)
        remedy = "" if found.verdict is Verdict.MET else _remedy(found).removeprefix(". ")
        rows.append((verdict, asked, found.title, found.said))
        rows += [("", "", "", remedy)] if remedy else []
        said = escape(found.said) + (f"<br>{escape(remedy)}" if remedy else "") + _link(found.see)
        html.append((escape(verdict), escape(asked), escape(found.title), said))
        if found.verdict not in (Verdict.MET, Verdict.COMES):
            brief.append(f"{_SIGNS[found.verdict]} {found.title}: {found.said}{_remedy(found)}")
    head = _tally(found.verdict for found, _ in _shared(findings))
    data = {"findings": [finding_dict(found) for found in findings]}
    names = ("", "section", "precondition", "found")
    columns = range(4) if any(found.section for found in findings) else (0, 2, 3)
    text = _table_text([[row[column] for column in columns] for row in rows])
    page = _table_html([names[column] for column in columns], [[row[column] for column in columns] for row in html])
    return View("preconditions", data, text, page, (head, *brief))


def _link(see: str) -> str:
    """The way to the runbook of a section; empty where there is none to go to."""
    section = SECTIONS.get(see)
    return f'<br><a href="{section.stem}.ipynb">Open {section.stem}</a>' if section else ""


def _shared(findings: Iterable[Finding]) -> list[tuple[Finding, list[str]]]:
    """Findings that are alike but for the section that asks, with those sections."""
    found: dict[Finding, list[str]] = {}
    for finding in findings:
        found.setdefault(replace(finding, section=""), []).extend(filter(None, [finding.section]))
    return list(found.items())


def _remedy(found: Finding) -> str:
    see = f" (runbook {found.see})" if found.see else ""
    return f". What to do: {found.remedy}{see}" if found.remedy else see


def desired(
    manifests: Sequence[Mapping[str, Any]],
    files: Sequence[tuple[str, str]],
    inapplicable: str = "",
    differences: Sequence[str] = (),
    of_version: Sequence[str] = (),
) -> View:
    """The objects as they will be sent, and where they differ from the documented text.

    Args:
        manifests: the objects.
        files: the files, and what becomes of each.
        inapplicable: why there is nothing to do, or empty.
        differences: where that differs from the page, one line each.
        of_version: those among them that the version decides; a terminal shows them too.
    """
    documents = _documents(manifests) if manifests else ""
    lines = [f"# file {path}: {what}" for path, what in files]
    text = "\n".join([*lines, documents.rstrip()])
    noted = "".join(f"\n# {line}" for line in differences)
    listed = "".join(f"<li>{escape(line)}</li>" for line in differences)
    html = f"<pre>{escape(text)}</pre>" + (f"<p>Beside the page:</p><ul>{listed}</ul>" if listed else "")
    head = f"Nothing to do: {inapplicable}." if inapplicable else "Nothing has been sent yet."
    counts = (counted(len(manifests), "object"), counted(len(files), "file"))
    brief = " and ".join(filter(None, counts)) or inapplicable or "nothing"
    data = {"manifests": list(manifests), "differs": list(differences)}
    return View("desired", data, f"{head}\n{text}{noted}", _titled(head, html), (brief, *of_version))


def _documents(manifests: Sequence[Mapping[str, Any]]) -> str:
    """The objects as YAML; of many that differ in their namespace alone one, and where the others lie."""
    if len(manifests) <= _MANY:
        return str(yaml.safe_dump_all(manifests, sort_keys=False, allow_unicode=True, width=110))
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for manifest in manifests:
        metadata = {key: value for key, value in manifest["metadata"].items() if key != "namespace"}
        alike.setdefault(json.dumps({**manifest, "metadata": metadata}), []).append(manifest)
    found = []
    for first, *others in alike.values():
        text = str(yaml.safe_dump(first, sort_keys=False, allow_unicode=True, width=110))
        where = few(other["metadata"]["namespace"] for other in others)
        found.append(f"{text}# and the same in {len(others):,} more namespaces: {where}\n" if others else text)
    return "---\n".join(found)


def change_dict(change: Change) -> dict[str, Any]:
    """A change as JSON."""
    return {
        "step": change.step,
        "target": change.target,
        "identity": list(change.identity),
        "operation": str(change.operation),
        "fields": [_field_dict(item) for item in change.fields],
        "takes_over": [
            {"path": path, "manager": owner.manager, "since": owner.since} for path, owner in change.takes_over
        ],
        "managed_by": [
            {"manager": owner.manager, "operation": owner.operation, "since": owner.since}
            for owner in change.managed_by
        ],
        "notes": list(change.notes),
        "problems": list(change.problems),
        **({"waits": _waits_dict(change.waits)} if change.waits else {}),
        **({"refused": change.refused} if change.refused else {}),
        **({"unread": change.unread} if change.unread else {}),
    }


def _field_dict(item: FieldChange) -> dict[str, Any]:
    """A field's change as JSON; of a secret, numbers that equal values share."""
    old, new = item.numbers
    return {
        "path": item.path,
        "old": item.old,
        "new": item.new,
        "set_by": [{"manager": owner.manager, "since": owner.since} for owner in item.owners],
        **({"secret": {"old": old, "new": new}} if old or new else {}),
    }


def _waits_dict(waits: Waits) -> dict[str, Any]:
    return {"objects": list(waits.objects), "step": waits.step, "behind": list(waits.behind)}


# --- the plan ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """A field as one line of a review: where, what it is now and will be, and who set it."""

    path: str
    old: str
    new: str
    by: str = ""

    def __str__(self) -> str:
        change = f"{self.old} → {self.new}" if self.old else self.new
        return f"{self.path}: {change}" + (f"  ({self.by})" if self.by else "")


def _field_lines(change: Change, *, times: bool) -> list[_Line]:
    """Every field that changes; what a list gets is an addition, and what a new object gets has no old value."""
    lists: dict[str, list[FieldChange]] = {}
    for item in change.fields:
        if item.path.endswith(_ADDED):
            lists.setdefault(item.path, []).append(item)
    lines = []
    for item in change.fields:
        if item.path in lists:
            lines += _addition_lines(lists.pop(item.path), times=times)
        elif not item.path.endswith(_ADDED):
            old = "" if item.old is None and change.operation is Operation.CREATE else _numbered(item, 0)
            lines.append(_Line(item.path, old, _numbered(item, 1), _set_by("set", item.owners, times=times)))
    return lines


def _addition_lines(items: Sequence[FieldChange], *, times: bool) -> list[_Line]:
    """What one list gets: short entries in one line, others in a line each, and of many the first ones."""
    path, by = items[0].path.removesuffix(_ADDED), _set_by("list last set", items[0].owners, times=times)
    if len(items) > _BRIEF:
        return [_Line(path, "", f"+ {len(items):,} entries: {few(_value(item.new) for item in items)}", by)]
    if any(isinstance(item.new, Mapping) for item in items):
        return [_Line(path, "", f"+ {_value(item.new)}", by) for item in items]
    return [_Line(path, "", ", ".join(f"+ {_value(item.new)}" for item in items), by)]


def _numbered(item: FieldChange, which: int) -> str:
    """The old (0) or new (1) value; a secret with the number that equal ones share."""
    number = item.numbers[which]
    return _value((item.old, item.new)[which]) + (f" (#{number})" if number else "")


def _owner(owner: Owner, *, times: bool) -> str:
    return f"{owner.manager} since {owner.since}" if times else owner.manager


def _set_by(verb: str, owners: Iterable[Owner], *, times: bool) -> str:
    by = ", ".join(_owner(owner, times=times) for owner in owners)
    return f"{verb} by {by}" if by else ""


def _managed_by(change: Change, *, times: bool) -> str:
    by = few(
        f"{owner.manager} (last {owner.since})" if times and owner.since else owner.manager
        for owner in change.managed_by
    )
    return f"also managed by {by}" if by else ""


def _waited_for(change: Change, *, names: bool = False) -> str:
    """What waits on a change: in short, or with every name."""
    waits = change.waits
    if waits is None:
        return ""
    what = "" if waits.objects == (change.target,) else f"{', '.join(waits.objects)}: "
    behind = list(waits.behind) or ["the end"]
    if len(behind) > 2 and not names:
        behind = [behind[0], f"{len(behind) - 1} later steps"]
    verb = "wait" if len(behind) > 1 else "waits"
    return f"{what}{', '.join(behind) if names else ' and '.join(behind)} {verb} on it"


def _remarks(change: Change, *, times: bool = True) -> list[str]:
    """What a reader should know of an object besides its fields, and what is wrong with it."""
    lines = [
        f"takes {path} over from {owner.manager}" + (f" (since {owner.since})" if times else "")
        for path, owner in change.takes_over
    ]
    return lines + [f"note: {text}" for text in change.notes]


def _amiss(change: Change) -> list[str]:
    lines = [f"PROBLEM: {text}" for text in change.problems]
    return lines + ([f"REFUSED: {change.refused}"] if change.refused else [])


@dataclass(frozen=True)
class _Alike:
    """One object of a plan, or many that differ in their namespace alone."""

    changes: tuple[Change, ...]

    @property
    def first(self) -> Change:
        return self.changes[0]

    @property
    def times(self) -> bool:
        """Whether times are shown: those of many objects are not alike."""
        return len(self.changes) == 1

    @property
    def target(self) -> str:
        if len(self.changes) == 1:
            return self.first.target
        *_, namespace, name = self.first.identity
        return f"{self.first.target.replace(f'{namespace}/{name}', name)} in {len(self.changes):,} namespaces"

    @property
    def namespaces(self) -> list[str]:
        return [change.identity[2] for change in self.changes] if len(self.changes) > 1 else []

    @property
    def head(self) -> str:
        """The object in one line: operation, which one, what waits on it, who else manages it."""
        change = self.first
        told = (_waited_for(change), _managed_by(change, times=self.times))
        operation = f"{_SIGNS[change.operation]} {change.operation}"
        return "; ".join(filter(None, (f"{operation}  {self.target}  [{change.step}]", *told)))

    def lines(self) -> list[str]:
        """Its fields and remarks, and where the others are."""
        fields = [str(line) for line in _field_lines(self.first, times=self.times)]
        where = [f"in {few(self.namespaces)}"] if self.namespaces else []
        return [*fields, *_remarks(self.first, times=self.times), *_amiss(self.first), *where]


def _alike(changes: Sequence[Change]) -> list[_Alike]:
    """The changes one by one; where they are many, those together that differ in their namespace alone."""
    found: dict[tuple[Any, ...], list[Change]] = {}
    for change in changes:
        _, kind, namespace, name = change.identity
        fold = len(changes) > _MANY and namespace and change.operation is not Operation.RESTART
        what = (kind, name, *_told(change)) if fold else (change.target,)
        found.setdefault((change.step, change.operation, *what), []).append(change)
    return [_Alike(tuple(alike)) for alike in found.values()]


def _told(change: Change) -> Iterable[str]:
    """All that is told of a change besides its namespace and when others wrote."""
    yield from map(str, _field_lines(change, times=False))
    yield from _remarks(change, times=False)
    yield from _amiss(change)
    yield _managed_by(change, times=False)


def plan_dict(plan: Plan) -> dict[str, Any]:
    """A plan as JSON."""
    return {
        "digest": plan.digest,
        "changes": [change_dict(change) for change in plan.changes],
        "consequences": [{"step": step, "said": said} for step, said in plan.consequences],
    }


def plan(plan: Plan, mode: str, approval: Finding | None = None) -> View:
    """Everything that will change, field by field, what follows from it, and one digest, and whether it is approved."""
    notes = {
        "plan": "Nothing is changed in this mode.",
        "verify": "Nothing is changed in this mode; every difference is drift.",
        "apply": "The cells below make these changes, and no others.",
    }
    count, objects = _count(plan), _alike(plan.changes)
    foot = f"{count}. {_approval(approval) or notes[mode]}"
    blocks = [line for one in objects for line in (one.head, *(f"      {text}" for text in one.lines()))]
    text = "\n".join([*blocks, *_following(plan), foot, plan.digest])
    page = f"{''.join(map(_folded, objects))}{_following_html(plan)}<p>{escape(foot)}<br><code>{plan.digest}</code></p>"
    amiss = [f"✗ {problem}" for problem in plan.problems] + [f"! {refusal}" for refusal in plan.refused]
    amiss += [_approval(approval)] if approval else []
    if len(amiss) > _BRIEF:
        amiss = [*amiss[:_BRIEF], f"… and {len(amiss) - _BRIEF:,} more"]
    return View("plan", plan_dict(plan), text, page, (*_in_brief(plan, objects, count), *amiss))


def _count(plan: Plan) -> str:
    """How many of each; restarts are rare enough to be named only where there are some."""
    words = {
        Operation.CREATE: "to create",
        Operation.UPDATE: "to update",
        Operation.RESTART: "to restart",
        Operation.UNCHANGED: "unchanged",
    }
    counts = Counter(change.operation for change in plan.changes)
    shown = [operation for operation in words if operation != Operation.RESTART or counts[operation]]
    return ", ".join(f"{counts[operation]} {words[operation]}" for operation in shown)


def _following(plan: Plan) -> list[str]:
    """What follows from the changes, and what the numbers of secrets mean."""
    numbers = {number for change in plan.changes for item in change.fields for number in item.numbers if number}
    legend = ["Equal numbers (#) stand for equal secret values."] if numbers else []
    head = ["What follows:"] if plan.consequences else []
    return legend + head + [f"  • {said}  [{step}]" for step, said in plan.consequences]


def _following_html(plan: Plan) -> str:
    listed = "".join(f"<li>{escape(said)} <code>{escape(step)}</code></li>" for step, said in plan.consequences)
    legend = [line for line in _following(plan) if line.startswith("Equal")]
    shown = "".join(f"<p>{escape(line)}</p>" for line in legend)
    return shown + (_titled("What follows", f"<ul>{listed}</ul>") if listed else "")


def _in_brief(plan: Plan, objects: Sequence[_Alike], count: str) -> list[str]:
    """The review as a terminal shows it: what stays as it is in one line, and no end of anything."""
    if not plan.pending:
        return [f"{count}, {plan.digest[:24]}…"]
    changed = [one for one in objects if one.first.operation is not Operation.UNCHANGED]
    same = [one.target for one in objects if one.first.operation is Operation.UNCHANGED]
    lines = [f"{len(plan.pending):,} of {len(plan.changes):,} not as wanted"]
    for one in changed[:_MANY]:
        lines += [one.head, *(f"    {text}" for text in _shortened(one))]
    if len(changed) > _MANY:
        lines.append(f"… and {len(changed) - _MANY:,} more, all of them in the notebook")
    lines += [f"= unchanged  {few(same)}"] if same else []
    return [*lines, *_following(plan), count, plan.digest]


def _shortened(one: _Alike) -> list[str]:
    """The lines of an object, of many fields the first; what is amiss is told at the end."""
    lines = [line for line in one.lines() if line not in _amiss(one.first)]
    return lines if len(lines) <= _BRIEF else [*lines[: _BRIEF - 1], f"… and {len(lines) - _BRIEF + 1} more"]


def _folded(one: _Alike) -> str:
    """An object as a line that opens: its fields, old and new, and whatever else there is to know."""
    change = one.first
    fields = _field_lines(change, times=one.times)
    many = f" ({counted(len(fields), 'field')})" if fields else ""
    head = f"<b>{escape(_SIGNS[change.operation])} {escape(change.operation)}</b> {escape(one.target)}"
    told = "; ".join(filter(None, (_waited_for(change), _managed_by(change, times=one.times))))
    head += f" <code>{escape(change.step)}</code>{many}" + (f"<br>{escape(told)}" if told else "")
    head += "".join(f"<br><b>{escape(line)}</b>" for line in _amiss(change))
    rows = [tuple(map(escape, (line.path, line.old, line.new, line.by))) for line in fields]
    table = _table_html(("field", "now", "wanted", ""), rows) if rows else ""
    more = [*_remarks(change, times=one.times)]
    more += [_waited_for(change, names=True)] if change.waits else []
    more += [f"in {', '.join(one.namespaces)}"] if one.namespaces else []
    listed = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in more)}</ul>" if more else ""
    return f"<details><summary>{head}</summary>{table}{listed}</details>" if table or listed else f"<p>{head}</p>"


def _approval(found: Finding | None) -> str:
    if found is None:
        return ""
    if found.verdict is Verdict.MET:
        return f"Approved {found.said}."
    return f"Not approved: {found.said}. Nothing is changed; {found.remedy}."


def applied(step: Step, written: Sequence[Mapping[str, Any]]) -> View:
    """What one step wrote, with the server's audit ids."""
    if not written:
        return note("applied", step.id, "Nothing to change: everything is as planned already.")
    rows = [(entry["operation"], entry["target"], entry.get("audit_id", "")) for entry in written[:_MANY]]
    if len(written) > _MANY:
        rows.append(("…", f"and {len(written) - _MANY:,} more, all of them in the outcome", ""))
    html = _table_html(("", "object", "audit id"), [tuple(map(escape, row)) for row in rows])
    brief = f"{len(written)} written"
    return View("applied", {"step": step.id, "written": list(written)}, _table_text(rows), html, (brief,))


def waited(step: Step, entries: Sequence[Mapping[str, Any]]) -> View:
    """What was waited for, and how long."""
    if not entries:
        return note("waited", step.id, "Nothing to wait for.")
    rows = [(f"{_SIGNS[Proof.PROVEN if e['ready'] else Proof.FAILED]} {e['target']}", e["said"]) for e in entries]
    html = _table_html(("object", ""), [tuple(map(escape, row)) for row in rows])
    brief = tuple(f"{target.removeprefix(_SIGNS[Proof.PROVEN]).lstrip()} {said}" for target, said in rows)
    return View("waited", {"step": step.id, "objects": list(entries)}, _table_text(rows), html, brief)


def checked_dict(check: Checked) -> dict[str, str]:
    """A checked effect as JSON."""
    return {
        "title": check.title,
        "proof": str(check.proof),
        "expected": check.expected,
        "observed": check.observed,
        "way": check.way,
        "remedy": check.remedy,
        "see": check.see,
    }


def proved(step: Step, checked: Sequence[Checked]) -> View:
    """The effects of a step: what was expected, what was seen, and by which path."""
    if not checked:
        return note("proved", step.id, "This step has no effect of its own to prove.")
    lines, html = [], []
    for check in checked:
        lines.append(f"{_SIGNS[check.proof]} {check.title}: {check.proof}")
        facts = [("expected", check.expected), ("observed", check.observed), ("way", check.way)]
        if check.proof is not Proof.PROVEN and check.remedy:
            facts.append(("what to do", f"{check.remedy} (runbook {check.see})" if check.see else check.remedy))
        lines.append(_table_text([fact for fact in facts if fact[1]], "    "))
        cell = "<br>".join(f"{name}: {escape(text)}" for name, text in facts if text)
        cell += _link(check.see) if check.proof is not Proof.PROVEN else ""
        html.append((f"{_SIGNS[check.proof]} {escape(check.proof)}", escape(check.title), cell))
    data = {"step": step.id, "checks": [checked_dict(check) for check in checked]}
    brief = [_tally(check.proof for check in checked)]
    brief += [f"{_SIGNS[c.proof]} {c.title}: {c.observed}" for c in checked if c.proof is not Proof.PROVEN]
    return View("proved", data, "\n".join(lines), _table_html(("", "effect", ""), html), tuple(brief))


def question(plan: Plan, host: str, minutes: int) -> View:
    """What is asked where a plan waits for its approval; also what stays on the page where nobody answers."""
    first = f"Not approved yet: {counted(len(plan.pending), 'change')} on {host}."
    more = (
        f"An approval is of just this plan and holds {minutes} minutes. Until then the cells below change nothing, "
        "and say so. Who has no button here types it:"
    )
    typed = f'runbook.approve("{plan.digest}", by="your name")'
    html = f"<p><b>{escape(first)}</b> {escape(more)}<br><code>{escape(typed)}</code></p>"
    data = {"approved": False, "digest": plan.digest}
    return View("approval", data, "\n".join((first, more, typed)), html, ("not approved",))


def consented(consent: Consent, host: str, changes: int) -> View:
    """Who has approved what, where, and for how long."""
    data = {
        "approved": True,
        "digest": consent.digest,
        "by": consent.by,
        "given": consent.given.isoformat(timespec="seconds"),
        "until": consent.until.isoformat(timespec="seconds"),
    }
    first = (
        f"✓ Approved by {consent.by} at {data['given']}, until {data['until']}: {counted(changes, 'change')} on {host}."
    )
    more = (
        "The cells below make these changes, each when it is run: select the next one, then Run ▸ Run Selected Cell "
        "and All Below."
    )
    html = f"<p><b>{escape(first)}</b> {escape(more)}<br><code>{escape(consent.digest)}</code></p>"
    text = "\n".join((first, more, consent.digest))
    return View("approval", data, text, html, (f"approved by {consent.by}",))


def awaiting(looks: Sequence[Look], since: dt.datetime, until: dt.datetime) -> View:
    """A wait that goes on: each object, since when, until when at most, and the server's own reason."""
    rows = [
        (
            f"{_SIGNS[Proof.PROVEN] if one.done else _SIGNS[Verdict.WAITING]} {one.title}",
            f"{one.seconds:.0f} s",
            _said(one),
        )
        for one in looks
    ]
    done = sum(one.done for one in looks)
    head = f"{done} of {len(looks)} ready, since {since:%H:%M:%S}, until {until:%H:%M:%S} UTC at most"
    html = f"<p>{head}</p>" + _table_html(("object", "for", ""), [tuple(map(escape, row)) for row in rows])
    data = {"ready": done, "of": len(looks), "since": since.isoformat(), "until": until.isoformat()}
    return View("awaiting", data, f"{head}\n{_table_text(rows)}", html, (head,))


def _said(look: Look) -> str:
    return "ready" if look.done else look.message


def archived(name: str, folder: Path, head: str, doubts: Sequence[str], said: str) -> View:
    """Where the notebook is kept now, and what nobody can vouch for, since a person stepped through it."""
    first = f"✓ Archived as {name} in {folder}. " + (f"{said.capitalize()}. " if said else "") + f"Head: {head}"
    text = "\n".join([first, "What cannot be vouched for:", *(f"  {doubt}" for doubt in doubts)])
    listed = "".join(f"<li>{escape(doubt)}</li>" for doubt in doubts)
    html = f"<p>{escape(first)}</p><p>What cannot be vouched for:</p><ul>{listed}</ul>"
    return View("archive", {"record": name, "head": head}, text, html, (f"archived as {name}",))


def failure(kind: str, step: str, lines: Sequence[str], see: str = "", trace: str = "") -> View:
    """Why something could not be carried out, in the words of the error.

    Args:
        kind: of the result that there is none of.
        step: of the cell.
        lines: what was attempted, what was said, what to do.
        see: the section whose runbook mends it; a link for whoever reads this in JupyterLab.
        trace: the traceback, which folds open.
    """
    text = "\n".join(lines)
    html = "".join(f"<p>{escape(line)}</p>" for line in lines)
    html += _link(see)
    if trace:
        html += (
            f"<details><summary>Traceback, for whoever mends the program</summary><pre>{escape(trace)}</pre></details>"
        )
    html = f'<div role="alert" style="border-left:4px solid #c00;padding-left:0.6em">{html}</div>'
    return View(kind, {"step": step, "failure": list(lines)}, f"✗ {text}", html, ("failed", *lines))


def outcome(data: Mapping[str, Any]) -> View:
    """The one structured result of a run."""
    rows = [("outcome", str(data["outcome"])), ("because", str(data["reason"])), ("mode", str(data["mode"]))]
    if digest := data.get("plan", {}).get("digest"):
        rows.append(("plan", digest))
    target, given = data.get("target") or {}, data.get("parameters") or {}
    rows.append(("when", f"{data.get('started', '')} to {data.get('finished', '')}"))
    rows.append(("where, as whom", f"{target.get('server', '')} as {target.get('user', '')}"))
    rows += [(name.replace("_", " "), str(given[name])) for name in ("change_ticket", "reason") if given.get(name)]
    rows.append(("requests", ", ".join(f"{count} {verb}" for verb, count in data["requests"].items())))
    html = _table_html(("runbook", escape(str(data["section"]))), [tuple(map(escape, row)) for row in rows])
    return View("outcome", data, _table_text(rows), html, (f"{data['outcome']}: {data['reason']}",))
