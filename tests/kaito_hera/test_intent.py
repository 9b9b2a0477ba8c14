import pytest

from kaito_hera import api, intent
from tests import making


def of(workspace):
    return intent.of(making.parsed(workspace))


def test_the_same_wish_has_the_same_hashes_whatever_the_version_or_generation():
    workspace = making.tuning()
    other = {**making.edited(workspace, generation=9), "apiVersion": "kaito.sh/v1alpha1"}
    assert of(workspace) == of(other)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"instanceType": "Standard_NC48ads_A100_v4"}, {"nodes"}, id="size"),
        pytest.param({"labelSelector": {"matchLabels": {"app": "other"}}}, {"nodes"}, id="labels"),
    ],
)
def test_a_change_of_nodes_is_a_change_of_nodes(change, expected):
    assert changed(making.tuning(), making.edited(making.tuning(), **change)) == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("method",), "lora", {"tune", "serve"}),
        (("config",), "mine", {"tune", "serve"}),
        (("input", "urls"), ["https://example.com/other.parquet"], {"tune", "serve"}),
        (("output", "image"), "team.azurecr.io/adapter:2", {"tune", "serve"}),
        (("output", "imagePushSecret"), "other", set()),
        (("checkpoint",), {"destination": "None"}, set()),
    ],
)
def test_a_change_of_tuning_tunes_and_serves_anew(path, value, expected):
    workspace = making.tuning()
    after = making.edited(workspace, tuning=_with(workspace["tuning"], path, value))
    assert changed(workspace, after) == expected


def test_adapters_belong_to_serving_alone():
    workspace = making.inference()
    adapters = [{"source": {"name": "a", "image": "x/a:1"}}]
    served = making.edited(workspace, inference={**workspace["inference"], "adapters": adapters})
    weaker = making.edited(
        workspace, inference={**workspace["inference"], "adapters": [{**adapters[0], "strength": "0.5"}]}
    )
    assert changed(workspace, served) == {"serve"}
    assert changed(served, weaker) == {"serve"}


def test_another_template_is_rolled_out_on_the_same_nodes():
    def own(**container):
        spec = {"containers": [{"name": "c", "image": "a.io/own:1", **container}]}
        return {**making.inference(), "inference": {"template": {"spec": spec}}}

    assert changed(own(), own(image="a.io/own:2")) == {"serve"}
    assert changed(own(), own(env=[{"name": "A", "value": "b"}])) == {"serve"}
    assert changed(own(), own()) == set()


def test_switching_serving_off_by_annotation_counts():
    assert of(making.tuning_only()).serve == ""
    assert of(making.tuning(annotations={api.SERVE_ANNOTATION: "yes please"})).serve != ""


def test_annotations_of_the_server_are_its_matter_alone_and_steps_are_told():
    asked = {"kaito.sh/api-key-secret": "a" * 100}
    assert changed(making.inference(), making.inference(annotations=asked)) == {"serve"}
    assert making.parsed(making.inference(annotations=asked)).intent()["metadata"]["annotations"] == asked
    assert changed(making.inference(), making.inference(annotations={"kaito.sh/weights-cache": "c"})) == {"serve"}
    tracked = {"kaito.sh/tracking-secret": "tracker"}
    assert changed(making.tuning(), making.tuning(annotations=tracked)) == set()
    assert making.parsed(making.tuning(annotations=tracked)).intent()["metadata"]["annotations"] == tracked


@pytest.mark.parametrize("option", [{"modelAccessSecret": "hf"}, {"imagePullSecrets": ["pull"]}])
def test_another_secret_for_the_model_reaches_the_server(option):
    workspace = making.inference()
    preset = {**workspace["inference"]["preset"], "presetOptions": option}
    assert changed(workspace, making.edited(workspace, inference={"preset": preset})) == {"serve"}


def test_an_upgrade_changes_no_hash():
    """Literal ones, as the first version wrote them: another hash buys nodes, tunes or restarts anew."""
    assert of(making.tuning()) == intent.Intent("262c953e53a1178e", "3880ccfb36e59a5d", "a5ead0c730493a7c")
    assert of(making.inference()) == intent.Intent("262c953e53a1178e", "", "387414159c368545")


def test_hashes_survive_an_annotation():
    wanted = of(making.tuning())
    assert intent.Intent.parse(wanted.dump()) == wanted
    assert intent.Intent.parse("") == intent.Intent()
    assert intent.Intent.parse('{"colour": "blue"}') == intent.Intent()


def changed(before, after):
    first, second = of(before), of(after)
    return {part for part in ("nodes", "tune", "serve") if getattr(first, part) != getattr(second, part)}


def _with(tree, path, value):
    head, *rest = path
    return {**tree, head: _with(tree[head], rest, value) if rest else value}


def test_another_spelling_of_a_load_balancer_asks_for_none():
    plain, meant = making.inference(), making.inference(annotations={"kaito.sh/enablelb": "True"})
    assert changed(plain, making.inference(annotations={"kaito.sh/enablelb": "true"})) == set()
    assert changed(plain, meant) == {"serve"}
