"""A canary wherever a run can meet a secret: nothing that the run wrote holds it, besides the quarantine."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from runbooks.record import keys, verification
from runbooks.record.archive import Archive
from runbooks.record.verification import Verdict
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import ApiError
from runbooks_sandbox.world import SECRETS
from tests import engine_cases as cases
from tests.conftest import ROOT, Sandbox
from tests.notebooks.test_command_line import command

CANARY = "-".join(("correct", "horse", "battery", "staple"))  # it looks like nothing in particular
DRESSES = (CANARY.encode(), base64.b64encode(CANARY.encode()), CANARY.encode().hex().encode())
NAMED = "Secret istio-system/wildcard-certs tls.key"


@dataclass
class Place:
    """A cluster whose Secret holds the canary, and a folder for everything that a run writes."""

    sandbox: Sandbox
    folder: Path

    def run(self, program: str, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command; what it prints is kept among what it writes."""
        for name in ("tmp", "records"):
            (self.folder / name).mkdir(exist_ok=True)
        variables = {
            "TMPDIR": str(self.folder / "tmp"),
            "RUNBOOKS_RECORDS": str(self.folder / "records"),
            "RUNBOOKS_KEY": str(self.folder / "signing.key"),
            "HOME": str(self.folder),
            **more,
        }
        environment = {**self.sandbox.environment, **variables}
        done = command(self.sandbox, program, *arguments, environment=environment, cwd=self.folder)
        (self.folder / "printed.txt").write_text(done.stdout + done.stderr)
        return done

    def papermill(self, *cells: str, target: str = "out.ipynb", **more: str) -> subprocess.CompletedProcess[str]:
        """Run cells of our own as the runbook 6.4.2 under plain papermill."""
        source = cases.notebook(self.folder.parent / "in.ipynb", *cells, runbook="6.4.2")
        parameters = self.sandbox.parameters("6.4.2", certificates_dir=str(self.folder.parent / "certificates"))
        (self.folder.parent / "given.yaml").write_text(yaml.safe_dump(parameters))
        given = ("-f", self.folder.parent / "given.yaml", "--no-progress-bar", "--engine", "runbooks")
        return self.run("papermill", *given, source, target, **more)

    def holding(self) -> set[str]:
        """The files that hold the canary in any dress, besides those in quarantine."""
        found = {path for path in self.folder.rglob("*") if path.is_file()}
        kept = {path for path in found if "quarantine" not in path.parts}
        return {str(path) for path in kept if any(dress in path.read_bytes() for dress in DRESSES)}

    def told(self) -> dict[str, object]:
        """What the only record says, whose signatures are good."""
        archive = Archive.open(self.folder / "records")
        public = keys.load(self.folder / "signing.key").public
        assert Verdict.VERIFIED == verification.verify(archive, [public]).verdict
        (record,) = archive.records()
        return record.facts()


