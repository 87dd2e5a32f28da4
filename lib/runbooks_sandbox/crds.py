"""CustomResourceDefinitions of the kinds that the procedure touches, in the sandbox's own words.

They are as strict as the real ones where a mistake would show there (an unquoted ``true`` in an annotation, a member
that is no name) and leave open what the procedure does not touch. ``--crds DIR`` replaces them by exported ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "integer"}
_OPEN: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXTS_BY_KEY: Schema = {"type": "object", "additionalProperties": _TEXT}


def _fields(**fields: Schema) -> Schema:
    return {"type": "object", "properties": fields}


def _open_with(**fields: Schema) -> Schema:
    return {**_fields(**fields), "x-kubernetes-preserve-unknown-fields": True}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_PORT_OR_NAME: Schema = {"x-kubernetes-int-or-string": True}
_CONDITION = _fields(
    type=_TEXT,
    status=_TEXT,
    reason=_TEXT,
    message=_TEXT,
    severity=_TEXT,
    lastTransitionTime=_TEXT,
    lastUpdateTime=_TEXT,
    lastHeartbeatTime=_TEXT,
)
_STATUS = _open_with(conditions=_list(_CONDITION), observedGeneration=_NUMBER)
_ISTIO_STATUS = _open_with(conditions=_list(_CONDITION), observedGeneration=_PORT_OR_NAME)  # istiod writes it as text
_CONTAINER = _open_with(image=_TEXT, name=_TEXT)
_TEMPLATE = _fields(
    metadata=_open_with(annotations=_TEXTS_BY_KEY, labels=_TEXTS_BY_KEY),
    spec=_open_with(containers=_list(_CONTAINER)),
)
_WORKLOAD_OVERRIDE = _open_with(
    name=_TEXT,
    annotations=_TEXTS_BY_KEY,
    labels=_TEXTS_BY_KEY,
    replicas=_NUMBER,
    env=_list(_open_with(container=_TEXT)),
)
_GATEWAY_SERVER = {
    **_fields(
        name=_TEXT,
        bind=_TEXT,
        defaultEndpoint=_TEXT,
        hosts=_list(_TEXT),
        port=_fields(number=_NUMBER, name=_TEXT, protocol=_TEXT, targetPort=_NUMBER),
        tls=_open_with(mode=_TEXT, credentialName=_TEXT),
    ),
    "required": ["port", "hosts"],
}
_CONTROL_PLANE = _fields(
    version=_TEXT,
    mode=_TEXT,
    profiles=_list(_TEXT),
    security=_open_with(dataPlane=_open_with(mtls=_FLAG, automtls=_FLAG), manageNetworkPolicy=_FLAG),
    proxy=_open_with(
        networking=_open_with(
            trafficControl=_open_with(
                inbound=_open_with(excludedPorts=_list(_NUMBER)), outbound=_open_with(excludedPorts=_list(_NUMBER))
            )
        )
    ),
    **dict.fromkeys(
        ("addons", "cluster", "gateways", "general", "policy", "runtime", "techPreview", "telemetry", "tracing"), _OPEN
    ),
)
_ROUTE = _fields(
    host=_TEXT,
    path=_TEXT,
    subdomain=_TEXT,
    wildcardPolicy={"type": "string", "enum": ["None", "Subdomain", ""]},
    to=_fields(kind=_TEXT, name=_TEXT, weight=_NUMBER),
    port=_fields(targetPort=_PORT_OR_NAME),
    tls=_open_with(
        termination={"type": "string", "enum": ["edge", "passthrough", "reencrypt"]},
        insecureEdgeTerminationPolicy=_TEXT,
    ),
)


def _crd(group: str, kind: str, plural: str, versions: dict[str, Schema], *, cluster: bool = False) -> dict[str, Any]:
    """One definition; the first version is the one that is stored."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Cluster" if cluster else "Namespaced",
            "versions": [
                {
                    "name": name,
                    "served": True,
                    "storage": position == 0,
                    "schema": {
                        "openAPIV3Schema": _fields(
                            apiVersion=_TEXT,
                            kind=_TEXT,
                            metadata={"type": "object"},
                            spec=spec,
                            status=_ISTIO_STATUS if group.endswith("istio.io") else _STATUS,
                        )
                    },
                    "subresources": {"status": {}},
                }
                for position, (name, spec) in enumerate(versions.items())
            ],
        },
    }


