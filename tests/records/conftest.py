"""Archives to harm: a few real runs, signed by a real key."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbooks.record import keys, verification
from runbooks.record.archive import Archive
from runbooks.record.verification import Report


@dataclass
class Kept:
    """An archive, the key that signed it, and a head that was kept elsewhere."""

    archive: Archive
    key: keys.PrivateKey
    anchor: Path

    def verify(self, *anchors: Path) -> Report:
        """Check it as an auditor does, who opens it anew."""
        return verification.verify(Archive.open(self.archive.path), [self.key.public], None, anchors)

    def play(self, number: int = 0) -> str:
        """A run from its start to its result; returns its id."""
        run = self.archive.begin({"section": "6.4.4", "mode": "apply", "number": number})
        notebook = run.workspace / "6.4.4.ipynb"
        notebook.write_text(f'{{"cells": [{{"id": "plan"}}, {{"id": "number-{number}"}}]}}')
        run.intend({"plan": {"digest": f"plan-sha256:{'0' * 64}", "changes": []}})
        run.finish(notebook, {"outcome": "done and proven", "reason": "証明書の更新"})
        return run.id


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Kept]:
    """An archive with some runs; the head after all but the last one is kept."""

    def make(count: int) -> Kept:
        folder = tmp_path_factory.mktemp("kept")
        key = keys.create(folder / "key" / "signing.key")
        kept = Kept(Archive.open(folder / "archive", signer=key), key, folder / "ticket.txt")
        for number in range(count):
            if number == count - 1:
                kept.anchor.write_text(f"Change done. Head: {kept.archive.head}\n")
            kept.play(number)
        return kept

    return make


@pytest.fixture(scope="session")
def _five(grown: Callable[[int], Kept]) -> Kept:
    return grown(5)


@pytest.fixture
def kept(_five: Kept, tmp_path: Path) -> Kept:
    """Five runs, on a copy that may be harmed."""
    shutil.copytree(_five.archive.path, tmp_path / "archive")
    return Kept(Archive.open(tmp_path / "archive", signer=_five.key), _five.key, _five.anchor)
