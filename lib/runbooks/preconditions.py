"""What must hold before a section changes anything: pure judgement of what was read.

Each function looks at one thing and answers met, not met, a warning, or could not tell, with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from runbooks import certificates, readiness, secret_filtering
from runbooks.certificates import Pair
from runbooks.errors import CertificateError
from runbooks.issuance import Issuance, secret_pair
from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
    CONFIG_MAP,
    CONTROL_PLANE,
    CONTROL_PLANE_V1,
    DOMAIN_MAPPING,
    GATEWAY,
    INGRESS_CONFIG,
    KNATIVE_SERVING,
    MEMBER_ROLL,
    NAMESPACE,
    SECRET,
    Kind,
)
from runbooks.manifests import GATEWAY_SELECTOR, INGRESS_GATEWAY, LOCAL_GATEWAY, MEMBER_ROLL_NAME, SERVING_NAMESPACE
from runbooks.parameters import (
    CheckPrerequisites,
    CreateIngressCertificates,
    EnableServingMetrics,
    IntegrateServiceMesh,
)
from runbooks.rights import in_words
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Finding, Verdict, few
from runbooks.versions import (
    BESIDE_KOURIER_UNTIL,
    NEWEST_KNOWN_MESH,
    NEWEST_KNOWN_SERVERLESS,
    OLDEST_MESH,
    OLDEST_MESH_BESIDE_KOURIER,
    OLDEST_SERVERLESS,
    Operator,
    SecretFiltering,
    Version,
)

RBAC = "runbooks list --rbac --mode MODE --parameters DIR prints the roles that are needed"
Need = Callable[[Situation[Any]], Finding]


def _met(title: str, said: str) -> Finding:
    return Finding(title, Verdict.MET, said)


def _not_met(title: str, said: str, remedy: str, see: str = "") -> Finding:
    return Finding(title, Verdict.NOT_MET, said, remedy, see)


def _unreadable(title: str, situation: Situation[Any], kind: Kind) -> Finding | None:
    """A finding where a kind could not be read at all: its CRD is missing, or the account may not read it."""
    said = situation.snapshot.unreadable(kind)
    if not said:
        return None
    if situation.snapshot.not_served(kind):
        remedy = f"install the operator that brings {kind.plural}.{kind.group}"
        return _not_met(title, f"the cluster does not know {kind.name} ({kind.api_version})", remedy)
    return Finding(title, Verdict.UNKNOWN, said, RBAC)


# --- the account -------------------------------------------------------------------------------------------------


def account_rights(situation: Situation[Any]) -> Finding:
    """The account has the rights that the section needs (the page asks for a cluster administrator)."""
    title = "The account has the rights that are needed"
    if not situation.denied:
        return _met(title, "every right asked for is granted")
    said = "missing: " + "; ".join(in_words(situation.denied))
    remedy = RBAC
    if situation.parameters.mode == "apply":
        return _not_met(title, said, remedy)
    # a plan without the server's opinion is still a plan
    return Finding(title, Verdict.WARNING, said, remedy)


# --- versions and operators --------------------------------------------------------------------------------------


def _operator(title: str, found: Operator, oldest: Version, newest: Version) -> Finding:
    words = f"{found.package} {found.version}"
    if found.phase != "Succeeded":
        return _not_met(title, f"{words} is {found.phase or 'not reported'} {found.message}".strip(), "see its CSV")
    if found.version < oldest:
        return _not_met(title, f"{words} is older than {oldest}", f"update the operator to {oldest} or later")
    if (found.version.major, found.version.minor) > (newest.major, newest.minor):
        said = (
            f"{words} is newer than {newest.major}.{newest.minor}, the newest known here; it is treated like that one"
        )
        return Finding(title, Verdict.WARNING, said, "compare with the release notes before you apply")
    return _met(title, words)


def serverless_operator(situation: Situation[Any]) -> Finding:
    """The OpenShift Serverless operator is installed, in a version that is known."""
    title = "OpenShift Serverless Operator is installed"
    found = situation.versions.serverless
    if found is not None:
        return _operator(title, found, OLDEST_SERVERLESS, NEWEST_KNOWN_SERVERLESS)
    return _no_operator(title, situation, "serverless-operator", "serverless_version")


def mesh_operator(situation: Situation[Any]) -> Finding:
    """Service Mesh 2.0.5 or later is installed; Service Mesh 3 is another product with another procedure."""
    return _mesh_operator("Red Hat OpenShift Service Mesh 2.0.5 or later is installed", situation, OLDEST_MESH)


def mesh_operator_beside_kourier(situation: Situation[Any]) -> Finding:
    """Service Mesh 1.x or 2.x is installed: beside Kourier the page supports both."""
    title = "Red Hat OpenShift Service Mesh 1.x or 2.x is installed"
    return _mesh_operator(title, situation, OLDEST_MESH_BESIDE_KOURIER)


def _mesh_operator(title: str, situation: Situation[Any], oldest: Version) -> Finding:
    versions = situation.versions
    if versions.mesh is not None:
        return _operator(title, versions.mesh, oldest, NEWEST_KNOWN_MESH)
    if versions.mesh_3 is not None:
        said = f"Service Mesh {versions.mesh_3.version} is installed; this procedure is Service Mesh 2's"
        return _not_met(title, said, "follow the documentation of OpenShift Serverless with Service Mesh 3")
    return _no_operator(title, situation, "servicemeshoperator", "mesh_version")


def _no_operator(title: str, situation: Situation[Any], package: str, parameter: str) -> Finding:
    if said := situation.snapshot.unreadable(CLUSTER_SERVICE_VERSION):
        remedy = f"set {parameter} to the version that oc get csv -A shows, in quotes"
        return Finding(title, Verdict.UNKNOWN, said, remedy)
    said = f"no ClusterServiceVersion {package}.v… in openshift-serverless or openshift-operators"
    return _not_met(title, said, f"install {package} from OperatorHub")


# --- the mesh ----------------------------------------------------------------------------------------------------


def mesh_namespace(situation: Situation[Any]) -> Finding:
    """The namespace of the control plane exists; the project creates none."""
    name = situation.parameters.mesh_namespace
    return _namespaces("The mesh namespace exists", situation, [name])


def _namespaces(title: str, situation: Situation[Any], names: Iterable[str]) -> Finding:
    if unreadable := _unreadable(title, situation, NAMESPACE):
        return unreadable
    found = {live["metadata"]["name"]: live for live in situation.snapshot.objects(NAMESPACE)}
    missing = [name for name in names if name not in found]
    if missing:
        commands = few((f"oc new-project {name}" for name in missing), " && ")
        return _not_met(title, f"{few(missing)} does not exist", f"create it first: {commands}")
    ending = [name for name in names if found[name]["metadata"].get("deletionTimestamp")]
    if ending:
        return _not_met(title, f"{few(ending)} is being deleted", "wait until it is gone, then create it anew")
    return _met(title, few(names))


def control_plane(situation: Situation[Any]) -> Finding:
    """A ServiceMeshControlPlane exists in the mesh namespace and is ready."""
    title, namespace = "A ServiceMeshControlPlane is ready", situation.parameters.mesh_namespace
    if unreadable := _unreadable(title, situation, _control_plane_kind(situation)):
        return unreadable
    planes = control_planes(situation)
    if not planes:
        remedy = f"create a ServiceMeshControlPlane in {namespace}, or set mesh_namespace"
        return _not_met(title, f"there is none in {namespace}", remedy)
    name = planes[0]["metadata"]["name"]
    state = readiness.control_plane(planes[0])
    if not state.done:
        return _not_met(title, f"{namespace}/{name}: {state.message}", "see its status; the operator's log has more")
    return _met(title, f"{namespace}/{name}")


def _control_plane_kind(situation: Situation[Any]) -> Kind:
    """Service Mesh 1 serves maistra.io/v1 alone; a section that supports it has read both."""
    answered = any(read.kind == CONTROL_PLANE_V1 for read in situation.snapshot.found)
    return CONTROL_PLANE_V1 if answered and situation.snapshot.not_served(CONTROL_PLANE) else CONTROL_PLANE


def control_planes(situation: Situation[Any]) -> tuple[Live, ...]:
    """The control planes in the mesh namespace, where one is expected."""
    return situation.snapshot.objects(_control_plane_kind(situation), situation.parameters.mesh_namespace)


def mutual_tls_on(plane: Live) -> bool:
    """Whether a control plane has mTLS of the data plane switched on, in either version of its API."""
    spec = plane.get("spec") or {}
    of_mesh_1 = ((spec.get("istio") or {}).get("global") or {}).get("mtls") or {}
    return ((spec.get("security") or {}).get("dataPlane") or {}).get("mtls") is True or of_mesh_1.get("enabled") is True


def mutual_tls(situation: Situation[Any]) -> Finding:
    """The mTLS setting as the control plane has it; only ``mtls: required`` insists on it."""
    title = "mTLS of the data plane"
    if unreadable := _unreadable(title, situation, _control_plane_kind(situation)):
        return unreadable
    planes = control_planes(situation)
    switched_on = bool(planes) and mutual_tls_on(planes[0])
    if switched_on or situation.parameters.mtls == "any":
        return _met(title, "on" if switched_on else "off")
    return _not_met(
        title, "off, and mtls is required", "set spec.security.dataPlane.mtls: true in the ServiceMeshControlPlane"
    )


def mutual_tls_beside_kourier(situation: Situation[Any]) -> Finding:
    """Kourier and activator are outside of the mesh, so Pods with a sidecar that insist on mTLS refuse them."""
    found = mutual_tls(situation)
    if found.verdict is not Verdict.MET or not any(map(mutual_tls_on, control_planes(situation))):
        return found
    said = "on, and Kourier and the activator have no sidecar: Pods that have one refuse what they send"
    remedy = "give those namespaces a PeerAuthentication with mode PERMISSIVE, or take the Istio path"
    return Finding(found.title, Verdict.WARNING, said, remedy)


def member_namespaces(situation: Situation[IntegrateServiceMesh]) -> Finding:
    """Every namespace that is to join the mesh exists."""
    return _namespaces("The member namespaces exist", situation, situation.parameters.all_members)


# --- the domain and the certificate ------------------------------------------------------------------------------


def ingress_domain(situation: Situation[Any]) -> Finding:
    """The wildcard certificate covers the cluster's own domain (6.4.1, first prerequisite)."""
    title = "The wildcard matches the cluster's domain"
    given, cluster = situation.parameters.ingress_domain, situation.cluster_domain
    if not cluster:
        said = situation.snapshot.unreadable(INGRESS_CONFIG) or "the cluster's ingress config names no domain"
        if given:
            return Finding(title, Verdict.WARNING, f"{said}; taking ingress_domain {given} at its word")
        return Finding(title, Verdict.UNKNOWN, said, "set ingress_domain, for example apps.openshift.example.com")
    if given and given != cluster:
        return _not_met(
            title,
            f"ingress_domain is {given}, the cluster's domain is {cluster}: *.{given} covers no Knative Service",
            "leave ingress_domain empty; other domains take a DomainMapping with a certificate of its own",
        )
    return _met(title, f"*.{cluster}")


