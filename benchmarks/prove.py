"""Full corpora and full rounds, by hand; resumable: a step that is done at this commit is not done again.

    NEARSHORE_TEST_DATA=FOLDER make prove            every step
    NEARSHORE_TEST_DATA=FOLDER make prove STEPS="indexing filters"

Results go to docs/results/STEP.json with commit, processor, flags and the precisions of the model that were measured.
Work lies in .cache/prove. The search and filters steps need the collection that the indexing step leaves.
"""

import nearshore.threads  # noqa: F401  # first: it limits the threads of native libraries  # isort: skip

import argparse
import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import (
    bundles,
    chosen_texts,
    corpora,
    export_speed,
    filtered_search,
    indexing_speed,
    int8_quality,
    kill_rounds,
    machine,
    postgres_rounds,
    random_checkpoint,
    reference_vectors,
    replica_rounds,
    retrieval,
    schedules,
    shard_rounds,
)
from benchmarks.server_process import ServerProcess
from nearshore.bundle import Precision
from nearshore.settings import load_settings
from tests.postgres import shared_server

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".cache" / "prove"
RESULTS = ROOT / "docs" / "results"
INDEXING_PARTS = 8  # of the passages, each measured both ways before the next, so that drift hits both
Figures = dict[str, Any]


def prove_reference() -> Figures:
    """500 reference texts: closeness and bit-equality."""
    data_dir = _fresh("reference")
    with ServerProcess(data_dir) as server:
        return asdict(reference_vectors.compare(server.address, corpora.reference()))


def prove_retrieval() -> Figures:
    """nDCG@10, recall@100 and MRR@10 of `nearshore eval`."""
    return {corpus: retrieval.evaluate(corpus) for corpus in retrieval.JUDGED}


def prove_int8() -> Figures:
    """int8 beside fp32: closeness to the reference texts, STS benchmark, nDCG@10; makes the int8 graph if need be."""
    return int8_quality.compare()


def prove_schedules() -> Figures:
    """200 texts under 50 random schedules a precision: each vector bit-equal to that of its text alone."""
    texts, figures = chosen_texts.mixed(200), {}
    bundles.with_int8()
    for precision in Precision:
        with bundles.open_engine(precision, share_in_flight=False) as engine:
            figures[precision.value] = asdict(schedules.run_schedules(engine, texts, schedules=50))
    return {"texts": len(texts), "schedules": 50, **figures}


def prove_indexing() -> Figures:
    """All passages in pairs: each part embedded alone, then indexed until its last is searchable; memory; a restart."""
    parts = corpora.write_parts(_fresh("parts"), INDEXING_PARTS)
    count, pairs = 0, []
    with ServerProcess(_fresh("passages")) as server:
        for path, passages in parts.items():
            count += passages
            alone_s = indexing_speed.embed_alone_in_own_process(path)
            pairs.append((alone_s, indexing_speed.index_through(server, path, count)))
            print(f"{count} passages: alone {pairs[-1][0]:.1f} s, indexed {pairs[-1][1]:.1f} s", flush=True)
        memory = server.resident_bytes()
        with server.client() as client:
            status = client.get_collection(indexing_speed.COLLECTION).status
        server.terminate()
        began = time.perf_counter()
        server.start()
        restart_s = time.perf_counter() - began
    alone, indexed = (sum(seconds) for seconds in zip(*pairs, strict=True))
    return {
        "passages": count,
        "embedding_alone_s": alone,
        "indexing_s": indexed,
        "ratio": indexed / alone,
        "ratio_of_each_part": [after / before for before, after in pairs],
        "memory_bytes_after_indexing": memory,
        "restart_to_ready_s": restart_s,
        "sealed_rows": status.sealed_row_count,
        "tail_rows": status.tail_row_count,
    }


def prove_search() -> Figures:
    """What a text search over the indexed passages costs beyond embedding and FAISS."""
    texts = [row["text"][:60] for row in corpora.passages(step=1000)]
    with ServerProcess(WORK / "passages") as server:
        speed = indexing_speed.search_speed(server, texts)
        return {**asdict(speed), "memory_bytes": server.resident_bytes()}


