"""The stand-ins' own way to the API server: requests with a token, and watches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

Object = dict[str, Any]


class ApiError(Exception):
    """The server answered with an error.

    Args:
        status: the HTTP status code.
        message: the server's words.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


class Resource:
    """Where the objects of one kind lie: group, version, plural and kind.

    Args:
        api_version: as in a manifest, for example ``apps/v1``.
        plural: as in a path.
        kind: as in a manifest.
        namespaced: whether objects live in a namespace.
    """

    def __init__(self, api_version: str, plural: str, kind: str, *, namespaced: bool = True) -> None:
        self.api_version, self.plural, self.kind, self.namespaced = api_version, plural, kind, namespaced

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The request path of an object, of its subresource, or of a list."""
        parts = ["/apis/" + self.api_version if "/" in self.api_version else "/api/" + self.api_version]
        if namespace:
            parts.append(f"namespaces/{quote(namespace, safe='')}")
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)

    def __repr__(self) -> str:
        return f"{self.plural}.{self.api_version}"


class Api:
    """A client with one identity.

    Args:
        server: the API server's URL.
        token: the bearer token of the identity.
        ca_file: the certificate authority of the server.
    """

    def __init__(self, server: str, token: str, ca_file: str) -> None:
        self.server = server
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._pool = urllib3.PoolManager(ca_certs=ca_file, maxsize=64, retries=False)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout_s: float = 30,
    ) -> Any:
        """One request; returns the decoded answer.

        Raises:
            ApiError: the server refused.
            urllib3.exceptions.HTTPError: the server cannot be reached.
        """
        url = f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {**self._headers, "Content-Type": content_type}
        content = None if body is None else json.dumps(body)
        response = self._pool.request(method, url, body=content, headers=headers, timeout=timeout_s)
        if response.status >= 400:
            try:
                message = str(response.json().get("message"))
            except ValueError:
                message = response.data.decode(errors="replace")[:300]
            raise ApiError(response.status, message)
        return (
            response.json()
            if response.headers.get("Content-Type", "").startswith("application/json")
            else response.data
        )

    def apply(self, manifest: Object, resource: Resource, field_manager: str, *, status: bool = False) -> Object:
        """Server-side apply, forced: a stand-in owns what it writes."""
        metadata = manifest["metadata"]
        path = resource.path(metadata.get("namespace", ""), metadata["name"], "status" if status else "")
        query = {"fieldManager": field_manager, "force": "true"}
        answer: Object = self.request("PATCH", path, manifest, query=query, content_type="application/apply-patch+yaml")
        return answer

    def delete(self, resource: Resource, namespace: str, name: str, *, now: bool = False) -> None:
        """Delete one object; one that is gone already is no error."""
        options = {"gracePeriodSeconds": 0} if now else {}
        try:
            self.request(
                "DELETE", resource.path(namespace, name), {"kind": "DeleteOptions", "apiVersion": "v1", **options}
            )
        except ApiError as error:
            if error.status != 404:
                raise

    def watch(self, path: str, resource_version: str) -> Iterator[tuple[str, Object]]:
        """The events of a list from a resourceVersion on, until the server ends the watch.

        Raises:
            ApiError: the resourceVersion is too old (410), or the server refused.
        """
        query = urlencode({"watch": "1", "resourceVersion": resource_version, "allowWatchBookmarks": "true"})
        timeout = urllib3.Timeout(connect=5, read=None)
        with self._pool.request(
            "GET", f"{self.server}{path}?{query}", headers=self._headers, timeout=timeout, preload_content=False
        ) as response:
            if response.status >= 400:
                raise ApiError(response.status, response.data.decode(errors="replace")[:300])
            for line in _lines(response):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(int(event["object"].get("code", 500)), str(event["object"].get("message")))
                yield event["type"], event["object"]


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The lines of a stream as soon as they are there."""
    rest = b""
    while chunk := response.read1():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)
