"""6.4.3: the application is reached from outside, and by its cluster-local name."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from typing import Any

from runbooks import certificates, probes
from runbooks.certificates import ROOT_CRT
from runbooks.checks.check import Check, compared, proven
from runbooks.checks.ingress_certificates import secret_read
from runbooks.cluster import Connection
from runbooks.errors import CertificateError, ConnectionFailed, Forbidden
from runbooks.kinds import KNATIVE_INGRESS, KNATIVE_SERVICE, POD, ROUTE, SECRET, SERVICE
from runbooks.manifests import LOCAL_GATEWAY, LOCAL_GATEWAY_PORT, SERVING_NAMESPACE
from runbooks.parameters import IntegrateServiceMesh
from runbooks.probes import Answer, NotTrusted, ProbeFailed
from runbooks.readiness import running
from runbooks.situation import Situation
from runbooks.snapshot import Live, Read
from runbooks.verdicts import Checked, Proof


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
        observed = f"there is no such Secret{_still_served(situation, host)}"
        return Checked(title, Proof.FAILED, "the Secret to compare with", observed, way, "run 6.4.2", "6.4.2")
    try:
        chain = certificates.load_chain(base64.b64decode((live.get("data") or {}).get("tls.crt", "")), "the Secret")
    except CertificateError as error:
        remedy = "run 6.4.2, which makes or takes over a certificate that can be served"
        return Checked(title, Proof.FAILED, "a certificate in the Secret", str(error), way, remedy, "6.4.2")
    wanted = certificates.fingerprint(chain[0])
    expected = f"the certificate {wanted[:16]}… of Secret {given.mesh_namespace}/{given.certificate_secret}"
    try:
        served = probes.served_fingerprint(host, _address(situation, host), _anchors(situation))
    except ProbeFailed as error:
        return Checked(title, Proof.FAILED, expected, str(error), way, _way_in_remedy(given))
    faults = [] if served == wanted else [f"another one is served: {served[:16]}…"]
    return compared(
        title,
        expected,
        faults,
        way,
        "an old certificate is served on where the Secret is gone or broken: compare it, run 6.4.2",
        see="6.4.2",
    )


def _still_served(situation: Situation[IntegrateServiceMesh], host: str) -> str:
    """What a gateway serves whose Secret is gone: it keeps what it had until it is started again."""
    try:
        served = probes.served_fingerprint(host, _address(situation, host), _anchors(situation))
    except ProbeFailed as error:
        return f", and {error}"
    return f"; the gateway still serves the certificate {served[:16]}… that it had, until it is started again"


def _way_in_remedy(given: IntegrateServiceMesh) -> str:
    return (
        f"check that Secret {given.certificate_secret} lies in {given.mesh_namespace}, that the gateway's account "
        f"may read Secrets there, that {SERVING_NAMESPACE} is a member of the mesh, and that no other Gateway claims "
        "port 443"
    )


CERTIFICATE_SERVED = Check("The gateway serves the Secret's certificate", _certificate_served, secret_read)


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


def _admitted(route: Live) -> bool:
    """Whether a router has said that it serves a Route."""
    return any(
        entry.get("type") == "Admitted" and entry.get("status") == "True"
        for ingress in (route.get("status") or {}).get("ingress") or []
        for entry in ingress.get("conditions") or []
    )


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
    expected = f"a Route for {host} with termination passthrough"
    way = f"the Routes in {given.mesh_namespace}, the namespace of the gateway"
    if not faults and not all(map(_admitted, routes)):
        # a Route that no router has taken leads nowhere, however good it looks
        said = "no router has said that it admits the Route"
        return Checked(
            title, Proof.UNPROVEN, expected, said, way, "oc get ingresscontroller -A shows what routers serve"
        )
    return compared(
        title,
        expected,
        faults,
        way,
        "no Route usually means that the Knative Ingress is not ready; its status says why; where the host is claimed, "
        "remove the older Route for the host: oc get routes -A",
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
    remedy = "" if good else _remedy(answer)
    return Checked(title, Proof.PROVEN if good else Proof.FAILED, expected, observed, way, remedy)


_STATUS_REMEDIES: Mapping[int, str] = {
    404: "the gateway knows no such host: is the application's namespace a member of the mesh?",
    403: "an AuthorizationPolicy of the mesh refuses the request",
    503: "the gateway finds no healthy Pod: is the Service ready, and does its Pod have a sidecar?",
}
_UNAVAILABLE: Mapping[str, str] = {  # by Envoy's own words for why there was no answer
    "connection termination": "the Pod's sidecar insists on mTLS, and the gateway speaks without: look for "
    "a DestinationRule whose tls.mode is not ISTIO_MUTUAL",
    "connection failure": "the gateway gets no connection with the Pod's sidecar: either it does not run (see the log "
    "of its container istio-proxy), or it shows another identity than the gateway expects (compare the Pod's service "
    "account with the DestinationRules for it)",
}


def _remedy(answer: Answer) -> str:
    """What to look at after an answer that is not the application's."""
    reasons = (remedy for words, remedy in _UNAVAILABLE.items() if answer.status == 503 and words in answer.body)
    return next(reasons, _STATUS_REMEDIES.get(answer.status, "look at the application's log"))


