"""What an upsert has to do: which documents keep their vector, which are embedded, and the changes to write.

Everything here blocks (disk, tokenizer) and runs beside the event loop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from nearshore.documents.errors import VectorsRequiredError
from nearshore.documents.limits import Limits
from nearshore.documents.models import check_words
from nearshore.documents.requests import UpsertRequest
from nearshore.documents.validate import check_request_id, check_truncation, checked_documents
from nearshore.documents.vectors import for_metric, sent_vectors
from nearshore.embedding import Embedder, Embeddings, Truncation
from nearshore.embedding.errors import TextTooLongError
from nearshore.records import F32, Collection, Document, Upsert
from nearshore.store.base import Cursor, Store

MAX_INTERACTIVE_TEXTS = 8  # an upsert of more is bulk: queries go before it


@dataclass(frozen=True, slots=True)
class UpsertPlan:
    """A validated upsert, its embedding under way."""

    collection: Collection
    documents: Sequence[Document]
    digest: bytes  # of the whole request, to recognise a retry
    vectors: list[F32 | None]  # one a document; None until it is embedded
    sent: bool = False  # the caller brought the vectors
    pending: Sequence[int] = ()  # indexes of the documents being embedded
    embedding: Future[Embeddings] | None = None  # None when nothing is pending
    basis: Cursor | None = None  # the first write with this request_id; then nothing is to be changed

    @property
    def lacks_vectors(self) -> bool:
        """Whether plan_embedding has to follow."""
        return bool(self.documents) and not self.vectors

    def complete(self, embeddings: Embeddings, embedder: Embedder) -> None:
        """Put the embedded vectors in their places. Raises EmptyTextError, and VectorNotFiniteError of a bad model."""
        fields = [f"documents[{index}].text" for index in self.pending]
        texts = [self.documents[index].embedded_text for index in self.pending]
        check_words(embedder, texts, embeddings.tokens, fields, embedder.prompts.document)
        vectors = for_metric(embeddings.vectors, self.collection.spec.metric, "embeddings")
        for index, vector in zip(self.pending, vectors, strict=True):
            self.vectors[index] = vector

    def truncated_indexes(self, embeddings: Embeddings) -> tuple[int, ...]:
        """Which documents were cut at the model's maximum."""
        lengths = zip(self.pending, embeddings.tokens, embeddings.tokens_used, strict=True)
        return tuple(index for index, tokens, used in lengths if used < tokens)

    def give_up(self) -> None:
        """Stop embedding: the caller left."""
        if self.embedding is not None:
            self.embedding.cancel()

    def changes(self) -> list[Upsert]:
        """What to write, once every document has its vector.

        A vector that was sent may be anything: without a hash, no later upsert takes it for the model's.
        """
        return [
            Upsert(document, vector, b"" if self.sent else content_hash(document))
            for document, vector in zip(self.documents, self.vectors, strict=True)
            if vector is not None
        ]


def plan_upsert(request: UpsertRequest, collection: Collection, store: Store, limits: Limits) -> UpsertPlan:
    """Validate and recognise a retry: neither needs the model.

    Raises every error of validation, RequestIdReusedError and the store's own.
    """
    spec = collection.spec
    check_request_id(request.request_id)
    check_truncation(request.truncation, "truncation")
    documents = checked_documents(request.documents, limits, has_model=bool(spec.model))
    sent = request.vectors
    vectors = sent_vectors(sent, spec, "vectors", rows=len(documents)) if sent is not None else None
    if vectors is None and not spec.model:
        raise VectorsRequiredError(
            f"The collection {spec.name!r} has no model, so it cannot embed the documents.",
            f"Send vectors of {spec.dimensions} dimensions, one row a document.",
            field="vectors",
        )
    digest = request_digest(documents, vectors) if request.request_id else b""
    if request.request_id:
        repeated = store.find_request(collection.id, request.request_id, digest)
        if repeated is not None:
            # What was found may not have reached a standby yet, so the store has to acknowledge it: as a repetition,
            # or, where it is gone meanwhile, not at all.
            return UpsertPlan(collection, (), digest, [], basis=Cursor(repeated.commit.position, repeated.commit.tag))
    if vectors is not None:
        return UpsertPlan(collection, documents, digest, list(vectors), sent=True)
    return UpsertPlan(collection, documents, digest, [])


def plan_embedding(
    plan: UpsertPlan,
    store: Store,
    embedder: Embedder,
    *,
    truncation: Truncation = Truncation.CUT_END,
    deadline: float | None = None,
) -> UpsertPlan:
    """The plan with the vectors of unchanged texts, and the embedding of the others begun by the collection's model.

    Raises TextTooLongError, OverloadedError and the store's errors.
    """
    documents = plan.documents
    vectors = _unchanged(plan.collection, documents, store)
    if truncation is Truncation.REFUSE:
        _forget_over_long(vectors, documents, embedder)
    pending = [index for index, vector in enumerate(vectors) if vector is None]
    if not pending:
        return UpsertPlan(plan.collection, documents, plan.digest, vectors)
    try:
        embedding = embedder.submit(
            [documents[index].embedded_text for index in pending],
            prompt=embedder.prompts.document,
            truncation=truncation,
            bulk=len(pending) > MAX_INTERACTIVE_TEXTS,
            deadline=deadline,
        )
    except TextTooLongError as error:
        index, tokens = int(error.metadata["index"]), int(error.metadata["tokens"])
        raise TextTooLongError(pending[index], tokens, embedder.max_tokens) from None
    return UpsertPlan(plan.collection, documents, plan.digest, vectors, pending=pending, embedding=embedding)


def content_hash(document: Document) -> bytes:
    """Of what is embedded: 16 bytes of BLAKE2b over title, NUL, text."""
    return hashlib.blake2b(f"{document.title}\0{document.text}".encode(), digest_size=16).digest()


def request_digest(documents: Sequence[Document], vectors: F32 | None) -> bytes:
    """Of everything that a retry must repeat: 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for each in documents:
        fields = (each.id, each.text, each.title, each.parent_id, sorted(each.metadata.items()))
        digest.update(repr(fields).encode())
    if vectors is not None:
        digest.update(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
    return digest.digest()


def _unchanged(collection: Collection, documents: Sequence[Document], store: Store) -> list[F32 | None]:
    """The stored vector of each document whose text is what the model embedded for it; None for the others.

    Another writer may change a document before this upsert commits: what was read here still belongs to the text.
    """
    stored = store.get_items(collection.id, [document.id for document in documents])
    vectors: list[F32 | None] = []
    for document in documents:
        item = stored.get(document.id)
        same = item is not None and item.content_hash == content_hash(document)
        vectors.append(item.vector if item is not None and same else None)
    return vectors


def _forget_over_long(vectors: list[F32 | None], documents: Sequence[Document], embedder: Embedder) -> None:
    """Drop kept vectors of texts that were cut, so that embedding them again refuses them.

    A text of fewer bytes than the model takes tokens cannot be one. The prompt of documents counts.
    """
    prompt = embedder.prompts.document
    kept = [
        index
        for index, vector in enumerate(vectors)
        if vector is not None and 4 * len(prompt + documents[index].embedded_text) > embedder.max_tokens
    ]
    tokens = embedder.tokenize([documents[index].embedded_text for index in kept], prompt=prompt)
    for index, each in zip(kept, tokens, strict=True):
        if each.tokens_used < len(each.ids):
            vectors[index] = None
