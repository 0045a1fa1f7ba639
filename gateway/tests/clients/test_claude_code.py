"""The real Claude Code, headless, its model a script: what it reads of what it does behind the gateway."""

import time

import pytest

from claude import Claude
from driver import HOLD_SECONDS, everything, filesystem, group
from model import Model, say, use


def dev(gate):
    return "\n".join(
        [
            everything(),
            filesystem(gate.files),
            filesystem(gate.files, "raw", declared=False),
            group("dev", ["everything", "fs", "raw"]),
        ]
    )


def mcp(tool: str) -> str:
    return "mcp__gw__" + tool


def test_it_lists_and_reads_without_a_question(gateway):
    gate = gateway(dev)
    (gate.files / "note.txt").write_text("the note\n")
    note = str(gate.files / "note.txt")
    script = [use(mcp("everything__echo"), message="hello"), use(mcp("fs__read_text_file"), path=note), say("read it")]
    with Model(script) as model, Claude(model, gate.url + "/mcp", gate.token("dev")) as claude:
        claude.finish(90)
        assert claude.answer == "read it"
        assert [server["status"] for server in claude.init["mcp_servers"]] == ["connected"]
        for tool in ("everything__get-sum", "fs__write_file", "raw__read_text_file"):
            assert mcp(tool) in claude.init["tools"]
        assert not model.result(0).is_error and "hello" in model.result(0).text
        assert not model.result(1).is_error and "the note" in model.result(1).text
    assert gate.rows("approvals", "--all") == []
    decided = {row["tool"]: (row["decision"], row["outcome"]) for row in gate.audit()}
    assert [value for tool, value in decided.items() if "read_text_file" in tool] == [("allow", "ok")]


@pytest.mark.held
def test_a_write_waits_for_a_person_and_happens_once(gateway):
    gate = gateway(dev)
    path = gate.files / "new.txt"
    script = [
        use(mcp("fs__write_file"), path=str(path), content="written once\n"),
        use(mcp("fs__read_text_file"), path=str(path)),
        say("wrote it"),
    ]
    with Model(script) as model, Claude(model, gate.url + "/mcp", gate.token("dev")) as claude:
        question = gate.wait_for_question("write_file", 60)
        assert question["group"] == "dev"
        assert question["args"]["content"] == "written once\n"
        assert "dangerous_writes" in str(question["reasons"])
        time.sleep(HOLD_SECONDS)  # the person thinks
        assert claude.process.poll() is None, "the client gave up"
        assert not path.exists(), "written before anybody approved"
        gate.cli("approve", question["id"])
        claude.finish(90)
        assert not model.result(0).is_error, model.result(0)
        assert "uccessfully wrote" in model.result(0).text
        assert "written once" in model.result(1).text
        assert claude.answer == "wrote it"
    assert path.read_text() == "written once\n"
    assert gate.wait_for_state(question["id"], "approved")["decided_by"]
    second = gate.run("approve", question["id"])
    assert second.returncode == 1, "a second answer was taken"
    writes = [row for row in gate.audit() if "write_file" in row["tool"]]
    assert [(row["decision"], row["outcome"]) for row in writes] == [("ask", "ok")]
    assert gate.run("why", str(writes[0]["id"])).returncode == 0


def test_the_model_reads_why_a_write_was_denied(gateway):
    gate = gateway(dev)
    path = gate.files / "never.txt"
    reason = "not before the release on Friday"
    script = [use(mcp("fs__write_file"), path=str(path), content="x"), say("understood")]
    with Model(script) as model, Claude(model, gate.url + "/mcp", gate.token("dev")) as claude:
        question = gate.wait_for_question("write_file", 60)
        gate.cli("deny", question["id"], "--reason", reason)
        claude.finish(90)
        assert model.result(0).is_error
        assert reason in model.result(0).text
        assert claude.answer == "understood"
    assert not path.exists()
    gate.wait_for_state(question["id"], "denied")
    late = gate.run("approve", question["id"])
    assert late.returncode == 1 and not path.exists()
    assert [row["outcome"] for row in gate.audit() if "write_file" in row["tool"]] == ["refused"]


def test_of_an_undeclared_server_even_a_read_asks(gateway):
    gate = gateway(dev)
    (gate.files / "note.txt").write_text("the note\n")
    note = str(gate.files / "note.txt")
    script = [use(mcp("raw__read_text_file"), path=note), say("read it")]
    with Model(script) as model, Claude(model, gate.url + "/mcp", gate.token("dev")) as claude:
        question = gate.wait_for_question("read_text_file", 60)
        gate.cli("approve", question["id"])
        claude.finish(90)
        assert "the note" in model.result(0).text


def test_without_a_good_token_it_gets_no_tools(gateway):
    gate = gateway(dev)
    with Model([use(mcp("everything__echo"), message="x"), say("over")]) as model:
        with Claude(model, gate.url + "/mcp", "not-a-token") as claude:
            claude.finish(90)
            assert [server["status"] for server in claude.init["mcp_servers"]] == ["failed"]
            assert not [tool for tool in claude.init["tools"] if tool.startswith("mcp__gw__")]
            assert model.result(0).is_error
