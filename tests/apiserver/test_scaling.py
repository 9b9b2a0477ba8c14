"""The example for KEDA: what becomes of it is taken by the API server, and leaves a replica the time to be ready."""

from pathlib import Path

import pytest
import yaml

from kaito_hera import cluster as clusters
from kaito_hera import rollout
from kaito_hera.api import Workspace
from kaito_hera.settings import Settings
from tests import making

SCALER = clusters.Kind("HorizontalPodAutoscaler", "horizontalpodautoscalers", version="v2", group="autoscaling")
EXAMPLES = Path(__file__).parents[2] / "examples"
SCALED = yaml.safe_load((EXAMPLES / "scaling/keda.yaml").read_text())["spec"]


def scaler(namespace, scaled=SCALED):
    """The autoscaler that KEDA makes of a ScaledObject: each trigger is an external metric."""
    metrics = [
        {
            "type": "External",
            "external": {
                "metric": {"name": f"s{at}-{trigger['type']}"},
                "target": {"type": trigger["metricType"], "averageValue": trigger["metadata"]["threshold"]},
            },
        }
        for at, trigger in enumerate(scaled["triggers"])
    ]
    spec = {
        "scaleTargetRef": scaled["scaleTargetRef"],
        "minReplicas": scaled["minReplicaCount"],
        "maxReplicas": scaled["maxReplicaCount"],
        "behavior": scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
        "metrics": metrics,
    }
    return {"metadata": {"name": "keda-hpa", "namespace": namespace}, "spec": spec}


def test_the_api_server_takes_what_keda_makes_of_it(cluster, namespace):
    made = cluster.create(SCALER, scaler(namespace))
    assert len(made["spec"]["metrics"]) == 2
    assert made["spec"]["scaleTargetRef"]["kind"] == "Deployment"


@pytest.mark.parametrize("name", ["phi-3-mini-4k-instruct", "phi-4"])
def test_down_comes_later_than_a_new_replica_may_be_ready(name):
    workspace = Workspace.parse(making.edited(making.inference(), inference={"preset": {"name": name}}))
    down = SCALED["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= rollout.deadline(workspace, Settings())
    assert [policy["value"] for policy in down["policies"] if policy["type"] == "Pods"] == [1]


def test_while_one_is_not_ready_as_many_are_wanted_as_there_are():
    """The sum of a metric, by its threshold, is what an autoscaler wants; of several metrics it takes the largest."""
    held = SCALED["triggers"][1]
    assert (held["metricType"], held["metadata"]["threshold"]) == ("AverageValue", "1")
    replicas, unavailable = (
        f'max(kube_deployment_{figure}{{namespace="default", deployment="{SCALED["scaleTargetRef"]["name"]}"}}'
        for figure in ("spec_replicas", "status_replicas_unavailable")
    )
    assert held["metadata"]["query"] == f"{replicas}) * ({unavailable}) > bool 0)"
