"""What goes wrong in practice, and what of the runbooks tells of it (``python -m tests.pitfalls_table``).

What tells is named by the very functions and checks of the library, so that one which is no longer asked by any section
is missed here; a unit test looks for the tests that are named.
"""

from __future__ import annotations

import ast
import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runbooks import preconditions
from runbooks.checks import way_in
from runbooks.checks.check import Check
from runbooks.checks.membership import MEMBERS_CONFIGURED
from runbooks.checks.secret_filtering import FILTERED
from runbooks.checks.serving_metrics import EFFECTIVE_BACKEND, MONITORING_ADMITTED, PORT_EXCLUDED_IN_PODS
from runbooks.checks.serving_system import SYSTEM_ADMITTED
from runbooks.checks.sidecars import SERVICE_SIDECAR, SYSTEM_SIDECARS
from runbooks.checks.sole_ingress import SOLE_INGRESS
from runbooks.parameters import Parameters, check
from runbooks.preconditions import Need
from runbooks.procedure import SECTIONS
from runbooks.situation import Situation

PAGE = Path(__file__).parents[1] / "docs" / "pitfalls.md"
_CLUSTER = Path(__file__).parent / "cluster"


@dataclass(frozen=True)
class Compared:
    """An object that the plan compares field by field; what differs is shown with its old value and who set it."""

    section: str
    target: str


@dataclass(frozen=True)
class Pitfall:
    """One of them.

    Args:
        what: what is wrong.
        shows: how that is noticed where nobody told.
        told: what tells of it.
        tests: the tests that provoke it on a real API server, as ``module::test``.
        prevented: why it cannot come of a runbook.
        untold: why nothing can tell.
    """

    what: str
    shows: str
    told: tuple[Need | Check | Compared | str, ...] = ()
    tests: tuple[str, ...] = ()
    prevented: str = ""
    untold: str = ""


_DRIFT = "test_runs::test_drift_is_found_named_and_repaired_and_nothing_else_is_touched"
_BLOCKED = "test_refusals::test_a_precondition_that_is_not_met_blocks_every_change"
_AMISS = "test_prerequisites::test_what_is_amiss_is_told_with_what_to_do"
_BY_THE_PAGE = "test_pitfalls::test_the_pages_own_certificate_has_a_common_name_alone_and_strict_clients_refuse_it"
_SERVICES = "test_pitfalls::test_services_that_say_it_where_it_does_not_count"
_SERVING = Compared("6.4.3", "KnativeServing")
_SERVICE = Compared("6.4.3", "the Knative Service of the parameters")

