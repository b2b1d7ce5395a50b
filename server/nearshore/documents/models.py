"""Which model a request or a collection means: by name, or by what its vectors mean."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from nearshore.bundle import Bundle, Manifest, ModelNotFoundError
from nearshore.documents.engines import Engines
from nearshore.documents.errors import EmptyTextError, FingerprintMismatchError, ModelNotServedError, NoModelError
from nearshore.documents.leases import Lease
from nearshore.documents.names import model_id, model_name
from nearshore.documents.page_tokens import page_size, page_start, page_token
from nearshore.embedding import Embedder
from nearshore.embedding.errors import CrossEncoderError, NotCrossEncoderError
from nearshore.records import CollectionSpec

_SCOPE = "models"


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Model."""

    name: str  # "models/{model}"
    bundle: Bundle  # as it is loaded, or would be
    is_default: bool
    size_bytes: int | None  # of its files; None: it is not loaded


@dataclass(frozen=True, slots=True)
class ListModelsAnswer:
    """ListModelsResponse."""

    models: Sequence[ModelDescription]
    next_page_token: str


class Models:
    """Finds the model for a request. Its methods are called on one event loop, except where they say otherwise.

    deadline: time.monotonic() seconds, None for none. What they raise beside what they name: what Engines.lease does.
    """

    def __init__(self, engines: Engines, default: str) -> None:
        """Look there; default: the one that a request without a model means."""
        self._engines = engines
        self._default = default

    async def lease(self, name: str, deadline: float | None) -> Lease:
        """The embedding model "models/{model}", or the default when empty.

        Raises InvalidNameError, ModelNotServedError and CrossEncoderError.
        """
        return await self._lease_embedder(self._bare(name), deadline)

    async def lease_reranker(self, name: str, deadline: float | None) -> Lease:
        """The cross-encoder "models/{model}", or the default when empty.

        Raises InvalidNameError, ModelNotServedError and NotCrossEncoderError.
        """
        bare = self._bare(name)

        async def check(bundle: Bundle) -> None:
            if not bundle.manifest.is_cross_encoder:
                bundles = await self._engines.bundles(deadline)
                known = [each for each in sorted(bundles) if bundles[each].manifest.is_cross_encoder]
                raise NotCrossEncoderError(bare, _why_no_cross_encoder(bare, bundle.manifest), known)

        return await self._lease(bare, check, deadline)

    async def lease_of(self, spec: CollectionSpec, deadline: float | None) -> Lease:
        """The model whose vectors are those of the collection; what counts is the fingerprint, not the name.

        Raises NoModelError for a collection without a model, FingerprintMismatchError when its model is not loaded and
        cannot be.
        """
        names = self._loaded_for(spec) or [
            name
            for name, bundle in (await self._engines.bundles(deadline)).items()
            if bundle.fingerprint_for(bundle.manifest.special_tokens) == spec.fingerprint
        ]
        if names:  # always the same one of equals, so that the others fall out of use
            lease = await self._lease_embedder(spec.model if spec.model in names else min(names), deadline)
            if lease.embedder.fingerprint() == spec.fingerprint:  # else the bundle was exchanged meanwhile
                return lease
            with lease:
                pass
        raise self._mismatch(spec)

    async def unserved(self, specs: Iterable[CollectionSpec]) -> list[CollectionSpec]:
        """Those of which lease_of would find no model, though they have one: no text can be used there."""
        bundles = (await self._engines.bundles(None)).values()
        served = {bundle.fingerprint_for(bundle.manifest.special_tokens) for bundle in bundles}
        return [spec for spec in specs if spec.model and spec.fingerprint not in served]

    async def unload(self, name: str, deadline: float | None) -> bool:
        """Unload the model "models/{model}" once no call uses it, and say whether it was loaded.

        Raises InvalidNameError, ModelNotServedError, and what Engines.described and Engines.unload do.
        """
        bare = model_id(name, "model")
        try:
            described = await self._engines.described(bare, deadline)
        except ModelNotFoundError:
            described = None
        if described is None:
            raise self._not_served(bare)
        return await self._engines.unload(bare, deadline)

    async def _lease_embedder(self, bare: str, deadline: float | None) -> Lease:
        async def check(bundle: Bundle) -> None:
            if bundle.manifest.is_cross_encoder:
                raise CrossEncoderError(bare)

        return await self._lease(bare, check, deadline)

    async def _lease(self, bare: str, check: Callable[[Bundle], Awaitable[None]], deadline: float | None) -> Lease:
        """The model of that name, which check() refuses where it is of another kind.

        One that is not loaded is asked before it is: no other makes room for a model that is of no use.
        """
        try:
            described = await self._engines.described(bare, deadline)
            if described is not None:
                await check(described)
            lease = await self._engines.lease(bare, deadline)
        except ModelNotFoundError:
            raise self._not_served(bare) from None
        if lease is None:
            raise self._not_served(bare)
        try:
            await check(lease.engine.bundle)  # which may have been exchanged while it was loaded
        except BaseException:
            with lease:
                raise
        return lease

    def _bare(self, name: str) -> str:
        return model_id(name, "model") if name else self._default

    async def page(self, wanted_size: int, token: str, deadline: float | None) -> ListModelsAnswer:
        """One page of the models that could be leased, by name.

        wanted_size, token: as for page_size and page_start. Raises PageSizeError, InvalidPageTokenError, DeadlineError.
        """
        after, size = page_start(_SCOPE, token), page_size(wanted_size)
        bundles, sizes = await self._engines.bundles(deadline), self._engines.sizes()
        following = sorted(name for name in bundles if name > after)
        shown = [
            ModelDescription(model_name(name), bundles[name], name == self._default, sizes.get(name))
            for name in following[:size]
        ]
        return ListModelsAnswer(shown, page_token(_SCOPE, following[size - 1]) if len(following) > size else "")

    def check_loaded(self, spec: CollectionSpec) -> None:
        """Refuse a collection whose model is not loaded right now. Raises NoModelError, FingerprintMismatchError."""
        if not self._loaded_for(spec):
            raise self._mismatch(spec)

    def precision_of(self, fingerprint: str) -> str:
        """In which precision vectors of this fingerprint are made, in any thread; empty: no model ever loaded tells."""
        return self._engines.precisions.get(fingerprint, "")

    def made_by(self, spec: CollectionSpec) -> str:
        """Which model made the vectors of a collection, and in which precision where that is known; in any thread."""
        precision = self.precision_of(spec.fingerprint)
        return f"{spec.model} in {precision}" if precision else spec.model

    def _loaded_for(self, spec: CollectionSpec) -> list[str]:
        if not spec.model:
            raise NoModelError(
                f"The collection {spec.name!r} has no model, so it cannot embed text.",
                "Send vectors, or use a collection that was created with a model.",
                collection=spec.name,
            )
        return [name for name, each in self._embedders() if each.fingerprint() == spec.fingerprint]

    def _embedders(self) -> list[tuple[str, Embedder]]:
        return [(name, engine) for name, engine in self._engines.loaded() if isinstance(engine, Embedder)]

    def _not_served(self, bare: str) -> ModelNotServedError:
        loaded = ", ".join(each for each, _ in self._engines.loaded())
        if self._engines.loads_others:
            message = f"There is no bundle {bare!r} in the model folder of this server."
            remedy = f"Get it there (nearshore model get {bare}); it has loaded {loaded}."
        else:
            message = f"This server does not serve the model {bare!r}."
            remedy = (
                f"It serves {loaded}. Leave the model out to use {self._default}; or have it serve more of "
                "its model folder: those that embedding.models names or, with embedding.on_demand, all."
            )
        return ModelNotServedError(message, remedy, model=bare)

    def _mismatch(self, spec: CollectionSpec) -> FingerprintMismatchError:
        loaded = [f"{name} in {each.bundle.precision} ({each.fingerprint()})" for name, each in self._embedders()]
        precision = self.precision_of(spec.fingerprint)
        if precision and precision not in {each.bundle.precision for _, each in self._embedders()}:
            have_it = f"Set NEARSHORE_EMBEDDING__PRECISION={precision} where the model is loaded"
        else:
            have_it = (
                "Serve the model it was made with, as it was (by embedding.model, embedding.models or "
                "embedding.on_demand, in the embedding.precision it was made in)"
            )
        return FingerprintMismatchError(
            f"The collection {spec.name!r} holds vectors of {self.made_by(spec)} ({spec.fingerprint}); loaded is "
            f"{', '.join(loaded) or 'no embedding model'}.",
            f"{have_it}, send vectors with its fingerprint, or index the documents into a new collection.",
            collection=spec.name,
            fingerprint=spec.fingerprint,
        )


