"""Forget quality and its price after every epoch of unlearning, as `measure` has written them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from tif.base.errors import UserError

LEVEL = 0.05  # of the test behind forget quality, as papers on TOFU read it


@dataclass(frozen=True)
class Epoch:
    """An epoch of metrics/plots/trajectory.csv: log10 of forget quality, and mean probabilities of answers."""

    epoch: int
    forget_quality_log10: float
    forget_probability: float
    retain_probability: float


def read_epochs(path: Path) -> list[Epoch]:
    """The epochs in order. Raises UserError when the file is missing or damaged, or has no epoch."""
    again = "run `dvc repro -f measure`"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        epochs = [
            Epoch(int(row["epoch"]), *(float(row[name]) for name in list(Epoch.__dataclass_fields__)[1:]))
            for row in rows
        ]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro` makes it") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged; {again}") from None
    if not epochs:
        raise UserError(f"{path} holds no rows; {again}")
    return epochs


def best_epoch(epochs: list[Epoch]) -> Epoch:
    """The epoch of unlearning with the highest forget quality, the earliest of equals."""
    trained = [epoch for epoch in epochs if epoch.epoch > 0] or epochs
    return max(trained, key=lambda epoch: epoch.forget_quality_log10)
