"""Clusters that are broken: what is wrong with each, how it is brought about, and what a run makes of it.

The path is complete when an experiment begins; one step's object is taken away, the cause is brought about just before
the step is applied, and the run goes on to its end. Then the cause is removed, and a second run has to finish.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from typing import Any

import urllib3
import yaml

from runbooks import readiness
from runbooks.display import View
from runbooks.parameters import read_file
from runbooks.procedure import SECTIONS
from runbooks.step import open_runbook
from runbooks_sandbox.api import ApiError, Object, Resource
from runbooks_sandbox.credentials import STAND_INS
from runbooks_sandbox.world import (
    CONTROL_PLANES,
    CRDS,
    DEPLOYMENTS,
    GATEWAYS,
    KNATIVE_SERVICES,
    KNATIVE_SERVINGS,
    MEMBER_ROLLS,
    NAMESPACES,
    NETWORK_POLICIES,
    SECRETS,
    is_true,
)
from tests.conftest import ENGINEER, ROOT, Sandbox

MESH, SERVING, APPLICATION = "istio-system", "knative-serving", "default"
QUOTAS = Resource("v1", "resourcequotas", "ResourceQuota")
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations"
OTHER_VERSION = "v9"
TIMEOUT_S = 4
_TAKEN_OVER_S = 2  # until an API server uses a CRD or a webhook that it has just been given
WORDS = "not on a Friday, says the platform team"


@dataclass(frozen=True)
class Part:
    """A step of a section, and the object of it that a case is about.

    Args:
        section: the documented section.
        step: the step's id.
        resource: the object's kind.
        namespace: where it is.
        name: its name.
        undone: a merge patch that takes the step's work out of it again.
        amends: whether the section never creates it.
    """

    section: str
    step: str
    resource: Resource
    namespace: str
    name: str
    undone: Object
    amends: bool = False

    def __str__(self) -> str:
        return f"{self.section} {self.step}"

    @property
    def group(self) -> str:
        """The API group."""
        return self.resource.api_version.rpartition("/")[0]

    @property
    def crd(self) -> str:
        """The name of the kind's CRD; empty where it is built in."""
        return f"{self.resource.plural}.{self.group}" if "." in self.group and "k8s.io" not in self.group else ""


_PORTS: Object = {"spec": {"proxy": {"networking": {"trafficControl": {"inbound": {"excludedPorts": None}}}}}}
_ANNOTATION = "serverless.openshift.io/enable-secret-informer-filtering"
_SERVER = {"port": {"number": 8081, "name": "http", "protocol": "HTTP"}, "hosts": ["nobody.example.com"]}
_SIDECAR = {"spec": {"template": {"metadata": {"annotations": {"sidecar.istio.io/inject": "false"}}}}}
_ROLL = (MEMBER_ROLLS, MESH, "default")
_KNATIVE = (KNATIVE_SERVINGS, SERVING, SERVING)

ISTIO = (
    Part("6.4.2", "secret", SECRETS, MESH, "wildcard-certs", {"data": {"tls.crt": "eA=="}}),
    Part("6.4.3", "member-roll", *_ROLL, {"spec": {"members": []}}),
    Part("6.4.3", "gateways", GATEWAYS, SERVING, "knative-local-gateway", {"spec": {"servers": [_SERVER]}}),
    Part("6.4.3", "knative-serving", *_KNATIVE, {"spec": {"deployments": []}}),
    Part("6.4.3", "knative-service", KNATIVE_SERVICES, APPLICATION, "hello", _SIDECAR),
    Part("6.4.4", "exclude-port", CONTROL_PLANES, MESH, "basic", _PORTS, amends=True),
    Part("6.4.4", "set-backend", *_KNATIVE, {"spec": {"config": {"observability": None}}}, amends=True),
    Part("6.4.6", "annotation", *_KNATIVE, {"metadata": {"annotations": {_ANNOTATION: None}}}, amends=True),
)
_LABELS: Object = {"metadata": {"labels": {"knative.openshift.io/part-of": None}}}
KOURIER = (
    Part("6.4.5", "member-roll", *_ROLL, {"spec": {"members": []}}),
    Part("6.4.5", "system-labels", NAMESPACES, "", SERVING, _LABELS, amends=True),
    Part(
        "6.4.5",
        "network-policies",
        NETWORK_POLICIES,
        APPLICATION,
        "allow-from-serving-system-namespace",
        {"spec": {"ingress": None}},
    ),
)
PARTS = {"istio": ISTIO, "kourier": KOURIER}
PATHS = {"istio": ("6.4.2", "6.4.3", "6.4.4", "6.4.6"), "kourier": ("6.4.5",)}


