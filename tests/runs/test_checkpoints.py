"""Checkpoints: a run killed anywhere goes on to the same bits, and never from a checkpoint that is not its own."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from forgetting import data_of, settings
from pydantic import Field

from tif.base.errors import UserError
from tif.base.params import Block
from tif.lm.adapters import Lora
from tif.methods import atwu, tpo
from tif.runs import checkpoints
from tif.runs.processes import Group
from tif.training.loop import Run
from tif.unlearning import run as unlearning
from tif.unlearning import selection, trajectory
from tif.unlearning.run import Method, unlearn

KEY = "0123456789abcdef" * 4
TPO = tpo.Settings(beta=0.2, lambda_=0.05, retain=1.0)
ATWU = atwu.Settings(
    token_weights="learned", alpha=0.9, gamma=1.0, beta=1.0, saturation="weighted", every=2, scorer_lr=0.5,
    momentum=0.9, scorer_weight_decay=1e-4, clip=1.0, entropy=1.0, population=10.0, budget=0.2, l2=0.01,
)  # fmt: skip
METHODS = {"tpo": (tpo, TPO), "atwu": (atwu, ATWU)}
SETTINGS = settings(batch=2)
STEPS = 6  # four samples in steps of two, three epochs


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """A work folder of its own; the folder of the run in it. A killed process needs no synchronised disk."""
    monkeypatch.setenv("TIF_WORK", str(tmp_path))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return tmp_path / "unlearn" / KEY


@pytest.fixture(scope="module")
def data(tiny, forget, retain):
    return data_of(tiny(), forget, retain)


@pytest.fixture(scope="module")
def run(tiny, data):
    """Unlearn a tiny model: everything that comes of it. minutes: None runs without checkpoints.

    The model has dropout, so that the state of the random numbers counts too.
    """

    def run(method="tpo", minutes: float | None = 60, key: str = KEY, **changes):
        language_model = tiny(attention_dropout=0.1)
        arguments = language_model, data, Method(*METHODS[method]), SETTINGS.model_copy(update=changes), Run()
        if minutes is None:
            done = unlearn(*arguments)
        else:
            with checkpoints.opened(key, minutes, Group()) as kept:
                done = unlearn(*arguments, kept)
        return {**vars(done), "model": {k: v.tolist() for k, v in language_model.model.state_dict().items()}}

    return run


@pytest.fixture(scope="module")
def whole(run):
    """Uninterrupted runs without checkpoints, made once."""
    made: dict[str, dict] = {}

    def get(method="tpo", **changes):
        name = f"{method} {changes}"
        if name not in made:
            made[name] = run(method, None, **changes)
        return made[name]

    return get


def killed(run, *arguments, **options) -> None:
    """Run with a checkpoint after every step in a forked process, which must kill itself."""
    options = {"minutes": 0, **options}
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments, kwargs=options)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def fatal(holder, name: str, call: int, before=lambda *_, **__: None):
    """Kill the process in place of a function's call number `call`, counted from 1."""
    original, calls = getattr(holder, name), []

    def counted(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            before(*arguments, **options)
            die()
        return original(*arguments, **options)

    setattr(holder, name, counted)
    try:
        yield
    finally:
        setattr(holder, name, original)


def resumed_at(capfd) -> list[str]:
    """What was told of resuming since the last call."""
    return [line for line in capfd.readouterr().err.splitlines() if "resuming" in line]


@pytest.mark.parametrize("method", ["tpo", "atwu"])
def test_killed_in_any_step(run, whole, capfd, place, method):
    """In the forward pass of step 0 to 5: the last of these is after a checkpoint at the end of an epoch."""
    target, name = (atwu.Learner, "objective") if method == "atwu" else (tpo, "objective")
    for step in range(STEPS):
        with fatal(target, name, 2 * step + 1):  # two forget and two retain samples, two a micro-batch
            killed(run, method)
        assert [path.name for path in place.glob("checkpoint-*")] or step == 0
        capfd.readouterr()
        assert run(method) == whole(method)
        told = f"resuming at step {step} of {STEPS}"
        assert resumed_at(capfd) == ([told] if step else [])
        assert not place.exists(), "the folder is deleted on success"
    assert whole(method)["token_weights"] or method == "tpo"


@pytest.mark.parametrize(("call", "step"), [(1, 0), (2, 1), (3, 3), (4, 5)])
def test_killed_while_the_trajectory_is_measured(run, whole, capfd, call, step):
    """After the last step of an epoch (call 1 is before training): that step is done again, the epoch counted once."""
    with fatal(trajectory, "score_answers", call):
        killed(run)
    capfd.readouterr()
    result = run()
    assert result == whole()
    assert resumed_at(capfd) == ([f"resuming at step {step} of {STEPS}"] if step else [])
    assert [row["epoch"] for row in result["trajectory"]] == sorted(row["epoch"] for row in result["trajectory"])


def half(data, path, *_, **__):
    Path(path).write_bytes(b"half of what was meant to be here")


@pytest.mark.parametrize(
    ("holder", "name", "per_checkpoint", "before"),
    [
        (safetensors.torch, "save_file", 0, half),
        (transformers.PreTrainedModel, "save_pretrained", 1, None),
        (torch, "save", 5, half),  # training_args.bin, optimizer, scheduler, random states, our own
        (checkpoints.os, "replace", 1, None),  # of the marker
        (checkpoints.shutil, "rmtree", 1, None),  # of the one before the last
    ],
)
def test_killed_while_a_checkpoint_is_written(run, whole, capfd, monkeypatch, holder, name, per_checkpoint, before):
    """In every file of the third checkpoint, at step 3: then the second counts, unless the third has been completed."""
    if holder is safetensors.torch:
        holder = transformers.modeling_utils  # which has imported the name
        name, per_checkpoint = "safe_save_file", 1
    for call in range(2 * per_checkpoint + 1, 3 * per_checkpoint + 1):
        with fatal(holder, name, call, before or (lambda *_, **__: None)):
            killed(run)
        capfd.readouterr()
        assert run() == whole()
        told = resumed_at(capfd)
        assert len(told) == 1
        assert told[0].startswith("resuming at step 4" if name == "rmtree" else "resuming at step 2 ")


def test_killed_again_and_again(run, whole):
    """A process that dies after every second step gets there."""
    for _ in range(STEPS // 2 - 1):
        with fatal(tpo, "objective", 5):
            killed(run)
    assert run() == whole()


def test_checkpoints_change_nothing_and_are_rare(run, whole, monkeypatch):
    made = []
    complete = checkpoints.Checkpoints.complete
    monkeypatch.setattr(
        checkpoints.Checkpoints, "complete", lambda self, step, state: made.append(step) or complete(self, step, state)
    )
    assert run(minutes=0) == whole()
    assert made == [1, 2, 3, 4, 5, 6]
    made.clear()
    assert run(minutes=60) == whole()
    assert made == []


def test_the_best_epoch_survives_a_kill(run, whole, capfd):
    """Epochs at this rate get worse, so that the first is the best: the weights are those of a run of one epoch."""
    changes = {"select": "best", "lr": 0.01}
    expected = whole(**changes)
    assert expected["selection"]["best"]["epoch"] < 3, "otherwise this test shows nothing"
    assert expected["model"] != whole(lr=0.01)["model"]
    with fatal(tpo, "objective", 2 * 5 + 1):
        killed(run, **changes)
    assert run(**changes) == expected
    assert resumed_at(capfd) == [f"resuming at step 5 of {STEPS}"]


@pytest.mark.parametrize(("holder", "name"), [(selection.Best, "put_back"), (unlearning, "Unlearned")])
def test_killed_when_training_has_ended(run, whole, capfd, place, holder, name):
    """Behind the last checkpoint, before or after the best epoch's weights are put back: nothing is trained again."""
    changes = {"select": "best", "lr": 0.01}
    with fatal(holder, name, 1):
        killed(run, **changes)
    assert (place / f"checkpoint-{STEPS}/complete.json").exists()
    capfd.readouterr()
    assert run(**changes) == whole(**changes)
    assert resumed_at(capfd) == [f"resuming at step {STEPS} of {STEPS}"]


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": Lora(rank=2, alpha=4.0, dropout=0.1, targets=["q_proj", "down_proj"])},
        {"gradient_checkpointing": True},
        {"precision": "mixed"},
    ],
)
def test_whatever_makes_it_fit_into_memory(run, whole, capfd, changes):
    stopped_at(run, 3, **changes)
    capfd.readouterr()
    assert run(**changes) == whole(**changes)
    assert resumed_at(capfd) == [f"resuming at step 3 of {STEPS}"]


