"""Every value of the chart, in one typed model: values.yaml and values.schema.json are generated from it.

Names are written as in Python and appear in camelCase. The value `config` is not described here: its schema is that of
the server's own settings.
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

    repository: str = Field("nearshore", description="Registry and name; `make image` builds it.", min_length=1)
    tag: str = Field("", description="Its tag; empty: the chart's appVersion.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="Always, IfNotPresent or Never."
    )
    pull_secrets: Objects = Field([], description="Secrets for a private registry, as in [{name: registry-login}].")


class StoreUrl(Section):
    """The Secret that holds the URL of PostgreSQL."""

    secret_name: Name = Field(
        "",
        description="Name of a Secret in the release's namespace. Set: cluster shape. Empty: embedded shape. "
        "Pods read the Secret when they start: after a change run kubectl rollout restart.",
    )
    secret_key: str = Field(
        "url",
        description="Its key that holds postgresql://user:password@host:5432/database?options",
        pattern=r"^[-._a-zA-Z0-9]+$",
    )


class Store(Section):
    """The store of documents."""

    url: StoreUrl = Field(StoreUrl(), description="The Secret that holds the URL of PostgreSQL.")


class Persistence(Section):
    """The volume of the embedded shape."""

    enabled: bool = Field(
        True, description="Whether documents lie on a volume; false: they are gone with the pod, for trials only."
    )
    size: Quantity = Field("10Gi", description="Size of the volume; Kubernetes refuses to change it in an upgrade.")
    storage_class: str = Field("", description="StorageClass of the volume; empty: the cluster's default.")
    existing_claim: Name = Field("", description="A PersistentVolumeClaim to use instead of making one.")


class Scratch(Section):
    """Disk that a pod may lose."""

    size_limit: Quantity = Field(
        "10Gi",
        description="Most that a pod of the cluster shape, or of the index Job, keeps on its node: copies of texts "
        "and built indexes, made again from the store when lost. Beyond it Kubernetes evicts the pod.",
    )
    tmp_size_limit: Quantity = Field("1Gi", description="Most that any pod keeps in /tmp.")


class Resources(Section):
    """What a container asks for and may use."""

    requests: dict[str, Quantity] = Field(description="What a pod is sure to get.")
    limits: dict[str, Quantity] = Field(description="What it may use. Without a CPU limit it starts a thread a core.")


class Server(Section):
    """How the server ends, and how long connections live."""

    drain_seconds: Seconds = Field(
        5,
        description="How long a pod that ends still answers calls while it already says that it is not ready, so that "
        "nobody is sent to a pod that is gone: what a preStop hook is used for elsewhere. Cluster shape only.",
    )
    grace_seconds: Seconds = Field(20, description="How long calls in flight may then take to finish.", le=600)
    max_connection_age_seconds: Seconds = Field(
        15,
        description="Age at which a connection is asked, between calls, to end, so that clients look the name up "
        "again and find new replicas; 0: never. Cluster shape only.",
    )
    max_connection_age_grace_seconds: Seconds = Field(
        30, description="How long calls on such a connection may still take."
    )


class Service(Section):
    """The Service that takes calls; a headless one for client-side balancing stands beside it."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = Field(
        "ClusterIP", description="ClusterIP, LoadBalancer or NodePort. There is no authentication yet: keep it inside."
    )
    annotations: Strings = Field({}, description="Annotations of both Services.")


class Metrics(Section):
    """Prometheus metrics."""

    enabled: bool = Field(True, description="Whether pods serve /metrics.")
    port: Port = Field(9464, description="On this port.")
    annotations: bool = Field(True, description="Whether pods carry prometheus.io/scrape, /port and /path.")
    pod_monitor: bool = Field(
        False, description="Whether to make a PodMonitor; needs the custom resources of the Prometheus operator."
    )


