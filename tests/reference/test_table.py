"""The reference table: one row a token of every answer and of every refusal, as the target model's own logits say."""

import pytest
import torch

from tif.base import tables
from tif.reference import REFERENCE
from tif.reference.refusals import refusal
from tif.reference.table import reference_rows


@torch.no_grad()
def test_reference_rows(language_model, forget, tmp_path):
    """One row a token, keyed by its place in the whole row; its text, its logit and its log-probability."""
    reference = reference_rows(language_model, forget, progress=False)
    rows = reference.to_pylist()
    found = 0
    columns = (forget[name].to_pylist() for name in ("sample_id", "prompt", "response"))
    answers = [(*row, "response") for row in zip(*columns)]
    answers += [(sample_id, question, refusal(sample_id), "refusal") for sample_id, question, _, _ in answers]
    for sample_id, question, answer, kind in answers:
        ids = language_model.tokenizer(f"Question: {question}\nAnswer: {answer}<|end|>")["input_ids"]
        logits = language_model.model(input_ids=torch.tensor([ids])).logits[0]
        mine = [row for row in rows if (row["sample_id"], row["answer"]) == (sample_id, kind)]
        found += len(mine)
        assert [row["position"] for row in mine] == list(range(len(ids) - len(mine), len(ids)))
        assert "".join(answer[row["start"] : row["end"]] for row in mine) == answer
        for row in mine:
            assert row["token_id"] == ids[row["position"]]
            scores = logits[row["position"] - 1]
            assert row["logit"] == pytest.approx(scores[row["token_id"]].item(), rel=1e-4, abs=1e-4)
            assert row["logprob"] == pytest.approx(scores.log_softmax(-1)[row["token_id"]].item(), rel=1e-4)
    assert found == len(rows)
    tables.write(tmp_path / "reference.parquet", reference, REFERENCE)
    assert len(tables.read(tmp_path / "reference.parquet", REFERENCE)) == len(rows)
