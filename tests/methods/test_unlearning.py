"""Every method on a tiny model that knows eight facts by heart: it lowers what it should, and keeps what it can."""

import importlib
import math
from pathlib import Path

import pytest
from forgetting import data_of, settings

from tif import methods
from tif.base import params
from tif.base.errors import UserError
from tif.training.loop import Run
from tif.unlearning.run import Method, Unlearned, unlearn

NAMES = sorted(path.stem for path in Path(methods.__file__).parent.glob("[a-z]*.py"))
PARAMS = params.read_all(Path(__file__).parents[2] / "params.yaml")
# what the defaults, which are for a larger model, leave too slow or too coarse for this one
CHANGES = {"rmu": {"layer": 1, "c": 5.0}}


@pytest.fixture(scope="module")
def run(tiny, memorised, forget, retain):
    """Unlearn the first four facts, of which the town is unwanted, from a fresh copy of that model."""

    def make(name: str, epochs: int = 10, **changes) -> Unlearned:
        language_model = tiny()
        language_model.model.load_state_dict(memorised)
        module = importlib.import_module(f"tif.methods.{name}")
        block = params.validate(name, PARAMS[name] | CHANGES.get(name, {}) | changes, module.Settings)
        chosen = settings(epochs=epochs, micro_batch=3, lr=2e-3, method=name, trajectory_retain=4)
        return unlearn(language_model, data_of(language_model, forget, retain), Method(module, block), chosen, Run())

    return make


def probability(done: Unlearned, kind: str) -> list[float]:
    """Mean probability of the answers of one kind, forget or retain, after every epoch."""
    rows = [r for r in done.trajectory if r["measure"] == "probability" and r["sample_id"].startswith(kind)]
    epochs = 1 + max(row["epoch"] for row in rows)
    return [sum(r["value"] for r in rows if r["epoch"] == epoch) / 4 for epoch in range(epochs)]


@pytest.mark.parametrize("name", NAMES)
def test_the_forget_answers_become_unlikely(run, name):
    """And, where the method's block has a retain term, more so than the retain answers; plain ascent loses both."""
    done = run(name)
    forget, retain = probability(done, "forget"), probability(done, "retain")
    assert forget[0] > 0.9 and retain[0] > 0.9
    assert forget[-1] < 0.8 * forget[0]
    assert retain[-1] > forget[-1] + 0.1
    assert all(value == value for row in done.log for value in row.values())
    if name == "rmu":
        assert done.log[-1]["steering"] < 0.8 * done.log[0]["steering"]
    if name == "dpo":
        assert done.log[-1]["refusal_nll"] < done.log[0]["refusal_nll"] - 1


@pytest.mark.parametrize(("name", "weight"), [("npo", 5.0), ("simnpo", 1.0)])
@pytest.mark.parametrize("term", ["retain", "kl"])
def test_either_retain_term_preserves(run, name, weight, term):
    """With +GD or +KL retain answers stay likelier than without any term. NPO sums over an answer's tokens."""
    none = {"retain": 0.0, "kl": 0.0, "beta": 0.5}
    alone, kept = run(name, epochs=6, **none), run(name, epochs=6, **none | {term: weight})
    assert probability(kept, "retain")[-1] > probability(alone, "retain")[-1] + 0.05
    assert probability(kept, "forget")[-1] < 0.8 * probability(kept, "forget")[0]


def test_at_the_start_nothing_has_moved(run):
    """The reference and the cached states are those of the model itself: margin 0, KL 0, drift 0."""
    npo = run("npo", epochs=1, kl=1.0).log[0]
    assert npo["npo"] == pytest.approx(2 / PARAMS["npo"]["beta"] * math.log(2), rel=1e-4)
    assert npo["retain_kl"] == pytest.approx(0, abs=1e-5)
    assert run("dpo", epochs=1).log[0]["dpo"] == pytest.approx(2 / PARAMS["dpo"]["beta"] * math.log(2), rel=1e-4)
    assert run("rmu", epochs=1).log[0]["retain_drift"] == pytest.approx(0, abs=1e-8)


def test_spans_as_weights_spare_the_other_words(run):
    """Under spans the towns fall as under uniform weights, or more, and the answers' other words stay likelier."""
    found = {}
    for weights in ("uniform", "spans"):
        done = run("npo", token_weights=weights, retain=0.0)
        last = [row for row in done.trajectory if row["epoch"] == 10 and row["sample_id"].startswith("forget")]
        drop = sum(row["value"] for row in last if row["measure"] == "unwanted_logprob_drop") / 4
        whole = -math.log(sum(row["value"] for row in last if row["measure"] == "probability") / 4)
        found[weights] = drop / whole
    assert found["spans"] > 1.2 * found["uniform"]


def test_a_layer_that_the_model_does_not_have(run):
    with pytest.raises(UserError, match=r"layer = 9 of the method's block: the model has layers 1 to 2 only"):
        run("rmu", layer=9)


def test_two_runs_with_cached_states_are_the_same_bit_for_bit(run):
    for name in ("kl", "undial", "rmu"):
        assert run(name, epochs=2).log == run(name, epochs=2).log
