"""Stories that are told to a gateway which may die at any word, and what must be true of each in the end.

A story is played; then whoever lost its gateway comes back, people answer what is still open, and `check` looks at what
was executed, what the log says, what the questions say, and what each caller was told.
"""

import json
import os
import sqlite3
import threading
import time

import console
import mcp_http
from faults import GONE, LOST, Calling, World

SETTLES_WITHIN = 25
NAMES = iter(range(1 << 62))


class Wrong(AssertionError):
    """What must never be."""


class Story:
    """One or more calls with a nonce each, and the votes of people about them."""

    def __init__(self, world: World, dice):
        self.world, self.dice = world, dice
        self.calls: list = []
        self.votes: list = []
        self.abandoned: set = set()
        self.nonces: list = []

    # --- what happens -------------------------------------------------------------------------------------------
    def play(self) -> None:
        raise NotImplementedError

    def meanwhile(self) -> None:
        """While nothing runs, between two lives."""

    def again(self) -> None:
        """After a restart whose gateway may die too: whoever lost their call come back."""
        self.come_back()
        self.answer_all(1.0)

    def nonce(self) -> str:
        nonce = "n%dx%x" % (next(NAMES), self.dice.randrange(1 << 40))
        self.nonces.append(nonce)
        return nonce

    def call(self, tool: str, nonce: str | None = None, group: str = "dev", era: str | None = None):
        token = self.world.token_of(group)
        if token is LOST:
            return None
        era = era or self.dice.choice(("modern", "legacy"))
        calling = Calling(self.world, token, tool, nonce or self.nonce(), era)
        self.calls.append(calling)
        return calling.begin()

    def question(self, nonce: str, seconds: float = 5):
        """The open question about a nonce; `None` if the gateway dies or the call ends before."""
        end = time.monotonic() + seconds
        mine = [call for call in self.calls if call.nonce == nonce]
        while self.world.is_up() and time.monotonic() < end:
            for one in self.world.questions_about(nonce):
                if one["state"] in ("pending", "caller_gone"):
                    return one
            if mine and all(call.is_over() for call in mine) and not self.abandoned & set(map(id, mine)):
                return None
            time.sleep(0.02)
        return None

    def vote(self, id: str, verb: str, way: str = "api", user: str | None = None, **body) -> None:
        if way == "cli":  # as the only owner
            command = ["approve", id, "--run-anyway"] if verb == "approve" else ["deny", id, "--reason", "no"]
            done = self.world.run(*command)
            said = done.stdout + done.stderr
            status = 200 if done.returncode == 0 else 409 if "already" in said or "is waiting" in said else LOST
            told = {"error": said}
        elif way == "console":
            status, told = self.from_console(id, verb)
        else:
            if verb == "approve":
                body = {"for": "once", "run_anyway": True, **body}
            status, told = self.world.ask("POST", "/approvals/%s/%s" % (id, verb), body, user)
        if way == "cli" and status == 200:
            told = self.world.ask("GET", "/approvals/" + id)[1] or {"state": "pending"}
        self.votes.append((id, verb, status, told))

    def from_console(self, id: str, verb: str) -> tuple:
        try:
            browser = console.Browser(self.world)
            answer = browser.post("/approvals/%s/%s" % (id, verb), {"for": "once", "run_anyway": True} if verb == "approve" else {})
            return answer.status, json.loads(answer.body)
        except (*GONE, AssertionError):
            if self.world.is_up() and self.world.ask("GET", "/me")[0] == 200 and not self.world.ends(0.3):
                raise
            return LOST, LOST

    def at_once(self, *doings) -> None:
        threads = [threading.Thread(target=doing, daemon=True) for doing in doings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    # --- until it is over ---------------------------------------------------------------------------------------
    def come_back(self) -> None:
        for call in self.calls:
            if call.is_over() and not call.answers and id(call) not in self.abandoned and self.world.is_up():
                call.begin()

    def answer_all(self, seconds: float) -> None:
        """People answer what is open, for so long or until nobody waits."""
        end = time.monotonic() + seconds
        while self.world.is_up() and time.monotonic() < end:
            for nonce in self.nonces:
                for one in self.world.questions_about(nonce):
                    if one["state"] in ("pending", "caller_gone"):
                        self.vote(one["id"], "approve" if self.dice.random() < 0.4 else "deny")
            if all(call.is_over() for call in self.calls):
                return
            time.sleep(0.02)

    def settle(self) -> None:
        """Until every caller knows and nothing is open."""
        end = time.monotonic() + SETTLES_WITHIN
        while True:
            if not self.world.is_up():
                raise Wrong("the gateway ended by itself: %s" % self.world.logged()[-3000:])
            self.come_back()
            left = [call.nonce for call in self.calls if not call.is_over() or not (call.answers or id(call) in self.abandoned)]
            for nonce in self.nonces:
                for one in self.world.questions_about(nonce):
                    if one["state"] in ("pending", "caller_gone"):
                        self.vote(one["id"], "approve" if self.dice.random() < 0.4 else "deny", user=self.dice.choice(("ana", "bo")))
                        left.append(one["id"])
                    elif one["outcome"] == "running":
                        left.append(one["id"])
                left += [row["id"] for row in self.world.records_about(nonce) if row["outcome"] == "running"]
            if not left:
                return
            if time.monotonic() > end:
                raise Wrong("open after %d s: %s" % (SETTLES_WITHIN, left))
            time.sleep(0.02)

    # --- what must be true ----------------------------------------------------------------------------------------
    def check(self) -> None:
        for nonce in self.nonces:
            self.check_one(nonce)
        yes = {}
        for id, verb, status, told in self.votes:
            if status == 200 and told["state"] in ("pending", "caller_gone"):
                continue  # of several people it is the last whose yes settles it
            if status == 200:
                if yes.setdefault(id, verb) != verb:
                    raise Wrong("question `%s` was both approved and denied" % id)
                nonce_state = {"approve": "approved", "deny": "denied"}[verb]
                state = self.world.ask("GET", "/approvals/" + id)[1]["state"]
                if state != nonce_state:
                    raise Wrong("`%s` of `%s` was confirmed and it is %s" % (verb, id, state))
            elif status not in (409, 404, 500, LOST):
                raise Wrong("a vote was answered with %s %s" % (status, told))
        done = self.world.run("audit", "verify")
        if done.returncode != 0:
            raise Wrong("the log does not verify: %s%s" % (done.stdout, done.stderr))

    def check_one(self, nonce: str) -> None:
        executed = self.world.counter.executed(nonce)
        records = self.world.records_about(nonce)
        questions = self.world.questions_about(nonce)
        answers = [text for call in self.calls if call.nonce == nonce for text in call.answers]
        lost = sum(call.lost for call in self.calls if call.nonce == nonce)
        facts = "executed %d times; records %s; questions %s; answers %s; lost %d" % (
            executed,
            [(row["id"], row["tool"], row["decision"], row["outcome"], row["approval"]) for row in records],
            [(one["id"], one["state"], one["outcome"]) for one in questions],
            answers,
            lost,
        )

        def must(true, what):
            if not true:
                raise Wrong("%s: %s: %s" % (nonce, what, facts))

        of = lambda *outcomes: sum(1 for row in records if row["outcome"] in outcomes)
        must(of("running") == 0, "a record has no end")
        must(not [one for one in questions if one["state"] in ("pending", "caller_gone")], "a question is open")
        must(not [one for one in questions if one["outcome"] == "running"], "an answered question has no end")
        counted = not any(row["tool"].startswith("notes__") for row in records)
        if counted:
            must(of("ok") <= executed, "the log says *ok* of what was not executed")
            must(executed <= of("ok", "error", "unknown"), "executed more often than the log knows")
        asked = [row for row in records if row["decision"] == "ask"]
        allowed = [row for row in records if row["decision"] == "allow"]
        approved = [one for one in questions if one["state"] == "approved"]
        if counted:
            must(executed <= len(allowed) + len(approved), "executed more often than allowed")
        for row in asked:
            one = next((one for one in questions if one["id"] == row["approval"]), None)
            if one is None:
                must(row["outcome"] == "refused", "asked, no question, and not refused")
            elif one["state"] != "approved":
                must(row["outcome"] == "refused", "not approved and not refused")
                must(one["outcome"] == "refused", "not approved and its question says otherwise")
        for row in records:
            must(row["decision"] != "deny" or row["outcome"] == "refused", "denied and not refused")
        results = {text for text in answers if text.startswith("done")}
        if counted:
            must(len(results) <= executed, "more results than executions")
        if answers and not lost and all(text.startswith("NOT EXECUTED") for text in answers):
            must(executed == 0, "told NOT EXECUTED, and executed")
        if len(records) == 1 and answers and not lost:
            outcome = records[0]["outcome"]
            if results:
                must(outcome in ("ok", "error", "unknown"), "a result, and the log says otherwise")
            elif answers[-1].startswith("NOT EXECUTED"):
                must(outcome in ("refused", "error"), "told NOT EXECUTED, and the log says otherwise")


class Allowed(Story):
    """A call that changes something and needs nobody."""

    tool = "touch"

    def play(self):
        call = self.call(self.dice.choice(("count__", "count__", "pipe__")) + self.tool)
        if call:
            call.thread.join(15)


class Denied(Allowed):
    """A rule says no."""

    tool = "never"


class Held(Story):
    """A call that waits for people, who answer in two places at once."""

    tool = "mark"
    server = None
    plan = None

    def play(self):
        server = self.server or self.dice.choice(("count", "count", "count", "pipe"))
        call = self.call("%s__%s" % (server, self.tool))
        if not call:
            return
        question = self.question(call.nonce)
        if question:
            plans = (("approve",), ("approve", "approve"), ("approve", "deny"), ("deny",), ("deny", "deny"), ("approve", "approve", "deny"))
            plan = self.plan or self.dice.choice(plans)
            ways = [self.dice.choice(("api",) * 8 + ("cli", "console")) for _ in plan]
            self.at_once(*(lambda verb=verb, way=way: self.vote(question["id"], verb, way) for verb, way in zip(plan, ways)))
        call.thread.join(15)


class HeldOnPipe(Held):
    """The same over stdio."""

    server = "pipe"
    plan = ("approve",)


class Fails(Held):
    """The tool says that it failed."""

    tool = "wrong"
    plan = ("approve",)


class Breaks(Held):
    """The server dies in the middle, after it has done its work."""

    tool = "broken"
    plan = ("approve", "approve")


class Twice(Story):
    """Two identical calls at once are one."""

    def play(self):
        one = self.call("count__mark")
        two = one and self.call("count__mark", one.nonce)
        if not two:
            return
        question = self.question(one.nonce)
        if question:
            self.vote(question["id"], self.dice.choice(("approve", "approve", "deny")))
        one.thread.join(15)
        two.thread.join(15)


class Leaves(Story):
    """The caller goes away: before it is asked, while it waits, after the yes, or takes its call back; and may return."""

    def play(self):
        call = self.call("count__mark")
        if not call:
            return
        when = self.dice.choice(("before", "held", "answered", "cancelled"))
        returns = self.dice.random() < 0.6
        if not returns:
            self.abandoned.add(id(call))
        if when == "before":
            time.sleep(self.dice.uniform(0, 0.03))
            call.leave()
        question = self.question(call.nonce, 3)
        if question and when == "held":
            call.leave()
        if question and when == "cancelled":
            call.cancel()
        if question:
            if when == "answered":
                leaving = threading.Timer(self.dice.uniform(0, 0.02), call.leave)
                leaving.start()
            if returns and self.dice.random() < 0.5:
                call.thread.join(5)
                self.come_back()
            self.vote(question["id"], self.dice.choice(("approve", "approve", "deny")))
        call.thread.join(15)


class TwoPeople(Story):
    """What takes two people: one yes is none, in whatever order and however often it is said."""

    def play(self):
        call = self.call("count__both")
        question = call and self.question(call.nonce)
        if question:
            id = question["id"]
            yes = [lambda user=user: self.vote(id, "approve", user=user) for user in ("ana", "bo", self.dice.choice(("ana", "bo")))]
            if self.dice.random() < 0.3:
                yes[self.dice.randrange(3)] = lambda: self.vote(id, "deny", user="bo")
            if self.dice.random() < 0.5:
                self.at_once(*yes)
            else:
                for one in yes:
                    one()
        if call:
            call.thread.join(1)

    def check(self):
        super().check()
        for nonce in self.nonces:
            for one in self.world.questions_about(nonce):
                agreed = {row[0] for row in self.agreed(one["id"])}
                if one["state"] == "approved" and len(agreed | {one["decided_by"]}) < 2:
                    raise Wrong("one person was enough: %s %s" % (one, agreed))

    def agreed(self, id: str) -> list:
        with sqlite3.connect(self.world.data / "portcullis.db") as db:
            return db.execute("select person from approval_yes where question = ?", (id,)).fetchall()


class ForTheRun(Story):
    """A yes for the task: the next call of the tool needs nobody; another tool does."""

    def play(self):
        first = self.call("count__mark", era="modern")
        question = first and self.question(first.nonce)
        if question:
            self.vote(question["id"], "approve", **{"for": "run"})
        if first:
            first.thread.join(15)
        if question and self.world.is_up():
            second = self.call("count__mark", era="modern")
            if second:
                question = self.question(second.nonce)
                if question:
                    self.vote(question["id"], "deny")
                second.thread.join(15)


class Races(Story):
    """An answer and the end of a question's time."""

    short = True

    def play(self):
        call = self.call("count__mark")
        question = call and self.question(call.nonce)
        if question:
            left = mcp_time(question["expires_at"]) - time.time()
            time.sleep(max(0.0, left + self.dice.uniform(-0.03, 0.03)))
            self.at_once(
                lambda: self.vote(question["id"], "approve"),
                lambda: self.world.ask("GET", "/approvals"),
                lambda: self.vote(question["id"], self.dice.choice(("approve", "deny"))),
            )
        if call:
            call.thread.join(15)


class Revoked(Story):
    """The token that asked is revoked before a person says yes."""

    def play(self):
        status, told = self.world.ask("POST", "/tokens", {"group": "dev", "ttl_seconds": 600})
        if status != 200:
            return
        call = Calling(self.world, told["token"], "count__mark", self.nonce(), "modern")
        self.calls.append(call)
        self.abandoned.add(id(call))
        call.begin()
        question = self.question(call.nonce)
        if question:
            tokens = self.world.ask("GET", "/tokens")[1] or []
            newest = max(tokens, key=lambda one: (one["created_at"], one["id"])) if tokens else None
            mine = question["conversation"].partition(":")[2]
            if newest:
                self.world.ask("DELETE", "/tokens/" + mine)
            self.vote(question["id"], "approve")
            end = time.monotonic() + 2
            while self.world.is_up() and time.monotonic() < end:
                if not [one for one in self.world.questions_about(call.nonce) if one["outcome"] == "running"]:
                    break
                time.sleep(0.02)
        call.thread.join(15)


class Full(Story):
    """More questions than a conversation may have open."""

    def play(self):
        calls = [self.call("count__mark") for _ in range(4)]
        for call in filter(None, calls):
            self.question(call.nonce, 1)
        self.answer_all(10)


class Thinks(Story):
    """A call to a model."""

    group, more = "dev", {}

    def play(self):
        token = self.world.token_of(self.group)
        if token is LOST:
            return
        nonce = self.nonce()
        body = {"model": nonce, "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}], **self.more}
        headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
        try:
            mcp_http.send(self.world.port, "POST", "/llm/anthropic/v1/messages", headers, json.dumps(body).encode())
        except GONE:
            pass


class Searches(Thinks):
    """A call to a model that would take secrets out: a person would be asked, so it is refused."""

    group, more = "dirty", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}

    def play(self):
        call = self.call("count__taint", group="dirty")
        if call:
            call.thread.join(15)
            super().play()


class Notes(Story):
    """A server inside the gateway."""

    def play(self):
        call = self.call("notes__write")
        if call:
            question = self.question(call.nonce, 1)
            if question:
                self.vote(question["id"], "approve")
            call.thread.join(15)


class Unreadable(Story):
    """What a question would run was changed on the disk while the gateway was down."""

    def play(self):
        call = self.call("count__mark")
        self.asked = call and self.question(call.nonce)
        self.world.process.kill()
        self.world.process.wait()
        if call:
            self.abandoned.add(id(call))
            call.thread.join(15)

    def meanwhile(self):
        if not self.asked:
            return
        with sqlite3.connect(self.world.data / "portcullis.db") as db:
            state = self.dice.choice((None, None, "running"))
            db.execute("update approvals set sealed = x'00' where id = ?", (self.asked["id"],))
            if state:
                db.execute("update approvals set state = 'approved', execution = 'running' where id = ?", (self.asked["id"],))
        self.broken, self.asked = self.asked, None


class Hosted(Story):
    """A task of a hosted agent: it asks, a person answers, it goes on where it was."""

    def play(self):
        self.finished = False
        self.said = "m%d" % next(NAMES)
        self.before = self.runs()
        self.say()
        self.work()

    def say(self):
        body = {"id": self.said, "text": "go"}
        return self.world.ask("POST", "/groups/lab/messages", body)[0]

    def runs(self) -> list:
        status, told = self.world.ask("GET", "/groups/lab/items?limit=500")
        return [one["body"] for one in told["items"] if one["body"]["type"] == "run"] if status == 200 else []

    def token(self, seconds: float):
        path, end = self.world.files / "token", time.monotonic() + seconds
        while self.world.is_up() and time.monotonic() < end:
            try:
                told = json.loads(path.read_text())
                path.unlink()
                return told["token"]
            except (OSError, ValueError):
                time.sleep(0.02)
        return None

    def work(self):
        token = self.token(10)
        if not token:
            return
        if self.calls:
            call = self.calls[-1]
            call.token, call.resumed = token, True
            if not call.answers:
                call.begin()
        else:
            call = Calling(self.world, token, "count__mark", self.nonce(), "modern")
            self.calls.append(call)
            call.begin()
        question = self.question(call.nonce)
        if question:
            self.vote(question["id"], self.dice.choice(("approve", "approve", "deny")))
        call.thread.join(10)
        if call.answers:
            self.finish()

    def finish(self):
        end = time.monotonic() + 10
        while self.world.is_up() and time.monotonic() < end:
            try:
                file = os.open(self.world.files / "fifo", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                time.sleep(0.02)
                continue
            os.write(file, b"so be it")
            os.close(file)
            self.finished = True
            break
        while self.world.is_up() and time.monotonic() < end and not self.is_over():
            time.sleep(0.03)

    def is_over(self) -> bool:
        now = self.runs()
        return len(now) > len(self.before) and now[-1]["state"] not in ("queued", "working", "waiting")

    def come_back(self):
        pass

    def again(self):
        self.say()  # the same message again is the same message
        if not self.is_over():
            self.work()

    def settle(self):
        end = time.monotonic() + 60
        self.say()
        while not self.is_over():
            if time.monotonic() > end:
                raise Wrong("the task is not over: %s" % self.runs()[-1:])
            if self.calls and self.calls[-1].answers:
                self.finish()
            else:
                self.work()
            if not self.world.is_up():
                raise Wrong("the gateway ended by itself: %s" % self.world.logged()[-3000:])
        for call in self.calls:
            call.thread.join(10)
            self.abandoned.add(id(call))
        if len(self.runs()) != len(self.before) + 1:
            raise Wrong("one message, %d tasks" % (len(self.runs()) - len(self.before)))
        super().settle()


class Stopped(Hosted):
    """A task that a person ends while it waits for another's word."""

    def work(self):
        token = self.token(10)
        if not token:
            return
        call = Calling(self.world, token, "count__mark", self.nonce(), "modern")
        self.calls.append(call)
        self.abandoned.add(id(call))
        call.begin()
        if self.question(call.nonce):
            if self.dice.random() < 0.3:
                self.at_once(self.stop, lambda: self.answer_all(0.1))
            else:
                self.stop()
        call.thread.join(10)

    def stop(self):
        self.world.ask("POST", "/groups/lab/stop", {})

    def settle(self):
        end = time.monotonic() + 60
        self.say()
        while not self.is_over():
            if time.monotonic() > end:
                raise Wrong("the task is not over: %s" % self.runs()[-1:])
            self.stop()
            time.sleep(0.1)
        Story.settle(self)


class First(Allowed):
    """The very first start of a data directory, and its first call."""

    fresh = True


def mcp_time(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


STORIES = {
    story.__name__: story
    for story in (
        Allowed, Denied, Held, HeldOnPipe, Fails, Breaks, Twice, Leaves, TwoPeople, ForTheRun, Races, Revoked, Full, Thinks,
        Searches, Notes, Unreadable, Hosted, Stopped, First
    )
}  # fmt: skip
