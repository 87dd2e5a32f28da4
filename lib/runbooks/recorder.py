"""One record for each run, signed at three moments.

It is announced before the kernel starts, its plan is signed before anything is changed, and its end is signed over
the executed notebook. What the record cannot hold durably does not happen.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from runbooks import journal
from runbooks import run as runs
from runbooks.errors import ParameterError, SecretFound
from runbooks.handled_secrets import handled
from runbooks.keeper import Reason
from runbooks.parameters import check
from runbooks.procedure import section_of
from runbooks.procedure.section import Section
from runbooks.record import hygiene, keys
from runbooks.record.archive import Archive, default_folder
from runbooks.record.hygiene import Value
from runbooks.record.keys import PrivateKey
from runbooks.verdicts import Outcome

_OUTCOME_COUNTS = (Reason.COMPLETED, Reason.EXCEPTION)  # the last cell raises where the outcome is not a good one


def signing_key(*, sandbox: bool) -> tuple[PrivateKey, str]:
    """The key that signs, and what is to be said of it.

    Args:
        sandbox: a rehearsal makes its own key where there is none yet; for a real cluster somebody has to decide.

    Raises:
        SigningKeyError: there is none, or it cannot be used.
    """
    if sandbox and not keys.default_path().exists():
        return keys.create(), f"made a key that signs the records: {keys.default_path()}"
    return keys.load(), ""


class Recorder:
    """The record of one run; the engine tells it what happens.

    Args:
        archive: where the record goes.
        section: which runbook.
        mode: in which mode.
        parameters: names and values, as they go into the notebook.
        source: the notebook, where it is not the section's own.

    Raises:
        RecordError: the run could not be announced durably, so nothing may be run.
    """

    def __init__(
        self,
        archive: Archive,
        section: Section,
        mode: str,
        parameters: Mapping[str, Any],
        source: Path | None = None,
    ) -> None:
        source = source or runs.notebook_of(section)
        self._facts = {
            "section": section.number,
            "runbook": section.stem,
            "version": metadata.version("serverless-mesh-runbooks"),
            "mode": mode,
            "parameters": dict(parameters),
            "source": _described(source),
        }
        self._section, self._parameters = section, dict(parameters)
        self.run = archive.begin(self._facts)
        self._ended = False

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Close the record of a run that the engine never began, too."""
        if not self._ended:
            reason = str(error) or type(error).__name__ if error else "the run did not begin"
            self.run.finish(None, {**self._facts, "outcome": str(Outcome.NOT_RUN), "reason": reason, "exit_code": 1})

    @property
    def folder(self) -> Path:
        """Where the notebook is executed; from there it moves into the record."""
        return self.run.workspace

    @property
    def journal(self) -> Path:
        """Where the kernel writes down what it changes."""
        return self.folder / journal.NAME

    def kept(self, notebook: Path) -> Path:
        """Where the executed notebook is in the end."""
        return notebook if notebook.exists() else self.run.folder / notebook.name

    # --- what the engine calls -----------------------------------------------------------------------------------

    def began(self) -> None:
        """The start entry stands already; the kernel, which starts next, learns where its journal goes."""
        os.environ[journal.VARIABLE] = str(self.journal)

    def planned(self, value: dict[str, Any]) -> None:
        """Sign what is about to be changed."""
        self.run.intend({**self._facts, "plan": value})

    def ended(self, notebook: Path, how: dict[str, Any]) -> None:
        """Sign how it ended, over the notebook's bytes.

        Raises:
            SecretFound: the notebook holds a secret, and was kept out of the archive.
            RecordError: it could not be written; the notebook is where it was.
        """
        facts = {**self._facts, **self._outcome(notebook, how), "ended_by": how["reason"], "cell": how["cell"]}
        hits = hygiene.scan_notebook(notebook.read_bytes(), self._handled())
        self._ended = True
        also = [self.journal] if self.journal.exists() else []
        if not hits:
            self.run.finish(notebook, facts, also)
            return
        self.run.withhold(notebook, [hit.as_dict() for hit in hits], facts, also)
        said = "; ".join(f"{hit.secret} in the cell {hit.cell}" for hit in hits[:3])
        remedy = "the notebook lies in the archive's quarantine; change the secret, then find out how it came there"
        raise SecretFound(f"archiving {notebook.name}", said, remedy)

    def _handled(self) -> list[Value]:
        try:
            return handled(check(self._section.model, self._parameters))
        except ParameterError:  # with which no run gets as far as a secret
            return []

    def _outcome(self, notebook: Path, how: Mapping[str, Any]) -> dict[str, Any]:
        found = runs.read_outcome(notebook)
        if found and how["reason"] in _OUTCOME_COUNTS:
            return found
        reason = how["said"] or "the notebook ended without an outcome"
        return {**found, "outcome": str(Outcome.FAILED), "reason": reason, "exit_code": 1}


def _described(source: Path) -> dict[str, str]:
    if not source.is_file():  # papermill also reads from elsewhere than files
        return {"name": source.name}
    return {"name": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}


class CopyRecorder(Recorder):
    """The record of a run that plain papermill started: the notebook stays where its caller wants it."""

    def ended(self, notebook: Path, how: dict[str, Any]) -> None:
        """As for ``Recorder``, over a copy of the notebook."""
        copy = self.folder / notebook.name
        shutil.copyfile(notebook, copy)
        super().ended(copy, how)


def of_papermill(described: Mapping[str, Any]) -> CopyRecorder | None:
    """The record of what ``papermill --engine runbooks`` is about to run.

    Args:
        described: the notebook's metadata, papermill's own among them.

    Returns:
        The recorder, or None for a notebook that is none of the runbooks.

    Raises:
        SigningKeyError: there is no key, or it cannot be used.
        RecordError: the run could not be announced durably.
    """
    section = section_of(str(described.get("runbook", "")))
    if section is None:
        return None
    parameters = described["papermill"]["parameters"]
    signer, _ = signing_key(sandbox=parameters.get("context") == "sandbox")
    archive = Archive.open(default_folder(), signer=signer, trusted=keys.trusted(keys.trust_folder()))
    mode = str(parameters.get("mode", section.model.model_fields["mode"].default))
    return CopyRecorder(archive, section, mode, parameters, Path(described["papermill"]["input_path"]))
