"""What a graph takes and gives, by name."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import TensorProto

from nearshore.network import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Names under which a graph's inputs and hidden states are known to programs."""

    ids: str
    mask: str
    types: str
    integers: int  # type of the inputs
    always_types: bool  # the input exists even where the network has no choice of token types
    hidden: str  # {}: number of the state
    first: int  # that has number 0: 0 the embeddings, 1 the first layer's output


NEARSHORE = Contract(
    ids="input_ids",
    mask="attention_mask",
    types="token_type_ids",
    integers=TensorProto.INT64,
    always_types=False,
    hidden="hidden_{}",
    first=0,
)
TFHUB = Contract(
    ids="input_word_ids",
    mask="input_mask",
    types="input_type_ids",
    integers=TensorProto.INT32,
    always_types=True,
    hidden="encoder_outputs_{}",
    first=1,
)
SEQUENCE_OUTPUT = "sequence_output"  # the last layer's vectors, (B, S, H)
POOLED_OUTPUT = "pooled_output"  # BERT's pooler, (B, H)
DEFAULT = "default"  # TF Hub's second name for it
MLM_LOGITS = "mlm_logits"  # (B, S, vocabulary)
LOGITS = "logits"  # (B, classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What a graph gives beside sequence_output, and the names of all it takes."""

    contract: Contract = NEARSHORE
    masked: bool = True  # texts of a run may be padded; without, attention need not look and is faster
    pooled: bool = False
    default: bool = False  # pooled_output under TF Hub's second name, too
    all_layers: bool = False
    mlm: bool = False
    classes: int = 0  # of `logits`; 0: there are none

    def input_names(self, network: Network) -> tuple[str, ...]:
        """Inputs in order; the mask and token types only where there is a choice, or the contract has types."""
        contract = self.contract
        typed = network.token_types > 1 or contract.always_types
        return (contract.ids, *([contract.mask] if self.masked else []), *([contract.types] if typed else []))

    def shapes(self, network: Network) -> dict[str, list[str | int]]:
        """Name and shape of every output, in order."""
        tokens: list[str | int] = ["batch", "sequence"]
        width = network.hidden_size
        shapes = {SEQUENCE_OUTPUT: [*tokens, width]}
        if self.pooled:
            shapes[POOLED_OUTPUT] = ["batch", width]
        if self.default:
            shapes[DEFAULT] = ["batch", width]
        if self.all_layers:
            states = range(network.layers + 1 - self.contract.first)
            shapes |= {self.contract.hidden.format(state): [*tokens, width] for state in states}
        if self.mlm:
            shapes[MLM_LOGITS] = [*tokens, network.vocabulary_size]
        if self.classes:
            shapes[LOGITS] = ["batch", self.classes]
        return shapes
