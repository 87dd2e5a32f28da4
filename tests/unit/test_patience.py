"""Pauses for a server that asks for them: bounded by a deadline, and ended by an interruption."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from runbooks import batch, patience
from runbooks.errors import GivenUp, ServerRefused


def test_without_a_deadline_every_pause_is_allowed() -> None:
    assert patience.allows(1e9)


def test_the_nearer_of_two_deadlines_counts_and_the_outer_one_comes_back() -> None:
    with patience.within(100):
        with patience.within(1000):
            assert not patience.allows(101)
        with patience.within(1):
            assert not patience.allows(2)
        assert patience.allows(50)
    assert patience.allows(1000)


def test_a_deadline_goes_to_the_threads_of_a_batch() -> None:
    with patience.within(10):
        assert (False, False) == batch.every(lambda _: patience.allows(11), (1, 2))
    assert (True, True) == batch.every(lambda _: patience.allows(11), (1, 2))


def test_a_pause_ends_when_nobody_waits_for_it() -> None:
    given_up = threading.Event()
    before = patience.present()
    patience.take(replace(before, given_up=given_up))
    try:
        threading.Timer(0.05, given_up.set).start()
        began = time.monotonic()
        with pytest.raises(GivenUp, match="run it again"):
            patience.pause(30)
        assert time.monotonic() - began < 10
    finally:
        patience.take(before)


def test_a_batch_that_is_given_up_does_not_wait_for_pauses() -> None:
    sent: list[int] = []

    def work(item: int) -> None:
        if item == 0:
            raise ServerRefused("writing", "no", status=500)
        patience.pause(30)
        sent.append(item)

    began = time.monotonic()
    with pytest.raises(ServerRefused):
        batch.every(work, (1, 2, 0))
    assert time.monotonic() - began < 10
    assert [] == sent
