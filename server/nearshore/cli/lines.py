"""Texts that come as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from nearshore.errors import InvalidArgumentError


def lines(file: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a file, without their ends; name: of the file, for messages.

    Raises InvalidArgumentError for one that is not UTF-8, whatever the locale is.
    """
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidArgumentError(
                f"Line {number} of {name} is not UTF-8.", "Convert it, for example with iconv."
            ) from error
