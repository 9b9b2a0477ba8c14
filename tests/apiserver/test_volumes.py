"""Volumes of the user's in a preflight, against a real API server: claims, what a look may mount, Pod Security."""

import concurrent.futures
import contextlib
import json

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors, names, volumes
from kaito_hera import run as runs
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from tests.apiserver.conftest import until
from tests.apiserver.test_preflight import preflight, secret  # noqa: F401
from workflows import asks

CACHE = {"kaito.sh/weights-cache": "c"}
ADAPTER = f"persistentVolumeClaim/out@sha256:{'a' * 64}"


def claimed(name, **more):
    return {"persistentVolumeClaim": {"claimName": name, **more}}


def tuning(data=None, results=None, **parts):
    """The Workspace of `making`, with volumes in the place of URLs and image."""
    workspace = making.tuning()
    asked = workspace["tuning"]
    if data:
        asked = {**asked, "input": {"volumeSource": data}}
    if results:
        asked = {**asked, "output": {"volumeSource": results}}
    return {**workspace, "tuning": asked, **parts}


def serving(*adapters, **resource):
    workspace = making.inference()
    inference = {**workspace["inference"], "adapters": list(adapters)}
    return {**workspace, "inference": inference, "resource": {**workspace["resource"], **resource}}


def cached(*, count=1):
    return {**serving(count=count), "metadata": making.inference(annotations=CACHE)["metadata"]}


def adapter(name, source):
    return {"source": {"name": name, "volumeSource": source}}


@pytest.fixture
def claim(cluster, namespace):
    def make(name, *modes, phase="Bound", capacity="", **more):
        spec = {
            "accessModes": list(modes or ["ReadWriteOnce"]),
            "resources": {"requests": {"storage": "1Gi"}},
            **more,
        }
        metadata = {"name": name, "namespace": namespace}
        cluster.create(clusters.CLAIM, {"metadata": metadata, "spec": spec})
        status = {"phase": phase} | ({"capacity": {"storage": capacity}} if capacity else {})
        cluster.patch(clusters.CLAIM, name, namespace, {"status": status}, subresource="status")

    return make


@pytest.fixture
def storage_class(cluster, namespace):
    def make(binding):
        body = {"metadata": {"name": namespace}, "provisioner": "example.com/disk", "volumeBindingMode": binding}
        cluster.create(clusters.STORAGE_CLASS, body)
        return namespace

    yield make
    cluster.delete(clusters.STORAGE_CLASS, namespace)


@pytest.fixture
def looks(cluster, namespace, preflight, node):  # noqa: F811
    """Preflight with a kubelet that ends every check Job well; the Jobs' pods in their order, and the answer."""

    def go(workspace, **options):
        done = []
        with concurrent.futures.ThreadPoolExecutor() as pool:
            following = pool.submit(preflight, workspace, **options)

            def next_job():
                found = cluster.items(clusters.JOB, namespace, labels=f"{names.ROLE}=check")
                return next((job for job in found if job["metadata"]["name"] not in [d[0] for d in done]), None)

            while until(lambda: following.done() or next_job(), what="a check Job, or the end") is not True:
                job = next_job()
                done.append((job["metadata"]["name"], job["spec"]["template"]))
                node.end(node.start(job), message="{}")
            following.result(timeout=20)
        return [template for _, template in done]

    return go


def mounts(template):
    """Path, read-only and source of the user's volumes in a pod."""
    spec = template["spec"]
    sources = {volume["name"]: {k: v for k, v in volume.items() if k != "name"} for volume in spec["volumes"]}
    found = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    return {
        path: (bool(mount.get("readOnly")), sources[mount["name"]])
        for path, mount in found.items()
        if path in {"/mnt/data", "/mnt/results"} or path.startswith("/mnt/adapters/")
    }


def test_an_adapter_in_an_image_volume_is_refused_where_there_are_none(preflight, secret):  # noqa: F811
    image = {"image": {"reference": "a.io/poet:1"}}
    with pytest.raises(errors.InvalidWorkspaceError, match=r"volumeSource: the image .*a.io/poet:1.* take another"):
        preflight(serving(adapter("poet", image)))


def test_a_missing_cache_is_told_by_its_annotation(preflight, secret, namespace):  # noqa: F811
    with pytest.raises(errors.ClaimNotFoundError) as refused:
        preflight(cached())
    told = f"metadata.annotations[kaito.sh/weights-cache]: claim {namespace}/c is missing;"
    assert str(refused.value).startswith(told)


