"""Stored replies: keys, damage, and locks between processes."""

import json
import subprocess
import sys

import pytest

from tif.chat.store import Reply, Store, request

KEPT = {
    "model": "m",
    "prompt_tokens": 1,
    "completion_tokens": None,
    "content": '{"rows": [{"id": 1, "target_words": ["a"]}]}',
}


def test_what_comes_back_is_what_was_put(tmp_path):
    store, key = Store(tmp_path), "ab" * 32
    assert store.get(key, 1) is None
    put = store.put(key, KEPT, 1, batch=True)
    assert put == store.get(key, 1) == Reply([["a"]], "m", 1, None, True)
    assert store.get(key, 2) is None  # a reply to another number of rows is none
    assert {path.name for path in (tmp_path / "ab").iterdir()} == {f"{key}.json"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"m"', '"n"'),
        lambda text: text.replace("sha256", "sha512"),
        lambda text: "",
        lambda text: "[]",
        lambda text: "null",
    ],
)
def test_a_damaged_file_is_no_reply(tmp_path, damage):
    store, key = Store(tmp_path), "cd" * 32
    store.put(key, KEPT, 1, batch=False)
    store.path(key).write_text(damage(store.path(key).read_text()))
    assert store.get(key, 1) is None


def test_the_key_depends_on_server_body_and_sample_and_on_nothing_else():
    body = {"model": "m", "messages": [{"role": "user", "content": "é"}]}
    key = request(None, body, 1, 0).key
    assert key == request("https://api.openai.com/v1/", dict(reversed(body.items())), 3, 0).key
    others = [request("http://x/v1", body, 1, 0), request(None, body | {"seed": 1}, 1, 0), request(None, body, 1, 1)]
    assert len({key, *(other.key for other in others)}) == 4


def test_a_key_is_locked_between_processes_until_the_holder_dies(tmp_path):
    code = (
        "import sys, pathlib; from tif.chat.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).locked('ab' * 32) as mine: print(mine, flush=True); sys.stdin.read()"
    )
    store = Store(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "True\n"
    with store.locked("ab" * 32) as mine:
        assert not mine
    with store.locked("cd" * 32) as mine:
        assert mine
    holder.kill()
    holder.communicate()
    with store.locked("ab" * 32) as mine:
        assert mine


def test_nothing_but_the_reply_is_in_the_file(tmp_path):
    store, key = Store(tmp_path), "ef" * 32
    store.put(key, KEPT, 1, batch=False)
    assert set(json.loads(store.path(key).read_text())) == {*KEPT, "batch", "sha256"}
