"""Servers that are broken, and servers that are hostile."""

import json
import os
import threading
import time

from driver import BIN, STRICTLY_TRUSTED, group, stand_in, wait_for
from mcp_http import ask, call

WRITES = {**STRICTLY_TRUSTED, "dangerous_writes": True}


def two_servers(gate):
    return "\n".join(
        [
            stand_in(gate.scratch, "odd", call_timeout="3s"),
            stand_in(gate.scratch, "forger"),
            stand_in(gate.scratch, "good", WRITES, {"echo": {"read_only": True}}),
            group("dev", ["odd", "good", "forger"]),
        ]
    )


def undisturbed(gate, token):
    assert call(gate, token, "good__echo", {"text": "undisturbed"}).text == "undisturbed"
    assert call(gate, token, "odd__echo", {"text": "as well"}).text == "as well"


def last(gate, tool):
    return [row for row in gate.audit() if tool in (row["tool"] or "")][-1]


def test_one_that_never_answers(gateway):
    gate = gateway(two_servers)
    token = gate.token("dev")
    call(gate, token, "odd__echo", {"text": "start"})
    begun = time.monotonic()
    waiting = threading.Thread(target=lambda: results.append(call(gate, token, "odd__hang")))
    results: list = []
    waiting.start()
    undisturbed(gate, token)
    waiting.join(20)
    assert results[0].result["isError"] and results[0].text, results[0].body
    assert 2.5 < time.monotonic() - begun < 10
    assert last(gate, "hang")["outcome"] in ("unknown", "error")
    undisturbed(gate, token)


def test_one_that_dies_mid_call(gateway):
    gate = gateway(two_servers)
    token = gate.token("dev")
    for _ in range(3):
        answer = call(gate, token, "odd__die")
        assert answer.result["isError"] and answer.text, answer.body
        assert str(gate.scratch) not in answer.text, "the agent was told a path"
    assert last(gate, "die")["outcome"] in ("unknown", "error")
    undisturbed(gate, token)


def test_one_that_floods(gateway):
    gate = gateway(two_servers)
    token = gate.token("dev")
    undisturbed(gate, token)
    before = resident(gate)
    results: list = []
    waiting = threading.Thread(target=lambda: results.append(call(gate, token, "odd__flood", {"lines": 20000})))
    waiting.start()
    assert call(gate, token, "good__echo", {"text": "undisturbed"}).text == "undisturbed"
    waiting.join(60)
    assert results, "no answer at all"
    undisturbed(gate, token)
    assert resident(gate) - before < 100 << 20, "the flood stays in memory"
    assert len(gate.logged()) < 5 << 20, "the flood went into the log"


def test_one_line_without_an_end(gateway):
    gate = gateway(two_servers)
    token = gate.token("dev")
    undisturbed(gate, token)
    before = resident(gate)
    answer = call(gate, token, "odd__endless", {"size": 300})
    assert answer.result["isError"], answer.body[:300]
    assert resident(gate) - before < 200 << 20, "an endless line stays in memory"
    undisturbed(gate, token)


def test_a_schema_that_is_a_bomb(gateway):
    gate = gateway(two_servers)
    token = gate.token("dev")
    undisturbed(gate, token)
    begun = time.monotonic()
    assert call(gate, token, "odd__bomb", {"a": 1, "b": [2]}).text == "not checked"
    assert time.monotonic() - begun < 2
    assert call(gate, token, "odd__echo", {"text": 1}).result["isError"], "an ordinary schema is not checked any more"


def test_two_tools_of_one_name(gateway):
    def twice(gate):
        return stand_in(gate.scratch, "odd").replace("stand_in.py\"", "stand_in.py\", \"--twice\"") + group("dev", ["odd"])

    gate = gateway(twice)
    token = gate.token("dev")
    listed = [tool for tool in ask(gate, token, "tools/list").result["tools"] if tool["name"] == "odd__echo"]
    assert [tool["description"] for tool in listed] == ["echo"], listed
    assert call(gate, token, "odd__echo", {"text": "the first"}).text == "the first"
    (row,) = gate.rows("servers")
    assert "more than one tool named echo" in row["last_error"], row


def test_a_program_that_is_not_there(gateway):
    from driver import server

    gate = gateway(lambda gate: two_servers(gate).replace('["odd", "good", "forger"]', '["odd", "good", "forger", "gone"]') + server("gone", "/nowhere/server", [], {}))
    token = gate.token("dev")
    undisturbed(gate, token)
    (row,) = [row for row in gate.rows("servers") if row["name"] == "gone"]
    assert row["transport"] == "stdio"


