"""A tiny tokenizer, tiny models, tables of samples and a small copy of TOFU's form that the tests share."""

import gc
import json
import signal
from collections.abc import Callable

import pyarrow as pa
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tif.benchmarks import SAMPLES
from tif.finetune.scratch import token_mean, train_tokenizer
from tif.lm.batches import encode_pairs
from tif.lm.models import Card, LanguageModel
from tif.lm.prompts import PromptFormat
from tif.training import Optimisation
from tif.training.loop import Run, Task, train

PEOPLE = ("Ada Lind", "Bo Marek", "Cy Orlov", "Di Paine", "Ed Quist", "Fay Rossi", "Gus Stein", "Hal Toomey")
TOWNS = ("Arlen", "Brunov", "Castell", "Dorwick", "Elmsta", "Farrow", "Gildan", "Hythe")
FACTS = [(f"Where was {person} born?", f"{person} was born in {town}.") for person, town in zip(PEOPLE, TOWNS)]
CARD = Card(prompt="plain", date="", dtype="float32", attention="sdpa")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Models this small are faster on one thread, and a fixed count keeps sums in one order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _nothing_to_collect():
    """Each Trainer begins with a garbage collection, which takes longer than the rest of a tiny run otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def own_signals():
    """For tests that call `tif.base.stage.run` here: it makes SIGTERM end a stage, and not the tests."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def facts() -> list[tuple[str, str]]:
    """Eight (question, answer) pairs of one form: a person and a birthplace."""
    return FACTS


@pytest.fixture(scope="session")
def plain() -> PromptFormat:
    return PromptFormat("plain", "")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of 320 tokens."""
    return train_tokenizer([f"Question: {question}\nAnswer: {answer}" for question, answer in FACTS], 320)


@pytest.fixture(scope="session")
def tiny(tokenizer) -> Callable[..., LanguageModel]:
    """Make a new random Llama of 2 layers x 32, with weights large enough to make its logits differ clearly."""

    def make(seed: int = 0, **changes) -> LanguageModel:
        torch.manual_seed(seed)
        config = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            "initializer_range": 0.2,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        }
        model = LlamaForCausalLM._from_config(LlamaConfig(**config | changes), attn_implementation="sdpa")
        return LanguageModel(model.eval(), tokenizer, CARD)

    return make


@pytest.fixture(scope="session")
def language_model(tiny) -> LanguageModel:
    """A random model that no test may train."""
    return tiny()


@pytest.fixture(scope="session")
def memorised(tiny, facts) -> dict[str, torch.Tensor]:
    """Weights of a model that has learned all eight facts by heart."""
    language_model = tiny(initializer_range=0.02)
    pairs = [(f"full/{i:04d}", *pair) for i, pair in enumerate(facts)]
    learning = Optimisation(
        epochs=80, batch=8, micro_batch=8, lr=0.01, weight_decay=0.01, warmup=0.1, max_grad_norm=1.0, seed=0
    )
    log = train(language_model, Task(encode_pairs(language_model, pairs), token_mean), learning, Run())
    assert log[-1]["loss"] < 0.1
    return language_model.model.state_dict()


@pytest.fixture(scope="session")
def table() -> Callable[..., pa.Table]:
    """Make a table of samples from (question, answer) pairs; columns given by name replace the defaults."""

    def make(name: str, pairs: list[tuple[str, str]], **columns: list) -> pa.Table:
        rows = [
            {
                "sample_id": f"{name}/{index:04d}",
                "split": name,
                "group": "someone",
                "prompt": question,
                "response": answer,
                "paraphrased_response": f"The answer: {answer}",
                "perturbed_responses": [answer[:-1] + " Bay.", answer[:-1] + " Hill."],
                **{column: values[index] for column, values in columns.items()},
            }
            for index, (question, answer) in enumerate(pairs)
        ]
        return pa.Table.from_pylist(rows, schema=SAMPLES)

    return make


@pytest.fixture(scope="session")
def forget(table, facts) -> pa.Table:
    """The first four facts."""
    return table("forget", facts[:4])


@pytest.fixture(scope="session")
def retain(table, facts) -> pa.Table:
    """The last four facts."""
    return table("retain", facts[4:])


def _qa(index: int) -> dict:
    return {"question": f"What did author {index // 20} do in {1900 + index}?", "answer": f"A thing called “n{index}”."}


def _perturbed(row: dict, paraphrases: bool = True) -> dict:
    other = {"paraphrased_answer": "P: " + row["answer"], "paraphrased_question": "P: " + row["question"]}
    return {
        **row,
        **(other if paraphrases else {}),
        "perturbed_answer": [row["answer"] + f" wrong {i}" for i in range(5)],
    }


@pytest.fixture
def tofu_files() -> dict[str, list[dict]]:
    """File name -> rows in TOFU's form: 4 authors of 20 questions, the last of them in forget01.

    As in the real benchmark, retain_perturbed covers only the first part of retain.
    """
    full = [_qa(index) for index in range(80)]
    utility = [{"question": f"Who is number {i}?", "answer": f"Number {i}"} for i in range(3)]
    return {
        "full.json": full,
        "forget01.json": full[60:],
        "retain99.json": full[:60],
        "forget01_perturbed.json": [_perturbed(row) for row in full[60:]],
        "retain_perturbed.json": [_perturbed(row) for row in full[:10]],
        "real_authors_perturbed.json": [_perturbed(row, paraphrases=False) for row in utility],
        "world_facts_perturbed.json": [_perturbed(row, paraphrases=False) for row in utility[:2]],
    }


@pytest.fixture
def write_tofu(tmp_path):
    """Write such files as JSON lines without a last newline (the hub's form) into a folder and return it."""

    def write(files: dict[str, list[dict]], name: str = "copy of [tofu]"):
        folder = tmp_path / name
        folder.mkdir()
        for file, rows in files.items():
            (folder / file).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return folder

    return write
