"""The log as its reader uses it: finding, telling, exporting, checking."""

import csv
import io
import json
import sqlite3
import threading

import pytest

from console import link, redeem
from driver import Gateway, group, stand_in
from mcp_http import call, send

WRITES = {"public_source": False, "secret_data": False, "public_sink": False, "dangerous_writes": True}
LETTER = "The quick brown fox. " * 400


@pytest.fixture(scope="module")
def history():
    """A stopped gateway with a log of what is told below."""
    gate = Gateway()
    odd = stand_in(gate.scratch, "odd", WRITES, {"echo": {"read_only": True}})
    gate.configure(odd, group("dev", ["odd"]), group("ops", ["odd"]), '[users.ana]\nrole = "owner"\n[users.bo]\nrole = "member"\n')
    gate.up()
    try:
        token = gate.token("dev")
        gate.token_id = gate.rows("token", "list")[0]["id"]
        assert call(gate, token, "odd__echo", {"text": "to ana@example.org"}).text == "to ana@example.org"
        for _ in range(2):
            call(gate, token, "odd__echo", {"text": LETTER})
        held = threading.Thread(target=call, args=(gate, token, "odd__append", {"path": str(gate.files / "t"), "text": "=1+1"}))
        held.start()
        gate.held = gate.wait_for_question()["id"]
        gate.cli("deny", gate.held, "--reason", "that is no letter")
        held.join(30)
        for _ in range(20):
            assert send(gate.port, "POST", "/mcp", {"Content-Type": "application/json"}, b"{}").status == 401
        assert redeem(gate, link(gate)).status == 200
        assert gate.run("token", "issue", "--group", "dev", "--user", "bo").returncode == 1
        gate.cli("token", "revoke", gate.token_id)
        gate.stop()
        yield gate
    finally:
        gate.destroy()


def what(rows):
    return [row["tool"] for row in rows]


def test_words_and_filters_find_what_they_name(history):
    search = lambda *arguments: history.rows("audit", "search", *arguments)
    assert what(search("ana@example.org", "--kind", "mcp")) == ["odd__echo"]
    assert len(search("quick fox")) == 2 and search('"quick fox"') == []
    assert len(search("qui*")) == 2 and len(search("example.org")) == 1
    assert what(search("no letter")) == what(search(history.held)) == ["odd__append"]
    for arguments, tools in [
        (["--decision", "ask"], ["odd__append"]),
        (["--outcome", "refused", "--kind", "mcp"], ["odd__append"]),
        (["--approval", "denied"], ["odd__append"]),
        (["--tool", "odd__append", "--group", "dev"], ["odd__append"]),
        (["--group", "ops"], []),
        (["--kind", "mcp", "--until", "1h"], []),
        (["--principal", "token:" + history.token_id, "--server", "odd", "--limit", "1"], ["odd__append"]),
    ]:
        assert what(history.rows("audit", "list", *arguments)) == tools, arguments
    assert history.run("audit", "list", "--since", "yesterday").returncode == 2


def test_who_came_in_who_did_not_and_what_was_done_to_the_gateway_are_records(history):
    rows = history.rows("audit", "list", "--limit", "500")
    told = lambda word: [row for row in rows if word in row["tool"]]
    assert {"login link", "logged in"} == {word for word in ("login link", "logged in") if told(word)}
    assert len(told("issued for group")) == 1 and len(told("revoked")) == 1
    assert [row["principal"] for row in told("logged in")] == ["user:ana"]
    (counted,) = told("without a credential that is good")
    assert counted["tool"].startswith("20 requests") and counted["principal"] == "127.0.0.1" and counted["outcome"] == "refused"
    (tried,) = told("POST /tokens")
    assert tried["principal"] == "user:bo" and tried["decision"] == "deny"
    assert [row["tool"] for row in history.rows("audit", "list", "--kind", "token")] == what(told("issued for group") + told("revoked"))


def test_why_tells_who_answered_in_which_words_and_what_came_back(history):
    why = history.cli("why", history.held)
    assert why["answer"]["reason"] == "that is no letter" and why["outcome"] == "refused"
    assert any("said no" in line and "that is no letter" in line for line in why["why"])
    (echo,) = history.rows("audit", "search", "ana@example.org", "--kind", "mcp")
    why = history.cli("why", echo["id"])
    assert why["result"]["told"]["content"][0]["text"] == "to ana@example.org" and "read" in why
    assert history.run("why", "act_0").returncode == 1


def test_a_large_text_is_in_the_database_once(history):
    with sqlite3.connect(history.data / "portcullis.db") as db:
        values = [body for (body,) in db.execute("select body from payloads") if LETTER in body]
        assert len(values) == 1
        assert not [1 for (body,) in db.execute("select body from audit") if LETTER in body]
    stories = history.rows("audit", "search", "quick fox")
    assert all(story["args"]["text"] == LETTER for story in stories)


def exported(history, *arguments: str) -> str:
    done = history.run("audit", "export", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_export_is_checked_without_the_gateway_and_a_forged_one_is_not(history, tmp_path):
    key = history.cli("audit", "key")["key"]
    text = exported(history)
    file = tmp_path / "log.jsonl"

    def check(text: str, *arguments: str):
        file.write_text(text)
        done = history.run("audit", "verify", "--file", str(file), *arguments, "--json")
        return done.returncode, json.loads(done.stdout)

    status, said = check(text, "--key", key)
    assert status == 0 and said["export"]["records"] == history.cli("audit", "verify")["records"]
    assert said["export"]["signed_to"] == said["export"]["records"]
    assert check(text, "--key", "0" * 64)[0] == 1
    lines = text.splitlines(keepends=True)
    for forged in [
        text.replace("that is no letter", "that is a letter"),
        text.replace("quick brown", "quick white"),
        "".join(line for line in lines if '"type":"value"' not in line),
        "".join(lines[:5] + lines[6:]),
        "".join(lines[:-1]),
    ]:
        assert check(forged, "--key", key)[0] == 1


def test_tables_and_events_tell_every_story_and_hold_no_formula(history):
    stories = history.rows("audit", "list", "--limit", "500")
    table = list(csv.reader(io.StringIO(exported(history, "--format", "csv"))))
    assert len(table) == len(stories) + 1
    assert not [cell for row in table for cell in row if cell[:1] in "=+-@\t" and cell]
    events = [json.loads(line) for line in exported(history, "--format", "ocsf").splitlines()]
    assert [event["metadata"]["uid"] for event in events] == [story["id"] for story in stories]
    required = {"activity_id", "actor", "api", "category_uid", "class_uid", "metadata", "severity_id", "src_endpoint", "time", "type_uid"}
    assert all(required <= set(event) and event["class_uid"] == 6003 for event in events)
    assert exported(history, "--format", "ocsf", "--until", "1h") == ""


def test_an_older_database_is_told_by_verify_and_by_the_next_start(gateway):
    gate = gateway(lambda gate: group("dev", []))
    gate.tampered = True
    gate.token("dev")
    gate.stop()
    before = (gate.data / "portcullis.db").read_bytes()
    gate.up()
    gate.token("dev")
    gate.stop()
    assert gate.run("audit", "verify").returncode == 0
    for old in gate.data.glob("portcullis.db*"):
        old.unlink()
    (gate.data / "portcullis.db").write_bytes(before)
    assert gate.run("audit", "verify").returncode == 1
    gate.up()
    assert any("older copy was put back" in row["tool"] for row in gate.audit())
    gate.stop()
    assert gate.run("audit", "verify").returncode == 1
