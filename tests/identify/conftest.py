"""Tables of samples for the identifiers, and a chat server on this machine."""

import pyarrow as pa
import pytest
from chat_server import ChatServer
from openai_stage import KEY

from tif.benchmarks import SAMPLES


@pytest.fixture
def samples():
    """Make a table of samples from (prompt, response) pairs; `gold` holds a list of spans or None a pair."""

    def make(*pairs: tuple[str, str], gold: list | None = None) -> pa.Table:
        rows = [
            {
                "sample_id": f"forget/{index:04d}",
                "split": "forget",
                "group": "person",
                "prompt": prompt,
                "response": response,
                "gold_spans": spans if spans is None else [{"start": a, "end": b} for a, b in spans],
            }
            for index, ((prompt, response), spans) in enumerate(zip(pairs, gold or [None] * len(pairs), strict=True))
        ]
        return pa.Table.from_pylist(rows, schema=SAMPLES)

    return make


@pytest.fixture
def server():
    """A chat server, which a test may tell what to answer."""
    made = ChatServer()
    yield made
    made.close()


@pytest.fixture
def own_service(tmp_path, monkeypatch) -> None:
    """An environment with a key, a work folder of the test's own, and nothing that sends requests elsewhere."""
    for variable in ("OPENAI_BASE_URL", "OPENAI_CUSTOM_HEADERS", "OPENAI_LOG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TIF_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # no certificates: to read them takes longer than most tests
