import math
from itertools import combinations

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import ks_2samp

from tif.metrics import all as metrics


def test_truth_ratio_by_hand():
    # losses ln 2 against the mean of ln 4 and ln 16, which is ln 8: exp(ln 2 - ln 8) = 1/4
    ratio = metrics.truth_ratio([math.log(2)], [[math.log(4), math.log(16)]])
    assert ratio == pytest.approx([0.25])


def test_truth_ratio_of_huge_losses_is_a_difference():
    # p = exp(-300) for all answers: 1e-10 in the denominator would make this 0
    assert metrics.truth_ratio([300.0], [[301.0, 301.0]]) == pytest.approx([math.exp(-1)])


def test_truth_ratio_stays_finite_and_positive():
    ratios = metrics.truth_ratio([5000.0, 0.0], [[1.0], [5000.0]])
    assert np.isfinite(ratios).all()
    assert ratios[0] > 1e300
    assert 0 < ratios[1] < 1e-300


@pytest.mark.parametrize(
    ("correct", "wrong", "message"),
    [
        ([1.0], [1.0], "shapes"),
        ([1.0, 2.0], [[1.0]], "shapes"),
        ([1.0], [[]], "shapes"),
        ([math.nan], [[1.0]], "finite"),
        ([1.0], [[math.inf]], "finite"),
        ([1.0, 1.0], [[1.0], [math.nan]], "sample 1 has no wrong answer"),
    ],
)
def test_losses_are_checked(correct, wrong, message):
    with pytest.raises(ValueError, match=message):
        metrics.truth_ratio(correct, wrong)
    with pytest.raises(ValueError, match=message):
        metrics.normalized_probability(correct, wrong)


def test_normalized_probability_by_hand():
    # p = 1/2 against 1/4 and 1/4: 1/2
    share = metrics.normalized_probability([math.log(2)], [[math.log(4), math.log(4)]])
    assert share == pytest.approx([0.5])


def test_normalized_probability_equals_the_naive_one_and_outlives_underflow():
    rng = np.random.default_rng(0)
    correct, wrong = rng.uniform(0, 20, 50), rng.uniform(0, 20, (50, 5))
    naive = np.exp(-correct) / (np.exp(-correct) + np.exp(-wrong).sum(axis=1))
    assert metrics.normalized_probability(correct, wrong) == pytest.approx(naive, rel=1e-12)
    shifted = metrics.normalized_probability(correct + 2000, wrong + 2000)  # every p is 0 in a double
    assert shifted == pytest.approx(naive, rel=1e-9)


def test_nan_stands_for_a_wrong_answer_that_is_not_there():
    correct, wrong = [1.0, 2.0], [[2.0, math.nan, 4.0], [1.0, 3.0, 8.0]]
    for metric in (metrics.truth_ratio, metrics.normalized_probability):
        values = metric(correct, wrong)
        assert values[0] == pytest.approx(metric([1.0], [[2.0, 4.0]])[0], rel=1e-15)
        assert values[1] == pytest.approx(metric([2.0], [[1.0, 3.0, 8.0]])[0], rel=1e-15)


def test_aggregates_by_hand():
    # min(TR, 1/TR) of 1/2, 4, 1: 1/2 + 1/4 + 1 over 3; max(0, 1 - TR): 1/2 + 0 + 0 over 3
    assert metrics.aggregate_truth_ratio_forget([0.5, 4.0, 1.0]) == pytest.approx(1.75 / 3)
    assert metrics.aggregate_truth_ratio_other([0.5, 4.0, 1.0]) == pytest.approx(0.5 / 3)


def test_aggregates_of_zero_and_infinity():
    assert metrics.aggregate_truth_ratio_forget([0.0, math.inf]) == 0.0
    assert metrics.aggregate_truth_ratio_other([0.0, math.inf]) == 0.5


@pytest.mark.parametrize("ratios", [[], [math.nan], [-0.1]])
def test_aggregates_refuse_what_is_no_ratio(ratios):
    for aggregate in (metrics.aggregate_truth_ratio_forget, metrics.aggregate_truth_ratio_other):
        with pytest.raises(ValueError, match="truth ratios"):
            aggregate(ratios)