def one_label_hosts(situation: Situation[Any]) -> Finding:
    """Host names of Knative Services have one label below the domain; a wildcard certificate covers no more."""
    title = "Host names have one label below the domain"
    for kind in (KNATIVE_SERVING, CONFIG_MAP):
        said = situation.snapshot.unreadable(kind)
        if said and not situation.snapshot.not_served(kind):
            return Finding(title, Verdict.UNKNOWN, said, RBAC)
    spec = [serving.get("spec") or {} for serving in situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)]
    given = [((one.get("config") or {}).get("network") or {}) for one in spec]
    given.append((situation.snapshot.get(CONFIG_MAP, SERVING_NAMESPACE, "config-network") or {}).get("data") or {})
    # the operator's own template is Name-Namespace.Domain; Knative reads both spellings of the key
    templates = [data[key] for data in given for key in ("domain-template", "domainTemplate") if key in data]
    for template in templates:
        if "." in re.sub(r"{{.*?}}", "", template.rpartition(".{{")[0]):
            said = f"the template {template} makes names of more labels, which *.{situation.domain} does not cover"
            return _not_met(title, said, "set domain-template to {{.Name}}-{{.Namespace}}.{{.Domain}}")
    return _met(title, templates[0] if templates else "the operator's default")


def custom_domains(situation: Situation[CheckPrerequisites]) -> Finding:
    """Domains besides the cluster's own are mapped, claimed, and have certificates (6.4.1, second prerequisite)."""
    title = "Custom domains are mapped"
    wanted = set(situation.parameters.custom_domains)
    if situation.snapshot.not_served(DOMAIN_MAPPING):
        remedy = "create a DomainMapping for each after 6.4.3"
        said = "DomainMapping comes with Knative Serving"
        return Finding(title, Verdict.COMES, said, remedy, "6.4.3") if wanted else _met(title, "none asked for")
    if said := situation.snapshot.unreadable(DOMAIN_MAPPING):
        return Finding(title, Verdict.UNKNOWN, said, RBAC)
    mappings = {live["metadata"]["name"]: live for live in situation.snapshot.objects(DOMAIN_MAPPING)}
    faults = [f"there is no DomainMapping {name}" for name in sorted(wanted - mappings.keys())]
    others: list[str] = []
    for name, live in sorted(mappings.items()):
        state = readiness.conditions(live, "DomainClaimed", "CertificateProvisioned", "Ready")
        if not state.done:
            said = f"DomainMapping {live['metadata']['namespace']}/{name}: {state.message}"
            (faults if name in wanted else others).append(said)
    remedy = "a mapping needs its ClusterDomainClaim and a certificate of its own (spec.tls.secretName)"
    if faults:
        return _not_met(title, few(faults, "; "), remedy)
    if others:  # somebody's, and none that was asked for
        return Finding(title, Verdict.WARNING, few(others, "; "), remedy)
    return _met(title, ", ".join(sorted(mappings)) or "none asked for, none there")


