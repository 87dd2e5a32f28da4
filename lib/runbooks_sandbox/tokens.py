"""Tokens of service accounts in files, renewed before they end."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

from runbooks_sandbox.api import Api
from runbooks_sandbox.world import SERVICE_ACCOUNTS

LIFE = dt.timedelta(hours=1)
_RENEW_AT = 0.8  # of its life, as a kubelet does it


class Token:
    """One service account's token.

    Args:
        api: the connection to ask with.
        account: namespace and name of the service account.
        audience: whom the token is for; empty for the API server.
        write: what keeps a new token where its user finds it.
    """

    def __init__(self, api: Api, account: tuple[str, str], audience: str, write: Callable[[str], None]) -> None:
        self._api, self._account, self._audience, self._write = api, account, audience, write
        self._renew_at = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._uid = ""

    def keep_fresh(self, uid: str) -> None:
        """Ask for another token where the one there is near its end, or is of an account that has been deleted.

        Args:
            uid: of the service account as it is now; empty while it is not there, since nothing can be had then.

        Raises:
            ApiError: the API server refuses.
        """
        now = dt.datetime.now(dt.UTC)
        if not uid or (uid == self._uid and now < self._renew_at):
            return
        spec = {
            "expirationSeconds": int(LIFE.total_seconds()),
            **({"audiences": [self._audience]} if self._audience else {}),
        }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        status = self._api.request("POST", SERVICE_ACCOUNTS.path(*self._account, "token"), body)["status"]
        self._write(status["token"])
        ends = dt.datetime.fromisoformat(status["expirationTimestamp"])
        self._renew_at, self._uid = now + (ends - now) * _RENEW_AT, uid


def write_secretly(path: Path, content: str) -> None:
    """Write a file that only its owner may read, in one step."""
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    temporary.replace(path)
