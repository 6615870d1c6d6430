"""Which epoch's weights unlearning keeps: the last, or the best by a rule that uses nothing of the retain model."""

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from tif.scores.truth_ratio import aggregate_truth_ratio_forget
from tif.training import sharding


@dataclass(frozen=True)
class Standing:
    """How an epoch does; all values from 0 to 1.

    score: harmonic mean of two, 0 where either is 0: forget_truth_ratio, mean min(TR, 1/TR) over the forget set (1
    where right and wrong answers are equally likely), and retain_probability as a share of the target model's, at
    most 1.
    forget_probability, retain_probability: mean probability of the answers.
    """

    epoch: int
    score: float
    forget_truth_ratio: float
    forget_probability: float
    retain_probability: float

    def rounded(self) -> dict[str, float]:
        """To six digits."""
        return {name: value if name == "epoch" else float(f"{value:.6g}") for name, value in asdict(self).items()}


def standings(rows: Sequence[dict], forget: Collection[str]) -> list[Standing]:
    """One for every epoch of the trajectory's rows, in order, epoch 0 (the target model) among them.

    forget: sample_id of the forget samples; all others count as retain samples.
    """
    values: dict[tuple[int, str, bool], list[float]] = {}
    for row in rows:
        values.setdefault((row["epoch"], row["measure"], row["sample_id"] in forget), []).append(row["value"])
    epochs = sorted({epoch for epoch, *_ in values})
    target = statistics.fmean(values[epochs[0], "probability", False])
    made = []
    for epoch in epochs:
        truth_ratio = aggregate_truth_ratio_forget(values[epoch, "truth_ratio", True])
        retain = statistics.fmean(values[epoch, "probability", False])
        share = min(1.0, retain / target) if target else 1.0
        score = statistics.harmonic_mean([truth_ratio, share])
        forgotten = statistics.fmean(values[epoch, "probability", True])
        made.append(Standing(epoch, score, truth_ratio, forgotten, retain))
    return made


def best(found: Sequence[Standing]) -> Standing:
    """The one with the greatest score after epoch 0; of equal ones the earliest."""
    return max(found[1:], key=lambda standing: standing.score)


class Best:
    """A copy of the weights of the best epoch so far, in main memory. `kept` is empty where none is wanted."""

    def __init__(
        self,
        model: nn.Module,
        rows: Sequence[dict],
        forget: Collection[str],
        wanted: bool,
        agree: Callable[[bool], int] = int,
    ) -> None:
        """model: its trainable weights are copied. rows: of the trajectory, which grow with every epoch.

        agree: makes one decision of those of several processes that each copy their part of the weights.
        """
        self.model = model
        self.rows = rows
        self.forget = forget
        self.wanted = wanted
        self.agree = agree
        self.kept: dict[str, torch.Tensor] = {}

    def after_epoch(self, epoch: int) -> None:
        """Copy the weights when this epoch is the best so far; call it when its rows are there."""
        if self.wanted and self.agree(best(standings(self.rows, self.forget)).epoch == epoch):
            self.kept = {name: weight.to("cpu", copy=True) for name, weight in self._weights().items()}

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the model the weights of the best epoch."""
        for name, weight in self._weights().items():
            weight.copy_(self.kept[name])

    def state_dict(self) -> dict:
        """The copied weights."""
        return {"weights": self.kept}

    def load_state_dict(self, state: dict) -> None:
        """Take over saved weights. Raises ValueError when they are those of another model."""
        shapes = {name: weight.shape for name, weight in self._weights().items()}
        if self.wanted:
            if state["weights"] and {name: weight.shape for name, weight in state["weights"].items()} != shapes:
                raise ValueError("the weights of the best epoch belong to another model")
            self.kept = state["weights"]

    def _weights(self) -> dict[str, torch.Tensor]:
        """What is trained; of sharded weights the part that lies in this process."""
        found = {name: weight.detach() for name, weight in self.model.named_parameters() if weight.requires_grad}
        return {name: sharding.local(weight) for name, weight in found.items()}
