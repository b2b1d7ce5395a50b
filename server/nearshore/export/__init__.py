"""Checkpoint to bundle: obtains a BERT checkpoint and writes what serving reads, without torch."""
