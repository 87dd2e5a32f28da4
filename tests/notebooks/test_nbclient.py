"""The same notebooks under nbclient, as a program runs them and as a Jupyter server's kernel would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import ROOT, Sandbox
from tests.notebooks.test_command_line import command, papermill, run, structured

STEM = "6.4.2-create-ingress-certificates"
WIDGET = "application/vnd.jupyter.widget-view+json"


def bound(sandbox: Sandbox, folder: Path, **changes: object) -> Path:
    """A copy of the notebook with its parameters cell edited, as a person edits it."""
    notebook = json.loads((ROOT / "notebooks" / f"{STEM}.ipynb").read_text())
    values = sandbox.parameters("6.4.2", **changes)
    cell = next(cell for cell in notebook["cells"] if cell["id"] == "parameters")
    cell["source"] = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    path = folder / f"{STEM}.ipynb"
    path.write_text(json.dumps(notebook))
    return path


def executed(sandbox: Sandbox, path: Path, **environment: str) -> dict[str, dict[str, Any]]:
    done = command(sandbox, "jupyter-execute", "--inplace", path, environment={**sandbox.environment, **environment})
    assert 0 == done.returncode, done.stderr
    return structured(path)


def test_an_edited_copy_runs_under_nbclient(sandbox: Sandbox, tmp_path: Path) -> None:
    found = executed(sandbox, bound(sandbox, tmp_path, mode="apply"))
    assert "done and proven" == found["outcome"]["outcome"]


def test_the_index_says_where_each_runbook_stands_and_changes_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    copied = command(sandbox, "runbooks", "copy", tmp_path)
    assert 0 == copied.returncode, copied.stderr
    since = sandbox.audit_position()
    path = tmp_path / "index.ipynb"
    found = executed(sandbox, path)["overview"]
    states = {number: state for number, state, _ in found["runbooks"]}
    assert "blocked" == states["6.4.3"]
    assert ("changes pending", "not on this path") == (states["6.4.2"], states["6.4.5"])
    assert [] == sandbox.writes(since)
    kept = command(sandbox, "runbooks", "copy", tmp_path)
    assert f"kept as it is: {path}" in kept.stdout, "it holds outputs now"


class TestAttended:
    """A Jupyter server names the notebook to its kernel; no widget is shown here, and what stands for it is."""

    def test_nothing_is_changed_unapproved_and_every_control_has_its_twin(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        path = bound(sandbox, tmp_path, mode="plan")
        since = sandbox.audit_position()
        found = executed(sandbox, path, JPY_SESSION_NAME=str(path))
        assert ("plan", "changes pending") == (found["outcome"]["mode"], found["outcome"]["outcome"])
        assert [] == sandbox.writes(since)
        outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
        alive = [out["data"] for out in outputs if WIDGET in out.get("data", {})]
        assert 3 == len(alive), "the form, the approval, the archive"
        for data in alive:
            assert "Error" not in data["text/plain"]
            assert data["text/html"]
        assert any("Not approved yet: 6 changes" in data["text/plain"] for data in alive)

    def test_a_wrong_value_is_told_and_stops_the_run_where_the_target_is_bound(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        path = bound(sandbox, tmp_path, valid_days=0)
        environment = {**sandbox.environment, "JPY_SESSION_NAME": str(path)}
        done = command(sandbox, "jupyter-execute", "--inplace", "--allow-errors", path, environment=environment)
        assert 0 == done.returncode, done.stderr
        by_id = {cell.id: cell for cell in nbformat.read(path, 4).cells}
        assert ["valid_days: 0: input should be greater than or equal to 1, for example 365"] == structured(path)[
            "values"
        ]["wrong"]
        said = by_id["connect"].outputs[0]["data"]
        assert "reading the parameters of runbook 6.4.2: valid_days: 0" in said["text/plain"]
        assert "Traceback" not in said["text/plain"]
        assert "<summary>Traceback" in said["text/html"], "folded away"
        (error,) = [out for out in by_id["connect"].outputs if out["output_type"] == "error"]
        assert ["Stopped, as said above."] == error["traceback"]

    def test_another_notebook_that_runs_this_one_is_no_person(self, sandbox: Sandbox, tmp_path: Path) -> None:
        """Somebody's notebook calls papermill, and hands the variables of its own kernel on."""
        driver = tmp_path / "driver.ipynb"
        shutil.copy(ROOT / "notebooks" / "index.ipynb", driver)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JPY_SESSION_NAME", str(driver))
            done = papermill(sandbox, STEM, tmp_path / "out.ipynb", "-p", "mode", "apply")
        assert 0 == done.returncode, done.stderr
        assert "done and proven" == structured(tmp_path / "out.ipynb")["outcome"]["outcome"]

    def test_where_it_cannot_be_told_apply_ends_as_not_approved_and_not_well(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        """The notebook that calls papermill was renamed since its kernel began."""
        since = sandbox.audit_position()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JPY_SESSION_NAME", str(tmp_path / "renamed.ipynb"))
            done = papermill(sandbox, STEM, tmp_path / "out.ipynb", "-p", "mode", "apply")
            ours = run(sandbox, "6.4.2", "--mode", "plan", "--json")
        assert 1 == done.returncode, done.stderr
        found = structured(tmp_path / "out.ipynb")["outcome"]
        assert ("blocked", True) == (found["outcome"], "nobody has approved it yet" in found["reason"])
        assert [] == sandbox.writes(since)
        # our own runner hands no person on
        notebook = Path(json.loads(ours.stdout)["runs"][0]["notebook"])
        assert WIDGET not in notebook.read_text()
