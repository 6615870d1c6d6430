"""How well scores per token rank the unwanted tokens: every identifier's that can run here, and learned weights.

    dvc exp run -S unlearn.method=atwu
    python bench/analysis/alignment.py
    python bench/analysis/alignment.py --reference 'published gpt=forget05_words_gpt.jsonl'

Run from the root of the repository. Reads params.yaml and, of the last run, data/benchmark/, the tokens of the target
model (data/reference.parquet) and data/weights.parquet, of which the last epoch counts. The reference and the choice of
identifiers are those of identifiers.py. A word's score is that of all its tokens; see `tif.agreement.ranking` for the
numbers. One more row is the loss (NLL) of each token under the target model, which needs no identifier and no run: even
what a model knows by heart it knows less surely where the next token cannot be guessed. Rows of other benchmarks,
splits and references that the file already holds are kept.
"""

from pathlib import Path

import pandas as pd
from identifiers import annotations, arguments, prepare

from tif.agreement.ranking import Tokens, alignment
from tif.base import tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.reference import REFERENCE
from tif.unlearning import TOKEN_WEIGHTS

LEARNED = Path("data/weights.parquet")
TOKENS = Path("data/reference.parquet")


def main() -> None:
    """Align, write the table, print it and what is not in it."""
    parser = arguments(__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench/results/alignment.csv"), help="CSV file to write")
    options = parser.parse_args()
    setup = prepare(options)
    reference, found, missing = annotations(options, setup)
    if reference is None:
        raise UserError(f"the benchmark {setup.benchmark} does not know the truth; give an annotation with --reference")
    copied = frozenset().union(*(some.copied for some in found))
    answers = {key: text for key, text in setup.responses.items() if key not in copied}
    target = text_tokens(answers)
    tokens = Tokens(answers, {key: [(row["start"], row["end"]) for row in rows] for key, rows in target.items()})
    marked = by_sample([row for row in reference.rows if row["unwanted"]])
    flags = tokens.unwanted({key: [(row["start"], row["end"]) for row in marked.get(key, [])] for key in answers})
    scores = {some.name: tokens.scores(by_sample(some.rows)) for some in found}
    scores["loss of the target model"] = {key: [-row["logprob"] for row in rows] for key, rows in target.items()}
    weights = learned(tokens)
    if weights is not None:
        scores["learned weights (atwu)"] = weights
    about = {"benchmark": setup.benchmark, "split": setup.forget["split"][0].as_py(), "reference": reference.name}
    lines = [about | {"scores": name, **vars(alignment(values, flags))} for name, values in scores.items()]
    table = pd.DataFrame(lines).sort_values(["auroc", "scores"], ascending=[False, True])
    tables.write_text(options.out, with_others(options.out, table, about).to_csv(index=False, float_format="%.4g"))
    print(table.to_string(index=False, float_format="%.3f"))
    for one in missing:
        print(f"not compared: {one.identifier}: {one.reason}")
    if weights is None:
        print(f"not compared: learned weights: {LEARNED} has no rows, as unlearn.method was none that learns weights")


def by_sample(rows: list[dict]) -> dict[str, list[dict]]:
    """Rows of any table by sample."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["sample_id"], []).append(row)
    return found


def text_tokens(answers: dict[str, str]) -> dict[str, list[dict]]:
    """Rows of the reference table: the tokens of every answer that stand for text. Raises UserError."""
    rows = tables.read(TOKENS, REFERENCE).to_pylist()
    found = by_sample([row for row in rows if row["answer"] == "response" and row["start"] < row["end"]])
    for key, text in answers.items():
        if key not in found or max(row["end"] for row in found[key]) != len(text):
            raise UserError(
                f"{TOKENS} is not of the answers in data/benchmark ({key} differs); run `dvc repro reference`"
            )
    return {key: found[key] for key in answers}


def learned(tokens: Tokens) -> dict[str, list[float]] | None:
    """The weights of the last epoch, or None without any. Raises UserError for a table of other tokens."""
    rows = [row for row in tables.read(LEARNED, TOKEN_WEIGHTS).to_pylist() if row["start"] < row["end"]]
    if not rows:
        return None
    last = max(row["epoch"] for row in rows)
    found = by_sample([row for row in rows if row["epoch"] == last])
    for key, offsets in tokens.offsets.items():
        if [(row["start"], row["end"]) for row in found.get(key, [])] != offsets:
            raise UserError(f"{LEARNED} does not have the tokens of {TOKENS} ({key} differs); run `dvc repro unlearn`")
    return {key: [row["weight"] for row in found[key]] for key in tokens.offsets}


def with_others(path: Path, table: pd.DataFrame, about: dict[str, str]) -> pd.DataFrame:
    """The table with the rows of a file that are about something else, those first."""
    if not path.exists():
        return table
    old = pd.read_csv(path)
    same = (old[list(about)] == pd.Series(about)).all(axis=1)
    return pd.concat([old[~same], table])


if __name__ == "__main__":
    run(main)
