"""What a notebook that a person stepped through tells of itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runbooks.record import adoption

SOURCES = {"plan": "runbook.plan()", "apply-secret": 'runbook.apply("secret")', "outcome": "runbook.outcome()"}


def cell(name: str, count: int | None, source: str = "", tags: tuple[str, ...] = ()) -> dict[str, Any]:
    code = source or ("" if tags else SOURCES.get(name, ""))
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


def test_a_cell_that_was_taken_out_is_named() -> None:
    found = facts(cell("plan", 1), cell("outcome", 2))
    assert ["apply-secret"] == found["notebook"]["missing"]
    assert "what apply-secret would have shown: the cell was taken out" in found["cannot_be_vouched_for"]


@pytest.mark.parametrize(
    ("code", "edited"),
    [
        ('context: str = "x"  # help\nmembers = ["a", "b"]\ntimeout_s = -1', []),
        ("", []),
        ("import os", ["parameters"]),
        ("context = input()", ["parameters"]),
        ("context", ["parameters"]),
        ("context =", ["parameters"]),
    ],
)
def test_the_cell_of_the_parameters_may_set_values_and_do_nothing_else(code: str, edited: list[str]) -> None:
    found = facts(cell("parameters", 1, code, ("parameters",)), *(cell(name, 2) for name in SOURCES))
    assert edited == found["notebook"]["edited"]


def test_cells_of_two_runs_in_one_notebook_are_no_single_run() -> None:
    cells = [cell(name, count) for count, name in enumerate(SOURCES, 1)]
    for one, run in zip(cells, ("10:00", "10:00", "11:00"), strict=True):
        value = {"view": one["id"], "run": run}
        one["outputs"] = [{"output_type": "display_data", "data": {"application/x": value}, "metadata": {}}]
    assert "that all of it is one run: its cells are of 2, 10:00, 11:00" in facts(*cells)["cannot_be_vouched_for"]
    for one in cells:
        one["outputs"][0]["data"]["application/x"]["run"] = "10:00"
    assert not [doubt for doubt in facts(*cells)["cannot_be_vouched_for"] if "one run" in doubt]


def test_a_notebook_as_it_is_stored_was_not_edited() -> None:
    found = facts(cell("plan", 1), cell("apply-secret", 2), cell("outcome", 3))
    assert [] == found["notebook"]["edited"]
    assert list(SOURCES) == found["notebook"]["order"]
    assert not [doubt for doubt in found["cannot_be_vouched_for"] if "edited" in doubt or "top to bottom" in doubt]
