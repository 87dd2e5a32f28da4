"""A record as one HTML page, and an archive as a page of all its records; pure: facts and a notebook in, text out.

The pages need nothing but a browser, also years later and from a file: no script, no address outside, one content
security policy. Every value in them is escaped, and what cannot be seen (a character that turns the direction of
writing, one without width) is written out, so that a page shows what was signed and nothing else.

A notebook's cells are rendered from their structured values and text twins, never from the HTML that they hold: then
there is no foreign markup to sanitise, and nothing is lost, since the text twin says the same.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from runbooks.keeper import MIME
from runbooks.record.archive import Record
from runbooks.record.verification import Judged, Verdict

_STYLE = Path(__file__).with_name("page.css").read_text()
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_VALUE = 1_500  # characters of one value
_OUTPUT = 20_000  # characters of one output
_CELLS = 400_000  # characters of all cells
_IMAGE = 2_000_000  # characters of one picture in base64
_ROWS = 500
_FIELDS = 60  # of one object
_SUMMARISED = 4
# what a reader cannot see: controls, invisible and direction-changing characters, halves of a pair
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff]"
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_GOOD = ("as desired", "no changes", "done and proven", "proven", "met", "verified", "finished", "completed")
_WARN = (
    *("changes pending", "applied, restart pending", "restart pending", "not proven", "warning", "waiting", "running"),
    *("drift", "unknown", "could not tell", "incomplete", "not trusted", "recovered", "adopted", "not checked"),
)
_SIGNS = {"good": "✓", "warn": "!", "bad": "✗"}
_STATES = {
    "running": "It goes on still: what stands here is what was signed so far.",
    "unfinished": "It vanished: it was announced, and nobody signed how it ended. runbooks records recover closes it.",
    "recovered": "It vanished, and was closed afterwards with what it left behind; nobody saw how it ended.",
    "adopted": "Something else executed this notebook. It was signed as it was found, not as it ran.",
}
_STEP = re.compile(r"(apply|wait|prove)-(.+)")
_SHOWN_ELSEWHERE = (
    *("phase", "sequence", "previous", "archive", "run", "actor", "signed_by", "cluster", "change", "plan", "objects"),
    *("checks", "runbook", "time", "outcome", "parameters", "requests", "waited", "hygiene", "cannot_be_vouched_for"),
)


@dataclass(frozen=True)
class Subject:
    """What a page is about.

    Args:
        record: its entries, as the log has them.
        facts: everything that is known of the run; empty where it cannot be read.
        notebook: the executed notebook; None where there is none, or where it is not what was signed.
        missing: why there is no notebook.
        judged: how the verification came out when the page was made.
        rollback: what the verification says of missing records.
        archive: the archive's id, and where it lay.
        links: whether the record's own files lie beside the page.
    """

    record: Record
    facts: Mapping[str, Any]
    notebook: Mapping[str, Any] | None
    missing: str
    judged: Judged
    rollback: str
    archive: tuple[str, str]
    links: bool = True


@dataclass(frozen=True)
class Clock:
    """How moments are shown.

    Args:
        made: when the page is made.
        zone: the zone besides UTC; None for UTC alone.
        name: the zone's name.
    """

    made: dt.datetime
    zone: dt.tzinfo | None = None
    name: str = ""

    def show(self, text: Any) -> str:
        """A moment in UTC and in the zone, as HTML; what is no moment is shown as it is."""
        moment = _moment(text)
        if moment is None:
            return _text(text)
        found = f'<time class="nowrap" datetime="{escape(moment.isoformat())}">{moment:%Y-%m-%d %H:%M:%S} UTC</time>'
        return f'{found} <span class="nowrap">({_text(self.local(moment))})</span>' if self.zone else found

    def local(self, moment: dt.datetime) -> str:
        """A moment in the zone; with its day, where that is another than in UTC."""
        there = moment.astimezone(self.zone)
        day = f"{there:%Y-%m-%d} " if there.date() != moment.date() else ""
        return f"{day}{there:%H:%M:%S} {self.name}"


def _moment(text: Any) -> dt.datetime | None:
    try:
        found = dt.datetime.fromisoformat(str(text))
        return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


# --- values as HTML ---------------------------------------------------------------------------------------------------


def _text(value: Any, most: int = _VALUE) -> str:
    """Any value as HTML text, also within an attribute."""
    text = _plain(value)
    left = len(text) - most
    shown = f"{text[:most]}… ({left:,} more characters)" if left > 0 else text
    return escape(_UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", shown))


def _plain(value: Any) -> str:
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in _list(value) if isinstance(one, Mapping)]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _manner(word: Any) -> str:
    """good, warn or bad: the colour of a verdict; never the only thing that tells them apart."""
    return "good" if word in _GOOD else "warn" if word in _WARN else "bad"


def _sign(word: Any) -> str:
    return _flag(_manner(word), _text(word))


def _flag(manner: str, shown: str) -> str:
    return f'<b class="{manner}">{_SIGNS[manner]} {shown}</b>'


def _quiet(shown: str) -> str:
    return f'<p class="quiet">{shown}</p>'


def _items(parts: Iterable[str]) -> str:
    """A list of HTML parts; a single one stands by itself."""
    found = list(parts)
    return found[0] if len(found) == 1 else f"<ul>{''.join(f'<li>{part}</li>' for part in found)}</ul>" if found else ""


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], most: int = _ROWS) -> str:
    """A table of cells that are HTML already; the first of each row is its header.

    The roles say what the elements are by themselves, until a narrow screen shows them as blocks.
    """
    top = "".join(f'<th scope="col" role="columnheader">{_text(cell)}</th>' for cell in head)
    body = "".join(_row(head, row) for row in rows[:most])
    more = f"; {len(rows) - most:,} more rows are in the record itself" if len(rows) > most else ""
    return (
        f'<table role="table"><caption>{_text(caption + more)}</caption>\n<thead role="rowgroup"><tr role="row">'
        f'{top}</tr></thead>\n<tbody role="rowgroup">{body}</tbody></table>\n'
    )


def _row(head: Sequence[str], row: Sequence[str]) -> str:
    first, *others = row
    names = (f' data-of="{_text(name)}"' if name else "" for name in head[1:])
    cells = "".join(f'<td role="cell"{name}>{cell}</td>' for name, cell in zip(names, others, strict=True))
    return f'<tr role="row"><th scope="row" role="rowheader">{first}</th>{cells}</tr>\n'


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    shown = "".join(f"<dt>{_text(name)}</dt><dd>{value}</dd>" for name, value in pairs if value)
    return f"<dl>{shown}</dl>"


def _section(name: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{_text(title)}</h2>\n{body}</section>\n' if body else ""


def _banner(manner: str, head: str, said: Iterable[str] = ()) -> str:
    listed = "".join(f"<li>{_text(one)}</li>" for one in said)
    return (
        f'<div class="banner {manner}"><b>{_SIGNS[manner]} {head}</b>{f"<ul>{listed}</ul>" if listed else ""}</div>\n'
    )


def _document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="robots" content="noindex">\n'
        f'<title>{_text(title, 200)}</title>\n<link rel="icon" href="data:,">\n<style>\n{_STYLE}</style>\n</head>\n'
        f'<body>\n<a class="skip" href="#content">Skip to the content</a>\n{body}</body>\n</html>\n'
    )


# --- one record -------------------------------------------------------------------------------------------------------


def record_page(subject: Subject, clock: Clock, index: str = "") -> str:
    """One record as a page.

    Args:
        subject: the record, and what is known of it.
        clock: how moments are shown.
        index: address of the page of all records; empty where there is none.
    """
    runbook, title = _map(subject.facts.get("runbook")), _title(subject)
    back = f'<nav aria-label="Archive"><p><a href="{_text(index)}">All records</a></p></nav>' if index else ""
    head = f"<header>{back}<p>Change record <code>{_text(subject.record.id)}</code></p><h1>{_text(title)}</h1></header>"
    sections = [
        _section("changes", "What changed, from what to what", _changes(subject, clock)),
        _section("proofs", "What was proven", _proofs(subject.facts)),
        _section("before", "What was found before", _findings(subject.facts)),
        _section("evidence", "Signatures and files", _evidence(subject, clock)),
        _section("given", "Parameters and what else was recorded", _given(subject.facts)),
        _section("notebook", "The executed notebook", _notebook(subject)),
    ]
    foot = f'<footer><p class="quiet">Rendered {clock.show(clock.made)}. {_FOOT}</p></footer>'
    body = f'{head}\n<main id="content">\n{_first(subject, clock)}{"".join(sections)}</main>\n{foot}\n'
    return _document(f"{_plain(runbook.get('section') or title)} {subject.record.id}", body)


_FOOT = "This page is a rendering and is not signed; the envelopes and the notebook are the evidence."


def _title(subject: Subject) -> str:
    for cell in _cells(subject.notebook):
        found = re.match(r"#\s+(.+)", _source(cell)) if cell.get("cell_type") == "markdown" else None
        if found:
            return found[1].strip()[:200]
    runbook = _map(subject.facts.get("runbook"))
    return _plain(runbook.get("name") or runbook.get("section") or subject.record.id)


def _first(subject: Subject, clock: Clock) -> str:
    """The first screen: what, where, who, when, how it ended, what changed, what was proven, is it what was signed."""
    rows = [
        ("What", _what(subject.facts)),
        ("Where", _where(_map(subject.facts.get("cluster")))),
        ("Who", _who(subject.facts)),
        ("When", _when(subject, clock)),
        ("Why", _why(subject.facts)),
        ("Approved", _approved(_map(subject.facts.get("approval")))),
        ("Changed", _changed(subject)),
        ("Proven", _proven(subject.facts)),
    ]
    beside = _picture(subject.notebook) + _pairs([("Signed", _signed(subject))])
    return f'{_states(subject)}<div class="first"><div>{_pairs(rows)}</div><div>{beside}</div></div>\n'


def _approved(approval: Mapping[str, Any]) -> str:
    if not approval:
        return ""
    verb = "yes" if approval.get("verdict") == "met" else "no"
    until = f", until {_text(approval['until'])}" if approval.get("until") else ""
    return f"{verb}: {_text(approval.get('said'))}{until}<br><code>{_text(approval.get('digest'))}</code>"


def _states(subject: Subject) -> str:
    """How it ended, and whatever a reader has to know before the rest."""
    facts, state = subject.facts, subject.record.state
    ended, found = _map(facts.get("outcome")), []
    if subject.judged.verdict in (Verdict.TAMPERED, Verdict.NOT_TRUSTED):
        said = [one.said for one in subject.judged.found]
        manner = "bad" if subject.judged.verdict is Verdict.TAMPERED else "warn"
        found.append(_banner(manner, f"Do not rely on this page: {_text(subject.judged.verdict)}", said))
    if state in _STATES:
        manner = "bad" if state == "unfinished" else "warn"
        doubts = [f"cannot be vouched for: {_plain(doubt)}" for doubt in _list(facts.get("cannot_be_vouched_for"))]
        found.append(_banner(manner, f"{_text(state.capitalize())}. <span>{_STATES[state]}</span>", doubts))
    hits = _maps(_map(facts.get("hygiene")).get("hits"))
    if hits or _withheld(facts):
        found.append(_banner("bad", "Withheld: a secret was found", [*map(_hit, hits), *map(_kept, _withheld(facts))]))
    if outcome := ended.get("outcome"):
        reason = f": <span>{_text(ended['reason'])}</span>" if ended.get("reason") else ""
        where = [f"in the cell {_plain(ended['cell'])}"] if ended.get("cell") else []
        found.insert(0, _banner(_manner(outcome), f"{_text(_sentence(outcome))}{reason}", where))
    elif state not in _STATES:
        found.insert(0, _banner("warn", "No outcome is known"))
    return "".join(found)


def _sentence(value: Any) -> str:
    text = _plain(value)
    return text[:1].upper() + text[1:]


def _withheld(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _maps(_map(facts.get("hygiene")).get("withheld"))


def _hit(hit: Mapping[str, Any]) -> str:
    return f"{_plain(hit.get('secret'))}, in the cell {_plain(hit.get('cell'))}, {_plain(hit.get('form'))}"


def _kept(one: Mapping[str, Any]) -> str:
    where = f"{_plain(one.get('kept'))}, sha256 {_plain(one.get('sha256'))}"
    return f"{_plain(one.get('name'))} was kept out of the record: {where}"


def _what(facts: Mapping[str, Any]) -> str:
    runbook = _map(facts.get("runbook"))
    found = [f"<code>{_text(name)}</code>" if (name := runbook.get("name")) else ""]
    found += [f"mode <b>{_text(mode)}</b>" if (mode := runbook.get("mode")) else ""]
    found += [f"version {_text(version)}" if (version := runbook.get("version")) else ""]
    return ", ".join(filter(None, found))


def _where(cluster: Mapping[str, Any]) -> str:
    if not cluster:
        return "not known"
    names = (
        ("cluster_id", "cluster"),
        ("context", "context"),
        ("openshift", "OpenShift"),
        ("kubernetes", "Kubernetes"),
    )
    server = f"<code>{_text(cluster['server'])}</code>" if cluster.get("server") else ""
    found = [server, *(f"{said} {_text(cluster[name])}" for name, said in names if cluster.get(name))]
    sandbox = _map(cluster.get("sandbox"))
    if not sandbox:
        return f"<p>{', '.join(filter(None, found))}</p><p>a real cluster, as far as it says of itself</p>"
    told = "; ".join(
        f"{said}: {_text(sandbox[name])}"
        for name, said in (
            ("plays", "plays"),
            ("real", "real"),
            ("stands_in", "stand-ins"),
            ("application", "application"),
        )
        if sandbox.get(name)
    )
    name = _text(sandbox.get("name") or "")
    return f"<p>{', '.join(filter(None, found))}</p><p>{_flag('warn', f'Sandbox {name}')}, no real cluster: {told}</p>"


def _who(facts: Mapping[str, Any]) -> str:
    actor, signer = _map(facts.get("actor")), _map(facts.get("signed_by"))
    found = [f"<b>{_text(actor['user'])}</b> as the API server knows them" if actor.get("user") else ""]
    found += [f"groups {_text(', '.join(map(_plain, groups)))}" if (groups := _list(actor.get("groups"))) else ""]
    found += [f"impersonated by {_text(actor['impersonated_by'])}" if actor.get("impersonated_by") else ""]
    found += [_machine(actor), f"signed by {machine}" if (machine := _machine(signer)) else ""]
    return ", ".join(filter(None, found)) or "not known"


def _machine(actor: Mapping[str, Any]) -> str:
    if not actor.get("os_user"):
        return ""
    return f"<b>{_text(actor['os_user'])}</b> on the host {_text(actor.get('host'))}"


def _when(subject: Subject, clock: Clock) -> str:
    time = _map(subject.facts.get("time"))
    papermill = _map(_map(_map(subject.notebook).get("metadata")).get("papermill"))
    started, finished = time.get("started") or papermill.get("start_time"), time.get("finished")
    first, last = subject.record.entries[0], subject.record.entries[-1]
    rows = [f"{clock.show(first.signed)} announced"] if first is not last else []
    rows += [f"{clock.show(started)} started"] if started else []
    if finished:
        rows.append(f"{clock.show(finished)} finished")
    elif last.phase in ("result", "recovery", "adoption"):
        rows.append(f"{clock.show(last.signed)} signed the {_text(last.phase)}")
    rows += [_flag("warn", f"the clock stood {_text(back)} s back")] if (back := time.get("clock_back_s")) else []
    return "".join(f"<p>{row}</p>" for row in rows)


def _why(facts: Mapping[str, Any]) -> str:
    change = _map(facts.get("change"))
    return ", ".join(f"{_text(name)} {_text(value)}" for name, value in change.items()) or "no ticket, no reason given"


def _signed(subject: Subject) -> str:
    last, judged = subject.record.entries[-1], subject.judged
    verdict = f"{_sign(str(judged.verdict))} when this page was made"
    said = "; ".join(one.said for one in judged.found)
    told = _text(f"{said}; {subject.rollback}" if said else subject.rollback)
    file = _link(subject, f"{last.phase}.dsse.json", f"<code>{_text(last.path)}</code>")
    return f"<p>{verdict}; {told}</p><p>{file} in the archive <code>{_text(subject.archive[1])}</code></p>"


def _link(subject: Subject, name: str, shown: str) -> str:
    """A link to a file beside the page; names are what the log or a statement says, so only plain ones are followed."""
    plain = re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]*", name)
    return f'<a href="{escape(name)}">{shown}</a>' if subject.links and plain else shown


# --- what changed -----------------------------------------------------------------------------------------------------


def _objects(subject: Subject) -> list[dict[str, Any]]:
    """The objects with what became of each; what the notebook saw written counts where the run came to no outcome."""
    journal = _map(subject.facts.get("journal"))
    seen = {_key_of(one): one for one in [*_maps(journal.get("written")), *_written(subject.notebook)]}
    under_way = set(map(_key_of, _maps(journal.get("under_way"))))
    now = {_key_of(one): _plain(one.get("now")) for one in _maps(_map(subject.facts.get("looked")).get("objects"))}
    found = []
    for one in _maps(subject.facts.get("objects")):
        late = seen.get(_key_of(one))
        if late is not None and not one.get("written"):
            one = {**one, "written": True, **{name: late[name] for name in ("at", "audit_id") if late.get(name)}}
        cut = not one.get("written") and _key_of(one) in under_way
        became = "under way when it vanished" if cut else _became(subject, one)
        looked = f"; {now[_key_of(one)]} when it was looked at" if _key_of(one) in now else ""
        found.append({**one, "became": became + looked})
    return found


def _key_of(one: Mapping[str, Any]) -> tuple[str, str]:
    return _plain(one.get("step")), _plain(one.get("target"))


def _became(subject: Subject, one: Mapping[str, Any]) -> str:
    mode = _map(subject.facts.get("runbook")).get("mode")
    if one.get("written"):
        return "written"
    if one.get("operation") == "unchanged":
        return "as wanted already"
    if mode in ("plan", "verify"):
        return "would change" if mode == "plan" else "differs"
    return "not written" if "requests" in subject.facts else "announced, not known whether written"


def _written(notebook: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    values = (_structured(cell) for cell in _cells(notebook))
    return [one for value in values if value.get("view") == "applied" for one in _maps(value.get("written"))]


def _changed(subject: Subject) -> str:
    """What changed, in a few lines."""
    objects = _objects(subject)
    if not objects:
        return "nothing is known of changes" if subject.record.state != "finished" else "nothing"
    head = ", ".join(f"{count} {_text(became)}" for became, count in Counter(one["became"] for one in objects).items())
    lines = [_brief(one) for one in objects if one["became"] != "as wanted already"]
    if len(lines) > _SUMMARISED:
        more = f'<a href="#changes">and {len(lines) - _SUMMARISED + 1:,} more objects</a>'
        lines = [*lines[: _SUMMARISED - 1], more]
    return f"<p><b>{head}</b></p>{_items(lines) if len(lines) != 1 else f'<p>{lines[0]}</p>'}"


def _brief(one: Mapping[str, Any]) -> str:
    fields = _maps(one.get("fields"))
    shown = "; ".join(_field(field, 60) for field in fields[:1])
    more = f", and {len(fields) - 1} more" if len(fields) > 1 else ""
    return f"{_text(one.get('operation'))} {_text(one.get('target'), 120)}{': ' if shown else ''}{shown}{more}"


def _field(field: Mapping[str, Any], most: int = _VALUE) -> str:
    numbers = _map(field.get("secret"))  # equal numbers, equal secrets
    old, new = (
        _text(field.get(which), most) + (f" (#{_text(numbers[which])})" if numbers.get(which) else "")
        for which in ("old", "new")
    )
    return (
        f'<code>{_text(field.get("path"), 200)}</code>: <span class="from">{old}</span> → <span class="to">{new}</span>'
    )


def _changes(subject: Subject, clock: Clock) -> str:
    plan = _map(subject.facts.get("plan"))
    said = _quiet(f"Plan <code>{_text(plan['digest'])}</code>") if plan.get("digest") else ""
    rows = []
    for one in _objects(subject):
        at = f"<p>{clock.show(one['at'])}</p>" if one.get("at") else ""
        audit = _quiet(f"audit id <code>{_text(one['audit_id'])}</code>") if one.get("audit_id") else ""
        became = one["became"]
        sign = f"<b>{_text(became)}</b>" if became in ("written", "as wanted already") else _flag("warn", _text(became))
        rows.append((_text(one.get("target")), _text(one.get("operation")), _details(one), f"{sign}{at}{audit}"))
    if not rows:
        return f"{said}<p>No object is named in this record.</p>"
    table = _table("Every object that was to change", ("object", "operation", "fields", "became"), rows)
    return said + table + _following(plan)


def _following(plan: Mapping[str, Any]) -> str:
    """What the plan said that would follow from its changes."""
    found = [
        f"{_text(one.get('said'))} {_quiet_code(one.get('step'))}" for one in _maps(plan.get("consequences"))[:_ROWS]
    ]
    return f"<p>What the plan said would follow:</p>{_items(found)}" if found else ""


def _quiet_code(text: Any) -> str:
    return f'<span class="quiet"><code>{_text(text)}</code></span>'


def _details(one: Mapping[str, Any]) -> str:
    """The fields of one object, who set the old values, and what was said of it."""
    fields = _maps(one.get("fields"))
    lines = [_field(field) + _set_by(field) for field in fields[:_FIELDS]]
    lines += [f"{len(fields) - _FIELDS:,} more fields are in the record itself"] if len(fields) > _FIELDS else []
    for taken in _maps(one.get("takes_over")):
        lines.append(f"takes <code>{_text(taken.get('path'))}</code> over from {_text(taken.get('manager'))}")
    if others := ", ".join(
        f"{_plain(owner.get('manager'))} (last {_plain(owner.get('since'))})" for owner in _maps(one.get("managed_by"))
    ):
        lines.append(f"also managed by {_text(others)}")
    lines += [f"note: {_text(note)}" for note in _list(one.get("notes"))]
    lines += [_flag("bad", _text(problem)) for problem in _list(one.get("problems"))]
    lines += [_flag("bad", f"refused: {_text(one['refused'])}")] if one.get("refused") else []
    lines += [_flag("bad", "written without being planned")] if one.get("planned") is False else []
    return _items(lines)


def _set_by(field: Mapping[str, Any]) -> str:
    owners = _maps(field.get("set_by"))
    said = ", ".join(f"{_plain(one.get('manager'))} since {_plain(one.get('since'))}" for one in owners)
    return f' <span class="quiet">(set by {_text(said)})</span>' if said else ""


# --- what was proven --------------------------------------------------------------------------------------------------


def _checks(facts: Mapping[str, Any], when: str) -> list[Mapping[str, Any]]:
    return [one for one in _maps(facts.get("checks")) if one.get("when") == when]


def _verdict(check: Mapping[str, Any]) -> str:
    return _plain(check.get("proof") or check.get("verdict") or "unknown")


def _proven(facts: Mapping[str, Any]) -> str:
    checks = _checks(facts, "after")
    if not checks:
        return "nothing"
    counts = Counter(map(_verdict, checks))
    head = ", ".join(
        f'<b class="{_manner(word)}">{_SIGNS[_manner(word)]} {n} {_text(word)}</b>' for word, n in counts.items()
    )
    amiss = [one for one in checks if _manner(_verdict(one)) != "good"]
    lines = [_text(one.get("title"), 120) for one in (amiss or checks)[: _SUMMARISED - 1]]
    left = len(amiss or checks) - len(lines)
    lines += [f'<a href="#proofs">and {left:,} more</a>'] if left else []
    return f"<p>{head}</p>{_items(lines) if len(lines) != 1 else f'<p>{lines[0]}</p>'}"


def _proofs(facts: Mapping[str, Any]) -> str:
    rows = []
    for one in _checks(facts, "after"):
        remedy = (
            f"<p>What to do: {_text(one['remedy'])}</p>" if one.get("remedy") and one.get("proof") != "proven" else ""
        )
        names = ("expected", "observed", "way")
        rows.append(
            (_text(one.get("title")), _sign(_verdict(one)) + remedy, *(_text(one.get(name, "")) for name in names))
        )
    if not rows:
        return "<p>No effect was checked in this run.</p>"
    return _table("Every effect that was checked", ("effect", "result", "expected", "observed", "by which way"), rows)


def _findings(facts: Mapping[str, Any]) -> str:
    """Preconditions, and what was waited for."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for one in _checks(facts, "before"):
        remedy = (
            f"<p>What to do: {_text(one['remedy'])}</p>" if one.get("remedy") and one.get("verdict") != "met" else ""
        )
        key = (_text(one.get("title")), _sign(_verdict(one)), _text(one.get("said", "")) + remedy)
        rows.setdefault(key, []).extend(filter(None, [_text(one.get("section") or "")]))
    found = ""
    if rows:
        table = [(*key, ", ".join(sections)) for key, sections in rows.items()]
        columns = 4 if any(rows.values()) else 3
        head = ("precondition", "result", "found", "asked by section")[:columns]
        found = _table("Preconditions", head, [row[:columns] for row in table])
    waited = [
        (
            _text(one.get("target")),
            "ready" if one.get("ready") else _flag("bad", "not ready"),
            _text(one.get("said", "")),
        )
        for one in _maps(facts.get("waited"))
    ]
    return found + (_table("What was waited for", ("object", "result", "it said"), waited) if waited else "")


