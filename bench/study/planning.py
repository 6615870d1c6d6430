"""What the study runs: a file of groups (grids.yaml) as experiments, each with a name, a seed and settings."""

import json
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from tif.base.errors import UserError
from tif.base.params import Block, nearest

Settings = dict[str, object]
"""Dotted keys of params.yaml and their values; {source} and {annotation} in a value stand for local paths."""

WORLD = ("benchmark", "fictitious", "tofu", "model", "scratch", "compute", "evaluate")
"""Blocks that the benchmark, the target and the retain model and their evaluations depend on."""


class World(Block):
    """A benchmark with its models. seeded: the keys that take the seed of an experiment."""

    settings: Settings
    seeded: list[str]


class Tuning(Block):
    """seed: of the benchmark that settings are chosen on. tries: settings, for every variant or for each by name."""

    seed: int
    tries: list[Settings] | dict[str, list[Settings]]


class Group(Block):
    """Experiments that share a table: every variant, with every combination of `vary`, on every seed.

    variants: their settings by name, or names of variants of the group `chosen`. tuning: how settings are chosen.
    chosen: the tuned group whose settings the variants of the same names take; a tuned group takes its own.
    compare: variant that the others are compared with, seed by seed. figure: picture to draw, of `study` alone.
    """

    world: str
    seeds: list[int] = Field(min_length=1)
    settings: Settings = Field(default_factory=dict)
    variants: dict[str, Settings] | list[str] = Field(default_factory=lambda: {"": {}})
    vary: dict[str, list] = Field(default_factory=dict)
    tuning: Tuning | None = None
    chosen: str | None = None
    compare: str | None = None
    figure: str | None = None


class Grids(Block):
    """The whole file. common: settings of every experiment."""

    common: Settings
    worlds: dict[str, World]
    groups: dict[str, Group]


@dataclass(frozen=True)
class Experiment:
    """One run of the pipeline. own: its settings beside those that all of its world share.

    place: names its world where a group varies that, else empty.
    """

    name: str
    variant: str
    seed: int
    settings: Settings
    own: Settings
    place: str

    @property
    def world(self) -> Settings:
        """The settings that its benchmark and its models depend on."""
        return {key: value for key, value in self.settings.items() if _is_of_world(key)}


