"""nearshore index --kubernetes: the same run as an Indexed Job of a cluster, followed to its verdict."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import typer

from nearshore.cli import output
from nearshore.cli.indexing import TELL_ALL
from nearshore.cli.progress import duration
from nearshore.cli.session import session
from nearshore.cli.typed import typed
from nearshore.errors import NearshoreError
from nearshore.exit_codes import ExitCode
from nearshore_indexer.jobs.cluster import Cluster
from nearshore_indexer.jobs.errors import JobFailedError, KubernetesForbiddenError, KubernetesUnreachableError
from nearshore_indexer.jobs.follow import Ending, Follower, Tell
from nearshore_indexer.jobs.states import Verdict
from nearshore_indexer.jobs.template import check_sources_mounted, fill, pod_path
from nearshore_indexer.sources import STDIN

ONLY_HERE = {"kubernetes", "release", "namespace", "shards", "claim", "attach", "files"}
"""Parameters of `nearshore index` that the pods do not get: they say where and how the Job runs."""
NOT_THERE = {
    "rejects": "what a shard refuses is in its log",
    "shard": "each pod knows its own",
    "store": "the Secret of the release names it",
}
OF_A_FOLLOWER = {"kubernetes", "attach", "namespace"}
"""Parameters that mean something where no Job is created."""
FIGURES = ("documents", "embedded", "unchanged", "truncated", "removed", "rejected")
LAST_LINES = 20
TABS = "\t"
SHOWN_FAILURES = 3
ENDED_BY_SIGNAL = {ExitCode.INTERRUPTED, 128 + signal.SIGTERM, 128 + signal.SIGKILL}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how the Job runs."""

    release: str
    namespace: str | None
    shards: int
    claim: str | None


def run(files: Sequence[str], attach: str | None, placement: Placement, context: typer.Context) -> None:
    """Create the Job that indexes these files, or take the one to attach to, and follow it to its end.

    context: of the command, for its other options. Raises typer.Exit with ExitCode.REJECTED when all that failed is
    that some input was refused, JobFailedError, what Cluster raises, and typer.BadParameter for what no Job can do.
    """
    _refuse_global_options()
    if attach is not None:
        if files:
            raise typer.BadParameter("a Job that is there has its files: name none", param_hint="--attach")
        for name, option in typed(context).items():
            if name not in OF_A_FOLLOWER:
                raise typer.BadParameter("a Job that is there has its options: leave it out", param_hint=option)
        _follow(Cluster(placement.namespace), attach, tail_lines=LAST_LINES)
        return
    paths = _paths(files)
    cluster = Cluster(placement.namespace)
    name = _create(cluster, paths, placement, _passed_on(context))
    output.note(f"Created the Job {name} of {placement.shards} shards in the namespace {cluster.namespace}.")
    _follow(cluster, name, tail_lines=None)


def _create(cluster: Cluster, paths: Sequence[str], placement: Placement, options: Sequence[str]) -> str:
    """Make the Job of the release's template; returns its name."""
    template = cluster.find_template(placement.release)
    in_a_pod = ["--shard", f"auto/{placement.shards}", "--rejects", TELL_ALL, "--json"]
    arguments = ["index", *options, *in_a_pod, "--", *paths]
    claim = placement.claim
    job = fill(template.text, template.place, shards=placement.shards, arguments=arguments, claim=claim)
    check_sources_mounted(job, paths, template.place)
    return cluster.create_job(job)


def _follow(cluster: Cluster, name: str, *, tail_lines: int | None) -> None:
    started = time.monotonic()
    follower = Follower(cluster, name, Tell(_show_line, output.note, output.warn), tail_lines=tail_lines)
    try:
        ending = follower.run()
    except KeyboardInterrupt:
        place = f"--namespace {cluster.namespace}"
        output.warn(
            f"no longer following the Job {name}, which goes on. "
            f"`nearshore index --kubernetes {place} --attach {name}` follows it again; "
            f"`kubectl delete job {name} {place}` ends it: what is indexed stays."
        )
        raise
    elapsed_s = time.monotonic() - started
    _report(cluster, ending, _results(cluster, ending), elapsed_s=elapsed_s)
    if ending.job.verdict is Verdict.FAILED:
        _end_failed(cluster, ending)


def _show_line(shard: int, line: str) -> None:
    sys.stderr.write(f"shard {shard} | {output.visible(line, TABS)}\n")
    sys.stderr.flush()


def _paths(files: Sequence[str]) -> list[str]:
    """The files as the pods name them."""
    if not files:
        raise typer.BadParameter("name files to index", param_hint="FILES")
    if STDIN in files:
        raise typer.BadParameter("standard input cannot be read by a Job: put it into a file of the claim")
    return [pod_path(file) for file in files]


def _refuse_global_options() -> None:
    """Raises typer.BadParameter for those that say where to write, or from which settings: the release says both."""
    here = session()
    places = {
        "--server": here.server,
        "--data-dir": here.data_dir,
        "--model-dir": here.model_dir,
        "--config": here.config,
    }
    for option, given in places.items():
        if given is not None:
            raise typer.BadParameter("a Job has the store, model and settings of its release", param_hint=option)


