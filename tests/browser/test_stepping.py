"""A person steps through the runbooks in JupyterLab: by form, with an approval, through what goes wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from runbooks.procedure import SECTIONS
from runbooks_sandbox import lifecycle
from runbooks_sandbox.world import MEMBER_ROLLS
from tests.browser.lab import NotebookPage, serving
from tests.conftest import Sandbox

CERTIFICATES, MESH = (f"{SECTIONS[number].stem}.ipynb" for number in ("6.4.2", "6.4.3"))


def filled(notebook: NotebookPage, name: str) -> None:
    """Open a runbook and fill its form from the parameters file of the sandbox."""
    notebook.open(name)
    notebook.run_to("values")
    notebook.show("values")
    form = notebook.output("values")
    form.get_by_label("parameters file").fill("sandbox")
    form.get_by_label("parameters file").press("Tab")
    form.get_by_role("button", name="Load sandbox").click()
    expect(form).to_contain_text("sandbox is loaded")


def planned(notebook: NotebookPage) -> None:
    """From the target to the question whether the plan is approved."""
    for cell in ("connect", "preconditions", "desired", "plan", "approve"):
        notebook.run(cell)
    notebook.show("approve")


def pictured(notebook: NotebookPage, name: str) -> None:
    """The end of the plan, and what is asked below it."""
    notebook.show("about-approve")
    notebook.page.evaluate("() => window.opened.panel.content.outerNode.scrollBy(0, -400)")
    notebook.shot(name)


def approve(notebook: NotebookPage, by: str = "Sato") -> None:
    asked = notebook.output("approve")
    asked.get_by_label("Approved by").fill(by)
    asked.get_by_label("Approved by").press("Tab")
    asked.get_by_role("button", name=re.compile(rf"^Approve \d+ changes? on 127.* as {by}$")).click()
    expect(asked).to_contain_text(f"✓ Approved by {by}")


def run_below(notebook: NotebookPage, cell_id: str) -> None:
    notebook.start("notebook:run-all-below", cell_id=cell_id)


def unnamed(notebook: NotebookPage) -> list[str]:
    """Controls in outputs that a screen reader has no name for."""
    return list(
        notebook.page.evaluate(
            """() => [...document.querySelectorAll(
                 '.jp-OutputArea input, .jp-OutputArea select, .jp-OutputArea button, .jp-OutputArea textarea')]
               .filter((control) => control.checkVisibility())
               .filter((control) => ![control.labels?.[0]?.textContent, control.getAttribute('aria-label'),
                                      control.textContent].some((name) => name?.trim()))
               .map((control) => control.outerHTML)"""
        )
    )


def test_from_the_index_to_two_archived_changes(
    notebook: NotebookPage, sandbox: Sandbox, browser: Browser, tmp_path: Path
) -> None:
    notebook.open("index.ipynb")
    notebook.run_all()
    state = notebook.text_of("overview")
    assert (1, 3) == (state.count("changes pending"), state.count("blocked"))
    assert "not on this path" in state
    assert "needs: 13 met, 1 not met" in state
    notebook.show("overview")
    notebook.shot("index")
    notebook.output("overview").get_by_role("link", name="6.4.2 Create").click()
    notebook.until("ready", CERTIFICATES)

    filled(notebook, CERTIFICATES)
    planned(notebook)
    since = sandbox.audit_position()
    notebook.run("apply-root")
    assert "Not run: the plan is not approved" in notebook.text_of("apply-root")
    assert not list(sandbox.state.certificates.glob("*"))
    approve(notebook)
    run_below(notebook, "apply-root")
    notebook.settled()
    assert "done and proven: 6 written, 3 effects proven" in notebook.text_of("verdict")
    assert 1 == len(sandbox.writes(since)), "the Secret, and files beside it"

    filled(notebook, MESH)
    notebook.shot("form")
    form = notebook.output("values")
    form.get_by_role("button", name="Look up names on the cluster").click()
    expect(form).to_contain_text("namespaces; they are offered where one is wanted")
    offered = form.get_by_label("add to members")
    assert {"default", "knative-serving"} <= set(offered.evaluate("it => [...it.list.options].map((one) => one.value)"))
    planned(notebook)
    assert "What follows" in notebook.text_of("plan")
    pictured(notebook, "approve")
    approve(notebook)
    run_below(notebook, "apply-member-roll")
    notebook.settled()
    assert "done and proven: 6 written, 10 effects proven" in notebook.text_of("verdict")
    notebook.show("prove-knative-service")
    notebook.shot("proof")

    shown = notebook.output("outcome")
    button = shown.get_by_role("button", name="Archive this notebook as the record")
    button.click()
    expect(shown).to_contain_text("save the notebook (Ctrl+S)")
    notebook.save()
    button.click()
    expect(shown).to_contain_text("✓ Archived as")
    notebook.save()

    archive = tmp_path / "records"
    records = [Path(sys.executable).with_name("runbooks"), "records"]
    done = subprocess.run(
        [*records, "list", "--json", "--records", archive], env=sandbox.environment, capture_output=True, check=True
    )
    (told,) = json.loads(done.stdout)
    assert "done and proven" == told["outcome"]
    (kept,) = archive.glob("records/*/*.ipynb")
    untrusted(sandbox, browser, kept, tmp_path)


def untrusted(sandbox: Sandbox, browser: Browser, record: Path, tmp_path: Path) -> None:
    """The record as a colleague opens it whose Jupyter has never seen it."""
    with serving(tmp_path / "colleague", sandbox.environment) as lab:
        (lab.folder / "record.ipynb").write_bytes(record.read_bytes())
        with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
            opened = NotebookPage(context.new_page(), lab, tmp_path)
            opened.open("record.ipynb")
            assert "A form, where JupyterLab shows it" in opened.text_of("values")
            assert "Values in force for runbook 6.4.3" in opened.text_of("values")
            assert "✓ Approved by Sato" in opened.text_of("approve")
            assert "status 200, body 'Hello Openshift!'" in opened.text_of("prove-knative-service")
            assert "done and proven" in opened.text_of("outcome")
            assert 0 == opened.page.locator(".jp-OutputArea button").count()
            assert [] == opened.console_errors
            assert [] == opened.requests_outside


def test_where_the_cluster_changed_between_plan_and_approval_nothing_is_changed(
    notebook: NotebookPage, sandbox: Sandbox
) -> None:
    sandbox.play("6.4.2")
    roll = {"apiVersion": "maistra.io/v1", "kind": "ServiceMeshMemberRoll", "metadata": {"name": "default"}}
    members = {"spec": {"members": ["default", "knative-serving"]}}
    sandbox.api.request("POST", MEMBER_ROLLS.path("istio-system"), {**roll, **members})
    filled(notebook, MESH)
    planned(notebook)
    sandbox.patch(MEMBER_ROLLS, "istio-system", "default", {"spec": {"members": ["knative-serving"]}})
    since = sandbox.audit_position()
    approve(notebook)
    run_below(notebook, "apply-member-roll")
    notebook.settled()
    said = notebook.text_of("apply-member-roll")
    assert "Nothing was changed: the cluster is not what was approved any more" in said
    assert "ServiceMeshMemberRoll istio-system/default spec.members[+]: None → 'default'" in said
    assert "Not run" in notebook.text_of("apply-gateways")
    assert [] == sandbox.writes(since)


def test_a_kernel_that_is_killed_in_a_wait_leaves_the_rest_to_the_next_one(
    notebook: NotebookPage, sandbox: Sandbox
) -> None:
    sandbox.play("6.4.2")
    filled(notebook, MESH)
    planned(notebook)
    approve(notebook)
    sandbox.state.keep_faults({"stuck-operators": ""})
    run_below(notebook, "apply-member-roll")
    expect(notebook.output("wait-member-roll")).to_contain_text("0 of 1 ready, since")
    notebook.show("wait-member-roll")
    notebook.shot("wait")

    notebook.interrupt()
    assert "You interrupted this cell" in notebook.text_of("wait-member-roll")
    assert "" == notebook.text_of("prove-member-roll"), "what was to run after it does not"
    notebook.start("notebook:run-cell", cell_id="wait-member-roll")
    expect(notebook.output("wait-member-roll")).to_contain_text("0 of 1 ready, since")

    notebook.kill_kernel()
    dialog = notebook.page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("appears to have died")
    dialog.locator(".jp-mod-accept").click()
    notebook.settled()
    sandbox.state.keep_faults({})
    since = sandbox.audit_position()
    notebook.run_all()  # the cells below first change nothing: this kernel knows of no approval
    assert "✗ context: missing" in notebook.text_of("values")
    assert "Stopped, as said above." in notebook.text_of("connect")
    filled(notebook, MESH)
    planned(notebook)
    assert "= unchanged ServiceMeshMemberRoll istio-system/default" in notebook.text_of("plan")
    assert [] == sandbox.writes(since)
    approve(notebook, "Suzuki")
    run_below(notebook, "apply-member-roll")
    notebook.settled()
    assert "done and proven: 5 written" in notebook.text_of("verdict")
    written = sandbox.audit_position()

    # the tab is closed and opened; everything is run twice
    notebook.save()
    for _ in range(2):
        notebook.open(MESH)
        notebook.set_parameters(sandbox.parameters("6.4.3", mode="apply"))
        notebook.run_all()
        assert "Nothing to approve: everything is as wanted." in notebook.text_of("approve")
        assert "no changes: nothing to change, 10 effects proven" in notebook.text_of("verdict")
        notebook.save()
    sandbox.audit_position()
    assert [] == sandbox.writes(written)


ROW = "xpath=ancestor::div[contains(@class, 'widget-vbox')][1]"  # of a field
WRONG = {
    "context": ("", "missing; wanted a kubeconfig context"),
    "kubeconfig": ("kube/config", "is a relative path; write /"),
    "members": ("Default, x_y", "is not valid here"),
    "change_ticket": ("<number>", "still holds the placeholder <number>"),
    "service_name": ("Hello!", "is not valid here"),
    "service_namespace": ("else where", "is not valid here"),
    "service_image": ("two words", "is not valid here"),
    "api_server": ("<url>", "still holds the placeholder"),
    "cluster_id": ("<id>", "still holds the placeholder"),
    "mesh_namespace": ("istio system", "is not valid here"),
    "ingress_domain": ("*.apps", "is not valid here"),
    "certificate_secret": ("A", "is not valid here"),
    "certificates_dir": ("${NO_SUCH}/x", "names the environment variable NO_SUCH, which is not set"),
    "trust_anchor": ("ca.crt", "is a relative path"),
    "ingress_address": ("192.0.2.1:99999", "holds a port that cannot be"),
    "serverless_version": ("1.x", "is not valid here"),
    "mesh_version": ("two", "is not valid here"),
    "take_over": ("<who>", "still holds the placeholder"),
    "timeout_s": ("soon", "is text; wanted a whole number"),
    "approval_minutes": ("0", "greater than or equal to 1"),
}


@pytest.fixture(scope="module")
def untouched(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    found = new_sandbox()
    yield found
    lifecycle.stop(found.state)


class TestForm:
    """What the form does, against a cluster that nothing is asked of."""

    @pytest.fixture
    def sandbox(self, untouched: Sandbox) -> Sandbox:
        return untouched

    def test_what_is_wrong_is_told_beside_each_field_and_stops_before_the_cluster(
        self, notebook: NotebookPage, sandbox: Sandbox
    ) -> None:
        filled(notebook, MESH)
        form = notebook.output("values")
        for name in ("the right cluster", "service mesh and knative", "certificates and the way in", "seldom needed"):
            form.get_by_role("button", name=f"Show: {name}").click()
        for name, (text, _) in WRONG.items():
            form.get_by_label(name, exact=True).fill(text)
            form.get_by_label(name, exact=True).press("Enter")
        for name, (_, said) in WRONG.items():
            row = form.get_by_label(name, exact=True).locator(ROW)
            expect(row.get_by_role("alert")).to_contain_text(said)
        notebook.show("values")
        notebook.shot("form-wrong")
        assert [] == unnamed(notebook)
        for theme in ("JupyterLab Dark", "JupyterLab Light"):
            notebook.theme(theme)
            notebook.width(800)
            assert [] == notebook.overflowing(), theme
            notebook.width(1280)
            assert [] == notebook.overflowing(), theme
        asked = len(sandbox.state.audit_log.read_text().splitlines())
        notebook.run("connect")
        assert "Stopped, as said above." in notebook.text_of("connect")
        assert "timeout_s: 'soon' is text; wanted a whole number" in notebook.text_of("connect")
        requests = sandbox.state.audit_log.read_text().splitlines()[asked:]
        assert [] == [line for line in requests if '"username":"platform-engineer"' in line]

    def test_a_value_that_is_changed_after_the_target_was_bound_has_to_be_bound(self, notebook: NotebookPage) -> None:
        filled(notebook, CERTIFICATES)
        notebook.run("connect")
        form = notebook.output("values")
        form.get_by_label("valid_days", exact=True).fill("90")
        form.get_by_label("valid_days", exact=True).press("Enter")
        expect(form).to_contain_text(re.compile(r"valid_days\s*90"))
        notebook.run("preconditions")
        assert "valid_days changed after the target was bound" in notebook.text_of("preconditions")
        notebook.run("connect")
        notebook.run("preconditions")
        assert "met" in notebook.text_of("preconditions")

    def test_what_was_typed_is_saved_as_a_parameters_file_and_as_a_command(self, notebook: NotebookPage) -> None:
        filled(notebook, CERTIFICATES)
        form = notebook.output("values")
        form.get_by_label("valid_days", exact=True).fill("90")
        form.get_by_label("valid_days", exact=True).press("Enter")
        command = r"papermill 6\.4\.2-create-ingress-certificates\.ipynb out\.ipynb .*-p valid_days 90"
        expect(form).to_contain_text(re.compile(command))
        form.get_by_label("save as environment").fill("mine")
        form.get_by_label("save as environment").press("Tab")
        form.get_by_role("button", name="Save as mine").click()
        expect(form).to_contain_text("written: ")
        own = notebook.lab.folder / "parameters" / "mine" / "6.4.2-create-ingress-certificates.yaml"
        assert "valid_days: 90\n" == own.read_text()
        form.get_by_label("save as environment").fill("sandbox")
        form.get_by_label("save as environment").press("Tab")
        form.get_by_role("button", name="Save as sandbox").click()
        expect(form.get_by_role("alert")).to_contain_text("is there and says something else")

    def test_a_keyboard_is_enough_to_load_and_to_approve(self, notebook: NotebookPage) -> None:
        notebook.open(CERTIFICATES)
        notebook.run_to("values")
        notebook.show("values")
        notebook.output("values").get_by_label("parameters file").focus()
        notebook.page.keyboard.type("sandbox")
        notebook.page.keyboard.press("Tab")
        expect(notebook.output("values").get_by_role("button", name="Load sandbox")).to_be_focused()
        notebook.page.keyboard.press("Space")
        expect(notebook.output("values")).to_contain_text("sandbox is loaded")
        planned(notebook)
        notebook.output("approve").get_by_label("Approved by").focus()
        notebook.page.keyboard.press("Tab")
        notebook.page.keyboard.press("Space")
        expect(notebook.output("approve")).to_contain_text("✓ Approved by platform-engineer")

    def test_the_plan_and_its_approval_in_the_dark(self, notebook: NotebookPage) -> None:
        filled(notebook, CERTIFICATES)
        notebook.theme("JupyterLab Dark")
        planned(notebook)
        pictured(notebook, "approve-dark")
        assert [] == unnamed(notebook)
        notebook.width(800)
        assert [] == notebook.overflowing()
