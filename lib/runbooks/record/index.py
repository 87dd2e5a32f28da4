"""A search index over the records, Japanese included: an SQLite file in the cache that anybody may throw away.

It knows up to which line of the log it was made. A log that went on is followed, any other log means a new index.
Its place is the user's cache and not the archive, which may lie on a network file system or be read-only.

FTS5 finds no word inside a Japanese sentence, and with its trigrams no word of two characters; so the text is cut into
pairs of characters here, and a word that is looked for likewise.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from runbooks.errors import NotChecked, RecordError
from runbooks.record import adoption, log
from runbooks.record.archive import Archive, Record, State, read_file

_APP = "serverless-mesh-runbooks"
_VERSION = 1
_FIELDS = ("section", "runbook", "mode", "outcome", "reason", "user", "cluster", "ticket", "started", "finished")
_PLACES = {
    "section": ("runbook", "section"),
    "runbook": ("runbook", "name"),
    "mode": ("runbook", "mode"),
    "outcome": ("outcome", "outcome"),
    "reason": ("outcome", "reason"),
    "user": ("actor", "user"),
    "cluster": ("cluster", "server"),
    "ticket": ("change", "ticket"),
    "started": ("time", "started"),
    "finished": ("time", "finished"),
}
_SCHEMA = f"""
CREATE TABLE stamp (version INTEGER, count INTEGER, digest TEXT);
CREATE TABLE records (
  number INTEGER PRIMARY KEY, id TEXT UNIQUE, state TEXT, signed TEXT, digests TEXT,
  {", ".join(f"{name} TEXT" for name in _FIELDS)}
);
CREATE VIRTUAL TABLE words USING fts5 (text, detail=full, tokenize="unicode61 remove_diacritics 0");
"""
_EAST = "\u3005\u3006\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PARTS = re.compile(rf"[{_EAST}]+|[^\W_{_EAST}]+")


@dataclass(frozen=True)
class Summary:
    """A record in one line.

    Args:
        id: the run's id.
        state: finished, recovered, adopted, running or unfinished.
        signed: when its last entry was.
        fields: section, runbook, mode, outcome, reason, user, cluster, ticket, started, finished.
    """

    id: str
    state: str
    signed: str
    fields: Mapping[str, str]

    def as_dict(self) -> dict[str, str]:
        """The line for a program."""
        return {"id": self.id, "state": self.state, "signed": self.signed, **self.fields}


def tokens(text: str) -> list[list[str]]:
    """The words of a text; of what is written without spaces, each pair of characters and the last one."""
    found = []
    for part in _PARTS.findall(unicodedata.normalize("NFKC", text).casefold()):
        east = re.match(f"[{_EAST}]", part)
        found.append([part[start : start + 2] for start in range(len(part))] if east else [part])
    return found


def query(words: Iterable[str]) -> str:
    """What FTS5 is asked, so that all words have to occur, each from its beginning on."""
    phrases = []
    for word in words:
        cut = [token for part in tokens(word) for token in (part if len(part) == 1 else part[:-1])]
        if cut:
            phrases.append('"{}" *'.format(" ".join(cut)))
    return " AND ".join(phrases)


def search(archive: Archive, words: Iterable[str]) -> list[Summary]:
    """The records in which all words occur, the newest first; all records where there is no word.

    Raises:
        RecordError: the archive cannot be read.
    """
    asked = list(words)
    wanted = query(asked)
    if asked and not wanted:
        return []
    with _current(archive) as database:
        where = "WHERE number IN (SELECT rowid FROM words WHERE words MATCH ?)" if wanted else ""
        ordered = f"SELECT * FROM records {where} ORDER BY number DESC"  # noqa: S608 no word of a user is in it
        rows = database.execute(ordered, [wanted] if wanted else [])
        return [_summary(archive, row) for row in rows]


def adopted_as(archive: Archive, digest: str) -> str:
    """The record that holds a file of these bytes; empty where there is none."""
    with _current(archive) as database:
        row = database.execute("SELECT id FROM records WHERE instr(digests, ?)", [digest]).fetchone()
        return str(row["id"]) if row else ""


def _summary(archive: Archive, row: sqlite3.Row) -> Summary:
    state = row["state"]
    if state == "unfinished":  # whether a process is at work changes without an entry
        state = "running" if archive.is_running(row["id"]) else state
    return Summary(row["id"], state, row["signed"], {name: row[name] or "" for name in _FIELDS})


# --- keeping it up to date --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _current(archive: Archive) -> Iterator[sqlite3.Connection]:
    """The index as of now; where it cannot be kept, or is broken, one that lasts for this question."""
    state = archive.read()
    path = Path(platformdirs.user_cache_path(_APP)) / "index" / f"{archive.id}.sqlite"
    for place in (path, path, None):
        try:
            database = _opened(place)
        except (OSError, sqlite3.Error):
            continue
        with contextlib.closing(database):
            try:
                _follow(database, archive, state)
            except sqlite3.DatabaseError:
                if place:
                    place.unlink(missing_ok=True)
                continue
            yield database
            return
    raise NotChecked("making an index", "SQLite cannot be used here", "use a Python whose sqlite3 module has FTS5")


def _opened(path: Path | None) -> sqlite3.Connection:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path or ":memory:", timeout=30, isolation_level=None)
    database.row_factory = sqlite3.Row
    try:
        database.execute("PRAGMA synchronous = OFF")  # what is lost is made anew
    except sqlite3.Error:
        database.close()
        raise
    return database


def _follow(database: sqlite3.Connection, archive: Archive, state: State) -> None:
    """Bring the index up to the end of the log."""
    done = _stamp(database)
    if done and done == (_VERSION, state.count, log.digest(state.log)):
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        known = _known(_stamp(database), state)
        if known is None:
            _empty(database)
            known = 0
        changed = dict.fromkeys(entry.record for entry in state.entries[known:])
        for record in state.records(archive.path):
            if record.id in changed:
                _put(database, record)
        database.execute("DELETE FROM stamp")
        database.execute("INSERT INTO stamp VALUES (?, ?, ?)", [_VERSION, state.count, log.digest(state.log)])
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _stamp(database: sqlite3.Connection) -> tuple[int, int, str] | None:
    try:
        row = database.execute("SELECT version, count, digest FROM stamp").fetchone()
    except sqlite3.OperationalError:  # a new file
        return None
    return (row[0], row[1], row[2]) if row else None


def _known(stamp: tuple[int, int, str] | None, state: State) -> int | None:
    """How many entries the index has, where they are those of this log."""
    if stamp is None or stamp[0] != _VERSION:
        return None
    prefix = b"".join(state.log.splitlines(keepends=True)[: stamp[1]])
    return stamp[1] if log.digest(prefix) == stamp[2] else None


def _empty(database: sqlite3.Connection) -> None:
    for table in ("stamp", "records", "words"):
        database.execute(f"DROP TABLE IF EXISTS {table}")
    for statement in filter(str.strip, _SCHEMA.split(";")):
        database.execute(statement)


def _put(database: sqlite3.Connection, record: Record) -> None:
    """Add a record, or what is new of it; words once found stay found, which is no harm."""
    facts = _facts(record)
    number = record.entries[0].sequence
    ended = record.state if record.state != "running" else "unfinished"
    values = [_at(facts, *_PLACES[name]) for name in _FIELDS]
    row = [number, record.id, ended, record.entries[-1].signed, _digests(record), *values]
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT OR REPLACE INTO records VALUES ({marks})", row)  # noqa: S608 marks only
    text = " ".join([record.id, *_strings(facts), *_own_text(record)])
    cut = " ".join(token for part in tokens(text) for token in part)
    database.execute("DELETE FROM words WHERE rowid = ?", [number])
    database.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", [number, cut])


def _facts(record: Record) -> dict[str, Any]:
    try:
        return record.facts()
    except RecordError:
        return {}  # verification says what is wrong with it; here it is still found by its id


def _digests(record: Record) -> str:
    try:
        return " ".join(record.statements()[-1].subjects.values())
    except RecordError:
        return ""


def _at(facts: Mapping[str, Any], group: str, name: str) -> str:
    value = (facts.get(group) or {}).get(name)
    return value if isinstance(value, str) else json.dumps(value) if value is not None else ""


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif value is not None:
        yield str(value)


def _own_text(record: Record) -> Iterator[str]:
    """The text of a notebook that has few facts, because something else executed it."""
    if record.state != "adopted":
        return
    for path in record.folder.glob("*.ipynb"):
        with contextlib.suppress(RecordError):
            for cell in adoption.parse(read_file(path), path.name)["cells"]:
                yield "".join(cell.get("source", ""))
                for output in cell.get("outputs", ()):
                    yield "".join(output.get("text", ""))
                    yield "".join(output.get("data", {}).get("text/plain", ""))
