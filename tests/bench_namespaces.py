"""6.4.5 in 1,000 namespaces: the runbook, the same requests by a bare client, kubectl and Ansible, in one run.

The bare client sends what the runbook sent, request for request, to namespaces of its own: cell by cell, since a cell
waits for the one before it, and up to 16 requests of a cell at once. It keeps no journal, compares nothing and shows
nothing.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import urllib3
import yaml
from kubernetes.client import ApiClient
from rich.console import Console

from runbooks import journal, manifests
from runbooks.batch import CONNECTIONS
from runbooks.step import Runbook, open_runbook
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import Api
from runbooks_sandbox.credentials import STAND_INS, token
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.state import State
from runbooks_sandbox.world import MEMBER_ROLLS

NAMESPACES = 1000
OURS, THEIRS = "team-", "bare-"  # of one length, so that their requests are too
_ANSIBLE = ("ansible==12.3.0", "kubernetes==35.0.0")
_PATIENCE_S = 900

Call = Callable[[Runbook], Any]
_LOOK: tuple[Call, ...] = (lambda runbook: runbook.target, Runbook.preconditions, Runbook.desired, Runbook.plan)
_WRITE: tuple[Call, ...] = (
    lambda runbook: runbook.apply("member-roll"),
    lambda runbook: runbook.apply("system-labels"),
    lambda runbook: runbook.apply("network-policies"),
)
_PROVE: tuple[Call, ...] = (
    lambda runbook: runbook.wait("network-policies"),
    lambda runbook: runbook.prove("network-policies"),
    Runbook.outcome,
)


class Sent(NamedTuple):
    """A request as the runbook made it."""

    method: str
    url: str
    headers: dict[str, str]
    body: Any


class Timed(NamedTuple):
    """Seconds that cells took, their tables included, and the requests of each."""

    seconds: float
    cells: list[list[Sent]]


@contextlib.contextmanager
def overheard() -> Iterator[list[Sent]]:
    """Every request that the Kubernetes client makes meanwhile."""
    sent: list[Sent] = []
    original = ApiClient.call_api

    def call_api(self: ApiClient, method: str, url: str, headers: Any = None, body: Any = None, **more: Any) -> Any:
        sent.append(Sent(method, url, dict(headers), body))
        return original(self, method, url, headers, body, **more)

    ApiClient.call_api = call_api
    try:
        yield sent
    finally:
        ApiClient.call_api = original


def timed(runbook: Runbook, calls: Iterable[Call]) -> Timed:
    """Run cells as a kernel would, with what they draw."""
    cells, seconds = [], 0.0
    for call in calls:
        with overheard() as sent, contextlib.redirect_stdout(io.StringIO()):
            began = time.monotonic()
            call(runbook)._repr_mimebundle_()
            seconds += time.monotonic() - began
        cells.append(sent)
    return Timed(seconds, cells)


def bare(state: State, cells: Iterable[Iterable[Sent]]) -> float:
    """Seconds that a pool of connections and nothing else takes for the same requests."""
    gc.collect()
    gc.freeze()  # what the runbooks have read is not the bare client's to look through
    client = urllib3.PoolManager(ca_certs=str(state.pki / "ca.crt"), maxsize=CONNECTIONS)

    def send(one: Sent) -> None:
        content = one.body if isinstance(one.body, bytes) else json.dumps(one.body).encode()
        body = None if one.body is None else content.replace(OURS.encode(), THEIRS.encode())
        answer = client.request(one.method, one.url.replace(OURS, THEIRS), body=body, headers=one.headers)
        assert answer.status < 400, answer.data
        answer.json()

    began = time.monotonic()
    for sent in cells:
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(send, sent))
    return time.monotonic() - began


def connected(state: State) -> Api:
    """The stand-ins' client, for what the benchmark needs besides."""
    server = f"https://127.0.0.1:{state.settings().api_port}"
    return Api(server, token(state.pki, STAND_INS), str(state.pki / "ca.crt"))


def at_once(work: Callable[[str], Any], items: Iterable[str]) -> None:
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(work, items))


