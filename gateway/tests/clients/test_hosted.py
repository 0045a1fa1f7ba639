"""A hosted agent, from what a person says to what is done: the demo without a configuration, and runs that are killed."""

import hashlib
import http.client
import itertools
import json
import os
import shutil
import signal
import threading

import driver
import pytest
from driver import HERE, STRICTLY_TRUSTED, group, stand_in, wait_for
from mcp_http import ask, call, send

OPEN = ("queued", "working", "waiting")
ENVIRONMENT = {"HOME", "LANG", "LC_CTYPE", "PATH", "TMPDIR", "PORTCULLIS_MCP_URL", "PORTCULLIS_LLM_URL", "PORTCULLIS_TOKEN"}
COLLECTOR = "collector@outside.example"
numbers = itertools.count(1)


@pytest.fixture
def demo(gateway):
    """The demo, as `portcullis up` makes it where there is no configuration."""
    gate = gateway(start=False)
    gate.config = None
    gate.up()
    yield gate
    if os.geteuid() == 0:
        shutil.rmtree(homes(gate), ignore_errors=True)


def homes(gate):
    """Where the processes that a gateway starts are at home."""
    if os.geteuid() != 0:
        return gate.data / "homes"
    name = hashlib.sha256(str(gate.data.resolve()).encode()).hexdigest()[:6].encode().hex()
    return driver.pathlib.Path("/var/lib/portcullis-homes") / name


def sent(gate) -> list:
    return [path.read_text() for path in sorted((homes(gate) / "postbox/mail/sent").glob("*.eml"))]


def say(gate, text: str, group: str = "demo") -> None:
    gate.api("POST", "/groups/%s/messages" % group, {"id": "m%d" % next(numbers), "text": text})


def items(gate, group: str = "demo") -> list:
    """Everything people see, with nothing doubled."""
    found = gate.api("GET", "/groups/%s/items" % group)["items"]
    assert len({item["id"] for item in found}) == len(found)
    return [{"id": item["id"], **item["body"]} for item in found]


def of(gate, kind: str, group: str = "demo") -> list:
    return [item for item in items(gate, group) if item["type"] == kind]


def words(gate, group: str = "demo") -> list:
    return [item["text"] for item in of(gate, "agent", group)]


def over(gate, group: str = "demo", seconds: float = 30) -> dict:
    """The run of what was said last, once it is over."""

    def found():
        last = [item for item in items(gate, group) if item["type"] in ("person", "run")][-1:]
        return next((item for item in last if item["type"] == "run" and item["state"] not in OPEN), None)

    return wait_for(found, seconds, "end of the run")


def asked(gate) -> dict:
    """The open question about the letter that would take the notes away; every other one is denied."""

    def found():
        questions = gate.questions()
        return questions if any(q["args"].get("to") == COLLECTOR for q in questions) else None

    for question in wait_for(found, 30, "question"):
        if question["args"]["to"] != COLLECTOR:
            gate.cli("deny", question["id"])
    return next(q for q in gate.questions() if q["args"]["to"] == COLLECTOR)


def tool_of(gate, question: dict) -> dict:
    return next(item for item in of(gate, "tool") if item.get("question") == question["id"])


def test_the_whole_story(demo):
    told = "\n".join(demo.said)
    assert "this is the demo" in told and "$(portcullis token issue --group demo)" in told and "no sandbox" in told, told
    assert "no sandbox" in demo.cli("status")["agents"]

    say(demo, "read my mail")
    question = asked(demo)
    assert question["tool"] == "postbox__send" and question["conversation"] == "group:demo"
    story = next(row for row in demo.audit() if row["approval"] == question["id"])
    assert story["principal"].startswith("run:demo-1 (for ") and sorted(story["labels"]) == ["secret", "untrusted"]
    assert "public_sink" in story["rules"], story
    # In the order of the story, each call in the gateway's own words.
    tools = [(item["tool"], item["state"]) for item in of(demo, "tool")]
    assert tools[0] == ("postbox__list", "ok") and ("notes__read", "ok") in tools, tools
    assert tool_of(demo, question)["state"] == "waiting"
    kinds = [item["type"] for item in items(demo)]
    assert kinds[:4] == ["person", "run", "agent", "tool"], kinds
    assert wait_for(lambda: of(demo, "run")[-1]["state"] == "waiting", 5, "run that waits")

    demo.cli("deny", question["id"], "--reason", "not my notes")
    assert over(demo)["state"] == "done"
    assert "not my notes" in words(demo)[-1], words(demo)
    assert tool_of(demo, question)["state"] == "refused"
    assert sent(demo) == []

    say(demo, "read my mail")
    again = asked(demo)
    assert again["id"] != question["id"]
    demo.cli("approve", again["id"])
    assert over(demo)["state"] == "done"
    assert len(sent(demo)) == 1 and COLLECTOR in sent(demo)[0]
    assert tool_of(demo, again)["state"] == "ok"
    assert [item["text"] for item in of(demo, "person")] == ["read my mail"] * 2
    assert demo.run("audit", "verify").returncode == 0


