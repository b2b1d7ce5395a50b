"""Collections in a server that has a bundle of two precisions: told apart, and by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nearshore.bundle import Bundle, Precision
from nearshore.documents.requests import DocumentInput, ListCollectionsRequest, UpsertRequest
from nearshore.embedding import Embedder
from nearshore.errors import CallerError
from tests.engine import Engine
from tests.tiny_bert import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny model in both precisions."""
    return make_bundle(tmp_path_factory.mktemp("models"), int8=True)


def opened(bundle: Bundle, precision: str) -> Embedder:
    """The tiny model in this precision."""
    return Embedder.open(bundle.at(Precision(precision)), workers=1, max_run_tokens=64, max_queued_tokens=10_000)


@pytest.mark.parametrize(("made", "loaded"), [("fp32", "int8"), ("int8", "fp32")])
def test_a_collection_of_the_other_precision_is_told_by_name(
    tmp_path: Path, bundle: Bundle, made: str, loaded: str
) -> None:
    """The refusal names both precisions and the setting that serves the collection; descriptions name its own."""
    with opened(bundle, made) as first, Engine(tmp_path, {"tiny": first}) as engine:
        collection, plain = engine.create("c", model="models/tiny"), engine.create("plain")
        assert [engine.run(engine.collections.get(each)).precision for each in (collection, plain)] == [made, ""]
    with opened(bundle, loaded) as other, Engine(tmp_path, {"tiny": other}) as engine:
        with pytest.raises(CallerError) as caught:
            engine.run(engine.documents.upsert(UpsertRequest(collection, [DocumentInput("a", "dog")])))
        assert caught.value.reason == "FINGERPRINT_MISMATCH"
        assert f"holds vectors of tiny in {made} (" in caught.value.message
        assert f"loaded is tiny in {loaded} (" in caught.value.message
        assert f"Set NEARSHORE_EMBEDDING__PRECISION={made} where the model is loaded" in caught.value.remedy
        listed = engine.run(engine.collections.list(ListCollectionsRequest())).collections
        assert [each.precision for each in listed] == [made, ""]
        specs = [each.collection.spec for each in engine.replicas.list()]
        (unserved,) = engine.run(engine.models.unserved(specs))
        assert (unserved.name, engine.models.made_by(unserved)) == ("c", f"tiny in {made}")
