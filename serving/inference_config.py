"""KAITO's inference_config.yaml, typed: what a user may set of a server. Knows no engine: the operator parses it too.

All keys that KAITO's releases take are known here. What our engine has is honoured, what it has no use for is a
warning, what it would have to disobey is an error, and so is what nobody knows, with a suggestion.
"""

import codecs
import difflib
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import pydantic

from artifacts import plain_yaml
from serving import inference_keys, inference_vllm
from serving.config import Runtime, ToolCallParser

FILE = "inference_config.yaml"

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
_DTYPES: Mapping[str, Dtype] = {
    "auto": "auto",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "half": "float16",
    "float32": "float32",
    "float": "float32",
}
_LENGTH = re.compile(r"([0-9]{1,9})(\.[0-9]{1,3})?([kKmM]?)")
_UNITS = {"": 1, "k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
_NOT_HANDED_ON = "it is not among the options that are handed on to vLLM"
_SHORTEST = 2
_LARGEST_TEMPLATE = 65_536
"""It travels in an annotation, and all annotations of a pod together may have four times as much."""
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,253}")


class InferenceConfig(pydantic.BaseModel):
    """What is honoured; None where the user says nothing."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    max_model_len: int | None = None
    """Most tokens of prompt and answer together; None: as many as the model takes."""
    served_model_name: str | None = None
    """The name that clients ask for, in place of the preset's."""
    dtype: Dtype = "auto"
    """Number type of the weights; `auto` is what the GPU computes in."""
    chat_template: str | None = None
    """A Jinja template in place of the model's own and the adapters'."""
    tool_call_parser: ToolCallParser | None = None
    """How the model writes calls of tools; None: in the way that its chat template teaches."""
    vllm: Mapping[str, Any] = pydantic.Field(default_factory=dict)
    """Arguments that are handed on to vLLM's engine, where it serves."""

    @property
    def gpus(self) -> int:
        """Among how many GPUs vLLM is told to divide the model; 0: not said."""
        return int(self.vllm.get("tensor_parallel_size", 0))


def parse(text: str, runtime: Runtime = "transformers") -> tuple[InferenceConfig, tuple[str, ...]]:
    """The config in an inference_config.yaml's text, for this runtime, and what in it decides nothing here.

    ValueError names each bad key, the value seen and the way out.
    """
    top, options = _read(text)
    fields: dict[str, Any] = {}
    warnings: list[str] = []
    problems: list[str] = []
    for key, value in top.items():
        if value is not None:  # null is the same as silence
            _judge(key, value, inference_keys.TOP.get(key), warnings, problems)
    for name, (key, value) in _named(options, problems).items():
        try:
            taken = _taken(name, value, runtime, warnings)
        except ValueError as error:
            problems.append(f"vllm.{key}: {_shown(value)} {error}")
            continue
        if taken is not None:
            fields |= taken | ({"vllm": {**fields.get("vllm", {}), **taken["vllm"]}} if "vllm" in taken else {})
        elif (refused := _find(name, inference_keys.REFUSED)) and not _harmless(value, refused):
            problems.append(f"vllm.{key}: {_shown(value, name)} cannot be honoured: {refused.reason}")
        elif refused is None:
            idle = _find(name, inference_keys.IDLE)
            idle = idle and idle._replace(reason=_NOT_HANDED_ON) if runtime == "vllm" else idle
            _judge(f"vllm.{key}", value, idle, warnings, problems)
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ValueError(f"{FILE}: {shown}")
    return InferenceConfig.model_validate(fields), tuple(f"{FILE}: {warning}" for warning in warnings)


def _taken(name: str, value: object, runtime: Runtime, warnings: list[str]) -> dict[str, Any] | None:
    """What an option sets; None where it is not honoured. ValueError says what is wrong, after the value."""
    if reader := _READERS.get(name):
        return reader(value, warnings)
    handed = inference_vllm.read(name, value) if runtime == "vllm" else None
    return None if handed is None else {"vllm": handed}


