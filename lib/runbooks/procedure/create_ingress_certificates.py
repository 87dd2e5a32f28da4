"""What 6.4.2 is: certificates that encrypt incoming traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runbooks import certificates, issuance, manifests, preconditions, readiness
from runbooks.certificates import LEAF_CRT, LEAF_CSR, LEAF_KEY, ROOT_CRT, ROOT_KEY
from runbooks.checks import ingress_certificates as checks
from runbooks.issuance import Issuance, NewFile
from runbooks.kinds import INGRESS_CONFIG, NAMESPACE, SECRET
from runbooks.parameters import CreateIngressCertificates
from runbooks.plan import Change, Desired, DesiredFile, Operation
from runbooks.procedure.section import Awaited, Basis, Erratum, Section, Step
from runbooks.situation import Situation
from runbooks.snapshot import Read
from runbooks.versions import EVERY_VERSION


def _folder_file(situation: Situation[CreateIngressCertificates], *names: str) -> tuple[DesiredFile, ...]:
    """The named files as the issuance wants them: new ones with their content, present ones as they are."""
    folder, issued = situation.parameters.certificates_dir, situation.prepared
    new = issued.files if isinstance(issued, Issuance) else {}
    found = []
    for name in names:
        if name in new or name in situation.files:
            file = new.get(name) or NewFile(b"", None)
            content = file.content if name in new else None
            hidden = (situation.files.get(name), content or None) if name in (ROOT_KEY, LEAF_KEY) else (None, None)
            found.append(DesiredFile(f"{folder}/{name}", content, file.shown, name in situation.files, hidden))
    return tuple(found)


def _certificate_secret(situation: Situation[CreateIngressCertificates]) -> tuple[Desired, ...]:
    given, issued = situation.parameters, situation.prepared
    if isinstance(issued, Issuance) and issued.served is None:
        return ()  # it stays as it is, or it waits for the CA
    pair = issued.served if isinstance(issued, Issuance) else None
    chain, key = (pair.chain, pair.key) if pair else (b"", b"")
    shown = issued.shown if isinstance(issued, Issuance) else {}
    manifest = manifests.tls_secret(given.certificate_secret, given.mesh_namespace, chain, key)
    return (Desired(manifest, shown=shown),)


def _new_root(_: Situation[CreateIngressCertificates], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows from a root that is made; its key alone follows from nothing."""
    if not any(change.identity[-1] == ROOT_CRT for change in changes):
        return ()
    return (
        (
            f"A NEW ROOT: nobody trusts it yet. Every client has to be given {ROOT_CRT}; whoever trusts only another "
            "root refuses every certificate that this one signs"
        ),
    )


def _on_disk(_: Situation[CreateIngressCertificates], __: tuple[Change, ...]) -> tuple[str, ...]:
    return ("files on this machine: nothing in the cluster changes by them",)


def _served(situation: Situation[CreateIngressCertificates], changes: tuple[Change, ...]) -> tuple[str, ...]:
    """What follows for the gateway and its clients."""
    uncut = "no traffic is cut"
    if all(change.operation is Operation.CREATE for change in changes):
        return (f"{uncut}: a gateway serves from the Secret once a Gateway names it, which 6.4.3 does",)
    found = [f"{uncut}: a running gateway serves the new certificate within seconds, without a restart"]
    for item in (item for change in changes for item in change.fields if item.path == "data[tls.crt]"):
        old, new = _issuer(item.old, situation), _issuer(item.new, situation)
        found += [_locked_out(old, new)] if old and old != new else []
    return tuple(found)


def _issuer(shown: Any, situation: Situation[CreateIngressCertificates]) -> str:
    """The issuer's name, out of what a plan shows of a certificate: that, or the fingerprint of the folder's root."""
    issuer = str(shown["issuer"]) if isinstance(shown, Mapping) else ""
    if ROOT_CRT in situation.files:
        root = certificates.describe(certificates.load_chain(situation.files[ROOT_CRT], ROOT_CRT)[0])
        return root.subject if issuer == root.fingerprint else issuer
    return issuer


def _locked_out(old: str, new: str) -> str:
    return (
        f"A NEW ROOT: the certificate was issued by {old}, the new one is by {new}; every client that trusts only "
        "the old one is locked out from then on, until it trusts the new one"
    )


