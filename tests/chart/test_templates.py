"""What the chart renders, over a matrix of values."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from helm import generate
from nearshore.cli.indexing import CALL_TIMEOUT_S
from nearshore.exit_codes import ExitCode
from nearshore.settings import load_settings
from tests.chart.charts import (
    CLUSTER,
    MATRIX,
    Helm,
    Object,
    RefusedError,
    environment,
    job_template,
    load,
    of_kind,
    only,
    pods_of,
    server_of,
    with_job,
)
from tests.chart.living import deployment, living

VERSIONS = ("1.29", "1.31", "1.34", "1.37")
CUSTOM_KINDS = {"PodMonitor"}
ALL = ("--rejects", "-")  # into the log


@pytest.fixture(params=list(MATRIX))
def objects(request: pytest.FixtureRequest, helm: Helm) -> list[Object]:
    """The objects that one row of the matrix gives."""
    return helm.render(MATRIX[request.param])


@functools.cache
def _validate(text: str, version: str) -> None:
    """Strictly: a name that Kubernetes does not know is refused. The same object is looked at once."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


def _valid(each: Object, version: str) -> None:
    _validate(json.dumps(each, sort_keys=True), version)


@pytest.mark.parametrize("values", [{}, CLUSTER], ids=["embedded", "cluster"])
def test_lint_has_no_complaint(helm: Helm, values: dict[str, Any]) -> None:
    """Helm's own check passes without a warning."""
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(generate.CHART), values=values)


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_object(objects: list[Object], version: str) -> None:
    """Each object, and the Job in the ConfigMap, keeps strictly to the schemas of this Kubernetes."""
    for each in with_job(objects):
        if each["kind"] not in CUSTOM_KINDS:
            _valid(each, version)


def test_default_values_are_one_pod_on_a_volume(helm: Helm) -> None:
    """Nothing else is needed: no Secret, no database, no second pod."""
    objects = helm.render()
    server = only(objects, "StatefulSet")
    assert server["spec"]["replicas"] == 1
    assert [claim["metadata"]["name"] for claim in server["spec"]["volumeClaimTemplates"]] == ["data"]
    assert not {"Deployment", "ConfigMap", "PodDisruptionBudget"} & {each["kind"] for each in objects}
    assert "secretKeyRef" not in json.dumps(objects)


