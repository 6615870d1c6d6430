"""Seconds and peak memory of one TPO optimiser step, against two naive versions of the same step.

    python bench/speed/step.py --layers 4 --width 256
    python bench/speed/step.py --layers 6 --width 768 --steps 3
    python bench/speed/step.py --methods                 # a row for every method: see step_methods.py

- tif: what the unlearn stage runs, `tif.training.loop.train` with `tif.methods.tpo`, the Trainer's own work included.
- a: every row padded to 500 tokens, micro-batches of 4, two policy forwards on the same tokens, the reference model
  in memory, logits of every position over the whole vocabulary.
- b: every row padded to the longest, the whole batch in one policy forward, the reference model's forward in the
  loop, logits of every position over the whole vocabulary.
- b-micro: b, but in micro-batches as large as those of tif, each padded to its own longest row. It shows what is left
  of the difference to b when micro-batches alone are given to it.

All of them do the same work on paper: the same initial weights, samples, reference logits, gradient clipping, fused
AdamW and learning rates. The script stops unless their losses agree to a relative 1e-4 at every step; the first
comparison is at the warm-up step, before any update and before any timing. The reference is a second random
initialisation, so that margins are not 0.

Every version runs in a fresh process; the processes take turns step by step, so that other load on the machine hits
all of them alike. Seconds are medians over the timed steps and end with the optimiser's update; those of tif also
hold the collation of the batch, those of the naive versions do not. Peak memory is the growth of the process's
maximum resident size since after the imports, before any model is built: weights, gradients, optimiser state and the
naive versions' reference model all count.

Rows are seeded random tokens of real lengths: prompt and answer lengths follow the quantiles of TOFU's forget10 (400
rows; the pipeline's plain prompt, a byte-level BPE of 8,192 tokens trained on TOFU), 62 tokens a row on average. A
share of .3 of the answer tokens is unwanted, as in the annotation published with arXiv 2506.03142.

Needs torch, transformers and the package tif with what it imports; no benchmark, no DVC, no network.
"""

import argparse
import json
import statistics
from dataclasses import asdict, replace
from functools import partial
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import get_linear_schedule_with_warmup
from turns import CLIP, LEARNING_RATE, Measured, Setup, Turns, build, rows, take_turns, train_in_turns

from tif.base.params import Compute
from tif.lm.batches import Example, collate
from tif.lm.logits import answer_tokens
from tif.lm.models import Card, LanguageModel, prepare
from tif.methods import tpo
from tif.training.loop import Task

VERSIONS = ("a", "b", "b-micro", "tif")
BETA, LAMBDA = 0.2, 0.05


@torch.no_grad()
def reference_logits(setup: Setup) -> list[list[float]]:
    """What the reference stage precomputes: the raw logit of every answer token of every row."""
    model = build(setup, seed=1)
    return [answer_tokens(model, collate([example])).logit().tolist() for example in rows(setup)]


def run_tif(setup: Setup, reference: list[list[float]], turns: Turns) -> None:
    """The training loop of the unlearn stage."""
    prepare(Compute(device="cpu", threads=setup.threads))
    examples = [
        replace(example, reference_logit=torch.tensor(logit))
        for example, logit in zip(rows(setup), reference, strict=True)
    ]
    card = Card(prompt="plain", date="", dtype="float32", attention="sdpa")
    language_model = LanguageModel(build(setup, seed=0), None, card)
    method = tpo.Settings(beta=BETA, lambda_=LAMBDA, retain=0.0)
    train_in_turns(setup, turns, language_model, Task(examples, partial(tpo.objective, settings=method)))


def run_naive(setup: Setup, micro_batch: int, length: int | None, forwards: int, turns: Turns) -> None:
    """A plain training loop with both models in memory. length: see `pad`. forwards: of the policy, 1 or 2."""
    examples = rows(setup)
    parts = [pad(examples[i : i + micro_batch], length) for i in range(0, len(examples), micro_batch)]
    policy, reference = build(setup, seed=0).train(), build(setup, seed=1).eval()
    optimiser = torch.optim.AdamW(policy.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimiser, 0, setup.steps + 1)
    for _ in range(setup.steps + 1):
        total = 0.0
        for ids, mask, unwanted, general in parts:
            inputs = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1], "use_cache": False}
            with torch.no_grad():
                reference_rows = reference(**inputs).logits
            logits = policy(**inputs).logits
            second = policy(**inputs).logits if forwards == 2 else logits
            loss = naive_tpo(logits, second, reference_rows, ids[:, 1:], unwanted, general).sum() / setup.batch
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), CLIP)
        optimiser.step()
        turns.updated()
        schedule.step()
        optimiser.zero_grad()
        turns.done(total)


