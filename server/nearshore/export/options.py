"""What an export leaves to the caller, and which outputs a checkpoint can give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from nearshore.bundle import Manifest, SpecialTokens
from nearshore.export.checkpoint import Checkpoint
from nearshore.export.config import Configuration
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.graph.outputs import MLM_LOGITS, NEARSHORE, POOLED_OUTPUT, TFHUB, Outputs
from nearshore.export.layout import (
    Shape,
    classifier_shapes,
    encoder_shapes,
    language_shapes,
    pooler_shapes,
    size_bytes,
)
from nearshore.export.weights import Weights

ContractName = Literal["nearshore", "tfhub"]
_MOST_GRAPH_BYTES = (1 << 31) - (1 << 24)  # protobuf's limit, less what is not weights


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the checkpoint leaves open. Outputs beside sequence_output cost time at every run, wanted or not."""

    special_tokens: SpecialTokens = SpecialTokens.TEXT
    lower_case: bool | None = None  # of a vocab.txt; None: as checkpoint or vocabulary say
    pooled_output: bool = False  # give pooled_output
    all_layers: bool = False  # give every hidden state
    mlm: bool = False  # give mlm_logits
    contract: ContractName = "nearshore"  # TF Hub's has pooled_output and all layers
    int8: bool = False  # a second graph, with products in 8 bits
    most_graph_bytes: int = _MOST_GRAPH_BYTES  # of weights in the graph's file; where there are more, all go beside it

    def outputs(self, *, classes: int = 0) -> Outputs:
        """The graph's inputs and outputs."""
        hub = self.contract == "tfhub"
        return Outputs(
            contract=TFHUB if hub else NEARSHORE,
            pooled=self.pooled_output or hub,
            default=hub,
            all_layers=self.all_layers or hub,
            mlm=self.mlm,
            classes=classes,
        )

    def met_by(self, manifest: Manifest) -> bool:
        """Whether a bundle that is there gives what these options ask for; it may give more.

        How it uses a vocab.txt is not told by its manifest, so one that is asked for by name is never known to be met.
        """
        if self.lower_case is not None:
            return False
        outputs = self.outputs()
        wanted = set(outputs.shapes(manifest.network))
        named = self.contract == "nearshore" or outputs.contract.ids in manifest.inputs
        return named and wanted <= set(manifest.outputs) and (not self.int8 or manifest.int8 is not None)

    def with_those_of(self, manifest: Manifest) -> ExportOptions:
        """These, and what a bundle was made with besides: somebody may serve or run it.

        How it used a vocab.txt is not told by its manifest, but by its tokenizer: see kept_case.
        """
        hub = TFHUB.ids in manifest.inputs
        given = manifest.outputs
        return replace(
            self,
            special_tokens=manifest.special_tokens,
            pooled_output=self.pooled_output or (POOLED_OUTPUT in given and not hub),
            all_layers=self.all_layers or NEARSHORE.hidden.format(0) in given,
            mlm=self.mlm or MLM_LOGITS in given,
            contract="tfhub" if hub else self.contract,
            int8=self.int8 or manifest.int8 is not None,
        )


def as_named(configuration: Configuration, weights: Weights) -> Configuration:
    """The configuration, its family naming parts as the weights do."""
    other = configuration.family.renamed
    if other is None or f"{other.embeddings_norm}.weight" not in weights:
        return configuration
    return replace(configuration, family=other)


def with_decoder_bias(configuration: Configuration, weights: Weights) -> Configuration:
    """The configuration, its language head adding the decoder's own bias where the weights hold one.

    The authors' code adds that one; the head's other bias is the same only where the two are tied or saved once.
    """
    head = configuration.family.language_head
    if head is None or f"{head.decoder}.bias" not in weights:
        return configuration
    head = replace(head, bias=f"{head.decoder}.bias")
    return replace(configuration, family=replace(configuration.family, language_head=head))


def choose_outputs(checkpoint: Checkpoint, weights: Weights, options: ExportOptions) -> tuple[Outputs, int]:
    """Check the tensors of the encoder and of every head that is asked for, and refuse tensors that nobody knows.

    A sequence classifier gives `logits` without being asked. Returns the bytes of these tensors in float32 as well.
    Raises UnusableCheckpointError.
    """
    configuration = checkpoint.configuration
    family, network = configuration.family, configuration.network
    outputs = options.outputs()
    encoder, pooler = encoder_shapes(family, network), pooler_shapes(family, network)
    used = dict(encoder)
    if outputs.pooled or any(name in weights for name in pooler):
        used |= _present(checkpoint, pooler, POOLED_OUTPUT)
    if outputs.mlm:
        used |= _present(checkpoint, language_shapes(family, network, tied=configuration.tied), MLM_LOGITS)
    if configuration.classifies:
        used |= classifier_shapes(family, network)
    weights.check(used)
    weights.refuse_others(used, owner=f"{family.architecture} network", heads=family.heads)
    return options.outputs(classes=count_classes(configuration, weights)), size_bytes(used)


def count_classes(configuration: Configuration, weights: Weights) -> int:
    """Of the sequence classifier that a checkpoint is; 0: it is none. Raises UnusableCheckpointError."""
    if not configuration.classifies or configuration.family.classifier is None:
        return 0
    return weights.shape(f"{configuration.family.classifier.output}.weight")[0]


def _present(checkpoint: Checkpoint, shapes: Mapping[str, Shape], output: str) -> Mapping[str, Shape]:
    if not shapes:
        architecture = checkpoint.configuration.family.architecture
        raise UnusableCheckpointError(
            checkpoint.folder,
            f"{output} is asked for, and {architecture} has no head for it",
            f"Export it without {output}.",
            flags=("--mlm",) if output == MLM_LOGITS else ("--pooled", "--contract tfhub"),
        )
    return shapes


def refuse_more_outputs(folder: Path, options: ExportOptions) -> None:
    """Raise UnusableCheckpointError if more is asked for than another's ONNX model gives by itself."""
    if options.outputs() != Outputs():
        raise UnusableCheckpointError(
            folder,
            "further outputs and other names cannot be given to another's ONNX model",
            "Export the checkpoint's own weights (model.safetensors), or take the model without them.",
            flags=("--pooled", "--all-layers", "--mlm", "--contract tfhub"),
        )
