"""What a notebook that a person stepped through tells of itself."""

from __future__ import annotations

import json
from typing import Any

from runbooks.record import adoption

SOURCES = {"plan": "runbook.plan()", "apply-secret": 'runbook.apply("secret")', "outcome": "runbook.outcome()"}


def cell(name: str, count: int | None, source: str = "", tags: tuple[str, ...] = ()) -> dict[str, Any]:
    code = source or SOURCES.get(name, "")
    base = {"cell_type": "code", "id": name, "execution_count": count, "outputs": []}
    return {**base, "metadata": {"tags": list(tags)}, "source": code}


def facts(*cells: dict[str, Any]) -> dict[str, Any]:
    content = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()
    return adoption.facts(content, "stepped.ipynb", "application/x", SOURCES)


def test_the_order_in_which_the_cells_ran_is_told() -> None:
    found = facts(cell("plan", 5), cell("apply-secret", 4), cell("outcome", None))
    assert ["apply-secret", "plan"] == found["notebook"]["order"]
    doubt = "that its cells were executed from top to bottom: their counts say otherwise of plan"
    assert doubt in found["cannot_be_vouched_for"]
    assert "1 of its 3 code cells: they were never executed" in found["cannot_be_vouched_for"]


def test_an_edited_cell_and_an_own_one_are_named_and_parameters_are_not() -> None:
    parameters = cell("parameters", 1, 'context = "x"', ("parameters",))
    found = facts(parameters, cell("plan", 2), cell("apply-secret", 3, "print('done')"), cell("mine", 4, "1"))
    assert ["apply-secret", "mine"] == found["notebook"]["edited"]
    assert "the code of apply-secret, mine: it was edited" in found["cannot_be_vouched_for"]


def test_a_notebook_as_it_is_stored_was_not_edited() -> None:
    found = facts(cell("plan", 1), cell("apply-secret", 2), cell("outcome", 3))
    assert [] == found["notebook"]["edited"]
    assert list(SOURCES) == found["notebook"]["order"]
    assert not [doubt for doubt in found["cannot_be_vouched_for"] if "edited" in doubt or "top to bottom" in doubt]
