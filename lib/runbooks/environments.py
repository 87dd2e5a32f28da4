"""The folder of an environment: ``cluster.yaml``, which all runbooks share, and one file for each runbook."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from runbooks.errors import ParameterError
from runbooks.parameters import Parameters, read_file, unknown
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Section

SHARED = "cluster.yaml"


def names(folder: Path) -> tuple[str, ...]:
    """The environments that a folder holds; none where there is no such folder."""
    return tuple(sorted(found.parent.name for found in folder.glob(f"*/{SHARED}")))


def folder(name: str, beside: Path) -> Path:
    """The folder of an environment.

    Args:
        name: of the environment, or a path.
        beside: where ``parameters/`` lies.

    Raises:
        ParameterError: there is none.
    """
    for found in (beside / "parameters" / name, Path(name).expanduser()):
        if (found / SHARED).is_file():
            return found.absolute()
    known = ", ".join(names(beside / "parameters")) or "none"
    said = f"there is no folder parameters/{name} with a {SHARED} in {beside}"
    raise ParameterError(f"looking for the environment {name}", said, f"name one that is there ({known}), or a path")


def read(section: Section, folder: Path) -> dict[str, Any]:
    """The parameters of one runbook: cluster.yaml, then its own file.

    Raises:
        ParameterError: a file cannot be read, holds what its runbooks do not know, or is one that none reads.
    """
    _refuse_strangers(folder)
    shared = read_file(folder / SHARED)
    if strangers := [name for name in shared if name not in Parameters.model_fields]:
        own = [name for name in strangers if any(name in one.model.model_fields for one in SECTIONS.values())]
        said = f"{', '.join(strangers)} is no parameter that all runbooks share"
        nearest = "; ".join(unknown(strangers, Parameters))
        remedy = f"put {', '.join(own)} into the runbook's own file" if own else nearest
        raise ParameterError(f"reading {folder / SHARED}", said, remedy)
    values = dict(shared)
    for file in files(section, folder)[1:]:
        values |= read_file(file)
    return values


def files(section: Section, folder: Path) -> list[Path]:
    """What is read for a runbook; 6.4.1 judges what the others would be run with, so it takes theirs too."""
    own = [folder / f"{other.stem}.yaml" for other in SECTIONS.values() if issubclass(section.model, other.model)]
    return [folder / SHARED, *(file for file in own if file.exists())]


def _refuse_strangers(folder: Path) -> None:
    """A file that no runbook reads is most likely misnamed, and what it sets would silently not hold."""
    known = {Path(SHARED).stem, *(section.stem for section in SECTIONS.values())}
    for path in sorted(folder.glob("*.y*ml")):
        if path.stem not in known or path.suffix != ".yaml":
            stems = ", ".join(f"{name}.yaml" for name in sorted(known))
            raise ParameterError(f"reading {path}", "no runbook reads a file of this name", f"name it one of {stems}")


def save(section: Section, values: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the values that are set as files of an environment; what is there already is never overwritten.

    Args:
        section: whose values they are.
        values: only those that are to be written.
        folder: of the environment; it is made where it is missing.

    Returns:
        The files that were written.

    Raises:
        ParameterError: one of the files is there and says something else, or cannot be written.
    """
    shared = {name: value for name, value in values.items() if name in Parameters.model_fields}
    own = {name: value for name, value in values.items() if name not in shared}
    contents = {folder / SHARED: shared} | ({folder / f"{section.stem}.yaml": own} if own else {})
    attempted = f"saving the values as {folder}"
    try:
        texts = {path: yaml.safe_dump(one, sort_keys=False, allow_unicode=True) for path, one in contents.items()}
    except yaml.YAMLError as error:
        raise ParameterError(attempted, " ".join(str(error).split()), "correct the values first") from error
    for path, content in contents.items():
        if path.exists() and read_file(path) != content:
            remedy = "name another environment, or edit the file: its comments would be lost here"
            raise ParameterError(attempted, f"{path.name} is there and says something else", remedy)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            if not path.exists():
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                written.append(path)
    except OSError as error:
        raise ParameterError(attempted, error.strerror or str(error), "name a folder that can be written") from error
    return written
