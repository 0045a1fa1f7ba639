"""An MCP server that counts: every execution is a line in a file outside the gateway, on the disk before it is answered.

Over stdio: `counting.py FILE`. Over HTTP it is part of the tests' own process: `faults.Counter`.
"""

import json
import os
import sys

NONCE = {"type": "object", "properties": {"nonce": {"type": "string"}}, "required": ["nonce"]}
TOOLS = ("mark", "touch", "never", "broken", "wrong", "taint", "both")


def execute(path: str, tool: str, nonce: str) -> int:
    """Notes an execution; which one it is of this nonce."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, ("%s %s\n" % (tool, nonce)).encode())
        os.fsync(file)
        with open(path) as lines:
            return sum(1 for line in lines if line.split()[1:] == [nonce])
    finally:
        os.close(file)


def answer(path: str, message: dict):
    """The answer to a message; `None` where there is none, `...` where the connection is to break after the work is done."""
    method, id, params = message.get("method"), message.get("id"), message.get("params") or {}
    if method == "initialize":
        version = params.get("protocolVersion", "2025-11-25")
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "counting", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": tool, "description": tool, "inputSchema": NONCE} for tool in TOOLS]}
    elif method == "tools/call":
        tool, nonce = params["name"], params["arguments"]["nonce"]
        number = execute(path, tool, nonce)
        if tool == "broken":
            return ...
        result = {"content": [{"type": "text", "text": "done %s %d" % (nonce, number)}], "isError": tool == "wrong"}
    elif method == "ping":
        result = {}
    elif id is None:
        return None
    else:
        return {"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "method not found"}}
    return None if id is None else {"jsonrpc": "2.0", "id": id, "result": result}


if __name__ == "__main__":
    for line in sys.stdin:
        told = answer(sys.argv[1], json.loads(line))
        if told is ...:
            os._exit(1)
        if told is not None:
            print(json.dumps(told), flush=True)
