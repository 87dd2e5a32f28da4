"""``runbooks``: the command line over the notebooks. Words for people go here; what happens is decided elsewhere."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from runbooks import cli_records, environments
from runbooks import run as runs
from runbooks.errors import ParameterError, RunbookError, UsageError, visible
from runbooks.handled_secrets import environment
from runbooks.parameters import (
    Parameters,
    allowed_values,
    check,
    example,
    from_text,
    read_file,
    unknown,
    wanted,
)
from runbooks.procedure import SECTIONS, path_of, section_of
from runbooks.procedure.needed_rights import rights_to_read, rights_to_write
from runbooks.procedure.section import Section
from runbooks.record import hygiene
from runbooks.record.archive import VARIABLE, Archive, default_folder
from runbooks.record.keys import trust_folder, trusted
from runbooks.recorder import Recorder, signing_key
from runbooks.render import manifests_of
from runbooks.rights import roles
from runbooks.run import Interrupted, Ran
from runbooks.situation import Situation
from runbooks.verdicts import Outcome, Proof
from runbooks.versions import OLDEST_SERVERLESS

_APP = "serverless-mesh-runbooks"
_STYLES = {0: "green", 1: "red", 2: "yellow"}
_MODES = ("verify", "plan", "apply")


class _Commands(click.Group):
    """The commands of this package, and those that an installed extra adds by entry point."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), "sandbox"})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None:
            for entry in metadata.entry_points(group="runbooks.commands", name=cmd_name):
                return entry.load()  # type: ignore[no-any-return]
        if found is None and cmd_name == "sandbox":
            return _absent_sandbox
        return found


@click.command(
    "sandbox",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    short_help="The local control plane (an extra that is not installed).",
    add_help_option=False,
)
def _absent_sandbox() -> None:
    """The local control plane is an extra: it does not belong on a production bastion."""
    raise UsageError(
        "runbooks sandbox",
        "the sandbox is an extra and is not installed here",
        "pip install ./lib/runbooks_sandbox in the project's folder",
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version(_APP), prog_name="runbooks")
def cli() -> None:
    """Integrate Service Mesh with OpenShift Serverless: planned, applied and proven by notebooks.

    \b
    Examples:
      runbooks list
      runbooks run all --parameters parameters/sandbox
      runbooks run 6.4.2 6.4.3 --parameters parameters/prod-a --mode apply
      runbooks sandbox start

    \b
    Exit codes of run: 0 as desired, no changes, or done and proven; 2 drift or changes pending;
    1 failed, blocked or could not tell; 64 wrong call; 130 and 143 ended by a signal.
    """


# --- list --------------------------------------------------------------------------------------------------------