@pytest.mark.parametrize(("n", "floor"), [(400, 1.06e-239), (200, 1.94e-119)])
def test_forget_quality_without_overlap(n, floor):
    quality = metrics.forget_quality(np.arange(n), np.arange(n) + n)
    assert quality.statistic == 1.0
    assert (quality.n_unlearned, quality.n_retain) == (n, n)
    assert quality.pvalue == pytest.approx(floor, rel=5e-3)
    # only two of the C(2n, n) orders keep the samples apart
    assert quality.pvalue == pytest.approx(2 / math.comb(2 * n, n), rel=1e-9)
    assert quality.log10_pvalue == pytest.approx(math.log10(floor), abs=3e-3)


@pytest.mark.parametrize(("n", "m"), [(1000, 1000), (900, 1000), (3000, 800)])
def test_forget_quality_where_a_double_underflows(n, m):
    quality = metrics.forget_quality(np.arange(n), np.arange(m) + n)
    exact = math.log10(2) - math.log10(math.comb(n + m, n))
    assert quality.log10_pvalue == pytest.approx(exact, abs=1e-9)
    assert quality.pvalue == 0.0


def test_forget_quality_equals_a_count_of_all_orders():
    # samples of 3 and 4: enumerate all C(7, 3) = 35 orders of the pooled sample and count the gaps
    def gap(places):
        steps = [place in places for place in range(7)]
        return max(abs(sum(steps[:k]) / 3 - (k - sum(steps[:k])) / 4) for k in range(8))

    unlearned, retain = [0.1, 0.2, 0.6], [0.3, 0.4, 0.5, 0.7]  # the order 0, 1, 5 of 7
    seen = gap({0, 1, 5})
    gaps = [gap(set(places)) for places in combinations(range(7), 3)]
    expected = sum(g >= seen - 1e-9 for g in gaps) / 35
    quality = metrics.forget_quality(unlearned, retain)
    assert quality.statistic == pytest.approx(seen)
    assert quality.pvalue == pytest.approx(expected)
    assert metrics._log10_exact_pvalue(seen, 3, 4) == pytest.approx(math.log10(expected), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (40, 40), (17, 30), (60, 45), (200, 200), (150, 200)])
def test_log_space_count_equals_scipy(n, m):
    rng = np.random.default_rng(n * 1000 + m)
    for shift in (0.0, 1.0, 4.0):
        unlearned, retain = rng.normal(size=n), rng.normal(shift, size=m)
        result = ks_2samp(unlearned, retain, method="exact")
        quality = metrics.forget_quality(unlearned, retain)
        assert quality.pvalue == result.pvalue
        assert quality.statistic == result.statistic
        assert quality.log10_pvalue == math.log10(result.pvalue)
        counted = metrics._log10_exact_pvalue(result.statistic, n, m)
        assert counted == pytest.approx(math.log10(result.pvalue), abs=1e-10)


def test_forget_quality_is_one_for_equal_samples_and_symmetric():
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(size=50), rng.lognormal(0.5, size=50)
    same = metrics.forget_quality(a, a[::-1])
    assert (same.pvalue, same.log10_pvalue, same.statistic) == (1.0, 0.0, 0.0)
    assert metrics.forget_quality(a, b) == metrics.forget_quality(b, a)
    # ranks alone count
    assert metrics.forget_quality(a, b) == metrics.forget_quality(np.log(a), np.log(b))


@pytest.mark.parametrize("bad", [[], [[1.0, 2.0]], [1.0, math.nan], [math.inf]])
def test_forget_quality_refuses(bad):
    with pytest.raises(ValueError, match="unlearned"):
        metrics.forget_quality(bad, [1.0])
    with pytest.raises(ValueError, match="retain"):
        metrics.forget_quality([1.0], bad)


def utility_parts(value=0.5):
    return {name: dict.fromkeys(metrics.UTILITY_MEASURES, value) for name in metrics.UTILITY_SETS}


def test_model_utility_by_hand():
    parts = utility_parts(0.5)
    parts["world_facts"]["rouge"] = 0.25
    # 9 / (8 * 2 + 4)
    assert metrics.model_utility(parts) == pytest.approx(9 / 20)


