"""Stored replies: keys, damage, and locks between processes."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from tif.base.errors import UserError
from tif.identify.openai.prompt import Reply, without_labels
from tif.identify.openai.store import Store, request

KEPT = Reply([["a"]], None, "m", 1, None, True)


def test_what_comes_back_is_what_was_put(tmp_path):
    store, key, other = Store(tmp_path), "ab" * 32, "ac" * 32
    assert store.get(key, 1) is None
    store.put(key, KEPT)
    assert store.get(key, 1) == KEPT
    assert store.get(key, 2) is None  # a reply to another number of rows is none
    assert {path.name for path in (tmp_path / "ab").iterdir()} == {f"{key}.json"}
    nothing = without_labels("refused", [(3, 4)], batch=False)
    store.put(other, nothing)
    assert store.get(other, 2) == nothing


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
    store.put(key, KEPT)
    store.path(key).write_text(damage(store.path(key).read_text()))
    assert store.get(key, 1) is None


def test_the_key_depends_on_server_body_and_sample_and_on_nothing_else():
    body = {"model": "m", "messages": [{"role": "user", "content": "é"}]}
    key = request(None, body, 1, 0).key
    assert key == request("https://api.openai.com/v1/", dict(reversed(body.items())), 3, 0).key
    others = [request("http://x/v1", body, 1, 0), request(None, body | {"seed": 1}, 1, 0), request(None, body, 1, 1)]
    assert len({key, *(other.key for other in others)}) == 4


def holder(folder, code: str) -> subprocess.Popen:
    """Another process with a Store, in which it has done what `code` says; it goes on until it is killed."""
    code = (
        "import sys, pathlib; from tif.identify.openai.store import Store\n"
        f"store = Store(pathlib.Path(sys.argv[1])); {code}; print(True, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    return process


def test_a_key_is_locked_between_processes_until_the_holder_dies(tmp_path):
    store = Store(tmp_path)
    other = holder(tmp_path, "lock = store.locked('ab' * 32); assert lock.__enter__()")
    for key, free in (("ab" * 32, False), ("cd" * 32, True)):
        with store.locked(key) as mine:
            assert mine == free
    other.kill()
    other.communicate()
    with store.locked("ab" * 32) as mine:
        assert mine


@pytest.mark.parametrize("alone", [False, True])
def test_a_run_with_batches_goes_with_no_other(tmp_path, alone):
    store = Store(tmp_path)
    other = holder(tmp_path, f"store.claim({alone})")
    if not alone:
        store.claim(False)
        with store.locked("ab" * 32) as mine:  # which is about one key and not about runs
            assert mine
    for mode in [True, False] if alone else [True]:
        with pytest.raises(UserError, match=r"another run is asking .* openai\.batch = true"):
            store.claim(mode)
    other.kill()
    other.communicate()
    store.claim(True)
    store.release()
    other = holder(tmp_path, "store.claim(True)")  # because that one is free again
    other.kill()
    other.communicate()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "locks").mkdir()
    with pytest.raises(UserError, match=r"locks cannot be written .* set TIF_WORK to a folder of your own"):
        Store(tmp_path)
    store = Store(tmp_path / "other")
    (tmp_path / "other/ab").touch()
    with pytest.raises(UserError, match=r"json cannot be written .* set TIF_WORK"):
        store.put("ab" * 32, KEPT)


def test_nothing_but_the_reply_is_in_the_file(tmp_path):
    store, key = Store(tmp_path), "ef" * 32
    store.put(key, KEPT)
    assert set(json.loads(store.path(key).read_text())) == {*asdict(KEPT), "sha256"}
