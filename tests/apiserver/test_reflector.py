"""The watcher's copy of the cluster: whatever interrupts it, in the end it is what the API server has."""

import dataclasses

import pytest

from kaito_hera import cluster as clusters
from kaito_hera.queue import Queue
from kaito_hera.reflector import Reflector, Watched
from tests.apiserver.conftest import NAMESPACE, until

OWNER, KEPT = "test.kaito.sh/owner", "test.kaito.sh/kept"


def watched(kind, namespace):
    """Objects of one test; what is kept of each is one annotation."""
    return Watched(
        kind,
        f"test.kaito.sh/of={namespace}",
        key=lambda obj: (namespace, obj["metadata"]["labels"][OWNER]),
        trim=lambda obj: {
            "name": obj["metadata"]["name"],
            "kept": obj["metadata"].get("annotations", {}).get(KEPT, ""),
        },
    )


class Woken:
    """Counts who was woken."""

    def __init__(self):
        self.keys = []

    def __call__(self, key):
        self.keys.append(key[1])


@pytest.fixture
def make(cluster, namespace):
    def create(name, *, owner="w", kept="", kind=clusters.CONFIG_MAP):
        labels = {"test.kaito.sh/of": namespace, OWNER: owner}
        metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": {KEPT: kept}}
        return cluster.create(kind, {"metadata": metadata})

    return create


@pytest.fixture
def change(cluster, namespace):
    def patch(name, **metadata):
        cluster.patch(clusters.CONFIG_MAP, name, namespace, {"metadata": metadata})

    return patch


def reflecting(connection, namespace, woken, **options):
    reflector = Reflector(connection, watched(clusters.CONFIG_MAP, namespace), woken, pause=0.2, **options)
    reflector.start()
    assert reflector.synced.wait(10)
    return reflector


def names(reflector, namespace, owner="w"):
    return sorted(obj["name"] for obj in reflector.of((namespace, owner)))


def test_more_objects_than_a_page_holds_are_all_kept(cluster, namespace, make):
    for number in range(7):
        make(f"c{number}", owner=f"w{number % 2}")
    reflector = reflecting(cluster, namespace, Woken(), page=3)
    assert names(reflector, namespace, "w0") == ["c0", "c2", "c4", "c6"]
    assert names(reflector, namespace, "w1") == ["c1", "c3", "c5"]
    assert sorted(reflector.keys()) == [(namespace, "w0"), (namespace, "w1")]


def test_what_is_added_changed_and_deleted_is_followed(cluster, namespace, make, change):
    woken = Woken()
    reflector = reflecting(cluster, namespace, woken)
    make("c")
    until(lambda: names(reflector, namespace) == ["c"], what="the new object")
    change("c", annotations={KEPT: "1"})
    until(lambda: [obj["kept"] for obj in reflector.of((namespace, "w"))] == ["1"], what="its change")
    cluster.delete(clusters.CONFIG_MAP, "c", namespace)
    until(lambda: reflector.keys() == [], what="its end")
    assert woken.keys == ["w", "w", "w"]


def test_a_change_of_what_is_not_kept_wakes_nobody(cluster, namespace, make, change):
    woken = Woken()
    make("c")
    reflector = reflecting(cluster, namespace, woken)
    change("c", annotations={"other": "1"})
    make("after")
    until(lambda: names(reflector, namespace) == ["after", "c"], what="what came after the change")
    assert woken.keys == ["w", "w"]


def test_what_was_deleted_while_the_watch_was_down_is_dropped(cluster, namespace, make, wire):
    woken = Woken()
    for name in ("stays", "goes", "comes-back"):
        make(name, kept="old")
    reflector = reflecting(wire.cluster, namespace, woken)
    wire.whole = False
    wire.cut()
    cluster.delete(clusters.CONFIG_MAP, "goes", namespace)
    cluster.delete(clusters.CONFIG_MAP, "comes-back", namespace)
    make("comes-back", kept="new")
    make("new", owner="other")
    wire.whole = True
    until(lambda: names(reflector, namespace) == ["comes-back", "stays"], what="the list after the break")
    assert {obj["name"]: obj["kept"] for obj in reflector.of((namespace, "w"))} == {"stays": "old", "comes-back": "new"}
    assert names(reflector, namespace, "other") == ["new"]
    assert sorted(woken.keys) == ["other", *["w"] * 5], "three at first, then one for each that changed"


