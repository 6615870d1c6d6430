"""params.yaml: YAML 1.2, typed blocks, and messages that name the key, the value and the nearest valid name."""

import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from tif.base import params
from tif.base.errors import UserError
from tif.base.params import Block


class Tpo(Block):
    """A block such as a method's."""

    beta: float = Field(gt=0)
    lambda_: float = Field(ge=0, alias="lambda")
    epochs: int = Field(ge=1)
    kind: Literal["sample", "batch"]


GOOD = "tpo:\n  beta: 0.2\n  lambda: 0.05\n  epochs: 3\n  kind: sample\n"


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> Path:
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "params.yaml"

    return write


def test_a_good_block(written):
    block = params.read("tpo", Tpo, written(GOOD))
    assert (block.beta, block.lambda_, block.epochs, block.kind) == (0.2, 0.05, 3, "sample")
    with pytest.raises(ValueError, match="frozen"):
        block.beta = 1.0


@pytest.mark.parametrize("text", ["2e-05", "2e-5", "2.0E-5", "0.00002"])
def test_every_way_to_write_a_small_number_is_a_number(written, text):
    assert params.read("tpo", Tpo, written(GOOD.replace("0.2", text))).beta == 2e-5


def test_a_whole_number_is_a_float_where_one_is_expected(written):
    assert params.read("tpo", Tpo, written(GOOD.replace("0.2", "1"))).beta == 1.0


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        ("beta:", "betta:", ["unknown key tpo.betta", "did you mean 'beta'?", "beta, lambda, epochs, kind"]),
        ("lambda:", "lamda:", ["unknown key tpo.lamda", "did you mean 'lambda'?", "tpo.lambda is missing"]),
        ("  kind: sample\n", "", ["tpo.kind is missing"]),
        ("beta: 0.2", "beta: 0", ["tpo.beta = 0 is not allowed", "greater than 0"]),
        ("beta: 0.2", "beta: '0.2'", ["tpo.beta = '0.2' is not allowed", "valid number"]),
        ("beta: 0.2", "beta: true", ["tpo.beta = True is not allowed"]),
        ("lambda: 0.05", "lambda: -1", ["tpo.lambda = -1 is not allowed", "greater than or equal to 0"]),
        ("epochs: 3", "epochs: 0", ["tpo.epochs = 0 is not allowed", "greater than or equal to 1"]),
        ("epochs: 3", "epochs: 1.5", ["tpo.epochs = 1.5 is not allowed", "integer"]),
        ("kind: sample", "kind: row", ["tpo.kind = 'row' is not allowed", "'sample' or 'batch'"]),
        ("tpo:", "tpoo:", ["has no block 'tpo'", "did you mean 'tpoo'?"]),
    ],
)
def test_a_bad_block(written, old, new, messages):
    with pytest.raises(UserError) as error:
        params.read("tpo", Tpo, written(GOOD.replace(old, new)))
    assert [message for message in messages if message not in str(error.value)] == []
    assert "\n" not in str(error.value)


def test_all_faults_of_a_block_are_told_at_once(written):
    with pytest.raises(UserError, match=r"tpo\.beta.*; .*tpo\.epochs"):
        params.read("tpo", Tpo, written(GOOD.replace("0.2", "-1").replace("3", "0")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tpo: [", "is not valid YAML"),
        ("tpo: {beta: 1}\ntpo: {beta: 2}\n", "is not valid YAML"),
        ("just text", "must hold named blocks, not str"),
        ("", "must hold named blocks, not NoneType"),
        ("tpo: 3\n", "tpo = 3 is not allowed"),
    ],
)
def test_a_file_without_blocks(written, text, message):
    with pytest.raises(UserError, match=message):
        params.read("tpo", Tpo, written(text))


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="is missing; run stages from the root"):
        params.read_all(tmp_path / "params.yaml")


def test_choose_imports_one_module_by_its_name():
    assert params.choose("identify", "gold", "identify.method").__name__ == "tif.identify.gold"


@pytest.mark.parametrize("name", ["golf", "__init__", "gold.py", "", "../params"])
def test_choose_knows_only_what_is_there(name):
    with pytest.raises(
        UserError, match=r"identify\.method = .* is unknown.*known: all, distilled, file, frequency, gold, mlm, "
    ):
        params.choose("identify", name, "identify.method")


def test_choose_proposes_the_nearest():
    with pytest.raises(UserError, match=r"did you mean 'frequency'\?"):
        params.choose("identify", "frequncy", "identify.method")


def test_local_source(tmp_path):
    assert params.local_source("data/none", "benchmark.source") is None
    assert params.local_source(str(tmp_path), "benchmark.source") == tmp_path
    with pytest.raises(UserError, match=r"benchmark\.source = '.*absent': nothing is there"):
        params.local_source(str(tmp_path / "absent"), "benchmark.source")


def test_names_of_blocks_have_no_dots(written):
    with pytest.raises(UserError, match=r"benchmark\.name = 'a\.b' is not allowed"):
        params.read("benchmark", params.BenchmarkChoice, written("benchmark: {name: a.b, source: data/none}"))


@pytest.mark.parametrize(
    ("progress", "terminal", "shown"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_progress_bars_are_for_terminals(monkeypatch, progress, terminal, shown):
    """A log of `dvc repro > log` would hold every state of every bar."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert params.Runtime(progress=progress).shown == shown
