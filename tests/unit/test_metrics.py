"""What is counted and read, and how it is served."""

from __future__ import annotations

import socket
import struct
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import generate_latest

from nearshore.metrics import ALL, CollectionFigures, Endpoint, Figures, Metrics
from nearshore.metrics.definitions import BUCKETS_S
from nearshore.metrics.errors import MetricsAddressUnusableError, MetricsPortInUseError
from tests.scraping import Scrape, parsed, scrape

SEARCH = "SearchService/Search"


def told(metrics: Metrics) -> Scrape:
    return parsed(generate_latest(metrics.registry).decode())


def collection(name: str, **figures: Any) -> CollectionFigures:
    nothing: dict[str, Any] = dict.fromkeys(
        ("documents", "sealed_rows", "tail_rows", "dead_rows", "generation", "lag_positions", "lag_s"), 0
    )
    return CollectionFigures(name=name, **{**nothing, **figures})


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    """A function that serves metrics on a free port of this machine."""
    opened: list[Endpoint] = []

    def serve(metrics: Metrics, host: str = "127.0.0.1", port: int = 0) -> Endpoint:
        opened.append(Endpoint.open(metrics.registry, host, port))
        return opened[-1]

    yield serve
    for endpoint in opened:
        endpoint.close()


def test_calls_are_counted_by_method_and_code(metrics: Metrics) -> None:
    """Each call is counted once, and its time enters the histogram of its method."""
    search, other = metrics.calls(SEARCH), metrics.calls("DocumentService/GetDocuments")
    for code, seconds in (("OK", 0.003), ("OK", 0.004), ("RESOURCE_EXHAUSTED", 0.0001)):
        search.answered(code, seconds)
    other.answered("NOT_FOUND", 2.0)
    seen = told(metrics)
    assert seen.value("nearshore_calls_total", method=SEARCH, code="OK") == 2
    assert seen.value("nearshore_calls_total", method=SEARCH, code="RESOURCE_EXHAUSTED") == 1
    assert seen.value("nearshore_calls_total", method="DocumentService/GetDocuments", code="NOT_FOUND") == 1
    assert seen.value("nearshore_call_seconds_count", method=SEARCH) == 3
    assert seen.value("nearshore_call_seconds_bucket", method=SEARCH, le="0.001") == 1
    assert seen.value("nearshore_call_seconds_bucket", method=SEARCH, le="0.005") == 3


def test_a_method_without_calls_is_told_as_zero(metrics: Metrics) -> None:
    """A rate over a counter that appears with its first call would miss that call."""
    metrics.calls(SEARCH)
    assert told(metrics).value("nearshore_calls_total", method=SEARCH, code="OK") == 0


def test_buckets_reach_from_a_millisecond_to_a_minute() -> None:
    """The quickest search and the longest write both lie within the buckets, which ascend."""
    assert (BUCKETS_S[0], BUCKETS_S[-1]) == (0.001, 60.0)
    assert list(BUCKETS_S) == sorted(BUCKETS_S)


def test_registries_are_apart(metrics: Metrics) -> None:
    """Two servers in one process do not count into each other."""
    metrics.embedded(texts=2, tokens=9)
    other = Metrics()
    other.embedded(texts=1, tokens=3)
    assert told(metrics).value("nearshore_embedded_tokens_total") == 9
    assert told(other).value("nearshore_embedded_texts_total") == 1


def test_every_metric_is_told_as_it_is_defined(metrics: Metrics) -> None:
    """What docs/metrics.md lists is what is scraped: names, types and labels, and nothing else of ours."""
    metrics.calls(SEARCH)
    metrics.describe("1.2.3", "tiny", "abc")
    metrics.read_at_scrape(
        lambda: Figures(store_contact_age_s=1.0, model_bytes={"tiny": 1}, collections=[collection("docs")])
    )
    seen = told(metrics)
    ours = {name: kind for name, kind in seen.types.items() if name.startswith("nearshore_")}
    assert ours == {each.name: each.kind.value for each in ALL}
    for each in ALL:
        name = each.name + ("_count" if each.kind == "histogram" else "")
        assert {tuple(sorted(labels)) for labels in seen.labels(name)} == {tuple(sorted(each.labels))}, each.name
    assert seen.value("process_resident_memory_bytes") > 0
    assert seen.labels("python_gc_collections_total")


