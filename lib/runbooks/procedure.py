"""The documented procedure as data: what each section *is*. Reading this file, a person sees what 6.4.3 does.

A section names its preconditions, and its steps in the documented order. A step names the objects that it leaves
behind, what the cluster must report before the next step, and the effects that prove it. Nothing here does anything:
``step`` carries a section out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from runbooks import checks, issuance, manifests, preconditions, readiness
from runbooks.certificates import LEAF_CRT, LEAF_CSR, LEAF_KEY, ROOT_CRT, ROOT_KEY
from runbooks.checks import Check, all_members
from runbooks.issuance import Issuance, NewFile
from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
    CLUSTER_VERSION,
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
from runbooks.manifests import MEMBER_ROLL_NAME, SERVING_NAMESPACE
from runbooks.parameters import CreateIngressCertificates, IntegrateServiceMesh, Parameters
from runbooks.plan import Desired, DesiredFile, SharedList
from runbooks.preconditions import Need
from runbooks.readiness import State
from runbooks.rights import Right
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.versions import OPERATORS_NAMESPACE, SERVERLESS_NAMESPACE

MEMBERS = SharedList(("spec", "members"))
DEPLOYMENTS = SharedList(("spec", "deployments"), key="name")


class Basis(StrEnum):
    """Where the better form of an erratum is written down."""

    DOCUMENTED = "documented elsewhere on the page"
    NEWER = "documented in newer versions"
    STANDARD = "a standard outside the product"
    UNDOCUMENTED = "not documented"


@dataclass(frozen=True)
class Erratum:
    """Where the documented text is wrong, stale or contradicts itself, and what the runbook does instead.

    Args:
        said: what the text says.
        done: what the runbook does.
        reason: why.
        versions: for which versions the erratum holds.
        basis: where the better form is written down; ``strict_documentation`` turns the undocumented ones off.
    """

    said: str
    done: str
    reason: str
    versions: str
    basis: Basis


@dataclass(frozen=True)
class Awaited:
    """An object that the cluster must report as ready before the next step."""

    ref: ObjectRef
    judge: Callable[[Live | None], State]


@dataclass(frozen=True)
class Step:
    """One documented step, or a few that make sense only together.

    Args:
        id: as the notebook's cells name it: ``apply-<id>``, ``wait-<id>``, ``prove-<id>``.
        title: what it does.
        title_ja: the documented step's own words.
        replaces: the commands that it stands for.
        objects: what it leaves behind.
        awaits: what must be ready before the next step.
        checks: the effects that prove it.
    """

    id: str
    title: str
    title_ja: str
    replaces: tuple[str, ...]
    objects: Callable[[Situation[Any]], tuple[Desired | DesiredFile, ...]]
    awaits: Callable[[Situation[Any]], tuple[Awaited, ...]] | None = None
    checks: tuple[Check, ...] = ()

    def awaited(self, situation: Situation[Any]) -> tuple[Awaited, ...]:
        """The objects that must be ready in this situation."""
        return self.awaits(situation) if self.awaits else ()


@dataclass(frozen=True)
class Section:
    """One documented section, which is one runbook.

    Args:
        number: as documented.
        stem: the notebook's file name without its ending.
        title: what it does.
        heading_ja: the documented heading.
        changes: what it changes, in one sentence.
        model: its parameters.
        path: the ingress that it is for, or both.
        reads: what it reads of the cluster besides what its steps need.
        needs: its preconditions.
        steps: in an order that works.
        errata: where it differs from the text, and why.
        files: the certificate files that it looks at.
        prepare: what it makes in memory before the plan.
        waiting: what must happen elsewhere, given what was prepared.
    """

    number: str
    stem: str
    title: str
    heading_ja: str
    changes: str
    model: type[Parameters]
    path: Literal["both", "istio", "kourier"]
    reads: Callable[[Any], tuple[Read, ...]]
    needs: tuple[Need, ...]
    steps: tuple[Step, ...]
    errata: tuple[Erratum, ...] = ()
    files: tuple[str, ...] = ()
    prepare: Callable[[Situation[Any]], Any] = lambda _: None
    waiting: Callable[[Situation[Any]], str] = lambda _: ""

    @property
    def field_manager(self) -> str:
        """The name under which its objects are applied; one for each section, so that none undoes another's work."""
        return f"runbooks-{self.number}"

    def step(self, step_id: str) -> Step:
        """The step of an id.

        Raises:
            KeyError: there is none; the notebook and this file disagree.
        """
        return {step.id: step for step in self.steps}[step_id]

    def all_reads(self, parameters: Parameters) -> tuple[Read, ...]:
        """Every list request of the section: its own, its objects', and its checks'."""
        reads = list(self.reads(parameters))
        for step in self.steps:
            for check in step.checks:
                reads += check.all_reads(parameters)
        return tuple(dict.fromkeys(reads))


# --- 6.4.2 -------------------------------------------------------------------------------------------------------


