"""Who set a field, out of ``metadata.managedFields``: pure reading of the API server's own bookkeeping."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Owner:
    """A field manager and when it last wrote.

    Args:
        manager: the field manager's name, for example ``kubectl-edit``.
        operation: ``Apply`` or ``Update``.
        since: the time of its last write, as the server noted it.
    """

    manager: str
    operation: str
    since: str


def others(live: Mapping[str, Any], ours: str) -> tuple[Owner, ...]:
    """The field managers of an object besides our own, each once, with its last write; those of its status left out.

    Args:
        live: the object as the server returned it, with its managedFields.
        ours: how the names of our own managers begin.
    """
    found: dict[str, Owner] = {}
    for entry in live.get("metadata", {}).get("managedFields", []):
        manager, since = entry.get("manager", "?"), entry.get("time", "")
        if manager.startswith(ours) or entry.get("subresource") or set(entry.get("fieldsV1", {})) == {"f:status"}:
            continue
        if manager not in found or found[manager].since < since:
            found[manager] = Owner(manager, entry.get("operation", "?"), since)
    return tuple(found[manager] for manager in sorted(found))


def owners(live: Mapping[str, Any], path: Path) -> tuple[Owner, ...]:
    """The field managers that own a field, or the closest thing above it that the server keeps as one piece.

    Args:
        live: the object as the server returned it, with its managedFields.
        path: keys, and positions in lists.
    """
    found = []
    for entry in live.get("metadata", {}).get("managedFields", []):
        if entry.get("subresource"):
            continue
        if _owns(entry.get("fieldsV1", {}), live, path):
            found.append(Owner(entry.get("manager", "?"), entry.get("operation", "?"), entry.get("time", "")))
    return tuple(found)


def _owns(fields: Mapping[str, Any], value: Any, path: Path) -> bool:
    if not path:
        return True
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        if f"f:{step}" not in fields:
            return False
        below = fields[f"f:{step}"]
        # an empty set of fields is a leaf or a list that the server keeps as one piece
        return not below or _owns(below, value.get(step, {}) if isinstance(value, Mapping) else {}, rest)
    return any(
        _owns(below, value[step], rest)
        for key, below in fields.items()
        if isinstance(value, Sequence) and step < len(value) and _addresses(key, value[step])
    )


def _addresses(key: str, item: Any) -> bool:
    """Whether a FieldsV1 key such as ``k:{"name":"http"}`` or ``v:"x"`` means this item of a list."""
    if key.startswith("k:") and isinstance(item, Mapping):
        return all(item.get(name) == value for name, value in json.loads(key[2:]).items())
    return key.startswith("v:") and json.loads(key[2:]) == item