def test_model_utility_is_zero_when_any_part_is():
    for name in metrics.UTILITY_SETS:
        for measure in metrics.UTILITY_MEASURES:
            parts = utility_parts(1.0)
            parts[name][measure] = 0.0
            assert metrics.model_utility(parts) == 0.0


def test_model_utility_refuses():
    missing = utility_parts()
    del missing["real_authors"]
    with pytest.raises(ValueError, match="expected exactly retain, real_authors, world_facts"):
        metrics.model_utility(missing)
    extra = utility_parts()
    extra["retain"]["f1"] = 0.5
    with pytest.raises(ValueError, match="retain"):
        metrics.model_utility(extra)
    for value in (-0.1, 1.1, math.nan, None, "1"):
        wrong = utility_parts()
        wrong["retain"]["rouge"] = value
        with pytest.raises(ValueError, match=r"retain\.rouge"):
            metrics.model_utility(wrong)


@pytest.mark.parametrize(
    ("correct", "strength", "memorized"),
    [
        ([1, 1, 1, 1], 1.0, 1.0),
        ([0, 0, 0, 0], 0.0, 0.0),
        ([1, 1, 1, 0], 0.0, 0.75),  # the last one is wrong: no suffix is right
        ([0, 1, 1, 1], 0.75, 0.75),
        ([1, 0, 1, 1], 0.5, 0.75),
        ([1], 1.0, 1.0),
        ([0], 0.0, 0.0),
    ],
)
def test_extraction_strength_and_exact_memorization(correct, strength, memorized):
    assert metrics.extraction_strength(np.array(correct, dtype=bool)) == strength
    assert metrics.exact_memorization(np.array(correct, dtype=bool)) == memorized


def test_extraction_strength_equals_a_search_for_the_shortest_prefix():
    rng = np.random.default_rng(1)
    for _ in range(200):
        hits = rng.random(rng.integers(1, 8)) < 0.7
        k = next(k for k in range(len(hits) + 1) if hits[k:].all())
        assert metrics.extraction_strength(hits) == 1 - k / len(hits)


def test_hits_of_nothing_are_refused():
    for metric in (metrics.extraction_strength, metrics.exact_memorization):
        with pytest.raises(ValueError, match="at least one"):
            metric([])


def test_rouge_recall_by_hand():
    # longest common subsequence of words: "the cat on mat", 4 of the 6 of the reference
    assert metrics.rouge_recall("The cat sat on the mat", "the cat, on mat and more") == pytest.approx(4 / 6)
    assert metrics.rouge_recall("He writes books", "he wrote a book") == pytest.approx(2 / 3)  # books = book
    assert metrics.rouge_recall("Paris", "") == 0.0


def test_rouge_recall_of_other_scripts_by_hand():
    # ideographs: 她住在红隼湾 has 6, of which 她住在湾 are found in this order
    assert metrics.rouge_recall("她住在红隼湾。", "她现在住在海湾。") == pytest.approx(4 / 6)
    # words of Arabic: "في مدينة سولاس" of "ولدت في مدينة سولاس"
    assert metrics.rouge_recall("ولدت في مدينة سولاس.", "في مدينة سولاس؟") == pytest.approx(3 / 4)
    assert metrics.rouge_recall("١٩٥٤", "عام ١٩٥٤") == 1.0  # digits of other scripts
    assert metrics.rouge_recall("ПОЭТ", "поэт") == 1.0  # case folded
    assert metrics.rouge_recall("诗人", "") == 0.0
    assert metrics.rouge_recall("诗人", "poet") == 0.0


@pytest.mark.parametrize("reference", ["Søren Aabye writes", "Zürich", "12 März 1954", "诗 is a poem", "...", ""])
def test_rouge_recall_of_mostly_latin_text_is_that_of_the_package(reference):
    """Accented letters and some foreign words change nothing: published numbers stay comparable."""
    for generated in (reference, "writes Zurich a poem 1954"):
        expected = RougeScorer(["rougeL"], use_stemmer=True).score(reference, generated)["rougeL"].recall
        assert metrics.rouge_recall(reference, generated) == expected