def naive_tpo(
    logits: Tensor, second: Tensor, reference: Tensor, labels: Tensor, unwanted: Tensor, general: Tensor
) -> Tensor:
    """[B] TPO loss per sample, from logits [B, L, V], labels [B, L] and masks of 0 and 1 [B, L] (arXiv 2506.03142)."""
    chosen = labels.unsqueeze(-1)
    fall = (reference.gather(-1, chosen) - logits.gather(-1, chosen)).squeeze(-1)
    logprob = F.log_softmax(second, dim=-1).gather(-1, chosen).squeeze(-1)
    count = unwanted.sum(1)
    margin = (unwanted * fall).sum(1) / count.clamp(min=1)
    preference = -(2 / BETA) * F.logsigmoid(BETA * margin) * (count > 0)
    return preference + LAMBDA * -(general * logprob).sum(1)


def pad(examples: list[Example], length: int | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token ids and attention mask [B, L]; masks of the unwanted and of the general labels [B, L - 1].

    L is `length`, or the longest row where that is None.
    """
    size = length or max(len(example.ids) for example in examples)

    def stack(parts: list[Tensor], columns: int) -> Tensor:
        padded = pad_sequence(parts, batch_first=True)
        return F.pad(padded, (0, columns - padded.shape[1]))

    before = [torch.zeros(example.start - 1) for example in examples]
    return (
        stack([example.ids for example in examples], size),
        stack([torch.ones(len(example.ids), dtype=torch.int64) for example in examples], size),
        stack([torch.cat([zeros, e.unwanted.float()]) for zeros, e in zip(before, examples)], size - 1),
        stack([torch.cat([zeros, (~e.unwanted).float()]) for zeros, e in zip(before, examples)], size - 1),
    )


def work(version: str, setup: Setup, pipe: Connection) -> None:
    """Body of a process: receive the reference logits, then do all steps of one version."""
    torch.set_num_threads(setup.threads)
    reference = pipe.recv()
    turns = Turns(pipe)
    if version == "tif":
        run_tif(setup, reference, turns)
    elif version == "a":
        run_naive(setup, micro_batch=4, length=500, forwards=2, turns=turns)
    else:
        size = setup.micro_batch if version == "b-micro" else setup.batch
        run_naive(setup, micro_batch=size, length=None, forwards=1, turns=turns)


def summary(steps: dict[str, list[Measured]]) -> dict[str, dict[str, float]]:
    """Per version: median, least and greatest seconds of the timed steps, peak MiB, ratios to tif, first loss."""
    timed = {version: [step.seconds for step in done[1:]] for version, done in steps.items()}
    median = {version: statistics.median(seconds) for version, seconds in timed.items()}
    peak = {version: done[-1].peak_mib for version, done in steps.items()}
    return {
        version: {
            "seconds": median[version],
            "seconds_min": min(timed[version]),
            "seconds_max": max(timed[version]),
            "seconds_over_tif": median[version] / median["tif"],
            "peak_mib": peak[version],
            "tif_peak_share": peak["tif"] / peak[version],
            "loss": steps[version][0].loss,
        }
        for version in VERSIONS
    }


def print_table(setup: Setup, found: dict[str, dict[str, float]]) -> None:
    """The versions of a TPO step, one a line."""
    print(", ".join(f"{name} {value}" for name, value in asdict(setup).items()))
    print(f"{'version':<8}{'s/step':>9}{'(min':>9}{'max)':>9}{'x tif':>8}{'peak MiB':>10}{'tif/it':>8}{'loss':>11}")
    for version, row in found.items():
        print(
            f"{version:<8}{row['seconds']:>9.3f}{row['seconds_min']:>9.3f}{row['seconds_max']:>9.3f}"
            f"{row['seconds_over_tif']:>8.2f}{row['peak_mib']:>10.0f}{row['tif_peak_share']:>8.2f}{row['loss']:>11.5f}"
        )


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description="Time and memory of an optimiser step against naive versions.")
    defaults = Setup(layers=4, width=256, vocabulary=32000, batch=32, micro_batch=16, steps=5, threads=2)
    for name, value in asdict(defaults).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--methods", nargs="*", metavar="NAME", help="these methods, or all, each against one version")
    arguments = vars(parser.parse_args())
    as_json, methods = arguments.pop("json"), arguments.pop("methods")
    for name, value in arguments.items():
        if value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    setup = Setup(**arguments)
    if methods is not None:
        import step_methods  # not at the top: it takes longer to load than everything else here

        step_methods.main(setup, methods, as_json)
        return
    versions = {version: (work, (version,)) for version in VERSIONS}
    found = summary(take_turns(setup, versions, "b", lambda: reference_logits(setup)))
    if as_json:
        print(json.dumps({"setup": asdict(setup), "versions": found}, indent=2))
    else:
        print_table(setup, found)


if __name__ == "__main__":
    main()
