"""A real HTTP server on loopback that speaks the Chat Completions and Batch endpoints, with faults on demand.

Its labels are a fixed function of the answer: words with a capital letter or a digit (`label`).
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("429", "500", "503", "hang", "drop", "malformed", "truncated", "refused", "not json")
CHAT = "/v1/chat/completions"


def label(answer: str) -> list[str]:
    """The words with a capital letter or a digit, each once."""
    return list(dict.fromkeys(re.findall(r"[^\W_]*[A-Z0-9][^\W_]*", answer)))


def digest(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


class ChatServer:
    """Answers in threads of this process until it is closed.

    label: (answer, second) -> returned words, second being whether it is a second asking. fault: (body, number) -> one
    of FAULTS, an (HTTP status, error) pair, or None, for the number-th request with this body, from 0. Attributes:
    bodies: every body of a Chat Completion in order of arrival. served: body -> good replies. files, batches: those of
    the Batch API; line_fault: (body) -> (status, error) or None for a line of a batch; looks: how often a batch is
    looked at until it ends; end: how it ends, with `error` if it failed. odd: (method, path without query) -> status
    and body of an answer that is given instead, or None. delay: seconds before a reply.
    """

    def __init__(self, key: str | None = None) -> None:
        self.key, self.label, self.fault = key, lambda answer, second: label(answer), lambda body, number: None
        self.bodies: list[str] = []
        self.seen, self.served = Counter(), Counter()
        self.paths: list[str] = []
        self.retry_after, self.hang = "0", 5.0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict] = {}
        self.line_fault, self.looks, self.end = (lambda body: None), 2, "completed"
        self.error = {"message": "line 1 is no JSON", "line": 1}
        self.delay, self.odd = 0.0, lambda method, path: None
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.http = Server(("127.0.0.1", 0), Handler)
        self.http.chat = self
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def complete(self, body: dict) -> dict:
        """The good reply to a body."""
        chat = body["messages"]
        second = chat[-2]["role"] == "assistant" and len(chat) > 4
        rows = json.loads(chat[-3 if second else -1]["content"])["rows"]
        words = [{"id": row["id"], "target_words": self.label(row["answer"], second)} for row in rows]
        return completion(json.dumps({"rows": words}, ensure_ascii=False), body)

    def start_batch(self, request: dict) -> dict:
        number = f"batch_{len(self.batches)}"
        self.batches[number] = {
            "id": number,
            "object": "batch",
            "endpoint": request["endpoint"],
            "completion_window": "24h",
            "created_at": 0,
            "input_file_id": request["input_file_id"],
            "metadata": request["metadata"],
            "status": "validating",
            "looks": 0,
        }
        return self.batches[number]

    def look(self, number: str) -> dict:
        """The batch, which goes on by one step each time somebody looks."""
        batch = self.batches[number]
        batch["looks"] += 1
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if batch["looks"] >= self.looks:
                self.finish(batch)
        return batch

    def finish(self, batch: dict) -> None:
        batch["status"] = self.end
        if self.end == "failed":
            batch["errors"] = {"object": "list", "data": [self.error]}
            return
        good, bad = [], []
        for line in map(json.loads, self.files[batch["input_file_id"]].splitlines()):
            text = json.dumps(line["body"], sort_keys=True)
            self.bodies.append(text)
            problem = self.line_fault(line["body"])
            if problem:
                status, error = problem
                response = {"status_code": status, "body": {"error": error}} if status else None
                bad.append({"custom_id": line["custom_id"], "response": response, "error": None if status else error})
            else:
                self.served[text] += 1
                response = {"status_code": 200, "body": self.complete(line["body"])}
                good.append({"custom_id": line["custom_id"], "response": response, "error": None})
        for name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                batch[name] = f"file_{len(self.files)}"
                # the API gives lines in any order
                self.files[batch[name]] = "".join(json.dumps(line) + "\n" for line in reversed(lines)).encode()


def completion(content: str | None, body: dict, **message) -> dict:
    text = "".join(part["content"] for part in body["messages"])
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"] + "-2000-01-01",
        "choices": [
            {
                "index": 0,
                "finish_reason": message.pop("finish_reason", "stop"),
                "message": {"role": "assistant", "content": content, "refusal": None, **message},
            }
        ],
        "usage": {
            "prompt_tokens": len(text) // 4,
            "completion_tokens": len(content or "") // 4,
            "total_tokens": 0,
        },
    }


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no event."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *args) -> None:
        """Keep the output of the tests clean."""

    @property
    def chat(self) -> ChatServer:
        return self.server.chat

    def send(self, status: int, body: object, kind: str = "application/json", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.chat.key in (None, given.removeprefix("Bearer ")):
            return True
        key = given.removeprefix("Bearer ")
        said = f"Incorrect API key provided: {key[:8]}*****{key[-4:]} ({key})."
        self.send(401, {"error": {"message": said, "code": "invalid_api_key"}})
        return False

    def oddly(self) -> bool:
        """Whether an odd answer was sent."""
        odd = self.chat.odd(self.command, self.path.split("?")[0])
        if odd:
            html = isinstance(odd[1], bytes) and odd[1].startswith(b"<")
            self.send(*odd, "text/html" if html else "application/json")
        return bool(odd)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.chat.paths.append(self.path)
        if not self.allowed() or self.oddly():
            return
        if self.path == CHAT:
            self.answer(json.loads(content))
        elif self.path == "/v1/files":
            with self.chat.lock:
                name = f"file_{len(self.chat.files)}"
                self.chat.files[name] = uploaded(self.headers["Content-Type"], content)
            self.send(
                200, {"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": name, "purpose": "batch"}
            )
        elif self.path == "/v1/batches":
            with self.chat.lock:
                batch = self.chat.start_batch(json.loads(content))
            self.send(200, batch)
        else:
            self.send(404, {"error": {"message": "no such path", "code": "not_found"}})

    def do_GET(self) -> None:
        self.chat.paths.append(self.path)
        path = self.path.split("?")[0].removeprefix("/v1/").split("/")
        if not self.allowed() or self.oddly():
            return
        if path[0] == "batches" and len(path) == 1:
            self.send(200, {"object": "list", "data": list(self.chat.batches.values()), "has_more": False})
        elif path[0] == "batches" and path[1] in self.chat.batches:
            with self.chat.lock:
                self.send(200, self.chat.look(path[1]))
        elif path[0] == "files" and path[1] in self.chat.files:
            self.send(200, self.chat.files[path[1]], "application/octet-stream")
        else:
            self.send(404, {"error": {"message": "no such thing", "code": "not_found"}})

    def answer(self, body: dict) -> None:
        chat, text = self.chat, json.dumps(body, sort_keys=True)
        with chat.lock:
            number = chat.seen[text]
            chat.seen[text] += 1
            chat.bodies.append(text)
        fault = chat.fault(text, number)
        if chat.delay:
            time.sleep(chat.delay)
        good = chat.complete(body)
        content = good["choices"][0]["message"]["content"]
        if fault is None:
            with chat.lock:
                chat.served[text] += 1
            self.send(200, good)
        elif isinstance(fault, tuple):
            self.send(fault[0], {"error": fault[1]})
        elif fault == "429":
            self.send(429, {"error": {"message": "slow down", "code": "rate_limit"}}, Retry_After=chat.retry_after)
        elif fault in ("500", "503"):
            self.send(int(fault), b"<html>Bad gateway</html>", "text/html")
        elif fault == "hang":
            chat.closing.wait(chat.hang)
            self.close_connection = True
        elif fault == "drop":
            self.close_connection = True
        elif fault == "malformed":
            self.send(200, completion(content[: len(content) // 2] or "?", body))
        elif fault == "key":  # in a form that only a reader of JSON sees
            given = self.headers["Authorization"].removeprefix("Bearer ")
            escaped = "".join(f"\\u{ord(character):04x}" for character in given)
            self.send(200, completion(f'{{"rows": [{{"id": 1, "target_words": ["{escaped}"]}}]}}', body))
        elif fault == "truncated":
            self.send(200, completion(content[: len(content) // 2], body, finish_reason="length"))
        elif fault == "refused":
            self.send(200, completion(None, body, refusal="I cannot help with that."))
        elif fault == "not json":
            self.send(200, b'{"choices": [')
        elif fault == "html":
            self.send(200, b"<!doctype html><title>Welcome</title>", "text/html; charset=utf-8")
        else:
            raise ValueError(fault)


def uploaded(content_type: str, content: bytes) -> bytes:
    """The file in a multipart form."""
    form = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + content)
    return next(part.get_payload(decode=True) for part in form.iter_parts() if part.get_filename())
