"""6.4.2 from end to end for each source that a certificate can come from, and what it does with what it finds."""

from __future__ import annotations

import base64
import datetime as dt
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runbooks import certificates
from runbooks.certificates import LEAF_CRT, LEAF_CSR, LEAF_KEY, ROOT_CRT, ROOT_KEY, Pair, Rules
from runbooks.step import Runbook, open_runbook
from runbooks_sandbox import lifecycle
from runbooks_sandbox.api import ApiError
from runbooks_sandbox.world import SECRETS
from tests.conftest import Sandbox

SECRET = ("istio-system", "wildcard-certs")
WILDCARD = "*.apps.openshift.example.com"
DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def shared(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """One cluster for all of this; what a test leaves is taken away before the next."""
    found = new_sandbox()
    yield found
    lifecycle.stop(found.state)


@pytest.fixture
def cluster(shared: Sandbox) -> Sandbox:
    """The cluster without the Secret and without a certificate folder."""
    try:
        shared.api.delete(SECRETS, *SECRET)
    except ApiError as error:
        if error.status != 404:
            raise
    shutil.rmtree(shared.state.certificates, ignore_errors=True)
    return shared


@pytest.fixture(scope="module")
def authority() -> Pair:
    """A CA that is not ours."""
    key, rules = certificates.new_key(), Rules(WILDCARD, organization="Authority", root_common_name="ca.example")
    return Pair(certificates.create_root(rules, key, dt.datetime.now(dt.UTC) - 100 * DAY), key)


def signed(issuer: Pair, request: bytes, valid_days: int = 90, since: dt.timedelta = 0 * DAY) -> bytes:
    now = dt.datetime.now(dt.UTC) + since
    return certificates.sign_request(Rules(WILDCARD, valid_days=valid_days), request, issuer, now)


def issued(issuer: Pair, valid_days: int = 90, since: dt.timedelta = 0 * DAY) -> Pair:
    key = certificates.new_key()
    return Pair(signed(issuer, certificates.create_request(Rules(WILDCARD), key), valid_days, since), key)


def served(cluster: Sandbox) -> Pair:
    data = cluster.get(SECRETS, *SECRET)["data"]
    return Pair(base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"]))


def put(cluster: Sandbox, pair: Pair) -> None:
    """The Secret as somebody else makes it."""
    address = {"namespace": SECRET[0], "name": SECRET[1]}
    body = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": address}
    data = {"tls.crt": pair.chain.decode(), "tls.key": pair.key.decode()}
    cluster.api.apply({**body, "stringData": data}, SECRETS, "somebody")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ended(outcome: dict[str, Any]) -> tuple[str, int]:
    return outcome["outcome"], outcome["exit_code"]


def proofs(outcome: dict[str, Any]) -> list[str]:
    """Those of the certificate; whether a gateway serves it is not run, since 6.4.3 has not brought any here."""
    *found, gateway = [check["proof"] for check in outcome["checks"]]
    assert "not run" == gateway
    return found


# --- the sources -------------------------------------------------------------------------------------------------


def test_own_key_and_chain_are_put_into_the_secret_and_never_overwritten(
    cluster: Sandbox, authority: Pair, tmp_path: Path
) -> None:
    first, second = issued(authority), issued(authority)
    files = {"own.key": first.key, "own.crt": first.chain, "ca.crt": authority.chain}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    given = {"certificate_source": "files", "key_file": f"{tmp_path}/own.key", "chain_file": f"{tmp_path}/own.crt"}
    given["trust_anchor"] = f"{tmp_path}/ca.crt"
    outcome = cluster.play("6.4.2", **given)
    assert ("done and proven", 0) == ended(outcome), outcome["reason"]
    assert ["Secret istio-system/wildcard-certs"] == [entry["target"] for entry in outcome["applied"]]
    assert (first, "proven") == (served(cluster), proofs(outcome)[-1])
    assert ("no changes", 0) == ended(cluster.play("6.4.2", **given))
    assert files == contents(tmp_path)
    # a new pair in the same place is how it is renewed
    (tmp_path / "own.key").write_bytes(second.key)
    assert "the private key does not belong to the certificate" in cluster.play("6.4.2", **given)["reason"]
    (tmp_path / "own.crt").write_bytes(second.chain)
    assert ("drift", 2) == ended(cluster.play("6.4.2", "verify", **given))
    assert ("done and proven", 0) == ended(cluster.play("6.4.2", **given))
    assert second == served(cluster)
    assert not cluster.state.certificates.exists()


def test_an_existing_secret_is_proven_and_never_written(cluster: Sandbox, authority: Pair, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.chain)
    given = {"certificate_source": "secret", "trust_anchor": f"{tmp_path}/ca.crt"}
    put(cluster, issued(authority))
    since, before = cluster.audit_position(), cluster.get(SECRETS, *SECRET)
    for mode, expected in {"plan": "no changes", "verify": "as desired", "apply": "no changes"}.items():
        outcome = cluster.play("6.4.2", mode, **given)
        assert (expected, 0) == ended(outcome), outcome["reason"]
    assert "proven" == proofs(outcome)[-1]
    put(cluster, issued(authority, valid_days=20))
    outcome = cluster.play("6.4.2", **given)
    assert ("blocked", 1) == ended(outcome)
    assert "it ends in " in outcome["reason"]
    assert [] == cluster.writes(since)
    assert before["metadata"]["uid"] == cluster.get(SECRETS, *SECRET)["metadata"]["uid"]
    assert not cluster.state.certificates.exists()


@pytest.mark.parametrize("where", ["in the folder", "as chain_file"])
def test_a_request_goes_out_waits_and_comes_back_signed(
    cluster: Sandbox, authority: Pair, tmp_path: Path, where: str
) -> None:
    folder = cluster.state.certificates
    chain = folder / LEAF_CRT if where == "in the folder" else tmp_path / "chain.crt"
    (tmp_path / "ca.crt").write_bytes(authority.chain)
    given: dict[str, Any] = {"certificate_source": "request", "trust_anchor": f"{tmp_path}/ca.crt"}
    given |= {"chain_file": str(chain)} if where == "as chain_file" else {}
    assert ("changes pending", 2) == ended(cluster.play("6.4.2", "plan", **given))
    began = dt.datetime.now(dt.UTC)
    outcome = cluster.play("6.4.2", **given)
    assert dt.timedelta(seconds=30) > dt.datetime.now(dt.UTC) - began, "it waited for what only the CA can bring"
    assert ("blocked", 1) == ended(outcome)
    assert outcome["reason"].startswith(f"have your CA sign {folder}/{LEAF_CSR}, put the chain ")
    assert {"not run"} == set(proofs(outcome))
    assert [] == outcome["waited"]
    sent = contents(folder)
    assert {LEAF_KEY, LEAF_CSR} == sent.keys()
    # while the CA has it nothing changes, in whatever mode
    for mode, expected in {"plan": "changes pending", "verify": "drift", "apply": "blocked"}.items():
        waiting = cluster.play("6.4.2", mode, **given)
        assert expected == waiting["outcome"], waiting["reason"]
        assert "have your CA sign" in waiting["reason"]
    assert sent == contents(folder)

    chain.write_bytes(signed(authority, sent[LEAF_CSR]) + authority.chain)
    back = contents(folder)
    outcome = cluster.play("6.4.2", **given)
    assert ("done and proven", 0) == ended(outcome), outcome["reason"]
    assert (Pair(chain.read_bytes(), sent[LEAF_KEY]), "proven") == (served(cluster), proofs(outcome)[-1])
    assert ("no changes", 0) == ended(cluster.play("6.4.2", **given))
    assert ("as desired", 0) == ended(cluster.play("6.4.2", "verify", **given))
    assert back == contents(folder)


def test_a_new_request_does_not_fail_for_the_old_secret(cluster: Sandbox, authority: Pair, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.chain)
    put(cluster, issued(authority, valid_days=10, since=-20 * DAY))
    outcome = cluster.play("6.4.2", certificate_source="request", trust_anchor=f"{tmp_path}/ca.crt")
    assert ("blocked", 1) == ended(outcome)
    assert "have your CA sign" in outcome["reason"]


def test_a_chain_that_another_authority_signed_is_refused(cluster: Sandbox, authority: Pair, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(issued(authority).chain)
    given = {"certificate_source": "request", "trust_anchor": f"{tmp_path}/ca.crt"}
    cluster.play("6.4.2", **given)
    folder = cluster.state.certificates
    (folder / LEAF_CRT).write_bytes(signed(authority, (folder / LEAF_CSR).read_bytes()))
    outcome = cluster.play("6.4.2", **given)
    assert ("blocked", 1) == ended(outcome)
    assert "is not the trust anchor" in outcome["reason"]


# --- a machine without the folder --------------------------------------------------------------------------------


def test_verify_without_the_keys_finds_what_is_due_and_nothing_else(cluster: Sandbox, tmp_path: Path) -> None:
    assert ("done and proven", 0) == ended(cluster.play("6.4.2"))
    root = contents(cluster.state.certificates)
    (tmp_path / "ca.crt").write_bytes(root[ROOT_CRT])
    host = {"certificates_dir": f"{tmp_path}/none", "trust_anchor": f"{tmp_path}/ca.crt"}
    outcome = cluster.play("6.4.2", "verify", **host)
    assert ("as desired", 0) == ended(outcome), outcome["reason"]
    assert ["not proven", "not proven", "proven"] == proofs(outcome)
    assert "could not tell" == cluster.play("6.4.2", "verify", certificates_dir=f"{tmp_path}/none")["outcome"]

    put(cluster, issued(Pair(root[ROOT_CRT], root[ROOT_KEY]), valid_days=5))
    outcome = cluster.play("6.4.2", "verify", **host)
    assert ("drift", 2) == ended(outcome)
    assert "Secret istio-system/wildcard-certs: it ends in 4 days, on " in outcome["reason"]
    assert "mode apply on the machine that holds certificates_dir" in outcome["reason"]
    assert not (tmp_path / "none").exists()
    assert ("done and proven", 0) == ended(cluster.play("6.4.2"))
    assert ("as desired", 0) == ended(cluster.play("6.4.2", "verify", **host))


# --- what is on disk ---------------------------------------------------------------------------------------------


def cells(runbook: Runbook, *names: str) -> None:
    for name in names:
        verb, _, step = name.partition("-")
        getattr(runbook, verb)(*([step] if step else []))


def test_of_two_runs_on_one_folder_the_second_overwrites_nothing(cluster: Sandbox) -> None:
    slow = open_runbook("6.4.2", cluster.parameters("6.4.2", mode="apply"))
    cells(slow, "preconditions", "desired", "plan")
    assert ("done and proven", 0) == ended(cluster.play("6.4.2"))
    before, pair = contents(cluster.state.certificates), served(cluster)
    cells(slow, "apply-root", "prove-root", "apply-wildcard", "apply-secret")
    outcome = dict(slow.outcome().data)
    assert ("failed", 1) == ended(outcome)
    assert "root.key: it was not there when the plan was made, and it is now" in outcome["reason"]
    assert (before, pair) == (contents(cluster.state.certificates), served(cluster))
    assert ("no changes", 0) == ended(cluster.play("6.4.2"))


def test_a_second_run_replaces_no_key_that_has_changed_since_the_plan(cluster: Sandbox) -> None:
    assert ("done and proven", 0) == ended(cluster.play("6.4.2"))
    folder = cluster.state.certificates
    (folder / LEAF_CRT).unlink()
    cluster.api.delete(SECRETS, *SECRET)
    slow = open_runbook("6.4.2", cluster.parameters("6.4.2", mode="apply"))
    cells(slow, "preconditions", "desired", "plan")
    theirs = certificates.new_key()
    (folder / LEAF_KEY).write_bytes(theirs)
    cells(slow, "apply-root", "apply-wildcard")
    assert "its content is no longer what the plan was made from" in slow.outcome().data["reason"]
    assert theirs == (folder / LEAF_KEY).read_bytes()
    assert not (folder / LEAF_CRT).exists()


def test_an_expired_leaf_on_disk_is_brought_in_line_with_the_good_secret(cluster: Sandbox, authority: Pair) -> None:
    folder = cluster.state.certificates
    folder.mkdir(parents=True, mode=0o700)
    good, old = issued(authority), issued(authority, valid_days=10, since=-20 * DAY)
    files = {ROOT_CRT: authority.chain, ROOT_KEY: authority.key, LEAF_CRT: old.chain, LEAF_KEY: old.key}
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    put(cluster, good)
    plan = cluster.play("6.4.2", "plan")
    assert ("changes pending", 2) == ended(plan)
    changed = [change for change in plan["plan"]["changes"] if change["operation"] != "unchanged"]
    assert [f"File {folder}/{LEAF_KEY}", f"File {folder}/{LEAF_CRT}"] == [change["target"] for change in changed]
    assert "the key that the Secret holds" in str(changed)
    assert ("drift", 2) == ended(cluster.play("6.4.2", "verify"))
    outcome = cluster.play("6.4.2")
    assert ("done and proven", 0) == ended(outcome), outcome["reason"]
    assert {**files, LEAF_CRT: good.chain, LEAF_KEY: good.key} == contents(folder)
    assert good == served(cluster)
    assert ("no changes", 0) == ended(cluster.play("6.4.2"))


# --- files that cannot be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["verify", "plan", "apply"])
@pytest.mark.parametrize("number", ["6.4.2", "6.4.3"])
def test_a_trust_anchor_that_is_missing_blocks_and_is_named(
    cluster: Sandbox, tmp_path: Path, number: str, mode: str
) -> None:
    since = cluster.audit_position()
    outcome = cluster.play(number, mode, trust_anchor=f"{tmp_path}/absent.pem")
    assert ("blocked", 1) == ended(outcome)
    assert f"reading trust_anchor {tmp_path}/absent.pem: there is no such file" in outcome["reason"]
    assert [] == cluster.writes(since)
    assert not cluster.state.certificates.exists()
