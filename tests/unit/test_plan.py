"""The plan: comparison, masking, digest, what the server answers, and what is sent."""

from __future__ import annotations

import base64
import copy
import json
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runbooks import manifests, plan
from runbooks.certificates import Pair
from runbooks.kinds import GATEWAY, POD, SECRET, ObjectRef
from runbooks.ownership import Owner, Path
from runbooks.plan import (
    Addition,
    Change,
    Desired,
    DesiredFile,
    DesiredRestart,
    Difference,
    FieldChange,
    Operation,
    Plan,
    SharedList,
    Waits,
)

MEMBERS = SharedList(("spec", "members"))
DEPLOYMENTS = SharedList(("spec", "deployments"), key="name")
EDITOR = Owner("kubectl-edit", "Update", "2026-02-01T00:00:00Z")
SECRET_REF = ObjectRef(SECRET, "istio-system", "wildcard-certs")


def serving(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "operator.knative.dev/v1beta1",
        "kind": "KnativeServing",
        "metadata": {"name": "knative-serving", "namespace": "knative-serving", **metadata},
        "spec": spec,
    }


def roll(*members: str) -> Desired:
    return Desired(manifests.member_roll("istio-system", members), shared_lists=(MEMBERS,))


def patched(document: Any, patch: list[dict[str, Any]]) -> Any:
    """What an API server makes of a JSON patch (RFC 6902); a test for null also holds where there is nothing."""
    document = copy.deepcopy(document)
    for operation in patch:
        *above, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        parent = document
        for step in above:
            parent = parent[int(step)] if isinstance(parent, list) else parent[step]
        key = int(last) if isinstance(parent, list) and last != "-" else last
        match operation["op"]:
            case "test":
                there = parent[key] if isinstance(parent, list) else parent.get(key)
                assert operation["value"] == there, "the test of the patch fails"
            case "add" if isinstance(parent, list):
                parent.insert(len(parent) if key == "-" else key, copy.deepcopy(operation["value"]))
            case "replace":
                assert isinstance(parent, list) or key in parent, "there is nothing to replace"
                parent[key] = copy.deepcopy(operation["value"])
            case "add":
                parent[key] = copy.deepcopy(operation["value"])
            case other:
                raise AssertionError(f"a shared list is never changed by {other}")
    return document