def test_gauges_are_read_at_each_scrape(metrics: Metrics) -> None:
    """A scrape tells how things stand at that moment; what is gone leaves nothing behind."""
    docs = collection("docs", documents=3, sealed_rows=2, tail_rows=4, dead_rows=3, lag_positions=7, lag_s=1.5)
    busy = Figures(ready=True, calls_in_flight=2, queued_tokens=99, model_bytes={"tiny": 5}, collections=[docs])
    standing = [busy, Figures()]
    metrics.read_at_scrape(lambda: standing.pop(0))
    before, after = told(metrics), told(metrics)
    assert before.value("nearshore_ready") == 1
    assert before.value("nearshore_queue_tokens") == 99
    assert before.value("nearshore_calls_in_flight") == 2
    assert before.value("nearshore_documents", collection="docs") == 3
    assert before.value("nearshore_feed_lag_seconds", collection="docs") == 1.5
    rows = {part: before.value("nearshore_index_rows", collection="docs", part=part) for part in ("sealed", "tail")}
    assert rows == {"sealed": 2, "tail": 4}
    assert after.value("nearshore_ready") == 0
    assert before.value("nearshore_model_bytes", model="tiny") == 5
    assert not after.labels("nearshore_documents")
    assert not after.labels("nearshore_model_bytes")


def test_gauges_that_cannot_be_read_take_nothing_else_along(
    metrics: Metrics, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bug in the reading is logged, and the counters are still told."""

    def broken() -> Figures:
        raise ValueError("a bug")

    metrics.read_at_scrape(broken)
    metrics.embedded(texts=1, tokens=3)
    assert told(metrics).value("nearshore_embedded_tokens_total") == 3
    assert "The gauges could not be read" in capsys.readouterr().err


def test_any_name_of_a_collection_can_be_told(metrics: Metrics) -> None:
    """Quotes, backslashes and line ends in a label break no line."""
    name = 'a "quoted" \\ name\nof two lines'
    metrics.read_at_scrape(lambda: Figures(collections=[collection(name, documents=5)]))
    assert told(metrics).value("nearshore_documents", collection=name) == 5


def test_metrics_are_served_on_their_path_only(metrics: Metrics, serve: Callable[..., Endpoint]) -> None:
    """/metrics answers, with a query too; every other path is 404."""
    endpoint = serve(metrics)
    metrics.embedded(texts=1, tokens=3)
    assert scrape(endpoint.port).value("nearshore_embedded_tokens_total") == 3
    with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics?name[]=nearshore_ready") as answer:
        assert set(parsed(answer.read().decode()).types) == {"nearshore_ready"}
    for path in ("/", "/metrics/", "/favicon.ico"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}{path}")
        with refused.value:
            assert refused.value.code == 404


def test_a_port_in_use_names_its_setting(metrics: Metrics, serve: Callable[..., Endpoint]) -> None:
    """The second server says which setting to change, and the first goes on."""
    endpoint = serve(metrics)
    with pytest.raises(MetricsPortInUseError, match=r"set metrics\.port") as refused:
        Endpoint.open(Metrics().registry, "127.0.0.1", endpoint.port)
    assert str(endpoint.port) in refused.value.message
    assert scrape(endpoint.port).value("nearshore_ready") == 0


@pytest.mark.parametrize("host", ["192.0.2.1", "no such name", "a" * 70])
def test_an_address_of_another_machine_is_refused(metrics: Metrics, host: str) -> None:
    """An address that cannot be listened on is refused with the setting that names it."""
    with pytest.raises(MetricsAddressUnusableError, match=r"Set metrics\.host"):
        Endpoint.open(metrics.registry, host, 0)


def test_a_closed_endpoint_frees_its_port(metrics: Metrics, serve: Callable[..., Endpoint]) -> None:
    """The next server can have the port at once."""
    first = Endpoint.open(metrics.registry, "127.0.0.1", 0)
    assert scrape(first.port).value("nearshore_ready") == 0
    first.close()
    assert scrape(serve(metrics, port=first.port).port).value("nearshore_ready") == 0


def test_metrics_are_served_over_ipv6(metrics: Metrics, serve: Callable[..., Endpoint]) -> None:
    """A cluster of IPv6 addresses is scraped like any other."""
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        endpoint = serve(metrics, host="::1")
    except MetricsAddressUnusableError:
        pytest.skip("this machine has no IPv6")
    assert scrape(endpoint.port, host="[::1]").value("nearshore_ready") == 0


def test_scrapers_that_leave_or_stall_harm_nobody(
    metrics: Metrics, serve: Callable[..., Endpoint], capfd: pytest.CaptureFixture[str]
) -> None:
    """One that resets its connection and one that sends nothing leave the next one its answer, and the log clean."""
    endpoint = serve(metrics)
    stalling = socket.create_connection(("127.0.0.1", endpoint.port))
    leaving = socket.create_connection(("127.0.0.1", endpoint.port))
    leaving.sendall(b"GET /metrics HTTP/1.0\r\n")
    leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends a reset
    leaving.close()
    with stalling:
        assert scrape(endpoint.port).value("nearshore_ready") == 0
    assert not capfd.readouterr().err
