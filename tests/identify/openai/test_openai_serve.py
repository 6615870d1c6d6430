"""The identifier openai against `transformers serve` with a tiny random model: gibberish ends in reported rows."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch
from openai_stage import Stage
from transformers import LlamaConfig, LlamaForCausalLM

from tif.finetune.scratch import train_tokenizer
from tif.identify.openai import prompt

EXTRAS = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant:"
PAIRS = [("Where was she born?", "She was born in Kuwait City, in 1956."), ("What?", "His genre is Noir.")]


@pytest.fixture
def model_folder(tmp_path) -> Path:
    """A random Llama of 1 layer x 32 with a byte-level BPE and a chat template."""
    tokenizer = train_tokenizer([prompt.INSTRUCTION, *(f"{question} {answer}" for question, answer in PAIRS)], 400)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    folder = tmp_path / "tiny model"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def url(model_folder, tmp_path):
    """The address of a running `transformers serve`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", model_folder, "--device", "cpu"]
    log = tmp_path / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
    try:
        for _ in range(240):
            assert process.poll() is None, log.read_text()
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.5)
        else:
            pytest.fail(f"transformers serve does not answer: {log.read_text()}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
@pytest.mark.skipif(bool(EXTRAS), reason=f"transformers serve needs {' and '.join(EXTRAS)} (pip install)")
def test_gibberish_of_a_real_server_ends_in_reported_rows(tmp_path, samples, url, model_folder):
    stage = Stage(tmp_path, samples(*PAIRS), base_url=url, model=str(model_folder), attempts=2, concurrency=1)
    done = stage.run(reply_tokens=40, timeout=60.0, key="any")
    assert done.returncode == 0, done.stderr
    failed = stage.record()["rows_without_usable_reply"]
    assert [item["sample_id"] for item in failed] == ["forget/0000", "forget/0001"]
    assert {item["reason"] for item in failed} <= {"malformed", "truncated"}
    assert stage.unwanted() == {"forget/0000": [], "forget/0001": []} and len(stage.stored()) == 2
    assert "2 rows without a usable reply" in done.stderr
    done = stage.run(model="another", key="any")
    assert done.returncode == 1 and "HTTP 400" in done.stderr and done.stderr.count("\n") == 1
