"""Stand-in for the OpenShift Serverless operator: what it installs for a KnativeServing, as its version does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runbooks_sandbox import metrics
from runbooks_sandbox.api import Object
from runbooks_sandbox.world import (
    CONFIG_MAPS,
    CRDS,
    DEPLOYMENTS,
    INGRESS_CONFIGS,
    KNATIVE_SERVINGS,
    NAMESPACES,
    NETWORK_POLICIES,
    Remove,
    Want,
    World,
    condition,
    is_true,
    owner,
)

MANAGER = "openshift-knative-operator"
SERVING, KOURIER_NAMESPACE = "knative-serving", "knative-serving-ingress"
ISTIO_CLASS = "istio.ingress.networking.knative.dev"
KOURIER_CLASS = "kourier.ingress.networking.knative.dev"
_CORE = ("activator", "autoscaler", "autoscaler-hpa", "controller", "webhook")
_DOMAIN_MAPPING = ("domain-mapping", "domainmapping-webhook")  # part of controller and webhook from 1.32 on
_NET_ISTIO = ("net-istio-controller", "net-istio-webhook")
_NET_KOURIER = "net-kourier-controller"
_POLICIES_OPT_OUT = "serverless.openshift.io/disable-istio-net-policies-generation"
_FILTERED_OF_KOURIER_FROM = (1, 28)
_FILTERING = "ENABLE_SECRET_INFORMER_FILTERING_BY_CERT_UID"
_FILTERING_ANNOTATION = "serverless.openshift.io/enable-secret-informer-filtering"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # what Go's ParseBool takes for true
_POLICIES_GENERATED_FROM = (1, 32)  # before, they are a file that knows neither another label nor an annotation
_NAMESPACE_AT_START_FROM = (1, 35)
PART_OF_SERVERLESS = {"knative.openshift.io/part-of": "openshift-serverless"}


def created_at_start(version: Sequence[int]) -> bool:
    """Whether the operator creates Kourier's namespace at its own start, as it does that of Serving.

    From then on it labels the namespace once, and no longer sees to it that the label stays.
    """
    return tuple(version[:2]) >= _NAMESPACE_AT_START_FROM


def serverless(
    version: tuple[int, int, int], serving_crds: Sequence[Object], world: World, _: Mapping[str, str]
) -> Iterable[Want | Remove]:
    """Everything that the operator of a version wants, for the one KnativeServing it accepts."""
    serving = world.get(KNATIVE_SERVINGS, SERVING, SERVING)
    if serving is None:
        return
    domain = ((world.get(INGRESS_CONFIGS, "", "cluster") or {}).get("spec") or {}).get("domain", "")
    for crd in serving_crds:
        if world.get(CRDS, "", crd["metadata"]["name"]) is None:
            yield Want(CRDS, {"metadata": crd["metadata"], "spec": crd["spec"]}, MANAGER)
    settings = config_maps(version, serving, domain)
    measured = metrics.are_on(version, settings["config-observability"])
    for name, data in settings.items():
        yield Want(CONFIG_MAPS, {"metadata": _owned(serving, name), "data": data}, MANAGER)
    for name in deployments_of(version, serving):
        yield Want(DEPLOYMENTS, _deployment(version, serving, name, measured=measured), MANAGER)
    if measured:
        yield from metrics.objects(SERVING, MANAGER)
    else:
        yield from metrics.leftovers(world, SERVING)
    if uses_istio(serving):
        for name, spec in _policies(version, serving).items():
            yield Want(NETWORK_POLICIES, {"metadata": _owned(serving, name), "spec": spec}, MANAGER)
    else:
        yield from _kourier(version, serving)
    yield _status(version, world, serving)


def _ingress(serving: Object) -> Mapping[str, Any]:
    return (serving.get("spec") or {}).get("ingress") or {}


def uses_istio(serving: Object) -> bool:
    """Whether Istio is the ingress; where Kourier is enabled too, or nothing is, Kourier wins."""
    ingress = _ingress(serving)
    return bool((ingress.get("istio") or {}).get("enabled")) and not (ingress.get("kourier") or {}).get("enabled")


def config_maps(version: tuple[int, int, int], serving: Object, domain: str) -> dict[str, dict[str, str]]:
    """The ConfigMaps that the operator writes, with what ``spec.config`` overrides."""
    found = {
        "config-network": {
            "ingress.class": ISTIO_CLASS if uses_istio(serving) else KOURIER_CLASS,
            "domainTemplate": "{{.Name}}-{{.Namespace}}.{{.Domain}}",
            "defaultExternalScheme": "https",
            "autocreateClusterDomainClaims": "true",
        },
        "config-domain": {domain: ""},
        "config-istio": {"_example": "empty: the default gateways of knative-serving are used"},
        "config-observability": metrics.default(version, istio=uses_istio(serving)),
    }
    for name, overrides in ((serving.get("spec") or {}).get("config") or {}).items():
        full = name if name.startswith("config-") else f"config-{name}"
        found[full] = {**found.get(full, {}), **overrides}
    return found


def deployments_of(version: tuple[int, int, int], serving: Object) -> tuple[str, ...]:
    """The Deployments of Knative Serving in its own namespace."""
    core = _CORE + (_DOMAIN_MAPPING if version < (1, 32, 0) else ())
    return core + (_NET_ISTIO if uses_istio(serving) else ())


def _owned(serving: Object, name: str) -> Object:
    return {"name": name, "namespace": SERVING, "ownerReferences": [owner(serving, KNATIVE_SERVINGS)]}


def _deployment(
    version: tuple[int, int, int], serving: Object, name: str, namespace: str = SERVING, *, measured: bool = False
) -> Object:
    spec = serving.get("spec") or {}
    overrides = [
        entry
        for entry in (*(spec.get("deployments") or ()), *(spec.get("workloads") or ()))
        if entry.get("name") == name
    ]
    labels, annotations = {"app": name}, {}
    if name in _NET_ISTIO:
        annotations["sidecar.istio.io/inject"] = "false"
    replicas = ((spec.get("high-availability") or {}).get("replicas")) or 2
    for entry in overrides:
        labels |= entry.get("labels") or {}
        annotations |= entry.get("annotations") or {}
        replicas = entry.get("replicas", replicas)
    containers = [
        {
            "name": _container(name),
            "image": "stand-in",
            "env": _environment(version, serving, name, overrides),
        }
    ]
    return {
        "metadata": {**_owned(serving, name), "namespace": namespace, "labels": labels, "annotations": annotations},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [*containers, *(metrics.proxy(name) if measured else ())]},
            },
        },
    }


def _environment(
    version: tuple[int, int, int], serving: Object, name: str, overrides: Iterable[Object]
) -> list[Object]:
    found = {"SYSTEM_NAMESPACE": SERVING}
    container = _container(name)
    for entry in overrides:
        for part in entry.get("env") or []:
            if part.get("container") == container:
                found |= {variable["name"]: variable.get("value", "") for variable in part.get("envVars") or []}
    if name == "net-istio-controller" or (name == _NET_KOURIER and version[:2] >= _FILTERED_OF_KOURIER_FROM):
        annotation = (serving["metadata"].get("annotations") or {}).get(_FILTERING_ANNOTATION)
        found[_FILTERING] = filtering(version, annotation, found.get(_FILTERING))
    return [{"name": key, "value": value} for key, value in found.items()]


def _container(name: str) -> str:
    return "controller" if name in (*_NET_ISTIO, _NET_KOURIER) else name


def filtering(version: tuple[int, int, int], annotation: str | None, override: str | None) -> str:
    """Whether the ingress's controller filters Secrets, as each version of the operator decides it.

    What is shipped says ``false``.

    Args:
        version: the operator's version.
        annotation: the annotation's value on the KnativeServing, or None.
        override: the variable's value in an entry of ``spec.workloads`` or ``spec.deployments``, or None.
    """
    if version[:2] < (1, 28):
        # the annotation is written after the overrides, whatever it says
        order = (annotation, override, "false")
    elif version[:2] < (1, 32):
        order = (override, annotation if annotation in _TRUE else None, "false")
    else:
        order = (override, None, "true")
    return next(value for value in order if value is not None)


def _policies(version: tuple[int, int, int], serving: Object) -> dict[str, Object]:
    generated = version[:2] >= _POLICIES_GENERATED_FROM
    if generated and (serving["metadata"].get("annotations") or {}).get(_POLICIES_OPT_OUT) == "true":
        return {}
    key = "kubernetes.io/metadata.name" if generated else "name"
    monitoring = {"namespaceSelector": {"matchLabels": {key: "openshift-monitoring"}}}
    webhooks = {
        name: {"podSelector": {"matchLabels": {"app": name}}, "ingress": [{}], "policyTypes": ["Ingress"]}
        for name in ("webhook", "net-istio-webhook")
    }
    return {
        **webhooks,
        "allow-from-openshift-monitoring-ns": {
            "podSelector": {},
            "ingress": [{"from": [monitoring]}],
            "policyTypes": ["Ingress"],
        },
    }


def _kourier(version: tuple[int, int, int], serving: Object) -> Iterable[Want]:
    if not created_at_start(version):
        yield Want(NAMESPACES, {"metadata": {"name": KOURIER_NAMESPACE, "labels": PART_OF_SERVERLESS}}, MANAGER)
    for name in (_NET_KOURIER, "3scale-kourier-gateway"):
        yield Want(DEPLOYMENTS, _deployment(version, serving, name, KOURIER_NAMESPACE), MANAGER)


def _status(version: tuple[int, int, int], world: World, serving: Object) -> Want:
    names = deployments_of(version, serving)
    waiting = [name for name in names if not is_true(world.get(DEPLOYMENTS, SERVING, name), "Available")]
    done = not waiting
    reason, text = ("", "") if done else ("NotReady", f"Waiting on deployments: {', '.join(waiting)}")
    status = {
        "observedGeneration": serving["metadata"]["generation"],
        "version": ".".join(map(str, version)),
        "conditions": [
            condition(serving, "DependenciesInstalled", True),
            condition(serving, "InstallSucceeded", True),
            condition(serving, "VersionMigrationEligible", True),
            condition(serving, "DeploymentsAvailable", done, reason, text),
            condition(serving, "Ready", done, reason, text),
        ],
    }
    return Want(KNATIVE_SERVINGS, {"metadata": {"name": SERVING, "namespace": SERVING}, "status": status}, MANAGER)
