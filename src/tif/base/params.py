"""Reads params.yaml and validates a block against its typed model.

YAML 1.2 rules apply (ruamel), because `dvc exp run -S unlearn.lr=2e-5` writes `2e-05`, which YAML 1.1 reads as text.
"""

import difflib
import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tif.base.errors import UserError

NO_SOURCE = "data/none"  # the committed file that stands for "no local source"


class Block(BaseModel):
    """Base of every block's type: unknown keys are errors, types are not coerced, numbers are finite, values fixed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, allow_inf_nan=False)


class Compute(Block):
    """`compute`: what changes the bits of every model output."""

    device: str = Field(pattern=r"^(cpu|cuda|mps)$")
    threads: int = Field(ge=1)


class Runtime(Block):
    """`runtime`: what changes no output; no stage depends on it.

    progress: whether to show progress bars on a terminal. checkpoint_minutes: time between two checkpoints of
    unlearning, 0 for one after every step.
    """

    progress: bool
    checkpoint_minutes: float = Field(default=2.0, ge=0)

    @property
    def shown(self) -> bool:
        """Whether there are progress bars: where they are wanted, and a terminal is there to show them."""
        return self.progress and sys.stderr.isatty()


class BenchmarkChoice(Block):
    """`benchmark`: which benchmark, and a local copy of it."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    source: str


class ModelChoice(Block):
    """`model`: which model block, and a local folder of its weights."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    source: str


class IdentifyChoice(Block):
    """`identify`: which identifier, and the annotation it imports."""

    method: str = Field(pattern=r"^[a-z0-9_]+$")
    source: str


B = TypeVar("B", bound=BaseModel)


def read_all(path: Path | str = "params.yaml") -> dict:
    """All of params.yaml as plain Python values. Raises UserError when it is missing or is not YAML."""
    path = Path(path)
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run stages from the root of the repository") from None
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold named blocks, not {type(content).__name__}")
    return content


def read(block: str, model: type[B], path: Path | str = "params.yaml") -> B:
    """The block called `block` as an instance of `model`.

    Raises UserError naming the key, its value, what is allowed, and the nearest valid name of an unknown key.
    """
    content = read_all(path)
    if block not in content:
        raise UserError(f"{path} has no block '{block}'{nearest(block, content)}")
    return validate(block, content[block], model)


def validate(block: str, values: object, model: type[B]) -> B:
    """`values` as an instance of `model`; see `read`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(block, model, item) for item in error.errors())) from None


def _explain(block: str, model: type[BaseModel], item: dict) -> str:
    where = item["loc"]
    if issubclass(model, RootModel):
        # a union of blocks: pydantic puts the kind before the key, where no reader of params.yaml expects it
        union = model.model_fields["root"]
        kinds = {member.model_fields[union.discriminator].annotation: member for member in get_args(union.annotation)}
        kinds = {get_args(literal)[0]: member for literal, member in kinds.items()}
        if item["type"].startswith("union_tag"):
            return _explain_kind(block, union.discriminator, item, list(kinds))
        if where and where[0] in kinds:
            model, where = kinds[where[0]], where[1:]
    key = ".".join([block, *(str(part) for part in where)])
    if item["type"] == "extra_forbidden":
        names = [field.alias or name for name, field in _innermost(model, where).model_fields.items()]
        return f"params.yaml: unknown key {key}{nearest(str(where[-1]), names)}; known keys: {', '.join(names)}"
    if item["type"] == "missing":
        return f"params.yaml: {key} is missing"
    reason = item["msg"].lower().removeprefix("value error, ")
    return f"params.yaml: {key} = {item['input']!r} is not allowed: {reason}"


def _innermost(model: type[BaseModel], where: tuple) -> type[BaseModel]:
    """The block within a block that the last part of `where` belongs to."""
    for part in where[:-1]:
        kind = model.model_fields[part].annotation
        model = next(one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, BaseModel))
    return model


def _explain_kind(block: str, key: str, item: dict, kinds: list[str]) -> str:
    if item["type"] == "union_tag_not_found":
        return f"params.yaml: {block}.{key} is missing; known: {', '.join(kinds)}"
    found = item["ctx"]["tag"]
    return f"params.yaml: {block}.{key} = {found!r} is unknown{nearest(found, kinds)}; known: {', '.join(kinds)}"


def nearest(name: str, names) -> str:
    """A hint such as `; did you mean 'beta'?`, or nothing when no name is near."""
    match = difflib.get_close_matches(name, [str(other) for other in names], n=1)
    return f"; did you mean '{match[0]}'?" if match else ""


def known_names(package: Literal["benchmarks", "identify", "methods"]) -> list[str]:
    """What can be chosen of a package: its files for methods, its folders for the others."""
    found = pkgutil.iter_modules([str(Path(__file__).parent.parent / package)])
    return sorted(module.name for module in found if module.ispkg == (package != "methods"))


def choose(package: Literal["benchmarks", "identify", "methods"], name: str, key: str) -> ModuleType:
    """The module `tif.<package>.<name>`, which `key` of params.yaml selects. Raises UserError for an unknown name.

    Imported by name and not from a registry, so that DVC can watch the one chosen file.
    """
    known = known_names(package)
    if name not in known:
        raise UserError(f"params.yaml: {key} = {name!r} is unknown{nearest(name, known)}; known: {', '.join(known)}")
    return importlib.import_module(f"tif.{package}.{name}")


def local_source(source: str, key: str) -> Path | None:
    """The local folder or file that `key` points at, or None for the default `data/none`.

    Raises UserError when nothing is there.
    """
    if source == NO_SOURCE:
        return None
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"params.yaml: {key} = {source!r}: nothing is there; give an existing path or '{NO_SOURCE}'")
    return path
