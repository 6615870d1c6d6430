"""What unlearning costs: measured around a real training, and only where it is asked for."""

import json
import time

import pytest
import torch

from tif.runs import costs


def train(steps: int) -> None:
    """Steps of AdamW, of at least 20 ms each but for one of 200 ms, with a step of SGD before each."""
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    model, scorer = torch.optim.AdamW([weight]), torch.optim.SGD([weight], lr=0.1)
    for step in range(steps):
        time.sleep(0.2 if step == 1 else 0.02)
        scorer.step()
        model.step()


def test_the_median_step_of_the_models_own_optimiser(tmp_path, monkeypatch):
    """Six steps have five gaps. Were SGD's steps counted, the median would be near 0; were it a mean, above 50 ms."""
    path = tmp_path / "new" / "costs.json"
    monkeypatch.setenv(costs.VARIABLE, str(path))
    with costs.measured():
        train(6)
    train(3)  # outside: not counted
    found = json.loads(path.read_text())
    assert set(found) == {"seconds_per_step", "steps", "peak_mib"} | (
        {"peak_gpu_mib"} if torch.cuda.is_available() else set()
    )
    assert found["steps"] == 5
    assert 0.02 <= found["seconds_per_step"] < 0.05
    assert 50 < found["peak_mib"] < 1e5


@pytest.mark.parametrize(("rank", "steps"), [("1", 3), ("0", 1), ("0", 0)])
def test_nothing_is_written_by_other_processes_or_without_two_steps(tmp_path, monkeypatch, rank, steps):
    monkeypatch.setenv(costs.VARIABLE, str(tmp_path / "costs.json"))
    monkeypatch.setenv("RANK", rank)
    with costs.measured():
        train(steps)
    assert not list(tmp_path.iterdir())


def test_nothing_is_measured_unless_asked_for_and_nothing_is_written_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.delenv(costs.VARIABLE, raising=False)
    with costs.measured():
        train(2)
    monkeypatch.setenv(costs.VARIABLE, str(tmp_path / "costs.json"))
    with pytest.raises(ValueError, match="stop"), costs.measured():
        train(2)
        raise ValueError("stop")
    assert not list(tmp_path.iterdir())