def read_grids(path: Path) -> Grids:
    """Read the file of groups. Raises UserError for what is not YAML, unknown keys and wrong types."""
    try:
        grids = Grids.model_validate(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    for name, group in grids.groups.items():
        other = grids.groups.get(group.chosen or name)
        if group.world not in grids.worlds:
            raise UserError(f"{path}: {name}.world = {group.world!r}{nearest(group.world, grids.worlds)}")
        if group.chosen and not (other and other.tuning):
            raise UserError(f"{path}: {name}.chosen = {group.chosen!r} is not a group with tuning")
    return grids


def variants(grids: Grids, name: str, only: list[str] | None = None) -> dict[str, Settings]:
    """The settings of the variants of a group, of all or of `only` some, before any were chosen by tuning."""
    if name not in grids.groups:
        raise UserError(f"there is no group {name!r}{nearest(name, grids.groups)}; known: {', '.join(grids.groups)}")
    group = grids.groups[name]
    if isinstance(group.variants, list):
        found = _pick(variants(grids, group.chosen or name), group.variants, f"group {group.chosen}")
    else:
        found = group.variants
    chosen = _pick(found, only, f"group {name}") if only else found
    return {variant: group.settings | settings for variant, settings in chosen.items()}


def _pick(found: dict, names: list[str], where: str) -> dict:
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{where} has no variant {missing[0]!r}{nearest(missing[0], found)}; it has {', '.join(found)}")
    return {name: found[name] for name in found if name in names}


def tries(grids: Grids, name: str, only: list[str] | None = None) -> dict[str, list[Settings]]:
    """The settings to try for the variants of a tuned group, for all or for `only` some."""
    tuning = grids.groups[name].tuning
    if tuning is None:
        raise UserError(f"group {name} has no tuning")
    known = variants(grids, name)
    found = tuning.tries if isinstance(tuning.tries, dict) else dict.fromkeys(known, tuning.tries)
    odd = set(found) ^ set(known)
    if odd:
        raise UserError(f"group {name}: variants and tuning.tries differ in {', '.join(sorted(odd))}")
    return _pick(found, only, f"group {name}") if only else found


def experiments(
    grids: Grids, name: str, chosen: dict[str, Settings], only: list[str] | None = None
) -> list[Experiment]:
    """The experiments of a group, seed by seed. chosen: tuned settings by variant (see `Group.chosen`).

    only: the variants wanted, if not all.
    """
    group = grids.groups[name]
    made = []
    for seed in group.seeds:
        for variant, settings in variants(grids, name, only).items():
            for values in product(*group.vary.values()):
                varied = dict(zip(group.vary, values, strict=True))
                own = settings | chosen.get(variant, {}) | varied
                labels = {
                    key: value if isinstance(value, str) else f"{_last(key)}-{value}" for key, value in varied.items()
                }
                label = "-".join(part for part in (variant, *labels.values()) if part) or name
                place = "-".join(part for key, part in labels.items() if _is_of_world(key))
                full = settings_of(grids, group, seed, own)
                made.append(Experiment(f"{name}-{label}-seed{seed}", label, seed, full, own, place))
    return made


def labels(grids: Grids, name: str) -> list[str]:
    """The names that the variants of a group have in its tables, in their order."""
    return list(dict.fromkeys(one.variant for one in experiments(grids, name, {})))


def _last(key: str) -> str:
    return key.partition(".")[2]


def _is_of_world(key: str) -> bool:
    return key.partition(".")[0] in WORLD


def attempts(grids: Grids, name: str, only: list[str] | None = None) -> list[tuple[Settings, Experiment]]:
    """The tries of a tuned group, each with the run of the pipeline that it is."""
    group, known = grids.groups[name], variants(grids, name)
    made = []
    for variant, found in tries(grids, name, only).items():
        for number, settings in enumerate(found, start=1):
            own = known[variant] | settings
            full = settings_of(grids, group, group.tuning.seed, own)
            made.append(
                (settings, Experiment(f"tune-{name}-{variant}-{number}", variant, group.tuning.seed, full, own, ""))
            )
    return made


def settings_of(grids: Grids, group: Group, seed: int, own: Settings) -> Settings:
    """All settings of one run: common ones, those of its world with the seed put in, and its own."""
    world = grids.worlds[group.world]
    return grids.common | world.settings | dict.fromkeys(world.seeded, seed) | own


def check_keys(settings: Settings, params: dict) -> None:
    """Raise UserError for a key that params.yaml does not have."""
    for key in settings:
        block, _, name = key.partition(".")
        if name not in params.get(block, {}):
            hint = nearest(name, params[block]) if block in params else nearest(block, params)
            raise UserError(f"the study sets {key}, which params.yaml does not have{hint}")


def fill(settings: Settings, paths: dict[str, Path | None]) -> Settings:
    """Put local paths in place of {names}. Raises UserError where a path is needed and not given."""

    def put(match: re.Match) -> str:
        if not paths.get(match[1]):
            raise UserError(f"these experiments need the option --{match[1]}")
        return str(paths[match[1]])

    return {
        key: re.sub(r"\{(\w+)\}", put, value) if isinstance(value, str) else value for key, value in settings.items()
    }


def text(settings: Settings) -> str:
    """`key=value key=value`, for tables and to compare settings."""
    return " ".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()
    )


def override(key: str, value: object) -> str:
    """`key=value` as `dvc exp run -S` reads it: text in quotes, so that a path may hold spaces and commas.

    >>> override("identify.source", "/a b")
    "identify.source='/a b'"
    """
    if not isinstance(value, str):
        return f"{key}={json.dumps(value)}"
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{quoted}'"
