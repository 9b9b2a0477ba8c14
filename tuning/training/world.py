"""The processes that train together, one for each GPU, as each of them sees them, and what they say to each other.

Each has the whole model and takes its share of the rows of a step; gradients are added up, so that all make the same
step. transformers and accelerate are not told: to them each process is alone, with all rows of a step. So order,
schedule, the last short step of an epoch and what a checkpoint holds are as with one GPU, and so is what is learned.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")


class World(NamedTuple):
    """By default one process, which has nobody to talk to."""

    rank: int = 0
    """Of this process; 0 alone tells, saves and pushes."""
    size: int = 1

    def mine(self, rows: Sequence[_T]) -> Sequence[_T]:
        """The share of this process."""
        return rows[self.rank :: self.size]

    def share(self, rows: int) -> int:
        """The most that one process gets of so many."""
        return -(-rows // self.size)

    def any(self, here: bool) -> bool:  # noqa: FBT001
        """Whether it is so in some process; each has to ask."""
        return bool(self.most(int(here)))

    def most(self, here: int) -> int:
        """The largest number of all processes; each has to ask."""
        if self.size == 1:
            return here
        import torch  # noqa: PLC0415

        found = torch.tensor([here])
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)

    def told(self, words: Sequence[bool]) -> list[bool]:
        """What process 0 says; each has to listen."""
        if self.size == 1:
            return list(words)
        import torch  # noqa: PLC0415

        found = torch.tensor([int(word) for word in words])
        torch.distributed.broadcast(found, src=0)
        return [bool(word) for word in found]

    def told_of(self, here: _T) -> _T:
        """What process 0 has; each has to listen."""
        if self.size == 1:
            return here
        import torch  # noqa: PLC0415

        found = [here]
        torch.distributed.broadcast_object_list(found, src=0)
        return found[0]

    def added(self, here: Any) -> Any:
        """The sum of a tensor over all processes."""
        if self.size > 1:
            import torch  # noqa: PLC0415

            torch.distributed.all_reduce(here)
        return here

    def add_gradients(self, parameters: Iterable[Any], loss: Any) -> Any:
        """Every process gets the sum of all gradients, one copy of them at once; returns the sum of the losses."""
        if self.size == 1:
            return loss
        import torch  # noqa: PLC0415

        trained = [each for each in parameters if each.requires_grad]
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in trained]
        flat = self.added(
            torch.cat([*(each.reshape(-1) for each in gradients), loss.reshape(1).to(gradients[0].dtype)])
        )
        begin = 0
        for each in trained:
            each.grad = flat[begin : begin + each.numel()].view_as(each)
            begin += each.numel()
        return flat[-1]

    def same(self, parameters: Iterable[Any]) -> None:
        """Let all processes begin with what process 0 has."""
        if self.size > 1:
            import torch  # noqa: PLC0415

            for each in parameters:
                if each.requires_grad:
                    torch.distributed.broadcast(each.detach(), src=0)

    def gathered(self, here: Any) -> list[Any]:
        """What each process has, by rank, in process 0; nothing in the others."""
        if self.size == 1:
            return [here]
        import torch  # noqa: PLC0415

        found = [None] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(here, found, dst=0)
        return found or []
