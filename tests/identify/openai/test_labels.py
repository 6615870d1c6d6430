"""Votes, windows and Jaccard by hand."""

from tif.identify.openai.labels import Labels, Piece


def test_a_word_in_an_overlap_is_unwanted_when_one_window_says_so():
    text = "one two three four"
    labels = Labels([text], 1)
    assert labels.mark(Piece(0, 0, 13), 0, ["two"]) == (["two"], [])
    assert labels.mark(Piece(0, 4, 18), 0, ["three", "two", "one"]) == (["three", "two"], ["one"])
    assert labels.votes(0) == ([False, True, True, False], [0.0, 1.0, 1.0, 0.0])


def test_the_majority_is_of_all_samples_and_a_failed_one_says_general():
    labels = Labels(["one two three"], 3)
    whole = Piece(0, 0, 13)
    labels.mark(whole, 0, ["one", "two"])
    labels.mark(whole, 1, ["one"])
    labels.fail(whole, 2, "refused", "ab")
    assert labels.votes(0) == ([True, False, False], [2 / 3, 1 / 3, 0.0])
    assert labels.failed == [(whole, 2, "refused", "ab")]
    # {one, two} and {one}: 1/2; the third sample labelled nothing and is in no pair
    assert labels.mean_pairwise_jaccard() == 0.5


def test_a_tie_is_general():
    labels = Labels(["one two"], 4)
    for sample in range(2):
        labels.mark(Piece(0, 0, 7), sample, ["one"])
    labels.fail(Piece(0, 0, 7), 2, "refused", "ab")
    labels.fail(Piece(0, 0, 7), 3, "refused", "cd")
    assert labels.votes(0) == ([False, False], [0.5, 0.0])


def test_jaccard_of_rows_without_pairs():
    assert Labels(["one"], 1).mean_pairwise_jaccard() is None
    labels = Labels(["one two", ""], 2)
    for sample in (0, 1):
        labels.mark(Piece(0, 0, 7), sample, [])
    assert labels.mean_pairwise_jaccard() == 1.0
    assert labels.votes(1) == ([], [])


def test_the_words_of_a_phrase_and_nothing_beyond():
    labels = Labels(["In New York, NY, now"], 1)
    labels.mark(Piece(0, 0, 20), 0, ["New York, NY"])
    assert labels.votes(0)[0] == [False, True, True, True, True, False, False]
