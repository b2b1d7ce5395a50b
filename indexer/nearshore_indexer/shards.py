"""Which part of the input this process indexes, where several share the work.

A record belongs to the shard that its id names, a text or Markdown file to the one that its path names. So every
document is written by exactly one shard, under an id that knows nothing of shards, and an id that comes twice meets
its twin in one process, which refuses the later one as a run without shards does.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from nearshore.errors import InvalidArgumentError

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"  # Kubernetes sets it in the pods of an Indexed Job
MAX_SHARDS = 10_000
_SHARD = re.compile(r"(?P<index>auto|\d{1,5})/(?P<count>\d{1,5})", re.ASCII)


class InvalidShardError(InvalidArgumentError):
    """What --shard names is no part of a whole."""

    reason = "INVALID_SHARD"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` equal parts of the input."""

    index: int = 0  # from 0
    count: int = 1

    def owns(self, key: str) -> bool:
        """Whether this shard takes what the key names; exactly one of all shards does."""
        if self.count == 1:
            return True
        return zlib.crc32(key.encode("utf-8", "surrogatepass")) % self.count == self.index


WHOLE = Shard()


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """The shard that "I/N" names, I from 0 to N - 1; "auto/N" takes I from the environment.

    Raises InvalidShardError.
    """
    match = _SHARD.fullmatch(text)
    if match is None:
        raise InvalidShardError(f"{text!r:.80} is no shard.", "Write I/N with I from 0 to N - 1, or auto/N.")
    index, count = match["index"], int(match["count"])
    if index == "auto":
        index = environment.get(INDEX_VARIABLE, "")
        if not re.fullmatch(r"\d{1,5}", index, re.ASCII):
            raise InvalidShardError(
                f"{text} takes its number from {INDEX_VARIABLE}, which is {index!r:.20}.",
                "Kubernetes sets it in an Indexed Job; elsewhere name the shard, as in 0/4.",
            )
    if not int(index) < count <= MAX_SHARDS:
        raise InvalidShardError(
            f"{int(index)}/{count} is no shard.", f"I goes from 0 to N - 1, and N to {MAX_SHARDS:,} at most."
        )
    return Shard(int(index), count)
