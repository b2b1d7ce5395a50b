"""docs/logs.md is made of the calls of loggers in the source."""

import ast

import pytest

from nearshore.cli.log_events import LogEvent, events_of, log_events

ADVISED = ("critical", "error", "warning")


def test_warnings_and_errors_say_what_to_do() -> None:
    """Whoever is woken by a line finds in it what to do next."""
    assert not [f"{each.module}: {each.event}" for each in log_events() if each.level in ADVISED and not each.advises]


def test_an_event_is_found_with_its_fields() -> None:
    """Bound fields, named constants and tracebacks are part of the line."""
    source = """
WHAT_TO_DO = "Do this."
log = structlog.get_logger(__name__)

class Part:
    def __init__(self):
        self._log = log.bind(collection="docs")

    def work(self):
        try:
            self._log.info("Working", rows=3)
        except ValueError as error:
            self._log.exception("It " "failed", remedy=WHAT_TO_DO)
            log.critical(error.message, remedy=error.remedy)
            report.error("not a logger")
            log.bind(a=1)
"""
    assert set(events_of(ast.parse(source), "nearshore.part")) == {
        LogEvent("Working", "info", ("collection", "rows"), "nearshore.part", ""),
        LogEvent("It failed", "error", ("collection", "remedy", "exception"), "nearshore.part", "Do this."),
        LogEvent("", "critical", ("remedy",), "nearshore.part", ""),
    }


@pytest.mark.parametrize("call", ["log.info(event)", "log.info(f'{a} happened')", "log.info('Done', **facts)"])
def test_an_event_that_cannot_be_looked_up_is_refused(call: str) -> None:
    """What is put together at run time is in no reference: the variable part belongs into a field."""
    with pytest.raises(ValueError, match=r"nearshore\.part:1: write out"):
        list(events_of(ast.parse(call), "nearshore.part"))
