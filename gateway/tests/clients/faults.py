"""A gateway that dies, waits and fails where it is told to, and what stands around it: a server and a provider that
count, agents that call, people who answer.

Everything here bears a gateway that is gone in the middle: what a caller does not know it calls `LOST`.
"""

import collections
import http.client
import json
import os
import pathlib
import re
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import driver
from mcp_http import modern

sys.path.insert(0, str(driver.HERE / "servers"))
from counting import answer as count_answer  # noqa: E402

BIN = pathlib.Path(os.environ.get("PORTCULLIS_FAULTS_BIN", driver.ROOT / "target/debug/portcullis-faults")).resolve()
SOURCES = driver.ROOT / "gateway/src"
LOST = None
LEGACY = "2025-06-18"
GONE = (OSError, http.client.HTTPException, ValueError)


def points() -> set:
    """Every fault point in the source."""
    found = set()
    for path in SOURCES.rglob("*.rs"):
        found |= set(re.findall(r'fault::(?:point|db|now)\(\s*"([^"]+)"', path.read_text()))
    return found


def may_fail() -> set:
    """Those at which the database can fail."""
    found = set()
    for path in SOURCES.rglob("*.rs"):
        found |= set(re.findall(r'fault::db\(\s*"([^"]+)"', path.read_text()))
    return found


def only_dies() -> set:
    """Those at which nothing waits."""
    found = set()
    for path in SOURCES.rglob("*.rs"):
        found |= set(re.findall(r'fault::now\(\s*"([^"]+)"', path.read_text()))
    return found


class Counter:
    """The counting server over HTTP, and a provider of models that counts as well. Outlives every gateway."""

    def __init__(self):
        self.folder = driver.scratch()
        self.file = self.folder / "files/executed"
        self.file.touch()
        self.file.chmod(0o666)
        shutil.copy(driver.HERE / "servers/counting.py", self.folder / "counting.py")
        shutil.copy(driver.HERE / "servers/probe.py", self.folder / "probe.py")
        for name in ("counting.py", "probe.py"):
            (self.folder / name).chmod(0o644)
        counter, one = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle(self):
                try:
                    super().handle()
                except OSError:
                    pass  # a gateway that dies says no goodbye

            def do_GET(self):
                self.tell(405, None)

            do_DELETE = do_GET

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with one:
                    if self.path == "/mcp":
                        told = count_answer(str(counter.file), asked)
                    else:
                        told = counter.think(asked)
                if told is ...:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                else:
                    self.tell(202 if told is None else 200, told)

            def tell(self, status, value):
                body = json.dumps(value).encode() if value is not None else b""
                head = "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
                self.wfile.write(head.encode() + body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = self._server.server_address[1]

    def think(self, asked: dict) -> dict:
        execute_model = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "model", "arguments": {"nonce": asked["model"]}}}
        count_answer(str(self.file), execute_model)
        text = [{"type": "text", "text": "done %s" % asked["model"]}]
        usage = {"input_tokens": 1, "output_tokens": 1}
        return {"id": "m", "type": "message", "role": "assistant", "model": asked["model"], "content": text, "stop_reason": "end_turn", "usage": usage}

    def executed(self, nonce: str) -> int:
        return sum(1 for line in self.file.read_text().splitlines() if line.split()[1:] == [nonce])

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self.folder, ignore_errors=True)


HARMLESS = "public_source = false\nsecret_data = false\npublic_sink = false\ndangerous_writes = %s\n"
CONFIG = """
[models.main]
api = "anthropic"
base_url = "http://127.0.0.1:{port}"
key = "sk-ant-api03-not-a-real-key-but-long-enough-to-be-one"
[models.script]
api = "scripted"
[approvals]
expire = "{expire}"
max_open = 3
{servers}
[mcp_servers.notes]
bundled = "notes"
[[rules]]
name = "never"
groups = ["dev"]
tools = ["count__never", "pipe__never"]
then = "deny"
[[rules]]
name = "two"
tools = ["count__both"]
then = "ask"
people = 2
[users.ana]
role = "owner"
[users.bo]
role = "approver"
[groups.dev]
servers = ["count", "pipe", "notes"]
model = "main/m"
[groups.dirty]
servers = ["count"]
model = "main/m"
[groups.lab]
servers = ["count", "pipe"]
model = "script/script"
agent = {{ command = ["{python}", "{probe}", "{files}"] }}
"""


