"""6.4.4: Prometheus can scrape Knative Serving although the mesh insists on mTLS."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from runbooks.checks.check import Check, compared, proven
from runbooks.checks.sidecars import INJECTION, app_of, has_sidecar
from runbooks.cluster import Connection
from runbooks.kinds import CONFIG_MAP, NAMESPACE, NETWORK_POLICY, POD, SERVICE_MONITOR
from runbooks.manifests import METRICS_PORT, SERVING_NAMESPACE
from runbooks.network_policies import Peer, admitted
from runbooks.parameters import EnableServingMetrics, Parameters
from runbooks.readiness import running
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Checked, Proof

EXCLUSION = "traffic.sidecar.istio.io/excludeInboundPorts"
_MONITORED = ("activator", "autoscaler")  # those that the mesh stands in front of
_PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}


def serves_metrics(pod: Live) -> bool:
    """Whether a Pod answers on 8444: the proxy that the operator adds where metrics are on."""
    return any(
        port.get("containerPort") == METRICS_PORT
        for container in pod["spec"].get("containers", [])
        for port in container.get("ports") or []
    )


def excluded_ports(pod: Live) -> str | None:
    """The inbound ports that a Pod's sidecar leaves alone, as injection wrote them down; None where it did not.

    With the CNI plug-in of Service Mesh 2, injection leaves an annotation; without it, an argument of istio-init.
    """
    annotations = pod["metadata"].get("annotations") or {}
    if EXCLUSION in annotations:
        return str(annotations[EXCLUSION])
    for container in pod["spec"].get("initContainers", []):
        arguments = container.get("args") or []
        if container["name"] == "istio-init" and "-d" in arguments[:-1]:
            return str(arguments[arguments.index("-d") + 1])
    return None


def outdated(pods: Iterable[Live]) -> list[tuple[Live, str]]:
    """The Pods that serve metrics behind a sidecar which keeps Prometheus out, and what their sidecars leave alone."""
    found = []
    for pod in running(pods):
        ports = excluded_ports(pod) or "none"
        if serves_metrics(pod) and has_sidecar(pod) and str(METRICS_PORT) not in re.findall(r"\d+", ports):
            found.append((pod, ports))
    return found


def _backend(title: str, situation: Situation[EnableServingMetrics], _: Connection) -> Checked:
    given = situation.parameters
    data = (situation.snapshot.get(CONFIG_MAP, SERVING_NAMESPACE, "config-observability") or {}).get("data") or {}
    wanted = situation.profile.observability(strict=given.strict_documentation)
    faults = [f"{key} is {data.get(key, 'not set')}" for key, value in wanted.items() if data.get(key) != value]
    if not faults:  # the documented key may be one that this version ignores
        effective = situation.profile.observability(strict=False).items()
        unset = {key: data.get(key, "not set") for key, value in effective if data.get(key) != value}
        faults = [f"this version reads {key}, which is {value}" for key, value in unset.items()]
    return compared(
        title,
        ", ".join(f"{key} = {value}" for key, value in wanted.items()),
        faults,
        f"ConfigMap {SERVING_NAMESPACE}/config-observability, which Knative reads, not the resource that was written",
        "the operator has not taken the setting over: see KnativeServing's status",
    )


def _monitors(title: str, situation: Situation[EnableServingMetrics], _: Connection) -> Checked:
    found = {live["metadata"]["name"] for live in situation.snapshot.objects(SERVICE_MONITOR, SERVING_NAMESPACE)}
    wanted = [f"{name}-sm" for name in _MONITORED]
    return compared(
        title,
        f"ServiceMonitors {' and '.join(wanted)}",
        [f"{name} is missing" for name in wanted if name not in found],
        f"the ServiceMonitors in {SERVING_NAMESPACE}",
        "the operator makes them when metrics are on: see KnativeServing's status",
    )


def prometheus(situation: Situation[EnableServingMetrics]) -> Peer | None:
    """Prometheus as a NetworkPolicy sees it, with its namespace's real labels; None where that is missing."""
    name = situation.parameters.monitoring_namespace
    namespace = situation.snapshot.get(NAMESPACE, "", name)
    return Peer(name, namespace["metadata"].get("labels") or {}, _PROMETHEUS) if namespace else None


