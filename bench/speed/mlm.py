"""Words a second of the identifier `mlm`, against masking sentence by sentence through transformers' `fill-mask`.

    python bench/speed/mlm.py
    python bench/speed/mlm.py --layers 2 --width 128 --rows 40

- tif: what the identify stage runs, `tif.identify.mlm.marking.mark`, on a model that is open already.
- pipeline: one call of the `fill-mask` pipeline per row, with one text per word; the pipeline's default batch of 1.
- pipeline-row: the same calls, each with all texts of the row in one padded batch.

All do the same work on paper: the mode published for TOFU but for the unit, which is the Unicode word (question and
answer as context, case ignored, threshold 0), every word of every answer with a letter or digit, the same model object
in float32, the same threads. The script stops unless the labels of every word agree in every round; the first round is
before any timing. A word whose two likeliest tokens are less than 1e-5 apart in logits could go either way by rounding
alone: their number is printed, and they are not left out.

The versions take turns round by round, so that other load on the machine hits all of them alike. Seconds are medians
over the timed rounds, without loading the model. Only ratios mean something on another machine.

The model is RoBERTa in the shape of distilroberta-base (6 layers x 768, a head over 50,265 tokens) with random weights,
except that the last layer of its head is fitted to every second word of the rows, so that both labels occur. The rows
are the first of the forget set of the benchmark `fictitious`; the tokenizer is a byte-level BPE trained on its retain
set. What the ratio owes to what is printed too: words that no single token stands for, and words that share a masked
text, cost tif no run of the model.

Needs torch, transformers and the package tif with what it imports; no DVC, no network.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from torch import Tensor
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM, pipeline

from tif.base import params
from tif.base.params import Compute
from tif.benchmarks import SAMPLES, fictitious
from tif.identify import mlm
from tif.identify.mlm.marking import mark, vocabulary
from tif.identify.mlm.masked import MaskedModel, masked_model
from tif.lm.models import prepare
from tif.words import is_punctuation, words

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
SETTINGS = mlm.Settings(
    model="", revision="", words="unicode", context="question_answer", case_sensitive=False, threshold=0.0
)
TIE = 1e-5  # logits


@dataclass(frozen=True)
class Setup:
    """What is measured: a RoBERTa of `layers` x `width`, on `rows` rows, in `rounds` timed rounds."""

    layers: int
    width: int
    vocabulary: int
    rows: int
    steps: int
    rounds: int
    threads: int


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE in RoBERTa's form: the mask token takes the space before it."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    mask = AddedToken("<mask>", lstrip=True, special=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "<pad>", "</s>", mask],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, mask_token=mask, model_max_length=512)


def build(setup: Setup, texts: list[str], rows: list[dict]) -> MaskedModel:
    """A random encoder with a head that expects every second word of `rows`; `texts` make the tokenizer."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(texts, setup.vocabulary)
    config = RobertaConfig(
        vocab_size=setup.vocabulary,
        hidden_size=setup.width,
        intermediate_size=4 * setup.width,
        num_hidden_layers=setup.layers,
        num_attention_heads=max(1, setup.width // 64),
        max_position_embeddings=514,
        type_vocab_size=1,
        tie_word_embeddings=False,
    )
    model = RobertaForMaskedLM(config).eval()
    tokens_of = vocabulary(tokenizer, SETTINGS.case_sensitive)
    known = [
        (text, tokens[-1])
        for row in rows
        for word, text in masked_texts(row, tokenizer.mask_token)
        if (tokens := tokens_of.get(word.casefold()))
    ][::2]
    states = []
    with torch.no_grad():
        for text, _ in known:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            states.append(model.roberta(ids).last_hidden_state[ids == tokenizer.mask_token_id])
    labels = torch.tensor([token for _, token in known])
    fit_head(model.lm_head, torch.cat(states), labels, len(tokenizer), setup.steps)
    return masked_model("random", model, tokenizer)


def masked_texts(row: dict, mask: str) -> list[tuple[str, str]]:
    """Each word of the answer that has a letter or digit, and question and answer with a mask in its place."""
    answer = row["response"]
    return [
        (answer[a:b], f"{row['prompt']} {answer[:a]}{mask}{answer[b:]}")
        for a, b in words(answer)
        if not is_punctuation(answer[a:b])
    ]


def fit_head(head: torch.nn.Module, states: Tensor, labels: Tensor, known: int, steps: int) -> None:
    """Fit the head's last layer to states [n, d] and labels [n]; tokens from `known` on are never expected."""
    with torch.no_grad():
        features = head.layer_norm(torch.nn.functional.gelu(head.dense(states)))
        mean, spread = features.mean(0), features.std(0)
        features = (features - mean) / spread
    weight = torch.zeros(known, features.shape[1], requires_grad=True)
    optimiser = torch.optim.Adam([weight], lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(features @ weight.T, labels).backward()
        optimiser.step()
    with torch.no_grad():
        head.decoder.weight[:known] = weight / spread
        head.decoder.bias[:known] = -(weight / spread) @ mean
        head.decoder.bias[known:] = -100.0


def naive(masked: MaskedModel, rows: list[dict], batched: bool, top_k: int = 1) -> tuple[list[bool], int]:
    """Whether each word is unwanted, and the number of near ties (0 unless top_k is 2), through the pipeline."""
    fill = pipeline("fill-mask", model=masked.model, tokenizer=masked.tokenizer, top_k=top_k, device="cpu")
    unwanted, ties = [], 0
    for row in rows:
        asked = masked_texts(row, masked.tokenizer.mask_token)
        found = fill([text for _, text in asked], batch_size=len(asked) if batched else 1)
        for (word, _), guesses in zip(asked, [found] if len(asked) == 1 else found, strict=True):
            unwanted.append(guesses[0]["token_str"].strip().casefold() != word.casefold())
            if top_k > 1:
                ties += guesses[1]["score"] > guesses[0]["score"] * (1 - TIE)
    return unwanted, ties


def targeted(masked: MaskedModel, forget: pa.Table) -> tuple[list[bool], dict[str, int]]:
    """The same from the identifier, and its counts."""
    found = mark(masked, forget, SETTINGS, progress=False)
    return [row["unwanted"] for row in found.rows if not is_punctuation(row["text"])], dict(found.counts)


def check(expected: list[bool], found: list[bool], version: str) -> None:
    """Exits unless the labels of all words agree."""
    if expected != found:
        differing = sum(a != b for a, b in zip(expected, found, strict=True))
        sys.exit(f"error: {version} labels {differing} of {len(expected)} words differently from the pipeline")


def measure(setup: Setup) -> dict:
    """Build, compare the labels, and time all versions in turn."""
    prepare(Compute(device="cpu", threads=setup.threads))
    built, _ = fictitious.build(params.read("fictitious", fictitious.Settings, PARAMS), None)
    rows = built["forget"][: setup.rows]
    masked = build(setup, [f"{row['prompt']} {row['response']}" for row in built["retain"]], rows)
    forget = pa.Table.from_pylist(rows, schema=SAMPLES)
    expected, ties = naive(masked, rows, batched=False, top_k=2)
    found, counts = targeted(masked, forget)
    check(expected, found, "tif")
    versions: dict[str, Callable[[], list[bool]]] = {
        "pipeline": lambda: naive(masked, rows, batched=False)[0],
        "pipeline-row": lambda: naive(masked, rows, batched=True)[0],
        "tif": lambda: targeted(masked, forget)[0],
    }
    seconds: dict[str, list[float]] = {version: [] for version in versions}
    for _ in range(setup.rounds):
        for version, label in versions.items():
            began = time.perf_counter()
            labels = label()
            seconds[version].append(time.perf_counter() - began)
            check(expected, labels, version)
    return {
        "setup": asdict(setup),
        "rows": len(rows),
        "words": len(expected),
        "unwanted_share": sum(expected) / len(expected),
        "ties": ties,
        **counts,
        "tokenizer": len(masked.tokenizer),
        "versions": summary(seconds, len(expected)),
    }


def summary(seconds: dict[str, list[float]], count: int) -> dict[str, dict[str, float]]:
    """Per version: median, least and greatest seconds, words a second, and how many times faster tif is."""
    median = {version: statistics.median(some) for version, some in seconds.items()}
    return {
        version: {
            "seconds": median[version],
            "seconds_min": min(some),
            "seconds_max": max(some),
            "words_per_second": count / median[version],
            "tif_over_it": median[version] / median["tif"],
        }
        for version, some in seconds.items()
    }


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Words a second of `mlm` against the fill-mask pipeline.")
    defaults = Setup(layers=6, width=768, vocabulary=50265, rows=20, steps=60, rounds=3, threads=2)
    for name, value in asdict(defaults).items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = vars(parser.parse_args())
    as_json = arguments.pop("json")
    for name, value in arguments.items():
        if value < (0 if name == "steps" else 1):
            parser.error(f"--{name} must be at least {0 if name == 'steps' else 1}, not {value}")
    found = measure(Setup(**arguments))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    versions = found.pop("versions")
    print(", ".join(f"{name} {value}" for name, value in found.pop("setup").items()))
    print(", ".join(f"{name} {round(value, 3)}" for name, value in found.items()))
    print(f"{'version':<14}{'seconds':>9}{'(min':>9}{'max)':>9}{'words/s':>9}{'tif x':>8}")
    for version, row in versions.items():
        print(
            f"{version:<14}{row['seconds']:>9.2f}{row['seconds_min']:>9.2f}{row['seconds_max']:>9.2f}"
            f"{row['words_per_second']:>9.1f}{row['tif_over_it']:>8.2f}"
        )


if __name__ == "__main__":
    main()
