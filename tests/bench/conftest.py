"""Tests of bench/ belong to `make test-slow`, every one of them."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Before pytest leaves out what is slow."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def clone_type():
    """`Clone` of the tests of the pipeline: a copy of this repository with tiny settings."""
    spec = importlib.util.spec_from_file_location("pipeline_conftest", HERE.parent / "pipeline/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Clone
