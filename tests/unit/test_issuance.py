"""What 6.4.2 issues, keeps or takes over: from a situation to files and a pair, all in memory."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography import x509

from runbooks import certificates, issuance
from runbooks.certificates import LEAF_CRT, LEAF_CSR, LEAF_KEY, ROOT_CRT, ROOT_KEY, Pair, Rules
from runbooks.errors import CertificateError
from runbooks.issuance import Issuance
from runbooks.kinds import SECRET
from runbooks.situation import Situation
from runbooks.snapshot import Live

WILDCARD = "*.apps.openshift.example.com"
SUBJECT = f"/CN={WILDCARD}/O=Example Inc."
ASKED = {"subject": SUBJECT, "dns_names": [WILDCARD]}
NEW_KEY = "a new RSA key of 2048 bits, mode 0600"
MASKED_KEY = "the key of this certificate"
DAY = dt.timedelta(days=1)

Situate = Callable[..., Situation[Any]]
TlsSecret = Callable[..., Live]


def shown(issued: Issuance) -> dict[str, Any]:
    return {name: file.shown for name, file in issued.files.items()}


def contents(issued: Issuance) -> dict[str, bytes]:
    return {name: file.content for name, file in issued.files.items()}


def refusal(situation: Situation[Any]) -> CertificateError:
    with pytest.raises(CertificateError) as caught:
        issuance.prepare(situation)
    assert caught.value.remedy
    return caught.value


@pytest.fixture(scope="session")
def folder(root: Pair, leaf: Pair) -> dict[str, bytes]:
    return {ROOT_KEY: root.key, ROOT_CRT: root.chain, LEAF_KEY: leaf.key, LEAF_CRT: leaf.chain}


@pytest.fixture(autouse=True)
def new_keys(key: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """New keys that differ within a test, and are made once for all tests."""
    numbers = itertools.count()
    monkeypatch.setattr(certificates, "new_key", lambda: key(f"new key {next(numbers)}"))


# --- the Secret and the rules ------------------------------------------------------------------------------------


def test_the_pair_of_the_secret_is_read(situate: Situate, leaf: Pair, tls_secret: TlsSecret) -> None:
    assert leaf == issuance.secret_pair(situate("6.4.2", {SECRET: [tls_secret(leaf)]}))


def test_a_secret_of_another_name_or_namespace_is_not_taken(
    situate: Situate, leaf: Pair, tls_secret: TlsSecret
) -> None:
    others = [tls_secret(leaf, "other"), tls_secret(leaf, "wildcard-certs", "other")]
    assert issuance.secret_pair(situate("6.4.2", {SECRET: others})) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "Opaque"}, "its type is Opaque and its keys are tls.crt, tls.key"),
        ({"data": {"ca.crt": "", "tls.crt": ""}}, "its type is kubernetes.io/tls and its keys are ca.crt, tls.crt"),
        ({"data": None}, "its type is kubernetes.io/tls and its keys are none"),
    ],
)
def test_a_secret_that_is_no_tls_secret_is_refused(
    situate: Situate, leaf: Pair, tls_secret: TlsSecret, change: dict[str, Any], said: str
) -> None:
    refused = refusal(situate("6.4.2", {SECRET: [tls_secret(leaf) | change]}))
    assert ("reading Secret istio-system/wildcard-certs", said) == (refused.attempted, refused.said)


def test_the_rules_are_what_the_parameters_state(situate: Situate) -> None:
    situation = situate(
        "6.4.2",
        organization="Acme",
        root_common_name="acme.example",
        root_valid_days=3650,
        valid_days=90,
        renew_before_days=20,
    )
    assert Rules(WILDCARD, "Acme", "acme.example", 3650, 90, 20) == issuance.rules_of(situation)


# --- create ------------------------------------------------------------------------------------------------------


def test_everything_is_new_in_an_empty_folder(situate: Situate, now: dt.datetime) -> None:
    issued = issuance.prepare(situate("6.4.2"))
    leaf_shown = ASKED | {"valid_days": 365, "issuer": "the new root /O=Example Inc./CN=example.com"}
    assert {
        ROOT_KEY: NEW_KEY,
        ROOT_CRT: {"subject": "/O=Example Inc./CN=example.com", "valid_days": 365, "issuer": "itself"},
        LEAF_KEY: NEW_KEY,
        LEAF_CSR: ASKED,
        LEAF_CRT: leaf_shown,
    } == shown(issued)
    assert {"data[tls.crt]": leaf_shown, "data[tls.key]": MASKED_KEY} == issued.shown
    assert (("there is no root certificate yet",), "") == (issued.reasons, issued.waiting)
    files = contents(issued)
    assert Pair(files[LEAF_CRT], files[LEAF_KEY]) == issued.served
    root = certificates.load_chain(files[ROOT_CRT], ROOT_CRT)
    assert [] == certificates.problems(issued.served, WILDCARD, root, now, origin="new", renew_before_days=30)
    assert certificates.key_matches(root[0], certificates.load_key(files[ROOT_KEY], ROOT_KEY))
    assert "" == certificates.request_problem(files[LEAF_CSR], files[LEAF_KEY], Rules(WILDCARD), LEAF_CSR)


def test_what_is_shown_holds_no_bytes_and_no_dates_so_that_plans_of_equal_input_are_equal(situate: Situate) -> None:
    one = issuance.prepare(situate("6.4.2"))
    later = issuance.prepare(situate("6.4.2", now=dt.datetime.now(dt.UTC) + 3 * DAY, certificates_dir="/elsewhere"))
    assert (shown(later), later.shown) == (shown(one), one.shown)
    assert shown(one) == json.loads(json.dumps(shown(one)))
    assert set(contents(one).values()).isdisjoint(contents(later).values())


def test_doing_it_twice_changes_nothing_the_second_time(situate: Situate, tls_secret: TlsSecret) -> None:
    first = issuance.prepare(situate("6.4.2"))
    files = contents(first)
    before_the_secret = issuance.prepare(situate("6.4.2", files=files))
    assert Issuance(served=first.served) == before_the_secret
    secret = tls_secret(first.served)
    assert Issuance(served=first.served) == issuance.prepare(situate("6.4.2", {SECRET: [secret]}, files=files))


@pytest.mark.parametrize("written", range(1, 5))
def test_an_interrupted_run_is_taken_up_where_it_ended(situate: Situate, now: dt.datetime, written: int) -> None:
    order = (ROOT_KEY, ROOT_CRT, LEAF_KEY, LEAF_CSR, LEAF_CRT)
    first = contents(issuance.prepare(situate("6.4.2")))
    left = {name: first[name] for name in order[:written]}
    second = issuance.prepare(situate("6.4.2", files=left))
    files = left | contents(second)
    assert {name: first[name] for name in order[: min(written, 2)]} == {
        name: files[name] for name in order[: min(written, 2)]
    }
    root = certificates.load_chain(files[ROOT_CRT], ROOT_CRT)
    assert Pair(files[LEAF_CRT], files[LEAF_KEY]) == second.served
    assert [] == certificates.problems(second.served, WILDCARD, root, now, origin="new", renew_before_days=30)


def test_a_renewal_keeps_the_root_and_names_it_by_its_fingerprint(
    situate: Situate, folder: dict[str, bytes], tls_secret: TlsSecret, root: Pair, make_leaf: Callable[..., Pair]
) -> None:
    old = make_leaf(root, rules=Rules(WILDCARD, valid_days=20))
    files = folder | {LEAF_CRT: old.chain, LEAF_KEY: old.key}
    issued = issuance.prepare(situate("6.4.2", {SECRET: [tls_secret(old)]}, files=files))
    fingerprint = certificates.fingerprint(x509.load_pem_x509_certificate(root.chain))
    leaf_shown = ASKED | {"valid_days": 365, "issuer": fingerprint}
    assert {LEAF_KEY: NEW_KEY, LEAF_CSR: ASKED, LEAF_CRT: leaf_shown} == shown(issued)
    assert {"data[tls.crt]": leaf_shown, "data[tls.key]": MASKED_KEY} == issued.shown
    assert issued.served is not None
    assert issued.served.key != old.key
    assert 2 == len(issued.reasons)


def test_verify_makes_nothing_and_shows_what_is_missing(situate: Situate) -> None:
    planned, verified = (issuance.prepare(situate("6.4.2", mode=mode)) for mode in ("plan", "verify"))
    assert shown(planned) == shown(verified)
    assert planned.shown == verified.shown
    assert {b""} == set(contents(verified).values())
    assert Pair(b"", b"") == verified.served


def test_verify_judges_the_secret_alone_where_the_machine_has_no_folder(
    situate: Situate, leaf: Pair, tls_secret: TlsSecret
) -> None:
    issued = issuance.prepare(situate("6.4.2", {SECRET: [tls_secret(leaf)]}, mode="verify"))
    assert Issuance(reasons=("no certificate folder on this machine; the Secret alone is judged",)) == issued


@pytest.mark.parametrize("anchor", ["the root", "system", ""])
def test_verify_without_the_folder_finds_a_renewal_that_is_due(
    situate: Situate,
    root: Pair,
    make_leaf: Callable[..., Pair],
    tls_secret: TlsSecret,
    now: dt.datetime,
    anchor: str,
) -> None:
    short = make_leaf(root, rules=Rules(WILDCARD, valid_days=5))
    given: dict[str, Any] = {"trust_anchor": "/etc/pki/ca.crt", "given_files": {"trust_anchor": root.chain}}
    given = given if anchor == "the root" else {"trust_anchor": anchor}
    issued = issuance.prepare(situate("6.4.2", {SECRET: [tls_secret(short)]}, mode="verify", **given))
    ends = f"it ends in 5 days, on {now + 5 * DAY:%Y-%m-%d}"
    assert (None, {}, ends) == (issued.served, issued.files, issued.reasons[1])
    assert (
        f"Secret istio-system/wildcard-certs: {ends}; run 6.4.2 in mode apply on the machine that holds "
        "certificates_dir"
    ) == issued.waiting


def test_verify_without_the_folder_finds_a_secret_of_another_root(
    situate: Situate, leaf: Pair, other_root: Pair, tls_secret: TlsSecret
) -> None:
    given: dict[str, Any] = {"trust_anchor": "/etc/pki/ca.crt", "given_files": {"trust_anchor": other_root.chain}}
    issued = issuance.prepare(situate("6.4.2", {SECRET: [tls_secret(leaf)]}, mode="verify", **given))
    assert "that is not the trust anchor (/O=Other Inc./CN=other.example)" in issued.waiting


@pytest.mark.parametrize("mode", ["plan", "apply"])
def test_only_verify_goes_on_without_the_folder(situate: Situate, leaf: Pair, tls_secret: TlsSecret, mode: str) -> None:
    refused = refusal(situate("6.4.2", {SECRET: [tls_secret(leaf)]}, mode=mode))
    assert "looking for /certificates/root.crt" == refused.attempted


@pytest.mark.parametrize("mode", ["verify", "plan", "apply"])
def test_a_stale_leaf_on_disk_is_brought_in_line_with_the_good_secret(
    situate: Situate,
    folder: dict[str, bytes],
    root: Pair,
    leaf: Pair,
    make_leaf: Callable[..., Pair],
    tls_secret: TlsSecret,
    now: dt.datetime,
    mode: str,
) -> None:
    old = make_leaf(root, "another", rules=Rules(WILDCARD, valid_days=1))
    files = folder | {LEAF_CRT: old.chain, LEAF_KEY: old.key, LEAF_CSR: b"the old request"}
    late: dict[str, Any] = {"mode": mode, "now": now + 2 * DAY}
    issued = issuance.prepare(situate("6.4.2", {SECRET: [tls_secret(leaf)]}, files=files, **late))
    assert {LEAF_KEY: leaf.key, LEAF_CRT: leaf.chain} == contents(issued)
    assert leaf == issued.served
    shown_leaf = shown(issued)[LEAF_CRT]["as in the Secret"]
    assert certificates.fingerprint(x509.load_pem_x509_certificate(leaf.chain)) == shown_leaf["fingerprint"]
    assert "the key that the Secret holds, mode 0600" == shown(issued)[LEAF_KEY]
    assert (
        "/certificates/wildcard.crt is not the good certificate in the Secret, and is brought in line with it"
    ) == issued.reasons[0]
    assert "expired on" in issued.reasons[1]
    again = situate("6.4.2", {SECRET: [tls_secret(leaf)]}, files=files | contents(issued), **late)
    assert Issuance(served=leaf) == issuance.prepare(again)


def test_of_a_stale_leaf_with_the_same_key_the_certificate_alone_is_written(
    situate: Situate,
    folder: dict[str, bytes],
    root: Pair,
    leaf: Pair,
    make_leaf: Callable[..., Pair],
    tls_secret: TlsSecret,
) -> None:
    old = make_leaf(root, rules=Rules(WILDCARD, valid_days=60))
    files = folder | {LEAF_CRT: old.chain}
    issued = issuance.prepare(situate("6.4.2", {SECRET: [tls_secret(leaf)]}, files=files))
    assert {LEAF_CRT: leaf.chain} == contents(issued)


# --- files and secret --------------------------------------------------------------------------------------------


def given_pair(pair: Pair) -> dict[str, bytes]:
    return {"chain_file": pair.chain, "key_file": pair.key}


FILES = {"certificate_source": "files", "key_file": "/given/tls.key", "chain_file": "/given/tls.crt"}


def test_a_given_pair_is_served_as_it_is(situate: Situate, root: Pair, leaf: Pair) -> None:
    situation = situate("6.4.2", files={ROOT_CRT: root.chain}, given_files=given_pair(leaf), **FILES)
    assert Issuance(served=leaf) == issuance.prepare(situation)


@pytest.mark.parametrize("source", ["files", "secret", "request"])
def test_what_others_signed_is_checked_against_the_trust_anchor(
    source: str, situate: Situate, root: Pair, leaf: Pair, other_root: Pair, tls_secret: TlsSecret
) -> None:
    given: dict[str, Any] = FILES | {"certificate_source": source, "trust_anchor": "/etc/pki/ca.crt"}
    found: dict[str, Any] = {
        "given_files": given_pair(leaf) | {"trust_anchor": other_root.chain},
        # the root in the folder would accept it, but it is not what the parameters say
        "files": {ROOT_CRT: root.chain, LEAF_KEY: leaf.key},
    }
    refused = refusal(situate("6.4.2", {SECRET: [tls_secret(leaf)]}, **found, **given))
    assert (
        "the chain ends with an issuer /O=Example Inc./CN=example.com that is not the trust anchor "
        "(/O=Other Inc./CN=other.example)"
    ) == (refused.said)
    found["given_files"]["trust_anchor"] = other_root.chain + root.chain
    assert "" == issuance.prepare(situate("6.4.2", {SECRET: [tls_secret(leaf)]}, **found, **given)).waiting


@pytest.mark.parametrize("source", ["files", "secret", "request"])
def test_without_a_trust_anchor_nothing_is_taken_over(
    source: str, situate: Situate, leaf: Pair, tls_secret: TlsSecret
) -> None:
    given: dict[str, Any] = FILES | {"certificate_source": source}
    found: dict[str, Any] = {"given_files": given_pair(leaf), "files": {LEAF_KEY: leaf.key}}
    refused = refusal(situate("6.4.2", {SECRET: [tls_secret(leaf)]}, **found, **given))
    assert "looking for the trust anchor" == refused.attempted


def test_with_the_systems_anchors_a_pair_is_taken_and_left_to_a_handshake(situate: Situate, leaf: Pair) -> None:
    situation = situate("6.4.2", given_files=given_pair(leaf), trust_anchor="system", **FILES)
    assert Issuance(served=leaf) == issuance.prepare(situation)


def test_every_fault_of_a_given_pair_is_named(
    situate: Situate, root: Pair, leaf: Pair, key: Callable[[str], bytes]
) -> None:
    wrong = given_pair(Pair(leaf.chain, key("another")))
    domain = {"ingress_domain": "apps.new.example.com"}
    refused = refusal(situate("6.4.2", files={ROOT_CRT: root.chain}, given_files=wrong, **FILES, **domain))
    assert (
        "checking the certificate in /given/tls.crt",
        (
            "the private key does not belong to the certificate; "
            f"the subject alternative names ({WILDCARD}) do not cover *.apps.new.example.com"
        ),
    ) == (refused.attempted, refused.said)


def test_an_existing_secret_is_used_and_nothing_is_written(
    situate: Situate, root: Pair, leaf: Pair, tls_secret: TlsSecret
) -> None:
    files = {ROOT_CRT: root.chain}
    situation = situate("6.4.2", {SECRET: [tls_secret(leaf)]}, files=files, certificate_source="secret")
    assert Issuance() == issuance.prepare(situation)


def test_an_existing_secret_that_is_not_there_is_said(situate: Situate) -> None:
    refused = refusal(situate("6.4.2", certificate_source="secret"))
    assert "reading Secret istio-system/wildcard-certs: there is no such Secret" == refused.lines()[0]


def test_an_existing_secret_near_its_end_is_refused(
    situate: Situate, root: Pair, make_leaf: Callable[..., Pair], tls_secret: TlsSecret, now: dt.datetime
) -> None:
    short = make_leaf(root, rules=Rules(WILDCARD, valid_days=20))
    found = {SECRET: [tls_secret(short)]}
    refused = refusal(situate("6.4.2", found, files={ROOT_CRT: root.chain}, certificate_source="secret"))
    assert f"it ends in 20 days, on {now + 20 * DAY:%Y-%m-%d}" == refused.said


# --- request -----------------------------------------------------------------------------------------------------

WAITING = (
    "have your CA sign /certificates/wildcard.csr, put the chain (leaf first) into /certificates/wildcard.crt "
    "or name it in chain_file, and run this again"
)


def requested(situate: Situate, files: Mapping[str, bytes], **more: Any) -> Issuance:
    return issuance.prepare(situate("6.4.2", files=dict(files), certificate_source="request", **more))


def test_a_key_and_a_request_go_out_and_the_secret_waits(situate: Situate) -> None:
    issued = requested(situate, {})
    assert {LEAF_KEY: NEW_KEY, LEAF_CSR: ASKED} == shown(issued)
    assert (None, WAITING) == (issued.served, issued.waiting)
    files = contents(issued)
    assert "" == certificates.request_problem(files[LEAF_CSR], files[LEAF_KEY], Rules(WILDCARD), LEAF_CSR)


def test_while_the_authority_has_the_request_nothing_changes(situate: Situate) -> None:
    files = contents(requested(situate, {}))
    assert Issuance(waiting=WAITING) == requested(situate, files)


@pytest.mark.parametrize("broken", ["garbage", "another key", "another domain"])
def test_a_request_that_no_longer_fits_is_made_anew_with_the_same_key(
    situate: Situate, key: Callable[[str], bytes], broken: str
) -> None:
    request = {
        "garbage": b"garbage",
        "another key": certificates.create_request(Rules(WILDCARD), key("another")),
        "another domain": certificates.create_request(Rules("*.old.example.com"), key("leaf")),
    }[broken]
    issued = requested(situate, {LEAF_KEY: key("leaf"), LEAF_CSR: request})
    assert {LEAF_CSR: ASKED} == shown(issued)
    assert "" == certificates.request_problem(contents(issued)[LEAF_CSR], key("leaf"), Rules(WILDCARD), LEAF_CSR)


def test_a_request_whose_key_is_gone_is_made_anew_with_a_new_key(situate: Situate, key: Callable[[str], bytes]) -> None:
    request = certificates.create_request(Rules(WILDCARD), key("leaf"))
    assert {LEAF_KEY: NEW_KEY, LEAF_CSR: ASKED} == shown(requested(situate, {LEAF_CSR: request}))


@pytest.mark.parametrize("where", ["in the folder", "as chain_file"])
def test_the_signed_chain_is_served_once_it_is_back(situate: Situate, root: Pair, leaf: Pair, where: str) -> None:
    files = {LEAF_KEY: leaf.key, ROOT_CRT: root.chain}
    if where == "in the folder":
        assert Issuance(served=leaf) == requested(situate, files | {LEAF_CRT: leaf.chain})
    else:
        given: dict[str, Any] = {"chain_file": "/given/tls.crt", "given_files": {"chain_file": leaf.chain}}
        assert Issuance(served=leaf) == requested(situate, files, **given)


def test_the_chain_in_the_folder_is_named_where_chain_file_is_not_there_yet(
    situate: Situate, root: Pair, leaf: Pair, key: Callable[[str], bytes]
) -> None:
    files = {LEAF_KEY: key("another"), LEAF_CRT: leaf.chain, ROOT_CRT: root.chain}
    with pytest.raises(CertificateError, match=r"^checking the certificate in /certificates/wildcard\.crt: "):
        requested(situate, files, chain_file="/given/tls.crt")


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        ("files", "key_file"),
        ("files", "chain_file"),
        ("files", "trust_anchor"),
        ("secret", "trust_anchor"),
        ("request", "chain_file"),
        ("request", "trust_anchor"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_as_what_it_is(
    situate: Situate, root: Pair, leaf: Pair, tls_secret: TlsSecret, source: str, broken: str
) -> None:
    error = CertificateError(f"reading {broken} /given/x", "there is no such file", "name one")
    given_files: dict[str, Any] = given_pair(leaf) | {"trust_anchor": root.chain, broken: error}
    given = FILES | {"certificate_source": source, "trust_anchor": "/given/ca.crt"}
    files = {LEAF_KEY: leaf.key}
    situation = situate("6.4.2", {SECRET: [tls_secret(leaf)]}, files=files, given_files=given_files, **given)
    assert error is refusal(situation)


def test_a_signed_chain_without_its_key_is_refused(situate: Situate, root: Pair, leaf: Pair) -> None:
    files = {LEAF_CRT: leaf.chain, ROOT_CRT: root.chain}
    refused = refusal(situate("6.4.2", files=files, certificate_source="request"))
    assert "looking for /certificates/wildcard.key: it is not there" == refused.lines()[0]


def test_verify_makes_no_key_and_no_request(situate: Situate) -> None:
    issued = requested(situate, {}, mode="verify")
    assert {LEAF_KEY: NEW_KEY, LEAF_CSR: ASKED} == shown(issued)
    assert {b""} == set(contents(issued).values())
    assert WAITING == issued.waiting
