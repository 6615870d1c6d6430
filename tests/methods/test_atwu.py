"""ATWU: both losses against loops, alternation, cuts into micro-batches and processes, saved state, and a real run."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import forgetting as unlearning
import numpy as np
import pytest
import torch
from forgetting import data_of

from tif.base import tables
from tif.base.errors import UserError
from tif.base.params import validate
from tif.lm.batches import collate, encode_pairs, micro_batches
from tif.lm.logits import answer_tokens
from tif.methods import atwu
from tif.training.loop import Run
from tif.unlearning import TOKEN_WEIGHTS
from tif.unlearning.run import Method, token_weight_rows, unlearn

STEPS = 20


def settings(**changes):
    values = {"token_weights": "learned", "alpha": 0.9, "gamma": 2.0, "beta": 0.3, "saturation": "weighted", "every": 1}
    values |= {"scorer_lr": 0.5, "momentum": 0.9, "scorer_weight_decay": 1e-4, "clip": 1.0}
    values |= {"entropy": 0.2, "population": 3.0, "budget": 0.2, "l2": 0.01}
    return atwu.Settings(**values | changes)


@pytest.fixture(scope="module")
def examples(language_model, facts):
    """Three forget samples, of which the second is marked, and two of the retain set; different lengths."""
    pairs = [(f"s/{i}", question, answer + " Yes." * i) for i, (question, answer) in enumerate(facts[:5])]
    made = encode_pairs(language_model, pairs)
    forget = []
    for example in made[:3]:
        size = len(example.offsets)
        score = torch.linspace(0, 1, size)
        forget.append(replace(example, forget=True, unwanted=score > 0.6, score=score))
    return [*forget, *made[3:]]


def scored(learner, seed=3):
    """The learner with a scorer that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.scorer.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return learner


def learner_for(chosen=None, width=32):
    return scored(atwu.Learner(chosen or settings(), width, STEPS, "cpu"))


def gradient(parameters, loss):
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(parameters), retain_graph=True)])


def scorer_gradient(learner):
    return torch.cat([parameter.grad.flatten() for parameter in learner.scorer.parameters()])


def same(values):
    return values


def naive_model_loss(nll, weight, chosen):
    """mean of s g l, a token at a time; s and g are plain numbers and so have no gradient."""
    total = 0
    for loss, g in zip(nll, weight.tolist(), strict=True):
        exponent = g * loss.item() if chosen.saturation == "weighted" else loss.item()
        total = total + math.exp(-chosen.beta * exponent) * g * loss
    return total / len(nll)


def naive_scorer_loss(w, b, hidden, nll, sample, chosen):
    """J of facts, a token and a sample at a time; hard(g) as a number whose derivative is that of g."""
    tokens, shares = 0, {}
    for h, loss, key in zip(hidden, nll.tolist(), sample.tolist(), strict=True):
        g = 1 / (1 + torch.exp(-(torch.dot(w, h) + b)))
        entropy = -(g * torch.log(g) + (1 - g) * torch.log(1 - g))
        tokens = tokens + (1 - g) * loss + chosen.entropy * entropy
        hard = g + (float(g.item() > 0.5) - g.item())
        shares.setdefault(key, []).append(hard)
    samples = sum((sum(part) / len(part) - chosen.budget) ** 2 for part in shares.values()) / len(shares)
    return tokens / len(nll) + chosen.population * samples + chosen.l2 * (w * w).sum()


@pytest.mark.parametrize("saturation", ["weighted", "wga"])
def test_forget_loss_equals_the_loop(saturation):
    generator = torch.Generator().manual_seed(1)
    nll = (5 * torch.rand(11, generator=generator)).requires_grad_()
    weight = torch.rand(11, generator=generator).requires_grad_()
    loss = atwu.forget_loss(nll, weight, 0.7, saturation)
    expected = naive_model_loss(nll, weight, settings(beta=0.7, saturation=saturation))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(loss, nll), torch.autograd.grad(expected, nll))
    again = atwu.forget_loss(nll, weight, 0.7, saturation)
    assert torch.autograd.grad(again, weight, allow_unused=True) == (None,)