def stopped_at(run, step: int, **options) -> None:
    with fatal(tpo, "objective", 2 * step + 1):
        killed(run, **options)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.pt", "tif-0.pt", "complete.json", "scheduler.pt"])
def test_a_damaged_checkpoint_is_passed_over(run, whole, capfd, place, file):
    stopped_at(run, 4)
    assert sorted(path.name for path in place.iterdir()) == ["checkpoint-3", "checkpoint-4"]
    path = place / "checkpoint-4" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[:-2] if file == "complete.json" else content)
    capfd.readouterr()
    assert run() == whole()
    told = capfd.readouterr().err
    assert "checkpoint-4 is damaged; going on without it" in told
    assert f"resuming at step 3 of {STEPS}" in told


def test_a_file_too_many_or_too_few_is_damage_too(run, whole, capfd, place):
    stopped_at(run, 4)
    (place / "checkpoint-4/scheduler.pt").unlink()
    (place / "checkpoint-3/more.txt").write_text("")
    assert run() == whole()
    told = capfd.readouterr().err
    assert "checkpoint-4 is damaged" in told and "checkpoint-3 is damaged" in told
    assert "resuming" not in told


def test_the_marker_is_written_when_everything_is_on_the_disk(run, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
    monkeypatch.setattr(os, "replace", lambda source, target: done.append(target) or replace(source, target))
    run(minutes=0, epochs=1, batch=4)
    names = [path.name for path in done]
    first = names.index("complete.json")
    files = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "tif-0.pt"}
    assert files | {".complete.json", "checkpoint-1"} <= set(names[:first])
    assert names[first + 1 :] == ["checkpoint-1", KEY]


