"""Whether a person sits before the notebook, and what a run asks and shows them beyond its cells' own results.

A run decides nothing by this but when it may change something: with a person there it waits for their approval. How
a person is asked is a matter of ``widgets``; ``NOBODY`` stands for papermill, a pipeline and every other program.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from runbooks.display import View
from runbooks.wait import Look

SESSION = "JPY_SESSION_NAME"  # a Jupyter server sets it for the kernels of its users: the notebook's path


@dataclass(frozen=True)
class Question:
    """A plan that waits for an approval.

    Args:
        view: what is asked, in words.
        action: what the approval sets going, for example ``Approve 5 changes on api.prod-a.example.com``.
        by: who is proposed as the approver: the account, as the server knows it.
        name: what has to be typed besides, since the cluster is in production; empty where nothing has to.
        approve: takes who approves, and what was typed as the name; returns what is said of the approval. It
            raises a RunbookError where it is none.
    """

    view: View
    action: str
    by: str
    name: str
    approve: Callable[[str, str], View]


class Person(Protocol):
    """Who may be asked."""

    @property
    def attends(self) -> bool:
        """Whether there is somebody, so that nothing is changed but what they have approved."""

    @property
    def asks(self) -> bool:
        """Whether they can be asked by a control; if not, they type the approval into its cell."""

    def cell(self) -> contextlib.AbstractContextManager[None]:
        """Surrounds the work of one cell: an error in it is shown as a person wants to read it."""

    def ask(self, question: Question) -> None:
        """Ask for an approval, and go on at once: the answer comes when it comes."""

    def watch(self, timeout_s: float) -> Callable[[Sequence[Look]], None] | None:
        """Who is shown each look of a wait that lasts so long at most; None where lines of progress are wanted."""

    def ended(self, outcome: Mapping[str, Any], holds: Callable[[], bool]) -> None:
        """The runbook has come to its outcome, and can be archived as long as that holds: nothing was run since."""


@dataclass(frozen=True)
class _Silent:
    """Nobody, or somebody whom no control can be shown.

    Args:
        attends: which of the two.
    """

    attends: bool
    asks: bool = False

    def cell(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def ask(self, question: Question) -> None:
        raise AssertionError(f"nobody is there to be asked: {question.action}")

    def watch(self, timeout_s: float) -> None:  # noqa: ARG002 nobody watches, however long it takes
        return None

    def ended(self, outcome: Mapping[str, Any], holds: Callable[[], bool]) -> None:
        """Nobody is told."""


NOBODY: Person = _Silent(attends=False)
UNASKED: Person = _Silent(attends=True)  # a Jupyter server whose kernels have no ipywidgets
