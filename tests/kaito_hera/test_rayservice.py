"""A server over several nodes: what KubeRay is given, and what of its words is read."""

import json
import re
from pathlib import Path

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import nodes, rayservice, rollout, watched
from kaito_hera.settings import Settings
from tests import making
from workflows import asks

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(vllm_image="registry.example/serving-vllm:1")
SAID = {"reason": "BadModel", "message": "vLLM cannot serve the checkpoint", "retryable": False}
TOLD = f"The deployment failed to start 3 times in a row. Error:\nray::init\nRuntimeError: {json.dumps(SAID)}\n"


def made(name="w"):
    body = making.inference(annotations={"kaito.sh/runtime": "vllm"}, name=name)
    body["resource"] |= {"instanceType": "Standard_NC24ads_A100_v4", "count": 3}
    body["inference"]["preset"]["name"] = "llama-3.3-70b-instruct"
    parsed = making.parsed(body)
    server = asks.serving.expected(parsed, SETTINGS, want=nodes.wanted(parsed))
    placement = nodes.Placement(labels={"a": "b"}, whole=2)
    return server, rollout.objects(parsed, SETTINGS, server, placement)


def test_one_node_is_the_head_and_the_others_work_for_it():
    server, objects = made()
    spec = objects[clusters.RAY_SERVICE]["spec"]
    config = spec["rayClusterConfig"]
    [workers] = config["workerGroupSpecs"]
    assert clusters.DEPLOYMENT not in objects
    assert [workers[key] for key in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 2]
    assert json.loads(server.files["serving.json"])["nodes"] == 3
    assert spec["upgradeStrategy"] == {"type": "None"}
    assert config["authOptions"] == {"mode": "token"}
    for group in (config["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert not {"command", "args", "startupProbe", "livenessProbe"} & container.keys()
        assert "RAY_AUTH_TOKEN" not in {each["name"] for each in container["env"]}
        assert container["securityContext"] == pod["initContainers"][0]["securityContext"]
        assert pod["nodeSelector"] == {"a": "b"}


def test_ray_serve_is_told_what_to_run_and_where_to_listen():
    serve = json.loads(made()[1][clusters.RAY_SERVICE]["spec"]["serveConfigV2"])
    assert serve["http_options"]["port"] == 5000
    assert serve["proxy_location"] == "HeadOnly"
    [application] = serve["applications"]
    assert application["args"] == {"config": "/etc/kaito/serving/serving.json"}
    module, _, function = application["import_path"].partition(":")
    assert f"def {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text()


def test_ray_is_of_the_version_that_the_image_has():
    [pinned] = re.findall(r"^ray==(\S+)", (ROOT / "requirements/vllm.txt").read_text(), re.MULTILINE)
    assert pinned == rayservice.RAY


def test_a_long_name_is_cut_to_what_kuberay_takes():
    name = "w" + "o" * 59
    assert len(made(name)[1][clusters.RAY_SERVICE]["metadata"]["name"]) == 47
    assert made(name)[1][clusters.SERVICE]["metadata"]["name"] == name


def test_other_pods_are_another_ray_service():
    first, second = made()[1][clusters.RAY_SERVICE], made()[1][clusters.RAY_SERVICE]
    assert rayservice.stays(first, second)
    second["metadata"]["annotations"] = {}
    assert not rayservice.stays(first, second)


def test_one_that_ray_serve_gave_up_is_made_anew():
    assert rayservice.stays(service(status="DEPLOYING", message=TOLD), made()[1][clusters.RAY_SERVICE])
    assert not rayservice.stays(service(status="DEPLOY_FAILED", message=TOLD), made()[1][clusters.RAY_SERVICE])


def service(ready="False", reason="Initializing", says="", **application):
    condition = {"type": "Ready", "status": ready, "reason": reason, "message": says}
    status = {"observedGeneration": 1, "conditions": [condition]}
    status["pendingServiceStatus"] = {"applicationStatuses": {"default": application}} if application else {}
    return {**made()[1][clusters.RAY_SERVICE], "status": status}


@pytest.mark.parametrize(
    ("found", "ready", "why"),
    [
        (service(), 0, ""),
        (service("True", "NonZeroServeEndpoints"), 1, ""),
        (service("False", "ValidationFailed", "name too long"), 0, "name too long"),
        (service(status="DEPLOYING", message="wait"), 0, ""),
        (service(status="DEPLOY_FAILED", message=TOLD), 0, TOLD),
    ],
    ids=["begins", "answers", "not-taken", "loads", "failed"],
)
def test_it_is_read_as_a_deployment_of_one_replica(found, ready, why):
    read = rayservice.as_deployment(found)
    assert (read["spec"]["replicas"], read["status"]["readyReplicas"]) == (1, ready)
    assert [each["message"] for each in read["status"]["conditions"]] == ([why] if why else [])
    assert watched.made(clusters.RAY_SERVICE, "kaito-hera").trim(found)["status"]["readyReplicas"] == ready


def test_the_server_s_own_words_are_found_in_ray_serve_s():
    deployments = {"server": {"status": "UNHEALTHY", "message": TOLD}}
    found = service(status="DEPLOY_FAILED", message="", serveDeploymentStatuses=deployments)
    assert rayservice.as_deployment(found)["status"]["words"] == [SAID]
    assert rayservice.as_deployment(service(status="DEPLOYING", message='{"reason": cut'))["status"]["words"] == []
