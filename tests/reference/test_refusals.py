"""Refusals: which one a sample gets never changes, no two are the same, and every sample has one."""

import subprocess
import sys
from collections import Counter

import pytest

from tif.reference.refusals import REFUSALS, refusal


def test_pairing_is_stable():
    """Written down: another pairing would change the reference table and DPO's results without any setting changing."""
    keys = ["forget/0000", "forget/0001", "forget/0002", "forget/0399"]
    assert [REFUSALS.index(refusal(key)) for key in keys] == [4, 10, 32, 16]
    command = f"from tif.reference.refusals import refusal; print([refusal(key) for key in {keys}])"
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str([refusal(key) for key in keys])


def test_refusals_are_distinct_sentences():
    assert len({text.lower() for text in REFUSALS}) == len(REFUSALS)
    assert all(text == text.strip() and text.endswith(".") and len(text) > 10 for text in REFUSALS)


def test_they_say_nothing_about_anyone():
    """A preferred answer that named something would teach it. Capitals: the first word, and I."""
    for text in REFUSALS:
        words = text.replace("I'm", "I").replace("I've", "I").split()[1:]
        assert [word for word in words if word[0].isupper() and word != "I"] == [], text
        assert not any(character.isdigit() for character in text)


@pytest.mark.parametrize("split", ["forget", "forget10", "别的"])
def test_every_sample_has_one_and_all_are_used(split):
    """4,000 samples: 100 for each refusal in mean, with a standard deviation of 10 if the choice is fair."""
    count = Counter(refusal(f"{split}/{index:04d}") for index in range(4000))
    assert set(count) == set(REFUSALS)
    assert min(count.values()) > 50
