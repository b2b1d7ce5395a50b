"""Writes checkpoints as TensorFlow does, to test what reads them; written from the formats, independently of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {"float32": 1, "int32": 3, "int64": 9, "bool": 10, "float16": 19}
Array = Any


def varint(number: int) -> bytes:
    """Seven bits a byte."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low]) if not rest else bytes([low | 0x80]) + varint(rest)


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message: a number, or a string or message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32(number: int, value: bytes) -> bytes:
    """A field of four bytes."""
    return varint(number << 3 | 5) + value


def _remainder(state: int) -> int:
    """What a byte of zeros does to a state, bit by bit."""
    for _ in range(8):
        state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state


_REMAINDERS = [_remainder(byte) for byte in range(256)]


def masked_crc(content: bytes) -> bytes:
    """CRC-32C byte by byte, masked."""
    state = 0xFFFFFFFF
    for byte in content:
        state = _REMAINDERS[(state ^ byte) & 0xFF] ^ state >> 8
    state ^= 0xFFFFFFFF
    return (((state >> 15 | state << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def block(entries: Sequence[tuple[bytes, bytes]], interval: int) -> bytes:
    """Entries with shared beginnings; every interval-th has a whole key."""
    content, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % interval == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(before), len(key)) and before[shared] == key[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    for position in [*restarts, len(restarts)]:
        content += position.to_bytes(4, "little")
    return content


def table(entries: Mapping[bytes, bytes], *, in_block: int = 5) -> bytes:
    """A sorted string table in blocks of a few entries."""
    items, content, index = sorted(entries.items()), b"", []

    def append(raw: bytes) -> bytes:
        nonlocal content
        handle = varint(len(content)) + varint(len(raw))
        content += raw + b"\0" + masked_crc(raw + b"\0")
        return handle

    for start in range(0, len(items), in_block):
        part = items[start : start + in_block]
        index.append((part[-1][0], append(block(part, 3))))
    handles = append(block([], 1)) + append(block(index, 1))
    return content + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def write_bundle(
    folder: Path, prefix: str, variables: Mapping[str, Array], *, shards: int = 1, objects: bytes | None = None
) -> None:
    """Write prefix.index and its data files. objects: the graph of objects, of a checkpoint of TensorFlow 2."""
    files = [b""] * shards
    entries = {b"": field(1, shards) + field(3, field(1, 1))}
    for number, (name, value) in enumerate(sorted(variables.items())):
        shard = number % shards
        raw = np.ascontiguousarray(value).tobytes()
        shape = b"".join(field(2, field(1, size)) for size in value.shape)
        entry = field(1, TYPES[str(value.dtype)]) + field(2, shape) + field(3, shard)
        entries[name.encode()] = entry + field(4, len(files[shard])) + field(5, len(raw)) + fixed32(6, masked_crc(raw))
        files[shard] += raw
    if objects is not None:
        length = len(objects).to_bytes(4, "little")
        raw = varint(len(objects)) + masked_crc(length) + objects
        entry = field(1, 7) + field(2, b"") + field(4, len(files[0])) + field(5, len(raw))
        entry += fixed32(6, masked_crc(length + masked_crc(length) + objects))
        entries[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = entry
        files[0] += raw
    (folder / prefix).parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}.index").write_bytes(table(entries))
    for shard, content in enumerate(files):
        (folder / f"{prefix}.data-{shard:05}-of-{shards:05}").write_bytes(content)


def object_graph(names: Mapping[str, str]) -> bytes:
    """The graph of objects that gives each key the name of its variable."""
    graph = field(1, b"")  # the root, without attributes
    for key, name in names.items():
        attribute = field(1, b"VARIABLE_VALUE") + field(2, name.encode()) + field(3, key.encode())
        graph += field(1, field(2, attribute))
    return graph


def tf1_variables(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """A BertModel's tensors as google-research/bert names them, with what training leaves."""
    variables: dict[str, Array] = {"global_step": np.int64(7)}
    variables["bert/pooler/dense/kernel/adam_m"] = np.zeros((2, 2), np.float32)
    for name, value in tensors.items():
        head = name if name.startswith("cls.") else f"bert.{name}"
        new = head.replace(".layer.", ".layer_").replace(".", "/")
        if new == "cls/predictions/bias":
            new = "cls/predictions/output_bias"
        elif "LayerNorm" in new:
            new = new.replace("/weight", "/gamma").replace("LayerNorm/bias", "LayerNorm/beta")
        elif "_embeddings/weight" in new:
            new = new.removesuffix("/weight")
        elif new.endswith("/weight"):
            new, value = new.replace("/weight", "/kernel"), value.T  # noqa: PLW2901
        variables[new] = value
    return variables


_TF2 = {
    "attention.output.dense": "self_attention/attention_output",
    "attention.output.LayerNorm": "self_attention_layer_norm",
    "attention.self.": "self_attention/",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_layer_norm",
}


def tf2_variables(tensors: Mapping[str, Array], heads: int) -> dict[str, Array]:
    """A BertModel's tensors as the encoders of tensorflow/models name and shape them."""
    whole = {
        "embeddings.word_embeddings.weight": "word_embeddings/embeddings",
        "embeddings.position_embeddings.weight": "position_embedding/embeddings",
        "embeddings.token_type_embeddings.weight": "type_embeddings/embeddings",
        "cls.predictions.bias": "bert/cls/predictions/output_bias/bias",
    }
    variables: dict[str, Array] = {}
    for name, value in tensors.items():
        if name in whole:
            variables[whole[name]] = value
            continue
        stem, _, part = name.rpartition(".")
        norm = stem.endswith("LayerNorm")
        kernel = part == "weight" and not norm
        new = {"weight": "gamma" if norm else "kernel", "bias": "beta" if norm else "bias"}[part]
        if stem.startswith("encoder.layer."):
            _, _, layer, rest = stem.split(".", 3)
            for old, replacement in _TF2.items():
                rest = rest.replace(old, replacement)
            stem = f"transformer/layer_{layer}/{rest}"
        stem = {"embeddings.LayerNorm": "embeddings/layer_norm", "pooler.dense": "pooler_transform"}.get(stem, stem)
        stem = f"bert/{stem.replace('.', '/')}" if stem.startswith("cls.") else stem
        turned = value.T if kernel else value
        if "/self_attention/" in stem:
            width = value.shape[0] // heads
            if stem.endswith("attention_output"):
                turned = turned.reshape(heads, width, -1) if kernel else turned
            else:
                turned = turned.reshape(-1, heads, width) if kernel else turned.reshape(heads, width)
        variables[f"{stem}/{new}"] = turned
    return variables


def write_tf2(folder: Path, prefix: str, variables: Mapping[str, Array]) -> None:
    """Write named variables under keys that say nothing, with counters and slots of an optimizer beside them."""
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    keys = {f"variables/{number}{suffix}": name for number, name in enumerate(variables)}
    content = {key: variables[name] for key, name in keys.items()}
    content[f"save_counter{suffix}"] = np.int64(1)
    content[f"variables/0/.OPTIMIZER_SLOT/optimizer/m{suffix}"] = np.zeros(3, np.float32)
    content[f"do_lower_case{suffix}"] = np.bool_(True)
    keys |= {f"do_lower_case{suffix}": "Variable", f"variables/0/.OPTIMIZER_SLOT/optimizer/m{suffix}": "Adam/m"}
    write_bundle(folder, prefix, content, objects=object_graph(keys))
