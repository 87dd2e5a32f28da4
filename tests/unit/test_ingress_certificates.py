"""The checks of 6.4.2 where they have to tell a fault from what this run or this machine does not have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbooks.certificates import Pair
from runbooks.checks import ingress_certificates
from runbooks.checks.check import Check
from runbooks.issuance import Issuance
from runbooks.kinds import SECRET
from runbooks.procedure import SECTIONS
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.verdicts import Checked, Proof

Situate = Callable[..., Situation[Any]]


def looked(check: Check, situation: Situation[Any]) -> Checked:
    nobody: Any = None  # these checks read files and what was read before
    return check.judge(check.title, situation, nobody)


@pytest.mark.parametrize(("mode", "proof"), [("verify", Proof.UNPROVEN), ("apply", Proof.FAILED)])
def test_a_root_need_not_be_on_the_machine_that_only_verifies(
    situate: Situate, tmp_path: Path, mode: str, proof: Proof
) -> None:
    situation = situate("6.4.2", mode=mode, certificates_dir=str(tmp_path / "none"))
    assert proof is looked(ingress_certificates.ROOT_ON_DISK, situation).proof


def test_a_folder_that_lost_its_root_fails_in_verify_too(situate: Situate, tmp_path: Path) -> None:
    (tmp_path / "wildcard.crt").write_bytes(b"")
    situation = situate("6.4.2", mode="verify", certificates_dir=str(tmp_path))
    assert Proof.FAILED is looked(ingress_certificates.ROOT_ON_DISK, situation).proof


@pytest.mark.parametrize("present", [True, False])
def test_nothing_is_said_of_the_secret_while_it_waits_for_something_elsewhere(
    situate: Situate, leaf: Pair, tls_secret: Callable[..., Live], present: bool
) -> None:
    found = {SECRET: [tls_secret(leaf)] if present else []}
    waiting = Issuance(waiting="have your CA sign it")
    checked = looked(ingress_certificates.SECRET_SERVES, situate("6.4.2", found, mode="apply", prepared=waiting))
    assert (Proof.SKIPPED, "have your CA sign it", "") == (checked.proof, checked.observed, checked.remedy)


def test_a_secret_that_this_run_does_not_make_is_not_waited_for(situate: Situate, leaf: Pair) -> None:
    step = SECTIONS["6.4.2"].step("secret")
    waits = situate("6.4.2", prepared=Issuance(waiting="have your CA sign it"))
    assert ((), ()) == (step.objects(waits), step.awaited(waits))
    makes = situate("6.4.2", prepared=Issuance(served=leaf))
    assert (1, 1) == (len(step.objects(makes)), len(step.awaited(makes)))
