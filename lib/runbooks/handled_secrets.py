"""The secrets that a run can have in its hands before its kernel reads any, so that its record is searched for them.

What a login program gives out, and what lies in Secrets of the cluster, the kernel tells (``disclosure``).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from runbooks.certificates import LEAF_KEY, ROOT_KEY
from runbooks.errors import ParameterError
from runbooks.parameters import Parameters, check
from runbooks.procedure.section import Section
from runbooks.record.hygiene import Value

_SHORTEST = 12  # of a value in the environment; a shorter one may be any word
_TELLING = re.compile(r"(?i)(^|_)(token|passw(or)?d|passphrase|secret|(secret|api|access)_?key|credentials?)$")
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def of_run(section: Section, parameters: Mapping[str, Any]) -> list[Value]:
    """As for ``handled``, from parameters as they go into the notebook."""
    try:
        return handled(check(section.model, parameters))
    except ParameterError:  # with which no run gets further than its first cell
        return environment(os.environ)


def handled(parameters: Parameters) -> list[Value]:
    """The private keys and credentials that a run with these parameters can read, as they are now.

    Args:
        parameters: the run's.

    Returns:
        What could be read; a run of the same user could not have read more.
    """
    files = [Path(parameters.certificates_dir, name) for name in (ROOT_KEY, LEAF_KEY) if parameters.certificates_dir]
    if key_file := getattr(parameters, "key_file", ""):
        files.append(Path(key_file))
    found = [Value(str(path), content) for path in files if (content := _content(path))]
    return [*found, *_credentials(parameters), *environment(os.environ)]


def environment(variables: Mapping[str, str]) -> list[Value]:
    """The values of variables whose name says that they are secret; the kernel inherits them all."""
    return [
        Value(f"environment variable {name}", content.encode(errors="surrogateescape"))
        for name, content in variables.items()
        # Path.exists raises for what is too long to be a path
        if _TELLING.search(name) and len(content) >= _SHORTEST and not os.path.exists(content)  # noqa: PTH110
    ]


def _credentials(parameters: Parameters) -> Iterator[Value]:
    """What the context's user logs in with."""
    if parameters.context == "in-cluster":
        if content := _content(_IN_CLUSTER):
            yield Value("token of the ServiceAccount", content)
        return
    for path in (Path(name).expanduser() for name in _kubeconfigs(parameters) if name):
        for user in _users(path):
            yield from _of_user(user, path)


def _kubeconfigs(parameters: Parameters) -> list[str]:
    if parameters.kubeconfig:
        return [parameters.kubeconfig]
    return (os.environ.get("KUBECONFIG") or "~/.kube/config").split(os.pathsep)


def _users(path: Path) -> list[Mapping[str, Any]]:
    try:
        found = yaml.safe_load(_content(path))  # as the client reads it, a key that is there twice included
    except (yaml.YAMLError, ValueError):  # which the client cannot read either
        return []
    users = found.get("users") if isinstance(found, dict) else None
    return [user for user in users if isinstance(user, dict)] if isinstance(users, list) else []


def _of_user(user: Mapping[str, Any], path: Path) -> Iterator[Value]:
    fields = user.get("user")
    if not isinstance(fields, dict):
        return
    called = f"of user {user.get('name')} in {path.name}"
    for field in ("token", "password"):
        if fields.get(field):
            yield Value(f"{field} {called}", str(fields[field]).encode())
    for field in ("tokenFile", "client-key"):
        if fields.get(field) and (content := _content(path.parent / str(fields[field]))):
            yield Value(f"{field} {called}", content)
    if encoded := fields.get("client-key-data"):
        yield Value(f"client-key-data {called}", _decoded(str(encoded)))
    yield from _of_login(fields, called)


def _of_login(fields: Mapping[str, Any], called: str) -> Iterator[Value]:
    """What a login program or a plug-in is given to log in with."""
    plugin = fields.get("auth-provider")
    given = plugin.get("config") if isinstance(plugin, dict) else None
    for name, text in (given if isinstance(given, dict) else {}).items():
        if str(name) in ("id-token", "refresh-token", "access-token", "client-secret") and text:
            yield Value(f"{name} {called}", str(text).encode())
    program = fields.get("exec")
    variables = program.get("env") if isinstance(program, dict) else None
    pairs = [one for one in variables if isinstance(one, dict)] if isinstance(variables, list) else []
    for value in environment({str(one.get("name")): str(one.get("value")) for one in pairs}):
        yield Value(f"{value.name} {called}", value.content)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except binascii.Error:  # no key then, but what was kept as one is looked for as it stands
        return text.encode()


def _content(path: Path) -> bytes:
    """The file's content, or nothing where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
