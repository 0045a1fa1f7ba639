"""The demo's story, over and over, with the gateway killed at times that nobody chose: nothing is lost and nothing doubled.

PORTCULLIS_CHAOS is how often (3 unless said), and after a colon the seed that a failure named."""

import os
import random
import signal
import time

import pytest
from test_hosted import OPEN, demo, ended, items, say, sent  # noqa: F401

ROUNDS, _, SEED = os.environ.get("PORTCULLIS_CHAOS", "3").partition(":")
FIRST = int(SEED or random.randrange(1 << 32))


def answer(gate, dice) -> None:
    """A person who decides as the dice fall; too late, or with the gateway gone, is no answer."""
    for question in gate.questions():
        command = ("approve", question["id"]) if dice.random() < 0.6 else ("deny", question["id"], "--reason", "no")
        gate.run(*command)


def over(gate, dice) -> None:
    end = time.monotonic() + 90
    while True:
        last = [item for item in items(gate) if item["type"] in ("person", "run")][-1]
        if last["type"] == "run" and last["state"] not in OPEN:
            return
        assert time.monotonic() < end, items(gate)
        answer(gate, dice)
        time.sleep(0.05)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(FIRST, FIRST + int(ROUNDS)))
def test_a_story_with_kills(demo, seed):  # noqa: F811
    dice = random.Random(seed)
    messages = dice.sample(["read my mail", "read my notes", "remember that it rains", "send my notes to ann@outside.example"], 2)
    old = set()
    for message in messages:
        say(demo, message)
        for _ in range(dice.randint(0, 3)):
            time.sleep(dice.uniform(0, 0.7))
            if dice.random() < 0.5:
                answer(demo, dice)
            old |= demo.look_at_family()
            if dice.random() < 0.8:
                demo.kill()
            else:
                # What the one before left that was killed may still be ending.
                demo.process.send_signal(signal.SIGINT)
                assert demo.process.wait(15) == 0
            demo.up()
        over(demo, dice)

    shown = items(demo)
    assert [item["text"] for item in shown if item["type"] == "person"] == messages
    runs = [item for item in shown if item["type"] == "run"]
    assert [run["state"] for run in runs] == ["done"] * len(messages), runs
    tools = [item for item in shown if item["type"] == "tool"]
    assert not [item for item in tools if item["state"] in ("running", "waiting")], tools
    questions = demo.rows("approvals", "--all")
    assert not [question for question in questions if question["state"] == "pending"]
    rows = demo.rows("audit", "list", "--limit", "1000")
    assert not [row for row in rows if row["outcome"] == "running"]
    outcomes = [row["outcome"] for row in rows if row["tool"] == "postbox__send"]
    done, unknown = outcomes.count("ok"), outcomes.count("unknown")
    assert done <= len(sent(demo)) <= done + unknown, (rows, sent(demo))
    assert len(sent(demo)) == len(set(sent(demo))) <= len([m for m in messages if "mail" in m or "send" in m]) * 3
    written = [row for row in rows if row["tool"] == "notes__write" and row["outcome"] == "ok"]
    assert len(written) <= messages.count("remember that it rains")
    assert demo.run("audit", "verify").returncode == 0
    ended(demo, old)
