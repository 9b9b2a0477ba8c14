"""One request on its way through the engine."""

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from serving.engine.outbox import Outbox
from serving.engine.protocol import Delta, Finish, Logprob, Request
from serving.engine.slot.kv import Row
from serving.engine.slot.settings import Settings

_numbers = itertools.count()
SELDOM = 16
"""How many tokens are told together where nobody sees a part."""


@dataclass(eq=False, slots=True)
class Sequence:
    """The tokens of one request so far; its row has the keys and values of the first `row.count` of them."""

    request: Request
    settings: Settings
    outbox: Outbox
    tokens: list[int]
    strengths: Mapping[str, float]
    """The adapters that count: those of strength 0 are left out."""
    row: Row | None = None
    long: bool = False
    """Its positions are turned by longrope's long factors."""
    cancelled: bool = False
    number: int = field(default_factory=_numbers.__next__)

    @property
    def need(self) -> int:
        """How long it can become."""
        return len(self.request.prompt) + self.request.max_new_tokens

    @property
    def generated(self) -> int:
        """How many tokens it has answered with."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def news(self) -> bool:
        """Whether its reader should look now; he learns of the first token at once in any case."""
        return not self.request.at_once or self.generated % SELDOM == 1

    @property
    def salt(self) -> Hashable:
        """What keys and values depend on beside the tokens before them."""
        return frozenset(self.strengths.items()), self.long

    def accept(self, token: int, logprob: Logprob | None) -> Finish | None:
        """Take the next token and tell it; whether it was the last one."""
        self.tokens.append(token)
        finish: Finish | None = None
        if token in self.settings.stop_ids:
            finish = "stop"
        elif self.generated >= self.request.max_new_tokens:
            finish = "length"
        self.outbox.put(Delta((token,), finish, (logprob,) if logprob else ()))
        return finish
