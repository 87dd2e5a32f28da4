"""What 6.4.4 is: Knative Serving's metrics although the mesh insists on mTLS."""

from __future__ import annotations

from runbooks import manifests, preconditions, readiness
from runbooks.checks import serving_metrics as checks
from runbooks.checks.sidecars import app_of
from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
    CONTROL_PLANE,
    KNATIVE_SERVING,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    ObjectRef,
)
from runbooks.manifests import METRICS_PORT, MONITORING_POLICY, SERVING_NAMESPACE, UNKNOWN_NAME
from runbooks.network_policies import Peer, admitted
from runbooks.parameters import EnableServingMetrics
from runbooks.plan import Change, Desired, DesiredRestart, Operation, SharedList
from runbooks.procedure.section import Awaited, Basis, Erratum, Section, Step
from runbooks.rights import Right
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import few
from runbooks.versions import (
    EVERY_VERSION,
    METRICS_KEYS_RENAMED_FROM,
    OPERATORS_NAMESPACE,
    POLICIES_OPT_OUT_FROM,
    RESTRUCTURED_FROM,
    SERVERLESS_NAMESPACE,
    Range,
)

EXCLUDED_PORTS = SharedList(("spec", "proxy", "networking", "trafficControl", "inbound", "excludedPorts"))

_MONITORING_LABEL = Erratum(
    said="the monitoring namespace is recognised by its label name",
    done="by kubernetes.io/metadata.name where it has no such label",
    reason="the label name is there on OpenShift only, the other one on every namespace since Kubernetes 1.21",
    versions=EVERY_VERSION,
    basis=Basis.UNDOCUMENTED,
)
_RENAMED_KEYS = Erratum(
    said="the key metrics.backend-destination",
    done="metrics-protocol and request-metrics-protocol in its place",
    reason="Knative Serving 1.19 ignores the old key, and metrics stay off without a word",
    versions=Range(METRICS_KEYS_RENAMED_FROM),
    basis=Basis.UNDOCUMENTED,
)


def _plane(situation: Situation[EnableServingMetrics]) -> str:
    """The name of the control plane; there is one for each mesh namespace."""
    planes = situation.snapshot.objects(CONTROL_PLANE, situation.parameters.mesh_namespace)
    return str(planes[0]["metadata"]["name"]) if planes else UNKNOWN_NAME


def _excluded_port(situation: Situation[EnableServingMetrics]) -> tuple[Desired, ...]:
    manifest = manifests.excluded_port(_plane(situation), situation.parameters.mesh_namespace)
    return (Desired(manifest, shared_lists=(EXCLUDED_PORTS,), amend=True),)


def _plane_ready(situation: Situation[EnableServingMetrics]) -> tuple[Awaited, ...]:
    ref = ObjectRef(CONTROL_PLANE, situation.parameters.mesh_namespace, _plane(situation))
    return (Awaited(ref, readiness.control_plane),)


def _backend(situation: Situation[EnableServingMetrics]) -> tuple[Desired, ...]:
    settings = situation.profile.observability(strict=not _RENAMED_KEYS.in_force(situation))
    return (Desired(manifests.metrics_backend(settings), amend=True),)


def _serving_ready(_: Situation[EnableServingMetrics]) -> tuple[Awaited, ...]:
    return (Awaited(ObjectRef(KNATIVE_SERVING, SERVING_NAMESPACE, "knative-serving"), readiness.knative_serving),)


def _monitoring_policy(situation: Situation[EnableServingMetrics]) -> tuple[Desired, ...]:
    """The page's policy; where the operator's own of that name lets Prometheus in already, that one stays."""
    name, peer = situation.parameters.monitoring_namespace, checks.prometheus(situation)
    labelled = peer is None or peer.namespace_labels.get("name") == name
    by_name = labelled or not _MONITORING_LABEL.in_force(situation)
    label = "name" if by_name else "kubernetes.io/metadata.name"
    manifest = manifests.monitoring_policy(name, label)
    live = situation.snapshot.get(NETWORK_POLICY, SERVING_NAMESPACE, MONITORING_POLICY)
    owner = _owner(live)
    if live and owner and peer and _lets_in(live, peer):
        return (Desired(manifest, provided_by=owner),)
    return (Desired(manifest),)


def _owner(live: Live | None) -> str:
    references = (live or {"metadata": {}})["metadata"].get("ownerReferences") or []
    return f"the operator, for {references[0]['kind']} {references[0]['name']}" if references else ""


