"""A hosted agent whose provider fails in every way: the person reads what happened, and nothing hangs."""

import contextlib
import socket

import pytest

from driver import group, wait_for
from provider import Provider, fail, garbage, half, raw, silence, stall
from test_hosted import of, over, say, words

KEY = "sk-ant-api03-the-real-key-of-the-owner-0123456789"
AGAIN = 20  # more often than any agent asks

# What the provider does, how the task ends, and a word of what the person reads; all at once, each in a group of its own.
WAYS = {
    "no-key": ([fail(401, "authentication_error", "invalid x-api-key")] * AGAIN, "failed", "key"),
    "no-such-model": ([fail(404, "not_found_error", "model: claude-nothing")] * AGAIN, "failed", "claude-nothing"),
    "refused": ([fail(400, "invalid_request_error", "prompt is too long")] * AGAIN, "failed", "prompt is too long"),
    "busy-once": ([fail(429, "rate_limit_error", "slow down", retry_after="1")], "done", None),
    "overloaded": ([fail(529, "overloaded_error", "Overloaded")] * AGAIN, "failed", "model"),
    "broken-once": ([fail(500, "api_error", "Internal server error")], "done", None),
    "half-once": ([half()], "done", None),
    "half": ([half()] * AGAIN, "failed", "model"),
    "stalled": ([stall()] * AGAIN, "failed", "model"),
    "silent-once": ([silence()], "done", None),
    "garbage": ([garbage()] * AGAIN, "failed", "model"),
    "not-json": ([raw(b"<html>hello</html>", 502, "text/html")] * AGAIN, "failed", "model"),
    "nobody-there": (None, "failed", "model"),
}


@pytest.fixture
def providers():
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(Provider(KEY)) for name, (how, *_) in WAYS.items() if how}


@pytest.mark.timeout(240)
def test_the_person_reads_what_happened(gateway, providers):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = "http://127.0.0.1:%d" % closed.getsockname()[1]

        def sections(gate):
            (gate.scratch / "key").write_text(KEY)
            model = '[models.%s]\napi = "anthropic"\nbase_url = "%s"\nkey = { file = "%s" }\nsilence_timeout = "2s"'
            return "\n".join(
                part
                for name in WAYS
                for part in (
                    model % (name, providers[name].url if name in providers else nobody, gate.scratch / "key"),
                    group(name, []) + 'model = "%s/claude-nothing"' % name,
                )
            )

        gate = gateway(sections)
        for name, (how, *_) in WAYS.items():
            if how:
                providers[name].will(*how)
            say(gate, "hello?", name)
        # A word on the way, while it is asked again.
        wait_for(lambda: any(of(gate, "run", "overloaded")) and of(gate, "run", "overloaded")[-1].get("text"), 30, "word on the way")
        for name, (_, end, read) in WAYS.items():
            run = over(gate, name, 150)
            assert run["state"] == end, "%s: %r" % (name, run)
            if end == "done":
                # What a broken answer began is not there, and the whole one once.
                assert words(gate, name) == ["hello"], "%s: %r" % (name, words(gate, name))
                assert not run.get("text"), run
            else:
                assert words(gate, name) == [] and read in run["text"].lower(), "%s: %r" % (name, run)
                assert KEY not in run["text"]
        assert len(providers["no-key"].requests) <= 2 and len(providers["refused"].requests) == 1
        # The group is not stuck: what is said next is answered.
        providers["overloaded"]._behaviours.queue.clear()
        say(gate, "and now?", "overloaded")
        assert over(gate, "overloaded")["state"] == "done" and words(gate, "overloaded") == ["hello"]
        assert gate.run("audit", "verify").returncode == 0
        assert all(row["outcome"] != "running" for row in gate.audit())
