"""`nearshore index --kubernetes` against an API server that plays Jobs; output as a person and a script read it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nearshore.cli import main
from nearshore.exit_codes import ExitCode
from tests.kubernetes_api import NAMESPACE, KubernetesApi, template
from tests.servers import ROOT

JOB = "docs-nearshore-index-x7k2p"
FIGURES = {"documents": 10, "embedded": 8, "unchanged": 2, "truncated": 1, "removed": 0, "rejected": 0}
Run = Callable[..., tuple[int, list[Any], str]]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    """An API server that KUBECONFIG names."""
    running = KubernetesApi(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
    yield running
    running.stop()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `nearshore --json index --kubernetes`; returns exit code, printed JSON and standard error."""

    def run_command(*arguments: str) -> tuple[int, list[Any], str]:
        release = () if "--attach" in arguments else ("--release", "docs")
        code = main.run(["--json", "index", "--kubernetes", *release, *arguments])
        captured = capsys.readouterr()
        return code, [json.loads(line) for line in captured.out.splitlines()], captured.err

    return run_command


def error_of(err: str) -> dict[str, Any]:
    """The last line of standard error, which tells the error."""
    error: dict[str, Any] = json.loads(err.splitlines()[-1])["error"]
    return error


def complete(api: KubernetesApi, shards: int) -> Callable[[str], None]:
    """Every shard runs to its end at once."""

    def play(name: str) -> None:
        for shard in range(shards):
            pod = api.add_pod(shard)
            pod.run()
            pod.write(f"indexing: shard {shard} of the corpus", json.dumps({"collection": "c", **FIGURES}))
            pod.end()
        api.finish(name)

    return play


def test_the_job_is_the_filled_in_template_of_the_release(api: KubernetesApi, run: Run) -> None:
    """One pod a shard with the options of the run and the claim at /sources; everything else is as in the chart."""
    api.install()
    api.on_create = complete(api, 4)
    options = ("--shards", "4", "--claim", "corpus", "--collection", "c", "--timestamp", "day", "--timestamp", "seen")
    code, (verdict,), _ = run(*options, "a.jsonl", "/models/b.txt")
    job = api.jobs[JOB]
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert code == ExitCode.OK
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["completionMode"]) == (4, 4, "Indexed")
    given = ["--collection", "c", "--timestamp", "day", "--timestamp", "seen"]
    assert container.pop("args") == [
        "index",
        *given,
        *("--shard", "auto/4"),
        *("--rejects", "-"),
        "--json",
        "--",
        "/sources/a.jsonl",
        "/models/b.txt",
    ]
    claim = {"name": "sources", "persistentVolumeClaim": {"claimName": "corpus", "readOnly": True}}
    assert job["spec"]["template"]["spec"]["volumes"] == [claim, {"name": "tmp", "emptyDir": {}}]
    expected = template()["spec"]["template"]["spec"]["containers"][0]
    del expected["args"]
    assert container == expected
    assert verdict["job"] == JOB
    assert {name: verdict[name] for name in FIGURES} == {name: 4 * value for name, value in FIGURES.items()}
    assert (verdict["verdict"], verdict["shards"], verdict["done"], verdict["namespace"]) == (
        "succeeded",
        4,
        4,
        NAMESPACE,
    )


def test_only_what_the_documentation_names_is_asked_for(api: KubernetesApi, run: Run) -> None:
    """So the Role that the chart's notes and the error name is enough."""
    api.install()
    api.on_create = complete(api, 1)
    code, _, _ = run("--claim", "corpus", "a.jsonl")
    assert code == ExitCode.OK
    needed = {("get", "configmaps"), ("create", "jobs"), ("get", "jobs"), ("list", "pods"), ("get", "pods/log")}
    assert set(api.requests) == needed


