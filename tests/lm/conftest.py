"""What the tests of language models share."""

import pytest
import torch
from transformers.utils import logging


@pytest.fixture
def as_before():
    """What `tif.lm.models.prepare` sets, put back."""
    threads, shown = torch.get_num_threads(), logging.is_progress_bar_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
