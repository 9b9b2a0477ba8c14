"""A volume for what is trained, against a real API server: the claim, the Job on it, the Job that pushes from it."""

import concurrent.futures
import dataclasses
import json

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors, names, nodes, scratch
from kaito_hera import run as runs
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import until
from tests.apiserver.test_migration_rights import as_steps, connected  # noqa: F401
from tests.apiserver.test_preflight import QUOTA, preflight, secret  # noqa: F401
from tests.apiserver.test_volumes import mounts
from workflows import asks, steps

ADAPTER = f"team.azurecr.io/adapter@sha256:{2:064x}"
LEFT = json.dumps({"adapter": f"persistentVolumeClaim/x@sha256:{1:064x}"})
DONE = json.dumps({"adapter": ADAPTER})
REFUSED = json.dumps({"reason": "PushUnauthorized", "message": "401", "retryable": False})


@pytest.fixture
def storage_class(cluster, namespace):
    made = []

    def make(provisioner="example.com/disk"):
        body = {"metadata": {"name": namespace}, "provisioner": provisioner}
        made.append(cluster.create(clusters.STORAGE_CLASS, body))
        return namespace

    yield make
    for _ in made:
        cluster.delete(clusters.STORAGE_CLASS, namespace)


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """What a step leaves that fails."""
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "termination"))

    def fail(call, *given, **more):
        with pytest.raises(SystemExit):
            call(*given, **more)
        return json.loads((tmp_path / "termination").read_text())

    return fail


class World:
    """A Workspace that is tuned onto a volume, and who plays kubelet to its Jobs."""

    def __init__(self, cluster, workspace, settings, node):
        self.run = Run(cluster, workspace, settings, runs.provider(cluster, settings))
        self._cluster, self._node, self._namespace = cluster, node, workspace.metadata.namespace

    def asked(self, kind, **more):
        return kind(workspace=self.run.workspace, settings=self.run.settings, attempt=3, **more)

    def job(self, name):
        return self._cluster.get(clusters.JOB, name, self._namespace)

    def claim(self):
        """Unless it is about to go: nobody here takes its finalizer off."""
        found = self._cluster.get(clusters.CLAIM, scratch.name(self.run.workspace), self._namespace)
        return found if found and "deletionTimestamp" not in found["metadata"] else None

    def step(self, step, asked, name, *, code=0, message):
        """The step's answer once its Job has ended so, and the Job as it was made."""
        with concurrent.futures.ThreadPoolExecutor() as pool:
            following = pool.submit(step, asked)
            made = until(lambda: following.done() or self.job(name), what="the Job")
            if not following.done():
                self._node.end(self._node.start(made), code=code, message=message)
            return following.result(timeout=20).adapter, made

    def train(self):
        workspace = self.run.workspace
        return self.step(steps.train, self.asked(steps.Trained), names.job(workspace, 3), message=LEFT)

    def push(self, *, code=0, message=DONE, **more):
        name = names.push_job(self.run.workspace, 3)
        return self.step(steps.push, self.asked(steps.Finished, **more), name, code=code, message=message)


@pytest.fixture
def world(cluster, apply, settings, node, secret, storage_class):  # noqa: F811
    secret()
    chosen = settings.model_copy(update={"tuning_scratch": storage_class()})
    return World(cluster, Workspace.parse(apply(making.tuning())), chosen, node)


def test_a_storage_class_that_is_missing_is_told_before_anything_is_bought(preflight, secret):  # noqa: F811
    secret()
    with pytest.raises(errors.ClaimInvalidError, match="setting tuningScratch: StorageClass zrs is missing") as refused:
        preflight(making.tuning(), tuning_scratch="zrs")
    assert refused.value.retryable


def test_volumes_that_go_with_their_node_are_refused_where_nodes_are_made(preflight, secret, storage_class):  # noqa: F811
    secret()
    asked = storage_class("kubernetes.io/no-provisioner")
    with pytest.raises(errors.ClaimInvalidError, match="go with their node"):
        preflight(making.tuning(), tuning_scratch=asked)


def test_a_quota_that_has_no_room_for_the_claim_speaks_in_preflight(
    cluster,
    preflight,  # noqa: F811
    secret,  # noqa: F811
    storage_class,
    namespace,
):
    secret()
    hard = {"requests.storage": "1Gi"}
    cluster.create(QUOTA, {"metadata": {"name": "q", "namespace": namespace}, "spec": {"hard": hard}})
    cluster.patch(
        QUOTA, "q", namespace, {"status": {"hard": hard, "used": {"requests.storage": "0"}}}, subresource="status"
    )
    with pytest.raises(errors.ForbiddenError, match=r"requests.storage=2Gi"):
        preflight(making.tuning(), tuning_scratch=storage_class())


