"""What holds up work that is tried again and again, and for how long it has."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass

from nearshore.errors import FULL_DISK, CorruptionError, NearshoreError, ServiceError, StorageFullError
from nearshore.replica.loading import PASSING


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Every attempt since `since` has failed."""

    message: str  # what was wrong at the latest one, as a sentence
    detail: str  # that, and what to do where the error knew it
    since: float  # time.monotonic() of the first failure
    lasted_s: float  # from the first failure to the latest: an attempt at work since then may succeed, and adds nothing
    tried: float  # time.monotonic() when the latest attempt began
    needs_people: bool  # a full disk waits for somebody, while a store that is away, as a rule, comes back by itself


def attempt(action: Callable[[], None]) -> Exception | None:
    """Do it; return what only time or the operator can mend: an absent store, a damaged one, a full disk."""
    try:
        action()
    except ServiceError as error:
        return error
    except OSError as error:
        if error.errno not in PASSING:
            raise
        return error
    return None


def held_up_by(failure: Exception | None, before: Hindrance | None, tried: float) -> Hindrance | None:
    """What holds work up after an attempt that ended with `failure`.

    before: what did when that attempt began; tried: time.monotonic() at that moment.
    """
    if failure is None:
        return None
    now = time.monotonic()
    since = now if before is None else before.since
    message = failure.message if isinstance(failure, NearshoreError) else str(failure)
    return Hindrance(
        _sentence(message), _sentence(str(failure)), since, now - since, tried, needs_people=_needs_people(failure)
    )


def _needs_people(failure: Exception) -> bool:
    if isinstance(failure, OSError):
        return failure.errno in {*FULL_DISK, errno.EROFS}
    return isinstance(failure, StorageFullError | CorruptionError)


def _sentence(text: str) -> str:
    """With a full stop, which texts of the system lack."""
    return f"{text.rstrip('.')}."
