"""What the stand-in for the Serverless operator installs, as each version does."""

from __future__ import annotations

from typing import Any

import pytest

from runbooks_sandbox.serverless import filtering, serverless
from runbooks_sandbox.world import DEPLOYMENTS, Want

VARIABLE = "ENABLE_SECRET_INFORMER_FILTERING_BY_CERT_UID"
ANNOTATION = "serverless.openshift.io/enable-secret-informer-filtering"


@pytest.mark.parametrize(
    ("minor", "annotation", "override", "expected"),
    [
        # the annotation's value as it stands, whatever it is, also over an override; else what is shipped
        (26, None, None, "false"),
        (26, "true", None, "true"),
        (27, "false", None, "false"),
        (27, "sure", None, "sure"),
        (27, "true", "false", "true"),
        (27, None, "true", "true"),
        # the override first, then the annotation where it says true
        (28, None, None, "false"),
        (28, "true", None, "true"),
        (28, "T", None, "T"),
        (31, "sure", None, "false"),
        (31, "false", None, "false"),
        (31, "true", "false", "false"),
        (31, "false", "true", "true"),
        # on, unless an override says otherwise
        (32, None, None, "true"),
        (32, "false", None, "true"),
        (32, "true", "false", "false"),
        (38, None, "false", "false"),
    ],
)
def test_whether_secrets_are_filtered(minor: int, annotation: str | None, override: str | None, expected: str) -> None:
    assert expected == filtering((1, minor, 0), annotation, override)


class OneServing:
    """A world in which there is one KnativeServing."""

    def __init__(self, serving: dict[str, Any]) -> None:
        self._serving = serving

    def get(self, resource: Any, *_: str) -> Any:
        return self._serving if resource.kind == "KnativeServing" else None

    def objects(self, *_: Any) -> list[Any]:
        return []


def environment(minor: int, workloads: list[dict[str, Any]], annotations: dict[str, str]) -> dict[str, str]:
    metadata = {"name": "knative-serving", "namespace": "knative-serving", "uid": "1", "generation": 1}
    serving = {
        "metadata": {**metadata, "annotations": annotations},
        "spec": {"ingress": {"istio": {"enabled": True}}, "workloads": workloads},
    }
    wanted = list(serverless((1, minor, 0), (), OneServing(serving), {}))  # type: ignore[arg-type]
    deployments = {
        want.manifest["metadata"]["name"]: want.manifest
        for want in wanted
        if isinstance(want, Want) and want.resource is DEPLOYMENTS
    }
    container = deployments["net-istio-controller"]["spec"]["template"]["spec"]["containers"][0]
    assert "controller" == container["name"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def workload(container: str, value: str) -> dict[str, Any]:
    variables = [{"name": VARIABLE, "value": value}, {"name": "OTHER", "value": "x"}]
    return {"name": "net-istio-controller", "env": [{"container": container, "envVars": variables}]}


def test_the_deployment_gets_it_by_annotation_or_override() -> None:
    assert "true" == environment(26, [], {ANNOTATION: "true"})[VARIABLE]
    found = environment(28, [workload("controller", "false")], {ANNOTATION: "true"})
    assert ("false", "x") == (found[VARIABLE], found["OTHER"])


def test_an_override_of_another_container_is_none() -> None:
    found = environment(32, [workload("istio-proxy", "false")], {})
    assert "true" == found[VARIABLE]
    assert "OTHER" not in found
