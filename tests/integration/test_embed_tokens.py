"""The vectors of all tokens, through a real server, by both clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from nearshore.client import AsyncClient, Client, Document, Retries
from nearshore.documents.errors import FingerprintMismatchError
from nearshore.embedding.errors import TokenVectorsTooLargeError
from nearshore.embedding.token_room import ANSWERS
from nearshore.errors import OverloadedError
from nearshore.v1.embedding_service_pb2 import EmbedRequest
from tests.servers import InProcessServer

LARGE = EmbedRequest(texts=["cat " * 100] * 110, token_vectors=True)  # its answer has nearly a MiB
PATIENT = Retries(overload_s=30.0, max_pause_s=0.1)
TEXTS = ["red bird", "a cat in the city", "", "fish " * 100]


def bits_of(client: Client, texts: list[str]) -> list[bytes]:
    """The vectors of the tokens of each text."""
    return [each.vectors.tobytes() for each in client.embed(texts, token_vectors=True).token_vectors]


def test_both_clients_get_the_vectors_of_tokens(client: Client, server: InProcessServer) -> None:
    """Those of the tokens that were embedded, with their ids, beside the vectors that there would be anyway."""
    plain, answer = client.embed(TEXTS), client.embed(TEXTS, token_vectors=True)
    assert not plain.token_vectors
    assert answer.vectors.tobytes() == plain.vectors.tobytes()
    ids = [each.ids for each in client.tokenize(TEXTS).texts]
    assert [each.ids for each in answer.token_vectors] == [*ids[:3], (*ids[3][:63], ids[3][-1])]
    assert [each.vectors.shape for each in answer.token_vectors] == [(used, 32) for used in answer.tokens_used]
    mean = answer.token_vectors[1].vectors.mean(axis=0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), plain.vectors[1], atol=1e-6)

    async def ask() -> list[bytes]:
        async with AsyncClient(server.address) as asking:
            found = await asking.embed(TEXTS, token_vectors=True)
            return [each.vectors.tobytes() for each in found.token_vectors]

    assert asyncio.run(ask()) == [each.vectors.tobytes() for each in answer.token_vectors]


def test_tokens_are_as_the_network_gives_them(client: Client) -> None:
    """Neither dimensions nor normalize, which are of the vectors of texts, move those of tokens."""
    plain = bits_of(client, TEXTS)
    for cut in (
        client.embed(TEXTS, token_vectors=True, dimensions=8),
        client.embed(TEXTS, token_vectors=True, normalize=False),
    ):
        assert [each.vectors.tobytes() for each in cut.token_vectors] == plain


def test_other_callers_do_not_move_the_vectors_of_tokens(client: Client) -> None:
    """Alone, in one call, and among callers who want them or not, they have the same bits."""
    texts = [f"{word} {n}" for n in range(8) for word in ("cat", "red bird", "a river in the city", "x")]
    alone = [bits_of(client, [text])[0] for text in texts]
    assert bits_of(client, texts) == alone
    with ThreadPoolExecutor(16) as callers:
        others = [callers.submit(client.embed, [text]) for text in texts]
        together = list(callers.map(lambda text: bits_of(client, [text])[0], texts))
        for other in others:
            other.result()
    assert together == alone


def test_too_many_for_one_answer_are_refused_in_advance(start_server: Callable[..., InProcessServer]) -> None:
    """The refusal says how many tokens fit; without their vectors the same texts are embedded."""
    with start_server(server__max_message_bytes=1 << 16).client() as client:
        texts = ["a cat in the city"] * 100
        with pytest.raises(TokenVectorsTooLargeError, match=r"700 tokens .* Send texts of at most 376 tokens") as told:
            client.embed(texts, token_vectors=True)
        assert told.value.reason == "TOKEN_VECTORS_TOO_LARGE"
        assert len(client.embed(texts).vectors) == 100
        assert len(client.embed(texts[:50], token_vectors=True).token_vectors) == 50


@pytest.fixture
def unread() -> Iterator[Callable[[InProcessServer], list[Any]]]:
    """Fills the room for vectors of tokens of a server, with answers that come without a deadline and are not read."""
    with contextlib.ExitStack() as opened:

        def fill(server: InProcessServer) -> list[Any]:
            channel = opened.enter_context(grpc.insecure_channel(server.address, [("grpc.http2.bdp_probe", 0)]))
            embed: Any = channel.unary_stream(  # which reads an answer only when it is asked for it
                "/nearshore.v1.EmbeddingService/Embed", request_serializer=EmbedRequest.SerializeToString
            )
            calls = [embed(LARGE) for _ in range(ANSWERS)]
            for call in calls:
                call.initial_metadata()  # comes with the answer's first bytes
            return calls

        yield fill


def test_an_answer_keeps_its_room_until_it_is_read(
    start_server: Callable[..., InProcessServer], unread: Callable[[InProcessServer], list[Any]]
) -> None:
    """Who takes large answers slowly is refused more of them; once those are taken or left there is room again."""
    server = start_server(server__max_message_bytes=1 << 20)
    calls = unread(server)
    with server.client(retries=Retries(overload_s=0.0)) as client, pytest.raises(OverloadedError, match="or sent"):
        client.embed(list(LARGE.texts), token_vectors=True)
    assert len(next(calls[0])) > 900_000
    calls[1].cancel()
    with server.client(retries=PATIENT) as client:
        assert len(client.embed(list(LARGE.texts), token_vectors=True).token_vectors) == 110


def test_an_answer_that_is_never_read_does_not_keep_its_room(
    start_server: Callable[..., InProcessServer], unread: Callable[[InProcessServer], list[Any]]
) -> None:
    """Callers without a deadline who take nothing would keep all others out for ever."""
    server = start_server(server__max_message_bytes=1 << 20, server__max_unread_s=0.5)
    calls = unread(server)
    with server.client(retries=PATIENT) as client:
        assert len(client.embed(list(LARGE.texts), token_vectors=True).token_vectors) == 110
    assert len(next(calls[0])) > 900_000  # whoever takes it late has all of it


def test_no_collection_takes_vectors_of_tokens_for_those_of_texts(client: Client, collection_id: str) -> None:
    """They have as many components as the tiny model's vectors, and another fingerprint."""
    (tokens,) = client.embed(["cat"], token_vectors=True).token_vectors
    client.create_collection(collection_id, model="tiny")
    with pytest.raises(FingerprintMismatchError):
        client.upsert(collection_id, [Document("1", "cat")], vectors=tokens.vectors[:1], fingerprint=tokens.fingerprint)
