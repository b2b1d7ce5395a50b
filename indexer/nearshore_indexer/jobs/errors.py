"""What can go wrong between this process, a Kubernetes API server and a Job."""

from __future__ import annotations

from nearshore.errors import (
    InvalidArgumentError,
    InvalidSettingsError,
    NotFoundError,
    PreconditionError,
    ServiceError,
    UnavailableError,
)


class NoClusterError(InvalidSettingsError):
    """Nothing says which Kubernetes cluster to use."""

    reason = "NO_KUBERNETES"

    def __init__(self, detail: str) -> None:
        """detail: what is wrong with the configuration that was looked at."""
        super().__init__(
            f"Nothing usable says which Kubernetes cluster to use: {detail.rstrip('.')}.",
            "Set KUBECONFIG to a file with a current context; `kubectl get jobs` shows whether it works.",
        )


class KubernetesUnreachableError(UnavailableError):
    """The Kubernetes API server does not answer."""

    reason = "KUBERNETES_UNREACHABLE"

    def __init__(self, host: str, detail: str) -> None:
        """host: URL of the API server; detail: what happened."""
        super().__init__(
            f"The Kubernetes API server at {host} does not answer: {detail.rstrip('.')}.",
            "Check the network, and that the current context of KUBECONFIG is the cluster that is meant.",
            host=host,
        )


class KubernetesForbiddenError(PreconditionError):
    """The account may not do what an indexing Job needs."""

    reason = "KUBERNETES_FORBIDDEN"

    def __init__(self, verb: str, resource: str, namespace: str, detail: str) -> None:
        """verb, resource: as RBAC names them; detail: the API server's own words."""
        super().__init__(
            f"This account may not {verb} {resource} in the namespace {namespace}: {detail.rstrip('.')}.",
            f"indexJob.submitters of the chart grants what is needed: get configmaps, create and get jobs, list pods, "
            f"get pods/log. "
            f"`kubectl auth can-i {verb} {resource} --namespace {namespace}` tells whether it is granted.",
            verb=verb,
            resource=resource,
            namespace=namespace,
        )


class KubernetesRefusedError(PreconditionError):
    """The API server refused a request."""

    reason = "KUBERNETES_REFUSED"

    def __init__(self, asked: str, status: int, detail: str, remedy: str) -> None:
        """asked: verb and resource; status: of HTTP; detail: the API server's own words."""
        super().__init__(f"The Kubernetes API server refused to {asked}: {detail.rstrip('.')}.", remedy, status=status)
        self.status = status


class ReleaseNotFoundError(NotFoundError):
    """No release of the chart keeps a template of the indexing Job where it was looked for."""

    reason = "RELEASE_NOT_FOUND"

    def __init__(self, release: str, namespace: str) -> None:
        """release: as asked for."""
        super().__init__(
            f"The namespace {namespace} has no release {release} with an indexing Job.",
            "Run `helm install` with a PostgreSQL first (the Job writes to it), or name the release and its place with "
            "--release and --namespace; `helm list --all-namespaces` shows what there is.",
            release=release,
            namespace=namespace,
        )


class JobTemplateError(PreconditionError):
    """The template of the indexing Job is not what this release of nearshore can fill in."""

    reason = "JOB_TEMPLATE"

    def __init__(self, place: str, problem: str) -> None:
        """place: the ConfigMap; problem: what is wrong with it."""
        super().__init__(
            f"The Job template in {place} cannot be used: {problem}.",
            "Run `helm upgrade` with a chart of the same release as this command (`nearshore --version`).",
        )


class NoSourcesError(InvalidArgumentError):
    """A file was named that no pod of the Job would have."""

    reason = "NO_SOURCES"

    def __init__(self, source: str) -> None:
        """source: as it would be named in the pod."""
        super().__init__(
            f"No pod would find {source}: nothing is mounted there.",
            "Name a PersistentVolumeClaim that holds the files with --claim; paths are then relative to its root.",
        )


class JobNotFoundError(NotFoundError):
    """There is no such Job, or no more."""

    reason = "JOB_NOT_FOUND"

    def __init__(self, name: str, namespace: str) -> None:
        """name: of the Job."""
        super().__init__(
            f"There is no Job {name} in the namespace {namespace}.",
            "It was deleted, or removed some time after its end (indexJob.ttlSecondsAfterFinished of the chart); "
            "`kubectl get jobs` lists those that are there. What was indexed is stored.",
            job=name,
            namespace=namespace,
        )


class JobFailedError(ServiceError):
    """The indexing Job ended without finishing every shard."""

    reason = "JOB_FAILED"

    def __init__(self, name: str, namespace: str, detail: str) -> None:
        """name: of the Job; detail: which shards failed, and why."""
        super().__init__(
            f"The Job {name} failed: {detail.rstrip('.')}.",
            "The last lines of the failed shards are above. Mend the cause and run the same command again: what is "
            f"indexed already is not embedded again. `kubectl describe job {name} --namespace {namespace}` shows more.",
            job=name,
            namespace=namespace,
        )
