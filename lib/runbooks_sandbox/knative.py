"""Stand-ins for Knative Serving's controllers, for net-istio, and for the controller that makes OpenShift Routes.

Of what they really make, the sandbox makes what an operator looks at: Revision, Deployment, Knative Ingress and Route.
The Configuration, the Knative Route and the private Services are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from runbooks_sandbox.api import Object
from runbooks_sandbox.serverless import ISTIO_CLASS, SERVING, uses_istio
from runbooks_sandbox.world import (
    CONFIG_MAPS,
    CONTROL_PLANES,
    DEPLOYMENTS,
    KNATIVE_INGRESSES,
    KNATIVE_SERVICES,
    KNATIVE_SERVINGS,
    REVISIONS,
    ROUTES,
    Remove,
    Want,
    World,
    condition,
    is_true,
    owner,
)

CONTROLLER, NET_ISTIO, INGRESS = "knative-serving-controller", "net-istio-controller", "knative-openshift-ingress"
PASSTHROUGH = "serving.knative.openshift.io/enablePassthrough"
_ROUTE_LABELS = "serving.knative.openshift.io"


def _domain(world: World) -> str:
    data = (world.get(CONFIG_MAPS, SERVING, "config-domain") or {}).get("data") or {}
    return next(iter(data), "")


def _runs(world: World) -> bool:
    serving = world.get(KNATIVE_SERVINGS, SERVING, SERVING)
    return (
        serving is not None
        and uses_istio(serving)
        and is_true(world.get(DEPLOYMENTS, SERVING, "controller"), "Available")
    )


def services(world: World, _: Mapping[str, str]) -> Iterable[Want | Remove]:
    """Revision, Deployment and Knative Ingress of each Knative Service, and the Service's own status."""
    if not _runs(world):
        return
    for service in world.objects(KNATIVE_SERVICES):
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        revision = f"{name}-{service['metadata']['generation']:05d}"
        labels = {"serving.knative.dev/service": name, "serving.knative.dev/revision": revision}
        template = service["spec"]["template"]
        annotations = (template.get("metadata") or {}).get("annotations") or {}
        yield Want(REVISIONS, _revision(service, revision, labels, annotations), CONTROLLER)
        yield Want(DEPLOYMENTS, _deployment(service, revision, labels, annotations), CONTROLLER)
        deployment = f"{revision}-deployment"
        for live in world.objects(DEPLOYMENTS, namespace):
            if _belongs(live, service) and live["metadata"]["name"] != deployment:
                yield Remove(DEPLOYMENTS, namespace, live["metadata"]["name"])
        yield Want(KNATIVE_INGRESSES, _ingress(world, service, revision), CONTROLLER)
        yield _service_status(world, service, revision)


def _belongs(live: Object, service: Object) -> bool:
    return any(entry["uid"] == service["metadata"]["uid"] for entry in live["metadata"].get("ownerReferences") or [])


def _owned(service: Object, name: str, labels: dict[str, str], annotations: dict[str, str] | None = None) -> Object:
    return {
        "name": name,
        "namespace": service["metadata"]["namespace"],
        "labels": labels,
        "annotations": annotations or {},
        "ownerReferences": [owner(service, KNATIVE_SERVICES)],
    }


def _revision(service: Object, name: str, labels: dict[str, str], annotations: dict[str, str]) -> Object:
    return {
        "metadata": _owned(service, name, labels, annotations),
        "spec": service["spec"]["template"].get("spec") or {},
    }


def _deployment(service: Object, revision: str, labels: dict[str, str], annotations: dict[str, str]) -> Object:
    template = service["spec"]["template"]["spec"]
    images = [container.get("image", "stand-in") for container in template["containers"]]
    account = {"serviceAccountName": template["serviceAccountName"]} if "serviceAccountName" in template else {}
    containers = [{"name": "user-container", "image": images[0]}, {"name": "queue-proxy", "image": "stand-in"}]
    return {
        "metadata": _owned(service, f"{revision}-deployment", labels, annotations),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"serving.knative.dev/revision": revision}},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": containers, **account},
            },
        },
    }


