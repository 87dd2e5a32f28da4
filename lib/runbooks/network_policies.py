"""Would traffic get in? Kubernetes' NetworkPolicies, evaluated: pure.

The rules are those of networking.k8s.io/v1: a Pod that no policy selects is open; one that any policy selects lets in
just what at least one of these policies admits. Address blocks say nothing about Pods and admit none here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Peer:
    """Where traffic comes from.

    Args:
        namespace: the namespace's name.
        namespace_labels: its labels.
        pod_labels: the labels of the Pod.
    """

    namespace: str
    namespace_labels: Labels
    pod_labels: Labels


def selects(selector: Mapping[str, Any] | None, labels: Labels) -> bool:
    """Whether a label selector matches; an empty one matches everything, an absent one nothing.

    Args:
        selector: ``matchLabels`` and ``matchExpressions``, or None.
        labels: the labels of a Pod or of a namespace.
    """
    if selector is None:
        return False
    if not (selector.get("matchLabels") or {}).items() <= labels.items():
        return False
    return all(_holds(entry, labels) for entry in selector.get("matchExpressions") or [])


def _holds(expression: Mapping[str, Any], labels: Labels) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:  # DoesNotExist, the only other one that the API accepts
            return key not in labels


def policies_for(policies: Iterable[Mapping[str, Any]], namespace: str, pod_labels: Labels) -> list[Mapping[str, Any]]:
    """The policies that restrict what comes in to a Pod.

    Args:
        policies: NetworkPolicies as listed, of any namespaces.
        namespace: the Pod's namespace.
        pod_labels: the Pod's labels.
    """
    return [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == namespace
        and "Ingress" in (policy["spec"].get("policyTypes") or ["Ingress"])
        and selects(policy["spec"].get("podSelector") or {}, pod_labels)
    ]


def admitted(policies: Iterable[Mapping[str, Any]], namespace: str, pod_labels: Labels, peer: Peer, port: int) -> bool:
    """Whether a Pod lets a peer in on a port.

    Args:
        policies: NetworkPolicies as listed, of any namespaces.
        namespace: the namespace of the Pod that is connected to.
        pod_labels: its labels.
        peer: who connects.
        port: the TCP port; named ports of policies are not resolved and count as other ports.
    """
    restricting = policies_for(policies, namespace, pod_labels)
    if not restricting:
        return True
    return any(
        _lets_in(rule, namespace, peer, port) for policy in restricting for rule in policy["spec"].get("ingress") or []
    )


def _lets_in(rule: Mapping[str, Any], namespace: str, peer: Peer, port: int) -> bool:
    ports, sources = rule.get("ports"), rule.get("from")
    if ports and not any(_is_port(entry, port) for entry in ports):
        return False
    return not sources or any(_is_from(source, namespace, peer) for source in sources)


def _is_port(entry: Mapping[str, Any], port: int) -> bool:
    if entry.get("protocol", "TCP") != "TCP":
        return False
    first = entry.get("port")
    if first is None:
        return True
    return isinstance(first, int) and first <= port <= (entry.get("endPort") or first)


def _is_from(source: Mapping[str, Any], namespace: str, peer: Peer) -> bool:
    if source.get("ipBlock"):
        return False
    if "namespaceSelector" in source:
        if not selects(source["namespaceSelector"] or {}, peer.namespace_labels):
            return False
    elif peer.namespace != namespace:
        return False
    return "podSelector" not in source or selects(source["podSelector"] or {}, peer.pod_labels)