@pytest.fixture(scope="module")
def cluster(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    found = new_sandbox()
    found.play("6.4.2")
    data = {"data": {"tls.key": DRESSES[1].decode()}}
    found.patch(SECRETS, "istio-system", "wildcard-certs", data)
    yield found
    lifecycle.stop(found.state)


@pytest.fixture
def place(cluster: Sandbox, tmp_path: Path) -> Place:
    folder = tmp_path / "written"
    folder.mkdir()
    keys.create(folder / "signing.key")
    return Place(cluster, folder)


CONNECT = (
    "from runbooks import cluster; from runbooks.kinds import SECRET; import base64\n"
    "connection = cluster.connect(kubeconfig, context)\n"
    "live = connection.get(SECRET, 'istio-system', 'wildcard-certs')\n"
    "value = base64.b64decode(live['data']['tls.key']).decode()"
)
CELLS = {
    "printed as it stands": "print('the key is', value)",
    "printed in base64": "print(live)",
    "in an exception": "raise ValueError(f'cannot parse {value}')",
    "in metadata": "from IPython.display import display; display({'text/plain': '1'}, raw=True, metadata={'v': value})",
    # a thread of the kernel's sends what is printed, and has to be given the time
    "in a kernel that dies": "import os, time; print(value, flush=True); time.sleep(1); os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_value_that_was_read_from_a_secret_of_the_cluster(place: Place, cell: str) -> None:
    done = place.papermill(CONNECT, cell)
    assert 0 != done.returncode
    assert set() == place.holding() - {str(place.folder / "printed.txt")}
    outcome, hygiene = (json.dumps(place.told()[name]) for name in ("outcome", "hygiene"))
    assert "failed: secret found" in outcome
    assert NAMED in hygiene
    assert not (place.folder / "out.ipynb").exists()
    quarantined = [path for path in (place.folder / "records" / "quarantine").rglob("*") if path.is_file()]
    assert [("out.ipynb", 0o600)] == [(path.name, path.stat().st_mode & 0o777) for path in quarantined]


def test_what_was_found_is_said_also_where_the_run_was_interrupted(place: Place) -> None:
    # what was printed has to have arrived before the signal does
    wait = "time.sleep(1); os.kill(os.getppid(), signal.SIGTERM); time.sleep(30)"
    cell = f"import os, signal, time; print(value, flush=True); {wait}"
    done = place.papermill(CONNECT, cell)
    assert 143 == done.returncode
    assert f"{NAMED} in the cell during" in done.stderr
    assert "failed: secret found" in json.dumps(place.told()["outcome"])
    assert set() == place.holding() - {str(place.folder / "printed.txt")}


def test_an_environment_variable_whose_name_tells(place: Place) -> None:
    done = place.papermill("import os; print(os.environ['DEPLOY_TOKEN'])", DEPLOY_TOKEN=CANARY)
    assert 1 == done.returncode
    assert "environment variable DEPLOY_TOKEN in the cell before" in done.stderr
    assert set() == place.holding()


def test_a_key_that_the_run_makes(place: Place) -> None:
    """The outcome quotes the exception, so it is the last thing that could tell it."""
    folder = place.folder.parent / "certificates"
    made = f"import pathlib; folder = pathlib.Path({str(folder)!r}); folder.mkdir(); "
    made += f"(folder / 'root.key').write_bytes(bytes.fromhex({CANARY.encode().hex()!r})[:28])"
    read = "raise ValueError((folder / 'root.key').read_text())"
    done = place.papermill(made, read)
    assert 1 == done.returncode
    assert set() == place.holding() - {str(place.folder / "printed.txt")}
    assert str(folder / "root.key") in json.dumps(place.told()["hygiene"])


def test_a_password_in_the_address_of_the_output(place: Place) -> None:
    done = place.papermill("1", target=f"https://joe:{CANARY}@127.0.0.1/out.ipynb")
    assert 1 == done.returncode
    assert set() == place.holding() - {str(place.folder / "printed.txt")}
    assert "a password in a URL" in json.dumps(place.told()["outcome"])


def test_what_the_kernel_leaves_among_temporary_files_goes_with_it(place: Place) -> None:
    """The client writes a kubeconfig's key there, and a kernel that is killed takes nothing away."""
    done = place.papermill("import tempfile; open(tempfile.mkstemp()[1], 'w').write('left')")
    assert 0 == done.returncode, done.stderr
    assert [] == list((place.folder / "tmp").iterdir())


def test_a_folder_for_temporary_files_with_a_long_path_is_no_hindrance(place: Place) -> None:
    away = place.folder / ("long" * 25)
    away.mkdir()
    done = place.papermill(CONNECT, TMPDIR=str(away))
    assert 0 == done.returncode, done.stderr


REFUSES = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "tells"},
    "spec": {
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["secrets"]}
            ]
        },
        "validations": [
            {
                "expression": "false",
                "messageExpression": "'this replaces ' + string(oldObject.data['tls.key'])",
            }
        ],
    },
}


def test_the_words_of_a_server(place: Place) -> None:
    """The message of an admission policy quotes the old value, in base64; plan and outcome hold it."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
    place.sandbox.api.request("POST", f"{path}ies", REFUSES)
    binding = {**REFUSES, "kind": "ValidatingAdmissionPolicyBinding"}
    spec = {"policyName": "tells", "validationActions": ["Deny"]}
    place.sandbox.api.request("POST", f"{path}ybindings", {**binding, "spec": spec})
    try:
        place.sandbox.eventually(lambda: "this replaces" in refusal(place.sandbox))
        done = place.run("runbooks", "run", "6.4.2", "--parameters", ROOT / "parameters" / "sandbox", "--mode", "apply")
    finally:
        place.sandbox.api.request("DELETE", f"{path}ybindings/tells")
        place.sandbox.api.request("DELETE", f"{path}ies/tells")
    assert 1 == done.returncode
    assert set() == place.holding()
    assert f"‹not shown: it holds {NAMED}›" in done.stdout
    facts = place.told()
    assert "failed: secret found" in json.dumps(facts["outcome"])
    assert "plan" not in facts, "what holds a secret was not signed"


def refusal(sandbox: Sandbox) -> str:
    """What the server says to a dry run of another value."""
    body = {"data": {"tls.key": ""}}
    path, query = SECRETS.path("istio-system", "wildcard-certs"), {"dryRun": "All"}
    try:
        sandbox.api.request("PATCH", path, body, query=query, content_type="application/merge-patch+json")
    except ApiError as error:
        return str(error)
    return ""


PARAMETERS = {
    "an unknown name": "password: {canary}",
    "a reason": "reason: 'it was {canary} before'",
    "in place of a file": "key_file: '{canary}'",
}


@pytest.mark.parametrize("line", PARAMETERS.values(), ids=PARAMETERS)
def test_a_parameter_file(place: Place, line: str, tmp_path: Path) -> None:
    """The value is known as a secret by the environment; parameters stand in the record, so the run is refused."""
    folder = tmp_path / "parameters"
    folder.mkdir()
    shared = (ROOT / "parameters" / "sandbox" / "cluster.yaml").read_text()
    (folder / "cluster.yaml").write_text(shared)
    own = (ROOT / "parameters" / "sandbox" / "6.4.2-create-ingress-certificates.yaml").read_text()
    (folder / "6.4.2-create-ingress-certificates.yaml").write_text(own + line.format(canary=CANARY) + "\n")
    done = place.run("runbooks", "run", "6.4.2", "--parameters", folder, DEPLOY_TOKEN=CANARY)
    assert done.returncode in (1, 64)
    assert "Traceback" not in done.stderr
    assert set() == place.holding()
    assert () == tuple((place.folder / "records").glob("records/*"))
