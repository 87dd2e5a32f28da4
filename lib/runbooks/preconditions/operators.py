"""Which operators are installed, and in which versions."""

from __future__ import annotations

from typing import Any

from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
)
from runbooks.preconditions.finding import met, not_met
from runbooks.situation import Situation
from runbooks.verdicts import Finding, Verdict
from runbooks.versions import (
    BESIDE_KOURIER_UNTIL,
    NEWEST_KNOWN_MESH,
    NEWEST_KNOWN_SERVERLESS,
    OLDEST_MESH,
    OLDEST_MESH_BESIDE_KOURIER,
    OLDEST_SERVERLESS,
    Operator,
    Version,
)


def _operator(title: str, found: Operator, oldest: Version, newest: Version) -> Finding:
    words = f"{found.package} {found.version}"
    if found.phase != "Succeeded":
        return not_met(title, f"{words} is {found.phase or 'not reported'} {found.message}".strip(), "see its CSV")
    if found.version < oldest:
        return not_met(title, f"{words} is older than {oldest}", f"update the operator to {oldest} or later")
    if (found.version.major, found.version.minor) > (newest.major, newest.minor):
        said = (
            f"{words} is newer than {newest.major}.{newest.minor}, the newest known here; it is treated like that one"
        )
        return Finding(title, Verdict.WARNING, said, "compare with the release notes before you apply")
    return met(title, words)


def serverless_operator(situation: Situation[Any]) -> Finding:
    """The OpenShift Serverless operator is installed, in a version that is known."""
    title = "OpenShift Serverless Operator is installed"
    found = situation.versions.serverless
    stated = situation.parameters.serverless_version
    if found is not None and stated and f"{found.version}.".startswith(f"{stated}.") is False:
        said = f"the cluster says {found.version}; serverless_version {stated} is not used"
        return Finding(title, Verdict.WARNING, said, "take serverless_version out")
    if found is not None:
        return _operator(title, found, OLDEST_SERVERLESS, NEWEST_KNOWN_SERVERLESS)
    return _no_operator(title, situation, "serverless-operator", "serverless_version")


def mesh_operator(situation: Situation[Any]) -> Finding:
    """Service Mesh 2.0.5 or later is installed; Service Mesh 3 is another product with another procedure."""
    return _mesh_operator("Red Hat OpenShift Service Mesh 2.0.5 or later is installed", situation, OLDEST_MESH)


def mesh_operator_beside_kourier(situation: Situation[Any]) -> Finding:
    """Service Mesh 1.x or 2.x is installed: beside Kourier the page supports both."""
    title = "Red Hat OpenShift Service Mesh 1.x or 2.x is installed"
    return _mesh_operator(title, situation, OLDEST_MESH_BESIDE_KOURIER)


def _mesh_operator(title: str, situation: Situation[Any], oldest: Version) -> Finding:
    versions = situation.versions
    if versions.mesh is not None:
        return _operator(title, versions.mesh, oldest, NEWEST_KNOWN_MESH)
    if versions.mesh_3 is not None:
        said = f"Service Mesh {versions.mesh_3.version} is installed; this procedure is Service Mesh 2's"
        return not_met(title, said, "follow the documentation of OpenShift Serverless with Service Mesh 3")
    return _no_operator(title, situation, "servicemeshoperator", "mesh_version")


def _no_operator(title: str, situation: Situation[Any], package: str, parameter: str) -> Finding:
    if said := situation.snapshot.unreadable(CLUSTER_SERVICE_VERSION):
        remedy = f"set {parameter} to the version that oc get csv -A shows, in quotes"
        return Finding(title, Verdict.UNKNOWN, said, remedy)
    said = f"no ClusterServiceVersion {package}.v… in openshift-serverless or openshift-operators"
    return not_met(title, said, f"install {package} from OperatorHub")


def documented_beside_kourier(situation: Situation[Any]) -> Finding:
    """Service Mesh beside Kourier is deprecated from 1.31 on, and no longer documented."""
    title = "Service Mesh beside Kourier is documented for this version"
    found = situation.versions.serverless
    if found is None or found.version < BESIDE_KOURIER_UNTIL:
        return met(title, str(found.version) if found else "the version is not known")
    said = f"{found.version}: deprecated, and left out of the documentation, since {BESIDE_KOURIER_UNTIL}"
    return Finding(title, Verdict.WARNING, said, "plan to move to Istio as the only ingress (6.4.3)")
