"""What is odd about a spans table (`SPANS`), or about spans from elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import pyarrow as pa

from tif.agreement.spans import Spans
from tif.words import is_punctuation, mark, words


@dataclass(frozen=True)
class Finding:
    """Something odd about the spans of one sample; kind is one of `KINDS`, what says it in words."""

    kind: str
    sample_id: str
    what: str


KINDS = (
    "unknown_sample",  # a row of no known sample
    "outside",  # offsets outside the text, the wrong way round, or equal
    "other_text",  # `text` is not what stands at the offsets
    "cuts_word",  # a span begins or ends inside a word (see `words`)
    "overlap",  # a span begins before another one of the sample ends
    "without_unwanted",  # no unwanted span in a sample
    "only_punctuation",  # unwanted spans, but no letter and no digit in them
    "share_outlier",  # the unwanted share of the sample lies far from that of the others
)
_OUTLIER, _LEAST_SPREAD = 3.5, 0.02


def lint(spans: Spans, responses: Mapping[str, str]) -> list[Finding]:
    """What is odd about spans of any origin: spans tables, also broken ones, and lists of unwanted spans alone.

    share_outlier: with x the share of a sample's non-space characters that are unwanted, over the samples that have
    any: 0.6745 |x - median| / max(MAD, .02) > 3.5 (the modified z-score of Iglewicz and Hoaglin 1993; the floor keeps
    it finite where most samples have one share).

    spans: rows with sample_id, start, end, and where known text and unwanted; a row without `unwanted` is unwanted.
    responses: sample_id -> answer. Returns the findings in the order of `responses`, unknown samples first.
    """
    grouped: dict[str, list[dict]] = {sample_id: [] for sample_id in responses}
    findings = []
    for row in spans.to_pylist() if isinstance(spans, pa.Table) else spans:
        if row["sample_id"] in grouped:
            grouped[row["sample_id"]].append(row)
        else:
            findings.append(Finding("unknown_sample", str(row["sample_id"]), f"{_place(row)} belongs to no answer"))
    shares = {}
    for sample_id, text in responses.items():
        odd, marked = _lint_sample(text, grouped[sample_id])
        if any(marked):
            shares[sample_id] = sum(marked) / sum(not character.isspace() for character in text)
        findings += [Finding(kind, sample_id, what) for kind, what in odd]
    return _in_order(findings + _share_outliers(shares), responses)


def _lint_sample(text: str, rows: list[dict]) -> tuple[list[tuple[str, str]], list[bool]]:
    """Kind and words of each finding in one answer, and which of its characters are unwanted."""
    found, inside = [], []
    for row in rows:
        start, end = row["start"], row["end"]
        if isinstance(start, Integral) and isinstance(end, Integral) and 0 <= start < end <= len(text):
            inside.append(row)
        else:
            found.append(("outside", f"{_place(row)} is no part of the answer of {len(text)} characters"))
    cuttable = {place for start, end in words(text) for place in range(start + 1, end)}
    last = 0
    for row in sorted(inside, key=lambda row: (row["start"], row["end"])):
        start, end = row["start"], row["end"]
        if row.get("text") not in (None, text[start:end]):
            found.append(("other_text", f"{_place(row)} stands where the answer has {text[start:end]!r}"))
        if cuttable & {start, end}:
            found.append(("cuts_word", f"{_place(row)} cuts a word"))
        if start < last:
            found.append(("overlap", f"{_place(row)} begins before [..., {last}) ends"))
        last = max(last, end)
    marked = mark(text, [(row["start"], row["end"]) for row in inside if row.get("unwanted", True)])
    unwanted = "".join(character for character, flag in zip(text, marked, strict=True) if flag)
    if not unwanted:
        found.append(("without_unwanted", "no word is unwanted"))
    elif is_punctuation(unwanted):
        found.append(("only_punctuation", f"only {unwanted!r} is unwanted"))
    return found, marked


def _place(row: dict) -> str:
    return f"[{row['start']}, {row['end']})" + (f" {row['text']!r}" if row.get("text") is not None else "")


def _share_outliers(shares: dict[str, float]) -> list[Finding]:
    values = np.array(list(shares.values()))
    if not len(values):
        return []
    middle = float(np.median(values))
    spread = max(float(np.median(np.abs(values - middle))), _LEAST_SPREAD)
    return [
        Finding("share_outlier", sample_id, f"{share:.3f} of the characters are unwanted, the median is {middle:.3f}")
        for sample_id, share in shares.items()
        if 0.6745 * abs(share - middle) / spread > _OUTLIER
    ]


def _in_order(findings: list[Finding], responses: Mapping[str, str]) -> list[Finding]:
    order = {sample_id: number for number, sample_id in enumerate(responses)}
    return sorted(findings, key=lambda finding: order.get(finding.sample_id, -1))
