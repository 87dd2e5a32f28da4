"""What the Serverless operator adds where metrics of Knative Serving are on: a proxy on 8444, Services, monitors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runbooks_sandbox.api import Object
from runbooks_sandbox.world import NAMESPACES, SERVICE_MONITORS, SERVICES, Remove, Want, World

PORT = 8444
_OFF = ("", "none", "opencensus")
_KEY_RENAMED_FROM = (1, 38)
_MONITORED = ("activator", "autoscaler", "autoscaler-hpa", "controller", "webhook")


def are_on(version: tuple[int, int, int], observability: Mapping[str, str]) -> bool:
    """Whether the settings that this version reads send metrics anywhere."""
    key = "metrics-protocol" if version[:2] >= _KEY_RENAMED_FROM else "metrics.backend-destination"
    return observability.get(key, "") not in _OFF


def default(version: tuple[int, int, int], *, istio: bool) -> dict[str, str]:
    """What the operator writes where nobody has set anything: off where Istio is the ingress."""
    backend = "none" if istio else "prometheus"
    if version[:2] >= _KEY_RENAMED_FROM:
        return {"metrics-protocol": backend, "request-metrics-protocol": backend}
    return {"metrics.backend-destination": backend}


def proxy(name: str) -> list[Object]:
    """The container that a monitored Deployment gets."""
    if name not in _MONITORED:
        return []
    return [
        {"name": "kube-rbac-proxy", "image": "stand-in", "ports": [{"containerPort": PORT, "name": "https-metrics"}]}
    ]


def objects(namespace: str, manager: str) -> Iterable[Want]:
    """Services and ServiceMonitors, and the label that makes the cluster's Prometheus look at the namespace."""
    labels = {"openshift.io/cluster-monitoring": "true"}
    yield Want(NAMESPACES, {"metadata": {"name": namespace, "labels": labels}}, f"{manager}-monitoring")
    for name in _MONITORED:
        selector = {"name": f"{name}-sm-service"}
        metadata = {"name": f"{name}-sm-service", "namespace": namespace, "labels": selector}
        port = {"name": "https", "port": PORT, "targetPort": PORT}
        yield Want(SERVICES, {"metadata": metadata, "spec": {"ports": [port], "selector": {"app": name}}}, manager)
        monitor = {"endpoints": [{"port": "https", "scheme": "https"}], "selector": {"matchLabels": selector}}
        yield Want(
            SERVICE_MONITORS, {"metadata": {"name": f"{name}-sm", "namespace": namespace}, "spec": monitor}, manager
        )


def leftovers(world: World, namespace: str) -> Iterable[Remove]:
    """What the operator takes back when metrics are switched off."""
    for resource, ending in ((SERVICES, "-sm-service"), (SERVICE_MONITORS, "-sm")):
        for live in world.objects(resource, namespace):
            if live["metadata"]["name"] in {f"{name}{ending}" for name in _MONITORED}:
                yield Remove(resource, namespace, live["metadata"]["name"])
