"""6.4.1: what each section asks for, judged before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runbooks_sandbox import lifecycle
from runbooks_sandbox.world import CONTROL_PLANES, GATEWAYS, INGRESS_CONFIGS, KNATIVE_SERVINGS
from tests.cluster.test_runs import limited
from tests.conftest import Sandbox

NUMBER = "6.4.1"
MESH, SERVING = "istio-system", "knative-serving"


def verdicts(outcome: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The verdict of each item, by section and title."""
    return {(finding["section"], finding["title"]): finding["verdict"] for finding in outcome["preconditions"]}


@pytest.mark.parametrize("mode", ["plan", "apply", "verify"])
def test_on_a_fresh_cluster_all_is_met_or_comes_and_nothing_is_written(sandbox: Sandbox, mode: str) -> None:
    outcome = sandbox.play(NUMBER, mode)
    assert 0 == outcome["exit_code"], outcome["reason"]
    found = verdicts(outcome)
    assert {"met", "left to a later runbook"} == set(found.values())
    coming = {key for key, verdict in found.items() if verdict == "left to a later runbook"}
    serving = "Knative Serving is installed with Istio as its ingress"
    assert {("6.4.4", serving), ("6.4.6", serving)} <= coming
    assert ("6.4.3", "Secret istio-system/wildcard-certs holds a usable certificate") in coming
    assert [] == sandbox.writes()


def test_after_the_whole_path_everything_is_met(integrated: Sandbox) -> None:
    outcome = integrated.play(NUMBER, "verify")
    assert "as desired" == outcome["outcome"], outcome["reason"]
    assert {"met"} == set(verdicts(outcome).values())


def test_every_section_of_the_path_is_judged(integrated: Sandbox) -> None:
    sections = {finding["section"] for finding in integrated.play(NUMBER)["preconditions"]}
    assert {"", "6.4.2", "6.4.3", "6.4.4", "6.4.6"} == sections


def test_the_kourier_path_is_judged_where_kourier_serves(new_sandbox: Callable[..., Sandbox]) -> None:
    found = new_sandbox(ingress="kourier")
    outcome = found.play(NUMBER, ingress="kourier")
    assert 0 == outcome["exit_code"], outcome["reason"]
    assert {"", "6.4.5"} == {finding["section"] for finding in outcome["preconditions"]}
    wrong = found.play(NUMBER)
    assert ("blocked", 1) == (wrong["outcome"], wrong["exit_code"])
    assert "6.4.5" in {finding["see"] for finding in wrong["preconditions"] if finding["verdict"] == "not met"}
    lifecycle.stop(found.state)


Change = Callable[[Sandbox], None]


def _no_control_plane(sandbox: Sandbox) -> None:
    sandbox.api.delete(CONTROL_PLANES, MESH, "basic")


def _dotted_template(sandbox: Sandbox) -> None:
    network = {"domain-template": "{{.Name}}.{{.Namespace}}.{{.Domain}}"}
    spec = {"ingress": {"istio": {"enabled": True}}, "config": {"network": network}}
    manifest = {"apiVersion": KNATIVE_SERVINGS.api_version, "kind": KNATIVE_SERVINGS.kind, "spec": spec}
    sandbox.api.apply({**manifest, "metadata": {"name": SERVING, "namespace": SERVING}}, KNATIVE_SERVINGS, "admin")


def _other_gateway(sandbox: Sandbox) -> None:
    lifecycle.switch(sandbox.state, "second-gateway", "", on=True)


def _no_domain(sandbox: Sandbox) -> None:
    sandbox.patch(INGRESS_CONFIGS, "", "cluster", {"spec": {"domain": None}})


CASES: dict[str, tuple[Change, dict[str, Any], str, str, str]] = {
    "no control plane": (_no_control_plane, {}, "6.4.3", "A ServiceMeshControlPlane is ready", "not met"),
    "names of two labels": (_dotted_template, {}, "", "Host names have one label below the domain", "not met"),
    "another Gateway": (_other_gateway, {}, "6.4.3", "No other Gateway claims port 443 for every host", "not met"),
    "no domain": (_no_domain, {}, "6.4.3", "The wildcard matches the cluster's domain", "could not tell"),
    "a custom domain before Serving": (
        lambda _: None,
        {"custom_domains": ["www.example.org"]},
        "",
        "Custom domains are mapped",
        "left to a later runbook",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_amiss_is_told_with_what_to_do(sandbox: Sandbox, case: str) -> None:
    change, parameters, section, title, verdict = CASES[case]
    change(sandbox)
    outcome = sandbox.play(NUMBER, **parameters)
    assert verdict == verdicts(outcome)[section, title]
    finding = next(one for one in outcome["preconditions"] if (one["section"], one["title"]) == (section, title))
    assert finding["remedy"]
    assert (1 if verdict in ("not met", "could not tell") else 0) == outcome["exit_code"]


def test_service_mesh_3_is_recognised_and_named(sandbox: Sandbox) -> None:
    resource = "/apis/operators.coreos.com/v1alpha1/namespaces/openshift-operators/clusterserviceversions"
    old = sandbox.api.request("GET", resource)["items"][0]
    sandbox.api.request("DELETE", f"{resource}/{old['metadata']['name']}")
    spec = {**old["spec"], "version": "3.0.0"}
    name = {"name": "servicemeshoperator3.v3.0.0", "namespace": "openshift-operators"}
    body = {"apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": name, "spec": spec}
    sandbox.api.request("POST", resource, body)
    for stated in ("", "2.6"):
        outcome = sandbox.play(NUMBER, mesh_version=stated)
        assert "blocked" == outcome["outcome"]
        assert "3.0.0 is installed, which is not supported: the procedure is Service Mesh 2's" in outcome["reason"]


def test_missing_rights_are_listed_for_each_section(integrated: Sandbox) -> None:
    kubeconfig = limited(integrated, "reader")
    outcome = integrated.play(NUMBER, kubeconfig=kubeconfig)
    assert "blocked" == outcome["outcome"]
    rights = [one for one in outcome["preconditions"] if one["title"] == "The account has the rights that are needed"]
    assert ["6.4.2", "6.4.3", "6.4.4", "6.4.6"] == [one["section"] for one in rights]
    assert "patch secrets wildcard-certs in namespace istio-system" in rights[0]["said"]
    assert "patch servicemeshcontrolplanes.maistra.io basic in namespace istio-system" in rights[2]["said"]


def test_gateways_of_another_mesh_do_not_count(integrated: Sandbox) -> None:
    server = {"port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"]}
    manifest = {"apiVersion": GATEWAYS.api_version, "kind": GATEWAYS.kind}
    spec = {"selector": {"istio": "another-gateway"}, "servers": [server]}
    integrated.api.apply(
        {**manifest, "metadata": {"name": "theirs", "namespace": "default"}, "spec": spec}, GATEWAYS, "another-team"
    )
    assert 0 == integrated.play(NUMBER)["exit_code"]
