"""``runbooks records`` and ``runbooks keys``: looking at change records, checking them, and the key that signs them."""

from __future__ import annotations

import datetime as dt
import functools
import json
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from runbooks import adopting, recovery
from runbooks.errors import NotChecked, RecordError, RunbookError, SecretFound, UsageError
from runbooks.record import adoption, durable, export, hygiene, index, keys, log, page, statement, verification
from runbooks.record import archive as archives
from runbooks.record.archive import VARIABLE, Archive, Record, default_folder
from runbooks.record.keys import PublicKey
from runbooks.record.verification import Judged, Report, Verdict

_STYLES = {
    Verdict.VERIFIED: "green",
    Verdict.INCOMPLETE: "yellow",
    Verdict.NOT_TRUSTED: "yellow",
    Verdict.TAMPERED: "red",
}
_MANY = 50


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options that belong together."""
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


_records = click.option(
    "--records",
    "folder",
    type=click.Path(path_type=Path),
    envvar=VARIABLE,
    help="The archive; $RUNBOOKS_RECORDS.  [default: your data directory]",
)
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")
_common = _with(_records, _json)
_trust = click.option(
    "--trust",
    "trust",
    type=click.Path(path_type=Path),
    help="Folder of trusted public keys (*.pem).  [default: beside your signing key]",
)
_anchors = click.option(
    "--anchor",
    "anchors",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file with heads that were kept elsewhere; may be repeated.",
)


def _open(folder: Path | None, *, signing: bool = False) -> Archive:
    """The archive; with a key where something will be signed."""
    signer = keys.load() if signing else None
    return Archive.open(folder or default_folder(), signer=signer, trusted=keys.trusted(keys.trust_folder()))


def _trusted(folder: Path | None) -> tuple[PublicKey, ...]:
    return keys.trusted(folder or keys.trust_folder())


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


class _Command(click.Command):
    """A command whose help keeps the lines of its examples; click looks for the character, a raw string has two."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "help": (options.get("help") or "").replace("\\b", "\b")})


class _Group(_Command, click.Group):
    """Commands of this kind."""

    command_class = _Command


# --- records ---------------------------------------------------------------------------------------------------------


@click.group("records", cls=_Group, short_help="Change records: list, show, verify, search, render, export.")
def records() -> None:
    r"""The change records that runs leave: signed, chained, and readable without this program.

    \b
    Examples:
      runbooks records list
      runbooks records show 3f9a2c
      runbooks records verify --all --anchor kept-heads.txt
      runbooks records search 証明書 6.4.2
      runbooks records render --zone Asia/Tokyo
      runbooks records export 3f9a2c
    """


@records.command("list")
@_common
def list_(folder: Path | None, as_json: bool) -> None:
    r"""Every run, the newest first, and whether it ended.

    \b
    Examples:
      runbooks records list
      runbooks records list --records records --json
    """
    _show_summaries(index.search(_open(folder), ()), as_json)


@records.command()
@click.argument("words", nargs=-1, required=True)
@_common
def search(words: Sequence[str], folder: Path | None, as_json: bool) -> None:
    r"""The records in which all WORDS occur, each from its beginning on; Japanese too.

    \b
    Examples:
      runbooks records search KnativeServing
      runbooks records search 証明書 更新
    """
    _show_summaries(index.search(_open(folder), words), as_json)


def _show_summaries(found: Sequence[index.Summary], as_json: bool) -> None:
    if as_json:
        _print_json([summary.as_dict() for summary in found])
        return
    if not found:
        click.echo("no records")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "state", "outcome", "ticket", "user"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "id")
    for one in found:
        style = {"unfinished": "red", "running": "yellow"}.get(one.state, "")
        state = f"[{style}]{one.state}[/]" if style else one.state
        fields = (one.fields[name] for name in ("outcome", "ticket", "user"))
        table.add_row(escape(one.id), state, *map(escape, fields))
    console = _console()
    if not console.is_terminal:
        console.width = 200  # whoever reads it has no lines to break
    console.print(table)