class Autoscaling(Section):
    """The HorizontalPodAutoscaler of the cluster shape; needs metrics-server in the cluster."""

    enabled: bool = Field(
        False,
        description="Whether the number of replicas follows the load; `replicas` is ignored. Best decided when "
        "installing: turned on later, Kubernetes goes to one replica for some seconds first; turned off again, Helm 4 "
        "wants --force-conflicts, for the number belongs to the autoscaler.",
    )
    min_replicas: int = Field(2, description="Never fewer.", ge=1)
    max_replicas: int = Field(10, description="Never more.", ge=1)
    target_cpu: int = Field(
        70,
        alias="targetCPUUtilizationPercentage",
        description="Per cent of the requested CPU that pods use on average when their number is right.",
        ge=1,
        le=1_000,
    )
    scale_down_stabilization_seconds: int = Field(
        300, description="How long the load must be low before replicas are taken away.", ge=0, le=3_600
    )


class PodDisruptionBudget(Section):
    """What node drains may take away at once. Cluster shape only."""

    enabled: bool = Field(True, description="Whether to make one.")
    max_unavailable: Annotated[int, Field(ge=1)] | Annotated[str, StringConstraints(pattern="^[1-9][0-9]?%$")] = Field(
        1, description="Pods, or per cent of them as in 25%, that may be away at once."
    )


class TopologySpread(Section):
    """How replicas are kept apart. Cluster shape only."""

    enabled: bool = Field(True, description="Whether to spread them.")
    keys: list[str] = Field(
        ["topology.kubernetes.io/zone", "kubernetes.io/hostname"], description="Node labels to spread over."
    )
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = Field(
        "ScheduleAnyway", description="ScheduleAnyway: spread if possible. DoNotSchedule: rather leave a pod pending."
    )


class NetworkPolicy(Section):
    """Who may reach the pods. Needs a network that enforces it."""

    enabled: bool = Field(
        True,
        description="Whether to let only pods of the release's namespace, and `from`, call the server. There is no "
        "authentication yet: who reaches the port can read and delete everything. Metrics stay open.",
    )
    from_: Objects = Field(
        [],
        alias="from",
        description="Further callers as NetworkPolicy peers, as in "
        "[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}].",
    )
    egress: Objects = Field(
        [],
        description="Rules for what pods may reach; name resolution is added. Empty: everything. As in "
        "[{to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 5432}]}].",
    )


class ServiceAccount(Section):
    """Whom the pods run as. The server never asks the Kubernetes API: no token is mounted, no role is bound."""

    create: bool = Field(True, description="Whether to make one.")
    name: Name = Field("", description="Its name; empty: the release's full name, or `default` when none is made.")
    annotations: Strings = Field({}, description="Its annotations, as cloud providers' identities ask for.")


class IndexJob(Section):
    """Pods that index: of the Jobs that `nearshore index --kubernetes` starts, and of the CronJob."""

    resources: Resources = Field(
        Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": 2, "memory": "2Gi"}),
        description="CPU and memory of one shard. A shard is one pod; more shards are faster than larger ones.",
    )
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] = Field(
        3600, description="How long a finished Job and its logs are kept."
    )
    retries_per_shard: Annotated[int, Field(ge=0)] = Field(
        6, description="How often a shard that failed starts again; it skips what is already there."
    )
    submitters: Objects = Field(
        [],
        description="Who may start Jobs, as RBAC subjects: [{kind: ServiceAccount, name: pipeline, namespace: data}]. "
        "They get a Role for that and no more. Empty: no Role.",
    )
    node_selector: Strings = Field({}, description="Labels of the nodes to run on.")
    tolerations: Objects = Field([], description="Taints of nodes to put up with.")


class IndexCronJob(Section):
    """Index the same sources again and again; what did not change is not embedded again."""

    enabled: bool = Field(False, description="Whether to make one.")
    schedule: str = Field("17 3 * * *", description="When, in cron's five fields.", min_length=1)
    time_zone: str = Field("Etc/UTC", description="Time zone of the schedule.", min_length=1)
    suspend: bool = Field(False, description="Whether to pause it.")
    sources: list[str] = Field([], description="Files and folders to index, as in [/sources/docs].")
    collection: str = Field("default", description="Where to put them.", min_length=1)
    shards: int = Field(1, description="Pods that share the work. More than one: cluster shape only.", ge=1, le=10_000)
    claim: Name = Field("", description="The PersistentVolumeClaim that is mounted, read-only, at /sources.")


