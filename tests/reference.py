"""Write what is made from the code: reference pages, and the notebooks' ``parameters`` cells (``make docs``)."""

from __future__ import annotations

import json
from pathlib import Path

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


def _table(model: type[Parameters], without: object) -> list[str]:
    lines = ["| parameter | wanted | default | meaning | example |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name not in without:  # type: ignore[operator]
            default = "" if field.default in ("", []) else f"`{field.default}`"
            lines.append(
                f"| `{name}` | {wanted(field)} | {default} | {_cell(field.description or '')} | `{example(field)}` |"
            )
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
