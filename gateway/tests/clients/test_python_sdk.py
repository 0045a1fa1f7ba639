"""The Python `mcp` SDK in both eras of the protocol, and its older line."""

import time

import pytest

from driver import HOLD_SECONDS, everything, filesystem, group, stand_in
from sdk import ALL, Sdk

WRITES = {"public_source": False, "secret_data": False, "public_sink": False, "dangerous_writes": True}


def dev(gate):
    return "\n".join(
        [
            everything(),
            filesystem(gate.files),
            stand_in(gate.scratch, "odd", WRITES, {"echo": {"read_only": True}, "leave": {"dangerous_writes": False}}),
            group("dev", ["everything", "fs", "odd"]),
        ]
    )


@pytest.fixture(params=ALL)
def which(request):
    return request.param


def connect(gate, which, token=None, path="/mcp"):
    client = gate.keep(Sdk(which, gate.url + path, token or gate.token("dev")))
    assert (client.version == "2026-07-28") == (which == "mcp2-modern"), client.version
    return client


def test_lists_and_reads(gateway, which):
    gate = gateway(dev)
    (gate.files / "note.txt").write_text("the note\n")
    client = connect(gate, which)
    tools = client.do("list")["tools"]
    assert {"everything__echo", "fs__read_text_file", "odd__append"} <= set(tools)
    assert client.call("everything__get-sum", a=2, b=3)["text"].count("5")
    read = client.call("fs__read_text_file", path=str(gate.files / "note.txt"))
    assert not read["is_error"] and "the note" in read["text"]
    assert gate.rows("approvals", "--all") == []


def test_resources_and_prompts_come_through(gateway, which):
    gate = gateway(dev)
    client = connect(gate, which)
    uris = client.do("resources")["resources"]
    assert uris and all(uri.startswith("everything+") for uri in uris), uris
    assert client.do("read", uri=uris[0])["text"]
    names = client.do("prompts")["prompts"]
    assert "everything__simple-prompt" in names, names
    assert client.do("prompt", name="everything__simple-prompt")["text"]


def test_progress_of_a_call_is_received(gateway, which):
    gate = gateway(dev)
    client = connect(gate, which)
    done = client.call("everything__trigger-long-running-operation", duration=1, steps=4)
    assert not done["is_error"]
    assert [step["progress"] for step in done["progress"]][-1:] == [4], done["progress"]


def test_one_server_alone_keeps_its_names(gateway, which):
    gate = gateway(dev)
    client = connect(gate, which, path="/mcp/odd")
    assert {"echo", "append"} <= set(client.do("list")["tools"])
    assert client.call("echo", text="plain")["text"] == "plain"


@pytest.mark.held
def test_a_write_is_held_then_approved_and_runs_once(gateway, which):
    gate = gateway(dev)
    client = connect(gate, which)
    trace = gate.files / "trace"
    call = client.start("call", tool="odd__append", args={"path": str(trace), "text": "once"})
    question = gate.wait_for_question("append")
    time.sleep(HOLD_SECONDS)  # the person thinks
    assert client.idle(call) and not trace.exists()
    gate.cli("approve", question["id"])
    done = client.finish(call)
    assert done["event"] == "result" and not done["is_error"] and done["text"] == "appended", done
    if HOLD_SECONDS > 60:
        assert done["progress"], "nothing told the client that its call was alive"
    assert trace.read_text() == "once\n"


def test_a_denied_write_says_why(gateway, which):
    gate = gateway(dev)
    client = connect(gate, which)
    trace = gate.files / "trace"
    call = client.start("call", tool="odd__append", args={"path": str(trace), "text": "never"})
    gate.cli("deny", gate.wait_for_question("append")["id"], "--reason", "ask me again tomorrow")
    done = client.finish(call)
    assert done["is_error"] and "ask me again tomorrow" in done["text"]
    assert not trace.exists()


def test_a_question_outlives_kill_nine(gateway, which):
    gate = gateway(dev)
    token = gate.token("dev")
    client = connect(gate, which, token)
    trace = gate.files / "trace"
    arguments = {"path": str(trace), "text": "once"}
    client.call("odd__leave")  # a process that wants to outlive everything
    client.start("call", tool="odd__append", args=arguments)
    question = gate.wait_for_question("append")
    assert gate.alive(), "no server runs: the test would show nothing"

    gate.kill()
    gate.nobody_left(5)
    client.close()

    gate.up()
    assert [(q["id"], q["args"]) for q in gate.questions()] == [(question["id"], question["args"])]
    assert not trace.exists()
    gate.cli("approve", question["id"])
    settled = gate.wait_for_state(question["id"], "approved")
    assert settled["decided_by"]
    again = connect(gate, which, token).call("odd__append", **arguments)
    assert again["event"] == "result" and not again["is_error"] and again["text"] == "appended", again
    assert trace.read_text() == "once\n", "not exactly once"
    assert len(gate.rows("approvals", "--all")) == 1, "the identical call became a question of its own"
    # What was handed over is handed over: the same call a third time is a new action.
    new = connect(gate, which, token)
    number = new.start("call", tool="odd__append", args=arguments)
    other = gate.wait_for_question("append")
    assert other["id"] != question["id"]
    gate.cli("deny", other["id"])
    assert new.finish(number)["is_error"]
    assert trace.read_text() == "once\n"


def test_the_identical_call_may_come_before_the_answer(gateway, which):
    gate = gateway(dev)
    token = gate.token("dev")
    trace = gate.files / "trace"
    arguments = {"path": str(trace), "text": "once"}
    first = connect(gate, which, token)
    first.start("call", tool="odd__append", args=arguments)
    question = gate.wait_for_question("append")
    gate.kill()
    gate.nobody_left(5)
    first.close()
    gate.up()
    second = connect(gate, which, token)
    call = second.start("call", tool="odd__append", args=arguments)
    time.sleep(1)
    assert [q["id"] for q in gate.questions()] == [question["id"]]
    gate.cli("approve", question["id"])
    done = second.finish(call)
    assert not done["is_error"] and done["text"] == "appended"
    assert trace.read_text() == "once\n"
