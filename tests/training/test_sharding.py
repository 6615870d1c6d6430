"""Sharded weights: two processes that have a part each make what one process makes, and save it whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_stage
import torch
from safetensors.torch import load_file
from test_processes import SETTINGS, environment, folder  # noqa: F401  (a fixture)

from tif.base.errors import UserError
from tif.base.params import Compute
from tif.lm import models
from tif.runs import processes
from tif.training.memory import Fit, check

LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ["q_proj", "up_proj"]}


def setting(name: str, method: str = "tpo", minutes: float | None = None, model: str = "model", **changes) -> dict:
    settings = {**SETTINGS, "method": method, "batch": 3, "fsdp": True, "processes": 2, **changes}
    return {"name": name, "method": method, "settings": settings, "minutes": minutes, "model": model}


CASES = {
    "the best epoch, activations computed again": setting("best", select="best", gradient_checkpointing=True),
    "a head of its own": setting("head", model="untied"),
    "adapters": setting("lora", lora=LORA, model="untied"),
    "a learner, and checkpoints at every step": setting("atwu", "atwu", minutes=0),
    "bfloat16 products": setting("mixed", precision="mixed"),
}


def start(folder: Path, *cases: dict, **variables) -> subprocess.CompletedProcess:  # noqa: F811
    """Run the cases in two processes."""
    (folder / "cases.json").write_text(json.dumps(cases))
    command = [sys.executable, str(Path(sharded_stage.__file__)), str(folder), "2"]
    variables = environment(TIF_WORK=str(folder / "work"), **variables)
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def together(folder, tiny) -> list[list[dict]]:  # noqa: F811
    """Process -> results of all cases in two processes."""
    models.save(folder / "untied", tiny(tie_word_embeddings=False))
    done = start(folder, *CASES.values())
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"results-{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_sharded_processes_make_what_one_makes(folder, together, name):  # noqa: F811
    case = CASES[name]
    whole = {"fsdp": False, "processes": 1}
    alone = {**case, "name": f"{case['name']}-alone", "minutes": None, "settings": {**case["settings"], **whole}}
    expected = sharded_stage.case(folder, processes.Group(), **alone)
    first, second = (process[list(CASES).index(name)] for process in together)
    # autocast keeps the residual stream in float32, but where sharded weights are cast it is bfloat16
    mixed = case["settings"].get("precision") == "mixed"
    rounding = {"rel": 5e-3, "abs": 0.05} if mixed else {"rel": 1e-5, "abs": 1e-5}
    assert first["log"] == second["log"]
    assert [row["loss"] for row in first["log"]] == pytest.approx([row["loss"] for row in expected["log"]], **rounding)
    for ours, theirs in zip(first["trajectory"], expected["trajectory"], strict=True):
        assert ours == {**theirs, "value": pytest.approx(theirs["value"], **rounding)}
    assert first["selection"]["last"] == pytest.approx(expected["selection"]["last"], **rounding)
    assert len(first["weights"]) == len(expected["weights"])
    compare(folder / case["name"], folder / alone["name"], 5e-3 if mixed else 2e-5)


def compare(ours: Path, theirs: Path, tolerance: float) -> None:
    """Model folders hold the same files, the same bytes but for weights, and these to a tolerance."""
    names = sorted(file.name for file in ours.iterdir())
    assert names == sorted(file.name for file in theirs.iterdir())
    for name in names:
        if name.endswith(".safetensors"):
            found, expected = load_file(ours / name), load_file(theirs / name)
            assert found.keys() == expected.keys()
            for key, weight in expected.items():
                torch.testing.assert_close(found[key], weight, rtol=0, atol=tolerance)
        else:
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def test_the_best_epoch_is_not_the_last(together):
    """Or the comparison of its weights would show nothing."""
    selection = together[0][list(CASES).index("the best epoch, activations computed again")]["selection"]
    assert selection["best"]["epoch"] < selection["last"]["epoch"]


def test_every_process_holds_its_part_alone(together):
    """Decoder layers, the embeddings with head and last norm, and what is around them are units of their own."""
    for first, second in zip(*together, strict=True):
        assert first["sharded"]
        assert first["units"] >= 4
        assert first["local"] + second["local"] == first["all"]


@pytest.mark.slow
@pytest.mark.parametrize("select", ["last", "best"])
def test_a_killed_sharded_run_goes_on(folder, together, select):  # noqa: F811
    """Killed in the middle of the second epoch; in the end everything is as if nothing had happened."""
    case = setting(f"whole-{select}", "atwu", select=select)
    assert start(folder, case).returncode == 0
    expected = torch.load(folder / "results-0.pt", weights_only=True)[0]
    case |= {"name": f"killed-{select}", "minutes": 0}
    killed = start(folder, case, DIE_BEFORE_STEP="3")
    assert "process 1 of 2 was killed by SIGKILL" in killed.stderr
    kept = {file.name for file in (folder / "work/unlearn" / ("a" * 64) / "checkpoint-3").iterdir()}
    assert kept > {"complete.json", "pytorch_model_fsdp.bin", "optimizer.bin"}
    assert not {name for name in kept if name.endswith(".safetensors")}, "the model is there once"
    resumed = start(folder, case)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming at step 3 of 4" in resumed.stderr
    found = torch.load(folder / "results-0.pt", weights_only=True)[0]
    assert found == expected
    compare(folder / f"killed-{select}", folder / f"whole-{select}", 0.0)


@pytest.mark.parametrize(
    ("processes_", "device", "cached", "message"),
    [
        (1, "cuda", False, "over unlearn.processes, which is 1"),
        (2, "cpu", False, "needs compute.device = cuda, not cpu"),
        (2, "cuda", True, "reads hidden states of the target.*set unlearn.fsdp to false"),
    ],
)
def test_a_sharded_run_that_cannot_be(processes_, device, cached, message):
    compute = Compute(device=device, threads=1)
    with pytest.raises(UserError, match=message):
        check(Fit(fsdp=True), processes_, compute, cached)
    check(Fit(), processes_, compute, cached)
