"""Sources and destinations that can never work are refused at apply, by CEL and by our own reading alike."""

import pydantic
import pytest

from kaito_hera import cluster as clusters
from kaito_hera import errors
from kaito_hera.api import Workspace
from tests import making

CLAIM = {"persistentVolumeClaim": {"claimName": "c"}}
READ_ONLY = {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}
TAKEN = ["persistentVolumeClaim", "csi", "nfs", "azureFile", "azureDisk"]
OPTIONS = {"image": "team.io/weights:1", "imagePullSecrets": ["pull"]}


def of(kind):
    return {kind: {}} if kind != "persistentVolumeClaim" else CLAIM


def data(volume):
    workspace = making.tuning()
    return {**workspace, "tuning": {**workspace["tuning"], "input": {"volumeSource": volume}}}


def results(volume):
    workspace = making.tuning()
    return {**workspace, "tuning": {**workspace["tuning"], "output": {"volumeSource": volume}}}


def adapter(volume):
    workspace = making.inference()
    adapters = [{"source": {"name": "a", "volumeSource": volume}}]
    return {**workspace, "inference": {**workspace["inference"], "adapters": adapters}}


def two_presets(tuned=None, served=None):
    workspace = making.tuning()
    name = workspace["tuning"]["preset"]["name"]

    def preset(options):
        return {"name": name, **({"presetOptions": options} if options is not None else {})}

    tuning = {**workspace["tuning"], "preset": preset(tuned)}
    return {**workspace, "tuning": tuning, "inference": {"preset": preset(served)}}


@pytest.fixture
def judged(cluster, namespace):
    """What both say of it: an empty text, or the API server's reason; they must agree."""

    def judge(workspace):
        body = {**workspace, "metadata": {"name": "w", "namespace": namespace}}
        try:
            Workspace.parse(body)
            ours = ""
        except pydantic.ValidationError as refused:
            ours = str(refused)
        try:
            cluster.create(clusters.WORKSPACE, body, dry_run=True)
            theirs = ""
        except errors.TerminalError as refused:
            theirs = str(refused)
        assert bool(ours) == bool(theirs), f"ours: {ours}, the API server's: {theirs}"
        return theirs

    return judge


@pytest.mark.parametrize("place", [data, results, adapter])
@pytest.mark.parametrize("kind", TAKEN)
def test_kinds_that_can_work_are_taken(judged, place, kind):
    assert judged(place(of(kind))) == ""


@pytest.mark.parametrize("place", [data, adapter])
@pytest.mark.parametrize("kind", ["configMap", "secret", "image", "ephemeral"])
def test_kinds_that_can_be_read_are_taken_to_read(judged, place, kind):
    assert judged(place(of(kind))) == ""


@pytest.mark.parametrize("place", [data, adapter])
def test_what_is_always_empty_is_not_read(judged, place):
    assert "an emptyDir is always empty" in judged(place({"emptyDir": {}}))


@pytest.mark.parametrize("kind", ["configMap", "secret", "image", "emptyDir", "ephemeral"])
def test_an_adapter_is_not_written_where_it_would_be_lost(judged, kind):
    said = judged(results(of(kind)))
    assert "tuning.output" in said
    assert "volumeSource: configMap, secret and image cannot be written to" in said
    assert said.endswith("take one of persistentVolumeClaim, csi, nfs, azureFile, azureDisk")


def test_an_adapter_is_not_written_to_what_is_read_only(judged):
    assert "take readOnly out" in judged(results(READ_ONLY))
    assert judged(data(READ_ONLY)) == ""
    assert judged(results({"persistentVolumeClaim": {"claimName": "c", "readOnly": False}})) == ""


@pytest.mark.parametrize("place", [data, results, adapter])
@pytest.mark.parametrize("volume", [{"hostPath": {"path": "/"}}, {}, {**CLAIM, "nfs": {}}])
def test_no_folder_of_the_nodes_and_one_kind_alone(judged, place, volume):
    assert "volumeSource" in judged(place(volume))


@pytest.mark.parametrize("place", [data, results, adapter])
def test_what_is_offered_in_place_of_a_hostpath_is_taken_there(judged, place):
    said = judged(place({"hostPath": {"path": "/"}}))
    for kind in said.partition("take one of ")[2].split(", "):
        assert judged(place(of(kind))) == "", kind


@pytest.mark.parametrize(
    ("tuned", "served", "taken"),
    [
        (OPTIONS, None, True),
        (OPTIONS, OPTIONS, True),
        (None, None, True),
        (OPTIONS, {"image": "team.io/others:1"}, False),
        (None, OPTIONS, False),
        (None, {}, True),
        ({"modelAccessSecret": "hf"}, {"modelAccessSecret": "hf", "imagePullSecrets": []}, True),
        ({"modelAccessSecret": "hf"}, {"modelAccessSecret": "other"}, False),
        (OPTIONS, {**OPTIONS, "imagePullSecrets": ["other"]}, False),
    ],
)
def test_what_is_served_is_what_is_tuned_with_its_options(judged, tuned, served, taken):
    said = judged(two_presets(tuned, served))
    assert (said == "") is taken
    assert taken or "inference.preset.presetOptions: what is tuned is served" in said
