"""A second graph for a bundle, with products in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tokenizers

from nearshore.bundle import INT8_FILE, Bundle, Int8, Precision
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.golden import GOLDEN_TEXTS
from nearshore.export.graph.builder import Integers
from nearshore.export.graph.outputs import Contract, Outputs
from nearshore.export.int8.products import IntegerProducts
from nearshore.export.int8.ranges import observe, trying_batches
from nearshore.export.int8.recipe import Loss, Recipe, ladder
from nearshore.export.int8.search import Found, find_recipe
from nearshore.export.int8.texts import SENTENCES
from nearshore.records import F32

_LOSS = Loss()


def convert(
    checkpoint: Path,
    bundle: Bundle,
    contract: Contract,
    build: Callable[[Path, Integers], None],
    embed: Callable[[Bundle, list[str]], F32],
) -> Int8:
    """Write the graph beside the float32 one, by the fastest recipe within the loss.

    checkpoint: that the bundle is made of, for messages; contract: of the float32 graph; build: writes a graph
    with these products in integers. Raises UnusableCheckpointError when no recipe is within the loss.
    """
    network = bundle.manifest.network
    inputs = Outputs(contract=contract, masked=False).input_names(network)
    batches = trying_batches(_token_ids(bundle), network.vocabulary_size, bundle.manifest.max_tokens)
    ranges = observe(bundle.model_path, contract, batches)
    texts = list(SENTENCES[1::2])
    candidate = Bundle(bundle.path, bundle.manifest, Precision.INT8)

    def vectors(recipe: Recipe) -> F32:
        products = IntegerProducts(ranges, recipe, network.layers)
        build(candidate.model_path, products)
        return embed(candidate, texts)

    found = find_recipe(ladder(network.layers), vectors, embed(bundle, texts), _LOSS)
    if not isinstance(found, Found):
        best = max(found, key=lambda trial: trial.mean_cosine)
        raise UnusableCheckpointError(
            checkpoint,
            f"{INT8_FILE} cannot be made: of {len(found)} recipes the best has a mean cosine of {best.mean_cosine} and "
            f"a least one of {best.least_cosine} to float32; wanted are {_LOSS.least_mean} and {_LOSS.least}",
            "Export it without --int8, and serve it in float32.",
            flags=("--int8",),
        )
    return Int8(recipe=str(found.recipe), trials=found.trials, inputs=inputs)


def _token_ids(bundle: Bundle) -> list[list[int]]:
    tokenizer = tokenizers.Tokenizer.from_file(str(bundle.tokenizer_path))
    tokenizer.enable_truncation(bundle.manifest.max_tokens)
    return [tokenizer.encode(text).ids for text in (*GOLDEN_TEXTS, *SENTENCES[::2])]
