"""Volumes of the user's in what is asked of the images: where they are mounted, and what restarts the server."""

import json

import pytest

from kaito_hera import nodes, rollout
from kaito_hera.settings import Settings
from serving import config as serving
from tests import making
from workflows.asks import serving as asks

ADAPTER = f"persistentVolumeClaim/out@sha256:{'a' * 64}"
SETTINGS = Settings()
IMAGE = {"source": {"name": "style", "image": "team.io/style:1"}, "strength": "0.5"}


def claim(name):
    return {"persistentVolumeClaim": {"claimName": name}}


def on_volume(name, source=None):
    return {"source": {"name": name, "volumeSource": source or claim(name)}}


def served(*adapters):
    workspace = making.inference()
    return {**workspace, "inference": {**workspace["inference"], "adapters": list(adapters)}}


def tuned(*adapters):
    workspace = making.tuning()
    tuning = {**workspace["tuning"], "output": {"volumeSource": claim("out")}}
    inference = {"preset": tuning["preset"], "adapters": list(adapters)}
    return {**workspace, "tuning": tuning, **({"inference": inference} if adapters else {})}


def server(workspace, adapter=""):
    found = asks.expected(making.parsed(workspace), SETTINGS, adapter=adapter)
    assert found is not None
    return found


def template(workspace, adapter=""):
    placement = nodes.Placement(labels={})
    return rollout.pod_template(making.parsed(workspace), SETTINGS, server(workspace, adapter), placement)


def adapters_of(made):
    return serving.Adapters.validate_json(made.files[serving.ADAPTERS_FILE])


def mounted(made):
    spec = made["spec"]
    sources = {volume["name"]: {k: v for k, v in volume.items() if k != "name"} for volume in spec["volumes"]}
    return {
        mount["mountPath"]: (mount.get("readOnly"), sources[mount["name"]])
        for mount in spec["containers"][0]["volumeMounts"]
        if mount["mountPath"].startswith("/mnt/adapters/")
    }


def test_adapters_of_images_and_volumes_are_mixed():
    workspace = served(IMAGE, on_volume("poet"))
    assert adapters_of(server(workspace)) == (
        serving.Adapter(name="style", image="team.io/style:1", strength=0.5),
        serving.Adapter(name="poet", volume="persistentVolumeClaim/poet", folder="/mnt/adapters/poet"),
    )
    assert mounted(template(workspace)) == {"/mnt/adapters/poet": (True, claim("poet"))}


def test_only_what_changes_a_mount_restarts_the_server():
    before = template(served(IMAGE, on_volume("poet"), on_volume("cook")))
    assert template(served(on_volume("cook"), on_volume("poet"))) == before, "neither order nor images are in the pod"
    assert template(served(on_volume("poet"))) != before
    assert template(served(on_volume("poet"), on_volume("cook", claim("other")))) != before
    weaker = {**on_volume("cook"), "strength": "0.5"}
    assert template(served(on_volume("poet"), weaker)) == before


def test_every_kind_of_volume_is_mounted_as_it_is_written():
    source = {"csi": {"driver": "blob.csi.azure.com", "readOnly": True, "volumeAttributes": {"containerName": "x"}}}
    made = server(served(on_volume("poet", source)))
    assert mounted(template(served(on_volume("poet", source)))) == {"/mnt/adapters/poet": (True, source)}
    assert adapters_of(made)[0].volume == "csi"


def test_what_was_tuned_is_served_from_its_volume_and_no_other_adapter_will_do():
    workspace = tuned(IMAGE)
    assert (
        mounted(template(workspace))
        == mounted(template(workspace, ADAPTER))
        == {"/mnt/adapters/w": (True, claim("out"))}
    )
    listed, own = adapters_of(server(workspace, ADAPTER))
    assert listed.image == "team.io/style:1"
    assert own == serving.Adapter(name="w", volume=ADAPTER, folder="/mnt/adapters/w")


@pytest.mark.parametrize(
    ("workspace", "at", "words"),
    [
        (
            served(on_volume("poet")),
            0,
            "inference.adapters[0].source.volumeSource: adapter poet of persistent",
        ),
        (tuned(), 0, f"tuning.output.volumeSource: adapter w of {ADAPTER} cannot be served: DoRA; name a volume with"),
        (served(IMAGE), 0, "inference.adapters[0].source.image: adapter style of team.io/style:1 cannot be served"),
    ],
)
def test_a_refusal_names_the_volume(workspace, at, words):
    made = server(workspace, ADAPTER if "tuning" in workspace else "")
    listed = adapters_of(made)[at]
    status = serving.AdapterStatus(**listed.model_dump(), state="failed", reason="DoRA", retryable=False, failures=1)
    answer = json.loads(serving.Served(ready=False, adapters=(status,)).model_dump_json())
    (error,) = made.refusals(answer).values()
    assert str(error).startswith(words)
    assert "DoRA" in made.lacks(answer)