# --- signatures and the rest ------------------------------------------------------------------------------------------


def _evidence(subject: Subject, clock: Clock) -> str:
    rows = [
        (
            _text(entry.phase),
            f"{entry.sequence:,}",
            clock.show(entry.signed),
            _link(subject, f"{entry.phase}.dsse.json", f"<code>{_text(entry.path)}</code>"),
            f"<code>{_text(entry.envelope)}</code>",
        )
        for entry in subject.record.entries
    ]
    head = ("entry", "number in the log", "signed", "envelope", "sha256 of the envelope")
    judged = subject.judged
    remarks = [_text(one) for one in (*(one.said for one in judged.found), *judged.remarks, subject.rollback)]
    archive = f"archive <code>{_text(subject.archive[0])}</code>, which lay in <code>{_text(subject.archive[1])}</code>"
    how = f"runbooks records verify {subject.record.id}"
    return (
        f"<p>{_sign(str(judged.verdict))} {clock.show(clock.made)}, when this page was made: {archive}. "
        f"Check it anew with <code>{_text(how)}</code></p>{_items(remarks)}{_table('Signed entries', head, rows)}"
    )


def _given(facts: Mapping[str, Any]) -> str:
    given = [(f"<code>{_text(name)}</code>", _text(value)) for name, value in _map(facts.get("parameters")).items()]
    rest: list[tuple[str, Any]] = [(name, value) for name, value in facts.items() if name not in _SHOWN_ELSEWHERE]
    shown_ended = ("outcome", "reason", "cell")
    rest += [(name, value) for name, value in _map(facts.get("outcome")).items() if name not in shown_ended]
    rest += [("source", source)] if (source := _map(facts.get("runbook")).get("source")) else []
    rest += [("requests", facts["requests"])] if "requests" in facts else []
    others = [(_text(name.replace("_", " ")), _text(value)) for name, value in rest]
    found = _table("Parameters in force", ("parameter", "value"), given) if given else ""
    return found + (_table("Also recorded", ("fact", "value"), others) if others else "")


