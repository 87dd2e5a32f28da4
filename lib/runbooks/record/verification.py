"""Whether an archive is what was signed: signatures, digests, order, and, against a kept head, that nothing is missing.

Every record's last envelope is checked by its signature, the ones before it by the digests that the last one and the
log name. With ``thorough`` each signature is checked by itself, which says the same and takes three times as long.

What cannot be told is never called good: a record is tampered with, not trusted, incomplete, or verified.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from runbooks.errors import ArchiveUnusable, NotChecked, NotTrusted, RecordError, WrongSignature
from runbooks.record import archive as archives
from runbooks.record import envelope, log, statement
from runbooks.record.archive import Archive, Record, State, read_file
from runbooks.record.keys import PublicKey, public
from runbooks.record.log import Entry, Head

PAGE = "record.html"  # rendered from the record, so it may be there, and says nothing
_MANY = 600  # records, from which on a second process is worth its start
_SHOWN = 5


class Verdict(StrEnum):
    """How a record or an archive came out, the best first."""

    VERIFIED = "verified"
    INCOMPLETE = "incomplete"
    NOT_TRUSTED = "not trusted"
    TAMPERED = "tampered"


EXIT_CODES: Mapping[Verdict, int] = {
    Verdict.VERIFIED: 0,
    Verdict.TAMPERED: 1,
    Verdict.NOT_TRUSTED: 3,
    Verdict.INCOMPLETE: 4,
}

REMEDIES: Mapping[Verdict, str] = {
    Verdict.TAMPERED: "change nothing, and compare the archive with a copy, or with a head that was kept elsewhere",
    Verdict.NOT_TRUSTED: "get the public key from who made the records, compare its id, name its folder with --trust",
    Verdict.INCOMPLETE: (
        "wait for runs that go on, and close those that ended without a result: runbooks records recover; what was "
        "adopted stays so, since nobody watched it"
    ),
}


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The one that counts for all."""
    return max(verdicts, key=list(Verdict).index, default=Verdict.VERIFIED)


@dataclass(frozen=True)
class Found:
    """One thing that is not as it should be.

    Args:
        verdict: how bad it is.
        said: what it is.
    """

    verdict: Verdict
    said: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.verdict]


