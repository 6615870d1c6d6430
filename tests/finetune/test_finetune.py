"""Tokenizer and model from scratch, and models that are only referred to: on the hub or in a local folder."""

import json
import shutil
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
import torch

from tif.base import params
from tif.base.errors import UserError
from tif.finetune import Settings
from tif.finetune.published import refer
from tif.finetune.scratch import from_scratch, train_tokenizer
from tif.lm import models
from tif.lm.batches import encode_pairs
from tif.scores.tokens import score

SCRATCH = {
    "kind": "scratch",
    "prompt": "plain",
    "vocabulary": 320,
    "layers": 2,
    "width": 32,
    "heads": 2,
    "epochs": 2,
    "batch": 4,
    "micro_batch": 4,
    "lr": 0.01,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "max_grad_norm": 1.0,
    "seed": 0,
}
PUBLISHED = {
    "kind": "published",
    "prompt": "plain",
    "date": "",
    "dtype": "float32",
    "attention": "sdpa",
    "target": "someone/target",
    "retain": {"forget01": "someone/retain99", "forget10": "someone/retain90"},
    "revisions": {"someone/retain90": "v2"},
}
SHA = "0123456789abcdef0123456789abcdef01234567"
AWKWARD = [
    "",
    " ",
    "\x00\x01\n\t",
    "日本で生まれた 👩‍🔬🇯🇵",
    "e\u0301 ﬁ",
    " two  spaces ",
    "Question: <|end",
    "\u2028\ud7ff\U0010ffff",
]


@pytest.fixture(scope="module")
def tables(table, facts):
    return table("full", facts), table("world_facts", [("Capital of Arlen?", "Brunov."), ("River?", "The Lind.")])


def scratch(path, tables, **changes):
    full, utility = tables
    settings = params.validate("scratch", SCRATCH | changes, Settings).root
    from_scratch(path, settings, [full, utility], [full, utility], "cpu", False)
    return path


def contents(path):
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


@pytest.mark.parametrize("text", AWKWARD)
def test_any_text_round_trips(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id is None


def test_tokenizer_is_deterministic_and_of_the_given_size(facts):
    texts = [text for pair in facts for text in pair]
    one, two = (train_tokenizer(texts, 330).backend_tokenizer.to_str() for _ in range(2))
    assert one == two
    assert train_tokenizer(texts, 330).vocab_size == 330
    assert train_tokenizer([], 300).vocab_size == 257  # 256 bytes and end of sequence


def test_from_scratch_learns_its_rows(tables, tmp_path):
    """60 epochs over ten short answers: nearly memorised."""
    loaded = models.load(scratch(tmp_path / "target", tables, epochs=60, batch=10, micro_batch=10), None, "cpu")
    pairs = list(zip(*(tables[0][name].to_pylist() for name in ("sample_id", "prompt", "response")), strict=True))
    loss = score(loaded, encode_pairs(loaded, pairs), progress=False).loss()
    assert loss.max() < 0.3
    assert loaded.card == models.Card(prompt="plain", date="", dtype="float32", attention="sdpa")
    config = loaded.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 32, 96)  # 85.3 -> 96
    assert (
        loaded.model.get_output_embeddings().weight.data_ptr() == loaded.model.get_input_embeddings().weight.data_ptr()
    )


def test_same_seed_same_bytes_other_seed_other_weights(tables, tmp_path):
    one = contents(scratch(tmp_path / "one", tables))
    torch.manual_seed(99)
    two = contents(scratch(tmp_path / "elsewhere" / "two", tables))
    other = contents(scratch(tmp_path / "other", tables, seed=1))
    assert one == two
    assert [name for name in one if one[name] != other[name]] == ["model.safetensors"]


def test_target_and_retain_share_a_tokenizer(tables, tmp_path):
    """The corpus decides the tokens, the rows only the weights."""
    settings = params.validate("scratch", SCRATCH | {"epochs": 1}, Settings).root
    full, utility = tables
    for name, rows in (("target", full), ("retain", full.slice(0, 4))):
        from_scratch(tmp_path / name, settings, [full, utility], [rows, utility], "cpu", False)
    target, retain = contents(tmp_path / "target"), contents(tmp_path / "retain")
    assert target["tokenizer.json"] == retain["tokenizer.json"]
    assert target["model.safetensors"] != retain["model.safetensors"]


