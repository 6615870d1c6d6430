"""Prompts, offsets, padding and micro-batches: what a batch looks like must change neither losses nor gradients."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tif.base.errors import UserError
from tif.lm.batches import collate, encode, micro_batches, token_budget
from tif.lm.logits import answer_tokens
from tif.lm.prompts import PromptFormat
from tif.methods import tpo

TEMPLATE = (
    "Today is {{ date_string }}.\n{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
AWKWARD = [
    "Ada was born in Arlen.",
    "",
    " ",
    "  two spaces before and after  ",
    "\nline\n\nbreaks\t",
    "日本で生まれた。",
    "né à Orléans — naïve",
    "e\u0301 a\u0302\u0323 combining",
    "👩‍🔬🇯🇵 and 👍🏽!",
    "मुंबई में",
    "x" * 200,
]


@pytest.fixture(scope="module")
def chat_tokenizer(tokenizer):
    copy = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token)
    copy.chat_template = TEMPLATE
    return copy


@pytest.fixture(scope="module")
def examples(tokenizer, plain, facts):
    """Eight examples: six to forget, of which one has no UW and one no GW; two to retain. All lengths differ."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for index, (question, answer) in enumerate(facts):
        example = encode(tokenizer, plain, f"forget/{index:04d}", question, answer + " Yes." * index)
        size = len(example.offsets)
        if index < 6:
            unwanted = torch.rand(size, generator=generator) < {0: -1, 1: 2}.get(index, 0.5)
            example = replace(
                example, forget=True, unwanted=unwanted, reference_logit=torch.randn(size, generator=generator)
            )
        made.append(example)
    return made


@pytest.mark.parametrize("answer", AWKWARD)
@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_an_example_is_prompt_answer_and_end(chat_tokenizer, kind, answer):
    form = PromptFormat(kind, "1 May 2024")
    example = encode(chat_tokenizer, form, "forget/0000", "Where? 日", answer)
    prompt, rest = example.ids[: example.start].tolist(), example.ids[example.start : -1].tolist()
    assert prompt == form.prompt_ids(chat_tokenizer, "Where? 日")
    assert chat_tokenizer.decode(rest) == form.before_answer + answer
    assert example.ids[-1] == chat_tokenizer.eos_token_id
    assert len(example.offsets) == len(example.ids) - example.start
    assert example.offsets[-1] == (len(answer), len(answer))


@pytest.mark.parametrize("answer", AWKWARD)
@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_offsets_lie_inside_the_answer_in_order_and_cover_it(chat_tokenizer, kind, answer):
    offsets = encode(chat_tokenizer, PromptFormat(kind, ""), "forget/0000", "Where?", answer).offsets
    assert all(0 <= start <= end <= len(answer) for start, end in offsets)
    assert offsets == sorted(offsets)
    assert set().union(*(range(*offset) for offset in offsets)) == set(range(len(answer)))


def test_each_offset_is_the_text_of_its_token(tokenizer, plain):
    """On ASCII text a byte-level token is its characters, apart from the space that the first one begins with."""
    answer = "Ada Lind was born in Arlen, they say."
    example = encode(tokenizer, plain, "forget/0000", "Where?", answer)
    tokens = [tokenizer.decode([token]) for token in example.ids[example.start : -1].tolist()]
    texts = [answer[start:end] for start, end in example.offsets[:-1]]
    assert "".join(texts) == answer
    assert [tokens[0].removeprefix(" "), *tokens[1:]] == texts


def test_the_plain_prompt_and_the_first_word_with_its_space(tokenizer, plain):
    """The answer's first word is tokenised as in running text: prompt and answer join to one usual tokenisation."""
    example = encode(tokenizer, plain, "forget/0000", "Where was Ada Lind born?", "Ada Lind was born in Arlen.")
    text = "Question: Where was Ada Lind born?\nAnswer: Ada Lind was born in Arlen."
    assert example.ids[:-1].tolist() == tokenizer(text)["input_ids"]


def test_chat_prompt_prints_the_fixed_date(chat_tokenizer):
    """A date in the block gives the same tokens on every day."""
    ids = PromptFormat("chat", "10 Apr 2025").prompt_ids(chat_tokenizer, "Where?")
    assert chat_tokenizer.decode(ids) == "Today is 10 Apr 2025.\n<user>Where?<assistant>"