def _refused_without_anchor(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    host = service_host(situation)
    expected, way = "the same request is refused", f"{curl_command(situation).split(' --')[0]} without any trust anchor"
    try:
        answer = probes.https_get(host, _address(situation, host), b"")
    except NotTrusted as error:
        return proven(title, expected, way, str(error))
    except ProbeFailed as error:
        return Checked(title, Proof.FAILED, expected, str(error), way, _way_in_remedy(situation.parameters))
    said = f"it was answered with {answer.status}: nothing was verified"
    remedy = "the proof itself cannot be relied on here: report it, with the versions of Python and OpenSSL"
    return Checked(title, Proof.FAILED, expected, said, way, remedy)


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
        for pod in running(situation.snapshot.objects(POD, given.mesh_namespace))
        if selector.items() <= (pod["metadata"].get("labels") or {}).items()
    ]
    if service is None or not pods:
        missing = "a Pod of the ingress gateway" if service else f"Service {LOCAL_GATEWAY}"
        said = situation.snapshot.unreadable(POD if service else SERVICE) or "there is none"
        remedy = "it takes get on pods and services there, and a gateway that runs"
        return Checked(title, Proof.UNPROVEN, expected, f"{missing}: {said}", "", remedy)
    port = next((port["targetPort"] for port in service["spec"]["ports"] if port["port"] == 80), LOCAL_GATEWAY_PORT)
    pod = pods[0]["metadata"]["name"]
    way = f"Service {LOCAL_GATEWAY} port 80 → {port}, by port-forward to Pod {given.mesh_namespace}/{pod}"
    try:
        with contextlib.closing(connection.port_forward(given.mesh_namespace, pod, int(port))) as stream:
            answer = probes.http_get(host, stream)
    except Forbidden as error:
        return Checked(title, Proof.UNPROVEN, expected, error.said, way, error.remedy)
    except ConnectionFailed as error:
        return Checked(title, Proof.UNKNOWN, expected, error.said, way, error.remedy)
    except ProbeFailed as error:
        remedy = f"is Gateway {LOCAL_GATEWAY} as 6.4.3 leaves it, and {given.service_namespace} a member of the mesh?"
        return Checked(title, Proof.FAILED, expected, str(error), way, remedy)
    return _answered(title, expected, answer, given, way)


def _service_ready_host(title: str, situation: Situation[IntegrateServiceMesh], _: Connection) -> Checked:
    given, host = situation.parameters, service_host(situation)
    live = situation.snapshot.get(KNATIVE_SERVICE, given.service_namespace, given.service_name) or {}
    url = str(live.get("status", {}).get("url", "none"))
    named = url.partition("://")[2]
    faults = [] if named == host else [f"its status names {url}"]
    return compared(
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
ROUTE_PASSTHROUGH = Check("The Route passes TLS through", _route_passthrough, _route_reads)
CLUSTER_LOCAL = Check("The cluster-local name answers", _cluster_local, copes=_local_reads)
