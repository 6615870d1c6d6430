"""The comparison of identifiers that identifiers.py makes: what its file holds, and its page."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from jinja2 import ChoiceLoader, FileSystemLoader
from pydantic import BaseModel, ConfigDict, Field

from tif.report.answers import Piece, pieces
from tif.report.page import environment
from tif.words import words


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Line(_Part):
    """One identifier. Agreement with the reference is on letters and digits, `word_` on words; None without reference.

    `_low`, `_high`: 95 % intervals over groups. `f1_above_frequency`: F1 minus that of the identifier `frequency` on
    the same resamples. unwanted_share: of the non-space characters. seconds, cost_usd: None where not known.
    details: settings and metadata of the annotation, as JSON.
    """

    identifier: str
    f1: float | None
    f1_low: float | None
    f1_high: float | None
    precision: float | None
    recall: float | None
    jaccard: float | None
    kappa: float | None
    word_f1: float | None
    word_f1_low: float | None
    word_f1_high: float | None
    word_precision: float | None
    word_recall: float | None
    word_jaccard: float | None
    word_kappa: float | None
    f1_above_frequency: float | None
    f1_above_frequency_low: float | None
    f1_above_frequency_high: float | None
    unwanted_share: float
    rows_without_unwanted: int
    seconds: float | None
    cost_usd: float | None
    details: str


class Missing(_Part):
    """An identifier that was not run, and why."""

    identifier: str
    reason: str


class Marks(_Part):
    """What every identifier marks in one answer: a digit a word of `tif.words.words`, 1 for unwanted."""

    sample_id: str
    unwanted: dict[str, Annotated[str, Field(pattern="^[01]*$")]]


class Comparison(_Part):
    """metrics/identifiers.json. table, answers: the reference first.

    rows, groups: forget samples compared on, and the people or documents they are about. left_out: samples that an
    identifier was fitted on. fingerprint: of the whole forget and retain sets (see `fingerprint`).
    """

    benchmark: str
    split: str
    rows: int
    left_out: int
    groups: int
    fingerprint: str
    reference: str | None
    table: list[Line]
    missing: list[Missing]
    answers: list[Marks]


@dataclass(frozen=True)
class Version:
    """One answer as one identifier marks it."""

    identifier: str
    pieces: list[Piece]


@dataclass(frozen=True)
class ComparedAnswer:
    """One answer as every identifier marks it."""

    sample_id: str
    question: str
    versions: list[Version]


def fingerprint(forget: list[dict], retain: list[dict]) -> str:
    """SHA-256 of the answers of both sets and their keys; rows of `tif.benchmarks.SAMPLES`.

    The retain answers count because some identifiers learn from them what is general.
    """
    answers = [[[row["sample_id"], row["response"]] for row in rows] for rows in (forget, retain)]
    return hashlib.sha256(json.dumps(answers).encode()).hexdigest()


def compared_answers(comparison: Comparison, forget: list[dict]) -> list[ComparedAnswer]:
    """The answers of a comparison, cut into pieces by every identifier. forget: rows of the forget set."""
    rows = {row["sample_id"]: row for row in forget}
    found = []
    for marks in comparison.answers:
        row = rows[marks.sample_id]
        spans = words(row["response"])
        versions = []
        for identifier, flags in marks.unwanted.items():
            marked = [
                {"start": a, "end": b, "unwanted": flag == "1"} for (a, b), flag in zip(spans, flags, strict=True)
            ]
            versions.append(Version(identifier, pieces(row["response"], marked)))
        found.append(ComparedAnswer(marks.sample_id, row["prompt"], versions))
    return found


def page(comparison: Comparison, forget: list[dict]) -> str:
    """A page of HTML that needs no other file, in the look of the report. forget: rows of the forget set."""
    templates = environment()
    templates.loader = ChoiceLoader([templates.loader, FileSystemLoader(Path(__file__).parent)])
    answers = compared_answers(comparison, forget)
    return templates.get_template("identifiers.html").render(comparison=comparison, answers=answers)