@pytest.mark.parametrize(
    ("workspace", "field"),
    [
        (tuning(data=claimed("gone")), "tuning.input.volumeSource"),
        (tuning(results=claimed("gone")), "tuning.output.volumeSource"),
        (serving(adapter("poet", claimed("gone"))), "inference.adapters[0].source.volumeSource"),
    ],
)
def test_a_missing_claim_is_told_with_its_field_and_looked_for_again(preflight, secret, namespace, workspace, field):  # noqa: F811
    secret()
    with pytest.raises(errors.ClaimNotFoundError) as refused:
        preflight(workspace)
    assert str(refused.value) == (
        f"{field}.persistentVolumeClaim.claimName: claim {namespace}/gone is missing;"
        " make it, it is looked for again by itself"
    )
    assert refused.value.retryable


@pytest.mark.parametrize(
    ("workspace", "made", "words"),
    [
        (tuning(results=claimed("c")), {"modes": ["ReadOnlyMany"]}, r"may only be read \(ReadOnlyMany\)"),
        (tuning(results=claimed("c")), {"modes": ["ReadWriteOncePod"]}, "tuning and serving both need it: make one"),
        (tuning(data=claimed("c")), {"volumeMode": "Block"}, "is a block device"),
        (cached(), {"modes": ["ReadOnlyMany"]}, "the model is written to it: make one of ReadWriteOnce"),
        (cached(count=2), {"modes": ["ReadWriteOnce", "ReadOnlyMany"]}, "count is 2: make one of ReadWriteMany"),
        (
            serving(adapter("a", claimed("c")), count=2),
            {},
            r"on one node \(ReadWriteOnce\), resource.count is 2: make one of ReadWriteMany",
        ),
    ],
)
def test_a_claim_that_cannot_be_used_so_is_refused_with_its_mode(preflight, secret, claim, workspace, made, words):  # noqa: F811
    secret()
    claim("c", *made.pop("modes", []), **made)
    with pytest.raises(errors.ClaimInvalidError, match=words):
        preflight(workspace)


@pytest.mark.parametrize(
    ("capacity", "requested", "words"),
    [
        ("7Gi", "100Gi", r"weights-cache\]: claim .*/c has 7.0 GiB .storage: 7Gi., .* weights alone are 7.1 GiB; make"),
        ("", "7Gi", "has 7.0 GiB"),
        ("100Gi", "1Gi", ""),
        ("", "100Gi", ""),
        ("1Pi", "1Gi", ""),
    ],
)
def test_a_cache_that_does_not_hold_the_model_is_refused(cluster, apply, claim, capacity, requested, words):
    claim("c", capacity=capacity, resources={"requests": {"storage": requested}})
    (use,) = volumes.named(workspace := Workspace.parse(apply(cached())))
    refusal = pytest.raises(errors.ClaimInvalidError, match=words) if words else contextlib.nullcontext()
    with refusal:
        volumes.pass_claim(cluster, workspace, use)


@pytest.mark.parametrize(
    ("binding", "spec", "words"),
    [
        ("", {}, "has no volume, and no storageClassName by which one would be made .* `kubectl get storageclass`"),
        ("", {"storageClassName": ""}, "has no volume, and no storageClassName"),
        ("", {"storageClassName": "gone"}, "is of StorageClass gone, which is missing"),
        ("Immediate", {}, "has no volume yet .Pending., which StorageClass .* makes at once; see `kubectl describe"),
        ("WaitForFirstConsumer", {}, ""),
        ("", {"storageClassName": "", "volumeName": "mine"}, ""),
    ],
)
def test_a_claim_that_nobody_binds_is_refused(cluster, apply, claim, storage_class, binding, spec, words):
    claim("c", phase="Pending", **({"storageClassName": storage_class(binding)} if binding else spec))
    workspace = Workspace.parse(apply(tuning(data=claimed("c"))))
    (use,) = [use for use in volumes.named(workspace) if use.field == volumes.INPUT]
    refusal = pytest.raises(errors.ClaimInvalidError, match=words) if words else contextlib.nullcontext()
    with refusal:
        volumes.pass_claim(cluster, workspace, use)


