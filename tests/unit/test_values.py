"""The values in force: what the cells have bound, then what the form has set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks import environments
from runbooks.errors import ParameterError
from runbooks.parameters import BY_THE_CALLER, groups
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Section
from runbooks.values import Values

CERTIFICATES, MESH = SECTIONS["6.4.2"], SECTIONS["6.4.3"]


def values(section: Section = MESH, **bound: object) -> Values:
    return Values(section, {"context": "admin@prod-a", **bound})


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_person_is_asked_for_every_parameter_once(section: Section) -> None:
    asked = [name for names in groups(section.model).values() for name in names]
    assert len(asked) == len(set(asked))
    assert section.model.model_fields.keys() == {*asked, *BY_THE_CALLER}


def test_what_is_not_bound_is_at_its_default() -> None:
    found = values(members=["shop"])
    assert {"context": "admin@prod-a", "members": ["shop"]} == found.given
    assert "istio-system" == found["mesh_namespace"]
    assert len(MESH.model.model_fields) == len(found)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("members", "shop, billing", ["shop", "billing"]),
        ("timeout_s", "60", 60),
        ("strict_documentation", "true", True),
        ("serverless_version", "1.30", "1.30"),
        ("reason", "  because: {x}  ", "  because: {x}  "),
    ],
)
def test_what_is_typed_is_read_as_its_parameter_wants_it(name: str, text: str, value: object) -> None:
    found = values()
    found.typed(name, text)
    assert value == found[name]
    assert "" == found.wrong_with(name)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("timeout_s", "soon", "is text; wanted a whole number"),
        ("timeout_s", "0", "greater than or equal to 1"),
        ("members", "Shop", "is not valid here"),
        ("members", "", "at least 1 item"),
        ("api_server", "<your server>", "placeholder <your server>"),
        ("certificates_dir", "certificates", "is a relative path"),
        ("service_namespace", "elsewhere", "is not one of the members"),
        ("context", "", "missing"),
    ],
)
def test_what_is_wrong_is_told_beside_the_parameter_and_stays_as_it_was_typed(name: str, text: str, said: str) -> None:
    found = values()
    found.typed(name, text)
    assert said in found.wrong_with(name)
    assert [] != found.wrong
    assert any(said in line for line in found.view().data["wrong"])
    assert f"✗ {found.wrong[0]}" in found.view().text


def test_a_copy_of_this_moment_does_not_follow() -> None:
    found = values()
    before = found.frozen()
    found.set({"timeout_s": 1})
    assert (600, 1) == (before["timeout_s"], found["timeout_s"])


def test_a_path_is_expanded_for_whoever_reads_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERS", "/etc/clusters")
    assert "/etc/clusters/a" == values(kubeconfig="${CLUSTERS}/a").path("kubeconfig")
    assert "not/absolute" == values(kubeconfig="not/absolute").path("kubeconfig")


ODD: dict[str, Any] = {
    "mode": "verify",
    "members": ["default", "shop"],
    "timeout_s": 60,
    "strict_documentation": True,
    "serverless_version": "1.30",
    "reason": 'it\'s "1.30" $HOME `x` {y}; no',
}


def test_the_command_gives_papermill_just_these_values(tmp_path: Path) -> None:
    """A shell and papermill itself read the command; what the notebook got is compared."""
    command = values(**ODD).papermill_command
    cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "mode = 'plan'", "id": "parameters"},
        {
            "cell_type": "code",
            "metadata": {},
            "id": "x",
            "source": "import json; print(json.dumps([context, *[globals()[n] for n in NAMES]]))".replace(
                "NAMES", repr(list(ODD))
            ),
        },
    ]
    for cell in cells:
        cell |= {"execution_count": None, "outputs": []}
    kernel = {"kernelspec": {"name": "python3", "display_name": "p", "language": "python"}}
    notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / f"{MESH.stem}.ipynb").write_text(json.dumps(notebook))
    papermill = Path(sys.executable).with_name("papermill")
    subprocess.run(
        ["bash", "-c", command.replace("papermill", str(papermill), 1)], cwd=tmp_path, check=True, capture_output=True
    )
    (out,) = json.loads((tmp_path / "out.ipynb").read_text())["cells"][-1]["outputs"]
    assert ["admin@prod-a", *ODD.values()] == json.loads("".join(out["text"]))


# --- environments ------------------------------------------------------------------------------------------------


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    found = values(
        CERTIFICATES, mode="apply", certificates_dir="/c", valid_days=90, approve=["plan-sha256:" + 64 * "0"]
    )
    written = environments.save(CERTIFICATES, found.to_keep, tmp_path / "prod-a")
    assert ["cluster.yaml", "6.4.2-create-ingress-certificates.yaml"] == [path.name for path in written]
    wanted = {"context": "admin@prod-a", "certificates_dir": "/c", "valid_days": 90}
    assert wanted == environments.read(CERTIFICATES, tmp_path / "prod-a")
    assert ("prod-a",) == environments.names(tmp_path)
    assert [] == environments.save(CERTIFICATES, found.to_keep, tmp_path / "prod-a"), "the same again"


def test_what_is_no_value_at_all_is_told_and_not_saved(tmp_path: Path) -> None:
    """The cell of the parameters is a person's to edit."""
    found = values(CERTIFICATES, json=json, context=Path("x"))
    assert any(said.startswith("json: runbook 6.4.2 has no such parameter") for said in found.wrong)
    assert "json" in found.view().text
    with pytest.raises(ParameterError, match="cannot represent an object"):
        environments.save(CERTIFICATES, found.to_keep, tmp_path / "mine")
    assert [] == list(tmp_path.iterdir())


def test_what_somebody_wrote_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("context: other  # ours\n")
    with pytest.raises(ParameterError, match=r"cluster\.yaml is there and says something else"):
        environments.save(CERTIFICATES, values(CERTIFICATES, valid_days=90).to_keep, tmp_path)
    assert ["context: other  # ours\n"] == [path.read_text() for path in tmp_path.iterdir()]


def test_an_environment_is_found_by_its_name_or_as_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "parameters" / "prod-a"
    folder.mkdir(parents=True)
    (folder / "cluster.yaml").write_text(yaml.safe_dump({"context": "x"}))
    assert folder == environments.folder("prod-a", tmp_path) == environments.folder(str(folder), Path("/"))
    with pytest.raises(ParameterError, match=r"name one that is there \(prod-a\)"):
        environments.folder("prod-b", tmp_path)
