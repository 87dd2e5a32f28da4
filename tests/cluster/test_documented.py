"""The documented text is the contract: what the page shows is there, field for field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from runbooks.procedure import path_of
from runbooks_sandbox import lifecycle
from runbooks_sandbox.world import (
    GATEWAYS,
    KNATIVE_SERVICES,
    KNATIVE_SERVINGS,
    MEMBER_ROLLS,
    SECRETS,
    SERVICES,
    within,
)
from tests.conftest import REAL_CRDS, Sandbox

HTTP_VARIANT = """
apiVersion: maistra.io/v1
kind: ServiceMeshMemberRoll
metadata:
  name: default
  namespace: istio-system
spec:
  members:
    - knative-serving
    - default
---
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata:
  name: knative-ingress-gateway
  namespace: knative-serving
spec:
  selector:
    istio: ingressgateway
  servers:
    - port:
        number: 443
        name: https
        protocol: HTTPS
      hosts:
        - "*"
      tls:
        mode: SIMPLE
        credentialName: wildcard-certs
---
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata:
  name: knative-local-gateway
  namespace: knative-serving
spec:
  selector:
    istio: ingressgateway
  servers:
    - port:
        number: 8081
        name: http
        protocol: HTTP
      hosts:
        - "*"
---
apiVersion: v1
kind: Service
metadata:
  name: knative-local-gateway
  namespace: istio-system
  labels:
    experimental.istio.io/disable-gateway-port-translation: "true"
spec:
  type: ClusterIP
  selector:
    istio: ingressgateway
  ports:
    - name: http2
      port: 80
      targetPort: 8081
---
apiVersion: operator.knative.dev/v1beta1
kind: KnativeServing
metadata:
  name: knative-serving
  namespace: knative-serving
spec:
  ingress:
    istio:
      enabled: true
  deployments:
    - name: activator
      annotations:
        "sidecar.istio.io/inject": "true"
        "sidecar.istio.io/rewriteAppHTTPProbers": "true"
    - name: autoscaler
      annotations:
        "sidecar.istio.io/inject": "true"
        "sidecar.istio.io/rewriteAppHTTPProbers": "true"
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: hello
  namespace: default
  annotations:
    serving.knative.openshift.io/enablePassthrough: "true"
spec:
  template:
    metadata:
      annotations:
        sidecar.istio.io/inject: "true"
        sidecar.istio.io/rewriteAppHTTPProbers: "true"
    spec:
      containers:
        - image: quay.io/openshift-knative/helloworld-go:latest
"""
RESOURCES = {
    ("ServiceMeshMemberRoll", "maistra.io/v1"): MEMBER_ROLLS,
    ("Gateway", "networking.istio.io/v1alpha3"): GATEWAYS,
    ("Service", "v1"): SERVICES,
    ("KnativeServing", "operator.knative.dev/v1beta1"): KNATIVE_SERVINGS,
    ("Service", "serving.knative.dev/v1"): KNATIVE_SERVICES,
}
DOCUMENTS = list(yaml.safe_load_all(HTTP_VARIANT))


def named(document: Mapping[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
class TestEveryDocumentedObject:
    def test_is_there_field_for_field(self, integrated: Sandbox, document: dict[str, Any]) -> None:
        resource = RESOURCES[document["kind"], document["apiVersion"]]
        live = integrated.get(resource, document["metadata"]["namespace"], document["metadata"]["name"])
        assert within(document, live), live

    def test_would_change_nothing_if_it_were_applied(self, integrated: Sandbox, document: dict[str, Any]) -> None:
        resource = RESOURCES[document["kind"], document["apiVersion"]]
        path = resource.path(document["metadata"]["namespace"], document["metadata"]["name"])
        live = integrated.api.request("GET", path)
        query = {"fieldManager": "the-page", "force": "true", "dryRun": "All", "fieldValidation": "Strict"}
        answer = integrated.api.request(
            "PATCH", path, document, query=query, content_type="application/apply-patch+yaml"
        )
        for manifest in (live, answer):
            manifest["metadata"].pop("managedFields")
        assert live == answer


def test_the_secret_is_the_one_of_oc_create_secret_tls(integrated: Sandbox) -> None:
    live = integrated.get(SECRETS, "istio-system", "wildcard-certs")
    assert "kubernetes.io/tls" == live["type"]
    assert {"tls.crt", "tls.key"} == live["data"].keys()
    assert not live["metadata"].get("labels")


def test_the_documented_files_are_there_and_keys_are_private(integrated: Sandbox) -> None:
    folder = integrated.state.certificates
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {
        "root.key": 0o600,
        "root.crt": 0o644,
        "wildcard.key": 0o600,
        "wildcard.csr": 0o644,
        "wildcard.crt": 0o644,
    } == modes


@pytest.mark.skipif(
    not REAL_CRDS.is_dir(), reason="the exported CRDs of the real products are not beside this checkout"
)
def test_the_whole_path_is_proven_against_the_real_crds(new_sandbox: Callable[..., Sandbox]) -> None:
    real = new_sandbox(crds=REAL_CRDS)
    for section in path_of("istio"):
        outcome = real.play(section.number)
        assert 0 == outcome["exit_code"], outcome["reason"]
    since = real.audit_position()
    for section in path_of("istio"):
        assert 0 == real.play(section.number, "verify")["exit_code"]
        assert 0 == real.play(section.number)["exit_code"]
    assert [] == real.writes(since)
    for document in DOCUMENTS:
        resource = RESOURCES[document["kind"], document["apiVersion"]]
        live = real.get(resource, document["metadata"]["namespace"], document["metadata"]["name"])
        assert within(document, live), live
    lifecycle.stop(real.state)
