"""Forget answers cut into pieces of unwanted words (UW), general words (GW) and the white space around them."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tif.metrics import MODELS
from tif.report.results import Results
from tif.words import check_rows, words


@dataclass(frozen=True)
class Piece:
    """A run of text: kind is 'uw', 'gw', or '' for what is no word."""

    text: str
    kind: str


@dataclass(frozen=True)
class Reply:
    """One model's greedy answer to a question, with its scores against the true answer."""

    model: str
    pieces: list[Piece]
    probability: float
    rouge: float
    truth_ratio: float


@dataclass(frozen=True)
class Answer:
    """One forget sample: the question, the true answer in pieces, and what each model says."""

    sample_id: str
    question: str
    pieces: list[Piece]
    replies: list[Reply]


def group_spans(path: Path, rows: list[dict], forget: list[dict]) -> dict[str, list[dict]]:
    """The spans of every forget sample, in the order of the text.

    rows: the spans table. forget: the forget table. Raises UserError where the two do not belong together.
    """
    answers = {row["sample_id"]: row["response"] for row in forget}
    check_rows(rows, answers, f"{path} (`dvc repro -f identify` makes it anew)")
    grouped: dict[str, list[dict]] = {sample_id: [] for sample_id in answers}
    for row in rows:
        grouped[row["sample_id"]].append(row)
    return grouped


def pieces(answer: str, spans: list[dict]) -> list[Piece]:
    """`answer` in pieces, neighbouring words of one kind joined. Joined again, the pieces are the answer."""
    kinds = [""] * len(answer)
    for span in spans:
        kinds[span["start"] : span["end"]] = ["uw" if span["unwanted"] else "gw"] * (span["end"] - span["start"])
    for first, second in pairwise(spans):
        if first["unwanted"] == second["unwanted"]:
            kinds[first["end"] : second["start"]] = [kinds[first["start"]]] * (second["start"] - first["end"])
    return _join(answer, kinds)


def still_said(reply: str, answer: str, spans: list[dict]) -> list[Piece]:
    """A model's reply in pieces: 'uw' where it says an unwanted word of the true answer, whatever its case."""
    unwanted = {answer[span["start"] : span["end"]].casefold() for span in spans if span["unwanted"]}
    unwanted = {word for word in unwanted if any(character.isalnum() for character in word)}
    kinds = [""] * len(reply)
    for start, end in words(reply):
        if reply[start:end].casefold() in unwanted:
            kinds[start:end] = ["uw"] * (end - start)
    return _join(reply, kinds)


def _join(text: str, kinds: list[str]) -> list[Piece]:
    joined: list[Piece] = []
    for character, kind in zip(text, kinds, strict=True):
        if joined and joined[-1].kind == kind:
            joined[-1] = Piece(joined[-1].text + character, kind)
        else:
            joined.append(Piece(character, kind))
    return joined


def chosen_answers(forget: list[dict], spans: dict[str, list[dict]], results: Results, count: int) -> list[Answer]:
    """`count` forget samples at even distances over the forget table (all of a smaller table)."""
    count = min(count, len(forget))
    return [_answer(forget[k * len(forget) // count], spans, results) for k in range(count)]


def _answer(row: dict, spans: dict[str, list[dict]], results: Results) -> Answer:
    key = row["sample_id"]
    replies = []
    for model in MODELS:
        scores = {name: results.values[model][name][key] for name in ("probability", "rouge", "truth_ratio")}
        said = still_said(results.texts[model][key], row["response"], spans[key])
        replies.append(Reply(model, said, **scores))
    return Answer(key, row["prompt"], pieces(row["response"], spans[key]), replies)
