"""The steps as Argo runs them: by Hera's runner, in a process of their own."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

from kaito_hera.intent import Parts
from kaito_hera.settings import Settings
from tests import making
from workflows import steps
from workflows.plan import plan

ROOT = Path(__file__).parents[2]


def entrypoints():
    found = {}
    for workspace, parts in (
        (making.tuning(), Parts(nodes=True, tune=True, serve=True)),
        (making.inference(), None),
    ):
        manifest = plan(making.parsed(workspace), Settings(), attempt=1, parts=parts)
        found |= {t["name"]: t["script"]["args"][-1] for t in manifest["spec"]["templates"] if "script" in t}
    return found


@pytest.mark.parametrize(("step", "entrypoint"), sorted(entrypoints().items()))
def test_the_runner_finds_every_step(step, entrypoint):
    module, _, function = entrypoint.partition(":")
    assert module == "workflows.steps"
    assert function == step.replace("-", "_")
    assert callable(getattr(importlib.import_module(module), function))


def run_step(function, tmp_path, **environment):
    inputs = tmp_path / "script"
    arguments = {
        "workspace": json.dumps(making.parsed(making.inference()).intent()),
        "settings": "{}",
        "attempt": "1",
        "candidate": "",
        "fresh": "false",
        "hostnames": "[]",
        "adapter": "",
        "pinned": "",
        "commits": "[]",
    }
    inputs.write_text(json.dumps([{"name": name, "value": value} for name, value in arguments.items()]))
    command = [sys.executable, "-m", "hera.workflows.runner", "-e", f"workflows.steps:{function}", str(inputs)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERMINATION_LOG": str(tmp_path / "word"), **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_step_that_cannot_reach_the_cluster_says_so_and_may_be_tried_again(tmp_path):
    config = tmp_path / "kubeconfig"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    end = run_step("roll_out", tmp_path, KUBECONFIG=str(config))
    assert end.returncode == 75, end.stderr
    word = json.loads((tmp_path / "word").read_text())
    assert word["reason"] == "ClusterUnavailable"
    assert word["retryable"] is True
    assert "127.0.0.1" in word["message"]


def test_importing_the_steps_loads_nothing_heavy():
    program = (
        "import sys, workflows.steps, workflows.plan;"
        "heavy = {'torch', 'ray', 'transformers', 'peft', 'bitsandbytes', 'datasets', 'azure'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    end = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert end.returncode == 0, end.stderr


@pytest.mark.parametrize("answer", ["", f"team.azurecr.io/a@sha256:{7:064x}"])
def test_an_adapter_is_an_image_by_digest(answer):
    assert steps.Adapter(adapter=answer).adapter == answer


@pytest.mark.parametrize("answer", ["{{=sprig.env('X')}}", "team.azurecr.io/a:1", "a' || true || '@sha256:" + "0" * 64])
def test_a_pod_cannot_answer_with_an_expression(answer):
    with pytest.raises(pydantic.ValidationError):
        steps.Adapter(adapter=answer)