def test_training_leaves_its_adapter_on_a_claim_that_the_workspace_owns(world):
    answer, job = world.train()
    assert answer == ""
    claim = world.claim()
    assert claim["metadata"]["ownerReferences"][0]["uid"] == world.run.workspace.metadata.uid
    assert claim["spec"]["storageClassName"] == world.run.settings.tuning_scratch
    assert claim["spec"]["resources"]["requests"] == {"storage": "2Gi"}
    template = job["spec"]["template"]
    named = {"persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
    assert mounts(template) == {"/mnt/results": (False, named)}
    asked = json.loads(template["metadata"]["annotations"][names.CONFIG])
    assert asked["output"] == {"volume": f"persistentVolumeClaim/{claim['metadata']['name']}"}
    assert "push" not in {volume.get("secret", {}).get("secretName") for volume in template["spec"]["volumes"]}
    assert world.train() == ("", job), "found again"


def test_what_an_image_says_of_its_volume_is_said_of_the_claim(world, failing):
    text = json.dumps(
        {"reason": "VolumeRefused", "message": "tuning.output.volumeSource: no space", "retryable": False}
    )
    name = names.job(world.run.workspace, 3)
    said = failing(world.step, steps.train, world.asked(steps.Trained), name, code=31, message=text)
    claim = f"claim {world.run.workspace.metadata.namespace}/{world.claim()['metadata']['name']}"
    assert said == {
        "reason": "VolumeRefused",
        "message": f"setting tuningScratch, {claim}: no space",
        "retryable": False,
    }


def test_a_pod_without_gpus_pushes_and_then_the_claim_goes(world):
    world.train()
    answer, job = world.push()
    assert answer == ADAPTER
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["args"][:4] == ["tuning", "push", "/mnt/results", "team.azurecr.io/adapter:1"]
    assert container["args"][4:] == ["--push-auth", "/etc/kaito/push/config.json", "--seconds", "7200", "--progress"]
    assert nodes.GPU not in container["resources"]["limits"]
    assert "nodeSelector" not in spec
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in spec["affinity"]["nodeAffinity"]
    assert nodes.TAINT["key"] in {toleration.get("key") for toleration in spec["tolerations"]}
    assert mounts(job["spec"]["template"])["/mnt/results"][0], "read-only"
    assert world.claim() is None
    assert world.push() == (ADAPTER, job), "a step that was killed before Argo had its answer hears it again"


def test_nodes_that_wait_to_serve_do_not_wait_for_a_registry(world):
    world.train()
    answer, job = world.push(code=30, message=REFUSED, hurried=True)
    assert answer == ""
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][7] == "300"
    assert job["spec"]["activeDeadlineSeconds"] == 420
    assert world.claim() is not None


@pytest.fixture
def full(cluster, namespace):
    """A quota that has no room for another Job."""
    hard = {"count/jobs.batch": "1"}

    def fill():
        cluster.create(QUOTA, {"metadata": {"name": "q", "namespace": namespace}, "spec": {"hard": hard}})
        used = {"hard": hard, "used": hard}
        cluster.patch(QUOTA, "q", namespace, {"status": used}, subresource="status")

    return fill


def test_a_quota_that_is_full_when_the_adapter_is_finished_fails_no_attempt(world, failing, full):
    world.train()
    full()
    assert world.push(hurried=True)[0] == "", "another attempt pushes"
    said = failing(world.push)
    assert (said["reason"], said["retryable"]) == ("Forbidden", True)
    assert "exceeded quota: q" in said["message"]
    assert world.claim()["metadata"]["name"] in said["message"]


def test_a_push_that_is_refused_in_the_end_leaves_the_claim_for_the_next_attempt(world, failing):
    world.train()
    said = failing(world.push, code=30, message=REFUSED)
    assert (said["reason"], said["retryable"]) == ("PushUnauthorized", False)
    assert said["message"].endswith("tuning.output.image: what is trained already is pushed there")
    assert world.claim() is not None


def test_what_waits_is_pushed_to_the_place_that_an_edit_names(world, cluster, namespace):
    _, trained = world.train()
    edited = cluster.patch(clusters.WORKSPACE, "w", namespace, {"tuning": {"output": {"image": "team.azurecr.io/b:2"}}})
    world.run = dataclasses.replace(world.run, workspace=Workspace.parse(edited))
    assert world.claim() is not None, "the same"
    answer, job = world.push()
    assert answer == ADAPTER
    words = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert words[3] == "team.azurecr.io/b:2"
    asked = json.loads(trained["spec"]["template"]["metadata"]["annotations"][names.CONFIG])
    assert words[-3:] == ["--renew", asked["intent"], asks.tuning.config(world.run).intent]
    assert words[-2] != words[-1]