_SERVING = _open_with(
    ingress=_open_with(istio=_open_with(enabled=_FLAG), kourier=_open_with(enabled=_FLAG)),
    deployments=_list(_WORKLOAD_OVERRIDE),
    workloads=_list(_WORKLOAD_OVERRIDE),
    config={"type": "object", "additionalProperties": _TEXTS_BY_KEY},
)
_MESH_2 = (2, 0, 0)  # first that serves maistra.io/v2, and has PeerAuthentications
_ALPHA_GONE_FROM = (1, 29, 0)  # first that no longer serves v1alpha1 of KnativeServing
_GATEWAY_SPEC = _fields(selector=_TEXTS_BY_KEY, servers=_list(_GATEWAY_SERVER))

CLUSTER_CRDS: tuple[dict[str, Any], ...] = (
    _crd("config.openshift.io", "ClusterVersion", "clusterversions", {"v1": _open_with(clusterID=_TEXT)}, cluster=True),
    _crd("config.openshift.io", "Ingress", "ingresses", {"v1": _fields(domain=_TEXT, appsDomain=_TEXT)}, cluster=True),
    _crd("operators.coreos.com", "ClusterServiceVersion", "clusterserviceversions", {"v1alpha1": _OPEN}),
    _crd("operators.coreos.com", "Subscription", "subscriptions", {"v1alpha1": _OPEN}),
    _crd("route.openshift.io", "Route", "routes", {"v1": _ROUTE}),
    _crd("monitoring.coreos.com", "ServiceMonitor", "servicemonitors", {"v1": _OPEN}),
    _crd("maistra.io", "ServiceMeshControlPlane", "servicemeshcontrolplanes", {"v2": _CONTROL_PLANE, "v1": _OPEN}),
    _crd(
        "maistra.io",
        "ServiceMeshMemberRoll",
        "servicemeshmemberrolls",
        {"v1": _fields(members=_list(_TEXT), memberSelectors=_list(_OPEN))},
    ),
    _crd(
        "maistra.io",
        "ServiceMeshMember",
        "servicemeshmembers",
        {"v1": _fields(controlPlaneRef=_fields(name=_TEXT, namespace=_TEXT))},
    ),
    _crd("networking.istio.io", "Gateway", "gateways", {"v1alpha3": _GATEWAY_SPEC, "v1beta1": _GATEWAY_SPEC}),
    _crd("networking.istio.io", "DestinationRule", "destinationrules", {"v1alpha3": _OPEN, "v1beta1": _OPEN}),
    _crd("networking.istio.io", "VirtualService", "virtualservices", {"v1alpha3": _OPEN, "v1beta1": _OPEN}),
    _crd("security.istio.io", "AuthorizationPolicy", "authorizationpolicies", {"v1beta1": _OPEN}),
    _crd("security.istio.io", "PeerAuthentication", "peerauthentications", {"v1beta1": _OPEN}),
    _crd(
        "operator.knative.dev",
        "KnativeServing",
        "knativeservings",
        {"v1beta1": _SERVING},
    ),
)

SERVING_CRDS: tuple[dict[str, Any], ...] = (
    _crd("serving.knative.dev", "Service", "services", {"v1": _fields(template=_TEMPLATE, traffic=_list(_OPEN))}),
    _crd("serving.knative.dev", "Revision", "revisions", {"v1": _OPEN}),
    _crd(
        "serving.knative.dev",
        "DomainMapping",
        "domainmappings",
        {"v1beta1": _fields(ref=_OPEN, tls=_fields(secretName=_TEXT)), "v1alpha1": _OPEN},
    ),
    _crd("networking.internal.knative.dev", "Ingress", "ingresses", {"v1alpha1": _OPEN}),
)


# beside those above, what istiod and the sandbox's own gateway need
ISTIO_CRDS: tuple[dict[str, Any], ...] = (
    _crd("networking.istio.io", "EnvoyFilter", "envoyfilters", {"v1alpha3": _OPEN}),
    _crd("networking.istio.io", "ServiceEntry", "serviceentries", {"v1": _OPEN}),
    _crd("networking.istio.io", "Sidecar", "sidecars", {"v1": _OPEN}),
    _crd("networking.istio.io", "WorkloadEntry", "workloadentries", {"v1": _OPEN}),
    _crd("security.istio.io", "RequestAuthentication", "requestauthentications", {"v1": _OPEN}),
)
_ISTIO_GROUPS = frozenset(crd["spec"]["group"] for crd in ISTIO_CRDS)

_SERVING_GROUPS = frozenset(crd["spec"]["group"] for crd in SERVING_CRDS)


