"""What can go wrong in an index."""

from __future__ import annotations

from nearshore.errors import CorruptionError, InvalidArgumentError


class InvalidFilterError(InvalidArgumentError):
    """A filter that cannot be understood; metadata `column` counts characters from 1."""

    reason = "INVALID_FILTER"


class CorruptIndexError(CorruptionError):
    """The saved files of an index do not fit together."""

    reason = "INDEX_CORRUPT"
