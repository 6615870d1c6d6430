"""Every identifier that can run here, on the same forget set: agreement with the truth, share, seconds, cost.

    python bench/analysis/identifiers.py
    python bench/analysis/identifiers.py --reference 'published gpt=forget10_words_gpt.jsonl' \\
        --file 'published bert=forget10_words_bert.jsonl:not_common_words' --source mlm=/models/distilroberta-base

Run from the root of the repository (`make compare ARGS='...'`). Reads params.yaml and data/benchmark/, which
`dvc repro download` makes; writes metrics/identifiers.html, a page that also shows what each of them marks in some
answers, and the same as metrics/identifiers.csv and metrics/identifiers.json.

The reference is an annotation given with `--reference`, or else the gold spans where the benchmark has them. An
identifier that reads a language model runs when `--source` gives it a local folder, when params.yaml does, or when
`--identifier` names it; one that costs money runs only when named. The forget rows that `distilled` was fitted on are
left out for all.
"""

import argparse
import csv
import io
import json
from dataclasses import fields, replace
from pathlib import Path

from annotations import Annotation, Setup, annotation, check_known, identified, needs_asking
from comparison import Comparison, Line, Marks, Missing, fingerprint, page
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tif.agreement.lint import lint
from tif.agreement.spans import agreement, agreement_difference
from tif.base import params, tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.benchmarks import SAMPLES
from tif.metrics.measure import rounded

BENCHMARK = Path("data/benchmark")
OUT = Path("metrics")
ANSWERS = 10


def main() -> None:
    """Compare and write the three files; print the table and why an identifier is not in it."""
    options = arguments(__doc__).parse_args()
    setup = prepare(options)
    reference, found, missing = annotations(options, setup)
    copied = frozenset().union(*(some.copied for some in found))
    rows = [row for row in setup.forget.to_pylist() if row["sample_id"] not in copied]
    if not rows:
        raise UserError("distilled.annotation labels the whole forget set, so there is nothing left to compare")
    comparison = compare(setup, rows, reference, found, missing)
    content = comparison.model_dump()
    content["table"] = [rounded(line) for line in content["table"]]
    shown = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    tables.write_text(OUT / "identifiers.csv", as_csv(comparison.table))
    tables.write_text(OUT / "identifiers.json", shown + "\n")
    tables.write_text(OUT / "identifiers.html", page(comparison, rows))
    show(comparison)


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that say what is compared, and with what."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    more = {"action": "append", "default": []}
    parser.add_argument("--identifier", metavar="NAME", **more, help="run this one (repeatable); default: all")
    parser.add_argument("--reference", metavar="[NAME=]PATH[:FIELD]", help="compare with this annotation")
    parser.add_argument(
        "--file",
        metavar="[NAME=]PATH[:FIELD]",
        **more,
        help="an annotation as a row of its own (repeatable): a spans table, or JSON lines as for identify.method=file,"
        " of which FIELD is target_words (default) or not_common_words",
    )
    parser.add_argument(
        "--source", metavar="NAME=PATH", **more, help="what identify.source is for this identifier (repeatable)"
    )
    parser.add_argument("-S", "--set", metavar="BLOCK.KEY=VALUE", **more, help="change a value of params.yaml")
    return parser


def prepare(options: argparse.Namespace) -> Setup:
    """Read and check everything that does not depend on an identifier. Raises UserError."""
    blocks = params.read_all()
    for change in options.set:
        key, separator, value = change.partition("=")
        block, _, name = key.partition(".")
        if not separator or not name or not isinstance(blocks.get(block), dict):
            raise UserError(f"-S {change}: give block.key=value with a block of params.yaml")
        try:
            blocks[block] = {**blocks[block], name: YAML(typ="safe", pure=True).load(value)}
        except YAMLError:
            raise UserError(f"-S {change}: the value is not valid YAML") from None
    for name in options.identifier:
        check_known(name, "--identifier")
    choice = params.validate("identify", blocks.get("identify"), params.IdentifyChoice)
    chosen = params.local_source(choice.source, "identify.source")
    sources = {choice.method: chosen} if chosen else {}
    for given in options.source:
        name, separator, path = given.partition("=")
        if not separator or not Path(path).expanduser().exists():
            raise UserError(f"--source {given}: give NAME=PATH with the path of an existing file or folder")
        check_known(name, "--source")
        sources[name] = Path(path).expanduser()
    benchmark = params.validate("benchmark", blocks.get("benchmark"), params.BenchmarkChoice).name
    forget, retain = (tables.read(BENCHMARK / f"{name}.parquet", SAMPLES) for name in ("forget", "retain"))
    made = benchmark_made()
    if made != benchmark or not forget.num_rows:
        what = f"the benchmark {made}, {forget.num_rows} forget rows,"
        raise UserError(f"{BENCHMARK} holds {what} and params.yaml chooses {benchmark}; run `dvc repro download`")
    return Setup(benchmark, forget, retain, blocks, sources)


