"""Adapters: what they train, what is saved of them, which model they belong to, and the stage that evaluates them."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from forgetting import TPO, data_of, settings
from in_process import run_stage
from peft import PeftModel
from ruamel.yaml import YAML
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

from tif.base import tables
from tif.base.errors import UserError
from tif.base.params import validate
from tif.benchmarks import SAMPLES, describe, place, questions
from tif.evaluation import TEXTS, TOKENS
from tif.evaluation import Settings as Evaluate
from tif.evaluation.evaluate import evaluate
from tif.lm import adapters, models
from tif.lm.adapters import Lora
from tif.lm.models import LanguageModel
from tif.methods import rmu, tpo
from tif.runs import checkpoints
from tif.runs.processes import Group
from tif.training.loop import Run
from tif.unlearning.run import Method, unlearn
from tif.unlearning.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
LORA = Lora(rank=4, alpha=8, dropout=0.25, targets=["q_proj", "mlp.up_proj"])
IDS = torch.arange(1, 40)[None]


@pytest.fixture(scope="module")
def target(tmp_path_factory, tiny) -> Path:
    """The model folder data/models/target of a pipeline."""
    path = tmp_path_factory.mktemp("pipeline") / "data/models/target"
    models.save(path, tiny())
    return path


def trained(
    language_model: LanguageModel, forget: pa.Table, retain: pa.Table, kept=None, method=tpo, chosen=TPO, **changes
):
    """Unlearning with adapters, in place. Two steps of two samples, unless `changes` says otherwise."""
    how = settings(**{"epochs": 1, "batch": 2, "lr": 0.01, "lora": LORA, **changes})
    return unlearn(language_model, data_of(language_model, forget, retain), Method(method, chosen), how, Run(), kept)


@pytest.fixture(scope="module")
def adapted(target, forget, retain) -> LanguageModel:
    """The target model with a trained adapter, saved beside it as `unlearned`."""
    language_model = models.load(target, None, "cpu")
    trained(language_model, forget, retain)
    language_model = replace(language_model, card=models.of_adapter(language_model.card, target))
    models.save(target.parent / "unlearned", language_model)
    return language_model


@pytest.fixture
def copy(target, adapted, tmp_path) -> Path:
    """A copy of the pipeline's models; the adapter's folder in it."""
    shutil.copytree(target.parent, tmp_path / "models")
    return tmp_path / "models/unlearned"


@torch.no_grad()
def test_a_new_adapter_changes_no_output(tiny):
    model = tiny().model
    before = model(IDS).logits
    adapters.attach(model, LORA, seed=0)
    assert torch.equal(model(IDS).logits, before)
    assert not any(module.training for module in model.modules())
    changed = {name for name, weight in model.named_parameters() if weight.requires_grad}
    layers = [
        f"model.layers.{i}.{name}.lora_{x}"
        for i in (0, 1)
        for name in ("self_attn.q_proj", "mlp.up_proj")
        for x in "AB"
    ]
    assert changed == {f"{name}.default.weight" for name in layers}


def test_its_seed_is_that_of_unlearning_and_of_nothing_else(tiny):
    made = []
    for seed, state in ((0, 1), (0, 2), (3, 1)):
        model = tiny().model
        torch.manual_seed(state)
        adapters.attach(model, LORA, seed)
        made.append(model.model.layers[0].self_attn.q_proj.lora_A.default.weight)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_training_changes_the_adapter_alone(tiny, forget, retain):
    language_model = tiny()
    before = {name: value.clone() for name, value in language_model.model.state_dict().items()}
    done = trained(language_model, forget, retain, epochs=3)
    assert done.log[-1]["lpl"] < done.log[0]["lpl"]
    after = language_model.model.state_dict()
    frozen = {name.replace(".base_layer", ""): value for name, value in after.items() if "lora_" not in name}
    assert frozen.keys() == before.keys()
    assert all(torch.equal(frozen[name], before[name]) for name in before)
    assert all(after[name].any() for name in after if "lora_B" in name), "they were zero, and all of them were trained"


@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same_logits(target, adapted):
    folder = target.parent / "unlearned"
    expected = adapted.model(IDS).logits
    assert not torch.equal(expected, models.load(target, None, "cpu").model(IDS).logits)
    loaded = models.load(folder, None, "cpu")
    assert loaded.card == adapted.card
    assert torch.equal(loaded.model(IDS).logits, expected)
    assert not loaded.model.training
    everybody = PeftModel.from_pretrained(models.load(target, None, "cpu").model, folder).eval()
    assert torch.equal(everybody(IDS).logits, expected), "peft alone can read it too"


def test_the_folder_holds_the_adapter_and_its_card_alone(target, adapted):
    folder = target.parent / "unlearned"
    assert sorted(file.name for file in folder.iterdir()) == [adapters.CONFIG, adapters.WEIGHTS, "tif.json"]
    weights = load_file(folder / adapters.WEIGHTS)
    assert sum(value.numel() for value in weights.values()) == 2 * (4 * (32 + 32) + 4 * (32 + 64))
    assert {value.dtype for value in weights.values()} == {torch.float32}
    content = json.loads((folder / adapters.CONFIG).read_text())
    assert content["target_modules"] == sorted(LORA.targets)
    assert [content[name] for name in ("r", "lora_alpha", "lora_dropout", "base_model_name_or_path")] == [
        4,
        8,
        0.25,
        None,
    ]
    text = "".join(file.read_text() for file in folder.glob("*.json"))
    assert str(target.parent) not in text
    assert os.getcwd() not in text
    card = models.read_card(folder)
    assert (card.base, card.base_sha256) == ("target", models.folder_sha256(target))


def test_two_runs_give_the_same_bytes(target, adapted, forget, retain, tmp_path):
    shutil.copytree(target, tmp_path / "elsewhere/target")
    language_model = models.load(tmp_path / "elsewhere/target", None, "cpu")
    trained(language_model, forget, retain)
    card = models.of_adapter(language_model.card, tmp_path / "elsewhere/target")
    models.save(tmp_path / "elsewhere/adapter", replace(language_model, card=card))
    for name in (adapters.CONFIG, adapters.WEIGHTS, "tif.json"):
        again = (tmp_path / "elsewhere/adapter" / name).read_bytes()
        assert again == (target.parent / "unlearned" / name).read_bytes()


def test_a_card_names_the_hub_model(target, adapted, tmp_path):
    card = replace(adapted.card, repository="someone/model", revision="0" * 40)
    models.save(tmp_path / "unlearned", replace(adapted, card=card))
    content = json.loads((tmp_path / "unlearned" / adapters.CONFIG).read_text())
    assert (content["base_model_name_or_path"], content["revision"]) == ("someone/model", "0" * 40)
    found = models.read_card(tmp_path / "unlearned")
    assert (found.repository, found.revision, found.base) == ("someone/model", "0" * 40, "target")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f.parent / "target"), "an adapter to the model in .*target, which is missing"),
        (lambda f: edit(f.parent / "target/tif.json", date="1 Jan 2000"), "another model than .*target holds now"),
        (lambda f: (f / adapters.CONFIG).unlink(), "no usable adapter in"),
        (lambda f: (f / adapters.CONFIG).write_text("[]"), "no usable adapter in"),
        (lambda f: edit(f / adapters.CONFIG, r=5), "no usable adapter in .*size mismatch"),
        (lambda f: edit(f / adapters.CONFIG, target_modules=["k_proj"]), "its weights are not those of its config"),
        (lambda f: edit(f / adapters.CONFIG, target_modules=["nothing"]), "no usable adapter in"),
        (lambda f: (f / adapters.WEIGHTS).unlink(), "no usable adapter in"),
        (lambda f: (f / adapters.WEIGHTS).write_bytes(b"{}"), "no usable adapter in"),
    ],
)
def test_an_adapter_that_must_not_load(copy, damage, message):
    models.load(copy, None, "cpu")
    damage(copy)
    with pytest.raises(UserError, match=message) as error:
        models.load(copy, None, "cpu")
    assert "\n" not in str(error.value)


def test_weights_as_pickle_are_not_read(copy):
    torch.save(load_file(copy / adapters.WEIGHTS), copy / "adapter_model.bin")
    (copy / adapters.WEIGHTS).unlink()
    with pytest.raises(UserError, match="no usable adapter in"):
        models.load(copy, None, "cpu")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_prj"], "'q_prj' is no linear layer.*did you mean 'q_proj'.*known: down_proj, gate_proj, k_proj, o_proj"),
        (["q_proj", "nothing"], "'nothing' is no linear layer of the model"),
        (["proj"], "'proj' is no linear layer of the model"),
        (["lm_head"], "'lm_head' is no linear layer of the model that can have an adapter"),
        (["embed_tokens"], "'embed_tokens' is no linear layer"),
    ],
)
def test_targets_that_are_not_there(tiny, forget, retain, targets, message):
    with pytest.raises(UserError, match=message):
        trained(tiny(), forget, retain, lora=LORA.model_copy(update={"targets": targets}))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_targets_above_the_layer_that_is_read(tiny, forget, retain, alpha):
    """None of the adapter's weights changes the hidden states behind the first of two layers."""
    method = rmu.Settings(layer=1, c=2.0, alpha=alpha, seed=0, token_weights="uniform")
    above, below = ([f"layers.{i}.mlp.up_proj"] for i in (1, 0))
    with pytest.raises(UserError, match=r"no weight that is trained changes the loss: unlearn\.lora\.targets are all"):
        trained(tiny(), forget, retain, method=rmu, chosen=method, lora=LORA.model_copy(update={"targets": above}))
    trained(tiny(), forget, retain, method=rmu, chosen=method, lora=LORA.model_copy(update={"targets": below}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, r"unlearn\.lora\.rank = 0 is not allowed"),
        ({"alpha": 0.0}, r"unlearn\.lora\.alpha"),
        ({"dropout": 1.0}, r"unlearn\.lora\.dropout = 1\.0"),
        ({"targets": []}, r"unlearn\.lora\.targets"),
        (
            {"ranks": 4},
            r"unknown key unlearn\.lora\.ranks; did you mean 'rank'\?; known keys: rank, alpha, dropout, targets",
        ),
    ],
)
def test_settings_out_of_range(changes, message):
    block = settings().model_dump(by_alias=True) | {"lora": LORA.model_dump() | changes}
    with pytest.raises(UserError, match=message):
        validate("unlearn", block, Settings)


