"""Each mistake is refused before anything is changed, with a message that one can act on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbooks.errors import ConnectionFailed, ParameterError, WrongCluster
from runbooks_sandbox import lifecycle
from runbooks_sandbox.world import CONTROL_PLANES, CRDS, KNATIVE_SERVINGS, SECRETS
from tests.conftest import Sandbox


@pytest.fixture(scope="module")
def fresh(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A cluster that nothing is ever changed in."""
    found = new_sandbox()
    yield found
    assert [] == found.writes(), "something was changed although everything was refused"
    assert not found.state.certificates.exists()
    lifecycle.stop(found.state)


WRONG_PARAMETERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unknown": ({"colour": "blue"}, ("colour", "no such parameter")),
    "misspelt": ({"memebers": ["default"]}, ("memebers", "members?")),
    "wrong type": ({"timeout_s": "soon"}, ("timeout_s", "a whole number", "600")),
    "a boolean in place of a number": ({"timeout_s": True}, ("timeout_s", "a whole number")),
    "text in place of a list": ({"members": "default"}, ("members", "a list of names")),
    "a number among names": ({"members": [1]}, ("members", "item 0")),
    "placeholder": ({"members": ["<namespace>"]}, ("members", "<namespace>", "placeholder")),
    "placeholder of the page": ({"certificate_secret": "<wildcard_certs>"}, ("certificate_secret", "placeholder")),
    "invalid name": ({"service_name": "Hello_World"}, ("service_name", "'Hello_World'")),
    "name with an underscore": ({"members": ["my_shop"]}, ("members",)),
    "no members": ({"members": []}, ("members",)),
    "duplicate members": ({"members": ["default", "default"]}, ("members", "more than once")),
    "a member that is missing": ({"service_namespace": "shop"}, ("service_namespace", "not one of the members")),
    "1.30 become a float": ({"serverless_version": 1.3}, ("serverless_version", "quotes")),
    "no become false": ({"service_name": False}, ("service_name", "true or false", "text")),
    "unknown mode": ({"mode": "aply"}, ("mode", "verify, plan, apply")),
    "relative path": ({"certificates_dir": "certs"}, ("certificates_dir", "relative", str(Path("certs").absolute()))),
    "unset variable": ({"certificates_dir": "${NO_SUCH}/x"}, ("certificates_dir", "NO_SUCH")),
    "no context": ({"context": ""}, ("context", "missing")),
    "an invisible character": ({"service_name": "hel\u200blo"}, ("service_name", "U+200B")),
}


@pytest.mark.parametrize("case", WRONG_PARAMETERS)
def test_a_parameter_is_refused_by_name(fresh: Sandbox, case: str) -> None:
    changes, words = WRONG_PARAMETERS[case]
    mode = {"mode": "apply", **changes}.pop("mode")
    others = {name: value for name, value in changes.items() if name != "mode"}
    with pytest.raises(ParameterError) as error:
        fresh.play("6.4.3", str(mode), **others)
    assert [] == [word for word in words if word not in str(error.value)], str(error.value)
    assert "nothing was changed" in str(error.value)


def broken_kubeconfig(sandbox: Sandbox, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> str:
    content = yaml.safe_load(sandbox.state.kubeconfig.read_text())
    change(content)
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def _unreachable(content: dict[str, Any]) -> None:
    content["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"


def _another_authority(content: dict[str, Any]) -> None:
    content["clusters"][0]["cluster"].pop("certificate-authority-data")


def _no_token(content: dict[str, Any]) -> None:
    content["users"][0]["user"]["token"] = "not-a-token"


def _no_program(content: dict[str, Any]) -> None:
    exec_ = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-program", "args": []}
    content["users"][0]["user"] = {"exec": {**exec_, "interactiveMode": "Never"}}


WRONG_KUBECONFIGS = {
    "the server is away": (_unreachable, ("127.0.0.1:1", "up")),
    "another authority": (_another_authority, ("certificate-authority", "does not belong")),
    "a token that the server does not know": (_no_token, ("401", "oc login")),
    "an exec plugin that is missing": (_no_program, ("no-such-program",)),
}


@pytest.mark.parametrize("case", WRONG_KUBECONFIGS)
def test_a_kubeconfig_that_does_not_lead_to_the_cluster(fresh: Sandbox, tmp_path: Path, case: str) -> None:
    change, words = WRONG_KUBECONFIGS[case]
    with pytest.raises(ConnectionFailed) as error:
        fresh.play("6.4.3", kubeconfig=broken_kubeconfig(fresh, tmp_path, change))
    assert [] == [word for word in words if word not in str(error.value)], str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("no such file",)),
        ("", ("context",)),
        ("just text", ("kubeconfig",)),
        ("a: [1", ("kubeconfig",)),
        ("apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n", ("sandbox",)),
    ],
)
def test_a_kubeconfig_that_is_missing_or_broken(
    fresh: Sandbox, tmp_path: Path, content: str | None, words: tuple[str, ...]
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConnectionFailed) as error:
        fresh.play("6.4.3", kubeconfig=str(path))
    assert [] == [word for word in words if word not in str(error.value)], str(error.value)