def certificate_material(situation: Situation[CreateIngressCertificates]) -> Finding:
    """What there is of keys and certificates can be used or safely be added to."""
    title = "Keys and certificates can be used"
    if said := situation.snapshot.unreadable(SECRET):
        return Finding(title, Verdict.UNKNOWN, said, RBAC)
    if found := _unreadable_files(title, situation):
        return found
    prepared = situation.prepared
    if isinstance(prepared, CertificateError):
        return _not_met(title, f"{prepared.attempted}: {prepared.said}", prepared.remedy)
    if not isinstance(prepared, Issuance):
        return Finding(title, Verdict.UNKNOWN, "the domain is not known", "set ingress_domain")
    return _met(title, "; ".join(prepared.reasons) or prepared.waiting or "good as they are")


def _unreadable_files(title: str, situation: Situation[Any]) -> Finding | None:
    """A finding where files that parameters name cannot be read."""
    errors = situation.unreadable_files
    if not errors:
        return None
    said = "; ".join(f"{error.attempted}: {error.said}" for error in errors)
    return _not_met(title, said, "; ".join(error.remedy for error in errors))


def usable_certificate(situation: Situation[IntegrateServiceMesh]) -> Finding:
    """The Secret holds a certificate that the gateway can serve for every Knative Service."""
    given = situation.parameters
    title = f"Secret {given.mesh_namespace}/{given.certificate_secret} holds a usable certificate"
    if said := situation.snapshot.unreadable(SECRET):
        return Finding(title, Verdict.UNKNOWN, said, RBAC)
    if unreadable := _unreadable_files(title, situation):
        return unreadable
    try:
        pair = secret_pair(situation)
        found = _certificate_faults(pair, situation) if pair else ["there is no such Secret"]
    except CertificateError as error:
        return _not_met(title, f"{error.attempted}: {error.said}", error.remedy, see="6.4.2")
    if found:
        return _not_met(title, "; ".join(found), "run 6.4.2 first", see="6.4.2")
    return _met(title, f"covers {situation.wildcard}")


