"""The table of versions says what is so."""

from __future__ import annotations

import pytest
from tests.cluster.test_versions import PAIRS
from tests.pitfalls_table import Compared, defined_in, sections_of
from tests.versions_table import OF_MESH, OF_SERVERLESS, PAGE, Difference, page

from runbooks.procedure import SECTIONS


def test_the_page_is_up_to_date() -> None:
    assert page() == PAGE.read_text(), "make docs"


def test_what_depends_on_the_version_in_the_procedure_stands_there() -> None:
    of_version = [item for section in SECTIONS.values() for item in section.errata if item.of_version]
    assert [] == [item.said for item in of_version if f"| {item.said} | {item.done} |" not in PAGE.read_text()]


def test_each_version_that_is_named_is_played() -> None:
    assert {"1.26", "1.28", "1.32", "1.35", "1.38"} == {pair.serverless for pair in PAIRS if pair.ingress == "istio"}
    assert {"1.1", "2.0.5", "2.3", "2.6"} == {pair.mesh for pair in PAIRS}


@pytest.mark.parametrize("one", [*OF_SERVERLESS, *OF_MESH], ids=lambda one: f"{one.versions}: {one.what[:40]}")
def test_a_difference_is_told_by_what_a_section_asks_and_played_by_tests_that_there_are(one: Difference) -> None:
    for test in one.tests:
        module, _, name = test.partition("::")
        assert name in defined_in(module)
    for told in one.told:
        if isinstance(told, Compared):
            assert told.section in SECTIONS
        elif not isinstance(told, str):
            assert sections_of(told)
