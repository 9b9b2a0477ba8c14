"""What is found out before a GPU is bought, against a real API server; the test plays kubelet to the check Job."""

import base64
import concurrent.futures
import json

import pytest

from kaito_hera import checks, errors, names, rollout
from kaito_hera import cluster as clusters
from kaito_hera import run as runs
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import until
from workflows import asks, steps

QUOTA = clusters.Kind("ResourceQuota", "resourcequotas")
AUTHS = {"auths": {"team.azurecr.io": {"auth": "eA=="}}}
ADAPTER = {"source": {"name": "style", "image": "team.azurecr.io/style:1", "imagePullSecrets": ["pull"]}}


@pytest.fixture
def secret(cluster, namespace):
    def create(name="push", *, kind="kubernetes.io/dockerconfigjson", key=".dockerconfigjson", content=None):
        text = json.dumps(AUTHS) if content is None else content
        metadata = {"name": name, "namespace": namespace}
        return cluster.create(clusters.SECRET, {"metadata": metadata, "type": kind, "stringData": {key: text}})

    return create


@pytest.fixture
def preflight(cluster, apply, settings, namespace):
    """What the step does for a Workspace of `making` that is stored already, or stored now."""

    def passed(workspace, *, attempt=1, **changes):
        stored = cluster.get(clusters.WORKSPACE, "w", namespace) or apply(workspace)
        chosen = settings.model_copy(update=changes)
        run = Run(cluster, Workspace.parse(stored), chosen, runs.provider(cluster, chosen))
        return checks.pass_cluster(run, asks.wanted(run, attempt)).adapter

    return passed


@pytest.fixture
def checking(cluster, namespace, preflight, node):
    """Preflight, with a kubelet that ends its check Job like this; the Job and preflight's answer."""

    def check(workspace, *, code=0, message="", attempt=1, **changes):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            following = pool.submit(preflight, workspace, attempt=attempt, **changes)
            labels = f"{names.ROLE}=check,{names.ATTEMPT}={attempt}"
            until(lambda: following.done() or cluster.items(clusters.JOB, namespace, labels=labels), what="a check Job")
            job = next(iter(cluster.items(clusters.JOB, namespace, labels=labels)), None)
            if job:
                node.end(node.start(job), code=code, message=message, reason="Error" if code else "Completed")
            return job, following.result(timeout=20)

    return check


def tuning_with(**tuning):
    workspace = making.tuning()
    return {**workspace, "tuning": {**workspace["tuning"], **tuning}}


def adapted(adapter=ADAPTER):
    return making.edited(making.inference(), inference={**making.inference()["inference"], "adapters": [adapter]})


def test_a_missing_secret_is_told_with_the_command_that_makes_it(preflight, namespace):
    with pytest.raises(errors.SecretNotFoundError) as refused:
        preflight(making.tuning())
    assert str(refused.value) == (
        f"tuning.output.imagePushSecret: Secret {namespace}/push is missing; make it with"
        f" `kubectl -n {namespace} create secret docker-registry push --docker-server=HOST"
        " --docker-username=USER --docker-password=PASSWORD`, it is looked for again by itself"
    )
    assert refused.value.retryable, "it may be on its way"


@pytest.mark.parametrize(
    ("made", "words"),
    [
        pytest.param({"kind": "Opaque", "key": "password"}, "is of type Opaque, kubernetes.io/docker", id="opaque"),
        pytest.param({"kind": "Opaque", "content": "no json"}, "is not {", id="no-json"),
        pytest.param({"content": "{}"}, "is not {", id="empty"),
        pytest.param({"content": '{"auths": "x"}'}, "is not {", id="auths-is-text"),
        pytest.param({"content": '{"auths": {"a.io": "user:password"}}'}, "is not {", id="entry-is-text"),
    ],
)
def test_a_secret_of_another_kind_is_told_with_what_is_needed(preflight, secret, namespace, made, words):
    secret(**made)
    with pytest.raises(errors.SecretInvalidError) as refused:
        preflight(making.tuning())
    assert str(refused.value).startswith("tuning.output.imagePushSecret: ")
    assert f"Secret {namespace}/push" in str(refused.value)
    assert words in str(refused.value)
    assert f"delete it and make it with `kubectl -n {namespace} create secret docker-registry push" in str(
        refused.value
    )


