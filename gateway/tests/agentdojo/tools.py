"""The suites' tools as MCP servers over HTTP, one for each story, at `/STORY/mcp`."""

import http.server
import json
import threading

ERA = "2025-11-25"


class Tools:
    """Serves the stories it is given until it is stopped."""

    def __init__(self, stories: dict):
        self.stories = stories
        self.lock = threading.Lock()
        tools = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                story = tools.stories.get(self.path.split("/")[1])
                answer = tools.answer(story, body) if story and "id" in body else None
                text = b"" if answer is None else json.dumps({"jsonrpc": "2.0", "id": body["id"], **answer}).encode()
                self.send_response(202 if answer is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                self.send_response(405)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_DELETE = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, story, request: dict) -> dict:
        method, params = request["method"], request.get("params") or {}
        if method == "initialize":
            offered = {"protocolVersion": ERA, "capabilities": {"tools": {}}}
            return {"result": {**offered, "serverInfo": {"name": "agentdojo", "version": "1"}}}
        if method == "ping":
            return {"result": {}}
        if method == "tools/list":
            return {"result": {"tools": listed(story.suite)}}
        if method == "tools/call":
            with self.lock:
                text = story.call(params["name"], params.get("arguments") or {})
            return {"result": {"content": [{"type": "text", "text": text}], "isError": False}}
        return {"error": {"code": -32601, "message": "no such method"}}


_LISTED: dict = {}


def listed(suite) -> list:
    if suite.name not in _LISTED:
        _LISTED[suite.name] = [
            {"name": tool.name, "description": tool.description, "inputSchema": tool.parameters.model_json_schema()}
            for tool in suite.tools
        ]
    return _LISTED[suite.name]
