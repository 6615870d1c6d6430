"""Unlearning methods: one file each, chosen by its name in `unlearn.method`.

A method module has

- `Settings`, its block of params.yaml;
- `needs(settings) -> Needs`: what the training loop has to supply beyond the answer tokens of the forget set;
- `objective(tokens, batch, settings) -> (loss, terms)`: a micro-batch's share of the step's loss and of the values to
  log. Both are sums over micro-batches, so every mean is taken here and multiplied by the share of its denominator
  that lies in this micro-batch: `batch.sample_share`, `batch.forget_token_share` or `batch.token_share`.

A method that learns more than the model (atwu) has `Learner` in place of `objective`; see `tif.methods.atwu`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Needs:
    """What a method needs. No method needs a second model: the target model is the model before its first step.

    retain: as many retain samples as forget samples in every step. refusals: every forget sample once more with an
    "I don't know" answer, in the same micro-batch. own: hidden states at the tokens' own positions.
    layer: hidden states after that many decoder layers in place of the last; no logits can be computed from them.
    cached: answers whose hidden states under the target model (at `layer`) are computed once before training and kept
    in main memory, N x d numbers in the model's dtype; with a frozen copy of the head they give its distributions.
    """

    retain: bool = False
    refusals: bool = False
    own: bool = False
    layer: int | None = None
    cached: tuple[Literal["forget", "retain"], ...] = ()
