"""The reference texts through a running server: close to the reference, and the same bits however they are sent."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from benchmarks.corpora import Reference
from nearshore.client import Client
from nearshore.records import F32

CALLERS = 64


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the server's vectors compare."""

    minimum_cosine: float  # to the reference vectors
    alone_equals_batch: bool  # bit for bit
    alone_equals_shuffled: bool  # bit for bit, among 64 concurrent callers


def compare(address: str, reference: Reference, *, seed: int = 1) -> Agreement:
    """Embed every reference text alone, all in one call, and shuffled among 64 concurrent callers.

    Uses the parity mode for special tokens, for that is how sentence-transformers reads "[SEP]" in a text.
    """
    with Client(address, read_own_writes=False) as client:
        alone = np.concatenate([client.embed([text], special_tokens="parse").vectors for text in reference.texts])
        together = client.embed(reference.texts, special_tokens="parse").vectors
    shuffled = _embed_among_callers(address, reference.texts, random.Random(seed))
    cosines = np.einsum("ij,ij->i", alone, reference.vectors) / (
        np.linalg.norm(alone, axis=1) * np.linalg.norm(reference.vectors, axis=1)
    )
    return Agreement(float(cosines.min()), alone.tobytes() == together.tobytes(), alone.tobytes() == shuffled.tobytes())


def _embed_among_callers(address: str, texts: list[str], dice: random.Random) -> F32:
    """Vectors in the order of texts, embedded by 64 callers that start together, each with its share in small calls."""
    order = list(range(len(texts)))
    dice.shuffle(order)
    barrier = threading.Barrier(CALLERS)

    def call(caller: int) -> list[tuple[list[int], F32]]:
        mine = order[caller::CALLERS]
        answers = []
        with Client(address, read_own_writes=False) as client:
            barrier.wait()
            while mine:
                size = 1 + caller % 5
                part, mine = mine[:size], mine[size:]
                answers.append((part, client.embed([texts[i] for i in part], special_tokens="parse").vectors))
        return answers

    with ThreadPoolExecutor(CALLERS) as callers:
        pieces = [piece for answer in callers.map(call, range(CALLERS)) for piece in answer]
    vectors = np.empty((len(texts), pieces[0][1].shape[1]), np.float32)
    for part, found in pieces:
        vectors[part] = found
    return vectors
