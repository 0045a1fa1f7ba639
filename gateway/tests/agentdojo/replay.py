"""AgentDojo replayed through the running gateway, without a model.

    replay.py slice      a few stories of each suite, compared with the published ones
    replay.py whole      everything, and writes docs/security-curve.md and results.csv anew; PORTCULLIS_DOJO names the
                         ways: open (without a gateway), default, approving (of the tasks alone), no-secrets
    replay.py tasks      writes tasks.json: prompts and calls of all stories, as they are replayed

Every story is a group of its own, with a conversation, a server and an environment of its own. Its prompt is said in
the group's chat; its agent is the worst-case core of `agent.py`; each question is answered here, as a person would.
"""

import collections
import contextlib
import http.client
import hashlib
import json
import os
import pathlib
import queue
import shutil
import socket
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "clients")]
sys.dont_write_bytecode = True

import suites  # noqa: E402
from driver import PYTHON, Gateway, _toml  # noqa: E402
from report import TABLE, check, write  # noqa: E402
from tools import Tools  # noqa: E402

BATCH = 150  # stories for one gateway
BASE = {"public_source": False, "public_sink": False, "dangerous_writes": False}
# Each way through a gateway: the traits of the server, and what the person answers.
WAYS = {
    "default": (BASE, "deny"),
    "no-secrets": ({**BASE, "secret_data": False}, "deny"),
    "approving": (BASE, "approve"),
}
# Of each suite: tasks that ask and that do not, injections of each kind.
SLICE_TASKS = {"workspace": (9, 12, 13, 26), "travel": (1, 3, 5), "banking": (0, 2, 11), "slack": (1, 7, 9)}
SLICE_INJECTIONS = {"workspace": (0, 3, 6), "travel": (2, 5), "banking": (4, 7), "slack": (1, 3, 4)}


class Follower(threading.Thread):
    """Follows what happens in a gateway: runs that end, questions that open."""

    def __init__(self, gate: Gateway):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("localhost")
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(str(gate.data / "portcullis.sock"))
        self.connection.request("GET", "/api/v1/events", headers={"Accept": "text/event-stream"})
        self.stream = self.connection.getresponse()
        assert self.stream.status == 200, self.stream.status
        self.told: queue.SimpleQueue = queue.SimpleQueue()
        self.start()

    def run(self):
        kind = ""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            for line in self.stream:
                if line.startswith(b"event:"):
                    kind = line[6:].strip().decode()
                elif line.startswith(b"data:"):
                    self.told.put((kind, json.loads(line[5:])))
        self.told.put(("end", None))


def configuration(gate: Gateway, stories: dict, way: str, port: int) -> str:
    base, _ = WAYS[way]
    parts = ['[models.none]\napi = "scripted"\n']
    for id, story in stories.items():
        parts.append('[mcp_servers.%s]\nurl = "http://127.0.0.1:%d/%s/mcp"' % (id, port, id))
        parts.append("trust = %s" % _toml(base))
        for tool in story.suite.tools:
            parts.append("[mcp_servers.%s.tools.%s]" % (id, tool.name))
            parts += ["%s = %s" % (key, _toml(value)) for key, value in suites.traits(tool.name).items()]
        command = [str(PYTHON), str(gate.scratch / "agent.py"), str(gate.scratch / ("%s.json" % id))]
        parts.append('[groups.%s]\nservers = ["%s"]\nmodel = "none/none"' % (id, id))
        parts.append("agent = { command = %s }" % _toml(command))
    return "\n".join(parts) + "\n"


def prepare(gate: Gateway, stories: dict) -> None:
    """The files that the agents read: their own user must be able to."""
    shutil.copy(HERE / "agent.py", gate.scratch / "agent.py")
    (gate.scratch / "agent.py").chmod(0o644)
    for id, story in stories.items():
        path = gate.scratch / ("%s.json" % id)
        planted = story.planted if story.injection else None
        path.write_text(json.dumps({"server": id, "mark": suites.MARK, "asked": story.asked, "planted": planted}))
        path.chmod(0o644)


