"""The version matrix: from ClusterServiceVersions, or what a parameter states, to a profile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.snapshot import Live
from runbooks.versions import (
    EVERY_VERSION,
    Operator,
    Profile,
    Range,
    SecretFiltering,
    Version,
    Versions,
    detect,
    profile,
)

Csv = Callable[..., Live]
numbers = st.integers(0, 999)


def serverless(version: str, phase: str = "Succeeded", message: str = "", *, stated: bool = False) -> Operator:
    return Operator("serverless-operator", Version.parse(version), phase, message, stated)


def mesh(version: str, phase: str = "Succeeded", *, stated: bool = False) -> Operator:
    return Operator("servicemeshoperator", Version.parse(version), phase, stated=stated)


# --- versions ----------------------------------------------------------------------------------------------------


@given(numbers, numbers, numbers)
def test_a_version_is_read_back_as_it_is_shown(major: int, minor: int, patch: int) -> None:
    version = Version(major, minor, patch)
    assert version == Version.parse(str(version))
    assert Version(major, minor, 0) == Version.parse(f"{major}.{minor}")


def test_versions_are_ordered_as_numbers() -> None:
    texts = ["2.0.5", "1.38.0", "1.9.0", "1.26.3", "1.26", "2.0.4"]
    assert [
        "1.9.0",
        "1.26.0",
        "1.26.3",
        "1.38.0",
        "2.0.4",
        "2.0.5",
    ] == [str(version) for version in sorted(map(Version.parse, texts))]


@pytest.mark.parametrize("text", ["", "1", "1.2.3.4", "v1.2", "1.x", "1.2-rc1"])
def test_what_is_no_version_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Version.parse(text)


# --- what a cluster reports --------------------------------------------------------------------------------------


def test_both_operators_are_found_among_others(csv: Csv) -> None:
    found = detect(
        [
            csv("serverless-operator.v1.33.2"),
            csv("servicemeshoperator.v2.6.0-0"),
            csv("kiali-operator.v1.73.0"),
            csv("jaeger-operator.v1.53.0-4"),
            csv("my-serverless-operator.v9.9.9"),
        ]
    )
    assert Versions(serverless("1.33.2"), mesh("2.6.0"), None, "ClusterServiceVersions") == found


def test_nothing_is_known_of_an_empty_cluster() -> None:
    assert Versions(None, None, None, "nowhere") == detect([])


def test_service_mesh_3_is_not_taken_for_service_mesh_2(csv: Csv) -> None:
    found = detect([csv("servicemeshoperator3.v3.1.0")])
    three = Operator("servicemeshoperator3", Version(3, 1, 0), "Succeeded")
    assert Versions(None, None, three, "ClusterServiceVersions") == found
    both = detect([csv("servicemeshoperator3.v3.1.0"), csv("servicemeshoperator.v2.6.2")])
    assert Versions(None, mesh("2.6.2"), three, "ClusterServiceVersions") == both


@pytest.mark.parametrize("newer_first", [False, True])
@pytest.mark.parametrize(
    ("phase", "message"),
    [("Installing", "waiting for deployment knative-openshift"), ("Pending", ""), ("Succeeded", "")],
)
def test_during_an_upgrade_the_newer_version_decides(csv: Csv, newer_first: bool, phase: str, message: str) -> None:
    listed = [
        csv("serverless-operator.v1.9.0", "Replacing"),
        csv("serverless-operator.v1.37.1", phase, message),
    ]
    found = detect(reversed(listed) if newer_first else listed)
    assert Versions(serverless("1.37.1", phase, message), None, None, "ClusterServiceVersions") == found


def test_an_operator_that_olm_has_not_looked_at_yet_has_no_phase() -> None:
    found = detect([{"metadata": {"name": "serverless-operator.v1.37.1"}}])
    assert serverless("1.37.1", "") == found.serverless


# --- what a parameter states -------------------------------------------------------------------------------------


def test_a_stated_version_stands_in_for_an_operator_that_was_not_found(csv: Csv) -> None:
    assert Versions(serverless("1.30", stated=True), mesh("2.3.1", stated=True), None, "parameters") == detect(
        [], serverless="1.30", mesh="2.3.1"
    )
    assert Versions(
        serverless("1.33.2"), mesh("2.3", stated=True), None, "ClusterServiceVersions and parameters"
    ) == detect([csv("serverless-operator.v1.33.2")], serverless="1.30", mesh="2.3")


def test_a_stated_version_never_overrules_the_cluster(csv: Csv) -> None:
    listed = [csv("serverless-operator.v1.33.2", "Failed"), csv("servicemeshoperator.v2.0.1")]
    assert Versions(serverless("1.33.2", "Failed"), mesh("2.0.1"), None, "ClusterServiceVersions") == detect(
        listed, serverless="1.38", mesh="2.6"
    )


# --- the profile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.25.4", Profile(Version(1, 25, 4))),
        ("1.26.0", Profile(Version(1, 26))),
        ("1.27.1", Profile(Version(1, 27, 1))),
        ("1.28.0", Profile(Version(1, 28))),
        ("1.38.7", Profile(Version(1, 38, 7))),
        # an unknown newer one is treated as the newest known
        ("1.39.0", Profile(Version(1, 38))),
        ("2.0.0", Profile(Version(1, 38))),
    ],
)
def test_the_profile_of_each_version(version: str, expected: Profile) -> None:
    assert expected == profile(Versions(serverless(version), None, None, ""))


@pytest.mark.parametrize(
    ("versions", "words", "inside", "outside"),
    [
        (EVERY_VERSION, "every version", ["0.1", "1.26", "9.9"], []),
        (Range(Version(1, 32)), "1.32 and later", ["1.32.0", "1.99"], ["1.31.9"]),
        (Range(before=Version(1, 28)), "before 1.28", ["1.26", "1.27.9"], ["1.28.0"]),
        (Range(Version(1, 28), Version(1, 32)), "1.28 and later, before 1.32", ["1.28", "1.31.9"], ["1.27.9", "1.32"]),
    ],
)
def test_a_range_of_versions(versions: Range, words: str, inside: list[str], outside: list[str]) -> None:
    assert words == str(versions)
    assert [] == [text for text in inside if Version.parse(text) not in versions]
    assert [] == [text for text in outside if Version.parse(text) in versions]


def test_without_an_operator_the_profile_is_the_documented_one() -> None:
    assert Profile(Version(1, 26)) == profile(detect([]))


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("1.26.0", ["metrics.backend-destination"]),
        ("1.37.9", ["metrics.backend-destination"]),
        ("1.38.0", ["metrics-protocol", "request-metrics-protocol"]),
        ("1.40.0", ["metrics-protocol", "request-metrics-protocol"]),
    ],
)
def test_the_keys_that_send_metrics_to_prometheus(version: str, keys: list[str]) -> None:
    found = profile(Versions(serverless(version), None, None, ""))
    assert dict.fromkeys(keys, "prometheus") == found.observability(strict=False)
    # the documented key, also where the version ignores it
    assert {"metrics.backend-destination": "prometheus"} == found.observability(strict=True)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.26.0", SecretFiltering.ANNOTATION),
        ("1.27.9", SecretFiltering.ANNOTATION),
        ("1.28.0", SecretFiltering.DEPRECATED_ANNOTATION),
        ("1.31.9", SecretFiltering.DEPRECATED_ANNOTATION),
        ("1.32.0", SecretFiltering.DEFAULT),
        ("1.40.0", SecretFiltering.DEFAULT),
    ],
)
def test_what_decides_on_the_filter_of_secrets(version: str, expected: SecretFiltering) -> None:
    assert expected is profile(Versions(serverless(version), None, None, "")).secret_filtering
