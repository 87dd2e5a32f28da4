"""What 6.4.3 is: Service Mesh as the only ingress of Knative Serving."""

from __future__ import annotations

from runbooks import manifests, preconditions, readiness
from runbooks.certificates import ROOT_CRT
from runbooks.checks import way_in
from runbooks.checks.acceptance import ACCEPTED
from runbooks.checks.membership import MEMBERS_CONFIGURED, membership_rights
from runbooks.checks.sidecars import SERVICE_SIDECAR, SYSTEM_SIDECARS
from runbooks.checks.sole_ingress import SOLE_INGRESS
from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
    CONTROL_PLANE,
    GATEWAY,
    INGRESS_CONFIG,
    KNATIVE_SERVICE,
    KNATIVE_SERVING,
    MEMBER_ROLL,
    NAMESPACE,
    NETWORK_POLICY,
    SECRET,
    SERVICE,
    ObjectRef,
)
from runbooks.manifests import SERVING_NAMESPACE
from runbooks.parameters import IntegrateServiceMesh
from runbooks.plan import Change, Desired, Operation, SharedList
from runbooks.procedure import membership
from runbooks.procedure.section import Awaited, Basis, Erratum, Section, Step, added, of_kind
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.verdicts import few
from runbooks.versions import (
    EVERY_VERSION,
    INJECT_LABEL_FROM,
    OPERATORS_NAMESPACE,
    RESTRUCTURED_FROM,
    SERVERLESS_NAMESPACE,
    Range,
)

DEPLOYMENTS = SharedList(("spec", "deployments"), key="name")


def _gateways(situation: Situation[IntegrateServiceMesh]) -> tuple[Desired, ...]:
    given = situation.parameters
    local = (
        manifests.local_gateway_http()
        if given.local_gateway == "http"
        else manifests.local_gateway_https(given.certificate_secret)
    )
    found = [manifests.ingress_gateway(given.certificate_secret), local]
    found.append(manifests.local_gateway_service(given.mesh_namespace))
    return tuple(Desired(manifest) for manifest in found)


def _knative_service(situation: Situation[IntegrateServiceMesh]) -> tuple[Desired, ...]:
    given = situation.parameters
    manifest = manifests.knative_service(given.service_name, given.service_namespace, given.service_image)
    return (Desired(manifest, brought_by="KnativeServing"),)


def _serving_ready(_: Situation[IntegrateServiceMesh]) -> tuple[Awaited, ...]:
    return (Awaited(ObjectRef(KNATIVE_SERVING, SERVING_NAMESPACE, "knative-serving"), readiness.knative_serving),)


def _service_ready(situation: Situation[IntegrateServiceMesh]) -> tuple[Awaited, ...]:
    given = situation.parameters
    ref = ObjectRef(KNATIVE_SERVICE, given.service_namespace, given.service_name)
    return (Awaited(ref, readiness.knative_service),)


