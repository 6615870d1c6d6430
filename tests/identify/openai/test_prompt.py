"""The prompt and how replies are read."""

import json

import pytest

from tif.identify.openai import prompt
from tif.identify.openai.locate import Text
from tif.identify.openai.prompt import Reply, Unusable, messages, read_completion, read_reply, without_labels

GOOD = '{"rows": [{"id": 2, "target_words": []}, {"id": 1, "target_words": ["a", "b c"]}]}'


@pytest.mark.parametrize("content", [GOOD, f"```json\n{GOOD}\n```", f"\n```\n{GOOD}\n```\n", f" {GOOD}\n"])
def test_good_replies(content):
    assert read_reply(content, 2) == [["a", "b c"], []]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "words: a, b",
        GOOD[:-3],
        f"Sure! {GOOD}",
        "[]",
        "null",
        '{"rows": null}',
        '{"rows": [1, 2]}',
        '{"rows": [{"id": 1, "target_words": []}]}',  # one row is missing
        '{"rows": [{"id": 1, "target_words": []}, {"id": 1, "target_words": []}]}',
        '{"rows": [{"id": 1, "target_words": []}, {"id": 3, "target_words": []}]}',
        '{"rows": [{"id": true, "target_words": []}, {"id": 2, "target_words": []}]}',
        '{"rows": [{"id": 1, "target_words": "a"}, {"id": 2, "target_words": []}]}',
        '{"rows": [{"id": 1, "target_words": [1]}, {"id": 2, "target_words": []}]}',
        '{"rows": [{"id": 1, "target_words": ["\\ud800"]}, {"id": 2, "target_words": []}]}',  # not text
        "[" * 100_000,
    ],
)
def test_malformed_replies(content):
    with pytest.raises(Unusable, match="malformed"):
        read_reply(content, 2)


def chat(content=GOOD, finish="stop", **message) -> dict:
    return {
        "model": "m",
        "choices": [{"finish_reason": finish, "message": {"content": content, **message}}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7},
    }


def test_what_is_kept_of_a_completion():
    words = [["a", "b c"], []]
    assert read_completion(chat(), 2, False) == Reply(words, None, "m", 5, 7, False)
    for usage in (None, [1], "x", {"prompt_tokens": "5", "completion_tokens": -1}):
        assert read_completion(chat() | {"usage": usage}, 2, True) == Reply(words, None, "m", None, None, True)
    assert [read_completion(chat() | {"model": name}, 2, True).model for name in (1, "m\ud800")] == ["", "m?"]


@pytest.mark.parametrize(
    ("tries", "tokens"), [([], (0, 0)), ([(5, 7), (1, 2)], (6, 9)), ([(5, 7), (1, None)], (6, None))]
)
def test_the_tokens_of_unusable_tries_are_summed_where_known(tries, tokens):
    assert without_labels("refused", tries, True) == Reply([], "refused", "", *tokens, True)


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        (chat(refusal="no"), "refused"),
        (chat(None, "content_filter"), "refused"),
        (chat(GOOD[:-5], "length"), "truncated"),
        (chat(None), "malformed"),
        (chat() | {"choices": []}, "malformed"),
        ({"choices": [None]}, "malformed"),
        ({"error": "x"}, "malformed"),
        ([], "malformed"),
        ("text", "malformed"),
        (None, "malformed"),
    ],
)
def test_unusable_completions(completion, reason):
    with pytest.raises(Unusable, match=reason):
        read_completion(completion, 2, False)


def test_messages_hold_an_example_that_follows_the_rules_and_the_rows_as_json():
    first = messages([('Who\'s "he"?', "Ünlü 小说")])
    assert [message["role"] for message in first] == ["system", "user", "assistant", "user"]
    assert json.loads(first[3]["content"]) == {"rows": [{"id": 1, "question": 'Who\'s "he"?', "answer": "Ünlü 小说"}]}
    (answer,) = [row["answer"] for row in json.loads(first[1]["content"])["rows"]]
    (words,) = read_reply(first[2]["content"], 1)
    assert words and all(Text(answer).locate(word) for word in words)
    second = messages([("q", "a")], ["b"])
    assert [message["role"] for message in second[4:]] == ["assistant", "user"]
    assert read_reply(second[4]["content"], 1) == [["b"]]


def test_the_hash_of_the_prompt_belongs_to_the_version(monkeypatch):
    """Whoever changes the prompt raises `prompt.VERSION` and puts the new hash here."""
    assert (prompt.VERSION, prompt.sha256()[:16]) == ("1", "b4478e371365b14a")
    monkeypatch.setattr(prompt, "INSTRUCTION", prompt.INSTRUCTION + " ")
    assert not prompt.sha256().startswith("b4478e371365b14a")