def merged(live: Any, wanted: Any) -> Any:
    """What the object is after server-side apply, lists taken as one piece."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        return {**live, **{key: merged(live.get(key), value) for key, value in wanted.items()}}
    return copy.deepcopy(wanted)


keys = st.sampled_from(["a", "b", "c.d", "e/f", "g~h", "i~1j"])
scalars = st.one_of(st.booleans(), st.integers(-2, 2), st.sampled_from(["", "x", "true", "1"]))
values = st.recursive(
    scalars,
    lambda below: st.one_of(st.lists(below, max_size=2), st.dictionaries(keys, below, min_size=1, max_size=3)),
    max_leaves=8,
)
specs = st.dictionaries(keys, values, min_size=1, max_size=3)


# --- comparing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "live", "leaves"),
    [
        # the server's defaults and other people's fields are no difference
        ({"a": 1}, {"a": 1, "b": 2}, []),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": {"d": 1}}, "e": 1}, []),
        ({"a": 1}, {"a": 2}, [(("spec", "a"), 2, 1)]),
        ({"a": {"b": 1, "c": 2}}, {}, [(("spec", "a", "b"), None, 1), (("spec", "a", "c"), None, 2)]),
        # a value of another type is another value
        ({"a": True}, {"a": 1}, [(("spec", "a"), 1, True)]),
        ({"a": "1"}, {"a": 1}, [(("spec", "a"), 1, "1")]),
        ({"a": 1}, {"a": 1.0}, [(("spec", "a"), 1.0, 1)]),
        ({"a": "text"}, {"a": {"b": 1}}, [(("spec", "a"), {"b": 1}, "text")]),
        # lists of the same length are compared entry by entry, all others as one value
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1, "c": 0}, {"b": 3}]}, [(("spec", "a", 1, "b"), 3, 2)]),
        ({"a": [1, 2]}, {"a": [1]}, [(("spec", "a"), [1], [1, 2])]),
        ({"a": [1]}, {}, [(("spec", "a"), None, [1])]),
        ({"a": []}, {"a": []}, []),
        ({"a": []}, {}, [(("spec", "a"), None, [])]),
        # an empty mapping says something: podSelector: {} means every Pod
        ({"a": {}}, {}, [(("spec", "a"), None, {})]),
        ({"a": {}}, {"a": {}}, []),
    ],
)
def test_a_difference_is_what_was_sent_and_is_not_there(
    wanted: dict[str, Any], live: dict[str, Any], leaves: list[tuple[Path, Any, Any]]
) -> None:
    operation = Operation.UPDATE if leaves else Operation.UNCHANGED
    found = plan.compare(Desired(serving(wanted)), serving(live))
    assert Difference(operation, tuple(leaves), ()) == found


def test_what_addresses_an_object_is_no_field_of_it_and_labels_and_annotations_are() -> None:
    wanted = serving({}, labels={"a": "b"}, annotations={"c": "d"})
    live = serving({}, labels={"a": "b", "more": "x"}, annotations={"c": "e"}, uid="1", resourceVersion="2")
    assert Difference(Operation.UPDATE, ((("metadata", "annotations", "c"), "e", "d"),), ()) == plan.compare(
        Desired(wanted), live | {"apiVersion": "operator.knative.dev/v2"}
    )


@given(specs, specs)
def test_what_was_applied_is_unchanged_and_nothing_else_is(wanted: dict[str, Any], live: dict[str, Any]) -> None:
    desired = Desired(serving(wanted))
    assert plan.compare(desired, serving(merged(live, wanted))).operation is Operation.UNCHANGED
    difference = plan.compare(desired, serving(live))
    assert (difference.operation is Operation.UNCHANGED) is (difference.leaves == ())
    for path, old, new in difference.leaves:
        assert (new, old) == (plan.at(serving(wanted), path), plan.at(serving(live), path))
        assert old != new or type(old) is not type(new)


def test_an_object_that_is_not_there_is_created_with_every_field() -> None:
    found = plan.compare(Desired(manifests.local_gateway_http()), None)
    assert (
        Difference(
            Operation.CREATE,
            (
                (("spec", "selector", "istio"), None, "ingressgateway"),
                (
                    ("spec", "servers"),
                    None,
                    [{"port": {"number": 8081, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
                ),
            ),
            (),
        )
        == found
    )


def test_an_exact_list_differs_where_somebody_added_anything_inside_of_it() -> None:
    wanted = {"ingress": [{"from": [{"a": 1}]}]}
    live = {"ingress": [{"from": [{"a": 1}], "ports": [{"port": 80}]}]}
    assert Operation.UNCHANGED is plan.compare(Desired(serving(wanted)), serving(live)).operation
    desired = Desired(serving(wanted), exact=(("spec", "ingress"),))
    leaf = (("spec", "ingress"), live["ingress"], wanted["ingress"])
    assert Difference(Operation.UPDATE, (leaf,), ()) == plan.compare(desired, serving(live))
    assert Operation.UNCHANGED is plan.compare(desired, serving(wanted | {"more": 1})).operation


# --- shared lists ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("live", "missing"),
    [
        ({"members": ["knative-serving", "shop", "theirs"]}, ()),
        ({"members": ["theirs", "shop"]}, ("knative-serving",)),
        ({"members": []}, ("knative-serving", "shop")),
        ({"members": None}, ("knative-serving", "shop")),
        ({}, ("knative-serving", "shop")),
    ],
)
def test_only_what_a_shared_list_lacks_is_a_difference(live: dict[str, Any], missing: tuple[str, ...]) -> None:
    additions = (Addition(MEMBERS, missing),) if missing else ()
    operation = Operation.UPDATE if missing else Operation.UNCHANGED
    found = plan.compare(roll("knative-serving", "shop"), {"metadata": {}, "spec": live})
    assert Difference(operation, (), additions) == found


def test_an_entry_of_the_same_name_gets_what_it_lacks_and_never_a_second_one() -> None:
    sent = manifests.knative_serving()
    live = serving(
        {
            "ingress": {"istio": {"enabled": True}},
            "deployments": [
                {"name": "webhook", "replicas": 3},
                {"name": "autoscaler", "annotations": {manifests.INJECT: "false", "theirs": "x"}},
            ],
        }
    )
    activator, _ = sent["spec"]["deployments"]
    lacks = (
        (("annotations", manifests.INJECT), "true"),
        (("annotations", manifests.REWRITE_PROBES), "true"),
    )
    found = plan.compare(Desired(sent, shared_lists=(DEPLOYMENTS,)), live)
    assert Difference(Operation.UPDATE, (), (Addition(DEPLOYMENTS, (activator,), ((1, lacks),)),)) == found
    (addition,) = found.additions
    after = patched(live, plan.list_patch(addition, live))
    assert [
        {"name": "webhook", "replicas": 3},
        {
            "name": "autoscaler",
            "annotations": {manifests.INJECT: "true", "theirs": "x", manifests.REWRITE_PROBES: "true"},
        },
        activator,
    ] == after["spec"]["deployments"]


names = st.sampled_from(["activator", "autoscaler", "webhook", "controller"])
flat = st.dictionaries(keys, st.sampled_from(["true", "false", ""]), min_size=1, max_size=3)
workloads = st.fixed_dictionaries(
    {"name": names},
    optional={
        "annotations": flat,
        "labels": flat,
        "replicas": st.integers(0, 3),
        "resources": st.dictionaries(st.sampled_from(["limits", "requests"]), flat, min_size=1),
    },
)


def entries(minimum: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(workloads, min_size=minimum, max_size=4, unique_by=lambda found: str(found["name"]))


absent = st.sampled_from([{"metadata": {}}, {"metadata": {}, "spec": {}}, {"metadata": {}, "spec": None}])


def live_with(name: str, lists: st.SearchStrategy[list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    present = st.builds(lambda found, more: serving({**more, name: found}), st.one_of(st.none(), lists), specs)
    return st.one_of(absent, present)


def extended(desired: Desired, live: dict[str, Any]) -> dict[str, Any]:
    after = live
    for addition in plan.compare(desired, live).additions:
        after = patched(live, plan.list_patch(addition, live))
    return after


@given(live_with("members", st.lists(names, unique=True)), st.lists(names, unique=True, min_size=1))
def test_a_shared_list_of_values_only_grows_and_then_is_as_wanted(live: dict[str, Any], wanted: list[str]) -> None:
    desired = Desired(serving({"members": wanted}), shared_lists=(MEMBERS,))
    after = extended(desired, live)
    before = plan.at(live, ("spec", "members")) or []
    assert plan.compare(desired, after).operation is Operation.UNCHANGED
    assert before == after["spec"]["members"][: len(before)]
    assert {*before, *wanted} == set(after["spec"]["members"])
    assert len(set(after["spec"]["members"])) == len(after["spec"]["members"])


@given(live_with("deployments", entries(0)), entries(1))
def test_a_shared_list_of_entries_only_grows_and_then_is_as_wanted(
    live: dict[str, Any], wanted: list[dict[str, Any]]
) -> None:
    desired = Desired(serving({"deployments": wanted}), shared_lists=(DEPLOYMENTS,))
    after = extended(desired, live)
    assert plan.compare(desired, after).operation is Operation.UNCHANGED
    before = plan.at(live, ("spec", "deployments")) or []
    by_name = {entry["name"]: entry for entry in wanted}
    grown = [merged(entry, by_name.get(entry["name"], {})) for entry in before]
    there = {entry["name"] for entry in before}
    assert grown + [entry for entry in wanted if entry["name"] not in there] == after["spec"]["deployments"]


def test_an_entry_without_any_annotations_gets_all_of_them() -> None:
    desired = Desired(manifests.knative_serving(), shared_lists=(DEPLOYMENTS,))
    live = serving({"deployments": [{"name": "activator", "replicas": 3}, {"name": "autoscaler", "annotations": None}]})
    activator, autoscaler = manifests.knative_serving()["spec"]["deployments"]
    assert [activator | {"replicas": 3}, autoscaler] == extended(desired, live)["spec"]["deployments"]


def test_a_list_inside_an_entry_gets_the_wanted_value_in_place_of_the_old_one() -> None:
    desired = Desired(serving({"deployments": [{"name": "activator", "args": ["new"]}]}), shared_lists=(DEPLOYMENTS,))
    live = serving({"deployments": [{"name": "activator", "args": ["old"]}]})
    assert [{"name": "activator", "args": ["new"]}] == extended(desired, live)["spec"]["deployments"]


@pytest.mark.parametrize("read", [None, [], [{"name": "activator"}], [{"name": "webhook"}]])
def test_a_patch_fails_where_the_list_changed_since_it_was_read(read: list[dict[str, Any]] | None) -> None:
    desired = Desired(manifests.knative_serving(), shared_lists=(DEPLOYMENTS,))
    live, now = (serving({"deployments": found}) for found in (read, [{"name": "webhook", "replicas": 3}]))
    (addition,) = plan.compare(desired, live).additions
    with pytest.raises(AssertionError, match="the test of the patch fails"):
        patched(now, plan.list_patch(addition, live))


@pytest.mark.parametrize(
    ("live", "patch"),
    [
        (
            {"spec": {"members": ["theirs"]}},
            [
                {"op": "test", "path": "/spec/members", "value": ["theirs"]},
                {"op": "add", "path": "/spec/members/-", "value": "shop"},
            ],
        ),
        (
            {"spec": {}},
            [
                {"op": "test", "path": "/spec/members", "value": None},
                {"op": "add", "path": "/spec/members", "value": ["shop"]},
            ],
        ),
        (
            {},
            [
                {"op": "test", "path": "/spec", "value": None},
                {"op": "add", "path": "/spec", "value": {"members": ["shop"]}},
            ],
        ),
    ],
)
def test_the_patch_of_a_list(live: dict[str, Any], patch: list[dict[str, Any]]) -> None:
    assert patch == plan.list_patch(Addition(MEMBERS, ("shop",)), live)


# --- showing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (("spec", "servers", 0, "tls", "credentialName"), "spec.servers[0].tls.credentialName"),
        (("data", "tls.crt"), "data[tls.crt]"),
        (("metadata", "annotations", "sidecar.istio.io/inject"), "metadata.annotations[sidecar.istio.io/inject]"),
        (("spec",), "spec"),
    ],
)
def test_a_path_reads_as_a_person_would_write_it(path: Path, shown: str) -> None:
    assert shown == plan.show_path(path)


LIVE_GATEWAY = yaml.safe_load("""
metadata:
  name: knative-ingress-gateway
  namespace: knative-serving
  managedFields:
  - {manager: kubectl-edit, operation: Update, time: "2026-02-01T00:00:00Z", fieldsV1: {f:spec: {f:servers: {}}}}
