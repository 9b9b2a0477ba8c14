import dataclasses
import threading

import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors
from tests import making
from tests.apiserver.conftest import NAMESPACE


def config_map(namespace, name="c", **data):
    return {"metadata": {"name": name, "namespace": namespace, "labels": {"test": "yes"}}, "data": data}


def test_what_is_not_there_is_none(cluster, namespace):
    assert cluster.get(clusters.CONFIG_MAP, "nothing", namespace) is None
    assert cluster.delete(clusters.CONFIG_MAP, "nothing", namespace) is False


@pytest.mark.parametrize("name", ["../../victim/configmaps/theirs", "..", ".", "", "theirs/../ours"])
def test_a_name_never_leads_anywhere_else(cluster, namespace, name):
    cluster.create(NAMESPACE, {"metadata": {"name": f"{namespace}-victim"}})
    cluster.create(clusters.CONFIG_MAP, config_map(f"{namespace}-victim", "theirs"))
    cluster.create(clusters.CONFIG_MAP, config_map(namespace, "ours"))
    name = name.replace("victim", f"{namespace}-victim")
    with pytest.raises(clusters.InvalidObjectError, match=f"ConfigMap '{name}': is not a name"):
        cluster.get(clusters.CONFIG_MAP, name, namespace)
    with pytest.raises(clusters.InvalidObjectError, match="namespace"):
        cluster.get(clusters.CONFIG_MAP, "theirs", f"x/../{namespace}-victim")
    with pytest.raises(clusters.InvalidObjectError, match="Pod"):
        next(cluster.logs(namespace, name, container="c"))


def test_what_is_listed_and_watched_of_a_slim_kind_is_metadata_alone(cluster, namespace):
    slim = dataclasses.replace(clusters.CONFIG_MAP, slim=True)
    cluster.create(clusters.CONFIG_MAP, config_map(namespace, a="long"))
    assert cluster.items(slim, namespace, labels="test=no") == []
    page = cluster.page(slim, namespace, labels="test=yes")
    assert [(obj["metadata"]["name"], "data" in obj) for obj in page["items"]] == [("c", False)]
    cluster.patch(clusters.CONFIG_MAP, "c", namespace, {"data": {"a": "longer"}})
    since = page["metadata"]["resourceVersion"]
    happened, obj = next(cluster.watch(slim, namespace, labels="test=yes", since=since))
    assert (happened, obj["metadata"]["name"], "data" in obj) == ("MODIFIED", "c", False)


def test_a_kind_that_is_not_installed_is_another_thing_than_an_object_that_is_not_there(cluster, namespace):
    unknown = clusters.Kind("Nothing", "nothings", "v1", "example.com")
    with pytest.raises(clusters.UnknownKindError, match="CRD"):
        cluster.create(unknown, {"metadata": {"name": "n", "namespace": namespace}})
    with pytest.raises(clusters.NotFoundError) as missing:
        cluster.create(clusters.CONFIG_MAP, config_map("there-is-no-such-namespace"))
    assert not isinstance(missing.value, clusters.UnknownKindError)


def test_a_name_that_is_taken_is_a_conflict(cluster, namespace):
    cluster.create(clusters.CONFIG_MAP, config_map(namespace))
    with pytest.raises(clusters.ConflictError, match="already exists"):
        cluster.create(clusters.CONFIG_MAP, config_map(namespace))


def test_a_stale_write_is_a_conflict(cluster, namespace):
    stored = cluster.create(clusters.CONFIG_MAP, config_map(namespace))
    cluster.patch(clusters.CONFIG_MAP, "c", namespace, {"data": {"a": "1"}})
    stale = {"metadata": {"resourceVersion": stored["metadata"]["resourceVersion"]}, "data": {"a": "2"}}
    with pytest.raises(clusters.ConflictError):
        cluster.patch(clusters.CONFIG_MAP, "c", namespace, stale)
    with pytest.raises(clusters.ConflictError):
        cluster.replace(clusters.CONFIG_MAP, stored)


def test_a_field_with_a_slip_is_refused_and_named(cluster, namespace):
    with pytest.raises(clusters.InvalidObjectError, match="dataa"):
        cluster.create(clusters.CONFIG_MAP, {**config_map(namespace), "dataa": {}})


def test_a_status_field_that_an_older_crd_does_not_know_is_dropped_not_refused(cluster, apply, namespace):
    apply(making.inference())
    body = {"status": {"state": "Pending", "ofANewerVersion": 1}}
    stored = cluster.patch(clusters.WORKSPACE, "w", namespace, body, subresource="status")
    assert stored["status"]["state"] == "Pending"
    assert "ofANewerVersion" not in stored["status"]