def _folder_file(situation: Situation[CreateIngressCertificates], *names: str) -> tuple[DesiredFile, ...]:
    """The named files as the issuance wants them: new ones with their content, present ones as they are."""
    folder, issued = situation.parameters.certificates_dir, situation.prepared
    new = issued.files if isinstance(issued, Issuance) else {}
    found = []
    for name in names:
        if name in new or name in situation.files:
            file = new.get(name) or NewFile(b"", None)
            content = file.content if name in new else None
            found.append(DesiredFile(f"{folder}/{name}", content, file.shown, name in situation.files))
    return tuple(found)


def _certificate_secret(situation: Situation[CreateIngressCertificates]) -> tuple[Desired, ...]:
    given, issued = situation.parameters, situation.prepared
    if isinstance(issued, Issuance) and issued.served is None:
        return ()  # it stays as it is, or it waits for the CA
    pair = issued.served if isinstance(issued, Issuance) else None
    chain, key = (pair.chain, pair.key) if pair else (b"", b"")
    shown = issued.shown if isinstance(issued, Issuance) else {}
    manifest = manifests.tls_secret(given.certificate_secret, given.mesh_namespace, chain, key)
    return (Desired(manifest, shown=shown),)


CREATE_INGRESS_CERTIFICATES = Section(
    number="6.4.2",
    stem="6.4.2-create-ingress-certificates",
    title="Create the certificates that encrypt incoming traffic",
    heading_ja="着信外部トラフィックを暗号化する証明書の作成",
    changes="root and wildcard certificate in certificates_dir, and the TLS Secret of the ingress gateway",
    model=CreateIngressCertificates,
    path="both",
    reads=lambda given: (
        Read(INGRESS_CONFIG, name="cluster"),
        Read(NAMESPACE),
        Read(SECRET, given.mesh_namespace, given.certificate_secret),
    ),
    needs=(
        preconditions.account_rights,
        preconditions.mesh_namespace,
        preconditions.ingress_domain,
        preconditions.certificate_material,
    ),
    files=issuance.FOLDER_FILES,
    prepare=lambda situation: issuance.prepare(situation) if situation.domain else None,
    waiting=lambda situation: situation.prepared.waiting if isinstance(situation.prepared, Issuance) else "",
    steps=(
        Step(
            id="root",
            title="Create the root certificate and its key",
            title_ja="Knative サービスの証明書に署名する root 証明書と秘密鍵を作成します。",
            replaces=(
                (
                    "openssl req -x509 -sha256 -nodes -days 365 -newkey rsa:2048 "
                    "-subj '/O=Example Inc./CN=example.com' -keyout root.key -out root.crt"
                ),
            ),
            objects=lambda situation: _folder_file(situation, ROOT_KEY, ROOT_CRT),
            checks=(checks.ROOT_ON_DISK,),
        ),
        Step(
            id="wildcard",
            title="Create and sign the wildcard certificate",
            title_ja="ワイルドカード証明書を作成します。ワイルドカード証明書を署名します。",
            replaces=(
                (
                    'openssl req -nodes -newkey rsa:2048 -subj "/CN=*.apps.openshift.example.com/O=Example Inc." '
                    "-keyout wildcard.key -out wildcard.csr"
                ),
                (
                    "openssl x509 -req -days 365 -set_serial 0 -CA root.crt -CAkey root.key -in wildcard.csr "
                    "-out wildcard.crt"
                ),
            ),
            objects=lambda situation: _folder_file(situation, LEAF_KEY, LEAF_CSR, LEAF_CRT),
            checks=(checks.LEAF_ON_DISK,),
        ),
        Step(
            id="secret",
            title="Create the Secret from which the ingress gateway serves",
            title_ja="ワイルドカード証明書を使用してシークレットを作成します。",
            replaces=("oc create -n istio-system secret tls wildcard-certs --key=wildcard.key --cert=wildcard.crt",),
            objects=_certificate_secret,
            awaits=lambda situation: tuple(
                Awaited(desired.ref, readiness.exists) for desired in _certificate_secret(situation)
            ),
            checks=(checks.SECRET_SERVES,),
        ),
    ),
    errata=(
        Erratum(
            said="the wildcard certificate carries its name in the common name only",
            done="the name also stands in the subject alternative name",
            reason="curl still falls back to the common name; Go, browsers and Python's urllib3 refuse it",
            versions="every version",
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="openssl x509 -set_serial 0, which makes an X.509 v1 certificate with the serial number 0",
            done="X.509 v3 with a random serial number and key usages; the root says that it may sign",
            reason="RFC 5280 forbids the serial number 0, and Python 3.13 refuses a root without key usage",
            versions="every version",
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="root and wildcard certificate are both valid for 365 days",
            done="root_valid_days and valid_days are separate, and a leaf never outlives its root",
            reason="a renewed leaf would outlive the root, and every client would refuse it from that day on",
            versions="every version",
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="Knative Serving has to be installed already",
            done="not asked for",
            reason="6.4.3 asks that it is not installed yet, and the Secret needs the mesh namespace only",
            versions="every version",
            basis=Basis.DOCUMENTED,
        ),
    ),
)


