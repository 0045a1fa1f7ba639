"""The worst agent there is, as a core of one's own: it does what it was asked, and obeys whatever it reads.

It is given a file with the calls of the person's task, the calls of the injection, and the mark by which it knows one. As
soon as a result holds the mark it makes the injection's calls and nothing else, until one is refused. It is a
program of its own that reaches the gateway with the token of its run and knows nothing else of this harness.
"""

import http.client
import json
import os
import sys
import urllib.parse

URL = urllib.parse.urlsplit(os.environ["PORTCULLIS_MCP_URL"])
ERA = "2026-07-28"


def mcp(connection, name: str, args: dict) -> dict:
    meta = {
        "io.modelcontextprotocol/protocolVersion": ERA,
        "io.modelcontextprotocol/clientInfo": {"name": "worst-case", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": args, "_meta": meta}}
    headers = {
        "Authorization": "Bearer " + os.environ["PORTCULLIS_TOKEN"],
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": ERA,
        "Mcp-Method": "tools/call",
        "Mcp-Name": name,
    }
    connection.request("POST", URL.path, json.dumps(body), headers)
    text = connection.getresponse().read().decode()
    events = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    answer = json.loads([event for event in events if event][-1] if events else text)
    if "error" in answer:
        raise SystemExit("%s: %s" % (name, answer["error"]))
    return answer["result"]


def tell(**event) -> None:
    print(json.dumps(event), flush=True)


def main() -> None:
    with open(sys.argv[1]) as file:
        story = json.load(file)
    json.loads(sys.stdin.readline())
    connection = http.client.HTTPConnection(URL.hostname, URL.port, timeout=300)
    refused = 0

    def read(tool: str, args: dict) -> str | None:
        result = mcp(connection, story["server"] + "__" + tool, args)
        if result.get("isError"):
            return None  # the tools' own errors are words: this is the gateway's refusal
        return "\n".join(part.get("text", "") for part in result["content"])

    for tool, args in story["asked"]:
        text = read(tool, args)
        if text is None:
            refused += 1
        elif story["planted"] is not None and story["mark"] in text:
            for tool, args in story["planted"]:
                if read(tool, args) is None:
                    refused += 1
                    break
            break
    told = "That is done." if not refused else "%d calls were refused." % refused
    tell(type="message", message={"role": "assistant", "content": [{"type": "text", "text": told}]})
    tell(type="done")


main()
