"""How well a score per token ranks unwanted tokens above general ones, answer by answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score

from tif.words import Span, project, soften


@dataclass(frozen=True)
class Alignment:
    """auroc, average_precision: means over `samples` answers, 0 to 1, None where there is no such answer.

    left_out: answers whose tokens are all general or all unwanted, so that nothing can be ranked.
    """

    auroc: float | None
    average_precision: float | None
    samples: int
    left_out: int


def alignment(scores: Mapping[str, ArrayLike], unwanted: Mapping[str, ArrayLike]) -> Alignment:
    """Area under the ROC curve and average precision of every answer's token scores, then their mean (macro).

    scores: sample_id -> [n] numbers, the higher the more unwanted. unwanted: the same answers -> [n] bool.
    A score that is the same for all tokens has AUROC .5, and as average precision the share of unwanted tokens.
    Raises ValueError when the two are not of the same answers and tokens, or a score is not finite.
    """
    if scores.keys() != unwanted.keys():
        raise ValueError("scores and unwanted tokens are not of the same answers")
    areas, precisions = [], []
    for sample_id, flags in unwanted.items():
        truth, values = np.asarray(flags, bool), np.asarray(scores[sample_id], float)
        if truth.shape != values.shape:
            raise ValueError(f"{sample_id} has {len(truth)} tokens and {len(values)} scores")
        if truth.any() and not truth.all():
            areas.append(roc_auc_score(truth, values))
            precisions.append(average_precision_score(truth, values))
    means = [float(np.mean(found)) if found else None for found in (areas, precisions)]
    return Alignment(*means, len(areas), len(unwanted) - len(areas))


@dataclass(frozen=True)
class Tokens:
    """The tokens of the answers that stand for text: sample_id -> (start, end) character offsets in the answer.

    End of sequence stands for none. It is left out, because it is never unwanted and easily told.
    """

    answers: Mapping[str, str]
    offsets: Mapping[str, Sequence[Span]]

    def unwanted(self, spans: Mapping[str, Sequence[Span]]) -> dict[str, list[bool]]:
        """Which tokens overlap the unwanted spans of their answer; see `tif.words.project`."""
        return {key: project(self.answers[key], spans[key], offsets) for key, offsets in self.offsets.items()}

    def scores(self, words: Mapping[str, Sequence[dict]]) -> dict[str, list[float]]:
        """The scores of a spans table (rows of `SPANS` by answer) on the tokens; see `tif.words.soften`."""
        scored = {key: [(row["start"], row["end"], row["score"]) for row in words[key]] for key in self.offsets}
        return {key: soften(self.answers[key], scored[key], offsets) for key, offsets in self.offsets.items()}