class World(driver.Gateway):
    """One data directory, its gateway with fault points, and what was passed there."""

    def __init__(self, counter: Counter, expire: str = "12h"):
        super().__init__()
        self.counter, self.expire = counter, expire
        self.bin = BIN
        self.faults = self.scratch / "faults"
        self.faults.mkdir()
        self.hits_file = self.faults / "hits"
        self.may_fail = False
        self.read_to = 0
        self.passed: collections.Counter = collections.Counter()
        self.fired: collections.Counter = collections.Counter()
        self.tokens: dict = {}
        os.mkfifo(self.files / "fifo")
        (self.files / "fifo").chmod(0o666)
        servers = ""
        for name, where in (
            ("count", 'url = "http://127.0.0.1:%d/mcp"' % counter.port),
            ("pipe", "command = %s\nargs = %s" % (json.dumps(str(driver.PYTHON)), json.dumps(["-SEu", str(counter.folder / "counting.py"), str(counter.file)]))),
        ):
            servers += "[mcp_servers.%s]\n%s\ncall_timeout = \"10s\"\n[mcp_servers.%s.trust]\n" % (name, where, name) + HARMLESS % "true"
            servers += "[mcp_servers.%s.tools.touch]\ndangerous_writes = false\n" % name
            servers += "[mcp_servers.%s.tools.taint]\nread_only = true\npublic_source = true\nsecret_data = true\n" % name
        places = {"python": driver.PYTHON, "probe": counter.folder / "probe.py", "files": self.files}
        self.configure(CONFIG.format(port=counter.port, expire=expire, servers=servers, **places))

    # --- orders -------------------------------------------------------------------------------------------------
    def arm(self, orders: list) -> None:
        """A new schedule: lists of fields."""
        self.may_fail = any(order[0] == "fail" for order in orders)
        part = self.faults / "schedule.part"
        part.write_text("# %d\n" % time.monotonic_ns() + "".join("\t".join(map(str, order)) + "\n" for order in orders))
        part.rename(self.faults / "schedule")

    def look(self) -> tuple:
        """What was passed and what fired since the last look."""
        if not self.hits_file.exists():
            return collections.Counter(), collections.Counter()
        with self.hits_file.open("rb") as file:
            file.seek(self.read_to)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self.read_to += len(text)
        passed, fired = collections.Counter(), collections.Counter()
        for line in text.decode().splitlines():
            name, _, verb = line.rpartition(" ")
            if verb in ("kill", "fail", "delay", "wait"):
                fired[name] += verb in ("kill", "fail")
                passed[name] += 1
            else:
                passed[line] += 1
        self.passed += passed
        self.fired += fired
        return passed, fired

    # --- life ---------------------------------------------------------------------------------------------------
    def up(self, *_, **__) -> "World":
        command = [str(self.bin), "up", *self.places(), "--listen", "127.0.0.1:0"]
        log = self.log.open("ab")
        environment = {**self.environment(), "PORTCULLIS_FAULTS": str(self.faults)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment, cwd="/"
        )
        log.close()
        told, end = b"", time.monotonic() + 30
        while b"ready http://127.0.0.1:" not in told or not told.endswith(b"\n"):
            if not select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError("not ready after 30 s")
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                status = self.process.wait(10)
                # A start that cannot write its records is none: it says so and ends with 1.
                if status != -9 and not (status == 1 and self.may_fail):
                    raise driver.Finished(status, told.decode(), self.logged()[-4000:])
                return self
            told += piece
        self.port = int(told.rpartition(b":")[2])
        self.url = "http://127.0.0.1:%d" % self.port
        return self

    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ends(self, seconds: float) -> bool:
        """Whether it is gone, or goes within this time."""
        end = time.monotonic() + seconds
        while self.is_up() and time.monotonic() < end:
            time.sleep(0.01)
        return not self.is_up()

    def close(self) -> None:
        if self.is_up():
            self.process.kill()
        if self.process:
            self.process.wait()
            self.process.stdout.close()
        shutil.rmtree(self.homes(), ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def homes(self):
        import hashlib

        if os.geteuid() != 0:
            return self.data / "homes"
        return pathlib.Path("/var/lib/portcullis-homes") / hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:6].encode().hex()

    # --- people and agents ----------------------------------------------------------------------------------------
    def ask(self, method: str, path: str, body=None, user: str | None = None) -> tuple:
        """A request on the owner's socket: status and value, or `LOST` twice."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(20)
            connection.sock.connect(str(self.data / "portcullis.sock"))
            headers = {"Content-Type": "application/json", **({"X-Portcullis-User": user} if user else {})}
            connection.request(method, "/api/v1" + path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except GONE:
            return LOST, LOST
        finally:
            connection.close()

    def token_of(self, group: str):
        """A token that was issued and stored; `LOST` if the gateway is gone."""
        if group not in self.tokens:
            status, told = self.ask("POST", "/tokens", {"group": group, "ttl_seconds": 86400})
            if status != 200:
                return LOST
            self.tokens[group] = told["token"]
        return self.tokens[group]

    def questions_about(self, nonce: str) -> list:
        status, told = self.ask("GET", "/approvals?all=true")
        return [one for one in told if nonce in json.dumps(one["args"])] if status == 200 else []

    def records_about(self, nonce: str) -> list:
        status, told = self.ask("GET", "/audit?limit=200&text=" + nonce)
        return told["stories"] if status == 200 else []


class Calling:
    """One agent's call, made again until it is known how it went."""

    def __init__(self, world: World, token: str, tool: str, nonce: str, era: str = "modern"):
        self.world, self.token, self.tool, self.nonce, self.era = world, token, tool, nonce, era
        self.server, _, self.name = tool.partition("__")
        self.answers: list = []
        self.lost = 0
        self.resumed = False
        self.socket = None
        self.thread = None

    @property
    def arguments(self) -> dict:
        return {"title": self.nonce, "text": "x"} if self.server == "notes" else {"nonce": self.nonce}

    def begin(self) -> "Calling":
        self.thread = threading.Thread(target=self._try, daemon=True)
        self.thread.start()
        return self

    def is_over(self) -> bool:
        return self.thread is not None and not self.thread.is_alive()

    def leave(self) -> None:
        """The connection breaks."""
        sock = self.socket
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cancel(self) -> None:
        """As a client of the older eras takes it back."""
        if self.era == "legacy" and getattr(self, "session", None):
            params = {"requestId": 7, "reason": "changed my mind"}
            self._post(self._legacy("notifications/cancelled", params, None), keep=False)
        else:
            self.leave()

    def _try(self) -> None:
        try:
            text = self._call()
        except GONE:
            text = LOST
        if text is LOST:
            self.lost += 1
        else:
            self.answers.append(text)

    def _call(self):
        params = {"name": self.tool, "arguments": self.arguments}
        if self.resumed:
            params["_meta"] = {"portcullis/resumed": True}
        if self.era == "legacy":
            hello = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
            self.session = None
            status, headers, _ = self._post(self._legacy("initialize", hello, 1), keep=False)
            if status != 200:
                return LOST
            self.session = headers["mcp-session-id"]
            self._post(self._legacy("notifications/initialized", {}, None), keep=False)
            request = self._legacy("tools/call", params, 7)
        else:
            request = modern("tools/call", params)
        status, headers, body = self._post(request, keep=True)
        if status != 200:
            return LOST if status in (404, 503) else "HTTP %d" % status
        if "text/event-stream" in headers.get("content-type", ""):
            data = [line[5:].strip() for line in body.decode().splitlines() if line.startswith("data:")]
            data = [part for part in data if part and '"id"' in part and ('"result"' in part or '"error"' in part)]
            if not data:
                return LOST
            body = data[-1]
        message = json.loads(body)
        if "error" in message:
            return "ERROR %s" % message["error"]["message"]
        return "\n".join(part.get("text", "") for part in message["result"]["content"])

    def _legacy(self, method: str, params: dict, id):
        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
        if getattr(self, "session", None):
            headers.update({"Mcp-Session-Id": self.session, "MCP-Protocol-Version": LEGACY})
        message = {"jsonrpc": "2.0", "method": method, "params": params, **({"id": id} if id is not None else {})}
        return headers, json.dumps(message).encode()

    def _post(self, request: tuple, keep: bool) -> tuple:
        headers, body = request
        connection = http.client.HTTPConnection("127.0.0.1", self.world.port, timeout=30)
        try:
            connection.connect()
            if keep:
                self.socket = connection.sock
            connection.request("POST", "/mcp", body, {**headers, "Authorization": "Bearer " + self.token})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            self.socket = None
            connection.close()
