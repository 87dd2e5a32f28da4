"""How results look: a structured value, a text twin and an HTML twin."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks import display, manifests
from runbooks.approval import Consent
from runbooks.display import MIME, View
from runbooks.ownership import Owner
from runbooks.parameters import IntegrateServiceMesh
from runbooks.plan import Change, FieldChange, Operation, Plan, Waits
from runbooks.procedure.section import Section, Step
from runbooks.verdicts import Checked, Finding, Outcome, Proof, Verdict
from runbooks.wait import Look

ODD = '<script>alert("it\'s")</script> & <b>ｂ</b>'
EDITOR = Owner("kubectl-edit", "Update", "2026-02-01T00:00:00Z")

STEP = Step("gateways", "Create the gateways", "ゲートウェイを作成します。", (), lambda _: ())
SECTION = Section(
    number="6.4.3",
    stem="6.4.3-integrate",
    title="Integrate",
    heading_ja="統合",
    changes="things",
    model=IntegrateServiceMesh,
    path="istio",
    reads=lambda _: (),
    needs=(),
    steps=(STEP,),
)


class Page(HTMLParser):
    """What a browser shows of a fragment, and whether every element was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.opened, self.elements = "", [], set[str]()
        self.feed(html)
        self.close()
        assert [] == self.opened

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        if tag != "br":
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.opened.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


FINDINGS = [
    Finding("The namespace exists", Verdict.MET, "istio-system"),
    Finding("Version", Verdict.WARNING, "1.40 is newer", "compare the release notes"),
    Finding("The Secret is usable", Verdict.NOT_MET, "there is no such Secret", "run 6.4.2 first", "6.4.2"),
    Finding("Domain", Verdict.UNKNOWN, "forbidden"),
]
CHANGES = (
    Change(
        "member-roll",
        "ServiceMeshMemberRoll istio-system/default",
        ("maistra.io/v1", "ServiceMeshMemberRoll", "istio-system", "default"),
        Operation.CREATE,
        (FieldChange("spec.members[+]", None, "knative-serving"),),
    ),
    Change(
        "gateways",
        "Gateway knative-serving/knative-ingress-gateway",
        ("networking.istio.io/v1alpha3", "Gateway", "knative-serving", "knative-ingress-gateway"),
        Operation.UPDATE,
        (
            FieldChange("spec.servers[0].tls", {"mode": "PASSTHROUGH"}, {"mode": "SIMPLE", "ports": [1]}, (EDITOR,)),
            FieldChange("spec.x", True, "y" * 300),
        ),
        takes_over=(("spec.servers", EDITOR),),
        notes=("a note",),
        problems=("a problem",),
    ),
    Change("secret", "Secret a/b", ("v1", "Secret", "a", "b"), Operation.UNCHANGED),
)
CHECKS = [
    Checked("It answers", Proof.PROVEN, "status 200", "status 200", "a request", "not shown"),
    Checked("It is covered", Proof.FAILED, "*.apps", "*.other", "a handshake", "run it again", "6.4.2"),
    Checked("The local name answers", Proof.UNPROVEN, "", "forbidden", ""),
]
OUTCOME: dict[str, Any] = {
    "section": "6.4.3",
    "outcome": Outcome.DONE,
    "reason": "2 written, 1 effect proven",
    "mode": "apply",
    "plan": {"digest": "plan-sha256:abc"},
    "requests": {"GET": 3, "PATCH": 2},
    "started": "2026-11-25T18:00:00.000+00:00",
    "finished": "2026-11-25T18:00:03.000+00:00",
    "target": {"server": "https://api", "user": "jane"},
    "parameters": {"change_ticket": "CHG1", "reason": ""},
}
TARGET = {"server": "https://api.prod-a:6443", "kubernetes": "v1.29.1", "user": "alice", "stand_ins": "", "none": None}

NOON = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
CONSENT = Consent((), "plan-sha256:abc", ODD, NOON, NOON)

