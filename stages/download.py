"""Stage download: the chosen benchmark as tables of samples, and a card that says what they are."""

import hashlib
import json
from collections import Counter
from pathlib import Path

from tif.base import params, tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.benchmarks import SAMPLES, describe, place

OUT = Path("data/benchmark")


def main() -> None:
    """Write data/benchmark/ as a whole: one Parquet file a set, and card.json."""
    choice = params.read("benchmark", params.BenchmarkChoice)
    benchmark = params.choose("benchmarks", choice.name, "benchmark.name")
    settings = params.read(choice.name, benchmark.Settings)
    samples, card = benchmark.build(settings, params.local_source(choice.source, "benchmark.source"))
    check(choice.name, samples)
    sets = {name: about for name, about in benchmark.SETS.items() if name in samples}
    card |= {"form": benchmark.FORM, "sets": describe(sets)}
    with tables.writing(OUT) as folder:
        files = {name: place(folder, name, sets[name].role if name in sets else "") for name in samples}
        for name, rows in samples.items():
            tables.write(files[name], rows, SAMPLES)
        if "holdout" not in samples:
            tables.write(place(folder, "holdout", "holdout"), [], SAMPLES)  # an output of the stage, absent or not
        (folder / "utility").mkdir(exist_ok=True)
        card["counts"] = {name: len(rows) for name, rows in samples.items()}
        card["sha256"] = {name: sha256(file) for name, file in files.items()}
        tables.write_text(folder / "card.json", json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def check(name: str, samples: dict[str, list[dict]]) -> None:
    """Raise UserError for an empty forget set and for a sample_id that occurs twice."""
    if not samples["forget"]:
        raise UserError(f"benchmark {name}: the forget set is empty; check the block '{name}' of params.yaml")
    counts = Counter(row["sample_id"] for rows in samples.values() for row in rows)
    twice = [sample_id for sample_id, count in counts.items() if count > 1]
    if twice:
        raise UserError(f"benchmark {name}: sample_id {', '.join(twice[:3])} occurs more than once")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    run(main)