def _certificate_faults(pair: Pair, situation: Situation[IntegrateServiceMesh]) -> list[str]:
    if situation.trusts_system:
        anchors = None
    elif situation.trust_anchor is None:
        return [f"there is no trust anchor: neither trust_anchor nor {situation.parameters.certificates_dir}/root.crt"]
    else:
        anchors = certificates.load_chain(situation.trust_anchor, "the trust anchor")
    return certificates.problems(pair, situation.wildcard, anchors, situation.now, origin="the Secret")


# --- Knative Serving and its ingress -----------------------------------------------------------------------------


def istio_path(situation: Situation[Any]) -> Finding:
    """6.4.3 is for clusters where Istio is the only ingress; where Kourier serves, 6.4.5 integrates the mesh."""
    title = "Knative Serving is not installed yet, or has Istio as its only ingress"
    if situation.parameters.ingress != "istio":
        said = f"cluster.yaml says ingress: {situation.parameters.ingress}, and 6.4.3 is of the Istio path"
        return _not_met(title, said, "run 6.4.5, or set ingress: istio", see="6.4.5")
    if unreadable := _unreadable(title, situation, KNATIVE_SERVING):
        return unreadable
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    if not servings:
        return _met(title, "not installed yet")
    enabled = _ingresses(servings[0])
    if enabled == ["istio"]:
        return _met(title, f"{SERVING_NAMESPACE}/{servings[0]['metadata']['name']} with Istio only")
    others = " and ".join(name for name in enabled if name != "istio") or "Kourier, the default,"
    return _not_met(title, f"{others} serves on this cluster", "6.4.5 adds the mesh beside Kourier", see="6.4.5")