PITFALLS = (
    Pitfall(
        "The wildcard certificate has its name in the common name alone, as the page's commands make it",
        "curl works; browsers, Go and most else refuse it",
        (preconditions.certificate_material, preconditions.usable_certificate),
        (_BY_THE_PAGE,),
    ),
    Pitfall(
        "Serial number 0, X.509 version 1, or a root that does not state its key usage",
        "strict clients, such as Python from 3.13 on, refuse what all others take",
        (preconditions.strict_clients,),
        (_BY_THE_PAGE,),
    ),
    Pitfall(
        "The wildcard is for another domain than the cluster's",
        "everything is ready, and at the very end the host name does not match",
        (preconditions.ingress_domain,),
        (_BLOCKED,),
    ),
    Pitfall(
        "A domain template puts dots between name and namespace",
        "the Service is ready; TLS fails, since a wildcard stands for one label",
        (preconditions.one_label_hosts, way_in.HOST_COVERED),
        (_AMISS,),
    ),
    Pitfall(
        "The Secret lies in the namespace of Knative instead of the gateway's",
        "TLS connections are reset; the Service waits for its load balancer",
        (preconditions.usable_certificate, way_in.CERTIFICATE_SERVED),
        ("test_pitfalls::test_a_secret_in_the_namespace_of_knative_is_not_where_the_gateway_looks",),
    ),
    Pitfall(
        "The Gateway names another Secret, or still the placeholder of the page",
        "as if there were no Secret",
        (Compared("6.4.3", "Gateway"), "every parameter: a value in angle brackets is refused before anything is read"),
        (_DRIFT, "test_refusals::test_a_parameter_is_refused_by_name"),
    ),
    Pitfall(
        "Key and certificate do not belong together, one has expired, or the chain leads to another root",
        "the handshake fails",
        (preconditions.certificate_material, preconditions.usable_certificate, way_in.CERTIFICATE_SERVED),
        ("test_pitfalls::test_a_pair_that_cannot_serve_is_refused_before_anything_is_made",),
    ),
    Pitfall(
        "knative-serving is no member of the mesh",
        "the mesh does not see its Gateways: 404 or a reset, and Services whose routes never get ready",
        (MEMBERS_CONFIGURED, Compared("6.4.3", "ServiceMeshMemberRoll")),
        ("test_pitfalls::test_knative_serving_outside_of_the_mesh_is_named",),
    ),
    Pitfall(
        "An application's namespace is misspelt in the member roll, or does not exist",
        "its Pods run without a sidecar; the roll is never complete",
        (preconditions.member_namespaces, MEMBERS_CONFIGURED),
        (_BLOCKED, "test_kourier::test_a_namespace_that_is_missing_before_the_start_blocks_everything"),
    ),
    Pitfall(
        "The member roll has another name than default, or mesh_namespace is not the namespace of the mesh",
        "the webhook refuses it, or, where that was away, nobody joins",
        (preconditions.sole_member_roll, preconditions.control_plane),
        ("test_pitfalls::test_a_member_roll_of_another_name_is_ignored", _AMISS),
    ),
    Pitfall(
        "The member roll of the page is applied over one that has other members",
        "other teams' applications fall out of the mesh",
        prevented="members are only ever added, one by one, and the plan shows which",
        tests=("test_runs::test_what_other_teams_have_put_there_survives",),
    ),
    Pitfall(
        "Pods are older than the membership of their namespace, or than the excluded port",
        "no sidecar; or Prometheus is kept out although the port is excluded",
        (SYSTEM_SIDECARS, SERVICE_SIDECAR, PORT_EXCLUDED_IN_PODS),
        (
            "test_pitfalls::test_a_pod_without_a_sidecar_is_named",
            "test_metrics::TestInThePagesOrder::test_the_pods_that_keep_prometheus_out_are_named",
        ),
    ),
    Pitfall(
        "mTLS is strict, and activator or autoscaler has no sidecar",
        "the activator is never ready: no websocket to the autoscaler",
        (_SERVING, SYSTEM_SIDECARS),
        (_DRIFT, "test_pitfalls::test_a_pod_without_a_sidecar_is_named"),
    ),
    Pitfall(
        "The annotation is missing that has the sidecar answer probes",
        "under strict mTLS probes fail, and Pods restart without end",
        (_SERVING, _SERVICE, preconditions.annotated_services),
        ("test_pitfalls::test_probes_that_are_not_rewritten_differ", _SERVICES),
    ),
    Pitfall(
        "With Service Mesh 3, a sidecar is asked for by annotation alone",
        "no sidecar at all",
        (preconditions.mesh_operator,),
        ("test_prerequisites::test_service_mesh_3_is_recognised_and_named",),
    ),
    Pitfall(
        "The annotations for sidecar and Route stand on the wrong level of the Knative Service",
        "no sidecar; or the router terminates TLS with its own certificate",
        (_SERVICE, preconditions.annotated_services),
        (_SERVICES,),
    ),
    Pitfall(
        "enablePassthrough is set to false",
        "TLS is passed through all the same: only the key counts",
        (_SERVICE, preconditions.annotated_services),
        (_SERVICES,),
    ),
    Pitfall(
        "enablePassthrough is missing",
        "the Route leads to a port for which the page makes no Gateway: 503",
        (_SERVICE, way_in.ROUTE_PASSTHROUGH, preconditions.annotated_services),
        (_DRIFT, _SERVICES),
    ),
    Pitfall(
        "The Serverless operator's NetworkPolicies are there, those of the mesh are not",
        "the activator does not reach the autoscaler: i/o timeout",
        (preconditions.policies_of_the_mesh,),
        ("test_pitfalls::test_policies_of_the_operator_without_those_of_the_mesh_close_knative_to_itself",),
    ),
    Pitfall(
        "Beside Kourier, the label on Knative's namespaces or the NetworkPolicy of an application is missing",
        "503 or timeouts between Kourier, activator and application",
        (Compared("6.4.5", "Namespace and NetworkPolicy"), SYSTEM_ADMITTED),
        ("test_kourier::test_drift_is_found_named_and_repaired_and_nothing_else_is_touched",),
    ),
    Pitfall(
        "Something keeps Prometheus out: the setting, the port, or a policy for a label that is not there",
        "targets are down, no metrics",
        (EFFECTIVE_BACKEND, MONITORING_ADMITTED, PORT_EXCLUDED_IN_PODS),
        (
            "test_metrics::test_drift_is_found_named_and_repaired",
            "test_metrics::test_a_label_that_the_policy_asks_for_and_the_namespace_lacks_is_drift",
        ),
    ),
    Pitfall(
        "From 1.38 on, the metrics key of the page",
        "nothing complains, and metrics stay off",
        (EFFECTIVE_BACKEND,),
        ("test_versions::test_strict_documentation_keeps_to_the_key_of_the_page_and_claims_no_success",),
    ),
    Pitfall(
        "Secrets are filtered, and one that a DomainMapping serves from lacks the label",
        "the host is served no more; the mapping is not ready",
        (preconditions.needed_secrets_labelled,),
        ("test_secret_filtering::test_an_unlabelled_secret_stops_the_run_until_it_is_labelled",),
    ),
    Pitfall(
        "From 1.32 on, the filter's annotation",
        "it seems to switch the filter on or off, and does neither",
        (preconditions.filtering_rule, preconditions.annotation_in_force, FILTERED),
        ("test_pitfalls::test_an_annotation_that_the_version_ignores",),
    ),
    Pitfall(
        "Two Gateways of one mesh claim port 443 for every host",
        "a certificate at random, or 404; one of them is ignored without a word",
        (preconditions.no_other_gateway, preconditions.local_gateway_variant),
        ("test_pitfalls::test_another_gateway_for_every_host",),
    ),
    Pitfall(
        "The local gateway's Service lacks its label",
        "Istio translates the port, and two listeners claim 8081",
        (Compared("6.4.3", "Service knative-local-gateway"),),
        (_DRIFT,),
    ),
    Pitfall(
        "Several DomainMappings serve from one wildcard certificate",
        "only the first host works",
        (preconditions.secrets_not_shared,),
        ("test_secret_filtering::test_a_secret_that_several_hosts_share_and_one_that_is_missing_are_warnings",),
    ),
    Pitfall(
        "An older Route has the host, for example one that was left when the mesh moved",
        "the router answers 503, or leads elsewhere",
        (way_in.ROUTE_PASSTHROUGH,),
        ("test_pitfalls::test_a_route_whose_host_an_older_one_has",),
    ),
    Pitfall(
        "The wildcard covers the console and other hosts of the router, too",
        "a browser sends requests for those over the connection that it has, to the gateway: 404",
        untold="it is so wherever the page is followed, and whether it shows is up to the browser's HTTP/2: a warning "
        "that always stands there tells nothing. Applications under a domain of their own are spared",
    ),
    Pitfall(
        "Port 8022 is not excluded, by which a Pod is drained",
        "requests are dropped when Pods go",
        (preconditions.drain_port,),
        ("test_pitfalls::test_a_drain_port_that_is_not_excluded_is_told_where_it_is_documented",),
    ),
    Pitfall(
        "Kourier and Istio are both enabled",
        "Kourier wins, and nothing comes of the Gateways",
        (preconditions.istio_path, SOLE_INGRESS),
        ("test_pitfalls::test_kourier_beside_istio_wins",),
    ),
    Pitfall(
        "An AuthorizationPolicy denies everything before others allow",
        "403, and the probes take that for an answer: everything is reported as ready",
        (preconditions.authorization_policies, way_in.HTTPS_ANSWER),
        ("test_pitfalls::test_a_policy_that_denies_before_one_allows",),
    ),
    Pitfall(
        "true without quotes in an annotation or a label",
        "the server refuses the object",
        prevented="values are text where the API has text, and the server stores nothing else",
        tests=("test_pitfalls::test_true_without_quotes_is_refused_by_the_server_and_never_rendered",),
    ),
    Pitfall(
        "The content of a DomainMapping's Secret is replaced",
        "the old certificate is served on (a known issue of 1.29's release notes)",
        untold="the API says nothing of what is served, and to compare it one has to read the private keys of "
        "applications, of which the runbooks look at metadata only. Of the wildcard certificate the proof "
        f"*{way_in.CERTIFICATE_SERVED.title}* tells it",
    ),
    Pitfall(
        "Webhooks of an earlier Knative Serving were left behind",
        "the next installation stops: no endpoints available for service webhook",
        (preconditions.leftover_webhooks,),
        ("test_pitfalls::test_a_webhook_of_an_earlier_knative_serving",),
    ),
)


