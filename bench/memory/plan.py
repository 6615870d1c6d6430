"""The memory plan against measured memory: training steps on the CPU, each case in a fresh process.

    python bench/memory/plan.py

Peak memory is the growth of the process's maximum resident size over all of the case: the model is built, two
optimiser steps of two micro-batches each are made with TPO and AdamW. What imports and first calls take is left out: a
very small model is trained before.

The plan counts numbers that exist. `measured` is taken with an allocator that gives memory back at once
(MALLOC_MMAP_THRESHOLD_=65536); `usual` is what glibc holds when it is left alone, gaps between allocations included.
"""

import argparse
import json
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from resident import AT_ONCE, growth
from transformers import LlamaConfig, LlamaForCausalLM

from tif.lm import adapters
from tif.lm.batches import Example
from tif.lm.models import Card, LanguageModel
from tif.methods import Needs, tpo
from tif.plan import memory as plan
from tif.training import Memory, Optimisation
from tif.training.loop import Run, Task, train
from tif.training.memory import fitted

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
METHOD = tpo.Settings(beta=0.2, lambda_=0.05, retain=0.0)


@dataclass(frozen=True)
class Case:
    """What is trained: a Llama, and micro-batches of `rows` samples of `length` tokens, `answer` of them answer."""

    name: str
    layers: int
    width: int
    vocabulary: int
    rows: int
    length: int
    answer: int
    dtype: str = "float32"
    checkpointing: bool = False
    rank: int = 0
    precision: str = "weights"

    @property
    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=-(-self.width * 8 // 3 // 32) * 32,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            num_key_value_heads=max(1, self.width // 128),
            tie_word_embeddings=True,
            dtype=self.dtype,
        )

    @property
    def memory(self) -> Memory:
        lora = adapters.Lora(rank=self.rank, alpha=16.0, dropout=0.0, targets=ATTENTION) if self.rank else None
        return Memory(lora=lora, gradient_checkpointing=self.checkpointing, precision=self.precision)


SMALL = Case("a: 4 layers x 256, short rows", 4, 256, 32000, rows=16, length=80, answer=40)
DEEP = Case("b: 8 layers x 512, long rows", 8, 512, 8000, rows=4, length=512, answer=256)
CASES = (
    SMALL,
    replace(SMALL, name="a, bfloat16", dtype="bfloat16"),
    DEEP,
    replace(DEEP, name="b, checkpointing", checkpointing=True),
    replace(DEEP, name="b, bfloat16", dtype="bfloat16"),
    replace(DEEP, name="b, mixed precision", dtype="bfloat16", precision="mixed"),
    replace(DEEP, name="b, LoRA of rank 8", rank=8),
    replace(DEEP, name="b, LoRA, checkpointing", rank=8, checkpointing=True),
)


def planned(case: Case) -> plan.Memory:
    """What tif.plan.memory says."""
    load = plan.load_of([(case.length, case.answer)], [], Needs(), 2 * case.rows, case.rows, processes=1)
    setup = plan.Setup(case.dtype, case.precision, case.checkpointing, fsdp=False, processes=1)
    return plan.memory(plan.shape_of(case.config, case.memory.lora), setup, load)


def run(case: Case) -> None:
    """Build the model and train it."""
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(case.config, attn_implementation="sdpa")
    card = Card(prompt="plain", date="", dtype=case.dtype, attention="sdpa")
    unwanted = torch.arange(case.answer) % 3 == 0
    examples = [
        Example(
            sample_id=f"forget/{index:04}",
            ids=torch.randint(case.vocabulary, (case.length,)),
            start=case.length - case.answer,
            offsets=[],
            forget=True,
            unwanted=unwanted,
            reference_logit=torch.zeros(case.answer),
        )
        for index in range(2 * case.rows)
    ]
    settings = Optimisation(
        epochs=2,
        batch=2 * case.rows,
        micro_batch=case.rows,
        lr=1e-5,
        weight_decay=0.0,
        warmup=0.0,
        max_grad_norm=1.0,
        seed=0,
    )
    language_model = LanguageModel(model, None, card)
    objective = partial(tpo.objective, settings=METHOD)
    with fitted(model, case.memory, seed=0):
        train(language_model, Task(examples, objective), settings, Run(memory=case.memory))


def compare(case: Case) -> dict[str, float]:
    """Planned and measured MiB of a case, and the error of the plan as a share of what was measured."""
    warm_up = replace(case, layers=1, width=128, vocabulary=500, rows=1, length=16, answer=8)
    found = growth(run, (case,), (warm_up,), AT_ONCE)
    parts = planned(case)
    total = parts.total / 2**20
    usual = growth(run, (case,), (warm_up,), {})
    return {"planned": total, "measured": found, "error": total / found - 1, "usual": usual} | {
        name: value / 2**20 for name, value in asdict(parts).items()
    }


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    rows = {case.name: compare(case) for case in CASES}
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    names = list(next(iter(rows.values())))
    print(f"{'MiB':<32}" + "".join(f"{name:>12}" for name in names))
    for case, row in rows.items():
        cells = (f"{value:>12.0%}" if name == "error" else f"{value:>12.0f}" for name, value in row.items())
        print(f"{case:<32}" + "".join(cells))


if __name__ == "__main__":
    main()
