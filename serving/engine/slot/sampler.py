"""Chooses the next token of every row: greedily at once, by chance from each row's own generator.

The order of the steps is transformers': wishes that change scores (wishes.py), temperature, top_k, top_p, min_p,
typical_p. A row's choice depends on its own scores and seed only, never on who else is in the batch. Nothing is sorted
that need not be: most rows are decided among their `PREFIX` best tokens.
"""

import math
from collections.abc import Sequence as Many
from typing import NamedTuple

import torch

from serving.engine.protocol import Logprob, RequestFailed
from serving.engine.slot.sequence import Sequence
from serving.engine.slot.wishes import Wishes

PREFIX = 1024


class Chosen(NamedTuple):
    """The next token of one sequence."""

    token: int
    logprob: Logprob | None = None


class Sampler:
    """Chooses for one engine."""

    def __init__(self) -> None:
        self._wishes: dict[int, Wishes] = {}

    def forget(self, sequence: Sequence) -> None:
        """It has ended."""
        self._wishes.pop(sequence.number, None)

    def choose(self, sequences: Many[Sequence], scores: torch.Tensor) -> list[Chosen | Exception]:
        """One answer for each; scores [sequences, vocabulary]. What fails, fails one sequence."""
        raw = scores
        best, greedy = scores.max(dim=-1)
        fine = [math.isfinite(value) for value in best.tolist()]
        tokens = greedy.tolist()
        chosen: list[Chosen | Exception] = [
            Chosen(token) if good else RequestFailed("the model computed scores that are no numbers")
            for token, good in zip(tokens, fine, strict=True)
        ]
        together: list[tuple[int, torch.Tensor]] = []
        for index, sequence in enumerate(sequences):
            if fine[index] and (sequence.settings.alters or sequence.settings.sample):
                try:
                    altered = self._altered(sequence, raw[index])
                    if sequence.settings.few:
                        together.append((index, altered))
                    else:
                        chosen[index] = self._taken(sequence, self._token(sequence, altered))
                except Exception as error:  # noqa: BLE001 (a grammar or an odd mix of numbers: this request's own)
                    chosen[index] = RequestFailed(f"no token could be chosen: {error}")
        if together:
            few = [sequences[index] for index, _ in together]
            points = [self._of(sequence).draw() for sequence in few]
            found = sampled_of_few(few, torch.stack([altered for _, altered in together]), points)
            for (index, _), token in zip(together, found, strict=True):
                chosen[index] = self._taken(sequences[index], token)
        for index, sequence in enumerate(sequences):
            one = chosen[index]
            if sequence.request.logprobs is not None and isinstance(one, Chosen):
                chosen[index] = Chosen(one.token, _logprob(raw[index], one.token, sequence.request.logprobs))
        return chosen

    def _of(self, sequence: Sequence) -> Wishes:
        return self._wishes.get(sequence.number) or self._wishes.setdefault(sequence.number, Wishes(sequence))

    def _altered(self, sequence: Sequence, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        if sequence.settings.alters:
            scores = self._of(sequence).altered(scores.clone())
            if scores.max() == -math.inf:
                raise ValueError("every token is forbidden")
        return scores

    def _token(self, sequence: Sequence, scores: torch.Tensor) -> int:
        if not sequence.settings.sample:
            return int(scores.argmax())
        return sampled(sequence, scores, self._of(sequence).draw())

    def _taken(self, sequence: Sequence, token: int) -> Chosen | Exception:
        try:
            self._of(sequence).accept(token)
        except Exception as error:  # noqa: BLE001 (a grammar's own)
            return RequestFailed(f"the grammar does not go on: {error}")
        return Chosen(token)


def sampled_of_few(sequences: Many[Sequence], scores: torch.Tensor, points: Many[float]) -> list[int]:
    """The same as `sampled` for many rows [rows, vocabulary] at once, whose choice is among their `top_k` best."""

    def column(values: Many[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=scores.device)[:, None]

    all_settings = [sequence.settings for sequence in sequences]
    scores, order = (scores / column([each.temperature for each in all_settings])).topk(
        max(each.top_k for each in all_settings)
    )
    ranks = torch.arange(scores.shape[1], device=scores.device)
    scores = scores.masked_fill(ranks >= column([each.top_k for each in all_settings]), -math.inf)
    mass = scores.softmax(-1)
    beyond = mass.cumsum(-1) - mass >= column([each.top_p for each in all_settings])
    beyond[:, 0] = False
    unlikely = scores < scores[:, :1] + column(
        [math.log(each.min_p) if each.min_p else -math.inf for each in all_settings]
    )
    mass = scores.masked_fill(beyond | unlikely, -math.inf).softmax(-1).cumsum(-1)
    places = (mass <= column(points) * mass[:, -1:]).sum(-1)
    last = (mass < mass[:, -1:]).sum(-1)  # rounding at the very end
    tokens: list[int] = order.gather(-1, torch.minimum(places, last)[:, None])[:, 0].tolist()
    return tokens


def sampled(sequence: Sequence, scores: torch.Tensor, point: float) -> int:
    """The token at `point` (0 to 1) of what is left of the distribution."""
    settings = sequence.settings
    scores = scores / settings.temperature
    order = None
    if settings.top_k:
        scores, order = scores.topk(settings.top_k)
    if settings.top_p < 1:
        scores, order = _nucleus(scores, order, settings.top_p)
    if settings.min_p:
        scores = scores.masked_fill(scores < scores.max() + math.log(settings.min_p), -math.inf)
    if settings.typical_p < 1:
        scores = _typical(scores, settings.typical_p)
    mass = scores.softmax(-1).cumsum(-1)
    place = int(torch.searchsorted(mass, point * mass[-1], right=True).clamp_(max=len(mass) - 1))
    while scores[place] == -math.inf:  # rounding at the very end
        place -= 1
    return place if order is None else int(order[place])


def _nucleus(scores: torch.Tensor, order: torch.Tensor | None, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The fewest best tokens that together have `top_p`, best first."""
    if order is None:
        whole = scores
        scores, order = whole.topk(min(PREFIX, len(whole)))
        if len(order) < len(whole) and (scores - whole.logsumexp(-1)).exp().sum() < top_p:
            scores, order = whole.sort(descending=True)
            mass = scores.softmax(-1)
        else:
            mass = (scores - whole.logsumexp(-1)).exp()
    else:
        mass = scores.softmax(-1)
    keep = max(1, int((mass.cumsum(-1) - mass < top_p).sum()))
    return scores[:keep], order[:keep]


def _typical(scores: torch.Tensor, typical_p: float) -> torch.Tensor:
    """The tokens whose surprise is nearest to the expected one, with the mass `typical_p` together."""
    logs = scores.log_softmax(-1)
    distance = (-logs - -(logs.exp() * logs).nansum()).abs()
    nearest = distance.sort().indices
    mass = logs[nearest].exp().cumsum(-1)
    keep = nearest[: min(int((mass < typical_p).sum()) + 1, len(nearest))]
    left = torch.full_like(scores, -math.inf)
    left[keep] = scores[keep]
    return left


def _logprob(scores: torch.Tensor, token: int, count: int) -> Logprob:
    logs = scores.float().log_softmax(-1)
    top = logs.topk(count) if count else None
    pairs = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)) if top else ()
    return Logprob(float(logs[token]), pairs)
