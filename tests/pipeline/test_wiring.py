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
WITHOUT_EFFECT = {"src/tif/plan/memory.py", "src/tif/plan/report.py"}
PACKAGES = {"benchmarks": "benchmark.name", "identify": "identify.method", "methods": "unlearn.method"}
CHECK, STAGES = "python stages/check.py", 12


def names(package: str) -> list[str]:
    folder = ROOT / "src/tif" / package
    if package == "methods":
        return sorted(path.stem for path in folder.glob("[a-z]*.py"))
    return sorted(path.parent.name for path in folder.glob("[a-z]*/__init__.py"))


NAMES = {key: names(package) for package, key in PACKAGES.items()} | {"model.name": ["scratch", "llama32_1b"]}
# every name in at least one choice: DVC takes nearly a second to resolve dvc.yaml
CHOICES = [
    tuple((key, known[number % len(known)]) for key, known in NAMES.items())
    for number in range(max(len(known) for known in NAMES.values()))
]
DEFAULT = ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A DVC repository with nothing in it."""
    made = tmp_path_factory.mktemp("wiring")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=made, check=True)
    return made


def resolved(folder: Path, choice: tuple[tuple[str, str], ...]) -> dict:
    """Stage name -> DVC stage, with the keys of `choice` in params.yaml set to its names."""
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    for key, name in choice:
        block, field = key.split(".")
        params[block][field] = name
    yaml.dump(params, folder / "params.yaml")
    with Repo(str(folder)) as repo:
        return {stage.name: stage for stage in repo.index.stages}


def module_files(module: str) -> set[Path]:
    """The file of a module of this project, and `__init__` of the packages it is in; empty for what is no module."""
    base = ROOT / "src" / Path(*module.split("."))
    own = next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
    if own is None:
        return set()
    packages = [folder / "__init__.py" for folder in own.parents if (ROOT / "src/tif") in (folder, *folder.parents)]
    return {own, *packages}


class Imports(ast.NodeVisitor):
    """Modules that a file imports, in functions too, but not those that only its annotations name."""

    def __init__(self) -> None:
        self.modules: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.modules |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)


@cache
def imports(path: Path) -> frozenset[Path]:
    """Files of this project that a file imports."""
    visitor = Imports()
    visitor.visit(ast.parse(path.read_text()))
    found = {file for module in visitor.modules if module.startswith("tif") for file in module_files(module)}
    if "known_measures" in path.read_text() and path.parent.name == "metrics" and path.name != "__init__.py":
        found |= set(path.parent.glob("*.py"))  # which imports them by name
    return frozenset(found)


def has_code(path: Path) -> bool:
    """Whether a file holds more than a docstring."""
    body = ast.parse(path.read_text()).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)


def closure(start: set[Path]) -> set[Path]:
    seen, todo = set(), set(start)
    while todo:
        path = todo.pop()
        seen.add(path)
        todo |= imports(path) - seen
    return {path for path in seen if has_code(path)}


def chosen(script: str, params: dict) -> tuple[set[Path], set[str]]:
    """Modules that the script imports by a name from params.yaml, and the blocks that it reads."""
    files, blocks = set(), set()
    for package, key in re.findall(r'params\.choose\("(\w+)", [\w.]+, "([\w.]+)"\)', script):
        block, field = key.split(".")
        files |= module_files(f"tif.{package}.{params[block][field]}")
        blocks.add(params[block][field])
    blocks |= set(re.findall(r'params\.read\("(\w+)"', script)) - {"runtime"}
    if "params.read(choice.name" in script and "model" in blocks:
        blocks.add(params["model"]["name"])
    return files, blocks


def code_deps(stage) -> set[str]:
    """Files and folders of code that a stage declares."""
    paths = {dep.def_path for dep in stage.deps if hasattr(dep, "def_path")}
    return {path for path in paths if path.startswith(("src/", "stages/"))}


@cache
def reads_and_declares(folder: Path, choice: tuple[tuple[str, str], ...]) -> dict[str, tuple[set[str], set[str]]]:
    """Stage -> (files it reads, files and folders of code it declares). Checks parameter blocks on the way.

    The stage check, which imports every choice and calls nothing of it, has a test of its own.
    """
    found = {}
    stages = resolved(folder, choice)
    params = YAML(typ="safe").load(folder / "params.yaml")
    assert len(stages) == STAGES
    for stage in stages.values():
        if stage.cmd == CHECK:
            continue
        script = ROOT / stage.cmd.split()[1]
        files, blocks = chosen(script.read_text(), params)
        reads = {str(path.relative_to(ROOT)) for path in closure({script, *files})} - WITHOUT_EFFECT
        keys = {key for dep in stage.deps if hasattr(dep, "params") for key in dep.params}
        assert keys == blocks, f"{stage.cmd} declares the blocks {keys} and reads {blocks}"
        found[stage.cmd] = reads, code_deps(stage)
    return found


def within(path: str, dep: str) -> bool:
    return path == dep or path.startswith(dep + "/")


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "-".join(name for _, name in choice))
def test_stage_declares_what_it_reads(folder, choice):
    for stage, (reads, declared) in reads_and_declares(folder, choice).items():
        missing = {path for path in reads if not any(within(path, dep) for dep in declared)}
        assert not missing, f"{stage} reads {missing} without declaring it"


def test_stage_declares_nothing_that_it_never_reads(folder):
    used: dict[str, set[str]] = {}
    declared: dict[str, set[str]] = {}
    for choice in CHOICES:
        for stage, (reads, deps) in reads_and_declares(folder, choice).items():
            used.setdefault(stage, set()).update(reads)
            declared.setdefault(stage, set()).update(deps)
    for stage, deps in declared.items():
        surplus = {dep for dep in deps if not any(within(path, dep) for path in used[stage])}
        assert not surplus, f"{stage} declares {surplus} without reading it"


def test_the_check_declares_what_it_imports_and_imports_no_torch(folder, tmp_path):
    """Looked up in a real run: which modules are there at its end."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    code = (
        f"import runpy, sys; sys.argv = ['check.py']; runpy.run_path({str(ROOT / 'stages/check.py')!r}, "
        "run_name='__main__'); print(*sys.modules, sep='\\n')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.splitlines())
    assert not modules & {"torch", "transformers", "datasets", "sklearn", "scipy", "pandas", "matplotlib", "openai"}
    files = {file for module in modules if module.startswith("tif.") for file in module_files(module)}
    read = {str(file.relative_to(ROOT)) for file in files if has_code(file)} | {"stages/check.py"}
    declared = code_deps(resolved(folder, DEFAULT)["check"])
    assert {path for path in read if not any(within(path, dep) for dep in declared)} == set()
    assert {dep for dep in declared if not any(within(path, dep) for path in read)} == set()


