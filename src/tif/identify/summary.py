"""What metrics/identify.json says about spans."""

from collections import Counter
from dataclasses import fields

import pyarrow as pa

from tif.agreement.lint import lint
from tif.agreement.spans import agreement
from tif.words import span_rows


def responses(forget: pa.Table) -> dict[str, str]:
    """sample_id -> answer."""
    return dict(zip(forget.column("sample_id").to_pylist(), forget.column("response").to_pylist(), strict=True))


def summary(forget: pa.Table, rows: list[dict], copied: frozenset[str]) -> dict:
    """What metrics/identify.json says about spans.

    `rows`: forget samples; `words`: their words; `unwanted_share`: share of the non-space characters that are unwanted;
    from `tif.agreement.lint`: `rows_without_unwanted`, `rows_only_punctuation` (no letter or digit is unwanted) and
    `rows_unusual_share` (the unwanted share is far from that of the other samples);
    `agreement` with the gold spans outside of `copied` (see `agreement_with_gold`).
    """
    texts = responses(forget)
    characters = sum(not character.isspace() for text in texts.values() for character in text)
    marked = sum(not character.isspace() for row in rows if row["unwanted"] for character in row["text"])
    kinds = Counter(finding.kind for finding in lint(rows, texts))
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
    """`tif.agreement.spans` of some samples with their gold spans on characters; `f1_low` to `f1_high` is over groups.

    None without such samples, and when one has no gold spans.
    """
    compared = {row["sample_id"] for row in rows}
    samples = [sample for sample in forget.to_pylist() if sample["sample_id"] in compared]
    if not samples or any(sample["gold_spans"] is None for sample in samples):
        return None
    gold = []
    for sample in samples:
        spans = [(span["start"], span["end"]) for span in sample["gold_spans"]]
        gold += span_rows(sample["sample_id"], sample["response"], spans)
    found = agreement(rows, gold, {sample["sample_id"]: sample["group"] for sample in samples}).characters
    scores = {field.name: getattr(found, field.name).value for field in fields(found)}
    return {
        name: round(value, 6) for name, value in {**scores, "f1_low": found.f1.low, "f1_high": found.f1.high}.items()
    }
