"""The only Kubernetes input and output: connect, list, dry run, apply, add to a list, access reviews.

Paths are known and manifests are plain dicts, so the typed client classes, whose import costs more than a whole
runbook's requests, are never touched. Errors of the client and answers of the server become this library's errors
in one place (``_raise_for``).
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import logging
import math
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import kube_config
from kubernetes.config.config_exception import ConfigException
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.stream.ws_client import portforward_call

from runbooks import batch, input_file, patience
from runbooks.disclosure import Disclosure
from runbooks.errors import RBAC, Conflict, ConnectionFailed, Forbidden, NotServed, ServerRefused
from runbooks.kinds import POD, SECRET, Kind, ObjectRef
from runbooks.manifests import Manifest
from runbooks.plan import LIST_MANAGER, Desired, compare, list_patch
from runbooks.rights import Right
from runbooks.snapshot import Live, Read, Snapshot

_TIMEOUT_S = (5, 60)  # to connect, to go on with the answer
_ANSWER_S = 300  # for a whole answer, however slowly it trickles in
PATIENCE_S = 120  # for a server that asks to come back later, or restarts
_LONGEST_PAUSE_S = 8.0
_UNASKED = 3  # attempts at a server that refuses, has never answered, and does not ask to come back
_LOGIN_S = 120  # for a login program: some wait for a person in a browser
_CHUNK = 65536
_MOST_WORDS = 1000
_PAGE = 500
_STARTS_AGAIN_S, _MUTE_AFTER_S = 0.5, 3.0
_STARTED_S = 60  # after it was away, in which a refusal is asked for once more
_GONE, _BUSY = 410, (429, 503)
_LIST_ATTEMPTS = 20
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
_SIZE_METRIC = re.compile(
    r"^apiserver_resource_size_estimate_bytes\{(?P<labels>[^}]*)\}\s+(?P<value>\S+)", re.MULTILINE
)
_QUOTED_SWITCH = re.compile(rb"""^[^#\n]*\binsecure-skip-tls-verify["']?\s*:\s*["']""", re.MULTILINE)
# the words of every authorizer; admission and quotas answer with 403 too, and no role would change their mind
_UNAUTHORIZED = re.compile(r'\bcannot \w+ (resource|path) "')
_STARTING = "not yet ready to handle request"  # of admission, with 403, while the API server starts
_APPLY, _JSON_PATCH, _JSON = "application/apply-patch+yaml", "application/json-patch+json", "application/json"


R = TypeVar("R")


@dataclass(frozen=True)
class Written:
    """What the server answered to a write.

    Args:
        live: the object as stored.
        audit_id: the id under which the server's audit log holds the request.
    """

    live: Live
    audit_id: str


def connect(kubeconfig: str, context: str, patience_s: float = PATIENCE_S) -> Connection:
    """A connection to the cluster that a kubeconfig context names; nothing is requested yet.

    Args:
        kubeconfig: path of the file, or empty for the usual one ($KUBECONFIG, else ~/.kube/config).
        context: the context's name, or ``in-cluster`` for the ServiceAccount of the Pod that this runs in.
        patience_s: how long one request may be sent again and again to a server that is overloaded or restarts.

    Raises:
        ConnectionFailed: the file is missing or broken, or has no such context.
    """
    configuration = Configuration()
    attempted = f"reading context {context} of {kubeconfig or 'the default kubeconfig'}"
    if context != "in-cluster":
        _check_kubeconfig(kubeconfig, attempted)
    try:
        with _Overheard() as overheard:
            # the renewal of an OpenID token, which the client does by itself, has no time-out either
            within(_LOGIN_S + 10, lambda: _load(kubeconfig, context, configuration))
        if overheard.words:
            raise ConfigException("; ".join(overheard.words))
        server = urlsplit(configuration.host)
        if server.scheme not in ("http", "https") or not server.hostname:
            raise ConfigException(f"its server is {configuration.host!r}, and not an https:// address")
        configuration.connection_pool_maxsize = batch.CONNECTIONS
        configuration.retries = retries = _Retries(_Server(patience_s))  # both are read when the client is made
        api = ApiClient(configuration)
    except _BROKEN as error:
        remedy = "oc config get-contexts lists the contexts; oc whoami tries the context's login program"
        raise ConnectionFailed(attempted, _without_content(error), remedy) from None
    disclosure = Disclosure.from_environment()
    if header := configuration.api_key.get("BearerToken") or configuration.api_key.get("authorization"):
        if not (header.isascii() and header.isprintable()):  # the client would quote it
            said = "its token holds characters that no token has"
            raise ConnectionFailed(attempted, said, "oc login again")
        # whatever gave it out: the kubeconfig, a file, or a login program
        disclosure.tell(f"token of the context {context}", header.rpartition(" ")[2].encode())
    if configuration.key_file and Path(configuration.key_file).is_file():
        disclosure.tell(f"client key of the context {context}", Path(configuration.key_file).read_bytes())
    return Connection(api, context, disclosure, retries.server)


# --- a server that asks for patience, or restarts ------------------------------------------------------------------


class _Server:
    """What the requests to one server share.

    Args:
        patience_s: how long one request may be sent again.
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.failed = -math.inf  # when it was last away, on the monotonic clock
        self.mute = False  # this account may not ask whether it is ready
        self.answered = False  # one that never has is away, and that is said at once
        self.say: Callable[[str], None] = lambda _: None


class _Retries(urllib3.Retry):
    """Retries that are bounded by time: by the server's patience, and by the deadline of what the request is for.

    429 and 503 say that nothing was done, and for how long to wait. Where the connection fails the write may have
    been done: all that are sent here can be sent twice (server-side apply, and patches that test what they change).

    Args:
        server: of the requests.
        since: when the first attempt failed.
        counts: as ``urllib3.Retry`` takes them.
    """

    def __init__(self, server: _Server, since: float | None = None, **counts: Any) -> None:
        self.server, self.since = server, since
        bounds = {"total": None, "redirect": 3, "read": 1, "raise_on_status": False, "allowed_methods": None}
        super().__init__(**{**bounds, "status_forcelist": _BUSY, **counts})

    def new(self, **counts: Any) -> _Retries:
        """The retries that are left."""
        return super().new(server=self.server, since=self.since or time.monotonic(), **counts)

    def increment(self, *args: Any, **keywords: Any) -> _Retries:
        """What is left after one more attempt has failed.

        Raises:
            MaxRetryError: nothing is left.
        """
        error, response = keywords.get("error"), keywords.get("response")
        slow = isinstance(error, urllib3.exceptions.ReadTimeoutError)
        if error is not None:
            self.server.failed = time.monotonic()
        if error is not None and not slow:  # the time counts, and not how often
            keywords["error"] = urllib3.exceptions.HTTPError(error)
        left = super().increment(*args, **keywords)
        redirected = response is not None and bool(response.get_redirect_location())
        # a certificate that is not accepted will not be in a moment
        final = isinstance(error, urllib3.exceptions.SSLError) or not left._may_pause(response)
        if not (slow or redirected) and final:
            reason = error or urllib3.exceptions.ResponseError("too many refusals")
            raise urllib3.exceptions.MaxRetryError(keywords["_pool"], str(args[1:2]), reason) from error
        return left

    def _may_pause(self, response: urllib3.BaseHTTPResponse | None) -> bool:
        asks = response is not None and "Retry-After" in response.headers
        if not (asks or self.server.answered) and (response is None or len(self.history) > _UNASKED):
            return False
        assert self.since is not None
        pause = self._pause(response)
        return time.monotonic() - self.since + pause <= self.server.patience_s and patience.allows(pause)

    def _pause(self, response: urllib3.BaseHTTPResponse | None) -> float:
        """What the server asks for, and more from attempt to attempt."""
        asked = self._asked(response) if response is not None else 0.0
        return max(asked, min(0.25 * 2.0 ** (len(self.history) - 1), _LONGEST_PAUSE_S))

    def _asked(self, response: urllib3.BaseHTTPResponse) -> float:
        try:
            return self.get_retry_after(response) or 0.0
        except urllib3.exceptions.InvalidHeader:
            return 0.0

    def sleep(self, response: urllib3.BaseHTTPResponse | None = None) -> None:
        """Pause before the next attempt."""
        seconds = self._pause(response)
        said = f"answered {response.status}" if response is not None else "cannot be reached"
        if seconds >= 1:
            self.server.say(f"the API server {said}; asking again in {seconds:.0f} s")
        patience.pause(seconds)


def _load(kubeconfig: str, context: str, configuration: Configuration) -> None:
    if context == "in-cluster":
        config.load_incluster_config(client_configuration=configuration)
    else:
        config.load_kube_config(
            config_file=kubeconfig or None, context=context, client_configuration=configuration, persist_config=False
        )


# what the client says of a kubeconfig that is not what it expects; its own words for it are Python's
_BROKEN = (
    *(ConfigException, yaml.YAMLError, urllib3.exceptions.HTTPError, ImportError),
    *(OSError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
)


def _without_content(error: Exception) -> str:
    """The client's words without the entries of the kubeconfig, which it quotes whole: token, key and all."""
    said = " ".join(str(error).split())
    if isinstance(error, ImportError):  # PySocks
        return f"it asks for something that is not installed here: {said}"
    if isinstance(error, ConfigException | yaml.YAMLError | OSError | urllib3.exceptions.HTTPError):
        return re.sub(r"\{.*\}", "{…}", said)
    return f"it is not as a kubeconfig should be ({re.sub(r'[{].*[}]', '{…}', said)})"


def within(seconds: float, call: Callable[[], R]) -> R:
    """What a call of the client returns that knows no time-out of its own.

    Raises:
        TimeoutError: it has not returned by then. It is left behind in a thread that no process waits for.
        Exception: as the call.
    """
    answer: Future[R] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        if answer.done():
            raise
        raise TimeoutError(f"there was no answer in {seconds:.0f} seconds") from error


class _LoginProgram(ExecProvider):  # type: ignore[misc]
    """A login program with a deadline; the client would wait for it without end, and has no place to say for how long.

    It gets no standard input: a question that nobody sees is no way to log in.
    """

    def run(self, previous_response: Any = None) -> Any:  # noqa: ARG002 the client's signature
        info = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
        if self.cluster:
            info["spec"]["cluster"] = self.cluster.value
        program = str(self.args[0])
        with subprocess.Popen(
            self.args,
            env={**self.env, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=_LOGIN_S)
            except BaseException as error:  # a signal of ours, too
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                raise ConfigException(f"its login program {program} did not end in {_LOGIN_S:g} seconds") from None
        if process.returncode:
            words = stderr.decode(errors="replace").strip()[:_MOST_WORDS]
            raise ConfigException(f"its login program {program} ended with {process.returncode}. {words}")
        return self._status(stdout, program)

    def _status(self, stdout: bytes, program: str) -> Any:
        try:
            answer = json.loads(stdout)
            status = answer["status"]
            if answer["apiVersion"] != self.api_version or not isinstance(status, dict):
                raise ValueError(answer)
        except (ValueError, LookupError, TypeError, RecursionError):
            # not what it printed: that may be a token
            said = f"its login program {program} printed no ExecCredential of {self.api_version}"
            raise ConfigException(said) from None
        return status


kube_config.ExecProvider = _LoginProgram


def contexts(kubeconfig: str) -> list[str]:
    """The names of the contexts of a kubeconfig, the current one first.

    Raises:
        ConnectionFailed: it cannot be read.
    """
    attempted = f"reading the contexts of {kubeconfig or 'the default kubeconfig'}"
    _check_kubeconfig(kubeconfig, attempted)
    try:
        found, current = config.list_kube_config_contexts(kubeconfig or None)
    except _BROKEN as error:
        raise ConnectionFailed(attempted, _without_content(error), "set kubeconfig to a kubeconfig file") from None
    names = [str(one["name"]) for one in found]
    return sorted(names, key=lambda name: name != (current or {}).get("name"))


class _Overheard(logging.Handler):
    """What the client only logs: that a login program failed, after which it would go on as an anonymous user."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())

    def __enter__(self) -> _Overheard:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


def _check_kubeconfig(path: str, attempted: str) -> None:
    """Read it once by ourselves: the client would wait for a pipe without end, and read whatever is there."""
    for one in (path or config.KUBE_CONFIG_DEFAULT_LOCATION).split(os.pathsep):
        try:
            content = input_file.read(Path(one).expanduser())
        except FileNotFoundError as error:
            if path:  # of the usual ones some may be missing, and the client says so where all are
                said, remedy = "there is no such file", "set kubeconfig to a file, for example ~/.kube/config"
                raise ConnectionFailed(attempted, said, remedy) from error
        except (OSError, RuntimeError) as error:
            said = getattr(error, "strerror", "") or str(error)
            said = "it is not a file" if isinstance(error, IsADirectoryError) else said
            raise ConnectionFailed(attempted, said, "set kubeconfig to a file, for example ~/.kube/config") from error
        else:
            if _QUOTED_SWITCH.search(content):
                said = f"insecure-skip-tls-verify is text in {one}, and any text would switch the check off"
                raise ConnectionFailed(attempted, said, "write it without quotes: true or false")


class Connection:
    """A connection to one cluster; it counts the requests that it makes.

    Args:
        api: the configured client.
        context: the kubeconfig context it was made from.
        disclosure: told every value of a Secret before anybody here sees it.
        server: what its requests share.
    """

    def __init__(self, api: ApiClient, context: str, disclosure: Disclosure, server: _Server) -> None:
        self._api, self._disclosure, self._behind = api, disclosure, server
        self.context = context
        self.server: str = api.configuration.host
        self.requests: Counter[str] = Counter()
        self._counting = threading.Lock()

    def tell(self, say: Callable[[str], None]) -> None:
        """Call ``say`` with a line whenever the server lets a request wait for a second or more."""
        self._behind.say = say

    def _count(self, what: str) -> None:
        with self._counting:  # a batch makes requests from several threads
            self.requests[what] += 1

    # --- requests ------------------------------------------------------------------------------------------------

    def _request(
        self,
        method: str,
        path: str,
        attempted: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> tuple[dict[str, Any], str]:
        given = {"query": query, "body": body, "content_type": content_type, "accept": accept}
        refused, lost, sure = 0.0, False, False
        while True:
            status, raw, audit_id, repeated = self._exchange(method, path, attempted, **given)
            lost = lost or repeated
            # a group or version that is not there is answered by the server's mux, in plain text
            if status == 404 and raw.strip() == b"404 page not found":
                raise self._not_served(path, attempted, audit_id)
            answer = _decode(raw, self.server, attempted)
            if status != 403 or sure:
                break
            refused = refused or time.monotonic()
            # one that starts knows no roles yet, so its 403 says nothing about ours; nor does one of a moment ago
            if not self._starts(answer, time.monotonic() - refused):
                if time.monotonic() - self._behind.failed > _STARTED_S:
                    break
                sure = True
            elif time.monotonic() - refused > self._behind.patience_s or not patience.allows(_STARTS_AGAIN_S):
                status = 503
                break
            else:
                patience.pause(_STARTS_AGAIN_S)
        if status >= 400:
            _raise_for(status, answer, attempted, audit_id, repeated=lost)
        return answer, audit_id

    def _starts(self, answer: Mapping[str, Any], seconds: float) -> bool:
        """Whether a refusal comes from an API server that has not read yet what it judges by.

        It says so itself, or is not ready. For a moment it refuses to say even that; where that stays so for a few
        seconds, this account may not ask, and is not made to wait for it again.
        """
        if _STARTING in str(answer.get("message")):
            return True
        if self._behind.mute:
            return False
        status, _, _, _ = self._exchange("GET", "/readyz", f"asking whether {self.server} is ready", accept="*/*")
        self._behind.mute = status == 403 and seconds > _MUTE_AFTER_S
        return status >= 500 or (status == 403 and not self._behind.mute)

    def _not_served(self, path: str, attempted: str, audit_id: str) -> NotServed:
        """Why a kind is unknown: its CRD is missing, or has other versions."""
        _, _, group, version, *rest = f"{path}////".split("/")[:8]
        plural = rest[2] if rest[0] == "namespaces" and rest[2] else rest[0]
        others = [one for one in self._versions(group) if plural in self._plurals(group, one)]
        kind = f"{plural}.{group}"
        if others:
            said = f"the cluster serves {kind} in version {', '.join(others)} and not in {version}"
            remedy = "compare the version of the operator that brings it with the supported ones"
        else:
            said, remedy = (
                f"the cluster does not know {kind} ({group}/{version})",
                f"install the operator that brings {kind}",
            )
        return NotServed(attempted, said, remedy, status=404, audit_id=audit_id, versions=tuple(others))

    def _versions(self, group: str) -> list[str]:
        answer = self._discovered(f"/apis/{group}")
        return [str(one.get("version")) for one in answer.get("versions") or [] if isinstance(one, Mapping)]

    def _plurals(self, group: str, version: str) -> set[str]:
        answer = self._discovered(f"/apis/{group}/{version}")
        return {str(one.get("name")) for one in answer.get("resources") or [] if isinstance(one, Mapping)}

    def _discovered(self, path: str) -> dict[str, Any]:
        attempted = f"asking what {self.server} serves"
        status, raw, _, _ = self._exchange("GET", path, attempted, accept=_JSON)
        return _decode(raw, self.server, attempted) if status == 200 else {}

    def _exchange(
        self,
        method: str,
        path: str,
        attempted: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        accept: str,
    ) -> tuple[int, bytes, str, bool]:
        """Status, body and audit id of the answer, and whether an earlier attempt got none."""
        target = f"{path}?{urlencode(query)}" if query else path
        self._count(f"{method} dry run" if query and "dryRun" in query else method)
        # the client serialises JSON patches and JSON itself, other content types it wants as bytes
        content = json.dumps(body).encode() if content_type == _APPLY else body
        try:
            _, url, headers, _, _ = self._api.param_serialize(
                method, target, header_params={"Accept": accept}, auth_settings=["BearerToken"]
            )
            if body is not None:
                headers["Content-Type"] = content_type
            response = self._api.call_api(method, url, headers, content, _request_timeout=_TIMEOUT_S)
            raw = _body(response.response)
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            unsure = method == "PATCH" and "dryRun" not in (query or {})
            raise _unreachable(self.server, attempted, error, unsure=unsure) from error
        self._behind.answered = self._behind.answered or response.status < 500
        repeated = any(attempt.error for attempt in response.response.retries.history)
        return response.status, raw, response.headers.get("Audit-Id", ""), repeated

    def version(self) -> str:
        """The API server's version, for example ``v1.27.4``.

        Raises:
            ConnectionFailed: the server cannot be reached or does not accept the credentials.
        """
        answer, _ = self._request("GET", "/version", f"connecting to {self.server}")
        return str(_found(answer, self.server, f"connecting to {self.server}", "gitVersion"))

    def whoami(self) -> str:
        """The user's name as the API server sees it; ``unknown`` on servers that cannot say (before 1.28)."""
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        attempted = "asking the server who we are"
        try:
            answer, _ = self._request("POST", path, attempted, body=body)
        except ServerRefused:
            return "unknown"
        return str(_found(answer, self.server, attempted, "status", "userInfo", "username"))

    def may(self, right: Right) -> bool:
        """Whether the account has a right (a SelfSubjectAccessReview)."""
        resource, _, subresource = right.resource.partition("/")
        attributes = {
            "group": right.group,
            "resource": resource,
            "subresource": subresource,
            "verb": right.verb,
            "namespace": right.namespace,
            "name": right.name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        attempted = f"asking whether we may {right}"
        answer, _ = self._request("POST", path, attempted, body=body)
        return _found(answer, self.server, attempted, "status", "allowed") is True

    # --- reading -------------------------------------------------------------------------------------------------

    def get(self, kind: Kind, namespace: str, name: str) -> Live | None:
        """One object, or None where there is none.

        Raises:
            NotServed: the server knows the kind in other versions only.
            Forbidden: the account may not read it.
        """
        ref = ObjectRef(kind, namespace, name)
        try:
            live, _ = self._request("GET", kind.path(namespace, name), f"reading {ref}")
        except NotServed as error:
            if error.versions:  # it may well be there
                raise
            return None
        _found(live, self.server, f"reading {ref}", "metadata", "name")
        self._disclose(kind, live)
        return live

    def _disclose(self, kind: Kind, manifest: Mapping[str, Any]) -> None:
        if kind == SECRET:
            # it repeats the values, and nobody here asks for it
            (manifest["metadata"].get("annotations") or {}).pop("kubectl.kubernetes.io/last-applied-configuration", "")
            where = f"Secret {manifest['metadata'].get('namespace', '')}/{manifest['metadata']['name']}"
            for key, value in (manifest.get("data") or {}).items():
                content = base64.b64decode(value)
                if not key.endswith(".crt") or b"PRIVATE KEY" in content:  # a certificate is public, with its comments
                    self._disclosure.tell(f"{where} {key}", content)

    def objects(
        self, kind: Kind, namespace: str = "", *, name: str = "", label_selector: str = "", metadata_only: bool = False
    ) -> Iterator[Live]:
        """The objects of a kind, page by page.

        Args:
            kind: what to list.
            namespace: one namespace, or empty for all.
            name: only the object of this name.
            label_selector: only objects with these labels.
            metadata_only: ask for names, labels and the like; the server sends no content.

        Raises:
            NotServed: the server does not know the kind.
            Forbidden: the account may not list it.
        """
        query = {"limit": str(_PAGE)}
        if name:
            query["fieldSelector"] = f"metadata.name={name}"
        if label_selector:
            query["labelSelector"] = label_selector
        attempted = f"listing {Read(kind, namespace, name)}"
        for item in self._items(kind, namespace, attempted, query, metadata_only=metadata_only):
            self._disclose(kind, item)
            yield {"apiVersion": kind.api_version, "kind": kind.name, **item}

    def _items(
        self, kind: Kind, namespace: str, attempted: str, query: dict[str, str], *, metadata_only: bool
    ) -> list[Live]:
        """All pages of a list; where the server has forgotten between two of them where it was, all at once."""
        found: list[Live] = []
        while True:
            try:
                answer = self._page(kind, namespace, attempted, query, metadata_only=metadata_only)
            except ServerRefused as error:
                if error.status != _GONE or "continue" not in query:
                    raise
                query = {key: value for key, value in query.items() if key not in ("continue", "limit")}
                found = []
                continue
            found += answer.get("items") or []
            token = answer.get("metadata", {}).get("continue")
            if not token:
                return found
            query = {**query, "continue": token}

    def _page(
        self, kind: Kind, namespace: str, attempted: str, query: Mapping[str, str], *, metadata_only: bool
    ) -> dict[str, Any]:
        accept = _METADATA if metadata_only else _JSON
        answer, _ = self._request("GET", kind.path(namespace or None), attempted, query=query, accept=accept)
        if not _is_list(answer):  # taken for an empty one, it would say that nothing is there
            said = f"{self.server} answered in JSON, but with no list"
            raise ConnectionFailed(attempted, said, "is this the address of an API server?")
        return only_metadata(answer, attempted) if metadata_only else answer

    def count(self, kind: Kind, label_selector: str = "") -> int:
        """How many objects of a kind there are in the whole cluster; no content of theirs is sent.

        Raises:
            Forbidden: the account may not list them.
        """
        if not label_selector:
            attempted = f"counting {kind} objects"
            answer = self._page(kind, "", attempted, {"limit": "1"}, metadata_only=True)
            remaining = answer["metadata"].get("remainingItemCount")
            if remaining is not None or not answer["metadata"].get("continue"):
                return len(answer.get("items") or []) + int(remaining or 0)
        # with a selector the server does not say how many are left
        return sum(1 for _ in self.objects(kind, label_selector=label_selector, metadata_only=True))

    def stored_bytes(self, kind: Kind) -> int | None:
        """About how many bytes all objects of a kind have, or None where the server does not say.

        It is the API server's own estimate, out of its metrics. It lags by a minute, and older servers have none.
        """
        attempted = f"reading the metrics of {self.server}"
        status, raw, _, _ = self._exchange("GET", "/metrics", attempted, accept="text/plain")
        return size_estimate(raw.decode(errors="replace"), kind) if status == 200 else None

    def survey(self, reads: Iterable[Read]) -> Snapshot:
        """Everything that a runbook judges, read once, several lists at a time.

        A read that the server refuses is kept as such: what it means is for the judgement to say.

        Raises:
            ConnectionFailed: the server cannot be reached.
        """
        answers = batch.every(self._answer, tuple(dict.fromkeys(reads)))
        return functools.reduce(Snapshot.plus, answers, Snapshot())

    def _answer(self, read: Read) -> Snapshot:
        """The answer to one read; where not all namespaces may be listed, of those that the read names."""
        try:
            return Snapshot({read: tuple(self._list(read, read.namespace))})
        except ServerRefused as error:
            if not (isinstance(error, Forbidden) and read.otherwise):
                return Snapshot(refused={read: error})
        narrowed = frozenset({read})
        try:
            objects = tuple(live for one in read.otherwise for live in self._list(read, one))
        except ServerRefused as error:
            return Snapshot(refused={read: error}, narrowed=narrowed)
        return Snapshot({read: objects}, narrowed=narrowed)

    def _list(self, read: Read, namespace: str) -> Iterator[Live]:
        return self.objects(
            read.kind, namespace, name=read.name, label_selector=read.labels, metadata_only=read.metadata_only
        )

    # --- writing -------------------------------------------------------------------------------------------------

    def apply(
        self, kind: Kind, manifest: Manifest, *, field_manager: str, force: bool = False, dry_run: bool = False
    ) -> Written:
        """Server-side apply of one manifest.

        Args:
            kind: the manifest's kind.
            manifest: what to apply; see ``plan.applied_manifest`` for what guards it carries.
            field_manager: under whose name.
            force: take fields over from the managers that own them.
            dry_run: ask for the server's opinion, store nothing.

        Raises:
            Conflict: other managers own fields, or the object appeared or vanished in between.
            ServerRefused: validation or admission said no.
        """
        metadata = manifest["metadata"]
        self._disclose(kind, manifest)
        ref = ObjectRef(kind, metadata.get("namespace", ""), metadata["name"])
        query = {"fieldManager": field_manager, "fieldValidation": "Strict"}
        if force:
            query["force"] = "true"
        if dry_run:
            query["dryRun"] = "All"
        attempted = f"{'dry run of ' if dry_run else ''}applying {ref}"
        path = kind.path(ref.namespace, ref.name)
        written = Written(*self._request("PATCH", path, attempted, query=query, body=manifest, content_type=_APPLY))
        self._disclose(kind, written.live)
        return written

    def add_to_lists(self, desired: Desired, *, dry_run: bool = False) -> list[Written]:
        """Add what an object's shared lists lack, and take nothing out.

        The patch holds the list as read and fails where it changed in between; then it is read again and tried
        again, so that two writers at once lose nothing.

        Raises:
            Conflict: others kept changing the list.
            ServerRefused: the object is gone, or validation or admission said no.
        """
        ref, written, lost = desired.ref, list[Written](), False
        query = {"fieldManager": LIST_MANAGER, "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        attempted = f"{'dry run of ' if dry_run else ''}adding to the lists of {ref}"
        path = ref.kind.path(ref.namespace, ref.name)
        for shared in desired.shared_lists:
            for attempt in range(1, _LIST_ATTEMPTS + 1):
                live, _ = self._request("GET", path, f"reading {ref}")
                additions = [item for item in compare(desired, live).additions if item.shared == shared]
                if not additions:
                    if lost:  # an attempt was carried out, and its answer never came
                        written.append(Written(live, ""))
                    break
                patch = list_patch(additions[0], live)
                try:
                    answer = self._request("PATCH", path, attempted, query=query, body=patch, content_type=_JSON_PATCH)
                except Conflict as error:
                    lost = lost or error.repeated
                    if attempt == _LIST_ATTEMPTS:
                        raise
                    continue
                written.append(Written(*answer))
                break
        return written

    def evict(self, namespace: str, name: str) -> str:
        """Ask for the end of one Pod, as its disruption budget allows; returns the server's audit id.

        Raises:
            ServerRefused: the disruption budget does not allow it now.
        """
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        }
        path = f"{POD.path(namespace, name)}/eviction"
        _, audit_id = self._request("POST", path, f"evicting Pod {namespace}/{name}", body=body)
        return audit_id

    # --- a way to a Pod ------------------------------------------------------------------------------------------

    def port_forward(self, namespace: str, pod: str, port: int) -> socket.socket:
        """A socket to a port of a Pod, through the API server (``oc port-forward``).

        Raises:
            Forbidden: the account may not.
            ConnectionFailed: nothing can be reached there.
        """
        attempted = f"port-forward to Pod {namespace}/{pod} port {port}"
        self._count("CONNECT")
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"
        _, url, headers, _, _ = self._api.param_serialize("GET", path, auth_settings=["BearerToken"])
        try:
            forward = within(
                sum(_TIMEOUT_S),
                lambda: portforward_call(
                    self._api.configuration, "GET", url, query_params=[("ports", str(port))], headers=headers
                ),
            )
            return forward.socket(port)  # type: ignore[no-any-return]
        except (ApiException, OSError, ValueError) as error:
            said = " ".join(str(error).split())
            if "403" in said:  # the client passes the handshake's answer on in words only
                remedy = "the account needs create on pods/portforward"
                raise Forbidden(attempted, said, remedy, status=403) from error
            raise ConnectionFailed(attempted, said, "look at the kubelet's and the API server's logs") from error


# --- what answers hold ---------------------------------------------------------------------------------------------


def only_metadata(answer: dict[str, Any], attempted: str) -> dict[str, Any]:
    """A list as it was asked for, without the objects' content.

    Raises:
        ConnectionFailed: something on the way did not pass the wish on, and sent more.
    """
    more = [item for item in answer.get("items") or [] if item.keys() - {"kind", "apiVersion", "metadata"}]
    if answer.get("kind") != "PartialObjectMetadataList" or more:
        said = f"asked for metadata only, and was sent {answer.get('kind', 'something else')}"
        raise ConnectionFailed(attempted, said, "a proxy before the API server seems to change requests")
    return answer


def size_estimate(metrics: str, kind: Kind) -> int | None:
    """The size of all objects of a kind, out of an API server's metrics in their text format."""
    for found in _SIZE_METRIC.finditer(metrics):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', found["labels"]))
        if labels.get("resource") == kind.plural and labels.get("group", "") == kind.group:
            value = float(found["value"])
            return int(value) if value > 0 else None
    return None


# --- errors, mapped once -----------------------------------------------------------------------------------------


def _unreachable(server: str, attempted: str, error: Exception, *, unsure: bool = False) -> ConnectionFailed:
    reason = getattr(error, "reason", None) or error
    said = " ".join(str(reason).split())
    if "certificate has expired" in said or "not yet valid" in said or "valid for" in said or "match" in said:
        remedy = f"look at the certificate that {server} shows, and at this machine's clock"
    elif "CERTIFICATE_VERIFY_FAILED" in said:
        remedy = f"the kubeconfig's certificate-authority does not belong to {server}"
    else:
        remedy = f"check that {server} is up and that this machine may reach it (proxy, firewall, VPN)"
    if unsure:
        remedy += "; whether the change was made is not known: run it again, it looks first"
    return ConnectionFailed(attempted, said, remedy)


def _decode(raw: bytes, server: str, attempted: str) -> dict[str, Any]:
    try:
        answer = json.loads(raw or b"{}")
    except (ValueError, RecursionError) as error:
        start = raw[:60].decode(errors="replace").strip()
        said = f"{server} did not answer in JSON but with {start!r}"
        raise ConnectionFailed(attempted, said, "is this the address of an API server?") from error
    if not isinstance(answer, dict):
        raise ConnectionFailed(attempted, f"{server} answered {type(answer).__name__}", "is this an API server?")
    return answer


def _body(response: Any) -> bytes:
    """The whole body of an answer, which may not trickle in for ever."""
    parts, deadline = [], time.monotonic() + _ANSWER_S
    while part := response.read1(_CHUNK):
        parts.append(part)
        if time.monotonic() > deadline:
            response.close()
            raise TimeoutError(f"the answer had not ended after {_ANSWER_S:g} seconds")
    response.release_conn()
    return b"".join(parts)


def _is_list(answer: Mapping[str, Any]) -> bool:
    """Whether an answer is a list as every API server sends it; an empty one may come without items."""
    items = answer.get("items") or []
    return (
        isinstance(answer.get("kind"), str)
        and answer["kind"].endswith("List")
        and isinstance(answer.get("metadata"), Mapping)
        and isinstance(items, list)
        and all(isinstance(item, Mapping) and isinstance(item.get("metadata"), Mapping) for item in items)
    )


def _found(answer: Mapping[str, Any], server: str, attempted: str, *path: str) -> Any:
    """What stands at a path of an answer, on which nothing may be guessed."""
    found: Any = answer
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            said = f"{server} answered in JSON, but without {'.'.join(path)}"
            raise ConnectionFailed(attempted, said, "is this the address of an API server?")
        found = found[name]
    return found


def _raise_for(
    status: int, answer: Mapping[str, Any], attempted: str, audit_id: str, *, repeated: bool = False
) -> None:
    message = str(answer.get("message") or f"HTTP {status}")
    if status == 401:
        raise ConnectionFailed(
            attempted, "the server does not accept the credentials (401): the token may have expired", "oc login again"
        )
    if status == 403 and (_UNAUTHORIZED.search(message) or not answer.get("message")):
        raise Forbidden(attempted, message, RBAC, status=403, audit_id=audit_id)
    if status == 404:
        remedy = "install the operator, or create the namespace, that is missing: runbook 6.4.1 names it"
        raise NotServed(attempted, message, remedy, status=404, audit_id=audit_id)
    # a JSON patch whose test failed is answered with 422 and no more than this
    if status == 409 or (status == 422 and not (answer.get("details") or {}).get("causes")):
        remedy = "somebody else writes this object, too: run the notebook again, it will plan what is there now"
        causes = _causes(answer)
        raise Conflict(attempted, message, remedy, status=status, causes=causes, audit_id=audit_id, repeated=repeated)
    raise ServerRefused(attempted, message, _remedy(message, status), status=status, audit_id=audit_id)


def _causes(answer: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = []
    for cause in (answer.get("details") or {}).get("causes") or []:
        # conflict with "kubectl-edit" using v1 at 2026-01-01T00:00:00Z
        parts = str(cause.get("message", "")).split('"')
        if cause.get("reason") == "FieldManagerConflict" and len(parts) > 1:
            found.append((str(cause.get("field", "")).lstrip("."), parts[1]))
    return tuple(found)


def _remedy(message: str, status: int = 0) -> str:
    if "disruption budget" in message:
        return "the Pod's PodDisruptionBudget allows none now: see why its other Pods are not ready"
    if status in _BUSY:
        return "the API server is overloaded or just starting: nothing was done; run it again when it has calmed down"
    if "quota" in message:
        return "the namespace's ResourceQuota allows no more: free some of it, or have it raised, then run it again"
    if "is being terminated" in message:
        return "wait until the namespace is gone, create it anew, and run it again"
    if "conversion webhook" in message:
        return "the operator that serves the kind's conversion does not answer: look at its Pods, then run it again"
    if "failed calling webhook" in message:
        return "the cluster's own admission does not answer: look at the Pods behind that webhook, then run it again"
    if "admission webhook" in message:
        return "the cluster's own admission refused it; its words above say why"
    if "field not declared in schema" in message or "strict decoding error" in message:
        return "the cluster's CRD does not know this field: compare the operator's version with the supported ones"
    return "its words above say why; nothing of this object was changed"
