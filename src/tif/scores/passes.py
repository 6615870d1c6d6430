"""The one forward pass over examples: every answer token once, in batches of similar length."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from tif.lm.batches import Batch, Example, collate, token_budget
from tif.lm.models import LanguageModel

TOKEN_BUDGET = 2**13  # padded tokens a forward pass


@torch.no_grad()  # inference mode would mark weights that are gathered, and training uses them again
def passes(
    language_model: LanguageModel,
    examples: Sequence[Example],
    read: Callable[[PreTrainedModel, Batch], Sequence[Tensor]],
    progress: bool = False,
    title: str = "scoring",
) -> tuple[np.ndarray, list[Tensor]]:
    """What `read` sees at every answer token of E examples, T tokens in all, end of sequence included.

    read: (model, batch) -> tensors of the batch's N answer tokens, [N] or [N, d], from one forward pass.
    Returns (bounds, tensors): int64 [E + 1], tokens of example i are bounds[i]:bounds[i + 1]; and what was read, [T] or
    [T, d] in main memory, in the order of `examples`, whatever order they were batched in. Refusals are left out.
    Without an example no tensor is returned.
    """
    lengths = [len(example.ids) - example.start for example in examples]
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    found: list[Tensor] = []
    with tqdm(total=len(examples), desc=title, unit="answer", disable=not progress) as bar:
        for indices in token_budget([len(example.ids) for example in examples], TOKEN_BUDGET):
            batch = collate([examples[i] for i in indices], refusals=False).to(language_model.model.device)
            parts = language_model.call(lambda model, batch=batch: read(model, batch))
            if not found:
                found = [torch.empty((bounds[-1], *part.shape[1:]), dtype=part.dtype) for part in parts]
            where = torch.from_numpy(np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in indices]))
            for whole, part in zip(found, parts, strict=True):
                whole[where] = part.cpu()
            bar.update(len(indices))
    return bounds, found


def per_example(bounds: np.ndarray, values: Tensor) -> tuple[Tensor, ...]:
    """Values of T tokens, cut into those of each example."""
    return torch.split(values, np.diff(bounds).tolist())
