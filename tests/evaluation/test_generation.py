"""Greedy answers against decoding one question at a time without padding, cache or batches."""

import pytest
import torch

from tif.evaluation.generation import generate

QUESTIONS = ["Where?", "Where was Ada Lind born, and in which town does she live now?", "Who?", "日本?", "", "Where?"]


@torch.no_grad()
def naive(language_model, question, new_tokens):
    """Token ids of the answer: append the arg max until end of sequence."""
    ids = language_model.form.prompt_ids(language_model.tokenizer, question)
    start = len(ids)
    while len(ids) < start + new_tokens:
        ids.append(int(language_model.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == language_model.tokenizer.eos_token_id:
            return ids[start:-1]
    return ids[start:]


def prefer_end(language_model, strength):
    """Turn the head's row of the end-of-sequence token towards where hidden states point after a few tokens."""
    model, eos = language_model.model, language_model.tokenizer.eos_token_id
    ids = language_model.form.prompt_ids(language_model.tokenizer, QUESTIONS[0])
    with torch.no_grad():
        for _ in range(3):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        hidden = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        model.lm_head.weight[eos] = strength * hidden / hidden.norm()
    return language_model


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_decoding_one_at_a_time(tiny, seed):
    """Whatever shares a batch."""
    language_model = tiny(seed)
    decode = language_model.tokenizer.decode
    expected = [decode(naive(language_model, question, 12)).strip() for question in QUESTIONS]
    assert len(set(expected)) > 1 and all(expected)
    for batch in (1, 2, 6, 50):
        assert generate(language_model, QUESTIONS, 12, batch, progress=False) == expected


def test_stops_at_the_end_of_sequence(tiny):
    """Some answers end early; the padding after them and the end token itself are not part of the text."""
    language_model = prefer_end(tiny(3, tie_word_embeddings=False), 8.0)
    expected = [naive(language_model, question, 20) for question in QUESTIONS]
    assert len(expected[0]) < 20
    for batch in (1, 6):
        found = generate(language_model, QUESTIONS, 20, batch, progress=False)
        assert found == [language_model.tokenizer.decode(ids).strip() for ids in expected]
        assert not any("<|end|>" in text for text in found)


def test_new_tokens_bounds_the_answer(language_model):
    short, long = (generate(language_model, QUESTIONS, n, 6, progress=False) for n in (3, 9))
    tokens = language_model.tokenizer
    expected = [tokens.decode(naive(language_model, question, 3)).strip() for question in QUESTIONS]
    assert short == expected
    assert all(len(b) >= len(a) for a, b in zip(short, long, strict=True))


def test_no_questions(language_model):
    assert generate(language_model, [], 5, 4, progress=False) == []
