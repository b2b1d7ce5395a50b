"""What can be wrong with a request about documents, collections or searches. Each message names the field at fault.

Field names are paths into the request as its proto spells it: documents[3].metadata["year"].
"""

from __future__ import annotations

from nearshore.errors import (
    DeadlineError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    unknown_outcome_remedy,
)


class InvalidNameError(InvalidArgumentError):
    """A resource name, or the id in it, is malformed."""

    reason = "INVALID_NAME"


class BatchSizeError(InvalidArgumentError):
    """Too few or too many documents, ids or searches in one call."""

    reason = "BATCH_SIZE_OUT_OF_RANGE"


class InvalidIdError(InvalidArgumentError):
    """A document id or parent id is empty, too long or holds NUL."""

    reason = "INVALID_ID"


class DuplicateIdError(InvalidArgumentError):
    """Two documents of one batch have the same id."""

    reason = "DUPLICATE_ID"


class EmptyTextError(InvalidArgumentError):
    """The text of a query, or of a document that a model embeds, holds nothing that is read; Embed takes any text."""

    reason = "EMPTY_TEXT"


class TextTooLargeError(InvalidArgumentError):
    """A text has more bytes than allowed; too many tokens is TEXT_TOO_LONG."""

    reason = "TEXT_TOO_LARGE"


class NulInTextError(InvalidArgumentError):
    """A string holds the character U+0000."""

    reason = "NUL_IN_TEXT"


class MetadataTooLargeError(InvalidArgumentError):
    """A document has too many metadata keys or bytes."""

    reason = "METADATA_TOO_LARGE"


class MetadataTooDeepError(InvalidArgumentError):
    """A list inside a list."""

    reason = "METADATA_TOO_DEEP"


class VectorsRequiredError(InvalidArgumentError):
    """The collection has no model and the call brings no vectors."""

    reason = "VECTORS_REQUIRED"


class VectorBytesError(InvalidArgumentError):
    """The data of a matrix does not have rows * dimensions float32 values."""

    reason = "VECTOR_BYTES"


class VectorRowsError(InvalidArgumentError):
    """Not one row for each document, or not exactly one for a query."""

    reason = "VECTOR_ROWS"


class VectorWidthError(InvalidArgumentError):
    """Vectors have another width than the collection's."""

    reason = "VECTOR_WIDTH"


class VectorNotFiniteError(InvalidArgumentError):
    """A component is NaN or infinite."""

    reason = "VECTOR_NOT_FINITE"


class VectorTooLargeError(InvalidArgumentError):
    """A vector is so long that scores with it would overflow float32."""

    reason = "VECTOR_TOO_LARGE"


class ZeroVectorError(InvalidArgumentError):
    """A vector of zeros has no direction."""

    reason = "ZERO_VECTOR"


class FingerprintRequiredError(InvalidArgumentError):
    """Vectors for a collection with a model came without saying which model made them."""

    reason = "FINGERPRINT_REQUIRED"


class FingerprintMismatchError(PreconditionError):
    """Two models would be mixed."""

    reason = "FINGERPRINT_MISMATCH"


class NoModelError(PreconditionError):
    """Text cannot be embedded for a collection without a model."""

    reason = "NO_MODEL"


class LimitError(InvalidArgumentError):
    """limit, offset or their sum is out of range."""

    reason = "LIMIT_OUT_OF_RANGE"


class EfSearchError(InvalidArgumentError):
    """ef_search is out of range."""

    reason = "EF_SEARCH_OUT_OF_RANGE"


class ScoreThresholdError(InvalidArgumentError):
    """score_threshold is NaN."""

    reason = "INVALID_SCORE_THRESHOLD"


class PageSizeError(InvalidArgumentError):
    """page_size is out of range."""

    reason = "PAGE_SIZE_OUT_OF_RANGE"


class InvalidPageTokenError(InvalidArgumentError):
    """A page_token that this list did not return."""

    reason = "INVALID_PAGE_TOKEN"


class QueryRequiredError(InvalidArgumentError):
    """Not exactly one of text, vector and document_id."""

    reason = "QUERY_REQUIRED"


class IdsOrFilterError(InvalidArgumentError):
    """A delete needs either ids or a filter."""

    reason = "IDS_OR_FILTER"


class FieldNotAllowedError(InvalidArgumentError):
    """A field that has no meaning where it was set."""

    reason = "FIELD_NOT_ALLOWED"


class DimensionsError(InvalidArgumentError):
    """A new collection has neither a model nor a usable width, or a vector is to have more than its model gives."""

    reason = "DIMENSIONS_OUT_OF_RANGE"


class AnswerTooLargeError(InvalidArgumentError):
    """The answer would not fit into one message."""

    reason = "ANSWER_TOO_LARGE"


class DocumentNotFoundError(NotFoundError):
    """The document that serves as the query does not exist."""

    reason = "DOCUMENT_NOT_FOUND"


class ModelNotServedError(NotFoundError):
    """No such model is served here."""

    reason = "MODEL_NOT_SERVED"


class ModelTooLargeError(PreconditionError):
    """There is never room to load this model."""

    reason = "MODEL_TOO_LARGE"

    def __init__(self, model: str, size_bytes: int, *, max_bytes: int, pinned_bytes: int) -> None:
        """size_bytes: of its files; max_bytes: of all that are loaded; pinned_bytes: of those that stay."""
        super().__init__(
            f"The model {model!r} has {size_bytes:,} bytes; {max_bytes:,} may be loaded, of which {pinned_bytes:,} are "
            "taken by models that stay.",
            "Ask for a smaller model, or raise embedding.max_model_bytes, where the memory is there.",
            model=model,
            size_bytes=size_bytes,
            max_bytes=max_bytes,
        )


class ModelStaysLoadedError(PreconditionError):
    """A model that the settings name is loaded as long as the server runs."""

    reason = "MODEL_STAYS_LOADED"

    def __init__(self, model: str) -> None:
        """model: its name."""
        super().__init__(
            f"The model {model!r} is named in embedding.model or embedding.models, so it stays loaded.",
            "Restart the server to have it serve a bundle that was replaced. A model that embedding.on_demand loads, "
            "and neither setting names, can be unloaded.",
            model=model,
        )


class TooManyCollectionsError(PreconditionError):
    """The store holds as many collections as the operator allows."""

    reason = "TOO_MANY_COLLECTIONS"


class ReadAfterTimeoutError(DeadlineError):
    """The replica did not reach the write of read_after before the deadline."""

    reason = "READ_AFTER_TIMEOUT"


class ReadAfterHeldUpError(ReadAfterTimeoutError):
    """The replica did not reach the write of read_after, because following the store fails again and again."""

    reason = "READ_AFTER_HELD_UP"


class WriteOutcomePendingError(DeadlineError):
    """The deadline passed while the write was being made durable: it may take effect or not."""

    reason = "WRITE_OUTCOME_PENDING"

    def __init__(self, *, repeatable: bool) -> None:
        """repeatable: it has a request_id."""
        super().__init__(
            "The deadline passed while the write was being made durable: it may take effect or not.",
            f"{unknown_outcome_remedy(repeatable=repeatable)} Allow more time.",
        )