def test_nodes_of_a_server_that_stands_wait_longer(world, cluster, namespace):
    world.train()
    labels = names.labels(world.run.workspace)
    pod = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": {"app": "x"}}, "template": pod}
    cluster.create(
        clusters.DEPLOYMENT, {"metadata": {"name": "w", "namespace": namespace, "labels": labels}, "spec": spec}
    )
    _, job = world.push(hurried=True)
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][7] == "7200"


def test_a_claim_that_is_gone_is_told_so_that_training_begins_anew(world, failing):
    said = failing(world.push)
    assert (said["reason"], said["retryable"]) == ("AdapterGone", True)
    assert "is missing: it is trained anew" in said["message"]


def test_a_claim_that_somebody_deletes_is_not_kept_by_the_pods_that_have_ended(world, failing, cluster, namespace):
    _, job = world.train()
    cluster.delete(clusters.CLAIM, scratch.name(world.run.workspace), namespace)
    said = failing(world.push)
    assert (said["reason"], "is being deleted" in said["message"]) == ("AdapterGone", True)
    left = world.job(job["metadata"]["name"])
    assert left is None or "deletionTimestamp" in left["metadata"]
    with pytest.raises(errors.ClaimNotFoundError, match="is being deleted; it is made anew once it is gone"):
        scratch.look(world.run)  # before nodes are bought


def test_the_steps_rights_are_enough_for_all_of_it(world, as_steps):  # noqa: F811
    world.train()
    run = Run(as_steps, world.run.workspace, world.run.settings, world.run.provider)
    scratch.look(run)
    assert not scratch.serves_meanwhile(run)
    scratch.drop(run)
    assert world.claim() is None
    other = run.workspace.model_copy(update={"tuning": run.workspace.tuning.model_copy(update={"method": "lora"})})
    again = Run(as_steps, other, run.settings, run.provider)
    scratch.ensure(again, 2)
    assert as_steps.get(clusters.CLAIM, scratch.name(other), other.metadata.namespace) is not None


def test_a_secret_that_went_since_is_told_with_its_field(world, failing, cluster, namespace):
    world.train()
    cluster.delete(clusters.SECRET, "push", namespace)
    assert world.push(hurried=True)[0] == "", "what was trained is not lost by it"
    said = failing(world.push)
    assert said["reason"] == "SecretNotFound"
    assert said["message"].startswith("tuning.output.imagePushSecret")


def test_an_earlier_intent_s_claim_makes_room(world, cluster, namespace):
    world.train()
    first = scratch.name(world.run.workspace)
    tuning = world.run.workspace.tuning
    workspace = world.run.workspace.model_copy(update={"tuning": tuning.model_copy(update={"config": "other"})})
    again = Run(cluster, workspace, world.run.settings, world.run.provider)
    scratch.ensure(again, 2)
    assert "deletionTimestamp" in cluster.get(clusters.CLAIM, first, namespace)["metadata"]
    assert cluster.get(clusters.CLAIM, scratch.name(workspace), namespace) is not None


def test_a_claim_that_is_too_small_by_now_is_made_anew(world):
    _, job = world.train()
    scratch.ensure(world.run, 2)
    assert world.claim(), "as large as it was"
    with pytest.raises(errors.ClaimNotFoundError, match="asks for 2Gi, and 3Gi are needed by now; it is made anew"):
        scratch.ensure(world.run, 3)
    assert world.claim() is None
    left = world.job(job["metadata"]["name"])
    assert left is None or "deletionTimestamp" in left["metadata"], "whose pod would keep it"


def test_checkpoints_for_another_place_make_room_before_nodes_are_bought(world):
    world.train()
    scratch.look(world.run)
    asked = world.run.workspace.tuning
    output = asked.output.model_copy(update={"image": "team.azurecr.io/b:2"})
    edited = world.run.workspace.model_copy(update={"tuning": asked.model_copy(update={"output": output})})
    with pytest.raises(errors.ClaimNotFoundError, match=r"another tuning.output.image.*; it is made anew once"):
        scratch.look(dataclasses.replace(world.run, workspace=edited))
    assert world.claim() is None


def test_claims_go_once_the_setting_is_taken_out(world, cluster, namespace):
    world.train()
    settings = world.run.settings.model_copy(update={"tuning_scratch": ""})
    asks.tuning.keep(Run(cluster, world.run.workspace, settings, world.run.provider))
    assert world.claim() is None
