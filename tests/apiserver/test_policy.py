"""What the admission policies refuse, and what they leave alone, on the real API server."""

import json

import pytest

from kaito_hera import cluster as clusters
from tests import making
from tests.apiserver import asking
from tests.apiserver.conftest import ROOT, until

SEEDS = sorted(file for file in (ROOT / "examples").glob("*.yaml") if not file.name.endswith(".workflow.yaml"))
ROLE = clusters.Kind("Role", "roles", group="rbac.authorization.k8s.io")
BINDING = clusters.Kind("RoleBinding", "rolebindings", group="rbac.authorization.k8s.io")
TEMPLATE = {"spec": {"containers": [{"name": "own", "image": "a.io/own:1"}]}}


@pytest.fixture
def said(cluster, namespace):
    """What an apply of a Workspace of `making` is told, refusal or warnings; `keep` stores it."""

    def create(workspace, **options):
        metadata = {"name": "w", "annotations": workspace["metadata"].get("annotations", {})}
        answer = asking.create(cluster, {**workspace, "metadata": metadata}, namespace, **options)
        assert answer.taken or answer.refused, answer
        return "\n".join(answer.warnings if answer.taken else (answer.message, *answer.warnings))

    return create


@pytest.fixture
def edited(cluster, namespace):
    """What an edit of the Workspace is told."""

    def edit(change, **options):
        stored = {"apiVersion": "kaito.sh/v1beta1", "metadata": {"name": "w"}}
        answer = asking.edit(cluster, stored, namespace, change, **options)
        assert answer.taken or answer.refused, answer
        return "" if answer.taken else answer.message

    return edit


def own_pod(**spec):
    return {**making.inference(), "inference": {"template": {"spec": {**TEMPLATE["spec"], **spec}}}}


def test_all_that_is_wrong_is_told_at_once(kubectl, namespace):
    workspace = making.tuning(annotations={"kaito.sh/serve": "maybe"})
    workspace["tuning"]["input"]["urls"] += ["ftp://example.com/a", "http://localhost/a"]
    workspace["tuning"]["output"]["image"] = "team.io/Adapter:1"
    body = json.dumps({**workspace, "metadata": {"name": "w", "annotations": workspace["metadata"]["annotations"]}})
    refused = kubectl("create", "-n", namespace, "-f", "-", stdin=body, check=False)
    assert refused.returncode != 0
    for field in ("urls[1]", "1 more of them", "tuning.output.image", "metadata.annotations[kaito.sh/serve]"):
        assert field in refused.stderr


def test_a_password_is_refused_and_not_repeated(said):
    workspace = making.tuning()
    workspace["tuning"]["input"]["urls"] = ["https://me:hunter2@example.com/a"]
    told = said(workspace)
    assert "tuning.input.urls[0]: carries a password" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "manifest", [file for file in SEEDS if "NC6s_v3" in file.read_text()], ids=lambda file: file.stem
)
def test_the_users_manifests_are_taken_with_a_warning_that_names_what_to_take_instead(kubectl, namespace, manifest):
    said = kubectl("apply", "-n", namespace, "-f", manifest).stderr
    assert "Standard_NC6s_v3 is retired" in said
    assert "Standard_NC24ads_A100_v4 (3.67 USD/h)" in said


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"containers": []}, "inference.template.spec.containers"),
        ({"containers": ["x"]}, "inference.template.spec.containers"),
        ({"containers": None}, "inference.template.spec.containers"),
        ({"volumes": [{"name": "a"}, {"name": "b", "hostPath": {"path": "/"}}]}, "volumes[1]: is a hostPath"),
    ],
)
def test_a_pod_of_ones_own_has_containers_and_no_folder_of_the_node(said, spec, words):
    assert words in said(own_pod(**spec))


def test_a_hostpath_that_is_null_is_none(said):
    assert said(own_pod(volumes=[{"name": "a", "hostPath": None, "emptyDir": {}}])) == ""


@pytest.mark.parametrize("spec", [None, "x", [], {"volumes": "x"}], ids=str)
def test_a_template_of_another_shape_is_refused_in_our_words(said, spec):
    workspace = {**making.inference(), "inference": {"template": {"spec": spec}}}
    assert "inference.template.spec.containers: there is none" in said(workspace)


@pytest.fixture
def user(cluster, namespace):
    """A user who may write Workspaces here; with `pods` also make pods. His name."""

    def make(*, pods):
        rules = [{"apiGroups": ["kaito.sh"], "resources": ["workspaces"], "verbs": ["*"]}]
        rules += [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}] if pods else []
        name = f"user-{pods}".lower()
        metadata = {"name": name, "namespace": namespace}
        group = {"apiGroup": ROLE.group}
        cluster.create(ROLE, {"metadata": metadata, "rules": rules})
        subjects, given = [{**group, "kind": "User", "name": name}], {**group, "kind": "Role", "name": name}
        cluster.create(BINDING, {"metadata": metadata, "roleRef": given, "subjects": subjects})
        sound = {**making.inference(), "metadata": {"name": "w"}}
        until(lambda: asking.create(cluster, sound, namespace, user=name).taken, what="rights that hold")
        return name

    return make