def test_a_dry_run_leaves_nothing(cluster, namespace):
    cluster.create(clusters.CONFIG_MAP, config_map(namespace), dry_run=True)
    assert cluster.get(clusters.CONFIG_MAP, "c", namespace) is None


def test_applying_the_same_again_changes_nothing_and_leaves_others_fields_alone(cluster, namespace):
    first = cluster.apply(clusters.CONFIG_MAP, config_map(namespace, ours="1"))
    cluster.patch(clusters.CONFIG_MAP, "c", namespace, {"data": {"theirs": "2"}})
    second = cluster.apply(clusters.CONFIG_MAP, config_map(namespace, ours="1"))
    assert second["data"] == {"ours": "1", "theirs": "2"}
    third = cluster.apply(clusters.CONFIG_MAP, config_map(namespace, ours="1"))
    assert third["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    assert first["metadata"]["uid"] == third["metadata"]["uid"]


def test_an_object_of_another_uid_is_not_deleted(cluster, namespace):
    cluster.create(clusters.CONFIG_MAP, config_map(namespace))
    assert cluster.delete(clusters.CONFIG_MAP, "c", namespace, uid="00000000-0000-0000-0000-000000000000") is False
    assert cluster.get(clusters.CONFIG_MAP, "c", namespace)


def test_lists_come_in_pages(cluster, namespace):
    for number in range(7):
        cluster.create(clusters.CONFIG_MAP, config_map(namespace, f"c{number}"))
    page = cluster.page(clusters.CONFIG_MAP, namespace, labels="test=yes", limit=3)
    assert len(page["items"]) == 3
    rest = cluster.page(clusters.CONFIG_MAP, namespace, labels="test=yes", limit=3, token=page["metadata"]["continue"])
    assert len(rest["items"]) == 3
    assert len(cluster.items(clusters.CONFIG_MAP, namespace, labels="test=yes")) == 7


def test_a_watch_sees_every_change(cluster, namespace):
    since = cluster.page(clusters.CONFIG_MAP, namespace)["metadata"]["resourceVersion"]
    cluster.create(clusters.CONFIG_MAP, config_map(namespace))
    cluster.patch(clusters.CONFIG_MAP, "c", namespace, {"data": {"a": "1"}})
    cluster.delete(clusters.CONFIG_MAP, "c", namespace)
    events = cluster.watch(clusters.CONFIG_MAP, namespace, labels="test=yes", since=since, seconds=2)
    assert [event for event, _ in events if event != "BOOKMARK"] == ["ADDED", "MODIFIED", "DELETED"]


def test_a_watch_from_too_long_ago_says_so(cluster, namespace):
    # The server began to remember Workspaces only when the CRD was applied.
    cluster.page(clusters.WORKSPACE, namespace)
    with pytest.raises(clusters.ExpiredError):
        list(cluster.watch(clusters.WORKSPACE, namespace, since="1", seconds=2))


def test_waiting_ends_with_the_first_change(cluster, namespace):
    page = cluster.page(clusters.CONFIG_MAP, namespace, labels="test=yes")
    waiting = threading.Thread(
        target=cluster.await_change,
        args=(clusters.CONFIG_MAP, namespace, page),
        kwargs={"labels": "test=yes", "seconds": 20},
    )
    waiting.start()
    cluster.create(clusters.CONFIG_MAP, config_map(namespace))
    waiting.join(timeout=5)
    assert not waiting.is_alive()


def test_a_quota_speaks_in_a_dry_run(cluster, namespace):
    quota = clusters.Kind("ResourceQuota", "resourcequotas")
    cluster.create(quota, {"metadata": {"name": "q", "namespace": namespace}, "spec": {"hard": {"pods": "0"}}})
    cluster.patch(
        quota, "q", namespace, {"status": {"hard": {"pods": "0"}, "used": {"pods": "0"}}}, subresource="status"
    )
    pod = {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {
            "containers": [
                {
                    "name": "c",
                    "image": "i",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        },
    }
    with pytest.raises(errors.ForbiddenError, match="exceeded quota"):
        cluster.create(clusters.POD, pod, dry_run=True)


def test_a_server_that_is_not_there_is_a_reason_to_try_again(tmp_path, monkeypatch):
    config = tmp_path / "kubeconfig"
    config.write_text(
        '{"apiVersion": "v1", "kind": "Config", "current-context": "x",'
        ' "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],'
        ' "users": [{"name": "u", "user": {}}],'
        ' "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]}'
    )
    monkeypatch.setenv("KUBECONFIG", str(config))
    with pytest.raises(errors.ClusterUnavailableError, match="no answer"):
        clusters.Cluster.connect().get(clusters.CONFIG_MAP, "c", "default")