def batch(names: list, way: str) -> list:
    """Replays these stories in one gateway; a row for each."""
    stories = {story.id: story for story in (suites.Story(*name) for name in names)}
    _, answer = WAYS[way]
    tools = Tools(stories)
    gate = Gateway()
    asked: dict = collections.defaultdict(set)
    try:
        prepare(gate, stories)
        gate.configure(configuration(gate, stories, way, tools.port))
        gate.up(seconds=60)
        follower = Follower(gate)
        for id, story in stories.items():
            gate.api("POST", "/groups/%s/messages" % id, {"id": "prompt", "text": story.user.PROMPT})
        open_stories = set(stories)
        while open_stories:
            kind, told = follower.told.get(timeout=300)
            assert kind != "end", "the gateway ended"
            if kind == "approval" and told["state"] == "pending" and told["id"] not in asked[told["group"]]:
                asked[told["group"]].add(told["id"])
                body = {"for": "once"} if answer == "approve" else {"reason": "nobody is there"}
                gate.api("POST", "/approvals/%s/%s" % (told["id"], answer), body)
            elif kind == "item" and told["body"]["type"] == "run":
                state = told["body"]["state"]
                id = told["place"]
                if state == "done":
                    open_stories.discard(id)
                assert state not in ("failed", "stopped"), "%s: %r" % (id, told["body"])
        gate.stop(seconds=60)
    finally:
        tools.stop()
        homes = gate.data
        gate.destroy(show=sys.exc_info()[0] is not None)
        clean_homes(homes)
    return [row(story, way, len(asked[id])) for id, story in stories.items()]


def bare(names: list) -> list:
    """The same without a gateway: what an agent does that nothing is in the way of."""
    rows = []
    for name in names:
        story = suites.Story(*name)
        for call in story.asked:
            if suites.MARK in story.call(*call) and story.injection:
                for call in story.planted:
                    story.call(*call)
                break
        rows.append(row(story, "open", 0))
    return rows


def clean_homes(data: pathlib.Path) -> None:
    """Under root, processes of a gateway are at home elsewhere."""
    if os.geteuid() == 0:
        name = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:6].encode().hex()
        shutil.rmtree(pathlib.Path("/var/lib/portcullis-homes") / name, ignore_errors=True)


def row(story, way: str, asks: int) -> dict:
    injected = story.injection is not None
    return {
        "way": way,
        "suite": story.suite.name,
        "task": story.user.ID.rpartition("_")[2],
        "injection": story.injection.ID.rpartition("_")[2] if injected else "",
        "kind": story.kind,
        "asks": asks,
        "good": int(not injected and story.useful()),
        "harm": int(injected and story.harmful()),
    }


def in_slice(name: tuple) -> bool:
    suite, user, injection = name
    if number(user) not in SLICE_TASKS[suite]:
        return False
    return injection is None or number(injection) in SLICE_INJECTIONS[suite]


def number(task: str) -> int:
    return int(task.rpartition("_")[2])


def replay(names: list, way: str) -> list:
    rows = []
    for start in range(0, len(names), BATCH):
        begun = time.monotonic()
        part = names[start : start + BATCH]
        rows += batch(part, way)
        print("%s: %d of %d (%.0f s)" % (way, start + len(part), len(names), time.monotonic() - begun), flush=True)
    return rows


def export() -> None:
    """What is replayed, as data: for who has no AgentDojo, and to see what changed when it does."""
    told: dict = {}
    for suite, user, injection in suites.names():
        story = suites.Story(suite, user, injection)
        here = told.setdefault(suite, {"tasks": {}, "injections": {}})
        if injection is None:
            here["tasks"][user] = {"prompt": story.user.PROMPT, "calls": story.asked, "read": suites.vectors(suite, user)}
        elif injection not in here["injections"]:
            here["injections"][injection] = {"goal": story.injection.GOAL, "calls": story.planted, "ours": story.ours}
    text = json.dumps(told, indent=1, ensure_ascii=False, default=str)
    (HERE / "tasks.json").write_text(text + "\n")


def main() -> int:
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    names = suites.names()
    alone = [name for name in names if name[2] is None]
    if what == "tasks":
        export()
        return 0
    if what == "whole":
        rows = []
        for way in os.environ.get("PORTCULLIS_DOJO", "open default approving").split():
            rows += bare(names) if way == "open" else replay(alone if way == "approving" else names, way)
        write(rows)
        print(TABLE.read_text())
        return 0
    if what == "slice":
        names = [name for name in names if in_slice(name)]
        rows = replay(names, "default")
        wrong = check(rows)
        for line in wrong:
            print(line)
        print("%d passed, %d failed" % (len(rows) - len(wrong), len(wrong)))
        return 1 if wrong else 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
