"""Every stage declares exactly what it reads: its import closure and its parameter blocks.

dvc.yaml is resolved by DVC itself, once for every benchmark, identifier, method and model that can be chosen.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
# imported by a stage only to print the memory plan in place of a run, so no result can depend on them
WITHOUT_EFFECT = {"src/tif/plan.py", "src/tif/plan_report.py"}
PACKAGES = {"benchmarks": "benchmark.name", "identify": "identify.method", "methods": "unlearn.method"}


def names(package: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "src/tif" / package).glob("[a-z]*"))


CHOICES = [(key, name) for package, key in PACKAGES.items() for name in names(package)]
CHOICES += [("model.name", "scratch"), ("model.name", "llama32_1b")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A DVC repository with nothing in it."""
    made = tmp_path_factory.mktemp("wiring")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=made, check=True)
    return made


def resolved(folder: Path, key: str, name: str) -> dict:
    """Stage name -> DVC stage, with `key` of params.yaml set to `name`."""
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    block, field = key.split(".")
    params[block][field] = name
    yaml.dump(params, folder / "params.yaml")
    with Repo(str(folder)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


def module_file(module: str) -> Path | None:
    base = ROOT / "src" / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imports(path: Path) -> set[Path]:
    """Files of this project that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {file for module in modules if module.startswith("tif") and (file := module_file(module))}
    return found


def closure(start: set[Path]) -> set[Path]:
    seen, todo = set(), set(start)
    while todo:
        path = todo.pop()
        seen.add(path)
        todo |= imports(path) - seen
    return {path for path in seen if path.stat().st_size}


def chosen(script: str, params: dict) -> tuple[set[Path], set[str]]:
    """Modules that the script imports by a name from params.yaml, and the blocks that it reads."""
    files, blocks = set(), set()
    for package, key in re.findall(r'params\.choose\("(\w+)", [\w.]+, "([\w.]+)"\)', script):
        block, field = key.split(".")
        files.add(module_file(f"tif.{package}.{params[block][field]}"))
        blocks.add(params[block][field])
    blocks |= set(re.findall(r'params\.read\("(\w+)"', script)) - {"runtime"}
    if "params.read(choice.name" in script and "model" in blocks:
        blocks.add(params["model"]["name"])
    return files, blocks


@cache
def reads_and_declares(folder: Path, key: str, name: str) -> dict[str, tuple[set[str], set[str]]]:
    """Stage -> (files it reads, files and folders of code it declares). Checks parameter blocks on the way."""
    found = {}
    stages = resolved(folder, key, name)
    params = YAML(typ="safe").load(folder / "params.yaml")
    for stage in stages.values():
        script = ROOT / stage.cmd.split()[1]
        files, blocks = chosen(script.read_text(), params)
        reads = {str(path.relative_to(ROOT)) for path in closure({script, *files})} - WITHOUT_EFFECT
        deps = {dep.def_path for dep in stage.deps if hasattr(dep, "def_path")}
        keys = {key for dep in stage.deps if hasattr(dep, "params") for key in dep.params}
        assert keys == blocks, f"{stage.cmd} declares the blocks {keys} and reads {blocks}"
        found[stage.cmd] = reads, {dep for dep in deps if dep.startswith(("src/", "stages/"))}
    assert len(found) == 10
    return found


def within(path: str, dep: str) -> bool:
    return path == dep or path.startswith(dep + "/")


@pytest.mark.parametrize(("key", "name"), CHOICES)
def test_stage_declares_what_it_reads(folder, key, name):
    for stage, (reads, declared) in reads_and_declares(folder, key, name).items():
        missing = {path for path in reads if not any(within(path, dep) for dep in declared)}
        assert not missing, f"{stage} reads {missing} without declaring it"


def test_stage_declares_nothing_that_it_never_reads(folder):
    used: dict[str, set[str]] = {}
    declared: dict[str, set[str]] = {}
    for key, name in CHOICES:
        for stage, (reads, deps) in reads_and_declares(folder, key, name).items():
            used.setdefault(stage, set()).update(reads)
            declared.setdefault(stage, set()).update(deps)
    for stage, deps in declared.items():
        surplus = {dep for dep in deps if not any(within(path, dep) for path in used[stage])}
        assert not surplus, f"{stage} declares {surplus} without reading it"


def test_what_has_no_effect_is_not_even_imported_by_a_run():
    """Nor is it in the key of a run's checkpoints, which holds every module that is imported."""
    code = f"import runpy, sys; runpy.run_path({str(ROOT / 'stages/unlearn.py')!r}); print(*sys.modules, sep='\\n')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    modules = set(done.stdout.splitlines())
    assert "tif.train" in modules
    for path in WITHOUT_EFFECT:
        assert ".".join(Path(path).with_suffix("").parts[1:]) not in modules


def test_no_stage_depends_on_runtime():
    assert "runtime" not in (ROOT / "dvc.yaml").read_text()


def test_every_selectable_name_has_a_block():
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    assert {name for _, name in CHOICES} <= set(params)
    assert all(re.fullmatch(r"[a-z0-9_]+", block) for block in params)