def hosts(name: str, namespace: str, domain: str) -> tuple[str, tuple[str, ...]]:
    """The public host of a Service, and its cluster-local ones."""
    local = f"{name}.{namespace}"
    return f"{name}-{namespace}.{domain}", (local, f"{local}.svc", f"{local}.svc.cluster.local")


def _ingress(world: World, service: Object, revision: str) -> Object:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    public, local = hosts(name, namespace, _domain(world))
    annotations = {
        key: value
        for key, value in (service["metadata"].get("annotations") or {}).items()
        if key.startswith("serving.knative.openshift.io/")
    }
    split = [{"serviceName": revision, "serviceNamespace": namespace, "servicePort": 80, "percent": 100}]
    http = {"paths": [{"splits": split}]}
    rules = [
        {"hosts": list(local), "visibility": "ClusterLocal", "http": http},
        {"hosts": [public], "visibility": "ExternalIP", "http": http},
    ]
    return {
        "metadata": {
            **_owned(service, name, {"serving.knative.dev/service": name}),
            "annotations": {"networking.knative.dev/ingress.class": ISTIO_CLASS, **annotations},
        },
        "spec": {"httpOption": "Enabled", "rules": rules},
    }


def _service_status(world: World, service: Object, revision: str) -> Want:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    deployed = is_true(world.get(DEPLOYMENTS, namespace, f"{revision}-deployment"), "Available")
    ingress = world.get(KNATIVE_INGRESSES, namespace, name)
    routed = is_true(ingress, "Ready")
    ready = [entry for entry in (ingress or {}).get("status", {}).get("conditions", []) if entry["type"] == "Ready"]
    waiting: Object = {} if routed or not ready else ready[0]
    routes = condition(service, "RoutesReady", routed or None, waiting.get("reason", ""), waiting.get("message", ""))
    public, local = hosts(name, namespace, _domain(world))
    status = {
        "observedGeneration": service["metadata"]["generation"],
        "url": f"https://{public}",
        "address": {"url": f"http://{local[-1]}"},
        "latestCreatedRevisionName": revision,
        "conditions": [
            condition(service, "ConfigurationsReady", deployed or None, "" if deployed else "RevisionMissing"),
            routes,
            {**routes, "type": "Ready"} if deployed else condition(service, "Ready", None, "RevisionMissing"),
        ],
    }
    if deployed:
        status["latestReadyRevisionName"] = revision
    return Want(KNATIVE_SERVICES, {"metadata": {"name": name, "namespace": namespace}, "status": status}, CONTROLLER)


def net_istio(would_serve: Callable[[Object], bool], world: World, _: Mapping[str, str]) -> Iterable[Want]:
    """The state of each Knative Ingress: ready as soon as the gateway would answer for its host.

    As the real one's probe does, this says nothing about the certificate.

    Args:
        would_serve: whether a probe of the gateway for a Knative Ingress succeeds.
        world: what is in the cluster.
    """
    if not _runs(world):
        return
    for ingress in world.objects(KNATIVE_INGRESSES):
        mesh = next((plane["metadata"]["namespace"] for plane in world.objects(CONTROL_PLANES)), "istio-system")
        served = would_serve(ingress)
        reason, text = ("", "") if served else ("Uninitialized", "Waiting for load balancer to be ready")
        balancers = {
            side: {"ingress": [{"domainInternal": f"{service}.{mesh}.svc.cluster.local"}]}
            for side, service in (
                ("publicLoadBalancer", "istio-ingressgateway"),
                ("privateLoadBalancer", "knative-local-gateway"),
            )
        }
        status = {
            "observedGeneration": ingress["metadata"]["generation"],
            "conditions": [
                condition(ingress, "NetworkConfigured", True),
                condition(ingress, "LoadBalancerReady", served or None, reason, text),
                condition(ingress, "Ready", served or None, reason, text),
            ],
            **(balancers if served else {}),
        }
        metadata = {"name": ingress["metadata"]["name"], "namespace": ingress["metadata"]["namespace"]}
        yield Want(KNATIVE_INGRESSES, {"metadata": metadata, "status": status}, NET_ISTIO)


