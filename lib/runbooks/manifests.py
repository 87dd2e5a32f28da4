"""One pure function per documented object: parameters in, manifest out, in the API's own spelling.

The documented text is the contract. A function here returns what the text shows, field for field, and nothing
else; what differs from the text by version is decided by the caller's profile and arrives as an argument.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any

Manifest = dict[str, Any]

MEMBER_ROLL_NAME = "default"  # the operator accepts no other name
SERVING_NAMESPACE = "knative-serving"  # the Serverless operator accepts no other namespace
KOURIER_NAMESPACE = "knative-serving-ingress"
SERVING_SYSTEM_POLICY = "allow-from-serving-system-namespace"
PART_OF_SERVERLESS = {"knative.openshift.io/part-of": "openshift-serverless"}
INGRESS_GATEWAY = "knative-ingress-gateway"
LOCAL_GATEWAY = "knative-local-gateway"
GATEWAY_SELECTOR = {"istio": "ingressgateway"}
LOCAL_GATEWAY_PORT = 8081
INJECT = "sidecar.istio.io/inject"
REWRITE_PROBES = "sidecar.istio.io/rewriteAppHTTPProbers"
UNKNOWN_NAME = "<name>"  # of an object that others have named, before the cluster was asked; none can really have it
METRICS_PORT = 8444  # where the operator's kube-rbac-proxy serves metrics
MONITORING_POLICY = "allow-from-openshift-monitoring-ns"
FILTERING_ANNOTATION = "serverless.openshift.io/enable-secret-informer-filtering"
PASSTHROUGH = "serving.knative.openshift.io/enablePassthrough"
SIDECAR_ANNOTATIONS = {INJECT: "true", REWRITE_PROBES: "true"}


def tls_secret(name: str, namespace: str, certificate_chain: bytes, private_key: bytes) -> Manifest:
    """6.4.2: the Secret from which the ingress gateway takes its certificate (``oc create secret tls``)."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": base64.b64encode(certificate_chain).decode(),
            "tls.key": base64.b64encode(private_key).decode(),
        },
    }


def member_roll(mesh_namespace: str, members: Iterable[str]) -> Manifest:
    """6.4.3 and 6.4.5: the namespaces that belong to the mesh."""
    return {
        "apiVersion": "maistra.io/v1",
        "kind": "ServiceMeshMemberRoll",
        "metadata": {"name": MEMBER_ROLL_NAME, "namespace": mesh_namespace},
        "spec": {"members": list(members)},
    }


def _gateway(name: str, server: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": SERVING_NAMESPACE},
        "spec": {"selector": dict(GATEWAY_SELECTOR), "servers": [server]},
    }


def _https_server(credential_name: str) -> Manifest:
    return {
        "port": {"number": 443, "name": "https", "protocol": "HTTPS"},
        "hosts": ["*"],
        "tls": {"mode": "SIMPLE", "credentialName": credential_name},
    }


def ingress_gateway(credential_name: str) -> Manifest:
    """6.4.3: TLS from outside, with the certificate of the Secret ``credential_name``."""
    return _gateway(INGRESS_GATEWAY, _https_server(credential_name))


def local_gateway_http() -> Manifest:
    """6.4.3, the variant with HTTP: the cluster-local gateway on port 8081."""
    port = {"number": LOCAL_GATEWAY_PORT, "name": "http", "protocol": "HTTP"}
    return _gateway(LOCAL_GATEWAY, {"port": port, "hosts": ["*"]})


def local_gateway_https(credential_name: str) -> Manifest:
    """6.4.3, the variant with HTTPS: a second Gateway on port 443 for every host."""
    return _gateway(LOCAL_GATEWAY, _https_server(credential_name))


