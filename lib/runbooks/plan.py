"""What a runbook would change: pure comparison of what is wanted, what is there, and what the server answers.

One comparison serves verify and plan. What was sent must be in the live object (the server may have added
defaults); where it is not, that field is a change. Lists that other teams share only ever grow.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from runbooks import certificates
from runbooks.errors import CertificateError
from runbooks.kinds import SECRET, ObjectRef, kind_of
from runbooks.manifests import Manifest
from runbooks.ownership import Owner, Path, others, owners
from runbooks.snapshot import leaving
from runbooks.verdicts import few

DIGEST_PREFIX = "plan-sha256:"  # so that no tool takes a digest for a number
OUR_MANAGERS = "runbooks-"
LIST_MANAGER = f"{OUR_MANAGERS}lists"


Hidden = tuple[bytes | None, bytes | None]  # a secret value before and after, in memory only


class Operation(StrEnum):
    """What happens to one object or file."""

    CREATE = "create"
    UPDATE = "update"
    RESTART = "restart"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class SharedList:
    """A list that other teams write to as well, so entries are only ever added.

    Args:
        path: where it lies in the object.
        key: the field by which an entry is recognised, or None for a list of plain values.
    """

    path: tuple[str, ...]
    key: str | None = None


@dataclass(frozen=True)
class Desired:
    """One object as a step wants it.

    Args:
        manifest: what is sent.
        shared_lists: the parts of it that are only added to.
        exact: lists that are the section's own, so that an entry in which somebody added anything differs.
        amend: the object is somebody else's and is never created.
        independent: one of many alike; where the server refuses it, the others are written all the same.
        shown: by field path, what a plan shows instead of a value that is secret or not known yet.
        brought_by: the kind of object whose operator brings this one's CRD, where that may happen in the same run.
        provided_by: who provides the same already, so that nothing is written; empty otherwise.
    """

    manifest: Manifest
    shared_lists: tuple[SharedList, ...] = ()
    exact: tuple[tuple[str, ...], ...] = ()
    amend: bool = False
    independent: bool = False
    shown: Mapping[str, Any] = field(default_factory=dict)
    brought_by: str = ""
    provided_by: str = ""

    @property
    def ref(self) -> ObjectRef:
        """Which object it is."""
        metadata = self.manifest["metadata"]
        return ObjectRef(kind_of(self.manifest), metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True)
class DesiredFile:
    """One file as a step wants it.

    Args:
        path: absolute path.
        content: the bytes, or None where the file stays as it is.
        shown: what a plan shows of the content.
        exists: whether there is such a file now.
        hidden: the secret that it holds now, and the one that it will hold; None where it holds none.
    """

    path: str
    content: bytes | None
    shown: Any
    exists: bool
    hidden: Hidden = field(default=(None, None), repr=False)


@dataclass(frozen=True)
class DesiredRestart:
    """One Pod that has to be replaced by a new one, because what it runs with was decided when it was made.

    Args:
        pod: which one.
        uid: its uid; a new Pod of the same name is another one.
        workload: what it belongs to; a Pod's own name is random and has no place in a digest.
        what: which of its properties is out of date.
        old: its value now.
        new: the value that a new Pod will have.
    """

    pod: ObjectRef
    uid: str
    workload: str
    what: str
    old: str
    new: str


@dataclass(frozen=True)
class FieldChange:
    """One field of one object.

    Args:
        path: as a person reads it, for example ``spec.servers[0].tls.credentialName``.
        old: the value now; None where there is none.
        new: the value wanted.
        owners: the field managers that set the old value.
        numbers: of a secret, the numbers of the old and the new value; equal values of a plan share one.
        hidden: what ``numbered`` compares, and takes out; it is part of no digest.
    """

    path: str
    old: Any
    new: Any
    owners: tuple[Owner, ...] = ()
    numbers: tuple[int | None, int | None] = (None, None)
    hidden: Hidden = field(default=(None, None), repr=False, compare=False)


@dataclass(frozen=True)
class Waits:
    """What is waited for after a change, and what waits.

    Args:
        objects: what has to be ready.
        step: whose wait it is.
        behind: what comes only then: that step's proofs, and the steps after it.
    """

    objects: tuple[str, ...]
    step: str
    behind: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """What one step does to one object or file.

    Args:
        step: the step's id.
        target: the object or file, as a person reads it.
        identity: the object or file, as the digest has it; no paths of this machine.
        operation: create, update or unchanged.
        fields: every field that changes.
        takes_over: field and owner, where a value that another manager set is replaced by force.
        notes: what a reader should know.
        rewritten: the fields whose values the server's admission rewrites.
        problems: why it cannot be applied.
        refused: what the server said to a dry run, where that keeps no other change from being made.
        unread: why the object could not be read, so that nothing can be told of it.
        managed_by: the field managers of the object besides our own.
        waits: what is waited for once it is made, and what waits; None where nothing is.
    """

    step: str
    target: str
    identity: tuple[str, ...]
    operation: Operation
    fields: tuple[FieldChange, ...] = ()
    takes_over: tuple[tuple[str, Owner], ...] = ()
    notes: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    refused: str = ""
    unread: str = ""
    managed_by: tuple[Owner, ...] = ()
    waits: Waits | None = None

    def digests(self) -> list[str]:
        """One digest for each field: identity, field, old and new value."""
        if self.operation is Operation.UNCHANGED:
            return []
        return [digest_of_field(self.identity, change.path, change.old, change.new) for change in self.fields]


@dataclass(frozen=True)
class Plan:
    """Every change of a runbook, computed before the first one is made.

    Args:
        changes: of every object, those that stay as they are among them.
        consequences: step and sentence: what follows from the changes; part of no digest, since a sentence may improve.
    """

    changes: tuple[Change, ...]
    consequences: tuple[tuple[str, str], ...] = ()

    @property
    def pending(self) -> tuple[Change, ...]:
        """The changes that change something."""
        return tuple(change for change in self.changes if change.operation is not Operation.UNCHANGED)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the plan cannot be applied; empty where it can."""
        return tuple(f"{change.target}: {problem}" for change in self.changes for problem in change.problems)

    @property
    def refused(self) -> tuple[str, ...]:
        """The changes that the server would refuse, and why; the others can be made."""
        return tuple(f"{change.target}: {change.refused}" for change in self.changes if change.refused)

    @property
    def unread(self) -> tuple[str, ...]:
        """The objects that could not be read, and why."""
        return tuple(f"{change.target}: {change.unread}" for change in self.changes if change.unread)

    def digests(self) -> list[str]:
        """The digests of the single field changes; those of restarts may be alike."""
        return [digest for change in self.changes for digest in change.digests()]

    @property
    def digest(self) -> str:
        """One digest over the sorted digests of all field changes."""
        return digest_over(self.digests())

    def of_step(self, step: str) -> tuple[Change, ...]:
        """The changes of one step."""
        return tuple(change for change in self.changes if change.step == step)


