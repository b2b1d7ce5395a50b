"""Which columns of a table, or fields of an object, hold the parts of a document."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nearshore_indexer.building import RefusedError

OTHER_ID = "_id"  # BEIR's


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns. Those named otherwise than by default must be there."""

    id: str = "id"
    text: str = "text"
    title: str = "title"
    parent_id: str = "parent_id"

    def resolved(self, names: Sequence[str]) -> Columns:
        """These columns as a table with columns `names` has them: empty where an optional one is absent.

        Raises RefusedError for a table without id or text, with a column twice, or without one that was asked for.
        """
        twice = next((name for name in names if name and names.count(name) > 1), None)
        if twice is not None:
            raise RefusedError(f"the column {twice!r:.80} is there twice")
        found_id = self.id_among(names)
        for option, name in (("--id-column", found_id), ("--text-column", self.text)):
            if name not in names:
                wanted = self.id if option == "--id-column" else name
                shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
                raise RefusedError(f"there is no column {wanted!r} (there are: {shown:.300}); name it with {option}")
        return Columns(
            found_id,
            self.text,
            _optional(self.title, USUAL.title, names, "--title-column"),
            _optional(self.parent_id, USUAL.parent_id, names, "--parent-column"),
        )

    def id_among(self, names: Collection[str]) -> str:
        """The one of the names that holds the id, if any does: BEIR's where the usual one is not there."""
        return OTHER_ID if self.id == USUAL.id and self.id not in names else self.id

    def names(self) -> tuple[str, str, str, str]:
        """The columns in the order of a document's parts: id, text, title, parent_id; empty for one that is absent."""
        return self.id, self.text, self.title, self.parent_id

    def present(self) -> list[str]:
        """The columns that are there."""
        return [name for name in self.names() if name]

    def metadata(self, names: Sequence[str]) -> list[str]:
        """The columns that are metadata: all others but those that no metadata can be called, such as a saved index."""
        return [name for name in names if name not in self.names() and name and not name.startswith("_")]

    def ignored(self, names: Sequence[str]) -> list[str]:
        """The columns that are no part of a document."""
        return sorted(set(names) - {*self.present(), *self.metadata(names)})


USUAL = Columns()


def _optional(name: str, default: str, names: Sequence[str], option: str) -> str:
    if name in names:
        return name
    if name != default:
        raise RefusedError(f"there is no column {name!r:.80}, which {option} names")
    return ""
