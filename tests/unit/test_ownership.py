"""Who set a field: managedFields as API servers write them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runbooks.ownership import Owner, Path, others, owners

LIVE = yaml.safe_load("""
metadata:
  name: knative-serving
  annotations: {sidecar.istio.io/inject: "true", example.com/team: shop}
  managedFields:
  - manager: runbooks-6.4.3
    operation: Apply
    time: "2026-01-01T00:00:00Z"
    fieldsV1:
      f:metadata:
        f:annotations: {"f:sidecar.istio.io/inject": {}}
      f:spec:
        f:ingress: {f:istio: {f:enabled: {}}}
        f:members: {}
        f:ports:
          k:{"port":80,"protocol":"TCP"}: {.: {}, f:port: {}, f:targetPort: {}}
        f:finalizers:
          v:"one": {}
        f:numbers:
          v:8444: {}
  - manager: kubectl-edit
    operation: Update
    time: "2026-02-01T00:00:00Z"
    fieldsV1:
      f:metadata:
        f:annotations: {.: {}, "f:example.com/team": {}}
      f:spec:
        f:ingress: {f:istio: {f:enabled: {}}, f:kourier: {.: {}, f:enabled: {}}}
        f:ports:
          k:{"port":443,"protocol":"TCP"}: {.: {}, f:port: {}, f:targetPort: {}}
        f:finalizers:
          v:"two": {}
  - manager: operator
    operation: Update
    subresource: status
    time: "2026-03-01T00:00:00Z"
    fieldsV1: {f:status: {f:ready: {}}, f:spec: {f:members: {}}}
spec:
  ingress: {istio: {enabled: true}, kourier: {enabled: false}}
  members: [knative-serving, default]
  ports:
  - {port: 80, protocol: TCP, targetPort: 8081}
  - {port: 443, protocol: TCP, targetPort: 8443}
  finalizers: [one, two]
  numbers: [8444, 8022]
status: {ready: true}
""")

RUNBOOK = Owner("runbooks-6.4.3", "Apply", "2026-01-01T00:00:00Z")
EDITOR = Owner("kubectl-edit", "Update", "2026-02-01T00:00:00Z")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("spec", "ingress", "istio", "enabled"), (RUNBOOK, EDITOR)),
        (("spec", "ingress", "kourier", "enabled"), (EDITOR,)),
        (("spec", "ingress", "contour", "enabled"), ()),
        (("spec", "ingress"), (RUNBOOK, EDITOR)),
        (("metadata", "annotations", "sidecar.istio.io/inject"), (RUNBOOK,)),
        (("metadata", "annotations", "example.com/team"), (EDITOR,)),
        (("metadata", "annotations", "example.com/other"), ()),
        # a list that the server keeps as one piece belongs to one manager with all that is in it
        (("spec", "members"), (RUNBOOK,)),
        (("spec", "members", 1), (RUNBOOK,)),
        (("spec", "members", 7, "deeper"), (RUNBOOK,)),
        # entries of a list with keys belong to whoever set the entry of those keys, wherever it stands now
        (("spec", "ports", 0, "targetPort"), (RUNBOOK,)),
        (("spec", "ports", 1, "targetPort"), (EDITOR,)),
        (("spec", "ports", 1), (EDITOR,)),
        (("spec", "ports", 1, "nodePort"), ()),
        (("spec", "ports", 2), ()),
        # so do the values of a set
        (("spec", "finalizers", 0), (RUNBOOK,)),
        (("spec", "finalizers", 1), (EDITOR,)),
        (("spec", "numbers", 0), (RUNBOOK,)),
        (("spec", "numbers", 1), ()),
        # an operator that writes a status owns nothing of what people write
        (("status", "ready"), ()),
    ],
    ids=lambda value: ".".join(map(str, value)) if value and not isinstance(value[0], Owner) else "",
)
def test_the_owners_of_a_field(path: Path, expected: tuple[Owner, ...]) -> None:
    assert expected == owners(LIVE, path)


@pytest.mark.parametrize("live", [{}, {"metadata": {}}, {"metadata": {"managedFields": []}}])
def test_nobody_is_known_where_the_server_kept_no_book(live: dict[str, Any]) -> None:
    assert () == owners(live, ("spec", "members"))


def test_an_entry_without_names_is_shown_with_what_it_has() -> None:
    live = {"metadata": {"managedFields": [{"fieldsV1": {"f:spec": {}}}, {"manager": "old"}]}}
    assert (Owner("?", "?", ""),) == owners(live, ("spec", "members"))


def test_who_else_manages_an_object_is_named_once_with_the_last_write() -> None:
    def entry(manager: str, time: str, fields: str = "f:spec", **more: str) -> dict[str, Any]:
        return {"manager": manager, "operation": "Update", "time": time, "fieldsV1": {fields: {}}, **more}

    entries = [
        entry("runbooks-6.4.3", "2026-03-01T00:00:00Z"),
        entry("runbooks-lists", "2026-03-01T00:00:00Z"),
        entry("kubectl-edit", "2026-02-01T00:00:00Z"),
        entry("kubectl-edit", "2026-01-01T00:00:00Z", "f:metadata"),
        entry("operator", "2026-03-01T00:00:00Z", subresource="status"),
        entry("older-operator", "2026-03-01T00:00:00Z", "f:status"),
        entry("argocd", "2026-01-05T00:00:00Z"),
    ]
    found = others({"metadata": {"managedFields": entries}}, "runbooks-")
    assert [
        Owner("argocd", "Update", "2026-01-05T00:00:00Z"),
        Owner("kubectl-edit", "Update", "2026-02-01T00:00:00Z"),
    ] == list(found)
    assert () == others({"metadata": {}}, "runbooks-")
