"""Preconditions: a situation, one function, one verdict."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from runbooks import preconditions
from runbooks.certificates import ROOT_CRT, Pair, Rules
from runbooks.errors import CertificateError, Forbidden, NotServed, ServerRefused
from runbooks.issuance import Issuance
from runbooks.kinds import (
    AUTHORIZATION_POLICY,
    CLUSTER_SERVICE_VERSION,
    CONFIG_MAP,
    CONTROL_PLANE,
    CONTROL_PLANE_V1,
    DOMAIN_MAPPING,
    GATEWAY,
    INGRESS_CONFIG,
    KNATIVE_SERVICE,
    KNATIVE_SERVING,
    MEMBER_ROLL,
    MUTATING_WEBHOOK,
    NAMESPACE,
    NETWORK_POLICY,
    SECRET,
    VALIDATING_WEBHOOK,
    Kind,
)
from runbooks.manifests import INJECT, PASSTHROUGH, REWRITE_PROBES
from runbooks.rights import Right
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.verdicts import Finding, Verdict

MET, WARNING, COMES, NOT_MET, UNKNOWN = (
    Verdict.MET,
    Verdict.WARNING,
    Verdict.COMES,
    Verdict.NOT_MET,
    Verdict.UNKNOWN,
)

Situate = Callable[..., Situation[Any]]
Csv = Callable[..., Live]
TlsSecret = Callable[..., Live]

FORBIDDEN = Forbidden("listing", "it is forbidden", status=403)
ABSENT = NotServed("listing", "the server could not find the requested resource", status=404)
BROKEN = ServerRefused("listing", "etcd is away", status=500)


def judged(finding: Finding) -> tuple[Verdict, str]:
    """How it came out; what is not met or could not be told always comes with something to do."""
    assert finding.title
    assert finding.remedy or finding.verdict in (MET, WARNING)
    return finding.verdict, finding.said


def namespace(name: str, **metadata: str) -> Live:
    return {"metadata": {"name": name, **metadata}}


def plane(mtls: bool | None = None, ready: str = "True") -> Live:
    spec = {} if mtls is None else {"security": {"dataPlane": {"mtls": mtls}}}
    reconciled = {"type": "Reconciled", "status": "True"}
    conditions = [reconciled, {"type": "Ready", "status": ready, "reason": "ComponentsNotReady"}]
    metadata = {"name": "basic", "namespace": "istio-system"}
    return {"metadata": metadata, "spec": spec, "status": {"conditions": conditions}}


def serving(ingress: Any, *, ready: str = "True", **spec: Any) -> list[Live]:
    metadata = {"name": "knative-serving", "namespace": "knative-serving"}
    names = ("InstallSucceeded", "DependenciesInstalled", "DeploymentsAvailable", "Ready")
    conditions = [{"type": name, "status": ready} for name in names]
    return [{"metadata": metadata, "spec": {"ingress": ingress, **spec}, "status": {"conditions": conditions}}]


SECTION_OF: dict[preconditions.Need, tuple[str, dict[str, str]]] = {
    preconditions.certificate_material: ("6.4.2", {}),
    preconditions.custom_domains: ("6.4.1", {}),
    preconditions.monitoring_namespace: ("6.4.4", {}),
    preconditions.kourier_path: ("6.4.5", {"ingress": "kourier"}),
    preconditions.mutual_tls_beside_kourier: ("6.4.5", {"mtls": "required"}),
    preconditions.filtering_not_overridden: ("6.4.6", {}),
}


# --- what cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "kind"),
    [
        (preconditions.mesh_namespace, NAMESPACE),
        (preconditions.member_namespaces, NAMESPACE),
        (preconditions.control_plane, CONTROL_PLANE),
        (preconditions.mutual_tls, CONTROL_PLANE),
        (preconditions.istio_path, KNATIVE_SERVING),
        (preconditions.mutual_tls_beside_kourier, CONTROL_PLANE),
        (preconditions.kourier_path, KNATIVE_SERVING),
        (preconditions.serving_with_istio, KNATIVE_SERVING),
        (preconditions.monitoring_namespace, NAMESPACE),
        (preconditions.one_label_hosts, KNATIVE_SERVING),
        (preconditions.one_label_hosts, CONFIG_MAP),
        (preconditions.custom_domains, DOMAIN_MAPPING),
        (preconditions.mesh_operator_beside_kourier, CLUSTER_SERVICE_VERSION),
        (preconditions.filtering_not_overridden, KNATIVE_SERVING),
        (preconditions.no_other_gateway, GATEWAY),
        (preconditions.usable_certificate, SECRET),
        (preconditions.certificate_material, SECRET),
        (preconditions.ingress_domain, INGRESS_CONFIG),
        (preconditions.serverless_operator, CLUSTER_SERVICE_VERSION),
        (preconditions.mesh_operator, CLUSTER_SERVICE_VERSION),
    ],
)
@pytest.mark.parametrize("error", [FORBIDDEN, BROKEN], ids=["forbidden", "broken"])
def test_what_cannot_be_read_could_not_be_told(
    need: preconditions.Need, kind: Kind, error: ServerRefused, situate: Situate
) -> None:
    section, parameters = SECTION_OF.get(need, ("6.4.3", {"mtls": "required"}))
    assert (UNKNOWN, error.said) == judged(need(situate(section, refused={kind: error}, **parameters)))


@pytest.mark.parametrize(
    ("need", "kind", "said", "remedy"),
    [
        (
            preconditions.control_plane,
            CONTROL_PLANE,
            "the cluster does not know ServiceMeshControlPlane (maistra.io/v2)",
            "install the operator that brings servicemeshcontrolplanes.maistra.io",
        ),
        (
            preconditions.istio_path,
            KNATIVE_SERVING,
            "the cluster does not know KnativeServing (operator.knative.dev/v1beta1)",
            "install the operator that brings knativeservings.operator.knative.dev",
        ),
        (
            preconditions.no_other_gateway,
            GATEWAY,
            "the cluster does not know Gateway (networking.istio.io/v1alpha3)",
            "install the operator that brings gateways.networking.istio.io",
        ),
    ],
)
def test_a_kind_that_the_cluster_does_not_know_wants_its_operator(
    need: preconditions.Need, kind: Kind, said: str, remedy: str, situate: Situate
) -> None:
    found = need(situate("6.4.3", refused={kind: ABSENT}))
    assert ((NOT_MET, said), remedy) == (judged(found), found.remedy)


# --- the account -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["verify", "plan", "apply"])
def test_an_account_that_may_do_everything_meets(mode: str, situate: Situate) -> None:
    found = preconditions.account_rights(situate("6.4.3", mode=mode))
    assert (MET, "every right asked for is granted") == judged(found)


@pytest.mark.parametrize(("mode", "verdict"), [("verify", WARNING), ("plan", WARNING), ("apply", NOT_MET)])
def test_a_missing_right_stops_an_apply_and_warns_otherwise(mode: str, verdict: Verdict, situate: Situate) -> None:
    denied = [Right.on(SECRET, "patch", "istio-system", "certs"), Right.on(NAMESPACE, "list")]
    found = preconditions.account_rights(situate("6.4.3", denied=denied, mode=mode))
    assert (verdict, "missing: patch secrets certs in namespace istio-system; list namespaces") == judged(found)


# --- operators ---------------------------------------------------------------------------------------------------

OLDER_SERVERLESS = "is older than 1.26.0 (the first with KnativeServing v1beta1, which the page applies)"
OLDER_MESH = "is older than 2.0.5 (the page: supported from there on)"
SERVERLESS, MESH = preconditions.serverless_operator, preconditions.mesh_operator
MESH_BESIDE_KOURIER = preconditions.mesh_operator_beside_kourier


@pytest.mark.parametrize(
    ("need", "listed", "expected"),
    [
        (SERVERLESS, [("serverless-operator.v1.26.0",)], (MET, "serverless-operator 1.26.0")),
        (SERVERLESS, [("serverless-operator.v1.38.9",)], (MET, "serverless-operator 1.38.9")),
        (
            SERVERLESS,
            [("serverless-operator.v1.25.9",)],
            (
                NOT_MET,
                f"serverless-operator 1.25.9 {OLDER_SERVERLESS}",
            ),
        ),
        (
            SERVERLESS,
            [("serverless-operator.v1.39.0",)],
            (
                WARNING,
                "serverless-operator 1.39.0; newer than 1.38, the newest known here; it is treated like that one",
            ),
        ),
        (
            SERVERLESS,
            [("serverless-operator.v1.33.0", "Installing", "waiting for deployment")],
            (NOT_MET, "serverless-operator 1.33.0 is Installing waiting for deployment"),
        ),
        (
            SERVERLESS,
            [("serverless-operator.v1.32.0", "Replacing"), ("serverless-operator.v1.33.0", "Pending")],
            (NOT_MET, "serverless-operator 1.33.0 is Pending"),
        ),
        (
            SERVERLESS,
            [("serverless-operator.v1.33.0", "")],
            (NOT_MET, "serverless-operator 1.33.0 is not reported"),
        ),
        (
            SERVERLESS,
            [],
            (NOT_MET, "no ClusterServiceVersion serverless-operator.v… in openshift-serverless or openshift-operators"),
        ),
        (MESH, [("servicemeshoperator.v2.0.5",)], (MET, "servicemeshoperator 2.0.5")),
        (MESH, [("servicemeshoperator.v2.0.4",)], (NOT_MET, f"servicemeshoperator 2.0.4 {OLDER_MESH}")),
        (
            MESH,
            [("servicemeshoperator.v2.7.0",)],
            (
                WARNING,
                "servicemeshoperator 2.7.0; newer than 2.6, the newest known here; it is treated like that one",
            ),
        ),
        (
            MESH,
            [("servicemeshoperator3.v3.0.1",)],
            (NOT_MET, "Service Mesh 3.0.1 is installed, which is not supported: the procedure is Service Mesh 2's"),
        ),
        (MESH_BESIDE_KOURIER, [("servicemeshoperator.v1.1.18",)], (MET, "servicemeshoperator 1.1.18")),
        (MESH_BESIDE_KOURIER, [("servicemeshoperator.v2.4.1",)], (MET, "servicemeshoperator 2.4.1")),
        (
            MESH_BESIDE_KOURIER,
            [("servicemeshoperator3.v3.0.1",)],
            (NOT_MET, "Service Mesh 3.0.1 is installed, which is not supported: the procedure is Service Mesh 2's"),
        ),
        # both are there: the one of this procedure counts
        (
            MESH,
            [("servicemeshoperator3.v3.0.1",), ("servicemeshoperator.v2.6.0",)],
            (MET, "servicemeshoperator 2.6.0"),
        ),
        (
            MESH,
            [],
            (NOT_MET, "no ClusterServiceVersion servicemeshoperator.v… in openshift-serverless or openshift-operators"),
        ),
    ],
)
def test_an_operator_is_installed_in_a_version_that_is_known(
    need: preconditions.Need,
    listed: list[tuple[str, ...]],
    expected: tuple[Verdict, str],
    situate: Situate,
    csv: Csv,
) -> None:
    found = need(situate("6.4.3", {CLUSTER_SERVICE_VERSION: [csv(*entry) for entry in listed]}))
    assert expected == judged(found)


def test_a_version_that_is_stated_is_taken_where_the_operators_cannot_be_read_and_that_is_said(
    situate: Situate,
) -> None:
    given = {"refused": {CLUSTER_SERVICE_VERSION: FORBIDDEN}, "serverless_version": "1.30", "mesh_version": "2.3"}
    assert (
        WARNING,
        f"serverless-operator 1.30.0; only serverless_version says so: {FORBIDDEN.said}",
    ) == judged(SERVERLESS(situate("6.4.3", **given)))
    assert (
        WARNING,
        f"servicemeshoperator 2.3.0; only mesh_version says so: {FORBIDDEN.said}",
    ) == judged(MESH(situate("6.4.3", **given)))
    assert (NOT_MET, f"servicemeshoperator 1.1.0 {OLDER_MESH}") == judged(
        MESH(situate("6.4.3", **given | {"mesh_version": "1.1"}))
    )


def test_a_version_that_is_stated_of_an_operator_that_is_not_there_is_a_warning(situate: Situate) -> None:
    found = SERVERLESS(situate("6.4.3", {CLUSTER_SERVICE_VERSION: []}, serverless_version="1.99"))
    assert WARNING is found.verdict
    assert "1.99.0; newer than 1.38, the newest known here; it is treated like that one" in found.said
    assert "only serverless_version says so: no ClusterServiceVersion serverless-operator.v…" in found.said
    assert "make sure that oc get csv -A shows 1.99" in found.remedy


@pytest.mark.parametrize(
    ("name", "phase", "stated", "expected"),
    [
        ("serverless-operator.v1.33.2", "Succeeded", "1.33", (MET, "serverless-operator 1.33.2")),
        ("serverless-operator.v1.33.2", "Succeeded", "1.33.2", (MET, "serverless-operator 1.33.2")),
        (
            "serverless-operator.v1.33.2",
            "Succeeded",
            "1.3",
            (WARNING, "serverless-operator 1.33.2; the cluster says so; serverless_version 1.3 is not used"),
        ),
        # what is stated excuses nothing that is found
        ("serverless-operator.v1.33.2", "Failed", "1.30", (NOT_MET, "serverless-operator 1.33.2 is Failed")),
        (
            "serverless-operator.v1.25.0",
            "Succeeded",
            "1.30",
            (
                NOT_MET,
                f"serverless-operator 1.25.0 {OLDER_SERVERLESS}",
            ),
        ),
    ],
)
def test_what_is_found_counts_and_not_what_is_stated(
    name: str, phase: str, stated: str, expected: tuple[Verdict, str], situate: Situate, csv: Csv
) -> None:
    situation = situate("6.4.3", {CLUSTER_SERVICE_VERSION: [csv(name, phase)]}, serverless_version=stated)
    assert expected == judged(SERVERLESS(situation))


def test_a_stated_mesh_does_not_hide_service_mesh_3(situate: Situate, csv: Csv) -> None:
    there = {CLUSTER_SERVICE_VERSION: [csv("servicemeshoperator3.v3.0.1")]}
    for need in (MESH, MESH_BESIDE_KOURIER):
        assert NOT_MET is need(situate("6.4.3", there, mesh_version="2.6")).verdict


@pytest.mark.parametrize(
    ("serverless", "mesh", "verdict"),
    [("1.30.0", "2.0.5", MET), ("1.31.0", "2.1.6", WARNING), ("1.31.0", "2.2.0", MET), ("1.38.0", "2.0.5", WARNING)],
)
def test_newer_documentation_asks_for_a_newer_mesh(
    serverless: str, mesh: str, verdict: Verdict, situate: Situate, csv: Csv
) -> None:
    there = [csv(f"serverless-operator.v{serverless}"), csv(f"servicemeshoperator.v{mesh}")]
    found = MESH(situate("6.4.3", {CLUSTER_SERVICE_VERSION: there}))
    assert verdict is found.verdict
    assert ("asks for Service Mesh 2.2" in found.said) is (verdict is WARNING)


def test_without_the_right_to_look_the_parameter_to_set_is_named(situate: Situate) -> None:
    refused = {CLUSTER_SERVICE_VERSION: FORBIDDEN}
    assert "serverless_version" in SERVERLESS(situate("6.4.3", refused=refused)).remedy
    assert "mesh_version" in MESH(situate("6.4.3", refused=refused)).remedy


# --- namespaces and the control plane ----------------------------------------------------------------------------


def test_the_namespaces_have_to_exist(situate: Situate) -> None:
    there = {NAMESPACE: [namespace("istio-system"), namespace("knative-serving"), namespace("default")]}
    assert (MET, "istio-system") == judged(preconditions.mesh_namespace(situate("6.4.3", there)))
    assert (MET, "knative-serving, default") == judged(preconditions.member_namespaces(situate("6.4.3", there)))
    found = preconditions.mesh_namespace(situate("6.4.3", there, mesh_namespace="mesh"))
    assert (
        (NOT_MET, "mesh does not exist"),
        "create it first: oc new-project mesh",
    ) == (judged(found), found.remedy)
    missing = preconditions.member_namespaces(situate("6.4.3", {NAMESPACE: [namespace("default")]}))
    assert (NOT_MET, "knative-serving does not exist") == judged(missing)


def test_every_missing_namespace_is_named_with_the_command_to_create_it(situate: Situate) -> None:
    there = {NAMESPACE: [namespace("default")]}
    found = preconditions.member_namespaces(situate("6.4.3", there, members=["default", "shop"]))
    assert found.said.startswith("knative-serving, shop do")
    assert "create it first: oc new-project knative-serving && oc new-project shop" == found.remedy


def test_a_namespace_that_is_being_deleted_is_not_there(situate: Situate) -> None:
    ending = namespace("istio-system", deletionTimestamp="2026-01-01T00:00:00Z")
    found = preconditions.mesh_namespace(situate("6.4.3", {NAMESPACE: [ending]}))
    assert (NOT_MET, "istio-system is being deleted") == judged(found)


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        ([plane()], (MET, "istio-system/basic")),
        ([], (NOT_MET, "there is none in istio-system")),
        ([plane(ready="False")], (NOT_MET, "istio-system/basic: Ready is False: ComponentsNotReady")),
        (
            [plane() | {"status": {}}],
            (NOT_MET, "istio-system/basic: Reconciled is not reported yet; Ready is not reported yet"),
        ),
        ([plane() | {"metadata": {"name": "basic", "namespace": "other"}}], (NOT_MET, "there is none in istio-system")),
    ],
)
def test_a_control_plane_is_ready(planes: list[Live], expected: tuple[Verdict, str], situate: Situate) -> None:
    assert expected == judged(preconditions.control_plane(situate("6.4.3", {CONTROL_PLANE: planes})))


@pytest.mark.parametrize(
    ("planes", "mtls", "expected"),
    [
        ([plane(True)], "any", (MET, "on")),
        ([plane(True)], "required", (MET, "on")),
        ([plane(False)], "any", (MET, "off")),
        ([plane()], "any", (MET, "off")),
        ([plane(False)], "required", (NOT_MET, "off, and mtls is required")),
        ([plane()], "required", (NOT_MET, "off, and mtls is required")),
        ([plane() | {"spec": None}], "required", (NOT_MET, "off, and mtls is required")),
        ([], "required", (NOT_MET, "off, and mtls is required")),
    ],
)
def test_mutual_tls_is_insisted_on_where_it_is_required(
    planes: list[Live], mtls: str, expected: tuple[Verdict, str], situate: Situate
) -> None:
    found = preconditions.mutual_tls(situate("6.4.3", {CONTROL_PLANE: planes}, mtls=mtls))
    assert expected == judged(found)


OLD_PLANE = {
    "metadata": {"name": "basic-install", "namespace": "istio-system"},
    "spec": {"istio": {"global": {"mtls": {"enabled": True}}}},
    "status": {"conditions": [{"type": "Reconciled", "status": "True"}, {"type": "Ready", "status": "True"}]},
}


def test_a_control_plane_of_service_mesh_1_is_found_where_the_newer_api_is_not_served(situate: Situate) -> None:
    situation = situate("6.4.5", {CONTROL_PLANE_V1: [OLD_PLANE]}, refused={CONTROL_PLANE: ABSENT})
    assert (MET, "istio-system/basic-install") == judged(preconditions.control_plane(situation))
    assert (MET, "on") == judged(preconditions.mutual_tls(situation))
    neither = situate("6.4.5", refused={CONTROL_PLANE: ABSENT, CONTROL_PLANE_V1: ABSENT})
    assert (NOT_MET, "the cluster does not know ServiceMeshControlPlane (maistra.io/v2)") == judged(
        preconditions.control_plane(neither)
    )


@pytest.mark.parametrize(
    ("planes", "mtls", "verdict"),
    [
        ([plane(True)], "any", WARNING),
        ([plane(True)], "required", WARNING),
        ([plane(False)], "any", MET),
        ([plane(False)], "required", NOT_MET),
    ],
)
def test_mutual_tls_beside_kourier_is_warned_of(
    planes: list[Live], mtls: str, verdict: Verdict, situate: Situate
) -> None:
    found = preconditions.mutual_tls_beside_kourier(situate("6.4.5", {CONTROL_PLANE: planes}, mtls=mtls))
    assert verdict is judged(found)[0]


# --- the domain and the certificate ------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["", "apps.openshift.example.com"])
def test_the_domain_is_the_clusters_own(given: str, situate: Situate) -> None:
    found = preconditions.ingress_domain(situate("6.4.3", ingress_domain=given))
    assert (MET, "*.apps.openshift.example.com") == judged(found)


def test_another_domain_covers_no_knative_service(situate: Situate) -> None:
    found = preconditions.ingress_domain(situate("6.4.3", ingress_domain="example.com"))
    assert (
        NOT_MET,
        (
            "ingress_domain is example.com, the cluster's domain is apps.openshift.example.com: "
            "*.example.com covers no Knative Service"
        ),
    ) == judged(found)


@pytest.mark.parametrize("config", [[], [{"metadata": {"name": "cluster"}, "spec": {}}], [{"metadata": {"name": "x"}}]])
def test_a_cluster_without_a_domain_wants_one_stated_and_takes_it_at_its_word(
    config: list[Live], situate: Situate
) -> None:
    said = "the cluster's ingress config names no domain"
    found = {INGRESS_CONFIG: config}
    assert (UNKNOWN, said) == judged(preconditions.ingress_domain(situate("6.4.3", found)))
    stated = preconditions.ingress_domain(situate("6.4.3", found, ingress_domain="apps.example.com"))
    assert (WARNING, f"{said}; taking ingress_domain apps.example.com at its word") == judged(stated)


def test_a_domain_that_cannot_be_read_is_taken_at_its_word(situate: Situate) -> None:
    stated = situate("6.4.3", refused={INGRESS_CONFIG: FORBIDDEN}, ingress_domain="apps.example.com")
    assert (
        WARNING,
        "it is forbidden; taking ingress_domain apps.example.com at its word",
    ) == judged(preconditions.ingress_domain(stated))


DEFAULT_TEMPLATE = "{{.Name}}-{{.Namespace}}.{{.Domain}}"
MORE_LABELS = "{{.Name}}.{{.Namespace}}.{{.Domain}}"


def config_network(**data: str) -> dict[Kind, list[Live]]:
    metadata = {"name": "config-network", "namespace": "knative-serving"}
    return {CONFIG_MAP: [{"metadata": metadata, "data": {key.replace("_", "-"): value for key, value in data.items()}}]}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, (MET, "the operator's default")),
        (config_network(), (MET, "the operator's default")),
        (config_network(domain_template=DEFAULT_TEMPLATE), (MET, DEFAULT_TEMPLATE)),
        (config_network(domain_template="{{ .Name }}-x.{{ .Domain }}"), (MET, "{{ .Name }}-x.{{ .Domain }}")),
        (
            config_network(domain_template=MORE_LABELS),
            (
                NOT_MET,
                (
                    f"the template {MORE_LABELS} makes names of more labels, "
                    "which *.apps.openshift.example.com does not cover"
                ),
            ),
        ),
        (
            {KNATIVE_SERVING: serving({}, config={"network": {"domainTemplate": MORE_LABELS}})},
            (
                NOT_MET,
                (
                    f"the template {MORE_LABELS} makes names of more labels, "
                    "which *.apps.openshift.example.com does not cover"
                ),
            ),
        ),
    ],
)
def test_host_names_have_one_label_below_the_domain(
    found: dict[Kind, list[Live]], expected: tuple[Verdict, str], situate: Situate
) -> None:
    assert expected == judged(preconditions.one_label_hosts(situate("6.4.1", found)))


def mapping(name: str, **not_ready: str) -> Live:
    conditions = [
        {"type": kind, "status": "False" if kind in not_ready else "True", "message": not_ready.get(kind, "")}
        for kind in ("DomainClaimed", "CertificateProvisioned", "Ready")
    ]
    return {"metadata": {"name": name, "namespace": "shop"}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("wanted", "mappings", "expected"),
    [
        ([], [], (MET, "none asked for, none there")),
        ([], [mapping("www.example.org")], (MET, "www.example.org")),
        (["www.example.org"], [mapping("www.example.org")], (MET, "www.example.org")),
        (["www.example.org"], [], (NOT_MET, "there is no DomainMapping www.example.org")),
        (
            ["b.example.org"],
            [mapping("a.example.org", DomainClaimed="not owned")],
            (NOT_MET, "there is no DomainMapping b.example.org"),
        ),
        (
            ["a.example.org"],
            [mapping("a.example.org", DomainClaimed="not owned")],
            (NOT_MET, "DomainMapping shop/a.example.org: DomainClaimed is False: not owned"),
        ),
        (
            [],
            [mapping("a.example.org", DomainClaimed="not owned")],
            (WARNING, "DomainMapping shop/a.example.org: DomainClaimed is False: not owned"),
        ),
    ],
)
def test_custom_domains_are_mapped(
    wanted: list[str], mappings: list[Live], expected: tuple[Verdict, str], situate: Situate
) -> None:
    situation = situate("6.4.1", {DOMAIN_MAPPING: mappings}, custom_domains=wanted)
    assert expected == judged(preconditions.custom_domains(situation))


def test_domain_mappings_come_with_knative_serving(situate: Situate) -> None:
    refused = {DOMAIN_MAPPING: ABSENT}
    assert (MET, "none asked for") == judged(preconditions.custom_domains(situate("6.4.1", refused=refused)))
    found = preconditions.custom_domains(situate("6.4.1", refused=refused, custom_domains=["www.example.org"]))
    assert (COMES, "6.4.3") == (found.verdict, found.see)


@pytest.mark.parametrize(
    ("prepared", "expected"),
    [
        (Issuance(), (MET, "good as they are")),
        (Issuance(reasons=("there is no root certificate yet",)), (MET, "there is no root certificate yet")),
        (Issuance(reasons=("a", "b"), waiting="c"), (MET, "a; b")),
        (Issuance(waiting="have your CA sign it"), (MET, "have your CA sign it")),
        (
            CertificateError("using the root /c/root.crt", "it ended", "make a new one"),
            (NOT_MET, "using the root /c/root.crt: it ended"),
        ),
        (None, (UNKNOWN, "the domain is not known")),
    ],
)
def test_keys_and_certificates_can_be_used(prepared: Any, expected: tuple[Verdict, str], situate: Situate) -> None:
    assert expected == judged(preconditions.certificate_material(situate("6.4.2", prepared=prepared)))


@pytest.mark.parametrize(
    ("need", "section"), [(preconditions.certificate_material, "6.4.2"), (preconditions.usable_certificate, "6.4.3")]
)
def test_a_file_that_a_parameter_names_and_that_cannot_be_read_is_not_met(
    need: preconditions.Need, section: str, situate: Situate
) -> None:
    error = CertificateError("reading trust_anchor /etc/pki/ca.crt", "there is no such file", "name one")
    found = need(situate(section, given_files={"trust_anchor": error}, trust_anchor="/etc/pki/ca.crt"))
    assert (NOT_MET, "reading trust_anchor /etc/pki/ca.crt: there is no such file") == judged(found)
    assert ("name one", "") == (found.remedy, found.see)  # no other runbook brings it


def usable(situation: Situation[Any]) -> tuple[Verdict, str]:
    found = preconditions.usable_certificate(situation)
    assert ("6.4.2" if found.verdict is NOT_MET else "") == (found.see)
    return judged(found)


def test_a_secret_that_the_gateway_can_serve_is_usable(
    situate: Situate, root: Pair, leaf: Pair, tls_secret: TlsSecret
) -> None:
    there = {SECRET: [tls_secret(leaf)]}
    covers = (MET, "covers *.apps.openshift.example.com")
    assert covers == usable(situate("6.4.3", there, files={ROOT_CRT: root.chain}))
    given = {"trust_anchor": root.chain}
    assert covers == usable(situate("6.4.3", there, given_files=given, trust_anchor="/etc/pki/ca.crt"))
    assert covers == usable(situate("6.4.3", there, trust_anchor="system"))


def test_a_secret_that_the_gateway_cannot_serve_sends_to_6_4_2(
    situate: Situate,
    root: Pair,
    leaf: Pair,
    other_root: Pair,
    make_leaf: Callable[..., Pair],
    tls_secret: TlsSecret,
    now: dt.datetime,
) -> None:
    files = {ROOT_CRT: root.chain}
    there = {SECRET: [tls_secret(leaf)]}
    assert (NOT_MET, "there is no such Secret") == usable(situate("6.4.3", files=files))
    opaque = {SECRET: [tls_secret(leaf) | {"type": "Opaque"}]}
    assert (
        NOT_MET,
        "reading Secret istio-system/wildcard-certs: its type is Opaque and its keys are tls.crt, tls.key",
    ) == usable(situate("6.4.3", opaque, files=files))
    late = now + dt.timedelta(days=366)
    assert usable(situate("6.4.3", there, files=files, now=late))[1].startswith(
        "/CN=*.apps.openshift.example.com/O=Example Inc. expired on "
    )
    assert (
        NOT_MET,
        (
            "the chain ends with an issuer /O=Example Inc./CN=example.com that is not the trust anchor "
            "(/O=Other Inc./CN=other.example)"
        ),
    ) == usable(situate("6.4.3", there, files={ROOT_CRT: other_root.chain}))
    elsewhere = {SECRET: [tls_secret(make_leaf(root, rules=Rules("*.other.example.com")))]}
    assert (
        NOT_MET,
        "the subject alternative names (*.other.example.com) do not cover *.apps.openshift.example.com",
    ) == usable(situate("6.4.3", elsewhere, files=files))
    assert usable(situate("6.4.3", there, files={ROOT_CRT: b"garbage"}))[1].startswith(
        "reading the certificates in the trust anchor: "
    )


def test_without_a_trust_anchor_a_certificate_is_not_usable(
    situate: Situate, leaf: Pair, tls_secret: TlsSecret
) -> None:
    assert (
        NOT_MET,
        "there is no trust anchor: neither trust_anchor nor /certificates/root.crt",
    ) == usable(situate("6.4.3", {SECRET: [tls_secret(leaf)]}))


# --- Knative Serving and its ingress -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servings", "expected"),
    [
        ([], (MET, "not installed yet")),
        (serving({"istio": {"enabled": True}}), (MET, "knative-serving/knative-serving with Istio only")),
        (
            serving({"istio": {"enabled": True}, "kourier": {"enabled": False}}),
            (MET, "knative-serving/knative-serving with Istio only"),
        ),
        (serving({"kourier": {"enabled": True}}), (NOT_MET, "kourier serves on this cluster")),
        # where both are enabled, Kourier wins
        (
            serving({"istio": {"enabled": True}, "kourier": {"enabled": True}}),
            (NOT_MET, "kourier serves on this cluster"),
        ),
        (
            serving({"contour": {"enabled": True}, "kourier": {"enabled": True}}),
            (NOT_MET, "contour and kourier serves on this cluster"),
        ),
        (serving({}), (NOT_MET, "Kourier, the default, serves on this cluster")),
        (serving(None), (NOT_MET, "Kourier, the default, serves on this cluster")),
        (serving({"istio": {"enabled": False}}), (NOT_MET, "Kourier, the default, serves on this cluster")),
        ([serving({})[0] | {"spec": None}], (NOT_MET, "Kourier, the default, serves on this cluster")),
    ],
)
def test_istio_is_the_only_ingress(servings: list[Live], expected: tuple[Verdict, str], situate: Situate) -> None:
    found = preconditions.istio_path(situate("6.4.3", {KNATIVE_SERVING: servings}))
    assert expected == judged(found)
    assert ("6.4.5" if found.verdict is NOT_MET else "") == (found.see)


def test_an_environment_of_the_kourier_path_is_sent_to_6_4_5(situate: Situate) -> None:
    found = preconditions.istio_path(situate("6.4.3", ingress="kourier"))
    assert (NOT_MET, "cluster.yaml says ingress: kourier, and 6.4.3 is of the Istio path") == judged(found)
    assert "6.4.5" == found.see


@pytest.mark.parametrize(
    ("servings", "expected"),
    [
        ([], (NOT_MET, "Knative Serving is not installed")),
        (serving({"kourier": {"enabled": True}}), (MET, "knative-serving/knative-serving with Kourier")),
        (serving({}), (MET, "knative-serving/knative-serving with Kourier, the default")),
        (serving({"istio": {"enabled": True}}), (NOT_MET, "Istio is the only ingress of this cluster")),
        # where both are enabled, Kourier wins
        (
            serving({"istio": {"enabled": True}, "kourier": {"enabled": True}}),
            (MET, "knative-serving/knative-serving with Kourier"),
        ),
        (serving({"contour": {"enabled": True}}), (NOT_MET, "contour serves on this cluster")),
        (
            serving({"kourier": {"enabled": True}}, ready="False"),
            (
                WARNING,
                (
                    "knative-serving/knative-serving: InstallSucceeded is False; DependenciesInstalled is False; "
                    "DeploymentsAvailable is False; Ready is False"
                ),
            ),
        ),
    ],
)
def test_kourier_serves(servings: list[Live], expected: tuple[Verdict, str], situate: Situate) -> None:
    found = preconditions.kourier_path(situate("6.4.5", {KNATIVE_SERVING: servings}, ingress="kourier"))
    assert expected == judged(found)


def test_an_environment_of_the_istio_path_is_sent_to_6_4_3(situate: Situate) -> None:
    found = preconditions.kourier_path(situate("6.4.5", ingress="istio"))
    assert (NOT_MET, "cluster.yaml says ingress: istio, and 6.4.5 is of the Kourier path") == judged(found)
    assert "6.4.3" == found.see


@pytest.mark.parametrize(("version", "verdict"), [("1.26.0", MET), ("1.30.9", MET), ("1.31.0", WARNING)])
def test_the_mesh_beside_kourier_is_documented_up_to_1_30(
    version: str, verdict: Verdict, situate: Situate, csv: Csv
) -> None:
    listed = {CLUSTER_SERVICE_VERSION: [csv(f"serverless-operator.v{version}")]}
    found = preconditions.documented_beside_kourier(situate("6.4.5", listed))
    assert verdict is judged(found)[0]
    assert version in found.said


@pytest.mark.parametrize(
    ("servings", "expected", "see"),
    [
        (serving({"istio": {"enabled": True}}), (MET, "knative-serving/knative-serving"), ""),
        ([], (NOT_MET, "there is no KnativeServing in knative-serving"), "6.4.3"),
        (serving({}), (NOT_MET, "Kourier, the default, serves on this cluster"), "6.4.5"),
        (
            serving({"istio": {"enabled": True}, "kourier": {"enabled": True}}),
            (NOT_MET, "kourier serves on this cluster"),
            "6.4.5",
        ),
    ],
)
def test_serving_is_installed_with_istio(
    servings: list[Live], expected: tuple[Verdict, str], see: str, situate: Situate
) -> None:
    found = preconditions.serving_with_istio(situate("6.4.4", {KNATIVE_SERVING: servings}))
    assert (expected, see) == (judged(found), found.see)


def test_the_monitoring_namespace_has_to_exist(situate: Situate) -> None:
    there = {NAMESPACE: [namespace("openshift-monitoring")]}
    assert (MET, "openshift-monitoring") == judged(preconditions.monitoring_namespace(situate("6.4.4", there)))
    elsewhere = situate("6.4.4", there, monitoring_namespace="prometheus")
    assert (NOT_MET, "prometheus does not exist") == judged(preconditions.monitoring_namespace(elsewhere))


def gateway(text: str, name: str = "other", namespace: str = "shop") -> Live:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": yaml.safe_load(text)}


SHOP = {"members": ["shop"], "service_namespace": "shop"}
EVERYTHING = "{selector: {istio: ingressgateway}, servers: [{port: {number: 443}, hosts: ['*']}]}"


@pytest.mark.parametrize(
    ("spec", "claims"),
    [
        (EVERYTHING, True),
        (EVERYTHING.replace("'*'", "'a.example.com', '*'"), True),
        (EVERYTHING.replace("'*'", "'*/*'"), True),
        (EVERYTHING.replace("'*'", "'shop/*'"), True),
        (EVERYTHING.replace("'*'", "'*.example.com'"), False),
        (EVERYTHING.replace("443", "8443"), False),
        (EVERYTHING.replace("ingressgateway", "egressgateway"), False),
        # Istio: a Gateway without a selector is for every gateway of the mesh
        (EVERYTHING.replace("selector: {istio: ingressgateway}, ", ""), True),
        (EVERYTHING.replace("{number: 443}", "null"), False),
        (EVERYTHING.replace("['*']", "null"), False),
        ("{selector: {istio: ingressgateway}}", False),
        ("null", False),
    ],
)
def test_no_other_gateway_claims_port_443_for_every_host(spec: str, claims: bool, situate: Situate) -> None:
    found = preconditions.no_other_gateway(situate("6.4.3", {GATEWAY: [gateway(spec)]}, **SHOP))
    said = (
        "shop/other claims port 443 with hosts '*' for the same gateway Pods: the older Gateway wins, and requests for "
        "the hosts of the other are answered with its certificate, and with 404"
    )
    assert ((NOT_MET, said) if claims else (MET, "none does")) == (judged(found))


def test_the_gateways_of_this_procedure_may_claim_it(situate: Situate) -> None:
    ours = [gateway(EVERYTHING, f"knative-{name}-gateway", "knative-serving") for name in ("ingress", "local")]
    assert (MET, "none does") == judged(preconditions.no_other_gateway(situate("6.4.3", {GATEWAY: ours}, **SHOP)))
    namesake = gateway(EVERYTHING, "knative-ingress-gateway", "shop")
    assert judged(preconditions.no_other_gateway(situate("6.4.3", {GATEWAY: [*ours, namesake]}, **SHOP)))[0] is NOT_MET
    assert (MET, "none does") == judged(preconditions.no_other_gateway(situate("6.4.3")))


def test_a_gateway_of_another_mesh_does_not_count(situate: Situate) -> None:
    found = preconditions.no_other_gateway(situate("6.4.3", {GATEWAY: [gateway(EVERYTHING)]}))
    assert (MET, "none does") == judged(found)


def test_the_https_variant_is_taken_with_a_warning(situate: Situate) -> None:
    found = preconditions.local_gateway_variant(situate("6.4.3"))
    assert (MET, "HTTP on port 8081") == judged(found)
    warned = preconditions.local_gateway_variant(situate("6.4.3", local_gateway="https"))
    assert (WARNING, "prefer local_gateway: http") == (warned.verdict, warned.remedy)


# --- pitfalls that forbid nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "section", "kind"),
    [
        (preconditions.sole_member_roll, "6.4.3", MEMBER_ROLL),
        (preconditions.strict_clients, "6.4.3", SECRET),
        (preconditions.leftover_webhooks, "6.4.1", VALIDATING_WEBHOOK),
        (preconditions.leftover_webhooks, "6.4.1", MUTATING_WEBHOOK),
        (preconditions.authorization_policies, "6.4.1", AUTHORIZATION_POLICY),
        (preconditions.annotated_services, "6.4.1", KNATIVE_SERVICE),
    ],
)
@pytest.mark.parametrize("error", [FORBIDDEN, BROKEN], ids=["forbidden", "broken"])
def test_what_only_warns_warns_where_it_cannot_be_read(
    need: preconditions.Need, section: str, kind: Kind, error: ServerRefused, situate: Situate
) -> None:
    assert (WARNING, error.said) == judged(need(situate(section, refused={kind: error})))


@pytest.mark.parametrize("need", [preconditions.authorization_policies, preconditions.annotated_services])
def test_what_the_cluster_does_not_know_is_not_there(need: preconditions.Need, situate: Situate) -> None:
    refused = {AUTHORIZATION_POLICY: ABSENT, KNATIVE_SERVICE: ABSENT}
    assert MET is need(situate("6.4.1", refused=refused)).verdict


def policy(namespace: str = "knative-serving", **spec: Any) -> Live:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": spec}


ACTIVATOR, AUTOSCALER = ({"matchLabels": {"app": app}} for app in ("activator", "autoscaler"))


@pytest.mark.parametrize(
    ("policies", "shut"),
    [
        ([], ""),
        ([policy()], "activator and autoscaler"),
        ([policy("istio-system")], "activator and autoscaler"),
        ([policy("shop")], ""),
        ([policy(action="DENY", rules=[{}])], "activator and autoscaler"),
        ([policy(action="DENY", rules=[{"to": [{}]}])], ""),
        ([policy(action="AUDIT")], ""),
        ([policy(selector=AUTOSCALER)], "autoscaler"),
        ([policy("istio-system"), policy(selector=ACTIVATOR, rules=[{}])], "autoscaler"),
        ([policy("istio-system"), policy(rules=[{"from": [{}]}])], ""),
    ],
)
def test_authorization_policies_are_weighed_as_istio_does(policies: list[Live], shut: str, situate: Situate) -> None:
    for number, live in enumerate(policies):
        live["metadata"]["name"] = f"p{number}"
    found = preconditions.authorization_policies(situate("6.4.1", {AUTHORIZATION_POLICY: policies}))
    assert (WARNING if shut else MET) is found.verdict
    assert shut in found.said


def knative_service(own: dict[str, str], marks: dict[str, str], **template: dict[str, str]) -> Live:
    metadata = {"name": "s", "namespace": "shop", "annotations": own, "labels": marks}
    return {"metadata": metadata, "spec": {"template": {"metadata": template}}}


@pytest.mark.parametrize(
    ("service", "faults"),
    [
        (knative_service({PASSTHROUGH: "true"}, {}), 0),
        (knative_service({}, {"networking.knative.dev/visibility": "cluster-local"}), 0),
        (knative_service({PASSTHROUGH: "true"}, {}, annotations={INJECT: "true", REWRITE_PROBES: "true"}), 0),
        (
            knative_service({PASSTHROUGH: "true"}, {}, labels={INJECT: "true"}, annotations={REWRITE_PROBES: "true"}),
            0,
        ),
        (knative_service({PASSTHROUGH: "true"}, {}, annotations={INJECT: "true"}), 1),
        (knative_service({INJECT: "true"}, {}), 2),
        (knative_service({PASSTHROUGH: "false"}, {}), 1),
    ],
)
def test_services_of_the_mesh_are_annotated_where_it_counts(service: Live, faults: int, situate: Situate) -> None:
    def told(members: list[str], mtls: bool = True) -> Finding:
        roll = {"metadata": {"name": "default", "namespace": "istio-system"}, "status": {"configuredMembers": members}}
        there = {KNATIVE_SERVICE: [service], MEMBER_ROLL: [roll], CONTROL_PLANE: [plane(mtls)]}
        return preconditions.annotated_services(situate("6.4.1", there))

    found = told(["shop"])
    assert (WARNING if faults else MET) is found.verdict
    assert faults == found.said.count("shop/s: ")
    assert MET is told(["another"]).verdict  # outside of the mesh all this means something else
    if "probes fail" in found.said:
        assert MET is told(["shop"], mtls=False).verdict


@pytest.mark.parametrize(
    ("version", "mtls", "ports", "expected"),
    [
        ("1.30.0", True, [8444], MET),
        ("1.31.0", True, [8444], WARNING),
        ("1.31.0", True, None, WARNING),
        ("1.31.0", False, [8444], MET),
        ("1.38.0", True, [8022, 8444], MET),
    ],
)
def test_the_drain_port_is_asked_for_where_it_is_documented(
    version: str, mtls: bool, ports: list[int] | None, expected: Verdict, situate: Situate, csv: Csv
) -> None:
    live = plane(mtls)
    live["spec"]["proxy"] = ports and {"networking": {"trafficControl": {"inbound": {"excludedPorts": ports}}}}
    there = {CONTROL_PLANE: [live], CLUSTER_SERVICE_VERSION: [csv(f"serverless-operator.v{version}")]}
    assert expected is preconditions.drain_port(situate("6.4.4", there)).verdict


@pytest.mark.parametrize(("version", "verdict"), [("1.31.0", WARNING), ("1.32.0", MET), ("1.99.0", MET)])
def test_an_operator_that_knows_no_opting_out_keeps_its_policies(
    version: str, verdict: Verdict, situate: Situate, csv: Csv
) -> None:
    live = plane(True)
    live["spec"]["security"]["manageNetworkPolicy"] = False
    (opted_out,) = serving({"istio": {"enabled": True}})
    opted_out["metadata"]["annotations"] = {"serverless.openshift.io/disable-istio-net-policies-generation": "true"}
    closed = {
        "metadata": {"name": "allow-from-openshift-monitoring-ns", "namespace": "knative-serving"},
        "spec": {"podSelector": {}, "ingress": [], "policyTypes": ["Ingress"]},
    }
    there = {CONTROL_PLANE: [live], KNATIVE_SERVING: [opted_out], NETWORK_POLICY: [closed]}
    found = {**there, CLUSTER_SERVICE_VERSION: [csv(f"serverless-operator.v{version}")]}
    assert verdict is preconditions.policies_of_the_mesh(situate("6.4.3", found)).verdict


def test_before_knative_is_installed_the_control_plane_alone_tells_of_closed_policies(situate: Situate) -> None:
    live = plane(True)
    assert MET is preconditions.policies_of_the_mesh(situate("6.4.3", {CONTROL_PLANE: [live]})).verdict
    live["spec"]["security"]["manageNetworkPolicy"] = False
    assert WARNING is preconditions.policies_of_the_mesh(situate("6.4.3", {CONTROL_PLANE: [live]})).verdict
    unread = situate("6.4.3", {CONTROL_PLANE: [live]}, refused={NETWORK_POLICY: FORBIDDEN})
    assert (WARNING, FORBIDDEN.said) == judged(preconditions.policies_of_the_mesh(unread))


def test_a_gateway_of_a_member_that_the_roll_selects_by_label_counts(situate: Situate) -> None:
    server = {"port": {"number": 443}, "hosts": ["*"]}
    gateway = {"metadata": {"name": "theirs", "namespace": "selected"}, "spec": {"servers": [server]}}
    roll = {"metadata": {"name": "default", "namespace": "istio-system"}, "status": {"configuredMembers": ["selected"]}}
    there = {GATEWAY: [gateway], MEMBER_ROLL: [roll]}
    assert NOT_MET is preconditions.no_other_gateway(situate("6.4.3", there)).verdict


def test_what_strict_clients_refuse_is_no_fault_of_what_6_4_2_makes(
    situate: Situate, root: Pair, leaf: Pair, tls_secret: TlsSecret
) -> None:
    assert MET is preconditions.strict_clients(situate("6.4.3")).verdict
    there = {SECRET: [tls_secret(leaf)]}
    assert MET is preconditions.strict_clients(situate("6.4.3", there, files={ROOT_CRT: root.chain})).verdict
    opaque = {SECRET: [tls_secret(leaf) | {"type": "Opaque"}]}
    assert WARNING is preconditions.strict_clients(situate("6.4.3", opaque)).verdict