# --- the run over time ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bar:
    """One code cell in time, in seconds from the run's beginning."""

    cell: str
    group: str
    start: float
    end: float
    kind: str  # write, prove, failed, or empty
    said: str


def _bars(notebook: Mapping[str, Any] | None) -> list[_Bar]:
    timed = []
    for cell in _cells(notebook):
        papermill = _map(_map(cell.get("metadata")).get("papermill"))
        start, end = _moment(papermill.get("start_time")), _moment(papermill.get("end_time"))
        if cell.get("cell_type") == "code" and start and end and end >= start:
            timed.append((cell, start, end, papermill.get("status")))
    if not timed:
        return []
    zero = min(start for _, start, _, _ in timed)
    return [
        _bar(cell, (start - zero).total_seconds(), (end - zero).total_seconds(), st) for cell, start, end, st in timed
    ]


def _bar(cell: Mapping[str, Any], start: float, end: float, status: Any) -> _Bar:
    value, found = _structured(cell), _STEP.fullmatch(_plain(cell.get("id") or ""))
    group = _plain(value.get("step") or (found[2] if found else "") or "")
    count = len(_list(value.get("written"))) if value.get("view") == "applied" else 0
    kind = "failed" if status == "failed" else "write" if count else "prove" if value.get("view") == "proved" else ""
    given = "injected-parameters" in _list(_map(cell.get("metadata")).get("tags"))
    name = found[1] if found else "given parameters" if given else _plain(cell.get("id") or "cell")
    said = f"{name} {_seconds(end - start)}" + (f", {count} written" if count else "")
    return _Bar(name, group, start, end, kind, f"{said}, failed" if kind == "failed" else said)


