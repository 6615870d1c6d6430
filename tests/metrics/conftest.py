"""A folder with three evaluated models, which a test may change."""

import shutil
from pathlib import Path

import hand_evaluated
import pytest


@pytest.fixture(scope="session")
def _written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    hand_evaluated.write_all(folder)
    return folder


@pytest.fixture
def root(_written, tmp_path) -> Path:
    return shutil.copytree(_written, tmp_path / "root")
