"""An exported record is checked in a shell that has bash, jq and openssl, and nothing else: no Python."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from runbooks.errors import NotTrusted
from runbooks.record import export, keys
from tests.records.conftest import Kept

TOOLS = ("bash", "jq", "openssl")


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing but the three tools is found."""
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is None:
            pytest.skip(f"{tool} is not installed here")
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).symlink_to(found)
    return {"PATH": str(tmp_path / "bin"), "TMPDIR": str(tmp_path)}


def unpacked(kept: Kept, folder: Path, number: int = 2) -> Path:
    record = kept.archive.records()[number]
    packed = io.BytesIO(export.bundle(kept.archive, record, [kept.key.public]))
    with zipfile.ZipFile(packed) as found:
        found.extractall(folder)
    return folder / record.id


def check(folder: Path, shell: dict[str, str], *arguments: object) -> tuple[int, str]:
    words = ["bash", str(folder / "verify.sh"), *map(str, arguments)]
    done = subprocess.run(words, env=shell, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", [0, 3])
def test_it_verifies_without_python(kept: Kept, tmp_path: Path, shell: dict[str, str], number: int) -> None:
    assert None is shutil.which("python3", path=shell["PATH"])
    folder = unpacked(kept, tmp_path, number)
    code, text = check(folder, shell, "key.pem", kept.anchor)
    assert (0, "VERIFIED") == (code, text.splitlines()[-1]), text
    assert kept.key.public.id in text
    assert "kept head: the first 12 entries" in text
    assert all(f"ok      {phase}: signed" in text for phase in ("start", "intent", "result"))
    code, text = check(folder, shell, "key.pem")
    assert (0, True) == (code, "rollback not checked" in text)


def test_the_readme_s_own_commands_work(kept: Kept, tmp_path: Path, shell: dict[str, str]) -> None:
    folder = unpacked(kept, tmp_path)
    text = (folder / "README.txt").read_text()
    commands = [line.strip() for line in text.partition("Or by hand")[2].splitlines() if line.startswith("    ")]
    script = "set -euo pipefail\n" + "\n".join(commands)
    done = subprocess.run(["bash", "-c", script], env=shell, cwd=folder, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert "証明書の更新" in done.stdout


@pytest.mark.parametrize("name", [
    "record/6.4.4.ipynb", "record/start.dsse.json", "record/intent.dsse.json", "record/result.dsse.json",
    "log.jsonl", "head",
])  # fmt: skip
def test_a_changed_file_is_seen(kept: Kept, tmp_path: Path, shell: dict[str, str], name: str) -> None:
    folder = unpacked(kept, tmp_path)
    content = (folder / name).read_bytes()
    position = len(content) // 2
    (folder / name).write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    code, text = check(folder, shell, "key.pem")
    assert (1, "NOT VERIFIED") == (code, text.splitlines()[-1]), text
    (folder / name).unlink()
    assert 1 == check(folder, shell, "key.pem")[0]


def test_another_key_or_another_history_is_seen(kept: Kept, tmp_path: Path, shell: dict[str, str]) -> None:
    folder = unpacked(kept, tmp_path)
    other = keys.create(tmp_path / "other" / "signing.key")
    (tmp_path / "other.pem").write_bytes(other.public.pem)
    assert 1 == check(folder, shell, tmp_path / "other.pem")[0]
    altered = tmp_path / "altered.txt"
    altered.write_text(kept.anchor.read_text().replace(" 12 sha256:", " 11 sha256:"))
    assert 1 == check(folder, shell, "key.pem", altered)[0]
    assert 2 == check(folder, shell)[0]
    with pytest.raises(NotTrusted):
        export.bundle(kept.archive, kept.archive.records()[0], [other.public])