def _lets_in(policy: Live, peer: Peer) -> bool:
    return admitted([policy], SERVING_NAMESPACE, {}, peer, METRICS_PORT)


def _restarts(situation: Situation[EnableServingMetrics]) -> tuple[DesiredRestart, ...]:
    if not situation.parameters.restart_pods:
        return ()
    return tuple(
        DesiredRestart(
            ObjectRef(POD, SERVING_NAMESPACE, pod["metadata"]["name"]),
            pod["metadata"]["uid"],
            app_of(pod),
            "inbound ports that its sidecar leaves alone",
            ports,
            f"with {METRICS_PORT}",
        )
        for pod, ports in checks.outdated(situation.snapshot.objects(POD, SERVING_NAMESPACE))
    )


def _restart_rights(given: EnableServingMetrics) -> tuple[Right, ...]:
    wanted = (Right("", "pods", "get", SERVING_NAMESPACE), Right("", "pods/eviction", "create", SERVING_NAMESPACE))
    return wanted if given.restart_pods else ()


def _sidecars_leave_it(situation: Situation[EnableServingMetrics], _: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows from the excluded port."""
    old = len(checks.outdated(situation.snapshot.objects(POD, SERVING_NAMESPACE)))
    found = [
        (
            f"sidecars made from then on leave port {METRICS_PORT} alone; those made before keep the present setting "
            "until their Pods restart, and the change itself restarts none"
        ),
        (
            f"port {METRICS_PORT} of every such Pod in the mesh is open without mTLS to whoever NetworkPolicies let "
            "in; all other ports, and those excluded already, stay as they are"
        ),
    ]
    if old and not situation.parameters.restart_pods:
        found.append(
            f"Pods in {SERVING_NAMESPACE} with the present setting: {old}; they keep Prometheus out until then"
        )
    return tuple(found)


def _metrics_on(_: Situation[EnableServingMetrics], __: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows from switching the metrics on."""
    return (
        (
            "the operator rolls activator, autoscaler, autoscaler-hpa, controller and webhook, each of which gets a "
            f"container that serves metrics on port {METRICS_PORT}: their Pods are made anew, one after the other; a "
            "Deployment of two replicas, the default, serves on meanwhile"
        ),
        f"the operator labels {SERVING_NAMESPACE} for monitoring, and adds a Service and a ServiceMonitor for each",
        "the Pods of the applications are not restarted by it",
    )


def _scraped(situation: Situation[EnableServingMetrics], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows from the NetworkPolicy."""
    others = "what other NetworkPolicies let in stays"
    first = not situation.snapshot.objects(NETWORK_POLICY, SERVING_NAMESPACE)
    if first and not situation.snapshot.unreadable(NETWORK_POLICY):
        others = "it is the first NetworkPolicy there, so everybody else is kept out from then on"
    found = [
        (
            f"every Pod of {situation.parameters.monitoring_namespace} can reach every Pod in {SERVING_NAMESPACE} on "
            f"every port; {others}"
        )
    ]
    if any(change.operation is Operation.UPDATE for change in changes):
        found.append(f"whoever only the present rules of {MONITORING_POLICY} let in is kept out")
    return tuple(found)


def _evicted(situation: Situation[EnableServingMetrics], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows from the restarts."""
    running = [app_of(pod) for pod in readiness.running(situation.snapshot.objects(POD, SERVING_NAMESPACE))]
    alone = sorted({change.identity[-1] for change in changes if running.count(change.identity[-1]) == 1})
    pods = "1 Pod is" if len(changes) == 1 else f"{len(changes)} Pods are"
    found = [
        (
            f"{pods} evicted, one at a time, the next one when a new one is ready in its place; a PodDisruptionBudget "
            "is respected"
        ),
    ]
    if alone:
        found.append(f"{few(alone)}: it has one Pod, so it serves nothing until the new one is ready")
    return tuple(found)


def _inapplicable(situation: Situation[EnableServingMetrics]) -> str:
    planes = situation.snapshot.objects(CONTROL_PLANE, situation.parameters.mesh_namespace)
    if not planes or preconditions.mutual_tls_on(planes[0]):
        return ""
    name = f"{situation.parameters.mesh_namespace}/{planes[0]['metadata']['name']}"
    return f"mTLS is off in ServiceMeshControlPlane {name}, so the mesh keeps no metrics from Prometheus"


ENABLE_SERVING_METRICS = Section(
    number="6.4.4",
    stem="6.4.4-enable-serving-metrics",
    title="Enable Knative Serving metrics when the mesh uses mTLS",
    heading_ja="mTLS で Service Mesh を使用する場合の Knative Serving メトリクスの有効化",
    changes="excluded port 8444 of the control plane, metrics key of KnativeServing, a NetworkPolicy for monitoring",
    model=EnableServingMetrics,
    path="istio",
    reads=lambda given: (
        Read(CLUSTER_SERVICE_VERSION, SERVERLESS_NAMESPACE),
        Read(CLUSTER_SERVICE_VERSION, OPERATORS_NAMESPACE),
        Read(NAMESPACE),
        Read(CONTROL_PLANE, given.mesh_namespace),
        Read(KNATIVE_SERVING, SERVING_NAMESPACE),
        Read(NETWORK_POLICY, SERVING_NAMESPACE),
        Read(POD, SERVING_NAMESPACE),
    ),
    needs=lambda _: (
        preconditions.account_rights,
        preconditions.serverless_operator,
        preconditions.mesh_operator,
        preconditions.control_plane,
        preconditions.mutual_tls,
        preconditions.serving_with_istio,
        preconditions.monitoring_namespace,
        preconditions.drain_port,
    ),
    inapplicable=_inapplicable,
    steps=(
        Step(
            id="exclude-port",
            title="Let the sidecars leave port 8444 alone",
            title_ja=(
                "istio-system namespace のデフォルトのサービスメッシュコントロールプレーンを変更して再適用し、"
                "以下の仕様が含まれるようにします。"
            ),
            replaces=("oc apply -f control-plane.yaml",),
            objects=_excluded_port,
            awaits=_plane_ready,
            consequences=_sidecars_leave_it,
        ),
        Step(
            id="set-backend",
            title="Switch the metrics of Knative Serving on",
            title_ja=(
                "prometheus を Knative Serving カスタムリソース (CR) の observability 仕様で "
                "metrics.backend-destination として指定します。"
            ),
            replaces=("oc apply -f knative-serving.yaml",),
            objects=_backend,
            awaits=_serving_ready,
            checks=(checks.EFFECTIVE_BACKEND, checks.SERVICE_MONITORS),
            consequences=_metrics_on,
        ),
        Step(
            id="allow-scraping",
            title="Let the monitoring namespace in",
            title_ja="以下のネットワークポリシーを適用して、Prometheus namespace からのトラフィックを許可します。",
            replaces=("oc apply -f network-policy.yaml",),
            objects=_monitoring_policy,
            checks=(checks.MONITORING_ADMITTED,),
            consequences=_scraped,
        ),
        Step(
            id="restart-pods",
            title="Replace the Pods that were made before the exclusion",
            title_ja="(ページには記載がありません: 除外ポートは Pod の作成時に決まります。)",
            replaces=("oc delete pod <activator and autoscaler> -n knative-serving",),
            objects=_restarts,
            checks=(checks.PORT_EXCLUDED_IN_PODS,),
            rights=_restart_rights,
            consequences=_evicted,
        ),
    ),
    errata=(
        Erratum(
            said="first the metrics backend, then the NetworkPolicy, last the excluded port",
            done="first the excluded port",
            reason=(
                "the backend makes the operator replace activator and autoscaler; Pods made before the exclusion keep "
                "Prometheus out until they are replaced once more"
            ),
            versions=EVERY_VERSION,
            basis=Basis.NEWER,
            documented=RESTRUCTURED_FROM,  # which excludes it when the control plane is made
        ),
        Erratum(
            said="the complete control plane is changed and applied again",
            done="8444 is added to excludedPorts, and nothing is taken out",
            reason="the list is replaced as a whole on apply, and other teams may exclude ports too",
            versions=EVERY_VERSION,
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="the KnativeServing of the example names no namespace and no ingress",
            done="one key is set in the KnativeServing that there is",
            reason="applied as shown, it would take Istio and everything else out of it",
            versions=EVERY_VERSION,
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="a NetworkPolicy allow-from-openshift-monitoring-ns has to be created",
            done="the operator's own of that name is recognised and left alone, and the page's is created without one",
            reason="the Serverless operator keeps it where Istio is the ingress, and would take back what is changed",
            versions=EVERY_VERSION,
            basis=Basis.NEWER,
            documented=POLICIES_OPT_OUT_FROM,  # which says how to have none
        ),
        _MONITORING_LABEL,
        _RENAMED_KEYS,
    ),
)