def digest_of_field(identity: Iterable[str], path: str, old: Any, new: Any) -> str:
    """The digest of one field's change."""
    return _sha256([*identity, path, old, new])


def digest_over(digests: Iterable[str]) -> str:
    """The digest of a plan, over those of its field changes."""
    return DIGEST_PREFIX + _sha256(sorted(digests))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def show_path(path: Path) -> str:
    """A path as a person reads it; keys with dots or slashes stand in brackets."""
    text = ""
    for step in path:
        if isinstance(step, int) or "." in step or "/" in step:
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


# --- comparing ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Addition:
    """Entries that are missing from a shared list.

    Args:
        shared: which list.
        entries: whole entries to append.
        amended: position of an existing entry of the same key, and the fields it lacks.
    """

    shared: SharedList
    entries: tuple[Any, ...] = ()
    amended: tuple[tuple[int, tuple[tuple[Path, Any], ...]], ...] = ()


@dataclass(frozen=True)
class Difference:
    """How a live object falls short of the desired one.

    Args:
        operation: what is to be done.
        leaves: path, old and new value of each field outside shared lists.
        additions: what the shared lists lack.
    """

    operation: Operation
    leaves: tuple[tuple[Path, Any, Any], ...]
    additions: tuple[Addition, ...]


def _walk(
    wanted: Any, live: Any, path: Path, skip: frozenset[Path], exact: frozenset[Path] = frozenset()
) -> Iterable[tuple[Path, Any, Any]]:
    if path in skip:
        return
    if isinstance(wanted, Mapping) and wanted:
        below = live if isinstance(live, Mapping) else {}
        for key, value in wanted.items():
            yield from _walk(value, below.get(key), (*path, key), skip, exact)
    elif path not in exact and isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for position, (value, there) in enumerate(zip(wanted, live, strict=True)):
            yield from _walk(value, there, (*path, position), skip)
    elif type(wanted) is not type(live) or wanted != live:
        yield path, live, wanted