VIEWS: dict[str, View] = {
    "note": display.note("applied", "gateways", "Nothing to do."),
    "target": display.target(SECTION, TARGET),
    "preconditions": display.preconditions(FINDINGS),
    "desired": display.desired(
        [manifests.local_gateway_http()],
        [("/c/root.key", "a new key")],
        differences=("differs: the page says → the runbook does", "differs: it says this → it does that"),
        of_version=("differs: it says this → it does that",),
    ),
    "plan": display.plan(Plan(CHANGES), "plan"),
    "applied": display.applied(STEP, [{"operation": "create", "target": "Gateway a/b", "audit_id": "42"}]),
    "waited": display.waited(STEP, [{"ready": True, "target": "Gateway a/b", "said": "after 2 s"}]),
    "proved": display.proved(STEP, CHECKS),
    "failure": display.failure("waited", "gateways", ["waiting 1 s: not yet", "What to do: wait longer"]),
    "outcome": display.outcome(OUTCOME),
    "values": display.values(SECTION, {"reason": ODD}, {"timeout_s": 600}, [f"reason: {ODD}"]),
    "question": display.question(Plan(CHANGES), "api.prod-a", 60),
    "consented": display.consented(CONSENT, "api.prod-a", 2),
    "awaiting": display.awaiting([Look("Gateway a/b", False, ODD, 2.0), Look("Pod c/d", True, "", 1.0)], NOON, NOON),
    "archived": display.archived("2026-x", Path("/records"), "head", [ODD], "made a key"),
    "overview": display.overview("prod-a", Path("/p"), [(SECTION, "blocked", ODD, FINDINGS)], ["sandbox"]),
}

each_view = pytest.mark.parametrize("name", VIEWS)


# --- what goes for all of them -----------------------------------------------------------------------------------


@each_view
def test_a_cell_keeps_the_value_and_both_twins(name: str) -> None:
    view = VIEWS[name]
    bundle = view._repr_mimebundle_(include=None, exclude=None)
    assert {MIME, "text/html", "text/plain"} == bundle.keys()
    assert bundle["text/plain"] == view.text == repr(view)
    assert f'<div class="mathjax_ignore">{view.html}</div>' == bundle["text/html"]
    assert view.kind == bundle[MIME]["view"]


@each_view
def test_the_value_is_json(name: str) -> None:
    structured = VIEWS[name]._repr_mimebundle_()[MIME]
    assert structured == json.loads(json.dumps(structured, allow_nan=False))


@each_view
def test_the_html_is_a_whole_fragment_of_plain_elements(name: str) -> None:
    page = Page(VIEWS[name].html)
    assert page.elements <= {"p", "a", "b", "br", "pre", "div", "code", "ul", "li", "details", "summary"} | {
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    }
    assert page.text.strip() != ""


@each_view
def test_there_is_something_brief_to_say(name: str) -> None:
    brief = VIEWS[name].brief
    assert brief
    assert all(line.strip() and "\n" not in line for line in brief)


def odd_views() -> dict[str, View]:
    """Views of text that somebody else wrote, in every place where such text can stand."""
    owner = Owner(ODD, "Update", ODD)
    change = Change(ODD, ODD, (ODD,) * 4, Operation.UPDATE, (FieldChange(ODD, ODD, {ODD: ODD}, (owner,)),))
    noted = Change(ODD, ODD, (ODD,) * 4, Operation.CREATE, (), ((ODD, owner),), (ODD,), (), (ODD,))
    section = Section(ODD, ODD, ODD, ODD, ODD, IntegrateServiceMesh, "both", lambda _: (), (), ())
    return {
        "note": display.note("applied", ODD, ODD),
        "target": display.target(section, {"server": ODD, "kubernetes": ODD, "user": ODD, ODD: ODD}),
        "preconditions": display.preconditions([Finding(ODD, Verdict.NOT_MET, ODD, ODD, ODD)]),
        "desired": display.desired([{"data": {ODD: ODD}}], [(ODD, ODD)], ODD, [ODD], [ODD]),
        "plan": display.plan(Plan((change, noted)), "plan"),
        "applied": display.applied(STEP, [{"operation": ODD, "target": ODD, "audit_id": ODD}]),
        "waited": display.waited(STEP, [{"ready": False, "target": ODD, "said": ODD}]),
        "proved": display.proved(STEP, [Checked(ODD, Proof.FAILED, ODD, ODD, ODD, ODD)]),
        "failure": display.failure("waited", ODD, [ODD]),
        "outcome": display.outcome(OUTCOME | {"section": ODD, "outcome": ODD, "reason": ODD, "mode": ODD}),
        "values": display.values(section, {ODD: ODD}, {ODD: ODD}, [ODD]),
        "question": display.question(Plan((change,)), ODD, 60),
        "consented": display.consented(CONSENT, ODD, 2),
        "awaiting": display.awaiting([Look(ODD, False, ODD, 2.0)], NOON, NOON),
        "archived": display.archived(ODD, Path(ODD), ODD, [ODD], ODD),
        "overview": display.overview(
            ODD, Path(ODD), [(section, ODD, ODD, [Finding(ODD, Verdict.NOT_MET, ODD, ODD, ODD)])], [ODD]
        ),
    }