spec:
  servers:
  - hosts: ["*"]
    port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: old-certs}
""")


def test_a_change_names_each_field_with_its_values_and_owners() -> None:
    desired = Desired(manifests.ingress_gateway("wildcard-certs"))
    found = plan.change_of("gateways", desired, LIVE_GATEWAY, plan.compare(desired, LIVE_GATEWAY))
    assert (
        Change(
            "gateways",
            "Gateway knative-serving/knative-ingress-gateway",
            ("networking.istio.io/v1alpha3", "Gateway", "knative-serving", "knative-ingress-gateway"),
            Operation.UPDATE,
            (
                FieldChange("spec.selector.istio", None, "ingressgateway"),
                FieldChange("spec.servers[0].tls.credentialName", "old-certs", "wildcard-certs", (EDITOR,)),
            ),
            managed_by=(EDITOR,),
        )
        == found
    )


def test_a_change_of_a_shared_list_names_the_entries_that_are_added_and_what_others_lack() -> None:
    wanted = [
        {"name": "activator", "annotations": {"a.b/c": "true"}},
        {"name": "autoscaler", "annotations": {"a.b/c": "true"}, "replicas": 2},
    ]
    desired = Desired(serving({"deployments": wanted}), shared_lists=(DEPLOYMENTS,))
    live = serving({"deployments": [{"name": "autoscaler", "replicas": 1}]})
    owned = {"f:spec": {"f:deployments": {}}}
    live["metadata"]["managedFields"] = [
        {"manager": "kubectl-edit", "operation": "Update", "time": EDITOR.since, "fieldsV1": owned}
    ]
    found = plan.change_of("serving", desired, live, plan.compare(desired, live))
    assert (
        FieldChange("spec.deployments[+]", None, wanted[0], (EDITOR,)),
        FieldChange("spec.deployments[autoscaler].annotations[a.b/c]", None, "true", (EDITOR,)),
        FieldChange("spec.deployments[autoscaler].replicas", 1, 2, (EDITOR,)),
    ) == found.fields


@pytest.mark.parametrize(
    ("content", "exists", "operation", "fields"),
    [
        (None, True, Operation.UNCHANGED, ()),
        (b"secret", False, Operation.CREATE, (FieldChange("content", None, "a new key"),)),
        (b"secret", True, Operation.UPDATE, (FieldChange("content", "the present file", "a new key"),)),
    ],
)
def test_a_change_of_a_file_shows_what_it_is_and_never_its_bytes(
    content: bytes | None, exists: bool, operation: Operation, fields: tuple[FieldChange, ...]
) -> None:
    found = plan.change_of_file("root", DesiredFile("/home/alice/c/root.key", content, "a new key", exists))
    identity = ("", "File", "", "root.key")
    assert Change("root", "File /home/alice/c/root.key", identity, operation, fields) == found


def test_the_restart_of_a_pod_is_shown_by_the_pod_and_known_by_its_workload() -> None:
    def restart(name: str) -> Change:
        ref = ObjectRef(POD, "knative-serving", name)
        what = "excluded inbound ports"
        return plan.change_of_restart(
            "restart", DesiredRestart(ref, "u-1", "Deployment activator", what, "none", "8444")
        )

    change = restart("activator-5d8f-abcde")
    assert change == Change(
        "restart",
        "Pod knative-serving/activator-5d8f-abcde",
        ("v1", "Pod", "knative-serving", "Deployment activator"),
        Operation.RESTART,
        (FieldChange("excluded inbound ports", "none", "8444"),),
    )
    # a Pod's own name is random
    assert Plan((change,)).digest == Plan((restart("activator-5d8f-zyxwv"),)).digest


def test_a_value_that_is_not_known_yet_is_shown_as_what_it_will_be() -> None:
    shown = {"data[tls.crt]": {"subject": "/CN=new"}, "data[tls.key]": "the key of this certificate"}
    desired = Desired(manifests.tls_secret("wildcard-certs", "istio-system", b"", b""), shown=shown)
    found = plan.change_of("secret", desired, None, plan.compare(desired, None))
    assert {"type": "kubernetes.io/tls", **shown} == {field.path: field.new for field in found.fields}


# --- masking -----------------------------------------------------------------------------------------------------


def test_equal_secrets_of_a_plan_share_a_number_and_nothing_else_is_left_of_them() -> None:
    wanted = {"tls.key": b"new", "tls.crt": b"chain", "password": b"same as before"}
    there = {"tls.key": b"old", "tls.crt": b"chain", "password": b"other"}
    desired = Desired(secret(wanted))
    change = plan.change_of("secret", desired, secret(there), plan.compare(desired, secret(there)))
    file = plan.change_of_file("key", DesiredFile("/c/wildcard.key", b"new", "a new key", False, (None, b"new")))
    numbered = plan.numbered([file, change])
    numbers = {item.path: item.numbers for one in numbered for item in one.fields}
    assert {"content": (None, 1), "data[tls.key]": (2, 1), "data.password": (3, 4)} == numbers
    assert {(None, None)} == {item.hidden for one in numbered for item in one.fields}
    assert not re.search("b'|same as before", repr([*change.fields, *file.fields]))
    assert Plan((file, change)).digest == Plan(numbered).digest


def test_a_secret_that_is_still_to_be_made_has_no_number() -> None:
    desired = Desired(secret({"tls.key": b""}))
    change = plan.change_of("secret", desired, None, plan.compare(desired, None))
    assert {(None, None)} == {item.numbers for item in plan.numbered([change])[0].fields}


def test_who_else_manages_an_object_and_what_follows_are_part_of_no_digest() -> None:
    desired = Desired(manifests.ingress_gateway("wildcard-certs"))
    change = plan.change_of("gateways", desired, LIVE_GATEWAY, plan.compare(desired, LIVE_GATEWAY))
    waits = Waits((change.target,), "gateways", ("prove-gateways",))
    bare = replace(change, managed_by=())
    assert Plan((bare,)).digest == Plan((replace(change, waits=waits),), (("gateways", "it is served"),)).digest


secrets = st.binary(min_size=12, max_size=40)
secret_keys = st.sampled_from(["tls.crt", "tls.key", "ca.crt", "password", "a/b"])


def secret(data: dict[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "wildcard-certs", "namespace": "istio-system"},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def leaked(shown: object, *contents: bytes) -> list[bytes]:
    text = repr(shown).encode() + json.dumps(shown, default=repr).encode()
    return [found for found in contents if base64.b64encode(found) in text or found in text]


@given(st.dictionaries(secret_keys, secrets, min_size=1), st.dictionaries(secret_keys, secrets), st.booleans())
def test_no_plan_shows_a_byte_of_a_secret(wanted: dict[str, bytes], there: dict[str, bytes], exists: bool) -> None:
    desired, live = Desired(secret(wanted)), secret(there) if exists else None
    change = plan.change_of("secret", desired, live, plan.compare(desired, live))
    answered = plan.admitted(change, desired, live, secret({**wanted, **there}))
    contents = [*wanted.values(), *there.values()]
    assert leaked(change, *contents) == leaked(answered, *contents) == []
    assert [] == leaked(plan.stale(change, replace(change, fields=())), *contents)


@pytest.mark.parametrize("field", ["data", "stringData"])
@pytest.mark.parametrize("key", ["tls.key", "password", "ca.crt"])
def test_the_values_of_a_secret_are_masked_under_every_key(field: str, key: str) -> None:
    assert "‹secret›" == plan.masked(SECRET_REF, (field, key), "c2VjcmV0")
    assert "‹secret›" == plan.masked(SECRET_REF, (field,), {key: "c2VjcmV0"})
    assert plan.masked(SECRET_REF, (field, key), None) is None


def test_a_certificate_is_shown_by_what_it_says_of_itself_even_where_its_key_stands_beside_it(leaf: Pair) -> None:
    mixed = base64.b64encode(leaf.key + leaf.chain).decode()
    found = plan.masked(SECRET_REF, ("data", "tls.crt"), mixed)
    assert {
        "subject": "/CN=*.apps.openshift.example.com/O=Example Inc.",
        "dns_names": ["*.apps.openshift.example.com"],
        "issuer": "/O=Example Inc./CN=example.com",
    } == {name: found[name] for name in ("subject", "dns_names", "issuer")}
    assert {"subject", "dns_names", "issuer", "fingerprint"} == found.keys()
    assert "‹not a certificate›" == plan.masked(SECRET_REF, ("data", "tls.crt"), base64.b64encode(leaf.key).decode())


def test_what_is_no_secret_is_shown_as_it_is() -> None:
    assert "x" == plan.masked(ObjectRef(GATEWAY, "a", "b"), ("data", "tls.key"), "x")
    assert "kubernetes.io/tls" == plan.masked(SECRET_REF, ("type",), "kubernetes.io/tls")
    assert "b" == plan.masked(SECRET_REF, ("metadata", "labels", "a"), "b")


# --- the digest --------------------------------------------------------------------------------------------------

field_changes = st.builds(FieldChange, st.sampled_from(["a", "b", "c[0]"]), st.none() | scalars, scalars)
changes = st.builds(
    Change,
    st.sampled_from(["one", "two"]),
    st.just("shown"),
    st.tuples(*[st.sampled_from(["x", "y"])] * 4),
    st.sampled_from([Operation.CREATE, Operation.UPDATE]),
    st.lists(field_changes, max_size=3).map(tuple),
)


@given(st.lists(changes, max_size=4), st.randoms(use_true_random=False))
def test_the_digest_does_not_depend_on_any_order(given: list[Change], random: Any) -> None:
    shuffled = [replace(change, fields=tuple(random.sample(change.fields, len(change.fields)))) for change in given]
    random.shuffle(shuffled)
    assert Plan(tuple(given)).digest == Plan(tuple(shuffled)).digest


@given(specs)
def test_the_digest_does_not_depend_on_the_order_of_keys(spec: dict[str, Any]) -> None:
    def digest_of(wanted: dict[str, Any]) -> str:
        desired = Desired(serving(wanted))
        return Plan((plan.change_of("s", desired, None, plan.compare(desired, None)),)).digest

    assert digest_of(spec) == digest_of(json.loads(json.dumps(spec, sort_keys=True)))


CHANGE = Change(
    "gateways", "Gateway a/b", ("v1", "Gateway", "a", "b"), Operation.UPDATE, (FieldChange("spec.x", 1, 2),)
)


@pytest.mark.parametrize(
    "other",
    [
        replace(CHANGE, step="elsewhere"),
        replace(CHANGE, target="File /home/bob/b"),
        replace(CHANGE, operation=Operation.CREATE),
        replace(CHANGE, takes_over=(("spec.x", EDITOR),), notes=("n",), rewritten=("spec.y",), problems=("p",)),
        replace(CHANGE, refused="the webhook said no"),
        replace(CHANGE, fields=(FieldChange("spec.x", 1, 2, (EDITOR,)),)),
    ],
)
def test_the_digest_does_not_depend_on_who_looks_and_from_where(other: Change) -> None:
    assert Plan((CHANGE,)).digest == Plan((other,)).digest


@pytest.mark.parametrize(
    "other",
    [
        *(
            replace(CHANGE, identity=(*CHANGE.identity[:at], "other", *CHANGE.identity[at + 1 :]))
            for at in range(len(CHANGE.identity))
        ),
        replace(CHANGE, fields=(FieldChange("spec.y", 1, 2),)),
        replace(CHANGE, fields=(FieldChange("spec.x", None, 2),)),
        replace(CHANGE, fields=(FieldChange("spec.x", 1, 3),)),
        replace(CHANGE, fields=(FieldChange("spec.x", 1, "2"),)),
        replace(CHANGE, fields=(*CHANGE.fields, FieldChange("spec.y", 1, 2))),
        replace(CHANGE, fields=()),
        replace(CHANGE, operation=Operation.UNCHANGED),
    ],
)
def test_the_digest_depends_on_object_field_old_and_new_value(other: Change) -> None:
    assert Plan((other,)).digest != Plan((CHANGE,)).digest


def test_the_digest_of_a_file_does_not_depend_on_its_folder() -> None:
    found = {
        Plan((plan.change_of_file("root", DesiredFile(f"{folder}/root.key", content, "a new key", False)),)).digest
        for folder, content in (("/home/alice/certificates", b"one"), ("/srv/c", b"two"))
    }
    assert 1 == len(found)


def test_the_digest_of_a_new_list_is_that_of_the_entries_to_add() -> None:
    # whether this run creates the object, or another one just did
    desired = roll("knative-serving", "shop")
    by_create, by_update = (
        plan.change_of("member-roll", desired, live, plan.compare(desired, live))
        for live in (None, {"metadata": {}, "spec": {"members": ["theirs"]}})
    )
    assert (Operation.CREATE, Operation.UPDATE) == (by_create.operation, by_update.operation)
    assert by_update.digests() == by_create.digests()


def test_the_digest_is_the_same_on_every_machine() -> None:
    desired = roll("knative-serving", "default")
    change = plan.change_of("member-roll", desired, None, plan.compare(desired, None))
    # written down, since a record that was signed with it has to be found again years later
    pinned = "plan-sha256:f77fcad1a3c211ba481505498f85c10f25b933bdad23f586726df769f7ed90b0"
    assert pinned == Plan((change,)).digest
    assert re.fullmatch(r"plan-sha256:[0-9a-f]{64}", Plan(()).digest)


def test_a_plan_tells_what_is_pending_what_is_wrong_and_what_belongs_to_a_step() -> None:
    same = replace(CHANGE, step="one", operation=Operation.UNCHANGED, fields=())
    bad = replace(CHANGE, step="two", problems=("it cannot be", "nor that"))
    found = Plan((same, CHANGE, bad))
    assert (CHANGE, bad) == found.pending
    assert ("Gateway a/b: it cannot be", "Gateway a/b: nor that") == found.problems
    assert (same,) == found.of_step("one")
    assert () == found.refused
    refused = replace(CHANGE, refused="the webhook said no")
    assert ("Gateway a/b: the webhook said no",) == Plan((same, refused)).refused
    assert Plan(()).digest == Plan((same,)).digest


# --- the server's opinion ----------------------------------------------------------------------------------------

WANTED = Desired(serving({"a": 1, "b": {"c": "text"}, "d": [1, 2]}))


def changed(desired: Desired, live: dict[str, Any] | None) -> Change:
    return plan.change_of("step", desired, live, plan.compare(desired, live))


def test_an_answer_with_defaults_changes_nothing_about_a_change() -> None:
    change = changed(WANTED, None)
    answer = merged({"z": 1, "spec": {"default": True, "b": {"more": 1}}}, WANTED.manifest)
    assert change == plan.admitted(change, WANTED, None, answer)


def test_a_value_that_admission_rewrites_is_planned_as_rewritten() -> None:
    change = changed(WANTED, None)
    answer = serving({"a": 1, "b": {"c": "TEXT"}, "d": [1, 2]})
    assert replace(
        change,
        fields=(
            FieldChange("spec.a", None, 1),
            FieldChange("spec.b.c", None, "TEXT"),
            FieldChange("spec.d", None, [1, 2]),
        ),
        notes=("spec.b.c is changed by admission, from 'text' to 'TEXT'",),
        rewritten=("spec.b.c",),
    ) == plan.admitted(change, WANTED, None, answer)


def test_a_value_that_admission_rewrites_is_planned_as_rewritten_over_the_present_one() -> None:
    live = serving({"a": 1, "b": {"c": "old"}, "d": [1, 2]})
    found = plan.admitted(changed(WANTED, live), WANTED, live, serving({"a": 1, "b": {"c": "TEXT"}, "d": [1, 2]}))
    assert (Operation.UPDATE, (FieldChange("spec.b.c", "old", "TEXT"),)) == (found.operation, found.fields)


def test_a_value_that_was_rewritten_before_is_no_change_any_more() -> None:
    live = serving({"a": 1, "b": {"c": "TEXT"}, "d": [1, 2]})
    found = plan.admitted(changed(WANTED, live), WANTED, live, live)
    assert (Operation.UNCHANGED, ()) == (found.operation, found.fields)
    assert ("spec.b.c",) == found.rewritten


def test_other_changes_stay_where_one_was_rewritten_before() -> None:
    live = serving({"a": 2, "b": {"c": "TEXT"}, "d": [1, 2]})
    answer = serving({"a": 1, "b": {"c": "TEXT"}, "d": [1, 2]})
    found = plan.admitted(changed(WANTED, live), WANTED, live, answer)
    assert (Operation.UPDATE, (FieldChange("spec.a", 2, 1),)) == (found.operation, found.fields)


def test_a_field_that_the_server_drops_is_a_problem() -> None:
    found = plan.admitted(changed(WANTED, None), WANTED, None, serving({"a": 1, "d": [1, 2]}))
    assert 1 == len(found.problems)
    assert "the server silently drops spec.b.c; compare the operator's version" in found.problems[0]


@pytest.mark.parametrize(
    ("managers", "expected"),
    [
        ([("runbooks-6.4.4", "Apply")], [("spec.old", "by ours", None)]),
        # what another manager has as well stays, and what only another one has goes by nothing that is applied here
        ([("runbooks-6.4.4", "Apply"), ("kubectl-edit", "Update")], []),
        ([("somebody", "Update")], []),
    ],
)
def test_what_an_earlier_apply_of_ours_set_and_this_one_does_not_is_planned_to_go(
    managers: list[tuple[str, str]], expected: list[tuple[str, Any, Any]]
) -> None:
    live = serving({"a": 2, "b": {"c": "text"}, "d": [1, 2], "old": "by ours", "other": {"x": 1}})
    live["status"] = {"version": "1"}
    live["metadata"]["managedFields"] = [
        {"manager": name, "operation": how, "fieldsV1": {"f:spec": {"f:old": {}}}} for name, how in managers
    ]
    answer = serving({"a": 1, "b": {"c": "text"}, "d": [1, 2], "other": {"x": 1}})
    found = plan.admitted(changed(WANTED, live), WANTED, live, answer)
    assert [("spec.a", 2, 1), *expected] == [(item.path, item.old, item.new) for item in found.fields]


def test_what_the_server_says_of_a_shared_list_is_not_asked() -> None:
    desired = roll("knative-serving", "shop")
    change = changed(desired, None)
    assert change == plan.admitted(change, desired, None, {"metadata": {}, "spec": {"members": ["theirs"]}})


def test_a_conflict_with_a_person_is_taken_over_and_with_anybody_else_it_is_a_problem() -> None:
    live = {
        "metadata": {
            "managedFields": [
                {"manager": "kubectl-edit", "operation": "Update", "time": EDITOR.since},
                {"manager": "argocd", "operation": "Apply", "time": "2026-03-01T00:00:00Z"},
            ]
        }
    }
    causes = [("spec.a", "kubectl-edit"), ("spec.b", "argocd"), ("spec.c", "unheard-of")]
    found = plan.take_overs(causes, replace(CHANGE, problems=("before",)), live, ["kubectl-edit", "oc"])
    said = "which is not in take_over; settle it with its owner, or add the manager to take_over"
    assert (
        replace(
            CHANGE,
            takes_over=(("spec.a", EDITOR),),
            problems=(
                "before",
                f"spec.b belongs to the field manager argocd (since 2026-03-01T00:00:00Z), {said}",
                f"spec.c belongs to the field manager unheard-of (since an unknown time), {said}",
            ),
        )
        == found
    )


def test_nothing_is_taken_over_from_nobody() -> None:
    assert CHANGE == plan.take_overs([], CHANGE, {}, ["kubectl-edit"])


# --- what is sent ------------------------------------------------------------------------------------------------


def owned_by(manager: str, operation: str, members: list[str]) -> dict[str, Any]:
    fields = {"f:spec": {"f:members": {}}}
    return {
        "metadata": {
            "uid": "u-1",
            "resourceVersion": "77",
            "managedFields": [{"manager": manager, "operation": operation, "fieldsV1": fields}],
        },
        "spec": {"members": members},
    }


def test_a_new_object_is_sent_whole_and_never_over_one_that_appeared_in_between() -> None:
    desired = roll("knative-serving", "shop")
    sent = plan.applied_manifest(desired, None, "runbooks-6.4.3")
    expected = copy.deepcopy(desired.manifest)
    expected["metadata"]["resourceVersion"] = "1"
    assert expected == sent


@pytest.mark.parametrize(
    ("manager", "operation"), [("kubectl-edit", "Update"), ("runbooks-6.4.3", "Update"), ("runbooks-lists", "Update")]
)
def test_an_apply_leaves_a_shared_list_out(manager: str, operation: str) -> None:
    sent = plan.applied_manifest(roll("knative-serving"), owned_by(manager, operation, ["theirs"]), "runbooks-6.4.3")
    assert {
        "apiVersion": "maistra.io/v1",
        "kind": "ServiceMeshMemberRoll",
        "metadata": {"name": "default", "namespace": "istio-system", "uid": "u-1"},
        "spec": {},
    } == sent


def test_an_apply_repeats_a_shared_list_as_read_where_leaving_it_out_would_delete_it() -> None:
    live = owned_by("runbooks-6.4.3", "Apply", ["knative-serving", "theirs"])
    sent = plan.applied_manifest(roll("knative-serving", "shop"), live, "runbooks-6.4.3")
    assert {"members": ["knative-serving", "theirs"]} == sent["spec"]
    assert {
        "name": "default",
        "namespace": "istio-system",
        "uid": "u-1",
        "resourceVersion": "77",
    } == sent["metadata"]


def test_what_is_sent_shares_nothing_with_what_is_wanted() -> None:
    desired = roll("knative-serving")
    before = copy.deepcopy(desired)
    plan.applied_manifest(desired, owned_by("runbooks-6.4.3", "Apply", ["x"]), "runbooks-6.4.3")["spec"]["y"] = 1
    plan.applied_manifest(desired, None, "runbooks-6.4.3")["spec"]["members"].append("z")
    assert before == desired


# --- stale plans -------------------------------------------------------------------------------------------------


def with_fields(*fields: FieldChange, **more: Any) -> Change:
    return replace(CHANGE, fields=fields, **more)


A, B = FieldChange("spec.a", 1, 2), FieldChange("spec.b", None, {"x": 1})


@pytest.mark.parametrize(
    ("now", "planned", "expected"),
    [
        (with_fields(A, B), with_fields(A, B), ()),
        # somebody else made a part of it
        (with_fields(B), with_fields(A, B), ()),
        (with_fields(operation=Operation.UNCHANGED), with_fields(A, B), ()),
        # who owns the old value does not matter
        (with_fields(replace(A, owners=(EDITOR,))), with_fields(A), ()),
        (with_fields(A, B), with_fields(A), ("spec.b was not planned to change from None",)),
        (with_fields(replace(A, old=7)), with_fields(A), ("spec.a was not planned to change from 7",)),
        (with_fields(replace(A, new=7)), with_fields(A), ("spec.a was not planned to change from 1",)),
        (with_fields(replace(A, new="2")), with_fields(A), ("spec.a was not planned to change from 1",)),
        # the server rewrites it: what it is now says nothing
        (with_fields(replace(A, new=7)), with_fields(A, rewritten=("spec.a",)), ()),
    ],
)
def test_a_plan_is_stale_where_a_change_was_not_planned(
    now: Change, planned: Change, expected: tuple[str, ...]
) -> None:
    assert expected == plan.stale(now, planned)


def test_a_plan_to_update_is_stale_when_the_object_is_gone() -> None:
    live = serving({"a": 2, "b": {"c": "text"}, "d": [1, 2]})
    gone = plan.stale(changed(WANTED, None), changed(WANTED, live))
    assert tuple(f"{path} was not planned to change from None" for path in ("spec.a", "spec.b.c", "spec.d")) == gone


def test_a_plan_to_create_goes_on_where_another_run_created_the_object_meanwhile() -> None:
    assert () == plan.stale(changed(WANTED, serving({"a": 1})), changed(WANTED, None))
    assert ("spec.a was not planned to change from 5",) == plan.stale(
        changed(WANTED, serving({"a": 5})), changed(WANTED, None)
    )


def test_desired_names_its_object() -> None:
    assert "ServiceMeshMemberRoll istio-system/default" == str(roll("a").ref)


WRITTEN = Desired(manifests.local_gateway_http())


def _planned() -> plan.Change:
    return plan.change_of("gateways", WRITTEN, None, plan.compare(WRITTEN, None))


def _stored(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(dict(WRITTEN.manifest)), **changes}


def test_what_is_as_it_was_written_is_not_undone() -> None:
    assert () == plan.undone(_planned(), WRITTEN, _stored())


def test_what_was_written_and_is_gone_or_going_is_told() -> None:
    (said,) = plan.undone(_planned(), WRITTEN, None)
    assert said.endswith("was written, and is gone again")
    going = {**WRITTEN.manifest["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    (said,) = plan.undone(_planned(), WRITTEN, _stored(metadata=going))
    assert "it is being deleted (since 2026-01-01T00:00:00Z)" in said


def test_what_was_undone_is_told_with_who_has_written_since() -> None:
    live = _stored()
    live["spec"]["servers"][0]["hosts"] = ["nobody.example.com"]
    managers = [
        {"manager": "runbooks-6.4.3", "operation": "Apply", "time": "2026-01-01T00:00:02Z"},
        {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-01T00:00:01Z"},
        {"manager": "istiod", "operation": "Update", "time": "2026-01-01T00:00:03Z", "subresource": "status"},
    ]
    live["metadata"]["managedFields"] = managers
    (said,) = plan.undone(_planned(), WRITTEN, live)
    assert said.endswith("then undone: spec.servers[0].hosts[0] is 'nobody.example.com' and not '*'")
    managers[1] |= {"manager": "an-operator", "time": "2026-01-01T00:00:02Z"}
    (said,) = plan.undone(_planned(), WRITTEN, live)
    assert "then undone (written since by an-operator): " in said


def test_an_entry_that_was_taken_out_of_a_shared_list_is_told() -> None:
    desired = roll("default", "shop")
    planned = plan.change_of("member-roll", desired, None, plan.compare(desired, None))
    live = {"metadata": {"name": "default", "namespace": "istio-system"}, "spec": {"members": ["shop"]}}
    (said,) = plan.undone(planned, desired, live)
    assert said.endswith("then undone: spec.members[+] lacks 'default'")


def test_what_admission_rewrote_in_the_plan_already_is_not_undone() -> None:
    live = _stored()
    live["spec"]["servers"][0]["hosts"] = ["nobody.example.com"]
    (item,) = plan.change_of("gateways", WRITTEN, live, plan.compare(WRITTEN, live)).fields
    assert () == plan.undone(replace(_planned(), rewritten=(item.path,)), WRITTEN, live)
