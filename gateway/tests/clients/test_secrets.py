"""Secrets: found in arguments and answers, asked about on their way out, and shown nowhere."""

import base64
import contextlib
import json
import threading

from console import Browser
from driver import PYTHON, STRICTLY_TRUSTED, group, server, stand_in
from mcp_http import ask, call, modern, send

GITHUB = "ghp_0123456789abcdefghijABCDEFGHIJ012345"
HELD = "the-gateway's own secret 4711"
PASSWORD = "correcthorsebattery"
URL = "postgres://app:%s@db.example.org/x" % PASSWORD
PEM = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"
KEY = "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n" % PEM
ENCODED = base64.b64encode(("x" + HELD + "y").encode()).decode()
CANARIES = {"github": GITHUB, "held": HELD, "password": PASSWORD, "pem": PEM, "encoded": ENCODED, "hex": HELD.encode().hex()}


def dev(gate):
    (gate.scratch / "held").write_text(HELD + "\n")
    kept = {"KEY": {"file": str(gate.scratch / "held")}}
    odd = server("odd", PYTHON, ["-u", gate.scratch / "stand_in.py"], STRICTLY_TRUSTED, env=kept)
    out = stand_in(gate.scratch, "out", {**STRICTLY_TRUSTED, "public_sink": True})
    web = stand_in(gate.scratch, "web", {**STRICTLY_TRUSTED, "public_source": True})
    return "\n".join([odd, out, web, group("dev", ["odd", "out", "web"])])


def asked(gate, token, tool, args, how="deny", *words):
    """A call that a person is asked about: the question as people see it."""
    return waits(gate, lambda: call(gate, token, tool, args), how, *words)


def waits(gate, request, how="deny", *words):
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(request()), daemon=True)
    waiting.start()
    question = gate.wait_for_question()
    gate.cli(how, question["id"], *words)
    waiting.join(30)
    return question, answers[0]


def told(gate, name, text):
    path = gate.files / name
    path.write_text(text)
    return {"path": str(path)}


def seen(gate, browser) -> dict:
    """All that is stored or shown, by where."""
    places = {path.name: path.read_bytes() for path in gate.data.iterdir() if path.is_file() and ".db" in path.name}
    places["log"] = gate.logged().encode()
    for path in ("/", "/inbox", "/audit", "/api/v1/approvals?all=true", "/api/v1/audit"):
        places[path] = browser.get(path).body
    for command in (["audit", "list"], ["approvals", "--all"], ["audit", "list", "--json"], ["status"]):
        places[" ".join(command)] = gate.run(*command).stdout.encode()
    for row in gate.audit():
        for command in ("show", None):
            done = gate.run("audit", "show", row["id"]) if command else gate.run("why", row["id"])
            places["%s %s" % (command or "why", row["id"])] = (done.stdout + done.stderr).encode()
    return places


def holds(places: dict) -> list:
    texts = {name: value.encode() for name, value in CANARIES.items()}
    return sorted((name, place) for name, value in texts.items() for place, content in places.items() if value in content)


def test_no_secret_is_stored_or_shown_anywhere(gateway):
    gate = gateway(dev)
    token, browser = gate.token("dev"), Browser(gate)
    secrets = [GITHUB, "it is %s!" % HELD, URL, KEY, "see " + ENCODED, HELD.encode().hex()]
    for secret in secrets:
        question, answer = asked(gate, token, "odd__echo", {"text": secret}, "deny", "--reason", "not %s" % secret)
        assert "credential" in json.dumps(question["reasons"]), question
        assert answer.result["isError"]
    asked(gate, token, "odd__echo", {"text": "x", GITHUB: [{"a/" + GITHUB: 1}]})
    _, answer = asked(gate, token, "odd__echo", {"text": "yes, " + GITHUB}, "approve")
    assert GITHUB in answer.text, "what a person allowed is sent as it was shown to be"
    for number, secret in enumerate([URL, KEY, GITHUB, HELD]):
        assert secret.strip() in call(gate, token, "odd__tell", told(gate, "told%d" % number, secret)).text
        assert call(gate, token, "odd__fail", told(gate, "fails%d" % number, secret)).result["isError"]
    waits(gate, lambda: ask(gate, token, "resources/read", {"uri": "odd+x://" + GITHUB}))
    ask(gate, token, "tools/call", {"name": "odd__" + GITHUB, "arguments": {}})
    ask(gate, token, "tools/call", {"name": "odd__echo", "arguments": {"text": 1, GITHUB: URL}})
    headers, body = modern("tools/call", {"name": "odd__echo", "arguments": {"text": "x"}})
    send(gate.port, "POST", "/mcp", {**headers, "Authorization": "Bearer " + GITHUB, "X-Key": GITHUB}, body)
    send(gate.port, "GET", "/" + GITHUB)
    with contextlib.suppress(AssertionError):
        browser.get("/audit?text=" + GITHUB)
    asked(gate, token, "odd__echo", {"text": "once more: " + PASSWORD})
    assert holds({"planted": ("x" + GITHUB + PEM).encode()}) == [("github", "planted"), ("pem", "planted")]
    places = seen(gate, browser)
    assert holds(places) == []
    masked = [place for place, content in places.items() if "•••".encode() in content]
    assert {"/api/v1/approvals?all=true", "/api/v1/audit", "audit list"} <= set(masked) and len(masked) > 10, masked