def test_a_missing_config_is_told_with_its_field(preflight, secret, namespace):
    secret()
    make = f"make it with `kubectl -n {namespace} create configmap mine --from-file=training_config.yaml`"
    missing = f"tuning.config: ConfigMap {namespace}/mine is missing; {make}"
    with pytest.raises(errors.ConfigMapNotFoundError, match=missing):
        preflight(tuning_with(config="mine"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param({"config.yaml": ""}, ["has no key training_config.yaml, it has config.yaml"], id="other-key"),
        pytest.param(None, ["has no key training_config.yaml, it has nothing"], id="empty"),
        pytest.param({"training_config.yaml": "a: [b"}, ["this is no YAML"], id="no-yaml"),
        pytest.param(
            {"training_config.yaml": "training_config: {TrainingArguments: {learning_rat: 1}}"},
            ["TrainingArguments.learning_rat", "did you mean learning_rate?"],
            id="slip",
        ),
        pytest.param(
            {"training_config.yaml": "training_config: {TrainingArguments: {num_train_epochs: -1}}"},
            ["TrainingArguments.num_train_epochs", "-1 cannot be used", "greater than 0"],
            id="value",
        ),
    ],
)
def test_a_config_that_means_nothing_is_told_with_field_value_and_remedy(
    preflight, secret, cluster, namespace, data, words
):
    secret()
    body = {"metadata": {"name": "mine", "namespace": namespace}, **({"data": data} if data else {})}
    cluster.create(clusters.CONFIG_MAP, body)
    with pytest.raises(errors.ConfigInvalidError) as refused:
        preflight(tuning_with(config="mine"))
    for word in ("tuning.config: ", *words):
        assert word in str(refused.value)


def quota(cluster, namespace, **hard):
    """A quota as its controller would have counted it: nothing is used yet."""
    metadata = {"name": "q", "namespace": namespace}
    cluster.create(QUOTA, {"metadata": metadata, "spec": {"hard": hard}})
    counted = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
    cluster.patch(QUOTA, "q", namespace, counted, subresource="status")


@pytest.mark.parametrize(
    ("workspace", "hard", "words"),
    [
        pytest.param(making.inference(), {"requests.nvidia.com/gpu": "0"}, 'pods "w" is forbidden', id="gpus"),
        pytest.param(making.inference(), {"services": "0"}, 'services "w" is forbidden', id="services"),
        pytest.param(making.inference(), {"count/deployments.apps": "0"}, "deployments.apps", id="deployments"),
        pytest.param(making.tuning(), {"count/jobs.batch": "0"}, 'jobs.batch "w" is forbidden', id="jobs"),
        pytest.param(making.tuning_only(), {"requests.nvidia.com/gpu": "0"}, 'pods "w" is forbidden', id="tuning"),
    ],
)
def test_a_quota_speaks_before_a_gpu_is_bought(preflight, secret, cluster, namespace, workspace, hard, words):
    secret()
    quota(cluster, namespace, **hard)
    with pytest.raises(errors.ForbiddenError, match="exceeded quota: q") as refused:
        preflight(workspace)
    assert words in str(refused.value)
    assert cluster.items(clusters.POD, namespace) == []


def test_what_is_there_already_is_not_counted_twice(preflight, cluster, apply, settings, namespace):
    workspace = Workspace.parse(apply(making.inference()))
    run = Run(cluster, workspace, settings, runs.provider(cluster, settings))
    rollout.apply(run, asks.serving.server(run, ""), run.placement())
    quota(cluster, namespace, **{"services": "0", "requests.nvidia.com/gpu": "0"})
    assert preflight(making.inference()) == ""


def test_pod_security_speaks_too(cluster, apply, settings):
    workspace = Workspace.parse(apply(making.inference()))
    run = Run(cluster, workspace, settings, runs.provider(cluster, settings))
    objects = dict(asks.wanted(run, 1).objects)
    deployment = objects[clusters.DEPLOYMENT]
    deployment["spec"]["template"]["spec"]["hostNetwork"] = True
    with pytest.raises(errors.ForbiddenError, match='violates PodSecurity "restricted'):
        checks.dry_run(cluster, workspace, clusters.DEPLOYMENT, deployment)


