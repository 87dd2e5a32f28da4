"""Starts and stops, and everything that can come between."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runbooks_sandbox import binaries
from runbooks_sandbox.state import Settings, free_port
from tests.conftest import ISTIOD_IS_HERE
from tests.faults.conftest import PARTS, RUNBOOKS, Shell, eventually, interrupt, listening, mounted


def test_a_second_start_says_that_it_runs_and_mends_the_kubeconfig(running: Shell) -> None:
    running.state.kubeconfig.unlink()
    said = running.run("start")
    assert "is already running" in said
    assert "was gone: written again" in said
    assert running.state.kubeconfig.exists()


def test_status_says_everything_as_json(running: Shell) -> None:
    found = json.loads(running.run("status", "--json"))
    assert found["running"]
    assert found["ready"]
    assert str(running.state.kubeconfig) == found["kubeconfig"]
    assert f"https://127.0.0.1:{running.state.settings().api_port}" == found["api_server"]
    assert f"{running.state.settings().gateway_address}:8443" == found["gateway_address"]
    assert {"OpenShift Serverless": "1.26.0", "Service Mesh": "2.3.0", "ingress": "istio"} == found["plays"]
    assert [name for name in PARTS if name != "supervisor"] == sorted(name.lower() for name in found["real"])
    assert ("istio" if "istiod" in PARTS else "files") == found["gateway"]
    assert "operators" in found["stands_in"]
    assert {} == found["faults"]
    assert Path(found["audit_log"]).exists()
    assert PARTS == sorted(found["processes"])


def test_a_running_sandbox_does_not_change_what_it_plays(running: Shell) -> None:
    said = running.run("start", "--serverless", "1.30", code=1)
    assert "it plays Serverless 1.26.0" in said
    assert "reset" in said


def test_starts_at_the_same_time_are_one_start_and_a_killed_supervisor_takes_everything_with_it(shell: Shell) -> None:
    first, second = shell.popen("start"), shell.popen("start")
    outcomes = [shell.finished(process) for process in (first, second)]
    assert [0, 0] == [code for code, _ in outcomes]
    assert 1 == sum("already running" in said for _, said in outcomes)
    os.kill(shell.pid("supervisor"), signal.SIGKILL)
    if sys.platform == "linux":  # elsewhere the next start or stop ends them
        shell.nothing_is_left(5)
    assert "running          no" in shell.run("status", code=1)
    said = shell.run("stop")
    assert "an earlier run ended without a stop" in said or "had left behind" in said
    assert "was not running" in said
    shell.nothing_is_left(0)


def test_a_stop_while_it_starts_waits_for_the_start(shell: Shell) -> None:
    start = shell.popen("start")
    eventually(lambda: bool(shell.state.phase()), 20)
    assert "is stopped" in shell.run("stop")
    assert 0 == shell.finished(start)[0]
    shell.nothing_is_left(0)


@pytest.mark.parametrize(
    "call",
    [
        ("start", "--serverless", "abc"),
        ("start", "--serverless", "1.20"),
        ("start", "--mesh", "3.0"),
        ("start", "--crds", "/nowhere"),
        ("reset", "--own-crds", "--crds", "/"),
        ("fault", "on", "nonsense"),
        ("fault", "on", "slow-operators", "soon"),
        ("fault", "on", "stuck-operators", "7"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_64(shell: Shell, call: tuple[str, ...]) -> None:
    shell.run(*call, code=64)
    assert not shell.state.exists()


def test_crds_that_cannot_be_read_are_refused_before_anything_starts(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "crds"
    folder.mkdir()
    assert "holds no YAML file" in shell.run("start", "--crds", str(folder), code=1)
    for text in ("{ a: [", "items: [null]", "kind: CustomResourceDefinition\nmetadata: {name: x}"):
        (folder / "a.yaml").write_text(text)
        assert f"reading CRDs from {folder}" in shell.run("start", "--crds", str(folder), code=1)
    assert not shell.state.exists()


# --- kills -------------------------------------------------------------------------------------------------------


def start_and_kill(shell: Shell, after_s: float, number: signal.Signals) -> None:
    start = shell.popen("start")
    time.sleep(after_s)
    if number == signal.SIGINT:
        interrupt(start)
    else:
        start.send_signal(number)
    code, said = shell.finished(start)
    assert code in (0, -number, 128 + number, 1 if "interrupted" in said else 128 + number), said


def start_is_survived(shell: Shell, after_s: float, number: signal.Signals) -> None:
    """Kill a start at some moment; then it runs, or nothing is left, and the next start and stop work."""
    start_and_kill(shell, after_s, number)
    if number == signal.SIGINT and shell.state.phase() != "ready":
        shell.nothing_is_left(0)
    assert "ready            yes" in shell.run("start")
    shell.run("stop")
    shell.nothing_is_left(0)


def test_a_killed_start_is_survived(shell: Shell) -> None:
    start_is_survived(shell, 1.8, signal.SIGKILL)


def test_an_interrupted_start_leaves_nothing(shell: Shell) -> None:
    start_and_kill(shell, 2.2, signal.SIGINT)
    shell.nothing_is_left(0)


def test_a_start_that_was_killed_leaves_nothing_even_if_nobody_comes_back(shell: Shell) -> None:
    start_and_kill(shell, 1.0, signal.SIGKILL)
    shell.nothing_is_left(20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_starts_and_processes_killed_at_random_moments_are_survived(shell: Shell) -> None:
    chance = random.Random(64)
    for _ in range(32):
        # earlier than that, Python itself may still be starting, which tells of Ctrl-C in its own way
        start_is_survived(shell, chance.uniform(0.5, 6), chance.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
        shell.run("start")
        os.kill(shell.pid(chance.choice(PARTS)), signal.SIGKILL)
        time.sleep(chance.uniform(0, 2))
        shell.run("start")
        eventually(lambda: json.loads(shell.finished(shell.popen("status", "--json"))[1])["ready"], 30)
        shell.run("stop")
        shell.nothing_is_left(0)


# has the first one that is started lose its port to somebody else, who goes on listening; then it is the real one
LOSES_ITS_PORT = """#!{python}
import os, pathlib, socket, sys
flag, (name, *words) = pathlib.Path({flag!r}), sys.argv
if "--listen-client-urls" in words and not flag.exists():
    flag.touch()
    other = socket.socket()
    other.bind(("127.0.0.1", int(words[words.index("--listen-client-urls") + 1].rpartition(":")[2])))
    other.listen()
    other.set_inheritable(True)
