"""What tests of unlearning share: settings, spans in which the towns are unwanted, and the data to unlearn from."""

import pyarrow as pa

from tif.lm.models import LanguageModel
from tif.methods import tpo
from tif.reference.table import reference_rows
from tif.unlearning.examples import Data, forget_examples
from tif.unlearning.settings import Settings
from tif.words import SPANS, span_rows

TPO = tpo.Settings(beta=0.2, lambda_=0.05, retain=0.0)
STEP = {"micro_batch": 2, "weight_decay": 0.01, "warmup": 0.1, "max_grad_norm": 1.0, "seed": 0}


def settings(**changes) -> Settings:
    """The block `unlearn`: three epochs of one step, unless `changes` says otherwise."""
    values = STEP | {"epochs": 3, "batch": 4, "lr": 1e-3, "method": "tpo", "trajectory_retain": 2}
    return Settings(**values | changes)


def towns(forget: pa.Table) -> pa.Table:
    """Spans of every word; the last word before the full stop, a town, is unwanted."""
    rows = []
    for sample_id, text in zip(forget["sample_id"].to_pylist(), forget["response"].to_pylist(), strict=True):
        rows += span_rows(sample_id, text, [(text.rindex(" ") + 1, len(text) - 1)])
    return pa.Table.from_pylist(rows, schema=SPANS)


def data_of(language_model: LanguageModel, forget: pa.Table, retain: pa.Table, spans: pa.Table | None = None) -> Data:
    """Samples with the reference values of this model. spans: those of `towns` unless given."""
    reference = reference_rows(language_model, forget, progress=False)
    examples = forget_examples(language_model, forget, towns(forget) if spans is None else spans, reference)
    return Data(examples, forget, retain, reference)
