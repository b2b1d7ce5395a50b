"""Text in, vectors out: the tokenizer, the scheduler and the session of one model behind one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from nearshore.bundle import Bundle, SpecialTokens
from nearshore.embedding.cutting import Cut, Cutter
from nearshore.embedding.embeddings import Embeddings, TokenVectors, Truncation
from nearshore.embedding.errors import CrossEncoderError
from nearshore.embedding.form import AS_BUNDLED, Form
from nearshore.embedding.golden import check_golden
from nearshore.embedding.observer import Observer
from nearshore.embedding.prompts import Prompts
from nearshore.embedding.request import KeepTokens
from nearshore.embedding.reuse import Intake, Start
from nearshore.embedding.scheduler import Scheduler
from nearshore.embedding.session import Session
from nearshore.embedding.token_room import TokenClaim
from nearshore.embedding.tokenizer import Tokens
from nearshore.embedding.workplace import AS_USUAL, Reuse, Workplace
from nearshore.records import F32

T = TypeVar("T")

# Of an answer with the vectors of tokens, at most, beside the vectors themselves.
_TOKEN_ID_BYTES = 5
_TEXT_BYTES = 160  # two fingerprints and some numbers
# Of a call: tokenized in a tenth of a millisecond, Chinese in one and a half, which an overloaded server has.
_FEW_TEXTS, _FEW_CHARACTERS = 8, 512


def _at_once(call: Callable[[], None]) -> None:
    call()


class Embedder:
    """One model, ready to embed. Thread-safe.

    A text has the same vector, bit for bit, whoever it shares a call, a run or the machine with.
    """

    def __init__(self, bundle: Bundle, cutter: Cutter, intake: Intake, workplace: Workplace) -> None:
        """Use open() or load()."""
        self.bundle = bundle
        self.prompts = Prompts(bundle.manifest)
        self._cutter = cutter
        self._intake = intake
        self._workplace = workplace
        self._owns_workplace = False
        self._fingerprints: dict[Form, str] = {}  # of those that were asked for
        self.max_document_tokens = self.max_tokens - self.tokens_around(self.prompts.document)
        """The most tokens of a document that are embedded: without special tokens and the prompt of documents."""

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        *,
        workers: int = 0,
        max_run_tokens: int,
        max_queued_tokens: int,
        reuse: Reuse = AS_USUAL,
        observer: Observer | None = None,
    ) -> Self:
        """Load a bundle, as load() does, in a workplace of its own: see Workplace. Raises what load() raises."""
        workplace = Workplace(
            workers=workers,
            max_run_tokens=max_run_tokens,
            max_queued_tokens=max_queued_tokens,
            reuse=reuse,
            observer=observer,
        )
        try:
            embedder = cls.load(bundle, workplace)
        except BaseException:
            workplace.close()
            raise
        embedder._owns_workplace = True
        return embedder

    @classmethod
    def load(cls, bundle: Bundle, workplace: Workplace) -> Self:
        """Load a bundle and check that it gives its golden vectors; other models may have the same workplace.

        A bundle without golden vectors, that is one being exported, is not checked. The workplace stays the caller's.
        Raises ModelMismatchError, CorruptBundleError, and CrossEncoderError for one that gives no vectors.
        """
        if bundle.manifest.is_cross_encoder:
            raise CrossEncoderError(bundle.manifest.name)
        cutter, session = Cutter(bundle), Session(bundle)
        if bundle.has_golden:
            check_golden(bundle, cutter.tokenizer(), session)
        return cls(bundle, cutter, Intake(session.embed, workplace), workplace)

    @property
    def dimensions(self) -> int:
        """Components of a vector."""
        return self.bundle.manifest.dimensions

    @property
    def max_tokens(self) -> int:
        """The most tokens of one text that are embedded, special tokens included."""
        return self.bundle.manifest.max_tokens

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a worker, those of other models in the same workplace included."""
        return self._workplace.queued_tokens

    @property
    def cache_bytes(self) -> int:
        """Bytes of the vectors that are kept, those of other models in the same workplace included."""
        return self._workplace.cache_bytes

    def fingerprint(self, form: Form = AS_BUNDLED) -> str:
        """What a vector in this form means."""
        known = self._fingerprints.get(form)
        if known is None:
            known = self.bundle.fingerprint_for(
                self._mode(form.special), dimensions=form.dimensions, normalize=form.normalize
            )
            self._fingerprints[form] = known
        return known

    def tokenize(
        self, texts: Iterable[str], special: SpecialTokens | None = None, *, prompt: str = ""
    ) -> Iterator[Tokens]:
        """Cut texts into tokens as the caller takes them, in this thread: a third of a second for 1 MiB.

        prompt: put before each text as it is (see Prompts); its tokens are the text's.
        """
        return self._cutter.tokenize(texts, special, prompt)

    def tokens_around(self, prompt: str) -> int:
        """Tokens of an empty text behind this prompt, one of the model's or none."""
        return self._cutter.tokens_around(prompt)

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Token ids as the vocabulary spells them."""
        return self._cutter.tokenizer().spell(ids)

    def submit(  # noqa: PLR0913 -- each may be asked for or left out
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        form: Form = AS_BUNDLED,
        truncation: Truncation = Truncation.CUT_END,
        token_claim: TokenClaim | None = None,
        bulk: bool = False,
        deadline: float | None = None,
    ) -> Future[Embeddings]:
        """Tokenize in this thread (see tokenize, also for prompt), queue, and return without waiting for the model.

        token_claim: where there is one, the vectors of tokens are answered too, and take room by it, which the caller
        frees, whatever becomes of this call. bulk: let interactive calls go first; deadline: time.monotonic() seconds
        after which no new run takes the texts. Cancelling the future drops them as well. Callbacks of the future run in
        a worker and must be short.
        Raises OverloadedError, TextTooLongError (with Truncation.REFUSE), TokenVectorsTooLargeError, UnavailableError
        (closed), DeadlineError. The future can fail with DeadlineError, UnavailableError, ModelRunError.
        """
        if not texts:
            nothing: Future[Embeddings] = Future()
            vectors = np.empty((0, form.dimensions or self.dimensions), np.float32)
            nothing.set_result(Embeddings(vectors, [], [], self.fingerprint(form)))
            return nothing
        may_be_kept = not bulk and token_claim is None
        cut = self._cut(texts, prompt, form.special, truncation, deadline, may_be_kept=may_be_kept)
        if token_claim is not None:
            return self._queue_with_tokens(cut, token_claim, form=form, bulk=bulk, deadline=deadline)
        return self._queue(cut, _as_it_is, form=form, bulk=bulk, deadline=deadline)

    def submit_query(
        self,
        text: str,
        then: Callable[[Embeddings], T],
        *,
        deadline: float | None = None,
        start_known: Start = _at_once,
    ) -> Future[T]:
        """Like submit for one text, behind the prompt of queries; the future's result is then(embeddings).

        It is called in the worker that embedded the text: for short work that would otherwise wait for a change of
        threads. Where the vector is kept there is no worker, and start_known has it called. What it raises, the future
        fails with.
        """
        cut = self._cut([text], self.prompts.query, None, Truncation.CUT_END, deadline, may_be_kept=True)
        return self._queue(cut, then, form=AS_BUNDLED, bulk=False, deadline=deadline, start_known=start_known)

    def _queue(  # noqa: PLR0913 -- each is what the caller said
        self,
        cut: Cut,
        then: Callable[[Embeddings], T],
        *,
        form: Form,
        bulk: bool,
        deadline: float | None,
        keep_tokens: KeepTokens | None = None,
        start_known: Start = _at_once,
    ) -> Future[T]:
        fingerprint, manifest = self.fingerprint(form), self.bundle.manifest
        tokens_used = [len(each) for each in cut.ids]
        return self._intake.submit(
            cut.ids,
            answer=lambda vectors: then(Embeddings(form.of(vectors, manifest), cut.tokens, tokens_used, fingerprint)),
            keep_tokens=keep_tokens,
            bulk=bulk,
            deadline=deadline,
            start_known=start_known,
        )

    def _queue_with_tokens(
        self, cut: Cut, claim: TokenClaim, *, form: Form, bulk: bool, deadline: float | None
    ) -> Future[Embeddings]:
        ids, tokens = cut.ids, sum(map(len, cut.ids))
        manifest, kept = self.bundle.manifest, dict[int, F32]()
        fingerprint = self.bundle.token_fingerprint(self._mode(form.special))
        size_bytes = tokens * (4 * manifest.network.hidden_size + _TOKEN_ID_BYTES)
        size_bytes += len(ids) * (4 * manifest.dimensions + _TEXT_BYTES)

        def add_tokens(embeddings: Embeddings) -> Embeddings:
            vectors = [TokenVectors(each, kept[index], fingerprint) for index, each in enumerate(ids)]
            return replace(embeddings, token_vectors=vectors)

        claim.take(tokens, size_bytes)
        return self._queue(cut, add_tokens, form=form, bulk=bulk, deadline=deadline, keep_tokens=kept.__setitem__)

    def embed(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        form: Form = AS_BUNDLED,
        truncation: Truncation = Truncation.CUT_END,
        bulk: bool = False,
        deadline: float | None = None,
    ) -> Embeddings:
        """Like submit, and wait. Raises what submit raises and what its future fails with."""
        return self.submit(
            texts, prompt=prompt, form=form, truncation=truncation, bulk=bulk, deadline=deadline
        ).result()

    def close(self) -> None:
        """Fail what waits, let the runs in progress end, and stop the workers, unless the workplace is another's."""
        if self._owns_workplace:
            self._workplace.close()

    def __enter__(self) -> Self:
        """Close at the end of a with block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _mode(self, special: SpecialTokens | None) -> SpecialTokens:
        return self.bundle.manifest.special_tokens if special is None else special

    def _cut(
        self,
        texts: Sequence[str],
        prompt: str,
        special: SpecialTokens | None,
        truncation: Truncation,
        deadline: float | None,
        *,
        may_be_kept: bool,
    ) -> Cut:
        """Raises OverloadedError, UnavailableError, TextTooLongError, and DeadlineError when it takes too long.

        may_be_kept: the texts are looked up in the cache, if there is one, and then need no room in the queue; for
        short ones that is asked for only once it is known.
        """
        check_room = partial(self._workplace.scheduler.check_room, deadline=deadline)
        few = len(texts) <= _FEW_TEXTS and sum(map(len, texts)) <= _FEW_CHARACTERS
        if may_be_kept and few and self._workplace.cache is not None:
            check_room = partial(_check_open, self._workplace.scheduler, deadline)
        return self._cutter.cut(texts, prompt=prompt, special=special, truncation=truncation, check_room=check_room)


def _check_open(scheduler: Scheduler, deadline: float | None, tokens: int) -> None:
    """Raises UnavailableError and DeadlineError, whatever room there is for the tokens."""
    del tokens
    scheduler.check_room(0, deadline)


def _as_it_is(embeddings: Embeddings) -> Embeddings:
    return embeddings