def test_what_is_not_chosen_is_watched_by_the_check_alone(folder):
    """Every method, identifier and benchmark that the default run does not choose, with the helpers in its folder."""
    stages = resolved(folder, DEFAULT)
    params = YAML(typ="safe").load(folder / "params.yaml")
    watched = 0
    for package, key in PACKAGES.items():
        block, field = key.split(".")
        for name in set(names(package)) - {params[block][field]}:
            base = ROOT / "src/tif" / package / name
            for file in base.rglob("*.py") if base.is_dir() else [base.with_suffix(".py")]:
                path = str(file.relative_to(ROOT))
                listing = {stage for stage, one in stages.items() if any(within(path, dep) for dep in code_deps(one))}
                assert listing == {"check"}, f"{path} is listed by {listing}"
                watched += 1
    assert watched > 30


def test_dvc_yaml_stays_short():
    """Rooms that rerun together are listed as folders."""
    assert sum("src/" in line for line in (ROOT / "dvc.yaml").read_text().splitlines()) <= 70


def test_what_has_no_effect_is_not_even_imported_by_a_run():
    """Nor is it in the key of a run's checkpoints, which holds every module that is imported."""
    tree = ast.parse((ROOT / "stages/unlearn.py").read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module.startswith("tif.plan")]
    plans = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "planned is not None" in ast.unparse(node)]
    assert len(found) == 1
    assert found[0] in plans[0].body and isinstance(plans[0].body[-1], ast.Return)
    for path in (ROOT / "src/tif").rglob("*.py"):
        if path.parent.name != "plan":
            assert not any("tif/plan" in str(file) for file in imports(path)), path


def test_no_stage_depends_on_runtime():
    assert "runtime" not in (ROOT / "dvc.yaml").read_text()


def test_every_selectable_name_has_a_block():
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    assert {name for known in NAMES.values() for name in known} <= set(params)
    assert all(re.fullmatch(r"[a-z0-9_]+", block) for block in params)
