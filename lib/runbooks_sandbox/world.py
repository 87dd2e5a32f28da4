"""What the stand-ins see and do: caches fed by watches, and one loop that looks at everything on any event.

A stand-in is a pure function from the world to what it wants: objects as they should be, and objects that should
go. It keeps no state, so it copes with whatever it finds, as the real operators do.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import urllib3

from runbooks_sandbox.api import Api, ApiError, Object, Resource

_LOG = logging.getLogger(__name__)
_SETTLE_S = 0.01  # events come in bursts
_RETRY_S = 0.3
_LOOK_AGAIN_S = 0.25  # what went wrong, and what no event tells: a fault that is switched, a slow operator's turn

NAMESPACES = Resource("v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("v1", "nodes", "Node", namespaced=False)
CONFIG_MAPS = Resource("v1", "configmaps", "ConfigMap")
PODS = Resource("v1", "pods", "Pod")
SECRETS = Resource("v1", "secrets", "Secret")
SERVICES = Resource("v1", "services", "Service")
SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
DEPLOYMENTS = Resource("apps/v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps/v1", "replicasets", "ReplicaSet")
NETWORK_POLICIES = Resource("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy")
SERVICE_MONITORS = Resource("monitoring.coreos.com/v1", "servicemonitors", "ServiceMonitor")
CRDS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
INGRESS_CONFIGS = Resource("config.openshift.io/v1", "ingresses", "Ingress", namespaced=False)
CONTROL_PLANES = Resource("maistra.io/v2", "servicemeshcontrolplanes", "ServiceMeshControlPlane")
CONTROL_PLANES_V1 = Resource("maistra.io/v1", "servicemeshcontrolplanes", "ServiceMeshControlPlane")
MEMBER_ROLLS = Resource("maistra.io/v1", "servicemeshmemberrolls", "ServiceMeshMemberRoll")
MEMBERS = Resource("maistra.io/v1", "servicemeshmembers", "ServiceMeshMember")
PEER_AUTHENTICATIONS = Resource("security.istio.io/v1beta1", "peerauthentications", "PeerAuthentication")
GATEWAYS = Resource("networking.istio.io/v1alpha3", "gateways", "Gateway")
KNATIVE_SERVINGS = Resource("operator.knative.dev/v1beta1", "knativeservings", "KnativeServing")
KNATIVE_SERVICES = Resource("serving.knative.dev/v1", "services", "Service")
REVISIONS = Resource("serving.knative.dev/v1", "revisions", "Revision")
KNATIVE_INGRESSES = Resource("networking.internal.knative.dev/v1alpha1", "ingresses", "Ingress")
ROUTES = Resource("route.openshift.io/v1", "routes", "Route")

WATCHED = (
    NAMESPACES,
    CONFIG_MAPS,
    PODS,
    SECRETS,
    SERVICES,
    DEPLOYMENTS,
    REPLICA_SETS,
    NETWORK_POLICIES,
    SERVICE_MONITORS,
    CRDS,
    INGRESS_CONFIGS,
    CONTROL_PLANES,
    MEMBER_ROLLS,
    MEMBERS,
    PEER_AUTHENTICATIONS,
    GATEWAYS,
    KNATIVE_SERVINGS,
    KNATIVE_SERVICES,
    REVISIONS,
    KNATIVE_INGRESSES,
    ROUTES,
)


@dataclass(frozen=True)
class Want:
    """An object as a stand-in wants it; its ``status`` goes to the status subresource."""

    resource: Resource
    manifest: Object
    manager: str


@dataclass(frozen=True)
class Remove:
    """An object that a stand-in wants gone; ``now`` without the grace period that a node would need."""

    resource: Resource
    namespace: str
    name: str
    now: bool = False


StandIn = Callable[["World", Mapping[str, str]], Iterable[Want | Remove]]


class World:
    """Caches of everything that the stand-ins look at.

    Args:
        api: the connection to watch with.
        watched: what is looked at.
    """

    def __init__(self, api: Api, watched: Sequence[Resource] = WATCHED) -> None:
        self._api, self.watched = api, tuple(watched)
        self._objects: dict[Resource, dict[tuple[str, str], Object]] = {resource: {} for resource in self.watched}
        self._lock = threading.Lock()
        self._synced = {resource: threading.Event() for resource in self.watched}
        self.changed = threading.Event()
        self.stopped = threading.Event()

    def start(self) -> None:
        """Start one watch for each resource."""
        for resource in self.watched:
            threading.Thread(target=self._follow, args=(resource,), name=f"watch {resource}", daemon=True).start()

    def synced(self) -> bool:
        """Whether every resource that the server knows has been listed."""
        return all(event.is_set() for event in self._synced.values())

    def objects(self, resource: Resource, namespace: str = "") -> list[Object]:
        """All objects of a resource, of one namespace or of all; none of one that is not watched."""
        with self._lock:
            known = self._objects.get(resource, {})
            return [live for (where, _), live in known.items() if not namespace or where == namespace]

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """One object, or None."""
        with self._lock:
            return self._objects[resource].get((namespace, name))

    def remember(self, resource: Resource, live: Object) -> None:
        """Note an answer of the server before its event arrives, so that nothing is written twice."""
        with self._lock:
            self._keep(resource, live)

    def _keep(self, resource: Resource, live: Object) -> None:
        key = (live["metadata"].get("namespace", ""), live["metadata"]["name"])
        known = self._objects[resource].get(key)
        if known is None or _version(live) >= _version(known):
            self._objects[resource][key] = live

    def _follow(self, resource: Resource) -> None:
        while not self.stopped.is_set():
            try:
                self._list_and_watch(resource)
            except ApiError as error:
                if error.status == 404:  # its CRD is not there yet
                    with self._lock:
                        self._objects[resource].clear()
                    self._synced[resource].set()
                elif error.status != 410:
                    _LOG.warning("watching %s: %s", resource, error)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                _LOG.info("watching %s: %s", resource, error)
            except Exception:  # a watch must not end while the sandbox runs: its stand-ins would look at the past
                _LOG.exception("watching %s", resource)
            self.stopped.wait(_RETRY_S)

    def _list_and_watch(self, resource: Resource) -> None:
        path = resource.path()
        answer = self._api.request("GET", path)
        with self._lock:
            self._objects[resource] = {
                (item["metadata"].get("namespace", ""), item["metadata"]["name"]): item for item in answer["items"]
            }
        self._synced[resource].set()
        self.changed.set()
        for event, live in self._api.watch(path, answer["metadata"]["resourceVersion"]):
            if self.stopped.is_set():
                return
            if event == "BOOKMARK":
                continue
            with self._lock:
                if event == "DELETED":
                    self._objects[resource].pop((live["metadata"].get("namespace", ""), live["metadata"]["name"]), None)
                else:
                    self._keep(resource, live)
            self.changed.set()


def _version(live: Object) -> int:
    return int(live["metadata"]["resourceVersion"])


class Loop:
    """Carries out what the stand-ins want, again and again, until they want nothing more.

    Args:
        world: what they see.
        api: the connection to write with.
        stand_ins: the functions, with a name each for the log.
        faults: returns the faults that are switched on, with their values.
        afterwards: what else follows from the world, for example the gateway's files.
    """

    def __init__(
        self,
        world: World,
        api: Api,
        stand_ins: Mapping[str, StandIn],
        faults: Callable[[], Mapping[str, str]],
        afterwards: Callable[[World], None],
    ) -> None:
        self._world, self._api, self._stand_ins, self._faults = world, api, stand_ins, faults
        self._afterwards = afterwards
        self._settled = False  # whether all went well at the last look
        self._applied: dict[tuple[str, str, str, str, bool], str] = {}

    def run(self) -> None:
        """Look whenever something changes, until the world stops."""
        seen: Mapping[str, str] = {}
        while not self._world.stopped.is_set():
            changed = self._world.changed.wait(_LOOK_AGAIN_S)
            try:
                faults = self._faults()
            except OSError as error:
                _LOG.warning("which faults are on: %s", error)
                faults = seen
            if not changed and self._settled and not faults and not seen:
                continue  # nothing happened, and nothing is due
            self._world.changed.clear()
            self._world.stopped.wait(_SETTLE_S)
            seen, self._settled = faults, True
            for name, stand_in in self._stand_ins.items():
                try:
                    self._carry_out(stand_in, faults)
                except Exception:  # a stand-in that stumbles must not take the others down; its log says why
                    self._settled = False
                    _LOG.exception("stand-in %s", name)
            try:
                self._afterwards(self._world)
            except Exception:  # nor must the gateway: what it stumbles over, a full disk or an odd object, may go again
                self._settled = False
                _LOG.exception("writing the gateway's files")

    def _carry_out(self, stand_in: StandIn, faults: Mapping[str, str]) -> None:
        for intent in list(stand_in(self._world, faults)):
            if self._world.stopped.is_set():
                return
            try:
                if isinstance(intent, Remove):
                    self._api.delete(intent.resource, intent.namespace, intent.name, now=intent.now)
                else:
                    self._want(intent)
            except ApiError as error:
                self._settled = False  # a conflict or a missing CRD settles itself with the next look
                _LOG.info("%s %s: %s", intent.resource, intent, error)
            except urllib3.exceptions.HTTPError as error:
                self._settled = False
                _LOG.info("%s: %s", intent.resource, error)
                return

    def _want(self, want: Want) -> None:
        body = {"apiVersion": want.resource.api_version, "kind": want.resource.kind, **want.manifest}
        status = body.pop("status", None)
        if status is None or len(body) > _ADDRESSED or body["metadata"] != _address(body["metadata"]):
            self._apply(want, body, status=False)  # a status alone must not bring back what somebody has just deleted
        if status is not None:
            self._apply(want, {**body, "metadata": _address(body["metadata"]), "status": status}, status=True)

    def _apply(self, want: Want, manifest: Object, *, status: bool) -> None:
        metadata = manifest["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        live = self._world.get(want.resource, namespace, name)
        if status and live is None:
            return
        content = {"status": manifest["status"]} if status else {k: v for k, v in manifest.items() if k != "status"}
        digest = json.dumps(content, sort_keys=True)
        key = (want.manager, repr(want.resource), namespace, name, status)
        if live is not None and self._applied.get(key) == digest and within(content, live):
            return
        answer = self._api.apply(
            {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": metadata, **content},
            want.resource,
            want.manager,
            status=status,
        )
        self._applied[key] = digest
        self._world.remember(want.resource, answer)


_ADDRESSED = 3  # apiVersion, kind and metadata


def _address(metadata: Object) -> Object:
    return {key: metadata[key] for key in ("name", "namespace") if key in metadata}


def within(wanted: Any, live: Any) -> bool:
    """Whether everything that is wanted is in the live value."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(key in live and within(value, live[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(wanted) == len(live)
            and all(within(value, there) for value, there in zip(wanted, live, strict=True))
        )
    return bool(wanted == live)


