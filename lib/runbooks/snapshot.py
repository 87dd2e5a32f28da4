"""What a runbook has read of a cluster: a value, so that everything judged from it is judged from one moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from runbooks.errors import Forbidden, NotServed, ServerRefused
from runbooks.kinds import Kind, ObjectRef

Live = dict[str, Any]


def leaving(live: Live | None) -> str:
    """That an object is being deleted, and what holds it; empty where it is not, or there is none."""
    metadata = (live or {}).get("metadata") or {}
    if not (since := metadata.get("deletionTimestamp")):
        return ""
    # those of a namespace stand in its spec, too
    finalizers = [*(metadata.get("finalizers") or []), *(((live or {}).get("spec") or {}).get("finalizers") or [])]
    held = f", and waits for its finalizers {', '.join(finalizers)}" if finalizers else ""
    return f"it is being deleted (since {since}){held}"


@dataclass(frozen=True, order=True)
class Read:
    """One list request.

    Args:
        kind: what is listed.
        namespace: of one namespace, or empty for all of them and for cluster-scoped kinds.
        name: only the object of this name, or empty for all.
        labels: only objects with these labels, as a label selector.
        otherwise: namespaces to list one by one where the account may not list all of them.
        metadata_only: names, labels and the like; the server sends no content.
    """

    kind: Kind
    namespace: str = ""
    name: str = ""
    labels: str = ""
    otherwise: tuple[str, ...] = ()
    metadata_only: bool = False

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.kind} {self.name}{where}" if self.name else f"{self.kind} objects{where}"


@dataclass(frozen=True)
class Snapshot:
    """The answers to a runbook's reads.

    Args:
        found: the objects of each read that was answered.
        refused: the server's error for each read that was not.
        narrowed: the reads of all namespaces that were answered for the namespaces named in them only.
    """

    found: Mapping[Read, tuple[Live, ...]] = field(default_factory=dict)
    refused: Mapping[Read, ServerRefused] = field(default_factory=dict)
    narrowed: frozenset[Read] = frozenset()

    def objects(self, kind: Kind, namespace: str | None = None) -> tuple[Live, ...]:
        """All objects of a kind that were read, of one namespace or of all."""
        found = self._by_name.get(kind, {})
        if namespace is None:
            return tuple(found.values())
        return tuple(live for (where, _), live in found.items() if where == namespace)

    @cached_property
    def _by_name(self) -> Mapping[Kind, Mapping[tuple[str, str], Live]]:
        """Every object by its namespace and name: a section may look up thousands."""
        found: dict[Kind, dict[tuple[str, str], Live]] = {}
        # what was read whole counts before a look at the same object's metadata
        for read, objects in sorted(self.found.items(), key=lambda item: not item[0].metadata_only):
            of_kind = found.setdefault(read.kind, {})
            for live in objects:
                of_kind[live["metadata"].get("namespace", ""), live["metadata"]["name"]] = live
        return found

    def get(self, kind: Kind, namespace: str, name: str) -> Live | None:
        """One object, or None where there is none or it could not be read."""
        return self._by_name.get(kind, {}).get((namespace if kind.namespaced else "", name))

    def plus(self, other: Snapshot) -> Snapshot:
        """The answers of both."""
        return Snapshot(
            {**self.found, **other.found}, {**self.refused, **other.refused}, self.narrowed | other.narrowed
        )

    def of(self, ref: ObjectRef) -> Live | None:
        """The object that a reference means."""
        return self.get(ref.kind, ref.namespace, ref.name)

    def unreadable(self, kind: Kind) -> str:
        """Why objects of a kind could not be read; empty where they could."""
        return next((error.said for read, error in self.refused.items() if read.kind == kind), "")

    def refusals(self, reads: Iterable[Read]) -> tuple[str, ...]:
        """What the server said to those of the reads that it did not answer; a kind that it lacks is an answer."""
        errors = (self.refused.get(read) for read in reads)
        return tuple(error.said for error in errors if error is not None and not isinstance(error, NotServed))

    def renewed(self, fresh: Snapshot) -> Snapshot:
        """The answers with newer ones in the place of those to the same reads, refusals included."""
        kept = {read: objects for read, objects in self.found.items() if read not in fresh.refused}
        return Snapshot({**kept, **fresh.found}, fresh.refused, self.narrowed | fresh.narrowed)

    def not_served(self, kind: Kind) -> bool:
        """Whether the server does not know the kind: its CRD is missing."""
        return self.why_not_served(kind) is not None

    def why_not_served(self, kind: Kind) -> NotServed | None:
        """The server's word that it does not know the kind, or not in this version."""
        errors = (error for read, error in self.refused.items() if read.kind == kind)
        return next((error for error in errors if isinstance(error, NotServed)), None)

    def is_narrowed(self, kind: Kind) -> bool:
        """Whether objects of a kind were read in some namespaces only, since the account may not list all."""
        return any(read.kind == kind for read in self.narrowed)

    def forbidden(self, kind: Kind) -> bool:
        """Whether the account may not read the kind."""
        return any(isinstance(e, Forbidden) for read, e in self.refused.items() if read.kind == kind)
