"""The page of errors lists what the library can say, and each error says its cause and what to do."""

from __future__ import annotations

import linecache
import re
from pathlib import Path
from types import ModuleType

import pytest
from tests.errors_table import FOR_THE_PROGRAM, GROUPS, PAGE, address, cause, group_of, inner, page
from tests.wordings import (
    CLOSE,
    ERRORS,
    LIB,
    OPEN,
    Raised,
    Wording,
    made,
    pending,
    raised,
    source_of,
    sources,
    wordings,
)

from runbooks import errors
from runbooks.procedure import SECTIONS
from runbooks.record.verification import EXIT_CODES as OF_RECORDS
from runbooks.record.verification import REMEDIES, Verdict
from runbooks.verdicts import EXIT_CODES, NEXT, Checked, Outcome

WORDINGS = wordings()
INSIDE = {module for group in GROUPS for module in group.inside}
# what is passed on as it came from another process
PASSED_ON = {"runbooks_sandbox.lifecycle"}
PROBES = LIB / "runbooks" / "probes.py"  # has a NotTrusted of its own, which checks take up


def named(one: Wording | Raised) -> str:
    return f"{one.module}:{one.line}"


def read(text: str) -> tuple[Wording, ...]:
    """The wordings of a module with this text."""
    module = ModuleType("runbooks.example")
    exec(compile(text, module.__name__, "exec"), module.__dict__)
    return wordings((source_of(module, text),))


def test_the_page_is_up_to_date() -> None:
    assert page() == PAGE.read_text(), "make docs"


@pytest.mark.parametrize("wording", WORDINGS, ids=named)
def test_each_says_what_was_attempted_its_cause_and_what_to_do(wording: Wording) -> None:
    assert wording.title
    assert wording.said
    assert wording.remedy
    assert cause(wording.kind)
    assert group_of(wording.kind)


def test_every_statement_that_raises_one_is_found() -> None:
    """Counted in another way: line by line, by the names of the classes."""
    names = {kind.__name__ for root in ERRORS for kind in (root, *every_subclass(root))}
    stated = {
        f"{module_of(path)}:{number}"
        for path in LIB.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (found := re.match(r"\s*raise (\w+)\(", line)) and found[1] in names and path != PROBES
    }
    assert len(stated) > 100
    unlisted = stated - {one.made for one in WORDINGS}
    assert PASSED_ON == {one.partition(":")[0] for one in unlisted}
    assert 1 == len(unlisted)


def test_every_judgement_that_is_made_is_found() -> None:
    """Also those that are made by a function whose callers word them."""
    made_somewhere = {
        f"{source.module.__name__}:{call.lineno}": source.module.__name__
        for source in sources()
        for call in source.calls
        if made(call, source)
    }
    unlisted = made_somewhere.keys() - {one.made for one in WORDINGS}
    lines = [linecache.getline(str(path_of(*one.split(":"))), int(one.partition(":")[2])) for one in unlisted]
    wrong = [line for line in lines if not re.search(r"Verdict\.MET|Proof\.(PROVEN|SKIPPED)|\*\*json", line)]
    assert [] == wrong


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(LIB).with_suffix("").parts).removesuffix(".__init__")


def path_of(module: str, _: str = "") -> Path:
    path = LIB.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def every_subclass(kind: type) -> list[type]:
    return [one for child in kind.__subclasses__() for one in (child, *every_subclass(child))]


@pytest.mark.parametrize("one", inner(), ids=named)
def test_what_is_raised_inside_of_the_library_stands_on_the_page(one: Raised) -> None:
    assert one.module in INSIDE, "name the module in a group of errors_table, or word an error of ours"


def test_nothing_is_raised_but_errors_of_ours_and_what_they_take_up() -> None:
    """A class that cannot be found in its module would slip through: it is only raised again."""
    again = [one for one in raised() if one.kind is None]
    lines = [linecache.getline(str(path_of(one.module)), one.line).strip() for one in again]
    makers = {"_unheard", "_changed", "_unreachable", "_not_recorded", "_secret_found", "_together"}
    for line in lines:
        called = re.match(r"raise (\w+)\(", line)
        assert called is None or called[1] in makers | {"unreadable", "type"}, line
    assert all(kind.__doc__ for kind in FOR_THE_PROGRAM)


