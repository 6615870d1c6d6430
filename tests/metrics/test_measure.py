"""From tokens and texts to numbers: three models evaluated by hand, and each way in which their tables can be wrong."""

import csv
import json
import math
import shutil
from dataclasses import replace

import hand_evaluated as hand
import pytest
from in_process import run_stage
from scipy.stats import ks_2samp

from tif.base import tables
from tif.base.errors import UserError
from tif.benchmarks import SAMPLES, Set, place
from tif.metrics import MEASURES, MODELS
from tif.metrics import measure as of
from tif.metrics.measure import Measured, measure
from tif.unlearning import TRAJECTORY


def measured(root) -> Measured:
    return measure(root / "data/benchmark", root / "data/evaluation")


def outputs(root) -> dict[str, bytes]:
    names = ("data/measures.parquet", "metrics/metrics.json", "metrics/details.json", "metrics/plots/trajectory.csv")
    return {name: (root / name).read_bytes() for name in (*names, "metrics/plots/truth_ratio.csv")}


def test_details_by_hand(root):
    found = of.rounded(of.details(measured(root)))
    assert list(found) == ["target", "retain", "unlearned"]
    target = found["target"]
    # no overlap, n = 4: 2 of the C(8, 4) = 70 orders; log10(1/35) = -1.544068
    assert target["forget_quality"] == {"pvalue": 0.0285714, "log10_pvalue": -1.54407, "statistic": 1.0, "n": 4}
    assert found["retain"]["forget_quality"] == {"pvalue": 1.0, "log10_pvalue": 0.0, "statistic": 0.0, "n": 4}
    # .4 | .5 | .8 | 1 | 2 | 2.5 3 | 4: the largest gap is 1/4
    assert found["unlearned"]["forget_quality"]["statistic"] == 0.25
    expected = ks_2samp(hand.RATIOS["unlearned"], hand.RATIOS["retain"], method="exact").pvalue
    assert found["unlearned"]["forget_quality"]["pvalue"] == pytest.approx(expected, rel=1e-5)
    assert target["forget"] == {
        "probability": 0.375,  # (.75 + 3 * .25) / 4
        "rouge": 0.75,  # (0 + 1 + 1 + 1) / 4
        "truth_ratio": 0.03,  # (.01 + .02 + .04 + .05) / 4
        "extraction_strength": 0.375,  # (1 + 0 + .5 + 0) / 4
        "exact_memorization": 0.5625,  # (1 + 0 + .75 + .5) / 4
    }
    assert found["retain"]["forget"]["truth_ratio"] == 0.5625  # min(TR, 1/TR): (.5 + 1 + .5 + .25) / 4
    assert target["utility"] == {
        "retain": {"probability": 0.25, "rouge": 0.75, "truth_ratio": 0.375},
        "capitals": {"probability": 0.375, "rouge": 0.75, "truth_ratio": 0.25},  # the probability among the answers
        "rivers": {"probability": 0.375, "rouge": 1.0, "truth_ratio": 0.25},
    }
    # retain 4 + 4/3 + 8/3, capitals 8/3 + 4/3 + 4, rivers 8/3 + 1 + 4; so 9 / (16 + 23/3) = 27/71
    assert target["model_utility"] == pytest.approx(27 / 71, rel=1e-5)
    assert target["holdout"] == {"probability": 0.3}


def test_the_measures_table_has_a_row_for_every_sample_model_and_measure(root):
    found = measured(root)
    tables.write(root / "measures.parquet", of.measure_rows(found), MEASURES)
    rows = tables.read(root / "measures.parquet", MEASURES).to_pylist()
    # 4 forget and 2 retain samples of 5 measures, 2 holdout samples of 1, 4 samples of utility sets of 6
    assert len(rows) == 3 * (4 * 5 + 2 * 5 + 2 * 1 + 4 * 6)
    value = {(row["model"], row["sample_id"], row["measure"]): row["value"] for row in rows}
    assert len(value) == len(rows) and {row["attack"] for row in rows} == {"none"}
    for model in MODELS:
        for k, key in enumerate(hand.FORGET):
            assert value[model, key, "truth_ratio"] == pytest.approx(hand.RATIOS[model][k], rel=1e-5)
        assert value[model, "capitals/0001", "truth_ratio"] == pytest.approx(math.sqrt(2))
        assert value[model, "capitals/0001", "normalized_probability"] == pytest.approx(0.25)
        assert value[model, "capitals/0001", "probability"] == pytest.approx(0.125)
        assert value[model, "retain/0001", "rouge"] == 0.5
        assert value[model, "holdout/0001", "probability"] == pytest.approx(0.1)
    assert ("target", "holdout/0000", "rouge") not in value


def test_truth_ratio_csv_is_a_distribution(root):
    rows = list(csv.DictReader(of.truth_ratio_csv(measured(root)).splitlines()))
    for model, ratios in hand.RATIOS.items():
        mine = [row for row in rows if row["model"] == model]
        assert [float(row["truth_ratio"]) for row in mine] == sorted(ratios)
        assert [float(row["share"]) for row in mine] == [0.25, 0.5, 0.75, 1.0]


