"""The sections of the chart's values, in the order of `helm.values.Values`, which joins them.

Names are written as in Python and appear in camelCase.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")] | int | float
Name = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", max_length=253)]
Strings = dict[str, str]
Objects = list[dict[str, Any]]
Seconds = Annotated[int, Field(ge=0, le=86_400)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class Section(BaseModel):
    """Values below one name; others are refused."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")


class Image(Section):
    """Where the image comes from."""

    repository: str = Field(default="nearshore", description="Registry and name; `make image` builds it.", min_length=1)
    tag: str = Field(default="", description="Its tag; empty: the chart's appVersion.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="Always, IfNotPresent or Never."
    )
    pull_secrets: Objects = Field(
        default=[], description="Secrets for a private registry, as in [{name: registry-login}]."
    )


class StoreUrl(Section):
    """The Secret that holds the URL of PostgreSQL."""

    secret_name: Name = Field(
        default="",
        description="Name of a Secret in the release's namespace. Set: cluster shape. Empty: embedded shape. "
        "Pods read the Secret when they start: after a change run kubectl rollout restart.",
    )
    secret_key: str = Field(
        default="url",
        description="Its key that holds postgresql://user:password@host:5432/database?options",
        pattern=r"^[-._a-zA-Z0-9]+$",
    )


class Store(Section):
    """The store of documents."""

    url: StoreUrl = Field(default=StoreUrl(), description="The Secret that holds the URL of PostgreSQL.")


class Persistence(Section):
    """The volume of the embedded shape."""

    enabled: bool = Field(
        default=True,
        description="Whether documents lie on a volume; false: they are gone with the pod, for trials only.",
    )
    size: Quantity = Field(
        default="10Gi", description="Size of the volume; Kubernetes refuses to change it in an upgrade."
    )
    storage_class: str = Field(default="", description="StorageClass of the volume; empty: the cluster's default.")
    existing_claim: Name = Field(default="", description="A PersistentVolumeClaim to use instead of making one.")


class Scratch(Section):
    """Disk that a pod may lose."""

    size_limit: Quantity = Field(
        default="10Gi",
        description="Most that a pod of the cluster shape, or of the index Job, keeps on its node: copies of texts "
        "and built indexes, made again from the store when lost. Beyond it Kubernetes evicts the pod.",
    )
    tmp_size_limit: Quantity = Field(default="1Gi", description="Most that any pod keeps in /tmp.")


class Resources(Section):
    """What a container asks for and may use."""

    requests: dict[str, Quantity] = Field(description="What a pod is sure to get.")
    limits: dict[str, Quantity] = Field(description="What it may use. Without a CPU limit it starts a thread a core.")


class Server(Section):
    """How the server ends, and how long connections live."""

    min_ready_seconds: Seconds = Field(
        default=10,
        description="How long a new pod is ready before an update takes the next old one away. Names are cached for up "
        "to 30 seconds: faster, and clients would know only pods that are gone. Cluster shape only.",
    )
    drain_seconds: Seconds = Field(
        default=5,
        description="How long a pod that ends still answers calls while it already says that it is not ready, so that "
        "nobody is sent to a pod that is gone: what a preStop hook is used for elsewhere. Cluster shape only.",
    )
    grace_seconds: Seconds = Field(default=20, description="How long calls in flight may then take to finish.", le=600)
    max_connection_age_seconds: Seconds = Field(
        default=15,
        description="Age at which a connection is asked, between calls, to end, so that clients look the name up "
        "again and find new replicas; 0: never. Cluster shape only.",
    )
    max_connection_age_grace_seconds: Seconds = Field(
        default=600,
        description="How long calls on such a connection may still take: as long as the longest that a client waits "
        "for (10 minutes, when indexing), else it would fail however often it is tried.",
    )