@records.command()
@click.argument("name", metavar="ID")
@_common
def show(name: str, folder: Path | None, as_json: bool) -> None:
    r"""What one record says. ID is a run's id, or a part of it that no other has.

    \b
    Examples:
      runbooks records show 3f9a2c
      runbooks records show 20261123T135816Z --json
    """
    record = _open(folder).record(name)
    facts = record.facts()
    if as_json:
        entries = [{**_entry(record, phase), "phase": phase} for phase in record.phases]
        _print_json({"id": record.id, "state": record.state, "entries": entries, "facts": facts})
        return
    _show_facts(record, facts)


def _entry(record: Record, phase: str) -> dict[str, str]:
    entry = record.phases[phase]
    return {"envelope": entry.envelope, "signed": entry.signed, "file": str(record.folder / f"{phase}.dsse.json")}


def _show_facts(record: Record, facts: Mapping[str, Any]) -> None:
    console = _console()
    console.print(f"[bold]{escape(record.id)}[/]  {record.state}")
    for name in ("runbook", "outcome", "time", "actor", "signed_by", "cluster", "change", "plan", "notebook"):
        if text := _line(facts.get(name)):
            console.print(f"  {name:10}{escape(text)}")
    for change in facts.get("objects", ()):
        done = "written" if change.get("written") else "not written"
        console.print(f"  {'object':10}{escape(str(change.get('target')))}: {change.get('operation')}, {done}")
        for item in change.get("fields", ()):
            text = f"{item.get('path')}: {_value(item.get('old'))} → {_value(item.get('new'))}"
            console.print(f"  {'':12}{escape(text)}")
    for check in facts.get("checks", ()):
        verdict = check.get("proof") or check.get("verdict") or ""
        console.print(f"  {'check':10}{escape(str(check.get('title')))}: {escape(str(verdict))}")
    for hit in (facts.get("hygiene") or {}).get("hits", ()):
        console.print(f"  {'secret':10}[red]{escape(_line(hit))}[/]")
    for doubt in facts.get("cannot_be_vouched_for", ()):
        console.print(f"  {'unvouched':10}{escape(doubt)}")
    for phase, entry in record.phases.items():
        console.print(f"  {'signed':10}{phase} {entry.signed}")
    console.print(f"  {'folder':10}{escape(str(record.folder))}")


