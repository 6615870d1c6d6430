"""ROUGE-L recall, by hand in several scripts, and that of the package on Latin text."""

import pytest
from rouge_score.rouge_scorer import RougeScorer

from tif import metrics


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