def _content(manifest: Mapping[str, Any]) -> Manifest:
    """A manifest without the parts that only address it."""
    content = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata = {k: v for k, v in manifest["metadata"].items() if k in ("labels", "annotations")}
    return {"metadata": metadata, **content} if metadata else content


def at(value: Any, path: Path) -> Any:
    """The value at a path, or None where there is none."""
    for step in path:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _missing_entries(shared: SharedList, wanted: list[Any], live: list[Any]) -> Addition | None:
    if shared.key is None:
        entries = tuple(value for value in wanted if value not in live)
        return Addition(shared, entries) if entries else None
    positions = {entry.get(shared.key): position for position, entry in enumerate(live)}
    new, amended = [], []
    for entry in wanted:
        position = positions.get(entry[shared.key])
        if position is None:
            new.append(entry)
        elif lacks := tuple((p, value) for p, _, value in _walk(entry, live[position], (), frozenset())):
            amended.append((position, lacks))
    return Addition(shared, tuple(new), tuple(amended)) if new or amended else None


def compare(desired: Desired, live: Mapping[str, Any] | None) -> Difference:
    """How the live object falls short of the desired one; None stands for an object that does not exist.

    Entries of shared lists are additions in a new object too, so that a plan reads the same, and has the same
    digest, whether this run creates the object or another one just did.
    """
    content = _content(desired.manifest)
    skip = frozenset(shared.path for shared in desired.shared_lists)
    leaves = tuple(_walk(content, live, (), skip, frozenset(desired.exact)))
    additions = tuple(
        addition
        for shared in desired.shared_lists
        if (addition := _missing_entries(shared, at(content, shared.path), at(live, shared.path) or []))
    )
    if live is None:
        return Difference(Operation.CREATE, leaves, additions)
    return Difference(Operation.UPDATE if leaves or additions else Operation.UNCHANGED, leaves, additions)


def change_of(step: str, desired: Desired, live: Mapping[str, Any] | None, difference: Difference) -> Change:
    """The difference as a plan shows it, secret values masked."""
    fields = []
    for path, old, new in difference.leaves:
        name = show_path(path)
        fields.append(
            FieldChange(
                name,
                masked(desired.ref, path, old),
                desired.shown.get(name, masked(desired.ref, path, new)),
                owners(live, path) if live and old is not None else (),
                hidden=(secret_at(desired.ref, path, old), secret_at(desired.ref, path, new)),
            )
        )
    for addition in difference.additions:
        fields += _added_fields(addition, live or {})
    ref = desired.ref
    identity = (ref.kind.api_version, ref.kind.name, ref.namespace, ref.name)
    managed_by = others(live, OUR_MANAGERS) if live else ()
    return Change(step, str(ref), identity, difference.operation, tuple(fields), managed_by=managed_by)


def _added_fields(addition: Addition, live: Mapping[str, Any]) -> Iterable[FieldChange]:
    path = addition.shared.path
    for entry in addition.entries:
        yield FieldChange(f"{show_path(path)}[+]", None, entry, owners(live, path))
    for position, lacks in addition.amended:
        name = at(live, (*path, position, addition.shared.key or ""))
        for below, value in lacks:
            old = at(live, (*path, position, *below))
            yield FieldChange(f"{show_path(path)}[{name}]{_joined(below)}", old, value, owners(live, path))


