"""Waiting, on a clock that only moves when somebody sleeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks import wait
from runbooks.errors import ConnectionFailed, Forbidden, RunbookError, ServerRefused, TimedOut
from runbooks.readiness import State
from runbooks.wait import Look, Waited

DONE = State(True)


@dataclass
class Clock:
    """Stands in for the time module; starts late, since nothing may depend on where a monotonic clock starts."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def elapsed(self) -> float:
        return self.now - 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(wait, "time", SimpleNamespace(monotonic=found.monotonic, sleep=found.sleep))
    return found


def answers(states: Iterable[State | Exception]) -> Callable[[], State]:
    """A judge that answers one after the other, and must not be asked once more."""
    left: Iterator[State | Exception] = iter(states)

    def judge() -> State:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return judge


def pending(message: str = "not yet") -> Callable[[], State]:
    return lambda: State(False, message)


def test_what_is_ready_already_costs_one_look_and_no_time_and_no_word(clock: Clock) -> None:
    said: list[str] = []
    judges = {"Secret a/b": answers([DONE]), "Gateway c/d": answers([DONE])}
    assert (Waited("Secret a/b", 0.0), Waited("Gateway c/d", 0.0)) == wait.until(judges, 600, said.append)
    assert said == clock.slept == []


def test_nothing_to_wait_for_is_done_at_once(clock: Clock) -> None:
    assert () == wait.until({}, 0, lambda _: None)


def test_what_was_done_is_not_asked_again_and_each_gets_its_own_time(clock: Clock) -> None:
    judges = {"slow": answers([State(False, "starting"), State(False, "starting"), DONE]), "fast": answers([DONE])}
    assert (Waited("fast", 0.0), Waited("slow", 0.12)) == wait.until(judges, 600, lambda _: None)
    assert [0.05, pytest.approx(0.075)] == clock.slept


def test_the_count_goes_on_while_others_are_pending(clock: Clock) -> None:
    said: list[str] = []
    b, c = State(False, "b"), State(False, "c")
    wait.until({"A": answers([DONE]), "B": answers([b, b, DONE]), "C": answers([c, c, DONE])}, 90, said.append)
    assert [
        "[1/3] B: b (0 s of at most 90 s)",
        "[1/3] C: c (0 s of at most 90 s)",
        "[2/3] B: done after 0.1 s",
        "[3/3] C: done after 0.1 s",
    ] == said


def test_a_line_is_said_when_there_is_something_new(clock: Clock) -> None:
    said: list[str] = []
    states = [State(False, "a"), State(False, "a"), State(False, "b"), State(False, "b"), State(False, "a"), DONE]
    wait.until({"it": answers(states)}, 600, said.append)
    assert [
        "[0/1] it: a (0 s of at most 600 s)",
        "[0/1] it: b (0 s of at most 600 s)",
        "[0/1] it: a (0 s of at most 600 s)",
        "[1/1] it: done after 0.7 s",
    ] == said


def test_now_and_then_a_line_is_said_when_there_is_nothing_new(clock: Clock) -> None:
    said: list[str] = []
    with pytest.raises(TimedOut):
        wait.until({"it": pending("starting")}, 45, said.append)
    assert 5 == len(said)
    assert {"[0/1] it: starting"} == {line.partition(" (")[0] for line in said}


def test_looks_become_rarer_up_to_two_seconds(clock: Clock) -> None:
    with pytest.raises(TimedOut):
        wait.until({"it": pending()}, 60, lambda _: None)
    assert sorted(clock.slept) == clock.slept
    assert (0.05, 2.0) == (clock.slept[0], clock.slept[-1])


def test_at_the_deadline_it_names_what_is_pending_and_why(clock: Clock) -> None:
    judges = {"A": answers([DONE]), "B": pending("Ready is False: no image"), "C": pending("it does not exist yet")}
    with pytest.raises(TimedOut) as caught:
        wait.until(judges, 30, lambda _: None)
    assert isinstance(caught.value, TimeoutError)
    assert [
        "waiting 30 s for B and C: Ready is False: no image; it does not exist yet",
        "What to do: look at its operator's log; run the notebook again to go on waiting, or raise timeout_s",
    ] == caught.value.lines()


@given(timeout_s=st.floats(0, 1000))
def test_no_wait_is_longer_than_its_deadline_and_each_looks_at_least_once(timeout_s: float) -> None:
    clock, looks = Clock(), 0

    def judge() -> State:
        nonlocal looks
        looks += 1
        return State(False, "not yet")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wait, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
        with pytest.raises(TimedOut):
            wait.until({"it": judge}, timeout_s, lambda _: None)
    assert looks >= 1
    assert timeout_s - 2.0 <= clock.elapsed <= timeout_s + 1e-6


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ConnectionFailed("looking at it", "connection refused"), "looking at it: connection refused"),
        (ServerRefused("looking at it", "etcd is away", status=503), "looking at it: etcd is away"),
        (ServerRefused("looking at it", status=500), "looking at it"),
    ],
)
def test_a_server_that_is_away_for_a_moment_ends_no_wait(clock: Clock, error: RunbookError, shown: str) -> None:
    said: list[str] = []
    assert (Waited("it", 0.05),) == wait.until({"it": answers([error, DONE])}, 600, said.append)
    assert f"[0/1] it: {shown} (0 s of at most 600 s)" == said[0]


@pytest.mark.parametrize(
    "error",
    [
        Forbidden("looking at it", "forbidden", status=403),
        ServerRefused("looking at it", "gone", status=410),
        ValueError("a mistake of ours"),
    ],
)
def test_an_answer_that_will_not_change_ends_the_wait_at_once(clock: Clock, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        wait.until({"it": answers([error])}, 600, lambda _: None)
    assert caught.value is error
    assert [] == clock.slept


def test_it_waits_on_the_real_clock_too() -> None:
    (waited,) = wait.until({"it": answers([State(False, "starting"), DONE])}, 5, lambda _: None)
    assert 0.05 <= waited.seconds < 2


def test_who_watches_sees_every_round_in_which_something_is_pending_and_the_last(clock: Clock) -> None:
    seen: list[list[tuple[str, bool, str]]] = []

    def watch(looks: Sequence[Look]) -> None:
        seen.append([(look.title, look.done, look.message) for look in looks])

    states = iter([State(False, "1 of 2"), State(False, "2 of 2"), DONE])
    wait.until({"a": lambda: next(states), "b": lambda: DONE}, 10, lambda _: None, watch)
    assert [("a", False, "1 of 2"), ("b", True, "")] == seen[0]
    assert [("a", True, ""), ("b", True, "")] == seen[-1]
    assert 3 == len(seen)


def test_what_is_ready_at_once_is_not_watched(clock: Clock) -> None:
    seen: list[object] = []
    wait.until({"a": lambda: DONE}, 10, lambda _: None, seen.append)
    assert [] == seen
