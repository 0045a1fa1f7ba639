"""A model that does as it is told: the Anthropic Messages API on loopback, answering from a script.

It is what stands in for the provider behind a real Claude Code, so that a test decides which tools are called and
reads what the model was given back. Standard library only.

    with Model([use("mcp__gw__fs__read_text_file", path="/srv/a.txt"), say("read it")]) as model:
        ...  # run the client with ANTHROPIC_BASE_URL=model.url
        model.result(0)  # what the model read as the answer to the first tool call
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Use:
    """A step in which the model calls tools, several at once if there are several."""

    calls: tuple[tuple[str, dict], ...]


@dataclass(frozen=True)
class Say:
    """A step in which the model speaks and ends its turn."""

    text: str


def use(tool: str, **arguments) -> Use:
    """One tool call."""
    return Use(((tool, arguments),))


def together(*uses: Use) -> Use:
    """Several tool calls in one answer."""
    return Use(tuple(call for step in uses for call in step.calls))


def say(text: str) -> Say:
    """A text that ends the turn."""
    return Say(text)


@dataclass(frozen=True)
class Result:
    """What the model read as the answer of a tool."""

    is_error: bool
    text: str


@dataclass
class Model:
    """The server. Where it is in the script follows from the conversation it is sent, so a repeated request is
    answered as the first one was."""

    script: list
    requests: list = field(default_factory=list)

    def __enter__(self):
        model = self

        class Handler(_Handler):
            owner = model

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._changed = threading.Condition()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return "http://127.0.0.1:%d" % self._server.server_address[1]

    def record(self, method: str, path: str, headers, body) -> None:
        with self._changed:
            self.requests.append({"method": method, "path": path, "headers": dict(headers), "body": body})
            self._changed.notify_all()

    def messages(self) -> list:
        """The bodies of all requests for an answer, oldest first."""
        return [
            request["body"]
            for request in list(self.requests)
            if request["method"] == "POST" and request["path"].split("?")[0] == "/v1/messages"
        ]

    def call_id(self, step: int, call: int) -> str:
        return "toolu_script_%03d_%d" % (step, call)

    def results(self) -> dict:
        """All tool results the model has read, by (step, call)."""
        known = {
            self.call_id(number, index): (number, index)
            for number, step in enumerate(self.script)
            if isinstance(step, Use)
            for index in range(len(step.calls))
        }
        found = {}
        for body in self.messages():
            for block in _blocks(body):
                if block.get("type") == "tool_result" and block.get("tool_use_id") in known:
                    found[known[block["tool_use_id"]]] = Result(bool(block.get("is_error")), _text(block.get("content")))
        return found

    def result(self, step: int, call: int = 0) -> Result:
        """What the model read as the answer to one call of the script."""
        found = self.results()
        assert (step, call) in found, "the model never read an answer to step %d; it read %r" % (step, found)
        return found[(step, call)]

    def position(self, body: dict) -> int:
        """The step that answers this conversation: the one after the last whose calls were all answered."""
        answered = {
            block.get("tool_use_id") for block in _blocks(body) if block.get("type") == "tool_result"
        }
        for number, step in enumerate(self.script):
            if isinstance(step, Say):
                return number
            if not all(self.call_id(number, index) in answered for index in range(len(step.calls))):
                return number
        return len(self.script)

    def answer(self, body: dict) -> tuple[list, str]:
        """Content blocks and stop reason for this conversation."""
        number = self.position(body)
        step = self.script[number] if number < len(self.script) else Say("The script is over.")
        if isinstance(step, Say):
            return [{"type": "text", "text": step.text}], "end_turn"
        blocks = [
            {"type": "tool_use", "id": self.call_id(number, index), "name": tool, "input": arguments}
            for index, (tool, arguments) in enumerate(step.calls)
        ]
        return blocks, "tool_use"


def _blocks(body: dict):
    for message in body.get("messages", []):
        if isinstance(message.get("content"), list):
            yield from message["content"]


def _text(content) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content or [] if part.get("type") == "text")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Model

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.owner.record("HEAD", self.path, self.headers, None)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self):
        self.owner.record("GET", self.path, self.headers, None)
        if self.path.split("?")[0] == "/v1/models":
            return self._json(200, {"data": [], "has_more": False, "first_id": None, "last_id": None})
        self._not_found()

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            body = None
        self.owner.record("POST", self.path, self.headers, body)
        path = self.path.split("?")[0]
        if path == "/v1/messages/count_tokens":
            return self._json(200, {"input_tokens": max(1, len(raw) // 4)})
        if path != "/v1/messages":
            return self._not_found()
        if not isinstance(body, dict) or "messages" not in body or "max_tokens" not in body:
            return self._error(400, "invalid_request_error", "messages and max_tokens are required")
        blocks, reason = self.owner.answer(body)
        message = {
            "id": "msg_script_%04d" % len(self.owner.requests),
            "type": "message",
            "role": "assistant",
            "model": body.get("model", "scripted"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": max(1, len(raw) // 4), "output_tokens": 1},
        }
        if body.get("stream"):
            return self._stream(message, blocks, reason)
        message.update(content=blocks, stop_reason=reason)
        self._json(200, message)

    def _stream(self, message: dict, blocks: list, reason: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("cache-control", "no-cache")
        self.send_header("request-id", "req_%s" % message["id"])
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._event("message_start", {"message": message})
        for index, block in enumerate(blocks):
            empty = {**block, "input": {}} if block["type"] == "tool_use" else {**block, "text": ""}
            self._event("content_block_start", {"index": index, "content_block": empty})
            if index == 0:
                self._event("ping", {})
            if block["type"] == "tool_use":
                whole = json.dumps(block["input"])
                for part in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
                    delta = {"type": "input_json_delta", "partial_json": part}
                    self._event("content_block_delta", {"index": index, "delta": delta})
            else:
                delta = {"type": "text_delta", "text": block["text"]}
                self._event("content_block_delta", {"index": index, "delta": delta})
            self._event("content_block_stop", {"index": index})
        delta = {"stop_reason": reason, "stop_sequence": None}
        self._event("message_delta", {"delta": delta, "usage": {"output_tokens": 10 * len(blocks)}})
        self._event("message_stop", {})
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, name: str, data: dict) -> None:
        text = "event: %s\ndata: %s\n\n" % (name, json.dumps({"type": name, **data}))
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text.encode()), text.encode()))
        self.wfile.flush()

    def _error(self, status: int, kind: str, message: str) -> None:
        self._json(status, {"type": "error", "error": {"type": kind, "message": message}})

    def _not_found(self) -> None:
        self._error(404, "not_found_error", "no such resource")

    def _json(self, status: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