def _monitoring_admitted(title: str, situation: Situation[EnableServingMetrics], _: Connection) -> Checked:
    given, peer = situation.parameters, prometheus(situation)
    way = f"the NetworkPolicies in {SERVING_NAMESPACE}, evaluated with the labels of {given.monitoring_namespace}"
    expected = f"a Pod in {given.monitoring_namespace} reaches port {METRICS_PORT} of activator and autoscaler"
    if peer is None:
        said = f"there is no namespace {given.monitoring_namespace}"
        return Checked(title, Proof.FAILED, expected, said, way, "set monitoring_namespace to where Prometheus runs")
    policies = situation.snapshot.objects(NETWORK_POLICY, SERVING_NAMESPACE)
    pods = [pod for pod in running(situation.snapshot.objects(POD, SERVING_NAMESPACE)) if app_of(pod) in _MONITORED]
    if not pods:
        said = "no Pod of activator or autoscaler runs"
        return Checked(title, Proof.FAILED, expected, said, way, f"oc get pods -n {SERVING_NAMESPACE} shows why")
    faults = [
        f"Pod {pod['metadata']['name']} lets it in by no policy"
        for pod in pods
        if not admitted(policies, SERVING_NAMESPACE, pod["metadata"].get("labels") or {}, peer, METRICS_PORT)
    ]
    return compared(title, expected, faults, way, "compare the policy's namespaceSelector with the namespace's labels")


def _excluded_in_pods(title: str, situation: Situation[EnableServingMetrics], _: Connection) -> Checked:
    pods = running(situation.snapshot.objects(POD, SERVING_NAMESPACE))
    way = "what injection wrote into the Pods that run"
    expected = f"every Pod that serves {METRICS_PORT} behind a sidecar leaves it alone"
    serving = [pod for pod in pods if serves_metrics(pod) and app_of(pod) in _MONITORED]
    if {app_of(pod) for pod in serving} != set(_MONITORED):
        seen = ", ".join(sorted({app_of(pod) for pod in serving})) or "none"
        remedy = "the operator adds what serves it when metrics are on: see KnativeServing's status"
        return Checked(title, Proof.FAILED, expected, f"Pods that serve {METRICS_PORT}: {seen}", way, remedy)
    old = [f"Pod {pod['metadata']['name']} ({ports})" for pod, ports in outdated(pods)]
    if not old:
        return proven(title, expected, way)
    remedy = "exclusion is decided when a Pod is made: set restart_pods: true, or restart them when it suits"
    proof = Proof.FAILED if situation.parameters.restart_pods else Proof.RESTART
    return Checked(title, proof, expected, f"made before the exclusion: {', '.join(old)}", way, remedy)


def _serving_pods(_: Parameters) -> tuple[Read, ...]:
    return (Read(POD, SERVING_NAMESPACE),)


def _config_read(_: Any) -> tuple[Read, ...]:
    return (Read(CONFIG_MAP, SERVING_NAMESPACE, "config-observability"),)


EFFECTIVE_BACKEND = Check("Knative Serving's metrics are on", _backend, _config_read)
SERVICE_MONITORS = Check(
    "Prometheus is told where to scrape", _monitors, lambda _: (Read(SERVICE_MONITOR, SERVING_NAMESPACE),)
)
MONITORING_ADMITTED = Check(
    "NetworkPolicies let Prometheus in",
    _monitoring_admitted,
    lambda _: (Read(NETWORK_POLICY, SERVING_NAMESPACE), Read(NAMESPACE), Read(POD, SERVING_NAMESPACE)),
)
PORT_EXCLUDED_IN_PODS = Check(
    f"The sidecars leave port {METRICS_PORT} alone", _excluded_in_pods, _serving_pods, rests_on=INJECTION
)
