"""Where a list goes on: opaque to callers, bound to what was listed, never a position that could shift."""

from __future__ import annotations

import base64
import binascii
import hashlib

from nearshore.documents.errors import InvalidPageTokenError, PageSizeError
from nearshore.documents.limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE

_DIGEST_BYTES = 8


def page_size(sent: int) -> int:
    """How many entries a page may have: 0 is the default, what is above the maximum counts as it (AIP-158).

    Raises PageSizeError for a negative one.
    """
    if sent < 0:
        raise PageSizeError(
            f"page_size is {sent:,}.", f"Ask for 1 to {MAX_PAGE_SIZE:,}, or leave it out.", field="page_size"
        )
    return min(sent, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


def page_token(scope: str, after: str) -> str:
    """The token of the page that begins behind the key `after` of the list that `scope` names."""
    return base64.urlsafe_b64encode(_digest(scope, after) + after.encode()).decode("ascii").rstrip("=")


def page_start(scope: str, token: str) -> str:
    """The key behind which a page begins, empty for the first. Raises InvalidPageTokenError."""
    if not token:
        return ""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        after = raw[_DIGEST_BYTES:].decode()
    except (binascii.Error, ValueError):
        raise _invalid(token) from None
    if not after or raw[:_DIGEST_BYTES] != _digest(scope, after):
        raise _invalid(token)
    return after


def _digest(scope: str, after: str) -> bytes:
    return hashlib.blake2b(f"{scope}\0{after}".encode(), digest_size=_DIGEST_BYTES).digest()


def _invalid(token: str) -> InvalidPageTokenError:
    return InvalidPageTokenError(
        f"page_token {token[:40]!r} does not continue this list.",
        "Send the next_page_token of the page before, with the same collection and filter; or start again without one.",
        field="page_token",
    )
