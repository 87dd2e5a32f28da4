"""How long may be waited for a server that asks for it: until a deadline, and not after an interruption.

Both belong to the thread that makes a request, and ``batch`` hands them on to its threads: a request of theirs ends
with the wait that it is made for, and one that pauses when Ctrl-C comes is not sent any more.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from runbooks.errors import GivenUp


@dataclass(frozen=True)
class Limits:
    """What bounds the pauses of a thread.

    Args:
        deadline: on the monotonic clock.
        given_up: set when nobody waits for the thread's work any more.
    """

    deadline: float = math.inf
    given_up: threading.Event = field(default_factory=threading.Event)


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.limits = Limits()


_of_thread = _OfThread()


def present() -> Limits:
    """The limits of this thread."""
    return _of_thread.limits


def take(limits: Limits) -> None:
    """Let this thread have limits of another one."""
    _of_thread.limits = limits


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let no pause in this context last beyond so many seconds from now."""
    before = present()
    take(replace(before, deadline=min(before.deadline, time.monotonic() + seconds)))
    try:
        yield
    finally:
        take(before)


def allows(seconds: float) -> bool:
    """Whether there is time for a pause before the deadline."""
    return time.monotonic() + seconds <= present().deadline


def pause(seconds: float) -> None:
    """Wait; a signal or the end of the thread's work ends it at once.

    Raises:
        GivenUp: nobody waits for this thread's work any more.
    """
    if present().given_up.wait(seconds):
        raise GivenUp("waiting for the API server", "the run was interrupted", "run it again")
