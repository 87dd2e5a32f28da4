"""6.4.3: istiod takes the Gateways, instead of ignoring one for another that claims the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from runbooks import probes
from runbooks.checks.check import Check, compared
from runbooks.cluster import Connection
from runbooks.errors import RunbookError
from runbooks.kinds import GATEWAY, POD
from runbooks.manifests import INGRESS_GATEWAY, LOCAL_GATEWAY, SERVING_NAMESPACE
from runbooks.parameters import IntegrateServiceMesh
from runbooks.probes import ProbeFailed
from runbooks.readiness import running
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Checked, Proof, few

_OURS = (INGRESS_GATEWAY, LOCAL_GATEWAY)
_METRICS_PORT = 15014  # of every istiod, as Istio documents it
_MOST = 4 * 1024 * 1024  # bytes; the metrics of a busy istiod take about one
_REJECTED = "pilot_total_rejected_configs"
_CONFLICT = "IST0145"  # the only code that tells of a rejection; others tell of what is proven by other means
_REMEDY = (
    "remove or narrow the other Gateway, oc get gateways.networking.istio.io -A lists them; with the HTTPS variant of "
    f"{LOCAL_GATEWAY} that is {LOCAL_GATEWAY} itself: local_gateway: http"
)

_WITHOUT = (
    "nothing need be done: the certificate that is served and the application's answer are proven by themselves; with "
    "the right to forward ports to istiod's Pods it can be asked"
)


def _reads(given: IntegrateServiceMesh) -> tuple[Read, ...]:
    gateways = tuple(Read(GATEWAY, SERVING_NAMESPACE, name) for name in _OURS)
    return (*gateways, Read(POD, given.mesh_namespace, labels="app=istiod"))


def analysed(gateway: Live) -> list[str] | None:
    """The conflict that istiod's analysis sees for a Gateway as it is now; None where it has said nothing of it."""
    status, name = gateway.get("status") or {}, gateway["metadata"]["name"]
    if str(status.get("observedGeneration", "")) != str(gateway["metadata"].get("generation", "")):
        return None
    codes = [message.get("type", {}).get("code", "") for message in status.get("validationMessages") or []]
    said = "another Gateway claims the same port and hosts; the older one of them is served"
    return [f"{name}: {_CONFLICT}, {said}"] if _CONFLICT in codes else []


def rejected(metrics: str) -> dict[str, int] | None:
    """How often istiod has rejected each Gateway of ours since it started; None where the metrics do not tell.

    Args:
        metrics: what it exposes, in Prometheus' text format; where they are not whole, they tell nothing.
    """
    try:
        families = {family.name: family for family in text_string_to_metric_families(metrics)}
    except ValueError:
        return None
    if len(metrics) >= _MOST or not any(name.startswith("pilot_") for name in families):
        return None
    family = families.get(_REJECTED)
    return {
        sample.labels["name"].partition("/")[2]: int(sample.value)
        for sample in (family.samples if family else ())
        if sample.labels.get("type") == "gateway" and sample.labels["name"].startswith(f"{SERVING_NAMESPACE}/")
    }


def _accepted(title: str, situation: Situation[IntegrateServiceMesh], connection: Connection) -> Checked:
    expected = f"istiod rejects neither {' nor '.join(_OURS)}"
    if situation.parameters.local_gateway == "https":
        return Checked(title, Proof.SKIPPED, expected, "with the HTTPS variant istiod ignores the newer one", "")
    live = [found for name in _OURS if (found := situation.snapshot.get(GATEWAY, SERVING_NAMESPACE, name))]
    analyses = [analysed(gateway) for gateway in live]
    if any(analyses) or (live and None not in analyses):
        faults = [fault for analysis in analyses for fault in analysis or ()]
        return compared(title, expected, faults, "istiod's analysis, in the status of the Gateways", _REMEDY)
    mesh = situation.parameters.mesh_namespace
    pods = list(running(situation.snapshot.objects(POD, mesh)))
    names = [pod["metadata"]["name"] for pod in pods if (pod["metadata"].get("labels") or {}).get("app") == "istiod"]
    way = f"the metrics of istiod, port {_METRICS_PORT}, by port-forward"
    if not names:
        said = situation.snapshot.unreadable(POD) or f"there is no Pod of istiod in {mesh}"
        return Checked(title, Proof.UNPROVEN, expected, said, way, _WITHOUT)
    return _counted(title, expected, names, mesh, connection)


def _counted(title: str, expected: str, pods: Iterable[str], mesh: str, connection: Connection) -> Checked:
    """From the counters of each istiod: one that has never rejected a Gateway does not do so now."""
    way = f"{_REJECTED} of istiod, by port-forward to {few(pods)} port {_METRICS_PORT}"
    counts: dict[str, int] = {}
    for pod in pods:
        try:
            with contextlib.closing(connection.port_forward(mesh, pod, _METRICS_PORT)) as stream:
                answer = probes.http_get("localhost", stream, "/metrics", _MOST)
        except (RunbookError, ProbeFailed) as error:
            return Checked(title, Proof.UNPROVEN, expected, f"istiod's metrics: {error}", way, _WITHOUT)
        found = rejected(answer.body) if answer.status == 200 else None
        if found is None:
            said = f"istiod's metrics: status {answer.status}, cut off, or none of istiod's own among them"
            return Checked(title, Proof.UNPROVEN, expected, said, way, _WITHOUT)
        for name in _OURS:
            counts[name] = counts.get(name, 0) + found.get(name, 0)
    told = [f"{name} {count} times since istiod started" for name, count in counts.items() if count]
    if not told:
        return Checked(title, Proof.PROVEN, expected, "it has rejected neither since it started", way)
    # a counter never goes down: what it tells may be over
    said = f"rejected: {', '.join(told)}; whether it still does, only its analysis would tell"
    return Checked(title, Proof.UNPROVEN, expected, said, way, _REMEDY)


ACCEPTED = Check("Istiod takes the Gateways", _accepted, copes=_reads)
