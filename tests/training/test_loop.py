"""The training loop: the same bits from the same seed, every weight trained, and a stop when the loss is not finite."""

from dataclasses import replace

import pytest
import torch

from tif.base.errors import UserError
from tif.finetune.scratch import token_mean
from tif.lm.batches import collate, encode_pairs
from tif.lm.logits import answer_tokens
from tif.training import Optimisation
from tif.training.loop import Run, Task, train

SETTINGS = Optimisation(
    epochs=2, batch=4, micro_batch=2, lr=1e-3, weight_decay=0.01, warmup=0.25, max_grad_norm=1.0, seed=0
)


@pytest.fixture(scope="module")
def examples(language_model, facts):
    return encode_pairs(language_model, [(f"full/{i:04d}", *pair) for i, pair in enumerate(facts)])


def run(language_model, examples, objective=token_mean, others=(), after_epoch=None, **changes):
    settings = SETTINGS.model_copy(update=changes)
    return train(language_model, Task(examples, objective, others), settings, Run(after_epoch=after_epoch))


def weights(language_model):
    return {name: value.clone() for name, value in language_model.model.state_dict().items()}


def recording(seen):
    """An objective that notes the sample ids of each micro-batch."""

    def objective(tokens, batch):
        seen.append(batch.sample_ids)
        return token_mean(tokens, batch)[0], {}

    return objective


def test_same_seed_same_bits_other_seed_other_bits(tiny, examples):
    made = []
    for seed in (0, 0, 1):
        language_model = tiny()
        torch.manual_seed(len(made))  # the state of the global generator must not matter
        log = run(language_model, examples, seed=seed)
        made.append((weights(language_model), log))
    (first, first_log), (second, second_log), (other, other_log) = made
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first_log == second_log
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert first_log != other_log


def test_every_weight_changes_and_the_loss_falls(tiny, examples):
    language_model = tiny()
    before = weights(language_model)
    log = run(language_model, examples, epochs=15, lr=5e-3)
    after = weights(language_model)
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert log[-1]["loss"] < log[0]["loss"] / 2
    assert not language_model.model.training


def test_one_step_by_hand(tiny, examples):
    """The first step of Adam moves every weight by lr * sign(gradient), decay lr * wd * weight aside.

    With m = (1 - b1) g and v = (1 - b2) g^2, bias correction makes m / sqrt(v) = sign(g), as long as |g| is far above
    epsilon, which the clipped gradients here are not everywhere: only weights with a clear gradient are compared.
    """
    language_model = tiny()
    before = weights(language_model)
    batch_loss = sum(token_mean(tokens, batch)[0] for tokens, batch in forward(language_model, examples))
    batch_loss.backward()
    gradient = {name: value.grad.clone() for name, value in language_model.model.named_parameters()}
    language_model.model.zero_grad()
    run(language_model, examples, epochs=1, batch=8, warmup=0.0, max_grad_norm=1e9, lr=1e-3, weight_decay=0.1)
    for name, value in language_model.model.named_parameters():
        clear = gradient[name].abs() > 1e-4
        expected = before[name] - 1e-3 * gradient[name].sign()
        if value.ndim > 1:  # no decay on norms, as transformers does
            expected = expected - 1e-3 * 0.1 * before[name]
        assert clear.any()
        torch.testing.assert_close(value[clear].detach(), expected[clear], rtol=0, atol=2e-6)


def forward(language_model, examples):
    batch = collate(examples)
    return [(answer_tokens(language_model.model, batch), batch)]


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_micro_batch_changes_only_rounding(tiny, examples, micro_batch):
    logs = []
    for size in (micro_batch, 4):
        logs.append(run(tiny(), examples, micro_batch=size, epochs=3))
    assert [row["loss"] for row in logs[0]] == pytest.approx([row["loss"] for row in logs[1]], rel=1e-3)


def test_log_rows(tiny, examples, capsys):
    """Eight samples in steps of 3: 3 steps an epoch, the last with 2; logged terms are sums over micro-batches."""

    def objective(tokens, batch):
        return token_mean(tokens, batch)[0], {"rows": torch.tensor(float(len(batch.sample_ids)))}

    log = run(tiny(), examples, objective, batch=3, micro_batch=2, epochs=2)
    assert [row["step"] for row in log] == [0, 1, 2, 3, 4, 5]
    assert [row["rows"] for row in log] == [3, 3, 2, 3, 3, 2]
    assert all(list(row) == ["step", "loss", "rows"] for row in log)
    assert capsys.readouterr().out == ""  # the Trainer's own summary holds times


