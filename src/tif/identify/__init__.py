"""Identifiers: which words of the forget answers are unwanted. One file each, imported by the name in params.yaml.

Every module here has a block type `Settings` and one function, whose docstring says how it decides:

    identify(forget, retain, settings, resources) -> Found

forget, retain: the two sets (`tif.benchmarks.SAMPLES`). settings: the module's block. Bad input raises UserError.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tif.base.params import Compute


@dataclass(frozen=True)
class Resources:
    """What an identifier may use beside the samples and its own block.

    source: the local folder or file of `identify.source`, or None. compute: device and threads of a model.
    progress: whether to show a progress bar.
    """

    source: Path | None = None
    compute: Compute = field(default_factory=lambda: Compute(device="cpu", threads=1))
    progress: bool = False


@dataclass(frozen=True)
class Found:
    """The answer of an identifier.

    rows: of `tif.words.SPANS`, every word of every forget answer in order. metadata: what identifies the annotation
    (version, model, prompt hash, ...), for the schema metadata of the spans table. counts: further numbers for
    metrics/identify.json. record: what a person may want to look up, or a fitted model, as JSON values, for
    data/identifier.json. copied: samples whose labels are those that the identifier learned from, so that agreement on
    them says nothing. The same input gives the same five.
    """

    rows: list[dict]
    metadata: dict[str, str]
    counts: dict[str, int | float] = field(default_factory=dict)
    record: dict = field(default_factory=dict)
    copied: frozenset[str] = frozenset()
