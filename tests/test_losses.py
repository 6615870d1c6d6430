"""LPL and PL: values derived by hand, equality with loops over samples, and what must not matter."""

import math

import pytest
import torch

from tif.losses import logit_preference_loss, preservation_loss

LN2 = math.log(2)


def tensors(*columns, dtype=torch.float64):
    return [torch.tensor(c, dtype=dtype if isinstance(c[0], float) else None) for c in columns]


def naive_lpl(logit, reference, unwanted, sample, beta):
    losses = []
    for key in sorted(set(sample.tolist())):
        drops = [float(r - z) for z, r, u, s in zip(logit, reference, unwanted, sample) if u and s == key]
        margin = sum(drops) / len(drops) if drops else 0.0
        losses.append(2 / beta * math.log(1 + math.exp(-beta * margin)) if drops else 0.0)
    return sum(losses) / len(losses)


def naive_pl(nll, general, sample):
    total = sum(float(value) for value, flag in zip(nll, general) if flag)
    return total / len(set(sample.tolist()))


def random_case(seed, size, dtype):
    generator = torch.Generator().manual_seed(seed)
    logit, reference = (torch.randn(2, size, generator=generator, dtype=torch.float64) * 3).to(dtype)
    unwanted = torch.rand(size, generator=generator) < 0.4
    sample = torch.randint(0, max(size // 4, 1), (size,), generator=generator) * 7 - 3
    return logit, reference, unwanted, sample


@pytest.mark.parametrize("beta", [0.1, 0.32, 1.0, 5.0])
def test_lpl_at_margin_zero(beta):
    """-(2/beta) log sigmoid(0) = (2/beta) ln 2, whatever the number of samples and tokens."""
    logit, unwanted, sample = tensors([1.0, -4.0, 2.5], [True, True, False], [0, 0, 1])
    one = logit_preference_loss(logit[:2], logit[:2], unwanted[:2], sample[:2], beta)
    assert one.item() == pytest.approx(2 / beta * LN2, rel=1e-12)
    two = logit_preference_loss(logit, logit, torch.tensor([True, True, True]), sample, beta)
    assert two.item() == pytest.approx(2 / beta * LN2, rel=1e-12)


def test_lpl_by_hand():
    """Sample 5: drops 1 and 3, margin 2; sample 9: one drop of -1. With beta = 1/2:

    LPL = [4 ln(1 + e^-1) + 4 ln(1 + e^0.5)] / 2 = 2 (0.3132616875 + 0.9740769842) = 2.5746773435.
    Averaging the margins first (margin 1 over all three tokens) would give 4 ln(1 + e^-0.5) = 1.896.
    """
    logit, reference, unwanted, sample = tensors(
        [2.0, 1.0, 0.0, 8.0], [3.0, 4.0, -1.0, 0.0], [True, True, True, False], [5, 5, 9, 9]
    )
    assert logit_preference_loss(logit, reference, unwanted, sample, 0.5).item() == pytest.approx(
        2.5746773435, abs=1e-9
    )


def test_lpl_saturates_and_does_not_overflow():
    """Far below the reference the loss is 0; far above it is 2 * |margin|: (2/beta) * beta * 1e4 = 2e4 in float32."""
    zero, sample, unwanted = torch.zeros(1), torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    assert logit_preference_loss(zero - 1e4, zero, unwanted, sample, 0.2).item() == 0
    assert logit_preference_loss(zero + 1e4, zero, unwanted, sample, 0.2).item() == pytest.approx(2e4)


@pytest.mark.parametrize("margin", [-10.0, 0.0, 5.0, 10.0])
@pytest.mark.parametrize("beta", [0.2, 0.32])
def test_gradient_of_lpl(margin, beta):
    """d LPL / d(mean z) = 2 sigmoid(-beta margin), shared equally by the UW tokens; GW tokens get none."""
    reference = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    logit = (reference - margin).requires_grad_()
    unwanted = torch.tensor([True, False, True])
    logit_preference_loss(logit, reference, unwanted, torch.zeros(3, dtype=torch.int64), beta).backward()
    expected = 2 / (1 + math.exp(beta * margin))
    assert logit.grad.tolist() == pytest.approx([expected / 2, 0, expected / 2], rel=1e-12)


def test_gradient_sizes_of_the_paper():
    """At beta .32 the gradient is 1 at margin 0, .34 at margin 5 and .08 at margin 10 (two digits)."""
    logit = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    found = []
    for margin in (0.0, 5.0, 10.0):
        args = torch.tensor([margin]), torch.tensor([True]), torch.tensor([0])
        found.append(torch.autograd.grad(logit_preference_loss(logit, *args, 0.32), logit)[0].item())
    assert [round(value, 2) for value in found] == [1.0, 0.34, 0.08]


def test_a_sample_without_unwanted_tokens_contributes_0_and_counts():
    """Sample 0 has margin 0 and gives 2 ln 2 / beta; sample 1 has no UW token: the mean is half of it."""
    logit, unwanted, sample = tensors([1.0, 2.0], [True, False], [0, 1])
    assert logit_preference_loss(logit, logit, unwanted, sample, 2.0).item() == pytest.approx(LN2 / 2)
    assert logit_preference_loss(logit, logit, torch.tensor([False, False]), sample, 2.0).item() == 0


def test_pl_by_hand():
    """Sample 0: 1 + 2 = 3, its third token is UW; sample 1: 4; sample 2 has no GW token: (3 + 4 + 0) / 3."""
    nll, general, sample = tensors([1.0, 2.0, 9.0, 4.0, 9.0], [True, True, False, True, False], [0, 0, 0, 1, 2])
    assert preservation_loss(nll, general, sample).item() == pytest.approx(7 / 3, rel=1e-12)


def test_gradient_of_pl_is_1_over_the_samples_at_every_general_token():
    nll = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    preservation_loss(nll, torch.tensor([True, False, True]), torch.tensor([4, 4, 8])).backward()
    assert nll.grad.tolist() == [0.5, 0, 0.5]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]
)
@pytest.mark.parametrize("size", [1, 2, 17, 200])
def test_equals_a_loop_over_samples(size, dtype, tolerance):
    logit, reference, unwanted, sample = random_case(size, size, dtype)
    lpl = logit_preference_loss(logit, reference, unwanted, sample, 0.3)
    pl = preservation_loss(logit.abs(), ~unwanted, sample)
    assert lpl.dtype == pl.dtype == dtype
    assert lpl.item() == pytest.approx(naive_lpl(logit, reference, unwanted, sample, 0.3), rel=tolerance)
    assert pl.item() == pytest.approx(naive_pl(logit.abs(), ~unwanted, sample), rel=tolerance)


