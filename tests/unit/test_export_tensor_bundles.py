"""A TensorFlow checkpoint whose index lies, or whose bytes are damaged, is refused, whatever it claims."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.tensorflow.checksum import masked_crc32c
from nearshore.export.tensorflow.store import TensorFlowStore
from nearshore.export.tensorflow.table import read_table
from nearshore.export.tensorflow.wire import WireError, read_message
from tests.tensor_bundle import block, field, fixed32, masked_crc, table, varint, write_bundle

HUGE = 1 << 62
FLOAT, SHAPE = field(1, 1), field(2, field(2, field(1, 2)))  # an entry's type, and the shape (2,)


def write(folder: Path, *, header: bytes = field(1, 1), entry: bytes = b"") -> Path:
    """A checkpoint of one variable of two numbers, or with this header or entry."""
    write_bundle(folder, "model", {"a/bias": np.zeros(2, np.float32)})
    entries = {b"": header, b"a/bias": entry or FLOAT + SHAPE + field(5, 8) + fixed32(6, masked_crc(bytes(8)))}
    (folder / "model.index").write_bytes(table(entries))
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Or else the refusals below would prove nothing."""
    assert TensorFlowStore(write(tmp_path), "model").read("a/bias").tolist() == [0, 0]


def test_a_damaged_tensor_is_refused(tmp_path: Path) -> None:
    """One bit that differs would give other vectors, and nothing else would show it."""
    write(tmp_path)
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes([0, 0, 1, 0, 0, 0, 0, 0]))
    with pytest.raises(UnusableCheckpointError, match="00001 is damaged: the checksum of a/bias is wrong") as caught:
        TensorFlowStore(tmp_path, "model").read("a/bias")
    assert "again" in caught.value.remedy


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 8, 31, 1000, 1 << 18, (5 << 16) + 7, (3 << 14) + 6])
def test_checksums_of_any_length_are_right(size: int) -> None:
    """Odd bytes and words, and more than is joined at once."""
    content = np.random.default_rng(size).bytes(size)
    assert masked_crc32c(content).to_bytes(4, "little") == masked_crc(content)


def test_the_checksum_is_castagnolis() -> None:
    """Its check value, as in catalogues of checksums, unmasked."""
    rotated = (masked_crc32c(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF
    assert (rotated >> 17 | rotated << 15) & 0xFFFFFFFF == 0xE3069283


LIES = {
    "more files than there can be": ({"header": field(1, HUGE)}, f"{HUGE} data files"),
    "no files": ({"header": field(1, 0)}, "0 data files"),
    "bytes in reverse order": ({"header": field(1, 1) + field(2, 1)}, "in reverse order"),
    "a file that is not there": ({"entry": FLOAT + SHAPE + field(3, HUGE) + field(5, 8)}, "wrong size or place"),
    "an offset beyond the file": ({"entry": FLOAT + SHAPE + field(4, HUGE) + field(5, 8)}, "lies beyond its end"),
    "a huge axis": ({"entry": FLOAT + field(2, field(2, field(1, HUGE))) + field(5, 8)}, "wrong size or place"),
    "a huge axis beside none": (
        {"entry": FLOAT + field(2, field(2, field(1, HUGE)) + field(2, field(1, 0)))}, "wrong size or place",
    ),
    "a negative axis": (
        {"entry": FLOAT + field(2, field(2, field(1, (1 << 64) - 1)) + field(2, field(1, 0)))}, "wrong size or place",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_refuses_an_index_that_lies(tmp_path: Path, case: str) -> None:
    """The error names what is wrong; nothing of the claimed size is made."""
    change, complaint = LIES[case]
    with pytest.raises(UnusableCheckpointError, match=complaint):
        TensorFlowStore(write(tmp_path, **change), "model")


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (3, 0, 2)])
def test_a_kernel_of_no_use_keeps_its_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """So that it is refused like any tensor of a wrong shape, or of no known name."""
    write_bundle(tmp_path, "model", {"bert/pooler/dense/kernel": np.zeros(shape, np.float32)})
    assert TensorFlowStore(tmp_path, "model").shape("pooler.dense.weight") == shape


def test_a_flag_of_another_type_is_none(tmp_path: Path) -> None:
    """What is called as the flag and is no truth value says nothing."""
    write_bundle(tmp_path, "model", {"do_lower_case/x": np.float32(1), "other": np.bool_(True)})
    store = TensorFlowStore(tmp_path, "model")
    assert (store.flag("do_lower_case"), store.flag("other")) == (None, True)


def indexed(content: bytes, handles: Sequence[bytes]) -> bytes:
    """A table whose index names these blocks of the content."""
    index = block([(bytes([number]), handle) for number, handle in enumerate(handles)], 1)
    handle = varint(len(content)) + varint(len(index))
    footer = (varint(0) + varint(0) + handle).ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    return content + index + b"\0" + masked_crc(index + b"\0") + footer


def stored(raw: bytes) -> bytes:
    """A block as it lies in the file."""
    return raw + b"\0" + masked_crc(raw + b"\0")


def test_a_block_is_read_once() -> None:
    """An index that names one block many times would keep a reader busy for ever."""
    raw = block([(b"key", b"value")], 1)
    handle = varint(0) + varint(len(raw))
    assert list(read_table(indexed(stored(raw), [handle]))) == [(b"key", b"value")]
    with pytest.raises(WireError, match="one behind the other"):
        list(read_table(indexed(stored(raw), [handle, handle])))


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([(b"b", b""), (b"a", b"")], "not in order"),
        ([(b"a", b"1"), (b"a", b"2")], "not in order"),
        ([(b"k" * 900, b""), (b"k" * 900 + b"x" * 200, b"")], "too long"),
    ],
)
def test_keys_are_short_and_in_order(entries: list[tuple[bytes, bytes]], complaint: str) -> None:
    """So that none is there twice, and shared beginnings do not grow without bound."""
    raw = block(entries, 9)
    with pytest.raises(WireError, match=complaint):
        list(read_table(indexed(stored(raw), [varint(0) + varint(len(raw))])))


def test_a_key_shares_no_more_than_there_is() -> None:
    """The first key has nothing to share."""
    raw = varint(5) + varint(1) + varint(0) + b"a" + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
    with pytest.raises(WireError, match="a key is wrong"):
        list(read_table(indexed(stored(raw), [varint(0) + varint(len(raw))])))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    """Whatever the bytes, reading ends, in a message or in WireError."""
    with contextlib.suppress(WireError):
        read_message(content)


@given(st.data())
def test_a_damaged_table_is_refused(data: st.DataObject) -> None:
    """A byte that differs anywhere gives the same entries, fewer, or WireError; never another value."""
    entries = {f"key/{number:03}".encode(): bytes([number]) * number for number in range(20)}
    whole = table(entries)
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[position] ^= data.draw(st.integers(1, 255))
    try:
        found = dict(read_table(bytes(damaged)))
    except WireError:
        return
    assert found.items() <= entries.items()
