"""Every value of the chart, in one typed model: values.yaml and values.schema.json are generated from it.

The value `config` is described by its sections alone: the server's own settings complete its schema.
"""

from __future__ import annotations

from pydantic import Field

from helm.sections import (
    Autoscaling,
    Image,
    IndexCronJob,
    IndexJob,
    Metrics,
    Name,
    NetworkPolicy,
    Persistence,
    PodDisruptionBudget,
    Pods,
    Resources,
    Scratch,
    Seconds,
    Section,
    Server,
    Service,
    ServiceAccount,
    Store,
    TopologySpread,
)


class Values(Section):
    """All values of the chart."""

    replicas: int = Field(
        default=1,
        description="Pods that serve. More than one needs store.url: a volume has one writer.",
        ge=0,
        le=1_000,
    )
    image: Image = Field(default=Image(), description="The image of all pods.")
    store: Store = Field(
        default=Store(),
        description="Where documents live. Empty (embedded shape): a SQLite file on the volume of one pod. With the "
        "URL of PostgreSQL (cluster shape): there, and pods keep nothing that matters. An acknowledged write survives "
        "a fail-over of PostgreSQL only if PostgreSQL replicates synchronously.",
    )
    persistence: Persistence = Field(default=Persistence(), description="The volume of the embedded shape.")
    scratch: Scratch = Field(default=Scratch(), description="Disk of the nodes that pods use and may lose.")
    config: dict[str, dict[str, str | int | float | bool]] = Field(
        default={"index": {"build_memory_bytes": 2 << 30}},
        description="Settings of the server and of indexing by section and name, as docs/settings.md lists them. "
        "A change restarts the pods one by one. The default keeps index builds within the memory limit below.",
    )
    resources: Resources = Field(
        default=Resources(requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": 2, "memory": "4Gi"}),
        description="CPU and memory of a serving pod. Pods of 2 to 4 cores, and more of them, do best.",
    )
    server: Server = Field(default=Server(), description="How pods end, and how long connections live.")
    termination_grace_period_seconds: Seconds = Field(
        default=0, description="When Kubernetes kills a pod that was asked to end; 0: drain + grace + 15 seconds."
    )
    service: Service = Field(
        default=Service(),
        description="The Service for callers; a headless one, for clients that balance, stands beside it.",
    )
    metrics: Metrics = Field(default=Metrics(), description="Prometheus metrics.")
    autoscaling: Autoscaling = Field(
        default=Autoscaling(), description="Replicas by load. Cluster shape only; needs metrics-server."
    )
    pod_disruption_budget: PodDisruptionBudget = Field(
        default=PodDisruptionBudget(), description="What node drains may take away at once. Cluster shape only."
    )
    topology_spread: TopologySpread = Field(
        default=TopologySpread(), description="How replicas are kept apart. Cluster shape only."
    )
    network_policy: NetworkPolicy = Field(default=NetworkPolicy(), description="Who may reach the pods.")
    service_account: ServiceAccount = Field(
        default=ServiceAccount(),
        description="Whom pods run as. The server never asks the Kubernetes API and gets no token.",
    )
    index_job: IndexJob = Field(
        default=IndexJob(), description="Pods that index, of `nearshore index --kubernetes` and of the CronJob."
    )
    index_cron_job: IndexCronJob = Field(
        default=IndexCronJob(),
        description="Index the same sources regularly; what did not change is not embedded again.",
    )
    pods: Pods = Field(default=Pods(), description="What is added to the serving pods, as Kubernetes has it.")
    fullname_override: Name = Field(
        default="",
        description="Name of all objects, instead of RELEASE (where it contains `nearshore`) or RELEASE-nearshore.",
    )
