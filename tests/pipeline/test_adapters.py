"""Adapters in a real pipeline: what is saved, what evaluates it, and which stages run."""

import json

import pytest
from test_rerun import AFTER_UNLEARN, SECONDS, settings  # noqa: F401  (a fixture)

LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ["q_proj", "down_proj"]}


@pytest.mark.slow
def test_adapters_rerun_unlearning_only_and_are_evaluated_on_the_target(settings):  # noqa: F811
    folder = settings.folder / "data/models/unlearned"
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    evaluated = (settings.folder / "data/evaluation/unlearned/tokens.parquet").read_bytes()
    settings.change(**{"unlearn.lora": LORA, "unlearn.lr": 0.01})
    assert settings.repro() == ({"check"} | AFTER_UNLEARN, set())
    assert sorted(file.name for file in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "tif.json"
    ]  # fmt: skip
    assert json.loads((folder / "tif.json").read_text())["base"] == "target"
    assert (settings.folder / "data/evaluation/unlearned/tokens.parquet").read_bytes() != evaluated
    stages = settings.run("dvc", "status").stdout
    assert "up to date" in stages
    settings.change(**{"unlearn.lora": None, "unlearn.lr": 0.0005})
    executed, restored = settings.repro()
    assert executed <= SECONDS
    assert restored >= {"unlearn", "evaluate@unlearned"}
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole


def test_on_the_command_line(settings):  # noqa: F811
    """`dvc exp run -S` writes a block within a block too."""
    text = "unlearn.lora={rank: 2, alpha: 4.0, dropout: 0.0, targets: [v_proj]}"
    done = settings.run("dvc", "exp", "run", "-S", text, "unlearn")
    assert "Running stage 'unlearn'" in done.stdout
    config = json.loads((settings.folder / "data/models/unlearned/adapter_config.json").read_text())
    assert (config["r"], config["target_modules"]) == (2, ["v_proj"])
