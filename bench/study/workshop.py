"""Run experiments of the study in clones of this repository, several at a time, and read what they left.

One clone a job: see bench/study/study.py for the reasons.
"""

import hashlib
import io
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TypeVar

import pandas as pd
from clones import clones, git, show
from planning import Experiment, Settings, fill, override
from ruamel.yaml import YAML

# A killed study must not leave runs behind. Set in a process of its own, as code between fork and exec is unsafe here.
WITH_PARENT = (
    "import ctypes, os, signal, sys\n"
    "if sys.platform == 'linux': ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
T = TypeVar("T")


def read_yaml(content: str) -> dict:
    """YAML 1.2, as the stages read params.yaml."""
    return YAML(typ="safe", pure=True).load(content)


class Failure(Exception):
    """A run of DVC has failed; the message is its last word and where its log is."""


@dataclass(frozen=True)
class Result:
    """What a finished experiment has left.

    params: params.yaml. details, identified, selection: details.json, identify.json and unlearn.json (which epoch is
    best) of metrics/. costs: those of unlearning (`tif.runs.costs`); empty where they were not measured.
    """

    params: dict
    details: dict
    identified: dict
    selection: dict
    trajectory: pd.DataFrame
    costs: dict


@dataclass
class Workshop:
    """Runs experiments of one commit. base: the commit. source: value of {source} in settings. jobs: runs at a time.

    The folder keeps clones for the time that it is `opened`, and logs, costs and labelled rows.
    """

    folder: Path
    base: str
    source: Path | None
    jobs: int
    lock: IO | None = None
    clones: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    running: set = field(default_factory=set)
    fetching: threading.Lock = field(default_factory=threading.Lock)
    stopped: bool = False

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the clones that everything below `repro` needs; see `clones`."""
        for name in ("logs", "costs", "annotations"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        with clones(self.folder, self.base, self.jobs) as (self.lock, made):
            self.clones = queue.SimpleQueue()
            for clone in made:
                self.clones.put(clone)
            yield

    def params(self) -> dict:
        """params.yaml of the base commit."""
        return read_yaml(show(self.base, "params.yaml"))

    def annotation(self, seed: int) -> Path:
        """Where the labelled rows lie that `distilled` learns from on one seed of `fictitious`."""
        return self.folder / "annotations" / f"seed{seed}.parquet"

    def filled(self, experiment: Experiment) -> Settings:
        """All settings of an experiment with the paths of this machine."""
        return fill(experiment.settings, {"source": self.source, "annotation": self.annotation(experiment.seed)})

    def reference(self, experiment: Experiment) -> str:
        """The git reference of an experiment, which DVC makes from base commit and name."""
        return f"refs/exps/{self.base[:2]}/{self.base[2:]}/{experiment.name}"

    def made_with(self, experiment: Experiment) -> dict | None:
        """params.yaml of the finished experiment of that name, or None where there is none."""
        content = show(self.reference(experiment), "params.yaml")
        return None if content is None else _without_runtime(read_yaml(content))

    def wanted(self, experiment: Experiment) -> dict:
        """params.yaml as the experiment has to have it."""
        params = self.params()
        for key, value in self.filled(experiment).items():
            block, name = key.split(".")
            params[block][name] = value
        return _without_runtime(params)

    def repro(self, clone: Path, experiment: Experiment, targets: Iterable[str]) -> None:
        """Run `dvc repro` in a clone, with the settings of an experiment in place of the committed ones."""
        yaml = YAML()
        params = yaml.load(show(self.base, "params.yaml"))
        for key, value in self.filled(experiment).items():
            block, name = key.split(".")
            params[block][name] = value
        yaml.dump(params, clone / "params.yaml")
        self.dvc(clone, experiment.name, "repro", *targets)

    def prepare(self, clone: Path, experiment: Experiment, targets: Iterable[str]) -> None:
        """Make outputs that do not depend on what an experiment identifies and unlearns."""
        self.repro(clone, replace(experiment, settings=experiment.world), targets)

    def annotate(self, clone: Path, experiment: Experiment) -> None:
        """Label the rows that `distilled` learns from on the experiment's benchmark."""
        self.prepare(clone, experiment, ("download",))
        label = [sys.executable, "bench/analysis/distilled.py", "--annotate", str(self.annotation(experiment.seed))]
        self.call(clone, f"annotate-seed{experiment.seed}", label)

    def run(self, clone: Path, experiment: Experiment) -> None:
        """Run one experiment and fetch it into this repository."""
        git("reset", "-q", "--hard", where=clone)
        settings = self.filled(experiment)
        overrides = [part for item in settings.items() for part in ("-S", override(*item))]
        command = ["exp", "run", "--temp", "-n", experiment.name, *overrides]
        costs = self.folder / "costs" / f"{experiment.name}-{_digest([self.base, settings])}.json"
        self.dvc(clone, experiment.name, *command, TIF_COSTS=str(costs))
        reference = self.reference(experiment)
        with self.fetching:
            quiet = ("-q", "--no-tags", "--no-auto-gc", "--no-write-fetch-head")
            git("fetch", *quiet, str(clone), f"+{reference}:{reference}")
        if costs.exists():
            costs.replace(self.costs_file(experiment))

    def dvc(self, clone: Path, log: str, *arguments: str, **environment: str) -> None:
        """Run DVC in a clone; see `call`."""
        self.call(clone, log, ["dvc", *arguments], environment)

    def call(self, clone: Path, log: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        """Run a command in a clone; its output goes to a log. Raises Failure."""
        path = self.folder / "logs" / f"{log}.log"
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "src",  # the code of the folder that a stage runs in, not that of an editable install
            **(environment or {}),
        }
        if self.stopped:
            raise Failure("interrupted")
        with path.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", WITH_PARENT, *command],
                cwd=clone,
                env=environment,
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                pass_fds=[self.lock.fileno()],
            )
            self.running.add(process)
            status = process.wait()
            self.running.discard(process)
        if status:
            said = [line for line in path.read_text(errors="replace").splitlines() if line.lower().startswith("error:")]
            raise Failure(f"{said[0] if said else f'{command[0]} ended with status {status}'} (log: {path})")

    def each(self, work: Callable[[Path, T], object], items: Iterable[T]) -> Iterator[tuple[T, object]]:
        """work(clone, item) of every item, one at a time in each clone; (item, result or Failure) as they end."""

        def with_clone(item: T) -> object:
            clone = self.clones.get()
            try:
                return work(clone, item)
            except Failure as failure:
                return failure
            finally:
                self.clones.put(clone)

        with ThreadPoolExecutor(self.jobs) as pool:
            futures = {pool.submit(with_clone, item): item for item in items}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:  # also when the study is interrupted or a defect shows
                self.stopped = not all(future.done() for future in futures)
                for future in futures:
                    future.cancel()
                for process in list(self.running):
                    process.terminate()

    def costs_file(self, experiment: Experiment) -> Path:
        """Where the costs of the unlearning that made this experiment's model are kept, whichever experiment ran it."""
        lock = read_yaml(show(self.reference(experiment), "dvc.lock"))
        return self.folder / "costs" / f"{_digest(lock['stages']['unlearn'])}.json"

    def result(self, experiment: Experiment) -> Result:
        """What a finished experiment has left; see `Result`."""
        reference = self.reference(experiment)
        costs = self.costs_file(experiment)
        return Result(
            params=self.made_with(experiment),
            details=json.loads(show(reference, "metrics/details.json")),
            identified=json.loads(show(reference, "metrics/identify.json")),
            selection=json.loads(show(reference, "metrics/unlearn.json")),
            trajectory=pd.read_csv(io.StringIO(show(reference, "metrics/plots/trajectory.csv"))),
            costs=json.loads(costs.read_text()) if costs.exists() else {},
        )


def _without_runtime(params: dict) -> dict:
    return {block: values for block, values in params.items() if block != "runtime"}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