def test_logs_are_shown_as_they_grow(api: KubernetesApi, run: Run) -> None:
    """Each line once with its shard, also when the connection to a log is lost in between."""
    api.install()

    def start(name: str) -> None:
        for shard in range(2):
            api.add_pod(shard).run()
        api.pods[1].cut_after = 2
        api.pods[0].write("first of 0")
        api.pods[1].write("first of 1", "second of 1")

    def go_on(reads: int) -> None:
        if reads == 2:
            api.pods[0].write("second of 0")
            api.pods[1].write("third of 1")
            for pod in api.pods:
                pod.end()
            api.set_status(JOB, completedIndexes="0")
        if reads == 3:
            api.finish(JOB)

    api.on_create, api.on_read = start, go_on
    code, _, err = run("--shards", "2", "--claim", "corpus", "a.jsonl")
    assert code == ExitCode.OK
    lines = err.splitlines()
    assert [line for line in lines if line.startswith("shard 0 |")] == ["shard 0 | first of 0", "shard 0 | second of 0"]
    of_1 = ["shard 1 | first of 1", "shard 1 | second of 1", "shard 1 | third of 1"]
    assert [line for line in lines if line.startswith("shard 1 |")] == of_1
    assert "1 of 2 shards are done." in lines


@pytest.mark.parametrize("broken_off", ["cut_after", "stop_after"])
def test_a_log_that_breaks_off_is_taken_up_where_it_was(api: KubernetesApi, run: Run, broken_off: str) -> None:
    """By a lost connection or in order, amid old lines and within a second: each line is shown once, in order."""
    api.install()
    lines = [f"line {number}" for number in range(12)]

    def start(name: str) -> None:
        pod = api.add_pod(0)
        pod.run()
        pod.write(*lines[:10])
        setattr(pod, broken_off, 6)
        pod.node_says = "failed to create fsnotify watcher: too many open files"

    def go_on(reads: int) -> None:
        if reads == 2:
            api.pods[0].write(*lines[10:])
            api.pods[0].end()
        if reads == 3:
            api.finish(JOB)

    api.on_create, api.on_read = start, go_on
    code, _, err = run("--claim", "corpus", "a.jsonl")
    assert code == ExitCode.OK
    assert [line for line in err.splitlines() if "|" in line] == [f"shard 0 | {line}" for line in lines]
    assert err.count("logs cannot be shown: failed to create fsnotify") == (broken_off == "stop_after")


def test_what_a_deleted_pod_had_to_say_is_not_waited_for(api: KubernetesApi, run: Run) -> None:
    """A Job that fails as a whole takes its running pods along, and their logs with them."""
    api.install()

    def start(name: str) -> None:
        api.add_pod(0).run()
        api.pods[0].write("line 0")
        api.pods[0].stop_after = 1

    def go_on(reads: int) -> None:
        if reads == 2:
            api.pods.clear()
            failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}
            api.set_status(JOB, conditions=[failed])

    api.on_create, api.on_read = start, go_on
    code, _, err = run("--claim", "corpus", "a.jsonl")
    assert (code, error_of(err)["reason"]) == (ExitCode.FAILED, "JOB_FAILED")
    assert err.count("shard 0 | line 0\n") == 1


def test_a_failed_job_shows_the_last_lines_of_its_pods(api: KubernetesApi, run: Run) -> None:
    """The shard, how it ended, its last words, what to do; the exit code says failed."""
    api.install()

    def play(name: str) -> None:
        for shard, attempt in ((0, 1), (1, 1), (1, 2)):
            pod = api.add_pod(shard)
            pod.run()
            pod.write(f"attempt {attempt} of shard {shard}")
            pod.end(137 if shard else 0, "OOMKilled" if shard else "")
        api.finish(name, failed="1", message="Job has failed indexes")

    api.on_create = play
    code, (verdict,), err = run("--shards", "2", "--claim", "corpus", "a.jsonl")
    error = error_of(err)
    assert (code, error["reason"], verdict["failed_shards"], verdict["done"]) == (ExitCode.FAILED, "JOB_FAILED", [1], 1)
    assert "shard 1: exit code 137, OOMKilled" in error["message"]
    assert "run the same command again" in error["remedy"]
    shown = err[err.index("its last lines") :]
    assert "shard 1 | attempt 2 of shard 1" in shown
    assert "attempt 1" not in shown


