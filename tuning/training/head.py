"""The loss without the logits: the head is applied to supervised positions only, a chunk at a time.

With a vocabulary of 200,000 the logits of 1,000 tokens and their gradient take two gigabytes. Here the gradient with
respect to what goes into the head is made together with the loss, so that no chunk's logits outlive it. It is the same
loss and the same gradient; the head itself is frozen.
"""

from typing import Any

import torch

from tuning.data.masks import IGNORED
from tuning.training import model
from tuning.training.batches import WIDTH

PLAIN = frozenset(
    {"falcon", "gemma", "llama", "mistral", "olmo2", "phi", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3"}
)
"""model_types whose logits are one linear layer of the last hidden states, and whose loss is of them alone, as read in
the pinned transformers. gemma2, gemma3 (soft caps) and granite (a scale) are not."""
ROWS = 256
"""Positions of a chunk; `presets.memory` reckons with it."""
_LIFT = 1024.0
"""Small probabilities have few digits in float16: they are multiplied by this on their way through it."""


def why_not(adapted: Any, *, label_smoothing: float = 0.0) -> str:
    """What keeps this model from the loss made here; empty when nothing does."""
    kind, head = adapted.config.model_type, model.causal(adapted).get_output_embeddings()
    if kind not in PLAIN:
        return f"the head of {kind} is not known to be one plain linear layer"
    if type(head) is not torch.nn.Linear:
        return f"the head is a {type(head).__name__}"
    if head.weight.requires_grad:
        return "the head is trained"
    if label_smoothing:
        return "label_smoothing_factor wants all logits"
    return ""


class Watched:
    """The last hidden states of each forward pass, as the decoder below the head returns them."""

    def __init__(self, adapted: Any) -> None:
        below = model.causal(adapted)
        self._head = below.get_output_embeddings()
        self._hidden: Any = None
        below.base_model.register_forward_hook(self._keep)

    def _keep(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._hidden = output[0]

    def loss(self, adapted: Any, inputs: dict[str, Any]) -> Any:
        """The sum over all that is supervised in `inputs`."""
        labels = inputs["labels"]
        rest = {name: value for name, value in inputs.items() if name != "labels"}
        # the whole model is called, since autocast and gradient exchange hang on it; its head on one position
        try:
            adapted(**rest, logits_to_keep=torch.zeros(1, dtype=torch.long, device=labels.device))
            hidden = self._hidden
        finally:
            self._hidden = None  # all activations hang on it, which the next try has no room for
        wanted = labels[:, 1:] != IGNORED
        return summed(hidden[:, :-1][wanted], self._head.weight, self._head.bias, labels[:, 1:][wanted])


def summed(hidden: Any, weight: Any, bias: Any, targets: Any) -> Any:
    """The sum of the cross entropies of `hidden @ weight.T + bias` with `targets`; weight and bias get no gradient."""
    bias = None if bias is None else bias.detach()
    return _Loss.apply(hidden, weight.detach(), bias, targets)  # type: ignore[no-untyped-call]


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, hidden: Any, weight: Any, bias: Any, targets: Any) -> Any:
        inner = hidden.to(weight.dtype)
        learns = context.needs_input_grad[0]
        gradient = torch.empty_like(inner) if learns else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(inner), ROWS):
            here, wanted = inner[start : start + ROWS], targets[start : start + ROWS, None]
            logits = torch.nn.functional.linear(_filled(here), weight, bias)[: len(here)].float()
            norm = logits.logsumexp(-1, keepdim=True)
            total += (norm - logits.gather(1, wanted)).sum()
            if gradient is not None:
                chances = logits.sub_(norm).exp_()
                chances.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=chances.dtype))
                gradient[start : start + ROWS] = _down(chances, weight)
        context.save_for_backward(gradient)
        context.kind = hidden.dtype
        return total

    @staticmethod
    def backward(context: Any, above: Any) -> Any:
        (gradient,) = context.saved_tensors
        return (gradient * above).to(context.kind), None, None, None


def _down(chances: Any, weight: Any) -> Any:
    """The gradient of the logits through the head, in its number format."""
    if weight.dtype != torch.float16:
        return (_filled(chances.to(weight.dtype)) @ weight)[: len(chances)]
    return (_filled(chances.mul_(_LIFT).to(weight.dtype)) @ weight)[: len(chances)].div_(_LIFT)


def _filled(rows: Any) -> Any:
    """With rows of zeros up to a number that comes again and again, see `batches.WIDTH`."""
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % WIDTH))
