"""What a person can say to `python -m tuning` without an operator."""

import json
import os
import subprocess
import sys

import pytest

import presets
from artifacts import docker
from kaito_hera import loads
from tests.serving import registry as images
from tests.tuning import servers
from tests.tuning.conftest import ROOT, write_secret
from tests.tuning.test_check import WITHOUT
from tuning import commandline, flags, training_config
from tuning.config import Exit
from tuning.places import Places
from workflows import needs


def say(*words, **environment):
    """In a process of its own in which nothing heavy can be imported."""
    command = [sys.executable, "-c", WITHOUT, *map(str, words)]
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere", **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize("command", ["run", "validate", "estimate", "pull", "push"])
def test_help_tells_how_a_command_is_used(command):
    done = say(command, "--help")
    assert done.returncode == 0
    assert f"python -m tuning {command} " in done.stdout.split("\n\n", 1)[1], "an example"


def test_help_names_every_command_and_exit_code():
    text = " ".join(say("--help").stdout.split())
    assert all(f" {word} " in text for word in ("run", "validate", "estimate", "pull", "push"))
    assert all(f"{code.value}" in text for code in Exit)


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["run"], "give CONFIG, or --model, --data, --output"),
        (["run", "--model", "a/b"], "give CONFIG, or --data, --output"),
        (["run", "config.json", "--model", "a/b"], "CONFIG says all, it goes without --model"),
        (["run", "--allow-private", "ten"], "argument --allow-private: 'ten' does not appear"),
        (["push", "a", "b/c", "--seconds", "nan"], "argument --seconds: 'nan' is no float from 0"),
        (["estimate", "--rows", "-5"], "argument --rows: '-5' is no int from 1 to 1,024"),
        (["estimate", "--max-length", "9" * 5000], "is no int from 16 to 1,000,000"),
        (["estimate"], "give --model"),
        (["teach"], "invalid choice"),
    ],
)
def test_wrong_usage_says_what_is_missing(words, missing):
    done = say(*words)
    assert done.returncode == Exit.USAGE
    assert missing in done.stderr


def asked(*words, scratch):
    return flags.asked(commandline.parser().parse_args(["run", *words]), Places(scratch=scratch))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    return str(folder)


@pytest.mark.parametrize(
    ("output", "image", "volume"),
    [
        ("reg.io/team/a:1", "reg.io/team/a:1", ""),
        ("localhost/a", "localhost/a", ""),
        ("docker://team/a", "team/a", ""),
        ("{0}/out", "", "{0}/out"),
        ("{0}/not.a.host/out", "", "{0}/not.a.host/out"),
    ],
)
def test_an_output_is_an_image_where_it_begins_with_a_host(model, tmp_path, output, image, volume):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}")
    words = ["--model", model, "--data", str(rows), "--output", output.format(tmp_path)]
    found = asked(*words, scratch=tmp_path / "s")[0].output
    assert (found.image, found.volume) == (image, volume.format(tmp_path))