def _seconds(value: float) -> str:
    return f"{value:,.2f} s" if value < 60 else f"{int(value // 60):,} min {value % 60:.0f} s"


def _picture(notebook: Mapping[str, Any] | None) -> str:
    """The run over time: a bar for each code cell, a line for each step."""
    bars = _bars(notebook)
    if not bars:
        return _quiet("No picture of the run over time: no cell of it has a time.")
    total = max(bar.end for bar in bars) or 0.001
    rows = []
    for number, (group, found) in enumerate(itertools.groupby(bars, key=lambda bar: bar.group)):
        rows.append(_step_row(number, group or _outside(number), list(found), total))
    scale = "".join(f"<span>{_seconds(total * part / 4)}</span>" for part in (0, 2, 4))
    never = sum(cell.get("cell_type") == "code" for cell in _cells(notebook)) - len(bars)
    rest = _quiet(f"{never} code cells never ran.") if never else ""
    return (
        f"<figure><figcaption>The run over time: {_seconds(total)} in {len(bars)} code cells</figcaption>"
        f'<ol>{"".join(rows[:_ROWS])}</ol><div class="scale" aria-hidden="true">{scale}</div>'
        f"{_key(bars)}{rest}</figure>"
    )


def _outside(number: int) -> str:
    return "before the steps" if number == 0 else "after the steps"


