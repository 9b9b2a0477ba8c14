"""YAML from hands that nobody vouches for: read into what JSON has, or refused, in time and space of its length.

A short text may stand for more than any machine holds, by aliases and by merges; a key that is written twice would lose
its first value without a word.
"""

import collections
from collections.abc import Iterator
from typing import Any

import yaml

MOST, DEEPEST = 500_000, 100
"""Values, aliases and merges followed, and how deep: more than any manifest or config has."""


class Loader(yaml.SafeLoader):
    """Bounded. Not libyaml's: deep brackets overflow its stack."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Follow merges (`<<`): each map is flattened before it is merged on, so that the count tells in time."""
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > MOST:
            raise yaml.YAMLError(f"merges (<<) unfold to more than {MOST:,} values")


class StrictLoader(Loader):
    """Refuses also a key that is written twice."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Judge the keys as they are written: merges come later."""
        node = super().compose_mapping_node(anchor)
        keys = collections.Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, times in keys.items() if times > 1 and key != "<<"]:
            raise yaml.YAMLError(f"{min(twice)} is written twice; keep one of them")
        return node


def values(document: Any) -> Iterator[Any]:
    """All keys and values in it, aliases followed; raises ValueError where there is no end of them."""
    todo, count = [(document, 0)], 0
    while todo:
        value, depth = todo.pop()
        count += 1
        if count > MOST or depth > DEEPEST:
            limit = f"more than {MOST:,} values" if count > MOST else f"more than {DEEPEST} levels"
            raise ValueError(f"unfolds to {limit}")
        if isinstance(value, dict):
            todo.extend((each, depth + 1) for pair in value.items() for each in pair)
        elif isinstance(value, list):
            todo.extend((each, depth + 1) for each in value)
        yield value


def config(text: str) -> Any:
    """The one document of a config; raises ValueError with a text of one line."""
    try:
        document = yaml.load(text, StrictLoader)  # noqa: S506 -- a SafeLoader
        collections.deque(values(document), maxlen=0)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"this is no YAML that can be read: {' '.join(str(error).split())[:500]}") from error
    return document