def test_the_headline_is_chosen_of_the_details(root):
    """Eleven numbers, each equal to the detail that it names."""
    found = of.details(measured(root))
    chosen = of.headline(found)
    assert sum(map(len, chosen.values())) == 11
    assert chosen["unlearned"]["forget_quality"] == found["unlearned"]["forget_quality"]["pvalue"]
    assert chosen["target"]["forget_quality_log10"] == found["target"]["forget_quality"]["log10_pvalue"]
    assert chosen["unlearned"]["forget_rouge"] == found["unlearned"]["forget"]["rouge"]
    assert chosen["unlearned"]["retain_probability"] == found["unlearned"]["utility"]["retain"]["probability"]
    assert {model: numbers["model_utility"] for model, numbers in chosen.items()} == {
        model: found[model]["model_utility"] for model in MODELS
    }
    assert of.headline({"target": {}, "retain": {}, "unlearned": {"forget": {"rouge": 0.5}, "utility": {}}}) == {
        "unlearned": {"forget_rouge": 0.5}
    }


def test_what_readers_are_told(root):
    about = of.described(measured(root))
    assert set(about["measures"]) == {
        "probability", "rouge", "truth_ratio", "extraction_strength", "exact_memorization", "normalized_probability"
    }  # fmt: skip
    assert about["measures"]["rouge"]["better"] == "higher" and "ROUGE-L" in about["measures"]["rouge"]["says"]
    assert about["forget"] == list(hand.SETS["forget"].measures)
    assert list(about["utility"]) == ["retain", "capitals", "rivers"]
    assert about["utility"]["capitals"]["probability"] == "normalized_probability"
    assert about["utility"]["retain"]["probability"] == "probability"


def test_the_stage_writes_the_same_bytes_in_any_order_of_answers(root):
    run_stage("measure", root)
    first = outputs(root)
    for model in MODELS:
        hand.write_model(root, model, hand.answers(model)[::-1], hand.texts(model)[::-1])
    tables.write(root / "data/trajectory.parquet", hand.trajectory()[::-1], TRAJECTORY)
    run_stage("measure", root)
    assert outputs(root) == first
    details = json.loads(first["metrics/details.json"])
    found = measured(root)
    assert {model: details[model] for model in MODELS} == of.rounded(of.details(found))
    assert details["about"] == of.described(found)
    assert json.loads(first["metrics/metrics.json"]) == of.headline(of.rounded(of.details(found)))


def test_models_whose_answers_stand_in_different_orders_belong_together(root):
    before = measured(root)
    hand.write_model(root, "retain", hand.answers("retain")[::-1], hand.texts("retain")[::-1])
    after = measured(root)
    assert after.sample_ids == before.sample_ids
    assert of.details(after) == of.details(before)
    assert of.measure_rows(after).equals(of.measure_rows(before))


