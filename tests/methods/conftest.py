"""A world for the methods: 10 forget and 6 retain samples, and two random models that differ."""

from dataclasses import replace

import pytest
import torch
from support import World

from tif.lm.batches import collate, encode_pairs
from tif.lm.logits import answer_tokens
from tif.reference.refusals import refusal


@pytest.fixture(scope="session")
def make_world(tiny, facts):
    """Make a world with models of a dtype. Forget sample 0 has no unwanted token, and all its scores are 0."""

    def make(dtype: torch.dtype = torch.float32) -> World:
        target = tiny(seed=1, initializer_range=0.15)
        target = replace(target, model=target.model.to(dtype))
        generator = torch.Generator().manual_seed(2)

        def with_reference(example):
            with torch.no_grad():
                tokens = answer_tokens(target.model, collate([example]))
                logprob = -tokens.nll(torch.ones(len(example.offsets), dtype=torch.bool))
                return replace(example, forget=True, reference_logit=tokens.logit(), reference_logprob=logprob)

        pairs = [
            (f"s/{turn}{i}", question, answer[: 9 + i] + " Yes." * turn)
            for turn in range(2)
            for i, (question, answer) in enumerate(facts)
        ]
        pairs = [pairs[i] for i in torch.randperm(len(pairs), generator=generator)]
        encoded = encode_pairs(target, pairs)
        refusals = encode_pairs(target, [(key, question, refusal(key)) for key, question, _ in pairs])
        forget = []
        for index, (example, refused) in enumerate(zip(encoded[:10], refusals[:10], strict=True)):
            size = len(example.offsets)
            unwanted = torch.rand(size, generator=generator) < (0.4 if index else 0)
            score = torch.rand(size, generator=generator) * (torch.rand(size, generator=generator) < 0.7)
            known = with_reference(example)
            forget.append(
                replace(known, unwanted=unwanted, score=score if index else 0 * score, refusal=with_reference(refused))
            )
        return World(tiny(initializer_range=0.15).model.to(dtype), target, forget, encoded[10:])

    return make


@pytest.fixture(scope="session")
def world(make_world):
    """In float32; no test may change its weights."""
    return make_world()


@pytest.fixture(scope="session")
def precise(make_world):
    """In float64 up to the logits, so that hardly any rounding is left but that of the losses."""
    return make_world(torch.float64)