@each_view
def test_text_of_others_is_never_taken_for_html(name: str) -> None:
    page = Page(odd_views()[name].html)
    assert "script" not in page.elements
    assert ODD in page.text


# --- each of them ------------------------------------------------------------------------------------------------


def test_the_target_shows_what_is_known() -> None:
    assert (
        "Runbook 6.4.3: Integrate\n  server      https://api.prod-a:6443\n  kubernetes  v1.29.1\n  user        alice"
        == (VIEWS["target"].text)
    )
    assert TARGET == VIEWS["target"].data


def test_preconditions_say_what_to_do_where_they_are_not_met() -> None:
    found = VIEWS["preconditions"]
    signs = [line.split("  ")[0] for line in found.text.splitlines()]
    assert ["✓ met", "! warning", "", "✗ not met", "", "? could not tell"] == signs
    assert "What to do: compare the release notes" in found.text
    assert "What to do: run 6.4.2 first (runbook 6.4.2)" in found.text
    assert {
        "title": "The Secret is usable",
        "verdict": "not met",
        "said": "there is no such Secret",
        "remedy": "run 6.4.2 first",
        "see": "6.4.2",
        "section": "",
    } == found.data["findings"][2]
    assert (
        "1 met, 1 warning, 1 not met, 1 could not tell",
        "! Version: 1.40 is newer. What to do: compare the release notes",
        "✗ The Secret is usable: there is no such Secret. What to do: run 6.4.2 first (runbook 6.4.2)",
        "? Domain: forbidden",
    ) == found.brief


def test_a_precondition_that_several_sections_share_stands_there_once_with_all_of_them() -> None:
    shared = [replace(FINDINGS[1], section=section) for section in ("6.4.2", "6.4.3")]
    later = Finding("Serving is there", Verdict.COMES, "it comes", "", "6.4.3", section="6.4.4")
    found = display.preconditions([*shared, later])
    assert [
        ["! warning", "6.4.2, 6.4.3", "Version", "1.40 is newer"],
        ["", "What to do: compare the release notes"],
        ["… left to a later runbook", "6.4.4", "Serving is there", "it comes"],
        ["", "(runbook 6.4.3)"],
    ] == [re.split(r"\s{2,}", line) for line in found.text.splitlines()]
    assert ("1 warning, 1 left to a later runbook",) == found.brief[:1]
    assert 3 == len(found.data["findings"])
    assert "6.4.2, 6.4.3" in Page(found.html).text


def test_the_desired_objects_are_yaml_that_can_be_read_back_and_the_errata_are_comments() -> None:
    found = VIEWS["desired"]
    head, _, text = found.text.partition("\n")
    assert "Nothing has been sent yet." == head
    assert [manifests.local_gateway_http()] == list(yaml.safe_load_all(text))
    assert "# file /c/root.key: a new key" == text.splitlines()[0]
    assert [
        "# differs: the page says → the runbook does",
        "# differs: it says this → it does that",
    ] == text.splitlines()[-2:]
    assert ("1 object and 1 file", "differs: it says this → it does that") == found.brief


