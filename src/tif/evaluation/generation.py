"""Greedy answers to questions."""

from collections.abc import Sequence

import torch
from tqdm import tqdm

from tif.lm.models import LanguageModel


@torch.inference_mode()
def generate(
    language_model: LanguageModel, questions: Sequence[str], new_tokens: int, batch: int, progress: bool
) -> list[str]:
    """The model's greedy answer to every question, at most `new_tokens` tokens, in the order of `questions`.

    Questions of similar length share a batch; prompts are padded on the left and the padding is masked.
    """
    model, tokenizer = language_model.model, language_model.tokenizer
    prompts = [language_model.form.prompt_ids(tokenizer, question) for question in questions]
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    answers = [""] * len(prompts)
    eos = tokenizer.eos_token_id
    with tqdm(total=len(prompts), desc="generating", unit="answer", disable=not progress) as bar:
        for begin in range(0, len(order), batch):
            indices = order[begin : begin + batch]
            width = max(len(prompts[i]) for i in indices)
            ids = torch.tensor([[eos] * (width - len(prompts[i])) + prompts[i] for i in indices])
            mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in indices])
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                eos_token_id=eos,
                pad_token_id=eos,
            )
            texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
            for index, text in zip(indices, texts, strict=True):
                answers[index] = text.strip()
            bar.update(len(indices))
    return answers