def benchmark_made() -> str:
    """Name of the benchmark in data/benchmark. Raises UserError when its card is missing or damaged."""
    card = BENCHMARK / "card.json"
    try:
        return str(json.loads(card.read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{card} is missing or damaged; run `dvc repro -f download`") from None


def annotations(options: argparse.Namespace, setup: Setup) -> tuple[Annotation | None, list[Annotation], list[Missing]]:
    """The reference, all others, and what is missing. Raises UserError for whatever was asked for and cannot be had."""
    found = [annotation(setup, spec, "--file") for spec in options.file]
    names, missing = list(dict.fromkeys(options.identifier)) or params.known_names("identify"), []
    reference = annotation(setup, options.reference, "--reference") if options.reference else None
    check_names([some.name for some in [*found, *([reference] if reference else [])]])
    if reference is None and None not in setup.forget["gold_spans"].to_pylist():
        reference = identified(setup, "gold")
        names = [name for name in names if name != "gold"]
    for name in names:
        reason = None if options.identifier else needs_asking(setup, name)
        if reason is None:
            try:
                found.append(identified(setup, name))
            except UserError as error:
                if options.identifier:
                    raise
                reason = str(error)
        if reason:
            missing.append(Missing(identifier=name, reason=reason))
    return reference, found, missing


def check_names(names: list[str]) -> None:
    """Raise UserError for annotations of the same name, or with that of an identifier."""
    for name in names:
        if names.count(name) > 1 or name in params.known_names("identify"):
            raise UserError(f"two rows would be called '{name}'; give each --file and --reference its own NAME=")


def compare(
    setup: Setup, rows: list[dict], reference: Annotation | None, found: list[Annotation], missing: list[Missing]
) -> Comparison:
    """The table, reference first and then by falling F1, and the marks of some answers in the same order.

    rows: the forget rows to compare on.
    """
    kept = {row["sample_id"] for row in rows}
    everyone = [
        replace(some, rows=[row for row in some.rows if row["sample_id"] in kept])
        for some in [*([reference] if reference else []), *found]
    ]
    truth = everyone[0].rows if reference else None
    frequency = next((some.rows for some in everyone if some.name == "frequency"), None)
    lines = [line(rows, some, truth, frequency) for some in everyone]
    lines.sort(key=lambda line: (line.identifier != (reference and reference.name), -(line.f1 or 0), line.identifier))
    count = min(ANSWERS, len(rows))
    shown = [rows[k * len(rows) // count]["sample_id"] for k in range(count)]
    flags: dict[tuple[str, str], str] = {}
    for some in everyone:
        for row in some.rows:
            key = some.name, row["sample_id"]
            flags[key] = flags.get(key, "") + str(int(row["unwanted"]))
    names = [line.identifier for line in lines]
    return Comparison(
        benchmark=setup.benchmark,
        split=rows[0]["split"],
        rows=len(rows),
        left_out=setup.forget.num_rows - len(rows),
        groups=len({row["group"] for row in rows}),
        fingerprint=fingerprint(setup.forget.to_pylist(), setup.retain.to_pylist()),
        reference=reference.name if reference else None,
        table=lines,
        missing=missing,
        answers=[Marks(sample_id=key, unwanted={name: flags.get((name, key), "") for name in names}) for key in shown],
    )


def line(rows: list[dict], some: Annotation, truth: list[dict] | None, frequency: list[dict] | None) -> Line:
    """One row of the table. rows: forget rows; truth, frequency: spans of the reference and of `frequency`."""
    groups = {row["sample_id"]: row["group"] for row in rows}
    responses = {row["sample_id"]: row["response"] for row in rows}
    numbers: dict[str, float | None] = dict.fromkeys(
        name for name, field in Line.model_fields.items() if field.annotation == float | None
    )
    if truth is not None:
        found = agreement(some.rows, truth, groups)
        for prefix, unit in (("", found.characters), ("word_", found.words)):
            numbers |= {f"{prefix}{field.name}": getattr(unit, field.name).value for field in fields(unit)}
            numbers |= {f"{prefix}f1_low": unit.f1.low, f"{prefix}f1_high": unit.f1.high}
    if truth is not None and frequency is not None and some.name != "frequency":
        above = agreement_difference(some.rows, frequency, truth, groups).characters.f1
        numbers |= {"f1_above_frequency": above.value, "f1_above_frequency_low": above.low}
        numbers |= {"f1_above_frequency_high": above.high}
    numbers |= {"seconds": some.seconds, "cost_usd": some.cost}
    marked = sum(not character.isspace() for row in some.rows if row["unwanted"] for character in row["text"])
    characters = sum(not character.isspace() for text in responses.values() for character in text)
    kinds = [finding.kind for finding in lint(some.rows, responses)]
    return Line(
        identifier=some.name,
        unwanted_share=marked / characters if characters else 0.0,
        rows_without_unwanted=kinds.count("without_unwanted"),
        details=json.dumps(some.details, ensure_ascii=False),
        **numbers,
    )


def as_csv(lines: list[Line]) -> str:
    """The table with all digits."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(Line.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(line.model_dump() for line in lines)
    return buffer.getvalue()


def show(comparison: Comparison) -> None:
    """Print the table for a terminal."""
    columns = {
        "F1": "f1", "low": "f1_low", "high": "f1_high", "precision": "precision", "recall": "recall",
        "Jaccard": "jaccard", "kappa": "kappa", "words F1": "word_f1", "UW share": "unwanted_share",
        "seconds": "seconds", "USD": "cost_usd",
    }  # fmt: skip
    width = max(len("identifier"), *(len(line.identifier) for line in comparison.table))
    about = f"{comparison.rows} rows about {comparison.groups} people or documents"
    print(f"{comparison.benchmark}, {comparison.split}, {about}; reference: {comparison.reference}")
    print("identifier".ljust(width), *(name.rjust(9) for name in columns))
    for line in comparison.table:
        values = [getattr(line, name) for name in columns.values()]
        print(line.identifier.ljust(width), *(("-" if value is None else f"{value:.3f}").rjust(9) for value in values))
    for missing in comparison.missing:
        print(f"not compared: {missing.identifier}: {missing.reason}")
    print(f"what each of them marks: {OUT / 'identifiers.html'}")


if __name__ == "__main__":
    run(main)