class Pods(Section):
    """What is added to the pods of the server, as Kubernetes has it."""

    annotations: Strings = Field({}, description="Annotations.")
    labels: Strings = Field({}, description="Labels.")
    node_selector: Strings = Field({}, description="Labels of the nodes to run on.")
    tolerations: Objects = Field([], description="Taints of nodes to put up with.")
    affinity: dict[str, Any] = Field({}, description="Affinity to nodes and other pods.")
    priority_class_name: str = Field("", description="PriorityClass.")
    env: Objects = Field(
        [], description="Environment variables, for indexing pods too; nearshore's own belong into `config`."
    )
    volumes: Objects = Field([], description="Volumes, for indexing pods too, as with PostgreSQL's CA certificate.")
    volume_mounts: Objects = Field([], description="Where these volumes are mounted.")


class Values(Section):
    """All values of the chart."""

    replicas: int = Field(
        1, description="Pods that serve. More than one needs store.url: a volume has one writer.", ge=0, le=1_000
    )
    image: Image = Field(Image(), description="The image of all pods.")
    store: Store = Field(
        Store(),
        description="Where documents live. Empty (embedded shape): a SQLite file on the volume of one pod. With the "
        "URL of PostgreSQL (cluster shape): there, and pods keep nothing that matters. An acknowledged write survives "
        "a fail-over of PostgreSQL only if PostgreSQL replicates synchronously.",
    )
    persistence: Persistence = Field(Persistence(), description="The volume of the embedded shape.")
    scratch: Scratch = Field(Scratch(), description="Disk of the nodes that pods use and may lose.")
    config: dict[str, dict[str, str | int | float | bool]] = Field(
        {"index": {"build_memory_bytes": 2 << 30}},
        description="Settings of the server and of indexing by section and name, as docs/settings.md lists them. "
        "A change restarts the pods one by one. The default keeps index builds within the memory limit below.",
    )
    resources: Resources = Field(
        Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": 2, "memory": "4Gi"}),
        description="CPU and memory of a serving pod. Pods of 2 to 4 cores, and more of them, do best.",
    )
    server: Server = Field(Server(), description="How pods end, and how long connections live.")
    termination_grace_period_seconds: Seconds = Field(
        0, description="When Kubernetes kills a pod that was asked to end; 0: drain + grace + 15 seconds."
    )
    service: Service = Field(
        Service(), description="The Service for callers; a headless one, for clients that balance, stands beside it."
    )
    metrics: Metrics = Field(Metrics(), description="Prometheus metrics.")
    autoscaling: Autoscaling = Field(
        Autoscaling(), description="Replicas by load. Cluster shape only; needs metrics-server."
    )
    pod_disruption_budget: PodDisruptionBudget = Field(
        PodDisruptionBudget(), description="What node drains may take away at once. Cluster shape only."
    )
    topology_spread: TopologySpread = Field(
        TopologySpread(), description="How replicas are kept apart. Cluster shape only."
    )
    network_policy: NetworkPolicy = Field(NetworkPolicy(), description="Who may reach the pods.")
    service_account: ServiceAccount = Field(
        ServiceAccount(), description="Whom pods run as. The server never asks the Kubernetes API and gets no token."
    )
    index_job: IndexJob = Field(
        IndexJob(), description="Pods that index, of `nearshore index --kubernetes` and of the CronJob."
    )
    index_cron_job: IndexCronJob = Field(
        IndexCronJob(), description="Index the same sources regularly; what did not change is not embedded again."
    )
    pods: Pods = Field(Pods(), description="What is added to the serving pods, as Kubernetes has it.")
    fullname_override: Name = Field(
        "", description="Name of all objects, instead of RELEASE (where it contains `nearshore`) or RELEASE-nearshore."
    )
