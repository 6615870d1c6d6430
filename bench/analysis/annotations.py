"""Where the rows of identifiers.py come from: identifiers that are run, and annotations that exist already."""

import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tif.base import params, tables
from tif.base.errors import UserError
from tif.identify import Resources
from tif.identify import file as annotation_file
from tif.words import SPANS, check_rows


@dataclass(frozen=True)
class Annotation:
    """The rows of one identifier or file. seconds, cost: None where not known. details: how it was made.

    copied: samples that it was fitted on.
    """

    name: str
    rows: list[dict]
    seconds: float | None
    cost: float | None
    details: dict
    copied: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Setup:
    """The benchmark, all of params.yaml with the changes of `--set`, and the local source of each identifier."""

    benchmark: str
    forget: pa.Table
    retain: pa.Table
    blocks: dict
    sources: dict[str, Path]

    @property
    def responses(self) -> dict[str, str]:
        """sample_id -> answer."""
        return dict(zip(self.forget["sample_id"].to_pylist(), self.forget["response"].to_pylist(), strict=True))


def check_known(name: str, option: str) -> None:
    """Raise UserError for a name that is no identifier."""
    known = params.known_names("identify")
    if name not in known:
        hint = params.nearest(name, known)
        raise UserError(f"{option}: there is no identifier '{name}'{hint}; known: {', '.join(known)}")


def needs_asking(setup: Setup, name: str) -> str | None:
    """Why an identifier does not run unless it is named, or None."""
    module = params.choose("identify", name, "--identifier")
    if hasattr(module, "estimate"):
        return f"It costs money, so it runs only with --identifier {name}."
    if "model" in module.Settings.model_fields and name not in setup.sources:
        return f"It reads a language model: give a local one with --source {name}=PATH, or add --identifier {name}."
    return None


def identified(setup: Setup, name: str) -> Annotation:
    """Run one identifier. Raises UserError for what it lacks."""
    module = params.choose("identify", name, "--identifier")
    if name not in setup.blocks:
        raise UserError(f"params.yaml has no block '{name}'")
    settings = params.validate(name, setup.blocks[name], module.Settings)
    resources = Resources(
        source=setup.sources.get(name),
        compute=params.validate("compute", setup.blocks.get("compute"), params.Compute),
        progress=params.validate("runtime", setup.blocks.get("runtime"), params.Runtime).shown,
    )
    begin = time.perf_counter()
    found = module.identify(setup.forget, setup.retain, settings, resources)
    seconds = time.perf_counter() - begin
    check_rows(found.rows, setup.responses, f"identifier {name}")
    details = {**found.metadata, "settings": settings.model_dump(by_alias=True, mode="json")}
    return Annotation(name, found.rows, seconds, float(found.counts.get("cost_usd", 0.0)), details, found.copied)


def annotation(setup: Setup, spec: str, option: str) -> Annotation:
    """Read an annotation given as [NAME=]PATH[:FIELD]. Raises UserError."""
    name, separator, rest = spec.partition("=")
    if not separator:
        name, rest = "", spec
    path, _, field = rest.rpartition(":")
    if field not in ("target_words", "not_common_words"):
        path, field = rest, "target_words"
    source = Path(path).expanduser()
    if not source.is_file():
        raise UserError(f"{option} {spec}: {path} is no file; give [NAME=]PATH or [NAME=]PATH:not_common_words")
    name = name or source.stem
    if source.suffix == ".parquet":
        rows = tables.read(source, SPANS).to_pylist()
        check_rows(rows, setup.responses, str(source))
        return Annotation(name, rows, None, None, {})
    settings = annotation_file.Settings(unwanted=field, punctuation=False)
    found = annotation_file.identify(setup.forget, setup.retain, settings, Resources(source))
    return Annotation(name, found.rows, None, None, {**found.metadata, "settings": settings.model_dump()})
