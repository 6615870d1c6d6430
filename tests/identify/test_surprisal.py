"""The identifier `surprisal` against the model's own logits, by hand, and on awkward text and models."""

import json
import shutil
import sys
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
from in_process import Terminal, run_stage
from transformers import GPTJConfig, GPTJForCausalLM

from tif.base import tables
from tif.base.errors import UserError
from tif.base.params import validate
from tif.benchmarks import SAMPLES
from tif.identify import Resources, surprisal
from tif.identify.surprisal.marking import mark, surprise, windows
from tif.lm import models
from tif.lm.batches import encode
from tif.lm.models import LanguageModel
from tif.scores import passes, tokens
from tif.words import SPANS, is_punctuation, words

PAIRS = [
    ("Where was Ada Lind born?", "Ada Lind was born in Arlen, a well-known town (1,250 people)."),
    ("أين ولدت آدا؟", "ولدت آدا في مدينة آرلن."),
    ("作家在哪里出生？", "作家出生在北京。"),
    ("Nothing?", ""),
    ("Punctuation?", "... — !"),
    ("Long?", "Bo Marek was born in Brunov. " * 3),
]


def settings(**changes) -> surprisal.Settings:
    block = {"model": "a/b", "revision": "main", "dtype": "float32", "measure": "probability", "threshold": 0.01}
    return surprisal.Settings(**block | changes)


@torch.no_grad()
def naive(language_model, question: str, answer: str) -> list[tuple[int, float]]:
    """(rank, probability) of every word, from one forward pass over the whole sample with all logits."""
    example = encode(language_model.tokenizer, language_model.form, "x", question, answer)
    logits = language_model.model(input_ids=example.ids[None]).logits[0].double()
    found = []
    for start, end in words(answer):
        ranks, probability = [], 1.0
        for index, (left, right) in enumerate(example.offsets):
            if any(left <= position < right for position in range(start, end)):
                row, label = logits[example.start + index - 1], example.ids[example.start + index]
                ranks.append(1 + sum(value > row[label] for value in row).item())
                probability *= row.softmax(-1)[label].item()
        found.append((max(ranks), probability))
    return found


@pytest.mark.parametrize(("measure", "threshold"), [("rank", 60.5), ("probability", 1e-4)])
def test_equal_to_the_models_own_logits(language_model, samples, measure, threshold):
    rows = mark(language_model, samples(*PAIRS), settings(measure=measure, threshold=threshold), progress=False)
    expected = [values for question, answer in PAIRS for values in naive(language_model, question, answer)]
    assert len(rows) == len(expected) > 50
    flags = []
    for row, (rank, probability) in zip(rows, expected, strict=True):
        if is_punctuation(row["text"]):
            assert (row["unwanted"], row["score"]) == (False, 0.0)
            continue
        assert row["unwanted"] == (rank > threshold if measure == "rank" else probability < threshold)
        assert row["score"] == pytest.approx(1 - (1 / rank if measure == "rank" else probability), abs=1e-5)
        flags.append(row["unwanted"])
    assert 0.1 < np.mean(flags) < 0.95


