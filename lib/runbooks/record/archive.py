r"""The folder of all records, and the only way to add to it.

::

    ARCHIVE.json                     format, and the archive's id
    log.jsonl, head                  every entry in order, and one signed line over them
    records/20261123T135816Z-6.4.3-apply-3f9a2c/
        start.dsse.json              before anything happened
        intent.dsse.json             before anything was changed
        result.dsse.json             how it ended, over the digest of
        6.4.3-integrate.ipynb        the executed notebook, byte for byte
    quarantine/                      what a secret was found in; for its owner's eyes
    tmp/                             what is at work now, a folder for each run

Public keys are not kept here: a key that lies beside what it signed proves nothing, and tempts to trust it.
Folders stay writable, so that a rendered page can be put into them; what counts is the digest, not the mode.

Adding an entry: all files of it are written and synced beside the archive, then one rename (``tmp/next``) decides.
From there on the entry will be in the log, whoever dies: the next one to come finishes what it finds.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import getpass
import json
import os
import re
import secrets
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from runbooks.errors import ArchiveUnusable, NotChecked, NotRecorded, RecordError, UsageError
from runbooks.record import durable, envelope, locks, log, statement
from runbooks.record.keys import PrivateKey, PublicKey, distinct
from runbooks.record.log import Entry, Head

VARIABLE = "RUNBOOKS_RECORDS"
FORMAT = 1
SELF = "ARCHIVE.json"
LOG = "log.jsonl"
HEAD = "head"
LOCK = "lock"
FOLDERS = {"records": 0o755, "tmp": 0o711, "quarantine": 0o700}
_ALIVE = "alive"
_TOLERATED_BACK_S = 2.0  # what setting a clock right moves it by on any day
_LAYOUT = {
    "log.jsonl": "one line for each entry, in order; envelope is the sha256 of records/RECORD/PHASE.dsse.json",
    "head": "signed: archive id, number of entries, sha256 of that many lines of the log",
    "records": "one folder a run: DSSE envelopes, and the executed notebook that they name",
    "quarantine": "files that hold a secret",
    "tmp": "what is at work",
}


def default_folder() -> Path:
    """Where the archive is: $RUNBOOKS_RECORDS, or among this user's data."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_data_path("serverless-mesh-runbooks") / "records")


@dataclass(frozen=True)
class Record:
    """All entries of one run.

    Args:
        id: the run's id, and the name of its folder.
        folder: where its files are.
        entries: in their order.
        running: whether a process is at work on it.
    """

    id: str
    folder: Path
    entries: tuple[Entry, ...]
    running: bool = False

    @property
    def phases(self) -> Mapping[str, Entry]:
        """The entries by phase."""
        return {entry.phase: entry for entry in self.entries}

    @property
    def state(self) -> str:
        """finished, recovered, adopted, running or unfinished."""
        ends = {"result": "finished", "recovery": "recovered", "adoption": "adopted"}
        for phase, state in ends.items():
            if phase in self.phases:
                return state
        return "running" if self.running else "unfinished"

    def statements(self) -> list[statement.Read]:
        """What its entries say; nothing is checked.

        Raises:
            NotChecked: an envelope cannot be read.
        """
        return [self.statement(entry) for entry in self.entries]

    def statement(self, entry: Entry) -> statement.Read:
        """What one entry says; nothing is checked.

        Raises:
            NotChecked: the envelope cannot be read.
        """
        path = self.folder / f"{entry.phase}.dsse.json"
        return statement.read(envelope.parse(read_file(path), str(path)).payload, str(path))

    def facts(self) -> dict[str, Any]:
        """Everything that is known of the run, the latest of each."""
        return statement.overall(read.predicate for read in self.statements())


@dataclass(frozen=True)
class State:
    """Log and head at one moment; the log is read as far as somebody asks, since it grows.

    Args:
        log: the log's bytes.
        head: its signed head; None before the first entry.
    """

    log: bytes
    head: Head | None

    @property
    def count(self) -> int:
        """How many entries the log has."""
        return self.log.count(b"\n")

    @functools.cached_property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, in order.

        Raises:
            ArchiveUnusable: a line is none.
        """
        return log.parse(self.log, LOG)

    @property
    def last(self) -> Entry | None:
        """The newest entry."""
        if not self.log:
            return None
        return log.parse_line(self.log[self.log.rfind(b"\n", 0, -1) + 1 :], self.count, LOG)

    def of(self, name: str) -> tuple[Entry, ...]:
        """The entries of one run."""
        lines = enumerate(self.log.splitlines(), 1)
        found = (log.parse_line(line, number, LOG) for number, line in lines if name.encode() in line)
        return tuple(entry for entry in found if entry.record == name)

    def records(self, folder: Path) -> tuple[Record, ...]:
        """The entries by run, in the order in which the runs began."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.record, []).append(entry)
        return tuple(_record(folder, name, tuple(entries)) for name, entries in found.items())