def _value(value: Any) -> str:
    return "(none)" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _line(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    return ", ".join(f"{name} {_value(part)}" for name, part in value.items() if not isinstance(part, Mapping))


@records.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every record, and what belongs to none.")
@_anchors
@_trust
@_common
def verify(
    names: Sequence[str],
    everything: bool,
    anchors: Sequence[Path],
    trust: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    r"""Check signatures, digests and order; with --anchor also that nothing was taken away.

    \b
    Exit codes: 0 verified; 1 tampered; 3 not trusted, or it could not be checked;
    4 incomplete: a run without a result, or an adopted notebook.

    \b
    Examples:
      runbooks records verify --all
      runbooks records verify 3f9a2c --trust auditors/keys
      runbooks records verify --all --anchor kept-heads.txt
    """
    if names and everything:
        raise UsageError("runbooks records verify", "it was given ids and --all", "give one of the two")
    try:
        report = verification.verify(_open(folder), _trusted(trust), names or None, anchors)
    except UsageError:
        raise
    except RunbookError as error:  # exit code 1 would say that it was tampered with
        raise NotChecked(error.attempted, error.said, error.remedy) from error
    if as_json:
        _print_json(report.as_dict())
    else:
        _show_report(report)
    raise SystemExit(report.exit_code)


def _show_report(report: Report) -> None:
    console = _console()
    for one in report.found:
        console.print(f"[{_STYLES[one.verdict]}]{one.verdict}[/]  {escape(one.said)}")
    for remark in report.remarks:
        console.print(f"note  {escape(remark)}")
    shown = [one for one in report.records if one.found or one.remarks or len(report.records) <= _MANY]
    for judged in shown:
        _show_judged(judged, console)
    counts = {verdict: sum(one.verdict is verdict for one in report.records) for verdict in Verdict}
    tally = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items() if count) or "no records"
    console.print(f"[{_STYLES[report.verdict]}]{report.verdict}[/]: {tally}; {report.entries:,} entries")
    for verdict in sorted({one.verdict for one in (*report.found, *(f for r in report.records for f in r.found))}):
        console.print(escape(f"{verdict}: {verification.REMEDIES[verdict]}"))
    console.print(escape(report.rollback))
    if report.head:
        console.print(escape(report.head))


def _show_judged(judged: Judged, console: Console) -> None:
    console.print(f"[{_STYLES[judged.verdict]}]{judged.verdict:11}[/] {escape(judged.id)}")
    for one in judged.found:
        console.print(f"{'':12}{escape(one.said)}")
    for remark in judged.remarks:
        console.print(f"{'':12}{escape(remark)}")


@records.command()
@_common
def head(folder: Path | None, as_json: bool) -> None:
    r"""The signed head in one line: keep it in a ticket, a git remote or a ConfigMap.

    \b
    Examples:
      runbooks records head >> kept-heads.txt
    """
    archive = _open(folder)
    if as_json:
        _print_json({"archive": archive.id, "head": archive.head})
    else:
        click.echo(archive.head or "no entries yet")


@records.command("export")
@click.argument("name", metavar="ID")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The zip's file.  [default: ID.zip]")
@_trust
@_common
def export_(name: str, output: Path | None, trust: Path | None, folder: Path | None, as_json: bool) -> None:
    r"""One record as a zip that is checked with bash, jq and openssl, by the README inside it.

    The zip holds the log of the whole archive, that is the ids of all runs, and the notebook of this one.

    \b
    Examples:
      runbooks records export 3f9a2c
      runbooks records export 3f9a2c -o CHG0031337.zip
    """
    archive = _open(folder)
    record = archive.record(name)
    content = export.bundle(archive, record, _trusted(trust))
    output = output or Path(f"{record.id}.zip")
    export.save(output, content)
    if as_json:
        _print_json({"id": record.id, "file": str(output), "sha256": log.digest(content)})
    else:
        click.echo(f"{output}\nunzip it, then: bash verify.sh key.pem")


@records.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Every record; what is done where no ID is given.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for the pages.  [default: the archive]")
@click.option("--zone", envvar="RUNBOOKS_ZONE", help="Show times in this zone besides UTC; $RUNBOOKS_ZONE.")
@_anchors
@_trust
@_common
def render(
    names: Sequence[str],
    everything: bool,
    output: Path | None,
    zone: str | None,
    anchors: Sequence[Path],
    trust: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    r"""Records as pages for a browser, and a page of all records: no script, nothing from elsewhere.

    In the archive they lie as record.html beside what they show, and index.html. They are not signed, and can be made
    anew at any time.

    \b
    Examples:
      runbooks records render
      runbooks records render 3f9a2c --zone Asia/Tokyo
      runbooks records render --all -o pages
    """
    if names and everything:
        raise UsageError("runbooks records render", "it was given ids and --all", "give one of the two")
    archive, clock = _open(folder), _clock(zone)
    everything_there = archive.records()
    chosen = [archives.pick(everything_there, name) for name in names] or list(everything_there)
    report = verification.verify(archive, _trusted(trust), None, anchors)
    judged = {one.id: one for one in report.records}
    paths = [_page_path(archive, record.id, output) for record in chosen]
    index_path = (output or archive.path).absolute() / "index.html"
    refused = []
    for record, path in zip(chosen, paths, strict=True):
        subject = _subject(archive, record, judged[record.id], report, links=output is None)
        back = "index.html" if output else "../../index.html"
        refused += _write_page(path, page.record_page(subject, clock, back))
    refused += _write_page(index_path, _index(archive, report, clock, output))
    if refused:
        remedy = "such a page was not written, the others were; change the secret"
        raise SecretFound("rendering records", "; ".join(refused[:3]), remedy)
    if as_json:
        _print_json({"index": str(index_path), "pages": [str(path) for path in paths]})
        return
    for path in paths if len(paths) <= _MANY else ():
        click.echo(path)
    click.echo(index_path)


def _clock(zone: str | None) -> page.Clock:
    now = dt.datetime.now(dt.UTC)
    if not zone or zone == "UTC":
        return page.Clock(now)
    try:
        return page.Clock(now, zoneinfo.ZoneInfo(zone), zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"showing times in the zone {zone}", "there is none here", "see tzselect, or Asia/Tokyo"
        ) from error


def _page_path(archive: Archive, name: str, output: Path | None) -> Path:
    return output.absolute() / f"{name}.html" if output else archive.path / "records" / name / verification.PAGE


def _write_page(path: Path, text: str) -> list[str]:
    """Write a page; one with a secret in it is not written, and which secret is returned."""
    content = text.encode(errors="backslashreplace")
    if hits := hygiene.scan(content):
        return [f"{hit.secret} in {path}" for hit in hits]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(path, content, durable.READABLE)
    except OSError as error:
        said = "the disk is full" if durable.is_full(error) else error.strerror or str(error)
        raise RecordError(f"writing {path}", said, "name another folder with -o") from error
    return []


def _subject(archive: Archive, record: Record, judged: Judged, report: Report, *, links: bool) -> page.Subject:
    """What a page shows, as far as it can be read; verification says what is wrong with the rest."""
    try:
        facts = record.facts()
    except RecordError:
        facts = {}
    notebook, missing = _signed_notebook(record)
    place = (archive.id, str(archive.path))
    return page.Subject(record, facts, notebook, missing, judged, report.rollback, place, links)


def _signed_notebook(record: Record) -> tuple[dict[str, Any] | None, str]:
    """The executed notebook, where it is what was signed; or why it is not shown."""
    try:
        subjects = record.statement(record.entries[-1]).subjects
        names = [name for name in subjects if name.endswith(".ipynb") and not name.startswith(statement.STAND_INS)]
        if not names or "/" in names[0]:
            return None, "no executed notebook belongs to this record"
        content = archives.read_file(record.folder / names[0])
        if log.digest(content) != subjects[names[0]]:
            return None, f"{names[0]} is not what was signed, so it is not shown"
        return adoption.parse(content, names[0]), ""
    except RecordError as error:
        return None, f"it cannot be shown: {error.attempted}: {error.said}"


def _index(archive: Archive, report: Report, clock: page.Clock, output: Path | None) -> str:
    """The page of all records; those that have no page yet are named without a link."""
    verdicts = {one.id: str(one.verdict) for one in report.records}
    lines = []
    for one in index.search(archive, ()):
        path = _page_path(archive, one.id, output)
        address = "" if not path.exists() else path.name if output else f"records/{one.id}/{path.name}"
        verdict = verdicts.get(one.id, "not checked")  # it began after the others were
        lines.append(page.Line(one.id, one.state, one.signed, one.fields, verdict, address))
    said = [*(found.said for found in report.found), *report.remarks, report.rollback]
    return page.index_page(lines, (archive.id, str(archive.path)), str(report.verdict), said, report.head, clock)


@records.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@_common
def add(files: Sequence[Path], folder: Path | None, as_json: bool) -> None:
    r"""Adopt notebooks that plain papermill, Airflow or JupyterLab executed, as what they are.

    The notebooks stay where they are. What cannot be vouched for is listed, and verify calls them incomplete.

    \b
    Examples:
      runbooks records add ~/airflow/output/*.ipynb
    """
    archive = _open(folder, signing=True)
    found = adopting.adopt(archive, files)
    if as_json:
        told = [{"id": one.id, "file": str(one.file), "cannot_be_vouched_for": list(one.doubts)} for one in found]
        _print_json(told)
        return
    for one in found:
        click.echo(f"{one.id}  {one.file}")
        for doubt in one.doubts:
            click.echo(f"  cannot be vouched for: {doubt}")
    click.echo(archive.head)


@records.command()
@_common
def pending(folder: Path | None, as_json: bool) -> None:
    r"""Runs without a result: those that go on, and those that vanished. Exit code 4 where one vanished.

    \b
    Examples:
      runbooks records pending
    """
    found = [record for record in _open(folder).records() if record.state in ("running", "unfinished")]
    vanished = any(record.state == "unfinished" for record in found)
    if as_json:
        _print_json([_pending(record) for record in found])
    else:
        for record in found:
            announced = "had announced changes" if "intent" in record.phases else "had announced no change"
            click.echo(f"{record.id}  {record.state}, {announced}")
        click.echo("runbooks records recover closes those that vanished" if vanished else "nothing to recover")
    raise SystemExit(verification.EXIT_CODES[Verdict.INCOMPLETE] if vanished else 0)


def _pending(record: Record) -> dict[str, Any]:
    return {"id": record.id, "state": record.state, "intent": "intent" in record.phases}


@records.command()
@click.argument("names", nargs=-1, metavar="[ID]...")
@_common
def recover(names: Sequence[str], folder: Path | None, as_json: bool) -> None:
    r"""Close runs that vanished, with what they left behind; all of them where no ID is given.

    \b
    A run that had announced changes is compared with its cluster, with the run's own parameters; nothing is changed.

    \b
    Examples:
      runbooks records recover
      runbooks records recover 3f9a2c
    """
    archive = _open(folder, signing=True)
    archive.settle()
    everything = archive.records()
    chosen = [archives.pick(everything, name) for name in names] if names else list(archives.unfinished(everything))
    for record in chosen:
        if record.state not in ("unfinished", "running"):
            raise UsageError(f"recovering {record.id}", f"it is {record.state}", "runbooks records pending lists those")
    found = [recovery.close(archive, record) for record in chosen]
    if as_json:
        _print_json(found)
        return
    for one in found:
        click.echo(f"{one['id']}  recovered: {one['reason']}")
    click.echo(archive.head if found else "nothing to recover")


# --- keys ------------------------------------------------------------------------------------------------------------


@click.group("keys", cls=_Group, short_help="The key that signs records.")
def keys_() -> None:
    r"""The Ed25519 key that signs records: $RUNBOOKS_KEY, or a file in your configuration directory.

    A key in a file can be used by whoever runs the runbooks. It proves that nobody else changed a record; against its
    own holder helps a head that is kept elsewhere (runbooks records head).

    \b
    Examples:
      runbooks keys init
      runbooks keys show > prod-bastion.pem
    """


@keys_.command("init")
@_json
def init(as_json: bool) -> None:
    r"""Make the signing key, readable by you alone; never replaces one.

    \b
    Examples:
      runbooks keys init
      RUNBOOKS_KEY=/etc/runbooks/signing.key runbooks keys init
    """
    path = keys.default_path()
    made = keys.create(path)
    trusted = keys.trust_folder(path) / f"{made.public.id}.pem"
    if as_json:
        _print_json({"id": made.public.id, "key": str(path), "public": str(trusted)})
    else:
        click.echo(f"key {made.public.id}\nprivate  {path} (mode 0600)\npublic   {trusted}")
        click.echo("Give the public file, and the id by another way, to whoever checks the records.")


@keys_.command("show")
@_json
def show_key(as_json: bool) -> None:
    r"""The public half as PEM on standard output, its id on the other.

    \b
    Examples:
      runbooks keys show > prod-bastion.pem
    """
    public = keys.load().public
    if as_json:
        _print_json({"id": public.id, "key": str(keys.default_path()), "pem": public.pem.decode()})
        return
    click.echo(f"key {public.id}", err=True)
    click.echo(public.pem.decode(), nl=False)
