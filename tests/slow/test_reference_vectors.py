"""The served vectors are those of sentence-transformers, whoever asks and in whatever company."""

from pathlib import Path

from benchmarks import corpora, reference_vectors
from benchmarks.server_process import ServerProcess


def test_served_vectors_equal_the_reference_and_do_not_depend_on_their_company(
    data: Path, server: ServerProcess
) -> None:
    """Cosine at least 0.99999 to the reference; bit-equal alone, in one batch and among 64 concurrent callers."""
    agreement = reference_vectors.compare(server.address, corpora.reference())
    assert agreement.minimum_cosine >= 0.99999
    assert agreement.alone_equals_batch
    assert agreement.alone_equals_shuffled
