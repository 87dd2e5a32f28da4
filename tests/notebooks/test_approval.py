"""An approval is of one plan: that plan, or what is left of it, is applied, and nothing else."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runbooks_sandbox.world import MEMBER_ROLLS
from tests.conftest import Sandbox
from tests.notebooks.test_command_line import BIN, ENVIRONMENT, command, papermill, run, structured

WANTED = ("-p", "require_approval", "true")


def planned(sandbox: Sandbox, section: str) -> str:
    """The digest of a plan, as whoever approves it sees it."""
    done = run(sandbox, section, "--mode", "plan", "--json")
    assert 2 == done.returncode, done.stderr
    return str(json.loads(done.stdout)["runs"][0]["facts"]["plan"]["digest"])


def applied(sandbox: Sandbox, section: str, *arguments: object) -> tuple[int, dict[str, Any]]:
    done = run(sandbox, section, "--mode", "apply", "--json", *WANTED, *arguments)
    return done.returncode, json.loads(done.stdout)["runs"][0]


def approving(digest: str) -> tuple[str, ...]:
    return ("--approve", digest, "--approved-by", "Sato")


def test_nothing_is_changed_without_an_approval_and_the_digest_is_named(sandbox: Sandbox) -> None:
    digest = planned(sandbox, "6.4.2")
    since = sandbox.audit_position()
    code, ran = applied(sandbox, "6.4.2")
    assert (1, "blocked") == (code, ran["outcome"])
    assert "no approval was given" in ran["reason"]
    done = run(sandbox, "6.4.2", "--mode", "apply", *WANTED)
    assert f"--approve {digest} --approved-by NAME" in done.stdout
    assert [] == sandbox.writes(since)
    assert not sandbox.state.certificates.exists() or not list(sandbox.state.certificates.iterdir())


def test_the_approved_plan_is_applied_and_who_approved_it_is_in_the_record(sandbox: Sandbox) -> None:
    digest = planned(sandbox, "6.4.2")
    code, ran = applied(sandbox, "6.4.2", *approving(digest), "--approve-until", "2999-01-01T00:00:00Z")
    assert (0, "done and proven") == (code, ran["outcome"]), ran["reason"]
    folder = sandbox.state.folder / "records"
    name = ran["notebook"].split("/")[-2]
    told = json.loads(command(sandbox, "runbooks", "records", "show", name, "--json", "--records", folder).stdout)
    approval = told["facts"]["approval"]
    assert ("met", digest, "Sato") == (approval["verdict"], approval["digest"], approval["by"])
    code, ran = applied(sandbox, "6.4.2", *approving(digest))
    assert (0, "no changes") == (code, ran["outcome"]), "a plan without changes needs no approval"


def test_an_approval_ends(sandbox: Sandbox) -> None:
    digest = planned(sandbox, "6.4.2")
    code, ran = applied(sandbox, "6.4.2", *approving(digest), "--approve-until", "2020-01-01T00:00:00Z")
    assert (1, "blocked") == (code, ran["outcome"])
    assert "the approval by Sato ended at 2020-01-01T00:00:00Z" in ran["reason"]


def test_a_cluster_that_changed_meanwhile_is_not_changed_and_the_difference_is_shown(sandbox: Sandbox) -> None:
    assert 0 == run(sandbox, "6.4.2", "--mode", "apply").returncode
    roll = {"apiVersion": "maistra.io/v1", "kind": "ServiceMeshMemberRoll", "metadata": {"name": "default"}}
    members = {"spec": {"members": ["default", "knative-serving"]}}
    sandbox.api.request("POST", MEMBER_ROLLS.path("istio-system"), {**roll, **members})
    digest = planned(sandbox, "6.4.3")
    sandbox.patch(MEMBER_ROLLS, "istio-system", "default", {"spec": {"members": ["knative-serving"]}})
    since = sandbox.audit_position()
    code, ran = applied(sandbox, "6.4.3", *approving(digest))
    assert (1, "blocked") == (code, ran["outcome"])
    assert f"beyond {digest[:24]}… it would do" in ran["reason"]
    assert "ServiceMeshMemberRoll istio-system/default spec.members[+]: None → 'default'" in ran["reason"]
    assert [] == sandbox.writes(since)


def test_a_run_that_was_killed_half_way_is_finished_under_the_same_approval(sandbox: Sandbox) -> None:
    assert 0 == run(sandbox, "6.4.2", "--mode", "apply").returncode
    digest = planned(sandbox, "6.4.3")
    sandbox.state.keep_faults({"stuck-operators": ""})
    folder = sandbox.state.folder / "records"
    arguments = ["run", "6.4.3", "--parameters", ENVIRONMENT, "--records", folder, "--mode", "apply", *WANTED]
    with subprocess.Popen(
        [BIN / "runbooks", *map(str, [*arguments, *approving(digest)])],
        env=sandbox.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "is not configured" in line)
        process.kill()
    sandbox.state.keep_faults({})
    assert 0 == command(sandbox, "runbooks", "records", "recover", "--records", folder).returncode
    code, ran = applied(sandbox, "6.4.3", *approving(digest))
    assert (0, "done and proven") == (code, ran["outcome"]), ran["reason"]
    assert f"as a part of {digest}, by Sato" == ran["facts"]["approval"]["said"]


def test_a_new_root_that_was_made_under_the_approval_counts_as_the_new_root(sandbox: Sandbox) -> None:
    """The root is made, then the run ends: the certificate is signed by a root that is there already."""
    digest = planned(sandbox, "6.4.2")
    code, ran = applied(sandbox, "6.4.2", *approving(digest))
    assert 0 == code, ran["reason"]
    for name in ("wildcard.key", "wildcard.csr", "wildcard.crt"):
        (sandbox.state.certificates / name).unlink()
    sandbox.api.request("DELETE", "/api/v1/namespaces/istio-system/secrets/wildcard-certs")
    code, ran = applied(sandbox, "6.4.2", *approving(digest))
    assert (0, f"as a part of {digest}, by Sato") == (code, ran["facts"]["approval"].get("said")), ran["reason"]


def test_plain_papermill_takes_the_whole_plan(sandbox: Sandbox, tmp_path: Path) -> None:
    digest, stem = planned(sandbox, "6.4.2"), "6.4.2-create-ingress-certificates"
    wanted = ("-p", "mode", "apply", "-p", "require_approval", "True", "-p", "approved_by", "Sato")
    refused = papermill(sandbox, stem, tmp_path / "refused.ipynb", *wanted)
    assert (1, True) == (refused.returncode, "no approval was given" in refused.stderr), refused.stderr
    done = papermill(sandbox, stem, tmp_path / "out.ipynb", *wanted, "-y", f"approve: [{digest}]")
    assert 0 == done.returncode, done.stderr
    assert "as a whole, by Sato" == structured(tmp_path / "out.ipynb")["outcome"]["approval"]["said"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--approve", "88907052cedd"), "approve: '88907052cedd' is not valid here"),
        (("--approve", "plan-sha256:" + 64 * "0"), "approved_by: missing"),
        (("--approve-until", "tomorrow"), "is no moment"),
        (("--approve-until", "2026-12-01T06:00:00"), "has no zone"),
    ],
)
def test_an_approval_that_cannot_be_read_is_refused(integrated: Sandbox, arguments: tuple[str, ...], said: str) -> None:
    done = run(integrated, "6.4.3", "--mode", "apply", *arguments)
    assert (64, True) == (done.returncode, said in done.stderr), done.stderr
