"""The house: few rooms, arrows that point down only, and what others may rely on without loading a model."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIF = ROOT / "src/tif"
# from the lowest to the highest; a room is a folder or a file directly in src/tif
ROOMS = (
    "base", "losses", "words", "benchmarks", "lm", "scores", "training", "runs", "finetune", "agreement", "identify",
    "reference", "methods", "unlearning", "evaluation", "metrics", "attacks", "plan", "report",
)  # fmt: skip


def module_name(file: Path) -> str:
    parts = file.relative_to(TIF.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(TIF.rglob("*.py"))}


class Imports(ast.NodeVisitor):
    """What a file imports, in functions too, but not what only its annotations name."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert not node.level, "imports name the whole path"
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            self.found.add(module if module in FILES else node.module)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)


def imports(source: str) -> set[str]:
    visitor = Imports()
    visitor.visit(ast.parse(source))
    return visitor.found


IMPORTS = {name: imports(file.read_text(encoding="utf-8")) for name, file in FILES.items()}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_are_found_wherever_they_stand():
    source = (
        "import os.path\nfrom tif.base import params, late\nfrom tif.base.errors import UserError\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"
        "def f():\n    if True:\n        from tif.training import Memory, sharding\n"
    )
    assert imports(source) == {
        "os.path", "tif.base.params", "tif.base.late", "tif.base.errors", "typing", "tif.training",
        "tif.training.sharding",
    }  # fmt: skip


def test_few_entries_in_the_hall():
    entries = [path.name for path in TIF.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 20, entries


def test_no_module_imports_itself_in_a_circle():
    """Raises CycleError, which names the circle."""
    graph = {name: {other for other in found if other in FILES} for name, found in IMPORTS.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(FILES) > 80


def test_arrows_point_down_only():
    assert {room(name) for name in FILES} - {""} <= set(ROOMS)
    upwards = [
        f"{name} imports {other}"
        for name, found in IMPORTS.items()
        for other in found
        if other in FILES and room(other) and ROOMS.index(room(other)) > ROOMS.index(room(name))
    ]
    assert upwards == []


def test_no_module_imports_a_stage():
    stages = {path.stem for path in (ROOT / "stages").glob("*.py")} | {"stages"}
    assert [name for name, found in IMPORTS.items() if {other.split(".")[0] for other in found} & stages] == []


def test_losses_know_no_files():
    source = FILES["tif.losses"].read_text(encoding="utf-8")
    assert IMPORTS["tif.losses"] == {"__future__", "typing", "tif.base.late"}
    called = {
        node.func.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and hasattr(node.func, "id")
    }
    assert not called & {"open", "__import__", "exec", "eval"}


def test_only_a_benchmark_names_its_sets():
    elsewhere = [file for file in FILES.values() if TIF / "benchmarks" not in file.parents]
    files = [*elsewhere, *(ROOT / "stages").glob("*.py")]
    named = [
        file for file in files for name in ("real_authors", "world_facts") if name in file.read_text(encoding="utf-8")
    ]
    assert named == []


LAZY = """
import pkgutil, sys

def without_torch(where):
    loaded = {"torch", "transformers", "datasets", "peft"} & set(sys.modules)
    assert not loaded, f"{where}: {loaded}"

import tif.losses, tif.metrics, tif.words
without_torch("the three")
from tif.losses import logit_preference_loss, preservation_loss
from tif.metrics import exact_memorization, extraction_strength, forget_quality, model_utility, truth_ratio
from tif.words import project
without_torch("their functions")
assert truth_ratio([1.0], [[1.0, 1.0]]).tolist() == [1.0]
assert project("Ada Lind", [(4, 8)], [(0, 3), (3, 8), (8, 8)]) == [False, True, False]
for found in pkgutil.iter_modules(tif.metrics.__path__, "tif.metrics."):
    __import__(found.name)
    without_torch(found.name)

try:
    from tif.metrics import nothing
except ImportError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError("a name that is not there")
"""


def test_what_others_call_loads_no_model_library():
    """Losses, metrics and words by the names that others import; the metrics' own files too."""
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
