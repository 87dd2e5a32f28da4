"""Taking notebooks into the archive that something else executed: JupyterLab, plain papermill, Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbooks.errors import SecretFound, UsageError
from runbooks.keeper import MIME
from runbooks.procedure import section_of
from runbooks.record import adoption, hygiene, index, log
from runbooks.record import archive as archives
from runbooks.record.archive import Archive
from runbooks.record.hygiene import Value
from runbooks.run import notebook_of


@dataclass(frozen=True)
class Adopted:
    """One notebook that has become a record.

    Args:
        id: the record's.
        file: the notebook, which stays where it is.
        doubts: what cannot be vouched for.
    """

    id: str
    file: Path
    doubts: tuple[str, ...]


def adopt(archive: Archive, files: Sequence[Path], values: Iterable[Value] = ()) -> list[Adopted]:
    """Sign notebooks as they were found; all of them, or none.

    Args:
        archive: with a key.
        files: the notebooks.
        values: secrets that are known to have been read while they ran; others are known by their look.

    Raises:
        UsageError: one is there twice, or in the archive already.
        SecretFound: one holds a secret.
        RecordError: one is no notebook, or cannot be read or written.
    """
    contents, values = [(path, archives.read_file(path)) for path in files], list(values)
    made = [(path, content, adoption.facts(content, str(path), MIME, _sources(content))) for path, content in contents]
    for path, content, _ in made:
        if hits := hygiene.scan_notebook(content, values):
            said = "; ".join(f"{hit.secret} in cell {hit.cell}" for hit in hits[:3])
            remedy = "take it out of the notebook, and change the secret; nothing was added"
            raise SecretFound(f"adopting {path}", said, remedy)
        twice = sum(content == other for _, other in contents) > 1
        if known := "of this call" if twice else index.adopted_as(archive, log.digest(content)):
            raise UsageError(f"adopting {path}", f"record {known} holds it already", "leave it out; nothing was added")
    return [
        Adopted(archive.adopt(path, facts).record, path, tuple(facts["cannot_be_vouched_for"]))
        for path, _, facts in made
    ]


def _sources(content: bytes) -> Mapping[str, str]:
    """The code of the runbook that the notebook was made from, by cell; nothing where it is made from none."""
    try:
        found = json.loads(content)["metadata"]["runbook"]
    except (ValueError, KeyError, TypeError):
        return {}
    section = section_of(str(found))
    return code_of(json.loads(notebook_of(section).read_bytes())) if section else {}


def code_of(notebook: Mapping[str, Any]) -> dict[str, str]:
    """The source of each code cell by its id."""
    return {
        cell["id"]: "".join(cell["source"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code" and "id" in cell
    }
