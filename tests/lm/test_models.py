"""Model folders that load again, and those that must not load."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM
from transformers.utils import logging

from tif.base.errors import UserError
from tif.base.params import Compute
from tif.lm import models
from tif.lm.models import LanguageModel


@pytest.fixture(scope="module")
def folder(language_model, tmp_path_factory):
    """A saved model that no test may change."""
    path = tmp_path_factory.mktemp("models") / "target"
    models.save(path, language_model)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def edit(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "removed"}))


def test_an_absent_device(monkeypatch):
    for device, module in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        monkeypatch.setattr(module, "is_available", lambda: False)
        with pytest.raises(UserError, match=f"compute.device is {device}, but no such device.*compute.device=cpu"):
            models.prepare(Compute(device=device, threads=1))


@pytest.mark.parametrize("progress", [True, False])
def test_a_stage_is_prepared(as_before, progress):
    """Transformers' own bars are not shown where ours are not."""
    logging.enable_progress_bar()
    models.prepare(Compute(device="cpu", threads=3), progress)
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled()
    assert logging.is_progress_bar_enabled() == progress


def test_round_trip(language_model, folder):
    loaded = models.load(folder, None, "cpu")
    before, after = language_model.model.state_dict(), loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.card == language_model.card
    assert not loaded.model.training
    text = " Ada Lind was born\nin 日本 👍🏽 "
    assert loaded.tokenizer(text)["input_ids"] == language_model.tokenizer(text)["input_ids"]
    assert loaded.tokenizer.eos_token_id == language_model.tokenizer.eos_token_id


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_saving_again_elsewhere_gives_the_same_bytes(folder, language_model, tmp_path):
    """The same model, also over a folder that holds other files; and a loaded model, whatever its folder was called."""
    again = tmp_path / "elsewhere" / "unlearned"
    again.mkdir(parents=True)
    (again / "old.bin").write_text("old")
    models.save(again, language_model)
    assert contents(again) == contents(folder)
    for name, source in (("one", folder), ("two", again)):
        models.save(tmp_path / name, models.load(source, None, "cpu"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one")["model.safetensors"] == contents(folder)["model.safetensors"]


def test_no_saved_file_tells_where(folder, tmp_path):
    models.save(tmp_path / "again", models.load(folder, None, "cpu"))
    for name, content in contents(tmp_path / "again").items():
        assert [path for path in (folder, tmp_path, Path.cwd()) if str(path).encode() in content] == [], name
        assert Path(name).suffix in (".json", ".safetensors")


def test_a_model_of_a_local_source_is_found_by_name(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "source" / "my-model")
    (tmp_path / "target").mkdir()
    card = models.load(folder, None, "cpu").card
    models.write_card(tmp_path / "target", replace(card, local="my-model"))
    loaded = models.load(tmp_path / "target", tmp_path / "source", "cpu")
    assert loaded.model.config.hidden_size == 32
    with pytest.raises(UserError, match=r"was made from model\.source, which is not set now"):
        models.load(tmp_path / "target", None, "cpu")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def only_pickle(model_folder):
    """Weights as they were saved years ago: loading them could run code."""
    (model_folder / "model.safetensors").unlink()
    torch.save({}, model_folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "tif.json").unlink(), r"tif\.json is missing; `dvc repro` makes"),
        (lambda f: (f / "tif.json").write_text("{"), r"tif\.json is not a model card"),
        (lambda f: edit(f / "tif.json", colour="red"), r"tif\.json is not a model card"),
        (lambda f: (f / "model.safetensors").unlink(), "no usable safetensors weights"),
        (lambda f: truncate(f / "model.safetensors"), "no usable safetensors weights"),
        (only_pickle, "no usable safetensors weights"),
        (lambda f: edit(f / "config.json", hidden_size=64), "no usable safetensors weights"),
        (lambda f: edit(f / "config.json", num_hidden_layers=3), r"lack model\.layers\.2.*do not belong to its config"),
        (lambda f: edit(f / "config.json", model_type="unheard"), "no usable safetensors weights"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer in"),
        (lambda f: truncate(f / "tokenizer.json"), "no tokenizer in"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "no tokenizer in"),
        (lambda f: (f / "tokenizer.json").write_text("[]"), "no tokenizer in"),
        (lambda f: edit(f / "tokenizer.json", model={"type": "Other"}), "no tokenizer in"),
        (
            lambda f: edit(f / "tokenizer_config.json", eos_token="removed"),
            "has no end-of-sequence token; set eos_token",
        ),
        (lambda f: edit(f / "tif.json", prompt="chat"), "has no chat template; set prompt: plain"),
    ],
)
def test_a_folder_that_must_not_load(copy, damage, message):
    damage(copy)
    with pytest.raises(UserError, match=message) as error:
        models.load(copy, None, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"does not exist; see model\.source"),
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "model.safetensors").unlink(), "has no safetensors weights"),
        (only_pickle, "has no safetensors weights"),
        (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
    ],
)
def test_check_folder(copy, damage, message):
    models.check_folder(str(copy))
    damage(copy)
    with pytest.raises(UserError, match=message):
        models.check_folder(str(copy))
    if copy.exists():
        with pytest.raises(UserError, match=message):
            models.locate(copy, "a/b", "main")


def test_a_file_is_no_model_folder(copy):
    with pytest.raises(UserError, match=r"identify\.source = '.*config\.json' is a file; give a model folder"):
        models.locate(copy / "config.json", "a/b", "main")


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "tif.json", "model.safetensors"]
)
def test_whatever_changes_labels_changes_the_metadata(copy, name):
    before = models.locate(copy, "a/b", "main")[2]
    (copy / "notes.txt").write_text("of no effect")
    assert models.locate(copy, "a/b", "main")[2] == before
    (copy / name).write_bytes((copy / name).read_bytes() + b" ")
    assert models.locate(copy, "a/b", "main")[2] != before
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert models.locate(copy, "a/b", "main")[2] != before


def test_a_head_with_a_soft_cap_is_refused(tokenizer, language_model, tmp_path):
    """Gemma 2 bends its logits (here to at most 1), so a dot product with the head would not be its logit."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=1.0,
        initializer_range=0.5,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=0,
    )
    card = replace(language_model.card, attention="eager")
    models.save(tmp_path / "gemma", LanguageModel(Gemma2ForCausalLM(config), tokenizer, card))
    with pytest.raises(UserError, match="not a linear map of its last hidden state"):
        models.load(tmp_path / "gemma", None, "cpu")


def test_a_failed_save_leaves_the_old_folder(copy, language_model):
    before = contents(copy)
    with pytest.raises(TypeError):
        models.save(copy, replace(language_model, card=replace(language_model.card, date=b"not text")))
    assert contents(copy) == before
    assert [file.name for file in copy.parent.iterdir()] == [copy.name]