def _ingresses(serving: Live) -> list[str]:
    """The ingresses that a KnativeServing enables; none means Kourier, the default."""
    ingress = (serving.get("spec") or {}).get("ingress") or {}
    return sorted(name for name, value in ingress.items() if isinstance(value, dict) and value.get("enabled"))


def kourier_path(situation: Situation[Any]) -> Finding:
    """6.4.5 is for clusters where Kourier serves already; where Istio is the only ingress, 6.4.3 is the way."""
    title = "Knative Serving is installed with Kourier"
    if situation.parameters.ingress != "kourier":
        said = f"cluster.yaml says ingress: {situation.parameters.ingress}, and 6.4.5 is of the Kourier path"
        return _not_met(title, said, "run 6.4.3, or set ingress: kourier", see="6.4.3")
    if unreadable := _unreadable(title, situation, KNATIVE_SERVING):
        return unreadable
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    if not servings:
        remedy = (
            f"create a KnativeServing {SERVING_NAMESPACE} in namespace {SERVING_NAMESPACE} with "
            "spec.ingress.kourier.enabled: true; to have Istio as the only ingress instead, run 6.4.3"
        )
        return _not_met(title, "Knative Serving is not installed", remedy)
    enabled, name = _ingresses(servings[0]), f"{SERVING_NAMESPACE}/{servings[0]['metadata']['name']}"
    if enabled == ["istio"]:
        return _not_met(title, "Istio is the only ingress of this cluster", "run 6.4.3", see="6.4.3")
    if enabled and "kourier" not in enabled:
        said = f"{' and '.join(enabled)} serves on this cluster"
        return _not_met(title, said, "set spec.ingress.kourier.enabled: true in KnativeServing")
    state = readiness.knative_serving(servings[0])
    if not state.done:
        return Finding(title, Verdict.WARNING, f"{name}: {state.message}", "see its status; the proofs need it ready")
    return _met(title, f"{name} with Kourier" + ("" if enabled else ", the default"))


def documented_beside_kourier(situation: Situation[Any]) -> Finding:
    """Service Mesh beside Kourier is deprecated from 1.31 on, and no longer documented."""
    title = "Service Mesh beside Kourier is documented for this version"
    found = situation.versions.serverless
    if found is None or found.version < BESIDE_KOURIER_UNTIL:
        return _met(title, str(found.version) if found else "the version is not known")
    said = f"{found.version}: deprecated, and left out of the documentation, since {BESIDE_KOURIER_UNTIL}"
    return Finding(title, Verdict.WARNING, said, "plan to move to Istio as the only ingress (6.4.3)")


