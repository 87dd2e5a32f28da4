"""The version matrix: from what the cluster reports to the profile that decides each version-dependent field.

Facts of which version does what are Red Hat's release notes and the operators' own behaviour; each rule names the
version from which it holds.
"""

from __future__ import annotations

import re
import sys
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

    @property
    def line(self) -> str:
        """The line that it belongs to, as documentation names versions: ``1.26``."""
        return f"{self.major}.{self.minor}"

    @property
    def last_of_line(self) -> Version:
        """A version that none of its line is newer than."""
        return Version(self.major, self.minor, sys.maxsize)

    def __str__(self) -> str:
        return f"{self.line}.{self.patch}"


@dataclass(frozen=True)
class Range:
    """Versions in a row, all of them where neither end is given.

    Args:
        since: the first one.
        before: the first one that no longer belongs to it.
    """

    since: Version | None = None
    before: Version | None = None

    def __contains__(self, version: Version) -> bool:
        return (self.since is None or self.since <= version) and (self.before is None or version < self.before)

    def __str__(self) -> str:
        if self.since is None:
            return f"before {self.before.line}" if self.before else "every version"
        if self.before is None:
            return f"{self.since.line} and later"
        return f"{self.since.line} and later, before {self.before.line}"


EVERY_VERSION = Range()
OLDEST_SERVERLESS = Version(1, 26)  # first with KnativeServing v1beta1, which the documented text uses
NEWEST_KNOWN_SERVERLESS = Version(1, 38)
OLDEST_MESH = Version(2, 0, 5)  # the page: "supported only with Service Mesh 2.0.5 and later"
OLDEST_MESH_BESIDE_KOURIER = Version(1, 0)  # the page: "1.x and 2.x are both supported"
NEWEST_KNOWN_MESH = Version(2, 6)
RESTRUCTURED_FROM = Version(1, 31)  # whose documentation is another one, with Service Mesh 2.2 as the oldest
OLDEST_MESH_OF_NEWER = Version(2, 2)
MESH_3_FROM = Version(1, 37)  # first whose documentation has Service Mesh 3, as a technology preview
METRICS_KEYS_RENAMED_FROM = Version(1, 38)  # Knative Serving 1.19
ANNOTATION_DEPRECATED_FROM, FILTERED_BY_DEFAULT_FROM = Version(1, 28), Version(1, 32)
DRAIN_PORT_FROM = RESTRUCTURED_FROM  # whose documentation excludes 8022 beside 8444
INJECT_LABEL_FROM = Version(1, 35)  # whose own scripts ask for sidecars by label
POLICIES_OPT_OUT_FROM = Version(1, 32)  # first that can be told to add no NetworkPolicies
BESIDE_KOURIER_UNTIL = RESTRUCTURED_FROM  # whose documentation no longer holds the combination with Kourier


@dataclass(frozen=True)
class Operator:
    """One operator as its ClusterServiceVersion reports it, or as a parameter states it.

    Args:
        package: its OLM package.
        version: its version.
        phase: the ClusterServiceVersion's phase; ``Succeeded`` when it is installed.
        message: OLM's own words where it is not.
        stated: whether it was not found, and its version is what a parameter says.
    """

    package: str
    version: Version
    phase: str
    message: str = ""
    stated: bool = False


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
            found[package] = Operator(package, Version.parse(stated), "Succeeded", stated=True)
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
            strict: the documented key, also where the version ignores it.
        """
        if strict or self.serverless < METRICS_KEYS_RENAMED_FROM:
            return {"metrics.backend-destination": "prometheus"}
        return {"metrics-protocol": "prometheus", "request-metrics-protocol": "prometheus"}

    @property
    def secret_filtering(self) -> SecretFiltering:
        """What decides on the filtering: the annotation (1.24), an override before it (1.28), the operator (1.32)."""
        if self.serverless < ANNOTATION_DEPRECATED_FROM:
            return SecretFiltering.ANNOTATION
        if self.serverless < FILTERED_BY_DEFAULT_FROM:
            return SecretFiltering.DEPRECATED_ANNOTATION
        return SecretFiltering.DEFAULT


def profile(versions: Versions) -> Profile:
    """The profile of the versions found; an unknown newer one is treated as the newest known."""
    version = versions.serverless.version if versions.serverless else OLDEST_SERVERLESS
    return Profile(NEWEST_KNOWN_SERVERLESS if version > NEWEST_KNOWN_SERVERLESS.last_of_line else version)
