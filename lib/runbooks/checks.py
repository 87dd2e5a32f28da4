"""Effects, proven by an independent path: a handshake, an HTTP answer, the Pods that really run.

A check never trusts that the API accepted something. It says what it expected, what it observed, and by which path
it looked; what it could not look at is named as such and never counted as proven.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from runbooks import certificate_folder, certificates, probes
from runbooks.certificates import LEAF_CRT, LEAF_KEY, ROOT_CRT, ROOT_KEY, Pair
from runbooks.cluster import Connection
from runbooks.errors import CertificateError, ConnectionFailed
from runbooks.kinds import (
    CONFIG_MAP,
    KNATIVE_INGRESS,
    KNATIVE_SERVICE,
    KNATIVE_SERVING,
    MEMBER_ROLL,
    NAMESPACE,
    POD,
    ROUTE,
    SECRET,
    SERVICE,
)
from runbooks.manifests import (
    INJECT,
    LOCAL_GATEWAY,
    LOCAL_GATEWAY_PORT,
    MEMBER_ROLL_NAME,
    SERVING_NAMESPACE,
)
from runbooks.parameters import CreateIngressCertificates, IntegrateServiceMesh, Parameters
from runbooks.probes import Answer, NotTrusted, ProbeFailed
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Checked, Proof

ISTIO_INGRESS_CLASS = "istio.ingress.networking.knative.dev"
KOURIER_NAMESPACE = "knative-serving-ingress"
MEMBER_OF = "maistra.io/member-of"
SYSTEM_PODS = ("activator", "autoscaler")


@dataclass(frozen=True)
class Check:
    """One effect to prove.

    Args:
        title: what should hold, in a few words.
        judge: looks, and says how it came out.
        reads: what it needs to have been read of the cluster; where the account may not, it cannot tell.
        copes: reads that it can do without, and says so itself.
    """

    title: str
    judge: Callable[[str, Situation[Any], Connection], Checked]
    reads: Callable[[Any], tuple[Read, ...]] = lambda _: ()
    copes: Callable[[Any], tuple[Read, ...]] = lambda _: ()

    def all_reads(self, parameters: Parameters) -> tuple[Read, ...]:
        """Everything that it looks at."""
        return (*self.reads(parameters), *self.copes(parameters))

    def look(self, situation: Situation[Any], connection: Connection) -> Checked:
        """Judge the effect; what may not be read is never taken for absent."""
        refused = situation.snapshot.refusals(self.reads(situation.parameters))
        if refused:
            remedy = "runbooks list --rbac prints the roles that are needed"
            return Checked(self.title, Proof.UNKNOWN, "", "; ".join(refused), "", remedy)
        return self.judge(self.title, situation, connection)


def _proven(title: str, expected: str, way: str, observed: str = "") -> Checked:
    return Checked(title, Proof.PROVEN, expected, observed or expected, way)


def _compared(title: str, expected: str, faults: Iterable[str], way: str, remedy: str) -> Checked:
    faults = list(faults)
    if not faults:
        return _proven(title, expected, way)
    return Checked(title, Proof.FAILED, expected, "; ".join(faults), way, remedy)


# --- 6.4.2 -------------------------------------------------------------------------------------------------------


def _root_on_disk(title: str, situation: Situation[CreateIngressCertificates], _: Connection) -> Checked:
    folder = situation.parameters.certificates_dir
    way = f"read {folder} again"
    if situation.parameters.certificate_source != "create":
        return Checked(title, Proof.SKIPPED, "", "the certificate comes from elsewhere", way)
    files = certificate_folder.read(folder, (ROOT_CRT, ROOT_KEY))
    if ROOT_CRT not in files:
        return Checked(title, Proof.FAILED, "a root certificate", "there is none", way)
    root = certificates.load_chain(files[ROOT_CRT], ROOT_CRT)[0]
    if ROOT_KEY not in files:
        return Checked(title, Proof.UNPROVEN, "the root's key beside it", f"no {ROOT_KEY} on this machine", way)
    faults = []
    if not certificates.key_matches(root, certificates.load_key(files[ROOT_KEY], ROOT_KEY)):
        faults.append(f"{ROOT_KEY} does not belong to {ROOT_CRT}")
    faults += _open_keys(folder, (ROOT_KEY, LEAF_KEY))
    expected = f"key and certificate of {certificates.shown_name(root.subject)} belong together, keys are mode 0600"
    return _compared(title, expected, faults, way, f"chmod 600 {folder}/*.key")


def _open_keys(folder: str, names: Iterable[str]) -> Iterable[str]:
    for name in names:
        mode = certificate_folder.mode(f"{folder}/{name}")
        if mode is not None and mode & 0o077:
            yield f"{name} has the mode {mode:04o}, so others may read it"


def _sample_host(situation: Situation[Any]) -> str:
    return f"runbook-proof.{situation.domain}"


def _leaf_on_disk(title: str, situation: Situation[CreateIngressCertificates], _: Connection) -> Checked:
    folder, source = situation.parameters.certificates_dir, situation.parameters.certificate_source
    way = "a TLS handshake in memory with the files as they lie on disk, verified as strictly as Python 3.13 does"
    if source != "create":
        return Checked(title, Proof.SKIPPED, "", f"certificate_source is {source}", way)
    files = certificate_folder.read(folder, (ROOT_CRT, LEAF_CRT, LEAF_KEY))
    if not {LEAF_CRT, LEAF_KEY} <= files.keys():
        return Checked(title, Proof.UNPROVEN, "a wildcard certificate on disk", "it is in the Secret only", way)
    return _handshake(
        title, Pair(files[LEAF_CRT], files[LEAF_KEY]), situation, files.get(ROOT_CRT, b""), way, strict=True
    )


def _handshake(
    title: str, pair: Pair, situation: Situation[Any], anchors: bytes | None, way: str, *, strict: bool
) -> Checked:
    host = _sample_host(situation)
    expected = f"a client that trusts the anchor accepts {host}, one that does not refuses it"
    try:
        probes.handshake(pair, host, anchors, strict=strict)
    except ProbeFailed as error:
        return Checked(title, Proof.FAILED, expected, str(error), way, "run 6.4.2 in mode apply")
    try:
        probes.handshake(pair, host, b"")
    except NotTrusted as error:
        return _proven(title, expected, way, f"accepted; without the anchor: {error}")
    return Checked(title, Proof.FAILED, expected, "a client that trusts nothing accepted it", way)


def _secret_serves(title: str, situation: Situation[CreateIngressCertificates], _: Connection) -> Checked:
    given = situation.parameters
    name = f"Secret {given.mesh_namespace}/{given.certificate_secret}"
    way = f"a TLS handshake in memory with what {name} holds now"
    live = situation.snapshot.get(SECRET, given.mesh_namespace, given.certificate_secret)
    if live is None:
        return Checked(title, Proof.FAILED, f"{name} exists", "there is no such Secret", way, "run 6.4.2 in mode apply")
    data = live.get("data") or {}
    pair = Pair(base64.b64decode(data.get("tls.crt", "")), base64.b64decode(data.get("tls.key", "")))
    if not situation.trusts_system and situation.trust_anchor is None:
        observed = "no root.crt in certificates_dir and no trust_anchor on this machine"
        return Checked(title, Proof.UNKNOWN, "a trust anchor to check against", observed, way, "set trust_anchor")
    anchors = None if situation.trusts_system else situation.trust_anchor
    return _handshake(title, pair, situation, anchors, way, strict=False)


def _secret_read(given: Parameters) -> tuple[Read, ...]:
    return (Read(SECRET, given.mesh_namespace, given.certificate_secret),)


ROOT_ON_DISK = Check("Root certificate and key belong together", _root_on_disk)
LEAF_ON_DISK = Check("A strict client accepts the wildcard certificate", _leaf_on_disk)
SECRET_SERVES = Check("A TLS server can serve the Secret's certificate", _secret_serves, _secret_read)


# --- 6.4.3: member roll ------------------------------------------------------------------------------------------


def all_members(given: IntegrateServiceMesh) -> tuple[str, ...]:
    """The namespaces that 6.4.3 adds; the page insists that knative-serving is among them."""
    return tuple(dict.fromkeys((SERVING_NAMESPACE, *given.members)))


def _members_configured(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    given = situation.parameters
    roll = situation.snapshot.get(MEMBER_ROLL, given.mesh_namespace, MEMBER_ROLL_NAME) or {}
    configured = roll.get("status", {}).get("configuredMembers") or []
    faults = []
    for member in all_members(given):
        namespace = situation.snapshot.get(NAMESPACE, "", member) or {"metadata": {}}
        mesh = (namespace["metadata"].get("labels") or {}).get(MEMBER_OF)
        if member not in configured:
            faults.append(f"{member} is not in status.configuredMembers")
        elif mesh != given.mesh_namespace:
            faults.append(f"namespace {member} carries {MEMBER_OF}={mesh}")
    return _compared(
        title,
        f"{', '.join(all_members(given))} in status.configuredMembers and labelled {MEMBER_OF}={given.mesh_namespace}",
        faults,
        "the member roll's status and the labels that the operator put on the namespaces",
        "see the member roll's status.memberStatuses for the operator's reason",
    )


def _member_reads(given: IntegrateServiceMesh) -> tuple[Read, ...]:
    return (Read(MEMBER_ROLL, given.mesh_namespace), Read(NAMESPACE))


MEMBERS_CONFIGURED = Check("The namespaces are configured members", _members_configured, _member_reads)


# --- 6.4.3: gateways and the way in ------------------------------------------------------------------------------


def service_host(situation: Situation[IntegrateServiceMesh]) -> str:
    """The public host name of the Knative Service, as the operator's domain template makes it."""
    given = situation.parameters
    return f"{given.service_name}-{given.service_namespace}.{situation.domain}"


