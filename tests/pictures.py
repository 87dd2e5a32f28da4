"""Draw the README's picture from a real run on a terminal: ``python tests/pictures.py``."""

from __future__ import annotations

import io
import os
import pty
import re
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


def main() -> None:
    """Run the Istio path in a sandbox of its own, and draw it."""
    with tempfile.TemporaryDirectory() as folder:
        state = State("default", Path(folder) / "serverless-mesh-runbooks" / "sandbox")
        lifecycle.start(state, Played(), Console(file=io.StringIO()))
        try:
            environment = {**os.environ, "XDG_STATE_HOME": folder, "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
            command = ["runbooks", "run", "all", "--parameters", "parameters/sandbox", "--mode", "apply"]
            program = str(Path(sys.executable).parent / command[0])
            output = on_a_terminal([program, *command[1:], "--records", f"{folder}/records"], environment)
        finally:
            lifecycle.stop(state)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), " ".join(command)))
    for line in settled(output.replace(f"{folder}/", "")):
        console.print(Text.from_ansi(line), soft_wrap=False, overflow="ellipsis", no_wrap=True)
    console.save_svg(str(ROOT / "docs" / "run.svg"), title="runbooks", theme=MONOKAI)


if __name__ == "__main__":
    main()
