"""What is said of a run while it goes on and when it has ended, between the engine and whoever keeps the record.

Apart from the engine, so that nobody has to import papermill to know it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

MIME = "application/vnd.serverless-mesh-runbooks.v1+json"  # of a cell's structured value


class Keeper(Protocol):
    """Who keeps the record of a run, in the process that runs the notebook; what it raises stops the run."""

    def began(self) -> None:
        """The output notebook is claimed, and the kernel starts next; raising keeps it from starting."""

    def planned(self, value: dict[str, Any]) -> None:
        """The cell ``plan`` has put out its structured value; raising keeps the next cell from being sent."""

    def ended(self, notebook: Path, how: dict[str, Any]) -> None:
        """The run that began has ended, however it did, and the notebook is written for the last time.

        Args:
            notebook: the executed notebook; this engine does not touch it again.
            how: the fields of ``Ending``; the notebook's metadata say the same under ``papermill.ended``.
        """


class NoKeeper:
    """Keeps nothing."""

    def began(self) -> None:
        """Nothing to do."""

    def planned(self, value: dict[str, Any]) -> None:
        """Nothing to do."""

    def ended(self, notebook: Path, how: dict[str, Any]) -> None:
        """Nothing to do."""


class Reason(StrEnum):
    """Why a run ended."""

    COMPLETED = "completed"
    EXCEPTION = "exception"
    TIMED_OUT = "time-out"
    SIGNAL = "signal"
    KERNEL_DIED = "kernel died"
    OUT_OF_DISK = "out of disk"
    NOT_WRITTEN = "not written"  # the notebook, for another reason than a full disk
    NOT_RECORDED = "not recorded"  # the keeper refused
    STOPPED = "stopped"  # by an error in the process that runs the notebook


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Args:
        reason: why.
        said: the same in a sentence.
        cell: the id of the cell that was running; empty where none was.
    """

    reason: Reason
    said: str = ""
    cell: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The ending as JSON."""
        return {**asdict(self), "reason": str(self.reason)}


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to end.

    Args:
        signum: the signal's number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