def _passed_on(context: typer.Context) -> list[str]:
    """The options that were given for the run itself, as arguments."""
    arguments: list[str] = []
    given = typed(context)
    for parameter in context.command.params:
        name = str(parameter.name)
        if name not in given or name in ONLY_HERE:
            continue
        option = given[name]
        if name in NOT_THERE:
            raise typer.BadParameter(f"cannot be used with --kubernetes: {NOT_THERE[name]}", param_hint=option)
        value = context.params[name]
        if isinstance(value, bool):
            arguments.append(option if value else max(parameter.secondary_opts, key=len))
            continue
        for each in value if isinstance(value, list | tuple) else (value,):
            arguments += [option, str(each.value if isinstance(each, Enum) else each)]
    return arguments


def _results(cluster: Cluster, ending: Ending) -> list[dict[str, Any]]:
    """What the shards say they did, of those whose logs can be read; each with FIGURES."""
    results = []
    for shard in range(ending.job.shards):
        pod = ending.last_pod(shard)
        try:
            result = _result(cluster.read_log(pod.name, LAST_LINES)) if pod is not None else None
        except (KubernetesUnreachableError, KubernetesForbiddenError) as error:
            output.warn(f"what the shards did cannot be read: {error.message}")  # of the others neither
            break
        except NearshoreError:  # the pod was deleted
            continue
        if result is not None:
            results.append(result)
    return results


def _result(lines: Sequence[str]) -> dict[str, Any] | None:
    """The line of figures that a shard ends its log with; None where there is none."""
    for line in reversed(lines):
        try:
            result = json.loads(line)
        except ValueError:
            continue
        if isinstance(result, dict) and set(FIGURES) <= result.keys():
            return result
    return None


def _report(cluster: Cluster, ending: Ending, results: Sequence[Mapping[str, Any]], *, elapsed_s: float) -> None:
    """Print the verdict, with the figures of the shards that told theirs; null if none did."""
    job = ending.job
    figures = {name: sum(int(result[name]) for result in results) for name in FIGURES}
    if output.as_json():
        shards = {"shards": job.shards, "done": job.done, "failed_shards": list(job.failed)}
        verdict = {"job": job.name, "namespace": cluster.namespace, "verdict": job.verdict.value}
        told = {"shards_told": len(results), **(figures if results else dict.fromkeys(FIGURES))}
        output.emit({**verdict, **shards, **told, "elapsed_s": elapsed_s})
        return
    parts = [f"{job.done} of {job.shards} shards done in {duration(elapsed_s)}"]
    if len(results) < job.shards:
        parts.append(f"{len(results)} of {job.shards} shards told what they did")
    if results:
        parts.append(f"{figures['documents']:,} documents")
        parts.append(f"{figures['embedded']:,} embedded, {figures['unchanged']:,} unchanged")
        parts += [f"{figures[name]:,} {name}" for name in ("truncated", "removed", "rejected") if figures[name]]
    output.show("; ".join(parts))


def _end_failed(cluster: Cluster, ending: Ending) -> None:
    """Show the last lines of the failed shards; raises typer.Exit with ExitCode.REJECTED, or JobFailedError."""
    job = ending.job
    # Else the Job failed as a whole, and Kubernetes ended the shards that were not through.
    decided = bool(job.failed) and job.done + len(job.failed) == job.shards
    failed = job.failed if decided else _ended_badly(ending)
    pods = [ending.last_pod(shard) for shard in failed]
    if decided and all(pod is not None and pod.exit_code == ExitCode.REJECTED for pod in pods):
        output.warn(f"some input was refused by {len(pods)} shards; their logs name each place. The rest is indexed.")
        raise typer.Exit(ExitCode.REJECTED)
    problems = []
    for shard, pod in zip(failed, pods, strict=True):
        problems.append(f"shard {shard}: {pod.problem}" if pod is not None else f"shard {shard}: its pod is gone")
        if pod is not None and len(problems) <= SHOWN_FAILURES:
            _show_last_lines(cluster, shard, pod.name)
    detail = "; ".join(problems[:SHOWN_FAILURES]) + ("; and others" if len(problems) > SHOWN_FAILURES else "")
    if not decided:
        detail = "; ".join(part for part in (job.message.rstrip("."), detail) if part)
    raise JobFailedError(job.name, cluster.namespace, detail or job.message or "no pod says why")


def _ended_badly(ending: Ending) -> tuple[int, ...]:
    """The shards that failed of themselves, where Kubernetes then ended the others and names none."""
    last = {pod.shard: pod.exit_code for pod in ending.pods if pod.exit_code is not None}
    bad = {shard for shard, code in last.items() if code}
    ended_by_kubernetes = {shard for shard, code in last.items() if code in ENDED_BY_SIGNAL}
    return tuple(sorted(bad - ended_by_kubernetes or bad))


def _show_last_lines(cluster: Cluster, shard: int, pod: str) -> None:
    try:
        lines = cluster.read_log(pod, LAST_LINES)
    except NearshoreError as error:
        output.warn(f"the log of {pod} cannot be shown: {error.message}")
        return
    output.warn(f"shard {shard} failed ({pod}); its last lines:")
    for line in lines:
        _show_line(shard, line)