def _given(number: str) -> Parameters:
    ingress = "kourier" if SECTIONS[number].path == "kourier" else "istio"
    return check(SECTIONS[number].model, {"context": "any", "ingress": ingress, "certificates_dir": "/certificates"})


def sections_of(told: Need | Check) -> list[str]:
    """The sections that ask for a precondition themselves, or prove an effect; 6.4.1 judges the former besides."""
    if isinstance(told, Check):
        return [number for number, section in SECTIONS.items() for step in section.steps if told in step.checks]
    return [number for number, section in SECTIONS.items() if told in section.needs(_given(number))]


def _title(need: Need) -> str:
    situation = Situation(_given(sections_of(need)[0]), dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    return need(situation).title


def told_by(told: Need | Check | Compared | str) -> str:
    """What tells of something, as a page names it."""
    if isinstance(told, str):
        return told
    if isinstance(told, Compared):
        return f"comparison: {told.target} ({told.section})"
    sections = ", ".join(sections_of(told))
    if isinstance(told, Check):
        return f"proof: *{told.title}* ({sections})"
    return f"precondition: *{_title(told)}* ({sections})"


def defined_in(module: str) -> set[str]:
    """The tests of a module, those of its classes as ``Class::test``."""
    tree = ast.parse((_CLUSTER / f"{module}.py").read_text())
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return {name for name in found if name.rpartition("::")[2].startswith("test_")}


def shown_test(test: str) -> str:
    """A test as a link to its module."""
    module, _, name = test.partition("::")
    return f"[`{name}`](../tests/cluster/{module}.py)"


def _row(number: int, one: Pitfall) -> str:
    said = [told_by(told) for told in one.told]
    said += [f"cannot come about: {one.prevented}"] if one.prevented else []
    said += [f"nothing: {one.untold}"] if one.untold else []
    tests = "<br>".join(map(shown_test, one.tests)) or "–"
    return f"| {number} | {one.what} | {one.shows} | {'<br>'.join(said)} | {tests} |"


def _count(found: Iterable[object]) -> int:
    return len([one for one in found if one])


def page() -> str:
    """All of them in a table, and at its top how many there are of each sort."""
    told = _count(one.told for one in PITFALLS)
    prevented, untold = _count(one.prevented for one in PITFALLS), _count(one.untold for one in PITFALLS)
    counts = (
        f"What goes wrong in practice with Service Mesh and OpenShift Serverless: {len(PITFALLS)} pitfalls. Of {told} "
        f"a runbook tells, {prevented} cannot come about with it, and of {untold} nothing here can tell."
    )
    words = (
        "A precondition is judged before anything is changed; 6.4.1 judges those of every section of the path as well. "
        "A comparison shows each field that differs, with who set it. A proof looks at the effect, and fails the run. "
        "The tests provoke it on a real API server; operators, router and injection are stand-ins there."
    )
    head = ("| | pitfall | how it shows | what tells of it | provoked by |", "|---|---|---|---|---|")
    lines = ["# Pitfalls", "", "Made from `tests/pitfalls_table.py` by `make docs`.", "", counts, "", words, "", *head]
    return "\n".join([*lines, *(_row(number, one) for number, one in enumerate(PITFALLS, start=1)), ""])


if __name__ == "__main__":
    PAGE.write_text(page())
