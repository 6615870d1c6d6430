"""Stage report: metrics.json, plots and the HTML page from the evaluations of the three models."""

from pathlib import Path

from tif.errors import run
from tif.report.build import build


def main() -> None:
    build(Path())


if __name__ == "__main__":
    run(main)