def local_gateway_service(mesh_namespace: str) -> Manifest:
    """6.4.3: the Service behind every cluster-local name, port 80 to the gateway's 8081."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": LOCAL_GATEWAY,
            "namespace": mesh_namespace,
            "labels": {"experimental.istio.io/disable-gateway-port-translation": "true"},
        },
        "spec": {
            "type": "ClusterIP",
            "selector": dict(GATEWAY_SELECTOR),
            "ports": [{"name": "http2", "port": 80, "targetPort": LOCAL_GATEWAY_PORT}],
        },
    }


def knative_serving() -> Manifest:
    """6.4.3: Knative Serving with Istio as its ingress, and sidecars in activator and autoscaler."""
    return {
        "apiVersion": "operator.knative.dev/v1beta1",
        "kind": "KnativeServing",
        "metadata": {"name": "knative-serving", "namespace": SERVING_NAMESPACE},
        "spec": {
            "ingress": {"istio": {"enabled": True}},
            "deployments": [
                {"name": name, "annotations": dict(SIDECAR_ANNOTATIONS)} for name in ("activator", "autoscaler")
            ],
        },
    }


def knative_service(name: str, namespace: str, image: str) -> Manifest:
    """6.4.3: an application with a sidecar, reached through a pass-through route."""
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "annotations": {PASSTHROUGH: "true"}},
        "spec": {
            "template": {
                "metadata": {"annotations": dict(SIDECAR_ANNOTATIONS)},
                "spec": {"containers": [{"image": image}]},
            }
        },
    }


def serving_system_policy(namespace: str) -> Manifest:
    """6.4.5: traffic from Knative's system Pods gets in to an application namespace."""
    source = {"namespaceSelector": {"matchLabels": dict(PART_OF_SERVERLESS)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": SERVING_SYSTEM_POLICY, "namespace": namespace},
        "spec": {"ingress": [{"from": [source]}], "podSelector": {}, "policyTypes": ["Ingress"]},
    }


def serving_system_label(namespace: str) -> Manifest:
    """6.4.5: the label by which that policy knows Knative's own namespaces (partial: amends what there is)."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": dict(PART_OF_SERVERLESS)},
    }


def excluded_port(name: str, mesh_namespace: str) -> Manifest:
    """6.4.4: the control plane's sidecars leave the metrics port alone (partial: amends what there is)."""
    inbound = {"excludedPorts": [METRICS_PORT]}
    return {
        "apiVersion": "maistra.io/v2",
        "kind": "ServiceMeshControlPlane",
        "metadata": {"name": name, "namespace": mesh_namespace},
        "spec": {"proxy": {"networking": {"trafficControl": {"inbound": inbound}}}},
    }


def metrics_backend(settings: Mapping[str, str]) -> Manifest:
    """6.4.4: Knative Serving's metrics go to Prometheus (partial: amends what there is)."""
    return {
        "apiVersion": "operator.knative.dev/v1beta1",
        "kind": "KnativeServing",
        "metadata": {"name": "knative-serving", "namespace": SERVING_NAMESPACE},
        "spec": {"config": {"observability": dict(settings)}},
    }


def monitoring_policy(monitoring_namespace: str, label: str = "name") -> Manifest:
    """6.4.4: traffic from the monitoring namespace gets in to Knative Serving.

    Args:
        monitoring_namespace: where Prometheus runs.
        label: the label that names the namespace; the page's ``name`` is there on OpenShift only.
    """
    source = {"namespaceSelector": {"matchLabels": {label: monitoring_namespace}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": MONITORING_POLICY, "namespace": SERVING_NAMESPACE},
        "spec": {"ingress": [{"from": [source]}], "podSelector": {}},
    }


def secret_filtering() -> Manifest:
    """6.4.6: net-istio watches Knative's own Secrets only (partial: amends what there is)."""
    return {
        "apiVersion": "operator.knative.dev/v1beta1",
        "kind": "KnativeServing",
        "metadata": {
            "name": "knative-serving",
            "namespace": SERVING_NAMESPACE,
            "annotations": {FILTERING_ANNOTATION: "true"},
        },
    }
