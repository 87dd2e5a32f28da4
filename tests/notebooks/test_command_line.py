"""The notebooks as their users run them: real ``runbooks`` and ``papermill`` processes with real kernels."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
import yaml

from runbooks.display import MIME
from runbooks.kinds import kind_of
from runbooks.procedure import path_of
from runbooks_sandbox import lifecycle
from runbooks_sandbox.world import GATEWAYS
from tests.conftest import ROOT, Sandbox

BIN = Path(sys.executable).parent
ENVIRONMENT = ROOT / "parameters" / "sandbox"


def command(
    sandbox: Sandbox,
    *arguments: object,
    timeout: float = 90,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one of the installed commands as a user in another folder would."""
    program, *rest = map(str, arguments)
    return subprocess.run(
        [BIN / program, *rest],
        env=environment or sandbox.environment,
        cwd=cwd or sandbox.state.folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def run(sandbox: Sandbox, *arguments: object) -> subprocess.CompletedProcess[str]:
    records = sandbox.state.folder / "records"
    return command(sandbox, "runbooks", "run", *arguments, "--parameters", ENVIRONMENT, "--records", records)


def papermill(sandbox: Sandbox, stem: str, target: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    files = ("-f", ENVIRONMENT / "cluster.yaml", "-f", ENVIRONMENT / f"{stem}.yaml")
    source = ROOT / "notebooks" / f"{stem}.ipynb"
    return command(sandbox, "papermill", source, target, *files, "--no-progress-bar", *arguments)


def structured(path: Path) -> dict[str, dict[str, Any]]:
    """The structured output of each cell of an executed notebook."""
    found = {}
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if MIME in output.get("data", {}):
                found[cell.id] = dict(output.data[MIME])
    return found


def records(sandbox: Sandbox) -> list[Path]:
    return sorted((sandbox.state.folder / "records").glob("records/*/*.ipynb"))


def test_the_whole_istio_path_as_a_person_runs_it(sandbox: Sandbox) -> None:
    planned = run(sandbox, "all")
    assert 2 == planned.returncode, planned.stdout + planned.stderr
    assert "changes pending" in planned.stdout
    assert "waiting for 6.4.2" in planned.stdout
    assert 2 == run(sandbox, "all", "--mode", "verify").returncode
    assert not sandbox.state.certificates.exists()

    applied = run(sandbox, "all", "--mode", "apply")
    assert 0 == applied.returncode, applied.stdout + applied.stderr
    assert 4 == applied.stdout.count("done and proven: ")
    assert "\x1b" not in applied.stdout, "colours only on a terminal"
    latest = [path for path in records(sandbox) if "-apply-" in path.parent.name]
    assert [section.stem for section in path_of("istio")] == [path.stem for path in latest]
    proofs = structured(latest[2])["prove-knative-service"]["checks"]
    assert {"proven"} == {check["proof"] for check in proofs}
    answer = next(check for check in proofs if check["title"] == "The application answers over HTTPS")
    assert "Hello Openshift!" in answer["observed"]

    since = sandbox.audit_position()
    again = run(sandbox, "all", "--mode", "apply", "--json")
    assert 0 == again.returncode, again.stderr
    assert ["no changes"] * 5 == [ran["outcome"] for ran in json.loads(again.stdout)["runs"]]
    assert [] == sandbox.writes(since)
    assert 0 == run(sandbox, "all").returncode
    assert 0 == run(sandbox, "all", "--mode", "verify").returncode

    checked = command(sandbox, "runbooks", "records", "verify", "--all", "--records", sandbox.state.folder / "records")
    assert 0 == checked.returncode, checked.stdout + checked.stderr
    listed = command(sandbox, "runbooks", "records", "list", "--json", "--records", sandbox.state.folder / "records")
    assert len(records(sandbox)) == len(json.loads(listed.stdout))

    for key in sandbox.state.certificates.glob("*.key"):
        line = key.read_text().splitlines()[1]
        assert [] == [path for path in records(sandbox) if line in path.read_text()], "a key in a record"
    sandbox.api.delete(GATEWAYS, "knative-serving", "knative-local-gateway")
    drifted = run(sandbox, "6.4.3", "--mode", "verify")
    assert 2 == drifted.returncode
    assert "Gateway knative-serving/knative-local-gateway" in drifted.stdout


class TestPlainPapermill:
    def test_applies_and_proves(self, sandbox: Sandbox, tmp_path: Path) -> None:
        first, second = tmp_path / "1.ipynb", tmp_path / "2.ipynb"
        for stem, target in (("6.4.2-create-ingress-certificates", first), ("6.4.3-integrate-service-mesh", second)):
            done = papermill(sandbox, stem, target, "-p", "mode", "apply")
            assert 0 == done.returncode, done.stderr
            assert "done and proven" == structured(target)["outcome"]["outcome"]
        drift = {"metadata": {"labels": {"team": "shop"}}, "spec": {"selector": {"istio": "another"}}}
        sandbox.patch(GATEWAYS, "knative-serving", "knative-ingress-gateway", drift)
        planned = papermill(sandbox, "6.4.3-integrate-service-mesh", tmp_path / "3.ipynb")
        verified = papermill(sandbox, "6.4.3-integrate-service-mesh", tmp_path / "4.ipynb", "-p", "mode", "verify")
        assert (0, 1) == (planned.returncode, verified.returncode)
        assert "runbook 6.4.3 in mode verify: drift" in verified.stderr

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("-p", "memebers", "shop"), "memebers: runbook 6.4.3 has no such parameter; members?"),
            (("-p", "members", "default"), "members: 'default' is text; wanted a list of names"),
            (("-p", "serverless_version", "1.30"), "put it in quotes"),
            (("-p", "context", "prod-a"), "prod-a"),
        ],
    )
    def test_fails_on_what_papermill_itself_lets_pass(
        self, integrated: Sandbox, tmp_path: Path, arguments: tuple[str, ...], words: str
    ) -> None:
        since = integrated.audit_position()
        failed = papermill(
            integrated, "6.4.3-integrate-service-mesh", tmp_path / "x.ipynb", "-p", "mode", "apply", *arguments
        )
        assert 1 == failed.returncode
        assert words in failed.stderr
        assert [] == integrated.writes(since)
        errors = [
            output
            for cell in nbformat.read(tmp_path / "x.ipynb", as_version=4).cells
            for output in cell.get("outputs", [])
            if output.output_type == "error"
        ]
        assert [] == [line for output in errors for line in output.traceback if "Traceback" in line]


