"""What 6.4.2 issues, keeps or takes over, for each source that a certificate can come from."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runbooks import certificates
from runbooks.certificates import LEAF_CRT, LEAF_CSR, LEAF_KEY, ROOT_CRT, ROOT_KEY, Decision, Pair, Rules, Work
from runbooks.errors import CertificateError
from runbooks.kinds import SECRET
from runbooks.parameters import CreateIngressCertificates
from runbooks.plan import shown_chain
from runbooks.situation import Situation

FOLDER_FILES = (ROOT_KEY, ROOT_CRT, LEAF_KEY, LEAF_CSR, LEAF_CRT)


@dataclass(frozen=True)
class NewFile:
    """A file to write: its bytes, and what a plan shows of them."""

    content: bytes
    shown: Any


@dataclass(frozen=True)
class Issuance:
    """What there is to do.

    Args:
        files: new files by name.
        served: the pair that the Secret should hold; None where it stays as it is.
        shown: what a plan shows of a pair that is new.
        reasons: why, in words.
        waiting: what must happen elsewhere before the Secret can be written; empty otherwise.
    """

    files: Mapping[str, NewFile] = field(default_factory=dict)
    served: Pair | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    waiting: str = ""


def secret_pair(situation: Situation[Any]) -> Pair | None:
    """The pair in the cluster's Secret, or None where there is no such Secret.

    Raises:
        CertificateError: the Secret is not a TLS Secret.
    """
    name, namespace = situation.parameters.certificate_secret, situation.parameters.mesh_namespace
    live = situation.snapshot.get(SECRET, namespace, name)
    if live is None:
        return None
    data = live.get("data") or {}
    if live.get("type") != "kubernetes.io/tls" or not {"tls.crt", "tls.key"} <= data.keys():
        raise CertificateError(
            f"reading Secret {namespace}/{name}",
            f"its type is {live.get('type')} and its keys are {', '.join(sorted(data)) or 'none'}",
            "a TLS Secret has the type kubernetes.io/tls and the keys tls.crt and tls.key; rename or remove this one",
        )
    return Pair(base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"]))


def rules_of(situation: Situation[CreateIngressCertificates]) -> Rules:
    """The rules that the parameters state."""
    given = situation.parameters
    return Rules(
        wildcard=situation.wildcard,
        organization=given.organization,
        root_common_name=given.root_common_name,
        root_valid_days=given.root_valid_days,
        valid_days=given.valid_days,
        renew_before_days=given.renew_before_days,
    )


def prepare(situation: Situation[CreateIngressCertificates]) -> Issuance:
    """What 6.4.2 has to do in this situation; new keys and certificates exist in memory only.

    In verify nothing is made, since nothing will be written.

    Raises:
        CertificateError: what there is cannot be used, or must not be replaced.
    """
    source = situation.parameters.certificate_source
    if source == "create":
        return _create(situation)
    if source == "files":
        return _files(situation)
    if source == "request":
        return _request(situation)
    return _existing(situation)


def _create(situation: Situation[CreateIngressCertificates]) -> Issuance:
    rules, files, now = rules_of(situation), situation.files, situation.now
    folder, present = situation.parameters.certificates_dir, secret_pair(situation)
    if situation.parameters.mode == "verify" and present and not files:
        return _secret_alone(present, situation)
    decision = certificates.decide(files, present, rules, now, folder)
    if decision.leaf is Work.KEEP:
        return _kept(decision, situation)
    make = situation.parameters.mode != "verify"
    found: dict[str, NewFile] = {}
    root = Pair(files.get(ROOT_CRT, b""), files.get(ROOT_KEY, b""))
    if decision.root is Work.CREATE:
        root = _new_root(root, rules, situation, found)
        issuer = f"the new root {certificates.shown_name(certificates.root_subject(rules))}"
    else:
        issuer = certificates.fingerprint(certificates.load_chain(root.chain, ROOT_CRT)[0])
    shown = {**_asked(rules), "valid_days": rules.valid_days, "issuer": issuer}
    key = certificates.new_key() if make else b""
    request = certificates.create_request(rules, key) if make else b""
    leaf = certificates.sign_request(rules, request, root, now) if make else b""
    found[LEAF_KEY] = NewFile(key, "a new RSA key of 2048 bits, mode 0600")
    found[LEAF_CSR] = NewFile(request, _asked(rules))
    found[LEAF_CRT] = NewFile(leaf, shown)
    masked = {"data[tls.crt]": shown, "data[tls.key]": "the key of this certificate"}
    return Issuance(found, Pair(leaf, key), masked, decision.reasons)


def _secret_alone(present: Pair, situation: Situation[CreateIngressCertificates]) -> Issuance:
    """A scheduler's host need not hold the keys: the Secret and a trust anchor are enough to verify.

    Without an anchor the rest is judged all the same, and the handshake says that it could not tell.
    """
    given = situation.parameters
    anchors = _anchors(situation) if given.trust_anchor else None
    found = certificates.problems(
        present,
        situation.wildcard,
        anchors,
        situation.now,
        origin="the Secret",
        renew_before_days=given.renew_before_days,
    )
    reasons = ("no certificate folder on this machine; the Secret alone is judged", *found)
    where = "run 6.4.2 in mode apply on the machine that holds certificates_dir"
    name = f"Secret {given.mesh_namespace}/{given.certificate_secret}"
    return Issuance(reasons=reasons, waiting=f"{name}: {'; '.join(found)}; {where}" if found else "")


def _kept(decision: Decision, situation: Situation[CreateIngressCertificates]) -> Issuance:
    """The pair that is served; a leaf on disk that is another one is brought in line with it.

    A request on disk is left out: the Secret's key came without one, and whoever needs a request gets a new one.
    """
    served = decision.served
    if served is None or not decision.stale:
        return Issuance(served=served)
    wanted = {
        LEAF_KEY: NewFile(served.key, "the key that the Secret holds, mode 0600"),
        LEAF_CRT: NewFile(served.chain, {"as in the Secret": shown_chain(served.chain, "the Secret")}),
    }
    changed = {name: file for name, file in wanted.items() if situation.files.get(name) != file.content}
    folder = situation.parameters.certificates_dir
    why = f"{folder}/{LEAF_CRT} is not the good certificate in the Secret, and is brought in line with it"
    return Issuance(changed, served, reasons=(why, *decision.reasons))


def _new_root(present: Pair, rules: Rules, situation: Situation[Any], found: dict[str, NewFile]) -> Pair:
    """A new root; a root key without its certificate is what an interrupted run left, and is used."""
    if situation.parameters.mode == "verify":
        key = chain = b""
    else:
        key = present.key or certificates.new_key()
        chain = certificates.create_root(rules, key, situation.now)
    if not present.key:
        found[ROOT_KEY] = NewFile(key, "a new RSA key of 2048 bits, mode 0600")
    subject = certificates.shown_name(certificates.root_subject(rules))
    found[ROOT_CRT] = NewFile(chain, {"subject": subject, "valid_days": rules.root_valid_days, "issuer": "itself"})
    return Pair(chain, key)


def _asked(rules: Rules) -> dict[str, Any]:
    subject = certificates.shown_name(certificates.leaf_subject(rules))
    return {"subject": subject, "dns_names": [rules.wildcard]}


def _anchors(situation: Situation[Any]) -> list[Any] | None:
    if situation.trusts_system:
        return None
    situation.given_file("trust_anchor")  # what cannot be read is said as what it is
    if situation.trust_anchor is None:
        raise CertificateError(
            "looking for the trust anchor",
            "neither trust_anchor nor root.crt in certificates_dir is there",
            "set trust_anchor to the CA file that clients trust, or to system",
        )
    return certificates.load_chain(situation.trust_anchor, "the trust anchor")


def _require_good(
    pair: Pair, situation: Situation[CreateIngressCertificates], origin: str, key_origin: str = ""
) -> None:
    found = certificates.problems(
        pair,
        situation.wildcard,
        _anchors(situation),
        situation.now,
        origin=origin,
        key_origin=key_origin,
        renew_before_days=situation.parameters.renew_before_days,
    )
    if found:
        raise CertificateError(
            f"checking the certificate in {origin}",
            "; ".join(found),
            "bring a certificate that has none of these faults",
        )


def _files(situation: Situation[CreateIngressCertificates]) -> Issuance:
    # the parameters name both, and what cannot be read is an error
    pair = Pair(situation.given_file("chain_file") or b"", situation.given_file("key_file") or b"")
    _require_good(pair, situation, situation.parameters.chain_file, situation.parameters.key_file)
    return Issuance(served=pair)


def _existing(situation: Situation[CreateIngressCertificates]) -> Issuance:
    pair = secret_pair(situation)
    given = situation.parameters
    name = f"Secret {given.mesh_namespace}/{given.certificate_secret}"
    if pair is None:
        raise CertificateError(f"reading {name}", "there is no such Secret", "create it, or choose another source")
    _require_good(pair, situation, name)
    return Issuance()


def _request(situation: Situation[CreateIngressCertificates]) -> Issuance:
    rules, files, given = rules_of(situation), situation.files, situation.parameters
    folder = given.certificates_dir
    key = files.get(LEAF_KEY, b"")
    given_chain = situation.given_file("chain_file")
    chain = files.get(LEAF_CRT) if given_chain is None else given_chain
    if chain is not None:
        if not key:
            raise CertificateError(f"looking for {folder}/{LEAF_KEY}", "it is not there", "bring it back")
        origin = f"{folder}/{LEAF_CRT}" if given_chain is None else given.chain_file
        _require_good(Pair(chain, key), situation, origin, f"{folder}/{LEAF_KEY}")
        return Issuance(served=Pair(chain, key))
    found = {}
    make = given.mode != "verify"
    if not key:
        key = certificates.new_key() if make else b""
        found[LEAF_KEY] = NewFile(key, "a new RSA key of 2048 bits, mode 0600")
    present = files.get(LEAF_CSR)
    if present is None or LEAF_KEY in found or certificates.request_problem(present, key, rules, LEAF_CSR):
        found[LEAF_CSR] = NewFile(certificates.create_request(rules, key) if make else b"", _asked(rules))
    waiting = (
        f"have your CA sign {folder}/{LEAF_CSR}, put the chain (leaf first) into {folder}/{LEAF_CRT} "
        "or name it in chain_file, and run this again"
    )
    return Issuance(found, waiting=waiting)
