"""Tables joined to marked tokens, tables that do not belong together, and hidden states of the target model."""

import pyarrow as pa
import pytest
import torch
from forgetting import data_of, towns

from tif.base.errors import UserError
from tif.unlearning.examples import forget_examples, scored_words, with_hidden
from tif.words import SPANS


@pytest.fixture(scope="module")
def spans(forget):
    return towns(forget)


@pytest.fixture(scope="module")
def data(language_model, forget, retain):
    return data_of(language_model, forget, retain)


@pytest.fixture(scope="module")
def reference(data):
    return data.reference


@pytest.fixture(scope="module")
def examples(data):
    return data.examples


def test_the_unwanted_tokens_spell_the_unwanted_word(examples, forget, reference, facts):
    """Joined per sample: the marked tokens are those of the town (`Arlen` or ` Arlen`), with their reference logits."""
    logits = reference["logit"].to_pylist()
    for example, (_, answer) in zip(examples, facts[:4], strict=True):
        marked = [offset for offset, flag in zip(example.offsets, example.unwanted.tolist(), strict=True) if flag]
        assert "".join(answer[a:b] for a, b in marked).strip(" .") == answer.split()[-1].strip(".")
        assert not example.unwanted[-1], "end of sequence is a general token"
        assert example.forget
        assert example.reference_logit.tolist() == pytest.approx(logits[: len(example.offsets)])
        logits = logits[len(example.offsets) :]
    assert [example.sample_id for example in examples] == forget["sample_id"].to_pylist()


def replaced(spans, **changes):
    row = spans.to_pylist()[0] | changes
    return pa.Table.from_pylist([row, *spans.to_pylist()[1:]], schema=SPANS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_id": "forget/9999"}, "forget/9999 is not a sample of the forget set"),
        ({"end": 1000}, r"\[0, 1000\) lies outside the answer of 27 characters"),
        ({"start": -1}, r"\[-1, \d+\) lies outside"),
        ({"start": 5, "end": 4}, r"\[5, 4\) lies outside"),
    ],
)
@pytest.mark.parametrize("unwanted", [True, False])
def test_spans_of_something_else(forget, spans, changes, message, unwanted):
    with pytest.raises(UserError, match=message):
        scored_words(forget, replaced(spans, unwanted=unwanted, **changes))


def test_a_missing_word(forget, spans):
    """Otherwise an incomplete table would count as general words."""
    first = forget["sample_id"][0].as_py()
    count = spans["sample_id"].to_pylist().count(first)
    with pytest.raises(UserError, match=r"data/spans\.parquet.*is not the next word of the answer"):
        scored_words(forget, spans.slice(count))
    with pytest.raises(UserError, match=r"the word \[\d+, \d+\) of .* has no row"):
        scored_words(forget, spans.slice(0, len(spans) - 1))


def test_an_empty_forget_set(language_model, forget, spans, reference):
    with pytest.raises(UserError, match="no rows: there is nothing to forget"):
        forget_examples(language_model, forget.slice(0, 0), spans, reference)


@pytest.mark.parametrize("column", ["sample_id", "position", "token_id"])
def test_a_reference_of_another_forget_set_or_tokenizer(language_model, forget, spans, reference, column):
    values = reference[column].to_pylist()
    values[3] = "forget/0009" if column == "sample_id" else values[3] + 1
    place = reference.column_names.index(column)
    other = reference.set_column(place, column, pa.array(values))
    with pytest.raises(UserError, match=f"column '{column}' does not match the forget set"):
        forget_examples(language_model, forget, spans, other)
    with pytest.raises(UserError, match="does not match the forget set"):
        forget_examples(language_model, forget, spans, reference.slice(0, 20))


def test_hidden_states_equal_a_forward_pass_of_each_sample(language_model, examples):
    """Of the last layer and of the first; whatever else an example has, it keeps."""
    for layer in (None, 1):
        found = with_hidden(language_model, examples, layer)
        for example, before in zip(found, examples, strict=True):
            with torch.no_grad():
                states = language_model.model(input_ids=example.ids[None], output_hidden_states=True).hidden_states
            expected = states[-1 if layer is None else layer][0, example.start - 1 : -1]
            torch.testing.assert_close(example.reference_hidden, expected, rtol=1e-4, atol=1e-5)
            assert example.refusal is before.refusal and torch.equal(example.unwanted, before.unwanted)
    assert with_hidden(language_model, [], None) == []