def test_files_of_one_name_are_all_read_and_named(model, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(folder)
    words = ["--model", model, "--output", str(tmp_path / "out"), "--data"]
    words += [str(tmp_path / "a/rows.jsonl"), str(tmp_path / "b/rows.jsonl")]
    config, places = asked(*words, scratch=tmp_path / "s")
    assert [(path.name, path.read_text()) for path in sorted(places.data.iterdir())] == [
        ("0000-rows.jsonl", "a"),
        ("0001-rows.jsonl", "b"),
    ]
    assert (config.input.volume, places.model) == ("--data", tmp_path / "weights")
    (tmp_path / "b/rows.jsonl").write_text("other rows")
    assert asked(*words, scratch=tmp_path / "t")[0].intent != config.intent, "other rows are another run"


def test_addresses_and_images_are_what_a_pod_takes(model, tmp_path):
    words = ["--model", model, "--output", "reg.io/a:1", "--data"]
    config, places = asked(*words, "docker://reg.io/data:1", scratch=tmp_path)
    assert (config.input.image, config.checkpoint_seconds) == ("reg.io/data:1", 0)
    config, places = asked(*words, "https://h.io/a", "https://h.io/b", scratch=tmp_path)
    assert config.input.urls == ("https://h.io/a", "https://h.io/b")
    assert places.push_auth == docker.own_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "https://h.io/a", "b.json"], "URLs and files together"),
        (["--data", "none.json"], "none.json: there is no such file"),
        (["--data", "{0}", "--model", "phi-3-mini-4k-instrukt"], "phi-3-mini-4k-instruct"),
        (["--data", "{0}", "--model", "x" * 5000], "is not known"),
        (["--data", "{0}", "--model", "./gone"], "--model ./gone: no such folder"),
        (["--data", "x" * 5000], "there is no such file"),
        (["--data", ""], "'': there is no such file"),
        (["--data", "/dev/zero"], "/dev/zero is no regular file"),
        (["--data", "{0}/typo.yaml", "{0}"], "give one folder, or files"),
        (["--data", "docker://"], "names no image"),
        (["--data", "{0}", "--scratch", "{0}/typo.yaml"], "--scratch: {0}/typo.yaml cannot be made: File exists"),
        (["--data", "{0}", "--config", "none.yaml"], "none.yaml cannot be read"),
        (["--data", "{0}", "--config", "{0}/pipe"], "{0}/pipe cannot be read: [Errno 22] it is no regular file"),
        (["--data", "{0}", "--config", "{0}/typo.yaml"], "did you mean learning_rate?"),
    ],
)
def test_mistakes_are_told_in_the_words_of_the_command_line(model, tmp_path, words, said):
    (tmp_path / "typo.yaml").write_text("training_config: {TrainingArguments: {learning_rat: 1}}")
    os.mkfifo(tmp_path / "pipe")
    given = [word.format(tmp_path) for word in words]
    given = [*([] if "--model" in given else ["--model", model]), "--output", str(tmp_path / "out"), *given]
    done = say("validate", *given)
    assert done.returncode in {Exit.BAD_CONFIG, Exit.BAD_DATA}
    assert said.format(tmp_path) in done.stderr


@pytest.mark.parametrize("path", ["{0}/pipe", "/dev/zero", "{0}", "none.json"])
def test_what_is_no_file_is_no_config_and_no_secret(model, tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    named = path.format(tmp_path)
    done = say("validate", named)
    assert done.returncode == Exit.BAD_CONFIG
    assert f"{named}: " in done.stderr
    if path != "none.json":  # a registry may need no password
        words = ["--model", model, "--data", "docker://localhost:1/a:b", "--output", "localhost:1/a:b"]
        done = say("validate", *words, "--push-auth", named)
        assert done.returncode == Exit.REGISTRY_AUTH
        assert f"{named} cannot be read" in done.stderr


def test_a_folder_without_a_model_is_told_by_validate(model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}')
    done = say("validate", "--model", model, "--data", rows, "--output", tmp_path / "out")
    assert done.returncode == Exit.BAD_MODEL
    assert "model weights: has no config.json" in done.stderr


def test_a_run_is_another_one_by_data_and_model_and_not_by_what_runs_leave(model, tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    words = ["--model", model, "--data", str(tmp_path), "--output", str(tmp_path)]
    intent = asked(*words, scratch=tmp_path / ".s")[0].intent
    left = {"README.md": "---\na: b", "loss.svg": "<svg>", "metrics.jsonl": "{}", "adapter_config.json": "{}"}
    for name, text in left.items():
        (tmp_path / name).write_text(text)
    (tmp_path / f".checkpoints-{intent}").mkdir()
    assert asked(*words, scratch=tmp_path / ".s")[0].intent == intent
    (tmp_path / "weights/model.safetensors").write_bytes(b"others")
    assert asked(*words, scratch=tmp_path / ".s")[0].intent != intent


def test_an_estimate_names_the_parts_and_the_sizes_that_hold_them():
    lines = say("estimate", "--model", "phi-4", "--rows", "1").stdout.splitlines()
    assert lines[0] == "phi-4, qlora, rank 8, 1 x 2,048 tokens"
    parts = {line.split("  ")[1]: float(line.split()[-2]) for line in lines[1:] if line.endswith(" GiB")}
    together = float(next(line for line in lines if "together" in line).split()[1])
    assert sum(parts.values()) == pytest.approx(together, abs=0.05)
    assert any("GPU sizes of azure hold it" in line for line in lines)
    assert "Standard_" in lines[-1]


@pytest.mark.parametrize("text", ["{}", "{TrainingArguments: {label_smoothing_factor: 0.1}, LoraConfig: {r: 16}}"])
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_estimate_is_the_operator_s(tmp_path, text, method):
    (tmp_path / "c.yaml").write_text(f"training_config: {text}")
    lines = say("estimate", "--model", "phi-4", "--method", method, "--config", tmp_path / "c.yaml").stdout.splitlines()
    batch = needs.batch(training_config.parse(f"training_config: {text}", method))
    demand = loads.tune(presets.preset("phi-4"), method, batch)
    together = next(line for line in lines if "together" in line)
    assert float(together.split()[1]) == pytest.approx(demand.need.gib, abs=0.01)
    assert f"must have {demand.gib:.2f} GiB" in together


def test_an_estimate_follows_the_training_config(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("training_config: {LoraConfig: {r: 64}, TrainingArguments: {max_length: 512}}")
    lines = say("estimate", "--model", "phi-4", "--method", "lora", "--config", config).stdout.splitlines()
    assert lines[0] == "phi-4, lora, rank 64, 2 x 512 tokens"


def test_an_estimate_of_a_folder_reads_its_config(tmp_path):
    settings = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes(b"x" * 4096)
    assert say("estimate", "--model", tmp_path).stdout.startswith(f"{tmp_path.name}, qlora, rank 8")
    (tmp_path / "config.json").write_text("no JSON")
    assert say("estimate", "--model", tmp_path).returncode == Exit.BAD_CONFIG


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "tiny/phi"}))
    (folder / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 99)
    (folder / "README.md").write_text("a card")
    return folder


