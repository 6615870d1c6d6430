"""Which samples an optimiser step takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from tif.lm.batches import Example


@dataclass(frozen=True)
class Schedule:
    """Which samples a step takes, a pure function of seed and step, so that a resumed run goes on as it would have.

    Every epoch is a new permutation of the `examples`. Every step also takes as many of the `others` as it takes of
    the examples, in a permutation that is new every time they run out.
    """

    examples: Sequence[Example]
    others: Sequence[Example]
    batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.batch)

    def samples(self, step: int) -> list[Example]:
        """The effective batch of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _permutation(len(self.examples), self.seed + epoch, 0)
        part = [self.examples[i] for i in order[place * self.batch :][: self.batch]]
        first = epoch * len(self.examples) + place * self.batch
        return part + [self._other(first + i) for i in range(len(part)) if self.others]

    def _other(self, number: int) -> Example:
        turn, place = divmod(number, len(self.others))
        return self.others[_permutation(len(self.others), self.seed, turn)[place]]


@lru_cache(maxsize=64)
def _permutation(size: int, seed: int, turn: int) -> list[int]:
    """The permutation number `turn` (0, 1, ...) of a generator."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(turn):
        torch.randperm(size, generator=generator)
    return torch.randperm(size, generator=generator).tolist()