def test_forget_loss_by_hand():
    """l = 2 and 0, g = .5 and 1, beta 1: weighted gives (e^-1 + 0) / 2, wga (e^-2 + 0) / 2."""
    nll, weight = torch.tensor([2.0, 0.0]), torch.tensor([0.5, 1.0])
    assert atwu.forget_loss(nll, weight, 1.0, "weighted").item() == pytest.approx(math.exp(-1) / 2)
    assert atwu.forget_loss(nll, weight, 1.0, "wga").item() == pytest.approx(math.exp(-2) / 2)
    assert atwu.forget_loss(nll, weight, 0.0, "wga").item() == pytest.approx(0.5)
    assert atwu.forget_loss(nll[:0], weight[:0], 1.0, "wga").item() == 0


def test_scorer_loss_at_the_start():
    """w = b = 0, so g = .5 everywhere, which is not above .5: H = ln 2 and every sample is `budget` short."""
    score, nll = torch.zeros(4, requires_grad=True), torch.tensor([1.0, 3.0, 0.0, 4.0])
    chosen = settings(entropy=0.5, population=10.0, budget=0.2)
    tokens, samples = atwu.scorer_loss(score, nll, torch.tensor([7, 7, 2, 2]), chosen)
    assert tokens.item() == pytest.approx(0.5 * 2 + 0.5 * math.log(2))
    assert samples.item() == pytest.approx(10 * 0.04)
    # d/dscore: dg = 1/4, so -l/4/4 for the tokens (H has none at .5), and 10 * 2 * -.2 / 2 samples / 2 tokens / 4
    expected = -nll / 16 - 10 * 2 * 0.2 / 16
    torch.testing.assert_close(torch.autograd.grad(tokens + samples, score)[0], expected)


@pytest.mark.parametrize("seed", range(3))
def test_scorer_loss_equals_the_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    hidden, nll = torch.randn(13, 5, generator=generator), 4 * torch.rand(13, generator=generator)
    sample = torch.tensor([4, 4, 4, 0, 0, 9, 9, 9, 9, 9, 9, 1, 1])
    learner = learner_for(width=5)
    w, b = learner.scorer.weight, learner.scorer.bias
    parts = atwu.scorer_loss(learner.scorer(hidden)[:, 0], nll, sample, learner.settings)
    mine = sum(parts) + learner.settings.l2 * (w * w).sum()
    expected = naive_scorer_loss(w[0], b[0], hidden, nll, sample, learner.settings)
    assert mine.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient((w, b), mine), gradient((w, b), expected), rtol=1e-4, atol=1e-6)


def naive(model, examples, learner):
    """L of whole rows of logits, and J; hidden states at the tokens' own positions."""
    parts, other = [], []
    for number, example in enumerate(examples):
        output = model(input_ids=example.ids[None], output_hidden_states=True)
        label = example.ids[example.start :]
        nll = -output.logits[0, example.start - 1 : -1].log_softmax(-1).gather(1, label[:, None])[:, 0]
        own = output.hidden_states[-1][0, example.start :].detach()
        if example.forget:
            parts.append((nll, own, torch.full((len(nll),), number)))
        else:
            other.append(nll)
    nll, own, sample = (torch.cat(part) for part in zip(*parts))
    chosen, w, b = learner.settings, learner.scorer.weight[0], learner.scorer.bias[0]
    loss = -chosen.gamma * naive_model_loss(nll, (own @ w + b).sigmoid(), chosen)
    return loss + chosen.alpha * torch.cat(other).mean(), naive_scorer_loss(w, b, own, nll.detach(), sample, chosen)


@pytest.mark.parametrize("saturation", ["weighted", "wga"])
def test_objective_equals_the_formula(tiny, examples, saturation):
    model, learner = tiny().model, learner_for(settings(saturation=saturation))
    batch = collate(examples)
    loss, terms = learner.objective(answer_tokens(model, batch, own=True), batch)
    expected, expected_scorer = naive(model, examples, learner)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(
        gradient(model.parameters(), loss), gradient(model.parameters(), expected), rtol=1e-4, atol=1e-4
    )
    without_l2 = scorer_gradient(learner)
    l2 = torch.cat([2 * learner.settings.l2 * learner.scorer.weight[0], torch.zeros(1)])
    wanted = gradient(learner.scorer.parameters(), expected_scorer)
    torch.testing.assert_close(without_l2 + l2.detach(), wanted, rtol=1e-4, atol=1e-5)
    assert terms.keys() == {"forget_loss", "forget_nll", "weight", "retain_nll"}


