"""Metrics: pure functions from arrays to numbers, one file a family, and the `Measure` of each beside its function.

None of them needs a model or a GPU: they read the tables that evaluation has written. A new one is a file here, and its
name in the `SETS` of the benchmarks that it applies to.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from tif.base.tables import column

if TYPE_CHECKING:
    import numpy as np

    from tif.metrics.scored import Scored

MODELS = ("target", "retain", "unlearned")
NO_ATTACK = "none"  # in the column attack of the measures table

_KEY = pa.dictionary(pa.int32(), pa.string())

MEASURES = pa.schema(
    [
        column("sample_id", _KEY, "key of the sample"),
        column("model", _KEY, "target, retain or unlearned"),
        column("attack", _KEY, "what was done to the model before, or none"),
        column("measure", _KEY, "name of the measure"),
        column("value", pa.float64(), "its value"),
    ]
)


@dataclass(frozen=True)
class Measure:
    """A number of every sample of a set, and how those of a set become one.

    name: in tables. title: for readers. sets: roles of the sets that it can be taken on. reads: what it needs of a
    sample beside the response: wrong (answers), text (the model's own answer). values: [n] of the n samples of a set.
    aggregate: (values [n], role of the set) -> one number. better: which way is better on a set to be kept; on the
    forget set the best is what the retain model has. says: what it is, in a sentence. most: its greatest value.
    """

    name: str
    title: str
    sets: tuple[str, ...]
    values: "Callable[[Scored], np.ndarray]"
    aggregate: "Callable[[np.ndarray, str], float]"
    better: Literal["higher", "lower"]
    says: str
    reads: tuple[Literal["wrong", "text"], ...] = ()
    most: float = 1.0


def mean(values: "np.ndarray", role: str) -> float:
    """The aggregate of most measures."""
    return float(values.mean())


def known_measures() -> dict[str, Measure]:
    """All measures by name: those in `FAMILY` of the files of this package."""
    files = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return {measure.name: measure for file in files for measure in getattr(file, "FAMILY", ())}


_FUNCTIONS = {
    "truth_ratio": "tif.scores.truth_ratio",
    "aggregate_truth_ratio_forget": "tif.scores.truth_ratio",
    "aggregate_truth_ratio_other": "tif.scores.truth_ratio",
    "normalized_probability": "tif.metrics.probability",
    "forget_quality": "tif.metrics.quality",
    "ForgetQuality": "tif.metrics.quality",
    "model_utility": "tif.metrics.utility",
    "extraction_strength": "tif.metrics.memorization",
    "exact_memorization": "tif.metrics.memorization",
    "rouge_recall": "tif.metrics.rouge",
}


def __getattr__(name: str) -> object:
    """The functions by one name each, whatever file they are in, imported when they are asked for."""
    if name not in _FUNCTIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FUNCTIONS[name]), name)
