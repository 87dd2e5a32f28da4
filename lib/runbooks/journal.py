"""The kernel's own account of its writes: one durable line before each, one after it.

A run that is killed leaves no outcome; these lines still say what it had changed, and what was under way.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runbooks.errors import NotRecorded
from runbooks.plan import Change

VARIABLE = "RUNBOOKS_JOURNAL"
NAME = "journal.jsonl"


class Journal:
    """A file that only grows, or nothing where no runner asked for one.

    Args:
        path: the file, or None.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()

    @classmethod
    def from_environment(cls) -> Journal:
        """The journal that the runner asks for in ``RUNBOOKS_JOURNAL``."""
        path = os.environ.get(VARIABLE)
        return cls(Path(path) if path else None)

    def before(self, change: Change) -> None:
        """Say durably what is about to be written.

        Raises:
            NotRecorded: it cannot be said, so it must not be written.
        """
        fields = [{"path": item.path, "old": item.old, "new": item.new} for item in change.fields]
        self._add({"moment": "before", **_what(change), "fields": fields})

    def after(self, change: Change, audit_id: str) -> None:
        """Say durably that it was written.

        Raises:
            NotRecorded: it cannot be said; it was written all the same, as the line before tells.
        """
        self._add({"moment": "after", **_what(change), "audit_id": audit_id})

    def _add(self, entry: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        stamped = {"at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), **entry}
        line = json.dumps(stamped, ensure_ascii=False, default=str).encode(errors="backslashreplace") + b"\n"
        try:
            with self._lock, self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            said = error.strerror or str(error)
            raise NotRecorded(f"writing {self._path}", said, "make room, then run the notebook again") from error


def _what(change: Change) -> dict[str, str]:
    return {"step": change.step, "target": change.target, "operation": str(change.operation)}


def read(content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What a journal says was written, and what was under way when it ends; a torn last line says nothing.

    Args:
        content: the file's bytes.
    """
    written: list[dict[str, Any]] = []
    under_way: list[dict[str, Any]] = []
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        key = (entry["step"], entry["target"])
        if entry["moment"] == "before":
            under_way.append(entry)
        else:
            begun = next((one for one in under_way if (one["step"], one["target"]) == key), {})
            under_way = [one for one in under_way if one is not begun]
            written.append({**begun, **entry, "moment": "after"})
    return written, under_way
