"""Does identification hold in other languages, and where people share facts? And what does unlearning make of it?

For every world - each language of `fictitious`, and English at each entanglement - in a clone of its own: the default
pipeline with the true spans (`gold`) and with those of `frequency`. A row says how well the spans agree with the true
ones, and how the target model and the unlearned one do.

    python bench/robustness.py --threads 2 --folder /tmp/robustness --out bench/results/robustness.csv

Rows that --out holds already are not computed again, so an interrupted study goes on where it was; give another --out
for other settings.
"""

import argparse
import io
import json
from itertools import product
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML
from runs import clone, repro

from tif.base.tables import write_text

WORLDS = (("en", 0.0), ("zh", 0.0), ("ar", 0.0), ("code", 0.0), ("en", 0.5), ("en", 1.0))
IDENTIFIERS = ("gold", "frequency")
KEY = ["language", "entanglement", "seed", "settings", "identifier"]
AGREEMENT = ["f1", "precision", "recall"]
RESULTS = [
    f"{model}_{measure}"
    for model in ("target", "unlearned")
    for measure in ("log10_fq", "utility", "forget_p", "retain_p")
]
FALL = 0.15  # of the F1 of English without entanglement; a larger one is pointed out


def result(folder: Path) -> dict[str, float]:
    """What a finished run says: agreement of the spans with the true ones, and the scores of both models."""
    metrics, spans = (json.loads((folder / f"metrics/{name}.json").read_text()) for name in ("metrics", "identify"))
    row = {name: spans["agreement"][name] for name in AGREEMENT}
    for model in ("target", "unlearned"):
        scores = metrics[model]
        row[f"{model}_log10_fq"] = scores["forget_quality"]["log10_pvalue"]
        row[f"{model}_utility"] = scores["model_utility"]
        row[f"{model}_forget_p"] = scores["forget"]["probability"]
        row[f"{model}_retain_p"] = scores["utility"]["retain"]["probability"]
    return row


def read_done(out: Path) -> list[dict]:
    """The rows that an earlier run has written. Exits when the file is not a table of this study."""
    if not out.exists():
        return []
    table = pd.read_csv(out, keep_default_na=False)
    if list(table.columns) != KEY + AGREEMENT + RESULTS:
        raise SystemExit(f"error: {out} is not a table of this study; delete it or give another --out")
    return table.to_dict("records")


def falls(rows: list[dict]) -> list[str]:
    """A line for every row that is more than FALL below English without entanglement, in F1 or unlearned utility."""
    base = {
        (row["seed"], row["settings"], row["identifier"]): row
        for row in rows
        if (row["language"], row["entanglement"]) == ("en", 0)
    }
    lines = []
    for row in rows:
        best = base.get((row["seed"], row["settings"], row["identifier"]), row)
        for shown in (AGREEMENT, ["unlearned_utility", "target_utility"]):
            if best[shown[0]] - row[shown[0]] > FALL:
                changes = ", ".join(f"{name} {best[name]:.3f} -> {row[name]:.3f}" for name in shown)
                lines.append(f"{row['identifier']}, {row['language']}, entanglement {row['entanglement']:g}: {changes}")
    return lines


def markdown(rows: list[dict]) -> str:
    """The rows as a Markdown table."""
    columns = KEY + AGREEMENT + RESULTS
    cells = [
        [f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in columns] for row in rows
    ]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def setting(text: str) -> tuple[str, object]:
    """`block.key=value` as a dotted key and a value."""
    key, separator, value = text.partition("=")
    if not separator or key.count(".") != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not block.key=value")
    return key, YAML(typ="safe", pure=True).load(io.StringIO(value))


def main() -> None:
    """Run what is missing, write the table after every run, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the world")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True, help="where the clones go")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write, and to go on with")
    parser.add_argument("--set", type=setting, nargs="+", default=[], metavar="BLOCK.KEY=VALUE", help="other settings")
    options = parser.parse_args()
    rows = read_done(options.out)
    settings = " ".join(f"{key}={value}" for key, value in options.set)
    done = {tuple(row[name] for name in KEY) for row in rows}
    options.folder.mkdir(parents=True, exist_ok=True)
    for seed, (language, entanglement) in product(options.seeds, WORLDS):
        missing = [name for name in IDENTIFIERS if (language, entanglement, seed, settings, name) not in done]
        if not missing:
            continue
        folder = clone(options.folder / f"{language}-{entanglement:g}-{seed}")
        world = {
            "fictitious.language": language,
            "fictitious.entanglement": entanglement,
            "fictitious.seed": seed,
            "compute.threads": options.threads,
        }
        for identifier in missing:
            repro(folder, dict(options.set) | world | {"identify.method": identifier})
            key = (language, entanglement, seed, settings, identifier)
            rows.append({**dict(zip(KEY, key, strict=True)), **result(folder)})
            write_text(options.out, pd.DataFrame(rows).to_csv(index=False, float_format="%.4g"))
            print(", ".join(map(str, key)), "done", flush=True)
    print(markdown(rows), *falls(rows), sep="\n")


if __name__ == "__main__":
    main()
