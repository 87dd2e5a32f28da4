"""A runbook that is stepped through in JupyterLab: what its user sees, and what is kept."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.lab import ROOT, NotebookPage
from tests.conftest import Sandbox

NOTEBOOK = "6.4.2-create-ingress-certificates.ipynb"


@pytest.fixture(scope="module")
def sandbox(new_sandbox: Callable[..., Sandbox]) -> Sandbox:
    """One for all of these tests, since plans change nothing."""
    return new_sandbox()


@pytest.fixture
def opened(notebook: NotebookPage, sandbox: Sandbox) -> NotebookPage:
    """The runbook with the parameters of its cluster, not run yet."""
    notebook.open(NOTEBOOK)
    notebook.set_parameters(sandbox.parameters("6.4.2", mode="plan"))
    return notebook


def test_a_plan_is_seen_and_saved_in_the_copy(opened: NotebookPage) -> None:
    opened.start("notebook:run-all-cells")
    expect(opened.output("connect")).to_contain_text("platform-engineer")
    opened.settled()
    assert "changes pending" in opened.text_of("outcome")
    assert "6 to create" in opened.text_of("plan")
    opened.show("plan")
    opened.output("plan").locator("summary").last.click()
    expect(opened.output("plan").get_by_role("table").last).to_contain_text("kubernetes.io/tls")

    opened.save()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in opened.lab.on_disk(NOTEBOOK)["cells"]}
    for cell_id in ("values", "connect", "plan", "approve", "outcome", "verdict"):
        assert all({"text/html", "text/plain"} <= output["data"].keys() for output in outputs[cell_id]), cell_id
    assert "changes pending" in "".join(outputs["outcome"][-1]["data"]["text/plain"])
    assert all(not cell.get("outputs") for cell in json.loads((ROOT / "notebooks" / NOTEBOOK).read_text())["cells"])


def test_everything_can_be_reached_in_a_narrow_window_in_both_themes(opened: NotebookPage) -> None:
    opened.run_all()
    opened.width(800)
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        opened.theme(theme)
        assert [] == opened.overflowing(), theme

    # it does not pass for want of looking: what can be scrolled is fine, what is cut off or sticks out is not
    opened.set_source("connect", "from IPython.display import HTML; HTML('<p style=\"width: 2000px\">wide')")
    opened.run("connect")
    assert [] == opened.overflowing()
    opened.page.add_style_tag(content=".jp-OutputArea-output { overflow: visible !important }")
    assert [] != [one for one in opened.overflowing() if one.startswith("cut off: <div>") and one.endswith(":wide")]
    opened.page.add_style_tag(content=".jp-Cell-outputWrapper * { overflow: visible !important }")
    assert "sticks out: <p> wide" in opened.overflowing()


def test_japanese_headings_are_no_boxes(browser: Browser) -> None:
    fonts = shutil.which("fc-list") and subprocess.check_output(["fc-list", ":lang=ja"])
    if not fonts:
        pytest.skip("no Japanese font; install one: sudo apt-get install fonts-vlgothic")
    with browser.new_page() as page:
        assert page.evaluate(
            """() => {
              const drawn = (text) => {
                const canvas = document.createElement("canvas");
                const pen = canvas.getContext("2d");
                pen.font = "40px sans-serif";
                pen.fillText(text, 10, 60);
                return canvas.toDataURL();
              };
              return drawn("証") !== drawn("明");  // a font without them draws the same box for both
            }"""
        )


def test_a_cell_is_interrupted_and_a_kernel_restarted_and_lost(opened: NotebookPage) -> None:
    opened.run_to("preconditions")
    assert "not met" not in opened.text_of("preconditions")
    assert "" == opened.text_of("plan")

    opened.set_source("plan", "print('begun', flush=True)\nimport time; time.sleep(600)")
    opened.start("notebook:run-cell", cell_id="plan")
    expect(opened.output("plan")).to_contain_text("begun")
    opened.interrupt()
    assert "KeyboardInterrupt" in opened.text_of("plan")

    first = opened.kernel_pid()
    opened.restart_kernel()
    second = opened.kernel_pid()
    assert first != second

    opened.start("notebook:run-cell", cell_id="plan")
    expect(opened.output("plan")).to_contain_text("begun")
    opened.kill_kernel()
    dialog = opened.page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("appears to have died")
    dialog.locator(".jp-mod-accept").click()
    opened.settled()
    assert opened.kernel_pid() not in (first, second)
