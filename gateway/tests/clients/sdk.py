"""Drives `sdk_client.py` under one of the installed SDKs."""

import json
import queue
import subprocess
import threading

from driver import CLIENTS, HERE

# The SDK, and the protocol revision it must end up with.
ALL = {"mcp2-modern": ("python-mcp-2", "modern"), "mcp2-legacy": ("python-mcp-2", "legacy"), "mcp1": ("python-mcp-1", "legacy")}


class Sdk:
    """One connected client."""

    def __init__(self, which: str, url: str, token: str):
        line, era = ALL[which]
        command = [str(CLIENTS / line / "bin/python"), str(HERE / "sdk_client.py"), url, era]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "TOKEN": token, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.number = 0
        self.queues: dict = {None: queue.Queue()}
        self.errors: list = []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        self.version = self.next(None, 30)["version"]

    def _read(self) -> None:
        for line in self.process.stdout:
            event = json.loads(line)
            self.queues[event.get("n")].put(event)
        for waiting in list(self.queues.values()):
            waiting.put(None)

    def next(self, number, seconds: float) -> dict:
        try:
            event = self.queues[number].get(timeout=seconds)
        except queue.Empty:
            raise AssertionError("the client got no event in %s s: %s" % (seconds, "".join(self.errors)[-3000:])) from None
        assert event is not None, "the client ended: %s" % "".join(self.errors)[-3000:]
        return event

    def start(self, op: str, **command) -> int:
        """Sends a command; `finish` waits for its end."""
        self.number += 1
        self.queues[self.number] = queue.Queue()
        self.process.stdin.write(json.dumps({"n": self.number, "op": op, **command}) + "\n")
        self.process.stdin.flush()
        return self.number

    def finish(self, number: int, seconds: float = 30) -> dict:
        """The result or error, with all progress that came before it."""
        progress = []
        while True:
            event = self.next(number, seconds)
            if event["event"] == "progress":
                progress.append(event)
            else:
                return {**event, "progress": progress}

    def idle(self, number: int) -> bool:
        """Whether nothing but progress has come for this command."""
        return all(event and event["event"] == "progress" for event in list(self.queues[number].queue))

    def do(self, op: str, **command) -> dict:
        return self.finish(self.start(op, **command))

    def call(self, tool: str, **args) -> dict:
        return self.do("call", tool=tool, args=args)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
