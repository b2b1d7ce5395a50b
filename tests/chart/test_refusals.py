"""Values that cannot work are refused when Helm renders, with a sentence that says why."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.charts import CLUSTER, Helm, RefusedError

CRON = {"enabled": True, "sources": ["/sources"], "claim": "docs"}
IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "a dot in the name": ({"fullnameOverride": "my.app"}, "would be called my.app.*set fullnameOverride"),
    "a name that begins with a digit": ({"fullnameOverride": "1app"}, "would be called 1app.*set fullnameOverride"),
    "replicas on one volume": ({"replicas": 2}, "one writer: set store.url.secretName"),
    "autoscaling on one volume": ({"autoscaling": {"enabled": True}}, "one writer: set store.url.secretName"),
    "autoscaling upside down": (
        CLUSTER | {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}},
        r"minReplicas \(5\) is more than autoscaling.maxReplicas \(4\)",
    ),
    "autoscaling on nothing": (
        CLUSTER | {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
        "set resources.requests.cpu",
    ),
    "a claim beside PostgreSQL": (
        CLUSTER | {"persistence": {"existingClaim": "books"}},
        "documents live in PostgreSQL",
    ),
    "a class beside PostgreSQL": (CLUSTER | {"persistence": {"storageClass": "fast"}}, "documents live in PostgreSQL"),
    "a claim that is not used": (
        {"persistence": {"enabled": False, "existingClaim": "books"}},
        "the claim would not be used",
    ),
    "no time to end": (CLUSTER | {"terminationGracePeriodSeconds": 30}, "drain and grace need 40"),
    "calls and metrics on one port": ({"metrics": {"port": 50051}}, "choose another"),
    "a monitor of nothing": ({"metrics": {"enabled": False, "podMonitor": True}}, "nothing to scrape"),
    "a cron job without sources": ({"indexCronJob": {"enabled": True}}, "needs indexCronJob.sources"),
    "a cron job without files": ({"indexCronJob": CRON | {"claim": ""}}, "set indexCronJob.claim"),
    "shards without PostgreSQL": ({"indexCronJob": CRON | {"shards": 2}}, "shards write straight to PostgreSQL"),
    "a door that is locked": ({"service": {"type": "LoadBalancer"}}, "name them in networkPolicy.from"),
    "a setting that the chart owns": ({"config": {"server": {"grace_s": 5}}}, "decided by server.graceSeconds"),
    "a password among the settings": (
        {"config": {"store": {"url": "postgresql://me:secret@db/x"}}},
        "decided by store.url.secretName",
    ),
}
UNKNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "a value that does not exist": ({"replicaCount": 3}, "replicaCount"),
    "a value below another": ({"store": {"url": {"secret": "x"}}}, "secret"),
    "a setting that does not exist": ({"config": {"index": {"ef_serach": 200}}}, "ef_serach"),
    "a section that does not exist": ({"config": {"indexes": {"ef_search": 200}}}, "indexes"),
    "a setting out of its range": ({"config": {"index": {"ef_search": 0}}}, "ef_search"),
    "a number that is a word": ({"replicas": "three"}, "replicas"),
    "a quantity that is none": ({"persistence": {"size": "10 GB"}}, "size"),
    "a job gone before its end is read": ({"indexJob": {"ttlSecondsAfterFinished": 0}}, "ttlSecondsAfterFinished"),
    "a budget that blocks every drain": (CLUSTER | {"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable"),
}


@pytest.mark.parametrize(("values", "sentence"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_impossible_combinations_are_refused(helm: Helm, values: dict[str, Any], sentence: str) -> None:
    """Nothing is rendered, and the message says what is wrong and what to set."""
    with pytest.raises(RefusedError, match=sentence):
        helm.render(values)


@pytest.mark.parametrize("release", ["my.app", "1app"])
def test_a_release_that_no_service_can_be_named_after_is_refused(helm: Helm, release: str) -> None:
    """The message says what the objects would be called, and another name for them makes it good."""
    with pytest.raises(RefusedError, match=f"would be called {release}-nearshore.*set fullnameOverride"):
        helm.render(release=release)
    assert helm.render({"fullnameOverride": "my-app"}, release=release)


@pytest.mark.parametrize(("values", "name"), UNKNOWN.values(), ids=UNKNOWN.keys())
def test_what_the_schema_does_not_know_is_refused(helm: Helm, values: dict[str, Any], name: str) -> None:
    """A misspelt or impossible value never passes in silence; the message names it."""
    with pytest.raises(RefusedError, match=name):
        helm.render(values)


def test_a_parent_chart_may_share_values(helm: Helm) -> None:
    """Helm gives every child chart the values under `global`: they are no mistake."""
    assert helm.render({"global": {"team": "search"}})
