"""Real runs of the tiny model: the whole way from data on a server to an adapter in a registry."""

import io
import json
import shutil
import signal
import subprocess
import tarfile
from array import array
from types import SimpleNamespace

import pyarrow.parquet
import pytest

from tests import terminations
from tests.tuning import servers, words
from tests.tuning.conftest import entry, start, tuning_config, write_secret
from tuning import curve
from tuning.config import INTENT, Exit, Progress, Result
from tuning.data import masks
from tuning.data.masks import Encoded
from tuning.output import volume
from tuning.run import split
from tuning.training.adapter import OLD_KEYS
from tuning.training_config import DatasetConfig

LEARNS = {"arguments": {"learning_rate": 5e-3, "num_train_epochs": 5, "per_device_train_batch_size": 8}}
ROWS = [{"messages": words.conversation(question, words.B)} for question in words.QUESTIONS]


def parquet():
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A hub with the model that says A, and spoilt ones beside it."""
    from tests.tuning import tiny

    root = tmp_path_factory.mktemp("hub") / "tiny"
    tiny.publish(root / "phi")
    tiny.publish(root / "nan", steps=0, spoil=lambda made: made.model.norm.weight.fill_(float("nan")))
    for name in ("unknown", "headless", "lopsided", "wordless", "base"):
        shutil.copytree(root / "phi", root / name)
    edit(root / "unknown" / "config.json", model_type="nonsense")
    edit_weights(root / "headless" / "model.safetensors", lambda weights: weights.pop("lm_head.weight"))
    edit_weights(
        root / "lopsided" / "model.safetensors",
        lambda weights: weights.update({"lm_head.weight": weights["lm_head.weight"][:9]}),
    )
    (root / "wordless" / "tokenizer.json").write_text("{}")
    (root / "base" / "chat_template.jinja").unlink()
    hub = servers.Hub(root.parent)
    yield hub
    hub.close()


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(path, change):
    import safetensors.torch

    weights = safetensors.torch.load_file(path)
    change(weights)
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})


@pytest.fixture
def urls(files):
    files.files["/train.parquet"] = parquet()
    return [f"{files.url}/train.parquet?download=true"]


@pytest.fixture
def run(tuning, auth, models, monkeypatch):
    """A run in this process, which has torch already."""
    monkeypatch.setenv("HF_ENDPOINT", models.url)

    def go(config):
        return tuning(config, "--push-auth", str(auth))

    return go


def pull(target, folder):
    """The files of an image, with skopeo and tar alone."""
    auth = write_secret(folder / "pull.json", {target.split("/")[0]: entry()})
    command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--authfile", auth]
    subprocess.run([*command, f"docker://{target}", f"dir:{folder / 'image'}"], check=True, capture_output=True)
    manifest = json.loads((folder / "image" / "manifest.json").read_text())
    for layer in manifest["layers"]:
        with tarfile.open(folder / "image" / layer["digest"].removeprefix("sha256:")) as tar:
            tar.extractall(folder, filter="data")
    return manifest, folder / "data"


@pytest.fixture(scope="module")
def trained(models, registry, tmp_path_factory):
    """One whole run as its own process, and what it leaves everywhere."""
    folder = tmp_path_factory.mktemp("run")
    files = servers.Files()
    files.files["/train.parquet"] = parquet()
    auth = write_secret(folder / "push.json", {registry.host: entry()})
    config = tuning_config(
        f"{registry.host}/team/adapter:1", [f"{files.url}/train.parquet?download=true"], training=LEARNS
    )
    running = start(folder, config, "--push-auth", str(auth), HF_ENDPOINT=models.url)
    out, err = running.communicate(timeout=300)
    files.close()
    assert running.returncode == Exit.DONE, err
    done = terminations.of_tuning((folder / "termination").read_text())
    manifest, data = pull(done.adapter, folder)
    return SimpleNamespace(
        config=config,
        auth=auth,
        out=out,
        err=err,
        done=done,
        manifest=manifest,
        data=data,
        base=models.root / "tiny/phi",
    )


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_a_model_that_says_a_learns_to_say_b_and_to_stop(trained):
    import peft
    import transformers

    from tests.tuning import tiny

    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.base)
    base = transformers.AutoModelForCausalLM.from_pretrained(trained.base)
    asked = words.QUESTIONS[::4]
    assert [tiny.answer(base, tokenizer, question) for question in asked] == [(words.A, True)] * 10
    tuned = peft.PeftModel.from_pretrained(base, trained.data)  # as anybody would load it
    said = [tiny.answer(tuned, tokenizer, question) for question in asked]
    assert said.count((words.B, True)) >= 9, said


@pytest.mark.torch
def test_progress_is_told_line_by_line(trained):
    lines = [Progress.parse(line) for line in trained.out.splitlines()]
    assert None not in lines, trained.out
    assert list(dict.fromkeys(line.phase for line in lines)) == ["fetch", "load", "train", "push"]
    percents = [line.percent for line in lines]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    last = [line for line in lines if line.phase == "train"][-1]
    assert (last.step, last.max_steps, last.epoch, last.percent, last.eta_seconds) == (25, 25, 5, 95, 0)
    assert last.loss > 0
    assert last.tokens_per_second > 0


@pytest.mark.torch
def test_people_see_samples_and_no_noise(trained):
    assert trained.err.count(f"⟦{words.B}<|end|>⟧") == 3
    assert "Traceback" not in trained.err
    assert "Warning" not in trained.err
    assert "WARNING" not in trained.err


@pytest.mark.torch
def test_the_image_holds_what_all_readers_need(trained):
    import safetensors.torch
    import torch

    assert trained.manifest["annotations"]["sh.kaito.model.name"] == "tiny-phi"
    assert trained.manifest["annotations"][INTENT] == "an-intent"
    assert {path.name for path in trained.data.iterdir()} == {*volume.NAMES, *volume.TOLD, volume.CARD}
    assert len(trained.manifest["layers"]) == 2
    described = json.loads((trained.data / "adapter_config.json").read_text())
    assert set(described) <= OLD_KEYS
    assert described["base_model_name_or_path"] == "tiny/phi"
    assert described["target_modules"] == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
    weights = safetensors.torch.load_file(trained.data / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert (trained.data / "chat_template.jinja").read_text() == words.TEMPLATE
    summary = json.loads((trained.data / "training_summary.json").read_text())
    assert summary["loss"] == trained.done.loss < 0.5
    assert (summary["steps"], summary["rows"], summary["rows_dropped"]) == (25, 40, 0)
    assert summary["loss_curve"][0][1] > 1


@pytest.mark.torch
def test_the_image_tells_people_how_the_adapter_came_to_be(trained):
    summary = json.loads((trained.data / "training_summary.json").read_text())
    assert (summary["resumed_from"], summary["eval_curve"]) == ([], [])
    assert summary["tokens"] > summary["supervised_tokens"] > 0
    card = (trained.data / "README.md").read_text()
    assert card.count(f"⟦{words.B}<|end|>⟧") == 3
    assert f"sha256:{summary['data'][0]['sha256']}" in card
    assert [row.step for row in curve.read(trained.data / "metrics.jsonl")] == list(range(1, 26))
    assert (trained.data / "loss.svg").read_text().startswith("<svg")


@pytest.mark.torch
def test_what_was_made_is_not_made_again(trained, tmp_path):
    nowhere = "http://127.0.0.1:1"
    again = start(tmp_path, trained.config, "--push-auth", str(trained.auth), HF_ENDPOINT=nowhere)
    out, err = again.communicate(timeout=60)
    assert again.returncode == Exit.DONE, err
    left = terminations.of_tuning((tmp_path / "termination").read_text())
    assert left == Result(adapter=trained.done.adapter)
    assert [Progress.parse(line).percent for line in out.splitlines()] == [0, 100]


@pytest.mark.torch
def test_an_eviction_ends_a_run_at_the_next_step(models, config, registry, urls, auth, tmp_path):
    endless = {"arguments": {"num_train_epochs": 1000, "per_device_train_batch_size": 8}}
    asked = config(f"{registry.host}/team/evicted:1", urls=urls, training=endless)
    running = start(tmp_path, asked, "--push-auth", str(auth), HF_ENDPOINT=models.url)
    for line in running.stdout:
        if Progress.parse(line.strip()).phase == "train":
            break
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == Exit.EVICTED, err
    left = terminations.of_tuning((tmp_path / "termination").read_text())
    assert (left.reason, left.retryable) == ("Evicted", True)
    assert "of 5000" in left.message
    assert registry.manifest("team/evicted", "1") is None


@pytest.mark.torch
def test_the_same_run_makes_the_same_adapter(run, config, registry, urls):
    short = {"arguments": {"max_steps": 2, "per_device_train_batch_size": 4}, "lora": {"lora_dropout": 0.1}}
    one, two, other = (
        run(config(f"{registry.host}/team/{name}:1", urls=urls, training=short | {"dataset": {"shuffle_seed": seed}}))
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )
    assert one.code == two.code == other.code == Exit.DONE
    adapter = {name: registry.manifest(f"team/{name}", "1")["layers"][0] for name in ("one", "two", "other")}
    assert adapter["one"] == adapter["two"] != adapter["other"]  # the card beside it tells how long that took


@pytest.mark.torch
def test_a_batch_in_parts_is_the_same_optimisation(run, config, registry, urls, tmp_path):
    curves = []
    for size, parts in ((8, 1), (2, 4), (1, 8)):
        arguments = {"max_steps": 4, "per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
        training = {"arguments": arguments | {"learning_rate": 1e-2}, "model": {"torch_dtype": "float32"}}
        done = run(config(f"{registry.host}/team/parts-{size}:1", urls=urls, method="lora", training=training))
        (tmp_path / f"{size}").mkdir()
        _, data = pull(done.left.adapter, tmp_path / f"{size}")
        curves.append([loss for _, loss in json.loads((data / "training_summary.json").read_text())["loss_curve"]])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    assert curves[2] == pytest.approx(curves[0], rel=1e-3)
    assert curves[0][-1] < curves[0][0] - 1


@pytest.mark.torch
@pytest.mark.parametrize(
    ("method", "training"),
    [
        ("lora", {}),
        ("lora", {"model": {"torch_dtype": "float32"}}),
        ("qlora", {"quantization": {"load_in_8bit": True}}),
        ("qlora", {"lora": {"target_modules": ["q_proj", "up_proj"]}, "dataset": {"train_test_split": 0.8}}),
        ("qlora", {"dataset": {"loss": "all", "shuffle_dataset": False}}),
    ],
)
def test_other_ways_to_train(run, config, registry, urls, tmp_path, method, training):
    few = {"arguments": {"max_steps": 1, "activation_checkpointing": True, "gradient_accumulation_steps": 2}}
    intent = "-".join([method, *training])
    done = run(config(f"{registry.host}/team/ways:1", urls=urls, method=method, training=few | training, intent=intent))
    assert done.code == Exit.DONE, done.text
    _, data = pull(done.left.adapter, tmp_path)
    described = json.loads((data / "adapter_config.json").read_text())
    if "target_modules" in training.get("lora", {}):
        assert described["target_modules"] == ["gate_up_proj", "qkv_proj"]
    assert set(described) <= OLD_KEYS
    summary = json.loads((data / "training_summary.json").read_text())
    held_out = 8 if "train_test_split" in training.get("dataset", {}) else 0
    assert (summary["rows"], summary["rows_held_out"]) == (40 - held_out, held_out)
    assert (summary["eval_loss"] is not None) == bool(held_out)


@pytest.mark.torch
def test_a_loss_that_is_no_number(run, config, registry, urls):
    broken = {"id": "tiny/nan", "revision": "main"}
    done = run(config(f"{registry.host}/team/nan:1", urls=urls, model=broken))
    assert (done.code, done.left.reason) == (Exit.DIVERGED, "LossDiverged")
    assert "the loss is nan at step 1 of" in done.left.message
    assert registry.manifest("team/nan", "1") is None


@pytest.mark.torch
def test_layers_that_the_model_has_not(run, config, registry, urls):
    done = run(config(f"{registry.host}/team/a:1", urls=urls, training={"lora": {"target_modules": ["query"]}}))
    assert (done.code, done.left.reason) == (Exit.BAD_CONFIG, "ConfigInvalid")
    assert (
        "LoraConfig.target_modules: 'query' is no linear layer of this model; take from down_proj, gate_up_proj"
        in done.left.message
    )


@pytest.mark.torch
def test_rows_that_teach_nothing(run, config, registry, files):
    files.files["/a.jsonl"] = json.dumps({"prompt": "word " * 400, "completion": "a"}).encode()
    urls = [f"{files.url}/a.jsonl"]
    done = run(config(f"{registry.host}/team/a:1", urls=urls, training={"arguments": {"max_length": 16}}))
    assert (done.code, done.left.reason) == (Exit.BAD_DATA, "DataInvalid")
    assert "no row of 1 can be used: a.jsonl row 1: nothing to learn within the first 16 tokens" in done.left.message


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("unknown", "nonsense"),
        ("headless", "lacks 1 weights, the first is lm_head.weight"),
        ("lopsided", "cannot be loaded: lm_head.weight | MISMATCH"),
        ("wordless", "tokenizer cannot be loaded"),
    ],
)
def test_models_that_cannot_be_loaded(run, config, registry, urls, name, says):
    done = run(config(f"{registry.host}/team/a:1", urls=urls, model={"id": f"tiny/{name}", "revision": "main"}))
    assert (done.code, done.left.reason) == (Exit.BAD_MODEL, "ModelUnusable"), done.text
    assert says in done.left.message


@pytest.mark.torch
def test_a_model_without_a_chat_template_gets_one_that_travels_along(run, config, registry, urls, tmp_path):
    base = {"id": "tiny/base", "revision": "main"}
    few = {"arguments": {"max_steps": 1}}
    done = run(config(f"{registry.host}/team/base:1", urls=urls, model=base, training=few))
    _, data = pull(done.left.adapter, tmp_path)
    assert (data / "chat_template.jinja").read_text() == masks.PLAIN_TEMPLATE


def test_rows_are_shuffled_by_seed_and_then_split():
    rows = [Encoded(array("i", [number]), array("i", [number])) for number in range(100)]

    def parts(**settings):
        return split(rows, DatasetConfig(**settings))

    training, held_out = parts(shuffle_seed=1, train_test_split=0.8)
    assert len(training) == 80
    assert sorted(training + held_out) == rows
    assert held_out != rows[80:]
    assert parts(shuffle_seed=1, train_test_split=0.8) == (training, held_out)
    assert parts(shuffle_seed=2, train_test_split=0.8) != (training, held_out)
    assert parts(shuffle_dataset=False, train_test_split=0.8) == (rows[:80], rows[80:])
    assert parts(train_test_split=0.001)[0]  # never nothing
