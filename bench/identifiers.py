"""Every identifier that can run here, on the same forget set: agreement with the truth, share, seconds, cost.

    python bench/identifiers.py
    python bench/identifiers.py --reference 'published gpt=forget10_words_gpt.jsonl' \\
        --file 'published bert=forget10_words_bert.jsonl:not_common_words' --source mlm=/models/distilroberta-base

Run from the root of the repository (`make compare ARGS='...'`). Reads params.yaml and data/benchmark/, which
`dvc repro download` makes; writes metrics/identifiers.csv for people and metrics/identifiers.json for the report.

The reference is an annotation given with `--reference`, or else the gold spans where the benchmark has them. An
identifier that reads a language model runs when `--source` gives it a local folder, when params.yaml does, or when
`--identifier` names it; one that costs money runs only when named.
"""

import argparse
import csv
import io
import json
import time
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tif import identify, masks, params, tables
from tif.errors import UserError, run
from tif.identify import Resources
from tif.identify import file as annotation_file
from tif.report.comparison import Comparison, Line, Marks, Missing, fingerprint
from tif.report.results import rounded

BENCHMARK = Path("data/benchmark")
OUT = Path("metrics")
ANSWERS = 10


@dataclass(frozen=True)
class Annotation:
    """The rows of one identifier or file. seconds, cost: None where not known. details: how it was made."""

    name: str
    rows: list[dict]
    seconds: float | None
    cost: float | None
    details: dict


@dataclass(frozen=True)
class Setup:
    """The benchmark, all of params.yaml with the changes of `--set`, and the local source of each identifier."""

    benchmark: str
    forget: pa.Table
    retain: pa.Table
    blocks: dict
    sources: dict[str, Path]

    @property
    def responses(self) -> dict[str, str]:
        """sample_id -> answer."""
        return dict(zip(self.forget["sample_id"].to_pylist(), self.forget["response"].to_pylist(), strict=True))


def main() -> None:
    """Compare and write both files; print the table and why an identifier is not in it."""
    options = arguments()
    setup = prepare(options)
    names = options.identifier or known_identifiers()
    found: list[Annotation] = [annotation(setup, spec, "--file") for spec in options.file]
    missing = []
    reference = annotation(setup, options.reference, "--reference") if options.reference else None
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
    check_names([*found, *([reference] if reference else [])])
    comparison = compare(setup, found, reference, missing)
    tables.write_text(OUT / "identifiers.csv", as_csv(comparison.table))
    shown = json.dumps(rounded_lines(comparison.model_dump()), indent=1, ensure_ascii=False, allow_nan=False)
    tables.write_text(OUT / "identifiers.json", shown + "\n")
    show(comparison)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    return parser.parse_args()


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
    forget, retain = (tables.read(BENCHMARK / f"{name}.parquet", tables.SAMPLES) for name in ("forget", "retain"))
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


def known_identifiers() -> list[str]:
    """Every module or package of tif.identify."""
    folder = Path(identify.__file__).parent
    return sorted({path.stem for path in folder.glob("[a-z]*") if path.suffix == ".py" or path.is_dir()})


def check_known(name: str, option: str) -> None:
    """Raise UserError for a name that is no identifier."""
    known = known_identifiers()
    if name not in known:
        hint = params.nearest(name, known)
        raise UserError(f"{option}: there is no identifier '{name}'{hint}; known: {', '.join(known)}")


def needs_asking(setup: Setup, name: str) -> str | None:
    """Why an identifier does not run unless it is named, or None."""
    module = params.choose("identify", name, "--identifier")
    if hasattr(module, "estimate"):
        return f"It costs money, so it runs only with --identifier {name}."
    if "model" in module.Settings.model_fields and name not in setup.sources:
        return f"It reads a language model: give a local one with --source {name}=PATH, or add --identifier {name}."
    return None


def identified(setup: Setup, name: str) -> Annotation:
    """Run one identifier. Raises UserError for what it lacks."""
    module = params.choose("identify", name, "--identifier")
    if name not in setup.blocks:
        raise UserError(f"params.yaml has no block '{name}'")
    settings = params.validate(name, setup.blocks[name], module.Settings)
    resources = Resources(
        source=setup.sources.get(name),
        compute=params.validate("compute", setup.blocks.get("compute"), params.Compute),
        progress=params.validate("runtime", setup.blocks.get("runtime"), params.Runtime).progress,
    )
    begin = time.perf_counter()
    found = module.identify(setup.forget, setup.retain, settings, resources)
    seconds = time.perf_counter() - begin
    masks.check_rows(found.rows, setup.responses, f"identifier {name}")
    details = {**found.metadata, "settings": settings.model_dump(by_alias=True, mode="json")}
    return Annotation(name, found.rows, seconds, float(found.counts.get("cost_usd", 0.0)), details)


