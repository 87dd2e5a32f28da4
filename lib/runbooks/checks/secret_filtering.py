"""6.4.6: net-istio's controller really filters the Secrets that it watches."""

from __future__ import annotations

from collections.abc import Iterable

from runbooks.checks.check import Check, compared, proven
from runbooks.cluster import Connection
from runbooks.errors import ServerRefused
from runbooks.kinds import DEPLOYMENT, POD, SECRET
from runbooks.manifests import SERVING_NAMESPACE
from runbooks.network_policies import selects
from runbooks.parameters import EnableSecretFiltering, Parameters
from runbooks.readiness import running
from runbooks.secret_filtering import CONTAINER, CONTROLLER, LABEL, VARIABLE, is_on, shown, variable
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Checked, Proof


def filtering_reads(_: Parameters) -> tuple[Read, ...]:
    """The controller's Deployment, and the Pods among which its own are."""
    return (Read(DEPLOYMENT, SERVING_NAMESPACE, CONTROLLER), Read(POD, SERVING_NAMESPACE))


def unfiltered(deployment: Live, pods: Iterable[Live]) -> list[str]:
    """What says that the filter is off: the Deployment's template, and each running Pod that it selects.

    Args:
        deployment: the controller's Deployment.
        pods: all Pods of its namespace.
    """
    faults = []
    value = variable(deployment["spec"]["template"]["spec"])
    if not is_on(value):
        faults.append(f"Deployment {CONTROLLER} has {shown(value)}")
    selector = deployment["spec"]["selector"]
    own = [pod for pod in running(pods) if selects(selector, pod["metadata"].get("labels") or {})]
    if not own:
        faults.append(f"no Pod of {CONTROLLER} runs")
    for pod in own:
        value = variable(pod["spec"])
        if not is_on(value):
            faults.append(f"Pod {pod['metadata']['name']} runs with {shown(value)}")
    return faults


def _filtered(title: str, situation: Situation[EnableSecretFiltering], _: Connection) -> Checked:
    deployment = situation.snapshot.get(DEPLOYMENT, SERVING_NAMESPACE, CONTROLLER)
    expected = f"{VARIABLE}=true in Deployment {CONTROLLER} and in every running Pod of it"
    way = f"the container {CONTAINER} of the Deployment and of its Pods in {SERVING_NAMESPACE}"
    remedy = "a Pod with an old value waits for its rollout: oc rollout status deployment/net-istio-controller"
    if deployment is None:
        faults = [f"there is no Deployment {CONTROLLER} in {SERVING_NAMESPACE}"]
        remedy = "is Istio the ingress of Knative Serving? run 6.4.3"
        return compared(title, expected, faults, way, remedy, see="6.4.3")
    return compared(title, expected, unfiltered(deployment, situation.snapshot.objects(POD)), way, remedy)


# --- what it saves -----------------------------------------------------------------------------------------------


def savings(total: int, labelled: int, stored_bytes: int | None) -> str:
    """How many Secrets the controller watches without and with the filter, and how many bytes, as far as is known.

    Args:
        total: all Secrets of the cluster.
        labelled: those that the filter lets through.
        stored_bytes: about how large all of them are, or None where the server does not say.
    """
    if stored_bytes is None or not total:
        return f"{total:,} Secrets without the filter, {labelled:,} with it; their size could not be told"
    part = stored_bytes * labelled // total
    return (
        f"{total:,} Secrets, about {_size(stored_bytes)}, without the filter; {labelled:,} with it, in proportion "
        f"{_size(part)} (an estimate: their own size is not known)"
    )


def _size(count: int) -> str:
    for unit, factor in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count} bytes"


def _measured(title: str, situation: Situation[EnableSecretFiltering], connection: Connection) -> Checked:
    way = "counted by metadata only, and sized by the API server's own estimate, which lags; no content was read"
    if not situation.parameters.measure_secrets:
        return Checked(title, Proof.SKIPPED, "", "measure_secrets is false", "")
    expected = "the number of Secrets in the cluster, and of those that carry the label"
    try:
        total, labelled = connection.count(SECRET), connection.count(SECRET, LABEL)
    except ServerRefused as error:
        return Checked(
            title, Proof.UNPROVEN, expected, error.said, way, "the account needs list on secrets, in all namespaces"
        )
    return proven(title, expected, way, savings(total, labelled, connection.stored_bytes(SECRET)))


FILTERED = Check("The controller filters the Secrets that it watches", _filtered, filtering_reads)
MEASURED = Check("What the filter keeps away from the controller", _measured)
