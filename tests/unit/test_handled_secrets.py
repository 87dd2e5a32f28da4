"""What a run could read of keys and credentials, each by its name, and nothing where there is nothing."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from runbooks.handled_secrets import environment, handled
from runbooks.parameters import CreateIngressCertificates


def given(folder: Path, **more: object) -> CreateIngressCertificates:
    paths = {"certificates_dir": str(folder), "kubeconfig": str(folder / "config"), "context": "prod"}
    return CreateIngressCertificates.model_validate({**paths, **more})


def test_keys_and_credentials_are_known_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "root.key").write_bytes(b"root")
    (tmp_path / "own.key").write_bytes(b"own")
    (tmp_path / "token").write_bytes(b"from a file")
    encoded = base64.b64encode(b"client key").decode()
    (tmp_path / "config").write_text(
        "users:\n"
        "- {name: a, user: {token: one, password: two}}\n"
        f"- {{name: b, user: {{client-key-data: {encoded}, tokenFile: token}}}}\n"
    )
    found = {value.name: value.content for value in handled(given(tmp_path, key_file=str(tmp_path / "own.key")))}
    assert {
        str(tmp_path / "root.key"): b"root",
        str(tmp_path / "own.key"): b"own",
        "token of user a in config": b"one",
        "password of user a in config": b"two",
        "tokenFile of user b in config": b"from a file",
        "client-key-data of user b in config": b"client key",
    } == found


@pytest.mark.parametrize(
    "text", ["", "users: 1", "users: [1, {name: a}, {name: a, user: 1}]", "{", "users: [{user: {}}]"]
)
def test_a_kubeconfig_that_nobody_can_use_holds_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    assert [] == handled(given(tmp_path))


def test_the_usual_kubeconfigs_count_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "second").write_text("users: [{name: a, user: {token: one}}]")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{tmp_path / 'second'}")
    assert [b"one"] == [value.content for value in handled(given(tmp_path, kubeconfig=""))]


def test_what_is_no_base64_is_looked_for_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("users: [{name: a, user: {client-key-data: abcde}}]")
    assert [b"abcde"] == [value.content for value in handled(given(tmp_path))]


def test_a_key_that_is_there_twice_hides_no_credential(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("kind: Config\nkind: Config\nusers: [{name: a, user: {token: one}}]\n")
    assert [b"one"] == [value.content for value in handled(given(tmp_path))]


@pytest.mark.parametrize("name", ["DEPLOY_TOKEN", "token", "db_password", "AWS_SECRET_ACCESS_KEY", "X_APIKEY"])
def test_a_variable_whose_name_tells_is_secret(name: str) -> None:
    assert [(f"environment variable {name}", b"correct-horse")] == [
        (value.name, value.content) for value in environment({name: "correct-horse"})
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("RUNBOOKS_KEY", "correct-horse"),  # the path of a file
        ("TOKEN_FILE", "correct-horse"),
        ("SECRET_BACKEND", "correct-horse"),
        ("DEPLOY_TOKEN", "short"),  # it may be any word
        ("SIGNING_SECRET", __file__),
    ],
)
def test_other_variables_are_not(name: str, content: str) -> None:
    assert [] == environment({name: content})


def test_a_token_that_is_too_long_to_be_a_path_is_one() -> None:
    assert [b"x1-y" * 1000] == [value.content for value in environment({"DEPLOY_TOKEN": "x1-y" * 1000})]


def test_what_a_login_program_is_given_counts(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "users:\n"
        "- {name: a, user: {auth-provider: {config: {refresh-token: one, idp-issuer-url: x}}}}\n"
        "- {name: b, user: {exec: {env: [{name: LOGIN_PASSWORD, value: correct-horse}, {name: HOME, value: /root}]}}}\n"
        "- {name: c, user: {exec: {env: 1}, auth-provider: 2}}\n"
    )
    assert {
        "refresh-token of user a in config": b"one",
        "environment variable LOGIN_PASSWORD of user b in config": b"correct-horse",
    } == {value.name: value.content for value in handled(given(tmp_path))}
