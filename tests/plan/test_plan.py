"""The memory plan: counts that are known, sums by hand, the formula of activations against autograd, and bad input."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from in_process import run_stage
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3nTextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from tif.base import tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.benchmarks import SAMPLES
from tif.lm import adapters, models
from tif.lm.adapters import Lora
from tif.lm.batches import encode_pairs
from tif.methods import Needs
from tif.plan import memory as plan
from tif.plan import report as plan_report
from tif.unlearning.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "bench/memory/shapes"
SIZE = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 176, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 3, "pad_token_id": 0,
}  # fmt: skip
LLAMA = LlamaConfig(**SIZE)
ATTENTION = Lora(rank=4, alpha=8.0, dropout=0.0, targets=["q_proj", "k_proj", "v_proj", "o_proj"])
EVERYWHERE = Lora(rank=4, alpha=8.0, dropout=0.0, targets=["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"])


def setup(**changes) -> plan.Setup:
    values = {"dtype": "float32", "precision": "weights", "checkpointing": False, "fsdp": False, "processes": 1}
    return plan.Setup(**values | changes)


@pytest.mark.parametrize(("name", "count"), [("llama_8b", 8_030_261_248), ("llama_70b", 70_553_706_496)])
def test_known_models_have_the_known_number_of_weights(name, count):
    """Those of the published checkpoints."""
    shape = plan.shape_of(AutoConfig.from_pretrained(SHAPES / f"{name}.json"), None)
    assert shape.parameters == shape.trainable == count
    assert shape.vocabulary * shape.hidden == shape.head
    assert shape.blocks == shape.layers * shape.block == count - 2 * shape.head - shape.hidden


def test_a_shape_by_hand():
    shape = plan.shape_of(LLAMA, EVERYWHERE)
    attention, feed_forward, norms = 2 * 64 * 64 + 2 * 64 * 32, 3 * 64 * 176, 2 * 64
    assert shape.block == attention + feed_forward + norms
    assert shape.parameters == 3 * shape.block + 2 * 100 * 64 + 64
    in_and_out = [(64, 64), (64, 32), (64, 176), (64, 176), (176, 64)]
    assert shape.trainable_block == sum(4 * (a + b) for a, b in in_and_out)
    assert shape.trainable == 3 * shape.trainable_block
    assert (shape.adapters, shape.inputs, shape.distinct_inputs) == (5, 4 * 64 + 176, 2 * 64 + 176)
    assert (shape.query, shape.key, shape.heads, shape.layers) == (64, 32, 4, 3)


def test_tied_weights_count_once():
    tied = plan.shape_of(LlamaConfig(**SIZE, tie_word_embeddings=True), None)
    assert plan.shape_of(LLAMA, None).parameters - tied.parameters == tied.head == 6400


def test_the_largest_micro_batch():
    lengths, others = [(10, 4), (30, 8), (20, 9)], [(50, 20), (5, 1)]
    assert plan.load_of(lengths, others, Needs(), 8, 4, 1) == plan.Load(4, 30, 36, table=42, cached=0)
    assert plan.load_of(lengths, others, Needs(), 2, 16, 1).rows == 2, "no more than a step has"
    retain = Needs(retain=True, cached=("retain",))
    assert plan.load_of(lengths, others, retain, 8, 64, 1) == plan.Load(16, 50, 320, table=42, cached=21)
    assert plan.load_of(lengths, others, retain, 8, 64, 4).rows == 4, "processes share a step"
    refusals = Needs(refusals=True, cached=("forget",))
    assert plan.load_of(lengths, others, refusals, 8, 5, 1) == plan.Load(4, 30, 36, table=42, cached=21)
    assert plan.load_of(lengths, others, refusals, 8, 1, 1).rows == 2, "a sample and its refusal are never separated"


def test_a_sum_by_hand():
    """A float32 model of 1,000 weights of which 800 lie in 4 layers; every other size is 1, but a vocabulary of 10."""
    shape = plan.Shape(
        layers=4, hidden=1, intermediate=1, heads=1, query=1, key=1, vocabulary=10, parameters=1000, block=200,
        blocks=800, head=10, adapters=0, rank=0, inputs=0, distinct_inputs=0, trainable=1000, trainable_block=200,
    )  # fmt: skip
    load = plan.Load(rows=2, length=5, answers=3, table=0, cached=0)
    layer = 2 * 12 + 4 * (2 + 2) + 4 + 8 + 4 * 4
    assert plan.layer_bytes(shape, setup()) == layer
    found = plan.memory(shape, setup(), load)
    last, answers = 10 * (4 + 8), 3 * (8 + 8)
    assert found == plan.Memory(4000, 4000, 8000, 0, 10 * 4 * layer + last + answers, working=10 * 4 * 4 + 40)
    assert found.total == sum(asdict(found).values())
    again = plan.memory(shape, setup(checkpointing=True), load)
    assert again == replace(found, activations=10 * (4 * 4 + layer) + last + answers)
    buckets = plan.memory(shape, setup(processes=2), load)
    assert buckets == replace(found, gradients=8000)
    shards = plan.memory(shape, setup(processes=4, fsdp=True), load)
    gathered = 4 * (2 * 200 + 10) + 4 * 2 * 200
    assert shards == replace(found, weights=1000, gradients=1000, optimiser=2000, gathered=gathered)
    mixed = plan.memory(shape, setup(dtype="bfloat16", precision="mixed"), load)
    assert (mixed.weights, mixed.gradients, mixed.optimiser, mixed.gathered) == (4000, 4000, 8000, 2 * 810)
    half = plan.memory(shape, setup(dtype="bfloat16"), load)
    assert (half.weights, half.gradients, half.optimiser, half.gathered) == (2000, 2000, 4000, 0)


def test_logits_are_bounded():
    """For 10,000 times the answer tokens, the same chunk: 2^26 logits, and their copy in the head's dtype."""
    shape = plan.shape_of(AutoConfig.from_pretrained(SHAPES / "llama_8b.json"), ATTENTION)
    for answers in (10_000, 100_000_000):
        load = plan.Load(rows=1, length=1, answers=answers, table=0, cached=0)
        assert plan.chunk_numbers(shape, load) == 2**26
        assert plan.working_bytes(shape, setup(dtype="bfloat16"), load) == 2**26 * 6
    assert plan.chunk_numbers(shape, plan.Load(1, 1, 7, 0, 0)) == 7 * 128256
    assert plan.working_bytes(shape, setup(dtype="bfloat16"), replace(load, whole=True)) == 7 * 2**26 * 4