def test_what_was_read_as_a_secret_is_one_from_then_on(gateway):
    gate = gateway(dev)
    token = gate.token("dev")
    harmless = {"text": "it is " + PASSWORD}
    assert call(gate, token, "odd__echo", harmless).text == harmless["text"]
    assert URL in call(gate, token, "odd__tell", told(gate, "config", "db = %s\n" % URL)).text
    reader = next(row for row in gate.audit() if row["tool"] == "odd__tell")
    assert "secret" in gate.cli("audit", "show", reader["id"])["adds"], "the server was declared to have no secrets"
    gate.kill()
    gate.up()
    question, _ = asked(gate, token, "odd__echo", harmless)
    assert "credential" in json.dumps(question["reasons"]) and PASSWORD not in json.dumps(question)
    other, _ = asked(gate, gate.token("dev"), "odd__echo", harmless)
    assert other["conversation"] != question["conversation"], "it is one in every conversation"
    call(gate, token, "web__echo", {"text": "strangers"})
    question, _ = asked(gate, token, "out__echo", {"text": "nothing special"})
    assert "public_sink" in json.dumps(question["reasons"]), "secrets and strangers: what leaves is asked about"


def test_a_secret_that_was_exchanged_is_known_when_its_server_has_it(gateway):
    gate = gateway(dev)
    token = gate.token("dev")
    new = "another secret, of today 0815"
    assert call(gate, token, "odd__echo", {"text": new}).text == new
    (gate.scratch / "held").write_text(new + "\n")
    call(gate, token, "odd__die")
    for text in (new, HELD):
        call(gate, token, "odd__echo", {"text": "starts it anew"})
        question, _ = asked(gate, token, "odd__echo", {"text": "here: " + text})
        assert "credential" in json.dumps(question["reasons"]) and text not in json.dumps(question)


def test_arguments_and_answers_that_are_too_large_inside_are_refused(gateway):
    gate = gateway("[gateway]\nmax_values = 5000", dev)
    token = gate.token("dev")
    nested = json.loads("[" * 70 + "]" * 70)
    refused = call(gate, token, "odd__echo", {"text": "x", "more": nested})
    assert refused.result["isError"] and "deeper than 64 levels" in refused.text, refused.body
    refused = call(gate, token, "odd__echo", {"text": "x", "more": list(range(6000))})
    assert refused.result["isError"] and "more than 5000 values" in refused.text, refused.body
    assert [row for row in gate.audit() if row["tool"] == "odd__echo"] == []
    for tool, args, why in [("deep", {"depth": 100}, "deeper"), ("deep", {"depth": 200000}, "deeper"), ("many", {"values": 6000}, "more than 5000")]:
        withheld = call(gate, token, "odd__" + tool, args)
        assert withheld.result["isError"] and why in withheld.text and "withheld" in withheld.text, withheld.body[:500]
    for answer in (call(gate, token, "odd__deep", {"depth": 20}), call(gate, token, "odd__many", {"values": 100})):
        assert not answer.result.get("isError"), answer.body[:500]
    deep = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"odd__echo","arguments":{"text":"x","a":%s%s}}}'
    headers, _ = modern("tools/call", {"name": "odd__echo"})
    refused = send(gate.port, "POST", "/mcp", {**headers, "Authorization": "Bearer " + token}, deep % (b"[" * 500000, b"]" * 500000))
    assert refused.status == 400
    assert call(gate, token, "odd__echo", {"text": "still there"}).text == "still there"
