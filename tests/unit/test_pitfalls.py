"""The table of pitfalls says what is so."""

from __future__ import annotations

import pytest
from tests.pitfalls_table import PAGE, PITFALLS, Compared, Pitfall, defined_in, page, sections_of

from runbooks.procedure import SECTIONS


def test_the_page_is_up_to_date() -> None:
    assert page() == PAGE.read_text(), "make docs"


@pytest.mark.parametrize("pitfall", PITFALLS, ids=range(1, len(PITFALLS) + 1))
class TestEach:
    def test_is_told_or_the_reason_is(self, pitfall: Pitfall) -> None:
        assert 1 == len([kind for kind in (pitfall.told, pitfall.prevented, pitfall.untold) if kind])

    def test_is_provoked_by_tests_that_there_are(self, pitfall: Pitfall) -> None:
        assert bool(pitfall.untold) != bool(pitfall.tests)
        for test in pitfall.tests:
            module, _, name = test.partition("::")
            assert name in defined_in(module)

    def test_is_told_by_what_a_section_asks(self, pitfall: Pitfall) -> None:
        for told in pitfall.told:
            if isinstance(told, Compared):
                assert told.section in SECTIONS
            elif not isinstance(told, str):
                assert sections_of(told)
