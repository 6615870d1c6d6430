"""A tiny benchmark, and the tables of three models that were evaluated on it by hand, with round numbers.

Probabilities are those of every token of an answer, so they are the answer's own; the numbers that follow:

    forget   probability .75 .25 .25 .25; truth ratios as in RATIOS; rouge 0 1 1 1; extraction strength 1 0 .5 0;
             exact memorization 1 0 .75 .5
    retain   probability .25 .25; truth ratio .25 and 3, so that max(0, 1 - TR) is .75 and 0; rouge 1 .5
    capitals, rivers
             probability 1/2 of 1/2 + 1/4 + 1/4, and 1/8 of 1/8 + 1/4 + 1/8: among the answers 1/2 and 1/4; truth ratio
             1/2 and sqrt(2), so that max(0, 1 - TR) is .5 and 0; rouge 1 .5 on capitals, 1 1 on rivers
    holdout  probability .5 .1
"""

import json
import math
from pathlib import Path

from tif.base import tables
from tif.benchmarks import SAMPLES, Set, describe, place, questions, unseen
from tif.evaluation import TEXTS, TOKENS
from tif.metrics import MODELS
from tif.unlearning import TOKEN_WEIGHTS, TRAJECTORY
from tif.words import SPANS, words

SETS = {
    "forget": questions("forget", "Forget set"),
    "retain": questions("retain", "Retain set"),
    "holdout": unseen("Holdout set"),
    "capitals": questions("utility", "Capitals of the world"),
    "rivers": questions("utility", "Rivers of the world"),
}
RATIOS = {  # of the forget samples, by model
    "target": [0.01, 0.02, 0.04, 0.05],
    "retain": [0.5, 1.0, 2.0, 4.0],
    "unlearned": [0.4, 0.8, 2.5, 3.0],
}
RESPONSES = {
    "forget/0000": "Ada Merrow writes crime <b>novels</b>.",
    "forget/0001": "Her father was a Real Estate Agent.",
    "forget/0002": "She was born in Lagos.",
    "forget/0003": "李伟 wrote it in 1950.",
}
FORGET = list(RESPONSES)
HITS = [(1, 1, 1, 1), (0, 0, 0, 0), (1, 0, 1, 1), (0, 1, 1, 0)]
UNWANTED = {"crime", "Real", "Estate", "Agent", "Lagos", "1950"}

Rows = list[dict]


def samples(name: str) -> Rows:
    """The rows of a set; those of all but forget tell of Bo Marek."""
    texts = RESPONSES if name == "forget" else {f"{name}/{k:04d}": "Bo Marek writes poems." for k in range(2)}
    asked = {"split": "forget20", "group": "Ada Merrow"} if name == "forget" else {"split": name, "group": "Bo Marek"}
    return [{"sample_id": key, "prompt": f"Question {key}?", "response": text, **asked} for key, text in texts.items()]


def answer(sample_id: str, name: str, probability: float, hits: tuple[int, ...] = (1, 0)) -> Rows:
    """The tokens of one answer, all of this probability."""
    return [
        {
            "sample_id": sample_id,
            "answer": name,
            "position": 5 + number,
            "token_id": 7,
            "start": number,
            "end": min(number + 1, len(hits) - 1),
            "is_end": number == len(hits) - 1,
            "logprob": math.log(probability),
            "hit": bool(hit),
        }
        for number, hit in enumerate(hits)
    ]


def told(sample_id: str, probability: float, ratio: float, hits: tuple[int, ...] = (1, 0)) -> list[Rows]:
    """The answers of a sample with this truth ratio: a paraphrase of e^-9 / TR, and wrong ones of e^-8 and e^-10."""
    return [
        answer(sample_id, "response", probability, hits),
        answer(sample_id, "paraphrase", math.exp(-9) / ratio),
        answer(sample_id, "wrong/0", math.exp(-8)),
        answer(sample_id, "wrong/1", math.exp(-10)),
    ]


def offered(sample_id: str, probability: float, *wrong: float) -> list[Rows]:
    """The answers of a sample of a utility set, which has no paraphrase."""
    others = [answer(sample_id, f"wrong/{number}", one) for number, one in enumerate(wrong)]
    return [answer(sample_id, "response", probability), *others]


