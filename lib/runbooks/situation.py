"""Everything that a section judges and builds from: a value, so that what follows from it is pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from runbooks.certificates import ROOT_CRT
from runbooks.errors import CertificateError
from runbooks.kinds import CLUSTER_SERVICE_VERSION, INGRESS_CONFIG
from runbooks.parameters import Parameters
from runbooks.rights import Right
from runbooks.snapshot import Snapshot
from runbooks.versions import Profile, Versions, detect, profile

P_co = TypeVar("P_co", bound=Parameters, covariant=True)


@dataclass(frozen=True)
class Situation(Generic[P_co]):
    """The parameters of a run and what was found.

    Args:
        parameters: the typed parameters.
        now: the time of the judgement, with a time zone.
        snapshot: what was read of the cluster.
        files: the certificate files that were read, by name.
        given_files: the content of the files that parameters name, by parameter, or why there is none.
        denied: the rights that the account lacks.
        sandbox: how the sandbox describes itself; empty on a real cluster.
        prepared: what the section prepared from all this, for example new certificates.
    """

    parameters: P_co
    now: dt.datetime
    snapshot: Snapshot = field(default_factory=Snapshot)
    files: Mapping[str, bytes] = field(default_factory=dict)
    given_files: Mapping[str, bytes | CertificateError] = field(default_factory=dict)
    denied: tuple[Right, ...] = ()
    sandbox: Mapping[str, str] = field(default_factory=dict)
    prepared: Any = None

    @property
    def cluster_domain(self) -> str:
        """The cluster's own ingress domain; empty where it cannot be read."""
        config = self.snapshot.get(INGRESS_CONFIG, "", "cluster") or {}
        return str(config.get("spec", {}).get("domain", ""))

    @property
    def domain(self) -> str:
        """The domain of every Knative Service's public name."""
        return self.parameters.ingress_domain or self.cluster_domain

    @property
    def wildcard(self) -> str:
        """The name that the ingress certificate has to cover."""
        return f"*.{self.domain}"

    @property
    def versions(self) -> Versions:
        """What is known of the operators' versions."""
        found = self.snapshot.objects(CLUSTER_SERVICE_VERSION)
        given = self.parameters
        return detect(found, serverless=given.serverless_version, mesh=given.mesh_version)

    @property
    def profile(self) -> Profile:
        """What the versions decide."""
        return profile(self.versions)

    def given_file(self, parameter: str) -> bytes | None:
        """The content of the file that a parameter names, or None where there is none yet.

        Raises:
            CertificateError: it cannot be read.
        """
        found = self.given_files.get(parameter)
        if isinstance(found, CertificateError):
            raise found
        return found

    @property
    def unreadable_files(self) -> tuple[CertificateError, ...]:
        """Why files that parameters name cannot be read."""
        return tuple(found for found in self.given_files.values() if isinstance(found, CertificateError))

    @property
    def trust_anchor(self) -> bytes | None:
        """The PEM bytes that clients trust, or None where that is the system's own store or is missing."""
        if self.parameters.trust_anchor:
            found = self.given_files.get("trust_anchor")
            return found if isinstance(found, bytes) else None
        return self.files.get(ROOT_CRT)

    @property
    def trusts_system(self) -> bool:
        """Whether clients trust the system's own certificate store."""
        return self.parameters.trust_anchor == "system"

    @property
    def ingress_address(self) -> str:
        """Where to connect to as HOST:PORT; empty where DNS decides."""
        return self.parameters.ingress_address or self.sandbox.get("ingress_address", "")
