"""`python stages/unlearn.py --plan`: the memory plan of the settings, for the target model or any config.json."""

from dataclasses import fields, replace
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from tif.base import tables
from tif.base.errors import UserError, first_line
from tif.benchmarks import SAMPLES
from tif.lm import models
from tif.lm.batches import encode_pairs
from tif.lm.models import LanguageModel
from tif.methods import Needs
from tif.plan import memory as plan
from tif.reference.table import encode_answers, triples
from tif.training.loop import Optimisation

ASSUMED = [(128, 64)] * 400  # tokens and answer tokens of samples that cannot be counted
NAMES = {
    "weights": "weights",
    "gradients": "gradients",
    "optimiser": "AdamW's two moments",
    "gathered": "gathered or cast weights",
    "activations": "activations",
    "working": "logits chunk, or a layer's backward pass",
}


def report(
    config_path: Path | None,
    target: Path,
    benchmark: Path,
    source: Path | None,
    settings: Optimisation,
    needs: Needs,
    title: str,
) -> str:
    """The plan as text.

    config_path: a config.json or its folder; None for that of the target model's folder `target`. benchmark: folder of
    the samples. source: the folder `model.source`. settings: `tif.unlearning.run.Settings`. title: names the method.
    Raises UserError when there is no such file, or no language model of that architecture.
    """
    card = models.read_card(target) if config_path is None or (target / "tif.json").exists() else None
    if config_path is None:
        name, revision = models.located(target, card, source)
        config, dtype = _config(name, revision), card.dtype
    else:
        file = config_path / "config.json" if config_path.is_dir() else config_path
        if not file.is_file():
            raise UserError(f"--plan: {file} is missing; give a config.json, or a folder that has one")
        config = _config(str(file), None)
        dtype = str(config.dtype).removeprefix("torch.")
        dtype = dtype if dtype in plan.BYTES else "float32"
        card = card or models.Card("plain", "", dtype, "sdpa")
        if (file.parent / "tokenizer.json").exists():
            name, revision = str(file.parent), None
        else:
            name, revision = models.located(target, card, source) if target.exists() else (None, None)
    forget, retain, said = _lengths(name, revision, card, benchmark, needs)
    shape = plan.shape_of(config, settings.lora)
    setup = plan.Setup(
        dtype=dtype,
        precision=settings.precision,
        checkpointing=settings.gradient_checkpointing,
        fsdp=settings.fsdp,
        processes=settings.processes,
        dropout=bool(settings.lora and settings.lora.dropout),
    )

    def load(processes: int) -> plan.Load:
        return plan.load_of(forget, retain, needs, settings.batch, settings.micro_batch, processes)

    return "\n".join(
        [
            f"{_kind(config)}: {shape.parameters:,} weights ({dtype}); {shape.trainable:,} are trained",
            f"{title}, precision {setup.precision}; {said}",
            *_table(shape, setup, load),
            *_summary(shape, setup, load(settings.processes)),
        ]
    )


def _kind(config: PreTrainedConfig) -> str:
    return (config.architectures or [config.model_type])[0]


def _config(name: str, revision: str | None) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False).get_text_config(
            decoder=True
        )
    except Exception as error:  # a damaged file raises whatever its contents lead to
        raise UserError(f"--plan: {name} is no configuration of a known language model: {first_line(error)}") from None


def _lengths(name: str | None, revision: str | None, card: models.Card, benchmark: Path, needs: Needs):
    """Tokens and answer tokens of forget and retain samples, and a line that says where they are from."""
    if name is None or not (benchmark / "forget.parquet").exists():
        return _assumed(f"no {'tokenizer' if name is None else 'benchmark'} here")
    try:
        tokenizer = models.open_tokenizer(name, revision)
        models.check_tokenizer(name, tokenizer, card.prompt)
    except UserError as error:
        return _assumed(str(error))
    coder = LanguageModel(None, tokenizer, card)
    forget, retain = (tables.read(benchmark / f"{split}.parquet", SAMPLES) for split in ("forget", "retain"))
    if not len(forget):
        raise UserError(f"--plan: {benchmark}/forget.parquet has no rows: there is nothing to forget")
    answers, refusals = encode_answers(coder, forget)
    pairs = [answers, refusals] if needs.refusals else [answers]
    longest = [max(group, key=lambda example: len(example.ids)) for group in zip(*pairs, strict=True)]
    sizes = [
        [(len(example.ids), len(example.ids) - example.start) for example in examples]
        for examples in (longest, encode_pairs(coder, triples(retain)))
    ]
    return *sizes, f"rows of {benchmark} in tokens of {name}"


def _assumed(reason: str):
    length, answer = ASSUMED[0]
    return ASSUMED, ASSUMED, f"{reason}: rows of {length} tokens, {answer} of them answer, are assumed"


def _table(shape: plan.Shape, setup: plan.Setup, load) -> list[str]:
    """One column for every number of GPUs that share weights, with gradient checkpointing off and on."""
    kept, again = (
        [plan.memory(shape, replace(plan.sharded(setup, n), checkpointing=on), load(n)) for n in plan.GPUS]
        for on in (False, True)
    )
    unit, size = ("GiB", plan.GIB) if kept[0].total >= plan.GIB else ("MiB", 2**20)
    lines = [f"\n{f'{unit} a GPU, sharded over':<44}" + "".join(f"{f'{n} GPU':>9}" for n in plan.GPUS)]

    def line(name: str, values: list[int]) -> None:
        lines.append(f"{name:<44}" + "".join(f"{value / size:>9.2f}" for value in values))

    for field in fields(plan.Memory):
        line(NAMES[field.name], [getattr(memory, field.name) for memory in kept])
        if field.name == "activations":
            line("  with gradient_checkpointing", [memory.activations for memory in again])
    for name, column in (("total", kept), ("total with gradient_checkpointing", again)):
        line(name, [memory.total for memory in column])
    for gpu in plan.SIZES:
        for name, column in (("", kept), (" with gradient_checkpointing", again)):
            fits = ["yes" if memory.total <= plan.USABLE * gpu * plan.GIB else "no" for memory in column]
            lines.append(f"{f'fits into {gpu} GiB{name}':<44}" + "".join(f"{answer:>9}" for answer in fits))
    return lines


def _summary(shape: plan.Shape, setup: plan.Setup, load: plan.Load) -> list[str]:
    memory = plan.memory(shape, setup, load)
    chunk, kept = plan.chunk_numbers(shape, load), plan.kept_bytes(shape, setup, load)
    return [
        f"\nAs set (processes {setup.processes}, fsdp {str(setup.fsdp).lower()}, gradient_checkpointing"
        f" {str(setup.checkpointing).lower()}): {memory.total / plan.GIB:.3g} GiB a process.",
        f"Largest micro-batch: {load.rows} rows x {load.length} tokens, at most {load.answers:,} answer tokens;"
        f" logits of {chunk // shape.vocabulary:,} of them at a time, {chunk * 4 / 2**20:.0f} MiB in float32.",
        f"Main memory of each process: {load.table:,} reference values and {load.cached:,} cached hidden states,"
        f" {kept / 2**20:.1f} MiB.",
        f"A GPU is said to fit where the total is at most {plan.USABLE:.0%} of its memory.",
    ]
