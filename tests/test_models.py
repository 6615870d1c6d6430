"""Answer tokens against the model's own logits; model folders that load again, and those that must not load."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPTJConfig, GPTJForCausalLM

from tif import models
from tif.batches import collate, encode
from tif.errors import UserError
from tif.models import LanguageModel, answer_tokens
from tif.params import Compute


@pytest.fixture(scope="module")
def batch(tokenizer, plain, facts):
    return collate([encode(tokenizer, plain, question, question, answer) for question, answer in facts])


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


def biased(tokenizer):
    """GPT-J: untied head with a bias."""
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "n_positions": 256}
    model = GPTJForCausalLM(GPTJConfig(**size, initializer_range=0.2, bos_token_id=0, eos_token_id=0)).eval()
    torch.nn.init.normal_(model.lm_head.bias)
    return model


@pytest.mark.parametrize("kind", ["tied", "untied", "bias", "bfloat16"])
@torch.no_grad()
def test_answer_tokens_equal_the_models_logits(tiny, tokenizer, batch, kind):
    """Two of the three places where a token's score comes from: one dot product, and rows of chosen tokens only."""
    model = biased(tokenizer) if kind == "bias" else tiny(tie_word_embeddings=kind != "untied").model
    if kind == "bfloat16":
        model = model.to(torch.bfloat16)
    rows = model(input_ids=batch.input_ids).logits[batch.row, batch.column].float()
    true = rows.gather(1, batch.label[:, None])[:, 0]
    nll = torch.nn.functional.cross_entropy(rows, batch.label, reduction="none")
    tokens = answer_tokens(model, batch)
    tolerance = {"rtol": 0.02, "atol": 0.05} if kind == "bfloat16" else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(tokens.logit(), true, **tolerance)
    where = torch.arange(len(true)) % 3 != 1
    torch.testing.assert_close(tokens.nll(where), torch.where(where, nll, 0), **tolerance)
    assert tokens.logit().dtype == tokens.nll(where).dtype == torch.float32


@pytest.mark.parametrize("kind", ["tied", "untied", "bias"])
def test_gradients_equal_those_of_the_models_logits(tiny, tokenizer, batch, kind):
    model = biased(tokenizer) if kind == "bias" else tiny(tie_word_embeddings=kind != "untied").model
    where = torch.arange(len(batch.label)) % 2 == 0

    tokens = answer_tokens(model, batch)
    found = gradients(model, tokens.logit()[~where].sum() + tokens.nll(where).sum())
    rows = model(input_ids=batch.input_ids).logits[batch.row, batch.column]
    log_likelihood = rows.log_softmax(-1).gather(1, batch.label[:, None])[:, 0]
    true = rows.gather(1, batch.label[:, None])[:, 0]
    expected = gradients(model, true[~where].sum() - log_likelihood[where].sum())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten().float() for parameter in model.parameters()])


@pytest.mark.parametrize("tokens_at_a_time", [0.5, 1, 7, 1000])
@pytest.mark.parametrize("kind", ["tied", "untied", "bias", "bfloat16"])
def test_nll_in_chunks(tiny, tokenizer, batch, monkeypatch, kind, tokens_at_a_time):
    """Values and gradients of the head in chunks, of one token at least, are those of all tokens at once."""
    model = biased(tokenizer) if kind == "bias" else tiny(tie_word_embeddings=kind != "untied").model
    if kind == "bfloat16":
        model = model.to(torch.bfloat16)
    where = torch.arange(len(batch.label)) % 3 != 1
    weight = torch.linspace(-1, 2, len(where))
    found = []
    for budget in (models.LOGIT_BUDGET, int(tokens_at_a_time * len(tokenizer))):
        monkeypatch.setattr(models, "LOGIT_BUDGET", budget)
        nll = answer_tokens(model, batch).nll(where)
        found.append((nll.detach(), gradients(model, (weight * nll).sum())))
    tolerance = {"rtol": 0.02, "atol": 0.05} if kind == "bfloat16" else {"rtol": 1e-5, "atol": 1e-4}
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, **tolerance)
    assert found[0][1].abs().max() > 1


def row_loss(logits, label, *reference):
    """A loss that reads whole rows: their spread, the true logit and, where there is one, the target model's rows."""
    value = logits.softmax(-1).square().sum(-1) * logits.gather(-1, label[:, None])[:, 0]
    return value + sum((logits - known).tanh().mean(-1) for known in reference)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("kind", ["tied", "untied", "bias"])
