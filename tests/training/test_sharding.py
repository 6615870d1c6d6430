"""Sharded weights: two processes that have a part each make what one process makes, and save it whole.

FSDP2 over gloo. Accelerate shards on accelerators alone, so each process tells it that it has one; what is sharded and
gathered, and when, is what it would be there.
"""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import several
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from several import KEY, SETTINGS, results
from torch.distributed.fsdp import FSDPModule

from tif.base.errors import UserError
from tif.base.params import Compute
from tif.lm import models
from tif.runs import processes
from tif.training import Memory, loop, sharding
from tif.training.memory import check

LORA = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": ["q_proj", "up_proj"]}


def setting(name: str, method: str = "tpo", minutes: float | None = None, model: str = "model", **changes) -> dict:
    """Arguments of `case`."""
    settings = {**SETTINGS, "method": method, "batch": 3, "fsdp": True, "processes": 2, **changes}
    return {"name": name, "method": method, "settings": settings, "minutes": minutes, "model": model, "die": None}


CASES = {
    "the best epoch, activations computed again": setting("best", select="best", gradient_checkpointing=True),
    "a head of its own": setting("head", model="untied"),
    "adapters": setting("lora", lora=LORA, model="untied"),
    "a learner, and checkpoints at every step": setting("atwu", "atwu", minutes=0),
    "bfloat16 products": setting("mixed", precision="mixed"),
}


def pretend(finish):
    """`tif.training.sharding.finish`, which is called once the Trainer's arguments have set up the processes."""

    def finished(told, memory):
        finish(told, memory)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    return finished


def mortal(before: int) -> type:
    """A Trainer whose process 1 kills itself before a step, once there is a checkpoint of it."""

    class Mortal(loop.FlatTrainer):
        def training_step(self, *arguments, **options):
            if self.args.process_index == 1 and self.state.global_step == before:
                several.die_after(Path(self.args.output_dir) / f"checkpoint-{before}")
            return super().training_step(*arguments, **options)

    return Mortal


def case(
    folder: Path,
    group: processes.Group,
    name: str,
    method: str,
    settings: dict,
    minutes: float | None,
    model: str,
    die: int | None,
) -> dict:
    """One run of unlearning on the tables and a model in `folder`, saved there as the model folder `name`.

    In processes of its own it changes, for itself, what stands above. die: before which step process 1 does.
    """
    start, settings = folder / model, several.Settings(**settings)
    if settings.fsdp:
        sharding.finish = pretend(sharding.finish)
    if die is not None:
        loop.FlatTrainer = mortal(die)
    model, done = several.unlearned(start, group, method, settings, minutes)
    card = models.of_adapter(model.card, start) if settings.lora else model.card
    model = replace(model, card=card)
    state = sharding.gathered(model)
    if group.rank == 0:
        models.save(folder / name, model, state)
    return {
        "log": done.log,
        "trajectory": done.trajectory,
        "token_weights": done.token_weights,
        "selection": done.selection,
        "sharded": isinstance(model.model, FSDPModule),
        "units": sum(isinstance(module, FSDPModule) for module in model.model.modules()),
        "local": sum(getattr(weight, "_local_tensor", weight).numel() for weight in model.model.parameters()),
        "all": sum(weight.numel() for weight in model.model.parameters()),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny, table, facts) -> Path:
    """Also with a model whose head is not tied."""
    folder = several.prepare(tmp_path_factory.mktemp("sharded"), tiny(), table, facts)
    models.save(folder / "untied", tiny(tie_word_embeddings=False))
    return folder


@pytest.fixture(scope="module")
def together(folder) -> list[list[dict]]:
    """Process -> results of all cases in two processes."""
    ended = several.group_of_two(folder, case, *CASES.values())
    assert ended == [0, 0], [(folder / f"told-{rank}.txt").read_text() for rank in range(2)]
    return [results(folder, rank) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_sharded_processes_make_what_one_makes(folder, together, name):
    chosen = CASES[name]
    whole = {"fsdp": False, "processes": 1}
    alone = {**chosen, "name": f"{chosen['name']}-alone", "minutes": None, "settings": chosen["settings"] | whole}
    expected = case(folder, processes.Group(), **alone)
    first, second = (process[list(CASES).index(name)] for process in together)
    # autocast keeps the residual stream in float32, but where sharded weights are cast it is bfloat16
    mixed = chosen["settings"].get("precision") == "mixed"
    rounding = {"rel": 5e-3, "abs": 0.05} if mixed else {"rel": 1e-5, "abs": 1e-5}
    assert first["log"] == second["log"]
    assert [row["loss"] for row in first["log"]] == pytest.approx([row["loss"] for row in expected["log"]], **rounding)
    for ours, theirs in zip(first["trajectory"], expected["trajectory"], strict=True):
        assert ours == {**theirs, "value": pytest.approx(theirs["value"], **rounding)}
    assert first["selection"]["last"] == pytest.approx(expected["selection"]["last"], **rounding)
    assert len(first["token_weights"]) == len(expected["token_weights"])
    compare(folder / chosen["name"], folder / alone["name"], 5e-3 if mixed else 2e-5)


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


@pytest.mark.parametrize("select", ["best", pytest.param("last", marks=pytest.mark.slow)])
def test_a_killed_sharded_run_goes_on(folder, together, select):
    """Killed in the middle of the second epoch; in the end everything is as if nothing had happened."""
    whole = setting(f"whole-{select}", "atwu", select=select)
    assert several.group_of_two(folder, case, whole) == [0, 0]
    expected = results(folder, 0)[0]
    killed = whole | {"name": f"killed-{select}", "minutes": 0}
    assert several.group_of_two(folder, case, killed | {"die": 3})[1] == -signal.SIGKILL
    kept = {file.name for file in (folder / "work/unlearn" / KEY / "checkpoint-3").iterdir()}
    assert kept > {"complete.json", "pytorch_model_fsdp.bin", "optimizer.bin"}
    assert not {name for name in kept if name.endswith(".safetensors")}, "the model is there once"
    assert several.group_of_two(folder, case, killed) == [0, 0]
    assert "resuming at step 3 of 4" in (folder / "told-0.txt").read_text()
    assert results(folder, 0)[0] == expected
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
        check(Memory(fsdp=True), processes_, compute, cached)
    check(Memory(), processes_, compute, cached)
