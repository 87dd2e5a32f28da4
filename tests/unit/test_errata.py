"""Where the runbooks differ from the page: in which version, in which words, and with strict_documentation."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runbooks import secret_filtering
from runbooks.cli import cli
from runbooks.errors import UsageError
from runbooks.kinds import CLUSTER_SERVICE_VERSION, NAMESPACE
from runbooks.procedure import SECTIONS
from runbooks.procedure.section import Basis, Erratum
from runbooks.render import manifests_of
from runbooks.situation import Situation
from runbooks.snapshot import Live
from runbooks.versions import EVERY_VERSION, Range, Version

Situate = Callable[..., Situation[Any]]
Csv = Callable[..., Live]
ALL = [(section, item) for section in SECTIONS.values() for item in section.errata]
UNDOCUMENTED = [(section.number, item) for section, item in ALL if item.basis is Basis.UNDOCUMENTED]


def at(version: str, number: str, situate: Situate, csv: Csv, **parameters: Any) -> Situation[Any]:
    monitoring = {"metadata": {"name": "openshift-monitoring", "labels": {}}}
    found = {CLUSTER_SERVICE_VERSION: [csv(f"serverless-operator.v{version}")], NAMESPACE: [monitoring]}
    return situate(number, found, **parameters)


@pytest.mark.parametrize(
    ("number", "version", "beginnings"),
    [
        ("6.4.2", "1.38.0", []),
        ("6.4.3", "1.26.0", []),
        ("6.4.3", "1.31.0", ["the Gateways select"]),
        ("6.4.3", "1.35.2", ["the Gateways select", "sidecar.istio.io/inject is an annotation"]),
        ("6.4.4", "1.37.9", []),
        ("6.4.4", "1.38.0", ["the key metrics.backend-destination"]),
        ("6.4.4", "1.99.0", ["the key metrics.backend-destination"]),
        ("6.4.5", "1.30.9", []),
        ("6.4.5", "1.31.0", ["Service Mesh can be used where Kourier is enabled"]),
        ("6.4.6", "1.27.0", []),
        ("6.4.6", "1.28.0", ["nothing about a workload's entry"]),
        ("6.4.6", "1.32.0", ["the annotation puts", "nothing about a workload's entry"]),
    ],
)
def test_each_version_has_its_own_lines(
    number: str, version: str, beginnings: list[str], situate: Situate, csv: Csv
) -> None:
    lines = SECTIONS[number].differences(at(version, number, situate, csv), of_version=True)
    assert len(beginnings) == len(lines)
    assert [] == [line for line, words in zip(lines, beginnings, strict=True) if words not in line]


@pytest.mark.parametrize("number", SECTIONS)
def test_a_line_says_what_the_page_says_what_is_done_why_and_since_when(
    number: str, situate: Situate, csv: Csv
) -> None:
    situation = at("1.38.0", number, situate, csv)
    expected = []
    for item in SECTIONS[number].errata:
        if situation.profile.serverless in item.versions:
            why = item.reason if item.versions == EVERY_VERSION else f"{item.versions}: {item.reason}"
            head = "as on the page, though newer documentation differs" if item.kept else "differs from the page"
            expected.append(f"{head}: {item.said} → {item.done} ({why}; {item.source})")
    assert expected == list(SECTIONS[number].differences(situation))
    assert [] == [line for line in expected if "\n" in line]


def test_only_what_newer_versions_document_names_one() -> None:
    assert [] == [item.said for _, item in ALL if item.documented and item.basis is not Basis.NEWER]


@pytest.mark.parametrize(("number", "item"), UNDOCUMENTED, ids=[item.said for _, item in UNDOCUMENTED])
def test_strict_documentation_turns_off_what_is_not_documented(
    number: str, item: Erratum, situate: Situate, csv: Csv
) -> None:
    newest = SECTIONS[number]
    lenient, strict = (
        at("1.38.0", number, situate, csv, strict_documentation=strict, mtls="any") for strict in (False, True)
    )
    assert (True, False) == (item.in_force(lenient), item.in_force(strict))
    (line,) = [line for line in newest.differences(strict) if item.said in line]
    assert line.startswith(
        f"as on the page, since strict_documentation is true: {item.said} → kept, in place of {item.done} ("
    )


def test_with_strict_documentation_the_objects_are_the_pages(situate: Situate, csv: Csv) -> None:
    lenient, strict = (
        manifests_of(SECTIONS["6.4.4"], at("1.38.0", "6.4.4", situate, csv, strict_documentation=strict))
        for strict in (False, True)
    )
    assert "\n      metrics-protocol: prometheus\n" in lenient
    assert "kubernetes.io/metadata.name: openshift-monitoring" in lenient
    assert "\n      metrics.backend-destination: prometheus\n" in strict
    assert " name: openshift-monitoring" in strict
    assert "\n      metrics-protocol: prometheus\n" not in strict
    assert "kubernetes.io/metadata.name: openshift-monitoring" not in strict


@pytest.mark.parametrize("number", [number for number in SECTIONS if number != "6.4.4"])
def test_strict_documentation_changes_no_section_without_anything_undocumented(
    number: str, situate: Situate, csv: Csv
) -> None:
    assert number not in {where for where, _ in UNDOCUMENTED}
    lenient, strict = (
        manifests_of(SECTIONS[number], at("1.38.0", number, situate, csv, strict_documentation=strict))
        for strict in (False, True)
    )
    assert lenient == strict


def test_what_is_rendered_names_the_version_it_is_for(situate: Situate, csv: Csv) -> None:
    text = manifests_of(SECTIONS["6.4.6"], at("1.99.0", "6.4.6", situate, csv))
    assert "(for Serverless 1.38.0, the newest known here, in place of 1.99.0)" in text
    assert "# differs from the page: the annotation puts" in text
    assert text.endswith("# nothing to render\n")
    assert secret_filtering.VARIABLE in text


def test_a_range_that_ends_is_told_as_such(situate: Situate) -> None:
    item = Erratum("a", "b", "c", Range(before=Version(1, 28)), Basis.NEWER, Version(1, 24))
    assert "differs from the page: a → b (before 1.28: c; documented in newer versions, from 1.24 on)" == item.line(
        situate("6.4.6")
    )


@pytest.fixture
def printed() -> Iterator[Callable[..., str]]:
    """What a command prints; one that prints much lets a closed pipe end the process, which is put back."""
    before = signal.getsignal(signal.SIGPIPE)

    def call(*words: str) -> str:
        return str(CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False).output)

    yield call
    signal.signal(signal.SIGPIPE, before)


def test_nothing_is_rendered_for_a_version_that_is_too_old(printed: Callable[..., str]) -> None:
    folder = Path(__file__).parents[2] / "parameters" / "sandbox"
    render = ("render", "6.4.6", "--parameters", str(folder), "-p", "serverless_version")
    with pytest.raises(UsageError, match=r"1\.25 is older than 1\.26"):
        printed(*render, "1.25")
    assert "enable-secret-informer-filtering" in printed(*render, "1.26")


def test_what_differs_is_listed_for_people_and_for_programs(printed: Callable[..., str]) -> None:
    assert "1.32 and later: the annotation puts" in printed("list", "6.4.6")
    (facts,) = json.loads(printed("list", "6.4.6", "--json"))
    assert [item.said for item in SECTIONS["6.4.6"].errata] == [one["said"] for one in facts["errata"]]