def test_it_gets_an_emptied_environment_and_no_hands(gateway):
    gate = gateway(two_servers)
    seen = json.loads(call(gate, gate.token("dev"), "odd__who").text)
    assert set(seen["environment"]) <= {"PATH", "HOME", "LANG", "LC_CTYPE", "TMPDIR", "PWD", "SHLVL", "_"}, seen
    assert seen["home"] != os.environ.get("HOME")
    if os.getuid() == 0:
        assert seen["uid"] != 0, "a server runs as root"


def test_it_cannot_read_what_is_the_owners(gateway):
    gate = gateway(two_servers)
    token = gate.token("dev")
    found = json.loads(call(gate, token, "odd__snoop", {"data": str(gate.data), "config": str(gate.config)}).text)
    assert all(answer.startswith("refused") for answer in found.values()), found
    assert not (gate.data / "planted").exists()


def test_a_server_and_its_children_cannot_approve(gateway):
    gate = gateway(two_servers)
    token = gate.token("dev")
    trace = gate.files / "trace"
    results: list = []
    arguments = {"path": str(trace), "text": "held"}
    held = threading.Thread(target=lambda: results.append(call(gate, token, "good__append", arguments)))
    held.start()
    id = gate.wait_for_question("append")["id"]
    said = len(gate.logged())
    forged = {"program": str(BIN), "config": str(gate.config), "data": str(gate.data), "id": id}
    threading.Thread(target=lambda: results.append(("forge", call(gate, token, "forger__forge", forged))), daemon=True).start()
    forgery = wait_for(lambda: [r[1] for r in results if isinstance(r, tuple)], 60, "end of the forgery")[0]
    if not forgery.result.get("isError"):
        tried = json.loads(forgery.text)
        for way in ("command", "child"):
            assert not tried[way].startswith("exit 0:"), tried
        assert " 200 " not in tried["socket"] and " 204 " not in tried["socket"], tried
    time.sleep(2)  # the orphan may still be at it
    assert gate.question(id)["state"] == "pending", "a server approved its own call"
    assert not trace.exists()
    assert gate.logged()[said:].strip(), "nothing in the log of a forged approval"
    gate.cli("deny", id)
    held.join(20)


def test_what_a_secrets_command_leaves_behind_is_no_owner(gateway):
    def orphan(gate):
        said = gate.files / "said"
        attempt = "sleep 3; %s status --config %s --data %s >%s 2>&1; echo done >>%s" % (BIN, gate.config, gate.data, said, said)
        # Twice forked: its parents are gone when it knocks.
        script = "(setsid sh -c '(%s) &' >/dev/null 2>&1 </dev/null &); echo a-secret-of-the-server" % attempt
        env = {"TOKEN": {"command": ["/bin/sh", "-c", script]}}
        return stand_in(gate.scratch, "odd", env=env) + group("dev", ["odd"])

    gate = gateway(orphan)
    said = gate.files / "said"
    wait_for(lambda: said.exists() and "done" in said.read_text(), 20, "attempt of the orphan")
    assert "does not speak for its owner" in said.read_text(), said.read_text()
    assert gate.cli("status")["groups"] == ["dev"], "the owner is not let in any more"


def test_text_in_a_result_is_only_text(gateway):
    gate = gateway(two_servers)
    token = gate.token("dev")
    trace = gate.files / "trace"
    held = threading.Thread(target=call, args=(gate, token, "good__append", {"path": str(trace), "text": "held"}))
    held.start()
    id = gate.wait_for_question("append")["id"]
    assert id in call(gate, token, "odd__lie", {"id": id}).text
    assert gate.question(id)["state"] == "pending" and not trace.exists()
    gate.cli("deny", id)
    held.join(20)


def test_nothing_it_leaves_behind_outlives_the_gateway(gateway):
    gate = gateway(two_servers)
    assert call(gate, gate.token("dev"), "odd__leave").text == "left"
    assert len(gate.alive()) or gate.look_at_family()
    gate.stop()
    gate.up()
    call(gate, gate.token("dev"), "odd__leave")
    gate.kill()
    gate.nobody_left(5)
    gate.up()


def resident(gate) -> int:
    with open("/proc/%d/statm" % gate.process.pid) as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