class Service(Section):
    """The Service that takes calls; a headless one for client-side balancing stands beside it."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = Field(
        default="ClusterIP",
        description="ClusterIP, LoadBalancer or NodePort. There is no authentication yet: keep it inside.",
    )
    annotations: Strings = Field(default={}, description="Annotations of both Services.")


class Metrics(Section):
    """Prometheus metrics."""

    enabled: bool = Field(default=True, description="Whether pods serve /metrics.")
    port: Port = Field(default=9464, description="On this port.")
    annotations: bool = Field(default=True, description="Whether pods carry prometheus.io/scrape, /port and /path.")
    pod_monitor: bool = Field(
        default=False,
        description="Whether to make a PodMonitor; needs the custom resources of the Prometheus operator.",
    )


class Autoscaling(Section):
    """The HorizontalPodAutoscaler of the cluster shape; needs metrics-server in the cluster."""

    enabled: bool = Field(
        default=False,
        description="Whether the number of replicas follows the load; `replicas` is ignored. Turned on in a running "
        "release, the present number is kept until the autoscaler changes it. (Where the release is not applied on the "
        "server, as by Helm 3, Kubernetes goes to one replica for some seconds first: with Helm 4, run helm upgrade "
        "--server-side=true before.) Back to `false`, or to the revision that turned it on, Helm 4 wants "
        "--force-conflicts, for the number belongs to the autoscaler.",
    )
    min_replicas: int = Field(default=2, description="Never fewer.", ge=1)
    max_replicas: int = Field(default=10, description="Never more.", ge=1)
    target_cpu: int = Field(
        default=70,
        alias="targetCPUUtilizationPercentage",
        description="Per cent of the requested CPU that pods use on average when their number is right.",
        ge=1,
        le=1_000,
    )
    scale_down_stabilization_seconds: int = Field(
        default=300, description="How long the load must be low before replicas are taken away.", ge=0, le=3_600
    )


class PodDisruptionBudget(Section):
    """What node drains may take away at once. Cluster shape only."""

    enabled: bool = Field(default=True, description="Whether to make one.")
    max_unavailable: Annotated[int, Field(ge=1)] | Annotated[str, StringConstraints(pattern="^[1-9][0-9]?%$")] = Field(
        default=1, description="Pods, or per cent of them as in 25%, that may be away at once."
    )


class TopologySpread(Section):
    """How replicas are kept apart. Cluster shape only."""

    enabled: bool = Field(default=True, description="Whether to spread them.")
    keys: list[str] = Field(
        default=["topology.kubernetes.io/zone", "kubernetes.io/hostname"], description="Node labels to spread over."
    )
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = Field(
        default="ScheduleAnyway",
        description="ScheduleAnyway: spread if possible. DoNotSchedule: rather leave a pod pending.",
    )


class NetworkPolicy(Section):
    """Who may reach the pods. Needs a network that enforces it."""

    enabled: bool = Field(
        default=True,
        description="Whether to let only pods of the release's namespace, and `from`, call the server. There is no "
        "authentication yet: who reaches the port can read and delete everything. Metrics stay open.",
    )
    from_: Objects = Field(
        default=[],
        alias="from",
        description="Further callers as NetworkPolicy peers, as in "
        "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}].",
    )
    egress: Objects = Field(
        default=[],
        description="Rules for what pods may reach; name resolution is added. Empty: everything. As in "
        "[{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 5432}]}].",
    )


class ServiceAccount(Section):
    """Whom the pods run as. The server never asks the Kubernetes API: no token is mounted, no role is bound."""

    create: bool = Field(default=True, description="Whether to make one.")
    name: Name = Field(
        default="", description="Its name; empty: the release's full name, or `default` when none is made."
    )
    annotations: Strings = Field(default={}, description="Its annotations, as cloud providers' identities ask for.")


class IndexJob(Section):
    """Pods that index: of the Jobs that `nearshore index --kubernetes` starts, and of the CronJob."""

    resources: Resources = Field(
        default=Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": 2, "memory": "2Gi"}),
        description="CPU and memory of one shard. A shard is one pod; more shards are faster than larger ones.",
    )
    ttl_seconds_after_finished: int = Field(
        default=3600,
        description="How long a finished Job and its logs are kept, for `nearshore index --kubernetes` to read; at "
        "least a minute.",
        ge=60,
    )
    retries_per_shard: Annotated[int, Field(ge=0)] = Field(
        default=6, description="How often a shard that failed starts again; it skips what is already there."
    )
    submitters: Objects = Field(
        default=[],
        description="Who may start Jobs, as RBAC subjects: [{kind: ServiceAccount, name: pipeline, namespace: data}]. "
        "They get a Role for that and no more. Empty: no Role.",
    )
    node_selector: Strings = Field(default={}, description="Labels of the nodes to run on.")
    tolerations: Objects = Field(default=[], description="Taints of nodes to put up with.")


class IndexCronJob(Section):
    """Index the same sources again and again; what did not change is not embedded again."""

    enabled: bool = Field(default=False, description="Whether to make one.")
    schedule: str = Field(default="17 3 * * *", description="When, in cron's five fields.", min_length=1)
    time_zone: str = Field(default="Etc/UTC", description="Time zone of the schedule.", min_length=1)
    suspend: bool = Field(default=False, description="Whether to pause it.")
    sources: list[str] = Field(default=[], description="Files and folders to index, as in [/sources/docs].")
    collection: str = Field(default="default", description="Where to put them.", min_length=1)
    shards: int = Field(
        default=1, description="Pods that share the work. More than one: cluster shape only.", ge=1, le=10_000
    )
    claim: Name = Field(default="", description="The PersistentVolumeClaim that is mounted, read-only, at /sources.")


class Pods(Section):
    """What is added to the pods of the server, as Kubernetes has it."""

    annotations: Strings = Field(default={}, description="Annotations.")
    labels: Strings = Field(default={}, description="Labels.")
    node_selector: Strings = Field(default={}, description="Labels of the nodes to run on.")
    tolerations: Objects = Field(default=[], description="Taints of nodes to put up with.")
    affinity: dict[str, Any] = Field(default={}, description="Affinity to nodes and other pods.")
    priority_class_name: str = Field(default="", description="PriorityClass.")
    env: Objects = Field(
        default=[], description="Environment variables, for indexing pods too; nearshore's own belong into `config`."
    )
    volumes: Objects = Field(
        default=[], description="Volumes, for indexing pods too, as with PostgreSQL's CA certificate."
    )
    volume_mounts: Objects = Field(default=[], description="Where these volumes are mounted.")