def test_it_follows_on_after_every_break(cluster, namespace, make, wire):
    reflector = reflecting(wire.cluster, namespace, Woken())
    for turn in range(3):
        make(f"c{turn}")
        wire.cut()
        until(lambda turn=turn: f"c{turn}" in names(reflector, namespace), what="the object of this turn")


def test_an_api_server_that_is_away_is_tried_until_it_is_back(cluster, namespace, make, wire):
    make("c")
    reflector = reflecting(wire.cluster, namespace, Woken())
    wire.whole = False
    wire.cut()
    calls, heard = wire.calls, reflector.heard
    until(lambda: wire.calls >= calls + 2, what="two tries in vain")
    assert reflector.heard == heard, "what is not heard must show: the process is restarted by it"
    assert names(reflector, namespace) == ["c"], "the copy stays meanwhile"
    wire.whole = True
    make("d")
    until(lambda: names(reflector, namespace) == ["c", "d"], what="both")
    assert reflector.heard > heard


class Forgetful:
    """An API server that no longer knows the version to watch from, the first times it is asked."""

    def __init__(self, cluster, times, meanwhile):
        self._cluster, self._left, self._meanwhile = cluster, times, meanwhile
        self.lists = 0

    def page(self, *arguments, **options):
        self.lists += 1
        return self._cluster.page(*arguments, **options)

    def watch(self, *arguments, **options):
        if self._left:
            self._left -= 1
            self._meanwhile(self._left)
            raise clusters.ExpiredError("too old resource version")
        return self._cluster.watch(*arguments, **options)


def test_a_version_that_expired_is_listed_anew(cluster, namespace, make):
    server = Forgetful(cluster, 3, meanwhile=lambda left: make(f"c{left}"))
    reflector = reflecting(server, namespace, Woken())
    until(lambda: names(reflector, namespace) == ["c0", "c1", "c2"], what="what the watch missed")
    make("later")
    until(lambda: "later" in names(reflector, namespace), what="a watch that works again")
    assert server.lists == 4


def test_an_object_that_changes_hands_is_kept_once(cluster, namespace, make, change):
    woken = Woken()
    make("c", owner="first")
    reflector = reflecting(cluster, namespace, woken)
    change("c", labels={OWNER: "second"})
    until(lambda: names(reflector, namespace, "second") == ["c"], what="the new owner")
    assert names(reflector, namespace, "first") == []
    assert set(woken.keys) == {"first", "second"}
    cluster.delete(clusters.CONFIG_MAP, "c", namespace)
    until(lambda: reflector.keys() == [], what="its end")


def test_an_object_that_loses_its_label_is_dropped(cluster, namespace, make, change):
    make("c")
    reflector = reflecting(cluster, namespace, Woken())
    change("c", labels={"test.kaito.sh/of": None})
    until(lambda: reflector.keys() == [], what="its end")


def test_objects_elsewhere_are_not_looked_at(cluster, namespace, make):
    other = f"{namespace}-other"
    cluster.create(NAMESPACE, {"metadata": {"name": other}})
    labels = {"test.kaito.sh/of": namespace, OWNER: "w"}
    cluster.create(clusters.CONFIG_MAP, {"metadata": {"name": "theirs", "namespace": other, "labels": labels}})
    make("ours")
    what = dataclasses.replace(watched(clusters.CONFIG_MAP, namespace), namespace=namespace)
    reflector = Reflector(cluster, what, Woken())
    reflector.start()
    assert reflector.synced.wait(10)
    cluster.patch(clusters.CONFIG_MAP, "theirs", other, {"metadata": {"annotations": {KEPT: "1"}}})
    make("later")
    until(lambda: "later" in names(reflector, namespace), what="a later one")
    assert names(reflector, namespace) == ["later", "ours"]