class TestExitCodes:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("run",), "Missing argument"),
            (("run", "6.4.9", "--parameters", ENVIRONMENT), "6.4.9"),
            (("run", "all", "--parameters", "/no/such/folder"), "there is no such file"),
            (("run", "all", "--parameters", ENVIRONMENT, "--mode", "aply"), "aply"),
            (("run", "all", "--parameters", ENVIRONMENT, "-p", "memebers", "x"), "members?"),
            (("run", "6.4.3", "--parameters", ENVIRONMENT, "-p", "timeout_s", "soon"), "a whole number"),
            (("run", "6.4.3", "--parameters", ENVIRONMENT, "-p", "service_name", "<service_name>"), "placeholder"),
            (("no-such-command",), "no-such-command"),
        ],
    )
    def test_a_wrong_call_is_64_and_runs_nothing(
        self, integrated: Sandbox, arguments: tuple[Any, ...], words: str
    ) -> None:
        since, before = integrated.audit_position(), records(integrated)
        refused = command(integrated, "runbooks", *arguments)
        assert 64 == refused.returncode, refused.stderr
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
        assert (since, before) == (integrated.audit_position(), records(integrated))

    def test_where_no_record_can_be_written_nothing_is_run(self, integrated: Sandbox) -> None:
        since = integrated.audit_position()
        refused = command(integrated, "runbooks", "run", "6.4.3", "--parameters", ENVIRONMENT, "--records", "/proc/no")
        assert 1 == refused.returncode
        assert "/proc/no" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert since == integrated.audit_position()

    def test_without_a_key_a_real_cluster_is_not_touched(self, integrated: Sandbox) -> None:
        config = integrated.state.folder / "real"
        config.write_text(integrated.state.kubeconfig.read_text().replace("name: sandbox", "name: prod-a"))
        folder = ("--parameters", ENVIRONMENT, "--records", integrated.state.folder / "elsewhere")
        given = ("-p", "kubeconfig", config, "-p", "context", "prod-a")
        environment = {**integrated.environment, "RUNBOOKS_KEY": str(integrated.state.folder / "no-such-key")}
        refused = subprocess.run(
            [BIN / "runbooks", "run", "6.4.3", *map(str, (*folder, *given))],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert 1 == refused.returncode
        assert "runbooks keys init" in refused.stderr

    def test_a_server_that_is_away_is_1_in_verify(self, integrated: Sandbox) -> None:
        config = integrated.state.folder / "away"
        text = integrated.state.kubeconfig.read_text()
        config.write_text(text.replace(f":{integrated.state.settings().api_port}", ":1"))
        failed = run(integrated, "all", "--mode", "verify", "-p", "kubeconfig", config)
        assert 1 == failed.returncode
        assert "127.0.0.1:1" in failed.stdout
        assert "Traceback" not in failed.stdout + failed.stderr

    def test_in_apply_the_first_failure_ends_the_call(self, integrated: Sandbox) -> None:
        wrong = ("-p", "ingress_domain", "apps.example.org")
        ran = run(integrated, "6.4.2", "6.4.3", "--mode", "apply", "--json", *wrong)
        assert 1 == ran.returncode
        assert ["blocked", "not run"] == [one["outcome"] for one in json.loads(ran.stdout)["runs"]]

    def test_verify_goes_on_after_a_failure(self, integrated: Sandbox) -> None:
        wrong = ("-p", "ingress_domain", "apps.example.org")
        ran = run(integrated, "6.4.2", "6.4.3", "--mode", "verify", "--json", *wrong)
        assert 1 == ran.returncode
        assert ["blocked", "blocked"] == [one["outcome"] for one in json.loads(ran.stdout)["runs"]]

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_a_signal_ends_the_run_and_its_kernel(self, sandbox: Sandbox, number: signal.Signals, code: int) -> None:
        assert 0 == run(sandbox, "6.4.2", "--mode", "apply").returncode
        sandbox.state.keep_faults({"stuck-operators": ""})
        arguments = ["run", "6.4.3", "--parameters", ENVIRONMENT, "--records", sandbox.state.folder / "records"]
        process = subprocess.Popen(
            [BIN / "runbooks", *map(str, arguments), "--mode", "apply"],
            env=sandbox.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                if "is not configured" in line:
                    break
            kernels = psutil.Process(process.pid).children(recursive=True)
            assert kernels
            began = time.monotonic()
            process.send_signal(number)
            assert code == process.wait(20)
            assert time.monotonic() - began < 5
            _, alive = psutil.wait_procs(kernels, timeout=3)
            assert [] == alive


def test_the_kourier_path_as_a_person_runs_it(new_sandbox: Callable[..., Sandbox]) -> None:
    kourier = new_sandbox(ingress="kourier")
    environment = ("--parameters", ROOT / "parameters" / "sandbox-kourier", "--json")
    environment += ("--records", kourier.state.folder / "records")
    outcomes = []
    for mode in ("plan", "apply", "apply", "verify"):
        ran = command(kourier, "runbooks", "run", "all", "--mode", mode, *environment)
        outcomes.append([one["outcome"] for one in json.loads(ran.stdout)["runs"]])
    assert ["no changes", "changes pending"] == outcomes[0]
    assert ["no changes", "done and proven"] == outcomes[1]
    assert ["no changes", "no changes"] == outcomes[2]
    assert ["as desired", "as desired"] == outcomes[3]
    refused = command(kourier, "runbooks", "run", "6.4.3", *environment)
    assert 1 == refused.returncode
    assert "ingress: kourier" in json.loads(refused.stdout)["runs"][0]["reason"]
    lifecycle.stop(kourier.state)


class TestRender:
    def test_gives_what_the_server_accepts_and_no_secret(self, integrated: Sandbox) -> None:
        rendered = command(integrated, "runbooks", "render", "all", "--parameters", ENVIRONMENT)
        assert 0 == rendered.returncode, rendered.stderr
        assert "# put the name of your ServiceMeshControlPlane in" in rendered.stdout
        text = rendered.stdout.replace("name: <name>", "name: basic")
        documents = [document for document in yaml.safe_load_all(text) if document]
        assert ["Secret", "ServiceMeshMemberRoll", "Gateway", "Gateway"] == [one["kind"] for one in documents[:4]]
        assert "data" not in documents[0]
        assert "take none of the others out" in rendered.stdout
        for document in documents[1:]:
            kind = kind_of(document)
            path = kind.path(document["metadata"]["namespace"], document["metadata"]["name"])
            query = {"fieldManager": "gitops", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
            integrated.api.request("PATCH", path, document, query=query, content_type="application/apply-patch+yaml")

    def test_asks_no_cluster(self, integrated: Sandbox) -> None:
        since = integrated.audit_position()
        elsewhere = ROOT / "parameters" / "sandbox-kourier"
        rendered = command(integrated, "runbooks", "render", "6.4.5", "--parameters", elsewhere)
        assert 0 == rendered.returncode, rendered.stderr
        assert "kind: NetworkPolicy" in rendered.stdout
        assert since == integrated.audit_position()


def test_a_run_that_is_killed_is_found_and_its_journal_tells_what_it_had_changed(sandbox: Sandbox) -> None:
    assert 0 == run(sandbox, "6.4.2", "--mode", "apply").returncode
    sandbox.state.keep_faults({"stuck-operators": ""})
    folder = sandbox.state.folder / "records"
    arguments = ["run", "6.4.3", "--parameters", ENVIRONMENT, "--records", folder, "--mode", "apply"]
    with subprocess.Popen(
        [BIN / "runbooks", *map(str, arguments)], env=sandbox.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "is not configured" in line)
        process.kill()
    pending = command(sandbox, "runbooks", "records", "pending", "--json", "--records", folder)
    assert 4 == pending.returncode
    [vanished] = json.loads(pending.stdout)
    assert ("unfinished", True) == (vanished["state"], vanished["intent"])
    recovered = command(sandbox, "runbooks", "records", "recover", "--records", folder)
    assert 0 == recovered.returncode, recovered.stderr
    assert "its journal names 1 changes that it made, and 0 that were under way" in recovered.stdout
    assert "now 1 of 6 objects are as it wanted them" in recovered.stdout
    assert 0 == command(sandbox, "runbooks", "records", "pending", "--records", folder).returncode
    shown = command(sandbox, "runbooks", "records", "show", vanished["id"], "--json", "--records", folder).stdout
    assert "ServiceMeshMemberRoll istio-system/default" in shown


class TestList:
    def test_names_what_each_runbook_changes(self, integrated: Sandbox) -> None:
        listed = command(integrated, "runbooks", "list")
        assert 0 == listed.returncode
        assert "6.4.2-create-ingress-certificates" in listed.stdout
        assert "member roll" in listed.stdout
        facts = json.loads(command(integrated, "runbooks", "list", "6.4.3", "--json").stdout)
        assert ["member-roll", "gateways", "knative-serving", "knative-service"] == [
            step["id"] for step in facts[0]["steps"]
        ]

    def test_prints_roles_that_the_server_accepts(self, integrated: Sandbox) -> None:
        printed = command(integrated, "runbooks", "list", "--rbac", "--mode", "apply", "--parameters", ENVIRONMENT)
        assert 0 == printed.returncode, printed.stderr
        assert "kind: ClusterRoleBinding" in printed.stdout
        assert "secrets" in printed.stdout
        assert "cluster-admin" not in printed.stdout
