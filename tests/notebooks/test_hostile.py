"""Hostile input end to end: real ``runbooks`` and ``papermill`` processes before a real API server.

Whatever comes of it, nobody reads a traceback, nothing moves the cursor, and what is refused has changed nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
import yaml

from runbooks.errors import visible
from runbooks_sandbox import lifecycle
from runbooks_sandbox.world import SECRETS
from tests.conftest import Sandbox
from tests.notebooks.test_command_line import ENVIRONMENT, command, papermill

STEM = "6.4.2-create-ingress-certificates"
REASON = 'it\'s "no" {0} %s <b>[red]\n\x1b[2J\u202e 1.30 \\n 証明書'


@pytest.fixture(scope="module")
def untouched(new_sandbox: Callable[..., Sandbox]) -> Iterator[Sandbox]:
    """A cluster in which everything is refused until the last test, which applies."""
    found = new_sandbox()
    yield found
    lifecycle.stop(found.state)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What is on the screen: words, without a traceback or anything that hides or moves."""
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    return said


def _write(folder: Path, more: bytes) -> None:
    shared = (ENVIRONMENT / "cluster.yaml").read_bytes()
    (folder / "cluster.yaml").write_bytes(shared + b"\n" + more)


FILES: dict[str, tuple[bytes, int, str]] = {
    "octal": (b"approval_minutes: 0600\n", 64, "'0600' is a number to YAML"),
    "twice": (b"mode: plan\nmode: apply\n", 64, "the key 'mode' is there twice"),
    "nested": (b"members: " + b"[" * 5000, 64, "brackets are nested too deep"),
    "not UTF-8": ("reason: 証明書\n".encode("euc-jp"), 64, "codec can't decode"),
    "half a character": (b'reason: "\\ud800"\n', 64, "holds half of a character"),
    "a name that clears the screen": (b'"\\e[2J": x\n', 64, r"\x1b[2J"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_refused_runs_nothing(untouched: Sandbox, tmp_path: Path, case: str) -> None:
    content, code, words = FILES[case]
    _write(tmp_path, content)
    since, records = untouched.audit_position(), tmp_path / "records"
    arguments = ("6.4.2", "--mode", "apply", "--parameters", tmp_path, "--records", records)
    refused = command(untouched, "runbooks", "run", *arguments, timeout=30)
    said = told(refused)
    assert (code, since) == (refused.returncode, untouched.audit_position()), said
    assert words in said
    assert str(tmp_path) in said
    assert said == visible(said)
    assert not records.exists()


def test_what_papermill_passes_on_is_refused_by_the_notebook(untouched: Sandbox, tmp_path: Path) -> None:
    typed = ("-p", "certificate_secret", "True", "-p", "timeout_s", "nan", "-r", "context", "sand\u200bbox")
    since, target = untouched.audit_position(), tmp_path / "out.ipynb"
    huge = ("-r", "organization", "x" * 100_000)
    refused = papermill(untouched, STEM, target, "-p", "mode", "apply", *typed, *huge)
    assert (1, since) == (refused.returncode, untouched.audit_position())
    said = "".join(_errors(target))
    for words in ("certificate_secret: True is", "timeout_s: nan is", "character U+200B", "organization: 'xxx"):
        assert words in said
    assert len(said) < 3000
    assert "Traceback" not in said


def _errors(path: Path) -> list[str]:
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    return [line for output in outputs if output.output_type == "error" for line in output.traceback]


def test_a_login_program_that_says_a_token_is_not_quoted(untouched: Sandbox, tmp_path: Path) -> None:
    config = yaml.safe_load(untouched.state.kubeconfig.read_text())
    program = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/echo", "args": ["sha256~secret"]}
    config["users"][0]["user"] = {"exec": program}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    since = untouched.audit_position()
    failed = command(
        *(untouched, "runbooks", "run", "6.4.2", "--mode", "apply", "--parameters", ENVIRONMENT),
        *("--records", tmp_path / "records", "-p", "kubeconfig", path),
    )
    said = told(failed)
    assert (1, since) == (failed.returncode, untouched.audit_position())
    assert "its login program /bin/echo printed no ExecCredential" in said
    assert "sha256~secret" not in said


@pytest.mark.parametrize("program", ["runbooks", "papermill"])
def test_a_reason_is_kept_as_it_was_typed_and_never_acts(untouched: Sandbox, tmp_path: Path, program: str) -> None:
    if program == "runbooks":
        records = tmp_path / "records"
        arguments = ("6.4.2", "--mode", "apply", "--parameters", ENVIRONMENT, "--records", records)
        done = command(untouched, "runbooks", "run", *arguments, "-p", "reason", REASON)
        (target,) = records.glob("records/*/*.ipynb")
    else:
        target = tmp_path / "out.ipynb"
        done = papermill(untouched, STEM, target, "-p", "mode", "apply", "-r", "reason", REASON)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "\x1b[2J" not in told(done)
    bound: dict[str, object] = {}
    (cell,) = [one for one in nbformat.read(target, as_version=4).cells if "injected-parameters" in one.metadata.tags]
    exec(cell.source, bound)
    assert REASON == bound["reason"]
    pages = [
        "".join(output.get("data", {}).get("text/html", ""))
        for one in nbformat.read(target, as_version=4).cells
        for output in one.get("outputs", [])
    ]
    assert [] == [page for page in pages if "<b>[red]" in page], "a reason is text, and no mark-up"
    assert "tls.crt" in untouched.get(SECRETS, "istio-system", "wildcard-certs")["data"]