@pytest.mark.parametrize(
    ("objects", "files", "brief"),
    [(0, 0, "nothing"), (2, 0, "2 objects"), (0, 1, "1 file"), (1, 2, "1 object and 2 files")],
)
def test_the_desired_objects_and_files_are_counted(objects: int, files: int, brief: str) -> None:
    manifest = manifests.local_gateway_http()
    found = display.desired([manifest] * objects, [("/c/root.key", "a new key")] * files)
    assert (brief,) == found.brief


def test_a_plan_shows_every_field_of_every_change() -> None:
    digest = Plan(CHANGES).digest
    long, by = "y" * 200 + "…", "kubectl-edit since 2026-02-01T00:00:00Z"
    assert [
        "+ create  ServiceMeshMemberRoll istio-system/default  [member-roll]",
        "      spec.members: + knative-serving",
        "~ update  Gateway knative-serving/knative-ingress-gateway  [gateways]",
        f"      spec.servers[0].tls: mode PASSTHROUGH → mode SIMPLE, ports [1]  (set by {by})",
        f"      spec.x: true → {long}",
        "      takes spec.servers over from kubectl-edit (since 2026-02-01T00:00:00Z)",
        "      note: a note",
        "      PROBLEM: a problem",
        "= unchanged  Secret a/b  [secret]",
        "1 to create, 1 to update, 1 unchanged. Nothing is changed in this mode.",
        digest,
    ] == VIEWS["plan"].text.splitlines()
    assert (
        "2 of 3 not as wanted",
        "+ create  ServiceMeshMemberRoll istio-system/default  [member-roll]",
        "    spec.members: + knative-serving",
        "~ update  Gateway knative-serving/knative-ingress-gateway  [gateways]",
        f"    spec.servers[0].tls: mode PASSTHROUGH → mode SIMPLE, ports [1]  (set by {by})",
        f"    spec.x: true → {long}",
        "    takes spec.servers over from kubectl-edit (since 2026-02-01T00:00:00Z)",
        "    note: a note",
        "= unchanged  Secret a/b",
        "1 to create, 1 to update, 1 unchanged",
        digest,
        "✗ Gateway knative-serving/knative-ingress-gateway: a problem",
    ) == VIEWS["plan"].brief


def test_a_plan_without_changes_is_one_line_while_the_run_goes_on() -> None:
    found = display.plan(Plan(CHANGES[2:]), "apply")
    assert (f"0 to create, 0 to update, 1 unchanged, {Plan(()).digest[:24]}…",) == found.brief


REVIEWED = (
    replace(
        CHANGES[0],
        operation=Operation.UPDATE,
        fields=(
            FieldChange("spec.members[+]", None, "knative-serving", (EDITOR,)),
            FieldChange("spec.members[+]", None, "shop", (EDITOR,)),
            FieldChange("spec.deployments[+]", None, {"name": "activator", "replicas": 2}),
            FieldChange("spec.mode", None, "new"),
        ),
        managed_by=(EDITOR, Owner("argocd", "Apply", "")),
        waits=Waits((CHANGES[0].target,), "member-roll", ("prove-member-roll", "gateways", "secret")),
    ),
    replace(
        CHANGES[2],
        operation=Operation.UPDATE,
        fields=(FieldChange("data[tls.key]", "‹secret›", "‹secret›", numbers=(1, 2)),),
        waits=Waits(("Deployment a/c",), "secret", ("prove-secret",)),
    ),
)
FOLLOWING = (("member-roll", "shop becomes closed"), ("secret", "no traffic is cut"))