@pytest.mark.parametrize("how", ("killed", "stopped"))
def test_the_gateway_ends_while_a_question_is_open(demo, how):
    say(demo, "read my mail")
    question = asked(demo)
    before, said = [item["id"] for item in items(demo)], words(demo)
    if how == "killed":
        demo.kill()
        demo.nobody_left(10)
    else:
        demo.stop()
    demo.up()

    assert demo.question(question["id"])["state"] == "pending"
    assert tool_of(demo, question)["state"] == "waiting"
    # The agent is there again and waits with the question that is open.
    wait_for(lambda: of(demo, "run")[-1]["state"] == "waiting", 20, "run that waits again")
    demo.cli("approve", question["id"])
    assert over(demo)["state"] == "done"
    assert len(sent(demo)) == 1
    after = [item["id"] for item in items(demo)]
    assert after[: len(before)] == before, "something was doubled, or stands elsewhere"
    assert words(demo)[:-1] == said and COLLECTOR in words(demo)[-1], words(demo)

    say(demo, "help")
    assert over(demo)["state"] == "done"
    assert "I am a script" in words(demo)[-1]


def to_its_end(gate) -> dict:
    """Says yes to whatever is asked until the run is over."""

    def found():
        for question in gate.questions():
            gate.run("approve", question["id"])
        last = [item for item in items(gate) if item["type"] in ("person", "run")][-1]
        return last if last["type"] == "run" and last["state"] not in OPEN else None

    return wait_for(found, 60, "end of the run")


def ended(gate, old: set) -> None:
    """The processes of a gateway that was killed have a moment to end by themselves."""
    wait_for(lambda: not [pid for pid, born in old if driver._born(pid) == born], 10, "end of the killed gateway's processes")


@pytest.mark.parametrize("seen", (1, 2, 3, 5, 8, 11, 14))
def test_killed_at_any_moment(demo, seen):
    say(demo, "read my mail")
    wait_for(lambda: len(items(demo)) >= seen, 20, "%d items" % seen)
    before = [item["id"] for item in items(demo)]
    old = demo.look_at_family()
    demo.kill()
    demo.up()
    assert to_its_end(demo)["state"] == "done", items(demo)
    after = items(demo)
    assert [item["id"] for item in after][: len(before)] == before
    assert [item["type"] for item in after].count("person") == 1 and [item["type"] for item in after].count("run") == 1
    assert not [item for item in of(demo, "tool") if item["state"] in ("running", "waiting")]
    assert len(sent(demo)) == 1
    texts = words(demo)
    assert all(one != other for one, other in zip(texts, texts[1:])), texts
    ended(demo, old)


@pytest.mark.parametrize("pause", (0, 0.02, 0.05, 0.1))
def test_killed_around_the_execution(demo, pause):
    say(demo, "read my mail")
    question = asked(demo)
    demo.cli("approve", question["id"])
    threading.Event().wait(pause)
    old = demo.look_at_family()
    demo.kill()
    demo.up()
    assert to_its_end(demo)["state"] == "done", items(demo)
    state = tool_of(demo, question)["state"]
    # Done once, or nobody knows whether it was and it was not done again.
    assert (state, len(sent(demo))) in (("ok", 1), ("unknown", 0), ("unknown", 1)), (state, sent(demo))
    assert demo.question(question["id"])["state"] == "approved"
    ended(demo, old)


def kill_agent(gate) -> None:
    agents = [pid for pid, _ in gate.look_at_family() if "portcullis-agent" in driver._command(pid).split(" ")[0]]
    assert agents
    for pid in agents:
        os.kill(pid, signal.SIGKILL)


