"""Runs the gateway as a person would: a scratch configuration, the real binary, its command line.

    with Gateway(CONFIG) as gate:
        token = gate.token("dev")
        gate.wait_for_question()
        gate.cli("approve", question["id"])

Leaving the `with` stops it and fails if a process it started is still there.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CLIENTS = (ROOT / "target/clients").resolve()  # elsewhere, where servers cannot enter the checkout
PYTHON = CLIENTS / "python-mcp-2/bin/python"
NODE = CLIENTS / "bin/node"
MODULES = CLIENTS / "node/node_modules"
BIN = pathlib.Path(os.environ.get("PORTCULLIS_BIN", ROOT / "target/debug/portcullis")).resolve()
HOLD_SECONDS = float(os.environ.get("PORTCULLIS_HOLD_SECONDS", "8"))
STRICTLY_TRUSTED = {"public_source": False, "secret_data": False, "public_sink": False, "dangerous_writes": False}


def wait_for(probe, seconds: float, what: str):
    """The first true value of `probe`; fails after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("no %s after %s s" % (what, seconds))
        time.sleep(0.1)


def server(name: str, command, args, trust: dict | None = None, tools: dict | None = None, **keys) -> str:
    """A `[mcp_servers.NAME]` section. `trust` None leaves the traits undeclared."""
    lines = ["[mcp_servers.%s]" % name, "command = %s" % _toml(str(command)), "args = %s" % _toml([str(a) for a in args])]
    lines += ["%s = %s" % (key, _toml(value)) for key, value in keys.items()]
    if trust is not None:
        lines.append("[mcp_servers.%s.trust]" % name)
        lines += ["%s = %s" % (key, _toml(value)) for key, value in trust.items()]
    for tool, traits in (tools or {}).items():
        lines.append("[mcp_servers.%s.tools.%s]" % (name, json.dumps(tool)))
        lines += ["%s = %s" % (key, _toml(value)) for key, value in traits.items()]
    return "\n".join(lines) + "\n"


def group(name: str, servers) -> str:
    return "[groups.%s]\nservers = %s\n" % (name, _toml(list(servers)))


def everything(name: str = "everything") -> str:
    """The reference server with a tool of every kind, declared harmless."""
    return server(name, NODE, [MODULES / "@modelcontextprotocol/server-everything/dist/index.js", "stdio"], STRICTLY_TRUSTED)


def filesystem(folder, name: str = "fs", declared: bool = True) -> str:
    """The filesystem server, declared as its user would: reads are harmless, writes are not."""
    program = MODULES / "@modelcontextprotocol/server-filesystem/dist/index.js"
    if not declared:
        return server(name, NODE, [program, folder])
    reads = ("read_text_file", "list_directory", "list_allowed_directories", "get_file_info")
    return server(
        name,
        NODE,
        [program, folder],
        {**STRICTLY_TRUSTED, "dangerous_writes": True},
        {tool: {"read_only": True} for tool in reads},
    )


def stand_in(folder, name: str = "odd", trust: dict | None = STRICTLY_TRUSTED, tools: dict | None = None, **keys) -> str:
    """The stand-in of `servers/stand_in.py`, which misbehaves on demand. It keeps its notes in `folder`."""
    return server(name, PYTHON, ["-u", folder / "stand_in.py"], trust, tools, **keys)


def turncoat(gate, name: str = "shop", trust: dict | None = STRICTLY_TRUSTED, tools: dict | None = None, **keys) -> str:
    """A server of `servers/turncoat.py`: it shows what `files/NAME.json` says, whenever that changes."""
    return server(name, PYTHON, ["-u", gate.scratch / "turncoat.py", gate.files / (name + ".json")], trust, tools, **keys)


class Finished(Exception):
    """The gateway ended before it was ready."""

    def __init__(self, status: int, out: str, err: str):
        super().__init__("`up` ended with %s: %s%s" % (status, out, err))
        self.status, self.out, self.err = status, out, err


