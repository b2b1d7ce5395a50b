"""What every id, text and batch has to be, decided before any work is spent on it.

Text is empty when it holds nothing but white space: a passage of blanks would embed as no words at all and turn up
among the hits of unrelated queries, so it is refused like one of no characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nearshore.documents.errors import (
    BatchSizeError,
    DuplicateIdError,
    EmptyTextError,
    FieldNotAllowedError,
    InvalidIdError,
    NulInTextError,
    TextTooLargeError,
)
from nearshore.documents.limits import MAX_ID_BYTES, MAX_REQUEST_ID_CHARACTERS, Limits
from nearshore.documents.metadata import checked_metadata
from nearshore.documents.requests import DocumentInput
from nearshore.documents.sizes import size_bytes
from nearshore.embedding import Truncation
from nearshore.errors import InvalidRequestIdError
from nearshore.index.filters import Filter, parse
from nearshore.records import Document

_REQUEST_ID = re.compile(rf"[\x20-\x7e]{{1,{MAX_REQUEST_ID_CHARACTERS}}}")


def check_batch_size(size: int, maximum: int, field: str) -> None:
    """Refuse an empty batch and one of more than `maximum`. Raises BatchSizeError."""
    if not 1 <= size <= maximum:
        raise BatchSizeError(f"{field} has {size:,} entries.", f"Send 1 to {maximum:,} in one call.", field=field)


def checked_documents(sent: Sequence[DocumentInput], limits: Limits, *, has_model: bool) -> list[Document]:
    """Documents ready to be stored, in order.

    Raises BatchSizeError, DuplicateIdError, InvalidIdError, EmptyTextError (only where has_model), TextTooLargeError,
    NulInTextError and the errors of metadata, each naming the document's index.
    """
    check_batch_size(len(sent), limits.max_documents, "documents")
    first_seen: dict[str, int] = {}
    documents = []
    for index, document in enumerate(sent):
        documents.append(_document(document, f"documents[{index}]", limits, has_model=has_model))
        earlier = first_seen.setdefault(document.id, index)
        if earlier != index:
            raise DuplicateIdError(
                f"documents[{earlier}] and documents[{index}] have the same id {document.id!r:.100}.",
                "Keep one of them: the ids in one call must differ.",
                first=earlier,
                second=index,
            )
    return documents


def check_ids(ids: Sequence[str], field: str, limits: Limits) -> None:
    """Refuse an empty or too large batch of ids and ids that no document can have. The same id may come twice."""
    check_batch_size(len(ids), limits.max_documents, field)
    for index, document_id in enumerate(ids):
        check_id(document_id, f"{field}[{index}]")


def check_id(document_id: str, field: str) -> None:
    """Refuse what cannot be the id of a document. Raises InvalidIdError."""
    if not document_id:
        raise InvalidIdError(f"{field} is empty.", f"An id is 1 to {MAX_ID_BYTES} bytes of UTF-8.", field=field)
    _check_short(document_id, field)


def check_query_text(text: str, field: str, limits: Limits) -> None:
    """Refuse a query that holds no words. Raises EmptyTextError, TextTooLargeError and NulInTextError."""
    _check_text(text, size_bytes(text), field, limits)
    check_not_blank(text, field)


def check_truncation(truncation: Truncation, field: str) -> None:
    """Refuse what would put vectors of the ends of texts among those of their starts. Raises FieldNotAllowedError."""
    if truncation is Truncation.CUT_START:
        raise FieldNotAllowedError(
            f"{field} is TRUNCATION_CUT_START: what a collection holds and is asked is cut at its end.",
            "Send TRUNCATION_CUT_END or TRUNCATION_REFUSE, or leave it out; only Embed and Rerank cut the start.",
            field=field,
        )


def check_request_id(request_id: str) -> None:
    """Refuse a request_id that cannot be remembered; empty is none. Raises InvalidRequestIdError."""
    if request_id and not _REQUEST_ID.fullmatch(request_id):
        raise InvalidRequestIdError(
            f"request_id {request_id[:40]!r} is not usable.",
            f"Send 1 to {MAX_REQUEST_ID_CHARACTERS} printable ASCII characters, for example a UUID, or none.",
            field="request_id",
        )


def parsed_filter(text: str, limits: Limits) -> Filter | None:
    """The filter's tree, None for a blank one, which keeps every document. Raises InvalidFilterError."""
    return parse(text, max_bytes=limits.max_filter_bytes) if text and not text.isspace() else None


def _document(sent: DocumentInput, field: str, limits: Limits, *, has_model: bool) -> Document:
    check_id(sent.id, f"{field}.id")
    _check_short(sent.parent_id, f"{field}.parent_id")
    _check_text(sent.text, size_bytes(sent.text) + size_bytes(sent.title), f"{field}.text", limits)
    if "\0" in sent.title:
        raise _nul(f"{field}.title")
    if has_model:
        check_not_blank(sent.text, f"{field}.text")
    metadata = checked_metadata(sent.metadata, f"{field}.metadata", limits) if sent.metadata else {}
    return Document(sent.id, sent.text, sent.title, sent.parent_id, metadata)


def _check_short(value: str, field: str) -> None:
    size = size_bytes(value)
    if size > MAX_ID_BYTES or "\0" in value:
        fault = "holds NUL" if "\0" in value else f"has {size:,} bytes"
        raise InvalidIdError(
            f"{field} {value[:40]!r} {fault}.", f"It may have at most {MAX_ID_BYTES} bytes and no U+0000.", field=field
        )


def _check_text(text: str, size: int, field: str, limits: Limits) -> None:
    if size > limits.max_text_bytes:
        raise TextTooLargeError(
            f"{field} has {size:,} bytes.",
            f"At most {limits.max_text_bytes:,} (limits.max_text_bytes) are allowed, a title included: split it into "
            "passages.",
            field=field,
        )
    if "\0" in text:
        raise _nul(field)


def check_not_blank(text: str, field: str) -> None:
    """Refuse text that holds no words. Raises EmptyTextError."""
    if not text or text.isspace():
        raise EmptyTextError(f"{field} is empty.", "Send text that has words in it, or leave it out.", field=field)


def _nul(field: str) -> NulInTextError:
    return NulInTextError(f"{field} holds NUL.", "Remove U+0000: it is not text.", field=field)
