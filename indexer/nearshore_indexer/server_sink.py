"""The way into a collection that a server serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from nearshore.client import AsyncClient, Parts
from nearshore.errors import DeadlineError, NearshoreError, OverloadedError, UnavailableError
from nearshore.index.filters import quoted
from nearshore.records import Document
from nearshore_indexer.patience import Patience
from nearshore_indexer.pipeline import Window, Written, is_beyond

PAGE_SIZE = 1_000
PAUSE_S = 1.0  # before it is asked again whether all is searchable


class ServerSink:
    """Writes through a server's gRPC."""

    retryable: tuple[type[NearshoreError], ...] = (OverloadedError, UnavailableError, DeadlineError)

    def __init__(self, client: AsyncClient, collection: str, address: str, warn: Callable[[str], None]) -> None:
        """client: one that reads its own writes; collection: a bare name; address: of the server, for messages.

        warn: told what is waited for at the end.
        """
        self.name = f"the server at {address}"
        self._client = client
        self._collection = collection
        self._warn = warn

    async def write(self, documents: Sequence[Document], request_id: str) -> Written:
        """See Sink."""
        answer = await self._client.upsert(self._collection, documents, request_id=request_id)
        return Written(len(documents), answer.embedded_count, len(answer.truncated_indexes))

    async def wait_searchable(self) -> None:
        """See Sink. Raises what the server refuses with once that lasts and its index comes no nearer."""
        most = Window()
        patience = Patience(self.name, self._warn, full_s=most.patience_s, away_s=most.away_patience_s)
        while True:
            try:
                await self._client.count(self._collection)  # a read waits for the client's own writes
            except self.retryable as error:
                if not patience.lasts(error):
                    raise
                await asyncio.sleep(PAUSE_S)
            else:
                return

    async def stale(self, passage_counts: Mapping[str, int]) -> list[str]:
        """See Sink."""
        found: list[str] = []
        for parent in passage_counts:
            ids = await self._ids(f"_parent_id = {quoted(parent)}")
            found += [each for each in ids if is_beyond(each, passage_counts)]
        return found

    async def delete(self, ids: Sequence[str]) -> None:
        """See Sink."""
        await self._client.delete(self._collection, ids=ids)

    async def _ids(self, wanted: str) -> list[str]:
        """The ids of all documents that match a filter."""
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