def test_refused_input_is_no_failure_of_the_job(api: KubernetesApi, run: Run) -> None:
    """As without a cluster: everything else is indexed, and the exit code says that some was refused."""
    api.install()

    def play(name: str) -> None:
        complete(api, 2)(name)
        api.pods[1].write(json.dumps({"collection": "c", **FIGURES, "rejected": 3}))
        api.pods[1].end(ExitCode.REJECTED)
        api.finish(name, failed="1", message="Job has failed indexes")

    api.on_create = play
    code, (verdict,), err = run("--shards", "2", "--claim", "corpus", "a.jsonl")
    assert (code, verdict["rejected"], verdict["failed_shards"]) == (ExitCode.REJECTED, 3, [1])
    assert "refused" in err


@pytest.mark.parametrize(
    ("exit_code", "message"),
    [
        (128 + signal.SIGTERM, "Job was active longer than specified deadline"),
        (ExitCode.NOT_FOUND, "Container index for pod search/pod-1 failed with exit code 4 matching FailJob rule at 1"),
    ],
)
def test_a_job_that_failed_as_a_whole_is_a_failure(api: KubernetesApi, run: Run, exit_code: int, message: str) -> None:
    """Even if the only index that Kubernetes names refused some input: what the others had left is not indexed."""
    api.install()

    def play(name: str) -> None:
        for shard, code in enumerate((ExitCode.REJECTED, exit_code, 128 + signal.SIGTERM)):
            api.add_pod(shard).run()
            api.pods[shard].end(code)
        failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": message}
        api.set_status(name, conditions=[failed], failedIndexes="0")

    api.on_create = play
    code, (verdict,), err = run("--shards", "3", "--claim", "corpus", "a.jsonl")
    error = error_of(err)
    assert (code, error["reason"], verdict["failed_shards"]) == (ExitCode.FAILED, "JOB_FAILED", [0])
    assert message in error["message"]
    assert (f"shard 1: exit code {exit_code}" in error["message"]) == (exit_code == ExitCode.NOT_FOUND)
    assert "The rest is indexed" not in err


def test_what_keeps_a_pod_from_starting_is_said(api: KubernetesApi, run: Run) -> None:
    """While it lasts, in Kubernetes' own words: the image, the node, the claim."""
    api.install()

    def play(name: str) -> None:
        api.add_pod(0).wait_started("ImagePullBackOff", "Back-off pulling image nearshore:9")
        api.add_pod(1).wait_scheduled('persistentvolumeclaim "corpus" not found')
        api.add_pod(2).wait_started("ContainerCreating", "")

    def go_on(reads: int) -> None:
        if reads == 2:
            for pod in api.pods:
                pod.run()
                pod.end()
            api.finish(JOB)

    api.on_create, api.on_read = play, go_on
    code, _, err = run("--shards", "3", "--claim", "corpus", "a.jsonl")
    assert code == ExitCode.OK
    assert "shard 0 does not start (pod-0): ImagePullBackOff: Back-off pulling image nearshore:9" in err
    assert 'shard 1 does not start (pod-1): Unschedulable: persistentvolumeclaim "corpus" not found' in err
    assert "shard 2 does not start" not in err


def test_without_a_release_nothing_is_created(api: KubernetesApi, run: Run) -> None:
    """The error says that helm install comes first, or another --release."""
    api.install()
    code, printed, err = run("--release", "other", "--claim", "corpus", "a.jsonl")
    error = error_of(err)
    assert (code, printed, error["reason"], api.jobs) == (ExitCode.NOT_FOUND, [], "RELEASE_NOT_FOUND", {})
    assert "helm install" in error["remedy"]
    assert "--release" in error["remedy"]


@pytest.mark.parametrize(
    ("release", "config_map"),
    [("nearshore", "nearshore"), ("my-nearshore-2", "my-nearshore-2"), ("docs", "docs-nearshore"), ("other", "other")],
)
def test_the_template_is_found_by_the_name_of_the_release(
    api: KubernetesApi, run: Run, release: str, config_map: str
) -> None:
    """As the chart names its objects; a fullnameOverride can be given as the release."""
    api.install(config_map)
    api.on_create = complete(api, 1)
    assert run("--release", release, "--claim", "corpus", "a.jsonl")[0] == ExitCode.OK