def test_no_pickle_of_the_trainer_is_kept(run, place):
    stopped_at(run, 4)
    assert not list(place.rglob("training_args.bin"))


def test_the_checkpoint_of_another_run_is_told(run, place):
    """Copied into the folder, which no key leads to."""
    other = "f" * 64
    stopped_at(run, 3, key=other, lr=0.01)
    shutil.copytree(place.parent / other, place)
    with pytest.raises(UserError, match=rf"{place}/checkpoint-3 is a checkpoint of another run; delete {place} and"):
        run()
    assert run(key=other, lr=0.01)


def sealed(folder: Path) -> None:
    """Renew the marker, as only somebody who means to could."""
    marker = json.loads((folder / "complete.json").read_text())
    (folder / "complete.json").unlink()
    (folder / "complete.json").write_text(json.dumps(marker | {"files": checkpoints._content(folder)}))


def test_state_of_another_model_is_told(run, tiny, place):
    stopped_at(run, 3)
    tiny(hidden_size=48).model.save_pretrained(place / "checkpoint-3")
    sealed(place / "checkpoint-3")
    before = sorted(place.rglob("*"))
    with pytest.raises(
        UserError, match=rf"checkpoints in {place} do not fit this run .*size mismatch.*; delete that folder"
    ) as error:
        run()
    assert "\n" not in str(error.value)
    assert sorted(place.rglob("*")) == before


def test_a_scorer_of_another_width_is_told(run, place):
    with fatal(atwu.Learner, "objective", 2 * 3 + 1):
        killed(run, "atwu")
    file = place / "checkpoint-3/tif-0.pt"
    state = torch.load(file, weights_only=True)
    state["learner"]["scorer"]["weight"] = torch.zeros(1, 48)
    torch.save(state, file)
    sealed(file.parent)
    with pytest.raises(UserError, match="reads hidden states of 48 numbers, and this model's have 32"):
        run("atwu")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), ".* pos 576 vs 534"),
    ],
)
@pytest.mark.parametrize("good", [12, 14])
def test_a_disk_that_is_full_is_told_and_the_checkpoint_before_it_used(
    run, whole, monkeypatch, capfd, error, told, good
):
    """In a file of the third checkpoint that the Trainer writes, and in our own."""
    save, calls = torch.save, []

    def full(*arguments, **options):
        calls.append(1)
        if len(calls) > good:
            raise error
        return save(*arguments, **options)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=rf"cannot be written \({told}\); free some space, or set TIF"):
        run(minutes=0)
    monkeypatch.setattr(torch, "save", save)
    assert run() == whole()
    assert resumed_at(capfd) == [f"resuming at step 2 of {STEPS}"]


OTHER_CAUSES = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    torch.distributed.DistNetworkError("Connection reset by peer"),
    RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4321"),
]


@pytest.mark.parametrize("error", OTHER_CAUSES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("holder", "name"),
    [
        (transformers.Trainer, "_load_from_checkpoint"),
        (checkpoints.Checkpoints, "load"),
        (transformers.Trainer, "_save"),
        (torch, "save"),
    ],
)
def test_what_is_no_fault_of_the_checkpoints_is_not_told_as_one(run, place, monkeypatch, holder, name, error):
    """Too little memory, or a process that is gone, while a checkpoint is loaded or written."""
    stopped_at(run, 1)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(holder, name, fail)
    with pytest.raises(type(error)) as raised:
        run(minutes=0)
    assert raised.value is error
    assert (place / "checkpoint-1/complete.json").exists()


