"""The real istiod in the sandbox: who it is, what it is trusted with, and how the sandbox comes to it."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator

import pytest
from rich.console import Console

from runbooks import probes
from runbooks.probes import ProbeFailed
from runbooks_sandbox import binaries, lifecycle
from runbooks_sandbox.istio import GATEWAY_ACCOUNT, ISTIOD_ACCOUNT, SERVICE_ACCOUNTS, configured_gateways
from runbooks_sandbox.lifecycle import Played
from runbooks_sandbox.tokens import LIFE, Token
from runbooks_sandbox.world import MEMBER_ROLLS
from tests.cluster.test_gateways import HOST, MESH, SERVING, needs_istiod
from tests.conftest import MakesSandboxes, Sandbox

pytestmark = needs_istiod


@pytest.fixture(scope="module")
def mesh(new_sandbox: MakesSandboxes) -> Iterator[Sandbox]:
    found = new_sandbox(gateway="istio")
    for number in ("6.4.2", "6.4.3"):
        assert 0 == found.play(number)["exit_code"]
    yield found
    lifecycle.stop(found.state)


def answers(sandbox: Sandbox) -> int | str:
    address = f"{sandbox.state.settings().gateway_address}:8443"
    try:
        return probes.https_get(HOST, address, (sandbox.state.certificates / "root.crt").read_bytes()).status
    except ProbeFailed as error:
        return str(error)


def test_it_says_which_istio_it_is_and_that_it_is_not_the_meshs_own(mesh: Sandbox) -> None:
    found = lifecycle.status(mesh.state)
    assert ("istio", binaries.ISTIO_VERSION) == (found["gateway"], found["real"]["istiod"])
    assert "istiod is upstream Istio's, not the one of the mesh's own release" in found["stands_in"]
    outcome = mesh.play("6.4.3", "verify")
    assert f"istiod {binaries.ISTIO_VERSION}" in json.dumps(outcome), "the record of a run names it"


def test_what_holds_a_token_is_its_owners_alone(mesh: Sandbox) -> None:
    names = {"istiod.token", "istiod.kubeconfig", "token.json", "bootstrap.json"}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in mesh.state.envoy.iterdir()}
    assert names <= modes.keys()
    assert {0o600} == set(modes.values())
    assert "eyJ" not in (mesh.state.envoy / "bootstrap.json").read_text(), "the token is not in it"


def test_envoy_asks_with_the_token_that_is_in_the_file_by_then(mesh: Sandbox) -> None:
    file = mesh.state.envoy / "token.json"
    good = file.read_text()
    before = mesh.state.processes()["istiod"]
    try:
        changed = good.replace('"inline_string": "', '"inline_string": "x')
        assert changed != good
        temporary = file.with_name("wrong")
        temporary.write_text(changed)
        temporary.replace(file)
        before.alive().kill()  # type: ignore[union-attr]
        refused = "failed to authenticate client"
        mesh.eventually(lambda: refused in (mesh.state.logs / "istiod.log").read_text().lower(), 40)
    finally:
        temporary = file.with_name("right")
        temporary.write_text(good)
        temporary.chmod(0o600)
        temporary.replace(file)
    assert_followed(mesh)


def assert_followed(mesh: Sandbox) -> None:
    """Envoy serves what istiod makes of a change, so both are believed."""
    members = mesh.get(MEMBER_ROLLS, MESH, "default")["spec"]["members"]
    for wanted, status in (([SERVING], 404), (members, 200)):
        mesh.patch(MEMBER_ROLLS, MESH, "default", {"spec": {"members": wanted}})
        mesh.eventually(lambda status=status: answers(mesh) == status, 60)


def test_accounts_that_were_deleted_and_made_anew_are_believed_again(mesh: Sandbox) -> None:
    files = [mesh.state.envoy / name for name in ("istiod.token", "token.json")]
    before = [file.read_text() for file in files]
    for account in (ISTIOD_ACCOUNT, GATEWAY_ACCOUNT):
        mesh.api.delete(SERVICE_ACCOUNTS, MESH, account)  # as with their namespace; the operator makes them anew
    mesh.eventually(lambda: all(file.read_text() != old for file, old in zip(files, before, strict=True)))
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}

    def is_believed(token: str) -> bool:
        spec = {"spec": {"token": token}}
        answer = mesh.api.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {**review, **spec})
        return bool(answer["status"].get("authenticated"))

    mesh.eventually(lambda: not is_believed(before[0]), 40)  # the API server forgets it after ten seconds
    assert is_believed(files[0].read_text())
    assert_followed(mesh)


def test_a_token_is_asked_for_anew_before_it_ends_and_not_earlier(mesh: Sandbox) -> None:
    got: list[str] = []
    token = Token(mesh.api, (MESH, "istiod"), "istio-ca", got.append)
    for _ in range(2):
        token.keep_fresh("a uid")
        token.keep_fresh("")  # while it is not there
    assert 1 == len(got)
    token._renew_at -= LIFE
    token.keep_fresh("a uid")
    assert 2 == len(set(got))
    token.keep_fresh("another uid")
    assert 3 == len(set(got))
    accounts = {live["metadata"]["name"] for live in mesh.api.request("GET", SERVICE_ACCOUNTS.path(MESH))["items"]}
    assert {"istiod", "istio-ingressgateway-service-account"} <= accounts


def test_who_configures_the_gateway_may_change_from_one_start_to_the_next(mesh: Sandbox) -> None:
    for gateway, real in (("files", False), ("istio", True)):
        lifecycle.stop(mesh.state)
        lifecycle.start(mesh.state, Played(gateway=gateway), Console(file=io.StringIO()))
        assert real is ("istiod" in mesh.state.processes())
        mesh.eventually(lambda: answers(mesh) == 200)
        mesh.eventually(lambda: mesh.play("6.4.3", "verify")["outcome"] == "as desired")


def test_the_gateways_that_config_istio_names_take_the_place_of_the_default_ones() -> None:
    assert (["knative-serving/knative-ingress-gateway"], ["knative-serving/knative-local-gateway"]) == (
        configured_gateways({"_example": ""})
    )
    named = {"gateway.mesh-a.public": "svc", "local-gateway.mesh-a.inside": "svc"}
    assert (["mesh-a/public"], ["mesh-a/inside"]) == configured_gateways(named)
