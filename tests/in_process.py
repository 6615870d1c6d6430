"""Stages in this process: what a stage does, without the seconds in which a new interpreter imports its libraries."""

import contextlib
import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ROOT / "stages"


def stage(name: str) -> ModuleType:
    """The module stages/NAME.py."""
    spec = importlib.util.spec_from_file_location(f"stage_{name}", STAGES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_stage(name: str, folder: Path, *arguments: str) -> None:
    """`python stages/NAME.py ARGUMENTS` in a folder. Bad input raises UserError, which a process would print."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *arguments])
        stage(name).main()


class Terminal(io.StringIO):
    """For `sys.stderr`, so that progress bars are shown."""

    def isatty(self) -> bool:
        return True
