"""Text to vectors, and pairs of texts to scores: tokenizer, scheduler, ONNX session, pooling."""

from nearshore.bundle import SpecialTokens
from nearshore.embedding.cores import usable_cores
from nearshore.embedding.embedder import Embedder
from nearshore.embedding.embeddings import Embeddings, TokenVectors, Truncation
from nearshore.embedding.form import Form
from nearshore.embedding.observer import Observer
from nearshore.embedding.reranker import Reranker, Scores
from nearshore.embedding.token_room import TokenClaim, TokenRoom
from nearshore.embedding.tokenizer import Tokens
from nearshore.embedding.workplace import Reuse, Workplace

__all__ = [
    "Embedder",
    "Embeddings",
    "Form",
    "Observer",
    "Reranker",
    "Reuse",
    "Scores",
    "SpecialTokens",
    "TokenClaim",
    "TokenRoom",
    "TokenVectors",
    "Tokens",
    "Truncation",
    "Workplace",
    "usable_cores",
]
