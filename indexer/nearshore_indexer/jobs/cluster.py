"""The few requests to a Kubernetes API server that an indexing Job needs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from nearshore.errors import NearshoreError
from nearshore_indexer.jobs.errors import (
    JobNotFoundError,
    KubernetesForbiddenError,
    KubernetesRefusedError,
    KubernetesUnreachableError,
    NoClusterError,
    ReleaseNotFoundError,
)
from nearshore_indexer.jobs.states import JobState, PodState, job_state, pod_state
from nearshore_indexer.jobs.template import CONTAINER

CHART = "nearshore"
JOB_LABEL = "batch.kubernetes.io/job-name"
TEMPLATE_KEY = "job.yaml"
CONNECT_S, ANSWER_S = 5.0, 30.0
LOG_SILENCE_S = 60.0  # a log that says nothing for so long is asked for anew: the connection may be gone unnoticed
# Answers come as JSON: the client's models would refuse what a newer API server adds.
_PLAIN: dict[str, Any] = {"_preload_content": False, "_request_timeout": (CONNECT_S, ANSWER_S)}
_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Template:
    """A Job template that a release of the chart keeps."""

    place: str  # for messages
    text: str


def config_map_names(release: str) -> list[str]:
    """Where a release keeps the template: by the chart's rule for names, then under a fullnameOverride."""
    names = [f"{release}-index-job"]
    return names if CHART in release else [f"{release}-{CHART}-index-job", *names]


