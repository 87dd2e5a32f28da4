"""6.4.5: Knative's system Pods get in to the application namespaces, and strangers do not: policies, evaluated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from runbooks.checks.check import Check, compared
from runbooks.checks.sidecars import app_of
from runbooks.cluster import Connection
from runbooks.kinds import NAMESPACE, NETWORK_POLICY, POD
from runbooks.manifests import KOURIER_NAMESPACE, SERVING_NAMESPACE, SERVING_SYSTEM_POLICY
from runbooks.network_policies import Peer, admitted, policies_for
from runbooks.parameters import IntegrateWithKourier, Parameters
from runbooks.readiness import running
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Checked, Proof, few

QUEUE_PORTS = (8012, 8013)  # where every Knative Pod takes requests: HTTP/1 and HTTP/2
SYSTEM_PODS = ((KOURIER_NAMESPACE, "3scale-kourier-gateway"), (SERVING_NAMESPACE, "activator"))
STRANGER = Peer("a-namespace-without-labels", {}, {})


def policies_read(given: Parameters) -> Read:
    """All NetworkPolicies with one request, or those of each member where the account may not list all."""
    return Read(NETWORK_POLICY, otherwise=given.all_members)


def _policies(situation: Situation[Any]) -> Mapping[str, list[Live]]:
    found: defaultdict[str, list[Live]] = defaultdict(list)
    for policy in situation.snapshot.objects(NETWORK_POLICY):
        found[policy["metadata"]["namespace"]].append(policy)
    return found


def _peers(situation: Situation[Any], namespace: str, app: str) -> list[Peer]:
    """The running Pods of an application as a NetworkPolicy sees them, with the real labels of their namespace.

    Pods with the same labels are one peer.
    """
    live = situation.snapshot.get(NAMESPACE, "", namespace) or {"metadata": {}}
    peers: list[Peer] = []
    for pod in running(situation.snapshot.objects(POD, namespace)):
        peer = Peer(namespace, live["metadata"].get("labels") or {}, pod["metadata"].get("labels") or {})
        if app_of(pod) == app and peer not in peers:
            peers.append(peer)
    return peers


def _system_admitted(title: str, situation: Situation[IntegrateWithKourier], _: Connection) -> Checked:
    members, policies = situation.parameters.all_members, _policies(situation)
    faults = []
    for namespace, app in SYSTEM_PODS:
        peers = _peers(situation, namespace, app)
        kept_out = [
            member
            for member in members
            if not all(admitted(policies[member], member, {}, peer, port) for peer in peers for port in QUEUE_PORTS)
        ]
        if not peers:
            faults.append(f"no Pod of {app} runs in {namespace}")
        elif kept_out:
            faults.append(f"{app} in {namespace} does not get in to {few(kept_out)}")
    return compared(
        title,
        f"the Pods of {' and '.join(app for _, app in SYSTEM_PODS)} get in to {few(members)}",
        faults,
        f"the NetworkPolicies there, evaluated for ports {' and '.join(map(str, QUEUE_PORTS))} with the Pods that run "
        "and the labels that their namespaces have",
        "compare those labels with the policy's namespaceSelector",
    )


def _stranger_refused(title: str, situation: Situation[IntegrateWithKourier], _: Connection) -> Checked:
    members, policies = situation.parameters.all_members, _policies(situation)
    way = "the same NetworkPolicies, evaluated for a Pod of a namespace without any label"
    expected = f"it gets in to none of {few(members)}"
    unrestricted, ours, theirs = [], [], []
    for member in members:
        restricting = policies_for(policies[member], member, {})
        inviting = {p["metadata"]["name"] for p in restricting if admitted([p], member, {}, STRANGER, QUEUE_PORTS[0])}
        unrestricted += [] if restricting else [member]
        ours += [member] if SERVING_SYSTEM_POLICY in inviting else []
        theirs += [f"{member}/{name}" for name in sorted(inviting - {SERVING_SYSTEM_POLICY})]
    faults = [f"no policy keeps anybody out of {few(unrestricted)}"] if unrestricted else []
    faults += [f"{SERVING_SYSTEM_POLICY} lets it in to {few(ours)}"] if ours else []
    if theirs and not faults:
        # another team's decision, not a fault of this section; but the way in then proves little
        remedy = "ask who made them whether that is meant; this section neither needs nor changes them"
        return Checked(title, Proof.UNPROVEN, expected, f"others let everybody in: {few(theirs)}", way, remedy)
    return compared(title, expected, faults, way, f"compare {SERVING_SYSTEM_POLICY} with the documented one")


def _reads(given: Parameters) -> tuple[Read, ...]:
    return policies_read(given), Read(NAMESPACE)


def _reads_with_pods(given: Parameters) -> tuple[Read, ...]:
    return *_reads(given), *(Read(POD, namespace, labels=f"app={app}") for namespace, app in SYSTEM_PODS)


SYSTEM_ADMITTED = Check("NetworkPolicies let Kourier and the activator in", _system_admitted, _reads_with_pods)
STRANGER_REFUSED = Check("NetworkPolicies keep a stranger out", _stranger_refused, _reads)