def test_no_gradient_between_model_and_scorer(tiny, examples):
    model, learner = tiny().model, learner_for()
    batch = collate(examples)
    loss, _ = learner.objective(answer_tokens(model, batch, own=True), batch)
    assert all(parameter.grad is None for parameter in model.parameters()), "J has none into the model"
    before = scorer_gradient(learner)
    loss.backward()
    assert torch.equal(scorer_gradient(learner), before), "L has none into the scorer"


def test_the_first_step_weighs_every_token_half(language_model, examples):
    """g = .5, alpha 0, beta 0: L = -gamma / 2 * mean NLL."""
    learner = atwu.Learner(settings(alpha=0.0, beta=0.0), 32, STEPS, "cpu")
    batch = collate(examples[:3])
    tokens = answer_tokens(language_model.model, batch, own=True)
    loss, terms = learner.objective(tokens, batch)
    assert loss.item() == pytest.approx(-tokens.nll(batch.forget).mean().item(), rel=1e-6)
    assert terms["weight"].item() == 0.5 and "retain_nll" not in terms
    assert torch.equal(learner.token_weights(tokens.own), torch.full((len(tokens.own),), 0.5))


@pytest.mark.parametrize("weights", ["uniform", "spans", "scores"])
def test_fixed_weights(language_model, examples, weights):
    chosen = settings(token_weights=weights)
    assert atwu.needs(chosen).own is False
    learner = atwu.Learner(chosen, 32, STEPS, "cpu")
    batch = collate(examples)
    tokens = answer_tokens(language_model.model, batch)
    loss, terms = learner.objective(tokens, batch)
    nll, forget = tokens.nll(~batch.refusal), batch.forget
    g = {"uniform": torch.ones(len(nll)), "spans": batch.unwanted.float(), "scores": batch.score}[weights][forget]
    expected = -2.0 * naive_model_loss(nll[forget], g, chosen) + 0.9 * nll[~forget].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert terms["weight"].item() == pytest.approx(g.mean().item())
    learner.after_step(0, same)
    assert not any(parameter.any() for parameter in learner.scorer.parameters())


@pytest.mark.parametrize(("size", "processes"), [(1, 1), (2, 1), (5, 2), (1, 2), (2, 3)])
def test_micro_batches_and_processes_change_nothing(tiny, examples, size, processes):
    """Loss, the model's gradient and the scorer after its step, summed over the parts of every process."""
    model = tiny().model
    whole, parts = learner_for(), [learner_for() for _ in range(processes)]
    batch = collate(examples)
    loss, terms = whole.objective(answer_tokens(model, batch, own=True), batch)
    expected = gradient(model.parameters(), loss)
    total, found, logged = 0.0, torch.zeros_like(expected), dict.fromkeys(terms, 0.0)
    for rank, learner in enumerate(parts):
        for part in micro_batches(examples, size, rank, processes):
            share, some = learner.objective(answer_tokens(model, part, own=True), part)
            total += share.item()
            found += gradient(model.parameters(), share)
            logged = {name: logged[name] + some[name].item() for name in terms}
    assert total == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert logged == pytest.approx({name: value.item() for name, value in terms.items()}, rel=1e-5)
    grads = [[parameter.grad.clone() for parameter in learner.scorer.parameters()] for learner in parts]
    sums = [sum(of_processes) for of_processes in zip(*grads)]
    whole.after_step(0, same)
    for learner in parts:
        pending = iter([values.clone() for values in sums])
        learner.after_step(0, lambda values, pending=pending: next(pending))
        for mine, other in zip(learner.scorer.parameters(), whole.scorer.parameters()):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_a_duplicate_micro_batch_weighs_nothing(language_model, examples):
    learner = learner_for()
    batch = collate(examples[:1], 0.0, 0.0, 0.0)
    loss, _ = learner.objective(answer_tokens(language_model.model, batch, own=True), batch)
    assert loss.item() == 0 and not scorer_gradient(learner).any()


