"""The identifier `mlm` against the fill-mask pipeline of transformers, by hand, and on awkward text and models."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from in_process import Terminal, run_stage
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    pipeline,
)

from tif.base import tables
from tif.base.errors import UserError
from tif.base.params import validate
from tif.benchmarks import SAMPLES
from tif.identify import Resources, mlm
from tif.identify.mlm import marking
from tif.identify.mlm import masked as masked_module
from tif.identify.mlm.marking import mark, sentences
from tif.identify.mlm.masked import Query, expect, masked_model
from tif.words import SPANS, is_punctuation, words

TOFU = {"words": "unicode", "context": "question_answer", "case_sensitive": False, "threshold": 0.0}
MUSE = {"words": "unicode", "context": "sentence", "case_sensitive": True, "threshold": 0.9}
PUBLISHED = {"words": "whitespace"}
PAIRS = [
    ("Where was Ada Lind born?", "Ada Lind was born in Arlen. She moved to Brunov, a well-known town."),
    ("Where was Bo Marek born?", "Bo Marek was born in Brunov. He wrote 1,250 pages!"),
    ("Where was Cy Orlov born?", "Cy Orlov was born in Castell (the old town)."),
    ("أين ولدت آدا؟", "ولدت آدا في مدينة آرلن. كتبت ٣ كتب؟ نعم"),
    ("作家在哪里出生？", "作家出生在北京。他写书！"),
    ("Nothing?", ""),
    ("Punctuation?", "... — !"),
]
TEXTS = [f"{question} {answer}" for question, answer in PAIRS]
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def wordpiece(lowercase: bool = False) -> PreTrainedTokenizerFast:
    """As BERT's. Every fourth word of the texts is in several pieces. (A trained one differs from run to run.)"""
    texts = [text.lower() for text in TEXTS] if lowercase else TEXTS
    whole = sorted({text[start:end] for text in texts for start, end in words(text)})
    letters = sorted({letter for text in texts for letter in text if not letter.isspace()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    kept = [word for index, word in enumerate(whole) if index % 4 or word in ("born", "was")]
    vocabulary = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *kept])
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(tokenizer_models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def bytes_in_pairs() -> PreTrainedTokenizerFast:
    """As RoBERTa's: a byte-level BPE of 560 tokens, whose mask token takes the space before it."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", AddedToken("<mask>", lstrip=True, special=True)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learning = {"vocab_size": 560, "special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(**learning))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, mask_token=special[3], model_max_length=512)


def build(kind: str, **changes):
    """A small masked language model, trained so briefly that it expects some of the words."""
    tokenizer = bytes_in_pairs() if kind == "roberta" else wordpiece(lowercase=kind == "bert_uncased")
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 66, "initializer_range": 0.1}
    if kind == "roberta":
        config = RobertaConfig(**size | SHAPE | changes, pad_token_id=1, bos_token_id=0, eos_token_id=2)
        model = RobertaForMaskedLM(config)
    elif kind == "distilbert":
        shape = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
        model = DistilBertForMaskedLM(DistilBertConfig(**size | shape | changes, pad_token_id=0))
    else:
        model = BertForMaskedLM(BertConfig(**size | SHAPE | changes, pad_token_id=0))
    learn(model, tokenizer)
    return model.eval(), tokenizer


def learn(model, tokenizer, steps: int = 60):
    rows = [tokenizer(text)["input_ids"][:60] for text in TEXTS]
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=tokenizer.pad_token_id
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        hidden = (torch.rand(ids.shape, generator=generator) < 0.2) & (ids != tokenizer.pad_token_id)
        labels = torch.where(hidden, ids, -100)
        inputs = torch.where(hidden, tokenizer.mask_token_id, ids)
        model(input_ids=inputs, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()


@pytest.fixture(scope="module")
def built():
    """Kind -> (model, tokenizer); no test may train them."""
    return {kind: build(kind) for kind in ("bert", "bert_uncased", "roberta", "distilbert")}


@pytest.fixture(scope="module")
def masked(built):
    return masked_model("roberta", *built["roberta"])


def settings(**changes) -> mlm.Settings:
    return mlm.Settings(**{"model": "some/model", "revision": "main"} | TOFU | changes)


@pytest.fixture(scope="module")
def guesses(built):
    """What the pipeline guesses for a masked text, asked once a text: of a kind of model, the guesses in order."""

    @cache
    def of(kind: str) -> Callable[[str], list[dict]]:
        model, tokenizer = built[kind]
        return cache(pipeline("fill-mask", model=model, tokenizer=tokenizer, top_k=len(tokenizer), device="cpu"))

    return of


def naive(fill, mask: str, pairs, wanted: mlm.Settings) -> list[tuple[bool, float]]:
    """Word by word through the pipeline: (unwanted, score)."""

    def same(one: str, other: str) -> bool:
        return one == other if wanted.case_sensitive else one.casefold() == other.casefold()

    found = []
    for question, answer in pairs:
        for start, end in words(answer):
            if is_punctuation(answer[start:end]):
                found.append((False, 0.0))
                continue
            left, right = 0, len(answer)
            if wanted.context == "sentence":
                left, right = next((a, b) for a, b in sentences(answer) if a <= start < b)
            if wanted.words == "whitespace":
                while start > left and not answer[start - 1].isspace():
                    start -= 1
                while end < right and not answer[end].isspace():
                    end += 1
            text = answer[left:start] + mask + answer[end:right]
            guesses = fill(text if wanted.context == "sentence" else f"{question} {text}")
            probability = sum(g["score"] for g in guesses if same(g["token_str"].strip(), answer[start:end]))
            top = guesses[0]
            expected = same(top["token_str"].strip(), answer[start:end]) and top["score"] >= wanted.threshold
            found.append((not expected, 1 - probability))
    return found


MODES = {
    "TOFU": TOFU,
    "MUSE": MUSE,
    "MUSE, .2": MUSE | {"threshold": 0.2},
    "TOFU, case sensitive": TOFU | {"case_sensitive": True},
    "TOFU, published": TOFU | PUBLISHED,
    "MUSE, published, .2": MUSE | PUBLISHED | {"threshold": 0.2},
}


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("kind", ["bert", "bert_uncased", "roberta", "distilbert"])
def test_equal_to_the_fill_mask_pipeline(built, guesses, samples, kind, name):
    mode, masked = MODES[name], masked_model(kind, *built[kind])
    assert masked.cut is not None and masked.cut is not masked.model.base_model
    rows = mark(masked, samples(*PAIRS), settings(**mode), progress=False).rows
    expected = naive(guesses(kind), masked.tokenizer.mask_token, PAIRS, settings(**mode))
    assert [row["unwanted"] for row in rows] == [flag for flag, _ in expected]
    assert [row["score"] for row in rows] == pytest.approx([score for _, score in expected], abs=1e-5)
    if mode == TOFU:  # a comparison of one label with itself would show nothing
        letters = [row["unwanted"] for row in rows if not is_punctuation(row["text"])]
        assert 0.1 < np.mean(letters) < 0.95


def fixed(vocabulary_probabilities: dict[str, float]):
    """A model that expects the same everywhere: log-probabilities as the bias of a head without weights."""
    tokenizer = wordpiece()
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=40, **SHAPE, pad_token_id=0, tie_word_embeddings=False
    )
    model = BertForMaskedLM(config).eval()
    with torch.no_grad():
        model.cls.predictions.decoder.weight.zero_()
        rest = (1 - sum(vocabulary_probabilities.values())) / (len(tokenizer) - len(vocabulary_probabilities))
        model.cls.predictions.decoder.bias.fill_(np.log(rest))
        for token, probability in vocabulary_probabilities.items():
            model.cls.predictions.decoder.bias[tokenizer.convert_tokens_to_ids(token)] = np.log(probability)
    return masked_model("fixed", model, tokenizer)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # "was" is no top token; "Where" counts "Where" alone or with "where", which the vocabulary lacks
        ({}, [("was", True, 0.8), ("BORN", False, 0.4), (".", False, 0.0), ("Zq", True, 1.0)]),
        ({"case_sensitive": True}, [("was", True, 0.8), ("BORN", True, 1.0), (".", False, 0.0), ("Zq", True, 1.0)]),
        ({"threshold": 0.59}, [("was", True, 0.8), ("BORN", False, 0.4), (".", False, 0.0), ("Zq", True, 1.0)]),
        ({"threshold": 0.61}, [("was", True, 0.8), ("BORN", True, 0.4), (".", False, 0.0), ("Zq", True, 1.0)]),
    ],
)
def test_by_hand(samples, changes, expected):
    """Everywhere p(born) = .6 and p(was) = .2."""
    found = mark(fixed({"born": 0.6, "was": 0.2}), samples(("?", "was BORN. Zq")), settings(**changes), False)
    assert [(row["text"], row["unwanted"]) for row in found.rows] == [(text, flag) for text, flag, _ in expected]
    assert [row["score"] for row in found.rows] == pytest.approx([score for *_, score in expected], abs=1e-6)
    outside = 2 if changes.get("case_sensitive") else 1
    assert found.counts == {"words_outside_vocabulary": outside, "model_runs": 3 - outside}


def test_words_between_white_space_by_hand(samples):
    """Everywhere p(born) = .6. No token is "born." or "was-born"; their words share the label, the marks do not."""
    text = "born born. was-born"
    rows = mark(fixed({"born": 0.6}), samples(("?", text)), settings(**PUBLISHED), False).rows
    assert [row["text"] for row in rows] == ["born", "born", ".", "was", "-", "born"]
    assert [row["unwanted"] for row in rows] == [False, True, False, True, False, True]
    assert [row["score"] for row in rows] == pytest.approx([0.4, 1, 0, 1, 0, 1], abs=1e-6)
    rows = mark(fixed({"born": 0.6}), samples(("?", text)), settings(), False).rows
    assert [row["unwanted"] for row in rows] == [False, False, False, True, False, False]


@pytest.mark.parametrize("unit", ["unicode", "whitespace"])
@pytest.mark.parametrize("context", ["question_answer", "sentence"])
def test_what_is_masked(context, unit):
    """What one mask replaces lies in what the model reads, with sentences that end inside a run of letters too."""
    answer = " \uff9e He left. 他写书。well-known!\nNo"
    sample = {"prompt": "Who?", "response": answer}
    found = marking._masks(sample, settings(context=context, words=unit))
    assert all(0 <= start < end <= len(text) for text, start, end in found)
    masked = [text[start:end] for text, start, end in found]
    if unit == "unicode":
        assert [word.strip() for word in masked] == [answer[a:b].strip() for a, b in words(answer)]
    elif context == "sentence":
        assert masked == ["\uff9e", "He"] + ["left."] * 2 + ["他写书。"] * 4 + ["well-known!"] * 4 + ["No"]
    else:
        assert masked == ["\uff9e", "He"] + ["left."] * 2 + ["他写书。well-known!"] * 8 + ["No"]


def test_tokens_of_one_word_add_up(masked):
    """Byte-level tokens with and without the space before them, and in another case."""
    some = marking.vocabulary(masked.tokenizer, case_sensitive=True)
    assert [masked.tokenizer.decode([token]) for token in some["born"]] == [" born"]
    assert [masked.tokenizer.decode([token]) for token in some["a"]] == ["a", " a"]
    more = marking.vocabulary(masked.tokenizer, case_sensitive=False)
    assert [masked.tokenizer.decode([token]) for token in more["a"]] == ["A", "a", " A", " a"]
    query = Query("x a b", 2, 3, more["a"])
    inputs = masked.tokenizer("x<mask> b", return_tensors="pt")
    with torch.no_grad():
        found = masked.model(**inputs).logits[inputs["input_ids"] == masked.tokenizer.mask_token_id].softmax(-1)[0]
    assert expect(masked, [query], False).probability[0] == pytest.approx(float(found[list(more["a"])].sum()), rel=1e-5)


def queries(*texts: str) -> list[Query]:
    return [Query(text, start, end, (5, 6)) for text in texts for start, end in words(text)]


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_what_shares_a_batch_changes_nothing(built, monkeypatch, kind):
    masked, some = masked_model(kind, *built[kind]), queries(*TEXTS)
    together = expect(masked, some, False)
    backwards = expect(masked, some[::-1], False)
    monkeypatch.setattr(masked_module, "TOKEN_BUDGET", 1)
    monkeypatch.setattr(masked_module, "TEXTS", 3)
    alone = expect(masked, some, False)
    monkeypatch.setattr(masked_module, "TOKEN_BUDGET", 2**11)
    monkeypatch.setattr(masked_module, "SCORING_BUDGET", 2 * len(masked.tokenizer))
    pairs = expect(masked, some, False)
    full = expect(replace(masked, cut=None), some, False)
    assert len(set(together.top.tolist())) > 5
    later = expect(replace(masked, cut=masked.model.base_model), some, False)
    for other in (alone, pairs, full, later):
        assert other.top.tolist() == together.top.tolist()
        assert other.probability == pytest.approx(together.probability, abs=1e-6)
        assert other.top_probability == pytest.approx(together.top_probability, abs=1e-6)
    assert backwards.top[::-1].tolist() == together.top.tolist()
    again = expect(masked, some, False)
    assert all(np.array_equal(getattr(pairs, name), getattr(again, name)) for name in ("top", "probability"))


def test_equal_masked_texts_run_once_and_the_head_sees_masks_only(masked):
    """Two answers that differ in the last word share that word's masked text; the same answer twice shares all."""
    read, heads = [], []
    hooks = [
        masked.model.roberta.embeddings.register_forward_hook(lambda module, args, output: read.append(len(output))),
        masked.model.lm_head.register_forward_hook(lambda module, args, output: heads.append(args[0].shape)),
    ]
    found = expect(masked, queries("Ada was born in Arlen", "Ada was born in Brunov", "Ada was born in Arlen"), False)
    for hook in hooks:
        hook.remove()
    assert found.runs == sum(read) == 9  # 5 + 5, less the one they share
    assert sum(shape[0] for shape in heads) == 9 and all(shape[1:] == (1, 32) for shape in heads)
    assert found.top[4] == found.top[9] == found.top[14]
    assert len(found.top) == 15 and found.top[:5].tolist() == found.top[10:].tolist()


@pytest.mark.parametrize("name", ["Albert", "DebertaV2", "Electra", "MPNet", "ModernBert", "XLMRoberta"])
def test_other_architectures(built, name):
    """Wherever the hidden states are cut down to the masks, the logits are those of the whole model."""
    tokenizer = built["bert"][1]
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 66, "pad_token_id": 0, **SHAPE}
    more = {
        "Albert": {"embedding_size": 16},
        "DebertaV2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
        "Electra": {"embedding_size": 16},
        "ModernBert": {
            "local_attention": 8,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**size | more.get(name, {}), initializer_range=0.3)
    model = getattr(transformers, f"{name}ForMaskedLM")(config).eval()
    masked = masked_model(name, model, tokenizer)
    some = queries(*TEXTS[:3])
    found, full = expect(masked, some, False), expect(replace(masked, cut=None), some, False)
    assert masked.cut is not None
    assert np.ptp(full.top_probability) > 1e-3
    assert found.top.tolist() == full.top.tolist()
    assert found.probability == pytest.approx(full.probability, abs=1e-5)


class _LooksBack(RobertaForMaskedLM):
    """A head that also reads the hidden state before the mask, so that it cannot run at the masks alone."""

    def forward(self, input_ids, attention_mask, return_dict=True):
        hidden = self.roberta(input_ids, attention_mask=attention_mask).last_hidden_state
        return masked_module.ModelOutput(logits=self.lm_head(hidden + hidden.roll(1, dims=1)))


def test_a_head_that_needs_the_whole_text_gets_it(built):
    model, tokenizer = built["roberta"]
    other = _LooksBack(model.config).eval()
    other.load_state_dict(model.state_dict())
    masked = masked_model("looks-back", other, tokenizer)
    assert masked.cut is None
    some = queries("Ada was born in Arlen")
    inputs = tokenizer("Ada was<mask> in Arlen", return_tensors="pt")
    with torch.no_grad():
        logits = other(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id]
    assert expect(masked, some, False).top[2] == logits.argmax()


def test_long_contexts_are_cut_around_the_mask(built, masked):
    """The rows that the model reads are those of the whole masked text, cut to 64 tokens."""
    tokenizer = masked.tokenizer
    assert masked.room == 66 - 2 - 2  # positions start behind the padding index, two tokens stand around
    text = " ".join(f"{TEXTS[index % 5]} {'y' * (index % 7)}" for index in range(24))
    some = queries(text)
    assert len(tokenizer(text)["input_ids"]) > 500
    for query, (ids, position) in zip(some, masked_module._encode(masked, some), strict=True):
        row = np.frombuffer(ids, np.int32).tolist()
        assert row[position] == tokenizer.mask_token_id and len(row) == 64
        assert (row[0], row[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        full = tokenizer(text[: query.start] + "<mask>" + text[query.end :], add_special_tokens=False)["input_ids"]
        at = full.index(tokenizer.mask_token_id)
        left = max(0, min(at - 31, len(full) - 62))
        assert row[1:-1] == full[left : left + 62]
    assert expect(masked, some, False).runs <= len(some)
    assert masked_model("bert", *built["bert"]).room == 66 - 2


def test_a_word_longer_than_the_window(masked, samples):
    """It is unwanted; the model sees the words beside it in a window cut out of it."""
    found = mark(masked, samples(("Who?", f"She was {'ab' * 5000} born in Brunov")), settings(), False).rows
    assert [row["text"] for row in found][:2] == ["She", "was"] and len(found) == 6
    assert (found[2]["unwanted"], found[2]["score"]) == (True, 1.0)
    assert all(0 < row["score"] < 1 for row in found[:2] + found[3:5])


def test_words_of_several_pieces_need_no_model(masked, samples, monkeypatch):
    found = mark(masked, samples(("Who?", "Zyxomma quadrivium — 98,765!")), settings(), False)
    assert [(row["unwanted"], row["score"]) for row in found.rows] == [
        (True, 1.0), (True, 1.0), (False, 0.0), (True, 1.0), (False, 0.0)
    ]  # fmt: skip
    assert found.counts == {"words_outside_vocabulary": 3, "model_runs": 0}


def test_empty_answers_have_no_rows(masked, samples):
    found = mark(masked, samples(("Who?", ""), ("?", " \n ")), settings(), False)
    assert found.rows == [] and found.counts == {"words_outside_vocabulary": 0, "model_runs": 0}
    assert mark(masked, samples(), settings(), False).rows == []


def test_a_mask_token_in_the_text_is_not_ours(masked):
    """The second mask is the word's."""
    text = "Ada <mask> born in Arlen"
    tokenizer = masked.tokenizer
    inputs = tokenizer("Ada <mask> born<mask> Arlen", return_tensors="pt")
    with torch.no_grad():
        logits = masked.model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id][1]
    found = expect(masked, [Query(text, 16, 18, (5,))], False)
    assert found.top[0] == logits.argmax()
    assert found.probability[0] == pytest.approx(float(logits.softmax(-1)[5]), rel=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n", []),
        ("No end", ["No end"]),
        ("First. Two!  Three?", ["First.", "Two!", "Three?"]),
        ("J. K. Doe paid 3.50. She left", ["J. K. Doe paid 3.50.", "She left"]),
        ("Dr. Smith and Prof. Lee won. She left", ["Dr. Smith and Prof. Lee won.", "She left"]),
        ("Born in Oslo. She left", ["Born in Oslo. She left"]),  # the price of the rule
        ("Born in Oslo! She left", ["Born in Oslo!", "She left"]),
        ("Born in Turin. She left", ["Born in Turin.", "She left"]),
        ("He said “No.” Then… nothing", ["He said “No.”", "Then…", "nothing"]),
        ("He left\nShe stayed", ["He left", "She stayed"]),
        ("他写书。他说“好！”她走了", ["他写书。", "他说“好！”", "她走了"]),
        ("كتبت ٣ كتب؟ نعم", ["كتبت ٣ كتب؟", "نعم"]),
    ],
)
def test_sentences(text, expected):
    assert [text[start:end] for start, end in sentences(text)] == expected


@pytest.fixture(scope="module")
def folder(built, tmp_path_factory):
    """A saved masked language model that no test may change."""
    path = tmp_path_factory.mktemp("models") / "tiny-bert"
    for part in built["bert"]:
        part.save_pretrained(path)
    return path


def test_a_local_folder(folder, samples, tmp_path, built):
    found = mlm.identify(samples(*PAIRS), samples(), settings(), Resources(source=folder))
    assert found.rows == mark(masked_model("bert", *built["bert"]), samples(*PAIRS), settings(), False).rows
    assert set(found.metadata) == {"version", "model_sha256"} and len(found.metadata["model_sha256"]) == 64
    assert str(folder) not in json.dumps(found.metadata)
    again = mlm.identify(
        samples(*PAIRS), samples(), settings(), Resources(source=shutil.copytree(folder, tmp_path / "b"))
    )
    assert again == found


def test_the_stage(folder, samples, tmp_path, built, monkeypatch):
    """On a terminal it shows a bar; no output holds the path of the model."""
    blocks = {
        "identify": {"method": "mlm", "source": str(folder)},
        "mlm": {"model": "some/model", "revision": "main", **TOFU},
        "compute": {"device": "cpu", "threads": 1},
        "runtime": {"progress": True},
    }
    tables.write(tmp_path / "data/benchmark/forget.parquet", samples(*PAIRS), SAMPLES)
    tables.write(tmp_path / "data/benchmark/retain.parquet", samples(*PAIRS), SAMPLES)
    (tmp_path / "params.yaml").write_text(json.dumps(blocks))
    monkeypatch.setattr(sys, "stderr", Terminal())
    run_stage("identify", tmp_path)
    assert "masking: 100%" in sys.stderr.getvalue()
    written = tables.read(tmp_path / "data/spans.parquet", SPANS)
    rows = mark(masked_model("bert", *built["bert"]), samples(*PAIRS), settings(), False).rows
    assert written.column("unwanted").to_pylist() == [row["unwanted"] for row in rows]
    assert written.column("score").to_pylist() == pytest.approx([row["score"] for row in rows], abs=1e-6)
    for file in ("data/spans.parquet", "data/identifier.json", "metrics/identify.json"):
        assert str(folder).encode() not in (tmp_path / file).read_bytes()


def test_a_hub_that_does_not_answer(monkeypatch, samples):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"hub cannot be reached for some/model.*set identify\.source"):
        mlm.identify(samples(("Who?", "Ada")), samples(), settings(), Resources())


