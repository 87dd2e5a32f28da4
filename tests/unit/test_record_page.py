"""Pages of records: whatever a record holds, a page shows it and obeys none of it."""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import json
import re
import zoneinfo
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from runbooks.cli import cli
from runbooks.errors import SecretFound, UsageError
from runbooks.keeper import MIME
from runbooks.record import index, keys, page, verification
from runbooks.record.archive import Archive, Record
from runbooks.record.log import Entry
from runbooks.record.page import Clock, Line, Subject
from runbooks.record.verification import Found, Judged, Verdict

MADE = dt.datetime(2026, 11, 23, 20, 0, tzinfo=dt.UTC)
CLOCK = Clock(MADE, zoneinfo.ZoneInfo("Asia/Tokyo"), "Asia/Tokyo")
EVIL = (
    "\"'><script src=http://evil.example/x.js></script><img src=x onerror=alert(1)>"
    "&lt;\u202etxt\u200b\x00\ud800</style>"
)
VOID = {"meta", "link", "img", "br", "rect", "line"}


class Looked(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def entry(phase: str, sequence: int = 1) -> Entry:
    return Entry(sequence, phase, "20261123T135816Z-6.4.3-apply-3f9a2c", "ab" * 32, "2026-11-23T13:58:16.123Z")


def subject(
    facts: Mapping[str, Any],
    notebook: Mapping[str, Any] | None = None,
    phases: Sequence[str] = ("start", "result"),
    **more: Any,
) -> Subject:
    entries = tuple(entry(phase, number) for number, phase in enumerate(phases, 1))
    record = Record(entries[0].record, Path("/archive/records") / entries[0].record, entries)
    judged = more.pop("judged", Judged(record.id, record.state))
    return Subject(
        record, facts, notebook, more.pop("missing", ""), judged, "rollback not checked", ("id", "/archive"), **more
    )


def show(*args: Any, **more: Any) -> str:
    return page.record_page(subject(*args, **more), CLOCK, "../../index.html")


def code(
    name: str, value: Mapping[str, Any] | None = None, start: int = 0, took: int = 1, **more: Any
) -> dict[str, Any]:
    begin = MADE + dt.timedelta(seconds=start)
    timing = {"start_time": begin.isoformat(), "end_time": (begin + dt.timedelta(seconds=took)).isoformat()}
    data = {MIME: value, "text/plain": "twin", "text/html": "<b>never</b>"} if value else {}
    outputs = [{"output_type": "execute_result", "data": data}] if data else []
    papermill = {**timing, "status": "completed"}
    return {
        "cell_type": "code",
        "id": name,
        "source": "x",
        "metadata": {"papermill": papermill},
        "outputs": outputs,
        **more,
    }


WRITTEN = {"step": "gateways", "target": "Gateway a/b", "operation": "create", "at": "2026-11-23T13:58:17Z"}
NOTEBOOK = {
    "metadata": {},
    "cells": [
        {
            "cell_type": "markdown",
            "id": "title",
            "source": ["# 6.4.3 Integrate\n", "\nWith `code` and **bold**\n\n- one"],
        },
        code("connect"),
        code("apply-gateways", {"view": "applied", "step": "gateways", "written": [WRITTEN]}, 1, 3),
        code("prove-gateways", {"view": "proved", "step": "gateways", "checks": []}, 4),
        {
            "cell_type": "code",
            "id": "never",
            "source": "x",
            "metadata": {"papermill": {"status": "pending"}},
            "outputs": [],
        },
    ],
}
FACTS = {
    "runbook": {"section": "6.4.3", "name": "6.4.3-integrate", "mode": "apply", "version": "1"},
    "actor": {"user": "alice", "os_user": "root", "host": "bastion", "groups": ["admins"]},
    "cluster": {"server": "https://api.prod.example:6443", "sandbox": {"name": "s", "stands_in": "the operators"}},
    "time": {"started": "2026-11-23T13:58:16+00:00", "finished": "2026-11-23T16:00:00+00:00"},
    "change": {"ticket": "CHG1", "reason": "更新"},
    "outcome": {"outcome": "done and proven", "reason": "1 written", "ended_by": "completed"},
    "plan": {"digest": "plan-sha256:00"},
    "objects": [
        {**WRITTEN, "fields": [{"path": "spec.a", "old": 1, "new": {"b": True}}], "written": True, "audit_id": "a-1"},
        {"step": "x", "target": "Service a/c", "operation": "update", "fields": [], "written": False},
    ],
    "checks": [
        {"when": "after", "title": "Answers", "proof": "proven", "expected": "200", "observed": "20!", "way": "curl"},
        {"when": "before", "title": "Rights", "verdict": "met", "said": "all", "section": "6.4.1"},
    ],
    "waited": [{"target": "Gateway a/b", "ready": True, "said": "ready"}],
    "parameters": {"context": "prod"},
    "requests": {"GET": 1},
    "other": {"executed_by": "somebody"},
    "hygiene": {
        "hits": [{"cell": "connect", "secret": "tls.key", "form": "base64"}],
        "withheld": [{"name": "n", "sha256": "0", "kept": "q"}],
    },
    "cannot_be_vouched_for": ["who executed it"],
}  # fmt: skip


def spoilt(value: Any, evil: Any) -> Any:
    """The same with something else in place of every leaf."""
    if isinstance(value, Mapping):
        return {name: spoilt(part, evil) for name, part in value.items()}
    return [spoilt(part, evil) for part in value] if isinstance(value, list) else evil


def each_spoilt(value: Any, evil: Any) -> Iterator[Any]:
    """The same, over and over, each time with something else in another place."""
    yield evil
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from ({**value, name: other} for other in each_spoilt(part, evil))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from ([*value[:number], other, *value[number + 1 :]] for other in each_spoilt(part, evil))


def harmless(text: str) -> Looked:
    """No script, nothing from elsewhere, policy first, sound structure."""
    text.encode()
    looked = Looked(text)
    assert [] == looked.open
    assert not {"script", "iframe", "object", "embed", "base", "form", "foreignobject"} & {
        tag for tag, _ in looked.tags
    }
    assert "<script" not in text.lower()
    for tag, attributes in looked.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            assert not re.match(r"\s*(?!data:)[a-z]+:|//", attributes.get(name) or ""), attributes
    metas = looked.of("meta")
    assert ("content-security-policy", page.POLICY) == ((metas[1]["http-equiv"] or "").lower(), metas[1]["content"])
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page.POLICY
    ids = Counter(attributes["id"] for _, attributes in looked.tags if attributes.get("id"))
    assert not [name for name, count in ids.items() if count > 1]
    for _, attributes in looked.tags:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)
        assert (attributes.get("href") or "")[:1] != "#" or (attributes["href"] or "")[1:] in ids
    assert len(looked.of("table")) == len(looked.of("caption"))
    assert "en" == looked.of("html")[0]["lang"]
    levels = [int(tag[1]) for tag, _ in looked.tags if re.fullmatch("h[1-6]", tag)]
    assert (1, 1) == (levels[0], levels.count(1))
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert not re.search("[\x00\u202e\u200b\ud800]", text)
    return looked


