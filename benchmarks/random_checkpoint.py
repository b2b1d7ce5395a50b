"""A checkpoint of random weights with the size of a real one, written a part of a tensor at a time.

python -m benchmarks.random_checkpoint bert-large|xlm-r-large FOLDER
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

from nearshore.export.families import BERT, ROBERTA
from nearshore.export.family import Family
from nearshore.export.layout import encoder_shapes
from nearshore.network import Network
from tests.tiny_bert import make_tokenizer, vocabulary, write_json

BERT_LARGE = Network(
    layers=24,
    heads=16,
    hidden_size=1024,
    intermediate_size=4096,
    vocabulary_size=30_522,
    positions=512,
    activation="gelu",
    layer_norm_epsilon=1e-12,
)
XLM_R_LARGE = BERT_LARGE.model_copy(
    update={"vocabulary_size": 250_002, "positions": 514, "token_types": 1, "padding_id": 1}
)
_CHUNK = 1 << 22  # numbers that are made at once


def write_checkpoint(folder: Path, network: Network, family: Family = BERT) -> Path:
    """Write config.json, model.safetensors and tokenizer.json of a BERT or RoBERTa. Returns the folder."""
    folder.mkdir(parents=True)
    shapes = {name: [size or 1 for size in shape] for name, shape in encoder_shapes(family, network).items()}
    _write_weights(folder / "model.safetensors", shapes, width=network.hidden_size)
    config = {name: getattr(network, field) for field, name in family.keys.items() if hasattr(network, field)}
    write_json(folder / "config.json", {**config, "model_type": family.model_types[0]})
    known = vocabulary()
    words = [*known, *(f"word{number}" for number in range(network.vocabulary_size - len(known)))]
    make_tokenizer(words).save(str(folder / "tokenizer.json"))
    return folder


def _write_weights(path: Path, shapes: dict[str, list[int]], *, width: int) -> None:
    """In safetensors; of the size of trained ones, so that layers do something."""
    random, end, header = np.random.default_rng(7), 0, dict[str, object]()
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for name, shape in shapes.items():
            center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            scale = 0.1 if len(shape) == 1 else 1.0 / math.sqrt(width)
            left = math.prod(shape)
            while left:
                numbers = random.standard_normal(min(left, _CHUNK), np.float32) * np.float32(scale) + np.float32(center)
                file.write(numbers.tobytes())
                left -= len(numbers)


def main() -> None:
    """Write one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=["bert-large", "xlm-r-large"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.size == "bert-large":
        write_checkpoint(arguments.folder, BERT_LARGE)
    else:
        write_checkpoint(arguments.folder, XLM_R_LARGE, ROBERTA)


if __name__ == "__main__":
    main()
