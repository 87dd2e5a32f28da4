"""What the cells of a notebook import, with a person in front of it or not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from runbooks import display, environments, step
from runbooks.display import View
from runbooks.parameters import check, of_notebook
from runbooks.presence import NOBODY, SESSION, UNASKED, Person
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Section
from runbooks.step import Runbook
from runbooks.values import Values
from runbooks.verdicts import Finding


def _attended(section: str) -> bool:
    """Whether a person steps through this notebook: a Jupyter server started its kernel for it.

    A notebook of one's own that runs this one with papermill hands its variables on, and nobody sits before this one.
    Where that cannot be told somebody is taken to be there, and asked before anything is changed.

    Args:
        section: of the runbook; empty for the index.
    """
    path = os.environ.get(SESSION)
    if path is None:
        return False
    try:
        found = json.loads(Path(path).read_bytes())["metadata"]
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return str(found.get("runbook", "")) == section


def values_in_force(section: str, given: Mapping[str, object]) -> Values:
    """The values that the notebook's cells have bound; where a person is there, with a form that sets others.

    Args:
        section: the documented number, for example ``"6.4.3"``.
        given: the notebook's ``globals()``.

    Raises:
        ParameterError: nobody is there to correct them, and a parameter is unknown, missing, or not usable.
    """
    found = SECTIONS[section]
    bound = of_notebook(found.model, given)
    if _attended(section) and _shows_widgets():
        from runbooks import attended

        return attended.values(found, bound)
    check(found.model, bound)
    return Values(found, bound)


def overview(environment: str) -> View:
    """Where each runbook stands on the cluster of an environment; it reads, and changes nothing.

    Args:
        environment: a folder of parameter files: its name in ``parameters/`` beside the notebook, or a path.

    Raises:
        ParameterError: there is no such environment, or its files cannot be used.
        ConnectionFailed: its cluster cannot be reached.
    """
    folder = environments.folder(environment, Path.cwd())
    with _person("", {}).cell():
        values = {section: environments.read(section, folder) | {"mode": "verify"} for section in SECTIONS.values()}
        others = [name for name in environments.names(folder.parent) if name != folder.name]
        return display.overview(folder.name, folder, [_where(*one) for one in values.items()], others)


def _where(section: Section, values: Mapping[str, object]) -> tuple[Section, str, str, tuple[Finding, ...]]:
    """One runbook, where it stands, why, and what it needs."""
    ingress = values.get("ingress", "istio")
    if section.path not in ("both", ingress):
        return section, "not on this path", f"the environment says ingress: {ingress}", ()
    state, reason, needs = step.open_runbook(section.number, values).state()
    return section, str(state), reason, needs


def open_runbook(section: str, values: Mapping[str, object]) -> Runbook:
    """Bind a runbook to its values and its target. Nothing has happened yet besides saying hello.

    Args:
        section: the documented number.
        values: the values in force.

    Raises:
        ParameterError: a parameter is unknown, missing, or not usable.
        ConnectionFailed: the cluster cannot be reached, or is not the one that the parameters name.
    """
    person = _person(section, values)
    with person.cell():
        return step.open_runbook(section, values, person)


def _person(section: str, values: Mapping[str, object]) -> Person:
    if not _attended(section):
        return NOBODY
    if not _shows_widgets():
        return UNASKED
    from runbooks import attended  # only here: it needs what a headless install does not have

    return attended.person(section, values)


def _shows_widgets() -> bool:
    return find_spec("ipywidgets") is not None
