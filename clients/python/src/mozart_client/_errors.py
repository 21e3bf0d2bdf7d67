"""Errors, with what the command line says of them: what did not work, why, and what to try."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional, Type


class MozartError(Exception):
    """What did not work (`what`), why (`cause`), what to try (`try_`), and the exit code of the command line for it (`code`)."""

    code = 1

    def __init__(self, what: str, cause: str = "", try_: str = "", status: Optional[int] = None) -> None:
        parts = [what, cause, f"try {try_}" if try_ else ""]
        super().__init__("; ".join(part for part in parts if part))
        self.what = what
        self.cause = cause
        self.try_ = try_
        self.status = status
        """The HTTP status; none where no answer came."""


class FailedError(MozartError):
    """It failed: a message without an answer, for example."""

    code = 1


class UsageError(MozartError):
    """The request is wrong."""

    code = 2


class NotFoundError(MozartError):
    """There is no such agent or message."""

    code = 3


class ConflictError(MozartError):
    """The id has other content, or the message is over already."""

    code = 4


class TimedOutError(MozartError):
    """There was no answer in time. What was stored goes on."""

    code = 5


class UnreachableError(MozartError):
    """The API, the broker or the supervisors cannot be reached."""

    code = 6


class DeniedError(MozartError):
    """The token is refused, or it does not suffice."""

    code = 7


class LimitError(MozartError):
    """Too large, too many, or the broker's disk is full."""

    code = 9


_KINDS: Dict[int, Type[MozartError]] = {
    kind.code: kind
    for kind in (FailedError, UsageError, NotFoundError, ConflictError, TimedOutError, UnreachableError, DeniedError, LimitError)
}


def of_problem(problem: Any, status: Optional[int] = None) -> MozartError:
    """The error that a supervisor or the API tells."""
    if not isinstance(problem, dict):
        return FailedError("the fleet answers with an error", str(problem), "", status)
    kind = _KINDS.get(problem.get("code", 1), FailedError)
    what, cause, try_ = (str(problem.get(name, "")) for name in ("what", "cause", "try"))
    return kind(what, cause, try_, status)


def of_answer(status: int, body: bytes) -> MozartError:
    """The error of an answer over HTTP: of its problem document, if it has one."""
    problem: Any = None
    try:
        problem = json.loads(body)
    except ValueError:
        pass
    if not isinstance(problem, dict) or "what" not in problem:
        return FailedError(f"the API answers with status {status}", body[:200].decode("utf-8", "replace"), "", status)
    return of_problem(problem, status)