@pytest.mark.parametrize(("width", "heads"), [(32, 3), (18, 6)])
def test_width_must_be_an_even_multiple_of_heads(tables, tmp_path, width, heads):
    with pytest.raises(UserError, match=rf"scratch\.heads = {heads} is not allowed: width \({width}\) must be an even"):
        scratch(tmp_path / "target", tables, width=width, heads=heads)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("block", "values", "message"),
    [
        ("scratch", {"widht": 64}, r"unknown key scratch\.widht; did you mean 'width'\?; known keys: .*heads"),
        ("scratch", {"width": 3}, r"scratch\.width = 3 is not allowed: .*greater than or equal to 16"),
        ("scratch", {"layers": "two"}, r"scratch\.layers = 'two' is not allowed"),
        ("scratch", {"prompt": "chat"}, r"scratch\.prompt = 'chat' is not allowed"),
        (
            "scratch",
            {"kind": "scrach"},
            r"scratch\.kind = 'scrach' is unknown; did you mean 'scratch'\?; known: scratch",
        ),
        ("scratch", {"kind": None}, r"scratch\.kind is missing; known: scratch, published"),
        ("llama", {"attention": "fast"}, r"llama\.attention = 'fast' is not allowed"),
        ("llama", {"retain": {"forget01": 3}}, r"llama\.retain\.forget01 = 3 is not allowed"),
        ("llama", {"targett": "x"}, r"unknown key llama\.targett; did you mean 'target'\?"),
    ],
)
def test_a_bad_model_block(block, values, message):
    """The message names the key as it stands in params.yaml, without the kind that pydantic puts in between."""
    content = {key: v for key, v in ((SCRATCH if block == "scratch" else PUBLISHED) | values).items() if v is not None}
    with pytest.raises(UserError, match=f"^params.yaml: {message}") as error:
        params.validate(block, content, Settings)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


class Hub(BaseHTTPRequestHandler):
    """A hub that holds someone/target at main and someone/retain90 at v2."""

    def do_GET(self):
        known = {"/api/models/someone/target/revision/main", "/api/models/someone/retain90/revision/v2"}
        found = self.path.split("?")[0] in known
        body = json.dumps({"id": "someone/model", "sha": SHA} if found else {"error": "not found"}).encode()
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def settings(**changes):
    return params.validate("llama", PUBLISHED | changes, Settings).root


@pytest.mark.parametrize(("role", "repository"), [("target", "someone/target"), ("retain", "someone/retain90")])
def test_a_hub_model_is_recorded_with_its_commit(hub, tmp_path, role, repository):
    path = tmp_path / role
    refer(path, "llama", settings(), role, "forget10", None)
    card = json.loads((path / "tif.json").read_text())
    assert (card["repository"], card["revision"], card["local"]) == (repository, SHA, None)
    assert (card["prompt"], card["dtype"], card["attention"]) == ("plain", "float32", "sdpa")
    assert [file.name for file in path.iterdir()] == ["tif.json"]


def test_a_model_that_the_hub_does_not_have(hub, tmp_path):
    with pytest.raises(UserError, match=r"hub model someone/lost at revision main was not found"):
        refer(tmp_path / "target", "llama", settings(target="someone/lost"), "target", "", None)
    with pytest.raises(UserError, match=r"hub model no such name at revision main was not found"):
        refer(tmp_path / "target", "llama", settings(target="no such name"), "target", "", None)
    assert list(tmp_path.iterdir()) == []


def test_a_split_without_retain_model(tmp_path):
    with pytest.raises(
        UserError, match=r"llama\.retain has no model for the forget split 'forget05'.*forget01, forget10"
    ):
        refer(tmp_path / "retain", "llama", settings(), "retain", "forget05", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://nowhere.invalid"])
def test_no_network(tmp_path, monkeypatch, endpoint):
    """A closed port and a name that does not resolve; told within seconds, with what to do instead."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    begin = time.monotonic()
    with pytest.raises(
        UserError, match=r"hub cannot be reached for someone/target.*model\.name=scratch.*model\.source"
    ):
        refer(tmp_path / "target", "llama", settings(), "target", "", None)
    assert time.monotonic() - begin < 10
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def source(language_model, tmp_path):
    """A local folder that holds the target and one retain model."""
    for name in ("target", "retain90"):
        models.save(tmp_path / "source" / name, language_model)
    return tmp_path / "source"


@pytest.mark.parametrize(("role", "name"), [("target", "target"), ("retain", "retain90")])
def test_a_local_source_needs_no_hub(source, tmp_path, role, name):
    path = tmp_path / "made" / role
    refer(path, "llama", settings(), role, "forget10", source)
    card = json.loads((path / "tif.json").read_text())
    assert (card["local"], card["repository"], card["revision"]) == (name, None, None)
    assert str(tmp_path) not in (path / "tif.json").read_text()
    assert models.load(path, source, "cpu").model.config.hidden_size == 32


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, r"source/target does not exist; see model\.source"),
        (lambda f: (f / "model.safetensors").unlink(), "has no safetensors weights"),
        (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
        (lambda f: (f / "config.json").write_text("{"), "no (tokenizer|usable safetensors weights) in"),
        (lambda f: (f / "model.safetensors").write_bytes(b"short"), "no usable safetensors weights"),
    ],
)
def test_a_broken_local_model_fails_here_and_not_stages_later(source, tmp_path, damage, message):
    damage(source / "target")
    with pytest.raises(UserError, match=message):
        refer(tmp_path / "made", "llama", settings(), "target", "", source)
    assert not (tmp_path / "made").exists()