def for_istiod(cluster: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The definitions of Istio's kinds as today's istiod reads them: each is served as v1, too.

    Args:
        cluster: the cluster's definitions; those of a Service Mesh 2 know no v1.
    """
    by_name = {crd["metadata"]["name"]: crd for crd in ISTIO_CRDS}
    by_name |= {crd["metadata"]["name"]: crd for crd in cluster if crd["spec"]["group"] in _ISTIO_GROUPS}
    return [crd if crd["spec"]["names"]["kind"] == "EnvoyFilter" else _with_v1(crd) for crd in by_name.values()]


def _with_v1(crd: dict[str, Any]) -> dict[str, Any]:
    versions = crd["spec"]["versions"]
    if any(version["name"] == "v1" for version in versions):
        return crd
    stored = next(version for version in versions if version["storage"])
    return {**crd, "spec": {**crd["spec"], "versions": [*versions, {**stored, "name": "v1", "storage": False}]}}


def exported(folder: Path) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions in the YAML files of a folder, as ``oc get crd -o yaml`` exports them.

    What belongs to the cluster they came from is left out: status, and conversion webhooks, which do not run here.

    Raises:
        ValueError: there is none, or a file is not YAML.
    """
    found: list[dict[str, Any]] = []
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_LOADER))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
        for document in documents:
            items = (document.get("items") or [document]) if isinstance(document, dict) else []
            try:
                found += [_cleaned(item) for item in items if item.get("kind") == "CustomResourceDefinition"]
            except (AttributeError, KeyError, TypeError) as error:
                raise ValueError(f"{path} holds something that is no CustomResourceDefinition: {error}") from error
    if not found:
        raise ValueError(f"{folder} holds no YAML file with a CustomResourceDefinition")
    return found


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the exported schemas are large


def _cleaned(crd: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: crd["metadata"][key] for key in ("name", "labels", "annotations") if key in crd["metadata"]}
    spec = {key: value for key, value in crd["spec"].items() if key != "conversion"}
    cleaned = {"apiVersion": crd["apiVersion"], "kind": crd["kind"], "metadata": metadata, "spec": spec}
    served_at(cleaned)
    return cleaned


def served_at(crd: dict[str, Any]) -> str:
    """The path that lists the objects of a definition.

    Raises:
        KeyError: the definition lacks what makes one up.
    """
    spec = crd["spec"]
    versions = [version["name"] for version in spec["versions"] if version.get("served")]
    if not versions:
        raise KeyError("served version")
    return f"/apis/{spec['group']}/{versions[0]}/{spec['names']['plural']}"


def _as_played(
    crd: dict[str, Any], serverless: tuple[int, int, int], mesh: tuple[int, int, int]
) -> Iterator[dict[str, Any]]:
    """One of our own definitions as the operators of these versions bring it; nothing where they do not."""
    names = crd["spec"]["names"]["kind"], crd["spec"]["group"]
    if names == ("ServiceMeshControlPlane", "maistra.io") and mesh < _MESH_2:
        yield _crd("maistra.io", "ServiceMeshControlPlane", "servicemeshcontrolplanes", {"v1": _OPEN})
    elif names == ("KnativeServing", "operator.knative.dev") and serverless < _ALPHA_GONE_FROM:
        yield _crd(
            "operator.knative.dev", "KnativeServing", "knativeservings", {"v1beta1": _SERVING, "v1alpha1": _OPEN}
        )
    elif names[0] != "PeerAuthentication" or mesh >= _MESH_2:
        yield crd


def split(
    exported_crds: Iterable[dict[str, Any]] = (),
    *,
    serverless: tuple[int, int, int],
    mesh: tuple[int, int, int],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The definitions of a fresh cluster, and those that appear when the Serverless operator installs Serving.

    Args:
        exported_crds: definitions that replace our own of the same name, or come on top of them.
        serverless: the version of OpenShift Serverless that is played.
        mesh: the version of Service Mesh that is played.
    """
    own = (played for crd in (*CLUSTER_CRDS, *SERVING_CRDS) for played in _as_played(crd, serverless, mesh))
    by_name = {crd["metadata"]["name"]: crd for crd in own}
    by_name |= {crd["metadata"]["name"]: crd for crd in exported_crds}
    cluster: list[dict[str, Any]] = []
    serving: list[dict[str, Any]] = []
    for crd in by_name.values():
        (serving if crd["spec"]["group"] in _SERVING_GROUPS else cluster).append(crd)
    return cluster, serving
