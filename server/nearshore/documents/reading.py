"""What all reads share: waiting for writes, saying what state they saw, and keeping answers within a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial

from nearshore.documents.errors import AnswerTooLargeError, BatchSizeError, ReadAfterHeldUpError, ReadAfterTimeoutError
from nearshore.documents.limits import Limits
from nearshore.documents.names import collection_id
from nearshore.documents.requests import Parts
from nearshore.documents.sizes import size_bytes
from nearshore.documents.store_threads import claim_store
from nearshore.documents.threads import Threads
from nearshore.documents.waiting import result_of
from nearshore.errors import CallerError, CollectionNotFoundError, DeadlineError, UnavailableError
from nearshore.records import Document, ReadState, WriteToken, metadata_size_bytes
from nearshore.replica import Replica, Replicas, ReplicaView

_FIRST_VIEW_WAIT_S = 2.0  # a collection that another replica created just now has its view much sooner
_HELD_UP_WAIT_S = 2.0  # over a full disk say: a build that ends may free room, after that nobody but people
_LOOK_S = 0.25  # at what holds up a replica that is waited for
_FRAME_BYTES = 64  # of one document in a message, about


async def find_replica(
    replicas: Replicas,
    name: str,
    threads: Threads,
    limits: Limits,
    *,
    read_after: Sequence[str],
    deadline: float | None,
) -> Replica:
    """The replica of "collections/{collection}", the value of a request's field `collection`.

    The store is asked for one that is not known here, and where a token of read_after says that memory may be behind:
    another replica may have created the collection, or deleted it and created a namesake.

    Raises InvalidNameError, BatchSizeError, InvalidWriteTokenError, CollectionNotFoundError, OverloadedError,
    DeadlineError, UnavailableError.
    """
    bare = collection_id(name, "collection")
    replica = replicas.known(bare)
    if replica is None:
        return await threads.store.run(partial(replicas.get, bare), deadline)
    if any(token.collection_id != replica.collection.id for token in _tokens(read_after, limits)):
        return await threads.store.run(partial(replicas.current, bare), deadline)
    return replica


async def successor(
    replicas: Replicas, refusing: Replica, threads: Threads, refusal: CallerError, deadline: float | None
) -> Replica:
    """The replica of the collection that now has the name of `refusing`, which refused a write.

    Raises `refusal` when that is no other, CollectionNotFoundError when there is none. While the store is away, what
    was refused stays refused.
    """
    name = refusing.collection.spec.name
    try:
        replica = await threads.store.run(partial(replicas.find, name), deadline)
    except UnavailableError:
        raise refusal from None
    if replica is not refusing:
        return replica
    if isinstance(refusal, CollectionNotFoundError):  # of the store, which knows it by number
        raise CollectionNotFoundError(name) from None
    raise refusal


async def reach(replica: Replica, read_after: Sequence[str], limits: Limits, deadline: float | None) -> None:
    """Wait until `replica` has applied every write of `read_after`, and a moment for its first view.

    Raises InvalidWriteTokenError, HistoryChangedError for a token of another history, OverloadedError where too many
    calls wait for the store, and ReadAfterTimeoutError with the positions at the deadline or after
    limits.max_read_wait_s, or sooner where the replica is held up by what does not pass by itself.
    """
    if not read_after:
        if not replica.has_view:
            await _first_view(replica, deadline)
        return
    until = time.monotonic() + limits.max_read_wait_s
    if deadline is not None:
        until = min(until, deadline)
    tokens = _tokens(read_after, limits)
    await _applied(replica, tokens, until)
    if len(tokens) > 1:  # a fail-over that one of them was waited through may have lost another that was there
        await _applied(replica, tokens, until)


async def _applied(replica: Replica, tokens: Sequence[WriteToken], until: float) -> None:
    waiting = [(token, replica.applied(token)) for token in tokens]
    try:
        if not all(future.done() for _, future in waiting):
            claim_store()
        for token, future in waiting:
            await _applied_one(replica, token, future, until)
    finally:
        for _, future in waiting:
            future.cancel()


async def _applied_one(replica: Replica, token: WriteToken, future: Future[None], until: float) -> None:
    if future.done():
        return future.result()
    began, waiting = time.monotonic(), asyncio.wrap_future(future)
    try:
        while not future.done():
            left_s = until - time.monotonic()
            if left_s <= 0 or _is_hopeless(replica, began):
                raise _not_reached(replica, token)
            await asyncio.wait([waiting], timeout=min(left_s, _LOOK_S))
    finally:
        waiting.cancel()
    return future.result()


def _is_hopeless(replica: Replica, began: float) -> bool:
    """Whether nobody but people ends what holds the replica up, as an attempt that began after that has shown again."""
    held_up = replica.held_up
    if held_up is None or not held_up.needs_people:
        return False
    return held_up.lasted_s > _HELD_UP_WAIT_S and held_up.tried > began


def _tokens(read_after: Sequence[str], limits: Limits) -> list[WriteToken]:
    """Each once. Raises BatchSizeError, InvalidWriteTokenError."""
    if len(read_after) > limits.max_read_after:
        raise BatchSizeError(
            f"read_after has {len(read_after):,} tokens.",
            f"Send at most {limits.max_read_after:,}; of one collection's tokens in one history the newest is enough.",
            field="read_after",
        )
    return [WriteToken.decode(token) for token in dict.fromkeys(read_after)]


async def _first_view(replica: Replica, deadline: float | None) -> None:
    claim_store()
    until = time.monotonic() + _FIRST_VIEW_WAIT_S
    with suppress(DeadlineError):  # who reads the view will say that it is being loaded
        await result_of(replica.loaded(), until if deadline is None else min(until, deadline), "loading the collection")


def read_state(replica: Replica, view: ReplicaView) -> ReadState:
    """How true an answer from `view` is."""
    state = replica.state(view)
    token = WriteToken(replica.collection.id, state.position, state.tag).encode() if state.position else ""
    return ReadState(
        position=state.position,
        commit_at=state.commit_at,
        contact_age_s=state.contact_age_s,
        token=token,
        head=max(state.head, state.position),
        history_changed=state.history_changed,
    )


def with_parts(document: Document, parts: Parts) -> Document:
    """As much of a document as was asked for."""
    if parts.text and parts.metadata:
        return document
    return replace(
        document,
        text=document.text if parts.text else "",
        metadata=document.metadata if parts.metadata else {},
    )


def answer_bytes(document: Document, parts: Parts, dimensions: int) -> int:
    """About how many bytes a document (parts already taken) and its vector take in an answer."""
    size = size_bytes(document.id) + size_bytes(document.title) + size_bytes(document.parent_id)
    size += size_bytes(document.text) + metadata_size_bytes(document.metadata) + _FRAME_BYTES
    return size + 16 * len(document.metadata) + (4 * dimensions if parts.vector else 0)


def may_overflow(documents: int, dimensions: int, limits: Limits) -> bool:
    """Whether so many documents could be more than a message holds, so that their bytes have to be counted."""
    largest = limits.max_text_bytes + limits.max_metadata_bytes + 4 * dimensions + 4_096
    return documents * largest > limits.max_message_bytes


def check_answer_bytes(size: int, limits: Limits) -> None:
    """Refuse to send more than a message holds. Raises AnswerTooLargeError."""
    if size > limits.max_message_bytes:
        raise AnswerTooLargeError(
            f"The answer would have more than {limits.max_message_bytes:,} bytes.",
            "Ask for fewer documents, or leave out text, metadata or vectors (parts).",
        )


def _not_reached(replica: Replica, token: WriteToken) -> ReadAfterTimeoutError:
    state, held_up = replica.state(), replica.held_up
    stands = f"This replica stands at position {state.position} and had to reach {token.position}"
    if held_up is None:
        kind, why = ReadAfterTimeoutError, f"it last heard from its store {state.contact_age_s:.1f} s ago."
        remedy = "Retry; if it stays behind, look at read_state.head and contact_age_s of the collection."
    else:
        kind, why = ReadAfterHeldUpError, f"it is held up: {held_up.detail}"
        remedy = "Mend that; it then goes on by itself, and what was written stays written."
    return kind(
        f"{stands}; {why}",
        remedy,
        position=state.position,
        wanted=token.position,
        lag=max(0, token.position - state.position),
        contact_age_s=round(state.contact_age_s, 3),
    )
