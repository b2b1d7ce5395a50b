"""Text to vectors: tokenizer, scheduler, ONNX session, pooling."""

from nearshore.bundle import SpecialTokens
from nearshore.embedding.cores import usable_cores
from nearshore.embedding.embedder import Embedder, Embeddings, Truncation
from nearshore.embedding.form import Form
from nearshore.embedding.observer import Observer
from nearshore.embedding.reuse import Reuse
from nearshore.embedding.tokenizer import Tokens

__all__ = [
    "Embedder",
    "Embeddings",
    "Form",
    "Observer",
    "Reuse",
    "SpecialTokens",
    "Tokens",
    "Truncation",
    "usable_cores",
]