def test_the_page_answers_what_where_who_when_and_how() -> None:
    words = harmless(show(FACTS, NOTEBOOK)).words
    for said in (
        *("6.4.3 Integrate", "mode apply", "https://api.prod.example:6443", "Sandbox s", "the operators", "alice"),
        *("2026-11-23 13:58:16 UTC (22:58:16 Asia/Tokyo)", "2026-11-23 16:00:00 UTC (2026-11-24 01:00:00 Asia/Tokyo)"),
        *("Done and proven: 1 written", "spec.a: 1 → {\"b\": true}", "a-1", "Answers", "20!", "curl"),
        *("verified", "result.dsse.json", "CHG1", "更新", "1 code cells never ran", "rollback not checked", "somebody"),
    ):  # fmt: skip
        assert said in words


def test_the_picture_has_a_bar_for_each_cell_and_marks_writes() -> None:
    looked = harmless(show(FACTS, NOTEBOOK))
    bars = [
        one
        for one in looked.of("rect")
        if (one.get("class") or "").startswith("bar") and "%" in (one.get("width") or "")
    ]
    assert ["bar ", "bar write", "bar prove"] == [one["class"] for one in bars]
    assert ["0.00%", "20.00%", "80.00%"] == [one["x"] for one in bars]
    assert "apply 3.00 s, 1 written, from 1.00 s to 4.00 s" in looked.words
    assert len(looked.of("desc")) == len([one for one in looked.of("svg") if one.get("role") == "img"]) == 2


def test_hostile_values_in_every_field_stay_values() -> None:
    looked = harmless(
        show(
            spoilt(FACTS, EVIL),
            spoilt(NOTEBOOK, EVIL),
            missing=EVIL,
            judged=Judged(EVIL, EVIL, (Found(Verdict.TAMPERED, EVIL),)),
        )
    )
    assert "<script src=http://evil.example/x.js></script>" in looked.words
    assert "&lt;⟨U+202E⟩txt⟨U+200B⟩⟨U+0000⟩⟨U+D800⟩</style>" in looked.words


def test_hostile_names_stay_names() -> None:
    facts = {"parameters": {EVIL: EVIL}, "change": {EVIL: EVIL}, EVIL: {EVIL: EVIL}, "outcome": {EVIL: EVIL}}
    assert "⟨U+202E⟩" in harmless(show(facts)).words


