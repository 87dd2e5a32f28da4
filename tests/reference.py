"""Write what is made from the code: reference pages, and the notebooks' ``parameters`` cells (``make docs``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from runbooks.parameters import Parameters, cell_source, example, wanted
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Section

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = DOCS.parent / "notebooks"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def steps() -> str:
    """Documented step, the cells that carry it out, and the checks that prove it."""
    lines = ["# From the documented step to its proof", "", "Made from `runbooks.procedure` by `make docs`.", ""]
    for section in SECTIONS.values():
        lines += [f"## {section.number} {section.title}", "", f"{section.heading_ja}. Changes: {section.changes}.", ""]
        if not section.steps:
            lines.append("It judges what the other sections ask for; each finding names the section and what to do.")
        else:
            lines += ["| documented step | cells | replaces | proven by |", "|---|---|---|---|"]
        for step in section.steps:
            verbs = ["apply", *(["wait"] if step.awaits else []), *(["prove"] if step.checks else [])]
            cells = ", ".join(f"`{verb}-{step.id}`" for verb in verbs)
            commands = "<br>".join(f"`{_cell(command)}`" for command in step.replaces)
            checks = "<br>".join(check.title for check in step.checks) or "a later step's proofs"
            lines.append(f"| {step.title}<br>{_cell(step.title_ja)} | {cells} | {commands} | {checks} |")
        if section.errata:
            lines += ["", "Where the page is wrong, stale or contradicts itself:", ""]
        for item in section.errata:
            lines.append(
                f"- The page: {item.said}. Here: {item.done}, because {item.reason} ({item.versions}; {item.source})."
            )
        lines.append("")
    return "\n".join(lines)


def parameters() -> str:
    """Every parameter with its type, default and meaning."""
    lines = [
        "# Parameters",
        "",
        "Made from `runbooks.parameters` by `make docs`. `runbooks list SECTION` prints the same.",
        "",
    ]
    lines += ["## Shared by all runbooks (`cluster.yaml`)", "", *_table(Parameters, ())]
    for section in SECTIONS.values():
        own = _table(section.model, Parameters.model_fields)
        if len(own) > 2:
            lines += ["", f"## {section.number} (`{section.stem}.yaml`)", "", *own]
    return "\n".join([*lines, ""])


def limits(field: FieldInfo) -> str:
    """How long a text may be and how large a number; a name is bounded by its pattern already."""
    rules: list[Any] = [*field.metadata, *(rule for one in get_args(field.annotation) for rule in get_args(one))]
    longest = [rule.max_length for rule in rules if getattr(rule, "max_length", None)]
    bounds = [getattr(rule, end) for end in ("ge", "le") for rule in rules if hasattr(rule, end)]
    if bounds:
        return f" from {bounds[0]:,} to {bounds[1]:,}"
    narrower = any("{0,61}" in str(getattr(rule, "pattern", "")) for rule in rules)
    if not longest or (narrower and len(longest) == 1):
        return ""
    return f"{', each' if get_args(field.annotation) else ','} of at most {min(longest):,} characters"


def _table(model: type[Parameters], without: object) -> list[str]:
    lines = ["| parameter | wanted | default | meaning | example |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name not in without:  # type: ignore[operator]
            default = "" if field.default in ("", []) else f"`{field.default}`"
            meaning = _cell(field.description or "")
            lines.append(f"| `{name}` | {wanted(field)}{limits(field)} | {default} | {meaning} | `{example(field)}` |")
    return lines


def notebook(section: Section) -> str:
    """The notebook's source with the ``parameters`` cell of its schema."""
    content = json.loads((NOTEBOOKS / f"{section.stem}.ipynb").read_text())
    for cell in content["cells"]:
        if cell["id"] == "parameters":
            cell["source"] = cell_source(section.model).splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


PAGES = {"steps.md": steps, "parameters.md": parameters}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    for section in SECTIONS.values():
        (NOTEBOOKS / f"{section.stem}.ipynb").write_text(notebook(section))
