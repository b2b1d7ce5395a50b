"""The log must not harm what it tells of: whatever becomes of its stream, whoever logs goes on."""

import contextlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
import structlog

from nearshore import logs


def full() -> TextIO:
    """A device that has no room, buffered as standard error is."""
    return Path("/dev/full").open("w", buffering=1, encoding="utf-8")


def left_pipe() -> TextIO:
    """A pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", buffering=1, encoding="utf-8")


def closed() -> TextIO:
    """A stream that somebody closed."""
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The other tests find the log as they left it."""
    yield
    logs.configure("info", "json")


@pytest.fixture(params=[full, left_pipe, closed])
def broken(request: pytest.FixtureRequest) -> Iterator[TextIO]:
    """A stream that cannot be written."""
    stream: TextIO = request.param()
    yield stream
    with contextlib.suppress(OSError):  # what is in its buffer still cannot be written
        stream.close()


def log_everything() -> None:
    """One event each way, with a traceback and as larger text than any buffer takes."""
    log = structlog.get_logger("test")
    try:
        1 / 0  # noqa: B018 -- raises
    except ZeroDivisionError:
        log.exception("a bug")
        logging.getLogger("test").exception("a bug")
    log.warning("x" * 100_000)
    logging.getLogger("test").warning("x" * 100_000)


@pytest.mark.parametrize("log_format", ["json", "console", "auto"])
def test_logging_never_fails(broken: TextIO, log_format: str) -> None:
    """A full disk, a pipe without a reader and a closed stream drop lines; they raise nothing."""
    logs.configure("info", log_format, broken)
    log_everything()


def test_standard_error_is_looked_up_at_each_line(
    broken: TextIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines go where sys.stderr points when they are written, and are dropped while it is broken or absent."""
    logs.configure("info", "json")
    for stderr in (broken, None):
        with monkeypatch.context() as patched:
            patched.setattr("sys.stderr", stderr)
            log_everything()
    structlog.get_logger("test").info("here")
    logging.getLogger("test").info("there")
    told = capsys.readouterr()
    assert [json.loads(line)["event"] for line in told.err.splitlines()] == ["here", "there"]
    assert not told.out


def test_a_record_that_cannot_be_rendered_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A library that logs with arguments which do not fit harms nobody."""
    logs.configure("info", "json")
    say: Callable[..., None] = logging.getLogger("test").info
    say("%d", "no number")
    assert not capsys.readouterr().out