@pytest.mark.parametrize(("verb", "resource"), [("get", "configmaps"), ("create", "jobs"), ("list", "pods")])
def test_a_missing_right_is_named(api: KubernetesApi, run: Run, verb: str, resource: str) -> None:
    """Verb and resource as RBAC knows them, and the command that tells whether it is granted."""
    api.install()
    api.refusals[verb, resource] = (403, f'{resource} is forbidden: User "ann" cannot {verb} resource "{resource}"')
    code, _, err = run("--claim", "corpus", "a.jsonl")
    error = error_of(err)
    assert (code, error["reason"]) == (ExitCode.FAILED, "KUBERNETES_FORBIDDEN")
    assert f"may not {verb} {resource} in the namespace {NAMESPACE}" in error["message"]
    assert f"kubectl auth can-i {verb} {resource}" in error["remedy"]


def test_logs_that_may_not_be_read_do_not_stop_the_run(api: KubernetesApi, run: Run) -> None:
    """The verdict is the Job's; the person is told why nothing is shown, and no figure is made up."""
    api.install()
    api.refusals["get", "pods/log"] = (403, "no")
    api.on_create = complete(api, 4)
    code, (verdict,), err = run("--shards", "4", "--claim", "corpus", "a.jsonl")
    assert (code, verdict["done"], err.count("logs cannot be shown")) == (ExitCode.OK, 4, 1)
    assert (verdict["shards_told"], {verdict[name] for name in FIGURES}) == (0, {None})
    assert err.count("what the shards did cannot be read") == 1
    assert api.requests.count(("get", "pods/log")) == 4 + 1


def test_figures_say_how_many_shards_they_are_of(api: KubernetesApi, run: Run) -> None:
    """A shard whose log has no figures, rotated away or cut off, is not taken for one that did nothing."""
    api.install()

    def play(name: str) -> None:
        complete(api, 3)(name)
        del api.pods[1].lines[:]

    api.on_create = play
    code, (verdict,), _ = run("--shards", "3", "--claim", "corpus", "a.jsonl")
    assert (code, verdict["done"], verdict["shards_told"], verdict["documents"]) == (ExitCode.OK, 3, 2, 20)


def test_a_busy_api_server_is_waited_for(api: KubernetesApi, run: Run) -> None:
    """The Job needs nobody who watches: a while without answers is told once, and is no failure."""
    api.install()
    api.refusals["list", "pods"] = (503, "etcdserver: leader changed")

    def go_on(reads: int) -> None:
        if reads == 3:
            del api.refusals["list", "pods"]

    api.on_create, api.on_read = complete(api, 1), go_on
    code, _, err = run("--claim", "corpus", "a.jsonl")
    assert (code, err.count("leader changed")) == (ExitCode.OK, 1)