CREATE_INGRESS_CERTIFICATES = Section(
    number="6.4.2",
    stem="6.4.2-create-ingress-certificates",
    title="Create the certificates that encrypt incoming traffic",
    heading_ja="着信外部トラフィックを暗号化する証明書の作成",
    changes="root and wildcard certificate in certificates_dir, and the TLS Secret of the ingress gateway",
    model=CreateIngressCertificates,
    path="istio",  # Kourier serves over the router's own certificate
    reads=lambda given: (
        Read(INGRESS_CONFIG, name="cluster"),
        Read(NAMESPACE),
        Read(SECRET, given.mesh_namespace, given.certificate_secret),
    ),
    needs=lambda _: (
        preconditions.account_rights,
        preconditions.mesh_namespace,
        preconditions.ingress_domain,
        preconditions.certificate_material,
    ),
    files=issuance.FOLDER_FILES,
    prepare=lambda situation: issuance.prepare(situation) if situation.domain else None,
    waiting=lambda situation: situation.prepared.waiting if isinstance(situation.prepared, Issuance) else "",
    steps=(
        Step(
            id="root",
            title="Create the root certificate and its key",
            title_ja="Knative サービスの証明書に署名する root 証明書と秘密鍵を作成します。",
            replaces=(
                (
                    "openssl req -x509 -sha256 -nodes -days 365 -newkey rsa:2048 "
                    "-subj '/O=Example Inc./CN=example.com' -keyout root.key -out root.crt"
                ),
            ),
            objects=lambda situation: _folder_file(situation, ROOT_KEY, ROOT_CRT),
            checks=(checks.ROOT_ON_DISK,),
            consequences=_new_root,
        ),
        Step(
            id="wildcard",
            title="Create and sign the wildcard certificate",
            title_ja="ワイルドカード証明書を作成します。ワイルドカード証明書を署名します。",
            replaces=(
                (
                    'openssl req -nodes -newkey rsa:2048 -subj "/CN=*.apps.openshift.example.com/O=Example Inc." '
                    "-keyout wildcard.key -out wildcard.csr"
                ),
                (
                    "openssl x509 -req -days 365 -set_serial 0 -CA root.crt -CAkey root.key -in wildcard.csr "
                    "-out wildcard.crt"
                ),
            ),
            objects=lambda situation: _folder_file(situation, LEAF_KEY, LEAF_CSR, LEAF_CRT),
            checks=(checks.LEAF_ON_DISK,),
            consequences=_on_disk,
        ),
        Step(
            id="secret",
            title="Create the Secret from which the ingress gateway serves",
            title_ja="ワイルドカード証明書を使用してシークレットを作成します。",
            replaces=("oc create -n istio-system secret tls wildcard-certs --key=wildcard.key --cert=wildcard.crt",),
            objects=_certificate_secret,
            awaits=lambda situation: tuple(
                Awaited(desired.ref, readiness.exists) for desired in _certificate_secret(situation)
            ),
            checks=(checks.SECRET_SERVES, checks.GATEWAY_SERVES),
            consequences=_served,
        ),
    ),
    errata=(
        Erratum(
            said="the wildcard certificate carries its name in the common name only",
            done="the name also stands in the subject alternative name",
            reason="curl still falls back to the common name; Go, browsers and Python's urllib3 refuse it",
            versions=EVERY_VERSION,
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="openssl x509 -set_serial 0, which makes an X.509 v1 certificate with the serial number 0",
            done="X.509 v3 with a random serial number and key usages; the root says that it may sign",
            reason="RFC 5280 forbids the serial number 0, and Python 3.13 refuses a root without key usage",
            versions=EVERY_VERSION,
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="root and wildcard certificate are both valid for 365 days",
            done="root_valid_days and valid_days are separate, and a leaf never outlives its root",
            reason="a renewed leaf would outlive the root, and every client would refuse it from that day on",
            versions=EVERY_VERSION,
            basis=Basis.STANDARD,
        ),
        Erratum(
            said="Knative Serving has to be installed already",
            done="not asked for",
            reason="6.4.3 asks that it is not installed yet, and the Secret needs the mesh namespace only",
            versions=EVERY_VERSION,
            basis=Basis.DOCUMENTED,
        ),
    ),
)
