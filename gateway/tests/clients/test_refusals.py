"""Everything that must be refused, over plain HTTP and on the command line, and what it leaves undisturbed."""

import base64
import http.client
import json
import os
import signal
import socket
import sqlite3
import threading
import time

import pytest

from driver import Finished, group, mode, stand_in, wait_for
from mcp_http import ask, call, modern, send

WRITES = {"public_source": False, "secret_data": False, "public_sink": False, "dangerous_writes": True}


def two_groups(gate):
    return "\n".join(
        [
            stand_in(gate.scratch, "odd", WRITES, {"echo": {"read_only": True}}),
            stand_in(gate.scratch, "hidden"),
            group("dev", ["odd"]),
            group("other", ["hidden"]),
        ]
    )


class Held:
    """A call that waits for a person, in a thread of its own."""

    def __init__(self, gate, token, text="held"):
        self.gate, self.trace, self.answer = gate, gate.files / "trace", None
        arguments = {"path": str(self.trace), "text": text}

        def run():
            try:
                self.answer = call(gate, token, "odd__append", arguments)
            except (OSError, http.client.HTTPException) as error:
                self.answer = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        self.question = gate.wait_for_question("append")
        self.id = self.question["id"]

    def still_waits(self) -> bool:
        return self.gate.question(self.id)["state"] == "pending" and not self.trace.exists()


# --- who ----------------------------------------------------------------------------------------------------------
def refused_as_stranger(answer):
    assert answer.status == 401, "%d %r" % (answer.status, answer.body[:300])
    assert answer.headers["www-authenticate"].lower().startswith("bearer")
    assert b"odd" not in answer.body and b"hidden" not in answer.body


def altered(token: str, header: dict | None = None, claims: dict | None = None, signature: bytes | None = None) -> str:
    """The token with parts replaced, its signature kept unless given."""

    def decode(part):
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head, body, sign = token.split(".")
    head = encode(json.dumps({**decode(head), **(header or {})}).encode()) if header else head
    body = encode(json.dumps({**decode(body), **(claims or {})}).encode()) if claims else body
    return "%s.%s.%s" % (head, body, sign if signature is None else encode(signature))


@pytest.mark.parametrize("path", ["/mcp", "/mcp/odd", "/mcp/nowhere"])
def test_a_stranger_learns_nothing(gateway, path):
    gate = gateway(two_groups)
    good = gate.token("dev")
    elsewhere = gateway(two_groups)
    foreign = elsewhere.token("dev")
    first, rest = good.rsplit(".", 1)
    flipped = first + "." + ("A" if rest[0] != "A" else "B") + rest[1:]
    for token in (
        None,
        "",
        "nonsense",
        foreign,
        flipped,
        altered(good, header={"alg": "none"}, signature=b""),
        altered(good, claims={"exp": 4102444800}),
        altered(good, claims={"group": "other", "sub": "other"}),
    ):
        refused_as_stranger(ask(gate, token, "tools/list", path=path))
    headers, body = modern("tools/list")
    for method, sent in (("GET", b""), ("DELETE", b""), ("POST", body)):
        refused_as_stranger(send(gate.port, method, path, headers, sent))
        refused_as_stranger(send(gate.port, method, path, {**headers, "Authorization": "Basic Zm9vOmJhcg=="}, sent))
    assert ask(gate, good, "tools/list", path="/mcp").status == 200


