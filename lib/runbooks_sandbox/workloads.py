"""Stand-ins for what makes Pods run: Deployment and ReplicaSet controllers, sidecar injection, and the node."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping

from runbooks_sandbox.api import Object
from runbooks_sandbox.service_mesh import MEMBER_OF, excluded_ports, mutual_tls
from runbooks_sandbox.world import (
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    Remove,
    Want,
    World,
    condition,
    control_planes,
    now,
    owner,
)

NODE = "sandbox"
CONTROLLERS, KUBELET = "kube-controller-manager", "kubelet"
_HASH_LABEL = "pod-template-hash"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def deployments(world: World, _: Mapping[str, str]) -> Iterable[Want | Remove]:
    """One ReplicaSet for each Deployment's present template; the earlier ones are scaled to nothing."""
    for deployment in world.objects(DEPLOYMENTS):
        name, namespace = deployment["metadata"]["name"], deployment["metadata"]["namespace"]
        template_hash = _hash(deployment["spec"]["template"])
        current = f"{name}-{template_hash}"
        yield Want(REPLICA_SETS, _replica_set(deployment, current, template_hash), CONTROLLERS)
        for live in world.objects(REPLICA_SETS, namespace):
            if _owned_by(live, deployment) and live["metadata"]["name"] != current:
                if _available(world, world.get(REPLICA_SETS, namespace, current)):
                    yield Remove(REPLICA_SETS, namespace, live["metadata"]["name"])
        status = _deployment_status(world, deployment, current)
        yield Want(DEPLOYMENTS, {"metadata": {"name": name, "namespace": namespace}, "status": status}, CONTROLLERS)


def _hash(template: Object) -> str:
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:9])


def _owned_by(live: Object, other: Object) -> bool:
    return any(entry["uid"] == other["metadata"]["uid"] for entry in live["metadata"].get("ownerReferences") or [])