def _why_no_cross_encoder(bare: str, manifest: Manifest) -> str:
    if manifest.classifier is not None and manifest.classifier.labels > 1:
        return f"it is a classifier of {manifest.classifier.labels} labels, and the score of a pair is one"
    if manifest.classifier is None and "logits" in manifest.outputs:
        return f"its bundle is from before they were told apart; if it is one, nearshore model get {bare} --force"
    return "it is an embedding model"


def check_words(
    embedder: Embedder, texts: Sequence[str], token_counts: Sequence[int], fields: Sequence[str], prompt: str
) -> None:
    """Refuse texts of which the tokenizer keeps nothing, such as zero-width characters alone.

    token_counts: of each text behind this prompt, special tokens included; fields: where each stands. Raises
    EmptyTextError.
    """
    wordless = embedder.tokens_around(prompt)
    for text, tokens, field in zip(texts, token_counts, fields, strict=True):
        if tokens <= wordless and (not prompt or _has_no_words(embedder, text)):
            raise EmptyTextError(
                f"{field} has no characters that the model reads.", "Send text that has words in it.", field=field
            )


def _has_no_words(embedder: Embedder, text: str) -> bool:
    """By itself: a word may become one token with the end of a prompt."""
    (alone,) = embedder.tokenize([text])
    return len(alone.ids) <= embedder.tokens_around("")