def test_an_expired_token(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev", "--ttl", "2s")
    assert ask(gate, token, "tools/list").status == 200
    wait_for(lambda: ask(gate, token, "tools/list").status == 401, 5, "expiry of a token of two seconds")
    refused_as_stranger(ask(gate, token, "tools/list"))


def test_a_revoked_token(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev", "--name", "laptop")
    other = gate.token("dev", "--name", "desk")
    (row,) = [row for row in gate.rows("token", "list") if row["name"] == "laptop"]
    assert row["group"] == "dev" and row["expires_at"] and not row["revoked_at"]
    assert ask(gate, token, "tools/list").status == 200
    gate.cli("token", "revoke", str(row["id"]))
    refused_as_stranger(ask(gate, token, "tools/list"))
    assert ask(gate, other, "tools/list").status == 200
    gate.stop()
    gate.up()
    refused_as_stranger(ask(gate, token, "tools/list"))
    assert ask(gate, other, "tools/list").status == 200, "a token dies with a restart"


def test_what_a_revoked_token_follows_ends(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev", "--name", "laptop")
    (row,) = [row for row in gate.rows("token", "list") if row["name"] == "laptop"]
    held = Held(gate, token)
    ended: list = []
    listen = {"notifications": {"toolsListChanged": True}}
    threading.Thread(target=lambda: ended.append(ask(gate, token, "subscriptions/listen", listen)), daemon=True).start()
    time.sleep(1)
    assert held.thread.is_alive() and not ended
    gate.cli("token", "revoke", str(row["id"]))
    wait_for(lambda: ended, 5, "end of the stream")
    held.thread.join(5)
    assert not held.thread.is_alive() and not held.trace.exists()
    assert "result" not in held.answer.body.decode(), held.answer.body


def test_a_token_for_another_audience(gateway):
    gate = gateway(two_groups)
    good = gate.token("dev")
    key = signing_key(gate, good)
    import jwt

    claims = jwt.decode(good, options={"verify_signature": False})
    header = jwt.get_unverified_header(good)
    assert claims["aud"], "the token names no audience"

    def made(**changes):
        body = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(body, key, header["alg"], headers={"kid": header["kid"]})

    assert ask(gate, made(), "tools/list").status == 200, "the test's own signature is not accepted: it would show nothing"
    for changes in ({"aud": "https://elsewhere.example"}, {"aud": None}, {"exp": 1}, {"exp": None}):
        refused_as_stranger(ask(gate, made(**changes), "tools/list"))


def signing_key(gate, token):
    """The key the gateway signs with, found in its data directory by trying what lies there."""
    import jwt

    algorithm = jwt.get_unverified_header(token)["alg"]
    for path in sorted(gate.data.rglob("*")):
        if not path.is_file() or path.stat().st_size > 10000:
            continue
        raw = path.read_bytes()
        for key in candidates(raw, algorithm):
            try:
                claims = jwt.decode(token, options={"verify_signature": False})
                if jwt.encode(claims, key, algorithm, headers=jwt.get_unverified_header(token)).split(".")[2]:
                    public = key if algorithm.startswith("HS") else key.public_key()
                    jwt.decode(token, public, [algorithm], options={"verify_aud": False})
                    return key
            except Exception:
                continue
    raise AssertionError("found no key of `%s` in the data directory: teach this test where it is" % algorithm)


def candidates(raw: bytes, algorithm: str):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    forms = [raw, raw.strip()]
    for decode in (lambda: bytes.fromhex(raw.decode().strip()), lambda: base64.b64decode(raw.strip() + b"==")):
        try:
            forms.append(decode())
        except ValueError:
            pass
    if algorithm.startswith("HS"):
        yield from forms
        return
    loaders = (
        lambda form: load_pem_private_key(form, None),
        lambda form: load_der_private_key(form, None),
        Ed25519PrivateKey.from_private_bytes,
    )
    for form in forms:
        for load in loaders:
            try:
                yield load(form)
            except ValueError:
                pass


# --- from where ---------------------------------------------------------------------------------------------------
def test_a_foreign_host_or_origin(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")
    headers, body = modern("tools/list", Authorization="Bearer " + token)
    own = "127.0.0.1:%d" % gate.port
    for host in ("evil.example", "evil.example:%d" % gate.port, "127.0.0.1:1", "localhost.evil.example", own + ".evil.example", "", None):
        for path in ("/mcp", "/api/v1/approvals", "/healthz", "/readyz", "/"):
            method, sent = ("POST", body) if path == "/mcp" else ("GET", b"")
            answer = send(gate.port, method, path, {**headers, "Host": host}, sent)
            # Without any Host, HTTP itself may refuse first.
            assert answer.status == 403 or (not host and answer.status == 400), "%r on %s: %d" % (host, path, answer.status)
            assert b"odd" not in answer.body
    for origin in ("https://evil.example", "http://127.0.0.1:1", "http://localhost.evil.example", "null", "https://" + own):
        assert send(gate.port, "POST", "/mcp", {**headers, "Origin": origin}, body).status == 403, origin
    for changes in ({}, {"Host": "localhost:%d" % gate.port}, {"Origin": "http://" + own}):
        assert send(gate.port, "POST", "/mcp", {**headers, **changes}, body).status == 200, changes
    assert send(gate.port, "GET", "/healthz").status == 200
    assert send(gate.port, "GET", "/readyz").status == 200


def test_a_rebound_name_can_neither_read_nor_approve(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")
    held = Held(gate, token)
    for host, origin in (("evil.example:%d" % gate.port, None), (None, "http://evil.example:%d" % gate.port)):
        headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
        headers.update({name: value for name, value in (("Host", host), ("Origin", origin)) if value})
        for method, path in (
            ("GET", "/api/v1/approvals"),
            ("GET", "/api/v1/approvals/" + held.id),
            ("POST", "/api/v1/approvals/%s/approve" % held.id),
            ("OPTIONS", "/api/v1/approvals/%s/approve" % held.id),
        ):
            answer = send(gate.port, method, path, headers, b'{"for":"once"}' if method == "POST" else b"")
            assert answer.status == 403, "%s %s: %d" % (method, path, answer.status)
            assert held.id.encode() not in answer.body
            assert "access-control-allow-origin" not in answer.headers
    assert held.still_waits()
    gate.cli("deny", held.id)


# --- what ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_over_the_limit(gateway, chunked):
    gate = gateway(two_groups)
    token = gate.token("dev")
    extra = {"Transfer-Encoding": "chunked"} if chunked else {}
    for size, expected in ((5 << 20, 413), (3 << 20, 200)):
        params = {"name": "odd__echo", "arguments": {"text": "z" * size}}
        headers, body = modern("tools/call", params, Authorization="Bearer " + token)
        headers.update(extra)
        assert send(gate.port, "POST", "/mcp", headers, body).status == expected
    assert ask(gate, token, "tools/list").status == 200


def test_long_requests_that_wait_are_limited(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")
    answers: list = []

    def append(number):
        text = str(number) + "z" * 4_100_000
        try:
            answers.append(call(gate, token, "odd__append", {"path": str(gate.files / "trace"), "text": text}))
        except (OSError, http.client.HTTPException):
            pass  # the gateway is killed below

    for number in range(18):  # together more than 64 MiB
        threading.Thread(target=append, args=(number,), daemon=True).start()
    wait_for(lambda: answers, 120, "refusal of a request")
    assert answers[0].code == -32000 and "MiB" in answers[0].message["error"]["message"], answers[0].body
    assert call(gate, gate.token("dev"), "odd__echo", {"text": "others"}).text == "others"
    gate.kill()


def test_what_is_not_json(gateway):
    gate = gateway(two_groups)
    headers, _ = modern("tools/list", Authorization="Bearer " + gate.token("dev"))
    for body in (b"not json", b'{"jsonrpc": "2.0", ', b"\xff\xfe\x00", b'{"a":' * 2000):
        answer = send(gate.port, "POST", "/mcp", headers, body)
        assert (answer.status, answer.code) == (400, -32700), body[:20]
    # JSON that is no request.
    for body in (b"1", b"null", b'"text"', b"[]", b"{}", b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}'):
        answer = send(gate.port, "POST", "/mcp", headers, body)
        assert 400 <= answer.status < 500, "%r: %d" % (body, answer.status)


def test_a_header_that_disagrees_with_the_body(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")
    params = {"name": "odd__echo", "arguments": {"text": "x"}}
    for changes in ({"Mcp_Method": "tools/list"}, {"Mcp_Name": "odd__append"}, {"Mcp_Method": None}, {"Mcp_Name": None}):
        answer = ask(gate, token, "tools/call", params, **changes)
        assert (answer.status, answer.code) == (400, -32020), "%r: %d %r" % (changes, answer.status, answer.body[:300])
    answer = ask(gate, token, "tools/call", params, MCP_Protocol_Version="2025-11-25")
    assert 400 <= answer.status < 500
    assert ask(gate, token, "tools/call", params).text == "x"


def test_unknown_and_ungranted_look_the_same(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")
    assert call(gate, gate.token("other"), "hidden__echo", {"text": "is there"}).text == "is there"
    answers = {name: call(gate, token, name, {"text": "x"}) for name in ("hidden__echo", "nowhere__echo", "odd__nothing", "echo", "")}
    for name, answer in answers.items():
        assert answer.code == -32602, name
    texts = {json.dumps(answer.message["error"], sort_keys=True) for answer in answers.values()}
    assert len(texts) == 1, texts
    assert len({answer.status for answer in answers.values()}) == 1
    hidden, nowhere = (ask(gate, token, "tools/list", path="/mcp/" + name) for name in ("hidden", "nowhere"))
    assert hidden.status == nowhere.status and hidden.body == nowhere.body and b"result" not in hidden.body
    listed = [tool["name"] for tool in ask(gate, token, "tools/list").result["tools"]]
    assert "odd__echo" in listed and not [name for name in listed if name.startswith("hidden")]


def test_a_page_of_a_server_is_found_by_its_own_uri(gateway):
    def pages(gate):
        servers = [stand_in(gate.scratch, name).replace("stand_in.py\"", "stand_in.py\", \"--ui\", \"%s\"" % name) for name in ("one", "two", "hidden")]
        return "\n".join([*servers, group("dev", ["one", "two"]), group("other", ["hidden"])])

    gate = gateway(pages)
    token = gate.token("dev")
    listed = [resource["uri"] for resource in ask(gate, token, "resources/list").result["resources"]]
    assert "ui://one/page+1" in listed and "ui://two/page+1" in listed, listed
    for name in ("one", "two"):
        (page,) = ask(gate, token, "resources/read", {"uri": "ui://%s/page+1" % name}).result["contents"]
        assert page == {"uri": "ui://%s/page+1" % name, "text": "page of " + name}
    refused = [ask(gate, token, "resources/read", {"uri": uri}) for uri in ("ui://shared", "ui://hidden/page+1", "ui://nowhere", "nowhere+x://y")]
    assert {json.dumps(answer.message["error"]) for answer in refused} == {json.dumps({"code": -32602, "message": "unknown resource"})}
    (page,) = ask(gate, token, "resources/read", {"uri": "ui://shared"}, path="/mcp/two").result["contents"]
    assert page["text"] == "page of two"


def test_arguments_against_the_schema(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")
    for arguments in ({}, {"text": 5}):
        answer = call(gate, token, "odd__echo", arguments)
        assert answer.result["isError"] and "text" in answer.text, answer.body
    answer = call(gate, token, "odd__append", {"path": 1})
    assert answer.result["isError"], "a person was asked about a call that cannot be"
    assert gate.rows("approvals", "--all") == []


def test_what_is_sent_as_meta_is_in_the_log(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")

    def echo(text, meta):
        params = {"name": "odd__echo", "arguments": {"text": text}, "_meta": meta}
        return ask(gate, token, "tools/call", params, seconds=10)

    assert echo("x", {"example/trace": "t1", "session_token": "hush", "progressToken": 7}).text == "x"
    (row,) = gate.audit()[-1:]
    assert row["decision"] == "allow" and row["meta"] == {"example/trace": "t1", "session_token": "•••"}, row
    assert echo("plain", {"progressToken": 7}).text == "plain"
    assert "meta" not in gate.audit()[-1], "what is reserved is not sent, so it is not in the log"

    key = "ghp_0123456789abcdef0123456789abcdef0123"
    held = threading.Thread(target=lambda: echo("y", {"example/key": key}), daemon=True)
    held.start()
    question = gate.wait_for_question("echo")
    assert any("/_meta/example~1key" in reason for reason in question["reasons"]), question
    assert key not in json.dumps(gate.audit()), "the log holds the credential"
    gate.cli("deny", question["id"])
    held.join(10)


# --- forged approvals ---------------------------------------------------------------------------------------------
def test_the_agents_token_decides_nothing(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")
    held = Held(gate, token)
    said = len(gate.logged())
    for authorization in (None, "Bearer " + token):
        headers = {"Content-Type": "application/json", "Authorization": authorization}
        for method, path in (
            ("GET", "/api/v1/approvals"),
            ("POST", "/api/v1/approvals/%s/approve" % held.id),
            ("POST", "/api/v1/approvals/%s/deny" % held.id),
            ("GET", "/api/v1/audit"),
            ("GET", "/api/v1/tokens"),
            ("POST", "/api/v1/tokens"),
        ):
            answer = send(gate.port, method, path, headers, b'{"for":"once"}' if method == "POST" else b"")
            assert answer.status in (401, 403), "%s %s with %r: %d" % (method, path, authorization, answer.status)
            assert held.id.encode() not in answer.body
    assert held.still_waits()
    assert "approv" in gate.logged()[said:], "nothing in the log of a forged approval"
    # What was answered is on the disk: nothing is left to write when it is killed at once.
    send(gate.port, "POST", "/api/v1/approvals/last/approve", headers, b'{"for":"once"}')
    gate.kill()
    assert "approvals/last/approve" in gate.audit()[-1]["tool"], gate.audit()[-1]


def test_a_question_that_cannot_be_read_back_is_settled(gateway):
    gate = gateway(two_groups)
    held = Held(gate, gate.token("dev"))
    gate.stop()
    with sqlite3.connect(gate.data / "portcullis.db") as db:
        db.execute("update approvals set sealed = x'00'")
    gate.up()
    question = gate.question(held.id)
    assert question["state"] == "withdrawn" and "cannot be read back" in question["reason"], question
    (row,) = [row for row in gate.audit() if "append" in row["tool"]]
    assert row["outcome"] == "refused" and "cannot be read back" in row["detail"], row
    assert gate.run("approve", held.id).returncode == 1 and not held.trace.exists()


# --- the command line ---------------------------------------------------------------------------------------------
def one_line(finished: Finished) -> None:
    assert finished.status == 1, finished
    lines = [line for line in (finished.out + finished.err).splitlines() if line.strip()]
    assert len(lines) == 1, lines


def test_a_second_up_on_the_directory(gateway):
    gate = gateway(two_groups)
    token = gate.token("dev")
    first = gate.process
    with pytest.raises(Finished) as second:
        gate.up()
    gate.process = first
    one_line(second.value)
    assert call(gate, token, "odd__echo", {"text": "undisturbed"}).text == "undisturbed"
    assert gate.rows("approvals") == []


def test_a_taken_port(gateway):
    gate = gateway(two_groups, start=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        with pytest.raises(Finished) as ended:
            gate.up(listen=address)
    one_line(ended.value)
    assert address.rpartition(":")[2] in ended.value.err


def test_an_unwritable_directory(gateway):
    gate = gateway(two_groups, start=False)
    file = gate.scratch / "file"
    file.write_text("")
    places = [file / "data", file, gate.scratch / "locked/data"]
    (gate.scratch / "locked").mkdir(mode=0o500)
    if os.getuid() == 0:
        places[-1:] = ["/proc/portcullis"]  # nothing else is closed to root
    for place in places:
        gate.data = place
        with pytest.raises(Finished) as ended:
            gate.up()
        one_line(ended.value)
        assert str(place) in ended.value.err
    gate.data = gate.scratch / "data"


def test_the_data_directory_is_private(gateway):
    gate = gateway(two_groups)
    gate.token("dev")
    assert mode(gate.data) == 0o700
    for path in gate.data.rglob("*"):
        assert not mode(path) & 0o077 or path.is_socket(), "%s is %o" % (path, mode(path))


def test_a_configuration_that_others_can_write(gateway):
    gate = gateway(two_groups, start=False)
    gate.config.chmod(0o666)
    with pytest.raises(Finished) as ended:
        gate.up()
    assert ended.value.status == 2 and str(gate.config) in ended.value.err
    assert gate.run("check").returncode == 2


def test_check_names_every_problem_at_once(gateway):
    gate = gateway(two_groups, start=False)
    assert gate.run("check").returncode == 0
    gate.config.write_text('[gateway]\nlisten = "nonsense"\n\n[mcp_servers.odd]\ncomand = "x"\n\n[groups.dev]\nservers = ["nowhere"]\n')
    done = gate.run("check")
    said = done.stdout + done.stderr
    assert done.returncode == 2
    for part in ("nonsense", "comand", "nowhere", str(gate.config)):
        assert part in said, "no word of `%s` in %s" % (part, said)
    assert gate.run("nonsense").returncode == 2


def test_without_an_instance_it_says_so(gateway):
    gate = gateway(two_groups)
    gate.stop()
    for command in (["approvals"], ["approve", "x"], ["deny", "x"], ["servers"], ["tools"]):
        done = gate.run(*command)
        assert done.returncode == 1 and done.stderr.strip(), command
    assert gate.run("audit", "list").returncode == 0


def test_an_unknown_question(gateway):
    gate = gateway(two_groups)
    for command in ("approve", "deny"):
        done = gate.run(command, "0198c0de-0000-7000-8000-000000000000")
        assert done.returncode == 1 and done.stderr.strip()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_an_end_with_a_held_call(gateway, how):
    gate = gateway(two_groups)
    token = gate.token("dev")
    held = Held(gate, token)
    assert gate.stop(how) == 0
    held.thread.join(5)
    assert not held.thread.is_alive(), "the client hangs on a gateway that is gone"
    assert not held.trace.exists()
    gate.up()
    assert gate.question(held.id)["state"] in ("pending", "caller_gone")
    assert not held.trace.exists()
    again = Held(gate, token)
    assert again.id == held.id, "the identical call became a question of its own"
    gate.cli("approve", held.id)
    again.thread.join(15)
    assert again.answer.text == "appended"
    assert held.trace.read_text() == "held\n"
