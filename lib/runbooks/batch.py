"""The same work for many objects: bounded, with progress, and no failure hides the others."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

from runbooks import patience
from runbooks.errors import RunbookError

CONNECTIONS = 16  # more bring nothing against one API server (measured with 1,000 NetworkPolicies)
_LINE_EVERY_S = 1.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What became of each item.

    Args:
        results: what the work returned, in the items' order; None where it failed.
        errors: what failed.
    """

    results: tuple[Result | None, ...]
    errors: tuple[RunbookError, ...]


def each(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    say: Callable[[str], None],
    words: str,
    finished: Callable[[Result], None] = lambda _: None,
) -> Done[Result]:
    """Do the work for every item, several at a time.

    Args:
        work: called from several threads at once.
        items: what it is called with.
        say: called with a line of progress every second.
        words: what is being done, for the line.
        finished: called in this thread with each result as it comes in, so that an interruption loses none.
    """
    errors: list[RunbookError] = []
    results = _all(work, items, say, words, finished, errors.append)
    return Done(tuple(results), tuple(errors))


def every(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    say: Callable[[str], None] = lambda _: None,
    words: str = "",
) -> tuple[Result, ...]:
    """As ``each``, for work that is worth nothing unless all of it is done.

    Returns:
        What the work returned, in the items' order.

    Raises:
        RunbookError: the first failure; what has not begun is not begun any more.
    """
    return cast("tuple[Result, ...]", tuple(_all(work, items, say, words, lambda _: None, _give_up)))


def _give_up(error: RunbookError) -> None:
    raise error


def _all(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    say: Callable[[str], None],
    words: str,
    finished: Callable[[Result], None],
    failed: Callable[[RunbookError], None],
) -> list[Result | None]:
    results: list[Result | None] = [None] * len(items)

    def settle(position: int, answer: Callable[[], Result]) -> None:
        try:
            result = results[position] = answer()
            finished(result)
        except RunbookError as error:
            failed(error)

    if len(items) == 1:
        settle(0, lambda: work(items[0]))
        return results
    given_up = threading.Event()
    limits = replace(patience.present(), given_up=given_up)
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS, initializer=patience.take, initargs=(limits,)) as pool:
        futures = {pool.submit(work, item): position for position, item in enumerate(items)}
        try:
            for future in _told(futures, say, words):
                settle(futures[future], future.result)
        except BaseException:  # an interruption or the end: what has not begun does not begin any more
            given_up.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def _told(
    futures: Iterable[concurrent.futures.Future[Result]], say: Callable[[str], None], words: str
) -> Iterable[concurrent.futures.Future[Result]]:
    said, pending = time.monotonic(), list(futures)
    for count, future in enumerate(concurrent.futures.as_completed(pending), start=1):
        yield future
        if time.monotonic() - said >= _LINE_EVERY_S:
            said = time.monotonic()
            say(f"[{count}/{len(pending)}] {words}")