def _step_row(number: int, group: str, bars: Sequence[_Bar], total: float) -> str:
    said = " · ".join(f"<b>▲ {_text(bar.said)}</b>" if bar.kind == "write" else _text(bar.said) for bar in bars)
    ticks = "".join(f'<line class="tick" x1="{p}%" x2="{p}%" y1="0" y2="16"/>' for p in (25, 50, 75))
    told = "; ".join(f"{bar.said}, from {_seconds(bar.start)} to {_seconds(bar.end)}" for bar in bars)
    return (
        f'<li><b>{_text(group)}</b>: {said}<svg role="img" aria-labelledby="t{number} d{number}"><title id="t{number}">'
        f'{_text(group)} over time</title><desc id="d{number}">{_text(told)}</desc><rect class="track" width="100%" '
        f'height="16"/>{ticks}{"".join(_shape(bar, total) for bar in bars)}</svg></li>'
    )


def _shape(bar: _Bar, total: float) -> str:
    """A write is as high as the line, everything else lower, so that colour is not all that tells them apart."""
    x = min(100 * bar.start / total, 99.2)
    width = max(100 * (bar.end - bar.start) / total, 0.8)
    y, height = (0, 16) if bar.kind in ("write", "failed") else (4, 8)
    return f'<rect class="bar {bar.kind}" x="{x:.2f}%" width="{width:.2f}%" y="{y}" height="{height}"/>'


