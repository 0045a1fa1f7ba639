"""An MCP server over stdio with an office: pages of strangers, a book of contacts, and letters that go out. Standard
library only; one message a line. What it knows lies in the folder of its first argument."""

import json
import os
import sys
import time

folder = sys.argv[1]


def where(name: str) -> str:
    return os.path.join(folder, name)


def page(name: str, **_) -> str:
    """What a stranger wrote. A page called `slow` is there when a file `go` is."""
    while name == "slow" and not os.path.exists(where("go")):
        time.sleep(0.05)
    with open(where(name)) as file:
        return file.read()


def secrets(**_) -> str:
    return "the safe opens with 1234"


def contacts(query: str = "", **_) -> str:
    with open(where("book")) as file:
        rows = json.load(file)
    return json.dumps({"asked for": query, "rows": rows})


def add(name: str, email: str, **_) -> str:
    with open(where("book")) as file:
        rows = json.load(file)
    with open(where("book"), "w") as file:
        json.dump([*rows, {"name": name, "email": email}], file)
    return "added"


def letter(to, text: str, cc=None, **_) -> str:
    with open(where("sent"), "a") as file:
        file.write(json.dumps({"to": to, "cc": cc, "text": text}) + "\n")
    return "sent"


TOOLS = {tool.__name__: tool for tool in (page, secrets, contacts, add, letter)}


def send(message: dict) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params") or {}
    if method == "initialize":
        version = params.get("protocolVersion", "2025-11-25")
        send({"id": id, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "office", "version": "1"}}})
    elif method == "tools/list":
        send({"id": id, "result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]}})
    elif method == "tools/call":
        text = TOOLS[params["name"]](**(params.get("arguments") or {}))
        send({"id": id, "result": {"content": [{"type": "text", "text": text}]}})
    elif id is not None and method:
        send({"id": id, "error": {"code": -32601, "message": "method not found"}})
