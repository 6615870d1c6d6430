"""Questions and answers -> token ids -> batches whose answer tokens lie on one flat axis.

Rows are padded on the right to the longest of their micro-batch and no attention mask is passed: under causal
attention a token never sees what stands to its right, so padding cannot change an answer token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from tif.errors import UserError
from tif.masks import Span


@dataclass(frozen=True)
class PromptFormat:
    """How a question becomes a prompt.

    kind: "plain" (`Question: ...` / `Answer:`) or "chat", the tokenizer's own chat template.
    date: the date that a chat template may print; fixed, because "today" would give other tokens every day.
    """

    kind: Literal["plain", "chat"]
    date: str

    def prompt_ids(self, tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
        """Token ids of the prompt, up to where the answer begins."""
        if self.kind == "chat":
            messages = [{"role": "user", "content": question}]
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, date_string=self.date
            )
            return tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = tokenizer(f"Question: {question}\nAnswer:")["input_ids"]
        return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids

    @property
    def before_answer(self) -> str:
        """Text between prompt and answer; tokenised with the answer, so that the first word keeps its usual token."""
        return "" if self.kind == "chat" else " "


@dataclass(frozen=True)
class Example:
    """One tokenised sample: prompt, answer and end of sequence.

    ids: [L] token ids. start: position of the first answer token; A = L - start counts end of sequence.
    offsets: A pairs (start, end) of characters in the answer; (n, n) for end of sequence.
    unwanted: bool [A] or None. reference_logit: [A] or None. forget: whether it is a forget sample.
    """

    sample_id: str
    ids: Tensor
    start: int
    offsets: list[Span]
    unwanted: Tensor | None = None
    reference_logit: Tensor | None = None
    forget: bool = False


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


@dataclass(frozen=True)
class Batch:
    """A micro-batch of B rows of length L with N answer tokens.

    input_ids: [B, L]. row, column: int64 [N], where the hidden state that predicts the token stands.
    label: int64 [N], the answer token. sample: int64 [N], row of the micro-batch, as an id.
    forget, unwanted: bool [N]. reference_logit: [N], 0 where there is none.
    sample_share: forget rows here / forget rows in the effective batch.
    token_share: other rows' answer tokens here / the same in the effective batch.
    sample_ids: of the B rows.
    """

    input_ids: Tensor
    row: Tensor
    column: Tensor
    label: Tensor
    forget: Tensor
    unwanted: Tensor
    reference_logit: Tensor
    sample_share: float
    token_share: float
    sample_ids: tuple[str, ...]

    @property
    def sample(self) -> Tensor:
        return self.row

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def collate(examples: Sequence[Example], sample_share: float = 1.0, token_share: float = 1.0) -> Batch:
    """Pad examples to the longest of them and gather their answer tokens."""
    input_ids = pad_sequence([example.ids for example in examples], batch_first=True)
    answers = torch.tensor([len(example.ids) - example.start for example in examples])
    starts = torch.tensor([example.start for example in examples])
    row = torch.repeat_interleave(torch.arange(len(examples)), answers)
    first = torch.repeat_interleave(answers.cumsum(0) - answers, answers)
    position = starts[row] + torch.arange(len(row)) - first
    return Batch(
        input_ids=input_ids,
        row=row,
        column=position - 1,
        label=input_ids[row, position],
        forget=torch.tensor([example.forget for example in examples])[row],
        unwanted=_gather([example.unwanted for example in examples], answers, torch.bool),
        reference_logit=_gather([example.reference_logit for example in examples], answers, torch.float32),
        sample_share=sample_share,
        token_share=token_share,
        sample_ids=tuple(example.sample_id for example in examples),
    )


def _gather(parts: list[Tensor | None], answers: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.cat(
        [torch.zeros(int(n), dtype=dtype) if part is None else part for part, n in zip(parts, answers, strict=True)]
    )


def micro_batches(examples: Sequence[Example], size: int) -> list[Batch]:
    """Cut an effective batch into micro-batches of at most `size` rows of similar length.

    Sorting by length first removes most of the padding; the shares make the sum of the micro-batches' losses equal
    to the loss of the whole batch.
    """
    ordered = sorted(examples, key=lambda example: len(example.ids))
    parts = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    forget = sum(example.forget for example in examples)
    tokens = sum(_other_tokens(example) for example in examples)
    return [
        collate(
            part,
            sample_share=sum(example.forget for example in part) / max(forget, 1),
            token_share=sum(_other_tokens(example) for example in part) / max(tokens, 1),
        )
        for part in parts
    ]


def _other_tokens(example: Example) -> int:
    return 0 if example.forget else len(example.ids) - example.start


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
