"""A client on the Python `mcp` SDK, driven line by line, so that one test can hold several SDKs side by side.

    python sdk_client.py URL ERA      TOKEN in the environment; ERA is `legacy` or `modern`

Reads one JSON command a line, `{"n": 1, "op": "list"}` or `{"n": 2, "op": "call", "tool": …, "args": …}`, and prints
one JSON event a line, each with the `n` it belongs to. Works with the 1.x and 2.x lines of the SDK.
"""

import asyncio
import contextlib
import json
import os
import sys


def say(**event) -> None:
    print(json.dumps(event), flush=True)


@contextlib.asynccontextmanager
async def connected(url: str, era: str):
    """A thing with `list_tools`, `call_tool`, and the protocol version it agreed on."""
    headers = {"Authorization": "Bearer " + os.environ["TOKEN"]}
    try:
        from mcp.client import Client
    except ImportError:
        import httpx
        from mcp import ClientSession
        from mcp.client.streamable_http import streamable_http_client

        assert era == "legacy", "the 1.x line of the SDK knows only the era of sessions"
        timeout = httpx.Timeout(30, read=300)
        async with httpx.AsyncClient(headers=headers, timeout=timeout) as http:
            async with streamable_http_client(url, http_client=http) as (read, write, _):
                async with ClientSession(read, write) as session:
                    yield session, (await session.initialize()).protocolVersion
        return
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=300)) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode="legacy" if era == "legacy" else "auto") as client:
            yield client, client.protocol_version


async def act(client, command: dict) -> None:
    n = command["n"]

    async def progress(value, total, message):
        say(n=n, event="progress", progress=value, total=total, message=message)

    try:
        if command["op"] == "list":
            say(n=n, event="result", tools=[tool.name for tool in (await client.list_tools()).tools])
        elif command["op"] == "resources":
            say(n=n, event="result", resources=[str(r.uri) for r in (await client.list_resources()).resources])
        elif command["op"] == "prompts":
            say(n=n, event="result", prompts=[prompt.name for prompt in (await client.list_prompts()).prompts])
        elif command["op"] == "read":
            contents = (await client.read_resource(command["uri"])).contents
            say(n=n, event="result", text="\n".join(getattr(part, "text", "") for part in contents))
        elif command["op"] == "prompt":
            messages = (await client.get_prompt(command["name"], command.get("args") or {})).messages
            say(n=n, event="result", text="\n".join(getattr(part.content, "text", "") for part in messages))
        else:
            result = await client.call_tool(command["tool"], command["args"], progress_callback=progress)
            # Snake case in the 2.x line, camel case before.
            failed = result.is_error if hasattr(result, "is_error") else result.isError
            text = "\n".join(getattr(part, "text", "") for part in result.content)
            say(n=n, event="result", is_error=bool(failed), text=text)
    except Exception as error:
        code = getattr(getattr(error, "error", None), "code", None)
        say(n=n, event="error", code=code, text="%s: %s" % (type(error).__name__, error))


async def main(url: str, era: str) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with connected(url, era) as (client, version):
        say(event="connected", version=version)
        calls = set()
        while line := await lines.readline():
            calls.add(asyncio.create_task(act(client, json.loads(line))))
        for call in calls:
            call.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