@dataclass(frozen=True)
class Judged:
    """One record.

    Args:
        id: the run's id.
        state: finished, recovered, adopted, running or unfinished.
        found: what is not as it should be.
        remarks: what is worth knowing, and no fault.
    """

    id: str
    state: str
    found: tuple[Found, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of what was found."""
        return worst(one.verdict for one in self.found)


@dataclass(frozen=True)
class Report:
    """What became of a verification.

    Args:
        archive: the archive's id.
        head: the signed head in one line; empty where there is none.
        entries: how many there are in the log.
        records: the records that were asked for.
        found: what is amiss with the archive as a whole.
        remarks: what is worth knowing, and no fault.
        rollback: against which kept heads the archive was compared.
    """

    archive: str
    head: str
    entries: int
    records: tuple[Judged, ...]
    found: tuple[Found, ...]
    remarks: tuple[str, ...]
    rollback: str

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return worst([one.verdict for one in self.found] + [record.verdict for record in self.records])

    @property
    def exit_code(self) -> int:
        """0 verified, 1 tampered, 3 not trusted, 4 incomplete."""
        return EXIT_CODES[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """The report for a program."""
        return {
            "verdict": str(self.verdict),
            "exit_code": self.exit_code,
            "archive": self.archive,
            "head": self.head,
            "entries": self.entries,
            "rollback": self.rollback,
            "found": [{"verdict": str(one.verdict), "said": one.said} for one in self.found],
            "remarks": list(self.remarks),
            "records": [
                {
                    "id": record.id,
                    "verdict": str(record.verdict),
                    "state": record.state,
                    "found": [one.said for one in record.found],
                    "remarks": list(record.remarks),
                }
                for record in self.records
            ],
        }


@dataclass(frozen=True)
class _Asked:
    """A record and what its entries have to name: the digest of the envelope before each of them."""

    record: Record
    before: tuple[str, ...]


@dataclass
class _Findings:
    found: list[Found] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, error: RecordError) -> None:
        """Take an error down by its kind."""
        kinds = {WrongSignature: Verdict.TAMPERED, NotTrusted: Verdict.NOT_TRUSTED, NotChecked: Verdict.TAMPERED}
        said = f"{error.attempted}: {error.said}" if error.said else error.attempted
        self.found.append(Found(kinds.get(type(error), Verdict.TAMPERED), said))

    def tampered(self, said: str) -> None:
        """Take a contradiction down."""
        self.found.append(Found(Verdict.TAMPERED, said))


def verify(
    archive: Archive,
    trusted: Sequence[PublicKey],
    names: Iterable[str] | None = None,
    anchors: Sequence[Path] = (),
) -> Report:
    """Check the whole archive, or some of its records; the log and its head are checked in any case.

    Args:
        archive: the archive.
        trusted: whose signatures count.
        names: ids, or parts of ids; None for all.
        anchors: files with heads that were kept elsewhere.

    Raises:
        UsageError: there is no such record.
        NotChecked: an anchor cannot be read, or an entry was cut short and cannot be finished here.
    """
    findings = _Findings()
    state = _state(archive, findings)
    records = state.records(archive.path)
    thorough = names is not None
    chosen = records if names is None else tuple(archives.pick(records, name) for name in names)
    rollback = _anchored(archive, state, trusted, anchors, findings)
    _check_head(archive, state, trusted, findings)
    _check_self(archive, records, findings)
    if names is None:
        _check_unlogged(archive, records, findings)
    judged = _judge_all(_asked(chosen, state, archive), archive.id, trusted, thorough)
    if not trusted:
        findings.found.append(Found(Verdict.NOT_TRUSTED, "no key is trusted here: name a folder with --trust"))
    head = state.head.line() if state.head else ""
    found, remarks = tuple(findings.found), tuple(findings.remarks)
    return Report(archive.id, head, len(state.entries), judged, found, remarks, rollback)


# --- the archive as a whole -------------------------------------------------------------------------------------------


def _state(archive: Archive, findings: _Findings) -> State:
    """Log and head, as far as they can be read."""
    try:
        state = archive.read()
    except NotChecked as error:
        if archive.is_cut_short():
            raise
        findings.add(error)
        log_path = archive.path / archives.LOG
        state = State(read_file(log_path) if log_path.exists() else b"", None)
    try:
        _ = state.entries
    except ArchiveUnusable as error:
        findings.add(error)
        return State(b"", None)
    return state


def _check_head(archive: Archive, state: State, trusted: Sequence[PublicKey], findings: _Findings) -> None:
    if findings.found and state.head is None:
        return  # said already
    if said := archives.disagreement(state, archive.id):
        findings.tampered(said)
    try:
        if state.head:
            state.head.verify(trusted)
    except RecordError as error:
        findings.add(error)


def _check_self(archive: Archive, records: Sequence[Record], findings: _Findings) -> None:
    """The first entry of all names the digest of ARCHIVE.json."""
    if not records:
        return
    try:
        first = records[0].statement(records[0].entries[0])
    except NotChecked:
        return  # the record itself says so
    if first.predicate.get("previous") != log.digest(read_file(archive.path / archives.SELF)):
        findings.tampered(f"{archives.SELF} is not what the first entry was signed over")


def _check_unlogged(archive: Archive, records: Sequence[Record], findings: _Findings) -> None:
    """Folders that no entry names, and files that belong to nothing."""
    known = {record.id for record in records}
    strange = sorted(set(_names(archive.path / "records")) - known)
    if strange:  # a run may have begun meanwhile
        known |= {entry.record for entry in _logged_by_now(archive.path)}
    for name in strange:
        if name in known:
            continue
        if any((archive.path / "records" / name).glob("*.dsse.json")):
            findings.tampered(f"records/{name} holds envelopes, and no entry of the log names it")
        elif any((archive.path / "records" / name).glob("*")) or not (archive.path / "records" / name).is_dir():
            findings.remarks.append(f"records/{name} does not belong to the archive; nobody signed it")
    own = {archives.SELF, archives.LOG, archives.HEAD, archives.LOCK, *archives.FOLDERS, "index.html"}
    foreign = [name for name in _names(archive.path) if name not in own and not name.startswith(".")]
    findings.remarks.extend(_foreign(foreign, "the archive"))


def _foreign(names: Sequence[str], where: str) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return [f"files that do not belong to {where}, and that nobody signed: {', '.join(names[:_SHOWN])}{more}"]


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 names are all that is wanted, of ten thousand folders
    except OSError:
        return []


# --- heads that were kept elsewhere -----------------------------------------------------------------------------------


def _anchored(
    archive: Archive, state: State, trusted: Sequence[PublicKey], anchors: Sequence[Path], findings: _Findings
) -> str:
    """Compare the log with every head that was kept; returns what can be said about a rollback."""
    if not anchors:
        return "rollback not checked: no kept head was given (--anchor)"
    kept = [(path, head) for path in anchors for head in _heads_in(path)]
    own = sorted(((path, head) for path, head in kept if head.archive == archive.id), key=lambda one: one[1].count)
    if not own:
        said = (
            "none of the kept heads is of this archive: another file is meant, or another archive stands in its place"
        )
        findings.found.append(Found(Verdict.NOT_TRUSTED, said))
        return "rollback not checked: no kept head of this archive"
    lines, running, done, good = state.log.splitlines(keepends=True), hashlib.sha256(), 0, 0
    for path, head in own:
        try:
            head.verify(trusted, f"the head kept in {path}")
        except RecordError as error:
            # an altered anchor says nothing about the archive
            findings.found.append(Found(Verdict.NOT_TRUSTED, f"{error.attempted}: {error.said}"))
            continue
        if head.count > len(lines):
            findings.tampered(
                f"{path} keeps a head of {head.count:,} entries, and the log has {len(lines):,}: cut back"
            )
            continue
        running.update(b"".join(lines[done : head.count]))
        done = head.count
        if running.hexdigest() != head.digest:
            findings.tampered(f"the first {head.count:,} entries are not those of the head kept in {path}: rewritten")
        else:
            good = head.count
    after = len(lines) - good
    return f"compared with {len(own)} kept heads, good up to entry {good:,}; {after:,} entries are newer"


def _heads_in(path: Path) -> list[Head]:
    try:
        found = log.heads(path.read_text(errors="replace"))
    except OSError as error:
        raise NotChecked(f"reading the anchor {path}", error.strerror or str(error), "name a readable file") from error
    if not found:
        remedy = "keep the whole line that runbooks records head prints"
        raise NotChecked(f"reading the anchor {path}", "there is no head of an archive in it", remedy)
    return found


# --- the records ------------------------------------------------------------------------------------------------------


def _asked(records: Iterable[Record], state: State, archive: Archive) -> list[_Asked]:
    digests = [log.digest(read_file(archive.path / archives.SELF)), *(entry.envelope for entry in state.entries)]
    return [_Asked(record, tuple(digests[entry.sequence - 1] for entry in record.entries)) for record in records]


def _judge_all(
    asked: Sequence[_Asked], archive: str, trusted: Sequence[PublicKey], thorough: bool
) -> tuple[Judged, ...]:
    workers = min(4, os.cpu_count() or 1)
    if len(asked) < _MANY or workers < 2:
        return _judge_some(asked, archive, [key.pem for key in trusted], thorough)
    size = max(100, len(asked) // (workers * 4))
    parts = [asked[start : start + size] for start in range(0, len(asked), size)]
    pems = [key.pem for key in trusted]
    with concurrent.futures.ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(_judge_some, part, archive, pems, thorough) for part in parts]
        return tuple(judged for future in futures for judged in future.result())


def _judge_some(asked: Sequence[_Asked], archive: str, pems: Sequence[bytes], thorough: bool) -> tuple[Judged, ...]:
    trusted = [public(pem, "given") for pem in pems]
    return tuple(judge(one.record, one.before, archive, trusted, thorough) for one in asked)


def judge(
    record: Record, before: Sequence[str], archive: str, trusted: Sequence[PublicKey], thorough: bool = True
) -> Judged:
    """Check one record.

    Args:
        record: its entries, as the log has them.
        before: for each entry the digest of the envelope before it.
        archive: the id of the archive that it was signed for.
        trusted: whose signatures count.
        thorough: check each envelope by its signature, not by the digests that the last one names.
    """
    findings = _Findings()
    files = {f"{entry.phase}.dsse.json" for entry in record.entries}
    for entry, previous in zip(record.entries, before, strict=True):
        last = entry is record.entries[-1]
        read = _check_envelope(record, entry, previous, archive, trusted if last or thorough else None, findings)
        if read is not None:
            files |= _check_files(record, entry, read, findings)
            if last:
                _check_named(record, read, findings)
                _remark(read, findings)
    _check_rest(record, files, findings)
    incomplete = {
        "unfinished": "it has no result: runbooks records recover",
        "running": "it is running",
        "adopted": "it was executed by something else, and signed as found",
    }
    if said := incomplete.get(record.state):
        findings.found.append(Found(Verdict.INCOMPLETE, said))
    return Judged(record.id, record.state, tuple(findings.found), tuple(findings.remarks))


def _check_envelope(
    record: Record,
    entry: Entry,
    previous: str,
    archive: str,
    trusted: Sequence[PublicKey] | None,
    findings: _Findings,
) -> statement.Read | None:
    """One envelope's digest, signature and place; the statement in it, where that is worth anything."""
    name = f"{entry.phase}.dsse.json"
    try:
        text = read_file(record.folder / name)
        if log.digest(text) != entry.envelope:
            findings.tampered(f"{name} is not what the log names")
        if trusted is None:
            return None
        parsed = envelope.parse(text, name)
        read = statement.read(parsed.payload, name)
        envelope.verify(parsed, trusted, name)
    except NotTrusted as error:
        findings.add(error)  # the rest can be compared all the same
    except RecordError as error:
        findings.add(error)
        return None
    said = read.predicate
    place = (said.get("archive"), said.get("phase"), said.get("sequence"), said.get("previous"))
    if place != (archive, entry.phase, entry.sequence, previous) or said.get("run", {}).get("id") != record.id:
        findings.tampered(f"{name} was signed for another place in the log")
    return read


def _check_files(record: Record, entry: Entry, read: statement.Read, findings: _Findings) -> set[str]:
    """The files that a statement is about; returns their names."""
    if entry.phase in ("start", "intent"):
        return set()
    names = {name: digest for name, digest in read.subjects.items() if not name.startswith(statement.STAND_INS)}
    for name, digest in names.items():
        path = record.folder / name
        if "/" in name or not path.is_file():
            findings.tampered(f"{name} is gone")
        elif log.digest(read_file(path)) != digest:
            findings.tampered(f"{name} is not what was signed")
    return set(names)


def _check_named(record: Record, read: statement.Read, findings: _Findings) -> None:
    """The digests of the earlier entries that the last one names."""
    run = read.predicate.get("run", {})
    for entry in record.entries[:-1]:
        if run.get(entry.phase) != entry.envelope:
            findings.tampered(f"the last entry closes another {entry.phase}")


def _remark(read: statement.Read, findings: _Findings) -> None:
    if back := read.predicate.get("time", {}).get("clock_back_s"):
        findings.remarks.append(f"signed by a clock that stood {back:,} s before the entry before it")
    for one in read.predicate.get("hygiene", {}).get("withheld", ()):
        findings.remarks.append(f"{one.get('name')} holds a secret, and was kept out")


def _check_rest(record: Record, files: set[str], findings: _Findings) -> None:
    rest = [name for name in _names(record.folder) if name not in files and name != PAGE and not name.startswith(".")]
    if not rest or _ended_meanwhile(record):
        return
    for name in [name for name in rest if name.endswith(".dsse.json")]:
        rest.remove(name)
        findings.tampered(f"{name} is named by no entry of the log")
    findings.remarks.extend(_foreign(rest, "the record"))


def _ended_meanwhile(record: Record) -> bool:
    """Whether entries of this run were added since the log was read; then its folder is ahead of what is known."""
    entries = _logged_by_now(record.folder.parent.parent)
    return len(record.entries) < sum(entry.record == record.id for entry in entries)


def _logged_by_now(archive: Path) -> tuple[Entry, ...]:
    try:
        return log.parse(read_file(archive / archives.LOG), archives.LOG)
    except RecordError:
        return ()
