"""What a request changes in the scores before anything is chosen, in transformers' order, and its own chance."""

import random

import torch

from serving.engine.slot.sequence import Sequence


class Wishes:
    """Of one sequence, step by step."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._chance = random.Random(sequence.request.sampling.seed)  # noqa: S311 (no secret; None: the system's entropy)
        self._counts: dict[int, int] = {}
        """How often the answer holds a token."""

    def draw(self) -> float:
        """The next number of this request's own chance, 0 to 1."""
        return self._chance.random()

    def accept(self, token: int) -> None:
        """The token was chosen."""
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._sequence.request.grammar is not None:
            self._sequence.request.grammar.accept(token)

    def altered(self, scores: torch.Tensor) -> torch.Tensor:
        """The scores [vocabulary] as the request wants them; they may be changed in place."""
        sequence, sampling = self._sequence, self._sequence.request.sampling
        if sampling.logit_bias:
            tokens = torch.tensor(list(sampling.logit_bias), device=scores.device)
            scores[tokens] += torch.tensor(list(sampling.logit_bias.values()), device=scores.device)
        if (penalty := sequence.settings.repetition_penalty) != 1.0:
            seen = torch.tensor(list(set(sequence.tokens)), device=scores.device)
            own = scores[seen]
            scores[seen] = torch.where(own < 0, own * penalty, own / penalty)
        if banned := self._ending_ngrams(sequence.settings.no_repeat_ngram_size):
            scores[banned] = -torch.inf
        if sequence.generated < sequence.request.min_new_tokens and sequence.settings.stop_ids:
            scores[list(sequence.settings.stop_ids)] = -torch.inf
        self._penalise(scores, sampling.presence_penalty or 0.0, sampling.frequency_penalty or 0.0)
        if (grammar := sequence.request.grammar) is not None and (allowed := grammar.allowed()) is not None:
            forbidden = ~allowed.to(scores.device)
            scores[: len(forbidden)].masked_fill_(forbidden[: len(scores)], -torch.inf)
            scores[len(forbidden) :] = -torch.inf
        return scores

    def _penalise(self, scores: torch.Tensor, presence: float, frequency: float) -> None:
        if self._counts and (presence or frequency):
            tokens = torch.tensor(list(self._counts), device=scores.device)
            counts = torch.tensor(list(self._counts.values()), dtype=scores.dtype, device=scores.device)
            scores[tokens] -= presence + frequency * counts

    def _ending_ngrams(self, size: int) -> list[int]:
        """Tokens that would complete a group of `size` that was there before."""
        tokens = self._sequence.tokens
        if not size or len(tokens) < size:
            return []
        begun = tokens[len(tokens) - size + 1 :]
        places = range(len(tokens) - size + 1)
        return [tokens[at + size - 1] for at in places if tokens[at : at + size - 1] == begun]