def test_a_micro_batch_of_retain_rows_alone(language_model, examples):
    learner = learner_for()
    batch = collate(examples[3:], 0.0, 0.0, 0.5)
    loss, terms = learner.objective(answer_tokens(language_model.model, batch, own=True), batch)
    assert loss.item() == pytest.approx(0.9 * terms["retain_nll"].item())
    assert not scorer_gradient(learner).any()


def steps(learner, model, examples, first, count):
    """Scorer after each of `count` steps that begin at `first`, on the untrained model."""
    found = []
    for step in range(first, first + count):
        batch = collate(examples[step % 2 :])
        learner.objective(answer_tokens(model, batch, own=True), batch)
        learner.after_step(step, same)
        found.append(torch.cat([parameter.detach().flatten() for parameter in learner.scorer.parameters()]))
    return found


def test_the_scorer_moves_at_every_kth_step_alone(language_model, examples):
    learner = atwu.Learner(settings(every=3), 32, STEPS, "cpu")
    states = [torch.zeros(33), *steps(learner, language_model.model, examples, 0, 8)]
    moved = [not torch.equal(a, b) for a, b in pairwise(states)]
    assert moved == [True, False, False, True, False, False, True, False]


def test_one_step_of_sgd_by_hand(language_model, examples):
    """Clipped to norm .01, weight decay .1, lr .5 * (1 - 4 / 20) = .4; momentum adds nothing to a first step."""
    chosen = settings(clip=0.01, scorer_weight_decay=0.1, l2=0.2, every=2)
    learner = learner_for(chosen)
    learner.step = 4
    before = torch.cat([parameter.detach().flatten() for parameter in learner.scorer.parameters()])
    batch = collate(examples)
    learner.objective(answer_tokens(language_model.model, batch, own=True), batch)
    raw = scorer_gradient(learner) + torch.cat([0.4 * before[:-1], torch.zeros(1)])
    learner.after_step(4, same)
    clipped = raw * 0.01 / raw.norm()
    after = torch.cat([parameter.detach().flatten() for parameter in learner.scorer.parameters()])
    torch.testing.assert_close(after, before - 0.4 * (clipped + 0.1 * before), rtol=1e-4, atol=1e-6)
    assert not scorer_gradient(learner).any()


def test_a_saved_learner_goes_on_bit_for_bit(language_model, examples, tmp_path):
    chosen = settings(every=2)
    whole, first = (atwu.Learner(chosen, 32, STEPS, "cpu") for _ in range(2))
    expected = steps(whole, language_model.model, examples, 0, 9)
    steps(first, language_model.model, examples, 0, 5)
    torch.save(first.state_dict(), tmp_path / "learner.pt")
    second = atwu.Learner(chosen, 32, STEPS, "cpu")
    second.load_state_dict(torch.load(tmp_path / "learner.pt", weights_only=True))
    found = steps(second, language_model.model, examples, 5, 4)
    assert all(torch.equal(a, b) for a, b in zip(found, expected[5:], strict=True))
    assert len({tuple(state.tolist()) for state in expected}) == 5, "it moved, so the test tells something"


def test_a_scorer_of_another_hidden_size():
    learner = atwu.Learner(settings(), 32, STEPS, "cpu")
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(UserError, match=r"reads hidden states of 16 numbers, and this model's have 32.*another model"):
        learner.load_state_dict(atwu.Learner(settings(), 16, STEPS, "cpu").state_dict())
    assert torch.equal(learner.state_dict()["scorer"]["weight"], before["scorer"]["weight"])


def test_the_scorer_computes_in_float32():
    """Of hidden states in bfloat16, and under mixed precision."""
    own = torch.randn(9, 32, generator=torch.Generator().manual_seed(4))
    learner = learner_for()
    expected = learner.token_weights(own)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(learner.token_weights(own), expected)
    exact = learner.token_weights(own.bfloat16())
    assert exact.dtype == torch.float32 and torch.equal(exact, learner.token_weights(own.bfloat16().float()))