def test_an_agent_that_is_killed_waits_on_with_its_question(demo):
    say(demo, "read my mail")
    question = asked(demo)
    before = [item["id"] for item in items(demo)]
    kill_agent(demo)
    started = lambda: demo.logged().count("the agent of `demo-1` has started")
    wait_for(lambda: started() == 2, 20, "another agent")
    assert demo.question(question["id"])["state"] == "pending"
    wait_for(lambda: of(demo, "run")[-1]["state"] == "waiting", 20, "run that waits again")
    demo.cli("approve", question["id"])
    assert over(demo)["state"] == "done"
    assert len(sent(demo)) == 1
    assert [item["id"] for item in items(demo)][: len(before)] == before


def test_stopped_by_a_person(demo):
    say(demo, "read my mail")
    question = asked(demo)
    assert demo.api("POST", "/groups/demo/stop", {})["stopped"]
    assert over(demo)["state"] == "stopped"
    gone = demo.wait_for_state(question["id"], "withdrawn")
    assert gone["outcome"] == "refused"
    wait_for(lambda: tool_of(demo, question)["state"] == "refused", 5, "end of the call")
    assert demo.run("approve", question["id"]).returncode == 1
    assert sent(demo) == []


LAB = """
[models.script]
api = "scripted"
[groups.lab]
servers = ["odd", "plain"]
model = "script/script"
agent = { command = %s }
[groups.outside]
servers = ["plain"]
"""


def lab(gate) -> str:
    """A group whose agent is at the test's command, with a server that asks before it writes, and one that does not."""
    shutil.copy(HERE / "servers/probe.py", gate.scratch / "probe.py")
    (gate.scratch / "probe.py").chmod(0o644)
    os.mkfifo(gate.files / "fifo")
    (gate.files / "fifo").chmod(0o666)
    command = [str(driver.PYTHON), str(gate.scratch / "probe.py"), str(gate.files)]
    asks = stand_in(gate.scratch, "odd", {**STRICTLY_TRUSTED, "dangerous_writes": True}, {"echo": {"read_only": True}})
    plain = stand_in(gate.scratch, "plain", tools={"echo": {"read_only": True}})
    return "\n".join([asks, plain, LAB % json.dumps(command)])


def token(gate) -> str:
    """The token of the newest process of the run."""
    path = gate.files / "token"
    wait_for(path.exists, 20, "token of the run")
    told = json.loads(path.read_text())
    path.unlink()
    return told["token"]


def finish(gate) -> None:
    """Tells the agent that it is done."""
    with open(gate.files / "fifo", "w") as fifo:
        fifo.write("so be it")


class Later:
    """A call on a thread of its own, which may lose its gateway."""

    def __init__(self, gate, token: str, tool: str, args: dict):
        self.answer = None
        self.thread = threading.Thread(target=self._run, args=(gate, token, tool, args), daemon=True)
        self.thread.start()

    def _run(self, *arguments):
        try:
            self.answer = call(*arguments)
        except (OSError, http.client.HTTPException, ValueError):
            pass

    def over(self):
        self.thread.join(20)
        assert not self.thread.is_alive(), "the call is still held"
        return self.answer


def resumed(gate, token: str, tool: str, args: dict):
    return ask(gate, token, "tools/call", {"name": tool, "arguments": args, "_meta": {"portcullis/resumed": True}}, seconds=60)


def lines(gate) -> list:
    path = gate.files / "out"
    return path.read_text().splitlines() if path.exists() else []


def killed(gate) -> str:
    gate.kill()
    gate.nobody_left(10)
    gate.up()
    return token(gate)


def test_nothing_is_done_a_second_time_after_a_kill(gateway):
    gate = gateway(lab)
    say(gate, "go", "lab")
    first = token(gate)
    out = str(gate.files / "out")
    done, slow = {"path": out, "text": "once"}, {"path": out, "steps": 600}
    assert call(gate, first, "plain__append", done).text == "appended"
    assert lines(gate) == ["once"]
    # One is being done when the gateway dies, one has an answer that was handed over, one was never made.
    Later(gate, first, "plain__count", slow)
    states = lambda: {item["tool"]: item["state"] for item in of(gate, "tool", "lab")}
    wait_for(lambda: states() == {"plain__append": "ok", "plain__count": "running"}, 10, "call that is being done")
    second = killed(gate)
    assert second != first
    assert ask(gate, first, "tools/list").status == 401, "a token outlived the gateway"
    assert states() == {"plain__append": "ok", "plain__count": "unknown"}
    for args, tool in ((slow, "plain__count"), (done, "plain__append")):
        answer = resumed(gate, second, tool, args)
        assert answer.result["isError"] and answer.text.startswith("UNKNOWN. "), answer.body
    assert lines(gate) == ["once"]
    assert resumed(gate, second, "plain__append", {"path": out, "text": "new"}).text == "appended"
    assert lines(gate) == ["once", "new"]
    # What only reads is simply done again, and the word that says so goes no further.
    assert resumed(gate, second, "plain__echo", {"text": "a"}).text == "a"
    assert "resumed" not in resumed(gate, second, "plain__meta", {}).text
    finish(gate)
    assert over(gate, "lab")["state"] == "done"


