"""MCP and the API over plain HTTP, with every header under the test's control."""

import http.client
import json
import re
from dataclasses import dataclass

MODERN = "2026-07-28"


@dataclass
class Answer:
    """A response; `message` is its JSON-RPC message, whether it came as JSON or as the last server-sent event."""

    status: int
    headers: dict
    body: bytes

    @property
    def message(self) -> dict:
        if "text/event-stream" in self.headers.get("content-type", ""):
            data = [line[5:].strip() for line in self.body.decode().splitlines() if line.startswith("data:")]
            return json.loads([part for part in data if part][-1])
        return json.loads(self.body)

    @property
    def code(self) -> int:
        return self.message["error"]["code"]

    @property
    def result(self) -> dict:
        assert self.status == 200 and "result" in self.message, "%d %r" % (self.status, self.body[:500])
        return self.message["result"]

    @property
    def text(self) -> str:
        return "\n".join(part.get("text", "") for part in self.result["content"])


def within(text: str) -> str:
    """What is in a fence around a text of strangers; a text that has none, as it is."""
    return re.sub(r"\A\[portcullis:data (\w+)\]\n(?:Strangers may .*\n)?((?s:.*))\n\[portcullis:end \1\]\Z", r"\2", text)


def send(port: int, method: str, path: str, headers: dict | None = None, body: bytes = b"", seconds: float = 30) -> Answer:
    """One request. Without a `Host` in `headers` it carries the listen address."""
    headers = {"Host": "127.0.0.1:%d" % port, **(headers or {})}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        if body and "Transfer-Encoding" not in headers:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        try:
            if "Transfer-Encoding" in headers:
                for start in range(0, len(body), 65536):
                    part = body[start : start + 65536]
                    connection.send(b"%x\r\n%s\r\n" % (len(part), part))
                connection.send(b"0\r\n\r\n")
            elif body:
                connection.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the gateway may refuse before it has read everything
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def modern(method: str, params: dict | None = None, id=1, **changes) -> tuple[dict, bytes]:
    """Headers and body of a request of the 2026-07-28 revision. `changes` replace headers (None leaves one out)."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "plain-http", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {**(params or {}), "_meta": {**meta, **(params or {}).get("_meta", {})}}
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": method,
    }
    if "name" in params or "uri" in params:
        headers["Mcp-Name"] = params.get("name", params.get("uri"))
    headers.update({key.replace("_", "-"): value for key, value in changes.items()})
    return headers, json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def ask(gate, token: str | None, method: str, params: dict | None = None, path: str = "/mcp", seconds: float = 30, **changes) -> Answer:
    """One MCP request."""
    headers, body = modern(method, params, **changes)
    if token is not None:
        headers["Authorization"] = "Bearer " + token
    return send(gate.port, "POST", path, headers, body, seconds)


def call(gate, token: str, tool: str, args: dict | None = None, seconds: float = 60, path: str = "/mcp") -> Answer:
    """One tool call."""
    return ask(gate, token, "tools/call", {"name": tool, "arguments": args or {}}, path=path, seconds=seconds)
