"""The only clock and loop: ask until an object is as it should be, and say what is waited for and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runbooks import patience
from runbooks.errors import ConnectionFailed, ServerRefused, TimedOut
from runbooks.readiness import State

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_LINE_EVERY_S = 10.0
_TOO_MANY = 429


@dataclass(frozen=True)
class Look:
    """How far one object is, as a wait has just seen it.

    Args:
        title: what is waited for.
        done: it is as it should be.
        message: the server's own reason where it is not.
        seconds: since the wait began, or until it was done.
    """

    title: str
    done: bool
    message: str
    seconds: float


@dataclass(frozen=True)
class Waited:
    """One object that was waited for.

    Args:
        title: what was waited for.
        seconds: how long.
    """

    title: str
    seconds: float


def until(
    judges: Mapping[str, Callable[[], State]],
    timeout_s: float,
    say: Callable[[str], None],
    watch: Callable[[Sequence[Look]], None] | None = None,
) -> tuple[Waited, ...]:
    """Ask each judge until it says done.

    Args:
        judges: what is waited for, in words, and a function that looks.
        timeout_s: the deadline for all of them together, in seconds.
        say: called with a line whenever there is something new to tell, and now and then when there is not.
        watch: called with all of them after each round in which something is still pending, and once more in the end.

    Raises:
        TimedOut: something is still pending at the deadline; it names what, and the server's own reason.
    """
    start, pause, said_at = time.monotonic(), _FIRST_PAUSE_S, 0.0
    pending, looks = dict(judges), dict[str, Look]()
    reasons: dict[str, str] = {}
    while True:
        for title, judge in list(pending.items()):
            with patience.within(timeout_s - (time.monotonic() - start)):
                state = _look(judge)
            elapsed = time.monotonic() - start
            looks[title] = Look(title, state.done, state.message, round(elapsed, 2))
            done = f"[{len(judges) - len(pending) + state.done}/{len(judges)}]"
            if state.done:
                del pending[title]
                if title in reasons:  # it was said to be pending
                    say(f"{done} {title}: done after {elapsed:.1f} s")
            elif state.message != reasons.get(title) or elapsed - said_at >= _LINE_EVERY_S:
                reasons[title], said_at = state.message, elapsed
                so_far = f"{elapsed:.0f} s of at most {timeout_s:.0f} s"
                say(f"{done} {title}: {state.message} ({so_far})")
        if watch and reasons:  # what is ready at once needs no watching
            watch([looks[title] for title in judges])
        if not pending:
            found = sorted(looks.values(), key=lambda look: look.seconds)
            return tuple(Waited(look.title, look.seconds) for look in found)
        if time.monotonic() - start + pause > timeout_s:
            raise TimedOut(
                f"waiting {timeout_s:.0f} s for {' and '.join(pending)}",
                "; ".join(reasons[title] for title in pending),
                "look at its operator's log; run the notebook again to go on waiting, or raise timeout_s",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _look(judge: Callable[[], State]) -> State:
    """One look; a server that is away for a moment (a restart) ends no wait."""
    try:
        return judge()
    except ConnectionFailed as error:
        return State(False, error.lines()[0])
    except ServerRefused as error:
        if error.status < 500 and error.status != _TOO_MANY:
            raise
        return State(False, error.lines()[0])
