"""What 6.4.1 is: every "Prerequisites" list of the page, judged section by section before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from runbooks import preconditions
from runbooks.issuance import FOLDER_FILES
from runbooks.kinds import (
    AUTHORIZATION_POLICY,
    CONFIG_MAP,
    DOMAIN_MAPPING,
    KNATIVE_SERVICE,
    MUTATING_WEBHOOK,
    VALIDATING_WEBHOOK,
)
from runbooks.manifests import SERVING_NAMESPACE
from runbooks.parameters import CheckPrerequisites, Parameters
from runbooks.preconditions import Need
from runbooks.procedure.needed_rights import rights_to_read, rights_to_write
from runbooks.procedure.section import Basis, Erratum, Section
from runbooks.rights import Right
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.verdicts import Finding, Verdict
from runbooks.versions import EVERY_VERSION, RESTRUCTURED_FROM

_OF_ALL = (preconditions.one_label_hosts, preconditions.custom_domains, preconditions.leftover_webhooks)
_OF_ISTIO = (preconditions.authorization_policies, preconditions.annotated_services)


def check_prerequisites(sections: Sequence[Section]) -> Section:
    """The section that judges what the given ones need.

    Args:
        sections: all that change something, in the documented order.
    """

    def of_path(given: Parameters) -> tuple[Section, ...]:
        return tuple(section for section in sections if section.path in ("both", given.ingress))

    def needs(given: CheckPrerequisites) -> tuple[Need, ...]:
        found: list[Need] = list(_OF_ALL)
        found += _OF_ISTIO if given.ingress == "istio" else ()
        before: tuple[str, ...] = ()
        for section in of_path(given):
            own = _parameters(section, given)
            found += [_judged(section, need, before) for need in (*section.needs(own), *_told(section))]
            before = (*before, section.number)
        return tuple(found)

    def reads(given: CheckPrerequisites) -> tuple[Read, ...]:
        found = [Read(DOMAIN_MAPPING), Read(CONFIG_MAP, SERVING_NAMESPACE, "config-network")]
        found += [Read(MUTATING_WEBHOOK), Read(VALIDATING_WEBHOOK)]
        if given.ingress == "istio":
            found.append(Read(KNATIVE_SERVICE, otherwise=tuple(given.members)))
            found.append(Read(AUTHORIZATION_POLICY, otherwise=(SERVING_NAMESPACE, given.mesh_namespace)))
        for section in of_path(given):
            found += section.reads(_parameters(section, given))
        return tuple(dict.fromkeys(found))

    def reads_besides(situation: Situation[Any]) -> tuple[Read, ...]:
        found: list[Read] = []
        for section in of_path(situation.parameters):
            found += section.reads_besides(_own(section, situation))
        return tuple(dict.fromkeys(found))

    def asks(situation: Situation[Any]) -> tuple[Right, ...]:
        found = {right for section in of_path(situation.parameters) for right in _rights(section, situation)}
        return tuple(sorted(found))

    return Section(
        number="6.4.1",
        stem="6.4.1-check-prerequisites",
        title="Check the prerequisites of every section",
        heading_ja="前提条件",
        changes="nothing: it judges what each section of this cluster's path needs",
        model=CheckPrerequisites,
        path="both",
        reads=reads,
        reads_besides=reads_besides,
        needs=needs,
        asks=asks,
        files=FOLDER_FILES,
        steps=(),
        inapplicable=lambda _: "this section only judges",
        errata=_ERRATA,
    )


_ERRATA = (
    Erratum(
        said="6.4.2 needs Knative Serving, and 6.4.3 needs that it is not installed yet",
        done="Knative Serving is asked for from 6.4.4 on",
        reason="the two contradict each other, and a Secret needs the mesh namespace only",
        versions=EVERY_VERSION,
        basis=Basis.DOCUMENTED,
    ),
    Erratum(
        said="an account with cluster administrator access, and oc",
        done="each right that is really needed is asked for by access review; oc is not needed",
        reason="an account for a scheduler should have no more than that (runbooks list --rbac prints it)",
        versions=EVERY_VERSION,
        basis=Basis.STANDARD,
    ),
    Erratum(
        said="nothing of other Gateways",
        done="another Gateway on port 443 for every host is looked for",
        reason="of two, the older one wins and the other one is ignored without a word",
        versions=EVERY_VERSION,
        basis=Basis.NEWER,
        documented=RESTRUCTURED_FROM,
    ),
)


def _parameters(section: Section, given: Parameters) -> Parameters:
    """What a section would be run with."""
    return section.model.model_validate({name: getattr(given, name) for name in section.model.model_fields})


def _own(section: Section, situation: Situation[Any]) -> Situation[Any]:
    """The situation as a section would find it."""
    return replace(situation, parameters=_parameters(section, situation.parameters), prepared=None)


def _rights(section: Section, situation: Situation[Any]) -> tuple[Right, ...]:
    own = _own(section, situation)
    return (*rights_to_read(section, own.parameters), *rights_to_write(section, own))


def _told(section: Section) -> tuple[Need, ...]:
    """What the version decides in a section that depends on it, so that it is known before anything is run."""

    def tell(situation: Situation[Any]) -> Finding:
        title, found = "What this version makes of the page", situation.versions.serverless
        if found is None:
            return Finding(title, Verdict.UNKNOWN, "the version is not known", "see the line on the operator above")
        lines = section.differences(situation, of_version=True)
        return preconditions.met(title, "; ".join(lines) or "nothing")

    return (tell,) if any(item.of_version for item in section.errata) else ()


def _judged(section: Section, need: Need, before: Sequence[str]) -> Need:
    """A need of a section, judged in that section's own situation.

    What an earlier section of the path brings is not missing, it comes.
    """

    def judge(situation: Situation[Any]) -> Finding:
        rights = set(_rights(section, situation))
        denied = tuple(right for right in situation.denied if right in rights)
        own = replace(_own(section, situation), denied=denied)
        found = need(replace(own, prepared=section.prepared(own)))
        if found.verdict is Verdict.NOT_MET and found.see in before:
            found = replace(found, verdict=Verdict.COMES)
        return replace(found, section=section.number)

    return judge
