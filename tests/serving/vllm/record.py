"""What a release of vLLM looks like from outside, out of its wheel: nothing of it is installed or run.

    pip download --no-deps vllm==VERSION
    python -m tests.serving.vllm.record vllm-VERSION-*.whl > tests/serving/vllm/recorded.json

Only what `serving.engine.vllm` touches: parameters of functions, fields of classes with their defaults, and attributes.
"""

import ast
import json
import sys
import zipfile
from pathlib import Path

FILE = Path(__file__).with_name("recorded.json")
FUNCTIONS = {
    "vllm/v1/engine/async_llm.py": [
        f"AsyncLLM.{name}"
        for name in (
            "from_engine_args",
            "generate",
            "abort",
            "add_lora",
            "remove_lora",
            "shutdown",
            "errored",
            "dead_error",
        )
    ],
    "vllm/v1/metrics/loggers.py": [
        f"StatLoggerBase.{name}"
        for name in ("__init__", "record", "log", "log_engine_initialized", "record_sleep_state")
    ],
}
FIELDS = {
    "vllm/engine/arg_utils.py": ["EngineArgs", "AsyncEngineArgs"],
    "vllm/sampling_params.py": ["SamplingParams", "StructuredOutputsParams", "RequestOutputKind"],
    "vllm/lora/request.py": ["LoRARequest"],
    "vllm/outputs.py": ["CompletionOutput", "RequestOutput"],
    "vllm/logprobs.py": ["Logprob"],
    "vllm/v1/metrics/stats.py": ["SchedulerStats", "BaseCacheStats", "IterationStats"],
    "vllm/config/model.py": ["ModelConfig"],
    "vllm/config/scheduler.py": ["SchedulerConfig"],
    "vllm/v1/engine/async_llm.py": ["AsyncLLM"],
}
CLASSES = {"vllm/exceptions.py": ["VLLMClientError"], "vllm/v1/engine/exceptions.py": ["EngineDeadError"]}


def signature(function):
    """A function's parameters with their defaults and without their types, and whether it is async."""
    arguments = function.args
    for each in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if each:
            each.annotation = None
    return f"{'async ' if isinstance(function, ast.AsyncFunctionDef) else ''}({ast.unparse(arguments)})"


def functions(source, names):
    """Signatures of methods, `Class.method`."""
    found = {}
    for node in ast.parse(source).body:
        for each in getattr(node, "body", []):
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and f"{node.name}.{each.name}" in names:
                found[f"{node.name}.{each.name}"] = signature(each)
    return found


def fields(source, names):
    """Of classes: fields in their order with the text of their default (null: required); attributes set in methods."""
    found = {}
    for node in [one for one in ast.parse(source).body if isinstance(one, ast.ClassDef) and one.name in names]:
        own = {}
        for each in node.body:
            if isinstance(each, ast.AnnAssign):
                own[each.target.id] = ast.unparse(each.value) if each.value else None
            elif isinstance(each, ast.Assign):
                own[each.targets[0].id] = ast.unparse(each.value)
        inside = {
            target.attr
            for each in ast.walk(node)
            if isinstance(each, ast.Assign | ast.AnnAssign)
            for target in (each.targets if isinstance(each, ast.Assign) else [each.target])
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
        }
        found[node.name] = {"fields": own, "attributes": sorted(inside - own.keys())}
    return found


def record(read, version):
    """Everything, of a release whose files `read` reads by path."""
    exported = {
        name: place for name, place in ast.literal_eval(_attributes(read("vllm/__init__.py"))).items()
        if name in {"AsyncEngineArgs", "SamplingParams"}
    }  # fmt: skip
    return {
        "version": version,
        "exported": exported,
        "functions": {path: functions(read(path), names) for path, names in FUNCTIONS.items()},
        "classes": {path: fields(read(path), names) for path, names in FIELDS.items()},
        "errors": {path: sorted(fields(read(path), names)) for path, names in CLASSES.items()},
    }


def _attributes(source):
    """The table of what the package exports lazily."""
    for node in ast.parse(source).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if getattr(target, "id", "") == "MODULE_ATTRS":
            return ast.unparse(node.value)
    raise ValueError("vllm/__init__.py has no MODULE_ATTRS")


if __name__ == "__main__":
    wheel = Path(sys.argv[1])
    with zipfile.ZipFile(wheel) as files:
        whole = record(lambda path: files.read(path).decode(), wheel.name.split("-")[1])
    print(json.dumps(whole, indent=1))
