"""Switching the identifier in a real pipeline: what runs again, what is watched, and what a server is asked."""

import json
import os
import re
import shutil

import pyarrow.parquet as pq
import pytest
from chat_server import ChatServer
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from tif.base import tables
from tif.base.params import NO_SOURCE
from tif.words import SPANS, span_rows

ONCE = ({"check", "identify", "unlearn", "evaluate@unlearned", "measure", "report"}, set())


@pytest.fixture
def masked(tmp_path):
    """A folder with a tiny random BERT that knows a few words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "was", "is", "in", "of", "and", "born", *".,?'"]
    (tmp_path / "vocabulary").write_text("\n".join(words))
    pieces = BertWordPieceTokenizer(str(tmp_path / "vocabulary"), lowercase=True)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    folder = tmp_path / "masked model"
    BertForMaskedLM(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, **names).save_pretrained(folder)
    return folder


@pytest.fixture
def annotation(tmp_path, clone):
    """The gold spans of the retain people, but for one, as a spans table."""
    retain = pq.read_table(clone.folder / "data/benchmark/retain.parquet").to_pylist()
    people = sorted({sample["group"] for sample in retain})
    rows = [
        row
        for sample in retain
        if sample["group"] != people[0]
        for row in span_rows(
            sample["sample_id"], sample["response"], [(span["start"], span["end"]) for span in sample["gold_spans"]]
        )
    ]
    path = tmp_path / "annotation.parquet"
    tables.write(path, rows, SPANS)
    return path


@pytest.fixture
def server(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OPENAI_") or name == "TIF_WORK"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-no-real-key")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = ChatServer()
    yield made
    made.close()


@pytest.fixture
def settings(clone):
    """The clone, whose settings are put back afterwards."""
    before = (clone.folder / "params.yaml").read_bytes()
    yield clone
    (clone.folder / "params.yaml").write_bytes(before)
    clone.repro()


@pytest.mark.slow
def test_each_identifier_reruns_identify_and_what_follows(settings, masked, annotation, server):
    """Once in full; then identify alone, and DVC's word on which stages its new outputs leave out of date."""

    def choose(name: str, source=NO_SOURCE, **block) -> None:
        settings.change(**{"identify.method": name, "identify.source": str(source)})
        settings.change(**{f"{name}.{key}": value for key, value in block.items()})

    def identified() -> bool:
        """Whether `dvc repro identify` runs that stage, and nothing else but the check."""
        output = settings.run("dvc", "repro", "identify").stdout
        executed = set(re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE)) - {"check"}
        assert executed in (set(), {"identify"})
        return bool(executed)

    def method() -> str:
        return pq.read_schema(settings.folder / "data/spans.parquet").metadata[b"identifier"].decode()

    def outdated() -> set[str]:
        return set(json.loads(settings.run("dvc", "status", "--json").stdout))

    choose("distilled", annotation=str(annotation), trees=5)
    assert settings.repro() == ONCE and method() == "distilled"
    tables.write(annotation, tables.read(annotation, SPANS), SPANS, {"note": "another byte"})
    assert identified()
    labelled = pq.read_table(settings.folder / "data/spans.parquet")
    model = shutil.copy(settings.folder / "data/identifier.json", annotation.with_name("model.json"))
    choose("distilled", annotation=str(model))
    assert identified()
    assert pq.read_table(settings.folder / "data/spans.parquet").equals(labelled)  # nobody to forget was labelled

    choose("mlm", masked)
    assert identified() and method() == "mlm" and outdated() == {"unlearn", "report"}
    config = masked / "config.json"
    config.write_text(config.read_text() + "\n")
    assert identified()

    choose("surprisal", "data/models/retain")
    assert identified() and method() == "surprisal" and outdated() == {"unlearn", "report"}

    choose("openai", base_url=server.url)
    assert identified() and method() == "openai" and outdated() == {"unlearn", "report"}
    asked = len(server.bodies)
    rows = pq.read_metadata(settings.folder / "data/benchmark/forget.parquet").num_rows
    assert asked == rows and not settings.run("git", "status", "--porcelain", ".dvc").stdout
    settings.change(**{"openai.prices": {"prompt": 9.0, "completion": 9.0, "batch": 1.0}})
    assert identified() and len(server.bodies) == asked
    assert json.loads((settings.folder / "metrics/identify.json").read_text())["cost_usd"] > 0