def _record(folder: Path, name: str, entries: tuple[Entry, ...]) -> Record:
    ended = entries[-1].phase not in ("start", "intent")
    running = not ended and locks.is_alive(folder / "tmp" / name / _ALIVE)
    return Record(name, folder / "records" / name, entries, running)


@dataclass(frozen=True)
class _Incoming:
    """A file that becomes part of a record; ``keep`` leaves the original where it is."""

    path: Path
    name: str
    keep: bool = False


@dataclass
class Archive:
    """The archive; see ``Archive.open``.

    Args:
        path: its folder.
        id: what tells it from other archives of the same key.
        signer: who signs new entries; None to read only.
        trusted: whose head a new entry may follow, besides the signer's.
        clock: what time it is.
    """

    path: Path
    id: str
    signer: PrivateKey | None = None
    trusted: Sequence[PublicKey] = ()
    clock: Callable[[], dt.datetime] = field(default=lambda: dt.datetime.now(dt.UTC))

    @classmethod
    def open(cls, path: Path | str, *, signer: PrivateKey | None = None, trusted: Iterable[PublicKey] = ()) -> Archive:
        """Open an archive; with a signer one is made where there is none.

        Raises:
            ArchiveUnusable: it is of a newer format, something else, or cannot be locked.
            NotRecorded: none can be made here.
            UsageError: there is none.
        """
        path = Path(path).absolute()
        if not (path / SELF).exists():
            if signer is None:
                remedy = "name the folder with --records; the first runbooks run makes it"
                raise UsageError(f"opening the archive {path}", f"there is no {SELF}", remedy)
            _make(path)
        return cls(path, _identity(path), signer, tuple(trusted))

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self) -> State:
        """Log and head as they are now; an entry that a dead process left half in place is finished first.

        Raises:
            NotChecked: the head is none, or the entry cannot be finished here.
        """
        while True:
            with locks.shared(self.path / LOCK):
                if not self.is_cut_short():
                    return self._read()
            self.settle()  # no writer held the lock, so whoever decided this is dead

    def is_cut_short(self) -> bool:
        """Whether an entry was decided and is not yet in place."""
        decided = self.path / "tmp" / "next"
        try:
            return (decided / "entry.json").exists()
        except PermissionError:  # whoever only checks may see that it is there
            return decided.exists()

    def _read(self) -> State:
        text = read_file(self.path / LOG) if (self.path / LOG).exists() else b""
        path = self.path / HEAD
        head = log.parse_head(read_file(path), str(path)) if path.exists() else None
        return State(text, head)

    def records(self) -> tuple[Record, ...]:
        """Every run, in the order in which they began."""
        return self.read().records(self.path)

    def record(self, name: str) -> Record:
        """One run by its id, or by a part of the id that no other has.

        Raises:
            UsageError: there is none, or more than one.
        """
        return pick(self.records(), name)

    @property
    def head(self) -> str:
        """The signed head in one line, to be kept elsewhere; empty before the first entry."""
        found = self.read().head
        return found.line() if found else ""

    # --- adding --------------------------------------------------------------------------------------------------

    def begin(self, facts: Mapping[str, Any]) -> Run:
        """Announce a run: its start entry is signed and on the disk when this returns.

        Args:
            facts: what is known before anything happens: section, runbook, version, mode, parameters, and
                ``source`` with the name and sha256 of the notebook that will be executed.

        Raises:
            RecordError: it could not be written, so nothing may be run.
        """
        words = [str(facts.get("section") or facts.get("runbook") or "run"), str(facts.get("mode") or "")]
        run = Run(self, self._new_id(words))
        try:
            run.begin(facts)
        except BaseException:
            run.leave()
            raise
        return run

    def adopt(self, notebook: Path, facts: Mapping[str, Any], also: Iterable[Path] = ()) -> Entry:
        """Sign a notebook that something else executed, as it was found; the original stays where it is.

        Raises:
            RecordError: it could not be written.
        """
        files = [_Incoming(path, path.name, keep=True) for path in (notebook, *also)]
        return self.append("adoption", self._new_id([notebook.stem, "adopted"]), facts, files)

    @contextlib.contextmanager
    def taken_over(self, record: Record) -> Iterator[Run]:
        """Be the process that is responsible for a run that vanished, to close it with a ``recovery``.

        Raises:
            ArchiveUnusable: the run goes on still.
        """
        run = Run(self, record.id)
        run.take_over()
        try:
            yield run
        finally:
            run.leave()

    def left_behind(self, name: str) -> list[Path]:
        """The whole files in a run's workspace; a hidden one is what a writer had not finished."""
        found = (path for path in self.workspace(name).glob("*") if path.name != _ALIVE and path.is_file())
        return sorted(path for path in found if not path.name.startswith("."))

    def is_running(self, name: str) -> bool:
        """Whether a process is at work on a run."""
        return locks.is_alive(self.workspace(name) / _ALIVE)

    def workspace(self, name: str) -> Path:
        """Where a run may write while it goes on."""
        return self.path / "tmp" / name

    def _new_id(self, words: Iterable[str]) -> str:
        shown = "-".join(filter(None, (re.sub(r"[^0-9A-Za-z._]+", "-", word).strip("-.") for word in words)))
        return f"{self.clock():%Y%m%dT%H%M%SZ}-{shown[:80]}-{secrets.token_hex(3)}"

    def append(self, phase: str, name: str, facts: Mapping[str, Any], files: Sequence[_Incoming] = ()) -> Entry:
        """Sign one entry and put it into the log; it is on the disk when this returns.

        Raises:
            RecordError: it could not be written, and the archive is as it was before.
        """
        attempted = f"writing the {phase} of run {name} into {self.path}"
        if self.signer is None:
            raise ArchiveUnusable(attempted, "it was opened for reading only", "open it with a signing key")
        for file in files:
            _check_name(file, attempted)
        try:
            with locks.exclusive(self.path / LOCK):
                self._settle()
                state = self._sound(attempted)
                self._refuse_twice(phase, name, attempted)
                return self._commit(phase, name, facts, files, state)
        except OSError as error:
            raise _not_recorded(attempted, error) from error

    def _refuse_twice(self, phase: str, name: str, attempted: str) -> None:
        taken = (phase,) if phase in ("start", "intent") else ("result", "recovery", "adoption")
        folder = self.path / "records" / name
        if found := [one for one in (*taken, "result", "recovery") if (folder / f"{one}.dsse.json").exists()]:
            raise RecordError(attempted, f"it has a {found[0]} already", f"runbooks records show {name}")

    def _sound(self, attempted: str) -> State:
        """The log that the new entry follows; a log that somebody touched is never signed anew."""
        remedy = "nothing was written: see runbooks records verify --all, and record into another folder (--records)"
        try:
            state = self._read()
        except RecordError as error:
            raise ArchiveUnusable(attempted, error.said or error.attempted, remedy) from error
        if state.head is None:
            if state.log or any(self.path.glob("records/*/*.dsse.json")):
                raise ArchiveUnusable(attempted, "its signed head is gone", remedy)
            return state
        said = _disagreement(state.head, self.id, state.log)
        if said:
            raise ArchiveUnusable(attempted, said, remedy)
        assert self.signer is not None
        try:
            state.head.verify(distinct([self.signer.public, *self.trusted]))
        except RecordError as error:
            raise type(error)(attempted, error.said, f"{error.remedy}; nothing was written") from error
        return state

    def _commit(
        self, phase: str, name: str, facts: Mapping[str, Any], files: Sequence[_Incoming], state: State
    ) -> Entry:
        assert self.signer is not None
        with durable.discarded(self.path / "tmp" / f"staging-{secrets.token_hex(4)}") as staging:
            (staging / "files").mkdir()
            subjects = {file.name: _staged(file, staging / "files" / file.name) for file in files}
            place = self._place(phase, name, state)
            text = envelope.sign(statement.make(place, subjects or _stand_in(place, facts), _told(facts)), self.signer)
            entry = Entry(place.sequence, phase, name, log.digest(text), statement.stamp(place.signed))
            head = log.sign_head(self.id, entry.sequence, log.digest(state.log + entry.line()), self.signer)
            durable.write(staging / "files" / f"{phase}.dsse.json", text, durable.READABLE)
            durable.write(staging / HEAD, f"{head.line()}\n".encode())
            durable.write(staging / "entry.json", _bound(entry, len(state.log)))
            durable.sync(staging / "files", staging)
            (self.path / "records" / name).mkdir(exist_ok=True)
            durable.sync(self.path / "records")
            self._decide(staging)
        return entry

    def _place(self, phase: str, name: str, state: State) -> statement.Place:
        now = self.clock()
        last = state.last
        back = (dt.datetime.fromisoformat(last.signed) - now).total_seconds() if last else 0.0
        previous = last.envelope if last else log.digest(read_file(self.path / SELF))
        closes = {entry.phase: entry.envelope for entry in state.of(name)}
        late = back if back > _TOLERATED_BACK_S else 0.0
        return statement.Place(self.id, phase, state.count + 1, previous, name, closes, now, late)

    def _decide(self, staging: Path) -> None:
        """Make the entry count, and put it in place; where the log cannot grow, take it all back."""
        decided = self.path / "tmp" / "next"
        staging.rename(decided)
        durable.sync(decided.parent)
        try:
            self._extend_log(decided)
        except OSError:
            decided.rename(staging)
            raise
        self._put_in_place(decided)

    # --- finishing what a dead process left -----------------------------------------------------------------------

    def settle(self) -> None:
        """Finish an entry that was decided but not yet in place; needs no key.

        Raises:
            NotChecked: this copy cannot be written.
        """
        try:
            with locks.exclusive(self.path / LOCK):
                self._settle()
        except OSError as error:
            said = f"an entry was cut short, and cannot be finished here ({error.strerror})"
            remedy = "run this where the archive can be written, then copy it anew"
            raise NotChecked(f"reading {self.path}", said, remedy) from error

    def _settle(self) -> None:
        for name, mode in FOLDERS.items():
            (self.path / name).mkdir(mode=mode, exist_ok=True)
        for leftover in (self.path / "tmp").glob("staging-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        decided = self.path / "tmp" / "next"
        if (decided / "entry.json").exists():
            self._extend_log(decided)
            self._put_in_place(decided)
        elif decided.exists():
            shutil.rmtree(decided)

    def _extend_log(self, decided: Path) -> None:
        bound = json.loads(read_file(decided / "entry.json"))
        line, path = bound["line"].encode(), self.path / LOG
        path.touch()
        if read_file(path)[bound["size"] :][: len(line)] != line:  # a torn tail, or nothing yet
            durable.extend(path, bound["size"], line)

    def _put_in_place(self, decided: Path) -> None:
        bound = json.loads(read_file(decided / "entry.json"))
        folder = self.path / "records" / bound["record"]
        folder.mkdir(exist_ok=True)
        for file in sorted((decided / "files").glob("*")):
            file.rename(folder / file.name)
        durable.sync(folder, self.path / "records")
        if (decided / HEAD).exists():
            (decided / HEAD).rename(self.path / HEAD)
        durable.sync(self.path)
        (decided / "entry.json").unlink()
        shutil.rmtree(decided)
        durable.sync(decided.parent)


class Run:
    """A run that was announced; whatever happens to it, its record says so.

    Args:
        archive: where its record is.
        name: its id.
    """

    def __init__(self, archive: Archive, name: str) -> None:
        self.id = name
        self.workspace = archive.workspace(name)
        self.remarks: tuple[str, ...] = ()
        self._archive = archive
        self._alive: locks.Alive | None = None

    @property
    def folder(self) -> Path:
        """Where its record is kept."""
        return self._archive.path / "records" / self.id

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Take a workspace and sign the start entry; ``Archive.begin`` calls it."""
        self._take_workspace()
        entry = self._archive.append("start", self.id, facts)
        self.remarks = _remarks(self._archive, entry)

    def take_over(self) -> None:
        """Become the process that is responsible for a run that vanished.

        Raises:
            ArchiveUnusable: the run goes on still.
        """
        self._take_workspace()

    def _take_workspace(self) -> None:
        try:
            self.workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._alive = locks.Alive(self.workspace / _ALIVE)
        except OSError as error:
            raise _not_recorded(f"making {self.workspace}", error) from error

    def intend(self, facts: Mapping[str, Any]) -> Entry:
        """Sign what is about to be changed; it is on the disk when this returns.

        Args:
            facts: who, where and what, with ``plan`` as the plan cell put it out.

        Raises:
            RecordError: it could not be written, so nothing may be changed.
        """
        return self._archive.append("intent", self.id, facts)

    def finish(self, notebook: Path | None, facts: Mapping[str, Any], also: Iterable[Path] = ()) -> Entry:
        """Sign how it ended, over the executed notebook's bytes, which move into the record.

        Args:
            notebook: the executed notebook; None where there is none.
            facts: the structured outcome, and how the run ended.
            also: further files, for example the journal.

        Raises:
            RecordError: it could not be written; the files are where they were.
        """
        return self.close("result", [path for path in (notebook, *also) if path], facts)

    def withhold(
        self,
        paths: Sequence[Path],
        withheld: Iterable[Path],
        hits: Sequence[Mapping[str, str]],
        facts: Mapping[str, Any],
    ) -> Entry:
        """Sign how it ended without the files that hold a secret, which go into quarantine.

        Args:
            paths: the executed notebook, and further files.
            withheld: those of them that hold a secret.
            hits: where the secret was found: ``cell``, ``secret`` (its name) and ``form``, never its value.
            facts: as for ``finish``.

        Raises:
            RecordError: it could not be written.
        """
        told = {**facts, "outcome": "failed: secret found", "hygiene": {"hits": [dict(hit) for hit in hits]}}
        return self.close("result", paths, told, frozenset(path.name for path in withheld))

    def close(
        self, phase: str, paths: Sequence[Path], facts: Mapping[str, Any], withheld: frozenset[str] = frozenset()
    ) -> Entry:
        """Sign the last entry; see ``finish``, ``withhold`` and ``Archive.taken_over``."""
        kept = [path for path in paths if path.name not in withheld]
        if away := [path for path in paths if path.name in withheld]:
            hygiene = {**(facts.get("hygiene") or {}), "withheld": [self._quarantine(path) for path in away]}
            facts = {**facts, "hygiene": hygiene}
        files = [_Incoming(path, path.name) for path in kept]
        entry = self._archive.append(phase, self.id, facts, files)
        for path in kept:
            with contextlib.suppress(OSError):
                path.unlink()
        self.leave()
        return entry

    def _quarantine(self, path: Path) -> dict[str, str]:
        folder = self._archive.path / "quarantine" / self.id
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = folder / path.name
            if path.exists():
                path.chmod(durable.PRIVATE)
                durable.take_in(path, target, durable.PRIVATE, keep=False)
                path.unlink()
                durable.sync(folder, folder.parent)
            return {"name": path.name, "sha256": log.digest(read_file(target)), "kept": f"quarantine/{self.id}"}
        except OSError as error:
            raise _not_recorded(f"moving {path} into quarantine", error) from error

    def leave(self) -> None:
        """Give the workspace up; what is still in it stays for a recovery."""
        if self._alive is None:
            return
        if not self._archive.left_behind(self.id):
            shutil.rmtree(self.workspace, ignore_errors=True)
        self._alive.end()
        self._alive = None


# --- parts -----------------------------------------------------------------------------------------------------------


def _make(path: Path) -> None:
    """Make an archive; files that are there already are left alone."""
    attempted = f"making an archive in {path}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with locks.exclusive(path / LOCK):
            if (path / SELF).exists():
                return
            if _has_content(path):
                remedy = f"bring {SELF} back from a copy, or name another folder with --records"
                raise ArchiveUnusable(attempted, f"there are records, and {SELF} is gone", remedy)
            for name, mode in FOLDERS.items():
                (path / name).mkdir(mode=mode, exist_ok=True)
            durable.replace(path / LOG, b"")
            made = {"format": FORMAT, "id": str(uuid.uuid4()), "made": statement.stamp(dt.datetime.now(dt.UTC))}
            text = json.dumps({**made, "layout": _LAYOUT}, indent=1) + "\n"
            durable.replace(path / SELF, text.encode(), durable.READABLE)
    except OSError as error:
        raise _not_recorded(attempted, error) from error


def _has_content(path: Path) -> bool:
    logged = (path / LOG).exists() and (path / LOG).stat().st_size > 0
    return logged or (path / HEAD).exists() or any(path.glob("records/*/*.dsse.json"))


def _identity(path: Path) -> str:
    """The archive's id, where its format is known."""
    attempted = f"opening the archive {path}"
    try:
        found = json.loads(read_file(path / SELF))
        newest, name = int(found["format"]), str(uuid.UUID(found["id"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"{SELF} is not what this package wrote"
        raise ArchiveUnusable(attempted, said, "bring it back from a copy, or name another folder") from error
    if newest != FORMAT:
        said = f"it is of format {newest}, and this version knows format {FORMAT}"
        raise ArchiveUnusable(attempted, said, "update the package; nothing was read or changed")
    return name


def _disagreement(head: Head, archive: str, text: bytes) -> str:
    """What the head and the log do not agree about; empty where they do."""
    if head.archive != archive:
        return f"its head is of another archive ({head.archive})"
    count = text.count(b"\n")
    if count != head.count or not text.endswith(b"\n"):
        return f"its head is signed over {head.count:,} entries, and the log has {count:,}"
    if log.digest(text) != head.digest:
        return "the log is not what its head was signed over"
    return ""


def disagreement(state: State, archive: str) -> str:
    """What is wrong between log and head; empty where nothing is. Signatures are another matter."""
    if state.head is None:
        return "its signed head is gone" if state.log else ""
    return _disagreement(state.head, archive, state.log)


def _check_name(file: _Incoming, attempted: str) -> None:
    ours = file.name.endswith(".dsse.json") or file.name.startswith(statement.STAND_INS)
    if ours or file.name in ("", ".", "..") or "/" in file.name:
        raise RecordError(attempted, f"a file cannot be named {file.name!r}", "give it another name")


def _staged(file: _Incoming, target: Path) -> str:
    """Bring a file into the new entry; returns the sha256 of its bytes."""
    durable.take_in(file.path, target, durable.READABLE, keep=file.keep)
    return log.digest(read_file(target))


def _stand_in(place: statement.Place, facts: Mapping[str, Any]) -> dict[str, str]:
    """What an entry without files is about: the plan, the notebook to execute, or else the run's id."""
    plan = str((facts.get("plan") or {}).get("digest", "")).rpartition(":")[2]
    if place.phase == "intent" and re.fullmatch(r"[0-9a-f]{64}", plan):
        return {"plan:fields": plan}
    source = facts.get("source") or {}
    if source.get("sha256"):
        return {f"source:{source.get('name', 'notebook')}": str(source["sha256"])}
    return {f"run:{place.run}": log.digest(place.run.encode())}


def _bound(entry: Entry, size: int) -> bytes:
    return json.dumps({"size": size, "line": entry.line().decode(), "record": entry.record}).encode()


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts, and what this machine knows of itself."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container with a user that no file names
        user = f"uid {os.getuid()}"
    return {"machine": {"host": socket.gethostname(), "os_user": user}, **facts}


def _remarks(archive: Archive, entry: Entry) -> tuple[str, ...]:
    record = Record(entry.record, archive.path / "records" / entry.record, (entry,))
    back = record.statement(entry).predicate.get("time", {}).get("clock_back_s", 0)
    if not back:
        return ()
    said = f"the clock stands {back:,.0f} s before the entry before this one was signed"
    return (f"{said}: records are in the log's order, not the clock's; see chronyc tracking",)


def _not_recorded(attempted: str, error: OSError) -> NotRecorded:
    full = durable.is_full(error)
    said = "the disk is full" if full else (error.strerror or str(error))
    remedy = "free some room and try again" if full else "make the folder writable, or name another one with --records"
    return NotRecorded(attempted, said, f"{remedy}; what is in the archive is whole")


def read_file(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        NotChecked: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        said = error.strerror or str(error)
        raise NotChecked(f"reading {path}", said, "bring it back from a copy of the archive") from error


def pick(records: Iterable[Record], name: str) -> Record:
    """One record by its id, or by a part of the id that no other has.

    Raises:
        UsageError: there is none, or more than one.
    """
    found = [record for record in records if name and name in record.id]
    exact = [record for record in found if record.id == name]
    if len(exact or found) == 1:
        return (exact or found)[0]
    said = (
        f"{len(found)} have it in their id: {', '.join(one.id for one in found[:3])}, …" if found else "there is none"
    )
    raise UsageError(f"looking for the record {name or '(no id)'}", said, "runbooks records list shows the ids")


def unfinished(records: Iterable[Record]) -> Iterator[Record]:
    """The runs that have neither a result nor a process at work."""
    return (record for record in records if record.state == "unfinished")