# --- 6.4.3 -------------------------------------------------------------------------------------------------------


def _member_roll(situation: Situation[IntegrateServiceMesh]) -> tuple[Desired, ...]:
    given = situation.parameters
    return (Desired(manifests.member_roll(given.mesh_namespace, all_members(given)), shared_lists=(MEMBERS,)),)


def _member_roll_ready(situation: Situation[IntegrateServiceMesh]) -> tuple[Awaited, ...]:
    given = situation.parameters
    ref = ObjectRef(MEMBER_ROLL, given.mesh_namespace, MEMBER_ROLL_NAME)
    return (Awaited(ref, lambda live: readiness.member_roll(live, all_members(given))),)


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
    needs=(
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
            title="Add the namespaces to the mesh",
            title_ja=(
                "サービスメッシュと統合する必要のある namespace をメンバーとして "
                "ServiceMeshMemberRoll オブジェクトに追加します。"
            ),
            replaces=("oc apply -f member-roll.yaml",),
            objects=_member_roll,
            awaits=_member_roll_ready,
            checks=(checks.MEMBERS_CONFIGURED,),
        ),
        Step(
            id="gateways",
            title="Create the gateways that let traffic in",
            title_ja="サービスメッシュがトラフィックを受け入れることができるように、必要なゲートウェイを作成します。",
            replaces=("oc apply -f gateways.yaml",),
            objects=_gateways,
            checks=(checks.CERTIFICATE_SERVED,),
        ),
        Step(
            id="knative-serving",
            title="Install Knative Serving with Istio as its ingress",
            title_ja="KnativeServing カスタムリソース定義 (CRD) を作成して Knative Serving をインストールします。",
            replaces=("oc apply -f knative-serving.yaml",),
            objects=lambda _: (Desired(manifests.knative_serving(), shared_lists=(DEPLOYMENTS,)),),
            awaits=_serving_ready,
            checks=(checks.SOLE_INGRESS, checks.SYSTEM_SIDECARS),
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
                checks.HOST_COVERED,
                checks.ROUTE_PASSTHROUGH,
                checks.HTTPS_ANSWER,
                checks.REFUSED_WITHOUT_ANCHOR,
                checks.SERVICE_SIDECAR,
                checks.CLUSTER_LOCAL,
            ),
        ),
    ),
    errata=(
        Erratum(
            said="the complete member roll is applied",
            done="missing members are added one by one, and nothing is taken out",
            reason="the list is replaced as a whole on apply: other teams' namespaces would fall out of the mesh",
            versions="every version",
            basis=Basis.STANDARD,
        ),
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


SECTIONS: dict[str, Section] = {
    section.number: section for section in (CREATE_INGRESS_CERTIFICATES, INTEGRATE_SERVICE_MESH)
}


def section_of(name: str) -> Section | None:
    """The section of a documented number or a notebook's stem, or None where there is none."""
    for section in SECTIONS.values():
        if name in (section.number, section.stem, f"{section.stem}.ipynb"):
            return section
    return None


def path_of(ingress: str) -> tuple[Section, ...]:
    """All sections of the Istio or the Kourier path, in their order."""
    return tuple(section for section in SECTIONS.values() if section.path in ("both", ingress))


# --- rights ------------------------------------------------------------------------------------------------------

_WRITE_VERBS = ("get", "create", "patch")


def rights_to_read(section: Section, parameters: Parameters) -> tuple[Right, ...]:
    """What verify needs: one list for each read, and the cluster's own id.

    The cluster-local proof needs ``create pods/portforward`` besides; without it that effect is "not proven".
    """
    found = {Right.on(read.kind, "list", read.namespace, read.name) for read in section.all_reads(parameters)}
    return tuple(sorted(found | {Right.on(CLUSTER_VERSION, "get", name="version")}))


def rights_to_write(section: Section, situation: Situation[Any]) -> tuple[Right, ...]:
    """What plan (with the server's opinion) and apply need besides.

    A create by server-side apply is authorised with the object's name, so the right may be bound to it.
    """
    found = set()
    for step in section.steps:
        for desired in step.objects(situation):
            if isinstance(desired, Desired):
                ref = desired.ref
                verbs = _WRITE_VERBS if not desired.amend else ("get", "patch")
                found |= {Right.on(ref.kind, verb, ref.namespace, ref.name) for verb in verbs}
        found |= {
            Right.on(awaited.ref.kind, "get", awaited.ref.namespace, awaited.ref.name)
            for awaited in step.awaited(situation)
        }
    if MEMBER_ROLL in {read.kind for read in section.all_reads(situation.parameters)}:
        found |= _member_rights(situation)
    return tuple(sorted(found))


def _member_rights(situation: Situation[Any]) -> set[Right]:
    """The mesh's own webhook asks for update on Pods in each namespace that joins."""
    return {Right("", "pods", "update", member) for member in all_members(situation.parameters)}
