"""The Anthropic API on loopback: it streams as the real one does, keeps what it was sent to the byte, and fails on demand.

    with Provider(key) as provider:
        provider.will(say("hello"))            # or fail(429, ...), half(), stall(), silence(), garbage(), step_by_step()
        ...                                    # a request to `provider.url`
        provider.requests[0].body

Without a behaviour it says "hello". Standard library only. `model.py` is another stand-in, for agents that follow a script.
"""

import json
import queue
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RATE_LIMITS = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49"}


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    headers: list
    body: bytes

    def all(self, name: str) -> list:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name]


class Exchange:
    """One request and the connection to answer it on."""

    def __init__(self, owner: "Provider", handler: BaseHTTPRequestHandler, request: Request):
        self.owner, self.request, self._handler = owner, request, handler

    @property
    def asked(self) -> dict:
        return json.loads(self.request.body)

    def head(self, status: int, kind: str, headers: dict | None = None, length: int | None = None) -> None:
        handler = self._handler
        handler.send_response(status)
        framing = {"transfer-encoding": "chunked"} if length is None else {"content-length": str(length)}
        fixed = {"content-type": kind, "request-id": "req_011CSHoEeqs5C35K2UUqR7Fy", "set-cookie": "__cf_bm=tracking; path=/"}
        for name, value in {**fixed, **RATE_LIMITS, **framing, **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()

    def send(self, data: bytes) -> None:
        self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self._handler.wfile.flush()

    def event(self, name: str, **data) -> bytes:
        """One server-sent event; what was sent."""
        whole = ("event: %s\ndata: %s\n\n" % (name, json.dumps({"type": name, **data}))).encode()
        self.send(whole)
        return whole

    def end(self) -> None:
        self._handler.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Ends the connection in the middle."""
        self._handler.connection.shutdown(socket.SHUT_RDWR)
        self._handler.close_connection = True

    def whole(self, status: int, data: bytes, kind: str = "application/json", headers: dict | None = None) -> None:
        self.head(status, kind, headers, len(data))
        self._handler.wfile.write(data)

    def wait_until_gone(self) -> None:
        """Returns when the other side has closed the connection."""
        try:
            self._handler.connection.settimeout(60)
            while self._handler.connection.recv(4096):
                pass
            self.owner.gone.release()
        except ConnectionError:
            self.owner.gone.release()
        except TimeoutError:
            pass
        self._handler.close_connection = True


class Provider:
    """The server. `key` is the only one it accepts."""

    def __init__(self, key: str):
        self.key = key
        self.requests: list = []
        self.go = threading.Semaphore(0)
        self.gone = threading.Semaphore(0)
        self._behaviours: queue.Queue = queue.Queue()

    def __enter__(self) -> "Provider":
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = Request(self.command, self.path, list(self.headers.items()), body)
                owner.requests.append(request)
                owner.behave(Exchange(owner, self, request))

            do_GET = do_POST = do_DELETE = answer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.go.release(1000)
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return "http://127.0.0.1:%d" % self._server.server_address[1]

    def will(self, *behaviours) -> None:
        """How the next requests are answered, one after the other."""
        for behaviour in behaviours:
            self._behaviours.put(behaviour)

    def behave(self, exchange: Exchange) -> None:
        try:
            behaviour = self._behaviours.get_nowait()
        except queue.Empty:
            behaviour = say("hello")
        if exchange.request.all("x-api-key") != [self.key] and not getattr(behaviour, "any_key", False):
            behaviour = fail(401, "authentication_error", "invalid x-api-key")
        try:
            behaviour(exchange)
        except (BrokenPipeError, ConnectionResetError):
            self.gone.release()


# --- behaviours -----------------------------------------------------------------------------------------------------
def usage(output: int) -> dict:
    return {"input_tokens": 25, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 7, "output_tokens": output}


def _begin(exchange: Exchange) -> None:
    exchange.head(200, "text/event-stream; charset=utf-8", {"cache-control": "no-cache"})
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": exchange.asked["model"], "content": []}
    message.update(stop_reason=None, stop_sequence=None, usage=usage(1))
    exchange.event("message_start", message=message)
    exchange.event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    exchange.event("ping")


def _words(exchange: Exchange, text: str) -> None:
    for word in text.split(" "):
        exchange.event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})


def _finish(exchange: Exchange, output: int) -> None:
    exchange.event("content_block_stop", index=0)
    exchange.event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": output})
    exchange.event("message_stop")
    exchange.end()


def say(text: str, output: int = 12):
    """An answer, streamed or in one piece as it was asked for."""

    def behave(exchange: Exchange) -> None:
        if exchange.request.method == "GET":
            return exchange.whole(200, b'{"data":[{"type":"model","id":"claude-sonnet-4-5"}],"has_more":false}')
        if exchange.request.path.split("?")[0].endswith("/count_tokens"):
            return exchange.whole(200, b'{"input_tokens": 14}')
        if exchange.asked.get("stream"):
            _begin(exchange)
            _words(exchange, text)
            return _finish(exchange, output)
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": exchange.asked["model"]}
        message.update(content=[{"type": "text", "text": text}], stop_reason="end_turn", stop_sequence=None, usage=usage(output))
        exchange.whole(200, json.dumps(message).encode())

    return behave


def raw(data: bytes, status: int = 200, kind: str = "application/json", **headers):
    """These very bytes."""
    return lambda exchange: exchange.whole(status, data, kind, {name.replace("_", "-"): value for name, value in headers.items()})


def fail(status: int, kind: str, message: str, **headers):
    """An error in the API's form."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}
    behave = raw(json.dumps(body).encode(), status, **headers)
    wrapped = lambda exchange: behave(exchange)  # noqa: E731
    wrapped.any_key = True
    return wrapped


def half(tail: bytes = b""):
    """A stream that is cut off, after `tail`."""

    def behave(exchange: Exchange) -> None:
        _begin(exchange)
        _words(exchange, "half an")
        if tail:
            exchange.send(tail)
        exchange.cut()

    return behave


def stall():
    """A stream that begins and then says nothing more."""

    def behave(exchange: Exchange) -> None:
        _begin(exchange)
        exchange.wait_until_gone()

    return behave


def silence():
    """Not even a status."""
    return lambda exchange: exchange.wait_until_gone()


def garbage():
    """A stream of nothing that is one."""

    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        exchange.send(GARBAGE)
        exchange.end()

    return behave


GARBAGE = b"data: {\"type\": 5\xff\xfe\n\n\x00\x01data data: [}\r\r\n" + bytes(range(256)) * 40


def step_by_step(*events: bytes):
    """A stream whose every piece waits for `provider.go`."""

    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream; charset=utf-8")
        for event in events:
            exchange.owner.go.acquire()
            exchange.send(event)
        exchange.owner.go.acquire()
        exchange.end()

    return behave