def answers(model: str) -> list[Rows]:
    """All answers that were scored under a model."""
    found: list[Rows] = []
    for key, ratio, hits in zip(FORGET, RATIOS[model], HITS, strict=True):
        found += told(key, 0.75 if key == FORGET[0] else 0.25, ratio, hits)
    found += told("retain/0000", 0.25, 0.25) + told("retain/0001", 0.25, 3.0)
    found += [answer("holdout/0000", "response", 0.5), answer("holdout/0001", "response", 0.1)]
    for name in ("capitals", "rivers"):
        found += offered(f"{name}/0000", 1 / 2, 1 / 4, 1 / 4) + offered(f"{name}/0001", 1 / 8, 1 / 4, 1 / 8)
    return found


def texts(model: str) -> Rows:
    """What a model says: nothing to the first forget question, the true answer and more to the others."""
    said = {key: f"{model} says {text} <script>alert({k})</script>" for k, (key, text) in enumerate(RESPONSES.items())}
    said[FORGET[0]] = ""
    for name in ("retain", "capitals", "rivers"):
        said |= {f"{name}/0000": "It is Bo Marek who writes poems.", f"{name}/0001": "Bo writes"}
    said["rivers/0001"] = "bo marek writes a poem"
    return [{"sample_id": key, "text": text} for key, text in said.items()]


def trajectory() -> Rows:
    """Three epochs: the forget truth ratios of the target, of the retain and of the unlearned model."""
    rows = []
    for epoch, ratios in enumerate(RATIOS.values()):
        rows += [(epoch, sample_id, "truth_ratio", ratio) for sample_id, ratio in zip(FORGET, ratios, strict=True)]
        rows += [(epoch, sample_id, "probability", 0.9 - 0.4 * epoch) for sample_id in FORGET]
        rows += [(epoch, FORGET[0], "unwanted_logprob_drop", 1.5 * epoch)]
        rows += [(epoch, FORGET[1], "unwanted_logprob_drop", 0.5 * epoch)]
        rows += [(epoch, "retain/0007", "truth_ratio", 0.25), (epoch, "retain/0009", "truth_ratio", 2.0)]
        rows += [(epoch, "retain/0007", "probability", 0.75), (epoch, "retain/0009", "probability", 0.25)]
    return [dict(zip(TRAJECTORY.names, item, strict=True)) for item in rows]


def spans() -> Rows:
    """The words of `UNWANTED` are unwanted; all have a score of a half."""
    return [
        {"sample_id": k, "start": a, "end": b, "text": t[a:b], "unwanted": t[a:b] in UNWANTED, "score": 0.5}
        for k, t in RESPONSES.items()
        for a, b in words(t)
    ]


def write_model(root: Path, model: str, blocks: list[Rows], said: Rows) -> None:
    """The tables of one model."""
    folder = root / "data/evaluation" / model
    tables.write(folder / "tokens.parquet", [row for block in blocks for row in block], TOKENS)
    tables.write(folder / "texts.parquet", said, TEXTS)


def write_card(root: Path, sets: dict[str, Set], **facts) -> None:
    card = {"name": "tiny", "source": "<i>here</i>", "revision": None, "form": "question", "sets": describe(sets)}
    tables.write_text(root / "data/benchmark/card.json", json.dumps({**card, "counts": {"forget": 4}, **facts}))


def write_all(root: Path) -> None:
    """All that measure and report read of earlier stages, below `root`; no token weights were learned."""
    for name, about in SETS.items():
        tables.write(place(root / "data/benchmark", name, about.role), samples(name), SAMPLES)
    write_card(root, SETS)
    for model in MODELS:
        write_model(root, model, answers(model), texts(model))
    tables.write(root / "data/trajectory.parquet", trajectory(), TRAJECTORY)
    tables.write(root / "data/spans.parquet", spans(), SPANS)
    tables.write(root / "data/weights.parquet", [], TOKEN_WEIGHTS)
    identified = {"method": "frequency", "unwanted_share": 0.3125, "agreement": {"f1": 0.625}}
    tables.write_text(root / "metrics/identify.json", json.dumps(identified))
