"""In what the versions differ, and what the runbooks make of it (``python -m tests.versions_table``).

What differs from the page stands in the procedure itself, and is taken from there. The rest is named by the functions
that tell of it, so that one which no section asks any more is missed here; a unit test looks for the tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runbooks import preconditions
from runbooks.checks.check import Check
from runbooks.checks.membership import MEMBERS_CONFIGURED
from runbooks.checks.serving_metrics import MONITORING_ADMITTED
from runbooks.preconditions import Need
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Basis
from runbooks.versions import (
    NEWEST_KNOWN_MESH,
    NEWEST_KNOWN_SERVERLESS,
    OLDEST_MESH,
    OLDEST_MESH_OF_NEWER,
    OLDEST_SERVERLESS,
)
from tests.cluster.test_versions import PAIRS, Pair
from tests.pitfalls_table import Compared, shown_test, told_by

PAGE = Path(__file__).parents[1] / "docs" / "versions.md"


@dataclass(frozen=True)
class Difference:
    """Something that is not the same in every version.

    Args:
        versions: in which it is so.
        what: what is so.
        done: what the runbook does.
        why: why that.
        told: what tells of it.
        tests: the tests in which it is played, as ``module::test``.
    """

    versions: str
    what: str
    done: str
    why: str
    told: tuple[Need | Check | Compared | str, ...] = ()
    tests: tuple[str, ...] = ()


_PLAYED = "test_versions::test_what_a_version_has_of_its_own_is_played"
_FILTER = "test_versions::test_the_filter_is_on_and_by_what"
_LABEL = "test_versions::test_the_label_is_written_wherever_it_is_missing"
_WARNED = "test_versions::test_6_4_1_warns_of_what_the_version_makes_a_risk_and_of_nothing_else"
_UNIT = "a unit test of the precondition"

OF_SERVERLESS = (
    Difference(
        f"before {OLDEST_SERVERLESS.line}",
        "KnativeServing is not served in v1beta1",
        "every section that needs the operator is blocked; 6.4.2 makes a certificate and a Secret, and needs none",
        "the page applies v1beta1",
        (preconditions.serverless_operator,),
        ("test_versions::test_1_25_is_refused_with_reason_and_remedy",),
    ),
    Difference(
        "before 1.28",
        "the annotation of 6.4.6 decides on the filter, whatever a workload's entry in KnativeServing says",
        "it is set, as on the page; an entry that says otherwise is a warning",
        "from 1.28 on the entry would win",
        (preconditions.filtering_rule, preconditions.filtering_not_overridden),
        (_FILTER,),
    ),
    Difference(
        "before 1.29",
        "KnativeServing is served in v1alpha1 as well",
        "v1beta1 is used",
        "the page uses it, and every version from the oldest on serves it",
        tests=(_PLAYED,),
    ),
    Difference(
        "before 1.32",
        "domain-mapping and domainmapping-webhook are Deployments of their own",
        "none is named: the conditions of KnativeServing are waited for",
        "which Deployments there are is the operator's affair",
        tests=(_PLAYED,),
    ),
    Difference(
        "before 1.32",
        "the operator's NetworkPolicy knows the monitoring namespace by the label `name`, and cannot be left out",
        "it is left alone; the proof weighs all policies with the labels that the namespace really has",
        "the operator would take back what is changed",
        (MONITORING_ADMITTED, preconditions.policies_of_the_mesh),
        ("test_versions::test_the_policy_for_monitoring_is_the_operators_own",),
    ),
    Difference(
        "1.32 and later",
        "that policy knows it by `kubernetes.io/metadata.name`, and an annotation of KnativeServing leaves it out",
        "the same; where it is left out, that of the page is created",
        "the same",
        (MONITORING_ADMITTED, preconditions.policies_of_the_mesh),
        (
            "test_versions::test_the_policy_for_monitoring_is_the_operators_own",
            "test_versions::test_where_the_operator_is_told_to_keep_no_policies_that_of_the_page_is_made",
        ),
    ),
    Difference(
        "1.31 and later",
        "the documentation excludes port 8022 beside 8444",
        "a warning where it is not excluded; only 8444 is added",
        "the page has 8444 alone",
        (preconditions.drain_port,),
        (_WARNED,),
    ),
    Difference(
        "1.31 and later",
        f"the documentation asks for Service Mesh {OLDEST_MESH_OF_NEWER.line} or later",
        "a warning with an older one",
        f"the page asks for {OLDEST_MESH} or later",
        (preconditions.mesh_operator,),
        (_WARNED,),
    ),
    Difference(
        "1.31 and later",
        "the combination of mesh and Kourier is deprecated, and the documentation leaves it out",
        "a warning; done as on the page",
        "the page has it, and for a cluster with Kourier nothing else",
        (preconditions.documented_beside_kourier,),
        (_WARNED,),
    ),
    Difference(
        "1.32 and later",
        "the controller of Kourier filters Secrets, too",
        "nothing: 6.4.6 is of the Istio path",
        "the page says nothing of it; a Secret of a DomainMapping needs the label there as well",
        tests=(_FILTER,),
    ),
    Difference(
        "before 1.35",
        "the operator sees to it that `knative-serving-ingress` has its label; `knative-serving` it labels only when "
        "it creates it",
        "the label is written wherever it is missing",
        "a namespace that was there before the operator never gets it",
        (Compared("6.4.5", "Namespace"),),
        (_LABEL,),
    ),
    Difference(
        "1.35 and later",
        "it labels both only when it creates them",
        "the same",
        "the same",
        (Compared("6.4.5", "Namespace"),),
        (_LABEL,),
    ),
    Difference(
        f"after {NEWEST_KNOWN_SERVERLESS.line}",
        "unknown",
        f"a warning; treated like {NEWEST_KNOWN_SERVERLESS.line}",
        "most of what has changed once stays so",
        (preconditions.serverless_operator,),
        ("test_versions::test_1_99_is_treated_as_the_newest_known_with_a_warning",),
    ),
)

OF_MESH = (
    Difference(
        "1.x",
        "the control plane is served in maistra.io/v1 alone, mTLS is `spec.istio.global.mtls`, there are no "
        "PeerAuthentications, and the member roll tells no more than its configured members",
        "6.4.5 reads either form and waits for the configured members; the Istio path is blocked",
        "the page: 1.x and 2.x beside Kourier, else 2.0.5 or later",
        (preconditions.mesh_operator_beside_kourier, preconditions.control_plane, MEMBERS_CONFIGURED),
        (_PLAYED,),
    ),
    Difference(
        f"before {OLDEST_MESH}",
        "the page does not support it with Istio as the ingress",
        "the Istio path is blocked",
        "the page",
        (preconditions.mesh_operator,),
        ("test_refusals::test_a_mesh_that_is_too_old",),
    ),
    Difference(
        "before 2.4",
        "the namespace of the mesh has the label `maistra.io/ignore-namespace`",
        "nothing depends on it",
        "who is a member, the member roll tells",
        tests=(_PLAYED,),
    ),
    Difference(
        f"after {NEWEST_KNOWN_MESH.line}",
        "unknown",
        f"a warning; treated like {NEWEST_KNOWN_MESH.line}",
        "as above",
        (preconditions.mesh_operator,),
    ),
    Difference(
        "3",
        "another product: no member roll, no injection by annotation, a gateway of one's own",
        "blocked where it is the only one, whatever `mesh_version` states",
        "the procedure is Service Mesh 2's; with 3 it is a technology preview from Serverless 1.37 on",
        (preconditions.mesh_operator,),
        ("test_prerequisites::test_service_mesh_3_is_recognised_and_named",),
    ),
)

_UNPLAYED = (
    "The stand-ins do not play two differences on which no runbook depends: from 1.28 on the operator labels its own "
    "Secret of internal encryption where the filter is on, and the router's time-out on Routes."
)
_TRIED = (
    "In sandboxes: the API server is real, the operators are stand-ins that play these versions. Each section is "
    "planned, applied, and run a second time, which writes nothing."
)


def _of_page() -> Iterable[str]:
    """What differs from the page by version, as the procedure has it."""
    for section in SECTIONS.values():
        for item in section.errata:
            if item.of_version:
                strict = "; off with `strict_documentation`" if item.basis is Basis.UNDOCUMENTED else ""
                why = f"{item.reason} ({item.source}{strict})"
                yield f"| {item.versions} | {section.number} | {item.said} | {item.done} | {why} |"


def _row(one: Difference) -> str:
    told = "<br>".join(map(told_by, one.told)) or "–"
    tests = "<br>".join(map(shown_test, one.tests)) or _UNIT
    return f"| {one.versions} | {one.what} | {one.done} | {one.why} | {told} | {tests} |"


def _pair(pair: Pair) -> str:
    sections = "6.4.1, 6.4.2, 6.4.3, 6.4.4, 6.4.6" if pair.ingress == "istio" else "6.4.1, 6.4.5"
    return f"| {pair.serverless} | {pair.mesh} | {pair.ingress} | {sections} |"


def page() -> str:
    """What differs, in tables, and which versions were tried together."""
    words = (
        "The versions are read from the ClusterServiceVersions of both operators. Where the cluster does not tell, "
        "`serverless_version` and `mesh_version` state them, and a warning says so. 6.4.1 says for the cluster at hand "
        "what differs, and so does the cell *desired* of each notebook, in one line each; `runbooks list SECTION` "
        "prints all of them."
    )
    strict = (
        "With `strict_documentation: true` whatever is not documented is left as on the page; what then does not take "
        "effect is a failed proof, and no success. [steps.md](steps.md) has what differs in every version."
    )
    head = ("| versions | what is so | the runbooks | why | told by | played in |", "|---|---|---|---|---|---|")
    lines = ["# Versions", "", "Made from `runbooks.procedure` and `tests/versions_table.py` by `make docs`.", ""]
    lines += [words, "", strict, "", "## Where a version differs from the page", ""]
    lines += ["| Serverless | section | the page | here | why |", "|---|---|---|---|---|", *_of_page(), ""]
    lines += ["## What else differs: OpenShift Serverless", "", *head, *map(_row, OF_SERVERLESS), ""]
    lines += ["## What else differs: Service Mesh", "", *head, *map(_row, OF_MESH), "", _UNPLAYED, ""]
    lines += ["## What was tried together", ""]
    lines += [_TRIED, "", "| Serverless | Service Mesh | ingress | sections |", "|---|---|---|---|"]
    lines += [*map(_pair, PAIRS), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
