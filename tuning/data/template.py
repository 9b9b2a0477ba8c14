"""Chat templates rendered as transformers renders them, without it: the same sandbox, the same helpers.

Knows no tokens. `tests/tuning/data/test_tokenizer.py` holds it against transformers' own.
"""

import contextlib
import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jinja2
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.sandbox

Span = tuple[int, int]
_TRACKED = "_kaito_spans"
_MOST_BITS, _MOST_DIGITS = 1 << 16, 308


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`: notes where in the text the assistant speaks."""

    tags = {"generation"}

    def parse(self, parser: Any) -> jinja2.nodes.Node:
        """The block as a call, whose answer is the block's text."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        text = str(caller())
        if (tracked := getattr(self.environment, _TRACKED, None)) is not None:
            pieces, spans = tracked
            start = sum(map(len, pieces))
            spans.append((start, start + len(text)))
        return text


class _Dict:
    """What `dict` may do in a template."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As dict's."""
        return dict.fromkeys(*args)


class _Namespace(jinja2.utils.Namespace):
    """Refuses names that lead into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        own, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _see_name(name)
        jinja2.utils.Namespace.__init__(own, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _see_name(name)
        super().__setitem__(name, value)


def _see_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template may not set {name!r}; rename it")


class _Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Refuses numbers that take hours to compute in one go, where no clock interrupts."""

    intercepted_binops = frozenset({"**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """As jinja2's, of what is small."""
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MOST_BITS:
            raise jinja2.exceptions.SecurityError(f"a chat template may not compute powers of over {_MOST_BITS:,} bits")
        return super().call_binop(context, operator, left, right)


class Template:
    """One compiled template. For one thread."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for a text that is no template."""
        self._environment = _Environment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, jinja2.ext.loopcontrols],
        )
        self._environment.filters.update(tojson=_tojson, round=_round)
        self._environment.globals.update(raise_exception=_refuse, strftime_now=_now, dict=_Dict(), namespace=_Namespace)
        try:
            self._compiled = self._environment.from_string(text)
        except MemoryError:
            raise
        except Exception as error:  # also what Python says of the code that it becomes
            raise ValueError(f"the chat template cannot be compiled: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Any, *, prompt: bool, **more: Any) -> str:
        """The text; raises what the template or the sandbox does."""
        return self._compiled.render(**_context(messages, tools, prompt=prompt), **more)

    def spans(self, messages: Sequence[Mapping[str, Any]], tools: Any, **more: Any) -> tuple[str, list[Span]]:
        """The text and where in it the template says that the assistant speaks."""
        with self._tracking() as (pieces, spans):
            for piece in self._compiled.generate(**_context(messages, tools, prompt=False), **more):
                pieces.append(piece)  # a block within asks how long the text is by now
        return "".join(pieces), spans

    @contextlib.contextmanager
    def _tracking(self) -> Iterator[tuple[list[str], list[Span]]]:
        tracked: tuple[list[str], list[Span]] = ([], [])
        setattr(self._environment, _TRACKED, tracked)
        try:
            yield tracked
        finally:
            delattr(self._environment, _TRACKED)


def _context(messages: Sequence[Mapping[str, Any]], tools: Any, *, prompt: bool) -> dict[str, Any]:
    """Absent keys for None, as transformers gives them."""
    said = [{key: value for key, value in message.items() if value is not None} for message in messages]
    for message in said:
        thought = next((message[key] for key in ("reasoning_content", "thinking", "reasoning") if key in message), None)
        if thought is not None:
            message.setdefault("thinking", thought)
            message["reasoning_content"] = thought
    return {"messages": said, "tools": tools, "documents": None, "add_generation_prompt": prompt}


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 -- a filter's arguments are positional
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _round(value: Any, precision: int = 0, method: Literal["common", "ceil", "floor"] = "common") -> Any:
    """As jinja2's, which computes ten to that power."""
    if precision > _MOST_DIGITS:
        raise jinja2.exceptions.SecurityError(f"a chat template may not round to more than {_MOST_DIGITS} digits")
    return jinja2.filters.do_round(value, precision, method)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)  # noqa: DTZ005 -- the template's reader is where it runs
