"""A Kubernetes API server of a few lines: it records what it is asked and plays a Job that a test scripts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import yaml

NAMESPACE = "search"
CONTEXT = {"cluster": "c", "user": "u", "namespace": NAMESPACE}
FIRST_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)  # of every log
LINE_INTERVAL = timedelta(milliseconds=250)


def template(**volume: Any) -> dict[str, Any]:
    """The Job template of the chart, in short; volume: what it mounts at /sources, by default an empty folder."""
    container = {
        "name": "index",
        "image": "nearshore:1",
        "args": ["index", "--help"],
        "volumeMounts": [{"name": "sources", "mountPath": "/sources", "readOnly": True}],
    }
    volumes = [{"name": "sources", **(volume or {"emptyDir": {}})}, {"name": "tmp", "emptyDir": {}}]
    pod = {"restartPolicy": "Never", "containers": [container], "volumes": volumes}
    spec = {"completionMode": "Indexed", "completions": 1, "parallelism": 1, "template": {"spec": pod}}
    metadata = {"generateName": "docs-nearshore-index-", "labels": {"app.kubernetes.io/name": "nearshore"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


@dataclass
class Pod:
    """One pod of a Job, whose log a test writes."""

    name: str
    shard: int
    status: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    cut_after: int | None = None  # whoever follows the log loses the connection after so many lines, once
    stop_after: int | None = None  # the node follows no further after so many lines, once, and ends the answer in order
    node_says: str = ""  # at that moment
    ended: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def run(self) -> None:
        """The container starts."""
        self.status = {"phase": "Running", "containerStatuses": [{"name": "index", "state": {"running": {}}}]}

    def write(self, *lines: str) -> None:
        """Add to the log."""
        with self.changed:
            self.lines += lines
            self.changed.notify_all()

    def end(self, exit_code: int = 0, reason: str = "") -> None:
        """The container ends, and its log with it."""
        ended = {"exitCode": exit_code, "reason": reason or ("Error" if exit_code else "Completed")}
        phase = "Failed" if exit_code else "Succeeded"
        self.status = {"phase": phase, "containerStatuses": [{"name": "index", "state": {"terminated": ended}}]}
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def follow(self, position: int = 0) -> Iterator[str]:
        """Every line from this one on, until the container has ended."""
        while True:
            with self.changed:
                while not self.ended and len(self.lines) == position:
                    self.changed.wait()
                lines = self.lines[position:]
                if not lines:
                    return
            yield from lines
            position += len(lines)

    def wait_started(self, reason: str, message: str) -> None:
        """The container cannot start."""
        state = {"waiting": {"reason": reason, "message": message}}
        self.status = {"phase": "Pending", "containerStatuses": [{"name": "index", "state": state}]}

    def wait_scheduled(self, message: str) -> None:
        """No node takes the pod."""
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        self.status = {"phase": "Pending", "conditions": [condition]}

    def as_json(self) -> dict[str, Any]:
        """As the API server lists it."""
        labels = {"batch.kubernetes.io/job-completion-index": str(self.shard)}
        created = f"2026-01-01T00:00:{int(self.name.rpartition('-')[2]):02}Z"
        return {"metadata": {"name": self.name, "labels": labels, "creationTimestamp": created}, "status": self.status}


class KubernetesApi:
    """Listens on a free port. Set its state before, and while, a command talks to it."""

    def __init__(self, folder: Path) -> None:
        """folder: where the kubeconfig file goes."""
        self.config_maps: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: list[Pod] = []
        self.requests: list[tuple[str, str]] = []  # verb and resource, as RBAC says them
        self.refusals: dict[tuple[str, str], tuple[int, str]] = {}
        self.on_create: Callable[[str], None] = lambda name: None
        self.on_read: Callable[[int], None] = lambda reads: None  # before the Job is read for the n-th time
        self.reads = 0
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.kubeconfig = folder / "kubeconfig"
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "here", "context": CONTEXT}],
            "current-context": "here",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def install(self, fullname: str = "docs-nearshore", job: Mapping[str, Any] | None = None) -> None:
        """What `helm install` leaves: the ConfigMap with the template."""
        name = f"{fullname}-index-job"
        self.config_maps[name] = {"metadata": {"name": name}, "data": {"job.yaml": yaml.safe_dump(job or template())}}

    def add_pod(self, shard: int) -> Pod:
        """A pod that waits for a node."""
        self.pods.append(Pod(f"pod-{len(self.pods)}", shard))
        return self.pods[-1]

    def set_status(self, name: str, **status: Any) -> None:
        """The status of a Job."""
        self.jobs[name]["status"] = status

    def finish(self, name: str, *, failed: str = "", message: str = "") -> None:
        """The Job's verdict: complete, or failed with these indexes."""
        kind = "Failed" if failed or message else "Complete"
        conditions = [{"type": kind, "status": "True", "reason": "FailedIndexes" if failed else "", "message": message}]
        done = sorted({pod.shard for pod in self.pods} - {int(each) for each in failed.split(",") if each})
        completed = ",".join(map(str, done))
        self.set_status(name, conditions=conditions, completedIndexes=completed, failedIndexes=failed)

    def stop(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: ClassVar[KubernetesApi]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts, query = url.path.split("/"), {name: values[0] for name, values in parse_qs(url.query).items()}
        place = parts.index("namespaces") + 2
        resource, name = parts[place], parts[place + 1] if len(parts) > place + 1 else ""
        if parts[-1] == "log":
            return self._log(name, query)
        if not self._allowed("get" if name else "list", resource):
            return None
        if resource == "configmaps":
            return self._found(name, resource, self.api.config_maps)
        if resource == "pods":
            assert query["labelSelector"].removeprefix("batch.kubernetes.io/job-name=") in self.api.jobs
            return self._answer({"items": [pod.as_json() for pod in self.api.pods]})
        self.api.reads += 1
        self.api.on_read(self.api.reads)
        return self._found(name, "jobs.batch", self.api.jobs)

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed("create", "jobs"):
            return
        job["metadata"]["name"] = name = job["metadata"]["generateName"] + "x7k2p"
        self.api.jobs[name] = job
        self.api.on_create(name)
        self._answer(job, 201)

    def _log(self, name: str, query: Mapping[str, str]) -> None:
        if not self._allowed("get", "pods/log"):
            return
        pod = next((each for each in self.api.pods if each.name == name), None)
        if pod is None:
            self._refuse(404, f'pods "{name}" not found')
        elif "follow" not in query:
            text = "".join(f"{line}\n" for line in pod.lines[-int(query["tailLines"]) :])
            self._send(200, text.encode(), "text/plain")
        else:
            self._follow(pod, query)

    def _follow(self, pod: Pod, query: Mapping[str, str]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        since = datetime.fromisoformat(query.get("sinceTime", FIRST_MOMENT.isoformat()))
        assert since.microsecond == 0
        first = max(0, len(pod.lines) - int(query.get("tailLines", len(pod.lines))))
        for number, line in enumerate(pod.follow(first), first):
            if number == pod.cut_after:
                pod.cut_after = None
                self.close_connection = True
                return
            written_at = FIRST_MOMENT + number * LINE_INTERVAL
            if written_at >= since:
                self._chunk(f"{written_at.isoformat(timespec='microseconds')} {line}\n")
            if number + 1 == pod.stop_after:
                pod.stop_after = None
                if pod.node_says:
                    self._chunk(f"{pod.node_says}\n")
                break
        self._chunk("")

    def _chunk(self, text: str) -> None:
        """Part of an answer; an empty one ends it."""
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _allowed(self, verb: str, resource: str) -> bool:
        self.api.requests.append((verb, resource))
        if (verb, resource) in self.api.refusals:
            self._refuse(*self.api.refusals[verb, resource])
            return False
        return True

    def _found(self, name: str, resource: str, all_of_them: Mapping[str, Mapping[str, Any]]) -> None:
        if name in all_of_them:
            self._answer(all_of_them[name])
        else:
            self._refuse(404, f'{resource} "{name}" not found')

    def _refuse(self, status: int, message: str) -> None:
        self._answer({"kind": "Status", "status": "Failure", "message": message, "code": status}, status)

    def _answer(self, content: Mapping[str, Any], status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