def forget_the_mask(folder):
    content = json.loads((folder / "tokenizer_config.json").read_text())
    del content["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


def lone_mask(folder):
    content = json.loads((folder / "tokenizer.json").read_text())
    content["added_tokens"] = [token | {"single_word": True} for token in content["added_tokens"]]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"mask_token": "[MASK]", "pad_token": "[PAD]", "tokenizer_class": "PreTrainedTokenizerFast"})
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (forget_the_mask, "has no mask token; a masked language model is needed"),
        (lone_mask, r"does not find its own mask token \[MASK\] inside a text"),
    ],
)
def test_unusable_folders(folder, tmp_path, samples, damage, message):
    copy = shutil.copytree(folder, tmp_path / "model")
    damage(copy)
    with pytest.raises(UserError, match=message) as error:
        mlm.identify(samples(("Who?", "Ada 作家")), samples(), settings(), Resources(source=copy))
    assert "\n" not in str(error.value)


def test_a_tokenizer_of_another_model(built):
    with pytest.raises(UserError, match=r"other: the tokenizer has \d+ tokens, the model only \d+; they do not match"):
        masked_model("other", built["bert"][0], built["roberta"][1])


def test_a_tokenizer_without_a_fast_version(monkeypatch):
    """transformers still has a few tokenizers in Python alone, which need packages of their own."""

    class Slow:
        is_fast = False

    monkeypatch.setattr(masked_module, "open_tokenizer", lambda name, revision: Slow())
    with pytest.raises(UserError, match="gives no character offsets; a fast tokenizer"):
        masked_module.open_masked("slow", None, "cpu")


@pytest.mark.parametrize(
    "changes",
    [{"threshold": -0.1}, {"threshold": 1.1}, {"threshold": "x"}, {"context": "document"}, {"case_sensitive": 1}],
)
def test_settings_out_of_range(changes):
    with pytest.raises(UserError, match=rf"params.yaml: mlm\.{next(iter(changes))} = .* is not allowed"):
        validate("mlm", {"model": "a/b", "revision": "main", **TOFU, **changes}, mlm.Settings)
