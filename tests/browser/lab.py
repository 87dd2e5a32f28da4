"""A JupyterLab server as ``make lab`` starts it, and a notebook in it as a user sees it in a browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
QUIET = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    }
}


@dataclass
class Lab:
    """A running server, and the folder with the copies that it serves."""

    folder: Path
    process: psutil.Process
    url: str
    token: str

    def on_disk(self, name: str) -> dict[str, Any]:
        """A notebook as it was saved."""
        return dict(json.loads((self.folder / name).read_text()))

    def kernel(self, kernel_id: str) -> psutil.Process:
        """The process of a kernel, whose connection file is named by its id."""
        (found,) = (child for child in self.process.children(True) if kernel_id in " ".join(child.cmdline()))
        return found


@contextmanager
def serving(home: Path, environment: Mapping[str, str]) -> Iterator[Lab]:
    """Serve copies of the runbooks to this machine alone; nothing of the user's own Jupyter takes part."""
    settings, runtime = home / "settings", home / "runtime"
    settings.mkdir(parents=True)
    (settings / "overrides.json").write_text(json.dumps(QUIET))
    own = {"HOME": home, "JUPYTER_CONFIG_DIR": home / "config", "JUPYTER_DATA_DIR": home / "data"}
    own |= {"JUPYTER_RUNTIME_DIR": runtime, "IPYTHONDIR": home / "ipython"}
    inherited = {name: value for name, value in environment.items() if not name.startswith("JUPYTER")}
    options = ["--no-browser", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", "--LabApp.expose_app_in_browser=True"]
    options += [f"--LabApp.app_settings_dir={settings}", "--LabApp.extension_manager=readonly"]
    options += ["--allow-root"] if os.geteuid() == 0 else []
    programs, work = Path(sys.executable).parent, home / "work"
    subprocess.run([programs / "runbooks", "copy", work], check=True, stdout=subprocess.DEVNULL)
    with (home / "lab.log").open("wb") as log:
        variables = {**inherited, **{name: str(path) for name, path in own.items()}}
        command = [programs / "jupyter-lab", *options]
        started = subprocess.Popen(command, env=variables, cwd=work, stdout=log, stderr=log)
    try:
        told = runtime / f"jpserver-{started.pid}.json"
        deadline = time.monotonic() + PATIENCE_S
        while not (told.exists() and told.read_text().endswith("}")):
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"JupyterLab did not start:\n{(home / 'lab.log').read_text()}")
            time.sleep(0.05)
        server = json.loads(told.read_text())
        yield Lab(work, psutil.Process(started.pid), server["url"], server["token"])
    finally:
        ended(started)


def ended(server: subprocess.Popen[bytes]) -> None:
    """End a server and its kernels, in peace where possible."""
    kernels = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
    server.terminate()  # its own way to end its kernels first
    try:
        server.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for kernel in psutil.wait_procs(kernels, timeout=5)[1]:
        kernel.kill()


