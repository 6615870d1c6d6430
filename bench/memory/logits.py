"""Memory for the logits of long answers: chunks of at most `tif.lm.logits.LOGIT_BUDGET` numbers against all at once.

    python bench/memory/logits.py

A loss of `--answers` answer tokens over `--vocabulary` words, forward and backward, each version in a fresh process;
hidden states, the head and its gradient count too. nll: the loss of most methods. kl: a loss of whole rows of logits,
with those of the target model. naive: `torch.nn.functional.cross_entropy` on all logits.
"""

import argparse

import torch
import torch.nn.functional as F
from resident import AT_ONCE, growth

from tif.lm import logits
from tif.lm.logits import AnswerTokens
from tif.losses import kl_divergence

ALL_AT_ONCE = 2**40


def step(version: str, budget: int, answers: int, vocabulary: int, width: int, dtype: str) -> None:
    """One forward and backward pass of the head. budget: in place of LOGIT_BUDGET."""
    logits.LOGIT_BUDGET = budget
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    hidden = torch.randn(answers, width, dtype=kind, requires_grad=True)
    head = torch.nn.Linear(width, vocabulary, bias=False, dtype=kind)
    label = torch.randint(vocabulary, (answers,))
    tokens = AnswerTokens(hidden, label, head, reference_head=head)
    everywhere = torch.ones(answers, dtype=torch.bool)
    if version == "naive":
        loss = F.cross_entropy(head(hidden).float(), label, reduction="sum")
    elif version == "nll":
        loss = tokens.nll(everywhere).sum()
    else:
        loss = tokens.per_token(kl_divergence, everywhere, hidden.detach().clone()).sum()
    loss.backward()


def main() -> None:
    """Measure every version and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in {"answers": 8000, "vocabulary": 32000, "width": 256}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    given = parser.parse_args()
    size = (given.answers, given.vocabulary, given.width)
    rows = given.answers * given.vocabulary
    print(f"all logits in float32: {rows * 4 / 2**20:.0f} MiB; a chunk: {logits.LOGIT_BUDGET * 4 / 2**20:.0f} MiB")
    for dtype in ("float32", "bfloat16"):
        bytes_ = 4 if dtype == "float32" else 2
        known = (2 * given.answers + 2 * given.vocabulary) * given.width * bytes_ / 2**20
        print(f"{dtype} (hidden states, head and their gradients: {known:.0f} MiB)")
        for version, budget, name in (
            ("naive", ALL_AT_ONCE, "naive"),
            ("nll", ALL_AT_ONCE, "nll, all at once"),
            ("nll", logits.LOGIT_BUDGET, "nll, in chunks"),
            ("kl", ALL_AT_ONCE, "kl, all at once"),
            ("kl", logits.LOGIT_BUDGET, "kl, in chunks"),
        ):
            warm_up = (version, budget, 8, 100, 16, dtype)
            print(
                f"  {name:<18}{growth(step, (version, budget, *size, dtype), warm_up, AT_ONCE):>8.0f} MiB", flush=True
            )


if __name__ == "__main__":
    main()
