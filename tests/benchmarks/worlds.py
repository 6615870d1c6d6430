"""Settings of `fictitious` that its tests start from, and the worlds that they give."""

from functools import cache

from tif.benchmarks.fictitious import Settings, build

DEFAULTS = {
    "seed": 0,
    "people": 25,
    "questions": 20,
    "forget_share": 0.2,
    "holdout": 2,
    "real_authors": 60,
    "world_facts": 60,
    "language": "en",
    "entanglement": 0.0,
}

Rows = list[dict]


def world(**changes) -> dict[str, Rows]:
    """The tables of a world, made once for the same settings; no test may change them."""
    return _made(tuple(sorted(changes.items())))


@cache
def _made(changes: tuple) -> dict[str, Rows]:
    return made_anew(**dict(changes))


def made_anew(**changes) -> dict[str, Rows]:
    """The same, made again."""
    return build(Settings(**DEFAULTS | changes), None)[0]


def gold(row: dict) -> list[str]:
    """The texts of a row's gold spans."""
    return [row["response"][span["start"] : span["end"]] for span in row["gold_spans"]]