@dataclass
class NotebookPage:
    """A notebook in a browser that knows nothing yet; cells are named by their ids."""

    page: Page
    lab: Lab
    pictures: Path
    console_errors: list[str] = field(default_factory=list)
    requests_outside: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)  # words of console errors that a test causes on purpose

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.page.set_default_navigation_timeout(PATIENCE_S * 1000)
        self.page.add_init_script(path=Path(__file__).with_name("opened.js"))
        self.page.on("console", lambda said: self._failed(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self._failed(error.stack or str(error)))
        self.page.on("request", lambda request: self._requested(request.url))
        self.page.on("websocket", lambda socket: self._requested(socket.url.replace("ws", "http", 1)))

    def _failed(self, text: str) -> None:
        if not any(words in text for words in self.forgiven):
            self.console_errors.append(text)

    def _requested(self, url: str) -> None:
        if not url.startswith((self.lab.url, "data:", "blob:")):
            self.requests_outside.append(url)

    def until(self, condition: str, *given: object) -> None:
        """Wait for a method of ``opened`` to tell that it is so."""
        self.page.wait_for_function(f"given => window.opened.{condition}(...given)", arg=given)

    def open(self, name: str) -> None:
        """Open a notebook of the folder, until its kernel waits for work."""
        self.page.goto(f"{self.lab.url}lab/tree/{name}?token={self.lab.token}&reset")
        self.until("ready", name)

    def start(self, *commands: str, cell_id: str = "") -> None:
        """Begin the Lab's own commands, on one cell where it is named; ``settled`` waits for their end."""
        self.page.evaluate("given => window.opened.start(...given)", [commands, cell_id])

    def settled(self) -> None:
        """Wait until no command runs and the kernel waits for work."""
        self.until("settled")

    def run_all(self) -> None:
        self.start("notebook:run-all-cells")
        self.settled()

    def run(self, cell_id: str) -> None:
        self.start("notebook:run-cell", cell_id=cell_id)
        self.settled()

    def run_to(self, cell_id: str) -> None:
        """Run from the top up to and with a cell."""
        self.start("notebook:run-all-above", "notebook:run-cell", cell_id=cell_id)
        self.settled()

    def source(self, cell_id: str) -> str:
        return str(self.page.evaluate("id => window.opened.cell(id).model.sharedModel.getSource()", cell_id))

    def set_source(self, cell_id: str, text: str) -> None:
        self.page.evaluate("([id, text]) => window.opened.cell(id).model.sharedModel.setSource(text)", [cell_id, text])

    def set_parameters(self, values: Mapping[str, object]) -> None:
        """Write values into the parameters cell, as a user does."""
        text = self.source("parameters")
        for name, value in values.items():
            line = re.compile(rf"^({name}: \w+ = ).*?(  #.*)?$", re.MULTILINE)
            text, count = line.subn(lambda found, value=value: f"{found[1]}{value!r}{found[2] or ''}", text)
            assert count == 1, name
        self.set_source("parameters", text)

    def output(self, cell_id: str) -> Locator:
        """The outputs of a cell."""
        index = self.page.evaluate("id => window.opened.index(id)", cell_id)
        return self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"] .jp-Cell-outputArea')

    def text_of(self, cell_id: str) -> str:
        """The visible text of a cell's outputs."""
        self.until("rendered", cell_id)
        return str(self.page.evaluate("id => window.opened.text(id)", cell_id))

    def show(self, cell_id: str) -> None:
        """Scroll to a cell, for a picture."""
        self.until("show", cell_id)

    def save(self) -> None:
        self.start("docmanager:save")
        self.settled()
        self.page.wait_for_function("() => !window.opened.panel.context.model.dirty")

    def restart_kernel(self) -> None:
        """Restart it, and say yes to the question whether to."""
        self.start("notebook:restart-kernel")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        self.settled()

    def interrupt(self) -> None:
        """Interrupt what runs, as the stop button does."""
        self.start("notebook:interrupt-kernel")
        self.settled()

    def kernel_pid(self) -> int:
        return self.lab.kernel(self.page.evaluate("() => window.opened.kernel.id")).pid

    def kill_kernel(self) -> None:
        """Kill it without a word, as the kernel of a machine that is out of memory is."""
        self.forgiven.append("Canceled future")  # what was asked of it and is never answered
        self.lab.kernel(self.page.evaluate("() => window.opened.kernel.id")).kill()

    def theme(self, name: str) -> None:
        """Change to a theme, for example ``JupyterLab Dark``."""
        self.page.evaluate("theme => void window.jupyterapp.commands.execute('apputils:change-theme', {theme})", name)
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
        # its splash leaves 200 ms later, and a second change meanwhile lets it leave twice, which is an error
        self.page.wait_for_function("() => !document.getElementById('jupyterlab-splash')")

    def width(self, px: int) -> None:
        """Make the window so wide."""
        self.page.set_viewport_size({"width": px, "height": self.page.viewport_size["height"]})  # type: ignore[index]
        self.until("laidOut", px)

    def overflowing(self) -> list[str]:
        """What is cut off or sticks out sideways where no scrolling reaches it."""
        return list(self.page.evaluate("() => window.opened.overflowing()"))

    def shot(self, name: str) -> Path:
        """A picture of the window."""
        path = self.pictures / f"{name}.png"
        self.page.screenshot(path=path, animations="disabled", caret="hide")
        return path
