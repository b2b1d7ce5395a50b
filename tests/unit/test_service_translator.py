"""Where messages are translated."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nearshore.service.translator import LARGE_BYTES, LARGE_ITEMS, Translator
from nearshore.v1.embedding_service_pb2 import EmbedRequest


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_only_large_messages_leave_the_event_loop(large: bool) -> None:
    """A small message is translated where it arrived, without a change of threads; a large one elsewhere."""
    translated_in: list[int] = []

    def translate(request: EmbedRequest) -> list[str]:
        translated_in.append(threading.get_ident())
        return list(request.texts)

    def build(texts: list[str]) -> EmbedRequest:
        translated_in.append(threading.get_ident())
        return EmbedRequest(texts=texts)

    async def both(translator: Translator) -> None:
        request = EmbedRequest(texts=["x" * LARGE_BYTES if large else "x"])
        texts = await translator.read(translate, request)
        assert await translator.build(build, texts, items=LARGE_ITEMS + large) == request

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(both(Translator(executor)))
    assert [each != threading.get_ident() for each in translated_in] == [large, large]