def test_an_unusable_cluster_is_named(
    api: KubernetesApi, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No configuration at all, and a server that is not there, are different things to mend."""
    api.kubeconfig.write_text(api.kubeconfig.read_text().replace("127.0.0.1:", "127.0.0.1:1#"))
    code, _, err = run("a.jsonl")
    assert (code, error_of(err)["reason"]) == (ExitCode.UNAVAILABLE, "KUBERNETES_UNREACHABLE")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    code, _, err = run("a.jsonl")
    assert (code, error_of(err)["reason"]) == (ExitCode.USAGE, "NO_KUBERNETES")
    assert str(tmp_path / "absent") in error_of(err)["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name files"),
        (("-",), "standard input"),
        (("a.jsonl", ""), "FILES"),
        (("--rejects", "r.jsonl", "a.jsonl"), "--rejects"),
        (("--server", "localhost:1", "a.jsonl"), "--server"),
        (("--data-dir", "d", "a.jsonl"), "--data-dir"),
        (("--model-dir", "m", "a.jsonl"), "--model-dir"),
        (("--config", "c.toml", "a.jsonl"), "--config"),
        (("--store", "postgresql://x/y", "a.jsonl"), "--store"),
        (("--attach", "job", "a.jsonl"), "--attach"),
        (("--attach", "job", "--server", "localhost:1"), "--server"),
        (("--attach", "job", "--release", "docs"), "--release"),
        (("--attach", "job", "--shards", "3"), "--shards"),
        (("--attach", "job", "-c", "x"), "--collection"),
        (("--attach", "job", "--rejects", "r.jsonl"), "--rejects"),
    ],
)
def test_what_cannot_work_in_a_job_is_refused(
    api: KubernetesApi, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    """Before anything is created."""
    api.install()
    code, _, err = run(*arguments)
    assert (code, api.jobs) == (ExitCode.USAGE, {})
    assert said in error_of(err)["message"]


def test_files_that_no_pod_would_have_are_refused(api: KubernetesApi, run: Run) -> None:
    """An empty folder at /sources holds nothing; what the image or another volume of the chart holds is fine."""
    api.install()
    code, _, err = run("a.jsonl")
    assert (code, error_of(err)["reason"], api.jobs) == (ExitCode.FAILED, "NO_SOURCES", {})
    assert "--claim" in error_of(err)["remedy"]
    api.on_create = complete(api, 1)
    assert run("/usr/share/corpus.jsonl")[0] == ExitCode.OK
    api.config_maps.clear()
    api.pods.clear()
    api.install(job=template(nfs={"server": "files", "path": "/corpus"}))
    assert run("a.jsonl")[0] == ExitCode.OK


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "Job"},
        {**template(), "kind": "CronJob"},
        {**template(), "spec": {"template": {"spec": {"containers": [{"name": "x"}]}}}},
    ],
)
def test_a_template_of_another_form_is_refused(api: KubernetesApi, run: Run, broken: dict[str, Any]) -> None:
    """It may come from another release of the chart; the error names the ConfigMap."""
    api.install(job=broken)
    code, _, err = run("--claim", "corpus", "a.jsonl")
    assert (code, error_of(err)["reason"], api.jobs) == (ExitCode.FAILED, "JOB_TEMPLATE", {})
    assert "docs-nearshore-index-job" in error_of(err)["message"]


def test_a_job_can_be_followed_again(api: KubernetesApi, run: Run) -> None:
    """--attach ends as the Job does, also when it has ended already; one that is not there is named."""
    api.install()
    api.on_create = complete(api, 2)
    run("--shards", "2", "--claim", "corpus", "a.jsonl")
    code, (verdict,), _ = run("--attach", JOB)
    assert (code, verdict["documents"]) == (ExitCode.OK, 20)
    assert api.requests.count(("create", "jobs")) == 1
    code, _, err = run("--attach", "gone")
    assert (code, error_of(err)["reason"]) == (ExitCode.NOT_FOUND, "JOB_NOT_FOUND")


def test_attaching_shows_the_end_of_old_logs_and_all_of_new_ones(api: KubernetesApi, run: Run) -> None:
    """A pod that starts while the Job is followed is shown from its first line on, like one of a new Job."""
    api.install()
    api.jobs[JOB] = {"metadata": {"name": JOB}, "spec": {"completions": 2}}
    lines = [f"line {number}" for number in range(30)]

    def go_on(reads: int) -> None:
        if reads == 1:
            api.add_pod(0).run()
        if reads == 2:
            api.add_pod(1).run()
        if reads <= 2:
            api.pods[-1].write(*lines)
            api.pods[-1].end()
        if reads == 3:
            api.finish(JOB)

    api.on_read = go_on
    code, _, err = run("--attach", JOB)
    assert code == ExitCode.OK
    for shard, expected in enumerate((lines[-20:], lines)):
        shown = [line for line in err.splitlines() if line.startswith(f"shard {shard} |")]
        assert shown == [f"shard {shard} | {line}" for line in expected]


def test_ctrl_c_leaves_the_job_running(api: KubernetesApi) -> None:
    """And says how to follow it again, and how to end it."""
    api.install()

    def start(name: str) -> None:
        api.add_pod(0).run()
        api.pods[0].write("indexing")

    api.on_create = start
    path = os.pathsep.join((str(ROOT / "server"), str(ROOT / "indexer")))
    command = [
        sys.executable,
        "-m",
        "nearshore",
        "index",
        "--kubernetes",
        "--release",
        "docs",
        "--claim",
        "corpus",
        "a.jsonl",
    ]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line == "shard 0 | indexing\n":
            break
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == ExitCode.INTERRUPTED
    assert f"--namespace {NAMESPACE} --attach {JOB}" in said
    assert f"kubectl delete job {JOB}" in said
    api.pods[0].end()