def prove_filters() -> Figures:
    """Filters, deletes and updates over the indexed passages, on a copy of the folder."""
    source, data_dir = WORK / "passages", _fresh("filters")
    shutil.copytree(source, data_dir, dirs_exist_ok=True)
    with ServerProcess(data_dir) as server, server.client() as client:
        filters = filtered_search.measure(client, corpora.passages(), queries=200)
        texts = [row["text"] for row in random.Random(7).sample(list(corpora.passages()), 50)]
        recall, missing = filtered_search.recall_after_deletes(client, texts)
        updates = filtered_search.search_while_updating(server.address)
    return {
        "filters": [asdict(figure) for figure in filters],
        "after_deleting_130_nearest_of_50": {"recall_at_10": recall, "hits_missing": missing},
        "while_updating": asdict(updates),
    }


def prove_kills() -> Figures:
    """100 kills under load."""
    calls = kill_rounds.run_on_sqlite(_fresh("kills"), rounds=100)
    return {"rounds": len(calls), "acknowledged_calls": sum(calls), "lost": 0, "resurrected": 0}


def prove_postgres() -> Figures:
    """PostgreSQL: a minute of four processes over shared keys; 34 rounds each that strike the server, it, and both."""
    return postgres_rounds.prove(_fresh("postgres"), rounds=34, seconds=60.0)


def prove_replicas() -> Figures:
    """Three replicas: 10,000 writes that are looked for elsewhere at once, and a minute without PostgreSQL."""
    return replica_rounds.prove(_fresh("replicas"), checks=10_000, away_s=60.0)


def prove_shards() -> Figures:
    """All passages into PostgreSQL: by one process, by four of which two are killed, and again unchanged."""
    count = sum(1 for _ in corpora.passages())
    return asdict(shard_rounds.run(shared_server(), corpora.passages_path(), count))


def prove_export() -> Figures:
    """Exports, of MiniLM and of a random BERT-large: time and memory; starts of a server in int8, and its memory."""
    work, name = _fresh("export"), load_settings().embedding.model
    figures: Figures = {}
    large = random_checkpoint.write_checkpoint(work / "large", random_checkpoint.BERT_LARGE)
    checkpoints = {name: bundles.checkpoint(), "random-bert-large": large}
    for model, checkpoint in checkpoints.items():
        for precision, options in ((Precision.FP32, ()), (Precision.INT8, ("--int8",))):
            measured = export_speed.export(model, checkpoint, work / precision, *options)
            figures.setdefault(model, {})[precision] = asdict(measured)
            print(f"{model} {' '.join(options)}: {measured}", flush=True)
    served = export_speed.serve(name, work / Precision.INT8, work / "data", precision=Precision.INT8, starts=5)
    shutil.rmtree(work)  # gigabytes
    return {"export": figures, "server_in_int8": served}


def _fresh(name: str) -> Path:
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@dataclass(frozen=True, slots=True)
class Step:
    """Something to prove."""

    prove: Callable[[], Figures]
    both_precisions: bool = False  # whether it measures each precision, whatever the settings say

    @property
    def precisions(self) -> list[str]:
        """Of the model, that it measures."""
        return [*Precision] if self.both_precisions else [load_settings().embedding.precision]


STEPS: dict[str, Step] = {
    "reference": Step(prove_reference),
    "retrieval": Step(prove_retrieval),
    "int8": Step(prove_int8, both_precisions=True),
    "schedules": Step(prove_schedules, both_precisions=True),
    "export": Step(prove_export, both_precisions=True),
    "indexing": Step(prove_indexing),
    "search": Step(prove_search),
    "filters": Step(prove_filters),
    "kills": Step(prove_kills),
    "postgres": Step(prove_postgres),
    "replicas": Step(prove_replicas),
    "shards": Step(prove_shards),
}


def _is_done(path: Path, circumstances: Figures) -> bool:
    """Whether there is a result of the same commit, machine and precisions."""
    return path.exists() and circumstances.items() <= json.loads(path.read_text()).items()


def main() -> None:
    """Run the steps that are not done at this commit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", choices=[[], *STEPS], default=[])
    parser.add_argument("--again", action="store_true", help="also steps that are done at this commit")
    arguments = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in arguments.steps or list(STEPS):
        step, path = STEPS[name], RESULTS / f"{name}.json"
        here = machine.describe()
        circumstances = {"machine": here, "precisions": step.precisions}
        if not arguments.again and _is_done(path, circumstances):
            print(f"{name}: done at {here['commit']}", flush=True)
            continue
        print(f"{name}: {step.prove.__doc__}", flush=True)
        began = time.perf_counter()
        figures = step.prove()
        result = {**circumstances, "seconds": round(time.perf_counter() - began, 1), "figures": figures}
        path.write_text(json.dumps(result, indent=2) + "\n")
        print(json.dumps(figures, indent=2), flush=True)


if __name__ == "__main__":
    main()