# --- words that several stand-ins use ----------------------------------------------------------------------------


def now() -> str:
    """The present time as Kubernetes writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(live: Object | None, name: str, status: bool | None, reason: str = "", message: str = "") -> Object:
    """A condition; its transition time moves only when its status does."""
    text = {True: "True", False: "False", None: "Unknown"}[status]
    entry = {"type": name, "status": text, "lastTransitionTime": now()}
    for known in (live or {}).get("status", {}).get("conditions", []):
        if known.get("type") == name and known.get("status") == text:
            entry["lastTransitionTime"] = known.get("lastTransitionTime", entry["lastTransitionTime"])
    if reason:
        entry["reason"] = reason
    if message:
        entry["message"] = message
    return entry


def owner(live: Object, kind: Resource) -> Object:
    """The owner reference to a live object."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": live["metadata"]["name"],
        "uid": live["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_true(live: Object | None, name: str) -> bool:
    """Whether a condition of an object is True, for its present generation."""
    if live is None:
        return False
    status = live.get("status", {})
    if status.get("observedGeneration", live["metadata"].get("generation", 0)) < live["metadata"].get("generation", 0):
        return False
    return any(entry.get("type") == name and entry.get("status") == "True" for entry in status.get("conditions", []))


def control_planes(world: World, mesh: str = "") -> list[Object]:
    """The control planes of a namespace or of all, in the version of their API that the mesh of this cluster serves."""
    return [*world.objects(CONTROL_PLANES, mesh), *world.objects(CONTROL_PLANES_V1, mesh)]


def members_of(world: World, mesh: str) -> set[str]:
    """The namespaces that carry the label of a mesh."""
    return {
        live["metadata"]["name"]
        for live in world.objects(NAMESPACES)
        if (live["metadata"].get("labels") or {}).get("maistra.io/member-of") == mesh
    }


def garbage(world: World, _: Mapping[str, str]) -> Iterable[Remove]:
    """Stand-in for the garbage collector: what belongs to an object that is gone goes too."""
    uids = {live["metadata"]["uid"] for resource in world.watched for live in world.objects(resource)}
    for resource in world.watched:
        for live in world.objects(resource):
            owners = live["metadata"].get("ownerReferences") or []
            if owners and not any(reference["uid"] in uids for reference in owners):
                if not live["metadata"].get("deletionTimestamp"):
                    yield Remove(resource, live["metadata"].get("namespace", ""), live["metadata"]["name"])
