"""TOFU (Maini et al., arXiv 2401.06121): questions and answers about 200 invented authors, 20 consecutive rows each.

The files are JSON lines with the names that the hub repository `locuslab/TOFU` gives them, read with the `datasets`
library from a snapshot of that repository or from a local folder. Nothing is repaired: files that are damaged or do
not fit together are errors.
"""

import glob
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field

from tif.base.errors import UserError, disk_is_full
from tif.base.params import Block
from tif.benchmarks import questions, unseen

ROWS_PER_AUTHOR = 20
HUB_TIMEOUT = 10  # seconds
FORM = "question"
SETS = {
    "forget": questions("forget", "Forget set"),
    "retain": questions("retain", "Retain set"),
    "holdout": unseen("Holdout set"),
    "real_authors": questions("utility", "Real authors"),
    "world_facts": questions("utility", "World facts"),
}
UTILITY_SETS = tuple(name for name, about in SETS.items() if about.role == "utility")
_PLAIN = ("question", "answer")
_PARAPHRASED = (*_PLAIN, "paraphrased_question", "paraphrased_answer")


class Settings(Block):
    """The block `tofu`: the forget split, and where on the hub the files are."""

    forget: Literal["forget01", "forget05", "forget10"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(min_length=1)


def build(settings: Settings, source: Path | None) -> tuple[dict[str, list[dict]], dict]:
    """The tables of samples, and the facts for the card.

    settings: the block `tofu`. source: a local folder with the files, or None for the hub.
    Returns (tables, card). tables: `full`, `forget`, `retain`, `real_authors`, `world_facts` and, where the files have
    it, `holdout`, each a list of rows of `SAMPLES` in the order of the file; gold spans are not known. card: `name`,
    `source` (repository, or the last part of the local folder's path), `revision` (the resolved commit, None for a
    folder), and `absent`.
    Raises UserError naming the file when one is missing, damaged or does not fit the others, and when the hub cannot
    be reached.
    """
    share = settings.forget[-2:]
    forget_name, retain_name, holdout = settings.forget, f"retain{100 - int(share):02d}", f"holdout{share}.json"
    files = {
        "full": ("full.json", _PLAIN, False),
        "forget": (f"{forget_name}.json", _PLAIN, False),
        "retain": (f"{retain_name}.json", _PLAIN, False),
        "forget_perturbed": (f"{forget_name}_perturbed.json", _PARAPHRASED, True),
        "retain_perturbed": ("retain_perturbed.json", _PARAPHRASED, True),
        **{name: (f"{name}_perturbed.json", _PLAIN, True) for name in UTILITY_SETS},
    }
    if source is None:
        folder = _snapshot(settings, [name for name, _, _ in files.values()], [holdout])
        card = {"name": "tofu", "source": settings.repository, "revision": folder.name}
    else:
        folder = source
        if not folder.is_dir():
            raise UserError(f"benchmark.source = '{source}' is a file; tofu needs the folder that holds full.json")
        card = {"name": "tofu", "source": folder.resolve().name, "revision": None}
    rows = {table: _load(folder / name, columns, wrong) for table, (name, columns, wrong) in files.items()}
    _check_fit(rows, {table: name for table, (name, _, _) in files.items()}, folder)

    author: dict[tuple, str] = {}
    for index, row in enumerate(rows["full"]):
        author.setdefault(_key(row), f"author_{index // ROWS_PER_AUTHOR:03d}")
    perturbed = {_key(row): row for table in ("forget_perturbed", "retain_perturbed") for row in rows[table]}
    tables = {}
    for table, split in (("full", "full"), ("forget", forget_name), ("retain", retain_name)):
        extra = {} if table == "full" else perturbed
        tables[table] = [
            _sample(table, split, author[_key(row)], index, extra.get(_key(row), row))
            for index, row in enumerate(rows[table])
        ]
    for table in UTILITY_SETS:
        tables[table] = [_sample(table, table, table, index, row) for index, row in enumerate(rows[table])]
    strange, reason = _holdout(folder / holdout, author)
    if reason:
        return tables, {**card, "absent": {"holdout": reason}}
    people = [f"stranger_{index // ROWS_PER_AUTHOR:03d}" for index in range(len(strange))]
    split = holdout.removesuffix(".json")
    tables["holdout"] = [_sample("holdout", split, people[index], index, row) for index, row in enumerate(strange)]
    return tables, card


def _holdout(path: Path, known: dict[tuple, str]) -> tuple[list[dict], str | None]:
    """Rows about authors that no model has seen, or why there are none. known: the rows of full."""
    if not path.exists():
        return [], f"there is no {path.name}"
    rows = _load(path, _PLAIN, False)
    if any(_key(row) in known for row in rows):
        return [], f"{path.name} repeats rows of full.json, which the target model has seen"
    return rows, None


def _snapshot(settings: Settings, names: list[str], optional: list[str]) -> Path:
    """The hub's files in the hub's cache, in a folder called like the resolved commit; a given commit may come from
    the cache alone."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import disable_progress_bars

    repository, revision = settings.repository, settings.revision
    disable_progress_bars()
    try:
        if not re.fullmatch("[0-9a-f]{40}", revision):
            # Asked for on its own because snapshot_download would wait for a silent server without end.
            revision = HfApi().dataset_info(repository, revision=revision, timeout=HUB_TIMEOUT).sha
        wanted = [*names, *optional]
        return Path(snapshot_download(repository, repo_type="dataset", revision=revision, allow_patterns=wanted))
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise UserError(
            f"benchmark tofu: the hub has no dataset {repository} at revision '{revision}', or it is not public"
            f" ({type(error).__name__}); correct tofu.repository or tofu.revision"
        ) from error
    except (LocalEntryNotFoundError, HTTPError, OfflineModeIsEnabled) as error:
        raise UserError(
            f"benchmark tofu: {repository} cannot be fetched from the hub ({type(error).__name__}). Without a network"
            f" set benchmark.source to a local folder that holds {', '.join(names)}, or benchmark.name to fictitious"
        ) from error


def _load(path: Path, columns: tuple[str, ...], wrong: bool) -> list[dict]:
    """The rows of one file, each with text in every one of `columns` and, if `wrong`, with wrong answers."""
    _check_lines(path)
    import datasets  # late, because it takes long to import
    from datasets.exceptions import DatasetGenerationError

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    # from_json, because load_dataset calls the hub even for a local file; and a cache of its own, because a lasting one
    # could return an older state of the file.
    with tempfile.TemporaryDirectory() as cache:
        try:
            rows = datasets.Dataset.from_json(glob.escape(str(path.resolve())), cache_dir=cache).to_list()
        except DatasetGenerationError as error:
            if disk_is_full(error.__cause__):
                raise error.__cause__ from None
            raise UserError(f"{path} cannot be read as a table ({error.__cause__}); fetch it again") from error
    for column in (*columns, *(("perturbed_answer",) if wrong else ())):
        if column not in rows[0]:
            raise UserError(f"{path}: column '{column}' is missing; use the files of locuslab/TOFU unchanged")
    for number, row in enumerate(rows, start=1):
        for column in columns:
            if not isinstance(row[column], str) or not row[column].strip():
                raise UserError(f"{path}: row {number}: '{column}' holds no text, but {row[column]!r}")
        answers = row["perturbed_answer"] if wrong else ["-"]
        if not isinstance(answers, list) or not answers:
            raise UserError(
                f"{path}: row {number} has no wrong answer in 'perturbed_answer'; the truth ratio needs one"
            )
        if any(not isinstance(answer, str) or not answer.strip() for answer in answers):
            raise UserError(f"{path}: row {number}: 'perturbed_answer' holds an answer without text: {answers!r}")
    return rows


def _check_lines(path: Path) -> None:
    """Raise UserError unless every line is a JSON object: `datasets` does not say which line is not, and its parser
    can crash the interpreter on JSON that is not an object."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; tofu needs this file of locuslab/TOFU under this name") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise UserError(f"{path} is not a text file of JSON lines") from None
    if not any(line.strip() for line in lines):
        raise UserError(f"{path} is empty; fetch it again")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else None
            if line.strip() and not (isinstance(row, dict) and row):
                raise UserError(f"{path}: line {number} is not a JSON object with the columns of a row")
        except ValueError as error:
            raise UserError(
                f"{path}: line {number} is not JSON ({error}); the file is truncated or damaged, fetch it again"
            ) from None


