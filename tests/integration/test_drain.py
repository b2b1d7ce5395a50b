"""A server that is asked to stop tells so first, and answers on until those who call it have heard."""

from __future__ import annotations

import signal
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nearshore.client import NO_RETRIES, Client
from nearshore.exit_codes import ExitCode
from tests.servers import ServerProcess

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LONG_S = "500"
Start = Callable[..., ServerProcess]


def test_a_draining_server_answers_on(server_process: Start) -> None:
    """Health says NOT_SERVING, to those who watch and those who ask, while calls new and old are answered."""
    process = server_process(NEARSHORE_SERVER__DRAIN_S=LONG_S)
    address = process.address()
    with Client(address, retries=NO_RETRIES) as client, grpc.insecure_channel(address) as channel:
        client.wait_ready()
        client.create_collection("docs", dimensions=2)
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == SERVING
        process.process.send_signal(signal.SIGTERM)
        process.wait_for("Draining: not ready any more, answering still")
        assert next(watch).status == NOT_SERVING
        assert health.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING
        assert client.count("docs") == 0
        with Client(address, retries=NO_RETRIES) as newcomer:
            assert newcomer.count("docs") == 0
    assert process.insist(signal.SIGTERM) == ExitCode.INTERRUPTED


def test_a_drained_server_ends_in_order(server_process: Start) -> None:
    """After the time to drain it stops as ever."""
    process = server_process(NEARSHORE_SERVER__DRAIN_S="0.3")
    process.address()
    process.process.send_signal(signal.SIGTERM)
    assert process.wait() == ExitCode.OK
    events = ["Draining: not ready any more, answering still", "Stopping", "Stopped"]
    places = [next(n for n, line in enumerate(process.lines) if f'"{event}"' in line) for event in events]
    assert places == sorted(places)