def test_main_memory():
    shape = plan.shape_of(LLAMA, None)
    load = plan.Load(rows=1, length=1, answers=1, table=1000, cached=300)
    assert plan.kept_bytes(shape, setup(), load) == 1000 * 21 + 300 * 64 * 4
    assert plan.kept_bytes(shape, setup(dtype="bfloat16"), load) == 1000 * 21 + 300 * 64 * 2


def saved_bytes(config: PreTrainedConfig, dtype: torch.dtype, lora: Lora | None, autocast: bool = False) -> float:
    """Bytes a token that autograd keeps for one more decoder layer."""
    tokens, totals = torch.arange(100).reshape(2, 50), []
    for layers in (1, 2):
        config.num_hidden_layers = layers
        if hasattr(config, "layer_types"):
            config.layer_types = ["full_attention"] * layers
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").train()
        if lora:
            adapters.attach(model, lora, seed=0)
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        kept = {}

        def pack(tensor, weights=weights, kept=kept):
            storage = tensor.untyped_storage()
            copy_of_weight = autocast and tensor.dim() == 2 and len(tensor) != tokens.numel()  # counted apart
            if storage.data_ptr() not in weights and not copy_of_weight:
                kept[storage.data_ptr()] = tensor, storage.nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            made = model.base_model(input_ids=tokens, use_cache=False)
        totals.append(sum(size for _, size in kept.values()))
        del made
    return (totals[1] - totals[0]) / tokens.numel()


@pytest.mark.parametrize(
    ("lora", "changes"),
    [
        (None, {}),
        (None, {"dtype": "bfloat16"}),
        (None, {"dtype": "bfloat16", "precision": "mixed"}),
        (ATTENTION, {}),
        (ATTENTION, {"dtype": "bfloat16"}),
        (ATTENTION, {"precision": "mixed"}),
        (EVERYWHERE, {}),
        (EVERYWHERE, {"dtype": "bfloat16"}),
    ],
)
def test_the_formula_is_what_autograd_keeps_of_a_llama(lora, changes):
    given = setup(**changes)
    autocast = given.precision == "mixed"
    found = saved_bytes(LlamaConfig(**SIZE), torch.float32 if autocast else getattr(torch, given.dtype), lora, autocast)
    assert plan.layer_bytes(plan.shape_of(LLAMA, lora), given) == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (MistralConfig(**SIZE), 0.01),
        (Qwen2Config(**SIZE), 0.01),
        (Phi3Config(**SIZE), 0.15),  # one matrix for gate and up
        (Qwen3Config(**SIZE, head_dim=16), 0.25),  # two more norms
        (GPT2Config(n_embd=64, n_head=4, n_inner=176, vocab_size=100, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0), 0.3),
    ],
)
def test_the_formula_for_other_models(config, error):
    """As docs/memory.md states it."""
    expected = plan.layer_bytes(plan.shape_of(config, None), setup())
    found = saved_bytes(config, torch.float32, None)
    assert expected == pytest.approx(found, rel=error)


