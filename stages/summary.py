"""What `make repro` ends with, in five lines: `python stages/summary.py SECONDS`. No stage of the pipeline."""

import sys
from pathlib import Path

from tif.base import tables
from tif.base.stage import run
from tif.benchmarks import SAMPLES, read_card

BENCHMARK, METRICS = Path("data/benchmark"), Path("metrics")


def main() -> None:
    """Print what was forgotten, what was kept, compared with what, where the report is, and how long it took."""
    details, (card, _) = tables.read_json(METRICS / "details.json"), read_card(BENCHMARK)
    forget = tables.read(BENCHMARK / "forget.parquet", SAMPLES)
    print("\n".join(lines(details, card, forget["split"][0].as_py(), set(forget["group"].to_pylist()), sys.argv[1:])))


def lines(details: dict, card: dict, split: str, groups: set[str], seconds: list[str]) -> list[str]:
    """The lines; a number that this benchmark does not have is left out."""
    target, retain, unlearned = (details[model] for model in ("target", "retain", "unlearned"))
    what = f"{card['name']} {split}, {card['counts']['forget']} answers about {len(groups)} people or documents"
    forgotten = [
        f"{name} {number(target['forget'][key])} -> {number(unlearned['forget'][key])}"
        for name, key in (("probability", "probability"), ("ROUGE-L recall", "rouge"))
        if key in target["forget"]
    ]
    kept = []
    if "model_utility" in target:
        share = unlearned["model_utility"] / target["model_utility"] if target["model_utility"] else 0.0
        both = f"{number(target['model_utility'])} -> {number(unlearned['model_utility'])}"
        kept.append(f"model utility {both} ({share:.0%})")
    if "probability" in target.get("utility", {}).get("retain", {}):
        before, after = (one["utility"]["retain"]["probability"] for one in (target, unlearned))
        kept.append(f"probability of retain answers {number(before)} -> {number(after)}")
    compared = [f"probability {number(retain['forget']['probability'])}"] if "probability" in retain["forget"] else []
    if "forget_quality" in unlearned:
        before, after = (one["forget_quality"]["pvalue"] for one in (target, unlearned))
        compared.append(f"forget quality p {before:.2g} -> {after:.2g}")
    return [
        f"forgotten:     {', '.join([what, *forgotten])}",
        f"kept:          {', '.join(kept)}",
        f"compared with: {', '.join(['a retain model that never saw these answers', *compared])}",
        f"report:        {METRICS / 'report.html'} (numbers: {METRICS / 'metrics.json'}, {METRICS / 'details.json'})",
        f"time:          {duration(float(seconds[0])) if seconds else 'not measured'}",
    ]


def number(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """Such as 2 min 5 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


if __name__ == "__main__":
    run(main)