def _let_in(situation: Situation[IntegrateServiceMesh], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows from the Gateways and the local gateway's Service."""
    given = situation.parameters
    said = {
        manifests.INGRESS_GATEWAY: (
            "clients outside of the cluster can reach Knative Services over HTTPS on port 443 of the ingress gateway, "
            f"with the certificate in Secret {given.mesh_namespace}/{given.certificate_secret}; any other "
            "host is answered with 404"
        ),
        manifests.LOCAL_GATEWAY: (
            "clients in the cluster can reach the Knative Services by their cluster-local names, over HTTP on port "
            f"{manifests.LOCAL_GATEWAY_PORT} of the ingress gateway"
            if given.local_gateway == "http"
            else "two Gateways claim port 443 for every host: the older one wins, and nothing listens on port "
            f"{manifests.LOCAL_GATEWAY_PORT}, to which the cluster-local names lead"
        ),
    }
    gateways = of_kind(changes, GATEWAY)
    new = {Operation.UPDATE: "from then on, with the new values, "}
    found = [f"{one.target}: {new.get(one.operation, '')}{said[one.identity[-1]]}" for one in gateways]
    if of_kind(changes, SERVICE):
        name = f"{manifests.LOCAL_GATEWAY}.{given.mesh_namespace}.svc"
        found.append(f"port 80 of {name} leads to port {manifests.LOCAL_GATEWAY_PORT} of the ingress gateway")
    if gateways:
        found.append("the running ingress gateway takes a Gateway over within seconds; none of its Pods restarts")
    return tuple(found)


def _installed(_: Situation[IntegrateServiceMesh], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows for Knative Serving's own Pods."""
    if any(change.operation is Operation.CREATE for change in changes):
        return (
            (
                f"the operator installs Knative Serving in {SERVING_NAMESPACE}: activator and autoscaler with "
                "sidecars, controller, webhook, and net-istio's controller and webhook; Kourier is not installed"
            ),
            "nothing that runs now is restarted by the installation",
        )
    found = []
    if rolled := _rolled(changes):
        found.append(
            f"the operator rolls the Deployments {few(rolled)}: their Pods are made anew, one after the other; a "
            "Deployment of two replicas, the default, serves on meanwhile"
        )
    if any(item.path.startswith("spec.ingress") for change in changes for item in change.fields):
        found.append("the operator installs net-istio, and Istio becomes the ingress of every Knative Service")
    return (*found, "the Pods of the applications are not restarted by it")


def _rolled(changes: tuple[Change, ...]) -> list[str]:
    """The Deployments whose Pods get other annotations."""
    new = [entry["name"] for entry in added(changes, DEPLOYMENTS)]
    amended = [
        item.path.removeprefix("spec.deployments[").partition("]")[0]
        for change in changes
        for item in change.fields
        if item.path.startswith("spec.deployments[") and not item.path.startswith("spec.deployments[+]")
    ]
    return sorted({*new, *amended})


def _served(situation: Situation[IntegrateServiceMesh], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows for the application and those who call it."""
    given = situation.parameters
    name = f"Knative Service {given.service_namespace}/{given.service_name}"
    host = f"{given.service_name}-{given.service_namespace}.{situation.domain}"
    if any(change.operation is Operation.CREATE for change in changes):
        return (
            (
                f"{name}: clients outside of the cluster can reach it as https://{host}; the router passes TLS through "
                "to the ingress gateway without reading it"
            ),
        )
    fields = [item.path for change in changes for item in change.fields]
    found = []
    if any(path.startswith("spec.template") for path in fields):
        found.append(f"{name} gets a new revision; the present one answers until the new one is ready")
    if any(path.startswith("metadata.annotations") for path in fields):
        found.append(f"{name}: the Route passes TLS through, so its clients see the certificate of the ingress gateway")
    return tuple(found)


INTEGRATE_SERVICE_MESH = Section(
    number="6.4.3",
    stem="6.4.3-integrate-service-mesh",
    title="Integrate Service Mesh with OpenShift Serverless",
    heading_ja="サービスメッシュと OpenShift Serverless の統合",
    changes="member roll, two Gateways, the local gateway's Service, KnativeServing with Istio, and a Knative Service",
    model=IntegrateServiceMesh,
    path="istio",
    reads=lambda given: (
        Read(CLUSTER_SERVICE_VERSION, SERVERLESS_NAMESPACE),
        Read(CLUSTER_SERVICE_VERSION, OPERATORS_NAMESPACE),
        Read(INGRESS_CONFIG, name="cluster"),
        Read(NAMESPACE),
        Read(CONTROL_PLANE, given.mesh_namespace),
        Read(MEMBER_ROLL, given.mesh_namespace),
        Read(SECRET, given.mesh_namespace, given.certificate_secret),
        Read(GATEWAY, otherwise=(SERVING_NAMESPACE, given.mesh_namespace, *given.members)),
        Read(SERVICE, given.mesh_namespace, manifests.LOCAL_GATEWAY),
        Read(KNATIVE_SERVING, SERVING_NAMESPACE),
        Read(NETWORK_POLICY, SERVING_NAMESPACE),
        Read(KNATIVE_SERVICE, given.service_namespace, given.service_name),
    ),
    needs=lambda _: (
        preconditions.account_rights,
        preconditions.mesh_operator,
        preconditions.serverless_operator,
        preconditions.control_plane,
        preconditions.mutual_tls,
        preconditions.member_namespaces,
        preconditions.sole_member_roll,
        preconditions.istio_path,
        preconditions.policies_of_the_mesh,
        preconditions.no_other_gateway,
        preconditions.local_gateway_variant,
        preconditions.ingress_domain,
        preconditions.usable_certificate,
        preconditions.strict_clients,
    ),
    files=(ROOT_CRT,),
    steps=(
        Step(
            id="member-roll",
            title=membership.TITLE,
            title_ja=membership.TITLE_JA,
            replaces=("oc apply -f member-roll.yaml",),
            objects=membership.member_roll,
            awaits=membership.member_roll_ready,
            checks=(MEMBERS_CONFIGURED,),
            rights=membership_rights,
            consequences=membership.joining,
        ),
        Step(
            id="gateways",
            title="Create the gateways that let traffic in",
            title_ja="サービスメッシュがトラフィックを受け入れることができるように、必要なゲートウェイを作成します。",
            replaces=("oc apply -f gateways.yaml",),
            objects=_gateways,
            checks=(way_in.CERTIFICATE_SERVED, ACCEPTED),
            consequences=_let_in,
        ),
        Step(
            id="knative-serving",
            title="Install Knative Serving with Istio as its ingress",
            title_ja="KnativeServing カスタムリソース定義 (CRD) を作成して Knative Serving をインストールします。",
            replaces=("oc apply -f knative-serving.yaml",),
            objects=lambda _: (Desired(manifests.knative_serving(), shared_lists=(DEPLOYMENTS,)),),
            awaits=_serving_ready,
            checks=(SOLE_INGRESS, SYSTEM_SIDECARS),
            consequences=_installed,
        ),
        Step(
            id="knative-service",
            title="Create a Knative Service with a sidecar and a pass-through route",
            title_ja="サイドカー挿入が有効で、パススルールートを使用する Knative サービスを作成します。",
            replaces=(
                "oc apply -f service.yaml",
                "curl --cacert root.crt https://hello-default.apps.openshift.example.com",
            ),
            objects=_knative_service,
            awaits=_service_ready,
            checks=(
                way_in.HOST_COVERED,
                way_in.ROUTE_PASSTHROUGH,
                way_in.HTTPS_ANSWER,
                way_in.REFUSED_WITHOUT_ANCHOR,
                SERVICE_SIDECAR,
                way_in.CLUSTER_LOCAL,
            ),
            consequences=_served,
        ),
    ),
    errata=(
        membership.NOTHING_TAKEN_OUT,
        Erratum(
            said="the complete KnativeServing is applied",
            done="activator and autoscaler are added to spec.deployments, or get what their entries lack",
            reason="the list is replaced as a whole on apply, and with it what 6.4.4, 6.4.6 or others put there",
            versions=EVERY_VERSION,
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="knative-local-gateway may use HTTPS on port 443 for every host",
            done="applied where local_gateway: https asks for it, with a warning; the default is HTTP on 8081",
            reason="two Gateways on port 443 for every host: the older wins, and nothing listens on 8081 any more",
            versions=EVERY_VERSION,
            basis=Basis.NEWER,
            documented=RESTRUCTURED_FROM,
        ),
        Erratum(
            said="the Gateways select istio: ingressgateway, and the local one listens without TLS",
            done="as shown",
            reason=(
                "newer documentation selects knative: ingressgateway, a label that the control plane has to give its "
                "gateway first, and has the local one ask for mTLS; what the page shows is kept, and proven"
            ),
            versions=Range(RESTRUCTURED_FROM),
            basis=Basis.NEWER,
            documented=RESTRUCTURED_FROM,
            kept=True,
        ),
        Erratum(
            said="sidecar.istio.io/inject is an annotation",
            done="as shown",
            reason="newer documentation has a label of that name; Service Mesh 2 takes either, and so do the proofs",
            versions=Range(INJECT_LABEL_FROM),
            basis=Basis.NEWER,
            kept=True,
        ),
    ),
)
