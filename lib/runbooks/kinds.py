"""The kinds of object that the procedure touches, as the API server addresses them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, order=True)
class Kind:
    """One kind in one API version.

    Args:
        group: the API group, empty for the core group.
        version: the API version that the documented text uses.
        plural: the resource name in a path and in RBAC rules.
        name: the kind as a manifest spells it.
        namespaced: whether objects live in a namespace.
        title: what a person reads, where the kind's name alone could be mistaken for another.
    """

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True
    title: str = ""

    @property
    def api_version(self) -> str:
        """The manifest's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The request path of one object, of a namespace's list, or of the list across all namespaces."""
        parts = [f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"]
        if namespace:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        return "/".join(parts)

    def __str__(self) -> str:
        return self.title or self.name


@dataclass(frozen=True, order=True)
class ObjectRef:
    """Which object: kind, namespace (empty for cluster-scoped objects) and name."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
POD = Kind("", "v1", "pods", "Pod")
SECRET = Kind("", "v1", "secrets", "Secret")
SERVICE = Kind("", "v1", "services", "Service")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
SERVICE_MONITOR = Kind("monitoring.coreos.com", "v1", "servicemonitors", "ServiceMonitor")
_ADMISSION = ("admissionregistration.k8s.io", "v1")
MUTATING_WEBHOOK = Kind(*_ADMISSION, "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False)
VALIDATING_WEBHOOK = Kind(*_ADMISSION, "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False)
CLUSTER_VERSION = Kind("config.openshift.io", "v1", "clusterversions", "ClusterVersion", namespaced=False)
INGRESS_CONFIG = Kind("config.openshift.io", "v1", "ingresses", "Ingress", False, "Ingress config")
CLUSTER_SERVICE_VERSION = Kind("operators.coreos.com", "v1alpha1", "clusterserviceversions", "ClusterServiceVersion")
CONTROL_PLANE = Kind("maistra.io", "v2", "servicemeshcontrolplanes", "ServiceMeshControlPlane")
CONTROL_PLANE_V1 = Kind("maistra.io", "v1", "servicemeshcontrolplanes", "ServiceMeshControlPlane")  # Service Mesh 1
MEMBER_ROLL = Kind("maistra.io", "v1", "servicemeshmemberrolls", "ServiceMeshMemberRoll")
GATEWAY = Kind("networking.istio.io", "v1alpha3", "gateways", "Gateway")
AUTHORIZATION_POLICY = Kind("security.istio.io", "v1beta1", "authorizationpolicies", "AuthorizationPolicy")
KNATIVE_SERVING = Kind("operator.knative.dev", "v1beta1", "knativeservings", "KnativeServing")
KNATIVE_SERVICE = Kind("serving.knative.dev", "v1", "services", "Service", title="Knative Service")
KNATIVE_INGRESS = Kind("networking.internal.knative.dev", "v1alpha1", "ingresses", "Ingress", title="Knative Ingress")
DOMAIN_MAPPING = Kind("serving.knative.dev", "v1beta1", "domainmappings", "DomainMapping")
ROUTE = Kind("route.openshift.io", "v1", "routes", "Route")

KINDS: tuple[Kind, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Kind))


_BY_NAME = {(kind.api_version, kind.name): kind for kind in KINDS}


def kind_of(manifest: dict[str, object]) -> Kind:
    """The kind of a manifest.

    Raises:
        KeyError: the procedure has no such kind; a mistake in ``manifests``, not of a user.
    """
    return _BY_NAME[str(manifest.get("apiVersion")), str(manifest.get("kind"))]
