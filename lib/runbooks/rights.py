"""Which rights a runbook needs, and the RBAC objects that grant just those: pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from runbooks.kinds import Kind

_MANY = 10


@dataclass(frozen=True, order=True)
class Right:
    """One right, as an access review asks for it.

    Args:
        group: API group, empty for the core group.
        resource: plural name, with ``/subresource`` where it has one.
        verb: the API verb.
        namespace: the namespace, or empty for all of them and for cluster-scoped objects.
        name: the object's name, or empty for any.
    """

    group: str
    resource: str
    verb: str
    namespace: str = ""
    name: str = ""

    @classmethod
    def on(cls, kind: Kind, verb: str, namespace: str = "", name: str = "") -> Right:
        """The right to do something with objects of a kind."""
        return cls(kind.group, kind.plural, verb, namespace if kind.namespaced else "", name)

    def __str__(self) -> str:
        resource = f"{self.resource}.{self.group}" if self.group else self.resource
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {resource}{f' {self.name}' if self.name else ''}{where}"


def in_words(rights: Iterable[Right]) -> tuple[str, ...]:
    """The rights, one by one; one that is needed in more than ten namespaces once, with their number."""
    alike: dict[Right, list[Right]] = {}
    for right in rights:
        alike.setdefault(replace(right, namespace=""), []).append(right)
    found: list[str] = []
    for everywhere, single in alike.items():
        many = len(single) > _MANY
        found += [f"{everywhere} in {len(single):,} namespaces"] if many else map(str, single)
    return tuple(found)


def roles(rights: Iterable[Right], name: str, subject: dict[str, str]) -> list[dict[str, Any]]:
    """The Roles, the ClusterRole and their bindings that grant just the given rights.

    Args:
        rights: what is needed.
        name: the name of every object made.
        subject: an RBAC subject, for example ``{"kind": "ServiceAccount", "namespace": "ops", "name": "nightly"}``.
    """
    by_namespace: dict[str, dict[tuple[str, str, str], set[str]]] = defaultdict(lambda: defaultdict(set))
    for right in rights:
        by_namespace[right.namespace][right.group, right.resource, right.name].add(right.verb)
    found = []
    for namespace, rules in sorted(by_namespace.items()):
        scope = "Role" if namespace else "ClusterRole"
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        api = {"apiVersion": "rbac.authorization.k8s.io/v1"}
        found.append(
            {**api, "kind": scope, "metadata": metadata, "rules": [_rule(*rule) for rule in sorted(rules.items())]}
        )
        found.append(
            {
                **api,
                "kind": f"{scope}Binding",
                "metadata": dict(metadata),
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": scope, "name": name},
                "subjects": [dict(subject)],
            }
        )
    return found


def _rule(key: tuple[str, str, str], verbs: set[str]) -> dict[str, Any]:
    group, resource, name = key
    rule: dict[str, Any] = {"apiGroups": [group], "resources": [resource], "verbs": sorted(verbs)}
    return {**rule, "resourceNames": [name]} if name else rule
