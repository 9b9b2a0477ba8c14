"""The model as the images are told it, and how its commit or digest goes from step to step."""

import json

import pytest

from artifacts.weights.config import Model
from kaito_hera import errors
from kaito_hera.intent import Parts
from kaito_hera.run import Run
from kaito_hera.settings import Settings
from kaito_hera.status import DataSet, DataStatus, ModelStatus
from presets import from_hub
from tests import making
from tests.workflows.test_plan import arguments
from workflows import configs
from workflows.asks import models, serving, tuning
from workflows.plan import plan

COMMIT, DIGEST = "0123456789abcdef0123456789abcdef01234567", f"sha256:{1:064x}"
NAME = "team.azurecr.io:443/models/phi"
IMAGE = f"{NAME}:1"


def serve(name, **options):
    preset = {"name": name, **({"presetOptions": options} if options else {})}
    return making.parsed({**making.inference(), "inference": {"preset": preset}})


def tune(name, **options):
    workspace = making.tuning()
    preset = {"name": name, **({"presetOptions": options} if options else {})}
    return making.parsed({**workspace, "tuning": {**workspace["tuning"], "preset": preset}})


@pytest.mark.parametrize(
    ("workspace", "pinned", "expected"),
    [
        pytest.param(serve("phi-4"), "", {"id": "microsoft/phi-4", "ask": False, "known": True}, id="a public preset"),
        pytest.param(serve("a/tiny"), "", {"id": "a/tiny", "revision": "main", "ask": True, "known": False}, id="hub"),
        pytest.param(serve("acme/tiny"), COMMIT, {"id": "acme/tiny", "revision": COMMIT}, id="hub, looked at"),
        pytest.param(serve("phi-4", image=IMAGE), "", {"image": IMAGE, "ask": True, "known": True}, id="image"),
        pytest.param(serve("phi-4", image=IMAGE), DIGEST, {"image": f"{NAME}@{DIGEST}"}, id="by digest"),
        pytest.param(tune("phi-4", modelAccessSecret="s"), "", {"field": "tuning.preset", "secret": "s"}, id="token"),
        pytest.param(serve("llama-2-7b"), "", {"ask": True, "known": True}, id="not for all"),
    ],
)
def test_what_the_images_are_told(workspace, pinned, expected):
    found = models.model(workspace, pinned).model_dump()
    assert {name: found[name] for name in expected} == expected


def test_a_model_of_the_hub_is_served_under_its_last_name():
    config = json.loads(serving.expected(serve("acme/Tiny-1B"), Settings()).files["serving.json"])
    assert config["name"] == "Tiny-1B"
    assert Model.model_validate(config["model"]).id == "acme/Tiny-1B"


def test_secrets_of_the_models_image_are_pulled_with():
    asked = serve("phi-4", image=IMAGE, imagePullSecrets=["a", "b"])
    assert models.secrets(asked)[1] == ("inference.preset.presetOptions.imagePullSecrets[1]", "b")
    assert models.secrets(serve("phi-4", imagePullSecrets=["a"])) == (), "nothing is pulled"


def test_settings_reach_the_hubs_client():
    settings = Settings(hf_endpoint="https://mirror.example", hf_offline=True)
    env = {entry["name"]: entry["value"] for entry in models.env(serve("phi-4", modelAccessSecret="s"), settings)}
    assert env == {
        "HF_ENDPOINT": "https://mirror.example",
        "HF_HUB_OFFLINE": "1",
        "HF_TOKEN_PATH": "/etc/kaito/hub/token",
    }
    assert models.env(serve("phi-4"), Settings()) == ()
    with pytest.raises(ValueError, match="hfEndpoint"):
        Settings.of({"hfEndpoint": "mirror.example"})


def planned(workspace, model=None):
    parts = Parts(nodes=True, tune=workspace.tuning is not None, serve=True)
    return arguments(plan(workspace, Settings(), attempt=2, parts=parts, model=model))


@pytest.mark.parametrize("workspace", [serve("acme/tiny"), tune("acme/tiny"), serve("phi-4", image=IMAGE)])
def test_what_preflight_finds_reaches_those_who_load_the_model(workspace):
    given = planned(workspace, ModelStatus(source="x", revision=COMMIT))
    assert given["preflight"]["pinned"] == COMMIT
    for step in {"train", "roll-out"} & given.keys():
        assert given[step]["pinned"] == "{{steps.preflight.outputs.parameters.pinned}}"
    assert "pinned" not in planned(workspace)["preflight"]


def test_the_commits_of_data_sets_reach_the_next_attempt_and_the_pod_that_trains():
    made, urls = making.tuning(), ["https://huggingface.co/datasets/a/b", "https://example.com/c.parquet"]
    made["tuning"]["input"]["urls"] = urls
    workspace = making.parsed(made)
    parts = Parts(nodes=True, tune=True, serve=True)
    before = DataStatus(tune="x", sets=(DataSet(source=urls[0], revision=COMMIT),))
    given = arguments(plan(workspace, Settings(), attempt=2, parts=parts, data=before))
    assert json.loads(given["preflight"]["commits"]) == ["", COMMIT]
    assert given["train"]["commits"] == "{{steps.preflight.outputs.parameters.commits}}"
    assert "commits" not in arguments(plan(workspace, Settings(), attempt=1, parts=parts))["preflight"]
    run = Run(None, workspace, Settings(), None, commits=("", COMMIT))
    config = tuning.config_of(run, configs.Config(configs.defaults("qlora")))
    assert [config.input.commit(url) for url in urls] == [COMMIT, ""]


def test_files_have_no_commits():
    made = making.tuning()
    made["tuning"]["input"]["urls"] = ["https://huggingface.co/datasets/a/b/resolve/main/c.parquet"]
    given = arguments(plan(making.parsed(made), Settings(), attempt=1, parts=Parts(tune=True)))
    assert "commits" not in {**given["preflight"], **given["train"]}


def test_a_preset_has_its_own_commit():
    given = planned(serve("phi-4"), ModelStatus(source="x", revision=COMMIT))
    assert "pinned" not in {**given["preflight"], **given["roll-out"]}


def test_a_model_that_cannot_be_tuned_or_served_is_refused_with_its_name():
    config = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "num_hidden_layers": 2}
    found = from_hub("acme/tiny", COMMIT, config, 1 << 30)
    models.judged(serve("acme/tiny"), Settings(), found)
    with pytest.raises(errors.PresetNotTunableError, match=r"tuning\.preset\.name: acme/tiny cannot be tuned"):
        models.judged(tune("acme/tiny"), Settings(), found.model_copy(update={"tunable": False}))
    with pytest.raises(errors.PresetNotServableError, match="acme/tiny cannot be served"):
        models.judged(serve("acme/tiny"), Settings(), found.model_copy(update={"runtimes": ("vllm",)}))
    made = making.inference(annotations={"kaito.sh/runtime": "vllm"})
    made["inference"]["preset"]["name"] = "acme/tiny"
    asked = making.parsed(made)
    with_image = Settings(vllm_image="x/vllm:1")
    models.judged(asked, with_image, found.model_copy(update={"runtimes": ("vllm",)}))
    with pytest.raises(errors.PresetNotServableError, match="is not served by vLLM"):
        models.judged(asked, with_image, found.model_copy(update={"runtimes": ("transformers",)}))
