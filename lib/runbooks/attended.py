"""A kernel with a person in front of it: its form, whom it may ask, and how its notebook is archived."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runbooks import adopting, disclosure, display, handled_secrets
from runbooks import run as runs
from runbooks.disclosure import Confidant
from runbooks.display import View
from runbooks.errors import RecordError
from runbooks.presence import SESSION, Person
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Section
from runbooks.record.archive import Archive, default_folder
from runbooks.record.hygiene import Value
from runbooks.record.keys import trust_folder, trusted
from runbooks.recorder import signing_key
from runbooks.values import Values
from runbooks.widgets.form import FormValues
from runbooks.widgets.person import AtTheNotebook

_ENVIRONMENTS = "parameters"
_IN_FORCE: dict[str, Values] = {}  # by section: those of the cell that was run last


def values(section: Section, bound: Mapping[str, object]) -> Values:
    """The values with a form; the environments that it offers lie beside the notebook."""
    _confidant()  # the form asks a cluster, too
    _IN_FORCE[section.number] = FormValues(section, bound, Path.cwd() / _ENVIRONMENTS)
    return _IN_FORCE[section.number]


def person(section: str, given: Mapping[str, object]) -> Person:
    """Who sits there, for a runbook that is about to be opened with these values."""
    return AtTheNotebook(given, lambda: dict(_IN_FORCE.get(section, {})), _archived)


def _archived(outcome: Mapping[str, Any]) -> View:
    """Archive the notebook of this kernel, once it is saved with this outcome.

    Raises:
        RecordError: it is not saved yet, or cannot be archived.
        SecretFound: it holds a secret.
    """
    path = Path(os.environ[SESSION])
    saved = runs.read_outcome(path) if path.is_file() else {}
    if (saved.get("started"), saved.get("finished")) != (outcome["started"], outcome["finished"]):
        remedy = "save the notebook (Ctrl+S), then press the button again; renamed since: runbooks records add NOTEBOOK"
        raise RecordError(f"archiving {path.name}", "the file does not hold the outcome above", remedy)
    signer, said = signing_key(sandbox=saved["parameters"]["context"] == "sandbox")
    archive = Archive.open(default_folder(), signer=signer, trusted=trusted(trust_folder()))
    heard = [Value(name, content) for name, content in _confidant().heard()]
    known = handled_secrets.of_run(SECTIONS[saved["section"]], saved["parameters"])
    found = adopting.adopt(archive, [path], [*known, *heard])[0]
    return display.archived(found.id, archive.path, archive.head, found.doubts, said)


@functools.cache
def _confidant() -> Confidant:
    """Who hears which secrets this kernel reads: what is archived is searched for them."""
    confidant = Confidant()
    os.environ[disclosure.VARIABLE] = str(confidant.path)
    atexit.register(confidant.close)
    return confidant
