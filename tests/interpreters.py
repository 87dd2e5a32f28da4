"""Run tests on every Python from 3.11 on that this machine has: ``interpreters.py TESTS...``.

The first one is the interpreter that runs this; each other one gets an environment of its own beside it, made from
the same lock.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
OLDEST = (3, 11)
LOCK = ROOT / "requirements.lock"


def candidates() -> Iterator[Path]:
    """Executables that look like a Python: on PATH, and where pyenv and uv keep theirs."""
    home = Path.home()
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        yield from sorted(Path(folder).glob("python3.*"))
    for pattern in (".pyenv/versions/*/bin/python3.*", ".local/share/uv/python/*/bin/python3.*"):
        yield from sorted(home.glob(pattern))


def others() -> dict[tuple[int, int], Path]:
    """One interpreter for each minor version besides our own."""
    found: dict[tuple[int, int], Path] = {}
    for path in candidates():
        if not re.fullmatch(r"python3\.\d+", path.name):
            continue
        answer = subprocess.run(
            [path, "-c", "import sys, ensurepip; print(sys.version_info.releaselevel, *sys.version_info[:2])"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        level, *version = answer.stdout.split() or ("",)
        key = tuple(map(int, version))
        if level == "final" and len(key) == 2 and key >= OLDEST and key != sys.version_info[:2]:
            found.setdefault(key, path)
    return found


def environment(version: tuple[int, int], python: Path) -> Path:
    """The environment of another interpreter, made where it is missing or older than the lock."""
    folder = Path(sys.prefix) / "others" / ".".join(map(str, version))
    ready = folder / ".ready"
    if not ready.exists() or ready.stat().st_mtime < LOCK.stat().st_mtime:
        print(f"making an environment for {python} (once)", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", LOCK], check=True)
        editable = ["-e", ROOT, "-e", ROOT / "lib" / "runbooks_sandbox"]
        subprocess.run([*pip, "--no-build-isolation", "--no-deps", *editable], check=True)
        ready.touch()
    return folder / "bin" / "python"


def run(python: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the tests on one interpreter."""
    command = [python, "-c", "import platform; print('Python', platform.python_version(), flush=True)"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # a cache of its own: the others run at the same time
    options = ["-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run([python, "-m", "pytest", *options], capture_output=True, text=True, check=False)
    print(version + done.stdout + done.stderr, flush=True)
    return done


def main(tests: list[str]) -> int:
    """Run the tests on each, as many at a time as there are processors; the exit code is the first that is not 0."""
    pythons = [Path(sys.executable)]
    pythons += [environment(version, python) for version, python in sorted(others().items())]
    print(f"running {' '.join(tests)} on {len(pythons)} interpreters, about a minute", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as running:
        codes = [done.returncode for done in running.map(lambda python: run(python, tests), pythons)]
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