def _address(situation: Situation[Any], host: str) -> str:
    return situation.ingress_address or f"{host}:443"


def _anchors(situation: Situation[Any]) -> bytes | None:
    return None if situation.trusts_system else situation.trust_anchor or b""


def curl_command(situation: Situation[IntegrateServiceMesh]) -> str:
    """The documented curl command, as it works from here."""
    host, given = service_host(situation), situation.parameters
    anchor = given.trust_anchor or f"{given.certificates_dir}/{ROOT_CRT}"
    trust = "" if situation.trusts_system else f"--cacert {anchor} "
    where = f"--connect-to {host}:443:{situation.ingress_address} " if situation.ingress_address else ""
    return f"curl {trust}{where}https://{host}/"


def _certificate_served(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    given, host = situation.parameters, service_host(situation)
    way = f"a TLS handshake with {_address(situation, host)}, host name checked"
    live = situation.snapshot.get(SECRET, given.mesh_namespace, given.certificate_secret)
    if live is None:
        return Checked(title, Proof.FAILED, "the Secret to compare with", "there is no such Secret", way, "run 6.4.2")
    try:
        chain = certificates.load_chain(base64.b64decode(live["data"]["tls.crt"]), "the Secret")
    except CertificateError as error:
        return Checked(title, Proof.FAILED, "a certificate in the Secret", str(error), way)
    wanted = certificates.fingerprint(chain[0])
    expected = f"the certificate {wanted[:16]}… of Secret {given.mesh_namespace}/{given.certificate_secret}"
    try:
        served = probes.served_fingerprint(host, _address(situation, host), _anchors(situation))
    except ProbeFailed as error:
        return Checked(title, Proof.FAILED, expected, str(error), way, _way_in_remedy(given))
    faults = [] if served == wanted else [f"another one is served: {served[:16]}…"]
    return _compared(title, expected, faults, way, "an old certificate is served on where the Secret is gone or broken")


def _way_in_remedy(given: IntegrateServiceMesh) -> str:
    return (
        f"check that Secret {given.certificate_secret} lies in {given.mesh_namespace}, that {SERVING_NAMESPACE} is a "
        "member of the mesh, and that no other Gateway claims port 443"
    )


CERTIFICATE_SERVED = Check("The gateway serves the Secret's certificate", _certificate_served, _secret_read)


# --- 6.4.3: Knative Serving --------------------------------------------------------------------------------------


def _app(pod: Live) -> str:
    return str((pod["metadata"].get("labels") or {}).get("app", ""))


def _without_sidecar(pods: Iterable[Live]) -> list[str]:
    """The running Pods without an istio-proxy; in newer meshes it is an init container that keeps running."""
    faults = []
    for pod in pods:
        containers = pod["spec"].get("containers", []) + pod["spec"].get("initContainers", [])
        if not any(container["name"] == "istio-proxy" for container in containers):
            faults.append(f"Pod {pod['metadata']['name']} has no container istio-proxy")
    return faults


def _running(pods: Iterable[Live]) -> list[Live]:
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]


