"""Clusters that are broken: a run finishes, or stops with the reason, and then a second run finishes; nothing is wrong.

Each case is played at one step here. ``tests.broken_table``, which ``make soak`` runs, plays each at every step that it
fits, and writes what was seen into docs/broken-clusters.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbooks_sandbox import lifecycle
from tests import broken_cases as cases
from tests.broken_cases import CASES, PARTS, Broken, Case
from tests.conftest import ROOT, MakesSandboxes

RUNBOOKS = Path(sys.executable).with_name("runbooks")


@pytest.fixture(scope="module")
def broken(new_sandbox: MakesSandboxes) -> Iterator[Broken]:
    """A cluster with the path of Istio complete."""
    sandbox = new_sandbox()
    found = Broken(sandbox)
    found.complete()
    yield found
    lifecycle.stop(sandbox.state)


_LEFT_TO_THE_CAMPAIGN = (
    "quota whose use nobody has counted",
    "connection cut before the write",
    "API server killed before the step",
    "API server killed while the step is waited for",
)
_QUICK = [case for case in CASES if case.name not in _LEFT_TO_THE_CAMPAIGN]
# one step for each case, another one for the next
_SPREAD = {
    case.name: fitting[number % len(fitting)]
    for number, case in enumerate(_QUICK)
    if (fitting := [part for part in PARTS["istio"] if case.fits(part)])
}


@pytest.mark.parametrize("case", _QUICK, ids=lambda case: case.name)
def test_it_finishes_or_stops_with_the_reason_and_a_second_run_finishes(broken: Broken, case: Case) -> None:
    seen = cases.experiment(broken, case, _SPREAD[case.name])
    assert [] == seen.amiss(case)


def test_ctrl_c_ends_a_pause_that_the_server_asked_for_and_nothing_is_sent_after_it(broken: Broken) -> None:
    (part,) = (one for one in PARTS["istio"] if one.section == "6.4.2")
    broken.take_away(part)
    asked = threading.Event()

    def rule(method: str, path: str) -> cases.Answer | str | None:
        if not cases.writes(part, method, path):
            return None
        asked.set()
        return cases.Answer(503, "the server is overloaded", {"Retry-After": "40"})

    state = broken.sandbox.state
    with cases.proxied(broken, rule) as kubeconfig:
        command = [
            str(RUNBOOKS),
            "run",
            "6.4.2",
            "--mode",
            "apply",
            "--parameters",
            str(ROOT / "parameters" / "sandbox"),
        ]
        command += [
            "--records",
            str(state.folder / "records"),
            "-p",
            "kubeconfig",
            kubeconfig,
            "-p",
            "timeout_s",
            "100",
        ]
        environment = broken.sandbox.environment
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert asked.wait(60)
            time.sleep(1)
            os.killpg(process.pid, signal.SIGINT)
            began = time.monotonic()
            said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert 130 == process.returncode, said
    assert "Traceback" not in said
    assert broken.get(part) is None
    assert 0 == broken.play(part.section, timeout_s=60)["exit_code"]
