"""What each stage spends on importing: CPU and wall seconds, on real runs of a tiny pipeline.

    python bench/speed/startup.py
    python bench/speed/startup.py --against ../older --repeats 5    # and another checkout of this repository, in turn

Every stage script is run as `dvc repro` runs it, in a process of its own, so that modules count too that are imported
late, once a stage knows what it needs. What counts is

- the start of the interpreter: from the start of the process until Python has read its site packages;
- every import of the main thread: from when its first module is looked for until all that it needs has been loaded.

Reading parameters and tables, computing and writing do not count, nor does the end of the process. So this is what
`python -X importtime` shows, and the start of the interpreter, with CPU seconds beside the wall clock: user and system
time of all threads. CPU seconds hardly change with what else the machine does; wall seconds do, and with what the
operating system has in its cache of files. The median and the least of the repeats are given, and their sum over the
stages.

The files of each checkout, committed or not, are copied into a temporary folder and set to TINY; `dvc repro` runs once,
so that every stage finds its inputs and all code is compiled. The stages are those of its dvc.lock; of those that run
for several models the first counts. Both checkouts use the packages that this script runs with.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[2]

TINY = {
    "fictitious": {"people": 5, "questions": 12, "real_authors": 4, "world_facts": 4, "forget_share": 0.2},
    "scratch": {"vocabulary": 400, "layers": 1, "width": 32, "heads": 2, "epochs": 1},
    "unlearn": {"epochs": 1, "trajectory_retain": 4},
    "evaluate": {"retain_rows": 8, "new_tokens": 4},
    "compute": {"threads": 1},
    "runtime": {"progress": False},
}

# Python runs a module of this name before anything else. All imports, however they are written, end in one function.
HOOK = """
import _frozen_importlib, _thread, atexit, os, time

def watch(path, began):
    load, main, inside = _frozen_importlib._find_and_load, _thread.get_ident(), False
    spent = [time.process_time(), time.monotonic() - began]

    def timed(name, import_):
        nonlocal inside
        if inside or _thread.get_ident() != main:
            return load(name, import_)
        inside, cpu, wall = True, time.process_time(), time.monotonic()
        try:
            return load(name, import_)
        finally:
            spent[0] += time.process_time() - cpu
            spent[1] += time.monotonic() - wall
            inside = False

    def write():
        with open(path, "w") as file:
            print(*spent, file=file)

    atexit.register(write)
    _frozen_importlib._find_and_load = timed

if "STARTUP" in os.environ:  # which processes that this one starts must not see
    path, began = os.environ.pop("STARTUP").rsplit(" ", 1)
    watch(path, float(began))
"""


def environment(folder: Path, *before: Path) -> dict[str, str]:
    """For commands in a copied checkout, which use its own code. before: folders of modules that come first."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, (*before, folder / "src"))),
        "PYTHONDONTWRITEBYTECODE": "",  # or the stages' own code would be compiled in every run
    }


def call(command: list[str], folder: Path, variables: dict[str, str]) -> str:
    """Output of a command. Exits with its last words when it fails."""
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-1000:]
        sys.exit(f"error: `{shlex.join(command)}` in a copy of the checkout ended with {done.returncode}:\n{said}")
    return done.stdout


def copied(checkout: Path, folder: Path) -> dict[str, list[str]]:
    """Copy a checkout, run its pipeline with TINY, and give the commands of its stages."""
    listed = call(["git", "ls-files", "-co", "--exclude-standard", "-z"], checkout, dict(os.environ))
    for name in filter(None, listed.split("\0")):
        if (checkout / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((checkout / name).read_bytes())
    yaml = YAML()
    blocks = yaml.load(folder / "params.yaml")
    for block, values in TINY.items():
        blocks[block] |= values
    yaml.dump(blocks, folder / "params.yaml")
    call(["git", "init", "-q"], folder, dict(os.environ))
    call(["dvc", "repro"], folder, environment(folder))
    commands: dict[str, list[str]] = {}
    for name, stage in YAML(typ="safe").load(folder / "dvc.lock")["stages"].items():
        commands.setdefault(name.partition("@")[0], shlex.split(stage["cmd"]))
    return commands


def spent(command: list[str], folder: Path, hook: Path) -> dict[str, float]:
    """CPU and wall seconds of one run of a stage. hook: the folder that holds HOOK."""
    out = hook / "spent"
    variables = environment(folder, hook) | {"STARTUP": f"{out} {time.monotonic()!r}"}
    call(command, folder, variables)
    return dict(zip(("cpu", "wall"), map(float, out.read_text().split()), strict=True))


def measure(checkouts: list[Path], repeats: int) -> list[dict[str, dict[str, list[float]]]]:
    """Of every checkout: stage -> cpu and wall -> seconds of every repeat. Exits when a command fails."""
    with tempfile.TemporaryDirectory(prefix="startup-") as scratch:
        hook = Path(scratch) / "hook"
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK)
        folders = [Path(scratch) / str(number) for number in range(len(checkouts))]
        commands = [copied(*pair) for pair in zip(checkouts, folders, strict=True)]
        found = [{name: {"cpu": [], "wall": []} for name in some} for some in commands]
        with tqdm(total=repeats * sum(map(len, commands)), unit="stage", disable=None) as bar:
            for _ in range(repeats):
                for name in dict.fromkeys(name for some in commands for name in some):
                    for seconds, some, folder in zip(found, commands, folders, strict=True):
                        if name in some:
                            for kind, value in spent(some[name], folder, hook).items():
                                seconds[name][kind].append(value)
                            bar.update()
    return found


def summary(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Stage -> median and least CPU and wall seconds, and under `all` the sums over the stages."""
    made = {
        name: {
            f"{kind}{suffix}": of(values)
            for kind, values in seconds.items()
            for suffix, of in (("", statistics.median), ("_min", min))
        }
        for name, seconds in found.items()
    }
    made["all"] = {key: sum(row[key] for row in made.values()) for key in ("cpu", "cpu_min", "wall", "wall_min")}
    return made


def table(rows: list[dict[str, dict[str, float]]]) -> str:
    """A line a stage, and behind a bar the same of the other checkout, and what share of its medians this one takes."""
    head = f"{'CPU s':>8}{'least':>8}{'wall s':>8}{'least':>8}"
    lines = [f"{'':<10}{head}" + (f" |{head} |{'CPU':>6}{'wall':>6}" if len(rows) > 1 else "")]
    for name in dict.fromkeys(name for some in rows for name in some):
        cells = ["".join(f"{value:>8.2f}" for value in some.get(name, {}).values()) or " " * 32 for some in rows]
        if len(rows) > 1 and all(name in some for some in rows):
            ours, theirs = (some[name] for some in rows)
            cells.append("".join(f"{ours[kind] / theirs[kind]:>6.2f}" for kind in ("cpu", "wall")))
        lines.append(f"{name:<10}" + " |".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="another checkout of this repository")
    parser.add_argument("--repeats", type=int, default=5, help="runs of every stage; default 5")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    checkouts = [ROOT, *([options.against.resolve()] if options.against else [])]
    for checkout in checkouts:
        if not (checkout / "dvc.yaml").is_file():
            parser.error(f"{checkout} is no checkout of this repository: it has no dvc.yaml")
    rows = [summary(found) for found in measure(checkouts, options.repeats)]
    if options.json:
        print(json.dumps(dict(zip(("this", "against"), rows, strict=False)), indent=2))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
