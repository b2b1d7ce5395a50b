"""Weights of PyTorch are read exactly, and nothing in their pickle is run."""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from nearshore.bundle import MODEL_FILE
from nearshore.export.errors import UnusableCheckpointError, WeightsFileError
from nearshore.export.exporter import export_bundle
from nearshore.export.pytorch.file import PyTorchFile
from tests.pytorch_files import Storage, Tensor, save, state_dict, tensor
from tests.tiny_bert import embed_golden, make_checkpoint, write_json

FILE = "pytorch_model.bin"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint")


def take_tensors(checkpoint: Path) -> dict[str, Any]:
    """The tensors of a checkpoint, whose file is removed."""
    tensors: dict[str, Any] = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    return tensors


def export(checkpoint: Path, into: str = "bundle") -> bytes:
    """The graph that a checkpoint becomes."""
    folder = checkpoint.parent / into
    export_bundle(checkpoint, folder, name="tiny", embed_golden=embed_golden)
    return (folder / MODEL_FILE).read_bytes()


def in_one_file(checkpoint: Path, tensors: dict[str, Tensor], protocol: int) -> None:
    save(checkpoint / FILE, state_dict(tensors), protocol=protocol)


def in_several_files(checkpoint: Path, tensors: dict[str, Tensor], protocol: int) -> None:
    names = list(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, held in shards.items():
        save(checkpoint / file, state_dict({name: tensors[name] for name in held}), protocol=protocol)
    weight_map = {name: file for file, held in shards.items() for name in held}
    write_json(checkpoint / f"{FILE}.index.json", {"metadata": {}, "weight_map": weight_map})


@pytest.mark.parametrize("write", [in_one_file, in_several_files])
@pytest.mark.parametrize("protocol", [2, 4])
def test_the_same_weights_give_the_same_graph(
    checkpoint: Path, write: Callable[[Path, dict[str, Tensor], int], None], protocol: int
) -> None:
    """Byte for byte what safetensors give; integers that only number positions are left over."""
    before = export(checkpoint, "before")
    tensors = {name: tensor(array) for name, array in take_tensors(checkpoint).items()}
    tensors["embeddings.position_ids"] = tensor(np.arange(128, dtype=np.int64)[None])
    write(checkpoint, tensors, protocol)
    assert export(checkpoint) == before


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_numbers_of_every_type_are_read(tmp_path: Path, kind: Any) -> None:
    """As float32, exactly."""
    values = np.array([[0, 1, -2.5], [1024, -0.125, 3]]).astype(kind)
    save(tmp_path / FILE, state_dict({"x": tensor(values)}))
    found = PyTorchFile(tmp_path / FILE)
    assert found.kind("x") == {4: "F32", 8: "I64"}.get(values.itemsize, "F16" if kind is np.float16 else "BF16")
    np.testing.assert_array_equal(found.read("x"), values.astype(np.float32))


def test_tensors_are_views_of_their_storages(tmp_path: Path) -> None:
    """Several share one, from an offset on, turned, repeated, of one number or of none."""
    numbers = Storage(np.arange(12, dtype=np.float32))
    views = {
        "whole": Tensor(numbers, 0, (3, 4), (4, 1)),
        "turned": Tensor(numbers, 0, (4, 3), (1, 4)),
        "column": Tensor(numbers, 1, (3,), (4,)),
        "repeated": Tensor(numbers, 8, (2, 4), (0, 1)),
        "row": Tensor(numbers, 4, (1, 4), (10**30, 1)),
        "scalar": Tensor(numbers, 11, (), ()),
        "empty": Tensor(numbers, 0, (0, 4), (4, 1)),
    }
    save(tmp_path / FILE, state_dict(views))
    found = PyTorchFile(tmp_path / FILE)
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {
        "whole": whole,
        "turned": whole.T,
        "column": whole[:, 1],
        "repeated": whole[[2, 2]],
        "row": whole[1:2],
        "scalar": whole[2, 3],
        "empty": whole[:0],
    }
    assert list(found.names()) == list(views)
    for name, array in expected.items():
        assert found.shape(name) == array.shape
        read = found.read(name)
        np.testing.assert_array_equal(read, array)
        assert read.flags.c_contiguous


@pytest.mark.parametrize("claimed", [(0, (0, 10**30)), (10**30, (0, 4)), (0, (0,) * 100)], ids=str)
def test_a_shape_without_numbers_may_claim_anything(tmp_path: Path, claimed: tuple[int, tuple[int, ...]]) -> None:
    """It is refused by name when it is read, and by nothing else."""
    offset, shape = claimed
    save(tmp_path / FILE, {"x": Tensor(Storage(np.arange(6, dtype=np.float32)), offset, shape, (1,) * len(shape))})
    with pytest.raises(WeightsFileError, match="x has a shape that is none"):
        PyTorchFile(tmp_path / FILE).read("x")


class Malicious:
    """Runs a command in whoever unpickles it."""

    def __init__(self, function: Callable[..., object], argument: str) -> None:
        self._call = function, (argument,)

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("place", ["alone", "among tensors"])
@pytest.mark.parametrize(("function", "name"), [(os.system, "system"), (eval, "eval"), (exec, "exec")])
def test_code_in_a_pickle_is_refused_and_not_run(
    checkpoint: Path, place: str, function: Callable[..., object], name: str, protocol: int
) -> None:
    """Wherever it stands and however it is written; the error names what it wants to call, if it comes so far."""
    ran = checkpoint.parent / "ran"
    argument = f"touch {ran}" if function is os.system else f"__import__('pathlib').Path({str(ran)!r}).touch()"
    bad = Malicious(function, argument)
    pickle.loads(pickle.dumps(bad, protocol))
    ran.unlink()  # so it does run where it is unpickled
    take_tensors(checkpoint)
    save(
        checkpoint / FILE,
        bad if place == "alone" else {"x": tensor(np.zeros(2, np.float32)), "y": bad},
        protocol=protocol,
    )
    with pytest.raises(UnusableCheckpointError) as caught:
        export(checkpoint)
    assert not ran.exists()
    assert f".{name}, which is no part of a tensor" in caught.value.message or protocol == 0
    assert FILE in caught.value.message
    assert "model.safetensors" in caught.value.remedy


def test_no_instruction_reaches_anything_else(tmp_path: Path) -> None:
    """Attributes, classes and numbered extensions, by which pickles have been made to run code, are refused."""
    for program in (
        b"\x80\x02ccollections\nOrderedDict\n}U\x08__init__K\x01sb.",  # attributes of a class
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.",  # attributes of a function
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"(icollections\nOrderedDict\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # a call of a type
        b"\x80\x02ccollections\nOrderedDict\nK\x01R.",  # a call with what are no arguments
        b"\x80\x04\x8c\x0btorch._utils\x8c\x1a_rebuild_tensor_v2.__globals__\x93.",  # an attribute of a name
        b"\x80\x02h\x01.", b"\x80\x02.", b"\x80\x02t.", b"\x80\x02(K\x01\x86.", b"\x80\x02Nq\x00", b"", b"\xff",
    ):  # fmt: skip
        with zipfile.ZipFile(tmp_path / FILE, "w") as archive:
            archive.writestr("archive/data.pkl", program)
        with pytest.raises(WeightsFileError, match="pickle"):
            PyTorchFile(tmp_path / FILE)


def test_a_damaged_file_is_refused_wherever_it_is_damaged(tmp_path: Path) -> None:
    """Cut off or with a byte that differs: it is told, or the numbers are the same all the same."""
    path, values = tmp_path / FILE, np.arange(64, dtype=np.float32)
    save(path, state_dict({"x": tensor(values), "y": tensor(values[:3])}))
    content, dice = path.read_bytes(), np.random.default_rng(3)
    cut = [content[:end] for end in range(0, len(content), 7)]
    flipped = [
        content[:place] + bytes([content[place] ^ dice.integers(1, 256)]) + content[place + 1 :]
        for place in range(len(content))
    ]
    told = 0
    for damaged in (*cut, *flipped):
        path.write_bytes(damaged)
        try:
            found = PyTorchFile(path)
            if {"x", "y"} <= set(found.names()) and found.shape("x") == (64,) and found.kind("x") == "F32":
                np.testing.assert_array_equal(found.read("x"), values)
        except WeightsFileError:
            told += 1
    assert told >= len(cut) + 256


def whole(kind: Any = np.float32) -> Tensor:
    return tensor(np.arange(6).reshape(2, 3).astype(kind))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "the old format": (
        lambda path: path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02M\xe9\x03."),
        "in the format of PyTorch before 1.6",
    ),
    "compressed": (
        lambda path: save(path, state_dict({"x": whole()}), compression=zipfile.ZIP_DEFLATED), "is compressed",
    ),
    "another archive": (
        lambda path: save(path, {"x": whole()}, without=("data.pkl",)), "a zip archive without a data.pkl",
    ),
    "no dict": (lambda path: save(path, whole()), "it is no state dict"),
    "a state dict within another dict": (
        lambda path: save(path, {"state_dict": {"x": whole()}}), "'state_dict' in it is no tensor",
    ),
    "beyond the numbers": (
        lambda path: save(path, {"x": Tensor(whole().storage, 1, (2, 3), (3, 1))}), "x reaches beyond its numbers",
    ),
    "a negative stride": (
        lambda path: save(path, {"x": Tensor(whole().storage, 5, (6,), (-1,))}), "does not write",
    ),
    "an offset beyond the numbers": (
        lambda path: save(path, {"x": Tensor(whole().storage, 6, (1,), (1,))}), "x reaches beyond its numbers",
    ),
    "big-endian": (
        lambda path: save(path, {"x": whole()}, order="big"), "not in little-endian order",
    ),
    "without numbers": (
        lambda path: save(path, {"x": whole()}, without=("data/0",)), "the numbers of x are missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_a_state_dict_is_refused_with_a_way_out(checkpoint: Path, case: str) -> None:
    """The error names file and fault, and says how to get one that is read."""
    write, complaint = REFUSED[case]
    take_tensors(checkpoint)
    write(checkpoint / FILE)
    with pytest.raises(UnusableCheckpointError, match=f"{FILE} cannot be read: .*({complaint})") as caught:
        export(checkpoint)
    assert "torch.save() of PyTorch 1.6 or later" in caught.value.remedy


def test_numbers_that_are_repeated_are_not_read(checkpoint: Path) -> None:
    """A file of a few bytes could ask for any memory; what the network does not need may be as it is."""
    stored = {key: tensor(array) for key, array in take_tensors(checkpoint).items()}
    save(checkpoint / FILE, stored | {"embeddings.token_type_ids": Tensor(whole().storage, 0, (1, 512), (0, 0))})
    export(checkpoint)
    name = "encoder.layer.1.attention.self.query.weight"
    save(checkpoint / FILE, stored | {name: Tensor(whole().storage, 0, stored[name].shape, (0, 0))})
    with pytest.raises(UnusableCheckpointError, match=rf"{re.escape(name)} of shape .* repeats.*contiguous"):
        export(checkpoint)


def test_a_tensor_of_another_type_is_refused_by_name(checkpoint: Path) -> None:
    """As it is in safetensors."""
    tensors = take_tensors(checkpoint)
    name = "encoder.layer.1.attention.self.query.weight"
    stored = {key: tensor(array.astype(np.int8) if key == name else array) for key, array in tensors.items()}
    save(checkpoint / FILE, state_dict(stored))
    with pytest.raises(UnusableCheckpointError, match=f"{name} has type I8"):
        export(checkpoint)


def test_safetensors_come_first(checkpoint: Path) -> None:
    """Where a folder has both, as many have, the pickle is not looked at."""
    (checkpoint / FILE).write_bytes(b"not wanted")
    export(checkpoint)


def test_a_shard_that_is_missing_is_told(checkpoint: Path) -> None:
    """As it is of safetensors."""
    tensors = {name: tensor(array) for name, array in take_tensors(checkpoint).items()}
    in_several_files(checkpoint, tensors, 2)
    index = json.loads((checkpoint / f"{FILE}.index.json").read_text())
    missing = sorted(set(index["weight_map"].values()))[1]
    (checkpoint / missing).unlink()
    with pytest.raises(UnusableCheckpointError, match=f"{missing} is missing"):
        export(checkpoint)
