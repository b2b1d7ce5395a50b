"""What the chart's tests render, and how."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from helm.generate import CHART

Object = dict[str, Any]
Values = dict[str, Any]

CLUSTER: Values = {"replicas": 3, "store": {"url": {"secretName": "nearshore-store"}}}

MATRIX: dict[str, Values] = {
    "embedded": {},
    "embedded on a claim": {"persistence": {"existingClaim": "books"}, "metrics": {"enabled": False}},
    "embedded without a volume": {"persistence": {"enabled": False}, "networkPolicy": {"enabled": False}},
    "embedded with a storage class": {"persistence": {"storageClass": "fast", "size": "1Ti"}, "replicas": 0},
    "embedded with a cron job": {"indexCronJob": {"enabled": True, "sources": ["/sources/docs"], "claim": "docs"}},
    "embedded with a cron job of the image's files": {"indexCronJob": {"enabled": True, "sources": ["/usr/share/doc"]}},
    "cluster": CLUSTER,
    "cluster that scales": CLUSTER | {"autoscaling": {"enabled": True, "minReplicas": 3}},
    "cluster with a cron job": CLUSTER
    | {
        "indexCronJob": {"enabled": True, "sources": ["/sources/a", "/sources/b"], "shards": 4, "claim": "docs"},
        "indexJob": {"submitters": [{"kind": "ServiceAccount", "name": "pipeline", "namespace": "data"}]},
    },
    "cluster behind a strict network": CLUSTER
    | {
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 5432}]}],
        },
        "podDisruptionBudget": {"maxUnavailable": "25%"},
        "topologySpread": {"whenUnsatisfiable": "DoNotSchedule", "keys": ["kubernetes.io/hostname"]},
    },
    "cluster without its extras": CLUSTER
    | {
        "metrics": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "topologySpread": {"enabled": False},
        "serviceAccount": {"create": False, "name": "shared"},
        "resources": {"limits": {"cpu": None}},
    },
    "everything that is added to pods": CLUSTER
    | {
        "image": {"repository": "images.example/nearshore", "tag": "9.9.9", "pullSecrets": [{"name": "login"}]},
        "config": {
            "index": {"build_memory_bytes": 1 << 33, "poll_interval_s": 0.5},
            "limits": {"max_text_bytes": 1_000_000},
            "log": {"level": "debug", "format": "json"},
        },
        "server": {"drainSeconds": 10, "graceSeconds": 300, "maxConnectionAgeSeconds": 0},
        "terminationGracePeriodSeconds": 400,
        "service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}},
        "networkPolicy": {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        "serviceAccount": {"annotations": {"example.com/role": "reader"}},
        "pods": {
            "annotations": {"example.com/team": "search"},
            "labels": {"team": "search"},
            "nodeSelector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [{"key": "search", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "priorityClassName": "high",
            "env": [{"name": "PGSSLROOTCERT", "value": "/certs/ca.crt"}],
            "volumes": [{"name": "certs", "secret": {"secretName": "postgres-ca"}}],
            "volumeMounts": [{"name": "certs", "mountPath": "/certs", "readOnly": True}],
        },
        "indexJob": {"nodeSelector": {"pool": "batch"}, "tolerations": [{"operator": "Exists"}]},
        "fullnameOverride": "search",
    },
}


class RefusedError(Exception):
    """Helm would not render these values; the message is what it printed."""


class Helm:
    """One Helm program."""

    def __init__(self, program: str, folder: Path) -> None:
        """Keep files of values in this folder."""
        self.program = program
        self._folder = folder
        self._rendered: dict[str, str] = {}

    def run(self, *arguments: str, values: Values | None = None) -> str:
        """What it prints on standard output. Raises RefusedError."""
        file = self._folder / "values.json"
        file.write_text(json.dumps(values or {}))
        command = [self.program, *arguments, "--values", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RefusedError(done.stderr)
        return done.stdout

    def render(self, values: Values | None = None, release: str = "books") -> list[Object]:
        """All objects of a release with these values; the same is rendered once."""
        key = json.dumps([release, values])
        if key not in self._rendered:
            self._rendered[key] = self.run("template", release, str(CHART), "--namespace", "shop", values=values)
        return load(self._rendered[key])


def load(text: str) -> list[Object]:
    """The objects of a manifest."""
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Those of one kind."""
    return [each for each in objects if each["kind"] == kind]


def only(objects: list[Object], kind: str) -> Object:
    """The only one of a kind."""
    (found,) = of_kind(objects, kind)
    return found


def server_of(objects: list[Object]) -> Object:
    """The Deployment or StatefulSet."""
    (found,) = of_kind(objects, "Deployment") + of_kind(objects, "StatefulSet")
    return found


def job_template(objects: list[Object]) -> Object:
    """The Job that `nearshore index --kubernetes` starts from."""
    (job,) = load(only(objects, "ConfigMap")["data"]["job.yaml"])
    return job


def with_job(objects: list[Object]) -> list[Object]:
    """The objects, and the Job that lies in the ConfigMap if there is one."""
    return [*objects, job_template(objects)] if of_kind(objects, "ConfigMap") else objects


def pods_of(objects: list[Object]) -> Iterator[Object]:
    """Every pod, or template of one, with metadata and spec."""
    for each in with_job(objects):
        match each["kind"]:
            case "Pod":
                yield each
            case "Deployment" | "StatefulSet" | "Job":
                yield each["spec"]["template"]
            case "CronJob":
                yield each["spec"]["jobTemplate"]["spec"]["template"]


def environment(pod: Object) -> dict[str, str]:
    """The variables of a pod's only container; those from the Secret have an address of nowhere."""
    (container,) = pod["spec"]["containers"]
    return {each["name"]: each.get("value", "postgresql://nowhere/db") for each in container.get("env", [])}
