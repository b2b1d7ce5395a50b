"""Exports and starts are measured as `make prove STEPS=export` does it, small."""

from pathlib import Path

from benchmarks import bundles, export_speed, random_checkpoint
from nearshore.bundle import Precision, load_bundle
from nearshore.settings import load_settings

SMALL = random_checkpoint.BERT_LARGE.model_copy(update={"layers": 2, "hidden_size": 64, "intermediate_size": 128})


def test_a_random_checkpoint_is_exported_and_measured(tmp_path: Path) -> None:
    """The checkpoint of the benchmark is one that the command line exports, in both precisions."""
    checkpoint = random_checkpoint.write_checkpoint(tmp_path / "checkpoint", SMALL)
    measured = export_speed.export("small", checkpoint, tmp_path / "models", "--int8")
    print(measured)
    bundle = load_bundle(tmp_path / "models" / "small")
    assert set(bundle.fingerprints) == set(Precision)
    assert measured.peak_memory_bytes > bundle.size_bytes


def test_a_server_in_int8_keeps_to_its_memory(tmp_path: Path) -> None:
    """After it has embedded something, a server of all-MiniLM-L6-v2 in int8 has 250 MB resident at most."""
    name = load_settings().embedding.model
    export_speed.export(name, bundles.checkpoint(), tmp_path / "models", "--int8")
    served = export_speed.serve(name, tmp_path / "models", tmp_path / "data", precision=Precision.INT8, starts=1)
    print(served)
    assert served["memory_bytes"]["VmRSS"] <= 250_000_000