def _joined(path: Path) -> str:
    text = show_path(path)
    return text if text.startswith("[") else f".{text}"


def change_of_file(step: str, desired: DesiredFile) -> Change:
    """What happens to a file; its content is shown, never its bytes."""
    if desired.content is None:
        operation, fields = Operation.UNCHANGED, []
    else:
        operation = Operation.UPDATE if desired.exists else Operation.CREATE
        old = "the present file" if desired.exists else None
        fields = [FieldChange("content", old, desired.shown, hidden=desired.hidden)]
    name = desired.path.rsplit("/", 1)[-1]
    return Change(step, f"File {desired.path}", ("", "File", "", name), operation, tuple(fields))


def change_of_restart(step: str, desired: DesiredRestart) -> Change:
    """The replacement of a Pod as a plan shows it."""
    identity = ("v1", "Pod", desired.pod.namespace, desired.workload)
    field_change = FieldChange(desired.what, desired.old, desired.new)
    return Change(step, str(desired.pod), identity, Operation.RESTART, (field_change,))


def masked(ref: ObjectRef, path: Path, value: Any) -> Any:
    """A value as it may be shown: of a Secret's data, what a certificate says of itself and nothing else."""
    if ref.kind != SECRET or path[:1] not in (("data",), ("stringData",)) or value is None:
        return value
    if path[1:] == ("tls.crt",):
        return shown_chain(base64.b64decode(value), str(ref))
    return "‹secret›"


def secret_at(ref: ObjectRef, path: Path, value: Any) -> bytes | None:
    """The secret that ``masked`` hides, or None where it hides none; what is still to be made is empty, and none."""
    if ref.kind != SECRET or len(path) != 2 or path[1] == "tls.crt" or not isinstance(value, str):
        return None
    if path[0] == "data":
        return base64.b64decode(value) or None
    return value.encode() or None if path[0] == "stringData" else None


def numbered(changes: Iterable[Change]) -> tuple[Change, ...]:
    """The changes with a number for each secret value, in the order in which they stand there.

    Whoever reviews sees whether a value stays or is held twice, and nothing is made of the values themselves.
    """
    known: dict[bytes, int] = {}

    def number(secret: bytes | None) -> int | None:
        return known.setdefault(secret, len(known) + 1) if secret else None

    def told(item: FieldChange) -> FieldChange:
        old, new = item.hidden
        return replace(item, numbers=(number(old), number(new)), hidden=(None, None))

    return tuple(replace(change, fields=tuple(map(told, change.fields))) for change in changes)


def shown_chain(pem: bytes, origin: str) -> Any:
    """What a plan shows of an existing certificate: its subject, names, issuer and fingerprint."""
    try:
        facts = certificates.describe(certificates.load_chain(pem, origin)[0])
    except CertificateError:
        return "‹not a certificate›"
    return {
        "subject": facts.subject,
        "dns_names": list(facts.dns_names),
        "issuer": facts.issuer,
        "fingerprint": facts.fingerprint,
    }


# --- the server's opinion ----------------------------------------------------------------------------------------


def admitted(change: Change, desired: Desired, live: Mapping[str, Any] | None, answer: Mapping[str, Any]) -> Change:
    """A change, corrected by what the server answered to a dry run of it.

    A value that admission rewrites is planned as rewritten, and is no change at all where the live object already
    has it. A value that the server drops is a problem: a misspelt field under a schema that preserves unknown ones.
    What an earlier apply of ours set and this one no longer does goes, and is a change like any other.
    """
    fields, notes, rewritten, problems = list(change.fields), [], [], []
    skip = frozenset(shared.path for shared in desired.shared_lists)
    for path, answered, sent in _walk(_content(desired.manifest), answer, (), skip):
        name = show_path(path)
        if answered is None:
            problems.append(
                f"the server silently drops {name}; compare the operator's version with what 6.4.1 supports"
            )
            continue
        shown = masked(desired.ref, path, answered)
        rewritten.append(name)
        notes.append(f"{name} is changed by admission, from {masked(desired.ref, path, sent)!r} to {shown!r}")
        unchanged = live is not None and at(live, path) == answered
        fields = [
            replace(item, new=shown, hidden=(item.hidden[0], secret_at(desired.ref, path, answered)))
            if item.path == name
            else item
            for item in fields
            if not (unchanged and item.path == name)
        ]
    fields += _given_up(desired, live, answer) if live else []
    operation = change.operation if fields else Operation.UNCHANGED
    return replace(
        change,
        operation=operation,
        fields=tuple(fields),
        notes=change.notes + tuple(notes),
        rewritten=tuple(rewritten),
        problems=change.problems + tuple(problems),
    )