def test_every_check_stands_on_the_page() -> None:
    titles = {title for one in WORDINGS if one.kind is Checked for title in one.title}
    checks = {check.title for section in SECTIONS.values() for step in section.steps for check in step.checks}
    assert set() == checks - titles


@pytest.mark.parametrize("number", SECTIONS)
def test_the_way_to_a_runbook_leads_to_its_heading(number: str) -> None:
    headings = re.findall(r"^## (.*)$", (PAGE.parent / "steps.md").read_text(), re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert address(number).removeprefix("steps.md#") in slugs


def test_a_runbook_that_is_named_is_there() -> None:
    seen = {see for one in WORDINGS for see in one.see if see and OPEN not in see}
    assert {"6.4.2", "6.4.3", "6.4.5"} <= seen <= SECTIONS.keys()


def test_what_says_run_a_section_names_its_runbook() -> None:
    """A remedy that is another runbook alone leads there by a link, too."""
    lacking = [named(one) for one in WORDINGS if re.match(r"run 6\.4\.\d", " ".join(one.remedy)) and not any(one.see)]
    assert [] == lacking


def test_every_end_that_a_mode_does_not_ask_for_says_what_to_do() -> None:
    unwanted = {outcome for outcome, code in EXIT_CODES.items() if code == 1} - {Outcome.NOT_RUN} | {Outcome.DRIFT}
    assert unwanted == NEXT.keys()


def test_every_verdict_on_records_says_what_to_do() -> None:
    assert OF_RECORDS.keys() - {Verdict.VERIFIED} == REMEDIES.keys()


def test_what_a_wait_can_end_with_is_read() -> None:
    assert "it does not exist yet" in pending()


class TestReading:
    def test_words_are_followed_to_where_they_are_written(self) -> None:
        (found,) = read("""
from runbooks.errors import UsageError

AGAIN = "try again"

def remedy(path: str) -> str:
    return f"mend {path}"

def work(path: str, full: bool) -> None:
    if not path:
        said = "never said"
        return
    said = "the disk is full" if full else f"there is no {path}"
    raise UsageError(f"reading {path}", said, remedy(path) if full else AGAIN)
""")
        path = f"{OPEN}path{CLOSE}"
        assert (f"reading {path}",) == found.title
        assert ("the disk is full", f"there is no {path}") == found.said
        assert "try again" in found.remedy

    def test_one_that_is_worded_by_a_function_stands_at_each_of_its_callers(self) -> None:
        found = read("""
from runbooks.errors import RecordError

def lost(name: str, said: str) -> RecordError:
    return RecordError(f"reading {name}", said, "look again")

def first() -> None:
    raise lost("a", "it is gone")

def second() -> None:
    raise lost("b", "it is empty")
""")
        assert [("it is gone",), ("it is empty",)] == [one.said for one in found]
        assert ["runbooks.example:5"] * 2 == [one.made for one in found]
        assert [8, 11] == [one.line for one in found]

    @pytest.mark.parametrize(
        ("arguments", "lacks"),
        [
            ('"reading", "it is gone"', "remedy"),
            ('"reading", "it is gone", nothing', "remedy"),
            ('"reading", "", "look again"', "said"),
        ],
    )
    def test_an_error_without_cause_or_remedy_is_seen(self, arguments: str, lacks: str) -> None:
        text = 'from runbooks.errors import UsageError\n\ndef work() -> None:\n    nothing = ""\n'
        (found,) = read(f"{text}    raise UsageError({arguments})\n")
        assert () == getattr(found, lacks)

    def test_a_class_without_a_place_on_the_page_is_seen(self) -> None:
        new = type("Unheard", (errors.RunbookError,), {})
        with pytest.raises(LookupError, match="for Unheard"):
            group_of(new)


def test_the_readme_leads_to_the_page() -> None:
    assert f"(docs/{PAGE.name})" in (PAGE.parents[1] / "README.md").read_text()
