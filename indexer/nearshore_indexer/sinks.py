"""The two ways into a collection: through a server, and through a store that this process has opened itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from nearshore.client import AsyncClient, Parts
from nearshore.documents import requests
from nearshore.documents.documents import Documents
from nearshore.documents.names import collection_name
from nearshore.errors import DeadlineError, NearshoreError, OverloadedError, UnavailableError
from nearshore.records import Document, Metadata, MetadataValue, WriteToken
from nearshore.replica import Replica
from nearshore_indexer.pipeline import Written

PAGE_SIZE = 1_000
CHECK_INTERVAL_S = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ServerSink:
    """Writes through a server's gRPC."""

    retryable: tuple[type[NearshoreError], ...] = (OverloadedError, UnavailableError, DeadlineError)

    def __init__(self, client: AsyncClient, collection: str, address: str) -> None:
        """client: one that reads its own writes; collection: a bare name; address: of the server, for messages."""
        self.name = f"the server at {address}"
        self._client = client
        self._collection = collection

    async def write(self, documents: Sequence[Document], request_id: str) -> Written:
        """See Sink."""
        answer = await self._client.upsert(self._collection, documents, request_id=request_id)
        return Written(answer.embedded_count, len(answer.truncated_indexes))

    async def wait_searchable(self) -> None:
        """See Sink."""
        while True:
            try:
                await self._client.count(self._collection)  # a read waits for the client's own writes
            except DeadlineError:
                continue
            return

    async def ids(self, wanted: str) -> list[str]:
        """See Sink."""
        found: list[str] = []
        token = ""
        while True:
            page = await self._client.list_documents(
                self._collection,
                filter=wanted,
                page_size=PAGE_SIZE,
                page_token=token,
                parts=Parts(text=False, metadata=False),
            )
            found += [document.id for document in page.documents]
            token = page.next_page_token
            if not token:
                return found

    async def delete(self, ids: Sequence[str]) -> None:
        """See Sink."""
        await self._client.delete(self._collection, ids=ids)


class StoreSink:
    """Writes as a server would, without one: the same checks, the same embedding, the same store."""

    name = "the store"
    retryable: tuple[type[NearshoreError], ...] = (OverloadedError,)

    def __init__(self, documents: Documents, replica: Replica, check: Callable[[], None]) -> None:
        """documents: of the store that this process has open; replica: of the collection to write to.

        check: raises when a thread of the process has died, for then nothing would ever become searchable.
        """
        self._documents = documents
        self._replica = replica
        self._check = check
        self._name = collection_name(replica.collection.spec.name)
        self._newest: WriteToken | None = None

    async def write(self, documents: Sequence[Document], request_id: str) -> Written:
        """See Sink."""
        sent = [
            requests.DocumentInput(each.id, each.text, each.title, each.parent_id, _raw(each.metadata))
            for each in documents
        ]
        answer = await self._documents.upsert(requests.UpsertRequest(self._name, sent, request_id=request_id))
        token = WriteToken.decode(answer.write_token)
        if self._newest is None or self._newest.position < token.position:
            self._newest = token
        return Written(answer.embedded_count, len(answer.truncated_indexes))

    async def wait_searchable(self) -> None:
        """See Sink."""
        if self._newest is None:
            return
        applied = asyncio.wrap_future(self._replica.applied(self._newest))
        while not (await asyncio.wait({applied}, timeout=CHECK_INTERVAL_S))[0]:
            self._check()
        applied.result()

    async def ids(self, wanted: str) -> list[str]:
        """See Sink."""
        found: list[str] = []
        request = requests.ListRequest(
            self._name, wanted, PAGE_SIZE, parts=requests.Parts(text=False, metadata=False, vector=False)
        )
        while True:
            page = await self._documents.list(request)
            found += [document.id for document in page.documents]
            if not page.next_page_token:
                return found
            request = requests.ListRequest(
                request.collection, wanted, PAGE_SIZE, page.next_page_token, parts=request.parts
            )

    async def delete(self, ids: Sequence[str]) -> None:
        """See Sink."""
        answer = await self._documents.delete(requests.DeleteRequest(self._name, ids=ids))
        self._newest = WriteToken.decode(answer.write_token)


def _raw(metadata: Metadata) -> Mapping[str, requests.RawValue]:
    """Stored metadata as a request carries it."""
    return {key: _raw_value(value) for key, value in metadata.items()}


def _raw_value(value: MetadataValue) -> requests.RawValue:
    if isinstance(value, tuple):
        return tuple(_raw_value(element) for element in value)
    if isinstance(value, datetime):
        since = value - _EPOCH
        return requests.Timestamp(since // timedelta(seconds=1), since.microseconds * 1_000)
    return value
