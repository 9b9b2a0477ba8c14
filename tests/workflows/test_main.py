import os
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "inference-phi-3.yaml"
BASE = ("pydantic", "pydantic_core", "typing_extensions.py", "typing_inspection", "annotated_types", "yaml")


def kaito_hera(*arguments, python=(sys.executable,), **environment):
    command = [*python, "-m", "workflows", *map(str, arguments)]
    surroundings = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=surroundings)


@pytest.mark.parametrize(
    ("part", "field", "value", "warning"),
    [
        ("resource", "instanceType", "Standard_Nothing", "warning: UnknownInstanceType: "),
        ("resource", "instanceType", "Standard_NC6s_v3", "warning: UnsupportedGPU: resource.instanceType: "),
    ],
)
def test_rendering_warns_of_what_preflight_refuses(tmp_path, part, field, value, warning):
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest[part][field] = value
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(manifest))
    rendered = kaito_hera("render", tmp_path / "wrong.yaml")
    assert rendered.returncode == 0, rendered.stderr
    assert rendered.stderr.startswith(warning)
    assert yaml.safe_load(rendered.stdout)["kind"] == "Workflow"


def test_a_model_that_nobody_knows_has_no_workflow(tmp_path):
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["inference"]["preset"]["name"] = "gpt-9"
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(manifest))
    rendered, planned = (kaito_hera(command, tmp_path / "wrong.yaml") for command in ("render", "plan"))
    assert (rendered.returncode, rendered.stdout) == (planned.returncode, "")
    assert rendered.stderr.startswith("UnknownPreset: inference.preset.name: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 20_000, "is no YAML"),
        ("kind: Secret", "has 0 Workspaces"),
    ],
)
def test_what_is_no_workspace_has_no_workflow(tmp_path, text, words):
    (tmp_path / "wrong.yaml").write_text(text)
    rendered = kaito_hera("render", tmp_path / "wrong.yaml")
    assert (rendered.returncode, rendered.stdout) == (2, "")
    assert words in rendered.stderr
    assert len(rendered.stderr.splitlines()) == 1


def test_a_warning_that_the_platform_team_chose_is_not_in_the_workflow(tmp_path):
    (tmp_path / "gpuCapabilityCheck").write_text("warn")
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["resource"]["instanceType"] = "Standard_NC6s_v3"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "gpu.yaml").write_text(yaml.safe_dump(manifest))
    rendered = kaito_hera("render", tmp_path / "old" / "gpu.yaml", "--settings", tmp_path)
    assert rendered.stderr.startswith("warning: resource.instanceType: Standard_NC6s_v3")
    assert yaml.safe_load(rendered.stdout)["kind"] == "Workflow"


def test_without_the_operators_packages_it_says_which_to_install(tmp_path):
    packages = Path(pydantic.__file__).parents[1]
    for name in BASE:
        (tmp_path / name).symlink_to(packages / name)
    rendered = kaito_hera("render", EXAMPLE, python=(sys.executable, "-S"), PYTHONPATH=str(tmp_path))
    assert rendered.returncode == 1
    hint = "kaito-hera needs its operator's packages: pip install 'kaito-hera[operator]'"
    assert rendered.stderr.startswith(hint)
    assert "Traceback" not in rendered.stderr


@pytest.mark.parametrize("arguments", [("crd",), ("crd", "--reference")], ids=["more than a buffer", "less"])
def test_whoever_stops_reading_hears_no_more(arguments):
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does, at the latest moment that is the same each time
    command = [sys.executable, "-m", "workflows", *arguments]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "$WORKSPACE is not set"),
        ({"WORKSPACE": "{}"}, "$WORKSPACE: "),
        ({"WORKSPACE": "oops"}, "$WORKSPACE: Invalid JSON"),
    ],
    ids=["nothing", "too little", "no JSON"],
)
def test_a_release_of_nothing_is_a_usage_error(environment, said):
    ended = kaito_hera("release", **environment)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"kaito-hera: {said}")
    assert len(ended.stderr.splitlines()) == 1
