"""Three replicas show what was written to any of them, and outlive their PostgreSQL."""

from pathlib import Path

import pytest

from benchmarks import replica_rounds
from tests.postgres import ABSENT, programs


@pytest.mark.skipif(programs() is None, reason=ABSENT)
def test_replicas_show_every_write_and_outlive_their_postgresql(tmp_path: Path) -> None:
    """A thousand writes are each found elsewhere with their tokens; PostgreSQL gone, no search fails; all catch up."""
    figures = replica_rounds.prove(tmp_path, checks=1_000, away_s=10.0)
    reading, outage = figures["reading"], figures["outage"]
    assert (reading["checks"], reading["missed"]) == (1_000, 0)
    assert reading["lag_ms_median"] <= 300
    assert outage["searches"] > 100
    assert outage["failed_searches"] == 0
    assert outage["refused_writes"].keys() <= {"STORE_UNAVAILABLE", "COMMIT_OUTCOME_UNKNOWN"}
    assert outage["refused_writes"]["STORE_UNAVAILABLE"] > 10
    assert outage["caught_up_s"] <= 5
