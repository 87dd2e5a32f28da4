"""Draw the README's pictures, a run on a terminal and the page of its record: ``python tests/pictures.py``.

The page is drawn by Chromium, which must be installed for that.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from runbooks_sandbox import lifecycle
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.state import State

ROOT = Path(__file__).parents[1]
WIDTH = 118


def on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What a command prints when it believes to be on a terminal."""
    parent, child = pty.openpty()
    with subprocess.Popen(command, stdout=child, stderr=child, env=environment, cwd=ROOT) as process:
        os.close(child)
        found = b""
        while True:
            try:
                part = os.read(parent, 65536)
            except OSError:  # the terminal is gone with the process
                break
            found += part
        assert process.wait() == 0, found.decode()
    return found.decode()


def settled(output: str) -> list[str]:
    """The lines that stay: without the spinner that moved over them."""
    kept = []
    for line in output.replace("\r\n", "\n").split("\n"):
        last = re.split(r"\r|\x1b\[2K|\x1b\[1A", line)[-1]
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last).strip()
        if plain and not "\u2800" <= plain[0] <= "\u28ff":  # a last turn of the spinner
            kept.append(re.sub(r"\x1b\[\?25[lh]", "", last))
    return kept


def page_drawn(records: Path, runbook: str, picture: Path, program: str, environment: dict[str, str]) -> None:
    """The first screen of the page of one runbook's record, as a picture."""
    subprocess.run([program, "records", "render", "--all", "--records", records], env=environment, check=True)
    (page,) = records.glob(f"records/*-{runbook}-*/record.html")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit(f"{picture.name} is not drawn: neither chromium nor google-chrome is installed")
    unprotected = ["--no-sandbox"] if os.getuid() == 0 else []  # Chromium refuses its sandbox to root
    size = ["--hide-scrollbars", "--window-size=1280,860"]
    subprocess.run(
        [chromium, "--headless", *unprotected, *size, f"--screenshot={picture}", page.as_uri()],
        check=True,
        timeout=120,
        stderr=subprocess.DEVNULL,
    )


def main() -> None:
    """Integrate the mesh in a sandbox of its own, and draw that."""
    with tempfile.TemporaryDirectory(prefix="runbooks-") as folder:
        state = State("default", Path(folder) / "serverless-mesh-runbooks" / "sandbox")
        lifecycle.start(state, Played(), Console(file=io.StringIO()))
        try:
            environment = {**os.environ, "XDG_STATE_HOME": folder, "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
            command = ["runbooks", "run", "6.4.3", "--parameters", "parameters/sandbox", "--mode", "apply"]
            program = str(Path(sys.executable).parent / command[0])
            before = [program, "run", "6.4.2", *command[3:], "--records", f"{folder}/records"]
            subprocess.run(before, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
            output = on_a_terminal([program, *command[1:], "--records", f"{folder}/records"], environment)
            page_drawn(Path(folder) / "records", "6.4.3", ROOT / "docs" / "record.png", program, environment)
        finally:
            lifecycle.stop(state)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), " ".join(command)))
    for line in settled(output.replace(f"{folder}/", "")):
        console.print(Text.from_ansi(line), soft_wrap=False, overflow="ellipsis", no_wrap=True)
    console.save_svg(str(ROOT / "docs" / "run.svg"), title="runbooks", theme=MONOKAI)


if __name__ == "__main__":
    main()
