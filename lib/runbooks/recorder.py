"""One record for each run, signed at three moments.

It is announced before the kernel starts, its plan is signed before anything is changed, and its end is signed over
the executed notebook. What the record cannot hold durably does not happen.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from runbooks import approval, disclosure, handled_secrets, journal
from runbooks import run as runs
from runbooks.disclosure import Confidant
from runbooks.errors import RecordError, SecretFound
from runbooks.keeper import Reason
from runbooks.procedure import section_of
from runbooks.procedure.section import Section
from runbooks.record import hygiene, keys
from runbooks.record.archive import Archive, Record, default_folder
from runbooks.record.hygiene import Hit, Value
from runbooks.record.keys import PrivateKey
from runbooks.verdicts import Outcome, few

_APPROVED = ".approved.json"  # hidden: nothing of the run's own
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
        SecretFound: a parameter holds a secret.
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
        self._archive, self._section, self._parameters = archive, section, dict(parameters)
        self._for_kernel = contextlib.ExitStack()
        self._confidant: Confidant | None = None
        self._known: dict[Value, None] = {}
        self._read_again()
        if hits := self._search(self._facts, "(parameters)"):
            remedy = "nothing was run; name a file that holds it instead, since parameters are kept in the record"
            raise _secret_found("announcing the run", hits, remedy)
        self.run = archive.begin(self._facts)
        self._ended = False

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Close the record of a run that the engine never began, too."""
        with self._for_kernel:
            if not self._ended:
                reason = self.shown(str(error) or type(error).__name__) if error else "the run did not begin"
                told = {"outcome": str(Outcome.NOT_RUN), "reason": reason, "exit_code": 1}
                self.run.finish(None, {**self._facts, **told})

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
        """The start entry stands already; the kernel, which starts next, learns whom to tell what."""
        self._confidant = self._for_kernel.enter_context(disclosure.listening(self.folder / disclosure.NOTES))
        self._for_kernel.enter_context(disclosure.exported(journal.VARIABLE, self.journal))
        if wanted := self._parameters.get("approve"):
            path = self.folder / _APPROVED
            path.write_text(json.dumps(approved_plans(self._archive.records(), wanted)))
            self._for_kernel.enter_context(disclosure.exported(approval.VARIABLE, path))

    def planned(self, value: dict[str, Any]) -> None:
        """Sign what is about to be changed.

        Raises:
            SecretFound: the plan holds a secret, so nothing was signed and nothing may be changed.
            RecordError: it could not be written, so nothing may be changed.
        """
        self._read_again()
        if hits := self._search(value, "plan"):
            remedy = "nothing was changed; take the secret out of what the plan would write, and change it"
            raise _secret_found("signing the plan", hits, remedy)
        self.run.intend({**self._facts, "plan": value})

    def ended(self, notebook: Path, how: dict[str, Any]) -> None:
        """Sign how it ended, over the notebook's bytes.

        Raises:
            SecretFound: what would be kept holds a secret, and was kept out of the archive.
            RecordError: it could not be written; the notebook is where it was.
        """
        self._ended = True
        self._read_again()
        facts = {**self._facts, **self._outcome(notebook, how), "ended_by": how["reason"], "cell": how["cell"]}
        values = self._values()
        files = [path for path in (notebook, self.journal) if path.exists()]
        found = {path: hygiene.scan_file(path.name, path.read_bytes(), values) for path in files}
        told = self._search(facts, "(outcome)")
        paths = [path if hits or path != notebook else self._kept_copy(path) for path, hits in found.items()]
        if not (told or any(found.values())):
            self.run.close("result", paths, facts)
            return
        if told:  # the words of a server, for example
            clean = {name: value for name, value in self._facts.items() if not self._search({name: value}, name)}
            facts = {**clean, "ended_by": how["reason"], "cell": how["cell"], "exit_code": 1}
        hits = list(dict.fromkeys([hit for one in found.values() for hit in one] + told))
        withheld = [path for path, one in found.items() if one]
        self.run.withhold(paths, withheld, [hit.as_dict() for hit in hits], facts)
        where = "what holds it lies in the archive's quarantine; " if withheld else ""
        remedy = f"{where}change the secret, then find out how it came there"
        raise _secret_found(f"archiving {notebook.name}", hits, remedy)

    def _kept_copy(self, notebook: Path) -> Path:
        """What moves into the archive."""
        return notebook

    # --- secrets -------------------------------------------------------------------------------------------------

    def shown(self, text: str) -> str:
        """A text as a terminal may show it, whose output is kept in files, too."""
        return hygiene.shown(text, self._values())

    def _read_again(self) -> None:
        """A run makes and replaces keys, and what was one stays one."""
        self._known |= dict.fromkeys(handled_secrets.of_run(self._section, self._parameters))

    def _values(self) -> list[Value]:
        """Every secret that is known by now."""
        heard = self._confidant.heard() if self._confidant else []
        return list(self._known | dict.fromkeys(Value(name, content) for name, content in heard))

    def _search(self, value: Mapping[str, Any], named: str) -> list[Hit]:
        return hygiene.scan_value(value, self._values(), named)

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


def approved_plans(records: Iterable[Record], digests: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What earlier runs recorded of approved plans, and what runs under the approval have written since.

    Args:
        records: of the archive.
        digests: of the approved plans.

    Returns:
        ``changes`` and ``wrote`` by digest, as ``approval.known`` reads them.
    """
    found: dict[str, dict[str, Any]] = {digest: {"changes": [], "wrote": []} for digest in digests}
    unseen = set(found)
    for record in reversed(tuple(records)):
        if not unseen:  # whatever is older was there before the plan that was approved
            break
        try:
            facts = record.facts()
        except RecordError:  # whatever cannot be read vouches for nothing
            continue
        objects, under = facts.get("objects") or [], (facts.get("parameters") or {}).get("approve") or ()
        wrote = [one["target"] for one in objects if one.get("written")]
        wrote += [one["target"] for one in (facts.get("journal") or {}).get("written") or ()]
        for digest in found.keys() & set(under):
            found[digest]["wrote"] += wrote
        planned = str((facts.get("plan") or {}).get("digest"))
        if planned in found:
            found[planned]["changes"] = found[planned]["changes"] or objects
            unseen -= {planned} - set(under)
    return found


def _secret_found(attempted: str, hits: Sequence[Hit], remedy: str) -> SecretFound:
    said = few(dict.fromkeys(f"{hit.secret} in {_place(hit.cell)}" for hit in hits), "; ")
    return SecretFound(attempted, said, remedy)


def _place(cell: str) -> str:
    return f"the {cell[1:-1]}" if cell.startswith("(") else f"the cell {cell}"


class CopyRecorder(Recorder):
    """The record of a run that plain papermill started: a notebook without secrets stays where its caller wants it."""

    def _kept_copy(self, notebook: Path) -> Path:
        copy = self.folder / notebook.name
        shutil.copyfile(notebook, copy)
        return copy


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
