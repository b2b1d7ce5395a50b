"""What can go wrong when text is embedded."""

from __future__ import annotations

from collections.abc import Sequence

from nearshore.errors import InvalidArgumentError, ServiceError, UnavailableError


class TextTooLongError(InvalidArgumentError):
    """A text that would have to be cut, where the caller forbids it."""

    reason = "TEXT_TOO_LONG"

    def __init__(self, index: int, tokens: int, max_tokens: int, *, beside: str = "") -> None:
        """index: of the text in the request; tokens: what it has, special ones and what it is read beside included."""
        with_it = f" with {beside}" if beside else ""
        super().__init__(
            f"Text {index} has {tokens} tokens{with_it}; the model takes at most {max_tokens}, special tokens "
            "included.",
            "Split the text, or allow its end to be cut (truncation CUT_END).",
            index=index,
            tokens=tokens,
            max_tokens=max_tokens,
        )


class TokenVectorsTooLargeError(InvalidArgumentError):
    """The vectors of all tokens would not fit into one answer."""

    reason = "TOKEN_VECTORS_TOO_LARGE"

    def __init__(self, tokens: int, size_bytes: int, max_bytes: int) -> None:
        """tokens: of all texts; size_bytes: of the answer with their vectors."""
        super().__init__(
            f"The vectors of {tokens:,} tokens make an answer of {size_bytes:,} bytes, more than "
            f"server.max_message_bytes ({max_bytes:,}).",
            f"Send texts of at most {tokens * max_bytes // size_bytes:,} tokens in one call, do without token_vectors, "
            "or raise that limit.",
            tokens=tokens,
            size_bytes=size_bytes,
            max_message_bytes=max_bytes,
        )


class UnknownPromptError(InvalidArgumentError):
    """A prompt that the model does not have."""

    reason = "PROMPT_UNKNOWN"

    def __init__(self, model: str, prompt: str, known: Sequence[str]) -> None:
        """known: the names that there are."""
        remedy = f"It has {', '.join(known)}; or leave prompt out." if known else "It has none: leave prompt out."
        super().__init__(
            f"The model {model} has no prompt {prompt[:80]!r}.",
            remedy,
            field="prompt",
            model=model,
            known=",".join(known),
        )


class NotCrossEncoderError(InvalidArgumentError):
    """The model that a Rerank names, or means by naming none, is no cross-encoder."""

    reason = "NOT_A_CROSS_ENCODER"

    def __init__(self, model: str, why: str, known: Sequence[str]) -> None:
        """why: a clause; known: names of the cross-encoders that could be asked instead, as model has its name."""
        remedy = "This server has none: get one into its model folder (nearshore model get NAME --from FOLDER, which "
        remedy += "holds a sequence classifier of one label) and name it in embedding.models."
        super().__init__(
            f"The model {model!r} is no cross-encoder: {why}.",
            f"Name a model that is one: {', '.join(known)}." if known else remedy,
            field="model",
            model=model,
            known=",".join(known),
        )


class CrossEncoderError(InvalidArgumentError):
    """A cross-encoder is asked for vectors of texts, or to be a collection's model: it gives scores of pairs only."""

    reason = "CROSS_ENCODER"

    def __init__(self, model: str) -> None:
        """model: its name."""
        super().__init__(
            f"The model {model!r} is a cross-encoder: it scores pairs of query and text, and gives no vectors.",
            "Name an embedding model, or ask it to Rerank.",
            field="model",
            model=model,
        )


class ModelRunError(UnavailableError):
    """The model raised an error while it embedded."""

    reason = "MODEL_RUN_FAILED"

    def __init__(self, cause: Exception) -> None:
        """cause: what it raised."""
        super().__init__(
            f"The model failed while it embedded the text ({type(cause).__name__}).",
            "Retry once; if it fails again, the server's log has the cause (often a lack of memory).",
        )


class ModelMismatchError(ServiceError):
    """A model gives other vectors on this machine than where it was exported."""

    reason = "MODEL_MISMATCH"

    def __init__(self, *, model: str, text: str, cosine: float, least_cosine: float, software: str) -> None:
        """text: the golden text whose vector differs most; software: the libraries that computed it."""
        super().__init__(
            f"Model {model} does not give its golden vectors here: {text[:80]!r} has cosine {cosine:.7f} to its "
            f"vector, at least {least_cosine} is required ({software}).",
            "Nothing made here could be compared with what is stored. Install the library versions of the lock file "
            f"and get the bundle again (nearshore model get {model} --force); if it still differs, use another type of "
            "CPU.",
            model=model,
            cosine=f"{cosine:.7f}",
        )


class ScoreMismatchError(ServiceError):
    """A cross-encoder gives other scores on this machine than where it was exported."""

    reason = "SCORE_MISMATCH"

    def __init__(self, *, model: str, text: str, logit: float, expected: float, software: str) -> None:
        """text: of the golden pair that is off; software: the libraries that computed it."""
        super().__init__(
            f"Model {model} does not give its golden scores here: a pair with {text[:80]!r} has the logit "
            f"{logit:.6f}, {expected:.6f} is required ({software}).",
            "Its order of texts could not be trusted. Install the library versions of the lock file and get the bundle "
            f"again (nearshore model get {model} --force, and --from FOLDER if it was made of one); if it still "
            "differs, use another type of CPU.",
            model=model,
        )
