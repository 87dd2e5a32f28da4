"""JupyterLab in a real browser, on copies of the runbooks, against real control planes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.lab import PATIENCE_S, ROOT, Lab, NotebookPage, serving
from tests.conftest import Sandbox

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
OPTIONS += ("--disable-component-update", "--disable-sync")


def sources() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (ROOT / "notebooks").iterdir() if path.is_file()}


@pytest.fixture(scope="package")  # not longer: its event loop would be in the way of other tests' own
def browser() -> Iterator[Browser]:
    """The Chromium of this machine; Playwright's own one is never downloaded."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no browser; install one: sudo apt-get install chromium fonts-dejavu-core fonts-vlgothic")
    expect.set_options(timeout=PATIENCE_S * 1000)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def lab(sandbox: Sandbox, browser: Browser, tmp_path: Path) -> Iterator[Lab]:
    """A server whose kernels find the test's sandbox; whatever a test does there, the sources stay as they are."""
    before = sources()
    with serving(tmp_path / "lab", {**sandbox.environment, "RUNBOOKS_RECORDS": str(tmp_path / "records")}) as found:
        yield found
    assert before == sources()


@pytest.fixture
def notebook(lab: Lab, browser: Browser, tmp_path: Path) -> Iterator[NotebookPage]:
    """A window without any past; what a test does in it leaves no error and asks no other server."""
    pictures = Path(os.environ.get("RUNBOOKS_PICTURES") or tmp_path)
    with browser.new_context(viewport={"width": 1280, "height": 900}, device_scale_factor=1) as context:
        found = NotebookPage(context.new_page(), lab, pictures)
        yield found
    assert [] == found.console_errors
    assert [] == found.requests_outside