def _replica_set(deployment: Object, name: str, template_hash: str) -> Object:
    template = json.loads(json.dumps(deployment["spec"]["template"]))
    template["metadata"].pop("creationTimestamp", None)
    labels = {**template["metadata"].get("labels", {}), _HASH_LABEL: template_hash}
    template["metadata"]["labels"] = labels
    return {
        "metadata": {
            "name": name,
            "namespace": deployment["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner(deployment, DEPLOYMENTS)],
        },
        "spec": {
            "replicas": deployment["spec"].get("replicas", 1),
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def _pods_of(world: World, replica_set: Object) -> list[Object]:
    namespace = replica_set["metadata"]["namespace"]
    return [pod for pod in world.objects(PODS, namespace) if _owned_by(pod, replica_set)]


def _ready(pod: Object) -> bool:
    return any(
        entry["type"] == "Ready" and entry["status"] == "True" for entry in pod.get("status", {}).get("conditions", [])
    ) and not pod["metadata"].get("deletionTimestamp")


def _available(world: World, replica_set: Object | None) -> bool:
    if replica_set is None:
        return False
    ready = [pod for pod in _pods_of(world, replica_set) if _ready(pod)]
    return len(ready) >= int(replica_set["spec"].get("replicas", 1))


def _deployment_status(world: World, deployment: Object, current: str) -> Object:
    """As a rolling update reports it: the Pods of the template before count as available until they go."""
    namespace = deployment["metadata"]["namespace"]
    owned = [live for live in world.objects(REPLICA_SETS, namespace) if _owned_by(live, deployment)]
    pods = {live["metadata"]["name"]: _pods_of(world, live) for live in owned}
    every = [pod for found in pods.values() for pod in found]
    ready, wanted = sum(map(_ready, every)), deployment["spec"].get("replicas", 1)
    done = ready >= wanted
    reason = "MinimumReplicasAvailable" if done else "MinimumReplicasUnavailable"
    text = f"Deployment {'has' if done else 'does not have'} minimum availability."
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": len(every),
        "updatedReplicas": len(pods.get(current, [])),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "conditions": [{**condition(deployment, "Available", done, reason, text)}],
    }


def replica_sets(world: World, _: Mapping[str, str]) -> Iterable[Want | Remove]:
    """As many Pods as each ReplicaSet asks for, with the containers that injection would give them."""
    for live in world.objects(REPLICA_SETS):
        pods = [pod for pod in _pods_of(world, live) if not pod["metadata"].get("deletionTimestamp")]
        wanted = live["spec"].get("replicas", 1)
        for _missing in range(wanted - len(pods)):
            yield Want(PODS, _pod(world, live), CONTROLLERS)
        for pod in pods[wanted:]:
            yield Remove(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])


def _pod(world: World, replica_set: Object) -> Object:
    namespace = replica_set["metadata"]["namespace"]
    template = json.loads(json.dumps(replica_set["spec"]["template"]))
    suffix = "".join(secrets.choice(_LETTERS) for _ in range(5))
    metadata = {
        **{key: template["metadata"][key] for key in ("labels", "annotations") if key in template["metadata"]},
        "name": f"{replica_set['metadata']['name']}-{suffix}",
        "namespace": namespace,
        "ownerReferences": [owner(replica_set, REPLICA_SETS)],
    }
    containers = [
        {"name": one["name"], "image": one.get("image", "stand-in"), **_kept(one)}
        for one in template["spec"]["containers"]
    ]
    spec = {"nodeName": NODE, "containers": containers, **_account(template["spec"])}
    return {"metadata": metadata, "spec": injected(world, namespace, metadata, spec)}


def _account(spec: Object) -> Object:
    return {"serviceAccountName": spec["serviceAccountName"]} if "serviceAccountName" in spec else {}


def _kept(container: Object) -> Object:
    return {key: container[key] for key in ("env", "ports") if key in container}


def injected(world: World, namespace: str, metadata: Object, spec: Object) -> Object:
    """The Pod as the mesh's injection webhook would leave it, at this moment.

    A Pod gets a sidecar only in a namespace that is a member already, and only where it asks for one; the excluded
    ports are those of this moment, too.
    """
    plane = mesh_of(world, namespace)
    asked = (metadata.get("labels") or {}).get("sidecar.istio.io/inject") or (metadata.get("annotations") or {}).get(
        "sidecar.istio.io/inject"
    )
    if plane is None or asked != "true":
        return spec
    override = (metadata.get("annotations") or {}).get("traffic.sidecar.istio.io/excludeInboundPorts")
    ports = override.split(",") if override is not None else [str(port) for port in excluded_ports(plane)]
    arguments = ["istio-iptables", "-p", "15001", "-z", "15006", "-d", ",".join(["15090", "15021", *ports])]
    return {
        **spec,
        "initContainers": [{"name": "istio-init", "image": "stand-in", "args": arguments}],
        "containers": [*spec["containers"], {"name": "istio-proxy", "image": "stand-in"}],
    }


def mesh_of(world: World, namespace: str) -> Object | None:
    """The control plane whose member a namespace is; its own namespace is left out of injection."""
    live = world.get(NAMESPACES, "", namespace)
    labels = (live or {"metadata": {}})["metadata"].get("labels") or {}
    mesh = labels.get(MEMBER_OF)
    if not mesh or mesh == namespace:
        return None
    return next(iter(control_planes(world, mesh)), None)


def node(world: World, _: Mapping[str, str]) -> Iterable[Want | Remove]:
    """What a kubelet reports of the Pods on its node, and the end of those that are being deleted."""
    for pod in world.objects(PODS):
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            yield Remove(PODS, metadata["namespace"], metadata["name"], now=True)
            continue
        problem = _not_ready(world, pod)
        names = [container["name"] for container in pod["spec"]["containers"]]
        status = {
            "phase": "Running",
            "podIP": _address(metadata["uid"]),
            "podIPs": [{"ip": _address(metadata["uid"])}],
            "startTime": pod.get("status", {}).get("startTime") or now(),
            "conditions": [
                condition(pod, "Initialized", True),
                condition(pod, "Ready", not problem, "" if not problem else "ContainersNotReady", problem),
                condition(pod, "ContainersReady", not problem),
                condition(pod, "PodScheduled", True),
            ],
            "containerStatuses": [_container_status(pod, name, not problem) for name in names],
        }
        address = {"name": metadata["name"], "namespace": metadata["namespace"]}
        yield Want(PODS, {"metadata": address, "status": status}, KUBELET)


def _container_status(pod: Object, name: str, ready: bool) -> Object:
    known = {entry["name"]: entry for entry in pod.get("status", {}).get("containerStatuses", [])}
    running = (known.get(name, {}).get("state") or {}).get("running") or {"startedAt": now()}
    return {
        "name": name,
        "ready": ready,
        "started": True,
        "restartCount": 0,
        "image": "stand-in",
        "imageID": "",
        "state": {"running": running},
    }


def _address(uid: str) -> str:
    digest = hashlib.sha256(uid.encode()).digest()
    return f"10.128.{digest[0]}.{1 + digest[1] % 254}"


def _not_ready(world: World, pod: Object) -> str:
    """Under strict mTLS an activator without a sidecar cannot talk to an autoscaler that has one: never ready."""
    namespace, app = pod["metadata"]["namespace"], (pod["metadata"].get("labels") or {}).get("app")
    plane = mesh_of(world, namespace)
    if app != "activator" or plane is None or not mutual_tls(plane):
        return ""
    if any(container["name"] == "istio-proxy" for container in pod["spec"]["containers"]):
        return ""
    return "Websocket connection could not be established"