@pytest.mark.parametrize("evil", [None, 7, "x", [], {}, [None], {"a": [1]}, True])
def test_no_field_of_another_kind_breaks_a_page(evil: Any) -> None:
    for facts in each_spoilt(FACTS, evil):
        if isinstance(facts, Mapping):
            show(facts)
    for notebook in each_spoilt(NOTEBOOK, evil):
        show(FACTS, notebook)


def output(**fields: Any) -> str:
    return show({}, {"cells": [{"cell_type": "code", "id": "c", "source": "", "outputs": [fields]}]})


def test_a_million_characters_are_cut_and_it_says_so() -> None:
    text = output(output_type="stream", text="x" * 1_000_000)
    assert "(980,000 more characters)" in text
    assert len(text) < 60_000


def test_many_cells_and_rows_are_cut_and_it_says_so() -> None:
    cells = [code(f"c{number}", source="y" * 15_000) for number in range(100)]
    assert "more cells are in the notebook itself" in show({}, {"cells": cells})
    objects = [{"target": f"Pod a/{number}", "operation": "create", "written": True} for number in range(2_000)]
    assert "1,500 more rows are in the record itself" in show({"objects": objects})


def test_outputs_are_text_and_never_markup() -> None:
    assert "<b>never</b>" not in show(FACTS, NOTEBOOK)
    assert "Not shown here: text/html" in output(output_type="display_data", data={"text/html": "<b>x</b>"})
    trace = output(output_type="error", traceback=["\x1b[31mTraceback\x1b[0m", "oops"])
    assert "<pre>Traceback\noops</pre>" in trace


def test_a_picture_is_shown_where_it_is_one() -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\nrest").decode()
    assert f'src="data:image/png;base64,{png}"' in output(output_type="display_data", data={"image/png": png + "\n"})
    for other in (base64.b64encode(b"<svg onload=x>").decode(), '"><script>', "é"):
        looked = harmless(output(output_type="display_data", data={"image/png": other, "text/plain": "twin"}))
        assert ([], True) == (looked.of("img"), "twin" in looked.words)


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        (("start",), "Unfinished. It vanished"),
        (("start", "intent", "recovery"), "Recovered. It vanished"),
        (("adoption",), "Adopted. Something else executed"),
    ],
)
def test_what_is_no_finished_run_says_what_it_is(phases: Sequence[str], said: str) -> None:
    assert said in harmless(show({"objects": []}, None, phases)).words


def test_withheld_says_so_and_shows_no_notebook() -> None:
    words = harmless(show(FACTS, None, missing="no executed notebook belongs to this record")).words
    assert "Withheld: a secret was found" in words
    assert "No executed notebook belongs to this record." in words


def test_a_tampered_record_is_not_to_be_relied_on() -> None:
    judged = Judged("id", "finished", (Found(Verdict.TAMPERED, "result.dsse.json is not what the log names"),))
    assert "Do not rely on this page: tampered" in harmless(show({}, judged=judged)).words


@pytest.mark.parametrize(
    ("facts", "notebook", "became"),
    [
        ({"requests": {"GET": 1}}, None, "not written"),
        ({}, None, "announced, not known whether written"),
        ({}, NOTEBOOK, "written"),
        ({"journal": {"written": [WRITTEN]}}, None, "written"),
        ({"journal": {"under_way": [WRITTEN]}}, None, "under way when it vanished"),
        ({"runbook": {"mode": "plan"}}, None, "would change"),
    ],
)
def test_what_became_of_an_object_is_claimed_only_as_far_as_it_is_known(
    facts: Mapping[str, Any], notebook: Mapping[str, Any] | None, became: str
) -> None:
    planned = {"step": "gateways", "target": "Gateway a/b", "operation": "create", "written": False}
    assert f"1 {became}" in Looked(show({**facts, "objects": [planned]}, notebook, ("start", "intent"))).words


def test_without_a_zone_times_are_utc_alone() -> None:
    text = page.record_page(subject(FACTS), Clock(MADE))
    assert "2026-11-23 13:58:16 UTC</time> started" in text
    assert "Tokyo" not in text


def test_files_are_linked_only_where_they_lie_beside_the_page() -> None:
    assert 'href="result.dsse.json"' in show(FACTS)
    assert 'href="result.dsse.json"' not in show(FACTS, links=False)


