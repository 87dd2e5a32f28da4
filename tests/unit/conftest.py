"""What several modules' tests start from: keys that are made once, a root and a leaf, and situations to judge."""

from __future__ import annotations

import base64
import datetime as dt
import functools
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings

from runbooks import certificates
from runbooks.certificates import Pair, Rules, new_key
from runbooks.kinds import CLUSTER_SERVICE_VERSION, INGRESS_CONFIG, SECRET, Kind
from runbooks.parameters import check
from runbooks.procedure import SECTIONS
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read, Snapshot

WILDCARD = "*.apps.openshift.example.com"

# a machine that is busy with something else is no finding
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@functools.cache
def _key(name: str) -> bytes:
    """One key for each name and session: an RSA key costs up to a quarter of a second."""
    return new_key()


@pytest.fixture(scope="session")
def key() -> Callable[[str], bytes]:
    return _key


@pytest.fixture(scope="session")
def now() -> dt.datetime:
    # the real time, since TLS handshakes know no other; whole seconds, as certificates have them
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


@pytest.fixture(scope="session")
def rules() -> Rules:
    return Rules(WILDCARD)


@pytest.fixture(scope="session")
def make_root(now: dt.datetime, rules: Rules) -> Callable[..., Pair]:
    def make(name: str = "root", *, rules: Rules = rules, now: dt.datetime = now) -> Pair:
        return Pair(certificates.create_root(rules, _key(name), now), _key(name))

    return make


@pytest.fixture(scope="session")
def make_leaf(now: dt.datetime, rules: Rules) -> Callable[..., Pair]:
    def make(root: Pair, name: str = "leaf", *, rules: Rules = rules, now: dt.datetime = now) -> Pair:
        request = certificates.create_request(rules, _key(name))
        return Pair(certificates.sign_request(rules, request, root, now), _key(name))

    return make


@pytest.fixture(scope="session")
def root(make_root: Callable[..., Pair]) -> Pair:
    return make_root()


@pytest.fixture(scope="session")
def other_root(make_root: Callable[..., Pair]) -> Pair:
    return make_root("other root", rules=Rules(WILDCARD, organization="Other Inc.", root_common_name="other.example"))


@pytest.fixture(scope="session")
def leaf(make_leaf: Callable[..., Pair], root: Pair) -> Pair:
    return make_leaf(root)


@pytest.fixture(scope="session")
def tls_secret() -> Callable[[Pair], Live]:
    def secret(pair: Pair, name: str = "wildcard-certs", namespace: str = "istio-system") -> Live:
        return {
            "metadata": {"name": name, "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": {
                "tls.crt": base64.b64encode(pair.chain).decode(),
                "tls.key": base64.b64encode(pair.key).decode(),
            },
        }

    return secret


@pytest.fixture(scope="session")
def ingress_config() -> Live:
    return {"metadata": {"name": "cluster"}, "spec": {"domain": WILDCARD.removeprefix("*.")}}


@pytest.fixture(scope="session")
def csv() -> Callable[..., Live]:
    def make(name: str, phase: str = "Succeeded", message: str = "") -> Live:
        status = {"phase": phase, **({"message": message} if message else {})}
        return {"metadata": {"name": name, "namespace": "openshift-operators"}, "status": status}

    return make


Situate = Callable[..., Situation[Any]]


@pytest.fixture(scope="session")
def situate(now: dt.datetime, ingress_config: Live, csv: Callable[..., Live]) -> Situate:
    """A situation of a section, out of the objects of each kind; what is not given is what a good cluster has."""

    def make(
        section: str,
        found: dict[Kind, Iterable[Live]] | None = None,
        *,
        refused: dict[Kind, Any] | None = None,
        files: dict[str, bytes] | None = None,
        given_files: dict[str, Any] | None = None,
        denied: Iterable[Any] = (),
        prepared: Any = None,
        now: dt.datetime = now,
        **parameters: Any,
    ) -> Situation[Any]:
        refused = refused or {}
        read = {
            INGRESS_CONFIG: (ingress_config,),
            CLUSTER_SERVICE_VERSION: (csv("serverless-operator.v1.26.0"), csv("servicemeshoperator.v2.4.1")),
            SECRET: (),
            **(found or {}),
        }
        snapshot = Snapshot(
            {Read(kind): tuple(objects) for kind, objects in read.items() if kind not in refused},
            {Read(kind): error for kind, error in refused.items()},
        )
        given = {"context": "admin@prod-a", "certificates_dir": "/certificates", **parameters}
        return Situation(
            check(SECTIONS[section].model, given),
            now,
            snapshot,
            files or {},
            given_files or {},
            tuple(denied),
            {},
            prepared,
        )

    return make
