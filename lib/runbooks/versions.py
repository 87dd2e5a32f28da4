"""The version matrix: from what the cluster reports to the profile that decides each version-dependent field.

Facts of which version does what are Red Hat's release notes and the operators' own behaviour; each rule names the
version from which it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SERVERLESS_NAMESPACE = "openshift-serverless"
OPERATORS_NAMESPACE = "openshift-operators"

_CSV_NAME = re.compile(r"^(?P<package>serverless-operator|servicemeshoperator3?)\.v(?P<version>\d+\.\d+\.\d+)")


@dataclass(frozen=True, order=True)
class Version:
    """A version of an operator; a missing patch level reads as 0."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        """The version in ``1.26`` or ``1.26.3``.

        Raises:
            ValueError: the text is not a version.
        """
        parts = [int(part) for part in text.split(".")]
        if not 2 <= len(parts) <= 3:
            raise ValueError(text)
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


OLDEST_SERVERLESS = Version(1, 26)  # first with KnativeServing v1beta1, which the documented text uses
NEWEST_KNOWN_SERVERLESS = Version(1, 38)
OLDEST_MESH = Version(2, 0, 5)  # the page: "supported only with Service Mesh 2.0.5 and later"
OLDEST_MESH_BESIDE_KOURIER = Version(1, 0)  # the page: "1.x and 2.x are both supported"
NEWEST_KNOWN_MESH = Version(2, 6)
DRAIN_PORT_FROM = Version(1, 31)  # whose documentation excludes 8022 beside 8444
POLICIES_OPT_OUT_FROM = Version(1, 32)  # first that can be told to add no NetworkPolicies
BESIDE_KOURIER_UNTIL = Version(1, 31)  # whose documentation no longer holds the combination with Kourier


@dataclass(frozen=True)
class Operator:
    """One operator as its ClusterServiceVersion reports it.

    Args:
        package: its OLM package.
        version: its version.
        phase: the ClusterServiceVersion's phase; ``Succeeded`` when it is installed.
        message: OLM's own words where it is not.
    """

    package: str
    version: Version
    phase: str
    message: str = ""


@dataclass(frozen=True)
class Versions:
    """What is known of a cluster's versions, and how.

    Args:
        serverless: the Serverless operator, or None where it was not found.
        mesh: the Service Mesh 2 operator, or None where it was not found.
        mesh_3: the Service Mesh 3 operator, or None where it is not there.
        source: in words, where the versions come from.
    """

    serverless: Operator | None
    mesh: Operator | None
    mesh_3: Operator | None
    source: str


def detect(cluster_service_versions: Iterable[Mapping[str, Any]], *, serverless: str = "", mesh: str = "") -> Versions:
    """The operators' versions.

    Args:
        cluster_service_versions: as listed from the operators' namespaces.
        serverless: version stated by a parameter, used only where no operator was found.
        mesh: likewise for Service Mesh.
    """
    found: dict[str, Operator] = {}
    for csv in cluster_service_versions:
        if match := _CSV_NAME.match(csv["metadata"]["name"]):
            status = csv.get("status", {})
            operator = Operator(
                match["package"], Version.parse(match["version"]), status.get("phase", ""), status.get("message", "")
            )
            # during an upgrade OLM keeps the old one as Replacing; the newer one decides
            if match["package"] not in found or operator.version > found[match["package"]].version:
                found[match["package"]] = operator
    sources = {"ClusterServiceVersions"} if found else set()
    for package, stated in (("serverless-operator", serverless), ("servicemeshoperator", mesh)):
        if stated and package not in found:
            found[package] = Operator(package, Version.parse(stated), "Succeeded")
            sources.add("parameters")
    return Versions(
        found.get("serverless-operator"),
        found.get("servicemeshoperator"),
        found.get("servicemeshoperator3"),
        " and ".join(sorted(sources)) or "nowhere",
    )


class SecretFiltering(StrEnum):
    """What decides whether net-istio's controller filters the Secrets that it watches."""

    ANNOTATION = "annotation"
    DEPRECATED_ANNOTATION = "deprecated annotation"
    DEFAULT = "on by default"


@dataclass(frozen=True)
class Profile:
    """What a version decides.

    Args:
        serverless: the version that the rules below hold for.
    """

    serverless: Version

    def observability(self, *, strict: bool) -> dict[str, str]:
        """The settings of config-observability that send metrics to Prometheus.

        Args:
            strict: the documented key, also where the version ignores it (from 1.38 on, Knative Serving 1.19).
        """
        if strict or self.serverless < Version(1, 38):
            return {"metrics.backend-destination": "prometheus"}
        return {"metrics-protocol": "prometheus", "request-metrics-protocol": "prometheus"}

    @property
    def secret_filtering(self) -> SecretFiltering:
        """What decides on the filtering: the annotation (1.24), an override before it (1.28), the operator (1.32)."""
        if self.serverless < Version(1, 28):
            return SecretFiltering.ANNOTATION
        if self.serverless < Version(1, 32):
            return SecretFiltering.DEPRECATED_ANNOTATION
        return SecretFiltering.DEFAULT


def profile(versions: Versions) -> Profile:
    """The profile of the versions found; an unknown newer one is treated as the newest known."""
    version = versions.serverless.version if versions.serverless else OLDEST_SERVERLESS
    known = min(version, Version(NEWEST_KNOWN_SERVERLESS.major, NEWEST_KNOWN_SERVERLESS.minor, 999))
    return Profile(known)
