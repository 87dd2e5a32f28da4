"""Which operators are installed, and in which versions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from runbooks.kinds import (
    CLUSTER_SERVICE_VERSION,
)
from runbooks.preconditions.finding import met, not_met
from runbooks.situation import Situation
from runbooks.verdicts import Finding, Verdict
from runbooks.versions import (
    BESIDE_KOURIER_UNTIL,
    MESH_3_FROM,
    NEWEST_KNOWN_MESH,
    NEWEST_KNOWN_SERVERLESS,
    OLDEST_MESH,
    OLDEST_MESH_BESIDE_KOURIER,
    OLDEST_MESH_OF_NEWER,
    OLDEST_SERVERLESS,
    OPERATORS_NAMESPACE,
    RESTRUCTURED_FROM,
    SERVERLESS_NAMESPACE,
    Operator,
    Version,
)


@dataclass(frozen=True)
class _Known:
    """Which versions of an operator the runbooks are for.

    Args:
        parameter: which states the version where the cluster does not tell.
        oldest: the first one.
        why: why that one.
        newest: the last one that is known here.
    """

    parameter: str
    oldest: Version
    why: str
    newest: Version


_SERVERLESS = _Known(
    "serverless_version",
    OLDEST_SERVERLESS,
    "the first with KnativeServing v1beta1, which the page applies",
    NEWEST_KNOWN_SERVERLESS,
)
_MESH = _Known("mesh_version", OLDEST_MESH, "the page: supported from there on", NEWEST_KNOWN_MESH)
_MESH_BESIDE_KOURIER = replace(_MESH, oldest=OLDEST_MESH_BESIDE_KOURIER)


def serverless_operator(situation: Situation[Any]) -> Finding:
    """The OpenShift Serverless operator is installed, in a version that is known."""
    title = "OpenShift Serverless Operator is installed"
    return _operator(title, situation, "serverless-operator", situation.versions.serverless, _SERVERLESS)


def mesh_operator(situation: Situation[Any]) -> Finding:
    """Service Mesh 2.0.5 or later is installed; Service Mesh 3 is another product with another procedure."""
    title = "Red Hat OpenShift Service Mesh 2.0.5 or later is installed"
    found, serverless = _mesh_operator(title, situation, _MESH), situation.versions.serverless
    mesh = situation.versions.mesh
    if mesh is None or serverless is None or found.verdict not in (Verdict.MET, Verdict.WARNING):
        return found
    if serverless.version < RESTRUCTURED_FROM or mesh.version >= OLDEST_MESH_OF_NEWER:
        return found
    said = (
        f"the documentation of Serverless {RESTRUCTURED_FROM.line} and later asks for Service Mesh "
        f"{OLDEST_MESH_OF_NEWER.line} or later"
    )
    return _odd(found, said, "update the operator of the mesh")


def mesh_operator_beside_kourier(situation: Situation[Any]) -> Finding:
    """Service Mesh 1.x or 2.x is installed: beside Kourier the page supports both."""
    return _mesh_operator("Red Hat OpenShift Service Mesh 1.x or 2.x is installed", situation, _MESH_BESIDE_KOURIER)


def _mesh_operator(title: str, situation: Situation[Any], known: _Known) -> Finding:
    """What is stated stands in for what cannot be seen, not for Service Mesh 3, which is seen."""
    mesh, mesh_3 = situation.versions.mesh, situation.versions.mesh_3
    if mesh_3 is not None and (mesh is None or mesh.stated):
        said = f"Service Mesh {mesh_3.version} is installed, which is not supported: the procedure is Service Mesh 2's"
        remedy = (
            "follow the documentation of OpenShift Serverless with Service Mesh 3, a technology preview from "
            f"{MESH_3_FROM.line} on"
        )
        return not_met(title, said, remedy)
    return _operator(title, situation, "servicemeshoperator", mesh, known)


def _operator(title: str, situation: Situation[Any], package: str, found: Operator | None, known: _Known) -> Finding:
    unread, parameter = situation.snapshot.unreadable(CLUSTER_SERVICE_VERSION), known.parameter
    unfound = unread or f"no ClusterServiceVersion {package}.v… in {SERVERLESS_NAMESPACE} or {OPERATORS_NAMESPACE}"
    if found is None and unread:
        remedy = f"set {parameter} to the version that oc get csv -A shows, in quotes"
        return Finding(title, Verdict.UNKNOWN, unread, remedy)
    if found is None:
        return not_met(title, unfound, f"install {package} from OperatorHub")
    words = f"{package} {found.version}"
    if found.phase != "Succeeded":
        return not_met(title, f"{words} is {found.phase or 'not reported'} {found.message}".strip(), "see its CSV")
    if found.version < known.oldest:
        said = f"{words} is older than {known.oldest} ({known.why})"
        return not_met(title, said, f"update the operator to {known.oldest} or later")
    finding = met(title, words)
    if found.version > known.newest.last_of_line:
        said = f"newer than {known.newest.line}, the newest known here; it is treated like that one"
        finding = _odd(finding, said, "compare with the release notes before you apply")
    stated = getattr(situation.parameters, parameter)
    if found.stated:
        said = f"only {parameter} says so: {unfound}"
        finding = _odd(finding, said, f"make sure that oc get csv -A shows {found.version.line}")
    elif stated and not f"{found.version}.".startswith(f"{stated}."):
        finding = _odd(finding, f"the cluster says so; {parameter} {stated} is not used", f"take {parameter} out")
    return finding


def _odd(finding: Finding, said: str, remedy: str) -> Finding:
    """A finding with one more thing that forbids nothing and has to be known."""
    remedy = f"{finding.remedy}; {remedy}" if finding.remedy else remedy
    return replace(finding, verdict=Verdict.WARNING, said=f"{finding.said}; {said}", remedy=remedy)


def documented_beside_kourier(situation: Situation[Any]) -> Finding:
    """Service Mesh beside Kourier is deprecated from 1.31 on, and no longer documented."""
    title = "Service Mesh beside Kourier is documented for this version"
    found = situation.versions.serverless
    if found is None or found.version < BESIDE_KOURIER_UNTIL:
        return met(title, str(found.version) if found else "the version is not known")
    said = f"{found.version}: deprecated, and left out of the documentation, since {BESIDE_KOURIER_UNTIL}"
    return Finding(title, Verdict.WARNING, said, "plan to move to Istio as the only ingress (6.4.3)")
