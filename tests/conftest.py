"""Real control planes for the tests; each has a state folder of its own and is gone afterwards."""

from __future__ import annotations

import io
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from runbooks.display import View
from runbooks.parameters import read_file
from runbooks.procedure import SECTIONS
from runbooks.rights import Right, roles
from runbooks.step import open_runbook
from runbooks_sandbox import binaries, lifecycle
from runbooks_sandbox.api import Api, Object, Resource
from runbooks_sandbox.credentials import STAND_INS, token
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.state import State
from runbooks_sandbox.world import NAMESPACES

ROOT = Path(__file__).parents[1]
REAL_CRDS = ROOT.parent / "shared" / "crds"
ENGINEER = "platform-engineer"
ISTIOD_IS_HERE = bool((_found := binaries.find_installed()) and _found.istiod)
_A_LONG_SESSION = 30  # tests
PLAIN = Played(gateway="files")  # the same on every machine, whether it has istiod or not


@dataclass
class Sandbox:
    """A running sandbox, and what a test does with it."""

    state: State
    api: Api

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it, with the project's own parameter files."""
        home = self.state.folder.parents[2]
        own = {"XDG_STATE_HOME": str(home), "RUNBOOKS_SANDBOX": self.state.name}
        return {**os.environ, **own, "RUNBOOKS_KEY": str(home / "signing" / "key")}

    def parameters(self, number: str, **changes: object) -> dict[str, Any]:
        """The parameters of the environment ``sandbox``, with changes."""
        folder, stem = ROOT / "parameters" / "sandbox", SECTIONS[number].stem
        values = read_file(folder / "cluster.yaml") | read_file(folder / f"{stem}.yaml")
        own = {"kubeconfig": str(self.state.kubeconfig), "certificates_dir": str(self.state.certificates)}
        return {**values, **own, "timeout_s": 60, **changes}

    def play(self, number: str, mode: str = "apply", **changes: object) -> dict[str, Any]:
        """Run a runbook's cells in this process, in the notebook's order; returns its outcome."""
        return self.play_until("", number, mode, **changes)["outcome"]

    def play_until(self, last: str, number: str, mode: str = "apply", **changes: object) -> dict[str, dict[str, Any]]:
        """Run the cells up to and with one of them; returns each cell's structured value."""
        runbook = open_runbook(number, self.parameters(number, mode=mode, **changes))
        found: dict[str, dict[str, Any]] = {}
        notebook = json.loads((ROOT / "notebooks" / f"{SECTIONS[number].stem}.ipynb").read_text())
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code" or cell["id"] in ("parameters", "values", "connect", "verdict"):
                continue
            verb, _, step = cell["id"].partition("-")
            view: View = getattr(runbook, verb)(*([step] if step else []))
            found[cell["id"]] = dict(view.data)
            if cell["id"] == last:
                break
        return found

    def get(self, resource: Resource, namespace: str, name: str) -> Object:
        """One object as it is now."""
        return dict(self.api.request("GET", resource.path(namespace, name)))

    def patch(
        self, resource: Resource, namespace: str, name: str, body: Object, manager: str = "kubectl-edit"
    ) -> Object:
        """A merge patch under a field manager's name."""
        path, query = resource.path(namespace, name), {"fieldManager": manager}
        return dict(self.api.request("PATCH", path, body, query=query, content_type="application/merge-patch+json"))

    def eventually(self, holds: Callable[[], bool], timeout_s: float = 20) -> None:
        """Wait until the stand-ins have brought something about."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, "it did not come about"
            time.sleep(0.05)

    def create_namespace(self, name: str) -> None:
        """A namespace of an application."""
        self.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def writes(self, since: int = 0, user: str = ENGINEER) -> list[str]:
        """The writes in the API server's own audit log: verb and path; access reviews and dry runs aside."""
        found = []
        for line in self.state.audit_log.read_text().splitlines()[since:]:
            event = json.loads(line)
            uri = event["requestURI"]
            if event["user"].get("username") != user or "/apis/auth" in uri or "dryRun=All" in uri:
                continue
            if event["verb"] in ("create", "update", "patch", "delete") and "/portforward" not in uri:
                found.append(f"{event['verb']} {uri.partition('?')[0]}")
        return found

    def audit_position(self) -> int:
        """How many lines the audit log has once it rests; the server writes them a moment after its answer."""
        before, lines = -1, len(self.state.audit_log.read_text().splitlines())
        deadline = time.monotonic() + 5
        while lines != before and time.monotonic() < deadline:
            time.sleep(0.1)
            before, lines = lines, len(self.state.audit_log.read_text().splitlines())
        return lines

    def service_account(self, name: str, rights: Iterable[Right]) -> str:
        """A kubeconfig for a new ServiceAccount with just these rights, as ``runbooks list --rbac`` prints them."""
        self.api.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": name}})
        subject = {"kind": "ServiceAccount", "namespace": "default", "name": name}
        present = {live["metadata"]["name"] for live in self.api.request("GET", NAMESPACES.path())["items"]}
        for document in roles(rights, f"runbooks-{name}", subject):
            namespace = document["metadata"].get("namespace")
            where = f"/namespaces/{namespace}" if namespace else ""
            if not namespace or namespace in present:
                plural = f"{document['kind'].lower()}s"
                self.api.request("POST", f"/apis/rbac.authorization.k8s.io/v1{where}/{plural}", document)
        spec = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        path = f"/api/v1/namespaces/default/serviceaccounts/{name}/token"
        issued = self.api.request("POST", path, spec)["status"]["token"]
        config = yaml.safe_load(self.state.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": issued}
        target = self.state.folder / f"kubeconfig-{name}"
        target.write_text(yaml.safe_dump(config))
        return str(target)


MakesSandboxes = Callable[..., Sandbox]


def started(state: State, played: Played) -> Sandbox:
    """Start a sandbox and wait until it is usable."""
    lifecycle.start(state, played, Console(file=io.StringIO()))
    server = f"https://127.0.0.1:{state.settings().api_port}"
    return Sandbox(state, Api(server, token(state.pki, STAND_INS), str(state.pki / "ca.crt")))


@pytest.fixture(scope="session")
def new_sandbox(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakesSandboxes]:
    """Makes sandboxes, and takes them down in the end.

    In a long session the next one starts while a test uses the one before: most of them want a plain one, and tests
    and starting sandboxes both mostly wait.
    """
    home = tmp_path_factory.mktemp("state")
    made, numbers = list[State](), itertools.count()
    ahead: list[Future[Sandbox]] = []

    def start(played: Played) -> Sandbox:
        state = State(f"test-{next(numbers)}", home / "serverless-mesh-runbooks" / "sandbox")
        made.append(state)
        return started(state, played)

    def make(**played: Any) -> Sandbox:
        if played:
            return start(Played(**{"gateway": "files", **played}))
        found = ahead.pop().result() if ahead else start(PLAIN)
        if len(request.session.items) > _A_LONG_SESSION:
            ahead.append(starting.submit(start, PLAIN))
        return found

    with ThreadPoolExecutor(1) as starting:
        yield make
    for state in made:
        lifecycle.stop(state)


@pytest.fixture
def sandbox(new_sandbox: MakesSandboxes) -> Iterator[Sandbox]:
    """A fresh cluster for one test."""
    found = new_sandbox()
    yield found
    lifecycle.stop(found.state)


@pytest.fixture(scope="module")
def integrated(new_sandbox: MakesSandboxes) -> Iterator[Sandbox]:
    """A cluster that 6.4.2 and 6.4.3 have been applied to; tests that share it put back what they change."""
    found = new_sandbox()
    for number in ("6.4.2", "6.4.3"):
        outcome = found.play(number)
        assert "done and proven" == outcome["outcome"], outcome["reason"]
    yield found
    lifecycle.stop(found.state)


def documented(text: str) -> Mapping[str, Any]:
    """A manifest as the page shows it."""
    return dict(yaml.safe_load(text))
