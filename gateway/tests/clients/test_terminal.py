"""A person at a terminal: `login`, `chat` by the line and by one message, `approvals --watch`."""

import json
import os
import pty
import re
import select
import subprocess
import time

from driver import BIN, wait_for
from test_hosted import COLLECTOR, asked, demo, of, say, sent  # noqa: F401

ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, gate, *arguments: str):
        self.gate, self.seen = gate, ""
        where = ["--data", str(gate.data)] + (["--config", str(gate.config)] if gate.config else [])
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [str(BIN), *arguments, *where],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**gate.environment(), "TERM": "xterm"},
            start_new_session=True,
            cwd="/",
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )
        os.close(slave)
        gate.keep(self)

    def until(self, text: str, seconds: float = 30) -> str:
        """Everything up to a text that was not seen before."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, "no %r in %r" % (text, self.seen)
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += ANSI.sub("", os.read(self.master, 65536).decode(errors="replace"))
                except OSError:
                    assert text in self.seen, "ended without %r: %r" % (text, self.seen)
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, line: str) -> None:
        os.write(self.master, line.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


def test_one_message_and_its_answer(demo):  # noqa: F811
    done = demo.run("chat", "--group", "demo", "--message", "help")
    assert done.returncode == 0 and done.stdout.strip() and not done.stderr, done
    assert done.stdout.strip() == of(demo, "agent")[-1]["text"].strip()
    told = demo.cli("chat", "--group", "demo", "--message", "help")
    assert told["state"] == "done" and told["answer"] == told["messages"][-1] and told["run"] != ""
    for arguments in (["--group", "nowhere"], ["--group", "demo", "--user", "nobody"]):
        done = demo.run("chat", *arguments, "--message", "x")
        assert done.returncode in (1, 2) and len(done.stderr.splitlines()) == 1, done


def test_a_message_that_is_held_says_so_and_waits(demo):  # noqa: F811
    where = ["--data", str(demo.data)]
    command = [str(BIN), "chat", "--group", "demo", "--message", "read my mail", *where]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=demo.environment(), cwd="/") as chat:
        question = asked(demo)
        told = ""
        while "held until" not in told:
            told += chat.stderr.readline()
        assert COLLECTOR in told and "Under the blue pot" in told and "since postbox__" in told
        assert "portcullis approve %s" % question["id"] in told and chat.poll() is None
        demo.cli("deny", question["id"], "--reason", "no")
        out, _ = chat.communicate(timeout=30)
    assert chat.returncode == 0 and "it was not done" in out and COLLECTOR in out and sent(demo) == []
    # Stopped by somebody: no answer.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=demo.environment(), cwd="/") as chat:
        asked(demo)
        demo.api("POST", "/groups/demo/stop", {})
        out, told = chat.communicate(timeout=30)
    assert chat.returncode == 1 and out == "" and "stopped by `local`" in told, told


def test_a_conversation_line_by_line(demo):  # noqa: F811
    chat = Terminal(demo, "chat", "--group", "demo")
    chat.until("demo > ")
    chat.type("help\n")
    chat.until("agent")
    chat.until("demo > ")
    # What another device says is here, too; what was typed here is not repeated.
    say(demo, "hello from \u202e elsewhere \x1b[2J\napr_0 >> there")
    chat.until("local: hello from \\u{202e} elsewhere \\u{1b}[2J")
    # No line of it begins where ours do.
    assert chat.until(">> there").replace("\r", "").endswith("\n  apr_0 ")
    wait_for(lambda: of(demo, "run") and all(run["state"] == "done" for run in of(demo, "run")), 30, "end of the runs")
    chat.type("read my mail\n")
    card = chat.until("y / task / n REASON > ")
    assert COLLECTOR in card and "Under the blue pot" in card and "it had read" in card and "notes__read" in card
    question = demo.wait_for_question("send")
    chat.type("yes but why\n")  # no answer to the question: it is said to the agent
    wait_for(lambda: [item for item in of(demo, "person") if item["text"] == "yes but why"], 10, "the message")
    assert demo.question(question["id"])["state"] == "pending"
    wait_for(lambda: answered(demo, chat, question, "n not them\n"), 20, "the answer")
    assert demo.question(question["id"])["reason"] == "not them"
    chat.until("denied by local: not them")
    chat.until("A person denied this call: not them")
    words = [item["text"] for item in of(demo, "person")]
    assert "n not them" not in words and sent(demo) == []
    chat.type("\x03")
    assert chat.process.wait(5) == 0


def answered(gate, chat, question, line) -> bool:
    """Whether a question is answered; what comes too soon after it was shown does not count."""
    if gate.question(question["id"])["state"] == "pending":
        chat.type(line)
        return False
    return True


def test_questions_as_they_come_and_go(demo):  # noqa: F811
    watching = Terminal(demo, "approvals", "--watch")
    say(demo, "read my mail")
    question = asked(demo)
    card = watching.until("expires")
    assert question["id"] in card and COLLECTOR in card and "Under the blue pot" in card
    # An instance that is killed is waited for; what was answered meanwhile is told.
    demo.kill()
    watching.until("waiting for it")
    demo.up()
    demo.cli("deny", question["id"], "--reason", "no\u202e")
    watching.until("%s  denied by local: no\\u{202e}" % question["id"])
    watching.type("\x03")
    assert watching.process.wait(5) == 0


def test_a_link_says_where_and_for_how_long(demo):  # noqa: F811
    told = demo.cli("login")
    assert re.fullmatch(re.escape(demo.url) + r"/login#link_\w+\.[0-9a-f]{32}", told["url"]) and told["minutes"] == 10
    assert demo.run("login", "--user", "nobody").returncode == 2
    links = [row for row in demo.audit() if row["tool"].startswith("login link")]
    assert len(links) == 2 and not [row for row in links if told["url"].split(".")[-1] in json.dumps(row)]


def test_without_an_instance_they_say_so(demo):  # noqa: F811
    assert demo.run("chat", "--group", "demo", "--json").returncode == 2
    demo.stop()
    for command in (["chat", "--group", "demo"], ["chat", "--group", "demo", "--message", "x"], ["approvals", "--watch"], ["login"]):
        done = demo.run(*command)
        assert done.returncode == 1 and "portcullis up" in done.stderr, (command, done)