def test_an_object_that_belongs_to_nobody_is_ignored_from_then_on(cluster, namespace, make, change):
    make("c")
    make("nobody-s", owner="none")
    what = watched(clusters.CONFIG_MAP, namespace)
    key = what.key
    what = dataclasses.replace(what, key=lambda obj: None if key(obj)[1] == "none" else key(obj))
    woken = Woken()
    reflector = Reflector(cluster, what, woken)
    reflector.start()
    assert reflector.synced.wait(10)
    assert names(reflector, namespace) == ["c"]
    change("c", labels={OWNER: "none"})
    until(lambda: reflector.keys() == [], what="its end")
    assert woken.keys == ["w", "w"]


def test_without_its_crd_there_are_none_until_it_is_installed(cluster, namespace, caplog):
    group = f"{namespace}.example.com"
    kind = clusters.Kind("Flow", "flows", "v1", group)
    what = dataclasses.replace(watched(kind, namespace), optional=True)
    reflector = Reflector(cluster, what, Woken(), pause=0.2)
    began = reflector.heard
    reflector.start()
    assert reflector.synced.wait(10)
    assert reflector.keys() == []
    first = until(lambda: reflector.heard > began and reflector.heard, what="a first look")
    until(lambda: reflector.heard > first, what="another look")
    assert sum("flows" in record.message for record in caplog.records) == 1, "it is said once"
    _install(cluster, kind)
    labels = {"test.kaito.sh/of": namespace, OWNER: "w"}
    flow = {"apiVersion": f"{group}/v1", "kind": "Flow"}
    flow["metadata"] = {"name": "f", "namespace": namespace, "labels": labels}
    until(lambda: _created(cluster, kind, flow), what="a server that knows the kind")
    until(lambda: names(reflector, namespace) == ["f"], what="the first object of it")
    cluster.delete(CRD, f"flows.{group}")
    until(lambda: reflector.keys() == [], what="none again")


def test_a_kind_that_must_be_there_is_waited_for(cluster, namespace):
    kind = clusters.Kind("Nothing", "nothings", "v1", f"{namespace}.example.com")
    reflector = Reflector(cluster, watched(kind, namespace), Woken(), pause=0.1)
    reflector.start()
    assert not reflector.synced.wait(1)


CRD = clusters.Kind(
    "CustomResourceDefinition", "customresourcedefinitions", group="apiextensions.k8s.io", namespaced=False
)


def _install(cluster, kind):
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"kind": kind.name, "plural": kind.plural, "singular": "flow", "listKind": "FlowList"}
    spec = {"group": kind.group, "scope": "Namespaced", "names": names, "versions": [version]}
    cluster.create(CRD, {"metadata": {"name": f"{kind.plural}.{kind.group}"}, "spec": spec})


def _created(cluster, kind, obj):
    try:
        return cluster.create(kind, obj)
    except clusters.UnknownKindError:
        return None


def test_two_kinds_feed_one_key(cluster, namespace, make):
    queue = Queue()
    kinds = (clusters.CONFIG_MAP, clusters.SECRET)
    reflectors = [Reflector(cluster, watched(kind, namespace), queue.add) for kind in kinds]
    for reflector in reflectors:
        reflector.start()
        assert reflector.synced.wait(10)
    for kind in kinds:
        make("x", kind=kind)
    until(lambda: all(names(reflector, namespace) == ["x"] for reflector in reflectors), what="both copies")
    assert queue.take() == (namespace, "w")
    queue.done((namespace, "w"))
    queue.add("end")
    assert queue.take() == "end", "one key, however many kinds had changes"