def test_needs():
    needs = atwu.needs(settings())
    assert (needs.retain, needs.own, needs.refusals, needs.cached) == (True, True, False, ())
    assert not atwu.needs(settings(alpha=0.0)).retain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_weights": "gold"}, r"atwu\.token_weights = 'gold' is not allowed"),
        ({"gamma": 0.0}, r"atwu\.gamma = 0\.0 is not allowed"),
        ({"every": 0}, r"atwu\.every = 0 is not allowed"),
        ({"momentum": 1.0}, r"atwu\.momentum = 1\.0 is not allowed"),
        ({"budget": 1.5}, r"atwu\.budget = 1\.5 is not allowed"),
        ({"saturation": "none"}, r"atwu\.saturation = 'none' is not allowed"),
        ({"scorer": 1}, r"unknown key atwu\.scorer"),
    ],
)
def test_settings(changes, message):
    with pytest.raises(UserError, match=message):
        validate("atwu", settings().model_dump() | changes, atwu.Settings)


@pytest.fixture(scope="module")
def unlearned(tiny, memorised, forget, retain):
    """A model that has memorised all facts, unlearned: (forget answers, what unlearning left)."""
    language_model = tiny()
    language_model.model.load_state_dict(memorised)
    data = data_of(language_model, forget, retain)
    step = {"epochs": 3, "batch": 2, "lr": 3e-3, "warmup": 0.0, "weight_decay": 0.0}
    how = unlearning.settings(**step, method="atwu", trajectory_retain=4)
    method = Method(atwu, settings(gamma=3.0, alpha=2.0))
    return data.examples, unlearn(language_model, data, method, how, Run())


def test_a_run_forgets_and_retains(unlearned):
    _, done = unlearned
    means = {
        (name, epoch): np.mean(
            [
                row["value"]
                for row in done.trajectory
                if row["epoch"] == epoch and row["measure"] == "probability" and row["sample_id"].startswith(name)
            ]
        )
        for name in ("forget", "retain")
        for epoch in (0, 3)
    }
    assert means["forget", 0] > 0.8 and means["forget", 3] < 0.5 * means["forget", 0]
    assert means["retain", 3] > means["forget", 3]
    assert list(done.log[0]) == ["step", "loss", "forget_loss", "forget_nll", "weight", "retain_nll"]
    assert done.log[0]["weight"] == pytest.approx(0.5) and done.log[-1]["forget_nll"] > done.log[0]["forget_nll"]


def test_rows_of_the_weights_table(unlearned, tmp_path):
    """A row a token of every answer, end of sequence included, at every epoch; half before the first step."""
    examples, done = unlearned
    keys = [
        (epoch, example.sample_id, example.start + k, start, end)
        for epoch in range(4)
        for example in examples
        for k, (start, end) in enumerate(example.offsets)
    ]
    assert [tuple(row.values())[:5] for row in done.token_weights] == keys
    tables.write(tmp_path / "weights.parquet", done.token_weights, TOKEN_WEIGHTS)
    weights = tables.read(tmp_path / "weights.parquet", TOKEN_WEIGHTS)["weight"].to_numpy()
    first = len(keys) // 4
    assert (weights[:first] == 0.5).all() and weights[-first:].std() > 0.01
    assert (weights >= 0).all() and (weights <= 1).all()


def test_rows_of_the_weights_table_are_those_of_the_samples(unlearned, language_model):
    """Batches of similar length and a batch of one give the same weights, each with its own token."""
    examples, _ = unlearned
    learner = learner_for()
    rows = token_weight_rows(language_model, examples, learner, 7)
    for example in examples:
        own = answer_tokens(language_model.model, collate([replace(example, refusal=None)]), own=True).own
        mine = [row["weight"] for row in rows if row["sample_id"] == example.sample_id]
        assert mine == pytest.approx(learner.token_weights(own).tolist(), abs=1e-5)
    assert {row["epoch"] for row in rows} == {7}