def test_a_plan_reads_like_a_review() -> None:
    found, by = display.plan(Plan(REVIEWED, FOLLOWING), "plan"), "kubectl-edit since 2026-02-01T00:00:00Z"
    others = "also managed by kubectl-edit (last 2026-02-01T00:00:00Z), argocd"
    assert [
        f"~ update  {CHANGES[0].target}  [member-roll]; prove-member-roll and 2 later steps wait on it; {others}",
        f"      spec.members: + knative-serving, + shop  (list last set by {by})",
        "      spec.deployments: + name activator, replicas 2",
        "      spec.mode: (none) → new",
        "~ update  Secret a/b  [secret]; Deployment a/c: prove-secret waits on it",
        "      data[tls.key]: ‹secret› (#1) → ‹secret› (#2)",
        "Equal numbers (#) stand for equal secret values.",
        "What follows:",
        "  • shop becomes closed  [member-roll]",
        "  • no traffic is cut  [secret]",
        "0 to create, 2 to update, 0 unchanged. Nothing is changed in this mode.",
    ] == found.text.splitlines()[:-1]
    assert found.text.splitlines()[-5:-2] == list(found.brief[-5:-2])
    assert found.text.splitlines()[-1] == found.brief[-1]
    words = Page(found.html).text
    for part in ("also managed by kubectl-edit", "‹secret› (#1)", "shop becomes closed", "gateways, secret wait on it"):
        assert part in words
    assert 2 == found.html.count("<details>")


def test_a_plan_as_json_has_what_a_review_needs() -> None:
    data = display.plan(Plan(REVIEWED, FOLLOWING), "plan").data
    assert [{"step": step, "said": said} for step, said in FOLLOWING] == data["consequences"]
    roll, secret = data["changes"]
    assert {
        "objects": ["ServiceMeshMemberRoll istio-system/default"],
        "step": "member-roll",
        "behind": ["prove-member-roll", "gateways", "secret"],
    } == roll["waits"]
    assert ["kubectl-edit", "argocd"] == [one["manager"] for one in roll["managed_by"]]
    assert {"old": 1, "new": 2} == secret["fields"][0]["secret"]


def test_a_plan_says_nothing_in_colours_of_its_own() -> None:
    html = display.plan(Plan(REVIEWED, FOLLOWING), "plan").html
    assert "color" not in html
    assert "background" not in html
    assert "<style" not in html


def test_many_changes_that_differ_in_their_namespace_alone_are_shown_as_one() -> None:
    def policy(namespace: str) -> Change:
        identity = ("networking.k8s.io/v1", "NetworkPolicy", namespace, "allow")
        fields = (FieldChange("spec.podSelector", None, {}),)
        return Change("policies", f"NetworkPolicy {namespace}/allow", identity, Operation.CREATE, fields)

    many = display.plan(Plan(tuple(policy(f"n{number}") for number in range(1234))), "plan")
    assert [
        "+ create  NetworkPolicy allow in 1,234 namespaces  [policies]",
        "      spec.podSelector: {}",
        "      in n0, n1, n2, n3, n4, n5, n6, n7, n8, n9, and 1,224 more",
        "1234 to create, 0 to update, 0 unchanged. Nothing is changed in this mode.",
    ] == many.text.splitlines()[:-1]
    assert "n1233" in Page(many.html).text
    assert 1234 == len(many.data["changes"])
    assert 6 == len(many.brief)
    since = [
        replace(policy(f"n{n}"), managed_by=(Owner("argocd", "Apply", f"2026-01-01T00:00:{n}Z"),)) for n in range(40)
    ]
    folded = "+ create  NetworkPolicy allow in 40 namespaces  [policies]; also managed by argocd"
    assert folded == display.plan(Plan(tuple(since)), "plan").text.splitlines()[0]
    few = display.plan(Plan(tuple(policy(f"n{number}") for number in range(3))), "plan")
    assert ["+ create  NetworkPolicy n0/allow  [policies]"] == few.text.splitlines()[:1]


def test_of_many_things_amiss_ten_are_said_while_the_run_goes_on() -> None:
    bad = replace(CHANGES[0], problems=tuple(f"problem {number}" for number in range(12)), refused="no")
    found = display.plan(Plan((bad,)), "plan")
    assert 11 == sum(line.startswith(("✗", "!", "…")) for line in found.brief)
    assert "… and 3 more" == found.brief[-1]
    assert "REFUSED: no" in found.text
    assert "no" == found.data["changes"][0]["refused"]


