"""The Pods that really run have their sidecars."""

from __future__ import annotations

from collections.abc import Iterable

from runbooks.checks.check import Check, compared
from runbooks.cluster import Connection
from runbooks.kinds import POD
from runbooks.manifests import INJECT, SERVING_NAMESPACE
from runbooks.parameters import IntegrateServiceMesh
from runbooks.readiness import running
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Checked, Proof, few

SYSTEM_PODS = ("activator", "autoscaler")
INJECTION = "sidecar injection"


def app_of(pod: Live) -> str:
    """The label ``app`` of a Pod."""
    return str((pod["metadata"].get("labels") or {}).get("app", ""))


def has_sidecar(pod: Live) -> bool:
    """Whether a Pod has an istio-proxy; in newer meshes it is an init container that keeps running."""
    containers = pod["spec"].get("containers", []) + pod["spec"].get("initContainers", [])
    return any(container["name"] == "istio-proxy" for container in containers)


def _without_sidecar(pods: Iterable[Live]) -> list[str]:
    return [f"Pod {pod['metadata']['name']} has no container istio-proxy" for pod in pods if not has_sidecar(pod)]


def _names(pods: Iterable[Live]) -> str:
    return "in " + few(pod["metadata"]["name"] for pod in pods)


def _system_sidecars(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    pods = running(situation.snapshot.objects(POD, SERVING_NAMESPACE))
    faults = []
    for app in SYSTEM_PODS:
        of_app = [pod for pod in pods if app_of(pod) == app]
        faults += _without_sidecar(of_app) if of_app else [f"no Pod of {app} runs"]
    return compared(
        title,
        "a container istio-proxy in every Pod of activator and autoscaler",
        faults,
        f"the Pods in {SERVING_NAMESPACE}",
        f"Pods that are older than the membership have none: delete them, and check {INJECT} in KnativeServing",
        seen=_names(pod for pod in pods if app_of(pod) in SYSTEM_PODS),
    )


def _service_selector(given: IntegrateServiceMesh) -> str:
    return f"serving.knative.dev/service={given.service_name}"


def _service_reads(given: IntegrateServiceMesh) -> tuple[Read, ...]:
    return (Read(POD, given.service_namespace, labels=_service_selector(given)),)


def _service_sidecar(title: str, situation: Situation[IntegrateServiceMesh], connection: Connection) -> Checked:
    given = situation.parameters
    pods = [
        pod
        for pod in running(situation.snapshot.objects(POD, given.service_namespace))
        if (pod["metadata"].get("labels") or {}).get("serving.knative.dev/service") == given.service_name
    ]
    if not pods:  # it slept when the Pods were read; the request of the check before has woken it
        pods = running(connection.objects(POD, given.service_namespace, label_selector=_service_selector(given)))
    way = f"the Pods in {given.service_namespace} labelled {_service_selector(given)}"
    expected = "a container istio-proxy in every Pod of the Service"
    if not pods:
        # scaled to zero since: nothing is wrong, and nothing is to be seen
        said = "no Pod runs at the moment (scaled to zero)"
        return Checked(title, Proof.UNPROVEN, expected, said, way, "send the Service a request, then run this again")
    return compared(
        title,
        expected,
        _without_sidecar(pods),
        way,
        f"a Pod that is older than the membership of {given.service_namespace} has none: delete it",
        seen=_names(pods),
    )


SYSTEM_SIDECARS = Check(
    "Activator and autoscaler have sidecars",
    _system_sidecars,
    lambda _: (Read(POD, SERVING_NAMESPACE),),
    rests_on=INJECTION,
)


SERVICE_SIDECAR = Check("The application's Pods have sidecars", _service_sidecar, _service_reads, rests_on=INJECTION)
