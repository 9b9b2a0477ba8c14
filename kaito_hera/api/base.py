"""What all parts of the Workspace share: the strings that may occur, and rules that exist in CEL and in Python."""

import dataclasses
import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Self

import pydantic
import pydantic_core
from pydantic.alias_generators import to_camel

Text = Annotated[str, pydantic.StringConstraints(min_length=1, max_length=2048)]
Word = Annotated[
    str,
    pydantic.StringConstraints(max_length=253, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9._/]*[A-Za-z0-9])?)?$"),
]
"""A label's key, or the name of something outside the cluster; empty is as good as absent."""
Key = Annotated[
    str,
    pydantic.StringConstraints(min_length=1, max_length=317, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._/]*[A-Za-z0-9])?$"),
]
"""The key of a label."""
Name = Annotated[
    str, pydantic.StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$")
]
"""The name of an object. Wider than Kubernetes': preflight tells more about a placeholder like SECRET_HERE."""
MaybeName = Annotated[
    str, pydantic.StringConstraints(max_length=253, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?)?$")
]
"""The name of an object, or empty, which is as good as absent."""
Seconds = Annotated[int, pydantic.Field(ge=60, le=2_592_000)]
"""A deadline: from a minute to thirty days."""


@dataclasses.dataclass(frozen=True)
class Spelled:
    """The letters of a text, where a person is better told in words than by a regular expression."""

    pattern: str
    """Of the whole text; what RE2 and Python agree on."""
    message: str
    """What to write; without braces."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> pydantic_core.CoreSchema:
        return pydantic_core.core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, core: pydantic_core.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(core), **worded(f"self.matches(r'^(?:{self.pattern})$')", self.message)}

    def _checked(self, value: str) -> str:
        if re.fullmatch(self.pattern, value) is None:
            raise pydantic_core.PydanticCustomError("spelling", self.message)
        return value


Image = Annotated[
    str,
    pydantic.StringConstraints(max_length=2048),
    Spelled(
        "([A-Za-z0-9][-A-Za-z0-9._:/@]*)?",
        "write HOST/REPOSITORY:TAG, with letters, digits and ._-:/@ alone; a placeholder is to be replaced",
    ),
]
"""An image reference; empty is as good as absent. The admission policy knows its grammar."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule over several fields, in the API server's language and in ours; a test compares their verdicts."""

    cel: str
    """True when the rule holds. `self` is the object, `oldSelf` what it was."""
    message: str
    """Field, what is allowed, what to do."""
    holds: Callable[[Any], bool] | None = None
    """The same in Python; None for a rule about a change, which only the API server sees."""
    seen: str = ""
    """CEL that yields the message when it shows values; `message` stands in where it fails."""
    also_new: bool = False
    """`oldSelf` is an optional, without a value at creation: such a rule leaves objects in peace that are there."""

    def schema(self) -> dict[str, Any]:
        """An entry of x-kubernetes-validations."""
        more: dict[str, Any] = {"messageExpression": self.seen} if self.seen else {}
        if self.also_new:
            more["optionalOldSelf"] = True
        return {"rule": self.cel, "message": self.message, **more}


def worded(cel: str, message: str) -> dict[str, Any]:
    """A rule about one text, told with the text: the API server says only that it is one."""
    told = message.replace("'", "\\'")
    return {"x-kubernetes-validations": [Rule(cel, message, seen=f"'\"' + self + '\": {told}'").schema()]}


class BrokenRulesError(ValueError):
    """Every rule that a part of the API does not keep, by its message."""

    def __init__(self, messages: tuple[str, ...]) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


def _with_rules(schema: dict[str, Any], model: type["Model"]) -> None:
    if model.rules:
        schema["x-kubernetes-validations"] = [rule.schema() for rule in model.rules]


class Model(pydantic.BaseModel):
    """A frozen part of the API; JSON names are camelCase, unknown ones are errors."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
        json_schema_extra=_with_rules,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    def is_stored(self) -> bool:
        """Whether the API server has the object already: then rules for new ones leave it in peace."""
        return False

    def broken(self, *, as_new: bool) -> tuple[str, ...]:
        """Messages of the rules that do not hold; `as_new` adds those that leave stored objects in peace."""
        judged = [rule for rule in self.rules if rule.holds and (as_new or not rule.also_new)]
        return tuple(rule.message for rule in judged if rule.holds and not rule.holds(self))

    @pydantic.model_validator(mode="after")
    def _keeps_its_rules(self) -> Self:
        if broken := self.broken(as_new=not self.is_stored()):
            raise BrokenRulesError(broken)
        return self


Free = Annotated[
    dict[str, Any],
    pydantic.WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object whose fields Kubernetes knows and we hand on."""