def test_restarts_are_counted_where_there_are_some() -> None:
    restart = Change(
        "restart",
        "Pod a/b",
        ("v1", "Pod", "a", "Deployment b"),
        Operation.RESTART,
        (FieldChange("excluded inbound ports", "none", "8444"),),
    )
    found = display.plan(Plan((restart,)), "plan").text.splitlines()
    assert [
        "↻ restart  Pod a/b  [restart]",
        "      excluded inbound ports: none → 8444",
        "0 to create, 0 to update, 1 to restart, 0 unchanged. Nothing is changed in this mode.",
    ] == found[:-1]


def test_a_section_that_has_nothing_to_do_here_says_why() -> None:
    found = display.desired([], [], "mTLS is off")
    assert "Nothing to do: mTLS is off." == found.text.splitlines()[0]
    assert ("mTLS is off",) == found.brief


def test_many_objects_that_differ_in_their_namespace_alone_are_shown_as_one() -> None:
    found = display.desired([manifests.serving_system_policy(f"n{number}") for number in range(40)], [])
    documents = list(yaml.safe_load_all(found.text.partition("\n")[2]))
    assert [manifests.serving_system_policy("n0")] == documents
    assert "# and the same in 39 more namespaces: n1, n2, n3, n4, n5, n6, n7, n8, n9, n10, and 29 more" in found.text
    assert 40 == len(found.data["manifests"])


def test_of_many_writes_thirty_are_shown_and_all_are_kept() -> None:
    written = [{"operation": "create", "target": f"Gateway a/{number}", "audit_id": "1"} for number in range(32)]
    found = display.applied(STEP, written)
    assert 31 == len(found.text.splitlines())
    assert "and 2 more, all of them in the outcome" in found.text
    assert {"step": "gateways", "written": written} == found.data


def test_a_plan_as_json_keeps_whole_values_and_who_set_them() -> None:
    data = VIEWS["plan"].data
    assert Plan(CHANGES).digest == data["digest"]
    assert {
        "step": "gateways",
        "target": "Gateway knative-serving/knative-ingress-gateway",
        "identity": list(CHANGES[1].identity),
        "operation": "update",
        "fields": [
            {
                "path": "spec.servers[0].tls",
                "old": {"mode": "PASSTHROUGH"},
                "new": {"mode": "SIMPLE", "ports": [1]},
                "set_by": [{"manager": "kubectl-edit", "since": "2026-02-01T00:00:00Z"}],
            },
            {"path": "spec.x", "old": True, "new": "y" * 300, "set_by": []},
        ],
        "takes_over": [{"path": "spec.servers", "manager": "kubectl-edit", "since": "2026-02-01T00:00:00Z"}],
        "managed_by": [],
        "notes": ["a note"],
        "problems": ["a problem"],
    } == data["changes"][1]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("verify", "every difference is drift"),
        ("plan", "Nothing is changed in this mode."),
        ("apply", "The cells below make these changes, and no others."),
    ],
)
def test_a_plan_says_what_its_mode_does_with_it(mode: str, said: str) -> None:
    found = display.plan(Plan(()), mode)
    assert found.text.splitlines()[0].startswith("0 to create, 0 to update, 0 unchanged. ")
    assert said in found.text


def test_what_was_written_is_shown_with_the_servers_audit_id() -> None:
    assert "create  Gateway a/b  42" == VIEWS["applied"].text
    assert ("1 written",) == VIEWS["applied"].brief
    assert "Nothing to change: everything is as planned already." == display.applied(STEP, []).text


def test_what_was_waited_for_is_shown_with_how_it_came_out() -> None:
    entries = [
        {"ready": True, "target": "Gateway a/b", "said": "after 2 s"},
        {"ready": False, "target": "Service c/d", "said": "not ready"},
    ]
    assert "✓ Gateway a/b  after 2 s\n✗ Service c/d  not ready" == display.waited(STEP, entries).text
    assert "Nothing to wait for." == display.waited(STEP, []).text


