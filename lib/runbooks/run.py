"""Running a runbook's notebook under the engine, and reading what came of it.

The outcome is read from the executed notebook, where the last but one cell put it as a structured value; it is never
guessed from the way in which the execution ended.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from runbooks.errors import RunbookError, UsageError
from runbooks.keeper import MIME, Interrupted, Keeper
from runbooks.procedure.section import Section
from runbooks.verdicts import Outcome

__all__ = [
    "Interrupted",
    "Ran",
    "Watcher",
    "execute",
    "not_run",
    "notebook_of",
    "notebooks",
    "overall",
    "read_outcome",
]

_HERE = Path(__file__).parent


class Watcher(Protocol):
    """Who is told how a run gets on."""

    def began(self, cell: str) -> None:
        """A code cell has begun."""

    def said(self, line: str) -> None:
        """The running cell printed a line, for example what it waits for."""

    def ended(self, cell: str, brief: Iterable[str]) -> None:
        """A code cell has ended, with what its result says in brief."""


@dataclass(frozen=True)
class Ran:
    """One run of one runbook.

    Args:
        section: the documented number.
        outcome: in the words of ``Outcome``.
        reason: why.
        exit_code: what it means for the caller.
        seconds: how long it took, kernel included.
        notebook: the executed notebook, or None where nothing was run.
        facts: the structured outcome of the notebook; empty where it never came to it.
    """

    section: str
    outcome: str
    reason: str
    exit_code: int
    seconds: float = 0.0
    notebook: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The run for a program."""
        return {
            "section": self.section,
            "outcome": self.outcome,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 2),
            "notebook": str(self.notebook or ""),
            "facts": dict(self.facts),
        }


def not_run(section: Section, reason: str) -> Ran:
    """What is said of a runbook that an earlier one's failure kept from running."""
    return Ran(section.number, str(Outcome.NOT_RUN), reason, 1)


def overall(runs: Iterable[Ran]) -> int:
    """The exit code of several runs: 1 wins over 2, 2 over 0."""
    codes = {run.exit_code for run in runs}
    return 1 if codes - {0, 2} else max(codes, default=0)


def notebooks() -> Path:
    """The folder of the notebooks: in the package where it is installed, in the repository where it is developed.

    Raises:
        UsageError: it is in neither.
    """
    for folder in (_HERE / "notebooks", _HERE.parent.parent / "notebooks"):
        if folder.is_dir():
            return folder
    raise UsageError("looking for the notebooks", "they are not installed", "install the package anew")


def notebook_of(section: Section) -> Path:
    """The source of a runbook's notebook.

    Raises:
        UsageError: it is not there.
    """
    path = notebooks() / f"{section.stem}.ipynb"
    if not path.is_file():
        raise UsageError(f"looking for the notebook {path.name}", "it is not installed", "install the package anew")
    return path


def execute(
    section: Section,
    parameters: Mapping[str, Any],
    folder: Path,
    watcher: Watcher,
    keeper: Keeper | None = None,
    kept: Callable[[Path], Path] = lambda notebook: notebook,
) -> Ran:
    """Execute a runbook's notebook in a kernel of its own.

    Args:
        section: which runbook.
        parameters: names and values, as they go into the notebook.
        folder: where the executed notebook is written.
        watcher: who is told how it gets on.
        keeper: who keeps the record; nothing is kept without one.
        kept: where the keeper has put the executed notebook.

    Returns:
        How it ended; a notebook that ended without an outcome has failed.

    Raises:
        UsageError: the executed notebook cannot be written; nothing was run.
        Interrupted: a signal asked this process to end; the kernel and the notebook have ended.
    """
    engine = _engine()
    source, target = notebook_of(section), folder / f"{section.stem}.ipynb"
    began, stopped_by, facts_count = time.monotonic(), "", True
    try:
        engine.execute(
            source,
            target,
            parameters,
            keeper=keeper,
            stdout_file=_Lines(watcher),
            on_cell_execute=lambda cell, **_: _began(watcher, cell),
            on_cell_executed=lambda cell, **_: _ended(watcher, cell),
        )
    except engine.CellFailed as error:  # also the last cell's, where the outcome is not what the mode asks for
        stopped_by = _last_words(error)
    except UsageError:
        raise
    except (RunbookError, RuntimeError, OSError) as error:  # the keeper refused, the kernel died, the disk is full
        stopped_by, facts_count = str(error) or type(error).__name__, False
    return _ran(section, kept(target), stopped_by, time.monotonic() - began, facts_count)


def _engine() -> Any:
    # jsonschema compiles a grammar for IRIs at import, 0.7 s that nothing in a notebook needs; it does without
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    from runbooks import engine

    logging.getLogger("papermill").addHandler(logging.NullHandler())  # its warnings would stand between our lines
    return engine


class _Lines(io.TextIOBase):
    """The kernel's standard output, passed on line by line."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._rest = watcher, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._watcher.said(line)
        return len(text)


def _began(watcher: Watcher, cell: Any) -> None:
    if cell.cell_type == "code":  # the cell that papermill adds has no name of its own
        watcher.began("parameters" if "injected-parameters" in cell.metadata.get("tags", []) else cell.get("id", ""))


def _ended(watcher: Watcher, cell: Any) -> None:
    if cell.cell_type != "code":
        return
    brief: list[str] = []
    for output in cell.outputs:
        if output.output_type == "error":
            brief += ["failed", *_error_lines(output)]
        else:
            brief += output.get("data", {}).get(MIME, {}).get("brief", [])
    watcher.ended(cell.get("id", ""), brief)


def _error_lines(output: Any) -> list[str]:
    """What a failed cell said: our errors come as lines to read, others as a traceback whose last line tells."""
    if any(line.startswith(("Traceback", "\x1b")) or "Traceback" in line for line in output.traceback):
        return [f"{output.ename}: {output.evalue}"]
    return list(output.traceback) or [f"{output.ename}: {output.evalue}"]


def _last_words(error: Any) -> str:
    lines = [line for line in error.traceback if "Traceback" not in line]
    return lines[0] if len(lines) == len(error.traceback) and lines else f"{error.ename}: {error.evalue}"


def _ran(section: Section, target: Path, stopped_by: str, seconds: float, facts_count: bool) -> Ran:
    facts, notebook = read_outcome(target), target if target.exists() else None
    if not (facts and facts_count):
        reason = stopped_by or "the notebook ended without an outcome"
        return Ran(section.number, str(Outcome.FAILED), reason, 1, seconds, notebook, facts if facts_count else {})
    return Ran(section.number, facts["outcome"], facts["reason"], int(facts["exit_code"]), seconds, notebook, facts)


def read_outcome(path: Path) -> dict[str, Any]:
    """The structured outcome in an executed notebook; empty where it never came to one, or cannot be read."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        return {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            value = output.get("data", {}).get(MIME, {})
            if value.get("view") == "outcome":
                return dict(value)
    return {}
