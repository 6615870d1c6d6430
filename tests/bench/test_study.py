"""The parts of bench/study by hand: plan, tables, the rule that chooses settings, the figure."""

import importlib
import math
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
from dvc.utils.hydra import to_hydra_overrides

from tif.base import params
from tif.base.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench/study"


@pytest.fixture
def bench(monkeypatch):
    """Import a module of bench/study by its name."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


# The committed grids


@pytest.fixture
def grids(bench):
    return bench("planning").read_grids(BENCH / "grids.yaml")


def test_every_setting_of_the_grids_is_valid(bench, grids):
    """Every key is in params.yaml, and the block of the method takes the values of every experiment and try."""
    plan = bench("planning")
    known = params.read_all(ROOT / "params.yaml")
    for name, group in grids.groups.items():
        runs = plan.experiments(grids, name, {})
        if group.tuning:
            runs += [one for _, one in plan.attempts(grids, name)]
        assert len({one.name for one in runs}) == len(runs)
        for one in runs:
            plan.check_keys(one.settings, known)
            method = one.settings["unlearn.method"]
            own = {key.split(".")[1]: value for key, value in one.settings.items() if key.startswith(f"{method}.")}
            block = importlib.import_module(f"tif.methods.{method}").Settings
            params.validate(method, known[method] | own, block)


def test_every_method_is_tried_equally_often_and_never_on_a_reported_seed(bench, grids):
    plan = bench("planning")
    methods = {path.stem for path in (ROOT / "src/tif/methods").glob("[a-z]*.py")}
    assert set(plan.variants(grids, "study")) == methods
    assert {len(tried) for tried in plan.tries(grids, "study").values()} == {5}
    for name, group in grids.groups.items():
        if tuned := group.tuning or (group.chosen and grids.groups[group.chosen].tuning):
            assert tuned.seed not in group.seeds or group.world == "tofu", name
    assert {one.settings["fictitious.seed"] for one in plan.experiments(grids, "study", {})} == {1, 2, 3}
    assert {one.settings["fictitious.seed"] for _, one in plan.attempts(grids, "study")} == {0}


def test_groups_of_other_people_and_of_other_worlds(bench, grids):
    """`seeds` changes the people alone; `languages` and `entanglement` have one world in common."""
    plan = bench("planning")
    seeds = [one.world for one in plan.experiments(grids, "seeds", {})]
    assert [world.pop("fictitious.seed") for world in seeds] == [seed for seed in (1, 2, 3, 4, 5) for _ in range(3)]
    assert {plan.text(world) for world in seeds} == {"compute.threads=1 benchmark.name=fictitious"}
    worlds = {
        (one.settings.get("fictitious.language", "en"), one.settings.get("fictitious.entanglement", 0.0))
        for group in ("languages", "entanglement")
        for one in plan.experiments(grids, group, {})
    }
    assert worlds == {("en", 0.0), ("zh", 0.0), ("ar", 0.0), ("code", 0.0), ("en", 0.5), ("en", 1.0)}


# From grids to experiments

SMALL = """
common: {compute.threads: 1}
worlds:
  w: {settings: {fictitious.people: 5}, seeded: [fictitious.seed, unlearn.seed]}
groups:
  a:
    world: w
    seeds: [1, 2]
    variants: {x: {unlearn.method: tpo}, y: {unlearn.method: npo}}
    tuning: {seed: 0, tries: {x: [{tpo.beta: 0.1}, {tpo.beta: 0.2}], y: [{npo.beta: 1.0}, {npo.beta: 2.0}]}}
  b:
    world: w
    seeds: [7]
    chosen: a
    variants: [y]
    settings: {npo.token_weights: spans}
    vary: {fictitious.language: [en, zh], npo.retain: [0.0, 2.0]}