def test_cluster_values_are_replicas_without_volumes(helm: Helm) -> None:
    """The URL comes from the Secret, /data is scratch of a known size, and an update never has fewer replicas."""
    server = only(helm.render(CLUSTER), "Deployment")
    assert server["spec"]["replicas"] == 3
    assert server["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert server["spec"]["minReadySeconds"] == 10
    pod = server["spec"]["template"]["spec"]
    assert {"name": "data", "emptyDir": {"sizeLimit": "10Gi"}} in pod["volumes"]
    secret = {"secretKeyRef": {"name": "nearshore-store", "key": "url"}}
    assert {"name": "NEARSHORE_STORE__URL", "valueFrom": secret} in pod["containers"][0]["env"]


def test_the_cluster_values_file_is_the_cluster_shape(helm: Helm) -> None:
    """values-cluster.yaml gives what the tests call the cluster shape."""
    rendered = helm.run("template", "books", str(generate.CHART), "--values", str(generate.CLUSTER_VALUES))
    assert load(rendered) == load(helm.run("template", "books", str(generate.CHART), values=CLUSTER))


def test_selectors_find_the_serving_pods_only(objects: list[Object]) -> None:
    """Services, the budget and the policy choose the server's pods and never one that indexes or tests."""
    selectors = [each["spec"]["selector"] for each in of_kind(objects, "Service")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in of_kind(objects, "PodDisruptionBudget")]
    selectors += [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(objects, "NetworkPolicy")]
    server = server_of(objects)["spec"]
    selectors.append(server["selector"]["matchLabels"])
    others = [pod for pod in pods_of(objects) if pod is not server["template"]]
    assert others
    for selector in selectors:
        assert selector.items() <= server["template"]["metadata"]["labels"].items()
        assert not any(selector.items() <= pod["metadata"]["labels"].items() for pod in others)


def test_every_pod_is_confined(objects: list[Object]) -> None:
    """No root, no token, no capability, a read-only root file system; what is written lies on volumes of known size."""
    for pod in pods_of(objects):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            confined = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["securityContext"] == confined
            assert container["resources"]["requests"]["memory"]
            assert container["resources"]["limits"]["memory"]
        for volume in spec["volumes"]:
            if volume["name"] in {"data", "tmp"} and "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]


def test_calls_end_before_the_pod_is_killed(objects: list[Object]) -> None:
    """Drain and grace fit, with time to close files, between SIGTERM and SIGKILL."""
    pod = server_of(objects)["spec"]["template"]
    given = environment(pod)
    needed_s = int(given["NEARSHORE_SERVER__DRAIN_S"]) + int(given["NEARSHORE_SERVER__GRACE_S"])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= needed_s + 10


def test_a_connection_outlives_the_longest_call(helm: Helm) -> None:
    """A call that its client still waits for is not cut because its connection is asked to end."""
    given = environment(server_of(helm.render(CLUSTER))["spec"]["template"])
    assert int(given["NEARSHORE_SERVER__MAX_CONNECTION_AGE_GRACE_S"]) >= CALL_TIMEOUT_S


def test_a_restart_never_hangs_on_loading(objects: list[Object]) -> None:
    """Startup and liveness ask whether the process answers; only readiness asks whether it has loaded."""
    (container,) = server_of(objects)["spec"]["template"]["spec"]["containers"]
    assert (
        container["startupProbe"]["grpc"]
        == container["livenessProbe"]["grpc"]
        == {"port": 50051, "service": "liveness"}
    )
    assert container["readinessProbe"]["grpc"] == {"port": 50051}


def test_nearshore_takes_every_variable(objects: list[Object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of every pod is one that nearshore starts with: known names, possible values."""
    for pod in pods_of(objects):
        with monkeypatch.context() as patch:
            for name, value in environment(pod).items():
                patch.setenv(name, value)
            load_settings(data_dir=tmp_path)


def test_configuration_arrives_as_it_was_written(helm: Helm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large numbers keep their digits on the way through Helm, which reads them as floats."""
    pod = server_of(helm.render(MATRIX["everything that is added to pods"]))["spec"]["template"]
    for name, value in environment(pod).items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.index.build_memory_bytes == 1 << 33
    assert settings.index.poll_interval_s == 0.5
    assert settings.limits.max_text_bytes == 1_000_000
    assert settings.log.level == "debug"
    assert settings.server.drain_s == 10
    assert settings.metrics.port == 9464


def test_large_numbers_are_whole(helm: Helm) -> None:
    """Every number of Kubernetes is written as an integer and every size in bytes digit for digit, however large."""
    large = {
        "autoscaling": {"enabled": True, "minReplicas": 1_000_000, "maxReplicas": 2_000_000},
        "podDisruptionBudget": {"maxUnavailable": 1_000_000},
        "scratch": {"sizeLimit": 10_737_418_240, "tmpSizeLimit": 1_073_741_824},
        "indexJob": {"ttlSecondsAfterFinished": 1_209_600, "retriesPerShard": 1_000_000},
    }
    objects = helm.render(CLUSTER | large)
    job = job_template(objects)["spec"]
    assert (job["ttlSecondsAfterFinished"], job["backoffLimitPerIndex"]) == (1_209_600, 1_000_000)
    scaler = only(objects, "HorizontalPodAutoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1_000_000, 2_000_000)
    assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1_000_000
    limits = {each["name"]: each["emptyDir"]["sizeLimit"] for each in job["template"]["spec"]["volumes"][:2]}
    assert limits == {"tmp": 1_073_741_824, "data": 10_737_418_240}
    assert "e+" not in json.dumps(objects)


def test_a_changed_setting_replaces_the_pods(helm: Helm) -> None:
    """The pod template differs exactly when the configuration does, so Kubernetes rolls the pods then only."""
    before, same = (server_of(helm.render(CLUSTER))["spec"]["template"] for _ in range(2))
    changed = copy.deepcopy(CLUSTER) | {"config": {"log": {"level": "debug"}}}
    assert before == same
    assert server_of(helm.render(changed))["spec"]["template"] != before


def test_an_autoscaler_owns_the_number_of_replicas(helm: Helm) -> None:
    """With one, a new Deployment, or one that others than Helm apply, names no number that would be set back."""
    objects = helm.render(MATRIX["cluster that scales"])
    assert "replicas" not in only(objects, "Deployment")["spec"]
    target = only(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", only(objects, "Deployment")["metadata"]["name"])


@pytest.mark.parametrize(
    ("live", "named"),
    [
        (deployment(5, ("helm", "Apply", "")), 5),
        (deployment(5, ("helm-controller", "Apply", ""), ("kube-controller-manager", "Update", "scale")), 5),
        (deployment(1, ("helm", "Apply", "")), 3),
        (deployment(0, ("helm", "Apply", "")), 3),
        (deployment(50, ("helm", "Apply", "")), 10),
        (deployment(5, ("kube-controller-manager", "Update", "scale")), None),
        (deployment(5), None),
        (deployment(5, ("helm", "Update", "")), None),
    ],
    ids=[
        "named before",
        "by others too",
        "too few",
        "none",
        "too many",
        "the autoscaler's",
        "never named",
        "by Helm 3",
    ],
)
def test_a_number_that_helm_owns_stays_named(helm: Helm, live: Object, named: int | None) -> None:
    """Else Kubernetes would go to one replica; as soon as the autoscaler owns it, no upgrade names it any more."""
    with living(live) as api_server:
        upgrade = ("--is-upgrade", "--dry-run=server", "--kube-apiserver", api_server, "--disable-openapi-validation")
        command = ("template", "books", str(generate.CHART), "--namespace", "shop", *upgrade)
        rendered = load(helm.run(*command, values=MATRIX["cluster that scales"]))
    assert only(rendered, "Deployment")["spec"].get("replicas") == named


def test_the_job_template_can_be_filled_in(helm: Helm) -> None:
    """It is an Indexed Job with a container `index`, the store's URL, and the volume `sources` at /sources."""
    job = job_template(helm.render(CLUSTER))
    assert job["spec"]["completionMode"] == "Indexed"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "index"
    assert container["args"] == ["index"]
    assert "NEARSHORE_STORE__URL" in environment(job["spec"]["template"])
    assert {"name": "sources", "mountPath": "/sources", "readOnly": True} in container["volumeMounts"]


def test_a_shard_tries_again_only_what_may_go_better(helm: Helm) -> None:
    """A store that is away, a crash or a kill is tried again; what is refused once is refused always."""
    rules = job_template(helm.render(CLUSTER))["spec"]["podFailurePolicy"]["rules"]
    final = {code for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])}
    assert final == {ExitCode.FAILED, ExitCode.USAGE, ExitCode.REJECTED, ExitCode.NOT_FOUND}


def test_a_cron_job_indexes_its_sources(helm: Helm) -> None:
    """In the cluster shape straight into the store, shard by shard; in the embedded one through the server."""
    for row, told in {
        "embedded with a cron job": [
            "/sources/docs",
            "--collection",
            "default",
            *ALL,
            "--server",
            "books-nearshore:50051",
        ],
        "cluster with a cron job": ["/sources/a", "/sources/b", "--collection", "default", *ALL, "--shard", "auto/4"],
    }.items():
        job = only(helm.render(MATRIX[row]), "CronJob")["spec"]["jobTemplate"]["spec"]
        (container,) = job["template"]["spec"]["containers"]
        assert container["args"] == ["index", *told]
        assert {"name": "sources", "persistentVolumeClaim": {"claimName": "docs", "readOnly": True}} in job["template"][
            "spec"
        ]["volumes"]


def test_only_named_submitters_get_a_role(helm: Helm) -> None:
    """No role exists unless somebody is to start Jobs; the pods' own account never has one."""
    assert not of_kind(helm.render(CLUSTER), "Role")
    objects = helm.render(MATRIX["cluster with a cron job"])
    subjects = only(objects, "RoleBinding")["subjects"]
    assert subjects == [{"kind": "ServiceAccount", "name": "pipeline", "namespace": "data"}]


def test_a_pod_monitor_finds_the_metrics(helm: Helm) -> None:
    """It names the port that the pods have."""
    objects = helm.render({"metrics": {"podMonitor": True}})
    (endpoint,) = only(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    (container,) = server_of(objects)["spec"]["template"]["spec"]["containers"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}


@pytest.mark.parametrize(
    ("release", "expected"),
    [("books", "books-nearshore"), ("nearshore", "nearshore"), ("my-nearshore", "my-nearshore")],
)
def test_objects_are_named_after_the_release(helm: Helm, release: str, expected: str) -> None:
    """The release's name, and the chart's where that does not contain it."""
    assert server_of(helm.render(release=release))["metadata"]["name"] == expected


def test_names_of_digits_stay_names(helm: Helm) -> None:
    """What reads as a number or a truth value in YAML is still the text that Kubernetes wants."""
    values = {
        "fullnameOverride": "true",
        "serviceAccount": {"name": "007"},
        "pods": {"priorityClassName": "1"},
        "indexCronJob": {"enabled": True, "sources": ["/sources"], "claim": "2024"},
    }
    alone = helm.render(values | {"persistence": {"existingClaim": "1e3"}}, release="42")
    dynamic = helm.render(values | {"persistence": {"storageClass": "9"}}, release="42")
    cluster = {"store": {"url": {"secretName": "5432", "secretKey": "0"}}, "topologySpread": {"keys": ["1"]}}
    clustered = helm.render(values | cluster | {"autoscaling": {"enabled": True}}, release="42")
    for objects in (alone, dynamic, clustered):
        for each in with_job(objects):
            if each["kind"] not in CUSTOM_KINDS:
                _valid(each, VERSIONS[-1])
    claims = [each["persistentVolumeClaim"] for each in server_of(alone)["spec"]["template"]["spec"]["volumes"][1:]]
    assert claims == [{"claimName": "1e3"}]


def test_long_names_fit(helm: Helm) -> None:
    """With the longest release name that Helm takes, no object's name is too long for Kubernetes."""
    for each in with_job(helm.render(MATRIX["cluster with a cron job"], release="r" * 53)):
        name = each["metadata"].get("name") or each["metadata"]["generateName"]
        assert len(name) <= (52 if each["kind"] == "CronJob" else 63), name


@pytest.mark.parametrize("name", generate.MANIFESTS)
def test_manifests_are_fresh(helm: Helm, name: str) -> None:
    """What lies in k8s/ is what the chart renders: run make chart."""
    committed = (generate.ROOT / "k8s" / name).read_text()
    assert load(committed) == load(generate.render_manifest(helm.program, name))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["embedded.yaml", "cluster.yaml", "postgres.yaml", "sources.yaml"])
def test_kubernetes_knows_the_manifests(name: str, version: str) -> None:
    """Each object of k8s/ keeps strictly to the schemas of this Kubernetes."""
    for each in load((generate.ROOT / "k8s" / name).read_text()):
        _valid(each, version)


@pytest.mark.parametrize("values", [{}, CLUSTER], ids=["embedded", "cluster"])
def test_the_notes_name_the_next_command(helm: Helm, values: dict[str, Any]) -> None:
    """After an installation Helm says how to wait for it, test it and reach it, by its real name."""
    try:
        command = ("install", "books", str(generate.CHART), "--dry-run=client", "--namespace", "shop")
        printed = helm.run(*command, values=values)
    except RefusedError as error:
        if "unreachable" not in str(error):
            raise
        pytest.skip("this Helm asks a cluster even for a dry run")
    notes = printed.partition("NOTES:")[2]
    kind = "deployment" if values else "statefulset"
    assert f"kubectl --namespace shop rollout status {kind}/books-nearshore" in notes
    assert "helm test books --namespace shop" in notes
    assert "port-forward service/books-nearshore 50051" in notes
