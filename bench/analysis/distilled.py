"""How well `distilled` finds what an annotator marks, on people that the annotator did not see.

    python bench/analysis/distilled.py --tofu FOLDER    # fitted on the published gpt spans of forget05
    python bench/analysis/distilled.py                  # fitted on the gold spans of five invented people
    python bench/analysis/distilled.py --annotate PATH  # writes those of five people of the retain set, to fit on

FOLDER holds TOFU's JSON-lines files and the annotations published with arXiv 2506.03142. The first tests on the 200
rows of forget10 that are not in forget05, the second on the other people of forget sets of 10 to 20. Prints a table of
F1 on letters and digits with 95 % bootstrap intervals over people, and the paired difference to `frequency`.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from tif.agreement.spans import agreement, agreement_difference
from tif.base import params, tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.benchmarks import SAMPLES, fictitious, tofu
from tif.identify import Resources, distilled, file, frequency, gold
from tif.words import SPANS

WORLDS = [{"seed": seed, "people": people, "forget_share": 0.4} for people, seed in ((25, 0), (50, 0), (50, 1))]
RETAIN = Path("data/benchmark/retain.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tofu", type=Path, metavar="FOLDER")
    parser.add_argument("--annotate", type=Path, metavar="PATH")
    options = parser.parse_args()
    if options.annotate:
        retain = tables.read(RETAIN, SAMPLES)
        tables.write(options.annotate, _of_people(gold_rows(retain), retain, first_people(retain, 5)), SPANS)
        return
    print("| fitted on | tested on | rows | identifier | F1 | 95 % | above frequency | 95 % |")
    print("|---|---|---|---|---|---|---|---|")
    for line in on_tofu(options.tofu) if options.tofu else on_fictitious():
        print(line, flush=True)


def on_tofu(folder: Path) -> Iterable[str]:
    """The lines for forget05 to forget10."""
    settings = params.read("tofu", tofu.Settings).model_copy(update={"forget": "forget10"})
    forget, retain = _tables(tofu.build(settings, folder)[0])
    known = {
        row["prompt"]
        for row in _tables(tofu.build(settings.model_copy(update={"forget": "forget05"}), folder)[0])[0].to_pylist()
    }
    tested = {row["sample_id"]: row["group"] for row in forget.to_pylist() if row["prompt"] not in known}
    published = {
        name: file.identify(
            forget,
            retain,
            file.Settings(unwanted=field, punctuation=False),
            Resources(folder / f"forget10_words_{name}.jsonl"),
        ).rows
        for name, field in (("gpt", "target_words"), ("bert", "not_common_words"))
    }
    found = {"published bert": published["bert"], **fitted(forget, retain, folder / "forget05_words_gpt.jsonl")}
    return lines("gpt spans of forget05", "forget10 without forget05", found, published["gpt"], tested)


def on_fictitious() -> Iterable[str]:
    """The lines for the worlds of WORLDS, fitted on the first five people of their forget sets."""
    for world in WORLDS:
        settings = params.read("fictitious", fictitious.Settings).model_copy(update=world)
        forget, retain = _tables(fictitious.build(settings, None)[0])
        true, known = gold_rows(forget), first_people(forget, 5)
        tested = {row["sample_id"]: row["group"] for row in forget.to_pylist() if row["group"] not in known}
        with tempfile.TemporaryDirectory() as folder:
            annotation = Path(folder) / "gold.parquet"
            tables.write(annotation, _of_people(true, forget, known), SPANS)
            found = fitted(forget, retain, annotation)
        where = f"the other {len(set(tested.values()))} of {settings.people} people, seed {settings.seed}"
        yield from lines("gold spans of five people", where, found, true, tested)


def fitted(forget: pa.Table, retain: pa.Table, annotation: Path) -> dict[str, list[dict]]:
    """Spans of `frequency` and `distilled` with the settings of params.yaml."""
    block = params.read("distilled", distilled.Settings).model_copy(update={"annotation": str(annotation)})
    return {
        "frequency": frequency.identify(forget, retain, params.read("frequency", frequency.Settings), Resources()).rows,
        "distilled": distilled.identify(forget, retain, block, Resources()).rows,
    }


def lines(fitted_on: str, where: str, found: dict, true: list[dict], tested: dict[str, str]) -> Iterable[str]:
    """One line of the table an identifier; `tested` maps the sample_id of every tested row to its person."""
    cut = {name: [row for row in rows if row["sample_id"] in tested] for name, rows in found.items()}
    reference = [row for row in true if row["sample_id"] in tested]
    for name, rows in cut.items():
        ours = agreement(rows, reference, tested).characters.f1
        above = agreement_difference(rows, cut["frequency"], reference, tested).characters.f1
        more = ["", ""] if name == "frequency" else [f"{above.value:+.3f}", f"{above.low:+.3f} to {above.high:+.3f}"]
        cells = [fitted_on, where, str(len(tested)), name, f"{ours.value:.3f}", f"{ours.low:.3f} to {ours.high:.3f}"]
        yield f"| {' | '.join(cells + more)} |"


def gold_rows(samples: pa.Table) -> list[dict]:
    """The gold spans as rows of `tif.words.SPANS`."""
    return gold.identify(samples, samples, gold.Settings(), Resources()).rows


def first_people(samples: pa.Table, count: int) -> list[str]:
    """The first `count` groups. Raises UserError when there are no more than that."""
    groups = list(dict.fromkeys(samples["group"].to_pylist()))
    if len(groups) <= count:
        raise UserError(f"the set is about {len(groups)} people; more than {count} are needed")
    return groups[:count]


def _of_people(rows: list[dict], samples: pa.Table, people: list[str]) -> list[dict]:
    ids = {row["sample_id"] for row in samples.to_pylist() if row["group"] in people}
    return [row for row in rows if row["sample_id"] in ids]


def _tables(built: dict[str, list[dict]]) -> tuple[pa.Table, pa.Table]:
    return tuple(pa.Table.from_pylist(built[name], schema=SAMPLES) for name in ("forget", "retain"))


if __name__ == "__main__":
    run(main)