def test_what_was_approved_while_nobody_was_there_is_done_once_and_handed_over_once(gateway):
    gate = gateway(lab)
    say(gate, "go", "lab")
    first = token(gate)
    args = {"path": str(gate.files / "out"), "text": "asked"}
    Later(gate, first, "odd__append", args)
    question = gate.wait_for_question("odd__append")
    second = killed(gate)
    assert gate.question(question["id"])["state"] == "pending"
    gate.cli("approve", question["id"])
    wait_for(lambda: lines(gate) == ["asked"], 10, "line")
    assert resumed(gate, second, "odd__append", args).text == "appended"
    # An answer is handed over again until it is known that it arrived, and then it is lost.
    wait_for(lambda: resumed(gate, second, "odd__append", args).text.startswith("UNKNOWN. "), 10, "answer that is lost")
    assert lines(gate) == ["asked"] and gate.questions() == []
    finish(gate)
    over(gate, "lab")


def test_an_agent_that_is_started_again_gets_the_answer_of_what_is_being_done(gateway):
    gate = gateway(lab)
    say(gate, "go", "lab")
    first = token(gate)
    args = {"path": str(gate.files / "out"), "steps": 80}
    lost = Later(gate, first, "plain__count", args)
    wait_for(lambda: of(gate, "tool", "lab"), 10, "call that is being done")
    kill_agent(gate)
    second = token(gate)
    assert ask(gate, first, "tools/list").status == 401, "an older process still speaks for the run"
    assert resumed(gate, second, "plain__count", args).text == "appended"
    assert lines(gate) == ["counted"] and len(of(gate, "tool", "lab")) == 1
    assert b"appended" not in lost.over().body
    finish(gate)
    over(gate, "lab")


def test_what_was_withdrawn_with_its_task_answers_nothing(gateway):
    gate = gateway(lab)
    say(gate, "go", "lab")
    first = token(gate)
    args = {"path": str(gate.files / "out"), "text": "asked"}
    later = Later(gate, first, "odd__append", args)
    question = gate.wait_for_question("odd__append")
    assert gate.api("POST", "/groups/lab/stop", {})["stopped"]
    gate.wait_for_state(question["id"], "withdrawn")
    later.over()
    assert ask(gate, first, "tools/list").status == 401
    say(gate, "again", "lab")
    second = token(gate)
    later = Later(gate, second, "odd__append", args)
    again = gate.wait_for_question("odd__append")
    assert again["id"] != question["id"]
    gate.cli("approve", again["id"])
    assert later.over().text == "appended" and lines(gate) == ["asked"]
    finish(gate)
    over(gate, "lab")


def test_allowed_for_this_task_ends_with_it(gateway):
    gate = gateway(lab)
    out = str(gate.files / "out")
    for task in range(2):
        say(gate, "go", "lab")
        run = token(gate)
        later = Later(gate, run, "odd__append", {"path": out, "text": "asked %d" % task})
        question = gate.wait_for_question("odd__append")
        if task == 0:
            # The person answers after a restart, and it counts for the task that goes on.
            run = killed(gate)
            later.over()
        gate.cli("approve", question["id"], "--for", "run")
        wait_for(lambda: "asked %d" % task in lines(gate), 10, "line")
        assert call(gate, run, "odd__append", {"path": out, "text": "granted %d" % task}).text == "appended"
        finish(gate)
        over(gate, "lab")
    assert lines(gate) == ["asked 0", "granted 0", "asked 1", "granted 1"]


def test_an_outside_agent_cannot_say_that_it_was_restarted(gateway):
    gate = gateway(lab)
    outside = gate.token("outside")
    args = {"path": str(gate.files / "out"), "text": "x"}
    for _ in range(2):
        assert resumed(gate, outside, "plain__append", args).text == "appended"
    assert lines(gate) == ["x", "x"]
    assert "resumed" not in resumed(gate, outside, "plain__meta", {}).text


