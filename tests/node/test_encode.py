"""The example for Node gives what Python gives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np

from nearshore.bundle import Bundle, load_bundle, weights_beside
from nearshore.embedding.pooling import normalize
from nearshore.embedding.session import Session
from nearshore.embedding.tokenizer import Tokenizer
from nearshore.export.exporter import export_bundle
from nearshore.export.options import ExportOptions
from nearshore.settings import load_settings
from tests.tiny_bert import embed_golden, make_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"
TEXTS = ["How do I parse a date from a string?", "", "The quick brown fox jumps over the lazy dog. " * 40]
TOLERANCE = 1e-4


def test_node_gives_the_vectors_of_python() -> None:
    """The real model's fp32 graph, run by onnxruntime-node on the same token ids, gives both outputs within 1e-4."""
    check(load_bundle(load_settings().model_dir / "all-MiniLM-L6-v2"))


def test_node_finds_weights_beside_the_graph(tmp_path: Path) -> None:
    """A graph whose weights lie in a file beside it is run like any other."""
    checkpoint, options = make_checkpoint(tmp_path / "checkpoint"), ExportOptions(most_graph_bytes=1_000)
    bundle = export_bundle(checkpoint, tmp_path / "tiny", name="tiny", embed_golden=embed_golden, options=options)
    assert weights_beside(bundle.model_path).exists()
    check(bundle)


def check(bundle: Bundle) -> None:
    """Compare what Node and Python make of TEXTS."""
    manifest = bundle.manifest
    tokenizer = Tokenizer(bundle.tokenizer_path, max_tokens=manifest.max_tokens, special=manifest.special_tokens)
    ids = [tokens.used_ids for tokens in tokenizer.encode(TEXTS)]
    done = subprocess.run(
        ["node", "encode.mjs", str(bundle.path)],
        cwd=EXAMPLE,
        input=json.dumps({"texts": ids}),
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    session = Session(bundle)
    for text, vector, sequence in zip(ids, answer["vectors"], answer["sequences"], strict=True):
        np.testing.assert_allclose(np.array(vector), normalize(session.run([text]))[0], atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(np.array(sequence), session.run_tokens([text])[0], atol=TOLERANCE, rtol=0)