def annotation(setup: Setup, spec: str, option: str) -> Annotation:
    """Read an annotation given as [NAME=]PATH[:FIELD]. Raises UserError."""
    name, separator, rest = spec.partition("=")
    if not separator:
        name, rest = "", spec
    path, _, field = rest.rpartition(":")
    if field not in ("target_words", "not_common_words"):
        path, field = rest, "target_words"
    source = Path(path).expanduser()
    if not source.is_file():
        raise UserError(f"{option} {spec}: {path} is no file; give [NAME=]PATH or [NAME=]PATH:not_common_words")
    name = name or source.stem
    if source.suffix == ".parquet":
        rows = tables.read(source, tables.SPANS).to_pylist()
        masks.check_rows(rows, setup.responses, str(source))
        return Annotation(name, rows, None, None, {})
    settings = annotation_file.Settings(unwanted=field, punctuation=False)
    found = annotation_file.identify(setup.forget, setup.retain, settings, Resources(source))
    return Annotation(name, found.rows, None, None, {**found.metadata, "settings": settings.model_dump()})


def check_names(annotations: list[Annotation]) -> None:
    """Raise UserError where two have one name."""
    names = [some.name for some in annotations]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two annotations are called '{twice[0]}'; give each --file and --reference its own NAME=")


def compare(setup: Setup, found: list[Annotation], reference: Annotation | None, missing: list[Missing]) -> Comparison:
    """The table, reference first and then by falling F1, and the marks of some answers in the same order."""
    groups = dict(zip(setup.forget["sample_id"].to_pylist(), setup.forget["group"].to_pylist(), strict=True))
    everyone = [*([reference] if reference else []), *found]
    frequency = next((some for some in everyone if some.name == "frequency"), None)
    lines = [line(setup, some, reference, frequency, groups) for some in everyone]
    lines.sort(key=lambda line: (line.identifier != (reference and reference.name), -(line.f1 or 0), line.identifier))
    by_name = {some.name: some for some in everyone}
    forget = setup.forget.to_pylist()
    count = min(ANSWERS, len(forget))
    shown = [forget[k * len(forget) // count]["sample_id"] for k in range(count)]
    flags = {
        name: {key: "".join(str(int(row["unwanted"])) for row in some.rows if row["sample_id"] == key) for key in shown}
        for name, some in by_name.items()
    }
    return Comparison(
        benchmark=setup.benchmark,
        split=forget[0]["split"],
        rows=len(forget),
        fingerprint=fingerprint(forget),
        reference=reference.name if reference else None,
        table=lines,
        missing=missing,
        answers=[
            Marks(sample_id=key, unwanted={line.identifier: flags[line.identifier][key] for line in lines})
            for key in shown
        ],
    )


def line(
    setup: Setup,
    some: Annotation,
    reference: Annotation | None,
    frequency: Annotation | None,
    groups: dict[str, str],
) -> Line:
    """One row of the table."""
    scores: dict[str, float | None] = dict.fromkeys(
        name for name, field in Line.model_fields.items() if field.annotation == float | None
    )
    if reference:
        agreement = masks.agreement(some.rows, reference.rows, groups)
        for prefix, unit in (("", agreement.characters), ("word_", agreement.words)):
            scores |= {f"{prefix}{field.name}": getattr(unit, field.name).value for field in fields(unit)}
            scores |= {f"{prefix}f1_low": unit.f1.low, f"{prefix}f1_high": unit.f1.high}
    if reference and frequency and some is not frequency:
        above = masks.agreement_difference(some.rows, frequency.rows, reference.rows, groups).characters.f1
        scores |= {"f1_above_frequency": above.value, "f1_above_frequency_low": above.low}
        scores |= {"f1_above_frequency_high": above.high}
    marked = sum(not character.isspace() for row in some.rows if row["unwanted"] for character in row["text"])
    characters = sum(not character.isspace() for text in setup.responses.values() for character in text)
    kinds = [finding.kind for finding in masks.lint(some.rows, setup.responses)]
    return Line(
        **scores
        | {
            "identifier": some.name,
            "unwanted_share": marked / characters if characters else 0.0,
            "rows_without_unwanted": kinds.count("without_unwanted"),
            "seconds": some.seconds,
            "cost_usd": some.cost,
            "details": json.dumps(some.details, ensure_ascii=False),
        }
    )


def as_csv(lines: list[Line]) -> str:
    """The table with all digits."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(Line.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(line.model_dump() for line in lines)
    return buffer.getvalue()


def rounded_lines(content: dict) -> dict:
    """The same with the numbers of the table cut to six digits."""
    return content | {"table": [rounded(line) for line in content["table"]]}


def show(comparison: Comparison) -> None:
    """Print the table for a terminal."""
    columns = {
        "F1": "f1", "low": "f1_low", "high": "f1_high", "precision": "precision", "recall": "recall",
        "Jaccard": "jaccard", "kappa": "kappa", "words F1": "word_f1", "UW share": "unwanted_share",
        "seconds": "seconds", "USD": "cost_usd",
    }  # fmt: skip
    width = max(len("identifier"), *(len(line.identifier) for line in comparison.table))
    print(f"{comparison.benchmark}, {comparison.split}, {comparison.rows} rows; reference: {comparison.reference}")
    print("identifier".ljust(width), *(name.rjust(9) for name in columns))
    for line in comparison.table:
        values = [getattr(line, name) for name in columns.values()]
        print(line.identifier.ljust(width), *(("-" if value is None else f"{value:.3f}").rjust(9) for value in values))
    for missing in comparison.missing:
        print(f"not compared: {missing.identifier}: {missing.reason}")


if __name__ == "__main__":
    run(main)