def test_effects_are_shown_with_what_was_expected_and_seen_and_a_remedy_where_they_do_not_hold() -> None:
    assert [
        "✓ It answers: proven",
        "    expected  status 200",
        "    observed  status 200",
        "    way       a request",
        "✗ It is covered: failed",
        "    expected    *.apps",
        "    observed    *.other",
        "    way         a handshake",
        "    what to do  run it again (runbook 6.4.2)",
        "– The local name answers: not proven",
        "    observed  forbidden",
    ] == VIEWS["proved"].text.splitlines()
    assert (
        "1 proven, 1 failed, 1 not proven",
        "✗ It is covered: *.other",
        "– The local name answers: forbidden",
    ) == VIEWS["proved"].brief
    assert {
        "title": "It is covered",
        "proof": "failed",
        "expected": "*.apps",
        "observed": "*.other",
        "way": "a handshake",
        "remedy": "run it again",
        "see": "6.4.2",
    } == VIEWS["proved"].data["checks"][1]
    assert '<a href="6.4.2-create-ingress-certificates.ipynb">' in VIEWS["proved"].html
    assert "This step has no effect of its own to prove." == display.proved(STEP, []).text


def test_a_failure_is_shown_in_the_words_of_the_error() -> None:
    assert "✗ waiting 1 s: not yet\nWhat to do: wait longer" == VIEWS["failure"].text
    assert {
        "step": "gateways",
        "failure": ["waiting 1 s: not yet", "What to do: wait longer"],
    } == VIEWS["failure"].data


def test_the_outcome_says_how_why_and_at_what_cost() -> None:
    assert [
        "outcome         done and proven",
        "because         2 written, 1 effect proven",
        "mode            apply",
        "plan            plan-sha256:abc",
        "when            2026-11-25T18:00:00.000+00:00 to 2026-11-25T18:00:03.000+00:00",
        "where, as whom  https://api as jane",
        "change ticket   CHG1",
        "requests        3 GET, 2 PATCH",
    ] == VIEWS["outcome"].text.splitlines()
    assert ("done and proven: 2 written, 1 effect proven",) == VIEWS["outcome"].brief
    assert OUTCOME == VIEWS["outcome"].data
    assert "plan-sha256" not in display.outcome(OUTCOME | {"plan": {}}).text


# --- for a person ------------------------------------------------------------------------------------------------


def test_a_failure_leads_to_the_runbook_that_mends_it_and_folds_the_traceback_away() -> None:
    view = display.failure("stopped", "", ["no Secret", "What to do: make it"], "6.4.2", f"Traceback {ODD}")
    assert '<a href="6.4.2-create-ingress-certificates.ipynb">' in view.html
    assert "Traceback" in Page(view.html).text
    assert "details" in Page(view.html).elements
    assert "Traceback" not in view.text
    assert "details" not in Page(display.failure("stopped", "", ["no Secret"]).html).elements


def test_a_precondition_that_is_not_met_leads_to_the_runbook_that_mends_it() -> None:
    assert '<a href="6.4.2-create-ingress-certificates.ipynb">' in display.preconditions(FINDINGS).html


def test_a_wait_says_of_each_object_how_it_is_and_of_all_since_when_and_until_when() -> None:
    later = NOON + dt.timedelta(minutes=2)
    view = display.awaiting(
        [Look("Gateway a/b", False, "Ready is False", 2.0), Look("Pod c/d", True, "", 1.0)], NOON, later
    )
    assert "1 of 2 ready, since 12:00:00, until 12:02:00 UTC at most" in view.text
    assert "… Gateway a/b  2 s  Ready is False" in view.text
    assert "✓ Pod c/d      1 s  ready" in view.text


def test_an_approval_names_who_what_where_and_until_when() -> None:
    text = display.consented(replace(CONSENT, by="Sato"), "api.prod-a:6443", 1).text
    for part in (
        "Approved by Sato",
        "1 change on api.prod-a:6443",
        "plan-sha256:abc",
        "until 2026-11-26T12:00:00+00:00",
    ):
        assert part in text
