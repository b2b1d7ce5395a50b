"""CRC-32C (Castagnoli), by which TensorFlow's files guard blocks and tensors.

A checksum is the remainder of a polynomial over GF(2), so what a word adds to it is linear: that word times a power of
x. Hence the words of a block are joined in pairs, then the pairs in pairs, each time the whole row at once in NumPy:
some two hundred megabytes a second, where a loop over bytes makes seven.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]

_BLOCK_WORDS = 1 << 14  # what is at work at once fits a processor's cache


def masked_crc32c(content: bytes) -> int:
    """The checksum, rotated and shifted as it is stored, so that checksums of checksums do not collide."""
    start = len(content) % 4
    state = _after_bytes(0xFFFFFFFF, content[:start])
    words: Words = np.frombuffer(content, "<u4", offset=start).astype(np.uint32, copy=False)
    for position in range(0, len(words), _BLOCK_WORDS):
        block = words[position : position + _BLOCK_WORDS].copy()
        block[0] ^= np.uint32(state)
        state = _after_words(block)
    checksum = state ^ 0xFFFFFFFF
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _after_words(words: Words) -> int:
    """The state that words, one at least, make of a state of 0."""
    level = 0  # a number stands for 2**level words
    while len(words) > 1:
        if len(words) % 2:
            words = np.concatenate([np.zeros(1, np.uint32), words])  # zeros in front do nothing
        words = _pass(words[0::2], level) ^ words[1::2]
        level += 1
    return int(_pass(words, 0)[0])


def _pass(states: Words, level: int) -> Words:
    """What each state becomes after 2**level words of zeros."""
    low, high = _tables(level)
    passed: Words = low.take(states & 0xFFFF) ^ high.take(states >> 16)
    return passed


@cache
def _tables(level: int) -> tuple[Words, Words]:
    """What 2**level words of zeros make of a state's lower and of its upper half, whatever they are."""
    bits: Words = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if level == 0:
        passed = np.array([_after_bytes(int(bit), bytes(4)) for bit in bits], np.uint32)
    else:
        passed = _pass(_pass(bits, level - 1), level - 1)
    return _sums(passed[:16]), _sums(passed[16:])


def _sums(values: Words) -> Words:
    """The sum, without carries, of those values whose bits are set in the place of the sum."""
    sums = np.zeros(1, np.uint32)
    for value in values:
        sums = np.concatenate([sums, sums ^ value])
    return sums


def _after_bytes(state: int, content: bytes) -> int:
    """The state that bytes make of a state."""
    table = _remainders()
    for byte in content:
        state = table[(state ^ byte) & 0xFF] ^ state >> 8
    return state


@cache
def _remainders() -> list[int]:
    """What each byte does to a state of 0."""
    states = list(range(256))
    for _ in range(8):
        states = [state >> 1 ^ (0x82F63B78 if state & 1 else 0) for state in states]
    return states
