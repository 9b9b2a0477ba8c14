"""Calls of tools in a model's words: one module for each way of writing them, found by the model's chat template."""

from collections.abc import Callable, Collection
from typing import NamedTuple

from serving.text.tools import hermes, llama3_json, mistral, phi4_mini
from serving.text.tools.marked import Call as Call
from serving.text.tools.marked import Marked, each_of
from serving.text.tools.marked import Parser as Parser


class Kind(NamedTuple):
    """A way of writing calls."""

    name: str
    """As vLLM's `--tool-call-parser` has it."""
    knows: Callable[[str], bool]
    """Whether a chat template teaches it."""
    parser: Callable[[Collection[str]], Parser]
    """Reads one answer; takes the names of the tools."""
    id_length: int = 24
    """Of a call's id: some templates take no other."""


KINDS = (
    Kind("mistral", lambda template: "[TOOL_CALLS]" in template, mistral.parser, id_length=9),
    Kind("hermes", lambda template: "<tool_call>" in template, hermes.parser),
    Kind("phi4_mini_json", lambda template: "<|tool|>" in template or "<|tool_call|>" in template, phi4_mini.parser),
    Kind("llama3_json", lambda template: '"parameters":' in template, llama3_json.parser),
)


def of_template(template: str, named: str | None = None) -> Kind | None:
    """How the models of this template write calls, or as `named`; None if it shows no tools, or none in a known way."""
    kinds = (kind for kind in KINDS if (kind.knows(template) if named is None else kind.name == named))
    return next(kinds, None) if "tools" in template else None


def forced() -> Parser:
    """For an answer that a grammar made a list of calls and nothing else."""
    return Marked((), each_of, inside=True)
