"""Reads a sorted string table: the .index file of a TensorFlow checkpoint, in the format of LevelDB.

The file is a sequence of blocks. A block holds entries, each a key that shares its beginning with the key before it,
and a value; then the positions of entries with a whole key, which are not needed here. The last 48 bytes say where the
block is whose values say where all other blocks are (github.com/google/leveldb, doc/table_format.md).
"""

from __future__ import annotations

from collections.abc import Iterator

from nearshore.export.tensorflow.checksum import masked_crc32c
from nearshore.export.tensorflow.wire import WireError, read_varint

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_BYTES = 48
_LONGEST_KEY_BYTES = 1024  # many times a variable's path; keys that share their beginnings could fill all memory
_TRAILER_BYTES = 5  # behind each block: kind of compression, checksum


def read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value, in order of the keys. Raises WireError."""
    footer = content[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or not footer.endswith(_MAGIC):
        raise WireError("it does not end as such a table does")
    _, position = _read_handle(footer, 0)  # of a block about blocks
    index, _ = _read_handle(footer, position)
    end, last = 0, None
    for _, handle in _read_entries(_read_block(content, *index)):
        (offset, size), _ = _read_handle(handle, 0)
        if offset < end:
            raise WireError("its blocks are not one behind the other")
        end = offset + size
        for key, value in _read_entries(_read_block(content, offset, size)):
            if last is not None and key <= last:
                raise WireError("its keys are not in order")
            last = key
            yield key, value


def _read_handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Where a block is and how long, and the position behind that."""
    offset, position = read_varint(content, position)
    size, position = read_varint(content, position)
    return (offset, size), position


def _read_block(content: bytes, offset: int, size: int) -> bytes:
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + _TRAILER_BYTES]
    if len(block) != size or len(trailer) != _TRAILER_BYTES:
        raise WireError("a block lies beyond its end")
    if trailer[0] != 0:
        raise WireError(f"a block is compressed (kind {trailer[0]})")
    if masked_crc32c(block + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise WireError("the checksum of a block is wrong")
    return block


def _read_entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise WireError("a block has more restarts than bytes")
    position, key = 0, b""
    while position < end:
        shared, position = read_varint(block, position)
        unshared, position = read_varint(block, position)
        length, position = read_varint(block, position)
        if shared > len(key) or shared + unshared > _LONGEST_KEY_BYTES:
            raise WireError("a key is wrong or too long")
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        if position + length > end:
            raise WireError("an entry lies beyond its block")
        yield key, block[position : position + length]
        position += length