def _read(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The top keys without `vllm`, and what is below it."""
    try:
        document = plain_yaml.config(text)
    except ValueError as error:
        raise ValueError(f"{FILE}: {error}") from error
    if not isinstance(document, dict | None):
        raise ValueError(  # noqa: TRY004 -- one kind of error for all that a user can write
            f"{FILE}: is {_shown(document)}, but it must be a map; write `vllm:` and its options below it"
        )
    top = {str(key): value for key, value in (document or {}).items()}
    options = top.pop("vllm", None)
    if not isinstance(options, dict | None):
        raise ValueError(  # noqa: TRY004
            f"{FILE}: vllm is {_shown(options)}, but it must be a map such as `max-model-len: 4096`"
        )
    return top, options or {}


def _named(options: dict[Any, Any], problems: list[str]) -> dict[str, tuple[str, Any]]:
    """Options by vLLM's name, which has hyphens where users may write underscores; each as written, with its value."""
    found: dict[str, tuple[str, Any]] = {}
    for key, value in options.items():
        name = str(key).replace("_", "-")
        if name in found:
            problems.append(f"vllm.{key}: is there twice, as {found[name][0]} too; keep one of them")
        elif value is not None:
            found[name] = (str(key), value)
    return found


def _find(name: str, keys: Mapping[str, inference_keys.Key]) -> inference_keys.Key | None:
    """The key of that name, of what it is a part of (`compilation-config.level`) or the opposite of (`no-...`)."""
    whole = name.partition(".")[0]
    if found := keys.get(name) or keys.get(whole):
        return found
    opposite = keys.get(whole.removeprefix("no-"))
    return opposite and opposite._replace(harmless=tuple(not each for each in opposite.harmless))


def _judge(key: str, value: object, known: inference_keys.Key | None, warnings: list[str], problems: list[str]) -> None:
    if known is None:
        problems.append(f"{key[:100]}: unknown key with value {_shown(value)}; {_meant(key)}")
    elif not _harmless(value, known):
        shown = _shown(value, key.removeprefix("vllm.").replace("_", "-"))
        warnings.append(f"{key}: {shown} has no effect, {known.reason}")


def _harmless(value: object, key: inference_keys.Key) -> bool:
    """Whether a value asks for what happens anyway, written as it is or as a string."""
    if not isinstance(value, str | int | float):
        return False
    return value in key.harmless or str(value).strip().lower() in {str(each).lower() for each in key.harmless}


def _meant(key: str) -> str:
    name = key.removeprefix("vllm.").replace("_", "-")
    known = [*_READERS, *inference_vllm.OPTIONS, *inference_keys.REFUSED, *inference_keys.IDLE]
    if not key.startswith("vllm.") and name in known:
        return f"it belongs below vllm, as {name}"
    names = known if key.startswith("vllm.") else ["vllm", *inference_keys.TOP]
    if key.startswith("vllm.") and (own := key.removeprefix("vllm.")) in inference_keys.TOP:
        return f"{own} belongs beside vllm, not below it"
    close = difflib.get_close_matches(name[:100], names, 1)
    return f"did you mean {close[0]}?" if close else "remove it"


def _length(value: object, _warnings: list[str]) -> dict[str, Any]:
    """Tokens; as in vLLM also 16k (16,000), 16K (16,384), and `auto` or -1 for what the model takes."""
    text = "" if isinstance(value, bool) else str(value).strip() if isinstance(value, str | int) else ""
    if text in {"auto", "-1"}:
        return {}
    found = _LENGTH.fullmatch(text)
    if not found or (found[2] and not found[3]):
        raise ValueError("is no number of tokens; write a whole number, such as 4096")
    tokens = int(float(found[1] + (found[2] or "")) * _UNITS[found[3]])
    if tokens < _SHORTEST:
        raise ValueError(f"leaves no room for a prompt and an answer; write at least {_SHORTEST}")
    return {"max_model_len": tokens}


def _model_name(value: object, _warnings: list[str]) -> dict[str, Any]:
    names = value if isinstance(value, list) else [value]
    if len(names) != 1:
        raise ValueError("has not one name; write one: adapters have names of their own")
    text = "" if isinstance(names[0], bool | dict | list) else str(names[0])
    if not _NAME.fullmatch(text):
        raise ValueError("is no name that clients can ask for; write up to 253 characters without spaces")
    return {"served_model_name": text}


def _dtype(value: object, _warnings: list[str]) -> dict[str, Any]:
    kind = _DTYPES.get(str(value)) if isinstance(value, str) else None
    if kind is None:
        raise ValueError(f"is no number type; write one of {', '.join(_DTYPES)}")
    return {"dtype": kind}


def _chat_template(value: object, warnings: list[str]) -> dict[str, Any]:
    """A template's text, with the escapes that vLLM resolves; a path into KAITO's image means the model's own."""
    if not isinstance(value, str):
        raise ValueError("is no text; write the template itself")  # noqa: TRY004
    if any(mark in value for mark in "{}\n"):
        if len(value.encode("utf-8", "surrogatepass")) > _LARGEST_TEMPLATE:
            raise ValueError(f"is longer than {_LARGEST_TEMPLATE:,} bytes; write a shorter template")
        return {"chat_template": _unescaped(value)}
    if value.startswith("/workspace/chat_templates/"):
        warnings.append(f"vllm.chat-template: {_shown(value)} is not in this image, the model's own template is used")
        return {}
    raise ValueError("is a path, but there is no such file where the server runs; write the template itself")


def _parser(value: object, warnings: list[str]) -> dict[str, Any]:
    if value in (known := get_args(ToolCallParser)):
        return {"tool_call_parser": value}
    told = f"is none of {', '.join(known)}, calls of tools are read in the way that the chat template teaches"
    warnings.append(f"vllm.tool-call-parser: {_shown(value)} {told}")
    return {}


def _unescaped(template: str) -> str:
    try:
        return codecs.decode(template, "unicode_escape") if template.isascii() and "\\" in template else template
    except UnicodeDecodeError as error:
        raise ValueError(f"has an escape that is none: {error.reason}; write two backslashes for one") from error


_READERS: Mapping[str, Callable[[object, list[str]], dict[str, Any]]] = {
    "max-model-len": _length,
    "served-model-name": _model_name,
    "dtype": _dtype,
    "chat-template": _chat_template,
    "tool-call-parser": _parser,
}
"""Options that are honoured: our field and value; ValueError says what is wrong, after the value."""


def _shown(value: object, key: str = "") -> str:
    """A value as messages have it; those of keys that hold a secret never get into a status."""
    if key in inference_keys.SECRET:
        return "(not shown)"
    return reprlib.repr(value)[:200]
