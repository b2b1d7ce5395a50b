"""Checkpoint to bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nearshore import __version__
from nearshore.bundle import (
    GOLDEN_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Bundle,
    Manifest,
    file_digest,
    load_bundle,
    write_golden,
    write_manifest,
)
from nearshore.export.adopted import AdoptedModel
from nearshore.export.aside import written_aside
from nearshore.export.checkpoint import Checkpoint, read_checkpoint
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.golden import GOLDEN_TEXTS
from nearshore.export.graph.encoder import build_encoder
from nearshore.export.options import ExportOptions, choose_outputs, refuse_more_outputs
from nearshore.export.origin import read_source
from nearshore.export.tokenizer import read_tokenizer
from nearshore.export.weights import COMPLETE, Weights
from nearshore.records import F32

EmbedGolden = Callable[[Bundle, list[str]], F32]
"""Embeds texts with a bundle that has no golden vectors yet: (texts, dimensions), as the bundle says."""


def export_bundle(
    checkpoint: Path, destination: Path, *, name: str, embed_golden: EmbedGolden, options: ExportOptions | None = None
) -> Bundle:
    """Export a checkpoint folder to the bundle folder `destination`, replacing one that is there.

    The bundle appears whole or not at all. On one processor the same checkpoint gives the same bytes; golden.npz
    may differ in last digits between processors. Raises UnusableCheckpointError.
    """
    options = options or ExportOptions()
    source = read_checkpoint(checkpoint, for_tfhub=options.contract == "tfhub")
    family, network = source.configuration.family, source.configuration.network
    with written_aside(destination) as folder:
        inputs, outputs = _write_model(source, folder / MODEL_FILE, options)
        tokenizer = read_tokenizer(source, lower_case=options.lower_case)
        (folder / TOKENIZER_FILE).write_text(tokenizer.text, encoding="utf-8")
        manifest = Manifest(
            name=name,
            architecture=family.architecture,
            network=network,
            dimensions=network.hidden_size,
            max_tokens=source.max_tokens,
            truncation_side="right",
            pooling=source.pooling,
            normalize=source.normalize,
            prompts={},
            special_tokens=options.special_tokens,
            precision="fp32",
            recipe="none",
            tokenizer_sha256=tokenizer.sha256,
            source=read_source(checkpoint, source.files.weights),
            license=source.license,
            inputs=inputs,
            outputs=outputs,
            exporter=f"nearshore {__version__}",
            files={name: file_digest(folder / name) for name in (MODEL_FILE, TOKENIZER_FILE)},
        )
        write_manifest(folder, _with_golden(checkpoint, Bundle(folder, manifest), embed_golden))
        written = load_bundle(folder)
    return Bundle(destination, written.manifest)


def _write_model(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Check all tensors and build, or check a model and take it; returns the names of inputs and outputs."""
    folder, configuration, files = checkpoint.folder, checkpoint.configuration, checkpoint.files
    if files.model is not None:
        refuse_more_outputs(folder, options)
        adopted = AdoptedModel(folder, files.model, configuration)
        path.write_bytes(adopted.content)
        return adopted.inputs, adopted.outputs
    assert files.open_store is not None
    weights = Weights(folder, configuration.family, files.open_store(configuration.family))
    outputs = choose_outputs(checkpoint, weights, options)
    path.write_bytes(build_encoder(configuration, weights.read, outputs))
    return outputs.input_names(configuration.network), tuple(outputs.shapes(configuration.network))


def _with_golden(checkpoint: Path, bundle: Bundle, embed_golden: EmbedGolden) -> Manifest:
    vectors = embed_golden(bundle, list(GOLDEN_TEXTS))
    expected = (len(GOLDEN_TEXTS), bundle.manifest.dimensions)
    if vectors.shape != expected:
        raise ValueError(f"embed_golden must give vectors of shape {expected}, not {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise UnusableCheckpointError(checkpoint, "it gives vectors that are not finite: weights are damaged", COMPLETE)
    write_golden(bundle.path, list(GOLDEN_TEXTS), vectors.astype(np.float32))
    files = {**bundle.manifest.files, GOLDEN_FILE: file_digest(bundle.path / GOLDEN_FILE)}
    return bundle.manifest.model_copy(update={"files": files})