def test_layers_that_are_no_linear_modules(tokenizer):
    """GPT-2 has its own class for them, with the weight transposed."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).eval()
    adapters.attach(model, LORA.model_copy(update={"targets": ["c_attn"]}), seed=0)
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == 4 * (32 + 96)


def test_a_run_that_stops_goes_on_to_the_same_bits(tiny, forget, retain, tmp_path, monkeypatch):
    """With dropout, whose random numbers go on where they were."""
    monkeypatch.setenv("TIF_WORK", str(tmp_path))
    expected = tiny()
    log = trained(expected, forget, retain, epochs=2).log
    calls = []

    def objective(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return tpo.objective(*arguments, **options)

    class Stopping:
        needs = staticmethod(tpo.needs)

    Stopping.objective = staticmethod(objective)
    with pytest.raises(KeyboardInterrupt), checkpoints.opened("a" * 64, 0, Group()) as kept:
        trained(tiny(), forget, retain, kept, Stopping, epochs=2)
    saved = sorted((tmp_path / "unlearn" / ("a" * 64)).glob("checkpoint-*/model.safetensors"))
    assert {key for file in saved for key in load_file(file) if "lora_" not in key} == set(), "frozen weights are known"
    found = tiny()
    with checkpoints.opened("a" * 64, 0, Group()) as kept:
        assert kept.resume == 3
        assert trained(found, forget, retain, kept, epochs=2).log == log
    for name, weight in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], weight), name


SETS = {
    "forget": questions("forget", "Forget set"),
    "retain": questions("retain", "Retain set"),
    "towns": questions("utility", "Towns"),
}
SHORT = {"retain_rows": 2, "new_tokens": 4, "batch": 4}


@pytest.fixture
def pipeline(copy, forget, retain, table, facts, tmp_path) -> Path:
    """A folder that the evaluate stage can run in."""
    for name, rows in {"forget": forget, "retain": retain, "towns": table("towns", facts[:2])}.items():
        tables.write(place(tmp_path / "data/benchmark", name, SETS[name].role), rows, SAMPLES)
    tables.write_text(tmp_path / "data/benchmark/card.json", json.dumps({"sets": describe(SETS)}))
    shutil.move(copy.parent, tmp_path / "data/models")
    (tmp_path / "data/none").touch()
    yaml = YAML()
    blocks = yaml.load(ROOT / "params.yaml")
    blocks["evaluate"] = SHORT
    blocks["compute"]["threads"] = 1
    yaml.dump(blocks, tmp_path / "params.yaml")
    return tmp_path


def test_the_evaluate_stage_reads_adapter_and_target(pipeline, adapted, as_before):
    run_stage("evaluate", pipeline, "unlearned")
    samples = {
        name: tables.read(place(pipeline / "data/benchmark", name, one.role), SAMPLES) for name, one in SETS.items()
    }
    sets = {name: (one, samples[name]) for name, one in SETS.items()}
    expected = evaluate(adapted, sets, Evaluate(**SHORT), False)
    for name, schema in (("tokens", TOKENS), ("texts", TEXTS)):
        found = tables.read(pipeline / f"data/evaluation/unlearned/{name}.parquet", schema)
        assert found.to_pylist() == getattr(expected, name).to_pylist()
