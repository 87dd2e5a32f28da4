"""The console script before it has read what was typed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("ignored", [False, True], ids=["at a terminal", "under nohup"])
def test_ctrl_c_while_the_command_line_is_being_imported_is_no_traceback(ignored: bool) -> None:
    number = signal.SIGINT
    command = [sys.executable, "-X", "importtime", "-m", "runbooks", "--version"]
    before = signal.signal(number, signal.SIG_IGN if ignored else signal.default_int_handler)
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(number, before)
    assert child.stderr is not None
    for line in child.stderr:  # Python says what it has imported; click is among the first of many
        if line.endswith(" click\n"):
            child.send_signal(number)
            break
    else:
        raise AssertionError("click was not imported")
    printed, said = child.communicate(timeout=60)
    assert (0 if ignored else -number) == child.returncode
    assert printed.startswith("runbooks, version") is ignored
    assert "Traceback" not in said
