"""What failed in other gateways and hosts, each as a test that would have caught it. `docs/security.md` says which is which."""

import json
import threading

import pytest

from driver import STRICTLY_TRUSTED, group, stand_in, wait_for
from mcp_http import ask, call
from test_refusals import WRITES, Held, two_groups


def of_question(gate, id: str) -> dict:
    (row,) = [row for row in gate.audit() if row["approval"] == id]
    return row


# --- the gate ---------------------------------------------------------------------------------------------------------
def test_what_is_denied_is_not_done_and_the_agent_reads_why(gateway):
    """The reply that said *deny* was read as *allow*: no error and no odd word may let a call through."""
    rule = '[[rules]]\nname = "never"\ntools = ["odd__append"]\nthen = "deny"\n'
    gate = gateway(lambda gate: two_groups(gate) + rule)
    path = gate.files / "out"
    answer = call(gate, gate.token("dev"), "odd__append", {"path": str(path), "text": "x"})
    assert answer.result["isError"] and answer.text.startswith("NOT EXECUTED") and "never" in answer.text
    assert not path.exists() and gate.rows("approvals", "--all") == []
    assert [(row["decision"], row["outcome"]) for row in gate.audit() if row["group"]] == [("deny", "refused")]


@pytest.mark.parametrize("trait, tool, denied", (
    ("public_source", "echo", True), ("secret_data", "echo", True), ("public_sink", "echo", True),
    ("dangerous_writes", "append", True), ("dangerous_writes", "echo", False),
))  # fmt: skip
def test_a_forbidden_trait_is_enforced_on_reads_as_on_writes(gateway, trait, tool, denied):
    forbidden = lambda gate: stand_in(gate.scratch, "odd", {**STRICTLY_TRUSTED, trait: "forbidden"}, {"echo": {"read_only": True}}) + group("dev", ["odd"])
    gate = gateway(forbidden)
    path = gate.files / "out"
    arguments = {"text": "x"} if tool == "echo" else {"path": str(path), "text": "x"}
    answer = call(gate, gate.token("dev"), "odd__" + tool, arguments)
    assert bool(answer.result["isError"]) == denied, answer.body
    (row,) = [row for row in gate.audit() if row["group"]]
    assert (row["decision"], row["outcome"]) == (("deny", "refused") if denied else ("allow", "ok"))
    assert not path.exists()


def test_declared_trust_has_effect_and_what_is_not_declared_is_the_worst(gateway):
    def three(gate):
        servers = [stand_in(gate.scratch, "plain"), stand_in(gate.scratch, "writes", WRITES), stand_in(gate.scratch, "unsaid", None)]
        return "\n".join([*servers, group("dev", ["plain", "writes", "unsaid"])])

    gate = gateway(three)
    token = gate.token("dev")
    path = gate.files / "out"
    arguments = {"path": str(path), "text": "x"}
    assert call(gate, token, "plain__append", arguments).text == "appended"
    for name in ("writes", "unsaid"):
        calling = threading.Thread(target=call, args=(gate, token, name + "__append", arguments), daemon=True)
        calling.start()
        gate.cli("deny", gate.wait_for_question(name)["id"])
        calling.join(15)
    assert path.read_text() == "x\n"


def test_what_was_read_is_remembered_in_new_sessions_and_after_a_kill(gateway):
    def servers(gate):
        reads = stand_in(gate.scratch, "web", {**STRICTLY_TRUSTED, "public_source": True, "secret_data": True})
        sends = stand_in(gate.scratch, "post", {**STRICTLY_TRUSTED, "public_sink": True})
        return "\n".join([reads, sends, group("dev", ["web", "post"])])

    gate = gateway(servers)
    token = gate.token("dev")
    assert call(gate, token, "post__echo", {"text": "clean"}).text == "clean"
    call(gate, token, "web__echo", {"text": "a page"})
    for life in range(2):
        # Each of these requests is a session of its own, and the second life knows no session at all.
        for name in ("one", "two"):
            calling = threading.Thread(target=call, args=(gate, token, "post__echo", {"text": "%s %d" % (name, life)}), daemon=True)
            calling.start()
            question = gate.wait_for_question("post__echo")
            assert sorted(of_question(gate, question["id"])["labels"]) == ["secret", "untrusted"]
            gate.cli("deny", question["id"])
            calling.join(15)
        if life == 0:
            gate.kill()
            gate.nobody_left(10)
            gate.up()


