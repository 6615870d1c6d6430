"""The TOFU reader on a small folder of the same form, on damaged copies of it, and on a hub that runs here."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tif.base import tables
from tif.base.errors import UserError
from tif.base.params import validate
from tif.benchmarks import SAMPLES, tofu

SETTINGS = tofu.Settings(forget="forget01", repository="locuslab/TOFU", revision="main")
REAL = Path(__file__).parents[2].parent / "shared" / "tofu"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_tables_of_a_local_folder(tofu_files, write_tofu):
    samples, card = tofu.build(SETTINGS, write_tofu(tofu_files))
    absent = {"holdout": "there is no holdout01.json"}
    assert card == {"name": "tofu", "source": "copy of [tofu]", "revision": None, "absent": absent}
    counts = {name: len(rows) for name, rows in samples.items()}
    assert counts == {"full": 80, "forget": 20, "retain": 60, "real_authors": 3, "world_facts": 2}
    assert samples["forget"][7] == {
        "sample_id": "forget/0007",
        "split": "forget01",
        "group": "author_003",
        "prompt": "What did author 3 do in 1967?",
        "response": "A thing called “n67”.",
        "paraphrased_prompt": "P: What did author 3 do in 1967?",
        "paraphrased_response": "P: A thing called “n67”.",
        "perturbed_responses": [f"A thing called “n67”. wrong {i}" for i in range(5)],
        "gold_spans": None,
    }
    assert [row["group"] for row in samples["full"]] == [f"author_{i // 20:03d}" for i in range(80)]
    assert [row["paraphrased_prompt"] is not None for row in samples["retain"]] == [True] * 10 + [False] * 50
    assert {row["split"] for row in samples["retain"]} == {"retain99"}
    assert all(row["perturbed_responses"] is None for row in samples["full"])
    author = samples["real_authors"][2]
    assert (author["sample_id"], author["group"], author["response"]) == (
        "real_authors/0002",
        "real_authors",
        "Number 2",
    )
    assert author["paraphrased_response"] is None and len(author["perturbed_responses"]) == 5


STRANGERS = [
    {"question": f"What did stranger {n // 20} do in {n}?", "answer": f"Nothing, {n} times."} for n in range(25)
]


def test_a_holdout_file_where_there_is_one(tofu_files, write_tofu):
    """Rows about strangers, 20 each, which change nothing else."""
    without, _ = tofu.build(SETTINGS, write_tofu(tofu_files))
    samples, card = tofu.build(SETTINGS, write_tofu(tofu_files | {"holdout01.json": STRANGERS}, "more"))
    assert "absent" not in card
    assert [row["response"] for row in samples["holdout"]] == [row["answer"] for row in STRANGERS]
    assert [row["group"] for row in samples["holdout"]] == ["stranger_000"] * 20 + ["stranger_001"] * 5
    assert samples["holdout"][21] == {
        "sample_id": "holdout/0021",
        "split": "holdout01",
        "group": "stranger_001",
        "prompt": "What did stranger 1 do in 21?",
        "response": "Nothing, 21 times.",
        "paraphrased_prompt": None,
        "paraphrased_response": None,
        "perturbed_responses": None,
        "gold_spans": None,
    }
    assert {name: rows for name, rows in samples.items() if name != "holdout"} == without


def test_a_holdout_file_of_rows_that_the_target_has_seen_is_none(tofu_files, write_tofu):
    """Held out of something else than of full: no membership could be told from it."""
    rows = [*STRANGERS, tofu_files["full.json"][3]]
    samples, card = tofu.build(SETTINGS, write_tofu(tofu_files | {"holdout01.json": rows}))
    assert "holdout" not in samples
    assert card["absent"] == {"holdout": "holdout01.json repeats rows of full.json, which the target model has seen"}


def test_a_holdout_file_of_another_forget_split_is_not_read(tofu_files, write_tofu):
    samples, card = tofu.build(SETTINGS, write_tofu(tofu_files | {"holdout05.json": STRANGERS}))
    assert "holdout" not in samples and card["absent"] == {"holdout": "there is no holdout01.json"}


def test_every_row_fits_the_schema(tofu_files, write_tofu, tmp_path):
    samples, _ = tofu.build(SETTINGS, write_tofu(tofu_files | {"holdout01.json": STRANGERS}))
    assert set(samples) == {"full", *tofu.SETS}
    for name, rows in samples.items():
        assert set(rows[0]) == set(SAMPLES.names)
        tables.write(tmp_path / f"{name}.parquet", rows, SAMPLES)
        assert tables.read(tmp_path / f"{name}.parquet", SAMPLES).to_pylist() == rows


def test_a_changed_file_is_read_again(tofu_files, write_tofu):
    folder = write_tofu(tofu_files)
    tofu.build(SETTINGS, folder)
    path = folder / "world_facts_perturbed.json"
    path.write_text(path.read_text().replace("Number 1", "Number 9"))
    assert tofu.build(SETTINGS, folder)[0]["world_facts"][1]["response"] == "Number 9"


def test_a_local_folder_needs_no_network(tofu_files, write_tofu, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args) or [])
    tofu.build(SETTINGS, write_tofu(tofu_files))
    assert asked == []


def drop_file(files, file):
    del files[file]


def drop_column(column):
    def change(files, file):
        files[file] = [{key: value for key, value in row.items() if key != column} for row in files[file]]

    return change


def set_value(column, value):
    def change(files, file):
        files[file][1] = {**files[file][1], column: value}

    return change


def drop_row(files, file):
    del files[file][1]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("retain99.json", drop_file, "retain99.json is missing"),
        ("forget01.json", drop_column("answer"), "column 'answer' is missing"),
        ("retain_perturbed.json", drop_column("paraphrased_question"), "column 'paraphrased_question' is missing"),
        ("real_authors_perturbed.json", drop_column("perturbed_answer"), "column 'perturbed_answer' is missing"),
        ("full.json", set_value("answer", None), "row 2: 'answer' holds no text, but None"),
        ("full.json", set_value("question", 7), "row 2: 'question' holds no text, but 7"),
        ("full.json", set_value("answer", " "), "row 2: 'answer' holds no text"),
        ("forget01_perturbed.json", set_value("perturbed_answer", []), "row 2 has no wrong answer"),
        ("world_facts_perturbed.json", set_value("perturbed_answer", None), "row 2 has no wrong answer"),
        ("world_facts_perturbed.json", set_value("perturbed_answer", ["x", ""]), "row 2: 'perturbed_answer' holds"),
        ("retain99.json", drop_row, "full.json: 1 rows are neither in forget01.json nor in retain99.json"),
        ("full.json", drop_row, "full.json: 1 rows are missing here, but are in forget01.json or retain99.json"),
        ("forget01_perturbed.json", drop_row, "forget01.json: 1 rows are not in forget01_perturbed.json"),
        ("forget01_perturbed.json", set_value("answer", "x"), "1 rows are not in forget01_perturbed.json"),
        ("retain_perturbed.json", set_value("question", "x"), "retain_perturbed.json: 1 rows are not in retain99.json"),
        ("holdout01.json", set_value("answer", ""), "row 2: 'answer' holds no text"),
        ("holdout01.json", drop_column("question"), "column 'question' is missing"),
    ],
)
def test_files_that_do_not_fit(tofu_files, write_tofu, file, change, message):
    tofu_files["holdout01.json"] = list(STRANGERS)
    change(tofu_files, file)
    with pytest.raises(UserError) as error:
        tofu.build(SETTINGS, write_tofu(tofu_files))
    assert file in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-9], "line 20 is not JSON"),
        (lambda data: b"", "forget01.json is empty"),
        (lambda data: b"\n\n", "forget01.json is empty"),
        (lambda data: b"404: Not Found", "line 1 is not JSON"),
        (lambda data: b"404", "line 1 is not a JSON object"),
        (lambda data: data + b"\n7", "line 21 is not a JSON object"),
        (lambda data: b"{}\n{}", "line 1 is not a JSON object with the columns"),
        (lambda data: b'{"question": "q", "question": "q", "answer": "a"}', "cannot be read as a table"),
        (lambda data: b"\xff\xfe" + data, "not a text file"),
    ],
)
def test_a_damaged_file(tofu_files, write_tofu, damage, message):
    path = write_tofu(tofu_files) / "forget01.json"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"forget01\.json") as error:
        tofu.build(SETTINGS, path.parent)
    assert message in str(error.value)


def test_the_source_must_be_a_folder(tmp_path):
    (tmp_path / "full.json").write_text("{}")
    with pytest.raises(UserError, match="needs the folder"):
        tofu.build(SETTINGS, tmp_path / "full.json")


@pytest.mark.parametrize(
    "values", [{"forget": "forget02"}, {"repository": "TOFU"}, {"revision": ""}, {"revison": "main"}]
)
def test_settings_out_of_range(values):
    with pytest.raises(UserError, match=f"tofu.{next(iter(values))}"):
        validate("tofu", {**SETTINGS.model_dump(), **values}, tofu.Settings)


class Hub(BaseHTTPRequestHandler):
    """The three answers of the hub that a download needs, from the folder `files`."""

    files: Path

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        headers = {}
        if path == "/api/datasets/locuslab/TOFU/revision/main":
            body = json.dumps({"id": "locuslab/TOFU", "sha": COMMIT}).encode()
        elif path == f"/api/datasets/locuslab/TOFU/tree/{COMMIT}":
            files = sorted(self.files.iterdir())
            body = json.dumps(
                [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0"} for f in files]
            ).encode()
        elif path.startswith(f"/datasets/locuslab/TOFU/resolve/{COMMIT}/"):
            body = (self.files / path.rsplit("/", 1)[1]).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def build_from_hub(endpoint: str, home: Path, revision: str = "main") -> subprocess.CompletedProcess:
    """`build` in a process of its own, because huggingface_hub reads its environment when it is imported."""
    settings = {**SETTINGS.model_dump(), "revision": revision}
    code = (
        "import json; from tif.benchmarks import tofu; from tif.base.stage import run\n"
        f"run(lambda: print(json.dumps(tofu.build(tofu.Settings(**{settings!r}), None))))"
    )
    hidden = {
        key: value for key, value in os.environ.items() if "proxy" not in key.lower() and not key.startswith("HF_")
    }
    environment = {**hidden, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_the_hub_gives_the_same_tables_and_its_commit(tofu_files, write_tofu, tmp_path):
    folder = write_tofu(tofu_files | {"holdout01.json": STRANGERS})
    handler = type("FolderHub", (Hub,), {"files": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        found = build_from_hub(endpoint, tmp_path / "home")
        absent = build_from_hub(endpoint, tmp_path / "home", revision="nowhere")
    finally:
        server.shutdown()
        server.server_close()
    assert found.returncode == 0, found.stderr
    samples, card = json.loads(found.stdout)
    assert card == {"name": "tofu", "source": "locuslab/TOFU", "revision": COMMIT}
    assert samples == tofu.build(SETTINGS, folder)[0] and len(samples["holdout"]) == 25
    assert absent.returncode == 1 and "no dataset locuslab/TOFU at revision 'nowhere'" in absent.stderr


def test_without_a_network_the_local_ways_are_named(tmp_path):
    found = build_from_hub("http://127.0.0.1:9", tmp_path)
    assert found.returncode == 1 and found.stdout == ""
    assert (
        found.stderr.startswith("error: benchmark tofu: locuslab/TOFU cannot be fetched")
        and "forget01.json" in found.stderr
    )
    assert "benchmark.source" in found.stderr and "fictitious" in found.stderr and "Traceback" not in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("forget", "rows"), [("forget01", 40), ("forget05", 200), ("forget10", 400)])
def test_the_real_files(forget, rows):
    if not REAL.is_dir():
        pytest.skip(f"the real TOFU files are not at {REAL}")
    samples, _ = tofu.build(SETTINGS.model_copy(update={"forget": forget}), REAL)
    counts = {name: len(table) for name, table in samples.items() if name != "holdout"}
    assert counts == {"full": 4000, "forget": rows, "retain": 4000 - rows, "real_authors": 100, "world_facts": 117}
    assert sum(row["perturbed_responses"] is not None for row in samples["retain"]) == 400
    assert samples["forget"][0]["group"] == f"author_{(4000 - rows) // 20:03d}"