def _given_up(desired: Desired, live: Mapping[str, Any], answer: Mapping[str, Any]) -> list[FieldChange]:
    """The fields that were ours alone and are gone in the server's answer; what others took out is not our doing."""
    skip = frozenset([*(shared.path for shared in desired.shared_lists), ("status",)])
    gone = [(path, old) for path, answered, old in _walk(_content(live), answer, (), skip) if answered is None]
    return [
        FieldChange(
            show_path(path),
            masked(desired.ref, path, old),
            None,
            found,
            hidden=(secret_at(desired.ref, path, old), None),
        )
        for path, old in gone
        if (found := owners(live, path)) and all(owner.manager.startswith(OUR_MANAGERS) for owner in found)
    ]


def take_overs(
    causes: Iterable[tuple[str, str]], change: Change, live: Mapping[str, Any], allowed: Iterable[str]
) -> Change:
    """A change in the light of the server's conflicts.

    Args:
        causes: field and manager of each conflict, as the server names them.
        change: the change that met them.
        live: the object with its managedFields.
        allowed: the managers whose values may be replaced.
    """
    times = {entry.get("manager", ""): entry for entry in live.get("metadata", {}).get("managedFields", [])}
    permitted, taken, problems = set(allowed), [], []
    for path, manager in causes:
        entry = times.get(manager, {})
        owner = Owner(manager, entry.get("operation", "?"), entry.get("time", ""))
        if manager in permitted:
            taken.append((path, owner))
        else:
            problems.append(_not_ours(path, owner))
    return replace(change, takes_over=change.takes_over + tuple(taken), problems=change.problems + tuple(problems))


def _not_ours(path: str, owner: Owner) -> str:
    return (
        f"{path} belongs to the field manager {owner.manager} (since {owner.since or 'an unknown time'}), which is "
        "not in take_over; settle it with its owner, or add the manager to take_over"
    )


def list_take_overs(change: Change, desired: Desired, live: Mapping[str, Any], allowed: Iterable[str]) -> Change:
    """A change in the light of who set the values that it would replace in entries of shared lists.

    A list patch meets no conflicts, so the rule of ``take_over`` is applied here. Entries that are only added to, and
    lists that our own managers wrote last, replace nobody's values.
    """
    permitted, taken, problems = set(allowed), [], []
    for addition in compare(desired, live).additions:
        replaced = any(
            at(live, (*addition.shared.path, position, *below)) is not None
            for position, lacks in addition.amended
            for below, _ in lacks
        )
        if not replaced:
            continue
        path = show_path(addition.shared.path)
        for owner in owners(live, addition.shared.path):
            if owner.manager in permitted:
                taken.append((path, owner))
            elif not owner.manager.startswith(OUR_MANAGERS):
                problems.append(_not_ours(path, owner))
    return replace(change, takes_over=change.takes_over + tuple(taken), problems=change.problems + tuple(problems))


# --- what is sent ------------------------------------------------------------------------------------------------