def serving_with_istio(situation: Situation[Any]) -> Finding:
    """Knative Serving is installed with Istio as its only ingress, as 6.4.3 leaves it."""
    title = "Knative Serving is installed with Istio as its ingress"
    if unreadable := _unreadable(title, situation, KNATIVE_SERVING):
        return unreadable
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    if not servings:
        return _not_met(title, f"there is no KnativeServing in {SERVING_NAMESPACE}", "run 6.4.3 first", see="6.4.3")
    if _ingresses(servings[0]) != ["istio"]:
        return _not_met(title, "Kourier serves on this cluster", "this section is of the Istio path", see="6.4.5")
    return _met(title, f"{SERVING_NAMESPACE}/{servings[0]['metadata']['name']}")


def monitoring_namespace(situation: Situation[EnableServingMetrics]) -> Finding:
    """The namespace in which Prometheus runs exists."""
    name = situation.parameters.monitoring_namespace
    return _namespaces("The monitoring namespace exists", situation, [name])


def no_other_gateway(situation: Situation[Any]) -> Finding:
    """No other Gateway of the mesh claims port 443 for every host; of two, the older one wins."""
    title = "No other Gateway claims port 443 for every host"
    if unreadable := _unreadable(title, situation, GATEWAY):
        return unreadable
    ours = {(SERVING_NAMESPACE, INGRESS_GATEWAY), (SERVING_NAMESPACE, LOCAL_GATEWAY)}
    in_mesh = _mesh_members(situation)
    found = [
        f"{live['metadata']['namespace']}/{live['metadata']['name']}"
        for live in situation.snapshot.objects(GATEWAY)
        if live["metadata"]["namespace"] in in_mesh
        and (live["metadata"]["namespace"], live["metadata"]["name"]) not in ours
        and _claims_everything(live)
    ]
    if found:
        said = f"{', '.join(found)} claims port 443 with hosts '*' for the same gateway Pods"
        return _not_met(title, said, "give that Gateway hosts of its own, or remove it")
    if situation.snapshot.is_narrowed(GATEWAY):
        said = "none does in the namespaces that could be read; those of other members were not"
        return Finding(title, Verdict.WARNING, said, RBAC)
    return _met(title, "none does")


def _mesh_members(situation: Situation[Any]) -> set[str]:
    """The namespaces whose Gateways the mesh's control plane sees, those that are to join included."""
    given = situation.parameters
    roll = situation.snapshot.get(MEMBER_ROLL, given.mesh_namespace, MEMBER_ROLL_NAME) or {}
    listed = (roll.get("spec") or {}).get("members") or []
    return {given.mesh_namespace, SERVING_NAMESPACE, *given.members, *listed}


def _claims_everything(gateway: Live) -> bool:
    spec = gateway.get("spec") or {}
    selector = spec.get("selector") or {}
    # Istio applies a Gateway without a selector to every gateway of the mesh
    if selector and not GATEWAY_SELECTOR.items() <= selector.items():
        return False
    return any(
        (server.get("port") or {}).get("number") == 443
        and any(host.rpartition("/")[2] == "*" for host in server.get("hosts") or [])
        for server in spec.get("servers") or []
    )


def local_gateway_variant(situation: Situation[IntegrateServiceMesh]) -> Finding:
    """The HTTPS variant of the page is applied as asked for, with a warning."""
    title = "Variant of knative-local-gateway"
    if situation.parameters.local_gateway == "http":
        return _met(title, "HTTP on port 8081")
    said = (
        "HTTPS: it claims port 443 for every host a second time, so the older of the two Gateways wins, "
        "and nothing listens on 8081 for cluster-local traffic"
    )
    return Finding(title, Verdict.WARNING, said, "prefer local_gateway: http")


# --- the filter of Secrets ---------------------------------------------------------------------------------------

FILTERING_RULES = {
    SecretFiltering.ANNOTATION: "the annotation decides, whatever a workload's entry in KnativeServing says",
    SecretFiltering.DEPRECATED_ANNOTATION: (
        "the annotation is deprecated but honoured, unless a workload's entry in KnativeServing sets the variable"
    ),
    SecretFiltering.DEFAULT: (
        "from 1.32 on the annotation is ignored: the operator switches the filter on by itself, and only a workload's "
        "entry in KnativeServing switches it off"
    ),
}


def filtering_rule(situation: Situation[Any]) -> Finding:
    """What decides on the filter in the version that was found: one sentence, nothing to fail."""
    title = "What switches the filter on in this version"
    found = situation.versions.serverless
    if found is None:
        return Finding(title, Verdict.UNKNOWN, "the version is not known", "see the line on the operator above")
    return _met(title, f"{found.version}: {FILTERING_RULES[situation.profile.secret_filtering]}")