def test_per_token_equals_the_loss_of_full_rows(tiny, tokenizer, batch, monkeypatch, kind, with_reference):
    model = biased(tokenizer) if kind == "bias" else tiny(tie_word_embeddings=kind != "untied").model
    other = biased(tokenizer) if kind == "bias" else tiny(seed=1).model
    where = torch.arange(len(batch.label)) % 4 != 2
    with torch.no_grad():
        reference_hidden = answer_tokens(other, batch).hidden if with_reference else None
        known = [other(input_ids=batch.input_ids).logits[batch.row, batch.column]] * with_reference
    rows = model(input_ids=batch.input_ids).logits[batch.row, batch.column]
    expected = torch.where(where, row_loss(rows, batch.label, *known), 0)
    expected, slope = expected.detach(), gradients(model, expected.sum())
    for budget in (models.LOGIT_BUDGET, 3 * len(tokenizer), 1):
        monkeypatch.setattr(models, "LOGIT_BUDGET", budget)
        tokens = replace(answer_tokens(model, batch), reference_head=other.get_output_embeddings())
        found = tokens.per_token(row_loss, where, reference_hidden)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradients(model, found.sum()), slope, rtol=1e-4, atol=1e-4)
        assert other.get_output_embeddings().weight.grad is None


def test_rows_at_a_time_are_bounded_and_computed_again_in_the_backward_pass(tiny, tokenizer, batch, monkeypatch):
    model, seen = tiny().model, []
    monkeypatch.setattr(models, "LOGIT_BUDGET", 5 * len(tokenizer) + 1)

    def loss(logits, label):
        seen.append(logits.shape)
        return logits.logsumexp(-1)

    where = torch.ones(len(batch.label), dtype=torch.bool)
    value = answer_tokens(model, batch).per_token(loss, where).sum()
    chunks = -(-len(where) // 5)
    assert len(seen) == chunks and max(seen) == (5, len(tokenizer)) and sum(n for n, _ in seen) == len(where)
    value.backward()
    assert len(seen) == 2 * chunks and max(seen) == (5, len(tokenizer))


def test_chunks_of_nothing(tiny, batch, monkeypatch):
    """No token chosen: zeros that a backward pass can still start from, as a micro-batch without its kind needs."""
    model = tiny().model
    nothing = torch.zeros(len(batch.label), dtype=torch.bool)
    for budget in (models.LOGIT_BUDGET, 1):
        monkeypatch.setattr(models, "LOGIT_BUDGET", budget)
        for kind in ("nll", "per_token"):
            tokens = replace(answer_tokens(model, batch), reference_head=model.get_output_embeddings())
            value = tokens.nll(nothing) if kind == "nll" else tokens.per_token(row_loss, nothing, tokens.hidden)
            assert not value.any()
            assert not gradients(model, value.sum()).any()


@torch.no_grad()
def test_layers_and_own_positions(language_model, batch):
    """`layer` counts decoder layers, the last is the default; `own` is one position further than what predicts it."""
    states = language_model.model(input_ids=batch.input_ids, output_hidden_states=True).hidden_states
    for layer in (0, 1, 2):
        found = answer_tokens(language_model.model, batch, layer)
        torch.testing.assert_close(found.hidden, states[layer][batch.row, batch.column])
    last = answer_tokens(language_model.model, batch, own=True)
    torch.testing.assert_close(last.hidden, states[2][batch.row, batch.column])
    torch.testing.assert_close(last.own, states[2][batch.row, batch.column + 1])
    assert found.own is None
    with pytest.raises(UserError, match=r"layer = 3 of the method's block: the model has layers 1 to 2 only"):
        answer_tokens(language_model.model, batch, 3)


def test_an_absent_device(monkeypatch):
    for device, module in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        monkeypatch.setattr(module, "is_available", lambda: False)
        with pytest.raises(UserError, match=f"compute.device is {device}, but no such device.*compute.device=cpu"):
            models.prepare(Compute(device=device, threads=1))


@torch.no_grad()
def test_nll_of_nothing_is_0(language_model, batch):
    nothing = torch.zeros(len(batch.label), dtype=torch.bool)
    assert answer_tokens(language_model.model, batch).nll(nothing).tolist() == [0] * len(batch.label)


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
