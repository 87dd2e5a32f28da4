"""What a notebook that something else executed tells of itself, and what nobody can vouch for; pure."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runbooks.errors import RecordError

_VALUES = {"parameters", "injected-parameters"}  # tags of the cells that are there to be edited
_ALWAYS = (
    "that these outputs are what these cells put out: nothing was signed before the notebook was adopted",
    "who executed it, where and when, beyond what the notebook says itself",
    "that this is the only run, and that it changed nothing else: no start and no intent were signed",
)


def facts(content: bytes, name: str, mime: str, sources: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The facts of a notebook, as far as it has them.

    Args:
        content: its bytes.
        name: its file's name, for messages.
        mime: the MIME type of a runbook's structured values.
        sources: the code of the notebook that it was made from, by the id of its cell; to name what was edited.

    Raises:
        RecordError: it is no notebook.
    """
    notebook = parse(content, name)
    cells = [cell for cell in notebook["cells"] if cell.get("cell_type") == "code"]
    views = {value.get("view"): value for value in _values(cells, mime)}
    papermill = notebook.get("metadata", {}).get("papermill") or {}
    found = {
        **({"plan": views["plan"]} if "plan" in views else {}),
        **views.get("outcome", {}),
        "notebook": {
            **_counts(cells),
            "order": _order(cells),
            "edited": _edited(cells, sources or {}),
            "missing": sorted((sources or {}).keys() - {str(cell.get("id")) for cell in cells}),
        },
        "executed_by": f"papermill {papermill['version']}" if papermill.get("version") else "not known",
    }
    found.setdefault("started", papermill.get("start_time") or "")
    found.setdefault("finished", papermill.get("end_time") or "")
    found.setdefault("outcome", "unknown")
    found["cannot_be_vouched_for"] = [*_ALWAYS, *_doubts(cells, papermill, "outcome" in views)]
    if edited := found["notebook"]["edited"]:
        found["cannot_be_vouched_for"].append(f"the code of {', '.join(edited)}: it was edited")
    if missing := found["notebook"]["missing"]:
        found["cannot_be_vouched_for"].append(f"what {', '.join(missing)} would have shown: the cell was taken out")
    if len(runs := dict.fromkeys(str(value["run"]) for value in _values(cells, mime) if value.get("run"))) > 1:
        found["cannot_be_vouched_for"].append(
            f"that all of it is one run: its cells are of {len(runs)}, {', '.join(runs)}"
        )
    return found


def parse(content: bytes, name: str) -> dict[str, Any]:
    """A notebook, as far as it is looked at here.

    Raises:
        RecordError: it is none.
    """
    try:
        found = json.loads(content)
        if not all(isinstance(cell, dict) for cell in found["cells"]):
            raise TypeError(name)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(f"reading {name}", "it is no notebook", "name an executed .ipynb file") from error
    return dict(found)


def _values(cells: Iterable[Mapping[str, Any]], mime: str) -> Iterator[Mapping[str, Any]]:
    for cell in cells:
        for output in cell.get("outputs", ()):
            value = output.get("data", {}).get(mime)
            if isinstance(value, Mapping):
                yield value


def _counts(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    cells = list(cells)
    counts = [count for cell in cells if (count := cell.get("execution_count")) is not None]
    return {
        "code_cells": len(cells),
        "executed": len(counts),
        "failed": sum(_failed(cell) for cell in cells),
        "in_order": counts == sorted(counts),
    }


def _out_of_order(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """The cells that were executed after a cell that stands below them."""
    found, counted = [], [cell for cell in cells if cell.get("execution_count") is not None]
    for position, cell in enumerate(counted):
        if any(below["execution_count"] < cell["execution_count"] for below in counted[position + 1 :]):
            found.append(str(cell.get("id", "")))
    return found


def _order(cells: Iterable[Mapping[str, Any]]) -> list[str]:
    """The code cells in the order in which they were executed last."""
    executed = [cell for cell in cells if cell.get("execution_count") is not None]
    return [str(cell.get("id", "")) for cell in sorted(executed, key=lambda cell: int(cell["execution_count"]))]


def _edited(cells: Iterable[Mapping[str, Any]], sources: Mapping[str, str]) -> list[str]:
    """The cells whose code is another one than in the runbook, or that it does not have."""
    if not sources:
        return []
    return [str(cell.get("id")) for cell in cells if not _is_own(cell, sources)]


def _is_own(cell: Mapping[str, Any], sources: Mapping[str, str]) -> bool:
    """Whether the code of a cell is the runbook's; the cells that are there to be edited may only set values."""
    code = "".join(cell["source"])
    if not _VALUES.intersection((cell.get("metadata") or {}).get("tags") or ()):
        return code == sources.get(str(cell.get("id")))
    try:
        statements = ast.parse(code).body
        for one in statements:
            if not isinstance(one, ast.Assign | ast.AnnAssign) or one.value is None:
                return False
            ast.literal_eval(one.value)
    except (SyntaxError, ValueError):
        return False
    return True


def _failed(cell: Mapping[str, Any]) -> bool:
    return any(output.get("output_type") == "error" for output in cell.get("outputs", ()))


def _doubts(cells: Iterable[Mapping[str, Any]], papermill: Mapping[str, Any], has_outcome: bool) -> list[str]:
    counts = _counts(cells)
    found = []
    if not has_outcome:
        found.append("how it ended: it has no outcome of a runbook")
    if not counts["in_order"]:
        late = ", ".join(_out_of_order(cells))
        found.append(f"that its cells were executed from top to bottom: their counts say otherwise of {late}")
    if missing := counts["code_cells"] - counts["executed"]:
        found.append(f"{missing} of its {counts['code_cells']} code cells: they were never executed")
    if papermill and not papermill.get("end_time"):
        found.append("its end: papermill did not come to it")
    if papermill:
        found.append("the cells that papermill calls completed: after a kernel died it says so of all that follow")
    return found