def routes(world: World, _: Mapping[str, str]) -> Iterable[Want | Remove]:
    """One OpenShift Route for each public host, in the namespace of the gateway, named as the real controller does."""
    wanted = set()
    for ingress in world.objects(KNATIVE_INGRESSES):
        balancer = ingress.get("status", {}).get("publicLoadBalancer", {}).get("ingress") or []
        internal = str(balancer[0].get("domainInternal", "")) if balancer else ""
        if not internal:
            continue
        service, namespace = internal.split(".")[:2]
        for rule in ingress["spec"]["rules"]:
            if rule.get("visibility") == "ExternalIP":
                for host in rule["hosts"]:
                    route = _route(ingress, host, service, namespace)
                    wanted.add((namespace, route["metadata"]["name"]))
                    yield Want(ROUTES, {**route, "status": _admitted(world, route)}, INGRESS)
    for live in world.objects(ROUTES):
        key = (live["metadata"]["namespace"], live["metadata"]["name"])
        if f"{_ROUTE_LABELS}/ingressName" in (live["metadata"].get("labels") or {}) and key not in wanted:
            yield Remove(ROUTES, *key)


def route_name(ingress_uid: str, host: str) -> str:
    """``route-<uid>-<12 hex>``: the hex of the ASCII of the first six hex digits of the host's SHA-256."""
    return f"route-{ingress_uid}-{hashlib.sha256(host.encode()).hexdigest()[:6].encode().hex()}"


def _route(ingress: Object, host: str, service: str, namespace: str) -> Object:
    metadata = ingress["metadata"]
    # the real controller looks at the key only: "false" passes TLS through, too
    passed = PASSTHROUGH in (metadata.get("annotations") or {})
    passthrough = {"termination": "passthrough", "insecureEdgeTerminationPolicy": "Redirect"}
    labels = {
        **(metadata.get("labels") or {}),
        f"{_ROUTE_LABELS}/ingressName": metadata["name"],
        f"{_ROUTE_LABELS}/ingressNamespace": metadata["namespace"],
        "networking.internal.knative.dev/ingress": metadata["name"],
    }
    return {
        "metadata": {"name": route_name(metadata["uid"], host), "namespace": namespace, "labels": labels},
        "spec": {
            "host": host,
            "to": {"kind": "Service", "name": service, "weight": 100},
            "port": {"targetPort": "https" if passed else "http2"},
            "tls": passthrough if passed else {"termination": "edge", "insecureEdgeTerminationPolicy": "Allow"},
            "wildcardPolicy": "None",
        },
    }


def _admitted(world: World, route: Object) -> Object:
    """As the router says it: of two Routes for one host, the older one has it."""
    live = world.get(ROUTES, route["metadata"]["namespace"], route["metadata"]["name"])
    known = (live or {}).get("status", {}).get("ingress") or [{}]
    claimed = any(
        f"{_ROUTE_LABELS}/ingressName" not in (other["metadata"].get("labels") or {})
        and other["spec"].get("host") == route["spec"]["host"]
        and (live is None or other["metadata"]["creationTimestamp"] <= live["metadata"]["creationTimestamp"])
        for other in world.objects(ROUTES)
    )
    reason, text = ("HostAlreadyClaimed", "an older route holds the host") if claimed else ("", "")
    entry = condition({"status": known[0]}, "Admitted", not claimed, reason, text)
    return {"ingress": [{"host": route["spec"]["host"], "routerName": "default", "conditions": [entry]}]}