def filtering_not_overridden(situation: Situation[Any]) -> Finding:
    """No entry for the workload switches the filter off where such an entry wins (from 1.28 on)."""
    title = "No workload's entry switches the filter off"
    if unreadable := _unreadable(title, situation, KNATIVE_SERVING):
        return unreadable
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    found = secret_filtering.override(servings[0]) if servings else None
    if found is None:
        return _met(title, "there is none" if servings else "there is no KnativeServing")
    said = f"{found.where} sets {secret_filtering.shown(found.value)} for {secret_filtering.CONTROLLER}"
    if secret_filtering.is_on(found.value):
        return _met(title, said)
    if situation.profile.secret_filtering is SecretFiltering.ANNOTATION:
        return Finding(title, Verdict.WARNING, f"{said}; the annotation wins, but no longer from 1.28 on")
    remedy = f"ask who set it, then take {secret_filtering.VARIABLE} out of that entry (oc edit knativeserving)"
    return _not_met(title, f"{said}, and that wins", remedy)


def _needed_secrets(situation: Situation[Any]) -> tuple[secret_filtering.Needed, ...]:
    return secret_filtering.needed(situation.snapshot.objects(DOMAIN_MAPPING))


def _secrets_of(namespace: str) -> Read:
    return Read(SECRET, namespace, metadata_only=True)


def reads_of_needed_secrets(situation: Situation[Any]) -> tuple[Read, ...]:
    """The metadata of the Secrets in every namespace where a DomainMapping needs one."""
    return tuple(dict.fromkeys(_secrets_of(one.namespace) for one in _needed_secrets(situation)))


def needed_secrets_labelled(situation: Situation[Any]) -> Finding:
    """Every Secret that a DomainMapping serves from carries the label without which the filter hides it."""
    title = "No Secret that a DomainMapping needs is hidden by the filter"
    snapshot = situation.snapshot
    if snapshot.not_served(DOMAIN_MAPPING):
        return _met(title, f"the cluster does not serve {DOMAIN_MAPPING} ({DOMAIN_MAPPING.api_version})")
    if said := snapshot.unreadable(DOMAIN_MAPPING):
        return Finding(title, Verdict.UNKNOWN, said, RBAC)
    if snapshot.is_narrowed(DOMAIN_MAPPING):
        said = "the filter rules in every namespace, and DomainMappings could be read in some only"
        return Finding(title, Verdict.UNKNOWN, said, RBAC)
    wanted = _needed_secrets(situation)
    unread = [one for one in wanted if _secrets_of(one.namespace) not in snapshot.found]
    hidden, missing = secret_filtering.sightless([one for one in wanted if one not in unread], snapshot.objects(SECRET))
    if hidden:
        said = few((f"{one}, lacks the label {secret_filtering.LABEL}" for one in hidden), "; ")
        commands = few(dict.fromkeys(map(secret_filtering.label_command, hidden)), " && ")
        return _not_met(title, said, commands)
    if unread:
        said = few((f"{one}, could not be looked at" for one in unread), "; ")
        return Finding(title, Verdict.UNKNOWN, said, "the account needs list on secrets in those namespaces")
    if missing:
        said = few((f"{one}, does not exist" for one in missing), "; ")
        return Finding(title, Verdict.WARNING, said, f"create it with the label {secret_filtering.LABEL}")
    return _met(title, f"{len(wanted)} needed, all with the label" if wanted else "none is needed")


def secrets_not_shared(situation: Situation[Any]) -> Finding:
    """Of several DomainMappings with one wildcard certificate only the first is served (net-istio issue 1421)."""
    title = "Each DomainMapping has a Secret of its own"
    found = secret_filtering.shared(_needed_secrets(situation))
    if not found:
        return _met(title, "none is shared")
    said = few((f"{secret} serves {few(hosts)}" for secret, hosts in found.items()), "; ")
    remedy = "if it holds a wildcard certificate, only the first host works: give each a Secret of its own"
    return Finding(title, Verdict.WARNING, said, remedy)
