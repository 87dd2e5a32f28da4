"""What the cells of a notebook import, with a person in front of it or not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec

from runbooks import step
from runbooks.parameters import check, of_notebook
from runbooks.procedure import SECTIONS
from runbooks.step import Runbook
from runbooks.values import Values

_SESSION = "JPY_SESSION_NAME"


def _attended() -> bool:
    """Whether a person steps through this notebook: a Jupyter server started its kernel, and can show widgets."""
    return _SESSION in os.environ and find_spec("ipywidgets") is not None


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
    if _attended():
        from runbooks import attended

        return attended.values(found, bound)
    check(found.model, bound)
    return Values(found, bound)


def open_runbook(section: str, values: Mapping[str, object]) -> Runbook:
    """Bind a runbook to its values and its target. Nothing has happened yet besides saying hello.

    Args:
        section: the documented number.
        values: the values in force.

    Raises:
        ParameterError: a parameter is unknown, missing, or not usable.
        ConnectionFailed: the cluster cannot be reached, or is not the one that the parameters name.
    """
    if not _attended():
        return step.open_runbook(section, values)
    from runbooks import attended  # only here: it needs what a headless install does not have

    person = attended.person(values)
    with person.cell():
        return step.open_runbook(section, values, person)
