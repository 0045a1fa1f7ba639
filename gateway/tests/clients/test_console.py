"""The console over plain HTTP: who is let in, what a stolen half of a login is worth, and what others wrote on a page."""

import http.client
import json
import re

import pytest

from console import Browser, link, redeem
from driver import PYTHON, STRICTLY_TRUSTED, server, wait_for
from mcp_http import send
from test_refusals import Held, two_groups

PEOPLE = """
[users.ana]
role = "owner"
[users.bo]
role = "member"
[users.cy]
role = "approver"
"""


def with_people(gate):
    groups = two_groups(gate)
    return groups.replace("[groups.dev]\n", '[groups.dev]\nmembers = ["bo"]\napprovers = ["cy"]\n').replace(
        "[groups.other]\n", '[groups.other]\nmembers = ["ana"]\napprovers = ["ana"]\n'
    ) + PEOPLE


# --- the link -----------------------------------------------------------------------------------------------------
def test_a_link_opens_once(gateway):
    gate = gateway(two_groups)
    secret = link(gate)
    first = redeem(gate, secret)
    assert first.status == 200
    cookie = first.headers["set-cookie"]
    name = cookie.split("=")[0]
    assert str(gate.port) in name and "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/" in cookie
    for _ in range(2):
        second = redeem(gate, secret)
        assert second.status == 403 and "set-cookie" not in second.headers and b"token" not in second.body
    tried = [row for row in gate.audit() if row["decision"] == "deny"]
    assert len(tried) == 2 and all("log in" in row["tool"] and "link_" in row["tool"] for row in tried), tried
    for wrong in ("", "x", ".", secret[:-1], secret.split(".")[0] + ".", "link_00000000." + secret.split(".")[1]):
        assert redeem(gate, wrong).status == 403, wrong
    # Neither the secret, the cookie nor the token lies anywhere in the data directory.
    stored = b"".join(path.read_bytes() for path in gate.data.rglob("*") if path.is_file())
    secrets = [secret.split(".")[1], cookie.split(";")[0].split(".")[1], json.loads(first.body)["token"]]
    assert not [one for one in secrets if one.encode() in stored]
    assert not [one for one in secrets if one in gate.logged()]


def test_the_link_of_the_start_opens_too(gateway):
    gate = gateway(two_groups)
    said = "\n".join(gate.said)
    secret = re.search(r"/login#(\S+)", said)[1]
    assert redeem(gate, secret).status == 200
    assert redeem(gate, secret).status == 403


