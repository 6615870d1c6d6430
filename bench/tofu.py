"""The README's table on real TOFU: a model trained from scratch, forget05 and forget10, two identifiers.

    python bench/tofu.py --source ../shared/tofu --folder /tmp/tofu --out bench/results/tofu.csv

`--source` is a local folder with the benchmark's JSON-lines files and forget*_words_gpt.jsonl, the annotation
published with arXiv 2506.03142.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
from runs import Cost, clone, repro

SETTINGS = {
    "benchmark.name": "tofu",
    "scratch.vocabulary": 4096,
    "scratch.width": 160,
    "scratch.epochs": 10,
    "evaluate.new_tokens": 100,
}


def row(folder: Path, split: str, identifier: str, model: str, cost: Cost) -> dict:
    """One line of the table. cost: of training and evaluating this model (unlearned: with identify and report)."""
    result = json.loads((folder / "metrics/metrics.json").read_text())[model]
    return {
        "forget_set": split,
        "model": model,
        "identifier": identifier,
        "forget_quality_log10": result["forget_quality"]["log10_pvalue"],
        "model_utility": result["model_utility"],
        "forget_probability": result["forget"]["probability"],
        "retain_probability": result["utility"]["retain"]["probability"],
        "forget_truth_ratio": result["forget"]["truth_ratio"],
        "minutes": cost.seconds / 60,
        "peak_mib": cost.memory,
    }


def main() -> None:
    """Run forget05 and forget10 with `frequency` and with the published annotation; write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--splits", nargs="+", default=["forget05", "forget10"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True, help="where the clone goes")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    source = options.source.resolve()
    folder = clone(options.folder / "tofu")
    base = SETTINGS | {"benchmark.source": str(source), "compute.threads": options.threads}
    rows = []
    for split in options.splits:
        annotation = source / f"{split}_words_gpt.jsonl"
        base |= {"tofu.forget": split, "identify.source": str(annotation)}
        settings = base | {"identify.method": "frequency"}
        costs = {
            model: repro(folder, settings, (f"finetune@{model}", f"evaluate@{model}")) for model in ("target", "retain")
        }
        repro(folder, settings, ("reference",))
        for identifier in ("frequency", "file"):
            cost = repro(folder, base | {"identify.method": identifier})
            if identifier == "frequency":
                rows.extend(row(folder, split, "", model, costs[model]) for model in costs)
            rows.append(row(folder, split, identifier, "unlearned", cost))
            pd.DataFrame(rows).to_csv(options.out, index=False, float_format="%.4g")
            print(pd.DataFrame(rows).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
