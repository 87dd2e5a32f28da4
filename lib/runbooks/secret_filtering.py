"""Whether net-istio filters the Secrets that it watches, and which Secrets it then no longer sees: pure.

The filter is the existence of one label key. What switches it on is an environment variable of the controller; the
annotation of the page is only one way to set it, and not in every version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from runbooks import readiness
from runbooks.readiness import State
from runbooks.snapshot import Live

VARIABLE = "ENABLE_SECRET_INFORMER_FILTERING_BY_CERT_UID"
LABEL = "networking.internal.knative.dev/certificate-uid"
CONTROLLER, CONTAINER = "net-istio-controller", "controller"

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # what the controller, with Go's ParseBool, takes for true


def is_on(value: str | None) -> bool:
    """Whether the controller takes a value of the variable for true; everything else is false to it."""
    return value in _TRUE


# --- what sets the variable --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Override:
    """The variable, as an entry of KnativeServing sets it for the workload.

    Args:
        where: the list that holds the entry, for example ``spec.workloads``.
        value: the variable's value.
    """

    where: str
    value: str


def override(serving: Live) -> Override | None:
    """The entry of a KnativeServing that sets the variable; of several the last one, as the operator applies them."""
    found = list(_overrides(serving))
    return found[-1] if found else None


def _overrides(serving: Live) -> Iterator[Override]:
    for name in ("deployments", "workloads"):
        for entry in (serving.get("spec") or {}).get(name) or []:
            if entry.get("name") == CONTROLLER:
                for part in entry.get("env") or []:
                    if part.get("container") == CONTAINER:
                        yield from (
                            Override(f"spec.{name}", str(variable.get("value", "")))
                            for variable in part.get("envVars") or []
                            if variable.get("name") == VARIABLE
                        )


def variable(pod_spec: Live) -> str | None:
    """The variable in a Pod's specification or a template's, or None where the container has none."""
    for container in pod_spec.get("containers") or []:
        if container.get("name") == CONTAINER:
            for entry in container.get("env") or []:
                if entry.get("name") == VARIABLE:
                    return str(entry.get("value", ""))
    return None


def rolled_out(deployment: Live | None) -> State:
    """The controller's Deployment has the filter on, and its rollout is through.

    The annotation raises no generation, so neither of the two objects tells by itself whether the operator has seen it.
    """
    if deployment is not None:
        value = variable(deployment["spec"]["template"]["spec"])
        if not is_on(value):
            return State(False, f"its operator has not switched the filter on yet ({shown(value)})")
    return readiness.deployment(deployment)


def shown(value: str | None) -> str:
    """The variable as a person reads it."""
    return f"no {VARIABLE}" if value is None else f"{VARIABLE}={value}"


# --- what the filter would hide ----------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Needed:
    """A Secret that a DomainMapping serves its certificate from.

    Args:
        namespace: of both.
        secret: the Secret's name.
        mapping: the DomainMapping's name, which is its host.
    """

    namespace: str
    secret: str
    mapping: str

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.secret}, which DomainMapping {self.namespace}/{self.mapping} needs"


def needed(mappings: Iterable[Live]) -> tuple[Needed, ...]:
    """The Secrets that DomainMappings need; those without ``spec.tls`` need none."""
    found = set()
    for live in mappings:
        if secret := ((live.get("spec") or {}).get("tls") or {}).get("secretName"):
            found.add(Needed(live["metadata"]["namespace"], secret, live["metadata"]["name"]))
    return tuple(sorted(found))


def sightless(wanted: Iterable[Needed], secrets: Iterable[Live]) -> tuple[tuple[Needed, ...], tuple[Needed, ...]]:
    """Of the Secrets that are needed, those that the filter would hide, and those that are not there at all.

    Args:
        wanted: what is needed.
        secrets: the Secrets of the namespaces in question; their metadata is enough.
    """
    labels = {
        (live["metadata"]["namespace"], live["metadata"]["name"]): live["metadata"].get("labels") or {}
        for live in secrets
    }
    hidden, missing = [], []
    for one in wanted:
        there = labels.get((one.namespace, one.secret))
        if there is None:
            missing.append(one)
        elif LABEL not in there:
            hidden.append(one)
    return tuple(hidden), tuple(missing)


def label_command(one: Needed) -> str:
    """The command that makes a Secret visible to the filter; only the label's key counts."""
    return f"oc label secret {one.secret} -n {one.namespace} {LABEL}=in-use"


def shared(wanted: Iterable[Needed]) -> dict[str, list[str]]:
    """The Secrets that several DomainMappings serve from, with the hosts of each."""
    hosts: defaultdict[str, list[str]] = defaultdict(list)
    for one in wanted:
        hosts[f"{one.namespace}/{one.secret}"].append(one.mapping)
    return {secret: names for secret, names in hosts.items() if len(names) > 1}
