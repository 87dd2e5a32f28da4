"""What follows from what was read and what was given."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from runbooks.certificates import ROOT_CRT
from runbooks.errors import CertificateError
from runbooks.kinds import INGRESS_CONFIG
from runbooks.parameters import IntegrateServiceMesh
from runbooks.situation import Situation
from runbooks.versions import Profile, Version

Situate = Callable[..., Situation[Any]]


@pytest.mark.parametrize(
    ("given", "domain", "wildcard"),
    [
        ("", "apps.openshift.example.com", "*.apps.openshift.example.com"),
        ("apps.example.com", "apps.example.com", "*.apps.example.com"),
    ],
)
def test_the_domain_is_the_given_one_or_the_clusters(given: str, domain: str, wildcard: str, situate: Situate) -> None:
    situation = situate("6.4.3", ingress_domain=given)
    assert (domain, wildcard) == (situation.domain, situation.wildcard)
    assert "apps.openshift.example.com" == situation.cluster_domain


def test_an_unknown_domain_is_empty(situate: Situate) -> None:
    assert "" == situate("6.4.3", {INGRESS_CONFIG: []}).domain


@pytest.mark.parametrize(
    ("trust_anchor", "expected", "system"),
    [
        ("", b"root in the folder", False),
        ("/etc/pki/ca.crt", b"given", False),
        ("system", None, True),
    ],
)
def test_the_trust_anchor_is_the_given_one_or_the_folders_root(
    trust_anchor: str, expected: bytes | None, system: bool, situate: Situate
) -> None:
    given = {"trust_anchor": b"given"} if trust_anchor.startswith("/") else {}
    files = {ROOT_CRT: b"root in the folder"}
    situation = situate("6.4.3", files=files, given_files=given, trust_anchor=trust_anchor)
    assert (expected, system) == (situation.trust_anchor, situation.trusts_system)


def test_a_given_file_that_cannot_be_read_is_no_content_and_is_said(situate: Situate) -> None:
    error = CertificateError("reading trust_anchor /etc/pki/ca.crt", "there is no such file", "name one")
    given: dict[str, Any] = {"trust_anchor": error}
    situation = situate("6.4.3", files={ROOT_CRT: b"root"}, given_files=given, trust_anchor="/etc/pki/ca.crt")
    assert (None, (error,)) == (situation.trust_anchor, situation.unreadable_files)
    with pytest.raises(CertificateError):
        situation.given_file("trust_anchor")
    assert situation.given_file("key_file") is None


def test_the_versions_decide_the_profile(situate: Situate) -> None:
    assert Profile(Version(1, 26)) == situate("6.4.3").profile


def test_the_address_is_the_given_one_or_the_sandboxs() -> None:
    def address(given: str, sandbox: dict[str, str]) -> str:
        parameters = IntegrateServiceMesh(ingress_address=given)
        return Situation(parameters, dt.datetime.now(dt.UTC), sandbox=sandbox).ingress_address

    sandbox = {"ingress_address": "127.0.0.1:8443"}
    assert "" == address("", {})
    assert "127.0.0.1:8443" == address("", sandbox)
    assert "192.0.2.10:443" == address("192.0.2.10:443", sandbox)
