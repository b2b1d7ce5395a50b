"""How far what is computed for one text serves others that are identical (docs/decisions/0009)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reuse:
    """What an engine does about texts whose token ids are those of another. No bit of a vector depends on it."""

    share_in_flight: bool = True  # have those that are under way at the same time embedded once


AS_USUAL = Reuse()