class Cluster:
    """One namespace of the cluster that KUBECONFIG, or the pod this runs in, names.

    Every method raises KubernetesUnreachableError, KubernetesForbiddenError or KubernetesRefusedError.
    """

    def __init__(self, namespace: str | None = None) -> None:
        """namespace: None is that of the context, or of the pod. Connects to nothing yet. Raises NoClusterError."""
        self._configuration, home = _configuration()
        self.namespace = namespace or home
        api = client.ApiClient(self._configuration)
        self._core = client.CoreV1Api(api)
        self._batch = client.BatchV1Api(api)

    def find_template(self, release: str) -> Template:
        """The Job template of a release. Raises ReleaseNotFoundError."""
        refused: KubernetesRefusedError | KubernetesForbiddenError | None = None
        for name in config_map_names(release):
            try:
                with self._asking("get", "configmaps"):
                    answer = self._core.read_namespaced_config_map(name, self.namespace, **_PLAIN)
                    text = (json.loads(answer.data).get("data") or {}).get(TEMPLATE_KEY, "")
                    return Template(f"the ConfigMap {name} (namespace {self.namespace})", text)
            except (KubernetesRefusedError, KubernetesForbiddenError) as error:
                refused = refused or error
        if isinstance(refused, KubernetesRefusedError) and refused.status == HTTPStatus.NOT_FOUND:
            raise ReleaseNotFoundError(release, self.namespace) from refused
        assert refused is not None
        raise refused

    def create_job(self, job: Mapping[str, Any]) -> str:
        """Create a Job; returns its name."""
        with self._asking("create", "jobs"):
            answer = self._batch.create_namespaced_job(self.namespace, job, **_PLAIN)
            name: str = json.loads(answer.data)["metadata"]["name"]
        return name

    def read_job(self, name: str) -> JobState:
        """How far a Job is. Raises JobNotFoundError."""
        try:
            with self._asking("get", "jobs"):
                return job_state(json.loads(self._batch.read_namespaced_job(name, self.namespace, **_PLAIN).data))
        except KubernetesRefusedError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise JobNotFoundError(name, self.namespace) from error
            raise

    def list_pods(self, job: str) -> list[PodState]:
        """The pods of a Job, those that ended included, oldest first."""
        with self._asking("list", "pods"):
            answer = self._core.list_namespaced_pod(self.namespace, label_selector=f"{JOB_LABEL}={job}", **_PLAIN)
            pods = [pod_state(each) for each in json.loads(answer.data)["items"]]
        return sorted(pods, key=lambda pod: (pod.created, pod.shard))

    def follow_log(
        self, pod: str, *, since: datetime | None = None, tail_lines: int | None = None
    ) -> Iterator[tuple[datetime | None, str]]:
        """The log of a pod as it grows, line by line: when it was written by the clock of its node, and what it says.

        Without a time it is no line of the log, but what the node says of reading it. Ends with the container, but also
        when the node can follow no more. since: only lines of that second and later; tail_lines: only so many of what
        is there.
        """
        options = {"container": CONTAINER, "follow": "true", "timestamps": "true"}
        if since is not None:
            options["sinceTime"] = since.isoformat(timespec="seconds")  # the node would cut off more
        if tail_lines is not None:
            options["tailLines"] = str(tail_lines)
        with self._asking("get", "pods/log"):
            answer = self._open_log(pod, options)
            try:
                for line in answer:
                    yield _timed(line.decode("utf-8", "replace").rstrip("\r\n"))
            finally:
                answer.close()

    def read_log(self, pod: str, tail_lines: int) -> list[str]:
        """The last lines of a pod's log."""
        with self._asking("get", "pods/log"):
            answer = self._core.read_namespaced_pod_log(
                pod, self.namespace, container=CONTAINER, tail_lines=tail_lines, **_PLAIN
            )
            text: bytes = answer.data
        return text.decode("utf-8", "replace").splitlines()

    def _open_log(self, pod: str, options: Mapping[str, str]) -> Any:
        """The answer to a request that CoreV1Api cannot make: it does not know sinceTime."""
        return self._core.api_client.call_api(
            "/api/v1/namespaces/{namespace}/pods/{name}/log",
            "GET",
            path_params={"namespace": self.namespace, "name": pod},
            query_params=list(options.items()),
            header_params={"Accept": "*/*"},
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=(CONNECT_S, LOG_SILENCE_S),
        )

    @contextmanager
    def _asking(self, verb: str, resource: str) -> Iterator[None]:
        """Turn what the client raises into errors that say what to do."""
        try:
            yield
        except client.ApiException as error:
            if not error.status:  # TLS
                raise KubernetesUnreachableError(self._configuration.host, _one_line(error.reason)) from error
            raise self._refusal(error, verb, resource) from error
        except urllib3.exceptions.HTTPError as error:
            raise KubernetesUnreachableError(self._configuration.host, _one_line(error)) from error

    def _refusal(self, error: client.ApiException, verb: str, resource: str) -> NearshoreError:
        status, detail = error.status, _server_message(error)
        match status:
            case HTTPStatus.FORBIDDEN:
                return KubernetesForbiddenError(verb, resource, self.namespace, detail)
            case HTTPStatus.UNAUTHORIZED:
                remedy = "Its credentials are wrong or have expired: log in to the cluster again."
            case HTTPStatus.NOT_FOUND:
                remedy = f"Check --namespace: it is {self.namespace}."
            case _ if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return KubernetesUnreachableError(self._configuration.host, detail)
            case _:
                remedy = "A policy of the cluster or the values of the chart forbid it: mend what it names."
        return KubernetesRefusedError(f"{verb} {resource}", status, detail, remedy)


def _timed(line: str) -> tuple[datetime | None, str]:
    """A line as it comes, in its two parts."""
    stamp, _, text = line.partition(" ")
    try:
        return datetime.fromisoformat(stamp).astimezone(UTC), text
    except ValueError:
        return None, line


def _configuration() -> tuple[Any, str]:
    """The client's configuration, and the namespace to work in. Raises NoClusterError."""
    configuration = client.Configuration()
    configuration.retries = False  # following a Job tries again by itself, and says so
    file = os.environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        config.load_kube_config(file, client_configuration=configuration)
        _, current = config.list_kube_config_contexts(file)
        return configuration, current["context"].get("namespace") or "default"
    except (config.ConfigException, yaml.YAMLError, OSError) as error:
        problem = f"{file}: {_one_line(error)}"
    try:
        config.load_incluster_config(client_configuration=configuration)
        return configuration, _ACCOUNT_NAMESPACE.read_text().strip()
    except (config.ConfigException, OSError):
        raise NoClusterError(problem) from None


def _server_message(error: client.ApiException) -> str:
    """What the API server says: the message of a v1 Status where it sent one."""
    try:
        return _one_line(json.loads(error.body)["message"])
    except (ValueError, TypeError, KeyError):
        return _one_line(error.reason or f"HTTP status {error.status}")


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:500]
