"""Tables or settings that are missing or other ones: nothing that is there gets stuck."""

import pytest

from kaito_hera import cluster as clusters
from tests import making
from tests.apiserver import asking
from tests.apiserver.conftest import NAMESPACE, ROOT, connected, until
from tests.cluster import testing

TABLE = clusters.Kind("PresetTable", "presettables", "v1", "hera.kaito.sh", namespaced=False)
NAME = "kaito-hera-presets"


@pytest.fixture(scope="module")
def own(spare):
    """The kubeconfig of an API server with all of ours."""
    testing.install(spare)
    return spare


@pytest.fixture
def cluster(own):
    return connected(own)


@pytest.fixture
def refused(cluster, namespace):
    """What the API server says to a Workspace; empty if it would take it."""

    def said(workspace):
        answer = asking.create(cluster, {**workspace, "metadata": {"name": "new"}}, namespace)
        return "" if answer.taken else answer.message

    return said


def settle(refused, words, workspace=None):
    """Wait until an apply is refused in these words, or taken where there are none."""
    asked = workspace or making.inference()
    until(lambda: words in said if (said := refused(asked)) else not words, what=f"a verdict: {words or 'taken'}")


@pytest.fixture
def without_table(cluster, refused):
    """No tables, which a new Workspace's refusal shows; they come back afterwards."""
    table = cluster.get(TABLE, NAME)
    cluster.delete(TABLE, NAME)
    settle(refused, "presettable-kaito-hera-presets-is-missing.install-kaito-hera-anew")
    yield
    cluster.apply(TABLE, {"metadata": {"name": NAME}, "data": table["data"]})
    settle(refused, "")


def unsound(cluster, namespace):
    """A Workspace that was let in and would not be let in now."""
    workspace = making.inference()
    metadata = {"name": "w", "namespace": namespace, "annotations": {}}
    body = {**workspace, "metadata": metadata, "inference": {"preset": {"name": "made-up"}}}
    table = cluster.get(TABLE, NAME)
    row = table["data"]["preset.phi-3-mini-4k-instruct"]
    cluster.patch(TABLE, NAME, None, {"data": {"preset.made-up": row}})

    def taken():
        try:
            return cluster.create(clusters.WORKSPACE, body)
        except clusters.InvalidObjectError:
            return None

    until(taken, what="a Workspace that the tables allow")
    cluster.patch(TABLE, NAME, None, {"data": {"preset.made-up": None}})


@pytest.fixture
def old(cluster, namespace, refused):
    unsound(cluster, namespace)
    other = {**making.inference(), "inference": {"preset": {"name": "made-up"}}}
    settle(refused, "made-up", other)


def test_what_became_unsound_can_be_edited_elsewhere_finalized_and_deleted(cluster, namespace, old):
    edit = {"resource": {"preferredNodes": ["n"]}, "metadata": {"annotations": {"kaito.sh/retry": "1"}}}
    cluster.patch(clusters.WORKSPACE, "w", namespace, edit)
    _finalized_and_deleted(cluster, namespace)


def test_so_it_can_with_its_tables_gone(cluster, namespace, old, without_table):
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"resource": {"preferredNodes": ["n"]}})
    _finalized_and_deleted(cluster, namespace)


def test_so_it_can_with_the_kind_of_its_tables_gone(cluster, namespace, old, own, refused):
    testing.kubectl(own, "delete", "-f", str(ROOT / "argo" / "policy-kind.yaml"))
    settle(refused, "kaito-hera-tables")
    _finalized_and_deleted(cluster, namespace)
    testing.install(own)
    settle(refused, "")


def _finalized_and_deleted(cluster, namespace):
    finalizers = ["workspace.finalizer.kaito.sh"]
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"metadata": {"finalizers": finalizers}})
    cluster.delete(clusters.WORKSPACE, "w", namespace)
    assert cluster.get(clusters.WORKSPACE, "w", namespace)["metadata"]["deletionTimestamp"]
    cluster.patch(clusters.WORKSPACE, "w", namespace, {"metadata": {"finalizers": None}})
    assert cluster.get(clusters.WORKSPACE, "w", namespace) is None


def test_new_workspaces_are_refused_without_tables_and_told_what_to_install(refused, without_table):
    said = refused(making.inference())
    assert "kaito-hera-tables" in said
    assert "presettable-kaito-hera-presets-is-missing.install-kaito-hera-anew" in said


def test_empty_tables_are_as_good_as_none(cluster, refused):
    rows = cluster.get(TABLE, NAME)["data"]
    cluster.patch(TABLE, NAME, None, {"data": None})
    settle(refused, "PresetTable kaito-hera-presets is empty: install kaito-hera anew")
    cluster.patch(TABLE, NAME, None, {"data": rows})
    settle(refused, "")


@pytest.fixture
def settings(cluster, refused):
    """Change settings; they are as before afterwards."""
    changed = {}

    def change(**data):
        changed.update(dict.fromkeys(data))
        cluster.patch(clusters.CONFIG_MAP, "kaito-hera-settings", "kaito-hera", {"data": data})

    yield change
    cluster.patch(clusters.CONFIG_MAP, "kaito-hera-settings", "kaito-hera", {"data": changed | {"nodeProvider": "byo"}})
    settle(refused, "", unsized())


def unsized():
    workspace = making.inference()
    return {**workspace, "resource": {"labelSelector": workspace["resource"]["labelSelector"]}}


def test_where_nodes_are_made_their_size_is_named_and_no_part_of_a_gpu(settings, refused):
    settings(nodeProvider="aks")
    settle(refused, "resource.instanceType: is missing", unsized())
    workspace = making.inference()
    workspace["resource"]["partition"] = {"mode": "accelerator", "count": 1}
    assert "resource.partition: nodes that are made here have whole GPUs" in refused(workspace)
    assert refused(making.inference()) == ""


def test_retired_sizes_are_refused_where_the_setting_says_so(settings, refused):
    old_size = making.edited(making.inference(), instanceType="Standard_NC6s_v3")
    settings(retiredSizes="refuse")
    settle(refused, "the setting retiredSizes refuses such sizes", old_size)
    assert refused(making.inference()) == ""


@pytest.fixture
def namespace(cluster):
    name = "absent"
    if cluster.get(NAMESPACE, name) is None:
        cluster.create(NAMESPACE, {"metadata": {"name": name}})
    return name


def test_what_was_uninstalled_and_installed_again_judges_again(own, refused):
    """With a ConfigMap for the tables the API server would find none until a restart: as the settings' rules then.

    Therefore this is the last.
    """
    for file in ("policy.yaml", "policy-kind.yaml"):
        testing.kubectl(own, "delete", "--ignore-not-found", "-f", str(ROOT / "argo" / file))
    settle(refused, "", {**making.inference(), "inference": {"preset": {"name": "made-up"}}})
    testing.install(own)
    settle(refused, "")
