"""Every exception of the library, grouped by when it happens.

A message always answers three questions: what was attempted, what the server or the check said,
and what to do next. A notebook shows just that, without a traceback, because the reader is an
engineer in the middle of a change and not a developer of this library.
"""

from __future__ import annotations

import unicodedata
from typing import ClassVar

RBAC = "runbooks list --rbac --mode MODE --parameters DIR prints the roles that are needed"  # where a right is missing
_LONGEST_LINE = 20_000  # a webhook may answer with a page
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # Unicode's control, format, half of a pair, line, paragraph


def visible(text: str) -> str:
    """A text with what would move the cursor, turn the line round or hide in it written out, as ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        ascii(character)[1:-1] if unicodedata.category(character) in UNSEEN and character not in "\n\t" else character
        for character in text
    )


class RunbookError(Exception):
    """Something stands in the way of a runbook.

    Args:
        attempted: what was being done, as the start of a sentence ("reading Secret a/b").
        said: the answer, in the words of the server or the check.
        remedy: what the reader can do about it.
        see: the documented section whose runbook fixes it, for example ``"6.4.2"``.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, attempted: str, said: str = "", remedy: str = "", *, see: str = "") -> None:
        self.attempted = attempted
        self.said = said
        self.remedy = remedy
        self.see = see
        super().__init__(attempted, said, remedy)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The message, one line for each question that has an answer."""
        found = [f"{self.attempted}: {self.said}" if self.said else self.attempted]
        if self.remedy:
            found.append(f"What to do: {self.remedy}")
        if self.see:
            found.append(f"See: runbook {self.see}")
        return [visible(line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + "…") for line in found]

    def _render_traceback_(self) -> list[str]:
        """What IPython prints instead of a traceback (its documented hook)."""
        return self.lines()


class UsageError(RunbookError):
    """The call itself is wrong; nothing was read and nothing was changed."""

    exit_code = 64


class ParameterError(UsageError):
    """A parameter is unknown, missing, of the wrong type, or not usable."""


class ConnectionFailed(RunbookError):
    """The API server could not be reached, or it does not know who we are."""


class GivenUp(RunbookError):
    """A request was given up before it was sent again, since the run was interrupted."""


class WrongCluster(ConnectionFailed):
    """The server that answered is not the one that the parameters name."""


class ServerRefused(RunbookError):
    """The API server answered a request with an error.

    Args:
        status: the HTTP status code of the answer.
        audit_id: the server's own id of the request, or an empty string.
    """

    def __init__(
        self,
        attempted: str,
        said: str = "",
        remedy: str = "",
        *,
        status: int,
        audit_id: str = "",
        see: str = "",
    ) -> None:
        super().__init__(attempted, said, remedy, see=see)
        self.status = status
        self.audit_id = audit_id


class Forbidden(ServerRefused):
    """The account lacks a right (HTTP 403)."""


class NotServed(ServerRefused):
    """The server does not know this kind of object, or this version of it, or there is no such object (HTTP 404).

    Args:
        versions: in which the server has the kind instead.
    """

    def __init__(
        self,
        attempted: str,
        said: str = "",
        remedy: str = "",
        *,
        status: int,
        audit_id: str = "",
        versions: tuple[str, ...] = (),
    ) -> None:
        super().__init__(attempted, said, remedy, status=status, audit_id=audit_id)
        self.versions = versions


class Conflict(ServerRefused):
    """Somebody else owns a field, or the object changed in between (HTTP 409, or 422 on a failed test).

    Args:
        causes: pairs of field path and field manager, as the server names them.
        repeated: an earlier attempt at the same request got no answer, so what is in the way may be our own.
    """

    def __init__(
        self,
        attempted: str,
        said: str = "",
        remedy: str = "",
        *,
        status: int,
        causes: tuple[tuple[str, str], ...] = (),
        audit_id: str = "",
        repeated: bool = False,
    ) -> None:
        super().__init__(attempted, said, remedy, status=status, audit_id=audit_id)
        self.causes = causes
        self.repeated = repeated


class ChangedSincePlan(RunbookError):
    """The cluster is no longer what the plan was made for."""


class TimedOut(RunbookError, TimeoutError):
    """A wait ended before the cluster reported what was waited for."""


class CertificateError(RunbookError):
    """A key, certificate or chain cannot be used."""


class NotApproved(RunbookError):
    """What was given as an approval approves nothing."""


class OutOfOrder(RunbookError):
    """A cell was run before the one that it depends on."""


class NotDone(RunbookError):
    """The runbook ended, and not with the outcome that its mode asks for."""


class RecordError(RunbookError):
    """A record, the archive of records, or the key that signs them stands in the way."""


class SigningKeyError(RecordError):
    """A key for signing or checking is missing, not usable, or open to others."""


class ArchiveUnusable(RecordError):
    """The folder is no archive of this format, is not what its signed head says, or cannot be locked."""


class NotRecorded(RecordError):
    """An entry could not be written; the archive is as it was before."""


class WrongSignature(RecordError):
    """A signature does not fit what it stands under: one of the two was altered."""


class NotTrusted(RecordError):
    """What is signed may be whole, but no trusted key says so."""

    exit_code = 3


class NotChecked(RecordError):
    """Whether something is as it was signed could not be found out, which is neither yes nor no."""

    exit_code = 3


class SecretFound(RecordError):
    """A file that should be kept holds a secret, so it is kept out."""
