"""6.4.3: Istio is the only ingress of Knative Serving."""

from __future__ import annotations

from typing import Any

from runbooks.checks.check import Check, compared
from runbooks.checks.sidecars import app_of
from runbooks.cluster import Connection
from runbooks.errors import RBAC
from runbooks.kinds import CONFIG_MAP, KNATIVE_SERVING, NAMESPACE, POD
from runbooks.manifests import KOURIER_NAMESPACE, SERVING_NAMESPACE
from runbooks.parameters import IntegrateServiceMesh, Parameters
from runbooks.readiness import running
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Checked, Proof

ISTIO_INGRESS_CLASS = "istio.ingress.networking.knative.dev"


def _sole_ingress(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    config = situation.snapshot.get(CONFIG_MAP, SERVING_NAMESPACE, "config-network") or {}
    data = config.get("data") or {}
    # the operator writes one spelling, Knative reads both
    ingress_class = data.get("ingress.class") or data.get("ingress-class") or "none"
    faults = [] if ingress_class == ISTIO_INGRESS_CLASS else [f"config-network names {ingress_class}"]
    for serving in situation.snapshot.objects(KNATIVE_SERVING):
        if ((serving.get("spec") or {}).get("ingress") or {}).get("kourier", {}).get("enabled"):
            faults.append("KnativeServing also enables Kourier, which then wins")
    faults += [f"Pod {pod['metadata']['name']} of Kourier runs" for pod in running(_kourier_pods(situation))]
    kourier_namespace = situation.snapshot.get(NAMESPACE, "", KOURIER_NAMESPACE)
    if kourier_namespace and (refused := situation.snapshot.refusals(_kourier_reads(situation.parameters))):
        return Checked(title, Proof.UNKNOWN, f"no Pod of Kourier in {KOURIER_NAMESPACE}", "; ".join(refused), "", RBAC)
    return compared(
        title,
        f"config-network names {ISTIO_INGRESS_CLASS}, and no Kourier gateway runs",
        faults,
        f"ConfigMap {SERVING_NAMESPACE}/config-network and the Pods in {KOURIER_NAMESPACE}",
        "set spec.ingress.kourier.enabled to false in KnativeServing, or take the Kourier path (6.4.5)",
    )


def _kourier_reads(_: Parameters) -> tuple[Read, ...]:
    return (Read(POD, KOURIER_NAMESPACE),)


def _kourier_pods(situation: Situation[Any]) -> list[Live]:
    pods = situation.snapshot.objects(POD, KOURIER_NAMESPACE)
    return [pod for pod in pods if app_of(pod) == "3scale-kourier-gateway"]


SOLE_INGRESS = Check(
    "Istio is the only ingress",
    _sole_ingress,
    lambda _: (
        Read(CONFIG_MAP, SERVING_NAMESPACE, "config-network"),
        Read(KNATIVE_SERVING, SERVING_NAMESPACE),
        Read(NAMESPACE),
    ),
    copes=_kourier_reads,
)
