"""Recomputed activations and precision: the same loss and gradients, less kept, and small updates that count."""

from dataclasses import replace

import pytest
import torch
from forgetting import TPO, data_of, settings
from transformers import PreTrainedModel

from tif.base.errors import UserError
from tif.base.params import Compute
from tif.lm import adapters, logits, models
from tif.lm.batches import collate
from tif.lm.logits import answer_tokens
from tif.methods import tpo
from tif.scores.tokens import score
from tif.training import Memory
from tif.training.loop import Run
from tif.training.memory import check, fitted
from tif.unlearning.run import Method, unlearn

LORA = adapters.Lora(rank=4, alpha=8.0, dropout=0.5, targets=["q_proj", "up_proj"])


@pytest.fixture(scope="module")
def batch(language_model, forget, retain):
    return collate([replace(e, refusal=None) for e in data_of(language_model, forget, retain).examples])


def bfloat16(tiny):
    """A tiny model whose card says bfloat16."""
    language_model = tiny()
    for weight in language_model.model.parameters():
        weight.data = weight.data.bfloat16()
    return replace(language_model, card=replace(language_model.card, dtype="bfloat16"))


def run(language_model, forget, retain, **changes):
    data = data_of(language_model, forget, retain)
    done = unlearn(language_model, data, Method(tpo, TPO), settings(**changes), Run())
    return done.log, {name: value.clone() for name, value in language_model.model.state_dict().items()}


def loss_and_gradients(model: PreTrainedModel, batch, memory: Memory) -> tuple[float, dict[str, torch.Tensor], int]:
    """Also how many bytes of activations the forward pass keeps."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with fitted(model, memory, seed=0):
        model.train()
        torch.manual_seed(7)
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # or the other matrix would have no gradient
                torch.nn.init.normal_(weight)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss, _ = tpo.objective(answer_tokens(model, batch), batch, TPO)
        size = sum(size for _, size in kept.values())
        loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    return loss.item(), gradients, size


@pytest.mark.parametrize("lora", [None, LORA])
def test_computing_activations_again_changes_neither_loss_nor_gradients(tiny, batch, lora):
    """With adapters the same inputs are dropped the second time."""
    plain = loss_and_gradients(tiny().model, batch, Memory(lora=lora))
    again = loss_and_gradients(tiny().model, batch, Memory(lora=lora, gradient_checkpointing=True))
    assert again[0] == pytest.approx(plain[0], rel=1e-6)
    assert again[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        assert gradient.any()
        torch.testing.assert_close(again[1][name], gradient, rtol=1e-6, atol=1e-6)
    assert again[2] < 0.6 * plain[2], "bytes of activations"


def test_unlearning_with_it_gives_the_same_weights_and_files(tiny, forget, retain, tmp_path):
    for name, changes in (("plain", {}), ("again", {"gradient_checkpointing": True})):
        language_model = tiny()
        run(language_model, forget, retain, **changes)
        models.save(tmp_path / name, language_model)
    for file in (tmp_path / "plain").iterdir():
        if file.suffix == ".json":
            assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    found, expected = (models.load(tmp_path / name, None, "cpu").model.state_dict() for name in ("again", "plain"))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)


def test_a_model_that_cannot(tiny, monkeypatch):
    model = tiny().model
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with (
        pytest.raises(UserError, match=r"LlamaForCausalLM cannot.*unlearn\.gradient_checkpointing=false"),
        fitted(model, Memory(gradient_checkpointing=True), seed=0),
    ):
        pass


def test_a_gpu_without_bfloat16(monkeypatch):
    cuda, cpu = (Compute(device=device, threads=1) for device in ("cuda", "cpu"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match=r"unlearn\.precision = mixed needs a GPU that computes in bfloat16"):
        check(Memory(precision="mixed"), 1, cuda, cached=False)
    check(Memory(), 1, cuda, cached=False)
    check(Memory(precision="mixed"), 1, cpu, cached=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    check(Memory(precision="mixed"), 1, cuda, cached=False)


@torch.no_grad()
def test_in_bfloat16_reference_and_training_agree_exactly(tiny, forget, retain):
    """The head's own logits are rounded to 8 bits; margins compare dot products on both sides."""
    language_model = bfloat16(tiny)
    examples = [replace(example, refusal=None) for example in data_of(language_model, forget, retain).examples]
    scores = score(language_model, examples, progress=False)
    batch = collate([examples[i] for i in sorted(range(4), key=lambda i: (-len(examples[i].ids), i))])
    tokens = answer_tokens(language_model.model, batch)
    order = torch.cat(
        [torch.arange(*scores.bounds[[i, i + 1]]) for i in sorted(range(4), key=lambda i: (-len(examples[i].ids), i))]
    )
    assert torch.equal(tokens.logit(), torch.from_numpy(scores.logit)[order])
    rounded = tokens.head(tokens.hidden).gather(1, tokens.label[:, None])[:, 0]
    assert not torch.equal(tokens.logit(), rounded.float())


@pytest.mark.parametrize("precision", ["weights", "mixed"])
@pytest.mark.parametrize("lora", [None, LORA.model_copy(update={"dropout": 0.0})])
def test_the_margin_of_a_bfloat16_model_starts_at_0(tiny, forget, retain, precision, lora):
    log, weights = run(bfloat16(tiny), forget, retain, precision=precision, lora=lora, epochs=5, lr=0.01)
    assert abs(log[0]["logit_drop"]) < 0.05
    assert log[-1]["logit_drop"] > 0.5
    for name, weight in weights.items():
        assert weight.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name


def test_small_updates_are_lost_in_bfloat16_and_not_in_mixed_precision(tiny, forget, retain):
    """bfloat16 has 8 bits: of a weight around .2, steps below 2^-11 = .0005 round to nothing, and AdamW's are 4e-5."""
    start = bfloat16(tiny).model.state_dict()
    changed = {}
    for precision in ("weights", "mixed"):
        steps = {"precision": precision, "epochs": 8, "lr": 4e-5, "warmup": 0.0, "weight_decay": 0.0}
        _, weights = run(bfloat16(tiny), forget, retain, **steps)
        name = "model.layers.0.mlp.up_proj.weight"
        changed[precision] = (weights[name] != start[name]).float().mean().item()
    assert changed["mixed"] > 2 * changed["weights"]
    assert changed["mixed"] > 0.2


def test_mixed_precision_is_nearly_that_of_float32(tiny, forget, retain):
    exact, _ = run(tiny(), forget, retain)
    mixed, weights = run(tiny(), forget, retain, precision="mixed")
    assert [row["loss"] for row in mixed] == pytest.approx([row["loss"] for row in exact], rel=0.01)
    assert mixed != exact, "products are rounded"
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_long_answers_under_autocast_have_the_gradient_of_short_ones(tiny, batch, monkeypatch):
    """The head in chunks computes logits a second time, in the backward pass, where there is no autocast."""
    found = []
    for budget in (2**26, 5 * 320):
        monkeypatch.setattr(logits, "LOGIT_BUDGET", budget)
        model = tiny().model
        with torch.autocast("cpu", torch.bfloat16):
            loss = answer_tokens(model, batch).nll(torch.ones_like(batch.forget)).sum()
        loss.backward()
        found.append((loss.item(), model.lm_head.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0.02, atol=0.02 * float(found[0][1].abs().max()))
