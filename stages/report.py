"""Report: one HTML page from the measures and answers of the three models."""

from pathlib import Path

from tif.base.stage import run


def main() -> None:
    """Write metrics/report.html."""
    from tif.report.build import build

    build(Path())


if __name__ == "__main__":
    run(main)
