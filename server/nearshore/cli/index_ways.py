"""The three ways of an indexing run: through a server, into the store of a cluster, into a free data folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from nearshore.cli import output
from nearshore.cli.direct import Direct
from nearshore.cli.engine import Engine
from nearshore.cli.indexing import (
    NoModelInCollectionError,
    Outcome,
    Rejects,
    Run,
    count_through,
    counting_model,
    index_through_server,
    model_to_be,
    prepare_collection,
)
from nearshore.cli.passage_sizes import PassageSizes
from nearshore.cli.progress import Progress
from nearshore.cli.session import session
from nearshore.client import Client
from nearshore.documents.limits import Limits
from nearshore.documents.names import model_name
from nearshore.documents.requests import CollectionInput
from nearshore.embedding import Embedder
from nearshore.errors import CollectionNotFoundError, NearshoreError, UnavailableError
from nearshore.records import WriteToken
from nearshore.replica import Hindrance, Replica
from nearshore_indexer.columns import Columns
from nearshore_indexer.formats import Input, Reading
from nearshore_indexer.passages import TokenCounter
from nearshore_indexer.shards import Shard
from nearshore_indexer.sources import Source
from nearshore_indexer.store_sink import StoreSink
from nearshore_indexer.text_files import Splitting

SPECIAL_TOKENS = 2  # [CLS] and [SEP] around every text
LIMITS = {"max_text_bytes", "max_metadata_keys", "max_metadata_bytes"}  # of one document
_PAUSE_S = 0.25
_CHECK_INTERVAL_S = 1.0
_HELD_UP_PATIENCE_S = 15.0  # with what fails again and again, over a full disk say


class HeldUpError(UnavailableError):
    """The run waits for something that fails again and again."""

    reason = "INDEXING_HELD_UP"

    def __init__(self, state: str, trouble: str) -> None:
        """state: how far things are, a clause; trouble: why they get no further, a sentence."""
        super().__init__(f"{state}: {trouble}", "Mend that, and run the command again.")


@dataclass(frozen=True, slots=True)
class Job:
    """What to index, and how it is read."""

    sources: Sequence[Source]
    collection: str
    shard: Shard
    columns: Columns
    timestamp_keys: Collection[str]
    number_keys: Collection[str]
    sizes: PassageSizes

    def input(self, max_document_tokens: int, count_tokens: TokenCounter) -> Input:
        """What is to be read; max_document_tokens: what the model takes of a document. Raises as PassageSizes."""
        passage_tokens, overlap_tokens = self.sizes.fitted(max_document_tokens)
        sizes = session().settings.limits.model_dump(include=LIMITS)
        reading = Reading(
            limits=Limits(**sizes),
            splitting=Splitting(passage_tokens, overlap_tokens, count_tokens),
            columns=self.columns,
            timestamp_keys=self.timestamp_keys,
            number_keys=self.number_keys,
            shard=self.shard,
        )
        return Input(self.sources, reading)


def through_server(job: Job, rejects: Rejects, address: str) -> Outcome:
    """Index through the server at that address, and wait until it finds everything."""
    output.note(f"Indexing through the server at {address}.")
    with Client(address) as client:
        model = model_to_be(client, job.collection)
        given = _input_for(model, job, client)
        made_with = prepare_collection(client, job.collection)  # now that nothing of what was asked for is refused
        if made_with != model:  # by somebody else, who was quicker
            given = _input_for(made_with, job, client)
        run = Run(given.reader, rejects)
        outcome = _telling(run, lambda: index_through_server(run, address, job.collection, given.passage_counts))
    _warn_ignored(given)
    return outcome


def into_store(job: Job, rejects: Rejects) -> Outcome:
    """Write straight to the store that store.url names; the servers of the cluster follow it by themselves."""
    with Direct(session().settings) as direct:
        direct.found(job.collection)  # is refused before the sizes are
        given = job.input(direct.embedder.max_document_tokens, partial(_count, direct.embedder))
        collection, made = direct.collection(job.collection)
        if made:
            _note_made(job.collection, collection.spec.model)
        run = Run(given.reader, rejects)
        sink = StoreSink(direct.store, collection, direct.embedder, check=direct.check)
        outcome = _telling(run, lambda: asyncio.run(run.into(sink, given.passage_counts)))
    _warn_ignored(given)
    return outcome


def into_folder(job: Job, rejects: Rejects) -> Outcome:
    """Open the data folder in this process, write to its store, and leave the snapshot that a server starts from."""
    settings = session().settings
    output.note(f"No server has {settings.data_dir} open; indexing in this process.")
    with Engine(settings) as engine:
        _wait_loaded(engine)
        _found(engine, job.collection)  # is refused before the sizes are
        given = job.input(engine.embedder.max_document_tokens, partial(_count, engine.embedder))
        run = Run(given.reader, rejects)

        async def go() -> Outcome:
            replica = await _collection(engine, job.collection)
            applied = partial(_wait_applied, engine, replica)
            sink = StoreSink(engine.store, replica.collection, engine.embedder, check=engine.check, applied=applied)
            outcome = await run.into(sink, given.passage_counts)
            await _wait_built(engine, replica)
            return outcome

        outcome = _telling(run, lambda: asyncio.run(go()))
        _warn_ignored(given)
        if outcome.tally.written or outcome.tally.removed:
            output.note("Writing the snapshot that the next server starts from.")
    return outcome


def _input_for(model: str, job: Job, client: Client) -> Input:
    """What is read, for a collection of that model. Raises as Job.input."""
    cut = counting_model(client, model)
    return job.input(cut.max_document_tokens, partial(count_through, client, cut.model))


def _telling(run: Run, go: Callable[[], Outcome]) -> Outcome:
    """Let Ctrl-C, or an error, end the run with a word on what is done already."""
    try:
        return go()
    except (KeyboardInterrupt, NearshoreError, OSError) as ended:
        interrupted = isinstance(ended, KeyboardInterrupt)
        if interrupted or run.tally.documents:
            output.warn(
                f"{'interrupted' if interrupted else 'cut short'}: {run.tally.documents:,} documents are written and "
                "stay. Run the same command again to go on: what is there is not embedded again."
            )
        raise


def _count(embedder: Embedder, texts: Sequence[str]) -> list[int]:
    return [len(each.ids) - SPECIAL_TOKENS for each in embedder.tokenize(texts)]


async def _collection(engine: Engine, name: str) -> Replica:
    """The collection, created with the model if it is not there.

    Raises NoModelInCollectionError, FingerprintMismatchError.
    """
    replica = await asyncio.to_thread(_found, engine, name)
    if replica is None:
        await engine.parts.collections.create(CollectionInput(name, model=model_name(engine.model)))
        _note_made(name, engine.model)
        return engine.replicas.get(name)
    return replica


def _found(engine: Engine, name: str) -> Replica | None:
    """The collection, if it is there. Raises as _collection."""
    try:
        replica = engine.replicas.get(name)
    except CollectionNotFoundError:
        return None
    if not replica.collection.spec.model:
        raise NoModelInCollectionError(name)
    engine.models.check_loaded(replica.collection.spec)
    return replica


def _note_made(collection: str, model: str) -> None:
    output.note(f"Created the collection {collection} with the model {model}.")


def _wait_loaded(engine: Engine) -> None:
    """Raises PartDiedError, and HeldUpError when something, such as a full disk, has held it up for a while."""
    with Progress("loading", "rows") as progress:
        while not engine.replicas.ready.wait(_PAUSE_S):
            engine.check()
            _check_loading(engine)
            loading = engine.replicas.progress()
            share = sum(each.share for each in loading) / max(len(loading), 1)
            progress.update(sum(each.rows_read for each in loading), share)


def _check_loading(engine: Engine) -> None:
    for replica in engine.replicas.list():
        # A collection that is loaded keeps nobody waiting, whatever it meets.
        held_up = None if replica.ready.is_set() else _lasting(replica.held_up)
        if held_up is not None:
            raise HeldUpError(f"Collection {replica.collection.spec.name!r} is not loaded yet", held_up.detail)
    held_up = _lasting(engine.replicas.held_up)
    if held_up is not None:
        raise HeldUpError("The data folder's collections are not loaded yet", held_up.detail)


async def _wait_applied(engine: Engine, replica: Replica, token: WriteToken) -> None:
    """Wait until searches see a write. Raises as _wait_loaded."""
    applied = asyncio.wrap_future(replica.applied(token))
    try:
        while not (await asyncio.wait({applied}, timeout=_CHECK_INTERVAL_S))[0]:
            engine.check()
            held_up = _lasting(replica.held_up) or _lasting(engine.replicas.held_up)
            if held_up is not None:  # without its advice, which tells of a write that did not happen
                name = replica.collection.spec.name
                raise HeldUpError(f"Collection {name!r} is written, and not searchable yet", held_up.message)
        applied.result()
    finally:
        applied.cancel()


def _lasting(held_up: Hindrance | None) -> Hindrance | None:
    """It, once it has lasted longer than anybody should wait for its end."""
    return held_up if held_up is not None and held_up.lasted_s > _HELD_UP_PATIENCE_S else None


async def _wait_built(engine: Engine, replica: Replica) -> None:
    """Wait for the graph, so that the snapshot holds it."""
    with Progress("building the index", "") as progress:
        while replica.status().building:
            engine.check()
            progress.update()
            await asyncio.sleep(_PAUSE_S)


def _warn_ignored(given: Input) -> None:
    for name, records in sorted(given.ignored_fields.items()):
        output.warn(f"the field {name!r:.80} was ignored ({records:,} times): no metadata, or of no type that it has")
