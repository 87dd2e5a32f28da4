"""Which cluster a run is bound to, and who we are to it; a mismatch with the parameters stops the run."""

from __future__ import annotations

from typing import Any

from runbooks.cluster import Connection
from runbooks.errors import Forbidden, ServerRefused, WrongCluster
from runbooks.kinds import CLUSTER_VERSION, CONFIG_MAP, ObjectRef
from runbooks.parameters import Parameters

SANDBOX = ObjectRef(CONFIG_MAP, "kube-public", "runbooks-sandbox")


def identify(connection: Connection, parameters: Parameters) -> dict[str, Any]:
    """Who answers, and who we are to it.

    Args:
        connection: to the cluster that the context names.
        parameters: with the API server and cluster id that must answer, where they are given.

    Returns:
        Server, versions, cluster id, context, user, mode, and how a sandbox describes itself.

    Raises:
        WrongCluster: another cluster answered.
        ConnectionFailed: none did.
    """
    version = connection.version()
    if parameters.api_server and parameters.api_server.rstrip("/") != connection.server.rstrip("/"):
        raise WrongCluster(
            f"connecting with context {parameters.context}",
            f"it leads to {connection.server}, and api_server is {parameters.api_server}",
            "correct the context or api_server; nothing was changed",
        )
    cluster_id, openshift = _cluster_identity(connection)
    if parameters.cluster_id and parameters.cluster_id != cluster_id:
        raise WrongCluster(
            f"connecting to {connection.server}",
            f"its cluster id is {cluster_id or 'unknown'}, and cluster_id is {parameters.cluster_id}",
            "correct the context or cluster_id; nothing was changed",
        )
    return {
        "server": connection.server,
        "kubernetes": version,
        "openshift": openshift,
        "cluster_id": cluster_id,
        "context": parameters.context,
        "user": connection.whoami(),
        "mode": parameters.mode,
        "sandbox": _sandbox(connection),
    }


def _cluster_identity(connection: Connection) -> tuple[str, str]:
    """Cluster id and OpenShift version; empty where the account may not read them, or there are none."""
    try:
        live = connection.get(CLUSTER_VERSION, "", "version") or {}
    except ServerRefused:
        return "", ""
    desired = live.get("status", {}).get("desired", {})
    return str(live.get("spec", {}).get("clusterID", "")), str(desired.get("version", ""))


def _sandbox(connection: Connection) -> dict[str, str]:
    """How the sandbox describes itself; empty on a real cluster."""
    try:
        live = connection.get(SANDBOX.kind, SANDBOX.namespace, SANDBOX.name)
    except Forbidden:
        return {}
    return dict((live or {}).get("data") or {})
