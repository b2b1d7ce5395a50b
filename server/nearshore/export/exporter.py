"""Checkpoint to bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearshore import __version__
from nearshore.bundle import (
    GOLDEN_FILE,
    MODEL_FILE,
    TOKENIZER_FILE,
    Bundle,
    Manifest,
    SpecialTokens,
    file_digest,
    load_bundle,
    write_golden,
    write_manifest,
)
from nearshore.export.aside import written_aside
from nearshore.export.checkpoint import Checkpoint, read_checkpoint
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.golden import GOLDEN_TEXTS
from nearshore.export.graph.encoder import POOLED_OUTPUT, SEQUENCE_OUTPUT, build_encoder, input_names
from nearshore.export.layout import encoder_shapes, pooler_shapes, size_bytes
from nearshore.export.origin import read_source
from nearshore.export.tokenizer import read_tokenizer
from nearshore.export.weights import Weights, weight_files
from nearshore.records import F32

_LARGEST_BYTES = (1 << 31) - (1 << 24)  # protobuf's limit, less what is not weights

EmbedGolden = Callable[[Bundle, list[str]], F32]
"""Embeds texts with a bundle that has no golden vectors yet: (texts, dimensions), as the bundle says."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the checkpoint leaves open."""

    special_tokens: SpecialTokens = SpecialTokens.TEXT
    pooled_output: bool = False  # also give pooled_output


def export_bundle(
    checkpoint: Path, destination: Path, *, name: str, embed_golden: EmbedGolden, options: ExportOptions | None = None
) -> Bundle:
    """Export a checkpoint folder to the bundle folder `destination`, replacing one that is there.

    The bundle appears whole or not at all. On one processor the same checkpoint gives the same bytes; golden.npz
    may differ in last digits between processors. Raises UnusableCheckpointError.
    """
    options = options or ExportOptions()
    source = read_checkpoint(checkpoint)
    family, network = source.configuration.family, source.configuration.network
    with written_aside(destination) as folder:
        outputs = _write_model(source, folder / MODEL_FILE, options)
        tokenizer = read_tokenizer(source)
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
            source=read_source(checkpoint, weight_files(checkpoint)),
            license=source.license,
            inputs=input_names(network),
            outputs=outputs,
            exporter=f"nearshore {__version__}",
            files={name: file_digest(folder / name) for name in (MODEL_FILE, TOKENIZER_FILE)},
        )
        write_manifest(folder, _with_golden(Bundle(folder, manifest), embed_golden))
        written = load_bundle(folder)
    return Bundle(destination, written.manifest)


def _write_model(checkpoint: Checkpoint, path: Path, options: ExportOptions) -> tuple[str, ...]:
    """Check all tensors, then build; returns the names of outputs."""
    family, network = checkpoint.configuration.family, checkpoint.configuration.network
    weights = Weights(checkpoint.folder, family)
    encoder, pooler = encoder_shapes(family, network), pooler_shapes(family, network)
    has_pooler = any(name in weights for name in pooler)
    if options.pooled_output and not has_pooler:
        raise UnusableCheckpointError(
            checkpoint.folder,
            f"it has no pooler ({next(iter(pooler), 'no tensor of one')} is missing), which pooled_output needs",
            "Export it without pooled_output.",
        )
    weights.check({**encoder, **pooler} if has_pooler else encoder)
    weights.refuse_others({**encoder, **pooler})
    if size_bytes(encoder) > _LARGEST_BYTES:
        raise UnusableCheckpointError(
            checkpoint.folder,
            f"its weights take {size_bytes(encoder) / 1e9:.1f} GB in float32, and an ONNX file holds no more than 2.1",
            "Use a smaller checkpoint.",
        )
    path.write_bytes(build_encoder(family, network, weights.read, pooled_output=options.pooled_output))
    return (SEQUENCE_OUTPUT, POOLED_OUTPUT) if options.pooled_output else (SEQUENCE_OUTPUT,)


def _with_golden(bundle: Bundle, embed_golden: EmbedGolden) -> Manifest:
    vectors = embed_golden(bundle, list(GOLDEN_TEXTS))
    expected = (len(GOLDEN_TEXTS), bundle.manifest.dimensions)
    if vectors.shape != expected or not np.isfinite(vectors).all():
        raise ValueError(f"embed_golden must give finite vectors of shape {expected}, not {vectors.shape}")
    write_golden(bundle.path, list(GOLDEN_TEXTS), vectors.astype(np.float32))
    files = {**bundle.manifest.files, GOLDEN_FILE: file_digest(bundle.path / GOLDEN_FILE)}
    return bundle.manifest.model_copy(update={"files": files})
