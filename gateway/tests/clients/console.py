"""A browser's side of the console over plain HTTP, with every credential under the test's control."""

import json
import re

from mcp_http import Answer, send


def link(gate, *arguments: str) -> str:
    """The secret of a one-time link, as `portcullis login` prints it."""
    done = gate.run("login", *arguments)
    assert done.returncode == 0, done.stderr
    match = re.fullmatch(r"(http://\S+)/login#(\S+)\n", done.stdout)
    assert match, done.stdout
    return match[2]


def redeem(gate, secret: str, **headers) -> Answer:
    body = json.dumps({"secret": secret}).encode()
    return send(gate.port, "POST", "/login", {"Content-Type": "application/json", **dashed(headers)}, body)


def dashed(headers: dict) -> dict:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Browser:
    """A session. `cookie` and `token` are sent unless a request says otherwise."""

    def __init__(self, gate, *arguments: str):
        self.gate = gate
        answer = redeem(gate, link(gate, *arguments))
        assert answer.status == 200, "%d %r" % (answer.status, answer.body)
        self.set_cookie = answer.headers["set-cookie"]
        self.cookie = self.set_cookie.split(";")[0]
        self.token = json.loads(answer.body)["token"]

    def send(self, method: str, path: str, body=None, **headers) -> Answer:
        sent = {"Cookie": self.cookie, "X-Portcullis-Token": self.token, **dashed(headers)}
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        return send(self.gate.port, method, path, sent, json.dumps(body).encode() if body is not None else b"")

    def get(self, path: str, **headers) -> Answer:
        return self.send("GET", path, **headers)

    def api(self, path: str):
        answer = self.get("/api/v1" + path)
        assert answer.status == 200, "%s: %d %r" % (path, answer.status, answer.body[:300])
        return json.loads(answer.body)

    def post(self, path: str, body=None, **headers) -> Answer:
        return self.send("POST", "/api/v1" + path, {} if body is None else body, **headers)