def test_the_trajectory_by_hand(root):
    run_stage("measure", root)
    rows = list(csv.DictReader((root / "metrics/plots/trajectory.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["forget_quality_log10"]) for row in rows[:2]] == [-1.54407, 0.0]
    assert [float(row["forget_probability"]) for row in rows] == [0.9, 0.5, 0.1]
    assert [float(row["unwanted_logprob_drop"]) for row in rows] == [0.0, 1.0, 2.0]
    assert {float(row["retain_probability"]) for row in rows} == {0.5}
    assert {float(row["retain_truth_ratio"]) for row in rows} == {0.375}  # (.75 + 0) / 2
    assert float(rows[1]["forget_truth_ratio"]) == 0.5625


def test_without_a_holdout_and_without_utility_sets(root):
    """What is absent is left out; model utility is then that of the retain set: 3 / (4 + 4/3 + 8/3)."""
    hand.write_card(root, {name: hand.SETS[name] for name in ("forget", "retain")})
    shutil.rmtree(root / "data/benchmark/utility")
    found = of.details(measured(root))["target"]
    assert "holdout" not in found and list(found["utility"]) == ["retain"]
    assert found["model_utility"] == pytest.approx(3 / 8)
    hand.write_card(root, {"forget": hand.SETS["forget"]})
    found = of.details(measured(root))["target"]
    assert "model_utility" not in found and found["utility"] == {}


def test_a_forget_set_without_wrong_answers_has_no_forget_quality(root):
    """Whatever its benchmark takes on it is still measured."""
    plain = Set("forget", "Forget set", ("response",), True, ("probability", "rouge"))
    hand.write_card(root, {"forget": plain, "holdout": hand.SETS["holdout"]})
    found = measured(root)
    details = of.details(found)
    assert details["target"] == {
        "forget": {"probability": pytest.approx(0.375), "rouge": 0.75},
        "holdout": {"probability": pytest.approx(0.3)},
        "utility": {},
    }
    assert of.headline(details) == {
        "unlearned": {"forget_probability": pytest.approx(0.375), "forget_rouge": 0.75},
        "target": {"forget_probability": pytest.approx(0.375)},
        "retain": {"forget_probability": pytest.approx(0.375)},
    }
    assert of.truth_ratio_csv(found) == "model,sample_id,truth_ratio,share\n"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("forget", {"measures": ("probability", "rogue")}, "the forget set asks for the measure 'rogue'; known: exact"),
        ("holdout", {"measures": ("truth_ratio",)}, "the holdout set cannot have the measure 'truth_ratio'"),
        ("holdout", {"measures": ("rouge",)}, "the holdout set cannot have the measure 'rouge'"),
        ("rivers", {"answers": ("response",)}, "the rivers set cannot have the measure 'truth_ratio'"),
    ],
)
def test_a_measure_that_there_is_not_or_that_a_set_cannot_have(root, name, changes, message):
    hand.write_card(root, {**hand.SETS, name: replace(hand.SETS[name], **changes)})
    with pytest.raises(UserError, match=rf"card\.json: {message}"):
        measured(root)


ONE = "forget/0000"


def changed(model, sample_id, name, *blocks):
    """The answers of a model, with some in place of one sample's, of whose name this is the beginning."""
    found = hand.answers(model)
    mine = [b for b in found if b[0]["sample_id"] == sample_id and b[0]["answer"].startswith(name)]
    assert mine
    return [*blocks, *(block for block in found if block not in mine)]


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("retain", lambda rows: [b for b in rows if b[0]["sample_id"] not in hand.FORGET], "no row of the forget set"),
        ("unlearned", lambda rows: [], "no row of the forget set"),
        ("target", lambda rows: changed("target", "forget/0002", ""), "the forget set lacks sample forget/0002"),
        ("target", lambda rows: [*rows, hand.answer("forget/0004", "response", 0.5)], "unknown sample forget/0004"),
        ("unlearned", lambda rows: changed("unlearned", "retain/0001", ""), "the retain set lacks sample retain/0001"),
        ("unlearned", lambda rows: changed("unlearned", "rivers/0001", ""), "the rivers set lacks sample rivers/0001"),
        ("unlearned", lambda rows: [*rows, rows[0]], "an answer stands in two places"),
        ("target", lambda rows: changed("target", ONE, "response"), "the forget set: a sample has no response"),
        (
            "target",
            lambda rows: changed("target", ONE, "response", hand.answer(ONE, "response", 1.5)),
            "the forget set: measure 'probability' of forget/0000 is .*, out of range",
        ),
        (
            "target",
            lambda rows: changed("target", ONE, "response", hand.answer(ONE, "response", math.nan)),
            "a log-probability is not finite",
        ),
        (
            "retain",
            lambda rows: changed("retain", "rivers/0001", "wrong"),
            "the rivers set: measure 'truth_ratio': sample 1 has no wrong answer",
        ),
    ],
)
def test_bad_tokens(root, model, change, message):
    blocks = change(hand.answers(model))
    there = {block[0]["sample_id"] for block in blocks}
    hand.write_model(root, model, blocks, [row for row in hand.texts(model) if row["sample_id"] in there])
    with pytest.raises(UserError, match=rf"{model}/tokens\.parquet: .*{message}.*run `dvc repro -f evaluate@{model}`"):
        measured(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "the forget set lacks sample forget/0000"),
        (lambda rows: [*rows, {"sample_id": "rivers/0007", "text": ""}], "has an unknown sample rivers/0007"),
        (lambda rows: [*rows, rows[0]], "a sample has two rows"),
    ],
)
def test_bad_texts(root, change, message):
    hand.write_model(root, "unlearned", hand.answers("unlearned"), change(hand.texts("unlearned")))
    with pytest.raises(UserError, match=rf"unlearned/texts\.parquet: .*{message}.*dvc repro -f evaluate@unlearned"):
        measured(root)


@pytest.mark.parametrize("table", ["tokens", "texts"])
def test_a_missing_table_is_named(root, table):
    (root / f"data/evaluation/retain/{table}.parquet").unlink()
    with pytest.raises(UserError, match=rf"retain/{table}\.parquet is missing; `dvc repro` makes it"):
        measured(root)


def test_tables_of_another_benchmark_do_not_fit(root):
    """As after a change of `fictitious.people` with evaluations that somebody kept: the forget table has a row more."""
    path = place(root / "data/benchmark", "forget", "forget")
    tables.write(path, [*hand.samples("forget"), {**hand.samples("forget")[0], "sample_id": "forget/0004"}], SAMPLES)
    with pytest.raises(UserError, match=r"lacks sample forget/0004 \(1 differ from the forget table\)"):
        measured(root)


def test_bad_tables_stop_the_stage_before_it_writes(root):
    hand.write_model(root, "retain", hand.answers("retain"), hand.texts("retain")[1:])
    with pytest.raises(UserError, match="lacks sample forget/0000"):
        run_stage("measure", root)
    assert not (root / "data/measures.parquet").exists() and not (root / "metrics/metrics.json").exists()