VOLUME = {"persistentVolumeClaim": {"claimName": "data"}}


def tuned_from_a_volume():
    workspace = making.tuning()
    workspace["tuning"]["input"] = {"volumeSource": VOLUME}
    return workspace


def cached():
    return making.inference(annotations={"kaito.sh/weights-cache": "models"})


@pytest.mark.parametrize("workspace", [own_pod(), tuned_from_a_volume(), cached()], ids=["template", "volume", "cache"])
def test_only_who_may_make_pods_gets_one_of_his_own(said, user, workspace):
    assert "user-false may not create pods in namespace" in said(workspace, user=user(pods=False))
    assert said(workspace, user=user(pods=True)) == ""


def test_who_may_not_make_pods_still_serves_and_edits_what_others_applied(said, edited, user):
    name = user(pods=False)
    assert said(making.inference(), user=name) == ""
    assert said(own_pod(), keep=True) == ""
    assert edited({"resource": {"preferredNodes": ["n"]}}, user=name) == ""
    change = {"inference": {"template": {"spec": {"hostNetwork": True}}}}
    assert "may not create pods" in edited(change, user=name)


def test_an_edit_is_judged_by_what_it_changes(said, edited):
    """GPU memory is asked for again where the size changes, not where the annotation of another rule does."""
    workspace = making.inference(annotations={"kaito.sh/bypass-resource-checks": "true"})
    workspace["inference"]["preset"]["name"] = "gpt-oss-120b"
    assert "inference.preset" not in said(workspace, keep=True)
    assert edited({"metadata": {"annotations": {"kaito.sh/retry": "1"}}}) == ""
    assert "needs 246" in edited({"metadata": {"annotations": {"kaito.sh/bypass-resource-checks": None}}})


def test_the_operator_s_own_writes_are_not_judged_nor_warned_of(cluster, apply, namespace):
    apply(making.edited(making.inference(), instanceType="Standard_NC6s_v3"))
    stored = cluster.patch(clusters.WORKSPACE, "w", namespace, {"metadata": {"finalizers": ["a.example.com/b"]}})
    assert stored["metadata"]["finalizers"] == ["a.example.com/b"]
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"status": {"state": "Pending"}}, subresource="status")
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"metadata": {"finalizers": None}})


LONGEST = f"{'a.' * 120}azurecr.io/{'a-b_c/' * 42}a:{'t' * 128}"
"""An image: a host, 253 letters of path and a tag."""


def longest_tuning():
    """64 addresses of 937 characters, which is all that one Workspace may have of them."""
    workspace = making.tuning()
    urls = [f"https://{'a.' * 120}example.com/{number:02}/" for number in range(64)]
    workspace["tuning"]["input"]["urls"] = [url + "x" * (937 - len(url)) for url in urls]
    workspace["tuning"]["output"]["image"] = LONGEST
    return workspace


def longest_serving():
    workspace = making.inference()
    adapters = [
        {"source": {"name": f"{number}" + "n" * 250, "image": LONGEST, "imagePullSecrets": ["s" * 253] * 10}}
        for number in range(10)
    ]
    workspace["inference"]["adapters"] = adapters
    labels = {f"{'d' * 200}.example.com/{number:063}": "v" * 63 for number in range(32)}
    workspace["resource"]["labelSelector"] = {"matchLabels": labels}
    return workspace


def whole_pod():
    """A pod with as much in it as an object may have."""
    container = {"image": LONGEST, "env": [{"name": f"E{n}", "value": "v" * 200} for n in range(100)]}
    volumes = [{"name": f"v{n}", "emptyDir": {}} for n in range(500)]
    return own_pod(containers=[{"name": f"c{n}", **container} for n in range(20)], volumes=volumes)


@pytest.mark.parametrize("workspace", [longest_tuning(), longest_serving(), whole_pod()], ids=["tune", "serve", "pod"])
def test_the_largest_workspaces_stay_within_the_rules_budget(said, workspace):
    assert said(workspace) == ""


def test_the_worst_of_addresses_stay_within_the_rules_budget_and_the_message_is_cut(said):
    workspace = making.tuning()
    urls = [f"http://{'1.' * 400}{number}/" for number in range(64)]
    workspace["tuning"]["input"]["urls"] = urls
    told = said(workspace)
    assert "tuning.input.urls[0]" in told
    assert "budget" not in told
    assert len(told) < 4500