def test_a_yes_reaches_no_further_than_what_the_group_may(gateway):
    """An approved action was sent again with an administrator's rights: here it is decided anew, for its own group."""
    gate = gateway(two_groups)
    held = Held(gate, gate.token("dev"))
    gate.stop()
    gate.configure(two_groups(gate).replace('[groups.dev]\nservers = ["odd"]', "[groups.dev]\nservers = []"))
    gate.up()
    assert gate.question(held.id)["state"] == "pending"
    gate.cli("approve", held.id, "--run-anyway")
    wait_for(lambda: gate.question(held.id)["outcome"] == "refused", 10, "refusal")
    assert not held.trace.exists()
    row = of_question(gate, held.id)
    assert row["outcome"] == "refused" and "may no longer use" in row["detail"], row


def test_a_yes_is_void_once_its_server_is_another(gateway):
    """Approved, then exchanged underneath: program, arguments, environment."""
    gate = gateway(two_groups)
    held = Held(gate, gate.token("dev"))
    gate.stop()
    gate.configure(two_groups(gate).replace('stand_in.py"]', 'stand_in.py", "--other"]'))
    gate.up()
    gate.cli("approve", held.id, "--run-anyway")
    wait_for(lambda: gate.question(held.id)["outcome"] == "refused", 10, "refusal")
    assert not held.trace.exists()
    assert of_question(gate, held.id)["outcome"] == "refused"


def test_a_yes_is_void_once_a_rule_is_stricter(gateway):
    gate = gateway(two_groups)
    held = Held(gate, gate.token("dev"))
    gate.stop()
    gate.configure(two_groups(gate), '[[rules]]\nname = "never"\ntools = ["odd__append"]\nthen = "deny"\n')
    gate.up()
    gate.cli("approve", held.id, "--run-anyway")
    wait_for(lambda: gate.question(held.id)["outcome"] == "refused", 10, "refusal")
    assert not held.trace.exists() and of_question(gate, held.id)["outcome"] == "refused"


# --- the log ------------------------------------------------------------------------------------------------------------
def test_every_step_of_a_question_is_an_entry_of_its_own(gateway):
    """The decision overwrote the row of the request."""
    gate = gateway(two_groups)
    held = Held(gate, gate.token("dev"))
    gate.cli("approve", held.id)
    held.thread.join(15)
    told = gate.api("GET", "/audit/" + of_question(gate, held.id)["id"])
    events = [entry["event"]["event"] for entry in told["entries"]]
    assert events == ["decided", "answered", "released", "closed"], events
    numbers = [entry["seq"] for entry in told["entries"]]
    assert numbers == sorted(set(numbers))
    assert told["entries"][1]["event"]["by"] == "local" and told["story"]["args"] == {"path": str(held.trace), "text": "held"}


def test_a_blocked_call_is_never_told_as_done(gateway):
    """Fire-and-forget tools said *done* although they were blocked."""
    gate = gateway(two_groups)
    held = Held(gate, gate.token("dev"))
    assert held.answer is None
    gate.cli("deny", held.id, "--reason", "not now")
    held.thread.join(15)
    assert held.answer.result["isError"] and "not now" in held.answer.text and "appended" not in held.answer.text


def test_agents_share_no_credential_and_no_labels(gateway):
    gate = gateway(two_groups)
    one, two = gate.token("dev"), gate.token("dev")
    assert one != two
    listed = gate.rows("token", "list")
    gate.cli("token", "revoke", listed[0]["id"])
    assert sorted(ask(gate, token, "tools/list").status for token in (one, two)) == [200, 401]


def test_an_agents_client_is_no_place_to_approve(gateway):
    """Clients accept forms by themselves: the question is never put to whoever asks."""
    gate = gateway(two_groups)
    token = gate.token("dev")
    held = Held(gate, token)
    meta = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}, "url": {}}}}
    told = []
    params = {"name": "odd__append", "arguments": {"path": str(held.trace), "text": "held"}, "_meta": meta}
    joined = threading.Thread(target=lambda: told.append(ask(gate, token, "tools/call", params)), daemon=True)
    joined.start()
    wait_for(lambda: held.still_waits(), 5, "question")
    gate.cli("deny", held.id)
    joined.join(15)
    held.thread.join(15)
    assert b"elicitation" not in told[0].body and b"inputRequests" not in told[0].body
    assert json.loads(json.dumps(told[0].message["result"]))["isError"]