"""


@pytest.fixture
def small(bench, tmp_path):
    """Read a file of grids, by default SMALL."""

    def read(text: str = SMALL):
        (tmp_path / "grids.yaml").write_text(text)
        return bench("planning").read_grids(tmp_path / "grids.yaml")

    return read


def test_experiments_seed_by_seed_with_chosen_settings(bench, small):
    plan, grids = bench("planning"), small()
    found = plan.experiments(grids, "a", {"x": {"tpo.beta": 0.2}, "y": {}})
    assert [one.name for one in found] == ["a-x-seed1", "a-y-seed1", "a-x-seed2", "a-y-seed2"]
    assert found[2].settings == {
        "compute.threads": 1, "fictitious.people": 5, "fictitious.seed": 2, "unlearn.seed": 2,
        "unlearn.method": "tpo", "tpo.beta": 0.2,
    }  # fmt: skip
    assert found[2].world == {"compute.threads": 1, "fictitious.people": 5, "fictitious.seed": 2}
    assert plan.text(found[2].own) == "unlearn.method=tpo tpo.beta=0.2"
    assert [one.name for one in plan.experiments(grids, "a", {}, ["y"])] == ["a-y-seed1", "a-y-seed2"]


def test_varied_keys_make_every_combination_and_name_their_world(bench, small):
    plan, grids = bench("planning"), small()
    found = plan.experiments(grids, "b", {"y": {"npo.beta": 2.0}})
    assert [one.variant for one in found] == [
        f"y-{language}-retain-{retain}" for language in ("en", "zh") for retain in ("0.0", "2.0")
    ]
    assert [one.place for one in found] == ["en", "en", "zh", "zh"]
    assert found[3].own == {
        "unlearn.method": "npo", "npo.token_weights": "spans", "npo.beta": 2.0, "fictitious.language": "zh",
        "npo.retain": 2.0,
    }  # fmt: skip
    assert plan.labels(grids, "b") == [one.variant for one in found]


def test_tries_are_runs_on_the_tuning_seed(bench, small):
    attempts = bench("planning").attempts(small(), "a", ["y"])
    assert [(settings, one.name, one.seed) for settings, one in attempts] == [
        ({"npo.beta": 1.0}, "tune-a-y-1", 0),
        ({"npo.beta": 2.0}, "tune-a-y-2", 0),
    ]
    assert attempts[0][1].settings["fictitious.seed"] == 0


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("seeds: [7]", "seeds: []", "groups.b.seeds"),
        ("vary:", "varied:", "groups.b.varied"),
        ("    world: w\n    seeds: [7]", "    world: u\n    seeds: [7]", "b.world = 'u'"),
        ("chosen: a", "chosen: b", "b.chosen = 'b'"),
        ("variants: [y]", "variants: [z]", "no variant 'z'"),
        ("y: [{npo.beta: 1.0}, {npo.beta: 2.0}]}", "z: [{npo.beta: 1.0}]}", "differ in y, z"),
    ],
)
def test_a_wrong_grid_is_one_clear_message(bench, small, before, after, message):
    assert before in SMALL
    with pytest.raises(UserError, match=re.escape(message)):
        grids = small(SMALL.replace(before, after))
        bench("planning").tries(grids, "a")
        bench("planning").variants(grids, "b")


def test_unknown_keys_and_missing_paths(bench):
    plan = bench("planning")
    with pytest.raises(UserError, match=r"sets tpo.betta, .*did you mean 'beta'"):
        plan.check_keys({"tpo.betta": 1}, {"tpo": {"beta": 1}})
    with pytest.raises(UserError, match=r"sets tpoo.beta, .*did you mean 'tpo'"):
        plan.check_keys({"tpoo.beta": 1}, {"tpo": {"beta": 1}})
    assert plan.fill({"a.b": "{source}/x", "a.c": 1}, {"source": Path("/y")}) == {"a.b": "/y/x", "a.c": 1}
    with pytest.raises(UserError, match="--source"):
        plan.fill({"a.b": "{source}/x"}, {"source": None})


@pytest.mark.parametrize(
    "value", [0.05, 1e-05, 3, True, None, "npo", "/a b/c,d", "it's", "a\\'b", "x=y", "{z}", "1e5", ""]
)
def test_settings_reach_dvc_as_they_are(bench, value):
    (parsed,) = to_hydra_overrides([bench("planning").override("block.key", value)])
    assert parsed.key_or_group == "block.key"
    assert parsed.value() == value
    assert type(parsed.value()) is type(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "c"], "there is no group 'c'; known: a, b"),
        (["run", "a", "--only", "z"], "group a has no variant 'z'"),
        (["run", "a", "--base", "nope"], "git rev-parse"),
        (["run", "a"], "tuning_a.csv lacks tries of x: run `python bench/study/study.py tune a`"),
        (["table", "b"], "study_b.csv has no rows: run `python bench/study/study.py run b`"),
        (["tune", "b"], "group b has no tuning"),
    ],
)
def test_wrong_options_are_one_clear_message(bench, small, monkeypatch, tmp_path, arguments, message):
    small()
    places = ["--grids", str(tmp_path / "grids.yaml"), "--results", str(tmp_path), "--folder", str(tmp_path / "new")]
    monkeypatch.setattr(sys, "argv", ["study.py", *arguments, *places])
    with pytest.raises(UserError, match=re.escape(message)):
        bench("study").main()
    assert not (tmp_path / "new").exists()


# Tables


def test_intervals_by_hand(bench):
    """1, 2, 3: standard deviation 1, t of 2 degrees of freedom 4.30265, so 2 -+ 4.30265 / sqrt(3) = 2 -+ 2.48414.

    0, 2: standard deviation sqrt(2), t of 1 degree 12.7062, so 1 -+ 12.7062.
    """
    interval = bench("table").interval
    assert interval([1, 2, 3]) == pytest.approx((2, 2 - 2.484138, 2 + 2.484138), rel=1e-6)
    assert interval([0, 2]) == pytest.approx((1, 1 - 12.706205, 1 + 12.706205), rel=1e-6)
    assert interval([5, 5, 5]) == (5, 5, 5)
    one, none = interval([4]), interval([])
    assert one[0] == 4 and math.isnan(one[1]) and math.isnan(one[2])
    assert all(math.isnan(value) for value in none)


@pytest.fixture
def table() -> pd.DataFrame:
    """Utility of tpo: .1, .2, .3 on seeds 1, 2, 3; of npo: .4, .6, .8, and 1 on a fourth seed that tpo lacks."""
    rows = [("target", seed, 0.9) for seed in (1, 2, 3)]
    rows += [("tpo", seed, seed / 10) for seed in (1, 2, 3)]
    rows += [("npo", seed, (seed + 1) / 5) for seed in (1, 2, 3, 4)]
    made = pd.DataFrame(rows, columns=["variant", "seed", "model_utility"])
    made["forget_quality.log10_pvalue"] = -1.0
    made.loc[made["variant"] == "npo", "seconds_per_step"] = [0.5, None, None, None]
    made.loc[made["variant"] == "tpo", "agreement.f1"] = 0.75
    return made


def test_paired_differences_by_hand(bench, table):
    """npo - tpo is .3, .4, .5 on the seeds that both have: mean .4, half .1 * 2.484138."""
    found = bench("table").summary(table, "tpo").set_index(["variant", "measure"])
    row = found.loc["npo", "model_utility"]
    assert (row["seeds"], row["pairs"]) == (4, 3)
    assert row["mean"] == pytest.approx((0.4 + 0.6 + 0.8 + 1.0) / 4)
    difference = row["difference"], row["difference_low"], row["difference_high"]
    assert difference == pytest.approx((0.4, 0.4 - 0.2484138, 0.4 + 0.2484138), rel=1e-6)
    assert pd.isna(found.loc["tpo", "model_utility"]["pairs"])
    assert pd.isna(found.loc["target", "model_utility"]["pairs"])
    assert found.loc["npo", "seconds_per_step"]["seeds"] == 1
    assert found.loc["tpo", "seconds_per_step"]["seeds"] == 0
    assert found.loc["npo", "seconds_per_step"]["pairs"] == 0


def test_table_text(bench, table):
    module = bench("table")
    text = module.markdown(module.summary(table, "tpo"), "tpo")
    first, between, second = text.split("\n\n")
    assert (
        first.splitlines()[0]
        == "|  | seeds | log10 FQ | utility | s/step | spans F1 |"  # what no run has has no column
    )
    assert first.splitlines()[2] == "| target | 3 | -1 (-1 to -1) | 0.9 (0.9 to 0.9) |  |  |"
    assert first.splitlines()[3] == "| tpo | 3 | -1 (-1 to -1) | 0.2 (-0.0484 to 0.448) |  | 0.75 (0.75 to 0.75) |"
    assert first.splitlines()[4] == "| npo | 4 | -1 (-1 to -1) | 0.7 (0.289 to 1.11) | 0.5 |  |"
    assert between == "Differences to tpo on the same seed:"
    assert second.splitlines()[2:] == ["| npo | 3 | 0 (0 to 0) | 0.4 (0.152 to 0.648) |"]
    alone = module.markdown(module.summary(table, None), None)
    assert alone == first
    without = table[table["variant"] != "tpo"]  # `--only npo`
    assert module.markdown(module.summary(without, "tpo"), "tpo").count("\n\n") == 0
    assert module.markdown(module.summary(table[table["variant"] == "tpo"], "tpo"), "tpo").count("| tpo |") == 1


def test_rows_of_an_experiment_have_the_details_of_three_models_and_the_agreement_of_its_spans(bench):
    experiment = bench("planning").Experiment("g-x-seed3", "x", 3, {}, {"tpo.beta": 0.1}, "zh")

    def row(identified: dict) -> tuple[list[str], dict]:
        result = bench("workshop").Result(
            params={"unlearn": {"method": "tpo"}, "identify": {"method": "gold"}},
            details={
                name: {"model_utility": 0.5, "forget": {"rouge": 0.25}} for name in ("target", "retain", "unlearned")
            },
            identified=identified,
            selection={"best": {"epoch": 1}},
            trajectory=pd.DataFrame({"epoch": [0, 1], "forget_quality_log10": [-9.0, -2.0]}),
            costs={"seconds_per_step": 2.0},
        )
        rows = bench("table").rows(experiment, "c" * 40, result)
        return [one["variant"] for one in rows], rows[2]

    names, found = row({"agreement": {"f1": 0.5, "precision": 0.25, "recall": 1.0, "kappa": 0.125}})
    assert names == ["target zh", "retain zh", "x"]
    assert found == {
        "variant": "x", "seed": 3, "commit": "c" * 10, "method": "tpo", "identifier": "gold",
        "settings": "tpo.beta=0.1", "experiment": "g-x-seed3", "model_utility": 0.5, "forget.rouge": 0.25,
        "best.epoch": 1, "best.forget_quality.log10_pvalue": -2.0, "agreement.f1": 0.5, "agreement.precision": 0.25,
        "agreement.recall": 1.0, "seconds_per_step": 2.0,
    }  # fmt: skip
    assert not any(name.startswith("agreement") for name in row({"agreement": None})[1])


@pytest.mark.parametrize(
    "name", ["study", "identifiers", "spans", "lambda", "beta", "splits", "tofu", "tofu_identifiers"]
)
def test_committed_tables_are_those_of_the_committed_runs(bench, grids, name):
    module, suffix = bench("table"), "" if name == "study" else f"_{name}"
    rows = module.read(ROOT / f"bench/results/study{suffix}.csv")
    found = module.summary(rows, grids.groups[name].compare).to_csv(index=False, float_format="%.6g")
    assert found == (ROOT / f"bench/results/study{suffix}_table.csv").read_text()


def test_rows_replace_those_of_the_same_run_and_keep_their_order_and_bits(bench, tmp_path):
    merge, path, order = bench("table").merge, tmp_path / "t.csv", ["tpo", "npo"]
    merge(path, [{"variant": "npo", "seed": 1, "x": 0.1 + 0.2}, {"variant": "target", "seed": 1, "x": 1.0}], order)
    merge(path, [{"variant": "tpo", "seed": 2, "x": 2.0, "y": 3.0}], order)
    merge(path, [{"variant": "old", "seed": 1, "x": 5.0}, {"variant": "tpo", "seed": 1, "x": 4.0}], order)
    merge(path, [{"variant": "tpo", "seed": 2, "x": 6.0}], order)
    assert path.read_text().splitlines() == [
        "variant,seed,x,y", "target,1,1.0,", "tpo,1,4.0,", "tpo,2,6.0,", "npo,1,0.30000000000000004,", "old,1,5.0,"
    ]  # fmt: skip
    bench("table").drop(path, {("tpo", 2)}, order, [1, 2])
    assert path.read_text().splitlines()[1:] == ["target,1,1.0,", "tpo,1,4.0,", "npo,1,0.30000000000000004,"]
    bench("table").drop(path, set(), order, [2])
    assert path.read_text().splitlines()[1:] == []


def test_a_shorter_trajectory_replaces_a_longer_one(bench, tmp_path):
    merge, path = bench("table").merge, tmp_path / "t.csv"
    merge(path, [{"variant": "tpo", "seed": 1, "epoch": epoch, "x": epoch} for epoch in (2, 0, 1)], ["tpo"])
    assert [line.split(",")[2] for line in path.read_text().splitlines()] == ["epoch", "0", "1", "2"]
    merge(path, [{"variant": "tpo", "seed": 1, "epoch": 0, "x": 7}], ["tpo"])
    assert path.read_text().splitlines()[1:] == ["tpo,1,0,7"]


# The rule that chooses settings


@pytest.mark.parametrize(
    ("outcomes", "chosen"),
    [
        ([(-3, 0.1, 0.96), (-1, 0.1, 0.95), (0, 0.0, 0.9)], 1),  # the best forget quality of those that keep .95
        ([(-1, 0.1, 0.95), (-1, 0.2, 0.97), (-1, 0.1, 0.96)], 1),  # of equals, the one that keeps most
        ([(0, 0.5, 0.9), (-9, 0.1, 0.8), (-5, 0.3, 0.94)], 1),  # none keeps .95: .45, .72 and .658
        ([None, (-50, 0.9, 0.1), None], 1),  # the only one whose loss was finite
    ],
)
def test_rule(bench, outcomes, chosen):
    """(log10 forget quality, forget probability, retain probability); the target's retain probability is 1."""
    module = bench("tuning")
    made = [None if outcome is None else module.Outcome(*outcome, kept=outcome[2]) for outcome in outcomes]
    assert module.best(made) == chosen


