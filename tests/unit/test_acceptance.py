"""What istiod says about the Gateways, read from its analysis and from its counters."""

from __future__ import annotations

import pytest

from runbooks.checks.acceptance import analysed, rejected
from runbooks.snapshot import Live


def gateway(generation: int, observed: object, *levels: tuple[str, str]) -> Live:
    messages = [{"level": level, "type": {"code": code}} for level, code in levels]
    status = {"observedGeneration": observed, "validationMessages": messages}
    return {"metadata": {"name": "knative-ingress-gateway", "generation": generation}, "status": status}


def test_a_conflict_is_told_and_nothing_else() -> None:
    said = analysed(gateway(2, "2", ("ERROR", "IST0145"), ("WARNING", "IST0138")))
    assert ["knative-ingress-gateway: IST0145, another Gateway claims the same port and hosts"] == [
        one.partition(";")[0] for one in said or ()
    ]
    assert [] == analysed(gateway(2, 2, ("ERROR", "IST0101")))


def test_an_analysis_of_an_earlier_generation_says_nothing() -> None:
    assert [] == analysed(gateway(3, "3", ("WARNING", "IST0138")))
    assert analysed(gateway(3, "2", ("ERROR", "IST0145"))) is None
    assert analysed({"metadata": {"name": "knative-ingress-gateway", "generation": 1}}) is None


METRICS = """\
# HELP pilot_info Pilot version and build information.
# TYPE pilot_info gauge
pilot_info{version="1.14"} 1
"""
REJECTED = """\
# HELP pilot_total_rejected_configs Total number of configs that Pilot had to reject or ignore.
# TYPE pilot_total_rejected_configs counter
pilot_total_rejected_configs{name="knative-serving/knative-local-gateway",type="gateway"} 3
pilot_total_rejected_configs{name="other/knative-local-gateway",type="gateway"} 1
pilot_total_rejected_configs{name="knative-serving/hello",type="virtualservice"} 1
"""


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (METRICS, {}),
        (METRICS + REJECTED, {"knative-local-gateway": 3}),
        ("# TYPE go_info gauge\ngo_info 1\n", None),
        ("", None),
        (METRICS + REJECTED[:-20], None),
        (METRICS + "# " + "x" * 4 * 1024 * 1024, None),
    ],
)
def test_the_counters_tell_of_our_gateways_only(text: str, counts: dict[str, int] | None) -> None:
    assert counts == rejected(text)
