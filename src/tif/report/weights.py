"""The token weights that a method has learned: how they come to mark unwanted tokens, and what they mark at the end."""

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from tif.agreement.ranking import Alignment, Tokens, alignment
from tif.base import tables
from tif.base.errors import UserError
from tif.report.results import same_samples
from tif.unlearning import TOKEN_WEIGHTS
from tif.words import Span, mark

_AGAIN = "run `dvc repro -f unlearn`"


@dataclass(frozen=True)
class MeanWeight:
    """Mean weight of the unwanted tokens and of all others after an epoch; None where there are none."""

    epoch: int
    unwanted: float | None
    general: float | None


@dataclass(frozen=True)
class Shade:
    """A run of text whose characters have one weight, the highest among their tokens'; None: no token has the text."""

    text: str
    weight: float | None
    unwanted: bool


@dataclass(frozen=True)
class ShadedAnswer:
    """One answer, shaded by the weights after the last epoch."""

    sample_id: str
    question: str
    shades: list[Shade]


@dataclass(frozen=True)
class Weights:
    """What the report says of learned weights.

    reference: what tells which tokens are unwanted, "gold spans" or the identifier's name; known: whether that is the
    truth. aligned: (name, alignment with the reference) of the weights after the last epoch and, where the truth is
    known, of the identifier's scores.
    """

    reference: str
    known: bool
    epochs: list[MeanWeight]
    aligned: list[tuple[str, Alignment]]
    answers: list[ShadedAnswer]


def read_weights(
    path: Path, forget: list[dict], spans: dict[str, list[dict]], identifier: str, count: int
) -> Weights | None:
    """The weights table, or None where it has no rows because the method learns no weights.

    forget: the forget table. spans: the spans table by sample. identifier: what made it. count: answers to show, at
    even distances. End of sequence stands for no text and is left out.
    Raises UserError for weights of other samples or tokens, or out of range.
    """
    rows = [row for row in tables.read(path, TOKEN_WEIGHTS).to_pylist() if row["start"] != row["end"]]
    if not rows:
        return None
    answers = {row["sample_id"]: row["response"] for row in forget}
    epochs = _epochs(path, rows, answers)
    offsets = {key: [(row["start"], row["end"]) for row in found] for key, found in epochs[0].items()}
    tokens = Tokens(answers, offsets)
    known = all(row["gold_spans"] is not None for row in forget)
    unwanted = _gold(forget) if known else _unwanted(spans)
    flags = tokens.unwanted(unwanted)
    last = epochs[-1]
    aligned = [("learned weights", alignment(_weights(last), flags))]
    if known:
        aligned.append((f"scores of {identifier}", alignment(tokens.scores(spans), flags)))
    shown = [forget[k * len(forget) // count] for k in range(count)] if count < len(forget) else forget
    return Weights(
        "gold spans" if known else identifier,
        known,
        [_mean_weight(found, flags) for found in epochs],
        aligned,
        [_shaded(row, last[row["sample_id"]], unwanted[row["sample_id"]]) for row in shown],
    )


def _epochs(path: Path, rows: list[dict], answers: dict[str, str]) -> list[dict[str, list[dict]]]:
    """The rows by sample, for every epoch in order. Raises UserError unless all have the same tokens of `answers`."""
    found: dict[int, dict[str, list[dict]]] = {}
    for row in sorted(rows, key=lambda row: (row["epoch"], row["sample_id"], row["position"])):
        where = f"{path}: {row['sample_id']}, epoch {row['epoch']}"
        if not 0 <= row["weight"] <= 1:
            raise UserError(f"{where}: weight {row['weight']} is not in [0, 1]; {_AGAIN}")
        if not 0 <= row["start"] < row["end"] <= len(answers.get(row["sample_id"], "")):
            raise UserError(f"{where}: [{row['start']}, {row['end']}) is no part of a forget answer; {_AGAIN}")
        found.setdefault(row["epoch"], {}).setdefault(row["sample_id"], []).append(row)
    first = found[min(found)]
    for epoch, samples in found.items():
        same_samples(samples, answers, f"{path}: epoch {epoch}", _AGAIN)
        for key, part in samples.items():
            if [_token(row) for row in part] != [_token(row) for row in first[key]]:
                raise UserError(f"{path}: {key} has other tokens at epoch {epoch} than at first; {_AGAIN}")
    return [{key: found[epoch][key] for key in answers} for epoch in sorted(found)]


def _token(row: dict) -> tuple[int, int, int]:
    return row["position"], row["start"], row["end"]


def _gold(forget: list[dict]) -> dict[str, list[Span]]:
    return {row["sample_id"]: [(span["start"], span["end"]) for span in row["gold_spans"]] for row in forget}


def _unwanted(spans: dict[str, list[dict]]) -> dict[str, list[Span]]:
    return {key: [(row["start"], row["end"]) for row in rows if row["unwanted"]] for key, rows in spans.items()}


def _weights(samples: dict[str, list[dict]]) -> dict[str, list[float]]:
    return {key: [row["weight"] for row in rows] for key, rows in samples.items()}


def _mean_weight(samples: dict[str, list[dict]], flags: dict[str, list[bool]]) -> MeanWeight:
    weights = np.concatenate([[row["weight"] for row in samples[key]] for key in flags])
    unwanted = np.concatenate(list(flags.values())).astype(bool)
    means = [float(part.mean()) if len(part) else None for part in (weights[unwanted], weights[~unwanted])]
    return MeanWeight(next(iter(samples.values()))[0]["epoch"], *means)


def _shaded(row: dict, tokens: list[dict], unwanted: list[Span]) -> ShadedAnswer:
    """An answer cut where the weight changes, or what is unwanted. Joined again, the shades are the answer."""
    text = row["response"]
    weights: list[float | None] = [None] * len(text)
    for token in tokens:
        for place in range(token["start"], token["end"]):
            weights[place] = max(weights[place] or 0.0, round(token["weight"], 2))
    runs = groupby(zip(text, weights, mark(text, unwanted), strict=True), key=lambda item: item[1:])
    shades = [Shade("".join(item[0] for item in part), *key) for key, part in runs]
    return ShadedAnswer(row["sample_id"], row["prompt"], shades)
