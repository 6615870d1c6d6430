"""Questions and answers -> token ids -> batches whose answer tokens lie on one flat axis.

Rows are padded on the right to the longest of their micro-batch and no attention mask is passed: under causal
attention a token never sees what stands to its right, so padding cannot change an answer token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from tif.base.errors import UserError
from tif.lm.models import LanguageModel
from tif.lm.prompts import PromptFormat


@dataclass(frozen=True)
class Example:
    """One tokenised sample: prompt, answer and end of sequence.

    ids: [L] token ids. start: position of the first answer token; A = L - start counts end of sequence.
    offsets: A pairs (start, end) of characters in the answer; (n, n) for end of sequence.
    forget: whether it is a forget sample. refusal: the sample again with an "I don't know" answer, or None.
    unwanted: bool [A]. score: [A] soft weight in [0, 1]. reference_logit, reference_logprob: [A] under the target
    model. reference_hidden: [A, d] what the target model computed there (see `tif.methods.Needs`). Each may be None.
    """

    sample_id: str
    ids: Tensor
    start: int
    offsets: list[tuple[int, int]]
    forget: bool = False
    refusal: "Example | None" = None
    unwanted: Tensor | None = None
    score: Tensor | None = None
    reference_logit: Tensor | None = None
    reference_logprob: Tensor | None = None
    reference_hidden: Tensor | None = None


def encode(
    tokenizer: PreTrainedTokenizerFast, form: PromptFormat, sample_id: str, question: str, answer: str
) -> Example:
    """Tokenise one question and answer.

    Raises UserError when the tokenizer's offsets do not cover the answer, as then no word could be marked.
    """
    prompt = form.prompt_ids(tokenizer, question)
    lead = len(form.before_answer)
    coded = tokenizer(form.before_answer + answer, add_special_tokens=False, return_offsets_mapping=True)
    offsets = [(max(start - lead, 0), max(end - lead, 0)) for start, end in coded["offset_mapping"]]
    covered = set().union(*(range(start, end) for start, end in offsets))
    if any(i not in covered and not character.isspace() for i, character in enumerate(answer)):
        raise UserError(f"{sample_id}: the tokenizer gives no character offsets for parts of the answer; use another")
    return Example(
        sample_id=sample_id,
        ids=torch.tensor([*prompt, *coded["input_ids"], tokenizer.eos_token_id]),
        start=len(prompt),
        offsets=[*offsets, (len(answer), len(answer))],
    )


def encode_pairs(language_model: LanguageModel, pairs: Sequence[tuple[str, str, str]]) -> list[Example]:
    """Tokenise (sample_id, question, answer) triples."""
    return [encode(language_model.tokenizer, language_model.form, *pair) for pair in pairs]


@dataclass(frozen=True)
class Batch:
    """A micro-batch of B rows of length L with N answer tokens; a sample with a refusal takes two rows.

    input_ids: [B, L]. row, column: int64 [N], where the hidden state that predicts the token stands.
    label: int64 [N], the answer token. sample: int64 [N], which of the S samples it belongs to.
    forget, retain, refusal: bool [N], whose answer it is; exactly one of them is true.
    unwanted: bool [N]. score, reference_logit, reference_logprob: [N], 0 where there is none.
    reference_hidden: [N, d], 0 where there is none, or None where no row has one.
    sample_share: forget samples here / forget samples in the effective batch.
    forget_token_share: tokens of forget answers here / the same in the effective batch. token_share: of retain answers.
    sample_ids: of the S samples.
    """

    input_ids: Tensor
    row: Tensor
    column: Tensor
    label: Tensor
    sample: Tensor
    forget: Tensor
    refusal: Tensor
    unwanted: Tensor
    score: Tensor
    reference_logit: Tensor
    reference_logprob: Tensor
    reference_hidden: Tensor | None
    sample_share: float
    forget_token_share: float
    token_share: float
    sample_ids: tuple[str, ...]

    @property
    def retain(self) -> Tensor:
        return ~(self.forget | self.refusal)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def collate(
    examples: Sequence[Example],
    sample_share: float = 1.0,
    forget_token_share: float = 1.0,
    token_share: float = 1.0,
    refusals: bool = True,
) -> Batch:
    """Pad examples to the longest of them and gather their answer tokens; refusals: whether those of refusals too."""
    refused = [(index, one.refusal) for index, one in enumerate(examples) if refusals and one.refusal is not None]
    rows = [*examples, *(refusal for _, refusal in refused)]
    input_ids = pad_sequence([example.ids for example in rows], batch_first=True)
    answers = torch.tensor([len(example.ids) - example.start for example in rows])
    starts = torch.tensor([example.start for example in rows])
    row = torch.repeat_interleave(torch.arange(len(rows)), answers)
    first = torch.repeat_interleave(answers.cumsum(0) - answers, answers)
    position = starts[row] + torch.arange(len(row)) - first
    is_refusal = row >= len(examples)
    return Batch(
        input_ids=input_ids,
        row=row,
        column=position - 1,
        label=input_ids[row, position],
        sample=torch.tensor([*range(len(examples)), *(index for index, _ in refused)])[row],
        forget=torch.tensor([example.forget for example in rows])[row] & ~is_refusal,
        refusal=is_refusal,
        unwanted=_gather([example.unwanted for example in rows], answers, torch.bool),
        score=_gather([example.score for example in rows], answers, torch.float32),
        reference_logit=_gather([example.reference_logit for example in rows], answers, torch.float32),
        reference_logprob=_gather([example.reference_logprob for example in rows], answers, torch.float32),
        reference_hidden=_gather_hidden([example.reference_hidden for example in rows], answers),
        sample_share=sample_share,
        forget_token_share=forget_token_share,
        token_share=token_share,
        sample_ids=tuple(example.sample_id for example in examples),
    )


def _gather(parts: list[Tensor | None], answers: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.cat(
        [torch.zeros(int(n), dtype=dtype) if part is None else part for part, n in zip(parts, answers, strict=True)]
    )


def _gather_hidden(parts: list[Tensor | None], answers: Tensor) -> Tensor | None:
    known = next((part for part in parts if part is not None), None)
    if known is None:
        return None
    return torch.cat(
        [known.new_zeros(int(n), known.shape[1]) if part is None else part for part, n in zip(parts, answers)]
    )


def micro_batches(examples: Sequence[Example], size: int, rank: int = 0, processes: int = 1) -> list[Batch]:
    """Cut one process's part of an effective batch into micro-batches of at most `size` rows of similar length.

    Sorting by length first removes most of the padding; the shares make the sum of the losses of all micro-batches of
    all processes equal to the loss of the whole batch. Every process gets equally many micro-batches, as collective
    operations need: one that would have fewer gets a duplicate whose shares are 0. A sample and its refusal are never
    separated, so a micro-batch of size 1 may have two rows.
    """
    rows = 2 if any(example.refusal is not None for example in examples) else 1
    size = max(1, size // rows)
    ordered = sorted(examples, key=lambda example: len(example.ids))
    longest = -(-len(ordered) // processes)  # samples of process 0
    mine = ordered[rank::processes]
    parts = [mine[i : i + size] for i in range(0, longest, size)]
    totals = _counts(examples)
    return [
        collate(part, *(here / max(all_, 1) for here, all_ in zip(_counts(part), totals)))
        if part
        else collate(ordered[:1], 0.0, 0.0, 0.0)
        for part in parts
    ]


def _counts(examples: Sequence[Example]) -> tuple[int, int, int]:
    """Forget samples, tokens of their answers, and tokens of the other answers."""
    forget = [len(example.ids) - example.start for example in examples if example.forget]
    other = [len(example.ids) - example.start for example in examples if not example.forget]
    return len(forget), sum(forget), sum(other)


def token_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows in batches of similar length, each at most `budget` tokens when padded (at least one row).

    >>> token_budget([3, 9, 2, 4], budget=9)
    [[1], [3, 0], [2]]
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