def settings(**changes) -> Settings:
    values = {
        "epochs": 1, "batch": 8, "micro_batch": 4, "lr": 1e-3, "weight_decay": 0.0, "warmup": 0.0, "max_grad_norm": 1.0,
        "seed": 0, "method": "tpo", "trajectory_retain": 1,
    }  # fmt: skip
    return Settings(**values | changes)


def report(path: Path | None, folder: Path, **changes) -> str:
    """The report in a folder of a pipeline that has not run yet."""
    target, benchmark = folder / "data/models/target", folder / "data/benchmark"
    return plan_report.report(path, target, benchmark, None, settings(**changes), Needs(), "tpo")


def row(text: str, name: str) -> list[str]:
    """The cells of a line of the table."""
    line = next(line for line in text.splitlines() if line.startswith(f"{name}  "))
    return line.removeprefix(name).split()


def test_an_8b_model_on_gpus_of_80_and_24_gib(tmp_path):
    text = report(SHAPES / "llama_8b.json", tmp_path)
    assert "LlamaForCausalLM: 8,030,261,248 weights (bfloat16); 8,030,261,248 are trained" in text
    assert "no tokenizer here: rows of 128 tokens, 64 of them answer, are assumed" in text
    weights = 8_030_261_248 * 2 / 2**30
    assert row(text, "weights") == [f"{weights / n:.2f}" for n in (1, 2, 4, 8)]
    assert row(text, "AdamW's two moments") == [f"{2 * weights / n:.2f}" for n in (1, 2, 4, 8)]
    assert row(text, "gathered or cast weights")[0] == "0.00"
    assert row(text, "fits into 24 GiB") == ["no", "no", "yes", "yes"]
    assert row(text, "fits into 80 GiB") == ["yes"] * 4
    small = report(SHAPES / "llama_8b.json", tmp_path, lora=ATTENTION)
    assert row(small, "fits into 24 GiB") == ["yes"] * 4


def test_a_70b_model_needs_adapters_on_eight_gpus_of_80_gib(tmp_path):
    text = report(SHAPES / "llama_70b.json", tmp_path)
    assert row(text, "fits into 80 GiB with gradient_checkpointing") == ["no"] * 4
    text = report(SHAPES / "llama_70b.json", tmp_path, lora=ATTENTION)
    assert row(text, "fits into 80 GiB with gradient_checkpointing") == ["no", "no", "yes", "yes"]


def test_settings_change_the_plan(tmp_path):
    def total(**changes):
        return float(row(report(SHAPES / "llama_8b.json", tmp_path, **changes), "total")[0])

    assert total(precision="mixed") > 1.9 * total()
    assert total(micro_batch=8) > total() > total(micro_batch=1)
    text = report(SHAPES / "llama_8b.json", tmp_path, processes=2, fsdp=True, gradient_checkpointing=True)
    as_set = next(line for line in text.splitlines() if line.startswith("As set"))
    total = row(text, "total with gradient_checkpointing")[1]
    assert as_set.startswith("As set (processes 2, fsdp true, gradient_checkpointing true): ")
    assert float(as_set.split()[-4]) == pytest.approx(float(total), rel=0.01)


@pytest.fixture
def pipeline(tmp_path, language_model, table, facts) -> Path:
    """A target model and its samples."""
    models.save(tmp_path / "data/models/target", language_model)
    for name, pairs in {"forget": facts[:3], "retain": facts[3:]}.items():
        tables.write(tmp_path / f"data/benchmark/{name}.parquet", table(name, pairs), SAMPLES)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data/none").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        (MambaConfig(vocab_size=100, hidden_size=64, num_hidden_layers=2), "num_attention_heads"),
        (Gemma3nTextConfig(**SIZE, num_kv_shared_layers=0), "intermediate_size"),  # one of each layer
    ],
)
def test_a_model_without_what_the_formula_needs(config, lacks):
    with pytest.raises(UserError, match=rf"--plan: {type(config).__name__} has no single {lacks}, which the formula"):
        plan.shape_of(config, None)


