"""What takes the place of a Pod's iptables, and the few messages of gRPC that are spelled out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks_sandbox.certificates import Issued, discovered, field, fields, number
from runbooks_sandbox.sidecar import REVISION_LABEL, Workload, redirection, workloads
from runbooks_sandbox.world import PODS, World


class Pods(World):
    """A world with nothing but these."""

    def __init__(self, *pods: dict[str, Any]) -> None:
        self._pods = list(pods)

    def objects(self, resource: Any, namespace: str = "") -> list[dict[str, Any]]:
        assert resource is PODS
        return self._pods


def pod(arguments: list[str] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "default", "labels": {REVISION_LABEL: "hello-00001"}}
    init = [] if arguments is None else [{"name": "istio-init", "args": arguments}]
    containers = [{"name": "user-container"}, {"name": "istio-proxy"}]
    return {"metadata": metadata, "spec": {"containers": containers, "initContainers": init, **spec}}


@pytest.mark.parametrize(
    ("arguments", "excluded"),
    [
        (["-p", "15001", "-d", "15090,15021,8444"], {15090, 15021, 8444}),
        (["-d", "15090, not a port,,8012"], {15090, 8012}),
        (["-d"], set()),
        (None, set()),
    ],
)
def test_what_injection_excluded_is_read_off_the_pod(arguments: list[str] | None, excluded: set[int]) -> None:
    (found,) = workloads(Pods(pod(arguments)))
    assert Workload("default", "hello-00001", "default", frozenset(excluded)) == found


def test_a_pod_without_a_sidecar_or_on_its_way_out_is_none_of_the_mesh() -> None:
    plain, going = pod(containers=[{"name": "user-container"}]), pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    other = pod()
    del other["metadata"]["labels"]
    assert [] == workloads(Pods(plain, going, other))


def test_the_pods_service_account_is_the_sidecars_identity() -> None:
    assert ["hello"] == [one.account for one in workloads(Pods(pod(serviceAccountName="hello")))]


def test_an_excluded_port_is_left_out_and_the_application_answers_there_itself() -> None:
    workload = Workload("default", "hello-00001", "default", frozenset({8444, 15021}))
    spec = redirection(workload, "127.1.2.3", 4711)
    assert [(8012, "127.1.2.3", "127.0.0.1:4711")] == [
        (one["port"]["number"], one["bind"], one["defaultEndpoint"]) for one in spec["ingress"]
    ]
    assert [8444] == list(workload.left_alone())


@given(st.lists(st.tuples(st.integers(1, 2**20), st.binary(max_size=400), st.integers(0, 2**62))))
def test_a_message_reads_as_it_was_written(content: list[tuple[int, bytes, int]]) -> None:
    message = b"".join(field(tag, value) + number(tag, whole) for tag, value, whole in content)
    assert [(tag, value) for tag, value, _ in content] == list(fields(message))


def test_the_root_is_told_without_any_key() -> None:
    message = discovered(["ROOTCA", "default"], Issued(b"KEY", b"CHAIN", b"ROOT"), 1)
    resources = [dict(fields(value))[2] for tag, value in fields(message) if tag == 2]
    root, own = resources
    assert (b"ROOT" in root, b"KEY" in root) == (True, False)
    assert (b"ROOT" in own, b"KEY" in own, b"CHAIN" in own) == (False, True, True)


def test_a_kind_of_field_that_none_of_the_messages_has_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="wire type 5"):
        list(fields(bytes([1 << 3 | 5, 0, 0, 0, 0])))