def test_a_second_run_waits_for_the_first_and_goes_on_when_that_is_killed(run, whole, capfd, place):
    """The first holds the lock in the middle of step 3 and is killed from outside."""

    def first():
        with fatal(tpo, "objective", 2 * 3 + 1, lambda *_, **__: time.sleep(120)):
            run(minutes=0)

    context = multiprocessing.get_context("fork")
    one, two = context.Process(target=first), context.Process(target=run)
    one.start()
    while not (place / "checkpoint-3/complete.json").exists():
        time.sleep(0.05)
    two.start()
    two.join(2)
    assert two.is_alive()
    one.kill()
    two.join(60)
    assert two.exitcode == 0
    told = capfd.readouterr().err
    assert "another run with the same settings and data is under way; waiting for its end" in told
    assert f"resuming at step 3 of {STEPS}" in told


class Other(Block):
    """A block of settings."""

    epochs: int = Field(ge=1)


def test_the_key_covers_all_that_the_result_depends_on(tmp_path, monkeypatch):
    folder, file, script = tmp_path / "target", tmp_path / "spans", tmp_path / "stage.py"
    folder.mkdir()
    for path in (folder / "model.safetensors", file, script):
        path.write_text(path.name)
    inputs = {"target": folder, "spans": file}

    def key(settings=(SETTINGS, TPO), processes=1):
        return checkpoints.run_key(settings, inputs, script, processes)

    keys = [key()]
    assert key() == keys[0]
    keys.append(key((SETTINGS.model_copy(update={"lr": 2e-3}), TPO)))
    keys.append(key((SETTINGS, TPO.model_copy(update={"beta": 0.3}))))
    keys.append(key((SETTINGS, Other(epochs=3))))
    keys.append(key(processes=2))
    for path in (folder / "model.safetensors", file, script):
        path.write_text("changed")
        keys.append(key())
    (folder / "more.json").write_text("")
    keys.append(key())
    monkeypatch.setattr(checkpoints, "_version", lambda name: "0")
    keys.append(key())
    module = tmp_path / "losses.py"
    module.write_text("")
    monkeypatch.setattr(trajectory, "__file__", str(module))
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_the_key_knows_no_paths(tmp_path):
    keys = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "spans").write_text("content")
        keys.append(checkpoints.run_key([SETTINGS], {"spans": folder / "spans"}, folder / "spans", 1))
    assert keys[0] == keys[1]


def test_a_changed_parameter_starts_anew(run, whole, capfd):
    stopped_at(run, 4)
    capfd.readouterr()
    assert run(key="e" * 64, lr=0.01) == whole(lr=0.01)
    assert resumed_at(capfd) == []
    assert run() == whole()  # going back resumes
    assert resumed_at(capfd) == [f"resuming at step 4 of {STEPS}"]


@pytest.mark.parametrize(("rank", "stays"), [(0, False), (1, True)])
def test_only_process_0_takes_the_folder_away(rank, stays):
    """Another process may end first, while process 0 writes the outputs; both groups here are of one process."""
    with checkpoints.opened("ab" * 32, 2.0, Group(rank)) as kept:
        assert kept.folder.is_dir()
    assert kept.folder.is_dir() == stays


def test_a_run_that_ends_well_clears_up_behind_abandoned_ones(run, place):
    """Not behind one that was killed of late, nor one that is under way, however long its last checkpoint ago."""
    keys = {"abandoned": "1" * 64, "recent": "2" * 64, "under way": "3" * 64, "of somebody": "notes"}
    folders = {name: place.parent / key for name, key in keys.items()}

    def under_way():
        with fatal(tpo, "objective", 3, lambda *_, **__: time.sleep(120)):
            run(minutes=0, key=keys["under way"])

    def age(name: str, days: float):
        then = time.time() - days * 24 * 3600
        os.utime(folders[name], (then, then))

    stopped_at(run, 1, key=keys["abandoned"])
    stopped_at(run, 1, key=keys["recent"])
    folders["of somebody"].mkdir()
    age("of somebody", 15)
    process = multiprocessing.get_context("fork").Process(target=under_way)
    process.start()
    try:
        while not (folders["under way"] / "checkpoint-1/complete.json").exists():
            time.sleep(0.05)
        age("abandoned", 15)
        age("recent", 13)
        age("under way", 15)
        with pytest.raises(ZeroDivisionError), checkpoints.opened(KEY, 60, Group()):
            1 / 0  # noqa: B018
        assert all(folder.exists() for folder in folders.values())
        with checkpoints.opened(KEY, 60, Group()):
            pass
        assert [name for name, folder in folders.items() if folder.exists()] == ["recent", "under way", "of somebody"]
        assert (folders["under way"] / "checkpoint-1/complete.json").exists()
    finally:
        process.kill()
        process.join()
