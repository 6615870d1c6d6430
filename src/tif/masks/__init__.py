"""Words, spans and tokens of an answer; how well two spans tables agree, and what is odd about one."""

from tif.masks.answers import (
    Span,
    check_rows,
    is_punctuation,
    mark,
    overlapping,
    project,
    soften,
    span_rows,
    word_rows,
    words,
)
from tif.masks.compare import Agreement, Estimate, Scores, agreement, agreement_difference
from tif.masks.findings import KINDS, Finding, lint

__all__ = [
    "KINDS",
    "Agreement",
    "Estimate",
    "Finding",
    "Scores",
    "Span",
    "agreement",
    "agreement_difference",
    "check_rows",
    "is_punctuation",
    "lint",
    "mark",
    "overlapping",
    "project",
    "soften",
    "span_rows",
    "word_rows",
    "words",
]