os.execv({etcd!r}, [name, *words])
"""


def test_a_port_that_is_lost_in_the_last_moment_is_replaced_by_another(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = binaries.find_installed()
    assert found is not None
    folder, flag = tmp_path / "assets", tmp_path / "flag"
    folder.mkdir()
    (folder / "kube-apiserver").symlink_to(found.kube_apiserver)
    (folder / "etcd").write_text(LOSES_ITS_PORT.format(python=sys.executable, flag=str(flag), etcd=str(found.etcd)))
    (folder / "etcd").chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(folder))
    said = shell.run("start")
    assert flag.exists()
    assert re.search(r"starting etcd: .*address already in use; it takes another port", said), said
    assert "ready            yes" in said


def test_what_is_needed_is_there_before_the_first_start() -> None:
    done = subprocess.run([RUNBOOKS, "sandbox", "prepare"], capture_output=True, text=True, check=False, timeout=60)
    assert (0, True) == (done.returncode, "kube-apiserver and etcd: " in done.stdout + done.stderr), done


@pytest.mark.skipif(not ISTIOD_IS_HERE, reason="istiod is not on this machine")
def test_where_istiod_is_prepared_it_is_named() -> None:
    command = [RUNBOOKS, "sandbox", "prepare", "--gateway", "istio"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done
    (named,) = re.findall(r"^istiod: (.+/pilot-discovery)$", done.stdout + done.stderr, re.MULTILINE)
    assert Path(named).is_file()


def test_nothing_survives_the_folder(shell: Shell) -> None:
    shell.run("start")
    shutil.rmtree(shell.state.folder)
    shell.nothing_is_left()
    assert "was not running" in shell.run("stop")


def test_a_reset_empties_a_running_sandbox(running: Shell) -> None:
    running.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": "before"}})
    running.run("fault", "on", "webhook-refuses")
    assert "is as new" in running.run("reset", "--serverless", "1.35")
    names = {item["metadata"]["name"] for item in running.api.request("GET", "/api/v1/namespaces")["items"]}
    assert "before" not in names
    assert "istio-system" in names
    found = json.loads(running.run("status", "--json"))
    assert {} == found["faults"]
    assert "1.35.0" == found["plays"]["OpenShift Serverless"]


# --- what an earlier run may have left ---------------------------------------------------------------------------


def test_a_recycled_process_id_is_left_alone(shell: Shell) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        entry = {"pid": innocent.pid, "created": 1.0}
        shell.state.folder.mkdir(parents=True)
        (shell.state.folder / "processes.json").write_text(json.dumps({"supervisor": entry, "etcd": entry}))
        assert "nothing of it runs any more" in shell.run("stop")
        assert innocent.poll() is None
        innocent.kill()


@pytest.mark.parametrize("content", [b"", b'{"supervisor": 7, "etcd": {"pid": "x"}}', b"\xff\xfe"])
def test_files_that_a_kill_cut_off_count_as_absent(shell: Shell, content: bytes) -> None:
    shell.state.folder.mkdir(parents=True)
    for name in ("settings.json", "processes.json", "faults.json", "supervisor.lock", "lock"):
        (shell.state.folder / name).write_bytes(content)
    assert "running          no" in shell.run("status", code=1)
    assert "was not running" in shell.run("stop")


def test_a_start_mends_broken_files(shell: Shell) -> None:
    shell.run("start")
    before = shell.state.settings()
    (shell.state.folder / "processes.json").write_text("broken while it runs")
    eventually(lambda: sorted(shell.state.processes()) == PARTS, 5)
    assert "is stopped" in shell.run("stop")
    for name in ("settings.json", "faults.json", "pki/tokens.csv", "pki/serving.crt", "kubeconfig", "envoy/lds.json"):
        path = shell.state.folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if path.exists() else b"{")
    said = shell.run("start")
    assert "ready            yes" in said
    assert before.gateway_address == shell.state.settings().gateway_address


def test_ports_that_somebody_else_took_are_left_to_them(shell: Shell) -> None:
    before = Settings(api_port=free_port(), gateway_address="127.99.88.77")
    shell.state.keep(before)
    with listening(("127.0.0.1", before.api_port), (before.gateway_address, 8443)):
        said = shell.run("start")
        assert f"port {before.api_port} is in use now" in said
        assert f"{before.gateway_address} is in use now" in said
        assert shell.api.request("GET", "/readyz")
        shell.run("stop")


# --- disks -------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_already(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=512k"):
        shell = Shell(tmp_path / "disk", "full")
        said = shell.run("start", code=1)
        assert "o space left" in said
        assert "free some disk space" in said
        shell.end()
        (tmp_path / "disk" / "filling").write_bytes(b"0" * 400_000)
        shell.run("start", code=1)
        shell.run("status", code=1)
        shell.end()


def test_a_disk_that_fills_up_while_it_runs(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=200m"):
        shell = Shell(tmp_path / "disk", "filling")
        shell.run("start")
        filling = tmp_path / "disk" / "filling"
        with pytest.raises(OSError, match="No space left"):
            filling.write_bytes(b"0" * 200_000_000)
        said = shell.run("fault", "on", "webhook-refuses", code=1)
        assert "free some disk space" in said
        os.kill(shell.pid("envoy"), signal.SIGKILL)
        time.sleep(2)
        shell.run("status")
        filling.unlink()
        eventually(lambda: "envoy" in json.loads(shell.run("status", "--json"))["processes"], 10)
        shell.run("fault", "on", "webhook-refuses")
        shell.end()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro"):
        shell = Shell(tmp_path / "disk", "read-only")
        said = shell.run("start", code=1)
        assert "Read-only file system" in said
        assert "XDG_STATE_HOME" in said
        shell.run("stop", code=1)
        shell.run("status", code=1)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shell = Shell(tmp_path / "file", "misplaced")
    for command in ("start", "stop", "reset"):
        assert "Not a directory" in shell.run(command, code=1)
    shell.run("status", code=1)
