"""The losses that methods are made of: values derived by hand, equality with loops, and what must not matter."""

import math

import pytest
import torch

from tif.losses import kl_divergence, log_sigmoid_loss, logit_preference_loss, preservation_loss, sample_sums

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


def test_lpl_per_batch_by_hand():
    """Margins 2 and -1 as above, averaged first: 1/2. With beta = 1/2: 4 ln(1 + e^-1/4) = 4 (.5759390916).

    The margin is a mean over samples: over all three drops 1, 3 and -1 it would be 1. With a third sample without UW
    two of three samples have a margin, so 2/3 of it.
    """
    logit, reference, unwanted, sample = tensors(
        [2.0, 1.0, 0.0, 8.0], [3.0, 4.0, -1.0, 0.0], [True, True, True, False], [5, 5, 9, 9]
    )
    found = logit_preference_loss(logit, reference, unwanted, sample, 0.5, "batch").item()
    assert found == pytest.approx(4 * math.log(1 + math.exp(-0.25)), rel=1e-12)
    sample[3] = 11
    third = logit_preference_loss(logit, reference, unwanted, sample, 0.5, "batch").item()
    assert third == pytest.approx(2 / 3 * found, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_lpl_per_batch_where_it_equals_the_other_form(seed):
    """For one sample, for equal margins, and in its gradient at margin 0: 1 / (S |U_b|) for a UW token."""
    logit, reference, unwanted, sample = random_case(seed, 60, torch.float64)
    one = sample == sample[0]
    args = [value[one] for value in (logit, reference, unwanted, sample)]
    assert logit_preference_loss(*args, 0.3, "batch").item() == pytest.approx(logit_preference_loss(*args, 0.3).item())
    same = logit + 1.7
    forms = [logit_preference_loss(logit, same, unwanted, sample, 0.3, per).item() for per in ("batch", "sample")]
    assert forms[0] == pytest.approx(forms[1], rel=1e-12)
    gradients = []
    for per in ("batch", "sample"):
        z = reference.clone().requires_grad_()
        logit_preference_loss(z, reference, unwanted, sample, 0.3, per).backward()
        gradients.append(z.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_lpl_per_batch_without_any_unwanted_token():
    logit, unwanted, sample = tensors([1.0, 2.0], [False, False], [0, 1])
    logit.requires_grad_()
    loss = logit_preference_loss(logit, logit.detach() + 1, unwanted, sample, 0.3, "batch")
    loss.backward()
    assert loss.item() == 0 and not logit.grad.any()
    empty = torch.empty(0)
    assert logit_preference_loss(empty, empty, empty.bool(), empty.long(), 0.3, "batch").item() == 0


def test_sample_sums_by_hand():
    """Sample 2: 1 * 3 + 1/2 * 4 = 5 of weights 3/2; sample 7: its only weight is 0, so infinity is not read."""
    sums, weights = sample_sums(*tensors([3.0, math.inf, 4.0], [1.0, 0.0, 0.5], [2, 7, 2]))
    assert sums.tolist() == [5, 0] and weights.tolist() == [1.5, 0]
    with pytest.raises(ValueError, match="one length N"):
        sample_sums(torch.zeros(2), torch.zeros(3), torch.zeros(2).long())


def test_log_sigmoid_loss_by_hand():
    """Margins ln 2 and ln 1/2 at beta 1: 2 ln 1.5 and 2 ln 3; a sample that does not count gives 0 of three."""
    margin = torch.tensor([math.log(2), -math.log(2), math.nan], dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([True, True, False])
    loss = log_sigmoid_loss(margin, counts, 1.0)
    assert loss.item() == pytest.approx(2 / 3 * math.log(4.5), rel=1e-12)
    assert log_sigmoid_loss(margin[:0], counts[:0], 1.0).item() == 0
    with pytest.raises(ValueError, match="beta must be above 0"):
        log_sigmoid_loss(margin, counts, 0.0)


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(-1e5, 2e5), (-20, 4 * math.log1p(math.exp(10))), (0, 4 * LN2), (20, 4 * math.log1p(math.exp(-10))), (1e5, 0)],
)
def test_log_sigmoid_loss_does_not_overflow(margin, expected):
    """4 ln(1 + e^(-m/2)) at beta 1/2, in float32; slopes within [-2, 0]."""
    m = torch.tensor([float(margin)], requires_grad=True)
    loss = log_sigmoid_loss(m, torch.tensor([True]), 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert -2 <= m.grad.item() <= 0


def naive_kl(logits, reference):
    q = [math.exp(z - max(reference)) for z in reference]
    p = [math.exp(z - max(logits)) for z in logits]
    q, p = [x / sum(q) for x in q], [x / sum(p) for x in p]
    return sum(a * math.log(a / b) for a, b in zip(q, p))


def test_kl_equals_a_loop_over_words():
    generator = torch.Generator().manual_seed(0)
    logits, reference = torch.randn(2, 7, 50, generator=generator, dtype=torch.float64) * 3
    found = kl_divergence(logits, torch.zeros(7).long(), reference)
    assert found.tolist() == pytest.approx([naive_kl(*rows) for rows in zip(logits.tolist(), reference.tolist())])
    assert kl_divergence(logits, torch.zeros(7).long(), logits).abs().max() < 1e-12
    torch.testing.assert_close(kl_divergence(logits + 5, torch.zeros(7).long(), reference - 90), found)


def test_kl_of_far_apart_distributions_is_finite():
    """All mass on word 0 against all on word 1, 200 nats apart: KL = 200, slope p - q = (-1, 1)."""
    logits = torch.tensor([[0.0, 200.0]], requires_grad=True)
    value = kl_divergence(logits, torch.zeros(1).long(), torch.tensor([[200.0, 0.0]]))
    value.sum().backward()
    assert value.item() == pytest.approx(200)
    assert logits.grad[0].tolist() == pytest.approx([-1, 1])