def list_patch(addition: Addition, live: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The JSON patch that adds what a shared list lacks, and fails where the list has changed since it was read."""
    path = addition.shared.path
    there = at(live, path)
    if there is None:
        return _new_list_patch(path, list(addition.entries), live)
    pointer = _pointer(path)
    patch: list[dict[str, Any]] = [{"op": "test", "path": pointer, "value": there}]
    for position, lacks in addition.amended:
        # the whole entry: the test above holds for all of it
        patch.append({"op": "replace", "path": f"{pointer}/{position}", "value": _amended(there[position], lacks)})
    patch += [{"op": "add", "path": f"{pointer}/-", "value": entry} for entry in addition.entries]
    return patch


def _amended(entry: Any, lacks: Iterable[tuple[Path, Any]]) -> Any:
    """An entry with the fields that it lacks, and the mappings above them where they are missing."""
    entry = copy.deepcopy(entry)
    for path, value in lacks:
        below = entry
        for step in path[:-1]:
            if isinstance(step, str) and not isinstance(below.get(step), Mapping | list):
                below[step] = {}
            below = below[step]
        below[path[-1]] = value
    return entry


def _new_list_patch(path: tuple[str, ...], entries: list[Any], live: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Create the list, with what lies above it, provided that nobody else just did (test for null means absent)."""
    depth = next(depth for depth in range(1, len(path) + 1) if at(live, path[:depth]) is None)
    value: Any = entries
    for step in reversed(path[depth:]):
        value = {step: value}
    pointer = _pointer(path[:depth])
    return [{"op": "test", "path": pointer, "value": None}, {"op": "add", "path": pointer, "value": value}]


def _pointer(path: Path) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def applied_manifest(desired: Desired, live: Mapping[str, Any] | None, field_manager: str) -> Manifest:
    """What server-side apply is sent.

    A new object carries a resourceVersion that no object can have, which makes the server refuse to overwrite one
    that appeared in between. An existing one carries its uid, so it is never created anew. A shared list is left
    out, except where an earlier apply by the same manager still owns it, since leaving it out would then delete it:
    it is repeated as read, with the resourceVersion read.
    """
    manifest: Manifest = json.loads(json.dumps(desired.manifest))
    if live is None:
        manifest["metadata"]["resourceVersion"] = "1"
        return manifest
    manifest["metadata"]["uid"] = live["metadata"]["uid"]
    for shared in desired.shared_lists:
        parent = at(manifest, shared.path[:-1])
        parent.pop(shared.path[-1], None)
        owned = owners(live, shared.path)
        if any(owner.manager == field_manager and owner.operation == "Apply" for owner in owned):
            parent[shared.path[-1]] = at(live, shared.path)
            manifest["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    return manifest


def stale(now: Change, planned: Change) -> tuple[str, ...]:
    """What has changed since the plan; empty where the change of this moment is the planned one, or a part of it."""
    known = {(item.path, _sha256(item.old), _sha256(item.new)) for item in planned.fields}
    return tuple(
        f"{item.path} was not planned to change from {item.old!r}"
        for item in now.fields
        if item.path not in planned.rewritten and (item.path, _sha256(item.old), _sha256(item.new)) not in known
    )


def undone(planned: Change, desired: Desired, live: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What is not there any more of a change that was made, and who took it out; empty where all of it is."""
    if live is None:
        return (f"{planned.target} was written, and is gone again",)
    if said := leaving(dict(live)):
        return (f"{planned.target} was written, and now {said}",)
    left = change_of(planned.step, desired, live, compare(desired, live))
    gone = [item for item in left.fields if item.path not in planned.rewritten]
    if not gone:
        return ()
    said = few((_undone_field(item) for item in gone), ", ")
    return (f"{planned.target} was written, and then undone{_since(live)}: {said}",)


def _undone_field(item: FieldChange) -> str:
    if item.old is None:
        return f"{item.path} lacks {item.new!r}" if item.path.endswith("[+]") else f"{item.path} is not there"
    return f"{item.path} is {item.old!r} and not {item.new!r}"


def _since(live: Mapping[str, Any]) -> str:
    """Who else has written an object since we did; nobody may be named who only takes fields out, or for admission."""
    entries = [entry for entry in live["metadata"].get("managedFields", []) if not entry.get("subresource")]
    ours = [str(entry.get("time", "")) for entry in entries if str(entry.get("manager", "")).startswith(OUR_MANAGERS)]
    written = max(ours, default="")
    later = sorted(
        str(entry.get("manager", ""))
        for entry in entries
        if str(entry.get("time", "")) >= written and not str(entry.get("manager", "")).startswith(OUR_MANAGERS)
    )
    return f" (written since by {few(later)})" if later and written else ""
