"""What holds for every method in the folder: cutting a batch changes nothing, and the head runs only where it must.

A new method is tested here as soon as its file and its block in params.yaml exist.
"""

import importlib
from pathlib import Path
from typing import get_args

import pytest
import torch
from support import assert_near, total

from tif import methods
from tif.base import params
from tif.base.errors import UserError
from tif.lm import logits
from tif.lm.batches import collate, micro_batches

NAMES = sorted(path.stem for path in Path(methods.__file__).parent.glob("[a-z]*.py"))
# random models are far from certain, so the steep defaults would leave losses of almost nothing
# and equal weights of two terms that cancel would leave nothing to compare with
MILD = {
    "simnpo": {"beta": 0.3},
    "satimp": {"beta1": 0.3},
    "atwu": {"beta": 0.1},
    "rmu": {"layer": 1, "c": 5.0},
    "graddiff": {"retain": 0.5},
}
WITHIN_A_MICRO_BATCH = {"logit_drop", "general_nll", "refusal_nll"}  # logged means without a share of their own


def settings_of(name: str, **changes):
    """The method's block of params.yaml with other values."""
    module = importlib.import_module(f"tif.methods.{name}")
    block = params.read_all(Path(__file__).parents[2] / "params.yaml")[name]
    return module, params.validate(name, block | MILD.get(name, {}) | changes, module.Settings)


def variants() -> list[tuple[str, dict]]:
    """Every method as it is set, with the other kinds of weights, and with each retain term switched on or off."""
    found = []
    for name in NAMES:
        module, settings = settings_of(name)
        found.append((name, {}))
        if "token_weights" in module.Settings.model_fields:
            kinds = get_args(module.Settings.model_fields["token_weights"].annotation)
            found += [(name, {"token_weights": kind}) for kind in kinds if kind != settings.token_weights]
        terms = [term for term in ("retain", "kl", "alpha") if term in module.Settings.model_fields]
        found += [(name, {term: 0.0 if getattr(settings, term) else 0.6}) for term in terms]
    return found


VARIANTS = variants()
each_variant = pytest.mark.parametrize(("name", "changes"), VARIANTS, ids=[f"{n}-{c}" for n, c in VARIANTS])


def batch_of_10(world, module, settings):
    needs = module.needs(settings)
    return world.step(needs, *((5, 5) if needs.retain else (10, 0)))


def assert_same(found, expected, uniform: bool) -> None:
    """Loss and gradient to 1e-5, and the logged terms whose shares make them sums."""
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert_near(found[2], expected[2], 1e-5)
    inexact = WITHIN_A_MICRO_BATCH | (set() if uniform else {"forget_nll"})
    for term in expected[1].keys() - inexact:
        assert found[1][term] == pytest.approx(expected[1][term], rel=1e-5, abs=1e-7), term


@each_variant
def test_accumulation_and_processes_equal_the_big_batch(precise, name, changes):
    """10 samples at once, in micro-batches of 4 rows and of 1, and over 2 and 3 processes (4, 3 and 3 samples each)."""
    module, settings = settings_of(name, **changes)
    step = batch_of_10(precise, module, settings)
    expected = total(precise, module, settings, [collate(step)])
    uniform = getattr(settings, "token_weights", "uniform") == "uniform"
    for size in (10, 4, 1):
        assert_same(total(precise, module, settings, micro_batches(step, size)), expected, uniform)
    for processes in (2, 3):
        parts = [micro_batches(step, 4, rank, processes) for rank in range(processes)]
        assert len({len(part) for part in parts}) == 1, "collective operations need equally many"
        every = [batch for part in parts for batch in part]
        assert_same(total(precise, module, settings, every), expected, uniform)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("processes", [3, 5])
def test_processes_that_run_out_of_rows(precise, name, processes):
    """Four rows for 3 or 5 processes: the duplicates that fill up have share 0 and give no loss and no gradient."""
    module, settings = settings_of(name)
    needs = module.needs(settings)
    step = precise.step(needs, *((2, 2) if needs.retain else (4, 0)))
    expected = total(precise, module, settings, [collate(step)])
    parts = [micro_batches(step, 1, rank, processes) for rank in range(processes)]
    fillers = [b for part in parts for b in part if not (b.sample_share or b.token_share)]
    assert fillers
    assert_same(total(precise, module, settings, [b for part in parts for b in part]), expected, uniform=True)
    value, terms, gradient = total(precise, module, settings, fillers)
    assert value == 0 and not gradient.any() and not any(terms.values())


@each_variant
def test_a_head_in_chunks_changes_nothing(world, monkeypatch, name, changes):
    """Three tokens of 320 words at a time, and a bound below one token's row."""
    module, settings = settings_of(name, **changes)
    batches = [collate(batch_of_10(world, module, settings))]
    whole = total(world, module, settings, batches)
    for budget in (3 * 320, 100):
        monkeypatch.setattr(logits, "LOGIT_BUDGET", budget)
        value, terms, gradient = total(world, module, settings, batches)
        assert value == pytest.approx(whole[0], rel=1e-5)
        assert terms == pytest.approx(whole[1], rel=1e-5, abs=1e-7)
        assert_near(gradient, whole[2], 1e-5)