def test_a_run_token_dies_with_its_run(gateway):
    gate = gateway(lab)
    say(gate, "go", "lab")
    run = token(gate)
    bearer = {"Authorization": "Bearer " + run}
    assert ask(gate, run, "tools/list").status == 200
    assert send(gate.port, "POST", "/llm/anthropic/v1/messages", bearer, b"{}").status == 400
    finish(gate)
    assert over(gate, "lab")["state"] == "done"
    assert "so be it" in of(gate, "agent", "lab")[-1]["text"]
    wait_for(lambda: ask(gate, run, "tools/list").status == 401, 10, "end of the token")
    for method, path in (("GET", "/agent/v1/turns"), ("POST", "/agent/v1/events"), ("POST", "/llm/anthropic/v1/messages")):
        answer = send(gate.port, method, path, {**bearer, "Content-Type": "application/json"}, b'{"events": []}')
        assert answer.status == 401 and "www-authenticate" in answer.headers, (path, answer.status)


def test_only_a_run_speaks_agent(gateway):
    gate = gateway(lab)
    say(gate, "go", "lab")
    run, outside = token(gate), gate.token("lab", "--name", "laptop")
    for method, path in (("GET", "/agent/v1/turns"), ("POST", "/agent/v1/events")):
        body = b'{"events": [{"n": 1, "type": "done"}]}'
        headers = {"Content-Type": "application/json"}
        assert send(gate.port, method, path, headers, body).status == 401
        answer = send(gate.port, method, path, {**headers, "Authorization": "Bearer " + outside}, body)
        assert answer.status == 403, answer.status
        attempt = gate.audit()[-1]
        assert attempt["tool"] == "%s %s" % (method, path) and "laptop" in attempt["principal"], attempt
    for path in ("/api/v1/groups/lab/messages", "/api/v1/approvals"):
        assert send(gate.port, "POST", path, {"Authorization": "Bearer " + run}, b"{}").status == 403
    assert over_not(gate)
    finish(gate)
    over(gate, "lab")


def test_an_agent_has_only_so_much_under_way(gateway):
    gate = gateway(lab)
    say(gate, "go", "lab")
    headers = {"Authorization": "Bearer " + token(gate), "Content-Type": "application/json"}
    report = lambda: send(gate.port, "POST", "/agent/v1/events", headers, b'{"events": []}').status
    assert report() == 200
    begun = []

    def full() -> bool:
        """Whether there is no room for one more report, after another was begun and left so."""
        connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=30)
        begun.append(connection)
        connection.putrequest("POST", "/agent/v1/events")
        for name, value in {**headers, "Content-Length": "1000"}.items():
            connection.putheader(name, value)
        connection.endheaders(b"{")
        return report() == 429

    wait_for(full, 5, "end of the room")
    assert len(begun) < 20
    for connection in begun:
        connection.close()
    wait_for(lambda: report() == 200, 5, "room again")
    finish(gate)
    assert over(gate, "lab")["state"] == "done"


def over_not(gate) -> bool:
    return of(gate, "run", "lab")[-1]["state"] in OPEN


def test_an_agent_does_not_reach_what_is_the_owners(gateway):
    gate = gateway(lab)
    script = gate.scratch / "probe.py"
    script.write_text(
        "import json, os, socket, sys\n"
        "sys.stdin.readline()\n"
        "def tried(what):\n"
        "    try: return repr(what())\n"
        "    except OSError as error: return 'refused: %s' % error.strerror\n"
        "data, config = sys.argv[1:]\n"
        "knock = lambda: socket.socket(socket.AF_UNIX).connect(os.path.join(data, 'portcullis.sock'))\n"
        "read = lambda: open(config).read()\n"
        "print(json.dumps([tried(knock), tried(read), tried(lambda: os.listdir(data)), sorted(os.environ)]))\n"
    )
    command = [str(driver.PYTHON), str(script), str(gate.data), str(gate.config)]
    gate.stop(signal.SIGINT)
    gate.configure(LAB.replace('["odd", "plain"]', "[]").replace('["plain"]', "[]") % json.dumps(command))
    gate.up()
    say(gate, "go", "lab")
    over(gate, "lab")
    *tried, environment = json.loads(of(gate, "agent", "lab")[-1]["text"])
    assert all(one.startswith("refused: ") for one in tried), tried
    assert not [name for name in environment if name not in ENVIRONMENT], environment
