import json

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors, names, nodes, rollout
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from workflows import asks

PLACEMENT = nodes.Placement(labels={"a": "b"})
ADAPTER = {"source": {"name": "style", "image": "team.azurecr.io/style:1"}, "strength": "0.5"}


@pytest.fixture
def rolled_out(cluster, settings):
    def roll_out(stored, adapter=""):
        workspace = Workspace.parse(stored)
        run = Run(cluster, workspace, settings, provider=None)
        rollout.apply(run, asks.serving.server(run, adapter), PLACEMENT)
        return cluster.get(clusters.DEPLOYMENT, workspace.metadata.name, workspace.metadata.namespace)

    return roll_out


def test_the_service_has_the_two_ports_that_users_know(cluster, apply, rolled_out, namespace):
    rolled_out(apply(making.inference()))
    service = cluster.get(clusters.SERVICE, "w", namespace)
    assert [(port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [(80, 5000), (29500, 29500)]
    assert service["spec"]["type"] == "ClusterIP"


def test_everything_goes_with_the_workspace(cluster, apply, rolled_out, namespace):
    stored = apply(making.inference())
    rolled_out(stored)
    kinds = (clusters.SERVICE, clusters.DEPLOYMENT, clusters.CONFIG_MAP, clusters.SECRET, clusters.NETWORK_POLICY)
    made = [obj for kind in kinds for obj in cluster.items(kind, namespace, labels=f"{names.WORKSPACE}=w")]
    assert len(made) == 5
    for obj in made:
        assert [owner["uid"] for owner in obj["metadata"]["ownerReferences"]] == [stored["metadata"]["uid"]]


def test_applying_again_changes_nothing(apply, rolled_out):
    stored = apply(making.inference())
    first, second = rolled_out(stored), rolled_out(stored)
    for each in (first, second):  # the server sorts who wrote what by the second of the write, and counts that
        assert each["metadata"].pop("managedFields")
        assert each["metadata"].pop("resourceVersion")
    assert first == second


def test_replicas_are_ours_only_at_creation(cluster, apply, rolled_out, namespace):
    stored = apply(making.edited(making.inference(), count=3))
    assert rolled_out(stored)["spec"]["replicas"] == 3
    cluster.patch(clusters.DEPLOYMENT, "w", namespace, {"spec": {"replicas": 5}}, subresource="scale")
    assert rolled_out(stored)["spec"]["replicas"] == 5


def test_our_fields_are_put_back_and_others_left_alone(cluster, apply, rolled_out, namespace):
    stored = apply(making.inference())
    before = rolled_out(stored)
    theirs = {"metadata": {"annotations": {"theirs": "1"}}, "spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}}
    cluster.patch(clusters.DEPLOYMENT, "w", namespace, theirs)
    after = rolled_out(stored)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"]["theirs"] == "1"


def test_an_adapter_edit_never_touches_the_pod_template(cluster, apply, rolled_out, namespace):
    stored = apply(making.inference())
    before = rolled_out(stored)
    inference = {**stored["inference"], "adapters": [ADAPTER]}
    edited = cluster.patch(clusters.WORKSPACE, "w", namespace, {"inference": inference})
    after = rolled_out(edited)
    assert after["spec"]["template"] == before["spec"]["template"]
    files = cluster.get(clusters.CONFIG_MAP, "w-serving", namespace)["data"]
    assert json.loads(files["adapters.json"])[0]["strength"] == 0.5


def test_the_token_of_ray_is_made_once(cluster, apply, rolled_out, namespace):
    stored = apply(making.inference())
    rolled_out(stored)
    first = cluster.get(clusters.SECRET, "w-ray-token", namespace)["data"]["token"]
    rolled_out(stored)
    assert cluster.get(clusters.SECRET, "w-ray-token", namespace)["data"]["token"] == first
    assert len(first) > 32


def test_someone_elses_service_of_that_name_is_left_alone(cluster, apply, rolled_out, namespace):
    theirs = {"metadata": {"name": "w", "namespace": namespace}, "spec": {"ports": [{"port": 1}]}}
    cluster.create(clusters.SERVICE, theirs)
    with pytest.raises(errors.InvalidWorkspaceError, match=f"Service {namespace}/w is there already"):
        rolled_out(apply(making.inference()))
    assert cluster.get(clusters.SERVICE, "w", namespace)["spec"]["ports"][0]["port"] == 1


def test_the_pod_passes_the_strictest_pod_security(cluster, apply, rolled_out, namespace):
    template = rolled_out(apply(making.inference()))["spec"]["template"]
    template["metadata"] = {"name": "p", "namespace": namespace}
    cluster.create(clusters.POD, template, dry_run=True)


def test_pull_secrets_are_merged_for_the_server(cluster, apply, rolled_out, namespace):
    for name, host in (("one", "a.azurecr.io"), ("two", "b.azurecr.io")):
        auths = json.dumps({"auths": {host: {"auth": "eA=="}}})
        secret = {"metadata": {"name": name, "namespace": namespace}, "type": "kubernetes.io/dockerconfigjson"}
        cluster.create(clusters.SECRET, {**secret, "stringData": {".dockerconfigjson": auths}})
    adapters = [
        {"source": {"name": f"a{at}", "image": "a.azurecr.io/x:1", "imagePullSecrets": [name]}}
        for at, name in enumerate(("one", "two"))
    ]
    rolled_out(
        apply(making.edited(making.inference(), inference={**making.inference()["inference"], "adapters": adapters}))
    )
    import base64

    merged = cluster.get(clusters.SECRET, "w-registry", namespace)["data"][".dockerconfigjson"]
    assert set(json.loads(base64.b64decode(merged))["auths"]) == {"a.azurecr.io", "b.azurecr.io"}


def test_a_base_model_is_never_served_in_place_of_a_tuned_one(cluster, apply, rolled_out, namespace):
    with pytest.raises(
        errors.InternalError, match=f"roll-out of {namespace}/w: the adapter that it tuned is not known"
    ):
        rolled_out(apply(making.tuning()))
    assert cluster.get(clusters.DEPLOYMENT, "w", namespace) is None


@pytest.mark.parametrize(("check", "required"), [("refuse", True), ("warn", False)])
def test_a_gpu_is_required_unless_its_lack_was_accepted(cluster, apply, settings, check, required):
    workspace = Workspace.parse(apply(making.tuning()))
    run = Run(cluster, workspace, settings.model_copy(update={"gpu_capability_check": check}), provider=None)
    files = asks.serving.server(run, "team.azurecr.io/a@sha256:1").files
    assert json.loads(files["serving.json"]).get("require_gpu", False) is required
    assert asks.tuning.config(run).require_gpu is required


def test_what_is_asked_of_training_says_how_often_a_checkpoint_is_taken(cluster, apply, settings):
    body = making.tuning()
    claim = {"volumeSource": {"persistentVolumeClaim": {"claimName": "out"}}}
    body["tuning"] |= {"output": claim, "checkpoint": {"intervalSeconds": 60}}
    run = Run(cluster, Workspace.parse(apply(body)), settings, provider=None)
    assert asks.tuning.config(run).checkpoint_seconds == 60


def test_a_missing_pull_secret_is_named_with_its_field(apply, rolled_out):
    adapters = [{"source": {"name": "a", "image": "a.azurecr.io/x:1", "imagePullSecrets": ["nobody"]}}]
    with pytest.raises(
        errors.SecretNotFoundError, match=r"inference.adapters\[0\].source.imagePullSecrets\[0\].*nobody"
    ):
        rolled_out(
            apply(
                making.edited(making.inference(), inference={**making.inference()["inference"], "adapters": adapters})
            )
        )


def test_a_claim_that_keeps_weights_is_mounted_to_be_written_to(apply, rolled_out):
    made = rolled_out(apply(making.inference(annotations={"kaito.sh/weights-cache": "models"})))
    spec = made["spec"]["template"]["spec"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}} in spec["volumes"]
    assert {"name": "cache", "mountPath": "/mnt/cache"} in spec["containers"][0]["volumeMounts"]
    assert {"name": "CACHE", "value": "/mnt/cache"} in spec["containers"][0]["env"]


FILES = round(7.12 * 2**30 / 50e6)  # seconds for those of phi-3-mini-4k-instruct, at 50 MB a second


@pytest.mark.parametrize(("asked", "seconds"), [(90, 2400 + FILES), (7200, 7200)])
def test_the_user_s_deadline_holds_and_restarts_nobody_when_it_is_short(apply, rolled_out, asked, seconds):
    given = {**making.inference()["inference"], "progressDeadlineSeconds": asked}
    made = rolled_out(apply({**making.inference(), "inference": given}))
    assert made["spec"]["progressDeadlineSeconds"] == asked
    startup = made["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] in {seconds, seconds - 1}


def test_a_larger_model_has_longer_to_answer(settings):
    def seconds(name, **given):
        workspace = making.edited(making.inference(), inference={"preset": {"name": name}})
        return rollout.deadline(making.parsed(workspace), settings.model_copy(update=given))

    assert seconds("phi-3-mini-4k-instruct") == 2400 + FILES
    assert seconds("llama-3.3-70b-instruct") == 2400 + round(131.42 * 2**30 / 50e6)
    assert seconds("phi-3-mini-4k-instruct", weights_megabytes_per_second=1e9) == 2400
    assert seconds("acme/unknown") == 2400


@pytest.mark.parametrize(
    ("word", "kind"), [("True", "LoadBalancer"), ("true", "ClusterIP"), (" True ", "ClusterIP"), ("False", "ClusterIP")]
)
def test_a_preset_s_service_is_open_to_the_world_where_kaito_would_open_it(
    cluster, apply, rolled_out, namespace, word, kind
):
    rolled_out(apply(making.inference(annotations={"kaito.sh/enablelb": word})))
    assert cluster.get(clusters.SERVICE, "w", namespace)["spec"]["type"] == kind
