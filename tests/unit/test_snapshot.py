"""What was read of a cluster, as one value."""

from __future__ import annotations

import pytest

from runbooks.errors import Forbidden, NotServed, ServerRefused
from runbooks.kinds import GATEWAY, KNATIVE_SERVING, NAMESPACE, SECRET, ObjectRef
from runbooks.snapshot import Live, Read, Snapshot


def live(name: str, namespace: str = "", **more: str) -> Live:
    return {"metadata": {"name": name, **({"namespace": namespace} if namespace else {})}, **more}


ONE, TWO = live("a", "one"), live("a", "two")
SNAPSHOT = Snapshot(
    {
        Read(SECRET, "one"): (ONE, live("b", "one")),
        Read(SECRET, "two"): (TWO,),
        Read(NAMESPACE): (live("one"), live("two")),
    },
    {
        Read(KNATIVE_SERVING, "knative-serving"): NotServed("listing", "the server could not find it", status=404),
        Read(GATEWAY): Forbidden("listing", "gateways is forbidden", status=403),
        Read(GATEWAY, "one"): ServerRefused("listing", "etcd is away", status=500),
    },
)


def test_objects_are_found_across_reads_and_within_a_namespace() -> None:
    assert (ONE, live("b", "one"), TWO) == SNAPSHOT.objects(SECRET)
    assert (TWO,) == SNAPSHOT.objects(SECRET, "two")
    assert SNAPSHOT.objects(SECRET, "three") == SNAPSHOT.objects(GATEWAY) == ()


def test_one_object_is_found_by_namespace_and_name() -> None:
    assert SNAPSHOT.get(SECRET, "two", "a") is TWO
    assert SNAPSHOT.get(SECRET, "two", "b") is None
    # a cluster-scoped object has no namespace, whatever is asked for
    assert SNAPSHOT.get(NAMESPACE, "", "one") == SNAPSHOT.get(NAMESPACE, "any", "one") == live("one")
    assert SNAPSHOT.of(ObjectRef(SECRET, "one", "a")) is ONE
    assert SNAPSHOT.of(ObjectRef(GATEWAY, "one", "a")) is None


def test_an_object_that_two_reads_found_is_one_object_and_the_later_look_counts() -> None:
    fresh = live("a", "one", type="Opaque")
    snapshot = Snapshot({Read(SECRET, "one"): (ONE,), Read(SECRET, "one", "a"): (fresh,)})
    assert (fresh,) == snapshot.objects(SECRET)


@pytest.mark.parametrize("whole_first", [True, False])
def test_an_object_that_was_read_whole_is_not_hidden_by_a_look_at_its_metadata(whole_first: bool) -> None:
    whole, metadata = live("a", "one", type="Opaque"), live("a", "one")
    found = {Read(SECRET, "one", "a"): (whole,), Read(SECRET, "one", metadata_only=True): (metadata, live("b", "one"))}
    snapshot = Snapshot(found if whole_first else dict(reversed(found.items())))
    assert whole == snapshot.get(SECRET, "one", "a")
    assert live("b", "one") == snapshot.get(SECRET, "one", "b")


def test_a_later_look_is_added_to_an_earlier_one() -> None:
    fresh = live("a", "one", type="Opaque")
    refused = {Read(NAMESPACE): Forbidden("listing", "no longer", status=403)}
    both = SNAPSHOT.plus(Snapshot({Read(SECRET, "one"): (fresh,)}, refused))
    assert (fresh, TWO) == both.objects(SECRET)
    assert "no longer" == both.unreadable(NAMESPACE)
    assert "gateways is forbidden" == both.unreadable(GATEWAY)
    assert (ONE, live("b", "one"), TWO) == SNAPSHOT.objects(SECRET)


def test_what_was_refused_says_why() -> None:
    assert [
        "",
        "the server could not find it",
        "gateways is forbidden",
    ] == [SNAPSHOT.unreadable(kind) for kind in (SECRET, KNATIVE_SERVING, GATEWAY)]
    assert [False, True, False] == [SNAPSHOT.not_served(kind) for kind in (SECRET, KNATIVE_SERVING, GATEWAY)]
    assert [False, False, True] == [SNAPSHOT.forbidden(kind) for kind in (SECRET, KNATIVE_SERVING, GATEWAY)]


def test_refusals_are_what_was_not_answered_and_a_missing_kind_is_an_answer() -> None:
    reads = [Read(SECRET, "one"), Read(GATEWAY), Read(GATEWAY, "one"), Read(KNATIVE_SERVING, "knative-serving")]
    assert ("gateways is forbidden", "etcd is away") == SNAPSHOT.refusals(reads)
    assert () == SNAPSHOT.refusals([])


def test_a_newer_refusal_takes_the_older_answer_away() -> None:
    away = ServerRefused("listing", "etcd is away", status=500)
    renewed = SNAPSHOT.renewed(Snapshot({Read(SECRET, "two"): ()}, {Read(NAMESPACE): away}))
    assert (ONE, live("b", "one")) == renewed.objects(SECRET)
    assert () == renewed.objects(NAMESPACE)
    assert ("etcd is away",) == renewed.refusals([Read(NAMESPACE)])


@pytest.mark.parametrize(
    ("read", "shown"),
    [
        (Read(SECRET, "one", "a"), "Secret a in one"),
        (Read(SECRET, "one"), "Secret objects in one"),
        (Read(NAMESPACE), "Namespace objects"),
        (Read(NAMESPACE, name="one"), "Namespace one"),
    ],
)
def test_a_read_reads_as_a_person_would_say_it(read: Read, shown: str) -> None:
    assert shown == str(read)
