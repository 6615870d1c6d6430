"""Benchmarks: what is to be forgotten, and what is to be kept. One folder each, chosen by its name in `benchmark.name`.

A benchmark's module has

- `Settings`, its block of params.yaml;
- `FORM`, "question" or "document": a document sample has an empty prompt, and a window of text as its response;
- `SETS`, what each of its sets is for, by name, `forget` and `retain` among them;
- `build(settings, source) -> (tables, card)`: the rows of `full` and of every set that there is, and facts for
  card.json: name, source, revision, and under `absent` why a set of `SETS` is not there.

The sets of the role "utility" lie in a folder of their own, because all of them are read wherever one is. Nothing
outside of a benchmark's folder knows their names: the card has what `SETS` says, and later stages read that.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from tif.base import tables
from tif.base.errors import UserError
from tif.base.tables import column

_SPAN = pa.struct([pa.field("start", pa.int32()), pa.field("end", pa.int32())])

SAMPLES = pa.schema(
    [
        column("sample_id", pa.string(), "key, for example forget/0007"),
        column("split", pa.string(), "name of the split, for example forget10"),
        column("group", pa.string(), "the person or document that the row is about"),
        column("prompt", pa.string(), "question"),
        column("response", pa.string(), "answer"),
        column("paraphrased_prompt", pa.string(), "the question in other words", nullable=True),
        column("paraphrased_response", pa.string(), "the answer in other words", nullable=True),
        column("perturbed_responses", pa.list_(pa.string()), "wrong answers of the same form", nullable=True),
        column("gold_spans", pa.list_(_SPAN), "characters of response that carry the fact, where known", True),
    ]
)


@dataclass(frozen=True)
class Set:
    """What a set of samples is for.

    role: what must be forgotten, what training keeps, what no model ever saw, or what must still be known. title: its
    name for readers. answers: what is scored after each question: response, paraphrase, wrong. generated: whether
    models answer its questions. measures: of `tif.metrics`, taken on it. utility: those of them that are parts of model
    utility.
    """

    role: Literal["forget", "retain", "holdout", "utility"]
    title: str
    answers: tuple[Literal["response", "paraphrase", "wrong"], ...]
    generated: bool
    measures: tuple[str, ...]
    utility: tuple[str, ...] = ()


def questions(role: Literal["forget", "retain", "utility"], title: str) -> Set:
    """A set of questions with true, paraphrased and wrong answers, measured and summed up as TOFU does.

    On utility sets TOFU takes the share of the true answer among all answers in place of its probability.
    """
    measures = ("probability", "rouge", "truth_ratio", "extraction_strength", "exact_memorization")
    parts = {"forget": (), "retain": measures[:3], "utility": ("normalized_probability", *measures[1:3])}[role]
    more = tuple(name for name in parts if name not in measures)
    return Set(role, title, ("response", "paraphrase", "wrong"), True, (*measures, *more), parts)


def unseen(title: str) -> Set:
    """A set of questions with answers that no model has seen: what a true answer's probability is by chance."""
    return Set("holdout", title, ("response",), False, ("probability",))


def place(folder: Path, name: str, role: str) -> Path:
    """Where the table of a set lies in data/benchmark."""
    return folder / ("utility" if role == "utility" else "") / f"{name}.parquet"


def describe(sets: dict[str, Set]) -> dict[str, dict]:
    """Sets as the card has them."""
    return {
        name: {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(one).items()}
        for name, one in sets.items()
    }


def read_card(folder: Path) -> tuple[dict, dict[str, Set]]:
    """card.json of data/benchmark, and its sets. Raises UserError when it is missing or damaged."""
    path = folder / "card.json"
    card = tables.read_json(path)
    try:
        sets = {
            name: Set(**{key: tuple(value) if isinstance(value, list) else value for key, value in one.items()})
            for name, one in card["sets"].items()
        }
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{path} does not say what the sets of the benchmark are; run `dvc repro download`") from None
    return card, sets


def read_set(folder: Path, name: str, role: str) -> pa.Table:
    """The samples of a set."""
    return tables.read(place(folder, name, role), SAMPLES)


def without(table: pa.Table, removed: pa.Table) -> pa.Table:
    """The samples of `table` that are not in `removed`, compared by prompt and response."""
    gone = set(zip(removed["prompt"].to_pylist(), removed["response"].to_pylist(), strict=True))
    pairs = zip(table["prompt"].to_pylist(), table["response"].to_pylist(), strict=True)
    return table.filter(pa.array([pair not in gone for pair in pairs]))
