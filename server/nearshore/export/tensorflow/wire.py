"""Reads the wire format of protocol buffers (protobuf.dev/programming-guides/encoding), without message classes.

TensorFlow's files are messages of a handful of fields; with their numbers there is no need for its generated code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

Field = int | bytes
"""A number (varint or fixed), or the bytes of a string or of a message."""


class WireError(ValueError):
    """The bytes are not such a message."""


def read_message(content: bytes) -> Mapping[int, list[Field]]:
    """The values of each field by its number, in order; a field that is absent has none. Raises WireError."""
    fields: defaultdict[int, list[Field]] = defaultdict(list)
    position = 0
    while position < len(content):
        tag, position = read_varint(content, position)
        match tag & 7:
            case 0:
                value, position = read_varint(content, position)
                fields[tag >> 3].append(value)
            case 1 | 5 as kind:
                size = 8 if kind == 1 else 4
                fields[tag >> 3].append(int.from_bytes(_take(content, position, size), "little"))
                position += size
            case 2:
                size, position = read_varint(content, position)
                fields[tag >> 3].append(_take(content, position, size))
                position += size
            case kind:
                raise WireError(f"wire type {kind}")
    return fields


def read_varint(content: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the least significant first, and the position behind it. Raises WireError."""
    value = shift = 0
    while position < len(content) and shift < 64:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
    raise WireError("a number without an end")


def first_number(message: Mapping[int, list[Field]], field: int) -> int:
    """The first value of a field of numbers; 0, as protocol buffers have it, where it is absent. Raises WireError."""
    value = message[field][0] if message.get(field) else 0
    if not isinstance(value, int):
        raise WireError(f"field {field} is not a number")
    return value


def parts(message: Mapping[int, list[Field]], field: int) -> list[bytes]:
    """All values of a field of strings or messages. Raises WireError."""
    values = message.get(field, [])
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) != len(values):
        raise WireError(f"field {field} is a number")
    return found


def first_text(message: Mapping[int, list[Field]], field: int) -> str:
    """The first value of a field of strings; empty where it is absent. Raises WireError."""
    found = parts(message, field)
    return found[0].decode("utf-8", errors="replace") if found else ""


def _take(content: bytes, position: int, size: int) -> bytes:
    taken = content[position : position + size]
    if len(taken) != size:
        raise WireError("it ends too early")
    return taken