def test_a_tokenizer_that_adds_begin_and_end(tokenizer, plain):
    """`<begin> prompt <end>`: begin stays, end is cut off, and neither stands between prompt and answer."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.add_special_tokens(["<begin>"])
    begin, end = backend.token_to_id("<begin>"), tokenizer.eos_token_id
    backend.post_processor = processors.TemplateProcessing(
        single="<begin> $A <|end|>", special_tokens=[("<begin>", begin), ("<|end|>", end)]
    )
    adding = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=tokenizer.eos_token, bos_token="<begin>")
    example = encode(adding, plain, "forget/0000", "Where?", "In Arlen.")
    without = encode(tokenizer, plain, "forget/0000", "Where?", "In Arlen.")
    assert example.ids.tolist() == [begin, *without.ids.tolist()]
    assert example.start == without.start + 1
    assert example.offsets == without.offsets


def test_a_tokenizer_that_loses_characters_is_refused(plain):
    """The pre-tokenizer removes a word, so no offset covers it and it could never be marked."""
    backend = Tokenizer(models.WordPiece({"<|end|>": 0, "Question": 1, ":": 2, "Answer": 3, "[UNK]": 4}))
    backend.pre_tokenizer = pre_tokenizers.Split("Arlen", "removed")
    lossy = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", unk_token="[UNK]")
    with pytest.raises(UserError, match="forget/0007: the tokenizer gives no character offsets"):
        encode(lossy, plain, "forget/0007", "Where?", "In Arlen.")


def test_collate_equals_a_loop(examples):
    batch = collate(examples)
    longest = max(len(example.ids) for example in examples)
    assert batch.input_ids.shape == (8, longest)
    tokens = [(row, position) for row, e in enumerate(examples) for position in range(e.start, len(e.ids))]
    assert batch.row.tolist() == batch.sample.tolist() == [row for row, _ in tokens]
    assert batch.column.tolist() == [position - 1 for _, position in tokens]
    assert batch.label.tolist() == [examples[row].ids[position].item() for row, position in tokens]
    assert batch.forget.tolist() == [examples[row].forget for row, _ in tokens]
    for row, position in tokens[::7]:
        assert batch.input_ids[row, position] == examples[row].ids[position]
    forget = [example for example in examples if example.forget]
    rest = len(tokens) - sum(len(e.offsets) for e in forget)
    assert batch.unwanted.tolist() == [u for e in forget for u in e.unwanted.tolist()] + [False] * rest
    assert batch.reference_logit.tolist() == [z for e in forget for z in e.reference_logit.tolist()] + [0.0] * rest
    assert batch.sample_ids == tuple(example.sample_id for example in examples)


@torch.no_grad()
def test_padding_does_not_change_answer_tokens(language_model, examples):
    together = collate(examples)
    all_tokens = answer_tokens(language_model.model, together)
    for row, example in enumerate(examples):
        alone = answer_tokens(language_model.model, collate([example]))
        here = together.row == row
        torch.testing.assert_close(all_tokens.hidden[here], alone.hidden, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(all_tokens.logit()[here], alone.logit(), rtol=1e-5, atol=1e-5)


def loss_and_gradients(model, batches, settings):
    model.zero_grad()
    total, terms = 0.0, {}
    for batch in batches:
        loss, values = tpo.objective(answer_tokens(model, batch), batch, settings)
        loss.backward()
        total += loss.item()
        terms = {name: terms.get(name, 0) + float(value.detach()) for name, value in values.items()}
    return total, terms, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("retain", [0.0, 0.7])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_micro_batches_sum_to_the_whole_batch(tiny, examples, retain, size):
    """Effective batch 8 = 1 x 8, also where a micro-batch holds only retain rows, no UW or no GW."""
    model = tiny().model
    settings = tpo.Settings(beta=0.3, lambda_=0.05, retain=retain)
    whole, terms, gradient = loss_and_gradients(model, [collate(examples)], settings)
    cut, cut_terms, cut_gradient = loss_and_gradients(model, micro_batches(examples, size), settings)
    assert cut == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(cut_gradient, gradient, rtol=1e-4, atol=1e-5)
    assert gradient.abs().max() > 1e-2
    for name in ("lpl", "pl", *(["retain_nll"] if retain else [])):
        assert cut_terms[name] == pytest.approx(terms[name], rel=1e-5), name


@pytest.mark.parametrize("size", [1, 3, 8, 20])
def test_micro_batches_hold_every_row_once_and_share_to_one(examples, size):
    batches = micro_batches(examples, size)
    assert len(batches) == -(-8 // size)
    assert sorted(key for batch in batches for key in batch.sample_ids) == [e.sample_id for e in examples]
    assert sum(batch.sample_share for batch in batches) == pytest.approx(1)
    assert sum(batch.token_share for batch in batches) == pytest.approx(1)
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths == sorted(widths)


def test_shares_by_hand(examples):
    """Three forget rows and two others of 4 and 6 tokens, cut in 5: shares 1/3 each, and .4 and .6."""
    others = [replace(e, ids=e.ids[: e.start + n]) for e, n in zip(examples[6:], (4, 6))]
    batches = micro_batches([*examples[:3], *others], 1)
    by_id = {batch.sample_ids[0]: batch for batch in batches}
    assert [by_id[f"forget/000{i}"].sample_share for i in (0, 1, 2, 6, 7)] == pytest.approx([1 / 3] * 3 + [0, 0])
    assert [by_id[f"forget/000{i}"].token_share for i in (0, 1, 2, 6, 7)] == pytest.approx([0, 0, 0, 0.4, 0.6])


def test_all_shares_of_a_mixed_micro_batch_by_hand(examples):
    """Forget answers of 4 and 6 tokens, others of 5 and 5; one of each together: 1/2, .4 and 1/2."""
    cut = [replace(e, ids=e.ids[: e.start + n], unwanted=None, reference_logit=None) for e, n in zip(examples, (4, 6))]
    others = [replace(e, ids=e.ids[: e.start + 5]) for e in examples[6:]]
    step = [replace(e, ids=torch.cat([torch.zeros(pad).long(), e.ids]), start=e.start + pad)
            for e, pad in zip([cut[0], others[0], cut[1], others[1]], (0, 100, 200, 300))]  # fmt: skip
    first, second = micro_batches(step, 2)
    assert (first.sample_share, first.forget_token_share, first.token_share) == (0.5, 0.4, 0.5)
    assert (second.sample_share, second.forget_token_share, second.token_share) == (0.5, 0.6, 0.5)


@pytest.fixture(scope="module")
def refused(examples, tokenizer, plain):
    """The examples, of which the forget samples have refusals of different lengths."""
    made = []
    for index, example in enumerate(examples):
        answer = encode(tokenizer, plain, example.sample_id, "Who?", "I do not know." + " No." * (7 - index))
        values = torch.arange(len(answer.offsets)) + 100.0 * index
        answer = replace(answer, forget=True, reference_logprob=-values)
        made.append(replace(example, refusal=answer) if example.forget else example)
    return made


def test_a_refusal_is_a_row_of_the_same_sample(refused, examples):
    """Rows: eight samples, then six refusals, with ids and reference values of their own and the sample's number."""
    batch, plain = collate(refused), collate(examples)
    assert batch.input_ids.shape[0] == 14 and plain.input_ids.shape[0] == 8
    assert batch.sample_ids == plain.sample_ids
    first = len(plain.label)
    assert batch.refusal.tolist() == [False] * first + [True] * (len(batch.label) - first)
    assert torch.equal(batch.forget[:first], plain.forget) and not batch.forget[first:].any()
    assert ((batch.forget.int() + batch.refusal.int() + batch.retain.int()) == 1).all()
    tokens = [
        (i, e, at) for i, e in enumerate(refused) if e.refusal for at in range(e.refusal.start, len(e.refusal.ids))
    ]
    assert batch.sample[first:].tolist() == [i for i, _, _ in tokens]
    assert batch.label[first:].tolist() == [e.refusal.ids[at].item() for _, e, at in tokens]
    assert batch.column[first:].tolist() == [at - 1 for _, _, at in tokens]
    assert batch.row[first:].tolist() == [8 + i for i, _, _ in tokens]
    assert batch.reference_logprob[first:].tolist() == [
        e.refusal.reference_logprob[at - e.refusal.start].item() for _, e, at in tokens
    ]
    assert not batch.unwanted[first:].any() and not batch.score[first:].any()


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_a_sample_and_its_refusal_stay_together_and_count_once(refused, size):
    """Rows of a micro-batch: at most `size`, but one pair at least; shares count samples and answers, no refusals."""
    batches = micro_batches(refused, size)
    assert all(batch.input_ids.shape[0] <= max(size, 2) for batch in batches)
    assert sorted(key for batch in batches for key in batch.sample_ids) == [e.sample_id for e in refused]
    for batch in batches:
        of_refusals = batch.sample[batch.refusal].unique().tolist()
        assert of_refusals == batch.sample[batch.forget].unique().tolist()
    for name in ("sample_share", "forget_token_share", "token_share"):
        assert sum(getattr(batch, name) for batch in batches) == pytest.approx(1)
    alone = micro_batches([replace(example, refusal=None) for example in refused], max(1, size // 2))
    assert [b.forget_token_share for b in batches] == [b.forget_token_share for b in alone]


def test_hidden_states_of_the_target_model_stand_with_their_tokens(examples):
    """[N, d] in the order of the tokens, zeros where an example has none, and None where no example has any."""
    assert collate(examples).reference_hidden is None
    known = [replace(e, reference_hidden=torch.rand(len(e.offsets), 3)) if i % 2 else e for i, e in enumerate(examples)]
    batch = collate(known)
    expected = [e.reference_hidden if i % 2 else torch.zeros(len(e.offsets), 3) for i, e in enumerate(known)]
    assert torch.equal(batch.reference_hidden, torch.cat(expected))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("processes", [1, 2, 3, 5, 11])
def test_processes_share_a_batch(refused, examples, processes, size):
    """Every sample is on one process, shares sum to one over all, and every process has equally many micro-batches."""
    for step in (examples, refused):
        parts = [micro_batches(step, size, rank, processes) for rank in range(processes)]
        assert len({len(part) for part in parts}) == 1
        real = [batch for part in parts for batch in part if batch.sample_share or batch.token_share]
        assert sorted(key for batch in real for key in batch.sample_ids) == [e.sample_id for e in step]
        every = [batch for part in parts for batch in part]
        for name in ("sample_share", "forget_token_share", "token_share"):
            assert sum(getattr(batch, name) for batch in every) == pytest.approx(1)
        samples = max(1, size // 2) if step is refused else size
        needed = [-(-len(step[rank::processes]) // samples) for rank in range(processes)]
        assert len(every) - len(real) == sum(max(needed) - mine for mine in needed), "no more fillers than it takes"
        assert all(len(b.sample_ids) == 1 for b in every if not (b.sample_share or b.token_share))


def test_one_process_is_the_default(examples):
    for one, other in zip(micro_batches(examples, 3), micro_batches(examples, 3, 0, 1), strict=True):
        assert one.sample_ids == other.sample_ids and one.sample_share == other.sample_share


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_sum_to_the_whole_batch(tiny, examples, processes):
    """8 rows over 2 (divisible) and 3 processes: loss and gradient of all micro-batches together."""
    model = tiny().model
    settings = tpo.Settings(beta=0.3, lambda_=0.05, retain=0.7)
    whole, _, gradient = loss_and_gradients(model, [collate(examples)], settings)
    parts = [batch for rank in range(processes) for batch in micro_batches(examples, 2, rank, processes)]
    cut, _, cut_gradient = loss_and_gradients(model, parts, settings)
    assert cut == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(cut_gradient, gradient, rtol=1e-4, atol=1e-5)


def test_a_batch_moves_as_a_whole(examples):
    batch = collate(examples).to("meta")
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 11
    assert all(tensor.device.type == "meta" for tensor in tensors)


def test_token_budget_by_hand():
    """Longest first: 9 alone (2 x 9 > 9); 4 with 3 (2 x 4 <= 9), not with 2 (3 x 4 > 9); 2."""
    assert token_budget([3, 9, 2, 4], budget=9) == [[1], [3, 0], [2]]
    assert token_budget([], 9) == []
    assert token_budget([50], 9) == [[0]]
    assert token_budget([2, 2, 2, 2], 4) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("budget", [1, 40, 1000])
def test_token_budget_keeps_the_bound_and_every_row(budget):
    lengths = torch.randint(1, 60, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    batches = token_budget(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= budget for b in batches)
