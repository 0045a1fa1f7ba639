"""The real Claude Code, headless, with a scripted model and one MCP endpoint."""

import json
import subprocess
import tempfile
from pathlib import Path

from model import Model

CLIENTS = Path(__file__).resolve().parents[3] / "target/clients"
CLAUDE = CLIENTS / "bin/claude"


class Claude:
    """One headless run. `events` is what it printed, one value a line. It reaches the model at `base_url`, or directly."""

    def __init__(
        self,
        model: Model,
        url: str,
        token: str | None,
        prompt: str = "Do what the script says.",
        base_url: str | None = None,
        key: str = "not-a-key",
    ):
        assert CLAUDE.exists(), "Claude Code is not installed: run .ci/setup"
        self.home = tempfile.TemporaryDirectory(prefix="portcullis-claude-")
        home = Path(self.home.name)
        server = {"type": "http", "url": url}
        if token:
            server["headers"] = {"Authorization": "Bearer " + token}
        config = home / "mcp.json"
        config.write_text(json.dumps({"mcpServers": {"gw": server}}))
        work = home / "work"
        work.mkdir()
        command = [str(CLAUDE), "-p", prompt, "--output-format", "stream-json", "--verbose", "--mcp-config", str(config)]
        command += ["--strict-mcp-config", "--allowedTools", "mcp__gw", "--no-session-persistence"]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "ANTHROPIC_BASE_URL": base_url or model.url,
            "ANTHROPIC_API_KEY": key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
        }
        self.process = subprocess.Popen(
            command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.events: list = []

    def finish(self, timeout: float) -> "Claude":
        """Waits for the end of the run."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError("Claude Code did not end in %s s; it said %s\n%s" % (timeout, out[-2000:], err[-2000:])) from None
        self.events = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        assert self.process.returncode == 0, "Claude Code failed: %s\n%s" % (out[-3000:], err[-2000:])
        return self

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        self.home.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def init(self) -> dict:
        """The first event: servers, their state, and all tools."""
        return next(event for event in self.events if event.get("subtype") == "init")

    @property
    def answer(self) -> str:
        """What the run ended with."""
        return next(event for event in self.events if event.get("type") == "result").get("result", "")
