"""The documented objects, compared field for field with the text of the page."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
import yaml

from runbooks import manifests
from runbooks.kinds import kind_of
from runbooks.manifests import Manifest

# The YAML of sections 6.4.3 to 6.4.6, with its placeholders; line breaks as in the English edition.
MEMBER_ROLL = """
apiVersion: maistra.io/v1
kind: ServiceMeshMemberRoll
metadata:
  name: default
  namespace: istio-system
spec:
  members:
    - knative-serving
    - <namespace>
"""
INGRESS_GATEWAY = """
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
        credentialName: <wildcard_certs>
"""
LOCAL_GATEWAY_HTTP = """
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
"""
LOCAL_GATEWAY_HTTPS = """
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
        number: 443
        name: https
        protocol: HTTPS
      hosts:
        - "*"
      tls:
        mode: SIMPLE
        credentialName: <wildcard_certs>
"""
LOCAL_GATEWAY_SERVICE = """
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
"""
KNATIVE_SERVING = """
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
"""
KNATIVE_SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: <service_name>
  namespace: <namespace>
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
      - image: <image_url>
"""

# What the page marks with "..." is a part of an object that is there already.
METRICS_BACKEND = """
apiVersion: operator.knative.dev/v1beta1
kind: KnativeServing
metadata:
  name: knative-serving
  namespace: knative-serving
spec:
  config:
    observability:
      metrics.backend-destination: "prometheus"
"""
MONITORING_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-from-openshift-monitoring-ns
  namespace: knative-serving
spec:
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          name: "openshift-monitoring"
  podSelector: {}
"""
EXCLUDED_PORT = """
apiVersion: maistra.io/v2
kind: ServiceMeshControlPlane
metadata:
  name: basic
  namespace: istio-system
spec:
  proxy:
    networking:
      trafficControl:
        inbound:
          excludedPorts:
          - 8444
"""
SERVING_SYSTEM_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: allow-from-serving-system-namespace
  namespace: <namespace>
spec:
  ingress:
  - from:
    - namespaceSelector:
        matchLabels:
          knative.openshift.io/part-of: "openshift-serverless"
  podSelector: {}
  policyTypes:
  - Ingress
"""
# oc label namespace knative-serving knative.openshift.io/part-of=openshift-serverless
SERVING_SYSTEM_LABEL = """
apiVersion: v1
kind: Namespace
metadata:
  name: knative-serving
  labels:
    knative.openshift.io/part-of: openshift-serverless
"""
SECRET_FILTERING = """
apiVersion: operator.knative.dev/v1beta1
kind: KnativeServing
metadata:
  name: knative-serving
  namespace: knative-serving
  annotations:
    serverless.openshift.io/enable-secret-informer-filtering: "true"
"""

DOCUMENTED: list[tuple[str, Callable[[], Manifest]]] = [
    (MEMBER_ROLL, lambda: manifests.member_roll("istio-system", ["knative-serving", "<namespace>"])),
    (INGRESS_GATEWAY, lambda: manifests.ingress_gateway("<wildcard_certs>")),
    (LOCAL_GATEWAY_HTTP, manifests.local_gateway_http),
    (LOCAL_GATEWAY_HTTPS, lambda: manifests.local_gateway_https("<wildcard_certs>")),
    (LOCAL_GATEWAY_SERVICE, lambda: manifests.local_gateway_service("istio-system")),
    (KNATIVE_SERVING, manifests.knative_serving),
    (KNATIVE_SERVICE, lambda: manifests.knative_service("<service_name>", "<namespace>", "<image_url>")),
    (METRICS_BACKEND, lambda: manifests.metrics_backend({"metrics.backend-destination": "prometheus"})),
    (MONITORING_POLICY, lambda: manifests.monitoring_policy("openshift-monitoring")),
    (EXCLUDED_PORT, lambda: manifests.excluded_port("basic", "istio-system")),
    (SERVING_SYSTEM_POLICY, lambda: manifests.serving_system_policy("<namespace>")),
    (SERVING_SYSTEM_LABEL, lambda: manifests.serving_system_label("knative-serving")),
    (SECRET_FILTERING, manifests.secret_filtering),
]

each_manifest = pytest.mark.parametrize(
    ("text", "make"),
    DOCUMENTED,
    ids=[
        "member-roll",
        "ingress-gateway",
        "local-http",
        "local-https",
        "local-service",
        "serving",
        "service",
        "metrics-backend",
        "monitoring-policy",
        "excluded-port",
        "serving-system-policy",
        "serving-system-label",
        "secret-filtering",
    ],
)


@each_manifest
def test_each_object_is_the_documented_one_field_for_field(text: str, make: Callable[[], Manifest]) -> None:
    assert yaml.safe_load(text) == make()


@each_manifest
def test_each_object_is_json_and_of_a_kind_that_is_known(text: str, make: Callable[[], Manifest]) -> None:
    manifest = make()
    assert manifest == json.loads(json.dumps(manifest))
    assert yaml.safe_load(text)["kind"] == kind_of(manifest).name


def spoil(value: object) -> None:
    """Overwrite everything in a manifest that can be overwritten."""
    if isinstance(value, dict):
        for below in value.values():
            spoil(below)
        value["spoilt"] = True
    elif isinstance(value, list):
        for below in value:
            spoil(below)
        value.append("spoilt")


@each_manifest
def test_nobody_can_spoil_the_next_one(text: str, make: Callable[[], Manifest]) -> None:
    spoil(make())
    assert yaml.safe_load(text) == make()


def test_the_secret_is_what_oc_create_secret_tls_makes() -> None:
    # oc create -n istio-system secret tls wildcard-certs --key=wildcard.key --cert=wildcard.crt
    made = manifests.tls_secret("wildcard-certs", "istio-system", b"certificate\n", b"key\n")
    expected = """
      apiVersion: v1
      kind: Secret
      metadata: {name: wildcard-certs, namespace: istio-system}
      type: kubernetes.io/tls
      data: {tls.crt: Y2VydGlmaWNhdGUK, tls.key: a2V5Cg==}
    """
    assert yaml.safe_load(expected) == made
    assert b"key\n" == base64.b64decode(made["data"]["tls.key"])


def test_the_monitoring_namespace_is_known_by_another_label_where_the_documented_one_is_not_there() -> None:
    made = manifests.monitoring_policy("prometheus", "kubernetes.io/metadata.name")
    labels = {"kubernetes.io/metadata.name": "prometheus"}
    assert [{"from": [{"namespaceSelector": {"matchLabels": labels}}]}] == made["spec"]["ingress"]


def test_members_keep_the_order_that_they_are_given_in() -> None:
    assert {"members": ["b", "a"]} == manifests.member_roll("mesh", iter(["b", "a"]))["spec"]
