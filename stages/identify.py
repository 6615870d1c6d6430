"""Stage identify: which words of the forget answers are unwanted.

`--estimate` prints what the paid identifier would ask for, and its price, and writes nothing.
"""

import argparse
import json
from collections import Counter
from dataclasses import fields
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
    metrics = {"method": choice.method, **summary(forget, found.rows, found.copied), **found.counts}
    tables.write(SPANS, found.rows, tables.SPANS, metadata)
    tables.write_text(RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    tables.write_text(SUMMARY, json.dumps(metrics, indent=2) + "\n")


def responses(forget: pa.Table) -> dict[str, str]:
    """sample_id -> answer."""
    return dict(zip(forget.column("sample_id").to_pylist(), forget.column("response").to_pylist(), strict=True))


def summary(forget: pa.Table, rows: list[dict], copied: frozenset[str]) -> dict:
    """What metrics/identify.json says about spans.

    `rows`: forget samples; `words`: their words; `unwanted_share`: share of the non-space characters that are unwanted;
    from `masks.lint`: `rows_without_unwanted`, `rows_only_punctuation` (no letter or digit is unwanted) and
    `rows_unusual_share` (the unwanted share is far from that of the other samples);
    `agreement` with the gold spans outside of `copied` (see `agreement_with_gold`).
    """
    texts = responses(forget)
    characters = sum(not character.isspace() for text in texts.values() for character in text)
    marked = sum(not character.isspace() for row in rows if row["unwanted"] for character in row["text"])
    kinds = Counter(finding.kind for finding in masks.lint(rows, texts))
    return {
        "rows": len(texts),
        "words": len(rows),
        "unwanted_share": round(marked / characters, 6) if characters else 0.0,
        "rows_without_unwanted": kinds["without_unwanted"],
        "rows_only_punctuation": kinds["only_punctuation"],
        "rows_unusual_share": kinds["share_outlier"],
        "agreement": agreement_with_gold(forget, [row for row in rows if row["sample_id"] not in copied]),
    }


def agreement_with_gold(forget: pa.Table, rows: list[dict]) -> dict[str, float] | None:
    """`masks.agreement` of some samples with their gold spans on characters; `f1_low` to `f1_high` is over groups.

    None without such samples, and when one has no gold spans.
    """
    compared = {row["sample_id"] for row in rows}
    samples = [sample for sample in forget.to_pylist() if sample["sample_id"] in compared]
    if not samples or any(sample["gold_spans"] is None for sample in samples):
        return None
    gold = []
    for sample in samples:
        spans = [(span["start"], span["end"]) for span in sample["gold_spans"]]
        gold += masks.span_rows(sample["sample_id"], sample["response"], spans)
    found = masks.agreement(rows, gold, {sample["sample_id"]: sample["group"] for sample in samples}).characters
    scores = {field.name: getattr(found, field.name).value for field in fields(found)}
    return {
        name: round(value, 6) for name, value in {**scores, "f1_low": found.f1.low, "f1_high": found.f1.high}.items()
    }


if __name__ == "__main__":
    run(main)
