"""A Kubernetes API server of a few lines that has one Deployment, for templates that look up what lives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
# All that the chart makes: Helm wants to know it before it renders anything with a cluster.
KINDS = {
    "v1": ("ConfigMap", "Pod", "Service", "ServiceAccount"),
    "apps/v1": ("Deployment",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
}


def discovery() -> dict[str, dict[str, Any]]:
    """What it answers to those who ask for its kinds, by path."""
    groups = []
    answers: dict[str, dict[str, Any]] = {"/version": VERSION, "/api": {"kind": "APIVersions", "versions": ["v1"]}}
    for group_version, kinds in KINDS.items():
        resources = [
            {"name": f"{kind.lower()}s", "singularName": "", "kind": kind, "namespaced": True, "verbs": ["get"]}
            for kind in kinds
        ]
        listed = {"kind": "APIResourceList", "groupVersion": group_version, "resources": resources}
        group, _, version = group_version.rpartition("/")
        answers[f"/apis/{group_version}" if group else "/api/v1"] = listed
        if group:
            named = {"groupVersion": group_version, "version": version}
            groups.append({"name": group, "versions": [named], "preferredVersion": named})
    return answers | {"/apis": {"kind": "APIGroupList", "groups": groups}}


def deployment(replicas: int, *owners: tuple[str, str, str]) -> dict[str, Any]:
    """A Deployment of so many replicas; owners: manager, operation and subresource of those who own the number."""
    owned: dict[str, Any] = {"f:spec": {"f:replicas": {}}}
    fields = [
        {"manager": manager, "operation": operation, "subresource": subresource, "fieldsV1": owned}
        for manager, operation, subresource in owners
    ]
    others = [
        {"manager": "helm", "operation": "Apply", "fieldsV1": {"f:spec": {"f:template": {}}}},
        {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {}}},
    ]
    metadata = {"name": "books-nearshore", "namespace": "shop", "managedFields": [*others, *fields]}
    return {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": metadata, "spec": {"replicas": replicas}}


@contextmanager
def living(deployment: Mapping[str, Any]) -> Iterator[str]:
    """The URL of an API server that has this one object."""
    place = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}".format_map(deployment["metadata"])
    answers: dict[str, Mapping[str, Any]] = {**discovery(), place: deployment}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            answer = answers.get(path, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})
            body = json.dumps(answer).encode()
            self.send_response(200 if path in answers else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
