"""A folder with all that the report reads, which a test may change."""

import shutil
from pathlib import Path

import hand_evaluated
import pytest
from html_page import page_of
from in_process import run_stage


@pytest.fixture(scope="session")
def _measured(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    hand_evaluated.write_all(folder)
    run_stage("measure", folder)
    return folder


@pytest.fixture
def root(_measured, tmp_path) -> Path:
    return shutil.copytree(_measured, tmp_path / "root")


@pytest.fixture(scope="session")
def shown(_measured, tmp_path_factory) -> str:
    """The text of the report on that folder as it is."""
    return page_of(shutil.copytree(_measured, tmp_path_factory.mktemp("shown") / "root"))
