"""Seconds and peak memory of one TPO optimiser step, against two naive versions of the same step.

    python bench/step.py --layers 4 --width 256
    python bench/step.py --layers 6 --width 768 --steps 3

- tif: what the unlearn stage runs, `tif.train.train` with `tif.methods.tpo`, the Trainer's own work included.
- a: every row padded to 500 tokens, micro-batches of 4, two policy forwards on the same tokens, the reference model
  in memory, logits of every position over the whole vocabulary.
- b: every row padded to the longest of its micro-batch, one policy forward, the reference model's forward in the
  loop, logits of every position over the whole vocabulary. Its micro-batches are as large as those of tif.

All three do the same work on paper: the same initial weights, samples, reference logits, gradient clipping, fused AdamW
and learning rates. The script stops unless their losses agree to a relative 1e-4 at every step; the first comparison
is at the warm-up step, before any update and before any timing. The reference is a second random initialisation,
so that margins are not 0.

Every version runs in a fresh process; the processes take turns step by step, so that other load on the machine hits
all of them alike. Seconds are medians over the timed steps. Peak memory is the growth of the process's maximum
resident size since after the imports, before any model is built: weights, gradients, optimiser state and the naive
versions' reference model all count.

Rows are seeded random tokens of real lengths: prompt and answer lengths follow the quantiles of TOFU's forget10 (400
rows; the pipeline's plain prompt, a byte-level BPE of 8,192 tokens trained on TOFU), 62 tokens a row on average. A
share of .3 of the answer tokens is unwanted, as in the annotation published with arXiv 2506.03142.

Needs torch, transformers and the package tif with what it imports; no benchmark, no DVC, no network.
"""