def test_all_that_is_missing_is_told_at_once(preflight, claim):  # noqa: F811
    inference = {"preset": making.tuning()["tuning"]["preset"], "adapters": [adapter("poet", claimed("third"))]}
    claim("first", phase="Lost")
    with pytest.raises(errors.SecretNotFoundError) as refused:
        preflight(tuning(data=claimed("first"), inference=inference))
    told = str(refused.value).split("; and ")
    assert [text.partition(": ")[0] for text in told] == [
        "tuning.output.imagePushSecret",
        "tuning.input.volumeSource.persistentVolumeClaim.claimName",
        "inference.adapters[0].source.volumeSource.persistentVolumeClaim.claimName",
    ]


def test_a_claim_without_its_volume_is_told(preflight, secret, claim):  # noqa: F811
    secret()
    claim("c", phase="Lost")
    with pytest.raises(errors.ClaimNotFoundError, match=r"is without its volume \(Lost\); make it anew"):
        preflight(tuning(data=claimed("c")))


@pytest.mark.parametrize(
    ("modes", "phase", "mounted"),
    [
        (["ReadWriteMany"], "Bound", True),
        (["ReadOnlyMany", "ReadWriteMany"], "Bound", True),
        (["ReadWriteOnce"], "Bound", False),
        (["ReadWriteMany"], "Pending", False),
    ],
)
def test_a_look_mounts_what_pods_on_any_node_may(looks, claim, storage_class, modes, phase, mounted):
    kind = storage_class("WaitForFirstConsumer")
    for name in ("in", "out", "poet"):
        claim(name, *modes, phase=phase, storageClassName=kind)
    inference = {"preset": making.tuning()["tuning"]["preset"], "adapters": [adapter("poet", claimed("poet"))]}
    first, second = looks(tuning(data=claimed("in"), results=claimed("out"), inference=inference))
    assert mounts(first) == (
        {"/mnt/data": (True, claimed("in")), "/mnt/results": (False, claimed("out"))} if mounted else {}
    )
    assert mounts(second) == ({"/mnt/adapters/poet": (True, claimed("poet"))} if mounted else {})
    asked = json.loads(first["metadata"]["annotations"][names.CONFIG])
    assert asked["input"] == {"volume": "persistentVolumeClaim/in"}
    assert asked["output"] == {"volume": "persistentVolumeClaim/out"}
    (listed,) = json.loads(second["metadata"]["annotations"][names.ADAPTERS])
    assert (listed["volume"], listed["folder"]) == ("persistentVolumeClaim/poet", "/mnt/adapters/poet")


def test_the_tuning_job_mounts_what_it_reads_and_writes(cluster, apply, settings, claim):
    claim("in")
    claim("out")
    workspace = Workspace.parse(apply(tuning(data=claimed("in"), results=claimed("out"))))
    wanted = asks.wanted(Run(cluster, workspace, settings, runs.provider(cluster, settings)), 1)
    template = dict(wanted.objects)[clusters.JOB]["spec"]["template"]
    assert mounts(template) == {"/mnt/data": (True, claimed("in")), "/mnt/results": (False, claimed("out"))}
    assert "push" not in {volume["name"] for volume in template["spec"]["volumes"]}
    assert template["spec"]["securityContext"]["fsGroup"] == 65532, "else nobody but root may write to a new claim"


@pytest.mark.parametrize(
    "kind", [{"nfs": {"server": "files", "path": "/x"}}, {"azureFile": {"secretName": "s", "shareName": "n"}}]
)
def test_what_pod_security_forbids_is_refused_in_its_words(preflight, secret, kind):  # noqa: F811
    secret()
    with pytest.raises(
        errors.ForbiddenError, match='violates PodSecurity "restricted:latest": restricted volume types'
    ):
        preflight(tuning(data=kind))


def test_a_tuned_adapter_is_looked_at_and_the_data_no_more(cluster, apply, settings, claim):
    claim("out", "ReadWriteMany")
    workspace = Workspace.parse(apply(tuning(data=claimed("long-gone"), results=claimed("out"))))
    run = Run(cluster, workspace, settings, runs.provider(cluster, settings))
    wanted = asks.wanted(run, 2, adapter=ADAPTER)
    (check,) = wanted.checks
    assert mounts(check.template) == {f"/mnt/adapters/{workspace.metadata.name}": (True, claimed("out"))}
    (listed,) = json.loads(check.template["metadata"]["annotations"][names.ADAPTERS])
    assert (listed["name"], listed["volume"]) == ("w", ADAPTER)
    assert [demand.verb for demand in wanted.demands] == ["serve"]