def _key(bars: Sequence[_Bar]) -> str:
    words = {"": "looks, plans, waits", "write": "▲ writes", "prove": "proves", "failed": "failed"}
    kinds = [kind for kind in words if any(bar.kind == kind for bar in bars)]
    shown = "".join(
        f'<span><svg aria-hidden="true"><rect class="bar {kind}" width="12" height="12"/></svg>{words[kind]}</span>'
        for kind in kinds
    )
    return f'<div class="key">{shown}</div>'


# --- the notebook -----------------------------------------------------------------------------------------------------


def _cells(notebook: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    return _maps(_map(notebook).get("cells"))


def _joined(value: Any) -> str:
    return "".join(map(_plain, value)) if isinstance(value, list) else _plain(value) if value is not None else ""


def _source(cell: Mapping[str, Any]) -> str:
    return _joined(cell.get("source"))


def _structured(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    """A cell's structured value; empty where it has none."""
    found = (_map(_map(output.get("data")).get(MIME)) for output in _maps(cell.get("outputs")))
    return next(filter(None, found), {})


def _notebook(subject: Subject) -> str:
    if subject.notebook is None:
        return f"<p>{_text(_sentence(subject.missing or 'there is none'))}.</p>"
    parts, left, cells = [], _CELLS, _cells(subject.notebook)
    for number, cell in enumerate(cells):
        part = _cell(cell)
        left -= len(part)
        if left < 0:
            parts.append(f"<p><b>{len(cells) - number:,} more cells are in the notebook itself.</b></p>")
            break
        parts.append(part)
    said = "What each cell did, and the text that it put out. Open the notebook itself for the rest."
    return f"{_quiet(said)}{''.join(parts)}" if cells else "<p>It has no cells.</p>"


def _cell(cell: Mapping[str, Any]) -> str:
    source = _source(cell)
    if cell.get("cell_type") == "markdown":
        return _markdown(source)
    if cell.get("cell_type") != "code":
        return f"<pre>{_text(source, _OUTPUT)}</pre>"
    status = _map(_map(cell.get("metadata")).get("papermill")).get("status")
    name = f"<code>{_text(cell.get('id') or 'cell')}</code>"
    said = f" {_text(status)}" if status not in (None, "completed") else ""
    outputs = "".join(map(_output, _maps(cell.get("outputs"))))
    label = _quiet(f"{name}{said}")
    return f'{label}<pre class="source">{_text(source, _OUTPUT)}</pre>{outputs}\n'


def _output(output: Mapping[str, Any]) -> str:
    """One output: text, a picture, or why it is not shown."""
    kind, data = output.get("output_type"), _map(output.get("data"))
    if kind == "stream":
        return _preformatted(_joined(output.get("text")))
    if kind == "error":
        trace = "\n".join(map(_plain, _list(output.get("traceback"))))
        return _preformatted(trace or f"{_plain(output.get('ename'))}: {_plain(output.get('evalue'))}")
    for mime in ("image/png", "image/jpeg"):
        if mime in data and (address := _image(mime, _joined(data[mime]))):
            return f'<img alt="{_text(_joined(data.get("text/plain")) or "picture", 200)}" src="{address}">'
    if "text/plain" in data:
        return _preformatted(_joined(data["text/plain"]))
    return _quiet(f"Not shown here: {_text(', '.join(map(str, data)) or 'an output without data')}.")


def _preformatted(text: str) -> str:
    clean = _ANSI.sub("", text[: 2 * _OUTPUT]) + text[2 * _OUTPUT :]
    return f"<pre>{_text(clean.rstrip(), _OUTPUT)}</pre>" if clean.strip() else ""


def _image(mime: str, text: str) -> str:
    """A picture's address, where it is base64 of nothing else than a picture."""
    try:
        content = base64.b64decode("".join(text.split())[:_IMAGE], validate=True)
    except (binascii.Error, ValueError):
        return ""
    begins = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff"}[mime]
    whole = len(text) <= _IMAGE and content.startswith(begins)
    return f"data:{mime};base64,{base64.b64encode(content).decode()}" if whole else ""


_INLINE: Sequence[tuple[re.Pattern[str], Callable[[str], str]]] = (
    (re.compile(r"\*\*([^*\n]+)\*\*"), lambda text: f"<b>{text}</b>"),
    (re.compile(r"(?<![\w*])\*([^*\n]+)\*(?![\w*])"), lambda text: f"<em>{text}</em>"),
)


def _inline(text: str) -> str:
    """Bold, italics and code of a line that is escaped already; links stay what they are written as."""
    parts = re.split(r"`([^`\n]+)`", text)
    for number, part in enumerate(parts):
        if number % 2:
            parts[number] = f"<code>{part}</code>"
            continue
        for pattern, dress in _INLINE:
            part = pattern.sub(lambda found, dress=dress: dress(found[1]), part)
        parts[number] = part
    return "".join(parts)


def _markdown(source: str) -> str:
    """The little of Markdown that runbooks use: headings, paragraphs, lists; the rest is shown as it is written."""
    found = []
    for block in re.split(r"\n\s*\n", source[:_OUTPUT].strip("\n")):
        heading = re.match(r"(#{1,6})\s+([^\n]+)", block)
        if heading:
            found.append(f"<h3>{_inline(_text(heading[2]))}</h3>")
            block = block[heading.end() :].strip("\n")
        if not block.strip():
            continue
        lines = block.split("\n")
        if block.lstrip().startswith(("|", "```", "    ", "<")):
            found.append(f"<pre>{_text(block, _OUTPUT)}</pre>")
        elif re.match(r"\s*([-*]|\d+\.)\s", lines[0]):
            items = re.split(r"(?:^|\n)\s*(?:[-*]|\d+\.)\s+", block)
            found.append(
                f"<ul>{''.join(f'<li>{_inline(_text(one, _OUTPUT))}</li>' for one in items if one.strip())}</ul>"
            )
        else:
            found.append(f"<p>{_inline(_text(block, _OUTPUT))}</p>")
    return "".join(found) + "\n"


# --- all records ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A record on the page of all records.

    Args:
        id: the run's id.
        state: finished, recovered, adopted, running or unfinished.
        signed: when its last entry was.
        fields: runbook, mode, outcome, reason, user, cluster and ticket.
        verdict: how its verification came out.
        page: address of its page; empty where there is none.
    """

    id: str
    state: str
    signed: str
    fields: Mapping[str, str]
    verdict: str
    page: str


def index_page(
    lines: Sequence[Line], archive: tuple[str, str], verdict: str, said: Sequence[str], head: str, clock: Clock
) -> str:
    """All records of an archive as a page, in the order given.

    Args:
        lines: the records.
        archive: the archive's id, and where it lay.
        verdict: how the verification of it all came out.
        said: what the verification found, and what it says of missing records.
        head: the signed head in one line.
        clock: how moments are shown.
    """
    rows = [_index_row(line, clock) for line in lines]
    columns = ("record", "outcome", "signed", "who", "ticket", "verification")
    # all of them: a list of records that leaves some out is none
    table = _table("Every record, the newest first", columns, rows, len(rows)) if rows else ""
    states = Counter(line.state for line in lines)
    tally = ", ".join(f"{count:,} {state}" for state, count in states.items())
    kept = f"<p>Head, to be kept elsewhere: <code>{_text(head)}</code></p>" if head else ""
    banner = _banner(_manner(verdict), _text(_sentence(verdict)), said)
    count = f"{len(lines):,} records{': ' if tally else ''}{tally}"
    body = (
        f"<header><p>Archive <code>{_text(archive[0])}</code> in <code>{_text(archive[1])}</code></p>"
        f'<h1>Change records</h1></header>\n<main id="content">\n{banner}'
        f"<p>{count}; as of {clock.show(clock.made)}.</p>{kept}{table}</main>\n"
        f'<footer><p class="quiet">{_FOOT}</p></footer>\n'
    )
    return _document("Change records", body)


def _index_row(line: Line, clock: Clock) -> tuple[str, ...]:
    fields = line.fields
    name = (
        f"{_text(fields.get('runbook') or fields.get('section') or line.id)} {_text(fields.get('mode') or '')}".strip()
    )
    linked = f'<a href="{_text(line.page)}">{name}</a>' if line.page else name
    ended = _sign(fields["outcome"]) if fields.get("outcome") else ""
    state = "" if line.state == "finished" else _sign(line.state)
    reason = _quiet(f"{_text(fields['reason'], 200)}") if fields.get("reason") else ""
    return (
        linked + (_quiet(_text(line.id)) if _text(line.id) != name else ""),
        " ".join(filter(None, (state, ended))) + reason,
        clock.show(line.signed),
        _text(fields.get("user") or ""),
        _text(fields.get("ticket") or ""),
        _sign(line.verdict),
    )