def test_no_outcome_is_no_choice(bench):
    with pytest.raises(ValueError, match="no try"):
        bench("tuning").best([None, None])


def test_chosen_settings_are_read_only_when_every_try_was_made(bench, tmp_path):
    module, path = bench("tuning"), tmp_path / "tuning.csv"
    tries = {"npo": [{"npo.beta": 0.1}, {"npo.beta": 1e-05}], "ga": [{"unlearn.lr": 0.001}]}
    outcome = module.Outcome(-1.0, 0.1, 0.9, 0.96)
    rows = [module.row("npo", {"npo.beta": 1e-05}, "c" * 40, outcome), module.row("ga", tries["ga"][0], "c" * 40, None)]

    def write() -> pd.DataFrame:
        marked = module.mark(rows, tries)
        marked.to_csv(path, index=False)
        return marked

    assert not write()["chosen"].any()  # npo lacks a try, and ga has no finite one
    with pytest.raises(UserError, match=r"lacks tries of npo: run `python bench/study/study.py tune study`"):
        module.read_chosen(path, tries, "study")
    rows.append(module.row("npo", tries["npo"][0], "d" * 40, None))
    marked = write()
    assert marked["settings"].tolist() == ["npo.beta=0.1", "npo.beta=1e-05", "unlearn.lr=0.001"]
    assert marked["chosen"].tolist() == [False, True, False]
    assert module.read_chosen(path, {"npo": tries["npo"]}, "study") == {"npo": {"npo.beta": 1e-05}}
    with pytest.raises(UserError, match="lacks tries of ga"):
        module.read_chosen(path, tries, "study")
    changed = {"npo": [{"npo.beta": 0.1}, {"npo.beta": 0.3}]}
    with pytest.raises(UserError, match="lacks tries of npo"):
        module.read_chosen(path, changed, "study")
    assert module.mark(module.read(path), tries).equals(marked)


# The figure


def test_figure_of_many_variants_is_the_same_every_time(bench, tmp_path):
    names = [f"m{number}" for number in range(13)]
    rows, paths = [], []
    for number, name in enumerate(["target", "retain", *names]):
        for seed in (1, 2, 3):
            rows.append((name, seed, -number - seed / 5, 0.9 - number / 30))
            paths += [(name, seed, epoch, -6.0 + epoch / 2, 1 - epoch * number / 90) for epoch in range(11)]
    columns = ["variant", "seed", "forget_quality.log10_pvalue", "model_utility"]
    table = pd.DataFrame(rows, columns=columns)
    trajectories = pd.DataFrame(
        paths, columns=["variant", "seed", "epoch", "forget_quality_log10", "retain_probability"]
    )
    trajectories = trajectories[trajectories["variant"].isin(names)]
    for name in ("a.png", "b.png"):
        bench("figure").draw(tmp_path / name, table, trajectories)
    first = (tmp_path / "a.png").read_bytes()
    assert first.startswith(b"\x89PNG") and first == (tmp_path / "b.png").read_bytes()
    looks = {tuple(bench("figure").look(number).values()) for number in range(13)}
    assert len(looks) == 13