@pytest.mark.parametrize(
    ("kind", "obj"),
    [
        (clusters.SERVICE, {"metadata": {"name": "w"}, "spec": {"ports": [{"port": 1}]}}),
        (clusters.CONFIG_MAP, {"metadata": {"name": "w-serving"}, "data": {"theirs": "1"}}),
    ],
)
def test_a_name_that_somebody_else_has_is_found_before_a_gpu_is_bought(preflight, cluster, namespace, kind, obj):
    obj = {**obj, "metadata": {**obj["metadata"], "namespace": namespace}}
    cluster.create(kind, obj)
    with pytest.raises(errors.InvalidWorkspaceError, match=f"metadata.name: {kind.name} .* is there already"):
        preflight(making.inference())


def test_all_that_is_missing_is_told_at_once(preflight, cluster, namespace):
    workspace = tuning_with(config="mine")
    with pytest.raises(errors.ConfigMapNotFoundError) as refused:
        preflight(workspace)
    assert f"tuning.config: ConfigMap {namespace}/mine is missing" in str(refused.value)
    assert f"tuning.output.imagePushSecret: Secret {namespace}/push is missing" in str(refused.value)
    assert refused.value.retryable


def test_a_tracker_s_secret_has_its_key(preflight, secret, cluster, namespace):
    secret()
    text = "training_config: {TrainingArguments: {report_to: wandb}}"
    body = {"metadata": {"name": "mine", "namespace": namespace}, "data": {"training_config.yaml": text}}
    cluster.create(clusters.CONFIG_MAP, body)
    workspace = tuning_with(config="mine")
    workspace["metadata"] = {**workspace["metadata"], "annotations": {"kaito.sh/tracking-secret": "tracker"}}
    with pytest.raises(errors.SecretNotFoundError, match=rf"tracking-secret\]: Secret {namespace}/tracker is missing"):
        preflight(workspace)
    secret("tracker", kind="Opaque", key="other")
    with pytest.raises(errors.SecretInvalidError, match="has no key WANDB_API_KEY, it has other"):
        preflight(workspace)


def test_a_secret_of_the_users_is_not_overwritten(preflight, secret, cluster, namespace):
    theirs = secret("w-registry")
    adapter = {"source": {**ADAPTER["source"], "imagePullSecrets": ["w-registry"]}}
    with pytest.raises(errors.InvalidWorkspaceError, match=f"Secret {namespace}/w-registry is there already"):
        preflight(adapted(adapter))
    assert cluster.get(clusters.SECRET, "w-registry", namespace) == theirs


def test_an_adapter_that_is_there_is_answered_by_digest(checking, secret, cluster, namespace):
    secret()
    digest = f"team.azurecr.io/adapter@sha256:{1:064x}"
    job, adapter = checking(making.tuning(), message=json.dumps({"adapter": digest}))
    assert adapter == digest
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert container["args"] == ["tuning", "validate", "/etc/kaito/job/config.json"]
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert spec["automountServiceAccountToken"] is False
    asked = json.loads(job["spec"]["template"]["metadata"]["annotations"][names.CONFIG])
    assert asked["input"] == {"urls": ["https://example.com/data.parquet"]}
    assert asked["training"]["quantization"]["load_in_4bit"] is True, "by the operator's own template"
    assert cluster.items(clusters.DEPLOYMENT, namespace) == []


def test_another_text_of_the_users_config_is_another_adapter(checking, secret, cluster, namespace):
    secret()
    marks = []
    for attempt, rank in enumerate((8, 16), 1):
        body = {"data": {"training_config.yaml": f"training_config: {{LoraConfig: {{r: {rank}}}}}"}}
        cluster.delete(clusters.CONFIG_MAP, "mine", namespace)
        cluster.create(clusters.CONFIG_MAP, {"metadata": {"name": "mine", "namespace": namespace}, **body})
        job, _ = checking(tuning_with(config="mine"), message="{}", attempt=attempt)
        marks.append(json.loads(job["spec"]["template"]["metadata"]["annotations"][names.CONFIG])["intent"])
    assert marks[0] != marks[1]


