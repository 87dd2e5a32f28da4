"""6.4.2: the certificates on disk and in the Secret really serve."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from runbooks import certificate_folder, certificates, probes
from runbooks.certificates import LEAF_CRT, LEAF_KEY, ROOT_CRT, ROOT_KEY, Pair
from runbooks.checks.check import Check, compared, proven
from runbooks.cluster import Connection
from runbooks.errors import CertificateError
from runbooks.issuance import FOLDER_FILES, Issuance
from runbooks.kinds import ROUTE, SECRET
from runbooks.parameters import CreateIngressCertificates, Parameters
from runbooks.probes import NotTrusted, ProbeFailed, Unreachable
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.verdicts import Checked, Proof

_MADE_BY_APPLY = "run 6.4.2 in mode apply"
_WHERE_THE_KEYS_ARE = (
    "run it where certificates_dir is to see this proven, too; what clients are served is proven below"
)


def _root_on_disk(title: str, situation: Situation[CreateIngressCertificates], _: Connection) -> Checked:
    folder = situation.parameters.certificates_dir
    way = f"read {folder} again"
    if situation.parameters.certificate_source != "create":
        return Checked(title, Proof.SKIPPED, "", "the certificate comes from elsewhere", way)
    files = certificate_folder.read(folder, FOLDER_FILES)
    if not files and situation.parameters.mode == "verify":
        # a scheduler's host need not hold the keys
        said = "no certificates on this machine"
        return Checked(title, Proof.UNPROVEN, "a root certificate and its key", said, way, _WHERE_THE_KEYS_ARE)
    if ROOT_CRT not in files:
        return Checked(title, Proof.FAILED, "a root certificate", "there is none", way, _MADE_BY_APPLY, "6.4.2")
    root = certificates.load_chain(files[ROOT_CRT], ROOT_CRT)[0]
    if ROOT_KEY not in files:
        said = f"no {ROOT_KEY} on this machine"
        return Checked(title, Proof.UNPROVEN, "the root's key beside it", said, way, _WHERE_THE_KEYS_ARE)
    faults = []
    if not certificates.key_matches(root, certificates.load_key(files[ROOT_KEY], ROOT_KEY)):
        faults.append(f"{ROOT_KEY} does not belong to {ROOT_CRT}")
    faults += _open_keys(folder, (ROOT_KEY, LEAF_KEY))
    expected = f"key and certificate of {certificates.shown_name(root.subject)} belong together, keys are mode 0600"
    return compared(title, expected, faults, way, f"chmod 600 {folder}/*.key")


def _open_keys(folder: str, names: Iterable[str]) -> Iterable[str]:
    for name in names:
        mode = certificate_folder.mode(f"{folder}/{name}")
        if mode is not None and mode & 0o077:
            yield f"{name} has the mode {mode:04o}, so others may read it"


def _sample_host(situation: Situation[Any]) -> str:
    return f"runbook-proof.{situation.domain}"


def _leaf_on_disk(title: str, situation: Situation[CreateIngressCertificates], _: Connection) -> Checked:
    folder, source = situation.parameters.certificates_dir, situation.parameters.certificate_source
    way = "a TLS handshake in memory with the files as they lie on disk"
    if source != "create":
        return Checked(title, Proof.SKIPPED, "", f"certificate_source is {source}", way)
    files = certificate_folder.read(folder, (ROOT_CRT, LEAF_CRT, LEAF_KEY))
    if not {LEAF_CRT, LEAF_KEY} <= files.keys():
        said = "it is in the Secret only"
        return Checked(title, Proof.UNPROVEN, "a wildcard certificate on disk", said, way, _WHERE_THE_KEYS_ARE)
    root = files.get(ROOT_CRT, b"")
    # a root that openssl made as the page has it states no key usage, which strict clients insist on: it is kept,
    # because every client holds a copy, and the leaf is proven for the others
    strict = bool(root) and certificates.states_key_usage(certificates.load_chain(root, ROOT_CRT)[0])
    how = "verified as strictly as Python 3.13 does" if strict else "not strictly: the root states no key usage"
    return _handshake(title, Pair(files[LEAF_CRT], files[LEAF_KEY]), situation, root, f"{way}, {how}", strict=strict)


def _handshake(
    title: str, pair: Pair, situation: Situation[Any], anchors: bytes | None, way: str, *, strict: bool
) -> Checked:
    host = _sample_host(situation)
    expected = f"a client that trusts the anchor accepts {host}, one that does not refuses it"
    try:
        probes.handshake(pair, host, anchors, strict=strict)
    except ProbeFailed as error:
        return Checked(title, Proof.FAILED, expected, str(error), way, _MADE_BY_APPLY, "6.4.2")
    try:
        probes.handshake(pair, host, b"")
    except NotTrusted as error:
        return proven(title, expected, way, f"accepted; without the anchor: {error}")
    remedy = "the proof itself cannot be relied on here: report it, with the versions of Python and OpenSSL"
    return Checked(title, Proof.FAILED, expected, "a client that trusts nothing accepted it", way, remedy)


def _secret_serves(title: str, situation: Situation[CreateIngressCertificates], _: Connection) -> Checked:
    given = situation.parameters
    name = f"Secret {given.mesh_namespace}/{given.certificate_secret}"
    way = f"a TLS handshake in memory with what {name} holds now"
    issued = situation.prepared
    if isinstance(issued, Issuance) and issued.waiting:
        return Checked(title, Proof.SKIPPED, f"{name} serves a good certificate", issued.waiting, way)
    live = situation.snapshot.get(SECRET, given.mesh_namespace, given.certificate_secret)
    if live is None:
        return Checked(title, Proof.FAILED, f"{name} exists", "there is no such Secret", way, _MADE_BY_APPLY, "6.4.2")
    data = live.get("data") or {}
    pair = Pair(base64.b64decode(data.get("tls.crt", "")), base64.b64decode(data.get("tls.key", "")))
    if not situation.trusts_system and situation.trust_anchor is None:
        observed = "no root.crt in certificates_dir and no trust_anchor on this machine"
        remedy = "set trust_anchor to the CA file that clients trust, or to system"
        return Checked(title, Proof.UNKNOWN, "a trust anchor to check against", observed, way, remedy)
    anchors = None if situation.trusts_system else situation.trust_anchor
    return _handshake(title, pair, situation, anchors, way, strict=False)


def _gateway_serves(title: str, situation: Situation[CreateIngressCertificates], _: Connection) -> Checked:
    given = situation.parameters
    name = f"Secret {given.mesh_namespace}/{given.certificate_secret}"
    expected, way = f"the gateway serves what {name} holds", "a TLS handshake with the gateway, host name checked"
    hosts = [
        str(route["spec"].get("host", ""))
        for route in situation.snapshot.objects(ROUTE, given.mesh_namespace)
        if (route["spec"].get("tls") or {}).get("termination") == "passthrough"
    ]
    # through the router only the host of such a Route leads to the gateway
    host = next((host for host in sorted(hosts) if host.endswith(f".{situation.domain}")), "")
    live = situation.snapshot.get(SECRET, given.mesh_namespace, given.certificate_secret)
    if not host or live is None:
        missing = f"no Route passes TLS through to it under {situation.domain}; 6.4.3 brings one"
        return Checked(title, Proof.SKIPPED, expected, missing if live else f"there is no {name}", way)
    address = situation.ingress_address or f"{host}:443"
    anchors = None if situation.trusts_system else situation.trust_anchor or b""
    try:
        chain = certificates.load_chain(base64.b64decode((live.get("data") or {}).get("tls.crt", "")), "the Secret")
        served = probes.served_fingerprint(host, address, anchors)
    except Unreachable as error:  # from this machine, which need not reach the router to make a certificate
        remedy = "set ingress_address, or run it where the gateway can be reached"
        return Checked(title, Proof.UNPROVEN, expected, str(error), way, remedy)
    except (CertificateError, ProbeFailed) as error:
        remedy = "run 6.4.3 in verify: it says what the gateway lacks"
        return Checked(title, Proof.FAILED, expected, str(error), way, remedy, "6.4.3")
    wanted = certificates.fingerprint(chain[0])
    faults = [] if served == wanted else [f"another one is served: {served[:16]}…, not {wanted[:16]}…"]
    remedy = "an old certificate is served on where the new one is broken; oc logs of the gateway's Pod says why"
    return compared(title, expected, faults, f"{way} ({host} at {address})", remedy, seen=f"{wanted[:16]}… is served")


def secret_read(given: Parameters) -> tuple[Read, ...]:
    """The Secret from which the gateway serves."""
    return (Read(SECRET, given.mesh_namespace, given.certificate_secret),)


ROOT_ON_DISK = Check("Root certificate and key belong together", _root_on_disk)
LEAF_ON_DISK = Check("A client that trusts the root accepts the wildcard certificate", _leaf_on_disk)
GATEWAY_SERVES = Check(
    "The gateway serves the Secret's certificate",
    _gateway_serves,
    secret_read,
    copes=lambda given: (Read(ROUTE, given.mesh_namespace),),
    timed=True,
)
SECRET_SERVES = Check("A TLS server can serve the Secret's certificate", _secret_serves, secret_read)