@pytest.mark.parametrize(
    ("missing", "told"), [("chat_template", "chat template"), ("eos_token", "end-of-sequence token")]
)
def test_a_tokenizer_that_cannot_be_used_is_done_without(pipeline, language_model, missing, told):
    """A folder has a tokenizer of its own, and the target's card says how prompts are written."""
    target = pipeline / "data/models/target"
    models.write_card(target, replace(language_model.card, prompt="chat"))
    shutil.copytree(target, pipeline / "other")
    file = pipeline / "other/tokenizer_config.json"
    content = json.loads(file.read_text()) | {"chat_template": "{{ messages }}"}
    del content[missing]
    file.write_text(json.dumps(content))
    text = report(pipeline / "other", pipeline)
    assert f"the tokenizer of {pipeline}/other has no {told}" in text
    assert ": rows of 128 tokens, 64 of them answer, are assumed" in text


def test_a_hub_tokenizer_out_of_reach_is_done_without(pipeline, language_model, stage, monkeypatch):
    """Beside a target model from the hub, with no network, the plan of another shape is made all the same."""
    card = replace(language_model.card, repository="someone/target", revision="0" * 40)
    models.write_card(pipeline / "data/models/target", card)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # as HF_HUB_OFFLINE=1 does at the import
    told = stage(str(SHAPES / "llama_8b.json"))
    assert "no tokenizer in someone/target: " in told
    assert ": rows of 128 tokens, 64 of them answer, are assumed" in told


def test_an_empty_forget_set(pipeline, table):
    tables.write(pipeline / "data/benchmark/forget.parquet", table("forget", []), SAMPLES)
    with pytest.raises(UserError, match=r"--plan: .*benchmark/forget\.parquet has no rows: there is nothing to forget"):
        report(None, pipeline)


@pytest.fixture
def stage(pipeline, own_signals, capsys):
    """Run `stages/unlearn.py --plan` in the folder of the pipeline: what it prints."""

    def plan(*arguments: str) -> str:
        run(lambda: run_stage("unlearn", pipeline, "--plan", *arguments))
        told = capsys.readouterr()
        assert told.err == ""
        return told.out

    return plan


def test_the_stage_plans_for_the_target_model(pipeline, language_model, stage, facts):
    """Rows are counted with the target's tokenizer; nothing is written."""
    before = sorted(pipeline.rglob("*"))
    told = stage()
    count = sum(weight.numel() for weight in language_model.model.parameters())
    assert f"LlamaForCausalLM: {count:,} weights (float32)" in told
    assert "rows of data/benchmark in tokens of data/models/target" in told
    longest = max(len(example.ids) for example in encode_pairs(language_model, [("", *pair) for pair in facts]))
    assert f"rows x {longest} tokens" in told
    assert "MiB a GPU" in told
    assert sorted(pipeline.rglob("*")) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--plan: .*config.json is missing; give a config.json, or a folder that has one"),
        ("{", "--plan: .*config.json is no configuration of a known language model"),
        ("[]", "is no configuration of a known language model"),
        ('{"model_type": "unheard"}', "is no configuration of a known language model: .*unheard"),
        ('{"hidden_size": 8}', "is no configuration of a known language model"),
        ('{"model_type": "t5"}', "no causal language model can be made of config.json"),
        ('{"model_type": "llama", "hidden_size": 0}', "no causal language model can be made of config.json"),
        ('{"model_type": "x", "auto_map": {"AutoConfig": "c.C"}}', "is no configuration of a known language model"),
    ],
)
def test_a_configuration_that_is_none(tmp_path, content, message):
    if content:
        (tmp_path / "config.json").write_text(content)
    for path in (tmp_path / "config.json", tmp_path):
        with pytest.raises(UserError, match=message) as error:
            report(path, tmp_path)
        assert "\n" not in str(error.value)


def test_a_target_that_is_not_there_yet(tmp_path):
    with pytest.raises(UserError, match=r"target/tif\.json is missing; `dvc repro` makes"):
        report(None, tmp_path)


def test_bad_input_of_the_stage_is_one_line(stage):
    with pytest.raises(SystemExit) as ended:
        stage("nowhere")
    assert ended.value.code == "error: --plan: nowhere is missing; give a config.json, or a folder that has one"


@pytest.mark.slow
def test_measured_memory_is_within_a_quarter():
    """Training steps in fresh processes; see bench/memory/plan.py."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench/memory/plan.py"), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 8
    assert all(abs(row["error"]) < 0.25 for row in rows.values()), {name: row["error"] for name, row in rows.items()}