def settled(api: Api, members: int) -> None:
    """Wait until the operator's stand-in has configured so many members."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        roll = api.request("GET", MEMBER_ROLLS.path("istio-system", "default"))
        if len(roll.get("status", {}).get("configuredMembers", [])) == members:
            return
        time.sleep(0.5)
    raise TimeoutError(f"the member roll does not come to {members} members")


def opened(state: State, mode: str, names: list[str]) -> Runbook:
    given = {
        "kubeconfig": str(state.kubeconfig),
        "context": "sandbox",
        "certificates_dir": str(state.folder / "certificates"),
        "ingress": "kourier",
        "members": names,
        "timeout_s": 600,
        "mode": mode,
    }
    return open_runbook("6.4.5", given)


def one_round(state: State) -> list[tuple[float, float]]:
    """Seconds of the runbook and of the bare client for each row of the table."""
    api = connected(state)
    ours, theirs = ([f"{prefix}{number}" for number in range(NAMESPACES)] for prefix in (OURS, THEIRS))
    at_once(lambda name: api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}}), ours + theirs)
    path = MEMBER_ROLLS.path("istio-system", "default")
    before = {"spec": {"members": ["default"]}}
    roll = {"apiVersion": "maistra.io/v1", "kind": "ServiceMeshMemberRoll", "metadata": {"name": "default"}}
    api.request("POST", MEMBER_ROLLS.path("istio-system"), {**roll, **before})
    settled(api, 1)

    with_journal = state.folder / journal.NAME
    os.environ[journal.VARIABLE] = str(with_journal)
    runbook = opened(state, "apply", ours)
    planned, written = timed(runbook, _LOOK), timed(runbook, _WRITE)
    timed(runbook, _PROVE)
    assert len(journal.read(with_journal.read_bytes())[0]) == NAMESPACES + 1
    assert runbook._outcome()["exit_code"] == 0
    runbook = opened(state, "verify", ours)
    verified = timed(runbook, (*_LOOK, *_PROVE))
    assert runbook._outcome()["exit_code"] == 0

    # the bare client meets the cluster as the runbook did: the same member roll, an operator at rest
    api.request("PATCH", path, before, content_type="application/merge-patch+json")
    settled(api, 1)
    found = [(planned.seconds, bare(state, planned.cells)), (written.seconds, bare(state, written.cells))]
    settled(api, 1 + NAMESPACES)
    return [*found, (verified.seconds, bare(state, verified.cells))]


# --- the others --------------------------------------------------------------------------------------------------


def others(state: State) -> list[str]:
    """The same policies by the tools of today, each where this machine has it."""
    return [*kubectl(state), *ansible(state)]


def policies(state: State, suffix: str) -> Path:
    """A file of policies that do not exist yet."""
    documents = [manifests.serving_system_policy(f"{THEIRS}{number}") for number in range(NAMESPACES)]
    for document in documents:
        document["metadata"]["name"] += suffix
    path = state.folder / f"policies{suffix}.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def kubectl(state: State) -> list[str]:
    program = shutil.which("kubectl")
    if program is None:
        return ["`kubectl` was not on this machine's PATH, so it was not measured.", ""]
    found = []
    for name, option in (("-server", "--server-side"), ("-client", "--server-side=false")):
        command = [program, f"--kubeconfig={state.kubeconfig}", "apply", option, "-f", str(policies(state, name))]
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE_S)
        found += [f"`kubectl apply {option}` of the same 1,000 policies: {time.monotonic() - began:.1f} s.", ""]
    return found


def ansible(state: State) -> list[str]:
    """``kubernetes.core.k8s`` with one task for all policies, by a package that is installed for this only."""
    folder = state.folder / "ansible"
    uv, python = str(Path(sys.executable).parent / "uv"), str(folder / "bin" / "python")
    for command in (
        [uv, "venv", "--quiet", str(folder)],
        [uv, "pip", "install", "--quiet", "--python", python, *_ANSIBLE],
    ):
        if subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE_S).returncode != 0:
            return ["Ansible could not be installed on this machine, so it was not measured.", ""]
    task: dict[str, Any] = {"src": str(policies(state, "-ansible")), "kubeconfig": str(state.kubeconfig)}
    playbook = folder / "playbook.yaml"
    variables = {**os.environ, "ANSIBLE_HOME": str(folder / "home"), "LC_ALL": "C.UTF-8"}
    command = [str(folder / "bin" / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(playbook)]
    command += ["-e", f"ansible_python_interpreter={python}"]
    found = []
    for words, options in (("", {}), (", `apply: true`", {"apply": True})):
        tasks = [{"kubernetes.core.k8s": {**task, **options}}]
        playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        began = time.monotonic()
        ran = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
        seconds = time.monotonic() - began
        assert ran.returncode == 0, ran.stdout + ran.stderr
        found += [f"Ansible, `kubernetes.core.k8s` in one task{words}: {seconds:.1f} s.", ""]
    return found


# --- the page ----------------------------------------------------------------------------------------------------


def measured(rounds: int) -> list[str]:
    """The page's lines about many namespaces."""
    found, last = [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            state = State("thousand", Path(folder) / "serverless-mesh-runbooks" / "sandbox")
            lifecycle.start(state, Played(ingress="kourier"), Console(file=io.StringIO()))
            try:
                found.append(one_round(state))
                last = others(state) if number == rounds - 1 else []
            finally:
                lifecycle.stop(state)
        print(f"round {number + 1} of {rounds}: {NAMESPACES} namespaces", flush=True)
    words = (
        "plan: reads, rights, 1,001 dry runs, compared and shown",
        "apply: member roll, 1,000 policies, two journal lines each",
        "verify: reads, compared, proven and shown",
    )
    return [
        f"## 6.4.5 in {NAMESPACES:,} namespaces",
        "",
        "Without the start of a kernel, and without the wait for the operator. The bare client sends the very same",
        f"requests, cell by cell, {CONNECTIONS} at a time, and does nothing else. The goal is a ratio of 1.5.",
        "",
        "| what | runbook, s | bare client, s | ratio |",
        "|---|---|---|---|",
        *(_row(what, [one[position] for one in found]) for position, what in enumerate(words)),
        _row("apply and verify together", [(a + b, c + d) for _, (a, c), (b, d) in found]),
        "",
        *last,
    ]


def _row(what: str, pairs: list[tuple[float, float]]) -> str:
    ours, theirs = (statistics.median(one[side] for one in pairs) for side in (0, 1))
    ratio = statistics.median(mine / bare for mine, bare in pairs)
    return f"| {what} | {ours:.2f} | {theirs:.2f} | {ratio:.2f} |"


if __name__ == "__main__":
    print("\n".join(measured(1)))