# --- a cluster, and a run in it ----------------------------------------------------------------------------------


class Broken:
    """A sandbox with its path complete, in which things are broken and mended.

    Args:
        sandbox: a running one.
        ingress: which path it is for.
    """

    def __init__(self, sandbox: Sandbox, ingress: str = "istio") -> None:
        self.sandbox, self.api, self.ingress = sandbox, sandbox.api, ingress

    def parameters(self, number: str, **changes: object) -> dict[str, Any]:
        """The parameters of the environment for this path."""
        folder = ROOT / "parameters" / ("sandbox" if self.ingress == "istio" else "sandbox-kourier")
        stem = SECTIONS[number].stem
        values = read_file(folder / "cluster.yaml")
        if (folder / f"{stem}.yaml").exists():
            values |= read_file(folder / f"{stem}.yaml")
        state = self.sandbox.state
        own = {"kubeconfig": str(state.kubeconfig), "certificates_dir": str(state.certificates)}
        restarts = {"restart_pods": True} if number == "6.4.4" else {}  # or else Pods made meanwhile end the run with 1
        return {**values, **own, **restarts, **changes}

    def play(
        self,
        number: str,
        mode: str = "apply",
        before: Mapping[str, Callable[[], None]] | None = None,
        **changes: object,
    ) -> dict[str, Any]:
        """Run a runbook's cells in this process; ``before`` is what happens just before a cell."""
        runbook = open_runbook(number, self.parameters(number, mode=mode, **changes))
        notebook = json.loads((ROOT / "notebooks" / f"{SECTIONS[number].stem}.ipynb").read_text())
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code" or cell["id"] in ("parameters", "values", "connect", "verdict"):
                continue
            verb, _, step = cell["id"].partition("-")
            if before and cell["id"] in before:
                before[cell["id"]]()
            view: View = getattr(runbook, verb)(*([step] if step else []))
        return dict(view.data)

    def complete(self) -> None:
        """Play the whole path."""
        for number in PATHS[self.ingress]:
            outcome = self.play(number, timeout_s=60)
            assert 0 == outcome["exit_code"], outcome["reason"]

    def get(self, part: Part) -> Object | None:
        """The part's object, or None."""
        try:
            return self.sandbox.get(part.resource, part.namespace, part.name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def patch(self, part: Part, body: Object, manager: str = "kubectl-edit") -> Object:
        """A merge patch of the part's object."""
        return self.sandbox.patch(part.resource, part.namespace, part.name, body, manager)

    def take_away(self, part: Part) -> None:
        """Undo the step: its object goes, or what the step put into it."""
        if part.amends:
            self.patch(part, part.undone)
        else:
            self.api.delete(part.resource, part.namespace, part.name)
            self.sandbox.eventually(lambda: self.get(part) is None)
        self.settle()

    def settle(self) -> None:
        """Wait until the operators have nothing more to do about what there is."""
        self.sandbox.eventually(self._settled, 40)

    def _settled(self) -> bool:
        try:
            installed = self._all(CONTROL_PLANES) + self._all(KNATIVE_SERVINGS)
            rolled = self._all(DEPLOYMENTS)
        except (ApiError, urllib3.exceptions.HTTPError):
            return False
        return all(is_true(live, "Ready") for live in installed) and all(
            readiness.deployment(live).done for live in rolled
        )

    def _all(self, kind: Resource) -> list[Object]:
        return list(self.api.request("GET", kind.path())["items"])


# --- an experiment -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One way in which a cluster is broken.

    Args:
        name: in the table.
        causes: a context in which the cause is there; None is yielded before it is armed by ``at``.
        fits: for which parts there is such a case, and why not for others.
        words: what the run has to say where it stops.
        finishes: whether the run has to finish although the cause is there.
        keeps: whether the step's object stays as it is at the beginning, instead of being taken away.
    """

    name: str
    causes: Callable[[Broken, Part], AbstractContextManager[Armed]]
    fits: Callable[[Part], bool] = lambda _: True
    words: tuple[str, ...] = ()
    finishes: bool = False
    keeps: Callable[[Part], bool] = lambda _: False


@dataclass
class Armed:
    """A cause that is ready to come about.

    Args:
        at: brings it about.
        changes: parameters of the run.
        afterwards: parameters of the run after it is gone.
        before: whether it comes about before the run, instead of before the step is applied.
    """

    at: Callable[[], None] = lambda: None
    changes: dict[str, Any] = field(default_factory=dict)
    afterwards: dict[str, Any] = field(default_factory=dict)
    before: bool = False


@dataclass(frozen=True)
class Seen:
    """What became of an experiment.

    Args:
        outcome: of the first run.
        seconds: how long it took.
        second: the outcome of the second run.
        verified: whether verify finds, right after a run that says it is done, everything as wanted.
        third: the outcome of verify after the second run.
    """

    case: str
    part: str
    outcome: dict[str, Any]
    seconds: float
    verified: dict[str, Any] | None
    second: dict[str, Any]
    third: dict[str, Any]

    @property
    def deadline(self) -> float:
        """How long the run may have taken: its wait, a proof, and a restart of the API server, and time to work."""
        return 30 + 2 * float(self.outcome["parameters"]["timeout_s"])

    @property
    def finished(self) -> bool:
        """Whether the first run finished."""
        return bool(self.outcome["exit_code"] == 0)

    @property
    def wrong(self) -> bool:
        """Whether the first run said that it had finished, and had not."""
        return self.verified is not None and bool(self.verified["exit_code"])

    def amiss(self, case: Case) -> list[str]:
        """What is not as it has to be."""
        reason, found = self.outcome["reason"], []
        if self.wrong:
            found.append(f"it said that it was done, and verify finds: {self.verified and self.verified['reason']}")
        if case.finishes and not self.finished:
            found.append(f"it did not finish: {reason}")
        if not self.finished:
            found += [f"{word!r} is not in its reason: {reason}" for word in case.words if word not in reason]
        if self.outcome["exit_code"] not in (0, 1):
            found.append(f"its exit code is {self.outcome['exit_code']}")
        if self.seconds > self.deadline:
            found.append(f"it took {self.seconds} s")
        if self.second["exit_code"]:
            found.append(f"the second run did not finish: {self.second['reason']}")
        if self.third["outcome"] != "as desired":
            found.append(f"verify after it: {self.third['reason']}")
        return found


def experiment(broken: Broken, case: Case, part: Part) -> Seen:
    """Break the cluster at a step, run; mend it, run again; look."""
    if not case.keeps(part):
        broken.take_away(part)
    with case.causes(broken, part) as armed:
        if armed.before:
            armed.at()
        hooks = {} if armed.before else {f"apply-{part.step}": armed.at}
        began = time.monotonic()
        given = {"timeout_s": TIMEOUT_S, **armed.changes}
        outcome = broken.play(part.section, before=hooks, **given)
        seconds = time.monotonic() - began
    verified = None
    if outcome["exit_code"] == 0:
        verified = broken.play(part.section, "verify", timeout_s=30)
    second = broken.play(part.section, timeout_s=60, **armed.afterwards)
    broken.settle()  # Pods that the second run has replaced may still be on their way
    third = broken.play(part.section, "verify", timeout_s=30)
    return Seen(case.name, str(part), outcome, round(seconds, 1), verified, second, third)


# --- CRDs --------------------------------------------------------------------------------------------------------


def _edit_crd(broken: Broken, name: str, edit: Callable[[Object], None]) -> None:
    path = CRDS.path("", name)
    for _ in range(10):
        live = broken.api.request("GET", path)
        edit(live["spec"])
        try:
            broken.api.request("PUT", path, live)
        except ApiError as error:
            if error.status != 409:
                raise
            continue
        return


def _other_version(part: Part, *, stored: bool) -> Callable[[Object], None]:
    """Give the kind another version, which everything is stored in."""
    version = part.resource.api_version.rpartition("/")[2]

    def edit(spec: Object) -> None:
        if not any(one["name"] == OTHER_VERSION for one in spec["versions"]):
            like = next(one for one in spec["versions"] if one["name"] == version)
            spec["versions"].append({**json.loads(json.dumps(like)), "name": OTHER_VERSION, "storage": False})
        for one in spec["versions"]:
            one["storage"] = one["name"] == (OTHER_VERSION if stored else version)

    return edit


@contextlib.contextmanager
def conversion_down(broken: Broken, part: Part) -> Iterator[Armed]:
    """Everything is stored in another version, and the webhook that converts it does not answer."""
    away = {"url": "https://127.0.0.1:9/convert", "caBundle": _authority(broken.sandbox)}
    webhook = {"strategy": "Webhook", "webhook": {"clientConfig": away, "conversionReviewVersions": ["v1"]}}

    def stored_anew() -> None:
        for live in broken.api.request("GET", part.resource.path())["items"]:
            metadata = live["metadata"]
            note = {"metadata": {"annotations": {"example.com/stored": OTHER_VERSION}}}
            broken.sandbox.patch(part.resource, metadata["namespace"], metadata["name"], note, "storage-migration")

    def down() -> None:
        _edit_crd(broken, part.crd, lambda spec: spec.update(conversion=webhook))
        time.sleep(_TAKEN_OVER_S)

    _edit_crd(broken, part.crd, _other_version(part, stored=True))
    time.sleep(_TAKEN_OVER_S)
    broken.sandbox.eventually(lambda: _answers(broken, part))
    stored_anew()
    broken.settle()
    try:
        yield Armed(down)
    finally:
        _edit_crd(broken, part.crd, lambda spec: spec.update(conversion={"strategy": "None"}))
        time.sleep(_TAKEN_OVER_S)
        broken.sandbox.eventually(lambda: _answers(broken, part))
        broken.settle()


def _answers(broken: Broken, part: Part) -> bool:
    """Whether the kind can be read."""
    try:
        broken.api.request("GET", part.resource.path(part.namespace))
    except ApiError:
        return False
    return True


@contextlib.contextmanager
def version_not_served(broken: Broken, part: Part) -> Iterator[Armed]:
    """The kind is served in another version only."""
    version = part.resource.api_version.rpartition("/")[2]

    def served(spec: Object, *, on: bool) -> None:
        for one in spec["versions"]:
            if one["name"] == version:
                one["served"] = on

    def gone() -> None:
        _edit_crd(broken, part.crd, _other_version(part, stored=False))
        _edit_crd(broken, part.crd, lambda spec: served(spec, on=False))
        broken.sandbox.eventually(lambda: not _answers(broken, part))

    try:
        yield Armed(gone)
    finally:
        _edit_crd(broken, part.crd, lambda spec: served(spec, on=True))
        broken.sandbox.eventually(lambda: _answers(broken, part))
        broken.settle()


# --- admission ---------------------------------------------------------------------------------------------------


def _authority(sandbox: Sandbox) -> str:
    return base64.b64encode((sandbox.state.pki / "ca.crt").read_bytes()).decode()


Review = Callable[[Object], Object]


@contextlib.contextmanager
def served(sandbox: Sandbox, handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A TLS server on loopback with the sandbox's own certificate."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sandbox.state.pki / "serving.crt", sandbox.state.pki / "serving.key")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def admission(
    broken: Broken, part: Part, review: Review, *, kind: str = "validating", subresource: str = "", user: str = ENGINEER
) -> Iterator[Callable[[], None]]:
    """A webhook that is asked about the part's kind; the call switches it on. Only one user's requests matter to it."""

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
            ours = request["userInfo"]["username"] == user and request.get("name", part.name) == part.name
            response = {"uid": request["uid"], **(review(request) if ours else {"allowed": True})}
            answer = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
            body = json.dumps(answer).encode()
            with contextlib.suppress(OSError):  # a server that does not wait any longer
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    path = WEBHOOKS.format(kind=kind)
    with served(broken.sandbox, Webhook) as port:
        rule = {
            "apiGroups": [part.group],
            "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE"],
            "resources": [part.resource.plural + subresource],
        }
        webhook = {
            "name": "rules.platform.example.com",
            "clientConfig": {"url": f"https://127.0.0.1:{port}/", "caBundle": _authority(broken.sandbox)},
            "rules": [rule],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 1,
        }
        manifest = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind.capitalize()}WebhookConfiguration",
            "metadata": {"name": "rules"},
            "webhooks": [webhook],
        }

        def on() -> None:
            broken.api.request("POST", path, manifest)
            time.sleep(1)  # the server takes it over a moment later

        try:
            yield on
        finally:
            with contextlib.suppress(ApiError):
                broken.api.request("DELETE", f"{path}/rules")
            time.sleep(1)


@contextlib.contextmanager
def refuses(broken: Broken, part: Part) -> Iterator[Armed]:
    """Admission says no."""
    with admission(broken, part, lambda _: {"allowed": False, "status": {"code": 403, "message": WORDS}}) as on:
        yield Armed(on)


def _late(_: Object) -> Object:
    time.sleep(2)
    return {"allowed": True}


@contextlib.contextmanager
def answers_late(broken: Broken, part: Part) -> Iterator[Armed]:
    """Admission takes longer than it may."""
    with admission(broken, part, _late) as on:
        yield Armed(on)


def merged(live: Any, patch: Any) -> Any:
    """A merge patch (RFC 7386), applied."""
    if not isinstance(patch, dict):
        return patch
    found = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def _operations(part: Part, live: Object) -> list[Object]:
    """What the part's ``undone`` comes to as a JSON patch."""
    found = []
    for key, patch in part.undone.items():
        found.append({"op": "add", "path": f"/{key}", "value": merged(live.get(key), patch)})
    return found


@contextlib.contextmanager
def mutates(broken: Broken, part: Part) -> Iterator[Armed]:
    """Admission takes out what the step wants, without a word."""

    def review(request: Object) -> Object:
        patch = base64.b64encode(json.dumps(_operations(part, request["object"])).encode()).decode()
        return {"allowed": True, "patchType": "JSONPatch", "patch": patch}

    with admission(broken, part, review, kind="mutating") as on:
        yield Armed(on)


# --- operators ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def status_never_comes(broken: Broken, part: Part) -> Iterator[Armed]:
    """No operator reports anything on the object any more."""
    refusal = {"allowed": False, "status": {"code": 403, "message": "no status today"}}
    with admission(broken, part, lambda _: refusal, subresource="/status", user=STAND_INS) as on:
        yield Armed(on)


@contextlib.contextmanager
def status_is_old(broken: Broken, part: Part) -> Iterator[Armed]:
    """The status is of an earlier generation, in which everything was well."""
    with status_never_comes(broken, part) as armed:

        def at() -> None:
            armed.at()
            broken.patch(part, part.undone)

        yield Armed(at, before=True)


@contextlib.contextmanager
def reverts(broken: Broken, part: Part) -> Iterator[Armed]:
    """An operator undoes the change as often as it sees it."""
    over, started = threading.Event(), threading.Event()

    def work() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(ApiError, urllib3.exceptions.HTTPError):
                live = broken.get(part)
                if live is not None and merged(live, part.undone) != live:
                    broken.patch(part, part.undone, "some-operator")

    thread = threading.Thread(target=work, daemon=True)

    def at() -> None:
        started.set()
        thread.start()

    try:
        yield Armed(at, afterwards={"take_over": ["some-operator"]})
    finally:
        over.set()
        if started.is_set():
            thread.join()


@contextlib.contextmanager
def being_deleted(broken: Broken, part: Part) -> Iterator[Armed]:
    """Somebody deletes the object, and a finalizer holds it."""
    before = broken.get(part)
    assert before is not None

    def at() -> None:
        live = broken.get(part)
        assert live is not None
        held = [*(live["metadata"].get("finalizers") or []), "example.com/stuck"]
        broken.patch(part, {"metadata": {"finalizers": held}})
        broken.api.delete(part.resource, part.namespace, part.name)

    try:
        yield Armed(at, before=not part.amends)
    finally:
        live = broken.get(part)
        assert live is not None
        broken.patch(part, {"metadata": {"finalizers": []}})
        broken.sandbox.eventually(lambda: broken.get(part) is None)
        if part.amends or part.resource is KNATIVE_SERVINGS:  # its owner makes it anew
            metadata = {
                k: v for k, v in before["metadata"].items() if k in ("name", "namespace", "labels", "annotations")
            }
            body = {**{k: v for k, v in before.items() if k in ("apiVersion", "kind", "spec")}, "metadata": metadata}
            broken.api.request("POST", part.resource.path(part.namespace), body)
        broken.settle()


# --- namespaces and quotas ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def namespace_ends(broken: Broken, part: Part) -> Iterator[Armed]:
    """Somebody deletes the namespace, and something in it holds it."""
    path = NAMESPACES.path("", part.namespace)
    before = broken.api.request("GET", path)
    # nobody empties a namespace in the sandbox, so its own finalizer holds it
    try:
        yield Armed(lambda: broken.api.delete(NAMESPACES, "", part.namespace))
    finally:
        body = {"metadata": {"name": part.namespace}, "spec": {"finalizers": []}}
        broken.api.request("PUT", f"{path}/finalize", body)  # whatever its operators write meanwhile
        broken.sandbox.eventually(lambda: _created(broken, part.namespace))
        broken.sandbox.patch(NAMESPACES, "", part.namespace, {"metadata": {"labels": before["metadata"]["labels"]}})
        broken.settle()


def _created(broken: Broken, name: str) -> bool:
    try:
        broken.api.request("POST", NAMESPACES.path(), {"metadata": {"name": name}})
    except ApiError as error:
        if error.status not in (403, 409):
            raise
        return error.status == 409 and "deletionTimestamp" not in broken.sandbox.get(NAMESPACES, "", name)["metadata"]
    return True


def _counted(part: Part) -> str:
    return f"count/{part.resource.plural}" + (f".{part.group}" if part.group else "")


@contextlib.contextmanager
def quota_reached(broken: Broken, part: Part) -> Iterator[Armed]:
    """The namespace may hold no more objects of the kind."""
    path, hard = QUOTAS.path(part.namespace, "full"), {_counted(part): "0"}

    def at() -> None:
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": hard}}
        live = broken.api.request("POST", QUOTAS.path(part.namespace), body)
        live["status"] = {"hard": hard, "used": {_counted(part): "0"}}  # what its controller would write
        broken.api.request("PUT", f"{path}/status", live)
        time.sleep(0.3)

    try:
        yield Armed(at)
    finally:
        with contextlib.suppress(ApiError):
            broken.api.request("DELETE", path)
        time.sleep(0.3)


@contextlib.contextmanager
def quota_unknown(broken: Broken, part: Part) -> Iterator[Armed]:
    """There is a quota of which nobody has said yet how much is used."""

    def at() -> None:
        hard = {_counted(part): "5"}
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": hard}}
        live = broken.api.request("POST", QUOTAS.path(part.namespace), body)
        live["status"] = {"hard": hard}
        broken.api.request("PUT", f"{QUOTAS.path(part.namespace, 'full')}/status", live)
        time.sleep(0.3)

    try:
        yield Armed(at)
    finally:
        with contextlib.suppress(ApiError):
            broken.api.request("DELETE", QUOTAS.path(part.namespace, "full"))
        time.sleep(0.3)


# --- the API server ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What the proxy answers itself."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


CUT_BEFORE, CUT_AFTER = "cut before", "cut after"
Rule = Callable[[str, str], "Answer | str | None"]


def _copied(source: ssl.SSLSocket, target: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(broken: Broken, rule: Rule, page: int = 500) -> Iterator[str]:
    """A proxy in front of the API server, with a rule for each request; yields a kubeconfig that leads to it.

    A rule answers itself, or cuts the connection before or after the API server has answered, or does nothing. Lists
    come in pages of a size.
    """
    port = broken.sandbox.state.settings().api_port
    pool = urllib3.PoolManager(ca_certs=str(broken.sandbox.state.pki / "ca.crt"), maxsize=20, retries=False)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else None
            if self.headers.get("Upgrade"):
                self._tunnel()
                return
            found = rule(self.command, self.path)
            if found == CUT_BEFORE:
                self._cut()
            elif isinstance(found, Answer):
                status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
                said = {**status, "message": found.message, "code": found.status}
                self._answer(
                    found.status, {"Content-Type": "application/json", **found.headers}, json.dumps(said).encode()
                )
            else:
                headers = {
                    key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")
                }
                url = f"https://127.0.0.1:{port}{self.path.replace('limit=500', f'limit={page}')}"
                answer = pool.request(self.command, url, body=body, headers=headers, timeout=60)
                if found == CUT_AFTER:
                    self._cut()
                else:
                    kept = {
                        k: v
                        for k, v in answer.headers.items()
                        if k.lower() in ("content-type", "audit-id", "retry-after")
                    }
                    self._answer(answer.status, kept, answer.data)

        do_POST = do_GET  # noqa: N815 the names of the base class
        do_PATCH = do_GET  # noqa: N815

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _tunnel(self) -> None:
            """A WebSocket, byte for byte."""
            authority = ssl.create_default_context(cafile=str(broken.sandbox.state.pki / "ca.crt"))
            with socket.create_connection(("127.0.0.1", port)) as plain:
                behind = authority.wrap_socket(plain, server_hostname="127.0.0.1")
                lines = [
                    f"{self.command} {self.path} HTTP/1.1",
                    *(f"{k}: {v}" for k, v in self.headers.items()),
                    "",
                    "",
                ]
                behind.sendall("\r\n".join(lines).encode())
                back = threading.Thread(target=_copied, args=(behind, self.connection), daemon=True)
                back.start()
                _copied(self.connection, behind)
                back.join()
            self.close_connection = True

        def _cut(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *_: object) -> None:
            pass

    with served(broken.sandbox, Proxy) as listening:
        config = yaml.safe_load(broken.sandbox.state.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{listening}"
        path = broken.sandbox.state.folder / "kubeconfig-proxy"
        path.write_text(yaml.safe_dump(config))
        yield str(path)


def writes(part: Part, method: str, path: str) -> bool:
    """Whether a request writes the part's object."""
    own = part.resource.path(part.namespace, part.name)
    return method == "PATCH" and path.partition("?")[0] == own and "dryRun" not in path


def answering(times: float, answer: Answer | str) -> Callable[[Broken, Part], AbstractContextManager[Armed]]:
    """Writes of the part's object are answered so, so many times."""

    @contextlib.contextmanager
    def cause(broken: Broken, part: Part) -> Iterator[Armed]:
        left, armed = [times], threading.Event()

        def rule(method: str, path: str) -> Answer | str | None:
            if armed.is_set() and left[0] > 0 and writes(part, method, path):
                left[0] -= 1
                return answer
            return None

        with proxied(broken, rule) as kubeconfig:
            yield Armed(armed.set, changes={"kubeconfig": kubeconfig})

    return cause


@contextlib.contextmanager
def lists_expire(broken: Broken, _: Part) -> Iterator[Armed]:
    """Lists come in small pages, and after the first one the server has forgotten where it was, once for each list."""
    expired: set[str] = set()

    def rule(method: str, path: str) -> Answer | str | None:
        if method == "GET" and "continue=" in path and path.partition("?")[0] not in expired:
            expired.add(path.partition("?")[0])
            return Answer(410, "The provided continue parameter is too old to display a consistent list result.")
        return None

    with proxied(broken, rule, page=2) as kubeconfig:
        yield Armed(changes={"kubeconfig": kubeconfig}, before=True)


def kill_api_server(broken: Broken) -> None:
    """Kill it; the sandbox's supervisor starts it again."""
    os.kill(broken.sandbox.state.processes()["kube-apiserver"].pid, signal.SIGKILL)


def restarts(after_s: float) -> Callable[[Broken, Part], AbstractContextManager[Armed]]:
    """The API server is killed so long after the step begins to be applied."""

    @contextlib.contextmanager
    def cause(broken: Broken, _: Part) -> Iterator[Armed]:
        pid = broken.sandbox.state.processes()["kube-apiserver"].pid
        timer = threading.Timer(after_s, kill_api_server, [broken])
        try:
            yield Armed(timer.start if after_s else lambda: kill_api_server(broken), changes={"timeout_s": 60})
        finally:
            if after_s:
                timer.join()
            broken.sandbox.eventually(lambda: broken.sandbox.state.processes()["kube-apiserver"].pid != pid, 30)
            broken.sandbox.eventually(lambda: _ready(broken), 60)
            broken.settle()

    return cause


def _ready(broken: Broken) -> bool:
    try:
        return bool(broken.api.request("GET", "/readyz", timeout_s=2))
    except (ApiError, urllib3.exceptions.HTTPError):
        return False


_REPORTED = (MEMBER_ROLLS, KNATIVE_SERVINGS, KNATIVE_SERVICES, CONTROL_PLANES)
_OVERLOADED, _THROTTLED = "the server is overloaded", "too many requests"


def _has_crd(part: Part) -> bool:
    return bool(part.crd)


def _is_created(part: Part) -> bool:
    return not part.amends


def _is_reported(part: Part) -> bool:
    """Whether the run waits for the object's status; an annotation brings no new generation."""
    return part.resource in _REPORTED and part.step != "annotation"


CASES = (
    Case("conversion webhook down", conversion_down, _has_crd, ("conversion webhook for", "connection refused")),
    Case("CRD without the expected version", version_not_served, _has_crd, ("the cluster serves", OTHER_VERSION)),
    Case("admission refuses", refuses, words=(WORDS,)),
    Case("admission answers too late", answers_late, words=("rules.platform.example.com", "deadline exceeded")),
    Case("admission takes the change out again", mutates, words=("was written, and then undone",)),
    Case("namespace is being deleted", namespace_ends, lambda part: part.namespace in (MESH, SERVING)),
    Case(
        "object is being deleted, held by a finalizer",
        being_deleted,
        lambda part: part.resource is not NAMESPACES,
        ("it is being deleted", "example.com/stuck"),
        keeps=_is_created,
    ),
    Case("quota reached", quota_reached, _is_created, ("exceeded quota: full",)),
    Case("quota whose use nobody has counted", quota_unknown, _is_created, ("status unknown for quota: full",)),
    Case("status never comes", status_never_comes, _is_reported),
    Case("status of an old generation", status_is_old, _is_reported, ("its operator has seen generation",), keeps=bool),
    Case("operator reverts the change", reverts, words=("was written, and then undone",)),
    Case("429, Retry-After: 1, twice", answering(2, Answer(429, _THROTTLED, {"Retry-After": "1"})), finishes=True),
    Case(
        "503, Retry-After: 1, without end",
        answering(inf, Answer(503, _OVERLOADED, {"Retry-After": "1"})),
        words=(_OVERLOADED,),
    ),
    Case("429, Retry-After: 3600", answering(1, Answer(429, _THROTTLED, {"Retry-After": "3600"})), words=(_THROTTLED,)),
    Case("connection cut before the write", answering(1, CUT_BEFORE), finishes=True),
    Case("connection cut after the write", answering(1, CUT_AFTER), finishes=True),
    Case("list expired (410)", lists_expire, finishes=True),
    Case("API server killed before the step", restarts(0), finishes=True),
    Case("API server killed while the step is applied", restarts(0.02), finishes=True),
    Case("API server killed while the step is waited for", restarts(0.4), finishes=True),
)


def experiments(ingress: str) -> list[tuple[Case, Part]]:
    """Every case with every step of a path that it fits."""
    return [(case, part) for case in CASES for part in PARTS[ingress] if case.fits(part)]