def test_a_login_that_another_page_asks_for(gateway):
    gate = gateway(two_groups)
    secret = link(gate)
    for headers in ({"Origin": "http://127.0.0.1:1"}, {"Origin": "null"}, {"Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "cross-site"}):
        assert redeem(gate, secret, **headers).status == 403, headers
    form = send(gate.port, "POST", "/login", {"Content-Type": "text/plain"}, json.dumps({"secret": secret}).encode())
    assert form.status == 415
    assert redeem(gate, secret, Sec_Fetch_Site="same-origin", Origin="http://127.0.0.1:%d" % gate.port).status == 200


# --- the session --------------------------------------------------------------------------------------------------
def test_half_a_login_is_worth_nothing(gateway):
    gate = gateway(two_groups)
    browser, other = Browser(gate), Browser(gate)
    held = Held(gate, gate.token("dev"))
    paths = [
        ("GET", "/api/v1/approvals"),
        ("GET", "/api/v1/approvals/" + held.id),
        ("POST", "/api/v1/approvals/%s/approve" % held.id),
        ("POST", "/api/v1/groups/dev/messages"),
        ("GET", "/api/v1/events"),
        ("GET", "/api/v1/audit"),
        ("GET", "/api/v1/openapi.json"),
        ("POST", "/api/v1/links"),
        ("DELETE", "/api/v1/session"),
        ("GET", "/api/v1/nothing"),
    ]
    halves = [
        {"X_Portcullis_Token": None},
        {"Cookie": None},
        {"X_Portcullis_Token": other.token},
        {"Cookie": other.cookie},
        {"X_Portcullis_Token": ""},
        {"Cookie": browser.cookie + "; " + other.cookie},
        {"Cookie": None, "X_Portcullis_Token": None},
    ]
    for method, path in paths:
        for half in halves:
            answer = browser.send(method, path, {"for": "once"} if method == "POST" else None, **half)
            assert answer.status == 401, "%s %s with %r: %d" % (method, path, half, answer.status)
            assert "www-authenticate" in answer.headers and held.id.encode() not in answer.body
    # A page without the token is a shell that holds nothing; without the cookie it is the login.
    for path in ("/", "/g/dev", "/inbox", "/audit", "/servers", "/status"):
        shell = browser.get(path, X_Portcullis_Token=None)
        assert shell.status == 200 and b"odd" not in shell.body and held.id.encode() not in shell.body
        assert browser.get(path, Cookie=None, X_Portcullis_Token=None).headers["location"] == "/login"
        assert browser.get(path, X_Portcullis_Token=other.token).status == 401
    assert held.still_waits()
    # Both halves, and another origin or site: no.
    for headers in (
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ):
        answer = browser.post("/approvals/%s/approve" % held.id, {"for": "once"}, **headers)
        assert answer.status == 403, headers
    assert held.still_waits()
    answer = browser.post("/approvals/%s/approve" % held.id, {"for": "once"}, Sec_Fetch_Site="same-origin")
    assert answer.status == 200 and json.loads(answer.body)["decided_by"] == "local"
    held.thread.join(15)
    assert held.answer.text == "appended"


def test_a_session_ends_and_survives_a_restart(gateway):
    gate = gateway(two_groups)
    browser, other = Browser(gate), Browser(gate)
    gate.stop()
    gate.up(listen="127.0.0.1:%d" % gate.port)
    assert browser.api("/me") == {"user": "local", "role": "owner"}
    assert browser.send("DELETE", "/api/v1/session").status == 200
    assert browser.get("/api/v1/me").status == 401
    assert other.api("/me")["user"] == "local"


def test_a_token_of_an_agent_opens_nothing_here(gateway):
    gate = gateway(two_groups)
    browser = Browser(gate)
    token = gate.token("dev")
    before = len(gate.audit())
    routes = ["GET /api/v1/me", "POST /api/v1/links", "GET /api/v1/events", "GET /api/v1/nothing", "GET /inbox", "GET /live", "POST /login"]
    for method, path in map(str.split, routes):
        # Not even beside a whole login: whoever has an agent's token is an agent.
        for credentials in ({"Cookie": None, "X_Portcullis_Token": None}, {}):
            answer = browser.send(method, path, **credentials, Authorization="Bearer " + token)
            assert answer.status == 403, "%s %s: %d" % (method, path, answer.status)
        assert browser.send(method, path, Authorization="Bearer nonsense").status == 401
    tried = gate.audit()[before:]
    assert len(tried) == 2 * len(routes) and all(row["decision"] == "deny" and "token:" in row["principal"] for row in tried)
    assert browser.get("/inbox", Cookie=None, X_Portcullis_Token=None).headers["location"] == "/login"


def test_what_is_not_theirs_is_not_there(gateway):
    gate = gateway(with_people)
    ana, bo, cy = (Browser(gate, "--user", name) for name in ("ana", "bo", "cy"))
    dev, other = gate.token("dev", "--user", "ana"), gate.token("other", "--user", "ana")
    held = Held(gate, dev)
    assert [group["name"] for group in bo.api("/groups")] == ["dev"]
    assert [group["name"] for group in ana.api("/groups")] == ["dev", "other"]
    assert [one["name"] for one in bo.api("/servers")] == ["odd"]
    assert bo.api("/status")["groups"] == ["dev"] and bo.api("/status")["open_approvals"] == 1
    from mcp_http import call

    call(gate, other, "hidden__echo", {"text": "xyzzy"})
    stories = ana.api("/audit?text=xyzzy")["stories"]
    assert [story["group"] for story in stories] == ["other"]
    assert bo.api("/audit?text=xyzzy")["stories"] == [] and {row["group"] for row in bo.api("/audit")["stories"]} == {"dev"}
    assert bo.get("/api/v1/audit/" + stories[0]["id"]).status == 404
    assert bo.get("/audit/" + stories[0]["id"]).status == 404
    for path in ("/api/v1/groups/other/items", "/api/v1/events?group=other", "/g/other"):
        assert bo.get(path).status == 404, path
    assert bo.post("/groups/other/messages", {"id": "1", "text": "x"}).status == 404
    for path, body in (("/tokens", {"group": "dev", "ttl_seconds": 60}),):
        assert bo.post(path, body).status == 403
    assert bo.get("/api/v1/tokens").status == 403
    # Who may see a question may not yet answer it; an approver of the group may, and is no member.
    assert [row["id"] for row in bo.api("/approvals")] == [held.id]
    assert bo.post("/approvals/%s/approve" % held.id, {"for": "once"}).status == 403
    assert held.still_waits()
    assert cy.post("/groups/dev/messages", {"id": "1", "text": "x"}).status == 403
    assert ana.post("/groups/dev/messages", {"id": "1", "text": "x"}).status == 403, "the owner is no member"
    assert cy.post("/approvals/%s/deny" % held.id, {"reason": "not today"}).status == 200
    held.thread.join(15)
    assert "not today" in held.answer.text
    late = ana.post("/approvals/%s/approve" % held.id, {"for": "once"})
    assert late.status == 409 and b"by cy" in late.body


def test_where_the_command_line_decides_nothing_its_links_do_neither(gateway):
    gate = gateway(lambda gate: two_groups(gate) + "\n[approvals]\ncli = false\n")
    by_command = Browser(gate)
    held = Held(gate, gate.token("dev"))
    again = json.loads(by_command.post("/links").body)["url"].split("#")[1]
    for secret in (link(gate), again):
        answer = redeem(gate, secret)
        by_command.cookie = answer.headers["set-cookie"].split(";")[0]
        by_command.token = json.loads(answer.body)["token"]
        assert by_command.post("/approvals/%s/approve" % held.id, {"for": "once"}).status == 403
        assert by_command.post("/approvals/%s/deny" % held.id).status == 403
    assert held.still_waits()
    answer = redeem(gate, re.search(r"/login#(\S+)", "\n".join(gate.said))[1])
    by_command.cookie = answer.headers["set-cookie"].split(";")[0]
    by_command.token = json.loads(answer.body)["token"]
    assert by_command.post("/approvals/%s/deny" % held.id).status == 200
    # A link for another device is its person's doing, whoever made the one that let them in.
    made = [row["principal"] for row in gate.audit() if row["tool"].startswith("login link")]
    by_command.post("/links")
    links = [row["principal"] for row in gate.audit() if row["tool"].startswith("login link")]
    assert sorted(links) == sorted([*made, "user:local"]) and "portcullis" in made, (made, links)


def test_every_page_says_what_a_browser_may_do_with_it(gateway):
    gate = gateway(two_groups)
    browser = Browser(gate)
    held = Held(gate, gate.token("dev"))
    action = next(row["id"] for row in gate.audit() if row["approval"] == held.id)
    shell = browser.get("/inbox", X_Portcullis_Token=None)
    assets = re.findall(rb'(?:src|href)="(/assets/[^"]+)"', shell.body + browser.get("/login").body)
    assert len(set(assets)) == 4
    pages = ["/", "/g/dev", "/inbox", "/inbox/" + held.id, "/audit", "/audit?kind=mcp", "/audit/" + action, "/servers", "/status", "/login"]
    answers = {path: browser.get(path) for path in pages + [path.decode() for path in assets]}
    answers.update({"shell": shell, "nowhere": browser.get("/g/nowhere"), "refused": browser.get("/inbox", X_Portcullis_Token="x")})
    for path, answer in answers.items():
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'", path
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'" and "unsafe" not in str(policy), path
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cross-origin-resource-policy"] == "same-origin", path
        kept = "immutable" if path.startswith("/assets/") else "no-store"
        assert kept in answer.headers["cache-control"], path
        if "html" in answer.headers["content-type"]:
            # Nothing inline that the policy would have to forgive.
            assert not re.search(rb"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:", answer.body), path
    other = re.sub(rb"/assets/\w+/", b"/assets/000000000000/", assets[0]).decode()
    assert browser.get(other).status == 404
    for path in ("/me", "/approvals", "/audit", "/nowhere", "/openapi.json"):
        assert browser.get("/api/v1" + path).headers["cache-control"] == "no-store", path
    assert held.id.encode() in answers["/inbox"].body and b"odd__append" in answers["/audit/" + action].body
    gate.cli("deny", held.id)


# --- what is said and shown ---------------------------------------------------------------------------------------
class Following:
    """Reads `/api/v1/events` as it comes."""

    def __init__(self, browser, query: str = "", **headers):
        self.connection = http.client.HTTPConnection("127.0.0.1", browser.gate.port, timeout=20)
        sent = {"Cookie": browser.cookie, "X-Portcullis-Token": browser.token, **headers}
        self.connection.request("GET", "/api/v1/events" + query, headers=sent)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()

    def next(self, name: str) -> tuple:
        """The next event of a name: its id and data."""
        event: dict = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if line and not line.startswith(":"):
                key, _, value = line.partition(": ")
                event[key] = value
            elif not line and event:
                if event.get("event") == name:
                    return event.get("id"), json.loads(event["data"])
                event = {}


def test_a_message_is_stored_once_and_seen_by_all(gateway):
    gate = gateway(two_groups)
    one, two = Browser(gate), Browser(gate)
    following = Following(two, "?after=0")
    sent = {"id": "m1", "text": "hello \u202e there"}
    answers = [one.post("/groups/dev/messages", sent) for _ in range(3)]
    assert {answer.status for answer in answers} == {200} and len({answer.body for answer in answers}) == 1
    assert one.post("/groups/dev/messages", {"id": "m1", "text": "other"}).status == 409
    one.post("/groups/dev/messages", {"id": "m2", "text": "second"})
    seen = [following.next("item") for _ in range(2)]
    assert [item["body"]["text"] for _, item in seen] == [sent["text"], "second"]
    assert [item["body"]["by"] for _, item in seen] == ["local", "local"]
    page = two.api("/groups/dev/items")
    assert [item["id"] for item in page["items"]] == [item["id"] for _, item in seen]
    assert str(page["newest"]) == seen[1][0]
    # A stream that broke goes on where it was, whatever it was first asked with.
    resumed = Following(two, "?after=0", **{"Last-Event-ID": seen[0][0]})
    assert resumed.next("item") == seen[1]
    assert Following(two, "?after=%s" % seen[0][0]).next("item") == seen[1]
    for body in ({"id": "", "text": "x"}, {"id": "x" * 65, "text": "x"}, {"id": "é", "text": "x"}, {"id": "1", "text": " "}, {"id": "1", "text": "x" * 70000}):
        assert one.post("/groups/dev/messages", body).status == 400
    gate.kill()
    gate.up(listen="127.0.0.1:%d" % gate.port)
    assert one.post("/groups/dev/messages", sent).body == answers[0].body
    assert len(one.api("/groups/dev/items")["items"]) == 2
    assert one.post("/groups/dev/stop").status == 200


def test_a_question_is_told_as_it_comes_and_goes(gateway):
    gate = gateway(two_groups)
    one, two = Browser(gate), Browser(gate)
    following = Following(one)
    assert following.next("open")[1] == {"ids": []}
    held = Held(gate, gate.token("dev"))
    _, put = following.next("approval")
    assert (put["id"], put["state"], put["tool"]) == (held.id, "pending", "odd__append")
    # Who comes later is told what is open.
    late = Following(two)
    assert late.next("open")[1] == {"ids": [held.id]} and late.next("approval")[1]["id"] == held.id
    assert two.post("/approvals/%s/approve" % held.id, {"for": "once"}).status == 200
    for stream in (following, late):
        while True:
            _, changed = stream.next("approval")
            if changed["outcome"] == "ok":
                assert (changed["state"], changed["decided_by"]) == ("approved", "local")
                break


def test_the_stream_of_a_session_that_ended_ends(gateway):
    gate = gateway(two_groups)
    browser = Browser(gate)
    following = Following(browser)
    following.next("open")
    browser.send("DELETE", "/api/v1/session")
    # At the next heartbeat, 15 s at most.
    rest = following.response.read()
    assert b"data" not in rest


def test_the_log_in_pages(gateway):
    from mcp_http import call

    gate = gateway(two_groups)
    browser = Browser(gate)
    token = gate.token("dev")
    for number in range(7):
        call(gate, token, "odd__echo", {"text": "number %d" % number})
    first = browser.api("/audit?limit=3&kind=mcp")
    assert [story["args"]["text"] for story in first["stories"]] == ["number 6", "number 5", "number 4"]
    second = browser.api("/audit?limit=4&kind=mcp&before=%d" % first["next"])
    assert [story["args"]["text"] for story in second["stories"]] == ["number 3", "number 2", "number 1", "number 0"]
    assert browser.api("/audit?text=NUMBER%203")["stories"][0]["args"]["text"] == "number 3"
    assert browser.api("/audit?decision=deny")["stories"] == []
    assert {story["kind"] for story in browser.api("/audit?kind=gateway")["stories"]} == {"host"}
    story = first["stories"][0]
    told = browser.api("/audit/" + story["id"])
    assert told["story"] == story and [entry["event"]["event"] for entry in told["entries"]] == ["decided", "closed"]
    assert told["entries"][0]["hash"] == story["hash"]
    assert browser.get("/api/v1/audit/nothing").status == 404