def test_the_index_names_every_record() -> None:
    fields = {"runbook": EVIL, "mode": "apply", "outcome": EVIL, "reason": EVIL, "user": EVIL, "ticket": EVIL}
    lines = [
        Line(f"id-{number}", "finished", "2026-11-23T13:58:16Z", fields, "verified", f"{number}.html")
        for number in range(600)
    ]
    lines.append(Line("gone", "unfinished", "not a time", {}, "incomplete", ""))
    looked = harmless(page.index_page(lines, (EVIL, EVIL), "incomplete", [EVIL], EVIL, CLOCK))
    assert 600 == sum((one.get("href") or "").endswith(".html") for one in looked.of("a"))
    assert "601 records: 600 finished, 1 unfinished" in looked.words
    harmless(page.index_page([], ("id", "/archive"), "verified", [], "", CLOCK))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setenv("RUNBOOKS_KEY", str(tmp_path / "config" / "signing.key"))
    monkeypatch.setenv("RUNBOOKS_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(index.platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    return Archive.open(tmp_path / "records", signer=keys.create())


def run(archive: Archive, source: str = "shown") -> Path:
    begun = archive.begin({"section": "6.4.3", "mode": "apply"})
    notebook = begun.workspace / "6.4.3.ipynb"
    notebook.write_text(json.dumps({"cells": [{"cell_type": "code", "id": "c", "source": source, "outputs": []}]}))
    begun.finish(notebook, {"outcome": "done and proven", "reason": "1 written"})
    return begun.folder


def render(*words: object) -> Any:
    return CliRunner().invoke(cli, ["records", "render", *map(str, words)])


def test_pages_lie_in_the_archive_and_verification_knows_them(archive: Archive) -> None:
    folder, vanished = run(archive), archive.begin({"section": "6.4.2", "mode": "plan"})
    vanished.leave()
    assert 0 == render("--zone", "Asia/Tokyo").exit_code
    assert "shown" in harmless((folder / "record.html").read_text()).words
    assert "Unfinished" in harmless((vanished.folder / "record.html").read_text()).words
    everything = (archive.path / "index.html").read_text()
    assert f'href="records/{folder.name}/record.html"' in everything
    harmless(everything)
    report = verification.verify(archive, [keys.load().public])
    assert ((), ()) == (report.remarks, report.records[0].remarks)


def test_pages_elsewhere_and_one_by_one(archive: Archive, tmp_path: Path) -> None:
    first, second = run(archive), run(archive)
    assert 0 == render(first.name, "-o", tmp_path / "pages").exit_code
    assert {"index.html", f"{first.name}.html"} == {path.name for path in (tmp_path / "pages").iterdir()}
    everything = (tmp_path / "pages" / "index.html").read_text()
    assert (True, False) == (f'href="{first.name}.html"' in everything, f'href="{second.name}.html"' in everything)
    assert second.name in everything


def test_a_notebook_that_is_not_what_was_signed_is_not_shown(archive: Archive) -> None:
    folder = run(archive, "signed")
    notebook = folder / "6.4.3.ipynb"
    notebook.write_text(notebook.read_text().replace("signed", "altered"))
    assert 0 == render().exit_code
    words = harmless((folder / "record.html").read_text()).words
    assert "Do not rely on this page: tampered" in words
    assert ("is not what was signed" in words, "altered" in words) == (True, False)


@pytest.mark.parametrize("spoil", [b"", b"{}", b"\xff"])
def test_an_envelope_that_cannot_be_read_still_has_a_page(archive: Archive, spoil: bytes) -> None:
    folder = run(archive)
    (folder / "result.dsse.json").write_bytes(spoil)
    assert 0 == render().exit_code
    assert "tampered" in harmless((folder / "record.html").read_text()).words


def test_a_page_with_a_secret_in_it_is_not_written(archive: Archive) -> None:
    good, bad = run(archive), run(archive, "password = sha256~" + "Ab1" * 15)
    result = render()
    assert isinstance(result.exception, SecretFound)
    assert (True, False) == ((good / "record.html").exists(), (bad / "record.html").exists())


@pytest.mark.parametrize(
    "words", [("--zone", "Asia/Nowhere"), ("--zone", "../../etc/passwd"), ("nothing",), ("x", "--all")]
)
def test_what_is_asked_for_has_to_make_sense(archive: Archive, words: Sequence[str]) -> None:
    run(archive)
    assert isinstance(render(*words).exception, UsageError)


def test_what_the_plan_said_would_follow_and_who_else_manages_is_shown() -> None:
    plan = {"digest": "plan-sha256:00", "consequences": [{"step": "member-roll", "said": f"shop closes {EVIL}"}]}
    managed = [{"manager": "argocd", "operation": "Apply", "since": "2026-02-01T00:00:00Z"}]
    key = {"path": "data[tls.key]", "old": "‹secret›", "new": "‹secret›", "secret": {"old": 1, "new": 2}}
    one = {**WRITTEN, "fields": [key], "written": True, "managed_by": managed}
    words = harmless(show({**FACTS, "plan": plan, "objects": [one]})).words
    assert "What the plan said would follow:" in words
    assert "shop closes" in words
    assert "also managed by argocd (last 2026-02-01T00:00:00Z)" in words
    assert "‹secret› (#1)" in words
    assert "would follow" not in harmless(show(FACTS)).words
