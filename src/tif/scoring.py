"""One teacher-forced pass over (question, answer) pairs, from which every likelihood metric reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from tif.batches import Batch, Example, collate, encode, token_budget
from tif.logits import SCORING_BUDGET, answer_tokens, chunk_rows, within
from tif.models import LanguageModel

TOKEN_BUDGET = 2**13  # padded tokens a forward pass


@dataclass(frozen=True)
class Scores:
    """Per-token scores of E examples with T answer tokens in all, end of sequence included.

    bounds: int64 [E + 1]; tokens of example i are bounds[i]:bounds[i + 1].
    logit, logprob: float32 [T], of the true token (logprob in nats). hit: bool [T], greedy choice is right.
    """

    bounds: np.ndarray
    logit: np.ndarray
    logprob: np.ndarray
    hit: np.ndarray

    def loss(self) -> np.ndarray:
        """[E] mean negative log-likelihood of an answer's tokens, nats, float64."""
        sums = np.add.reduceat(self.logprob.astype(np.float64), self.bounds[:-1])
        return -sums / np.diff(self.bounds)


@torch.no_grad()  # inference mode would mark weights that are gathered, and training uses them again
def score(language_model: LanguageModel, examples: Sequence[Example], progress: bool, title: str = "scoring") -> Scores:
    """Score every answer token of `examples`, in batches of similar length, whatever order they come in."""
    model = language_model.model
    lengths = [len(example.ids) - example.start for example in examples]
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    logit, logprob = np.empty(bounds[-1], np.float32), np.empty(bounds[-1], np.float32)
    hit = np.empty(bounds[-1], bool)
    batches = token_budget([len(example.ids) for example in examples], TOKEN_BUDGET)
    with tqdm(total=len(examples), desc=title, unit="answer", disable=not progress) as bar:
        for indices in batches:
            batch = collate([examples[i] for i in indices]).to(model.device)
            where = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in indices])
            logit[where], logprob[where], hit[where] = within(model, partial(_scores, batch))
            bar.update(len(indices))
    return Scores(bounds, logit, logprob, hit)


def _scores(batch: Batch, model: PreTrainedModel) -> np.ndarray:
    """[3, N] logit, log-probability and hit of the answer tokens of a batch."""
    tokens = answer_tokens(model, batch)
    dots = tokens.logit()
    found = np.empty((3, len(dots)), np.float32)
    step = chunk_rows(tokens.head.weight.shape[0], SCORING_BUDGET)
    for part in range(0, len(dots), step):
        at = slice(part, part + step)
        rows, label = tokens.head(tokens.hidden[at]), tokens.label[at]
        rounded = rows.dtype != torch.float32
        rows = rows.float()
        true = rows.gather(1, label[:, None])[:, 0]
        # a head of fewer bits rounds its logits; training does not, and margins compare with this
        found[0, at] = (dots[at] if rounded else true).cpu().numpy()
        found[1, at] = (true - rows.logsumexp(-1)).cpu().numpy()
        found[2, at] = (rows.argmax(-1) == label).cpu().numpy()
    return found


def encode_pairs(language_model: LanguageModel, pairs: Sequence[tuple[str, str, str]]) -> list[Example]:
    """Tokenise (sample_id, question, answer) triples."""
    return [encode(language_model.tokenizer, language_model.form, *pair) for pair in pairs]
