"""The models that this server has loaded, by name and by what their vectors mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nearshore.documents.errors import EmptyTextError, FingerprintMismatchError, ModelNotServedError, NoModelError
from nearshore.documents.names import model_id, model_name
from nearshore.embedding import Embedder
from nearshore.records import CollectionSpec


class Models:
    """Finds the embedder for a request."""

    def __init__(self, embedders: Mapping[str, Embedder], default: str) -> None:
        """Embedders by bare model name; default: the one that a request without a model means."""
        self._embedders = dict(embedders)
        self._default = default
        self._precisions = {
            fingerprint: precision.value
            for embedder in embedders.values()
            for precision, fingerprint in embedder.bundle.fingerprints.items()
        }
        self._wordless: dict[tuple[str, str], int] = {}  # tokens of an empty text, by fingerprint and prompt

    def get(self, name: str) -> tuple[str, Embedder]:
        """The bare name and embedder of "models/{model}", or of the default when empty.

        Raises InvalidNameError and ModelNotServedError.
        """
        bare = model_id(name, "model") if name else self._default
        embedder = self._embedders.get(bare)
        if embedder is None:
            served = ", ".join(model_name(each) for each in self._embedders)
            raise ModelNotServedError(
                f"This server does not serve the model {bare!r}.",
                f"It serves {served}. Leave the model out to use {model_name(self._default)}.",
                model=bare,
            )
        return bare, embedder

    def of_collection(self, spec: CollectionSpec) -> Embedder:
        """The embedder whose vectors are those of the collection; what counts is the fingerprint, not the name.

        Raises NoModelError for a collection without a model, FingerprintMismatchError when its model is not loaded.
        """
        if not spec.model:
            raise NoModelError(
                f"The collection {spec.name!r} has no model, so it cannot embed text.",
                "Send vectors, or use a collection that was created with a model.",
                collection=spec.name,
            )
        for embedder in self._embedders.values():
            if embedder.fingerprint() == spec.fingerprint:
                return embedder
        raise self._mismatch(spec)

    def precision_of(self, fingerprint: str) -> str:
        """In which precision vectors of this fingerprint are made; empty: the models that are loaded do not tell."""
        return self._precisions.get(fingerprint, "")

    def _mismatch(self, spec: CollectionSpec) -> FingerprintMismatchError:
        loaded = ", ".join(
            f"{name} in {embedder.bundle.precision} ({embedder.fingerprint()})"
            for name, embedder in self._embedders.items()
        )
        precision = self.precision_of(spec.fingerprint)
        if precision:
            holds, serve = f"{spec.model} in {precision}", f"with NEARSHORE_EMBEDDING__PRECISION={precision}"
        else:
            holds, serve = spec.model, "the model it was made with, as it was (embedding.model and embedding.precision)"
        return FingerprintMismatchError(
            f"The collection {spec.name!r} holds vectors of {holds} ({spec.fingerprint}); loaded is {loaded}.",
            f"Serve {serve}, send vectors with its fingerprint, or index the documents into a new collection.",
            collection=spec.name,
            fingerprint=spec.fingerprint,
        )

    def check_words(
        self,
        spec: CollectionSpec,
        texts: Sequence[str],
        token_counts: Sequence[int],
        fields: Sequence[str],
        prompt: str,
    ) -> None:
        """Refuse texts of which the tokenizer keeps nothing, such as zero-width characters alone.

        token_counts: of each text behind this prompt, special tokens included; fields: where each stands. Raises
        EmptyTextError.
        """
        wordless = self._tokens_of_nothing(spec, prompt)
        for text, tokens, field in zip(texts, token_counts, fields, strict=True):
            if tokens <= wordless and (not prompt or self._has_no_words(spec, text)):
                raise EmptyTextError(
                    f"{field} has no characters that the model reads.", "Send text that has words in it.", field=field
                )

    def _has_no_words(self, spec: CollectionSpec, text: str) -> bool:
        """By itself: a word may become one token with the end of a prompt."""
        (alone,) = self.of_collection(spec).tokenize([text])
        return len(alone.ids) <= self._tokens_of_nothing(spec, "")

    def _tokens_of_nothing(self, spec: CollectionSpec, prompt: str) -> int:
        wordless = self._wordless.get((spec.fingerprint, prompt))
        if wordless is None:
            (empty,) = self.of_collection(spec).tokenize([""], prompt=prompt)
            wordless = self._wordless[spec.fingerprint, prompt] = len(empty.ids)
        return wordless
