"""The commands over the archive: exit codes, output for programs, and errors in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runbooks.cli import cli
from runbooks.errors import RunbookError
from runbooks.keeper import MIME
from runbooks.record import index, keys
from runbooks.record.archive import Archive

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("RUNBOOKS_KEY", str(tmp_path / "config" / "signing.key"))
    monkeypatch.setenv("RUNBOOKS_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(index.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str]:
        result = CliRunner().invoke(cli, [str(word) for word in words])
        if isinstance(result.exception, RunbookError):
            return result.exception.exit_code, str(result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


@pytest.fixture
def archive(call: Call, tmp_path: Path) -> Archive:
    call("keys", "init")
    return Archive.open(tmp_path / "records", signer=keys.load())


def says(answer: tuple[int, str], code: int, words: str) -> None:
    assert (code, True) == (answer[0], words in answer[1]), answer[1]


def play(archive: Archive, **facts: Any) -> str:
    run = archive.begin({"section": "6.4.4", "mode": "apply"})
    notebook = run.workspace / "6.4.4.ipynb"
    notebook.write_text('{"cells": []}')
    run.finish(notebook, {"outcome": "done and proven", **facts})
    return run.id


def vanish(archive: Archive, content: str = '{"cells": []}') -> str:
    run = archive.begin({"section": "6.4.3", "mode": "apply"})
    run.intend({"plan": {"digest": f"plan-sha256:{'0' * 64}"}})
    (run.workspace / "6.4.3.ipynb").write_text(content)
    run.leave()
    return run.id


def read(call: Call, *words: object) -> Any:
    return json.loads(call("records", *words, "--json")[1])


def test_a_key_is_made_once_and_shown(call: Call, tmp_path: Path) -> None:
    code, text = call("keys", "show")
    assert (1, True) == (code, "runbooks keys init" in text)
    code, text = call("keys", "init", "--json")
    made = json.loads(text)
    assert (0, str(tmp_path / "config" / "signing.key")) == (code, made["key"])
    assert keys.public(Path(made["public"]).read_bytes(), "made").id == made["id"]
    assert made["id"] == json.loads(call("keys", "show", "--json")[1])["id"]
    assert "BEGIN PUBLIC KEY" in call("keys", "show")[1]
    says(call("keys", "init"), 1, "there is one already")


def test_records_are_listed_searched_and_shown(call: Call, archive: Archive) -> None:
    first, second = play(archive, reason="証明書の更新"), play(archive, reason="metrics")
    assert [second, first] == [one["id"] for one in read(call, "list")]
    assert [first] == [one["id"] for one in read(call, "search", "更新")]
    assert first in call("records", "list")[1]
    assert "no records" in call("records", "search", "absent")[1]
    shown = read(call, "show", first)
    assert ("finished", "証明書の更新") == (shown["state"], shown["facts"]["outcome"]["reason"])
    assert "done and proven" in call("records", "show", first[-6:])[1]


def test_verify_has_the_documented_exit_codes(call: Call, archive: Archive, tmp_path: Path) -> None:
    name = play(archive)
    code, text = call("records", "verify", "--all")
    assert (0, True, True) == (code, "rollback not checked" in text, archive.head in text)
    assert "verified" == read(call, "verify", name[-6:])["verdict"]
    (tmp_path / "nobody").mkdir()
    assert 3 == call("records", "verify", "--trust", tmp_path / "nobody")[0]
    play(archive)
    vanish(archive)
    assert (4, "incomplete") == (call("records", "verify")[0], read(call, "verify")["verdict"])
    assert 0 == call("records", "verify", name)[0]
    notebook = tmp_path / "records" / "records" / name / "6.4.4.ipynb"
    notebook.chmod(0o644)
    notebook.write_text("{}")
    code, text = call("records", "verify")
    assert (1, True) == (code, "6.4.4.ipynb is not what was signed" in text)


def test_a_kept_head_is_compared(call: Call, archive: Archive, tmp_path: Path) -> None:
    play(archive)
    kept = tmp_path / "kept.txt"
    kept.write_text(call("records", "head")[1])
    play(archive)
    code, text = call("records", "verify", "--anchor", kept)
    assert (0, True) == (code, "good up to entry 2; 2 entries are newer" in text)
    kept.write_text("nothing")
    assert (3, True) == (
        call("records", "verify", "--anchor", kept)[0],
        "no head" in call("records", "verify", "--anchor", kept)[1],
    )
    assert 3 == call("records", "verify", "--anchor", tmp_path / "absent")[0]


def test_a_vanished_run_is_pending_until_it_is_recovered(call: Call, archive: Archive) -> None:
    assert (0, "nothing to recover\n") == call("records", "pending")
    name = vanish(archive)
    code, text = call("records", "pending")
    assert (4, True) == (code, f"{name}  unfinished, had announced changes" in text)
    [recovered] = read(call, "recover")
    assert (name, ["6.4.3.ipynb"], []) == (recovered["id"], recovered["kept"], recovered["withheld"])
    assert (0, "nothing to recover\n") == call("records", "pending")
    assert 0 == call("records", "verify")[0]
    says(call("records", "recover", name), 64, "it is recovered")


def test_a_run_that_goes_on_is_not_recovered(call: Call, archive: Archive) -> None:
    run = archive.begin({"section": "6.4.3"})
    assert [("running", False)] == [(one["state"], one["intent"]) for one in read(call, "pending")]
    assert "nothing to recover" in call("records", "recover")[1]
    assert (1, True) == (
        call("records", "recover", run.id)[0],
        "still going on" in call("records", "recover", run.id)[1],
    )
    run.finish(None, {"outcome": "failed"})


def test_what_a_vanished_run_left_is_kept_out_where_it_holds_a_secret(
    call: Call, archive: Archive, tmp_path: Path
) -> None:
    name = vanish(archive, '{"cells": [{"id": "plan", "source": "Authorization: Bearer abcdefghijklmnopqrstuv"}]}')
    [recovered] = read(call, "recover")
    assert ["6.4.3.ipynb"] == recovered["withheld"]
    assert (tmp_path / "records" / "quarantine" / name / "6.4.3.ipynb").exists()
    facts = read(call, "show", name)["facts"]
    assert [("plan", "a bearer token")] == [(hit["cell"], hit["secret"]) for hit in facts["hygiene"]["hits"]]


def test_what_could_not_be_searched_for_every_secret_that_a_vanished_run_had_read_is_kept_out(
    call: Call, archive: Archive
) -> None:
    name = vanish(archive)
    (archive.workspace(name) / ".heard").write_text("Secret istio-system/wildcard-certs tls.key\n")
    [recovered] = read(call, "recover")
    assert ["6.4.3.ipynb"] == recovered["withheld"]
    assert "the cluster could not be looked at: reading the parameters" in recovered["reason"]
    [hit] = read(call, "show", name)["facts"]["hygiene"]["hits"]
    assert ("Secret istio-system/wildcard-certs tls.key", True) == (hit["secret"], "not searched for" in hit["form"])


def notebook(**changes: Any) -> str:
    outcome = {"view": "outcome", "section": "6.4.4", "outcome": "done and proven", "reason": "2 written"}
    cell = {
        "cell_type": "code", "id": "outcome", "execution_count": 1, "source": "runbook.outcome()",
        "outputs": [{"output_type": "execute_result", "data": {MIME: outcome}}],
    }  # fmt: skip
    never = {"cell_type": "code", "id": "verdict", "execution_count": None, "source": "x", "outputs": []}
    metadata = {"papermill": {"version": "2.7.0", "end_time": None}}
    return json.dumps({"cells": [cell, never], "metadata": metadata, **changes})


def test_a_notebook_is_adopted_as_what_it_is(call: Call, archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    path.write_text(notebook())
    [added] = read(call, "add", path)
    doubts = " ".join(added["cannot_be_vouched_for"])
    assert "1 of its 2 code cells" in doubts
    assert "papermill did not come to it" in doubts
    assert ("done and proven", "adopted") == (
        (shown := read(call, "show", added["id"]))["facts"]["outcome"]["outcome"], shown["state"]
    )  # fmt: skip
    assert 4 == call("records", "verify", added["id"])[0]
    says(call("records", "add", path), 64, added["id"])


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "no notebook"), ("[1]", "no notebook"), ('{"cells": [1]}', "no notebook"), ("\x00\xff", "no notebook"),
     (notebook(metadata={"note": "sha256~abcdefghijklmnopqrstuvwxyz"}), "an OpenShift token in cell (notebook")],
)  # fmt: skip
def test_what_cannot_be_adopted_is_refused_whole(
    call: Call, archive: Archive, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "good.ipynb").write_text(notebook())
    (tmp_path / "bad.ipynb").write_text(content)
    code, text = call("records", "add", tmp_path / "good.ipynb", tmp_path / "bad.ipynb")
    assert (1, True) == (code, said in text), text
    assert () == archive.read().entries


def test_an_export_never_replaces_a_file(call: Call, archive: Archive, tmp_path: Path) -> None:
    name = play(archive)
    code, text = call("records", "export", name)
    assert (0, True) == (code, (tmp_path / f"{name}.zip").exists()), text
    says(call("records", "export", name), 1, "there already")


@pytest.mark.parametrize("command", ["list", "verify", "pending", "head", "search x", "show x", "export x"])
def test_a_folder_without_records_is_said(call: Call, command: str) -> None:
    code, text = call("records", *command.split())
    assert (64, True) == (code, "no ARCHIVE.json" in text)


@pytest.mark.parametrize("command", ["show", "verify", "export", "recover"])
def test_an_unknown_id_is_said(call: Call, archive: Archive, command: str) -> None:
    play(archive)
    code, text = call("records", command, "nothing")
    assert (64, True) == (code, "there is none" in text)


def test_a_part_of_an_envelope_is_said(call: Call, archive: Archive, tmp_path: Path) -> None:
    name = play(archive)
    path = tmp_path / "records" / "records" / name / "result.dsse.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:100])
    says(call("records", "show", name), 3, "cut short")
    assert (1, True) == (
        call("records", "verify")[0],
        "result.dsse.json is not what the log names" in call("records", "verify")[1],
    )
    assert name in call("records", "list")[1]


@pytest.mark.parametrize("words", [("records",), ("records", "verify"), ("keys", "init")], ids=" ".join)
def test_examples_keep_their_lines(call: Call, words: tuple[str, ...]) -> None:
    lines = call(*words, "--help")[1].splitlines()
    assert "  Examples:" in lines
    assert any(line.startswith(f"    runbooks {words[0]} ") for line in lines)


def test_every_command_has_examples_and_json() -> None:
    groups = {name: cli.commands[name] for name in ("records", "keys")}
    for group, found in groups.items():
        for name, command in found.commands.items():  # type: ignore[attr-defined]
            assert f"runbooks {group} {name}" in (command.help or ""), name
            assert "as_json" in {parameter.name for parameter in command.params}, name
            if group == "records":
                assert "folder" in {parameter.name for parameter in command.params}, name