@pytest.mark.parametrize("weights", ["spans", "scores"])
@pytest.mark.parametrize(
    "name", [name for name in NAMES if "token_weights" in settings_of(name)[0].Settings.model_fields]
)
def test_a_sample_without_any_weight_contributes_nothing(world, name, weights):
    """Forget sample 0 has no unwanted token and scores of 0."""
    fields = settings_of(name)[0].Settings.model_fields
    module, settings = settings_of(
        name, token_weights=weights, **{k: 0.0 for k in ("retain", "kl", "alpha") if k in fields}
    )
    alone = world.step(module.needs(settings), 1, 0)
    value, terms, gradient = total(world, module, settings, [collate(alone)])
    assert value == 0 and not gradient.any()
    assert not any(value for term, value in terms.items() if term not in ("forget_nll", "refusal_nll"))
    two = total(world, module, settings, [collate(world.step(module.needs(settings), 2, 0))])
    parts = micro_batches(world.step(module.needs(settings), 2, 0), 1)
    assert two[0] == pytest.approx(total(world, module, settings, parts)[0], rel=1e-5)
    assert two[0] != 0


@pytest.mark.parametrize(
    ("name", "changes"),
    [(n, c) for n, c in VARIANTS if settings_of(n, **c)[0].needs(settings_of(n, **c)[1]).retain],
    ids=str,
)
def test_micro_batches_of_one_kind(world, name, changes):
    """Retain rows alone give the loss of the retain terms alone; forget rows alone give the rest; all is finite."""
    module, settings = settings_of(name, **changes)
    forget, retain = 3, 3
    step = world.step(module.needs(settings), forget, retain)
    together = total(world, module, settings, [collate(step)])
    kept = total(world, module, settings, [collate(step[forget:], 0.0, 0.0, 1.0)])
    forgot = total(world, module, settings, [collate(step[:forget], 1.0, 1.0, 0.0)])
    assert kept[0] + forgot[0] == pytest.approx(together[0], rel=1e-5)
    assert kept[1].keys() == forgot[1].keys() == together[1].keys()
    assert kept[0] > 0 and not any(v for term, v in kept[1].items() if not term.startswith("retain"))
    assert not any(v for term, v in forgot[1].items() if term.startswith("retain"))
    assert torch.isfinite(kept[2]).all() and torch.isfinite(forgot[2]).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("tpo", "atwu")])
def test_the_head_runs_on_tokens_with_a_weight_only(world, monkeypatch, name):
    """Rows over the vocabulary, with spans as weights and no retain term: as many as unwanted and refusal tokens.

    TPO preserves the other tokens, and ATWU logs them, so these two need all.
    """
    fields = settings_of(name)[0].Settings.model_fields
    module, settings = settings_of(
        name, token_weights="spans", **{k: 0.0 for k in ("retain", "kl", "alpha") if k in fields}
    )
    asked = []
    for function in ("nll", "per_token"):
        original = getattr(logits.AnswerTokens, function)

        def counting(tokens, *args, original=original):
            where = next(a for a in args if isinstance(a, torch.Tensor))
            asked.append(int(where.sum()))
            return original(tokens, *args)

        monkeypatch.setattr(logits.AnswerTokens, function, counting)
    batch = collate(world.step(module.needs(settings), 5, 0))
    total(world, module, settings, [batch])
    expected = int((batch.forget & batch.unwanted | batch.refusal).sum())
    assert sum(asked) == (0 if name == "rmu" else expected)


WRONG = [
    ("tpo", {"per": "token"}, r"tpo\.per = 'token' is not allowed"),
    ("npo", {"beta": 0.0}, r"npo\.beta = 0\.0 is not allowed"),
    ("npo", {"kl": -1.0}, r"npo\.kl = -1\.0 is not allowed"),
    ("simnpo", {"beta": -0.1}, r"simnpo\.beta = -0\.1 is not allowed"),
    ("simnpo", {"delta": -0.1}, r"simnpo\.delta = -0\.1 is not allowed"),
    ("dpo", {"beta": 0.0}, r"dpo\.beta = 0\.0 is not allowed"),
    ("wga", {"beta": -1.0}, r"wga\.beta = -1\.0 is not allowed"),
    ("satimp", {"beta1": -1.0}, r"satimp\.beta1 = -1\.0 is not allowed"),
    ("satimp", {"beta2": float("nan")}, r"satimp\.beta2 = nan is not allowed"),
    ("undial", {"beta": 0.0}, r"undial\.beta = 0\.0 is not allowed"),
    ("kl", {"kl": -0.5}, r"kl\.kl = -0\.5 is not allowed"),
    ("rmu", {"layer": 0}, r"rmu\.layer = 0 is not allowed"),
    ("rmu", {"c": 0.0}, r"rmu\.c = 0\.0 is not allowed"),
    ("rmu", {"alpha": -1.0}, r"rmu\.alpha = -1\.0 is not allowed"),
    ("rmu", {"seed": -1}, r"rmu\.seed = -1 is not allowed"),
    ("ga", {"retain": 1.0}, r"unknown key ga\.retain"),
    ("graddiff", {"token_weight": "spans"}, r"unknown key graddiff\.token_weight; did you mean 'token_weights'\?"),
    (
        "ceu",
        {"token_weights": "gold"},
        r"ceu\.token_weights = 'gold' is not allowed: input should be 'uniform', 'spans' or 'scores'",
    ),
]
WRONG += [
    (name, {"retain": -0.1}, rf"{name}\.retain = -0\.1 is not allowed")
    for name in NAMES
    if "retain" in settings_of(name)[0].Settings.model_fields
]


@pytest.mark.parametrize(("name", "changes", "message"), WRONG)
def test_settings_out_of_range(name, changes, message):
    with pytest.raises(UserError, match=message):
        settings_of(name, **changes)
