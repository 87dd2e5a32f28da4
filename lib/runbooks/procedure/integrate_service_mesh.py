"""What 6.4.3 is: Service Mesh as the only ingress of Knative Serving."""

from __future__ import annotations

from runbooks import manifests, preconditions, readiness
from runbooks.certificates import ROOT_CRT
from runbooks.checks import way_in
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
    SECRET,
    SERVICE,
    ObjectRef,
)
from runbooks.manifests import SERVING_NAMESPACE
from runbooks.parameters import IntegrateServiceMesh
from runbooks.plan import Desired, SharedList
from runbooks.procedure import membership
from runbooks.procedure.section import Awaited, Basis, Erratum, Section, Step
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.versions import OPERATORS_NAMESPACE, SERVERLESS_NAMESPACE

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
        Read(KNATIVE_SERVICE, given.service_namespace, given.service_name),
    ),
    needs=lambda _: (
        preconditions.account_rights,
        preconditions.mesh_operator,
        preconditions.serverless_operator,
        preconditions.control_plane,
        preconditions.mutual_tls,
        preconditions.member_namespaces,
        preconditions.istio_path,
        preconditions.no_other_gateway,
        preconditions.local_gateway_variant,
        preconditions.ingress_domain,
        preconditions.usable_certificate,
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
        ),
        Step(
            id="gateways",
            title="Create the gateways that let traffic in",
            title_ja="サービスメッシュがトラフィックを受け入れることができるように、必要なゲートウェイを作成します。",
            replaces=("oc apply -f gateways.yaml",),
            objects=_gateways,
            checks=(way_in.CERTIFICATE_SERVED,),
        ),
        Step(
            id="knative-serving",
            title="Install Knative Serving with Istio as its ingress",
            title_ja="KnativeServing カスタムリソース定義 (CRD) を作成して Knative Serving をインストールします。",
            replaces=("oc apply -f knative-serving.yaml",),
            objects=lambda _: (Desired(manifests.knative_serving(), shared_lists=(DEPLOYMENTS,)),),
            awaits=_serving_ready,
            checks=(SOLE_INGRESS, SYSTEM_SIDECARS),
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
        ),
    ),
    errata=(
        membership.NOTHING_TAKEN_OUT,
        Erratum(
            said="the complete KnativeServing is applied",
            done="activator and autoscaler are added to spec.deployments, or get what their entries lack",
            reason="the list is replaced as a whole on apply, and with it what 6.4.4, 6.4.6 or others put there",
            versions="every version",
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="knative-local-gateway may use HTTPS on port 443 for every host",
            done="applied where local_gateway: https asks for it, with a warning; the default is HTTP on 8081",
            reason="two Gateways on port 443 for every host: the older wins, and nothing listens on 8081 any more",
            versions="every version; a pre-check of the documentation since 1.31",
            basis=Basis.NEWER,
        ),
    ),
)