class Gateway:
    """One data directory and, while it runs, the process on it."""

    def __init__(self, *sections: str):
        self.scratch = scratch()
        self.data = self.scratch / "data"
        self.config = self.scratch / "portcullis.toml"
        self.files = self.scratch / "files"
        self.log = self.scratch / "gateway.log"
        self.process = None
        self.family: set = set()
        self._clients: list = []
        if sections:
            self.configure(*sections)

    def configure(self, *sections: str) -> None:
        """Writes the configuration, readable by its owner alone."""
        self.config.write_text("\n".join(sections))
        self.config.chmod(0o600)

    # --- life ---------------------------------------------------------------------------------------------------
    def __enter__(self) -> "Gateway":
        return self.up()

    def __exit__(self, kind, *_) -> None:
        try:
            if self.process and self.process.poll() is None:
                self.stop()
        finally:
            self.destroy(show=kind is not None)

    def destroy(self, show: bool = False) -> None:
        """Ends whatever is left and removes the directory."""
        for client in self._clients:
            client.close()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if show and self.log.exists():
            print("--- the gateway's log\n" + self.log.read_text(errors="replace")[-20000:])
        if self.process:
            for line in self.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(line.split()[0]), signal.SIGKILL)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def up(self, *arguments: str, listen: str = "127.0.0.1:0", seconds: float = 20) -> "Gateway":
        """Starts it and waits for `ready`."""
        command = [str(BIN), "up", *self.places(), "--listen", listen, *arguments]
        log = self.log.open("ab")
        begun = self.log.stat().st_size
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment(), cwd="/"
        )
        log.close()
        self.said: list = []
        ready = threading.Event()

        def read(stream):
            for line in stream:
                self.said.append(line.rstrip("\n"))
                if line.startswith("ready "):
                    ready.set()
            ready.set()

        threading.Thread(target=read, args=(self.process.stdout,), daemon=True).start()
        in_time = ready.wait(seconds)
        match = re.fullmatch(r"ready (http://127\.0\.0\.1:(\d+))", self.said[-1]) if self.said else None
        if not match:
            if not in_time:
                self.process.kill()
            status = self.process.wait(10)
            raise Finished(status, "\n".join(self.said), self.log.read_bytes()[begun:].decode(errors="replace"))
        self.url, self.port = match[1], int(match[2])
        return self

    def stop(self, how=signal.SIGINT, seconds: float = 10) -> int:
        """Ctrl-C, as a person would, and nothing may be left behind."""
        self.look_at_family()
        self.process.send_signal(how)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError("the gateway did not stop in %s s" % seconds) from None
        self.nobody_left(1)
        return status

    def kill(self) -> None:
        """kill -9: it gets no chance to tidy up."""
        self.look_at_family()
        self.process.kill()
        self.process.wait()

    def look_at_family(self) -> set:
        """Remembers all descendants there are now, by pid and time of birth."""
        parents: dict = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                parent = _parent(int(entry))
                parents.setdefault(parent, []).append(int(entry))
        todo, found = [self.process.pid], set()
        while todo:
            for child in parents.get(todo.pop(), []):
                found.add((child, _born(child)))
                todo.append(child)
        self.family |= found
        return found

    def alive(self) -> list:
        """Command lines of processes the gateway started that still run, wherever they hang in the tree."""
        left = {pid for pid, born in self.family if born and _born(pid) == born}
        ours = {os.getpid(), self.process.pid} | {client.process.pid for client in self._clients}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) not in ours and str(self.scratch) in _command(int(entry)):
                if _born(int(entry)):
                    left.add(int(entry))
        return ["%d %s" % (pid, _command(pid)) for pid in left]

    def nobody_left(self, seconds: float) -> None:
        try:
            wait_for(lambda: not self.alive(), seconds, "end of all processes")
        except AssertionError:
            raise AssertionError("still running %s s later: %s" % (seconds, self.alive())) from None

    # --- command line -------------------------------------------------------------------------------------------
    def environment(self) -> dict:
        home = self.scratch / "home"
        home.mkdir(exist_ok=True)
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(home), "LANG": "C.UTF-8", "RUST_BACKTRACE": "1"}

    def places(self) -> list:
        """Where its configuration and data are; without a configuration, the data alone."""
        config = ["--config", str(self.config)] if self.config else []
        return [*config, "--data", str(self.data)]

    def run(self, *arguments: str, seconds: float = 30) -> subprocess.CompletedProcess:
        """A command on this directory, whatever comes of it."""
        command = [str(BIN), *arguments, *self.places()]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, env=self.environment(), cwd="/"
        )

    def cli(self, *arguments: str):
        """A command that must succeed; its JSON."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, "`portcullis %s` ended with %d: %s%s" % (
            " ".join(arguments),
            done.returncode,
            done.stdout,
            done.stderr,
        )
        return json.loads(done.stdout)

    def rows(self, *arguments: str) -> list:
        """The list a command prints."""
        value = self.cli(*arguments)
        if isinstance(value, dict):
            value = next(part for part in value.values() if isinstance(part, list))
        return value

    def token(self, group: str, *arguments: str) -> str:
        """A bearer token; `issue` prints only the token."""
        done = self.run("token", "issue", "--group", group, *arguments)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"\S+\n", done.stdout), "more than the token: %r" % done.stdout
        return done.stdout.strip()

    def api(self, method: str, path: str, body=None) -> dict:
        """A request on the owner's socket."""
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.data / "portcullis.sock"))
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, "/api/v1" + path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, "%s %s: %d %s" % (method, path, answer.status, text)
            return json.loads(text)
        finally:
            connection.close()

    def questions(self, state: str = "pending") -> list:
        return [row for row in self.rows("approvals", "--all") if row["state"] == state]

    def question(self, id: str) -> dict:
        return next(row for row in self.rows("approvals", "--all") if row["id"] == id)

    def wait_for_question(self, tool: str = "", seconds: float = 30) -> dict:
        """The one pending question."""
        found = wait_for(lambda: [q for q in self.questions() if tool in q["tool"]], seconds, "pending question")
        assert len(found) == 1, "several questions: %r" % found
        return found[0]

    def wait_for_state(self, id: str, state: str, seconds: float = 10) -> dict:
        return wait_for(lambda: (lambda q: q["state"] == state and q)(self.question(id)), seconds, "state `%s`" % state)

    def audit(self) -> list:
        """All records, oldest first."""
        return sorted(self.rows("audit", "list"), key=lambda row: row["seq"])

    def logged(self) -> str:
        return self.log.read_text(errors="replace")

    def keep(self, client):
        """Closes `client` at the end, and does not count it as a process of the gateway."""
        self._clients.append(client)
        return client


def scratch() -> pathlib.Path:
    """A directory that the servers' own users can enter; `files` in it is where they may write."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-test-"))
    path.chmod(0o755)
    files = path / "files"
    files.mkdir()
    files.chmod(0o777)
    for program in ("stand_in.py", "turncoat.py"):
        shutil.copy(HERE / "servers" / program, path / program)
        (path / program).chmod(0o644)
    return path


def mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _toml(value) -> str:
    if isinstance(value, dict):
        return "{ %s }" % ", ".join("%s = %s" % (key, _toml(item)) for key, item in value.items())
    return json.dumps(value)


def _stat(pid: int) -> list:
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _born(pid: int) -> str:
    """When a process began; empty when it is gone or only waits to be reaped."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] not in "ZX" else ""


def _command(pid: int) -> str:
    try:
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
