"""What an entry says about a run."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from runbooks.errors import NotChecked
from runbooks.record import statement
from runbooks.record.statement import Place

PLACE = Place(
    "an-archive", "result", 3, "ab" * 32, "a-run", {"start": "cd" * 32}, dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
)
CHANGE = {
    "step": "set-backend",
    "target": "KnativeServing knative-serving/knative-serving",
    "operation": "update",
    "fields": [{"path": "spec.config.observability[metrics.backend-destination]", "old": None, "new": "prometheus"}],
}
OUTCOME: dict[str, Any] = {
    "view": "outcome",
    "brief": ["done"],
    "section": "6.4.4",
    "runbook": "6.4.4-enable-serving-metrics",
    "version": "0.1.0",
    "mode": "apply",
    "outcome": "done and proven",
    "reason": "1 written, 1 effect proven",
    "exit_code": 0,
    "target": {"server": "https://api:6443", "cluster_id": "c-1", "user": "engineer", "mode": "apply"},
    "parameters": {"change_ticket": "CHG1", "reason": "metrics"},
    "preconditions": [{"title": "rights", "verdict": "met"}],
    "plan": {"digest": "plan-sha256:00", "changes": [CHANGE]},
    "applied": [
        {"step": "set-backend", "target": CHANGE["target"], "operation": "update", "at": "t", "audit_id": "a-1"}
    ],
    "waited": [{"target": "x", "ready": True}],
    "checks": [{"title": "on", "proof": "proven", "expected": "1", "observed": "1"}],
    "requests": {"GET": 3},
    "started": "2026-11-22T23:59:00.000+00:00",
    "finished": "2026-11-23T00:00:00.000+00:00",
}


def test_every_question_of_an_auditor_has_its_field() -> None:
    found = statement.predicate(PLACE, {**OUTCOME, "machine": {"host": "bastion", "os_user": "root"}})
    assert {"user": "engineer", "host": "bastion", "os_user": "root"} == found["actor"]
    assert {"server": "https://api:6443", "cluster_id": "c-1"} == found["cluster"]
    assert {"ticket": "CHG1", "reason": "metrics"} == found["change"]
    assert "6.4.4" == found["runbook"]["section"]
    assert {"id": "a-run", "start": "cd" * 32} == found["run"]
    assert "2026-11-23T00:00:00.000Z" == found["time"]["signed"]
    assert ["before", "after"] == [check["when"] for check in found["checks"]]
    assert {"outcome": "done and proven", "reason": OUTCOME["reason"], "exit_code": 0} == found["outcome"]
    assert ("result", 3, "ab" * 32) == (found["phase"], found["sequence"], found["previous"])
    assert "other" not in found


def test_an_object_has_old_and_new_values_and_the_audit_id_of_its_write() -> None:
    [found] = statement.objects(OUTCOME)
    assert CHANGE["fields"] == found["fields"]
    assert (True, "a-1", "t") == (found["written"], found["audit_id"], found["at"])
    [planned] = statement.objects({**OUTCOME, "applied": []})
    assert not planned["written"]


def test_a_write_that_was_not_planned_is_told_too() -> None:
    found = statement.objects({"applied": [{"step": "s", "target": "Secret a/b", "audit_id": "a-2"}]})
    assert [("Secret a/b", False)] == [(one["target"], one["planned"]) for one in found]


def test_nothing_that_is_known_is_dropped() -> None:
    assert {"weather": "rain"} == statement.predicate(PLACE, {**OUTCOME, "weather": "rain"})["other"]


def test_bytes_that_were_no_text_and_values_that_are_no_json_do_not_stop_a_record() -> None:
    text = statement.make(PLACE, {"a": "00" * 32}, {"reason": b"\xff".decode(errors="surrogateescape"), "odd": {1, 2}})
    assert "\udcff" == json.loads(text)["predicate"]["outcome"]["reason"]


def test_a_statement_is_read_back() -> None:
    read = statement.read(statement.make(PLACE, {"a.ipynb": "00" * 32}, OUTCOME), "a")
    assert {"a.ipynb": "00" * 32} == read.subjects
    assert "done and proven" == read.predicate["outcome"]["outcome"]


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"_type": "x", "predicateType": "y"}', b"[" * 100_000])
def test_a_statement_of_another_kind_could_not_be_checked(text: bytes) -> None:
    with pytest.raises(NotChecked, match="no change record"):
        statement.read(text, "a")


def test_what_comes_later_counts_and_what_it_leaves_out_stays() -> None:
    found = statement.overall([{"phase": "start", "time": {"started": 1}}, {"phase": "result", "time": {"signed": 2}}])
    assert {"phase": "result", "time": {"started": 1, "signed": 2}} == found


def test_what_follows_from_the_plan_is_kept() -> None:
    following = [{"step": "gateways", "said": "none of its Pods restarts"}]
    told = {**OUTCOME, "plan": {**OUTCOME["plan"], "consequences": following}}
    assert following == statement.predicate(PLACE, told)["plan"]["consequences"]
