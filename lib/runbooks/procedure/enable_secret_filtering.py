"""What 6.4.6 is: net-istio's controller watches Knative's own Secrets only."""

from __future__ import annotations

from runbooks import manifests, preconditions, secret_filtering
from runbooks.checks import secret_filtering as checks
from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
    DEPLOYMENT,
    DOMAIN_MAPPING,
    KNATIVE_SERVING,
    NAMESPACE,
    SECRET,
    ObjectRef,
)
from runbooks.manifests import SERVING_NAMESPACE
from runbooks.parameters import EnableSecretFiltering
from runbooks.plan import Change, Desired
from runbooks.procedure.section import Awaited, Basis, Erratum, Section, Step
from runbooks.rights import Right
from runbooks.secret_filtering import CONTROLLER
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.verdicts import few
from runbooks.versions import (
    ANNOTATION_DEPRECATED_FROM,
    EVERY_VERSION,
    FILTERED_BY_DEFAULT_FROM,
    OPERATORS_NAMESPACE,
    SERVERLESS_NAMESPACE,
    Range,
    SecretFiltering,
)


def _annotation(situation: Situation[EnableSecretFiltering]) -> tuple[Desired, ...]:
    if situation.profile.secret_filtering is SecretFiltering.DEFAULT:
        return ()
    return (Desired(manifests.secret_filtering(), amend=True),)


def _rolled_out(_: Situation[EnableSecretFiltering]) -> tuple[Awaited, ...]:
    return (Awaited(ObjectRef(DEPLOYMENT, SERVING_NAMESPACE, CONTROLLER), secret_filtering.rolled_out),)


def _rights(given: EnableSecretFiltering) -> tuple[Right, ...]:
    """Secrets are listed where DomainMappings are found to need them, and in the whole cluster only to measure."""
    found = [Right.on(SECRET, "list", member) for member in given.members]
    return (*found, Right.on(SECRET, "list")) if given.measure_secrets else tuple(found)


def _remark(situation: Situation[EnableSecretFiltering]) -> str:
    if situation.profile.secret_filtering is SecretFiltering.DEFAULT and situation.versions.serverless:
        return preconditions.FILTERING_RULES[SecretFiltering.DEFAULT]
    return ""


def _filtered(situation: Situation[EnableSecretFiltering], _: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows for the controller, and for Secrets that it no longer sees."""
    return (
        (
            f"the operator rolls the Deployment {CONTROLLER}: its Pods are made anew; requests are served on "
            "meanwhile, new or changed routes wait for the new Pod"
        ),
        (
            f"from then on the controller sees only Secrets that have the label {secret_filtering.LABEL}: a host whose "
            "certificate lies in a Secret without it, now or later, is served no more"
        ),
        _needed(situation),
    )


def _needed(situation: Situation[EnableSecretFiltering]) -> str:
    """Whether a host goes out, as far as it was found."""
    snapshot = situation.snapshot
    if said := snapshot.unreadable(DOMAIN_MAPPING) or snapshot.unreadable(SECRET):
        return f"OUTAGE RISK: which Secrets DomainMappings need could not be told ({said})"
    wanted = secret_filtering.needed(snapshot.objects(DOMAIN_MAPPING))
    hidden, missing = secret_filtering.sightless(wanted, snapshot.objects(SECRET))
    if hidden:
        return f"OUTAGE: {few(map(str, hidden), '; ')}, has no such label"
    if seen := len(wanted) - len(missing):
        return f"Secrets that DomainMappings need: {seen}, all with the label; they stay in sight"
    return "no DomainMapping serves from a Secret of its own, so no host is lost by it"


ENABLE_SECRET_FILTERING = Section(
    number="6.4.6",
    stem="6.4.6-enable-secret-filtering",
    title="Improve memory usage by filtering Secrets with Service Mesh",
    heading_ja="Service Mesh のシークレットフィルターリングを使用してメモリー使用量を改善する",
    changes="one annotation on KnativeServing; nothing from 1.32 on, where the filter is on by default",
    model=EnableSecretFiltering,
    path="istio",
    reads=lambda given: (
        Read(CLUSTER_SERVICE_VERSION, SERVERLESS_NAMESPACE),
        Read(CLUSTER_SERVICE_VERSION, OPERATORS_NAMESPACE),
        Read(NAMESPACE, name=SERVING_NAMESPACE),
        Read(KNATIVE_SERVING, SERVING_NAMESPACE),
        Read(DOMAIN_MAPPING, otherwise=tuple(given.members)),
    ),
    reads_besides=preconditions.reads_of_needed_secrets,
    rights=_rights,
    needs=lambda _: (
        preconditions.account_rights,
        preconditions.serverless_operator,
        preconditions.mesh_operator,
        preconditions.serving_with_istio,
        preconditions.filtering_rule,
        preconditions.annotation_in_force,
        preconditions.filtering_not_overridden,
        preconditions.needed_secrets_labelled,
        preconditions.secrets_not_shared,
    ),
    remark=_remark,
    steps=(
        Step(
            id="annotation",
            title="Add the annotation to KnativeServing",
            title_ja=(
                "serverless.openshift.io/enable-secret-informer-filtering アノテーションを "
                "KnativeServing CR に追加します。"
            ),
            replaces=(
                (
                    "oc annotate knativeserving knative-serving -n knative-serving "
                    "serverless.openshift.io/enable-secret-informer-filtering=true"
                ),
            ),
            objects=_annotation,
            awaits=_rolled_out,
            checks=(checks.FILTERED, checks.MEASURED),
            consequences=_filtered,
        ),
    ),
    errata=(
        Erratum(
            said="the example shows a complete KnativeServing with the annotation",
            done="the annotation alone is added to the KnativeServing that there is, and none is ever created",
            reason="applied as shown, it takes out what others put there; where there is none, it installs Knative",
            versions=EVERY_VERSION,
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="the annotation puts ENABLE_SECRET_INFORMER_FILTERING_BY_CERT_UID=true into the controller's Pods",
            done="nothing is written, and the variable itself is looked at",
            reason="the annotation is ignored: the operator sets the variable, and only a workload's entry unsets it",
            versions=Range(FILTERED_BY_DEFAULT_FROM),
            basis=Basis.NEWER,
            documented=FILTERED_BY_DEFAULT_FROM,
        ),
        Erratum(
            said="nothing about a workload's entry that sets the variable",
            done="an entry that switches the filter off stops the run",
            reason="the annotation is deprecated, and such an entry is looked at before it",
            versions=Range(ANNOTATION_DEPRECATED_FROM),
            basis=Basis.NEWER,
            documented=ANNOTATION_DEPRECATED_FROM,
        ),
        Erratum(
            said="nothing about Secrets that applications bring themselves",
            done=f"the run stops where a DomainMapping's Secret lacks the label {secret_filtering.LABEL}",
            reason="the controller no longer finds such a Secret, and the host is no longer served",
            versions=EVERY_VERSION,
            basis=Basis.NEWER,
            documented=ANNOTATION_DEPRECATED_FROM,
        ),
    ),
)