@pytest.mark.parametrize("seed", range(5))
def test_order_of_tokens_and_names_of_samples_do_not_matter(seed):
    logit, reference, unwanted, sample = random_case(seed, 50, torch.float64)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    renamed = -(sample[order] ** 3) * 10**9 + 5
    lpl = logit_preference_loss(logit, reference, unwanted, sample, 0.3)
    other = logit_preference_loss(logit[order], reference[order], unwanted[order], renamed, 0.3)
    assert other.item() == pytest.approx(lpl.item(), rel=1e-12)
    pl = preservation_loss(logit, unwanted, sample)
    assert preservation_loss(logit[order], unwanted[order], renamed).item() == pytest.approx(pl.item(), rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_of_the_other_kind_of_token_do_not_leak(bad):
    logit, reference, unwanted, sample = random_case(1, 30, torch.float64)
    for poison in (logit, reference):
        clean = logit_preference_loss(logit, reference, unwanted, sample, 0.3)
        poisoned = poison.masked_fill(~unwanted, bad)
        args = (poisoned, reference) if poison is logit else (logit, poisoned)
        assert logit_preference_loss(*args, unwanted, sample, 0.3).item() == clean.item()
    z = logit.masked_fill(~unwanted, bad).requires_grad_()
    logit_preference_loss(z, reference, unwanted, sample, 0.3).backward()
    assert torch.isfinite(z.grad).all()
    nll = logit.masked_fill(unwanted, bad).requires_grad_()
    loss = preservation_loss(nll, ~unwanted, sample)
    loss.backward()
    assert loss.item() == preservation_loss(logit, ~unwanted, sample).item()
    assert torch.isfinite(nll.grad).all()


def test_no_tokens_give_0_with_a_gradient_of_nothing():
    empty, flags, sample = torch.empty(0, requires_grad=True), torch.empty(0, dtype=torch.bool), torch.empty(0).long()
    total = logit_preference_loss(empty, empty, flags, sample, 0.3) + preservation_loss(empty, flags, sample)
    total.backward()
    assert total.item() == 0 and empty.grad.shape == (0,)


@pytest.mark.parametrize("beta", [0, -0.1, math.nan])
def test_beta_must_be_positive(beta):
    logit, unwanted, sample = tensors([1.0], [True], [0])
    with pytest.raises(ValueError, match="beta must be above 0"):
        logit_preference_loss(logit, logit, unwanted, sample, beta)


def test_shapes_must_agree():
    three, flags, sample = torch.zeros(3), torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="one length N"):
        logit_preference_loss(three, three, flags[:2], sample, 0.3)
    with pytest.raises(ValueError, match="one length N"):
        preservation_loss(three[None], flags[None], sample[None])
    with pytest.raises(ValueError, match="one length N"):
        preservation_loss(three, flags, sample[:1])
