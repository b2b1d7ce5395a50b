"""Which failed calls are made again, when, and for how long: one policy for both clients.

gRPC's own retry policy stays unused: it knows codes but neither reasons nor write tokens, tries five times at most, and
gives up on requests of more than 256 KiB. What it always does remains: a call that no server has begun on, because its
connection was ending, goes to another server without anybody noticing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from grpc import StatusCode

from nearshore.client.arguments import instance, seconds, timeout
from nearshore.client.codec import Call
from nearshore.client.failures import ClientClosedError, Failure, failure_of
from nearshore.client.tokens import WriteTokens
from nearshore.errors import CommitUnknownError, OverloadedError
from nearshore.records import WriteToken

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How long a call is made again after a failure; its deadline ends it in any case.

    Being away and having too much work are timed apart: who comes back with everybody else may well be told to wait.

    A call is made again when the server says that trying again can help (google.rpc.RetryInfo), or when its connection
    was lost or the outcome of its commit is unknown and it may be repeated: every read, and every write with a
    request_id, which an upsert and a delete by ids always have. Other failures are raised at once.
    """

    away_s: float = 30.0  # while a server, or the store behind it, is away
    first_contact_s: float = 1.0  # instead, until this client has had a connection for the first time
    overload_s: float = 5.0  # while a server has as much work as it will hold
    first_pause_s: float = 0.1  # doubled with each attempt, up to halved at random; never less than the server asks for
    max_pause_s: float = 2.0

    def __post_init__(self) -> None:
        """Raise TypeError or ValueError that names what is no time; all but the pauses may be infinite."""
        for name in ("away_s", "first_contact_s", "overload_s"):
            seconds(f"Retries.{name}", getattr(self, name))
        for name in ("first_pause_s", "max_pause_s"):
            seconds(f"Retries.{name}", getattr(self, name), endless=False)


NO_RETRIES = Retries(away_s=0.0, first_contact_s=0.0, overload_s=0.0)
"""Every failure is raised at once: for programs with a patience of their own."""
DEFAULT_RETRIES = Retries()
LONGEST_S = 1e9  # thirty years: gRPC takes a time of three hundred for one that is over
MOST_DOUBLINGS = 64  # of the first pause: a float ends at a thousand, which patience without limit outlives


class Caller:
    """What both clients share beside their channel. Thread-safe."""

    def __init__(self, target: str, timeout_s: float, retries: Retries, tokens: WriteTokens) -> None:
        """target: as given, for messages; timeout_s: each call's deadline. Raises TypeError, ValueError."""
        self.target = target
        self.timeout_s = timeout(timeout_s)
        self.retries = instance("retries", retries, Retries)
        self.tokens = tokens
        self.reached = False  # there was a connection to a server
        self.closed = False  # calls in flight are cancelled, and none is made again

    def begin(self, call: Call[Answer]) -> Attempts[Answer]:
        """Prepare a call's request, and make its attempts."""
        self.tokens.attach(call)
        return Attempts(self, call)

    def meant_by(self, error: Exception) -> Exception:
        """What an error of gRPC means: of a channel that is closed it does not say so."""
        return ClientClosedError(self.target) if self.closed else error


class Attempts(Generic[Answer]):
    """The attempts of one call, all before one deadline."""

    __slots__ = ("_began", "_call", "_caller", "_carried", "_deadline", "_failures", "_overloaded", "_since")

    def __init__(self, caller: Caller, call: Call[Answer]) -> None:
        """Use Caller.begin()."""
        self._caller = caller
        self._call = call
        self._began = time.monotonic()
        self._deadline = self._began + caller.timeout_s
        self._failures = 0
        self._overloaded = False  # or away: the kind of failure
        self._since = 0.0  # when failures of this kind began
        self._carried: tuple[WriteToken, ...] = ()  # as the latest attempt began

    def begin(self) -> float | None:
        """Begin an attempt. Returns what is left until the deadline, in seconds; None for no deadline."""
        self._carried = self._caller.tokens.carried(self._call)
        left_s = self._deadline - time.monotonic()
        return left_s if left_s <= LONGEST_S else None

    def succeeded(self, message: Any) -> Answer:
        """What the answer of the last attempt means."""
        self._caller.reached = True
        answer = self._call.decode(message)
        self._caller.tokens.learn(self._call, answer, self._carried)
        return answer

    def pause_s(self, code: StatusCode, details: str | None, trailing: Iterable[Any] | None) -> float:
        """How long to wait before the next attempt after one failed. Raises its error where there is to be none."""
        caller, now = self._caller, time.monotonic()
        failure = failure_of(code, details, trailing, caller.target)
        patience_s = self._patience_s(failure)
        caller.reached = caller.reached or failure.reached
        overloaded = isinstance(failure.error, OverloadedError)
        if self._failures == 0 or overloaded is not self._overloaded:
            self._overloaded, self._since = overloaded, now
        self._failures += 1
        pause_s = _pause_s(caller.retries, self._failures, failure.retry_after_s)
        if now + pause_s > min(self._since + patience_s, self._deadline):
            caller.tokens.learn_failure(self._call, failure.error, self._carried)
            if self._failures > 1:
                failure.error.add_note(f"{self._failures} attempts in {now - self._began:.1f} s have failed.")
            raise failure.error from None  # it says all that gRPC's error does
        return pause_s

    def _patience_s(self, failure: Failure) -> float:
        retries = self._caller.retries
        if failure.retry_after_s is not None:
            return retries.overload_s if isinstance(failure.error, OverloadedError) else retries.away_s
        unknown = failure.lost or isinstance(failure.error, CommitUnknownError)
        if not unknown or not self._call.repeatable or self._caller.closed:
            return 0.0
        return retries.away_s if failure.reached or self._caller.reached else retries.first_contact_s


def _pause_s(retries: Retries, failures: int, asked_s: float | None) -> float:
    """Longer with each failure, and at random: the callers of a server that was away must not come all at once."""
    doublings = min(failures - 1, MOST_DOUBLINGS)
    longest_s = min(retries.max_pause_s, retries.first_pause_s * 2.0**doublings)
    pause_s = random.uniform(0.5, 1.0) * longest_s  # noqa: S311 -- no secret
    return pause_s if asked_s is None else max(pause_s, asked_s * random.uniform(1.0, 1.5))  # noqa: S311
