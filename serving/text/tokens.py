"""Tokens to text while they come: nothing is cut inside a character, and nothing behind a stop string is shown.

Knows the tokenizers library alone; which text goes in is `serving.text.chat`'s business.
"""

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers.decoders import DecodeStream

LOOK_BACK = 32
"""How many tokens of the prompt the decoder sees: whether a space belongs before the first word depends on them."""


class TextStream:
    """The text of one answer."""

    def __init__(
        self, backend: tokenizers.Tokenizer, prompt: Sequence[int], *, stops: Sequence[str] = (), special: bool = False
    ) -> None:
        self._backend = backend
        self._skips = not special
        self._decoder = DecodeStream(list(prompt[-LOOK_BACK:]), self._skips)
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False
        """Whether a stop string was seen; what comes later is dropped."""

    def push(self, tokens: Iterable[int]) -> str:
        """Add tokens; the text that can be shown now."""
        for token in tokens:
            self._held += self._next(token)
        return self._release(hold=True)

    def _next(self, token: int) -> str:
        """What one more token shows; bytes that never become a character are left out."""
        try:
            return self._decoder.step(self._backend, token) or ""
        except Exception:  # noqa: BLE001 (tokenizers has no class for it: bytes broke off in the middle of a character)
            self._decoder = DecodeStream([], self._skips)
            return self._decoder.step(self._backend, token) or ""

    def end(self) -> str:
        """The rest, when no token follows."""
        return self._release(hold=False)

    def _release(self, *, hold: bool) -> str:
        if self.stopped:
            return ""
        cut = min((at for at in map(self._held.find, self._stops) if at >= 0), default=-1)
        if cut >= 0:
            self.stopped = True
        else:
            cut = len(self._held) - (self._doubtful() if hold else 0)
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def _doubtful(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        return max(
            (
                size
                for stop in self._stops
                for size in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:size])
            ),
            default=0,
        )


def tidy(text: str) -> str:
    """English without the spaces that word-level tokenizers leave before marks: transformers' clean-up."""
    for loose in (" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(loose, loose[1:])
    return text.replace(" ' ", "'")
