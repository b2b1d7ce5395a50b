"""Creates, describes, lists and deletes collections."""

from __future__ import annotations

from nearshore.documents.errors import (
    DimensionsError,
    FingerprintMismatchError,
    TooManyCollectionsError,
)
from nearshore.documents.leases import Lease
from nearshore.documents.limits import MAX_DIMENSIONS, Limits
from nearshore.documents.models import Models
from nearshore.documents.names import check_collection_id, collection_id, collection_name, model_name
from nearshore.documents.page_tokens import page_size, page_start, page_token
from nearshore.documents.reading import read_state
from nearshore.documents.requests import (
    CollectionDescription,
    CollectionInput,
    CollectionStatus,
    ListCollectionsAnswer,
    ListCollectionsRequest,
)
from nearshore.documents.threads import Threads
from nearshore.documents.waiting import outcome_of
from nearshore.records import CollectionSpec, ReadState
from nearshore.replica import IndexLoadingError, Replica, Replicas

_SCOPE = "collections"


class Collections:
    """The collections of the store. Its methods are awaited on one event loop; blocking work runs in `threads`.

    deadline: time.monotonic() seconds, None for none; all raise DeadlineError and OverloadedError as well.
    """

    def __init__(self, replicas: Replicas, models: Models, limits: Limits, threads: Threads) -> None:
        """Decide with these; owns none of them."""
        self._replicas = replicas
        self._models = models
        self._limits = limits
        self._store_threads = threads.store
        self._changes = threads.changes  # one at a time, so that two creations at once cannot pass max_collections

    async def create(self, request: CollectionInput, *, deadline: float | None = None) -> CollectionDescription:
        """Create an empty collection.

        Raises InvalidNameError, what Models.lease does, DimensionsError, FingerprintMismatchError,
        TooManyCollectionsError, CollectionExistsError and the store's errors; after all but CommitUnknownError and
        WriteOutcomePendingError nothing was created.
        """
        spec = await self._spec(request, deadline)
        creation = await self._changes.begin(lambda: self._described(self._create(spec)), deadline)
        return await outcome_of(creation, deadline, repeatable=False)

    async def get(self, name: str, *, deadline: float | None = None) -> CollectionDescription:
        """Describe "collections/{collection}". Raises InvalidNameError, CollectionNotFoundError."""
        bare = collection_id(name, "name")
        return await self._store_threads.run(lambda: self._described(self._replicas.current(bare)), deadline)

    async def list(self, request: ListCollectionsRequest, *, deadline: float | None = None) -> ListCollectionsAnswer:
        """One page of collections by name. Raises PageSizeError, InvalidPageTokenError and the store's errors."""
        after = page_start(_SCOPE, request.page_token)
        size = page_size(request.page_size)

        def page() -> ListCollectionsAnswer:
            following = [each for each in self._replicas.complete_list() if each.collection.spec.name > after]
            shown = [self._described(each) for each in following[:size]]
            last = following[size - 1].collection.spec.name if len(following) > size else ""
            return ListCollectionsAnswer(shown, page_token(_SCOPE, last) if last else "")

        return await self._store_threads.run(page, deadline)

    async def delete(self, name: str, *, deadline: float | None = None) -> None:
        """Delete "collections/{collection}" and its documents.

        Raises InvalidNameError, CollectionNotFoundError and the store's errors, as create does.
        """
        bare = collection_id(name, "name")
        deletion = await self._changes.begin(lambda: self._replicas.delete(bare), deadline)
        await outcome_of(deletion, deadline, repeatable=False)

    def _create(self, spec: CollectionSpec) -> Replica:
        exists = self._replicas.known(spec.name) is not None  # then the store says so, be there room or not
        if not exists and len(self._replicas.complete_list()) >= self._limits.max_collections:
            raise TooManyCollectionsError(
                f"There are {self._limits.max_collections:,} collections, as many as the server allows.",
                "Delete one, tell tenants apart by metadata and filters, or raise limits.max_collections.",
            )
        return self._replicas.create(spec)

    async def _spec(self, request: CollectionInput, deadline: float | None) -> CollectionSpec:
        name = request.collection_id
        check_collection_id(name, "collection_id")
        if request.model:
            with await self._models.lease(request.model, deadline) as lease:
                return _spec_of_model(name, request, lease)
        if request.fingerprint:
            raise FingerprintMismatchError(
                "collection.fingerprint is set and collection.model is not.",
                "Name the model that has this fingerprint, or leave both out.",
                field="collection.fingerprint",
            )
        if not 1 <= request.dimensions <= MAX_DIMENSIONS:
            raise DimensionsError(
                f"A collection without a model has 1 to {MAX_DIMENSIONS:,} dimensions, not {request.dimensions:,}.",
                'Set collection.model (as in "models/all-MiniLM-L6-v2") to let the server embed, or dimensions.',
                field="collection.dimensions",
            )
        return CollectionSpec(name, request.dimensions, request.metric, request.index_kind)

    def _described(self, replica: Replica) -> CollectionDescription:
        collection = replica.collection
        spec = collection.spec
        return CollectionDescription(
            name=collection_name(spec.name),
            model=model_name(spec.model),
            fingerprint=spec.fingerprint,
            precision=self._models.precision_of(spec.fingerprint),
            dimensions=spec.dimensions,
            metric=spec.metric,
            index_kind=spec.index_kind,
            created_at=collection.created_at,
            status=_status(replica),
            uid=collection.id,
        )


def _spec_of_model(name: str, request: CollectionInput, lease: Lease) -> CollectionSpec:
    model, embedder = lease.name, lease.embedder
    if request.dimensions not in {0, embedder.dimensions}:
        raise DimensionsError(
            f"The model {model!r} has {embedder.dimensions} dimensions, not {request.dimensions:,}.",
            "Leave collection.dimensions out: it comes from the model.",
            field="collection.dimensions",
        )
    fingerprint = embedder.fingerprint()
    if request.fingerprint not in {"", fingerprint}:
        raise FingerprintMismatchError(
            f"The served model {model!r} has the fingerprint {fingerprint}, not {request.fingerprint!r:.80}.",
            "Name the model that has it, served in its precision (embedding.precision), or leave "
            "collection.fingerprint out.",
            field="collection.fingerprint",
            fingerprint=fingerprint,
        )
    return CollectionSpec(name, embedder.dimensions, request.metric, request.index_kind, model, fingerprint)


def _status(replica: Replica) -> CollectionStatus:
    """What the replica holds; nothing, and building, while it is still being loaded after a start."""
    try:
        status = replica.status()
    except IndexLoadingError:
        nothing = ReadState(position=0, commit_at=None, contact_age_s=0.0, token="", head=0, history_changed=False)
        return CollectionStatus(nothing, 0, 0, 0, 0, index_generation=0, building=True)
    return CollectionStatus(
        read_state=read_state(replica, replica.view()),
        document_count=status.documents,
        sealed_row_count=status.sealed_rows,
        tail_row_count=status.tail_rows,
        dead_row_count=status.dead_rows,
        index_generation=status.state.generation,
        building=status.building,
    )
