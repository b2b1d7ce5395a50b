"""The store of a cluster and a model in this process: what a bulk job needs to write without a server."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from nearshore.assembly import open_store
from nearshore.cli.engine import PartDiedError
from nearshore.cli.indexing import NoModelInCollectionError
from nearshore.documents.engines import Engines
from nearshore.documents.models import Models
from nearshore.documents.names import check_collection_id
from nearshore.errors import CollectionExistsError, CollectionNotFoundError
from nearshore.records import Collection, CollectionSpec
from nearshore.served_models import open_embedder
from nearshore.settings import Settings


class Direct:
    """The store that store.url names, and the model. Servers follow the store by themselves. Use it in a with block."""

    def __init__(self, settings: Settings) -> None:
        """Open both. Raises what they raise."""
        self._death: BaseException | None = None
        with contextlib.ExitStack() as opened:
            self.store = open_store(settings, self._die)
            opened.callback(self.store.close)
            self.embedder = open_embedder(settings)
            opened.callback(self.embedder.close)
            self._opened = opened.pop_all()
        self.model = settings.embedding.model
        self.models = Models(Engines({self.model: self.embedder}), self.model)

    def collection(self, name: str) -> tuple[Collection, bool]:
        """The collection of that bare name, and whether it was made just now, for this model.

        Raises InvalidNameError, NoModelInCollectionError, and FingerprintMismatchError for one of another model.
        """
        found = self.found(name)
        if found is not None:
            return found, False
        check_collection_id(name, "collection")
        embedder = self.embedder
        spec = CollectionSpec(name, embedder.dimensions, model=self.model, fingerprint=embedder.fingerprint())
        try:
            return self.store.create_collection(spec), True
        except CollectionExistsError:  # another shard was quicker
            return self._checked(self.store.get_collection(name)), False

    def found(self, name: str) -> Collection | None:
        """The collection of that bare name, if it is there. Raises as collection."""
        try:
            return self._checked(self.store.get_collection(name))
        except CollectionNotFoundError:
            return None

    def check(self) -> None:
        """Raise PartDiedError when a thread of the process has ended by a bug."""
        if self._death is not None:
            raise PartDiedError(self._death)

    def __enter__(self) -> Self:
        """The open store and model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self._opened.close()

    def _checked(self, found: Collection) -> Collection:
        if not found.spec.model:
            raise NoModelInCollectionError(found.spec.name)
        self.models.check_loaded(found.spec)
        return found

    def _die(self, death: BaseException) -> None:
        self._death = self._death or death
