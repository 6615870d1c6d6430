"""The examples in docstrings of src/tif give what they say."""

import doctest
import importlib

import pytest
from in_process import ROOT

SOURCE = ROOT / "src"
FILES = [file for file in sorted(SOURCE.rglob("*.py")) if ">>>" in file.read_text(encoding="utf-8")]
MODULES = [".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in FILES]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed


def test_there_are_some():
    """Words, the frequency identifier and extraction strength at least."""
    assert {"tif.words", "tif.identify.frequency", "tif.metrics.memorization"} <= set(MODULES)