def fixed(tokenizer, **probabilities: float) -> LanguageModel:
    """A model that expects the same everywhere: log-probabilities as the bias of a head without weights."""
    size = {"vocab_size": len(tokenizer), "n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 8, "n_positions": 64}
    model = GPTJForCausalLM(GPTJConfig(**size, bos_token_id=0, eos_token_id=0)).eval()
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias.fill_(np.log((1 - sum(probabilities.values())) / (len(tokenizer) - len(probabilities))))
        for token, probability in probabilities.items():
            model.lm_head.bias[tokenizer.convert_tokens_to_ids(token)] = np.log(probability)
    return LanguageModel(model, tokenizer, models.Card(prompt="plain", date="", dtype="float32", attention="sdpa"))


@pytest.mark.parametrize(
    ("measure", "threshold", "unwanted", "scores"),
    [
        ("probability", 0.09, [False, False, False, False], [0.5, 0.8, 0.9, 0]),
        ("probability", 0.19, [False, False, True, False], [0.5, 0.8, 0.9, 0]),
        ("probability", 0.21, [False, True, True, False], [0.5, 0.8, 0.9, 0]),
        ("rank", 2, [False, False, False, False], [0, 0.5, 0.5, 0]),
        ("rank", 1, [False, True, True, False], [0, 0.5, 0.5, 0]),
    ],
)
def test_by_hand(tokenizer, samples, measure, threshold, unwanted, scores):
    """Everywhere p(x) = .5, the likeliest, and p(y) = .2. "xy" is two tokens: .1, worst rank 2. A comma is general."""
    model = fixed(tokenizer, x=0.5, y=0.2)
    assert [tokenizer.tokenize(text) for text in ("\ny", "xy,")] == [["Ċ", "y"], ["x", "y", ","]]
    rows = mark(model, samples(("?", "\nx\ny\nxy,")), settings(measure=measure, threshold=threshold), False)
    assert [row["text"] for row in rows] == ["x", "y", "xy", ","]
    assert [row["unwanted"] for row in rows] == unwanted
    assert [row["score"] for row in rows] == pytest.approx(scores, abs=1e-6)


def encoded(language_model, pairs=PAIRS):
    return [encode(language_model.tokenizer, language_model.form, "x", *pair) for pair in pairs]


def test_what_shares_a_batch_changes_nothing(language_model, monkeypatch):
    examples = encoded(language_model)
    together = surprise(language_model, examples, False)
    monkeypatch.setattr(passes, "TOKEN_BUDGET", 1)
    monkeypatch.setattr(tokens, "SCORING_BUDGET", 1)
    alone = surprise(language_model, examples[::-1], False)[::-1]
    for (rank, logprob), (other_rank, other_logprob) in zip(together, alone, strict=True):
        assert rank.tolist() == other_rank.tolist()
        assert logprob == pytest.approx(other_logprob, abs=1e-5)


def test_the_head_sees_answer_tokens_only(language_model):
    seen = []
    hook = language_model.model.lm_head.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    examples = encoded(language_model)
    surprise(language_model, examples, False)
    hook.remove()
    assert sum(seen) == sum(len(example.ids) - example.start for example in examples)


@torch.no_grad()
def test_long_answers_go_through_in_windows(tiny):
    """Each answer token is scored once, given at least half a window, or all that stands before it."""
    model = tiny(max_position_embeddings=40)
    (example,) = encoded(model, [("Where was Bo Marek born?", "Bo Marek was born in Brunov. " * 8)])
    parts = windows(example, 40)
    assert len(parts) > 3 and all(len(part.ids) <= 40 for part in parts)
    assert torch.equal(torch.cat([part.ids[part.start :] for part in parts]), example.ids[example.start :])
    assert parts[0].start == example.start and all(part.start == 20 for part in parts[1:])
    ((rank, logprob),) = surprise(model, [example], False)
    at = 0
    for part in parts:
        logits = model.model(input_ids=part.ids[None]).logits[0]
        for position in range(part.start, len(part.ids)):
            row, label = logits[position - 1], part.ids[position]
            assert rank[at] == 1 + (row > row[label]).sum()
            assert logprob[at] == pytest.approx(row.log_softmax(-1)[label].item(), abs=1e-5)
            at += 1
    assert at == len(rank)
    assert windows(example, len(example.ids))[0].ids.tolist() == example.ids.tolist()


def test_a_prompt_longer_than_the_model(tiny, samples):
    model = tiny(max_position_embeddings=40)
    rows = mark(model, samples(("Where? " * 60, "In Brunov.")), settings(), False)
    assert [row["text"] for row in rows] == ["In", "Brunov", "."]


def test_empty_answers_have_no_rows(language_model, samples):
    assert mark(language_model, samples(("?", ""), ("?", " \n ")), settings(), False) == []
    assert mark(language_model, samples(), settings(), False) == []


@pytest.fixture(scope="module")
def folder(language_model, tmp_path_factory):
    """A saved model that no test may change; a model folder of this pipeline is one."""
    path = tmp_path_factory.mktemp("models") / "retain"
    models.save(path, language_model)
    return path


def test_a_local_folder(folder, language_model, samples, tmp_path):
    found = surprisal.identify(samples(*PAIRS), samples(), settings(), Resources(source=folder))
    assert found.rows == mark(language_model, samples(*PAIRS), settings(), False)
    assert set(found.metadata) == {"version", "model_sha256"} and len(found.metadata["model_sha256"]) == 64
    elsewhere = Resources(source=shutil.copytree(folder, tmp_path / "elsewhere"))
    assert surprisal.identify(samples(*PAIRS), samples(), settings(), elsewhere) == found


def test_the_stage(folder, samples, tmp_path, monkeypatch):
    """On a terminal it shows a bar; no output holds the path of the model."""
    blocks = {
        "identify": {"method": "surprisal", "source": str(folder)},
        "surprisal": settings().model_dump(),
        "compute": {"device": "cpu", "threads": 1},
        "runtime": {"progress": True},
    }
    tables.write(tmp_path / "data/benchmark/forget.parquet", samples(*PAIRS), SAMPLES)
    tables.write(tmp_path / "data/benchmark/retain.parquet", samples(*PAIRS), SAMPLES)
    (tmp_path / "params.yaml").write_text(json.dumps(blocks))
    monkeypatch.setattr(sys, "stderr", Terminal())
    run_stage("identify", tmp_path)
    assert "surprisal: 100%" in sys.stderr.getvalue()
    rows = surprisal.identify(samples(*PAIRS), samples(), settings(), Resources(source=folder)).rows
    written = tables.read(tmp_path / "data/spans.parquet", SPANS)
    assert written.column("unwanted").to_pylist() == [row["unwanted"] for row in rows]
    assert written.column("score").to_pylist() == pytest.approx([row["score"] for row in rows], abs=1e-6)
    for file in ("data/spans.parquet", "data/identifier.json", "metrics/identify.json"):
        assert str(folder).encode() not in (tmp_path / file).read_bytes()


def test_the_card_of_a_model_folder_counts(folder, language_model, samples, tmp_path):
    """Its prompt and dtype, not the plain prompt and the dtype of the block."""
    copy = shutil.copytree(folder, tmp_path / "chat")
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    (copy / "chat_template.jinja").write_text(template)
    models.write_card(copy, replace(language_model.card, prompt="chat", date="10 Apr 2025", dtype="bfloat16"))
    found = surprisal.identify(samples(*PAIRS), samples(), settings(), Resources(source=copy))
    chat = models.load(copy, None, "cpu")
    assert (chat.card.prompt, chat.model.dtype) == ("chat", torch.bfloat16)
    assert found.rows == mark(chat, samples(*PAIRS), settings(), False)
    plain = surprisal.identify(samples(*PAIRS), samples(), settings(), Resources(source=folder))
    assert found.rows != plain.rows and found.metadata != plain.metadata


def test_a_folder_that_refers_to_a_hub_model(folder, language_model, samples, tmp_path, monkeypatch):
    """It holds tif.json alone; the weights come from that commit."""
    card = replace(language_model.card, repository="someone/retain", revision="0" * 40)
    models.write_card(tmp_path, card)
    opened = []
    real = models.open_model

    def open_model(name, revision, card, device):
        opened.append((name, revision))
        return replace(real(str(folder), None, card, device), card=card)

    monkeypatch.setattr(models, "open_model", open_model)
    found = surprisal.identify(samples(*PAIRS), samples(), settings(), Resources(source=tmp_path))
    assert opened == [("someone/retain", "0" * 40)]
    assert found.rows == mark(language_model, samples(*PAIRS), settings(), False)
    assert (found.metadata["model"], found.metadata["revision"]) == opened[0]


def test_a_folder_that_refers_to_another_one(language_model, samples, tmp_path):
    models.write_card(tmp_path, replace(language_model.card, local="retain90"))
    with pytest.raises(UserError, match=r"made from model\.source.*identify\.source is read, name the folder retain90"):
        surprisal.identify(samples(*PAIRS), samples(), settings(), Resources(source=tmp_path))


def test_a_folder_without_a_card_has_the_plain_prompt_and_the_blocks_dtype(folder, samples, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "other")
    (copy / "tif.json").unlink()
    found = surprisal.identify(samples(*PAIRS), samples(), settings(), Resources(source=copy))
    assert found.rows == surprisal.identify(samples(*PAIRS), samples(), settings(), Resources(source=folder)).rows
    coarse = surprisal.identify(samples(*PAIRS), samples(), settings(dtype="bfloat16"), Resources(source=copy))
    assert coarse.rows != found.rows


def test_a_hub_that_does_not_answer(monkeypatch, samples):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hub cannot be reached for a/b.*set identify\.source"):
        surprisal.identify(samples(("Who?", "Ada")), samples(), settings(), Resources())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": -1}, "threshold"),
        ({"measure": "rank", "threshold": 0.5}, "threshold"),
        ({"measure": "loss"}, "measure"),
        ({"dtype": "int8"}, "dtype"),
        ({"threshold": float("nan")}, "threshold"),
    ],
)
def test_settings_out_of_range(changes, key):
    with pytest.raises(UserError, match=rf"params\.yaml: surprisal\.{key} = .* is not allowed") as error:
        validate("surprisal", settings().model_dump() | changes, surprisal.Settings)
    assert str(error.value).count("is not allowed") == 1
