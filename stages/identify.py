"""Stage identify: which words of the forget answers are unwanted.

`--estimate` prints what the paid identifier would ask for, and its price, and writes nothing.
"""

import argparse
import json
from pathlib import Path

from tif.base import params, tables
from tif.base.errors import UserError
from tif.base.stage import run
from tif.benchmarks import SAMPLES
from tif.identify import Resources
from tif.words import SPANS, check_rows

FORGET = Path("data/benchmark/forget.parquet")
RETAIN = Path("data/benchmark/retain.parquet")
OUT = Path("data/spans.parquet")
SUMMARY = Path("metrics/identify.json")
RECORD = Path("data/identifier.json")


def main() -> None:
    """Write data/spans.parquet, data/identifier.json and metrics/identify.json; with --estimate print only."""
    from tif.identify.summary import responses, summary

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--estimate", action="store_true", help="print rows, requests, tokens and cost; request nothing"
    )
    estimate = parser.parse_args().estimate
    choice = params.read("identify", params.IdentifyChoice)
    identifier = params.choose("identify", choice.method, "identify.method")
    settings = params.read(choice.method, identifier.Settings)
    resources = Resources(
        source=params.local_source(choice.source, "identify.source"),
        compute=params.read("compute", params.Compute),
        progress=params.read("runtime", params.Runtime).shown,
    )
    forget, retain = tables.read(FORGET, SAMPLES), tables.read(RETAIN, SAMPLES)
    if estimate:
        if not hasattr(identifier, "estimate"):
            raise UserError(f"--estimate: identify.method = {choice.method} costs nothing; only openai has a price")
        print(identifier.estimate(forget, settings))
        return
    found = identifier.identify(forget, retain, settings, resources)
    check_rows(found.rows, responses(forget), f"identify.method = {choice.method}")
    settings_json = settings.model_dump(by_alias=True, mode="json")
    metadata = {"identifier": choice.method, **found.metadata, "settings": json.dumps(settings_json)}
    record = {"identifier": choice.method, **found.metadata, "settings": settings_json, **found.record}
    metrics = {"method": choice.method, **summary(forget, found.rows, found.copied), **found.counts}
    tables.write(OUT, found.rows, SPANS, metadata)
    tables.write_text(RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    tables.write_text(SUMMARY, json.dumps(metrics, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