def _check_fit(rows: dict[str, list[dict]], names: dict[str, str], folder: Path) -> None:
    """Raise UserError unless forget and retain make up full, and the perturbed files belong to their splits."""
    keys = {table: Counter(map(_key, table_rows)) for table, table_rows in rows.items()}
    whole = keys["forget"] + keys["retain"]
    for missing, where, other in (
        (keys["full"] - whole, "full", f"neither in {names['forget']} nor in {names['retain']}"),
        (whole - keys["full"], "full", f"missing here, but are in {names['forget']} or {names['retain']}"),
        (keys["forget"] - keys["forget_perturbed"], "forget", f"not in {names['forget_perturbed']}"),
        (keys["forget_perturbed"] - keys["forget"], "forget_perturbed", f"not in {names['forget']}"),
        (keys["retain_perturbed"] - keys["retain"], "retain_perturbed", f"not in {names['retain']}"),
    ):
        if missing:
            question = next(iter(missing))[0]
            raise UserError(
                f"{folder / names[where]}: {missing.total()} rows are {other}, the first: {question!r};"
                " use files of one revision of locuslab/TOFU"
            )


def _key(row: dict) -> tuple[str, str]:
    return row["question"], row["answer"]


def _sample(table: str, split: str, group: str, index: int, row: dict) -> dict:
    return {
        "sample_id": f"{table}/{index:04d}",
        "split": split,
        "group": group,
        "prompt": row["question"],
        "response": row["answer"],
        "paraphrased_prompt": row.get("paraphrased_question"),
        "paraphrased_response": row.get("paraphrased_answer"),
        "perturbed_responses": row.get("perturbed_answer"),
        "gold_spans": None,
    }
