"""Every example has the Workflow it becomes beside it; `make golden` writes them anew."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(file for file in (ROOT / "examples").glob("*.yaml") if not file.name.endswith(".workflow.yaml"))


def kaito_hera(*arguments):
    command = [sys.executable, "-m", "workflows", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_there_are_the_five_manifests_that_users_have():
    assert {file.stem for file in EXAMPLES} >= {
        "fine-tuning-phi-3",
        "inference-phi-3",
        "inference-phi-3-with-adapter",
        "tuning-phi-3",
        "tuning-phi-3-adapter",
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_becomes_the_workflow_beside_it(example):
    rendered = kaito_hera("render", example.relative_to(ROOT))
    assert rendered.returncode == 0, rendered.stderr
    assert rendered.stdout == example.with_suffix(".workflow.yaml").read_text(), "make golden, and read the difference"


def test_the_crd_is_the_one_that_the_models_describe():
    assert kaito_hera("crd").stdout == (ROOT / "argo" / "crd.yaml").read_text(), "make golden, and read the difference"


def test_the_page_of_fields_is_the_one_that_the_models_describe():
    page = (ROOT / "argo" / "WORKSPACE.md").read_text()
    assert kaito_hera("crd", "--reference").stdout == page, "make golden, and read the difference"


def test_a_slip_in_a_manifest_is_named(tmp_path):
    manifest = yaml.safe_load((ROOT / "examples" / "inference-phi-3.yaml").read_text())
    manifest["resource"]["instanceTypo"] = "Standard_NC6s_v3"
    (tmp_path / "slip.yaml").write_text(yaml.safe_dump(manifest))
    answer = kaito_hera("render", tmp_path / "slip.yaml")
    assert answer.returncode != 0
    assert "resource.instanceTypo" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_no_file_is_said_in_a_line(tmp_path):
    answer = kaito_hera("render", tmp_path / "nothing.yaml")
    assert answer.returncode != 0
    assert len(answer.stderr.strip().splitlines()) == 1
