"""The stand-in for vLLM has the recorded release's signatures, and the image is built on that release."""

import ast
import re
from pathlib import Path

import pytest

from serving import inference_vllm
from serving.engine.vllm import figures, start
from tests.serving.vllm import record

STUB = Path(__file__).parent / "stub"
ROOT = Path(__file__).parents[3]
RECORDED = record.json.loads(record.FILE.read_text())


def test_methods_of_the_stand_in_have_the_recorded_signatures():
    path = "vllm/v1/engine/async_llm.py"
    assert record.functions((STUB / path).read_text(), record.FUNCTIONS[path]) == RECORDED["functions"][path]


def test_our_logger_is_called_as_vllm_calls_its_own():
    source = Path(figures.__file__).read_text()
    recorded = RECORDED["functions"]["vllm/v1/metrics/loggers.py"]
    names = [name.partition(".")[2] for name in recorded if not name.endswith("__init__")]
    ours = record.functions(source, [f"Figures.{name}" for name in names])
    assert {f"StatLoggerBase.{name.partition('.')[2]}": text for name, text in ours.items()} == {
        name: text for name, text in recorded.items() if not name.endswith("__init__")
    }


@pytest.mark.parametrize(
    ("path", "name", "used"),
    [
        ("vllm/outputs.py", "RequestOutput", {"outputs"}),
        ("vllm/v1/metrics/stats.py", "IterationStats", {"num_preempted_reqs"}),
        ("vllm/config/model.py", "ModelConfig", {"max_model_len", "dtype", "hf_text_config"}),
        ("vllm/config/scheduler.py", "SchedulerConfig", {"max_num_seqs"}),
        ("vllm/v1/engine/async_llm.py", "AsyncLLM", {"vllm_config"}),
    ],
)
def test_attributes_that_are_read_are_there(path, name, used):
    recorded = RECORDED["classes"][path][name]
    assert used <= {*recorded["fields"], *recorded["attributes"]}


def test_names_are_imported_from_where_they_are():
    stub = {
        name: f".{module.removeprefix('vllm.')}:{name}"
        for module, name in re.findall(r"from (vllm\S*) import (\w+)  #", (STUB / "vllm/__init__.py").read_text())
    }
    assert stub == RECORDED["exported"]
    assert RECORDED["errors"] == record.CLASSES


def test_every_argument_of_the_engine_that_is_ever_given_exists():
    known = set(RECORDED["classes"]["vllm/engine/arg_utils.py"]["EngineArgs"]["fields"]) | {"enable_log_requests"}
    given = {key.value for key in _keys(ast.parse(Path(start.__file__).read_text()), "arguments")}
    assert len(given) > 5
    assert given | set(inference_vllm.LORA) <= known
    assert "no_such_argument" not in known


def _keys(tree, function):
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    return [key for each in ast.walk(found) if isinstance(each, ast.Dict) for key in each.keys if key]


def test_the_image_is_of_the_recorded_release():
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG VLLM=\S+:v(\S+)$", text, re.MULTILINE)[1] == RECORDED["version"]
