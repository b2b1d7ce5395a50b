"""What a server tells Prometheus, read as Prometheus reads it."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Scrape:
    """The samples of one scrape by name and labels, and the type of each metric."""

    samples: dict[tuple[str, frozenset[tuple[str, str]]], float]
    types: dict[str, str]

    def value(self, name: str, **labels: str) -> float:
        """One sample; fails when it is not there."""
        return self.samples[name, frozenset(labels.items())]

    def labels(self, name: str) -> list[dict[str, str]]:
        """The labels of every sample of that name."""
        return [dict(labels) for found, labels in self.samples if found == name]


def parsed(text: str) -> Scrape:
    """A scrape from its text. Fails for what Prometheus would not take, a sample told twice among it."""
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    types: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        types[family.name + ("_total" if family.type == "counter" else "")] = family.type
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples, key
            samples[key] = sample.value
    return Scrape(samples, types)


def scrape(port: int, host: str = "127.0.0.1") -> Scrape:
    """What /metrics on that port says now."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=TIMEOUT_S) as answer:
        return parsed(answer.read().decode())