@cli.command("list")
@click.argument("names", nargs=-1, metavar="[SECTION]...")
@click.option("--parameters", "folder", type=click.Path(path_type=Path), help="Folder of an environment, for --rbac.")
@click.option("--rbac", is_flag=True, help="Print the roles that --mode needs, as YAML to apply.")
@click.option("--mode", type=click.Choice(_MODES), default="verify", show_default=True, help="For --rbac.")
@click.option(
    "--subject",
    default="ops/runbooks",
    show_default=True,
    metavar="NAMESPACE/SERVICEACCOUNT",
    help="Who gets the rights of --rbac.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(names: Sequence[str], folder: Path | None, rbac: bool, mode: str, subject: str, as_json: bool) -> None:
    """The runbooks, what they change, their parameters, the rights they need.

    \b
    Examples:
      runbooks list
      runbooks list 6.4.3
      runbooks list --rbac --mode apply --parameters parameters/prod-a --subject ops/nightly
    """
    _end_with_the_reader()
    sections = _sections(names, "") if names else tuple(SECTIONS.values())
    if rbac:
        click.echo(_rbac(sections, folder, mode, subject), nl=False)
    elif as_json:
        click.echo(json.dumps([_section_dict(section) for section in sections], indent=2, ensure_ascii=False))
    elif names:
        _show_sections(sections)
    else:
        _show_overview(sections)


def _section_dict(section: Section) -> dict[str, Any]:
    return {
        "section": section.number,
        "notebook": f"{section.stem}.ipynb",
        "title": section.title,
        "heading_ja": section.heading_ja,
        "path": section.path,
        "changes": section.changes,
        "steps": [{"id": step.id, "title": step.title, "title_ja": step.title_ja} for step in section.steps],
        "errata": [
            {
                "said": one.said,
                "done": one.done,
                "reason": one.reason,
                "versions": str(one.versions),
                "basis": one.source,
            }
            for one in section.errata
        ],
        "parameters": {
            name: {"wanted": wanted(field), "default": field.default, "description": field.description}
            for name, field in section.model.model_fields.items()
        },
    }


def _show_overview(sections: Iterable[Section]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("section", "notebook", "changes"):
        table.add_column(heading, overflow="fold")
    for section in sections:
        table.add_row(section.number, section.stem, section.changes)
    Console().print(table)
    click.echo("\nrunbooks list SECTION shows its steps and parameters.")


def _show_sections(sections: Iterable[Section]) -> None:
    console = Console(highlight=False)
    for section in sections:
        console.print(f"[bold]{section.number} {escape(section.title)}[/]  {section.heading_ja}")
        console.print(f"Changes: {escape(section.changes)}. Path: {section.path}. Notebook: {section.stem}.ipynb\n")
        for step in section.steps:
            console.print(f"  {step.id:18}{escape(step.title)}")
        console.print("\nWhat the page says, and what is done here:")
        for one in section.errata:
            console.print(f"  {one.versions}: {escape(f'{one.said} → {one.done} ({one.reason}; {one.source})')}")
        console.print()
        table = Table(box=None, pad_edge=False)
        for heading in ("parameter", "wanted", "default", "meaning"):
            table.add_column(heading, overflow="fold")
        for name, field in section.model.model_fields.items():
            meaning = field.description or ""
            shown = "" if field.default in ("", []) else json.dumps(field.default, ensure_ascii=False)
            if not (allowed_values(field) or shown):
                meaning += f" (example: {example(field)})"
            table.add_row(name, escape(wanted(field)), escape(shown), escape(meaning))
        console.print(table)


def _rbac(sections: Iterable[Section], folder: Path | None, mode: str, subject: str) -> str:
    if folder is None:
        raise UsageError("listing the roles", "which namespaces they are for is a parameter", "give --parameters DIR")
    namespace, _, name = subject.partition("/")
    if not (namespace and name):
        said = "it names no ServiceAccount"
        raise UsageError(
            f"reading --subject {subject}", said, "write NAMESPACE/SERVICEACCOUNT, for example ops/nightly"
        )
    rights = set()
    for section in sections:
        values = _values(section, folder, (), mode)
        given = _checked(section, values, folder)
        rights |= set(rights_to_read(section, given))
        if mode != "verify":
            rights |= set(rights_to_write(section, Situation(given, dt.datetime.now(dt.UTC))))
    account = {"kind": "ServiceAccount", "namespace": namespace, "name": name}
    documents = roles(rights, f"runbooks-{mode}", account)
    head = (
        f"# What mode {mode} needs. A Role for a namespace that does not exist yet can be applied when it does.\n"
        "# To prove the cluster-local name too: create on pods/portforward in the mesh namespace.\n"
    )
    return head + yaml.safe_dump_all(documents, sort_keys=False)


# --- render ------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("names", nargs=-1, required=True, metavar="SECTION...|all")
@click.option(
    "--parameters", "folder", required=True, type=click.Path(path_type=Path), help="Folder of an environment."
)
@click.option("-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set one parameter; may be repeated.")
def render(names: Sequence[str], folder: Path, given: Sequence[tuple[str, str]]) -> None:
    """Print the objects that the runbooks want, as YAML for GitOps or review. No cluster is asked.

    \b
    What a version decides follows serverless_version, or else the oldest one. Secrets come without values.

    \b
    Examples:
      runbooks render all --parameters parameters/prod-a > mesh.yaml
      runbooks render 6.4.3 --parameters parameters/prod-a -p local_gateway https
    """
    _end_with_the_reader()
    ingress = _ingress(folder, given)
    sections = _sections(names, ingress)
    _refuse_unknown(sections, given)
    if strangers := [section.number for section in sections if section.path not in ("both", ingress)]:
        said = f"cluster.yaml says ingress: {ingress}, and that is of the other path"
        raise UsageError(f"rendering {', '.join(strangers)}", said, "set ingress, or name sections of this path")
    for section in sections:
        values = _values(section, folder, given, "verify")
        situation = Situation(_checked(section, values, folder), dt.datetime.now(dt.UTC))
        if situation.profile.serverless < OLDEST_SERVERLESS:
            said = f"serverless_version {situation.profile.serverless.line} is older than {OLDEST_SERVERLESS.line}"
            raise UsageError(f"rendering {section.number}", said, "update the operator, then state its new version")
        click.echo(manifests_of(section, situation), nl=False)


# --- copy --------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def copy(folder: Path) -> None:
    """Copy the notebooks and the example parameters to DIR, to step through them in JupyterLab.

    \b
    What is there already is kept, so that nothing that you saved is lost.

    \b
    Examples:
      runbooks copy ~/work && cd ~/work && jupyter lab index.ipynb
    """
    _end_with_the_reader()
    source = runs.notebooks()
    examples = next(beside / "parameters" for beside in (source, source.parent) if (beside / "parameters").is_dir())
    copies = [(path, folder / path.name) for path in sorted(source.glob("*.ipynb"))]
    copies += [(path, folder / "parameters" / path.relative_to(examples)) for path in sorted(examples.rglob("*.yaml"))]
    try:
        for path, copied in copies:
            if not copied.exists():
                copied.parent.mkdir(parents=True, exist_ok=True)
                copied.write_bytes(path.read_bytes())
            elif copied.read_bytes() != path.read_bytes():
                click.echo(f"kept as it is: {copied}")
    except OSError as error:
        raise UsageError(f"copying to {folder}", str(error), "name a folder that can be written") from error
    click.echo(f"{folder / 'index.ipynb'} is the page to begin with")


# --- run ---------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("names", nargs=-1, required=True, metavar="SECTION...|all")
@click.option(
    "--parameters",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of an environment: cluster.yaml and one file for each runbook.",
)
@click.option("--mode", type=click.Choice(_MODES), help="verify, plan (the default) or apply.")
@click.option(
    "--records",
    type=click.Path(path_type=Path),
    envvar=VARIABLE,
    help="Where the executed notebooks go, one folder a run; $RUNBOOKS_RECORDS.  [default: your data directory]",
)
@click.option("-p", "given", nargs=2, multiple=True, metavar="NAME VALUE", help="Set one parameter; may be repeated.")
@click.option("--approve", multiple=True, metavar="DIGEST", help="Apply only the plan of this digest; one a runbook.")
@click.option("--approved-by", metavar="NAME", help="Who approved it.")
@click.option("--approve-until", metavar="TIME", help="Until when, for example 2026-12-01T06:00:00+09:00.")
@click.option("--json", "as_json", is_flag=True, help="The outcomes as JSON on standard output, progress on the other.")
def run(
    names: Sequence[str],
    folder: Path,
    mode: str | None,
    records: Path | None,
    given: Sequence[tuple[str, str]],
    approve: Sequence[str],
    approved_by: str | None,
    approve_until: str | None,
    as_json: bool,
) -> None:
    """Run one runbook, several, or all of a cluster's path, in the documented order.

    \b
    Examples:
      runbooks run all --parameters parameters/sandbox --mode apply
      runbooks run 6.4.3 --parameters parameters/prod-a --mode verify --json
      runbooks run 6.4.3 --parameters parameters/prod-a -p members shop,billing
      runbooks run 6.4.3 --parameters parameters/prod-a --mode apply \\
        --approve plan-sha256:… --approved-by Sato
    """
    sections = _sections(names, _ingress(folder, given))
    approval = {"approve": list(approve), "approved_by": approved_by, "approve_until": approve_until}
    approval = {name: value for name, value in approval.items() if value}
    calls = [(section, _values(section, folder, given, mode) | approval) for section in sections]
    _refuse_unknown(sections, given)
    checked = [_checked(section, values, folder) for section, values in calls]
    console = _Screen(stderr=as_json, highlight=False, soft_wrap=True)
    signer, said = signing_key(sandbox=all(parameters.context == "sandbox" for parameters in checked))
    if said:
        console.print(escape(said))
    archive = Archive.open(records or default_folder(), signer=signer, trusted=trusted(trust_folder()))
    found: list[Ran] = []
    for (section, values), parameters in zip(calls, checked, strict=True):
        earlier = [ran.section for ran in found]
        if parameters.mode == "apply" and any(ran.exit_code == 1 for ran in found):
            found.append(runs.not_run(section, f"{earlier[-1]} did not end well"))
            continue
        try:
            found.append(_run_one(section, {**values, "preceded_by": earlier}, parameters, archive, console))
        except KeyboardInterrupt as error:
            _show_outcomes(found, console)
            said = "its record says how far it came. Run the same again: it goes on"
            if error.__cause__:  # why there is no record, or one without the notebook
                said = str(error.__cause__)
            console.print(f"{section.number}  interrupted; {escape(said)}")
            raise
    code = runs.overall(found)
    if as_json:
        told = {"exit_code": code, "head": archive.head, "runs": [ran.as_dict() for ran in found]}
        click.echo(json.dumps(told, indent=2))
    else:
        _show_outcomes(found, console)
        where = escape(_short(archive.path))
        console.print(f"[dim]signed records in {where}: runbooks records verify --all --records {where}[/]")
        console.print(f"[dim]{archive.head}[/]")  # to be kept elsewhere
    raise SystemExit(code)


class _Screen(Console):
    """A console whose reader may go away: a run that changes a cluster goes on to its end, in silence."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def _end_with_the_reader() -> None:
    """Let a command that only prints end as soon as nobody reads any more (``| head``), as Unix tools do."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _ingress(folder: Path, given: Iterable[tuple[str, str]]) -> str:
    return str(dict(given).get("ingress") or read_file(folder / "cluster.yaml").get("ingress", "istio"))


def _sections(names: Sequence[str], ingress: str) -> tuple[Section, ...]:
    if "all" in names:
        return path_of(ingress)
    found = {name: section_of(name) for name in names}
    if missing := [name for name, section in found.items() if section is None]:
        raise UsageError(
            f"looking for the runbook {' and '.join(missing)}",
            "there is none of that name",
            f"one of {', '.join(SECTIONS)}, a notebook's name, or all",
        )
    return tuple(section for section in SECTIONS.values() if section in found.values())


def _values(section: Section, folder: Path, given: Iterable[tuple[str, str]], mode: str | None) -> dict[str, Any]:
    """The parameters of one runbook: the environment's files, then the command line."""
    values = environments.read(section, folder)
    for name, text in given:
        if name in section.model.model_fields:
            values[name] = from_text(section.model, name, text)
    return values | ({"mode": mode} if mode else {})


def _checked(section: Section, values: Mapping[str, Any], folder: Path) -> Parameters:
    return check(section.model, values, environments.files(section, folder))


def _refuse_unknown(sections: Sequence[Section], given: Iterable[tuple[str, str]]) -> None:
    for name, _ in given:
        if not any(name in section.model.model_fields for section in sections):
            said = "; ".join(unknown([name], sections[-1].model))
            raise ParameterError(f"reading -p {name}", said, "runbooks list SECTION shows the parameters")


def _run_one(
    section: Section, values: Mapping[str, Any], parameters: Parameters, archive: Archive, console: Console
) -> Ran:
    console.print(f"[bold]{section.number} {escape(section.title)}[/] ({parameters.mode})")
    with Recorder(archive, section, parameters.mode, values) as recorder:
        console.print(f"  [dim]{'record':24}[/]{escape(recorder.run.id)}")
        with _Progress(console, recorder.shown) as progress:
            ran = runs.execute(section, values, recorder.folder, progress, recorder, recorder.kept)
    style = _STYLES.get(ran.exit_code, "red")
    console.print(f"  [{style}]{escape(ran.outcome)}[/]: {escape(visible(ran.reason))} ({ran.seconds:.1f} s)\n")
    return ran


class _Progress:
    """What a run does, a line for each cell; on a terminal the cell that runs is shown too, with its time."""

    def __init__(self, console: Console, shown: Callable[[str], str]) -> None:
        self._console = console
        self._shown: Callable[[str], str] = lambda line: escape(visible(shown(line)))
        self._status: Status | None = console.status("starting a kernel") if console.is_terminal else None
        self._cell, self._since = "", 0.0

    def __enter__(self) -> _Progress:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def began(self, cell: str) -> None:
        self._cell, self._since = cell, time.monotonic()
        if self._status:
            self._status.update(f"{cell}")

    def said(self, line: str) -> None:
        if self._status:
            self._status.update(f"{self._cell}: {self._shown(line)}")
        else:
            self._console.print(f"    {self._shown(line)}")

    def ended(self, cell: str, brief: Iterable[str]) -> None:
        first, *rest = [*brief] or [""]
        if cell in ("parameters", "injected-parameters", "verdict", "outcome") or not first:
            return
        seconds = time.monotonic() - self._since
        took = f"  [dim]{seconds:.1f} s[/]" if seconds >= 1 else ""
        style = "red" if first == "failed" else ""
        text = f"[{style}]{self._shown(first)}[/]" if style else self._shown(first)
        self._console.print(f"  [dim]{cell:24}[/]{text}{took}")
        indent = 4 if cell == "plan" else 26  # the lines of a review are long
        for line in rest:
            self._console.print(f"{'':{indent}}{self._shown(line)}")


def _show_outcomes(found: Sequence[Ran], console: Console) -> None:
    width = max((len(ran.outcome) for ran in found), default=0)
    for ran in found:
        outcome = f"[{_STYLES.get(ran.exit_code, 'red')}]{escape(ran.outcome):{width}}[/]"
        console.print(f"{ran.section}  {outcome}  {ran.seconds:5.1f} s  {escape(_short(ran.notebook))}")
        if ran.outcome == Outcome.NOT_RUN:
            console.print(f"       {'':{width}}because {escape(visible(ran.reason))}")
        proven = [check["title"] for check in ran.facts.get("checks", ()) if check["proof"] == Proof.PROVEN]
        for title in proven:
            console.print(f"       [dim]{'':{width}}[/][green]✓[/] {escape(title)}")
        if ran.outcome == Outcome.CHANGES_PENDING:
            digest = ran.facts["plan"]["digest"]
            console.print(f"       [dim]to apply just this: --mode apply --approve {digest} --approved-by NAME[/]")


def _short(path: Path | None) -> str:
    """A path as seen from here, where that is shorter."""
    if path is None:
        return ""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


for _group in (cli_records.records, cli_records.keys_):
    cli.add_command(_group)


# --- the process -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let a signal end the kernel and the run in good order."""

    def end(signum: int, _: object) -> None:
        raise Interrupted(signum)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, end)
    yield


def main() -> None:
    """The console script: errors in a few lines, and the documented exit codes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 it stays open as long as we run
    try:
        with _signals():
            cli.main(standalone_mode=False)
    except RunbookError as error:
        _fail(error.lines(), error.exit_code)
    except click.UsageError as error:
        hint = f"See: {error.ctx.command_path} --help" if error.ctx else ""
        _fail([error.format_message(), *filter(None, [hint])], UsageError.exit_code)
    except click.ClickException as error:
        _fail(error.format_message().splitlines(), 1)
    except (KeyboardInterrupt, click.Abort) as error:
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        signum = cause.signum if isinstance(cause, Interrupted) else signal.SIGINT
        _fail([f"ended by {signal.Signals(signum).name}"], 128 + signum)
    except OSError as error:  # of our own output: everything else is explained where it happens
        _fail([f"writing the output: {error.strerror or error}", "What to do: make room, or send it elsewhere"], 1)


def _fail(lines: Sequence[str], code: int) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    known = environment(os.environ)  # whatever was typed into the wrong place
    first, *rest = (hygiene.shown(line, known) for line in lines)
    console.print(f"[red]runbooks:[/] {escape(first)}")
    for line in rest:
        console.print(escape(line))
    raise SystemExit(code)
