"""Recall, completeness and time of filtered searches over real passages, against exact filtered search."""

import itertools
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nearshore.client import Client, Query, SearchResult
from nearshore.records import F32, Document

COLLECTION = "passages"
LIMIT = 10
EQUAL_SCORES = 1e-6
Passage = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and the same rule in Python."""

    name: str
    text: str
    matches: Callable[[Passage], bool]


FILTERS = (
    Filter("none set", "", lambda _: True),
    Filter(
        "half",
        'source = ("wordnet" OR "opentrivia")',
        lambda passage: passage["metadata"]["source"] in {"wordnet", "opentrivia"},
    ),
    Filter("11%", 'lang = "ko"', lambda passage: passage["metadata"].get("lang") == "ko"),
    Filter("1%", 'lexfile = "noun.attribute"', lambda passage: passage["metadata"].get("lexfile") == "noun.attribute"),
    Filter("0.1%", 'command = "cd"', lambda passage: passage["metadata"].get("command") == "cd"),
    Filter("no row", 'source = "nowhere"', lambda passage: passage["metadata"]["source"] == "nowhere"),
)


@dataclass(frozen=True, slots=True)
class FilterFigures:
    """One filter with one kind of query."""

    filter: str
    queries: str  # "with": texts that match the filter; "against": texts that do not
    count: int
    recall_at_10: float
    fewest_missing: int  # hits short of min(10, rows that match); 0 is right
    p50_ms: float
    exact_share: float  # answers that scored every allowed row


def embed_queries(client: Client, texts: Sequence[str]) -> tuple[F32, str]:
    """Vectors of query texts and their fingerprint, so that searches are timed without embedding."""
    embedded = client.embed(texts)
    return embedded.vectors, embedded.fingerprint


def recall(found: SearchResult, truth: SearchResult) -> float:
    """Share of the exact answer's hits that were found; a hit with an equal score counts as found."""
    if not truth.hits:
        return 1.0
    last = truth.hits[-1].score
    good = sum(hit.score >= last - EQUAL_SCORES for hit in found.hits)
    return min(good, len(truth.hits)) / len(truth.hits)


def measure(client: Client, passages: Iterable[Passage], *, queries: int, seed: int = 1) -> list[FilterFigures]:
    """Every filter with `queries` texts that match it and as many that do not."""
    everything = list(passages)
    dice = random.Random(seed)
    figures = []
    for rule in FILTERS:
        matching = [passage for passage in everything if rule.matches(passage)]
        other = [passage for passage in everything if not rule.matches(passage)]
        for kind, pool in (("with", matching), ("against", other)):
            if pool:
                texts = [passage["text"][:300] for passage in dice.sample(pool, min(queries, len(pool)))]
                figures.append(_measure_one(client, rule, kind, texts, len(matching)))
    return figures


def _measure_one(client: Client, rule: Filter, kind: str, texts: Sequence[str], matching: int) -> FilterFigures:
    vectors, fingerprint = embed_queries(client, texts)
    recalls, missing, times_s, exact = [], 0, [], 0
    for vector in vectors:
        query = Query(vector=vector, fingerprint=fingerprint, filter=rule.text, limit=LIMIT)
        began = time.perf_counter()
        found = client.search(COLLECTION, query)
        times_s.append(time.perf_counter() - began)
        truth = client.search(
            COLLECTION, Query(vector=vector, fingerprint=fingerprint, filter=rule.text, limit=LIMIT, exact=True)
        )
        assert truth.exact
        recalls.append(recall(found, truth))
        missing = max(missing, min(LIMIT, matching) - len(found.hits))
        exact += found.exact
    return FilterFigures(
        rule.text or rule.name,
        kind,
        len(texts),
        statistics.fmean(recalls),
        missing,
        1e3 * statistics.median(times_s),
        exact / len(texts),
    )


def recall_after_deletes(client: Client, texts: Sequence[str], *, neighbours: int = 130) -> tuple[float, int]:
    """Delete the nearest `neighbours` of every text, then search again: (mean recall@10, hits missing at worst)."""
    vectors, fingerprint = embed_queries(client, texts)
    for vector in vectors:
        nearest = client.search(COLLECTION, Query(vector=vector, fingerprint=fingerprint, limit=neighbours, exact=True))
        client.delete(COLLECTION, ids=[hit.document.id for hit in nearest.hits])
    recalls, missing = [], 0
    for vector in vectors:
        found = client.search(COLLECTION, Query(vector=vector, fingerprint=fingerprint, limit=LIMIT))
        truth = client.search(COLLECTION, Query(vector=vector, fingerprint=fingerprint, limit=LIMIT, exact=True))
        recalls.append(recall(found, truth))
        missing = max(missing, LIMIT - len(found.hits))
    return statistics.fmean(recalls), missing


@dataclass(frozen=True, slots=True)
class UpdateFigures:
    """What searches saw while documents were being replaced."""

    updates: int
    searches: int
    both: int  # answers with two versions of one document
    neither: int  # answers without the document


def search_while_updating(address: str, *, documents: int = 20, rounds: int = 30) -> UpdateFigures:
    """Replace `documents` again and again while another caller searches for each of them."""
    names = [f"update-check/{number}" for number in range(documents)]
    texts = [f"Kilometre stone {number} on the road to the observatory" for number in range(documents)]

    def write(client: Client, version: int) -> None:
        client.upsert(
            COLLECTION,
            [
                Document(name, f"{text}, seen {version} times", metadata={"version": version})
                for name, text in zip(names, texts, strict=True)
            ],
        )

    done = threading.Event()
    counts = {"searches": 0, "both": 0, "neither": 0}
    with Client(address) as writer, Client(address) as reader:
        write(writer, 0)
        reader.search(COLLECTION, Query(text="settle", limit=1))
        vectors, fingerprint = embed_queries(reader, texts)
        while reader.get(COLLECTION, names).missing_ids:
            time.sleep(0.01)

        def search() -> None:
            for number in itertools.cycle(range(documents)):
                if done.is_set():
                    return
                query = Query(vector=vectors[number], fingerprint=fingerprint, limit=2 * documents)
                seen = [hit.document.id for hit in reader.search(COLLECTION, query).hits].count(names[number])
                counts["searches"] += 1
                counts["both"] += seen > 1
                counts["neither"] += seen < 1

        thread = threading.Thread(target=search)
        thread.start()
        for version in range(1, rounds + 1):
            write(writer, version)
        done.set()
        thread.join()
    return UpdateFigures(documents * rounds, **counts)
