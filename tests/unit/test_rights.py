"""Rights, and the RBAC objects that grant just those."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.kinds import GATEWAY, NAMESPACE, SECRET
from runbooks.rights import Right, roles

SUBJECT = {"kind": "ServiceAccount", "namespace": "ops", "name": "nightly"}


@pytest.mark.parametrize(
    ("right", "shown"),
    [
        (Right.on(SECRET, "get", "istio-system", "certs"), "get secrets certs in namespace istio-system"),
        (Right.on(GATEWAY, "list"), "list gateways.networking.istio.io"),
        (Right.on(NAMESPACE, "list", "ignored", "knative-serving"), "list namespaces knative-serving"),
        (Right("", "pods/portforward", "create", "shop"), "create pods/portforward in namespace shop"),
    ],
)
def test_a_right_reads_as_a_person_would_say_it(right: Right, shown: str) -> None:
    assert shown == str(right)


def test_the_roles_of_two_scopes() -> None:
    rights = [
        Right.on(SECRET, "patch", "istio-system", "wildcard-certs"),
        Right.on(SECRET, "get", "istio-system", "wildcard-certs"),
        Right.on(SECRET, "list", "istio-system"),
        Right.on(NAMESPACE, "list"),
    ]
    meta = {"name": "runbooks-6.4.2", "namespace": "istio-system"}
    group = "rbac.authorization.k8s.io"
    api = {"apiVersion": f"{group}/v1"}
    assert [
        {
            **api,
            "kind": "ClusterRole",
            "metadata": {"name": "runbooks-6.4.2"},
            "rules": [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list"]}],
        },
        {
            **api,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "runbooks-6.4.2"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "runbooks-6.4.2"},
            "subjects": [SUBJECT],
        },
        {
            **api,
            "kind": "Role",
            "metadata": meta,
            "rules": [
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]},
                {
                    "apiGroups": [""],
                    "resources": ["secrets"],
                    "verbs": ["get", "patch"],
                    "resourceNames": ["wildcard-certs"],
                },
            ],
        },
        {
            **api,
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "runbooks-6.4.2"},
            "subjects": [SUBJECT],
        },
    ] == roles(rights, "runbooks-6.4.2", SUBJECT)


def granted(objects: list[dict[str, Any]]) -> set[Right]:
    """What the API server would grant."""
    return {
        Right(group, resource, verb, role["metadata"].get("namespace", ""), name)
        for role in objects
        for rule in role.get("rules", [])
        for group, resource, verb, name in product(
            rule["apiGroups"], rule["resources"], rule["verbs"], rule.get("resourceNames", [""])
        )
    }


a_right = st.builds(
    Right,
    st.sampled_from(["", "apps", "maistra.io"]),
    st.sampled_from(["secrets", "pods", "pods/portforward"]),
    st.sampled_from(["get", "list", "create", "patch"]),
    st.sampled_from(["", "one", "two"]),
    st.sampled_from(["", "a", "b"]),
)


@given(st.lists(a_right))
def test_roles_grant_just_the_rights_and_each_is_bound(rights: list[Right]) -> None:
    made = roles(rights, "runbooks", SUBJECT)
    assert set(rights) == granted(made)
    bound = [(role["kind"] + "Binding", role["metadata"]) for role in made if "rules" in role]
    assert [(binding["kind"], binding["metadata"]) for binding in made if "subjects" in binding] == bound


@given(st.permutations([Right("", "secrets", verb, "one", "a") for verb in ("get", "list", "patch")]))
def test_the_order_of_the_rights_does_not_show(rights: list[Right]) -> None:
    (rule,) = roles(rights, "runbooks", SUBJECT)[0]["rules"]
    assert ["get", "list", "patch"] == rule["verbs"]
