"""The filter of Secrets: what rules it, and what it would hide."""

from __future__ import annotations

from typing import Any

from runbooks import secret_filtering
from runbooks.errors import RBAC
from runbooks.kinds import (
    DOMAIN_MAPPING,
    KNATIVE_SERVING,
    SECRET,
)
from runbooks.manifests import FILTERING_ANNOTATION, SERVING_NAMESPACE
from runbooks.preconditions.finding import met, not_met, unreadable, warned
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.verdicts import Finding, Verdict, few
from runbooks.versions import (
    SecretFiltering,
)

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
    return met(title, f"{found.version}: {FILTERING_RULES[situation.profile.secret_filtering]}")


def annotation_in_force(situation: Situation[Any]) -> Finding:
    """The annotation of 6.4.6 says nothing that a version which ignores it does otherwise (from 1.32 on)."""
    title = "The annotation says what the operator does"
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    values = [(live["metadata"].get("annotations") or {}).get(FILTERING_ANNOTATION) for live in servings]
    value = next((value for value in values if value is not None), None)
    ignored = situation.profile.secret_filtering is SecretFiltering.DEFAULT
    if value is None or secret_filtering.is_on(value) or not ignored:
        return met(title, "there is none" if value is None else f"it says {value}")
    said = f"{FILTERING_ANNOTATION}={value} is ignored from 1.32 on: the filter is on, and Secrets without label unseen"
    remedy = (
        f"take the annotation out; an entry {secret_filtering.CONTROLLER} in spec.workloads that sets "
        f"{secret_filtering.VARIABLE}=false is what switches the filter off"
    )
    return warned(title, said, remedy)


def filtering_not_overridden(situation: Situation[Any]) -> Finding:
    """No entry for the workload switches the filter off where such an entry wins (from 1.28 on)."""
    title = "No workload's entry switches the filter off"
    if finding := unreadable(title, situation, KNATIVE_SERVING):
        return finding
    servings = situation.snapshot.objects(KNATIVE_SERVING, SERVING_NAMESPACE)
    found = secret_filtering.override(servings[0]) if servings else None
    if found is None:
        return met(title, "there is none" if servings else "there is no KnativeServing")
    said = f"{found.where} sets {secret_filtering.shown(found.value)} for {secret_filtering.CONTROLLER}"
    if secret_filtering.is_on(found.value):
        return met(title, said)
    remedy = f"ask who set it, then take {secret_filtering.VARIABLE} out of that entry (oc edit knativeserving)"
    if situation.profile.secret_filtering is SecretFiltering.ANNOTATION:
        return Finding(title, Verdict.WARNING, f"{said}; the annotation wins, but no longer from 1.28 on", remedy)
    return not_met(title, f"{said}, and that wins", remedy)


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
        return met(title, f"the cluster does not serve {DOMAIN_MAPPING} ({DOMAIN_MAPPING.api_version})")
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
        return not_met(title, said, commands)
    if unread:
        said = few((f"{one}, could not be looked at" for one in unread), "; ")
        return Finding(title, Verdict.UNKNOWN, said, "the account needs list on secrets in those namespaces")
    if missing:
        said = few((f"{one}, does not exist" for one in missing), "; ")
        return Finding(title, Verdict.WARNING, said, f"create it with the label {secret_filtering.LABEL}")
    return met(title, f"{len(wanted)} needed, all with the label" if wanted else "none is needed")


def secrets_not_shared(situation: Situation[Any]) -> Finding:
    """Of several DomainMappings with one wildcard certificate only the first is served (net-istio issue 1421)."""
    title = "Each DomainMapping has a Secret of its own"
    found = secret_filtering.shared(_needed_secrets(situation))
    if not found:
        return met(title, "none is shared")
    said = few((f"{secret} serves {few(hosts)}" for secret, hosts in found.items()), "; ")
    remedy = "if it holds a wildcard certificate, only the first host works: give each a Secret of its own"
    return Finding(title, Verdict.WARNING, said, remedy)