def _system_sidecars(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    pods = _running(situation.snapshot.objects(POD, SERVING_NAMESPACE))
    faults = []
    for app in SYSTEM_PODS:
        of_app = [pod for pod in pods if _app(pod) == app]
        faults += _without_sidecar(of_app) if of_app else [f"no Pod of {app} runs"]
    return _compared(
        title,
        "a container istio-proxy in every Pod of activator and autoscaler",
        faults,
        f"the Pods in {SERVING_NAMESPACE}",
        f"Pods that are older than the membership have none: delete them, and check {INJECT} in KnativeServing",
    )


def _sole_ingress(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    config = situation.snapshot.get(CONFIG_MAP, SERVING_NAMESPACE, "config-network") or {}
    data = config.get("data") or {}
    # the operator writes one spelling, Knative reads both
    ingress_class = data.get("ingress.class") or data.get("ingress-class") or "none"
    faults = [] if ingress_class == ISTIO_INGRESS_CLASS else [f"config-network names {ingress_class}"]
    for serving in situation.snapshot.objects(KNATIVE_SERVING):
        if ((serving.get("spec") or {}).get("ingress") or {}).get("kourier", {}).get("enabled"):
            faults.append("KnativeServing also enables Kourier, which then wins")
    faults += [f"Pod {pod['metadata']['name']} of Kourier runs" for pod in _running(_kourier_pods(situation))]
    kourier_namespace = situation.snapshot.get(NAMESPACE, "", KOURIER_NAMESPACE)
    if kourier_namespace and (refused := situation.snapshot.refusals(_kourier_reads(situation.parameters))):
        return Checked(title, Proof.UNKNOWN, f"no Pod of Kourier in {KOURIER_NAMESPACE}", "; ".join(refused), "")
    return _compared(
        title,
        f"config-network names {ISTIO_INGRESS_CLASS}, and no Kourier gateway runs",
        faults,
        f"ConfigMap {SERVING_NAMESPACE}/config-network and the Pods in {KOURIER_NAMESPACE}",
        "set spec.ingress.kourier.enabled to false in KnativeServing, or take the Kourier path (6.4.5)",
    )


def _kourier_reads(_: Parameters) -> tuple[Read, ...]:
    return (Read(POD, KOURIER_NAMESPACE),)


def _kourier_pods(situation: Situation[Any]) -> list[Live]:
    pods = situation.snapshot.objects(POD, KOURIER_NAMESPACE)
    return [pod for pod in pods if _app(pod) == "3scale-kourier-gateway"]


SYSTEM_SIDECARS = Check(
    "Activator and autoscaler have sidecars",
    _system_sidecars,
    lambda _: (Read(POD, SERVING_NAMESPACE),),
)
SOLE_INGRESS = Check(
    "Istio is the only ingress",
    _sole_ingress,
    lambda _: (
        Read(CONFIG_MAP, SERVING_NAMESPACE, "config-network"),
        Read(KNATIVE_SERVING, SERVING_NAMESPACE),
        Read(NAMESPACE),
    ),
    copes=_kourier_reads,
)


# --- 6.4.3: the application --------------------------------------------------------------------------------------


def _service_selector(given: IntegrateServiceMesh) -> str:
    return f"serving.knative.dev/service={given.service_name}"


def _service_reads(given: IntegrateServiceMesh) -> tuple[Read, ...]:
    return (Read(POD, given.service_namespace, labels=_service_selector(given)),)


def _service_sidecar(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    given = situation.parameters
    pods = [
        pod
        for pod in _running(situation.snapshot.objects(POD, given.service_namespace))
        if (pod["metadata"].get("labels") or {}).get("serving.knative.dev/service") == given.service_name
    ]
    way = f"the Pods in {given.service_namespace} labelled {_service_selector(given)}"
    expected = "a container istio-proxy in every Pod of the Service"
    if not pods:
        # scaled to zero since: nothing is wrong, and nothing is to be seen
        return Checked(title, Proof.UNPROVEN, expected, "no Pod runs at the moment (scaled to zero)", way)
    return _compared(
        title,
        expected,
        _without_sidecar(pods),
        way,
        f"a Pod that is older than the membership of {given.service_namespace} has none: delete it",
    )


def _route_reads(given: IntegrateServiceMesh) -> tuple[Read, ...]:
    return (
        Read(KNATIVE_INGRESS, given.service_namespace, given.service_name),
        Read(ROUTE, given.mesh_namespace, labels=_route_selector(given)),
    )


def _route_selector(given: IntegrateServiceMesh) -> str:
    prefix = "serving.knative.openshift.io"
    return f"{prefix}/ingressName={given.service_name},{prefix}/ingressNamespace={given.service_namespace}"


def _reason(entry: Live) -> str:
    return " ".join(part for part in (entry.get("reason", ""), entry.get("message", "")) if part) or "no reason given"


def _route_passthrough(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    given, host = situation.parameters, service_host(situation)
    routes = [
        route for route in situation.snapshot.objects(ROUTE, given.mesh_namespace) if route["spec"]["host"] == host
    ]
    faults = [] if routes else [f"no Route for {host}"]
    for route in routes:
        termination = (route["spec"].get("tls") or {}).get("termination", "none")
        if termination != "passthrough":
            faults.append(f"Route {route['metadata']['name']} terminates TLS: {termination}")
        faults += [
            f"Route {route['metadata']['name']} is not admitted: {_reason(entry)}"
            for ingress in route.get("status", {}).get("ingress", [])
            for entry in ingress.get("conditions", [])
            if entry.get("type") == "Admitted" and entry.get("status") == "False"
        ]
    return _compared(
        title,
        f"a Route for {host} with termination passthrough",
        faults,
        f"the Routes in {given.mesh_namespace}, the namespace of the gateway",
        "no Route usually means that the Knative Ingress is not ready; its status says why",
    )


def _https_answer(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    given, host = situation.parameters, service_host(situation)
    expected = f"status 200 and a body that contains {given.expected_body!r}"
    way = curl_command(situation)
    try:
        answer = probes.https_get(host, _address(situation, host), _anchors(situation))
    except ProbeFailed as error:
        return Checked(title, Proof.FAILED, expected, str(error), way, _way_in_remedy(given))
    return _answered(title, expected, answer, given, way)


def _answered(title: str, expected: str, answer: Answer, given: IntegrateServiceMesh, way: str) -> Checked:
    observed = f"status {answer.status}, body {' '.join(answer.body.split())[:200]!r}"
    good = answer.status == 200 and given.expected_body in answer.body
    remedy = "" if good else _STATUS_REMEDIES.get(answer.status, "look at the application's log")
    return Checked(title, Proof.PROVEN if good else Proof.FAILED, expected, observed, way, remedy)


_STATUS_REMEDIES: Mapping[int, str] = {
    404: "the gateway knows no such host: is the application's namespace a member of the mesh?",
    403: "an AuthorizationPolicy of the mesh refuses the request",
    503: "the gateway finds no healthy Pod: is the Service ready, and does its Pod have a sidecar?",
}


def _refused_without_anchor(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    host = service_host(situation)
    expected, way = "the same request is refused", f"{curl_command(situation).split(' --')[0]} without any trust anchor"
    try:
        answer = probes.https_get(host, _address(situation, host), b"")
    except NotTrusted as error:
        return _proven(title, expected, way, str(error))
    except ProbeFailed as error:
        return Checked(title, Proof.FAILED, expected, str(error), way)
    return Checked(title, Proof.FAILED, expected, f"it was answered with {answer.status}: nothing was verified", way)


def _local_reads(given: IntegrateServiceMesh) -> tuple[Read, ...]:
    return (
        Read(SERVICE, given.mesh_namespace, LOCAL_GATEWAY),
        Read(POD, given.mesh_namespace, labels="istio=ingressgateway"),
    )


def _cluster_local(title: str, situation: Situation[IntegrateServiceMesh], connection: Connection) -> Checked:
    given = situation.parameters
    host = f"{given.service_name}.{given.service_namespace}.svc.cluster.local"
    expected = f"http://{host} answers with 200 and {given.expected_body!r}"
    if given.local_gateway == "https":
        observed = f"with the HTTPS variant nothing listens on {LOCAL_GATEWAY_PORT}"
        return Checked(title, Proof.SKIPPED, expected, observed, "")
    service = situation.snapshot.get(SERVICE, given.mesh_namespace, LOCAL_GATEWAY)
    selector = service["spec"].get("selector") or {} if service else {}
    pods = [
        pod
        for pod in _running(situation.snapshot.objects(POD, given.mesh_namespace))
        if selector.items() <= (pod["metadata"].get("labels") or {}).items()
    ]
    if service is None or not pods:
        missing = "a Pod of the ingress gateway" if service else f"Service {LOCAL_GATEWAY}"
        said = situation.snapshot.unreadable(POD if service else SERVICE) or "there is none"
        return Checked(title, Proof.UNPROVEN, expected, f"{missing}: {said}", "")
    port = next((port["targetPort"] for port in service["spec"]["ports"] if port["port"] == 80), LOCAL_GATEWAY_PORT)
    pod = pods[0]["metadata"]["name"]
    way = f"Service {LOCAL_GATEWAY} port 80 → {port}, by port-forward to Pod {given.mesh_namespace}/{pod}"
    try:
        with contextlib.closing(connection.port_forward(given.mesh_namespace, pod, int(port))) as stream:
            answer = probes.http_get(host, stream)
    except ConnectionFailed as error:
        return Checked(title, Proof.UNPROVEN, expected, error.said, way, error.remedy)
    except ProbeFailed as error:
        return Checked(title, Proof.FAILED, expected, str(error), way)
    return _answered(title, expected, answer, given, way)


def _service_ready_host(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    given, host = situation.parameters, service_host(situation)
    live = situation.snapshot.get(KNATIVE_SERVICE, given.service_namespace, given.service_name) or {}
    url = str(live.get("status", {}).get("url", "none"))
    named = url.partition("://")[2]
    faults = [] if named == host else [f"its status names {url}"]
    return _compared(
        title,
        f"https://{host}, one label before the domain, so that the wildcard covers it",
        faults,
        "the Service's status.url",
        "a wildcard covers one label only: check domain-template in config-network",
    )


HOST_COVERED = Check(
    "The Service's host name is covered by the wildcard",
    _service_ready_host,
    lambda given: (Read(KNATIVE_SERVICE, given.service_namespace, given.service_name),),
)
HTTPS_ANSWER = Check("The application answers over HTTPS", _https_answer)
REFUSED_WITHOUT_ANCHOR = Check("The same request fails without the trust anchor", _refused_without_anchor)
SERVICE_SIDECAR = Check("The application's Pods have sidecars", _service_sidecar, _service_reads)
ROUTE_PASSTHROUGH = Check("The Route passes TLS through", _route_passthrough, _route_reads)
CLUSTER_LOCAL = Check("The cluster-local name answers", _cluster_local, copes=_local_reads)
