"""How a question becomes a prompt."""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerFast


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