def test_logged_loss_of_the_first_step(tiny, examples):
    """One step over everything: the mean NLL of all answer tokens before training."""
    language_model = tiny()
    with torch.no_grad():
        expected = token_mean(*forward(language_model, examples)[0])[0]
    log = run(language_model, examples, batch=8, micro_batch=3, epochs=1)
    assert log[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_every_sample_once_an_epoch_in_new_order(tiny, examples):
    seen = []
    run(tiny(), examples, recording(seen), batch=4, micro_batch=4, epochs=3)
    epochs = [[*seen[i], *seen[i + 1]] for i in (0, 2, 4)]
    assert all(sorted(epoch) == [e.sample_id for e in examples] for epoch in epochs)
    assert len({frozenset(seen[i]) for i in (0, 2, 4)}) > 1


def test_others_come_one_for_one_and_reshuffled_on_every_pass(tiny, examples):
    """Steps of 4, 4 and so on draw as many of the 4 others: each step is one pass, in an order of its own."""
    others = [replace(example, sample_id=f"retain/{i:04d}") for i, example in enumerate(examples[:4])]
    seen = []
    run(tiny(), examples, recording(seen), others, batch=4, micro_batch=1, epochs=3)
    steps = [[key for (key,) in seen[i : i + 8]] for i in range(0, 48, 8)]
    assert all(sum(key.startswith("retain") for key in step) == 4 for step in steps)
    assert all(len(set(step)) == 8 for step in steps)

    pairs = []
    run(tiny(), examples, recording(pairs), others, batch=2, micro_batch=4, epochs=6)
    halves = [frozenset(key for key in step if key.startswith("retain")) for step in pairs]
    passes = [halves[i] | halves[i + 1] for i in range(0, 24, 2)]
    assert all(len(one) == 4 for one in passes)
    assert len(set(halves[::2])) > 1, "forget and retain pairs must not be frozen over the passes"


def test_after_epoch_sees_the_model_of_each_epoch_in_evaluation_mode(tiny, examples):
    language_model = tiny()
    seen = []

    def watch(epoch):
        assert not language_model.model.training
        seen.append((epoch, language_model.model.lm_head.weight.sum().item()))

    run(language_model, examples, after_epoch=watch, epochs=3, batch=3)
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert len({total for _, total in seen}) == 3
    assert seen[-1][1] == language_model.model.lm_head.weight.sum().item()


def test_watching_changes_nothing(tiny, examples):
    plain, watched = tiny(), tiny()
    run(plain, examples)
    run(watched, examples, after_epoch=lambda epoch: torch.rand(7))
    assert all(torch.equal(a, b) for a, b in zip(weights(plain).values(), weights(watched).values(), strict=True))


@pytest.mark.parametrize("micro_batch", [1, 8])
def test_a_loss_that_is_not_finite_names_step_and_sample(tiny, examples, micro_batch):
    """The hidden states of one sample are broken; it comes up in the first or the second step of 4."""
    seen = []

    def objective(tokens, batch):
        seen.append(batch.sample_ids)
        bad = torch.tensor([key == "full/0005" for key in batch.sample_ids])[batch.row]
        tokens.hidden.data[bad] = torch.nan
        return token_mean(tokens, batch)[0], {}

    with pytest.raises(
        UserError, match=r"not finite at step \d, sample full/0005, token .*; nothing was saved\. Lower"
    ) as error:
        run(tiny(), examples, objective, micro_batch=micro_batch)
    step = sum(len(keys) for keys in seen[:-1]) // 4
    assert f"at step {step}," in str(error.value)


def test_a_learning_rate_that_is_far_too_large_is_told(tiny, examples):
    with pytest.raises(UserError, match=r"not finite.*nothing was saved\. Lower the learning rate"):
        run(tiny(), examples, lr=1e30, warmup=0.0, epochs=3)


def test_a_model_without_anything_to_train_is_told(tiny, examples):
    language_model = tiny()
    language_model.model.requires_grad_(False)
    with pytest.raises(UserError, match="the model has no weight that can be trained"):
        run(language_model, examples)


def test_weights_that_the_last_step_broke_are_told(tiny, examples):
    """One step of lr 1e39 overflows float32 to infinity, after the only loss was checked."""
    with pytest.raises(UserError, match=r"step 0 made weights that are not finite; nothing was saved"):
        run(tiny(), examples, lr=1e39, warmup=0.0, epochs=1, batch=8)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"lr": 0.0}, "lr"),
        ({"warmup": 1.5}, "warmup"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range(changes, key):
    with pytest.raises(ValueError, match=key):
        Optimisation.model_validate(SETTINGS.model_dump() | changes)