@pytest.fixture
def plain(registry, tmp_path):
    """An environment in which skopeo speaks plain HTTP with the registry."""
    return images.plain_http(tmp_path, registry.host)


def test_an_adapter_goes_to_a_registry_and_comes_back(adapter, registry, auth, plain, tmp_path):
    target = f"{registry.host}/team/carried:1"
    pushed = say("push", adapter, target, "--push-auth", auth)
    assert pushed.returncode == 0, pushed.stderr
    assert say("push", adapter, target, "--push-auth", auth).stdout == pushed.stdout, "the same files, the same digest"
    back = tmp_path / "new/folder"
    pulled = say("pull", target, back, "--pull-auth", auth, **plain)
    assert (pulled.returncode, pulled.stdout) == (0, pushed.stdout), pulled.stderr
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        path.name: path.read_bytes() for path in adapter.iterdir()
    }
    assert "is not empty" in say("pull", target, back, "--pull-auth", auth, **plain).stderr
    (adapter / "adapter_model.safetensors").write_bytes(b"others")
    again = say("push", adapter, target, "--push-auth", auth).stdout
    assert again.endswith("\n")
    assert again != pushed.stdout


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_s_files_are_files(adapter, name):
    (adapter / name).unlink()
    os.mkfifo(adapter / name)
    done = say("push", adapter, "localhost:1/a:b")
    assert done.returncode == Exit.BAD_DATA
    assert f"has no {name}" in done.stderr


@pytest.mark.parametrize("folder", ["{0}/adapter/README.md", "{0}/adapter/README.md/below", "/proc/none/below"])
def test_a_folder_that_cannot_be_made_is_named(adapter, tmp_path, folder):
    done = say("pull", "localhost:1/a:b", folder.format(tmp_path))
    assert done.returncode == Exit.BAD_CONFIG
    assert f"{folder.format(tmp_path)}: " in done.stderr


def test_what_is_no_adapter_is_not_carried(adapter, registry, auth, plain, tmp_path):
    (adapter / "adapter_config.json").unlink()
    done = say("push", adapter, f"{registry.host}/team/none:1", "--push-auth", auth)
    assert done.returncode == Exit.BAD_DATA
    assert "has no adapter_config.json" in done.stderr
    done = say("pull", f"{registry.host}/team/none:1", tmp_path / "x", "--pull-auth", auth, **plain)
    assert done.returncode == Exit.BAD_DATA


@pytest.mark.parametrize("name", ["a\x1b[2Jb.md", "a\nb.md", "gpj.\u202egnp.md"])
def test_names_that_a_terminal_obeys_are_not_brought(adapter, registry, auth, plain, tmp_path, name):
    (adapter / name).write_text("more")
    target = f"{registry.host}/team/named:1"
    assert say("push", adapter, target, "--push-auth", auth).returncode == 0
    done = say("pull", target, tmp_path / "x", "--pull-auth", auth, **plain)
    assert done.returncode == Exit.BAD_DATA
    assert f"{target}: it has a file named {f'data/{name}'!r}, which a terminal would obey" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_wrong_password_is_told(registry, plain, tmp_path):
    secret = write_secret(tmp_path / "wrong.json", {registry.host: {"username": servers.USER, "password": "wrong"}})
    done = say("pull", f"{registry.host}/team/none:1", tmp_path / "x", "--pull-auth", secret, **plain)
    assert done.returncode == Exit.REGISTRY_AUTH