def test_an_expired_token(fresh: Sandbox, tmp_path: Path) -> None:
    expired = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)

    def change(content: dict[str, Any]) -> None:
        # the shortest token that the server makes lives ten minutes; one that was signed by others is refused alike
        content["users"][0]["user"]["token"] = f"eyJhbGciOiJSUzI1NiJ9.{int(expired.timestamp())}.c2ln"

    with pytest.raises(ConnectionFailed, match="401"):
        fresh.play("6.4.3", kubeconfig=broken_kubeconfig(fresh, tmp_path, change))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"api_server": "https://api.prod-a.example.com:6443"}, ("api_server", "api.prod-a.example.com")),
        ({"cluster_id": "5b9c3c6e-7f0f-4f0e-8d5e-0f5c1f1f2a3b"}, ("cluster_id", "5b9c3c6e")),
    ],
)
def test_the_wrong_cluster(fresh: Sandbox, changes: dict[str, str], words: tuple[str, ...]) -> None:
    with pytest.raises(WrongCluster) as error:
        fresh.play("6.4.3", **changes)
    assert [] == [word for word in words if word not in str(error.value)]


@pytest.mark.parametrize("mode", ["plan", "apply"])
@pytest.mark.parametrize(
    ("number", "changes", "words"),
    [
        ("6.4.2", {"ingress_domain": "apps.example.org"}, ("apps.example.org", "apps.openshift.example.com")),
        ("6.4.2", {"mesh_namespace": "no-such-mesh"}, ("no-such-mesh", "does not exist")),
        ("6.4.2", {"certificate_source": "secret"}, ("there is no such Secret",)),
        ("6.4.3", {"members": ["shop"], "service_namespace": "shop"}, ("shop does not exist", "usable certificate")),
        ("6.4.3", {}, ("usable certificate", "there is no such Secret")),
        ("6.4.3", {"ingress": "kourier"}, ("ingress: kourier",)),
    ],
)
def test_a_precondition_that_is_not_met_blocks_every_change(
    fresh: Sandbox, number: str, changes: dict[str, Any], words: tuple[str, ...], mode: str
) -> None:
    outcome = fresh.play(number, mode, **changes)
    assert ("blocked", 1) == (outcome["outcome"], outcome["exit_code"])
    assert [] == [word for word in words if word not in outcome["reason"]], outcome["reason"]
    unmet = [finding for finding in outcome["preconditions"] if finding["verdict"] == "not met"]
    assert [] == [finding["title"] for finding in unmet if not finding["remedy"]]


@pytest.mark.parametrize("name", ["key_file", "chain_file"])
def test_a_file_that_is_missing(fresh: Sandbox, tmp_path: Path, name: str) -> None:
    present = tmp_path / "present.pem"
    present.write_text("")
    files = {"key_file": str(present), "chain_file": str(present), name: str(tmp_path / "absent.pem")}
    outcome = fresh.play("6.4.2", certificate_source="files", **files)
    assert ("blocked", 1) == (outcome["outcome"], outcome["exit_code"])
    assert f"reading {name} {tmp_path}/absent.pem: there is no such file" in outcome["reason"]
    assert [] == outcome["applied"]


@pytest.mark.parametrize("missing", ["gateways.networking.istio.io", "servicemeshmemberrolls.maistra.io"])
def test_a_crd_that_is_missing_is_named(sandbox: Sandbox, missing: str) -> None:
    assert 0 == sandbox.play("6.4.2")["exit_code"]
    sandbox.api.delete(CRDS, "", missing)
    since = sandbox.audit_position()
    outcome = sandbox.play("6.4.3")
    assert 1 == outcome["exit_code"], outcome["reason"]
    assert missing.partition(".")[2] in outcome["reason"]
    assert [] == sandbox.writes(since)


def test_a_mesh_that_is_too_old(new_sandbox: Callable[..., Sandbox]) -> None:
    old = new_sandbox(mesh="2.0.4")
    assert 0 == old.play("6.4.2")["exit_code"]
    outcome = old.play("6.4.3")
    assert "blocked" == outcome["outcome"]
    assert "servicemeshoperator 2.0.4 is older than 2.0.5" in outcome["reason"]
    lifecycle.stop(old.state)


def test_mutual_tls_that_is_required_and_off(integrated: Sandbox) -> None:
    def switch(on: bool) -> None:
        spec = {"spec": {"security": {"dataPlane": {"mtls": on}}}}
        integrated.patch(CONTROL_PLANES, "istio-system", "basic", spec)

    switch(False)
    outcome = integrated.play("6.4.3", mtls="required")
    switch(True)
    assert "mTLS" in outcome["reason"]
    assert "blocked" == outcome["outcome"]


def test_where_kourier_serves_the_reader_is_sent_to_6_4_5(sandbox: Sandbox) -> None:
    address = {"name": "knative-serving", "namespace": "knative-serving"}
    kind = {"apiVersion": KNATIVE_SERVINGS.api_version, "kind": KNATIVE_SERVINGS.kind}
    spec = {"ingress": {"kourier": {"enabled": True}}}
    sandbox.api.apply({**kind, "metadata": address, "spec": spec}, KNATIVE_SERVINGS, "admin")
    assert 0 == sandbox.play("6.4.2")["exit_code"]
    outcome = sandbox.play("6.4.3")
    assert "blocked" == outcome["outcome"]
    assert ["6.4.5"] == [finding["see"] for finding in outcome["preconditions"] if finding["verdict"] == "not met"]


def test_a_secret_that_is_no_tls_secret_is_left_alone(sandbox: Sandbox) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wildcard-certs", "namespace": "istio-system"}}
    sandbox.api.apply({**secret, "stringData": {"password": "x"}}, SECRETS, "somebody")
    outcome = sandbox.play("6.4.2")
    assert "blocked" == outcome["outcome"]
    assert "Opaque" in outcome["reason"]
    assert {"password"} == sandbox.get(SECRETS, "istio-system", "wildcard-certs")["data"].keys()
