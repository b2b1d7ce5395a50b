"""What is put together when a server starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from nearshore import served_models
from nearshore.bundle import (
    Bundle,
    BundleExchangedError,
    CorruptBundleError,
    ModelNotFoundError,
    Precision,
    load_bundle,
)
from tests.servers import make_settings
from tests.tiny_bert import embed_golden, make_bundle


def exchanged_after(times: int, folder: Path, *others: Bundle) -> Callable[..., Bundle]:
    """load_bundle, but so many times another bundle is in the folder as soon as the old one is verified."""
    following = cycle(others)
    left = times

    def load(path: Path, precision: Precision | None = None) -> Bundle:
        nonlocal left
        loaded = load_bundle(path, precision)
        if left:
            left -= 1
            shutil.rmtree(folder)
            shutil.copytree(next(following).path, folder)
        return loaded

    return load


@pytest.mark.parametrize("hidden", [32, 16])
def test_a_model_is_loaded_from_one_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: int) -> None:
    """One that is exchanged meanwhile is loaded again, so that no vector has the fingerprint of another's."""
    served = make_bundle(tmp_path / "models")
    other = make_bundle(tmp_path / "others", hidden=hidden, seed=1)
    monkeypatch.setattr(served_models, "load_bundle", exchanged_after(1, served.path, other))
    with served_models.open_embedder(make_settings(tmp_path, tmp_path / "models")) as embedder:
        assert embedder.fingerprint() == other.manifest.fingerprint != served.manifest.fingerprint
        np.testing.assert_allclose(embedder.embed(["cat"]).vectors, embed_golden(other, ["cat"]), atol=1e-5)


def test_a_bundle_that_never_stays_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is repeated for ever would say nothing."""
    served = make_bundle(tmp_path / "models")
    others = [make_bundle(tmp_path / f"others-{seed}", seed=seed) for seed in (1, 2)]
    monkeypatch.setattr(served_models, "load_bundle", exchanged_after(1_000, served.path, *others))
    with pytest.raises(BundleExchangedError, match=r"nearshore model get"):
        served_models.open_embedder(make_settings(tmp_path, tmp_path / "models"))


def test_a_bundle_that_goes_while_it_is_loaded_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not called exchanged for ever: who deleted it knows, and whoever does not learns how to get it."""
    served = make_bundle(tmp_path / "models")

    def load(path: Path, precision: Precision | None = None) -> Bundle:
        loaded = load_bundle(path, precision)
        shutil.rmtree(served.path)
        return loaded

    monkeypatch.setattr(served_models, "load_bundle", load)
    with pytest.raises(ModelNotFoundError, match=r"nearshore model get"):
        served_models.open_embedder(make_settings(tmp_path, tmp_path / "models"))
    with pytest.raises(ModelNotFoundError):
        served_models.open_embedder(make_settings(tmp_path, tmp_path / "models"))


def test_a_bundle_that_stays_is_refused_at_once(tmp_path: Path) -> None:
    """What is wrong with it is told, not that it was exchanged."""
    bundle = make_bundle(tmp_path / "models")
    bundle.model_path.write_bytes(b"")
    with pytest.raises(CorruptBundleError, match=r"model\.onnx has changed"):
        served_models.open_embedder(make_settings(tmp_path, tmp_path / "models"))
