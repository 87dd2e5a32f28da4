"""The kinds of object, as the API server addresses them."""

from __future__ import annotations

import pytest

from runbooks import kinds
from runbooks.kinds import KINDS, Kind, ObjectRef, kind_of


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "path"),
    [
        (kinds.SECRET, "istio-system", "wildcard-certs", "/api/v1/namespaces/istio-system/secrets/wildcard-certs"),
        (kinds.SECRET, "istio-system", None, "/api/v1/namespaces/istio-system/secrets"),
        (kinds.SECRET, None, None, "/api/v1/secrets"),
        (kinds.NAMESPACE, None, "knative-serving", "/api/v1/namespaces/knative-serving"),
        (kinds.INGRESS_CONFIG, None, "cluster", "/apis/config.openshift.io/v1/ingresses/cluster"),
        (
            kinds.MEMBER_ROLL,
            "istio-system",
            "default",
            "/apis/maistra.io/v1/namespaces/istio-system/servicemeshmemberrolls/default",
        ),
        (kinds.CONTROL_PLANE, "mesh", None, "/apis/maistra.io/v2/namespaces/mesh/servicemeshcontrolplanes"),
        (kinds.GATEWAY, "", "", "/apis/networking.istio.io/v1alpha3/gateways"),
        (
            kinds.KNATIVE_SERVICE,
            "default",
            "hello",
            "/apis/serving.knative.dev/v1/namespaces/default/services/hello",
        ),
        # a name is never more than one piece of the path
        (kinds.SECRET, "a/../b", "c?d", "/api/v1/namespaces/a%2F..%2Fb/secrets/c%3Fd"),
    ],
)
def test_the_path_of_an_object_and_of_its_lists(kind: Kind, namespace: str, name: str, path: str) -> None:
    assert path == kind.path(namespace, name)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}.{kind.group}")
def test_a_manifest_is_of_the_kind_that_it_names(kind: Kind) -> None:
    assert kind_of({"apiVersion": kind.api_version, "kind": kind.name}) is kind


def test_no_two_resources_look_the_same_to_a_person() -> None:
    resources = {(str(kind), kind.group, kind.plural) for kind in KINDS}
    assert len({str(kind) for kind in KINDS}) == len(resources)


@pytest.mark.parametrize(
    "manifest",
    [{"apiVersion": "v2", "kind": "Secret"}, {"apiVersion": "serving.knative.dev/v1beta1", "kind": "Service"}, {}],
)
def test_a_kind_that_the_procedure_does_not_know_is_an_error(manifest: dict[str, object]) -> None:
    with pytest.raises(KeyError):
        kind_of(manifest)


def test_a_reference_reads_as_a_person_would_say_it() -> None:
    shown = [
        str(ObjectRef(kinds.KNATIVE_SERVICE, "default", "hello")),
        str(ObjectRef(kinds.SERVICE, "istio-system", "knative-local-gateway")),
        str(ObjectRef(kinds.NAMESPACE, "", "knative-serving")),
    ]
    assert [
        "Knative Service default/hello",
        "Service istio-system/knative-local-gateway",
        "Namespace knative-serving",
    ] == shown
