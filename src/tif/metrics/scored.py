"""What the measures of one model are taken of: its tokens and texts, sample by sample, for every set."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import Set
from tif.evaluation import TEXTS, TOKENS
from tif.scores.truth_ratio import Losses, losses_of, mean_loss


@dataclass(frozen=True)
class Scored:
    """What one model makes of the n samples of a set, in the order of the set's table.

    responses: the true answers. losses: of all answers that were scored. hits: n bool vectors, whether each token of
    the true answer, end of sequence included, is the model's first choice. texts: its own answers, or None.
    """

    sample_ids: list[str]
    responses: list[str]
    losses: Losses
    hits: list[np.ndarray]
    texts: list[str] | None


def read_scored(folder: Path, sets: dict[str, tuple[Set, pa.Table]]) -> dict[str, Scored]:
    """The tokens and texts of one model (data/evaluation/MODEL) by set.

    sets: what a set is for, and its samples, by name. Raises UserError where a table is missing, holds a score that is
    not finite, or does not belong to these samples.
    """
    path = folder / "tokens.parquet"
    tokens = tables.read(path, TOKENS)
    texts = tables.read(folder / "texts.parquet", TEXTS)
    said = dict(zip(texts["sample_id"].to_pylist(), texts["text"].to_pylist(), strict=True))
    again = f"run `dvc repro -f evaluate@{folder.name}`"
    if len(said) < len(texts):
        raise UserError(f"{folder / 'texts.parquet'}: a sample has two rows; {again}")
    logprob, hit = tokens["logprob"].to_numpy(), tokens["hit"].to_numpy()
    if not np.isfinite(logprob).all():
        raise UserError(f"{path}: a log-probability is not finite; {again}")
    samples, answers, bounds = _answers(tokens)
    if len(set(zip(samples, answers, strict=True))) < len(samples):
        raise UserError(f"{path}: an answer stands in two places; {again}")
    loss = mean_loss(logprob, bounds) if len(tokens) else np.empty(0)
    of_set: dict[str, list[int]] = {name: [] for name in sets}
    for index, sample_id in enumerate(samples):
        of_set.setdefault(sample_id.split("/")[0], []).append(index)
    found = {}
    for name, (about, table) in sets.items():
        chosen = of_set[name]
        responses = dict(zip(table["sample_id"].to_pylist(), table["response"].to_pylist(), strict=True))
        there = {samples[i] for i in chosen}
        if not there:
            raise UserError(f"{path}: no row of the {name} set; {again}")
        same_samples(there - responses.keys(), [], f"{path}: the {name} set", "its table", again)
        order = {sample_id: number for number, sample_id in enumerate(key for key in responses if key in there)}
        if about.role == "forget":
            same_samples(order, responses, f"{path}: the {name} set", "the forget table", again)
        if about.generated:
            where = f"{folder / 'texts.parquet'}: the {name} set"
            same_samples([key for key in said if key.split("/")[0] == name], order, where, str(path), again)
        try:
            losses = losses_of(
                np.array([order[samples[i]] for i in chosen]), [answers[i] for i in chosen], loss[chosen]
            )
        except ValueError as error:
            raise UserError(f"{path}: the {name} set: {error}; {again}") from None
        hits = {samples[i]: hit[bounds[i] : bounds[i + 1]] for i in chosen if answers[i] == "response"}
        found[name] = Scored(
            sample_ids=list(order),
            responses=[responses[key] for key in order],
            losses=losses,
            hits=[hits[key] for key in order],
            texts=[said[key] for key in order] if about.generated else None,
        )
    return found


def _answers(tokens: pa.Table) -> tuple[list[str], list[str], np.ndarray]:
    """sample_id and name of each of the E answers, and int64 [E + 1], where its tokens begin and end."""
    keys = [tokens[name].combine_chunks() for name in ("sample_id", "answer")]
    keys = [key.dictionary_encode() if not isinstance(key, pa.DictionaryArray) else key for key in keys]
    codes = [key.indices.to_numpy(zero_copy_only=False) for key in keys]
    if not len(tokens):
        return [], [], np.zeros(1, dtype=np.int64)
    change = np.flatnonzero((np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)) + 1
    first = np.concatenate([[0], change])
    names = [key.dictionary.to_pylist() for key in keys]
    samples, answers = ([name[code] for code in some[first]] for name, some in zip(names, codes, strict=True))
    return samples, answers, np.concatenate([first, [len(tokens)]]).astype(np.int64)


def same_samples(found: Iterable[str], expected: Iterable[str], where: str, other: str, remedy: str) -> None:
    """Raise UserError naming the first sample that is in one of `found` and `expected` alone."""
    odd = sorted(set(found) ^ set(expected))
    if odd:
        verb = "lacks" if odd[0] in set(expected) else "has an unknown"
        raise UserError(f"{where} {verb} sample {odd[0]} ({len(odd)} differ from {other}); {remedy}")
