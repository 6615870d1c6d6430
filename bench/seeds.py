"""Do the default settings hold on benchmark seeds that they were not chosen on?

For every seed, in a clone of its own: the default pipeline, the same with `identify.method=all`, and a second retain
model (scratch.seed 1), whose forget quality against the first is the ceiling that any method can expect. Last, `all`
with beta MATCHED, which ends about where the default run ends in forget probability (found on seed 0).

    python bench/seeds.py --seeds 1 2 3 4 5 --threads 1 --folder /tmp/seeds --out bench/results/seeds.csv

Utility at equal forget probability compares trajectories: the retain probability of both runs is interpolated
linearly, in log forget probability, at the forget probability where the default run ends. `all` with the default beta
passes it in its first epochs, while the learning rate is high; the run with beta MATCHED compares ends with ends.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from runs import clone, repro

from tif.metrics import all as metrics

MATCHED = 1.0


def truth_ratios(folder: Path, model: str) -> np.ndarray:
    """Truth ratios of the forget set under one evaluated model."""
    table = pd.read_parquet(folder / f"data/evaluation/{model}.parquet")
    wanted = (table["measure"] == "truth_ratio") & table["sample_id"].str.startswith("forget/")
    return table[wanted].sort_values("sample_id")["value"].to_numpy()


def retain_at(trajectory: pd.DataFrame, forget_probability: float) -> float:
    """Retain probability when the forget probability first falls to a value (linear in its logarithm)."""
    level = np.log(trajectory["forget_probability"].to_numpy())
    retain = trajectory["retain_probability"].to_numpy()
    after = int(np.argmax(level <= np.log(forget_probability)))
    if level[after] > np.log(forget_probability):
        return float("nan")
    if after == 0:
        return float(retain[0])
    share = (level[after - 1] - np.log(forget_probability)) / (level[after - 1] - level[after])
    return float(retain[after - 1] + share * (retain[after] - retain[after - 1]))


def ends(folder: Path) -> tuple[dict[str, float], pd.DataFrame]:
    """The unlearned model's scores (fq: forget quality, p-value) and the run's trajectory."""
    result = json.loads((folder / "metrics/metrics.json").read_text())["unlearned"]
    scores = {
        "fq": result["forget_quality"]["pvalue"],
        "utility": result["model_utility"],
        "forget_probability": result["forget"]["probability"],
        "retain_probability": result["utility"]["retain"]["probability"],
    }
    return scores, pd.read_csv(folder / "metrics/plots/trajectory.csv")


def study(folder: Path, seed: int, threads: int) -> dict:
    """One seed: its row of the table."""
    base = {"fictitious.seed": seed, "compute.threads": threads}
    repro(folder, base)
    targeted, trajectory = ends(folder)
    target = json.loads((folder / "metrics/metrics.json").read_text())["target"]
    first = truth_ratios(folder, "retain")

    repro(folder, base | {"identify.method": "all"})
    everything, path = ends(folder)
    repro(folder, base | {"identify.method": "all", "tpo.beta": MATCHED})
    matched, _ = ends(folder)

    repro(folder, base | {"scratch.seed": 1}, ("evaluate@retain",))
    ceiling = metrics.forget_quality(truth_ratios(folder, "retain"), first)

    end = trajectory["forget_probability"].iloc[-1]
    kept, kept_by_all = trajectory["retain_probability"].iloc[-1], retain_at(path, end)
    return {
        "seed": seed,
        "target_log10_fq": target["forget_quality"]["log10_pvalue"],
        "target_utility": target["model_utility"],
        "ceiling_fq": ceiling.pvalue,
        **targeted,
        "utility_ratio": targeted["utility"] / target["model_utility"],
        "retain_on_trajectory": kept,
        "all_retain_at_equal_forget": kept_by_all,
        "difference": kept - kept_by_all,
        **{f"all_{name}": value for name, value in everything.items()},
        **{f"matched_{name}": value for name, value in matched.items()},
    }


def main() -> None:
    """Run the study and write the table after every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True, help="where the clones go")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    options = parser.parse_args()
    rows = []
    options.folder.mkdir(parents=True, exist_ok=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        rows.append(study(clone(options.folder / f"seed{seed}"), seed, options.threads))
        table = pd.DataFrame(rows)
        table.to_csv(options.out, index=False, float_format="%.4g")
        print(table.tail(1).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
