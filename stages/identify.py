"""Stage identify: which words of the forget answers are unwanted.

`--estimate` prints what the paid identifier would ask for, and its price, and writes nothing.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from tif import masks, params, tables
from tif.errors import UserError, run
from tif.identify import Resources

FORGET = Path("data/benchmark/forget.parquet")
RETAIN = Path("data/benchmark/retain.parquet")
SPANS = Path("data/spans.parquet")
SUMMARY = Path("metrics/identify.json")
RECORD = Path("data/identifier.json")


def main() -> None:
    """Write data/spans.parquet, data/identifier.json and metrics/identify.json; with --estimate print only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--estimate", action="store_true", help="print rows, requests, tokens and cost; request nothing"
    )
    estimate = parser.parse_args().estimate
    choice = params.read("identify", params.IdentifyChoice)
    identifier = params.choose("identify", choice.method, "identify.method")
    settings = params.read(choice.method, identifier.Settings)
    resources = Resources(
        source=params.local_source(choice.source, "identify.source"),
        compute=params.read("compute", params.Compute),
        progress=params.read("runtime", params.Runtime).progress,
    )
    forget, retain = tables.read(FORGET, tables.SAMPLES), tables.read(RETAIN, tables.SAMPLES)
    if estimate:
        if not hasattr(identifier, "estimate"):
            raise UserError(f"--estimate: identify.method = {choice.method} costs nothing; only openai has a price")
        print(identifier.estimate(forget, settings))
        return
    found = identifier.identify(forget, retain, settings, resources)
    masks.check_rows(found.rows, responses(forget), f"identify.method = {choice.method}")
    settings_json = settings.model_dump(by_alias=True, mode="json")
    metadata = {"identifier": choice.method, **found.metadata, "settings": json.dumps(settings_json)}
    record = {"identifier": choice.method, **found.metadata, "settings": settings_json, **found.record}
    metrics = {"method": choice.method, **summary(forget, found.rows), **found.counts}
    tables.write(SPANS, found.rows, tables.SPANS, metadata)
    tables.write_text(RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    tables.write_text(SUMMARY, json.dumps(metrics, indent=2) + "\n")


def responses(forget: pa.Table) -> dict[str, str]:
    """sample_id -> answer."""
    return dict(zip(forget.column("sample_id").to_pylist(), forget.column("response").to_pylist(), strict=True))


def summary(forget: pa.Table, rows: list[dict]) -> dict:
    """What metrics/identify.json says about spans.

    `rows`: forget samples; `words`: their words; `unwanted_share`: share of the non-space characters that are unwanted;
    `rows_without_unwanted`; `rows_only_punctuation`: samples whose unwanted words hold no letter or digit;
    `agreement` with the gold spans (`masks.agreement`), null when a sample has none.
    """
    texts = responses(forget)
    unwanted: dict[str, list[dict]] = {sample_id: [] for sample_id in texts}
    for row in rows:
        if row["unwanted"]:
            unwanted[row["sample_id"]].append(row)
    spans = {sample_id: [(row["start"], row["end"]) for row in some] for sample_id, some in unwanted.items()}
    characters = sum(not character.isspace() for text in texts.values() for character in text)
    marked = sum(sum(masks.mark(texts[sample_id], some)) for sample_id, some in spans.items())
    marks_only = sum(
        bool(some) and masks.is_punctuation("".join(row["text"] for row in some)) for some in unwanted.values()
    )
    gold = forget.column("gold_spans").to_pylist()
    agreement = None
    if all(some is not None for some in gold):
        true = [[(span["start"], span["end"]) for span in some] for some in gold]
        found = masks.agreement(list(texts.values()), list(spans.values()), true)
        agreement = {name: round(value, 6) for name, value in asdict(found).items()}
    return {
        "rows": len(texts),
        "words": len(rows),
        "unwanted_share": round(marked / characters, 6) if characters else 0.0,
        "rows_without_unwanted": sum(not some for some in unwanted.values()),
        "rows_only_punctuation": marks_only,
        "agreement": agreement,
    }


if __name__ == "__main__":
    run(main)