def test_nothing_to_be_found_is_an_empty_answer(checking, secret):
    secret()
    assert checking(making.tuning(), message="{}")[1] == ""


def test_what_the_check_finds_wrong_reaches_the_user(checking, secret):
    secret()
    word = {"reason": "RegistryAuth", "message": "tuning.output.image: wrong password", "retryable": False}
    with pytest.raises(errors.ReportedTerminalError, match="wrong password") as refused:
        checking(making.tuning(), code=30, message=json.dumps(word))
    assert refused.value.reason == "RegistryAuth"


def test_a_workspace_that_was_changed_meanwhile_is_not_checked(apply, cluster, settings, namespace, monkeypatch):
    monkeypatch.setenv("TERMINATION_LOG", "/dev/null")
    workspace = Workspace.parse(apply(making.inference()))
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"inference": {"adapters": [ADAPTER]}})
    with pytest.raises(SystemExit, match="75"):
        steps.preflight(steps.Known(workspace=workspace, settings=settings, attempt=1))


def test_each_attempt_checks_anew(checking, secret):
    secret()
    checking(making.tuning(), message="{}")
    job, _ = checking(making.tuning(), message="{}", attempt=2)
    assert job["metadata"]["name"] == f"w-{job['metadata']['labels'][names.UID][:5]}-check-a2"


def test_adapters_to_serve_are_checked_with_their_secrets(checking, secret, cluster, namespace):
    secret("pull")
    job, adapter = checking(adapted(), message="")
    assert adapter == ""
    template = job["spec"]["template"]
    assert template["spec"]["containers"][0]["args"][0] == "serving"
    assert json.loads(template["metadata"]["annotations"][names.ADAPTERS])[0]["image"] == "team.azurecr.io/style:1"
    merged = cluster.get(clusters.SECRET, "w-registry", namespace)["data"][".dockerconfigjson"]
    assert json.loads(base64.b64decode(merged)) == AUTHS


def test_without_data_and_adapters_there_is_nothing_to_look_at(preflight, cluster, namespace):
    assert preflight(making.inference()) == ""
    assert cluster.items(clusters.JOB, namespace) == []


def test_what_pods_need_of_the_operators_is_copied_beside_them(checking, secret, cluster, namespace):
    home = f"home-{namespace}"
    cluster.create(clusters.Kind("Namespace", "namespaces", namespaced=False), {"metadata": {"name": home}})
    content = {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": json.dumps(AUTHS)}}
    cluster.create(clusters.SECRET, {"metadata": {"name": "operators", "namespace": home}, **content})
    cluster.create(
        clusters.CONFIG_MAP, {"metadata": {"name": "authorities", "namespace": home}, "data": {"ca.crt": "PEM"}}
    )
    secret()
    job, _ = checking(making.tuning(), namespace=home, pull_secret="operators", ca_bundle="authorities")
    spec = job["spec"]["template"]["spec"]
    assert spec["imagePullSecrets"] == [{"name": "w-pull"}]
    assert {"name": "ca", "configMap": {"name": "w-ca", "defaultMode": 420}} in spec["volumes"]
    owner = cluster.get(clusters.WORKSPACE, "w", namespace)["metadata"]["uid"]
    for kind, name in ((clusters.SECRET, "w-pull"), (clusters.CONFIG_MAP, "w-ca")):
        assert cluster.get(kind, name, namespace)["metadata"]["ownerReferences"][0]["uid"] == owner


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pull_secret": "nobody"}, "setting pullSecret: Secret kaito-hera/nobody is missing"),
        ({"ca_bundle": "nobody"}, "setting caBundle: ConfigMap kaito-hera/nobody with a key ca.crt is missing"),
    ],
)
def test_a_setting_that_names_nothing_is_named(preflight, secret, changes, words):
    secret()
    with pytest.raises(errors.KaitoError, match=words):
        preflight(making.tuning(), **changes)
