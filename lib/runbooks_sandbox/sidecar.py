"""The sidecars of the application: which Pods have one, and what takes the place of iptables in front of them.

In a Pod, iptables send what comes in to the sidecar, but for the excluded ports. There is no Pod here, so each
sidecar has a loopback address of its own, on which a ``Sidecar`` object lets it listen; an excluded port is left out
of that, and the application listens there itself. What the sidecar then makes of a request is its own judgement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from runbooks_sandbox.api import Object, Resource
from runbooks_sandbox.world import PODS, World

SIDECARS = Resource("networking.istio.io/v1", "sidecars", "Sidecar")
REVISION_LABEL = "serving.knative.dev/revision"
TLS_LABEL = {"security.istio.io/tlsMode": "istio"}  # injection's own: the Pod takes mutual TLS
PORTS: Mapping[str, int] = {"http": 8012, "http-metrics": 8444}  # of a Pod of an application


@dataclass(frozen=True)
class Workload:
    """A revision whose Pod has a sidecar.

    Args:
        namespace: of the Pod.
        revision: which the Pod serves.
        account: its service account.
        excluded: the ports that do not go through the sidecar, as injection wrote them into the Pod.
    """

    namespace: str
    revision: str
    account: str
    excluded: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """The name of its sidecar among the processes."""
        return f"sidecar-{self.revision}.{self.namespace}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which istiod knows its Pod."""
        return {REVISION_LABEL: self.revision, **TLS_LABEL}

    def left_alone(self) -> Iterable[int]:
        """The ports on which the application itself answers."""
        return (port for port in PORTS.values() if port in self.excluded)


AddressOf = Callable[[Workload], str]


def workloads(world: World) -> list[Workload]:
    """The revisions whose Pods have a sidecar now."""
    found = {}
    for pod in world.objects(PODS):
        metadata, spec = pod["metadata"], pod["spec"]
        revision = (metadata.get("labels") or {}).get(REVISION_LABEL)
        injected = any(container["name"] == "istio-proxy" for container in spec["containers"])
        if revision and injected and not metadata.get("deletionTimestamp"):
            account = spec.get("serviceAccountName") or "default"
            workload = Workload(metadata["namespace"], revision, account, _excluded(spec))
            found[workload.name] = workload
    return list(found.values())


def _excluded(spec: Object) -> frozenset[int]:
    for container in spec.get("initContainers") or []:
        arguments = container.get("args") or []
        if container["name"] == "istio-init" and "-d" in arguments[:-1]:
            return frozenset(map(int, re.findall(r"\d+", arguments[arguments.index("-d") + 1])))
    return frozenset()


def redirection(workload: Workload, address: str, application: int) -> Object:
    """The spec of the Sidecar object that takes the place of a Pod's iptables."""
    ingress = [
        {
            "port": {"number": port, "protocol": "HTTP", "name": name},
            "bind": address,
            "captureMode": "NONE",
            "defaultEndpoint": f"127.0.0.1:{application}",
        }
        for name, port in PORTS.items()
        if port not in workload.excluded
    ]
    selector = {"labels": {REVISION_LABEL: workload.revision}}
    return {"workloadSelector": selector, "ingress": ingress, "egress": [{"hosts": ["~/*"]}]}
