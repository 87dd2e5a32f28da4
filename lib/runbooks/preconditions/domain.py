"""The domain of Knative Services, and the certificate that covers it."""

from __future__ import annotations

import re
from typing import Any

from runbooks import certificates, readiness
from runbooks.certificates import Pair
from runbooks.errors import RBAC, CertificateError
from runbooks.issuance import Issuance, secret_pair
from runbooks.kinds import (
    CONFIG_MAP,
    DOMAIN_MAPPING,
    INGRESS_CONFIG,
    KNATIVE_SERVING,
    SECRET,
)
from runbooks.manifests import SERVING_NAMESPACE
from runbooks.parameters import (
    CheckPrerequisites,
    CreateIngressCertificates,
    IntegrateServiceMesh,
)
from runbooks.preconditions.finding import met, not_met, warned
from runbooks.situation import Situation
from runbooks.verdicts import Finding, Verdict, few


def ingress_domain(situation: Situation[Any]) -> Finding:
    """The wildcard certificate covers the cluster's own domain (6.4.1, first prerequisite)."""
    title = "The wildcard matches the cluster's domain"
    given, cluster = situation.parameters.ingress_domain, situation.cluster_domain
    if not cluster:
        said = situation.snapshot.unreadable(INGRESS_CONFIG) or "the cluster's ingress config names no domain"
        if given:
            remedy = "oc get ingresses.config cluster names the domain: compare it"
            return Finding(title, Verdict.WARNING, f"{said}; taking ingress_domain {given} at its word", remedy)
        return Finding(title, Verdict.UNKNOWN, said, "set ingress_domain, for example apps.openshift.example.com")
    if given and given != cluster:
        return not_met(
            title,
            f"ingress_domain is {given}, the cluster's domain is {cluster}: *.{given} covers no Knative Service",
            "leave ingress_domain empty; other domains take a DomainMapping with a certificate of its own",
        )
    return met(title, f"*.{cluster}")


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
            return not_met(title, said, "set domain-template to {{.Name}}-{{.Namespace}}.{{.Domain}}")
    return met(title, templates[0] if templates else "the operator's default")


def custom_domains(situation: Situation[CheckPrerequisites]) -> Finding:
    """Domains besides the cluster's own are mapped, claimed, and have certificates (6.4.1, second prerequisite)."""
    title = "Custom domains are mapped"
    wanted = set(situation.parameters.custom_domains)
    if situation.snapshot.not_served(DOMAIN_MAPPING):
        remedy = "create a DomainMapping for each after 6.4.3"
        said = "DomainMapping comes with Knative Serving"
        return Finding(title, Verdict.COMES, said, remedy, "6.4.3") if wanted else met(title, "none asked for")
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
        return not_met(title, few(faults, "; "), remedy)
    if others:  # somebody's, and none that was asked for
        return Finding(title, Verdict.WARNING, few(others, "; "), remedy)
    return met(title, ", ".join(sorted(mappings)) or "none asked for, none there")


def certificate_material(situation: Situation[CreateIngressCertificates]) -> Finding:
    """What there is of keys and certificates can be used or safely be added to."""
    title = "Keys and certificates can be used"
    if said := situation.snapshot.unreadable(SECRET):
        return Finding(title, Verdict.UNKNOWN, said, RBAC)
    if found := _unreadable_files(title, situation):
        return found
    prepared = situation.prepared
    if isinstance(prepared, CertificateError):
        return not_met(title, f"{prepared.attempted}: {prepared.said}", prepared.remedy)
    if not isinstance(prepared, Issuance):
        return Finding(title, Verdict.UNKNOWN, "the domain is not known", "set ingress_domain")
    return met(title, "; ".join(prepared.reasons) or prepared.waiting or "good as they are")


def _unreadable_files(title: str, situation: Situation[Any]) -> Finding | None:
    """A finding where files that parameters name cannot be read."""
    errors = situation.unreadable_files
    if not errors:
        return None
    said = "; ".join(f"{error.attempted}: {error.said}" for error in errors)
    return not_met(title, said, "; ".join(error.remedy for error in errors))


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
        return not_met(title, f"{error.attempted}: {error.said}", error.remedy, see="6.4.2")
    if found:
        return not_met(title, "; ".join(found), "run 6.4.2 first", see="6.4.2")
    return met(title, f"covers {situation.wildcard}")


def strict_clients(situation: Situation[IntegrateServiceMesh]) -> Finding:
    """Strict clients accept the certificate, too (6.4.2): the page's commands leave serial 0 and a root without usage.

    6.4.2 itself keeps such a root, since every client holds a copy of it.
    """
    title = "Clients as strict as Python 3.13 accept the certificate"
    if said := situation.snapshot.unreadable(SECRET):
        return warned(title, said, RBAC)
    try:
        pair = secret_pair(situation)
        if pair is None:
            return met(title, "there is none yet")
        chain = certificates.load_chain(pair.chain, "the Secret")
        anchor = situation.trust_anchor
        anchors = certificates.load_chain(anchor, "the trust anchor") if anchor and not situation.trusts_system else []
    except CertificateError as error:
        return warned(title, f"{error.attempted}: {error.said}", error.remedy, "6.4.2")
    if faults := certificates.strict_faults(chain, anchors):
        said = f"{'; '.join(faults)}: curl and browsers take it, Python 3.13 and others that are as strict refuse it"
        remedy = "have it signed anew; a new root goes into an empty certificates_dir, and to every client beforehand"
        return warned(title, said, remedy, "6.4.2")
    return met(title, "it is of version 3, with a positive serial number")


def _certificate_faults(pair: Pair, situation: Situation[IntegrateServiceMesh]) -> list[str]:
    if situation.trusts_system:
        anchors = None
    elif situation.trust_anchor is None:
        return [f"there is no trust anchor: neither trust_anchor nor {situation.parameters.certificates_dir}/root.crt"]
    else:
        anchors = certificates.load_chain(situation.trust_anchor, "the trust anchor")
    return certificates.problems(pair, situation.wildcard, anchors, situation.now, origin="the Secret")
