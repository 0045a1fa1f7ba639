"""Who may answer a question, how many it takes, and what an answer does, from the command line and the API."""

import json
import threading

import pytest

from console import Browser
from driver import Finished, group, stand_in, wait_for
from mcp_http import call, send
from test_refusals import WRITES, Held

PEOPLE = """
[users.ana]
role = "owner"
[users.bo]
[users.cy]
role = "approver"
[users.dee]
"""


def people(gate, rules=""):
    return "\n".join(
        [
            stand_in(gate.scratch, "odd", WRITES, {"echo": {"read_only": True}}),
            group("dev", ["odd"]) + 'approvers = ["bo"]\n',
            group("other", ["odd"]) + 'approvers = ["dee"]\n',
            PEOPLE,
            rules,
        ]
    )


TWO = '[[rules]]\nname = "two"\ntools = ["odd__append"]\nthen = "ask"\npeople = 2\n'


def critical(gate):
    return people(gate, TWO)


def refusals(gate):
    return [row for row in gate.audit() if row["decision"] == "deny"]


def done(held, seconds=20):
    held.thread.join(seconds)
    assert held.answer is not None, "the call was not answered"
    return held.answer.body.decode()


# --- who ----------------------------------------------------------------------------------------------------------
def test_only_who_may_approve_does(gateway):
    gate = gateway(people)
    held = Held(gate, gate.token("dev"))
    assert held.question["approvers"] == ["ana", "bo"]
    before = len(refusals(gate))
    # A member, an approver of no group, another group's approver.
    for user in ("cy", "dee"):
        for command in (["approve", held.id], ["deny", held.id]):
            tried = gate.run(*command, "--user", user)
            assert tried.returncode == 1 and held.still_waits(), (user, tried.stderr)
    # An agent's token is nobody's word, on any door.
    for path in ("approve", "deny"):
        headers = {"Authorization": "Bearer " + gate.token("dev"), "Content-Type": "application/json"}
        answer = send(gate.port, "POST", "/api/v1/approvals/%s/%s" % (held.id, path), headers, b'{"for": "once"}')
        assert answer.status in (401, 403) and held.still_waits()
    assert gate.run("approve", held.id, "--user", "nobody").returncode == 2
    assert len(refusals(gate)) >= before + 2
    gate.cli("approve", held.id, "--user", "bo")
    assert '"isError": false' in done(held) and held.trace.read_text() == "held\n"
    assert gate.question(held.id)["decided_by"] == "bo"


def test_who_is_no_approver_any_more_decides_nothing(gateway):
    gate = gateway(people)
    held = Held(gate, gate.token("dev"))
    gate.stop()
    gate.configure(people(gate).replace('approvers = ["bo"]', 'approvers = ["dee"]'))
    gate.up()
    assert gate.run("approve", held.id, "--user", "bo").returncode == 1 and held.still_waits()
    gate.cli("deny", held.id, "--user", "dee", "--reason", "not now")
    assert gate.question(held.id)["state"] == "denied" and not held.trace.exists()


# --- two people ---------------------------------------------------------------------------------------------------
def test_what_is_critical_takes_two_different_people(gateway):
    gate = gateway(critical)
    held = Held(gate, gate.token("dev"))
    assert held.question["people"] == 2
    for _ in range(2):
        tried = gate.run("approve", held.id, "--user", "bo")
        question = gate.question(held.id)
        assert [one["by"] for one in question["agreed"]] == ["bo"] and held.still_waits()
    assert tried.returncode == 1 and "somebody else" in tried.stderr
    # It takes two each time.
    assert gate.run("approve", held.id, "--for", "run", "--user", "ana").returncode == 2 and held.still_waits()
    gate.cli("approve", held.id, "--user", "ana")
    done(held)
    assert held.trace.read_text() == "held\n"
    question = gate.question(held.id)
    assert question["state"] == "approved" and question["decided_by"] == "ana"
    why = gate.cli("why", held.id)
    assert why["answer"]["agreed"] == ["bo"] and why["answer"]["by"] == "ana"


def test_the_first_of_two_yeses_survives_a_restart_and_any_no_ends_it(gateway):
    gate = gateway(critical)
    held = Held(gate, gate.token("dev"))
    gate.cli("approve", held.id, "--user", "bo")
    gate.kill()
    gate.up()
    question = gate.question(held.id)
    assert [one["by"] for one in question["agreed"]] == ["bo"] and question["state"] in ("pending", "caller_gone")
    gate.cli("deny", held.id, "--user", "ana")
    assert gate.run("approve", held.id, "--user", "bo").returncode == 1
    assert gate.question(held.id)["state"] == "denied" and not held.trace.exists()


def test_a_yes_of_somebody_who_may_no_more_does_not_count(gateway):
    gate = gateway(critical)
    held = Held(gate, gate.token("dev"))
    gate.cli("approve", held.id, "--user", "bo")
    gate.stop()
    gate.configure(critical(gate).replace('approvers = ["bo"]', 'approvers = ["dee"]'))
    gate.up()
    gate.cli("approve", held.id, "--user", "dee")
    assert gate.question(held.id)["state"] == "pending" and not held.trace.exists()
    gate.cli("approve", held.id, "--user", "ana")
    wait_for(held.trace.exists, 20, "the approved call")


def test_a_second_person_that_was_asked_for_meanwhile_voids_one_yes(gateway):
    gate = gateway(people)
    held = Held(gate, gate.token("dev"))
    gate.stop()
    gate.configure(critical(gate))
    gate.up()
    gate.cli("approve", held.id, "--user", "ana")
    wait_for(lambda: gate.question(held.id)["outcome"] == "refused", 10, "a void")
    assert not held.trace.exists()


def test_a_rule_that_asks_for_more_people_than_there_are_is_told(gateway):
    gate = gateway(people, start=False)
    gate.configure(critical(gate).replace('role = "owner"', ""))
    checked = gate.run("check")
    assert checked.returncode == 2 and "group `dev` only `bo` may answer" in checked.stderr + checked.stdout
    with pytest.raises(Finished):
        gate.up()


# --- at once ------------------------------------------------------------------------------------------------------
def test_two_answers_at_once_in_two_places(gateway):
    gate = gateway(people)
    token = gate.token("dev")
    browser = Browser(gate, "--user", "ana")
    for round in range(4):
        held = Held(gate, token, "round %d" % round)
        told = {}
        path = "/approvals/%s/" % held.id
        said = [
            lambda: told.update(yes=browser.post(path + "approve", {"for": "once"}).status),
            lambda: told.update(no=gate.run("deny", held.id, "--user", "bo")),
        ]
        threads = [threading.Thread(target=one) for one in said]
        [thread.start() for thread in threads]
        [thread.join(30) for thread in threads]
        question = gate.question(held.id)
        approved = question["state"] == "approved"
        assert (told["yes"] == 200) == approved and (told["no"].returncode == 0) == (not approved), told
        if approved:
            assert "approved by ana" in told["no"].stderr
        else:
            assert told["yes"] == 409
        done(held)
        assert (held.trace.exists() and "round %d\n" % round in held.trace.read_text()) == approved


# --- always -------------------------------------------------------------------------------------------------------
def rules_of(gate, id):
    return gate.api("GET", "/approvals/%s/rules" % id)


def append(gate, token, text="x", path=None):
    """A call that is answered at once, or waits."""
    answer = {}

    def run():
        answer["body"] = call(gate, token, "odd__append", {"path": str(path or gate.files / "trace"), "text": text}).body.decode()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.answer = answer
    return thread


def answered(thread, seconds=20):
    thread.join(seconds)
    assert "body" in thread.answer, "the call was not answered"
    return thread.answer["body"]


def test_always_is_a_rule_that_was_shown_replayed_and_ends(gateway):
    gate = gateway(people)
    token = gate.token("dev")
    first = Held(gate, token, "one")
    gate.cli("deny", first.id, "--user", "bo")
    second = Held(gate, token, "two")
    gate.cli("approve", second.id, "--user", "bo")
    done(second)
    held = Held(gate, token, "three")
    offers = rules_of(gate, held.id)
    assert [one["width"] for one in offers] == ["narrow", "middle", "wide"], offers
    assert all(one["tried"]["asks"] == 2 and one["tried"]["denied"] == 1 for one in offers), offers
    assert offers[2]["said"] == "would have allowed 2 of the last 2 asks, also the one that was denied"
    assert 'name = "always %s"' % held.id in offers[0]["toml"] and "until = " in offers[0]["toml"]
    # Without a choice nothing is decided.
    shown = gate.run("approve", held.id, "--for", "always", "--user", "bo")
    assert shown.returncode == 2 and "1. allow" in shown.stdout and "--rule N" in shown.stderr and gate.question(held.id)["state"] == "pending"
    # What is taken is what was shown.
    browser = Browser(gate, "--user", "ana")
    path = "/approvals/%s/approve" % held.id
    for body in (
        {"for": "always"},
        {"for": "always", "rule": "narrow", "when": "true"},
        {"for": "always", "rule": "wide", "when": offers[0]["when"]},
        {"for": "always", "rule": "other", "when": None},
        {"for": "always", "rule": "wide", "when": None, "ttl_seconds": 10**9},
    ):
        assert browser.post(path, body).status in (400, 409), body
    assert gate.question(held.id)["state"] == "pending"
    gate.cli("approve", held.id, "--for", "always", "--rule", "2", "--ttl", "7d", "--user", "bo")
    assert '"isError": false' in done(held)
    question = gate.question(held.id)
    assert question["state"] == "approved" and question["scope"] == "always" and question["decided_by"] == "bo"
    # The rule counts at once, after a restart too, for what it says and nothing else.
    for _ in range(2):
        assert '"isError": false' in answered(append(gate, token, "again", gate.files / "other"))
        elsewhere = append(gate, token, "no", gate.scratch / "elsewhere")
        other = gate.wait_for_question("append")
        gate.cli("deny", other["id"], "--user", "ana")
        answered(elsewhere)
        gate.stop()
        gate.up()
    allowed = [row for row in gate.audit() if row["decision"] == "allow" and row["tool"] == "odd__append"]
    assert allowed and all("always %s" % held.id in row["rules"] for row in allowed)
    assert any(held.id in row["tool"] and "[[rules]]" in row["tool"] for row in gate.audit() if row["kind"] == "host")
    [rule] = gate.rows("policy", "rules")
    assert rule["id"] == held.id and rule["state"] == "counts" and rule["by"] == "bo" and rule["group"] == "dev"
    assert "always %s" % held.id in gate.run("policy", "show").stdout
    # A person takes it back; not anybody.
    assert gate.run("policy", "revoke", held.id, "--user", "dee").returncode == 1
    gate.cli("policy", "revoke", held.id, "--user", "ana")
    assert gate.run("policy", "revoke", held.id, "--user", "ana").returncode == 1
    again = append(gate, token, "again", gate.files / "other")
    gate.cli("deny", gate.wait_for_question("append")["id"], "--user", "ana")
    assert "NOT EXECUTED" in answered(again)


def test_a_rule_is_stored_with_the_answer_or_not_at_all(gateway):
    gate = gateway(people)
    token = gate.token("dev")
    held = Held(gate, token)
    offers = rules_of(gate, held.id)
    gate.cli("deny", held.id, "--user", "ana")
    browser = Browser(gate, "--user", "ana")
    body = {"for": "always", "rule": "wide", "when": offers[-1]["when"]}
    late = browser.post("/approvals/%s/approve" % held.id, body)
    assert late.status == 409 and b"denied by ana" in late.body
    assert gate.rows("policy", "rules") == []


def test_no_rule_is_proposed_where_none_would_let_the_call_through(gateway):
    asks = '[[rules]]\nname = "look"\ntools = ["odd__append"]\nthen = "ask"\n'
    gate = gateway(lambda gate: people(gate, asks))
    token = gate.token("dev")
    held = Held(gate, token)
    assert held.question["choices"] == ["once", "edit"]
    told = gate.run("approve", held.id, "--for", "always", "--yes", "--user", "ana")
    assert told.returncode == 1 and "no rule can be proposed" in told.stderr and held.still_waits()
    gate.cli("deny", held.id, "--user", "ana")
    secret = Held(gate, token, "ghp_" + "a1B2" * 9)
    assert "always" not in secret.question["choices"] and "edit" not in secret.question["choices"]
    told = gate.run("approve", secret.id, "--for", "always", "--yes", "--user", "ana")
    assert told.returncode == 1 and "credential" in told.stderr and secret.still_waits()


# --- edit ---------------------------------------------------------------------------------------------------------
def test_changed_arguments_are_a_new_action_whose_result_goes_to_the_caller(gateway):
    gate = gateway(people)
    held = Held(gate, gate.token("dev"), "first words")
    other = gate.files / "elsewhere"
    for args, words in (
        ('{"path": 5, "text": "x"}', "schema"),
        ('"x"', "JSON object"),
        ("{", "no JSON"),
        (json.dumps({"text": "first words", "path": str(held.trace)}), "nothing was changed"),
    ):
        tried = gate.run("approve", held.id, "--args", args, "--user", "bo")
        assert tried.returncode == 2 and words in tried.stderr and held.still_waits(), (args, tried.stderr)
    assert gate.run("approve", held.id, "--args", "{}", "--user", "dee").returncode == 1
    new = gate.cli("approve", held.id, "--user", "bo", "--args", json.dumps({"path": str(other), "text": "better words"}))
    body = done(held)
    assert "A person changed the arguments" in body and "better words" in body and "first words" in body
    assert '"isError":false' in body.replace(" ", "")
    assert other.read_text() == "better words\n" and not held.trace.exists()
    old, new = gate.question(held.id), gate.question(new["id"])
    assert (old["state"], old["edited_as"], old["decided_by"]) == ("withdrawn", new["id"], "bo")
    assert (new["state"], new["edits"], new["decided_by"], new["outcome"]) == ("approved", held.id, "bo", "ok")
    assert new["action"] != old["action"]
    for question, text in ((old, "first words"), (new, "better words")):
        story = gate.cli("why", question["id"])
        assert story["id"] == question["action"]
    assert gate.run("approve", held.id, "--user", "ana").returncode == 1


def test_an_edit_that_races_an_answer(gateway):
    gate = gateway(people)
    token = gate.token("dev")
    browser = Browser(gate, "--user", "ana")
    for round in range(4):
        held = Held(gate, token, "round %d" % round)
        args = {"path": str(held.trace), "text": "edit %d" % round}
        told = {}
        said = [
            lambda: told.update(edit=browser.post("/approvals/%s/edit" % held.id, {"args": args}).status),
            lambda: told.update(yes=gate.run("approve", held.id, "--user", "bo").returncode),
        ]
        threads = [threading.Thread(target=one) for one in said]
        [thread.start() for thread in threads]
        [thread.join(30) for thread in threads]
        assert (told["edit"] == 200) != (told["yes"] == 0), told
        done(held)
        lines = held.trace.read_text().splitlines()
        assert lines[-1] == ("edit %d" if told["edit"] == 200 else "round %d") % round and len(lines) == round + 1


def test_changed_arguments_with_a_new_reason_to_ask_are_asked_about(gateway):
    gate = gateway(people)
    held = Held(gate, gate.token("dev"))
    args = {"path": str(held.trace), "text": "ghp_" + "a1B2" * 9}
    new = gate.cli("approve", held.id, "--user", "bo", "--args", json.dumps(args))
    assert new["state"] == "pending" and "credential" in new["gates"] and not held.trace.exists()
    gate.kill()
    gate.up()
    again = append(gate, gate.token("dev"), "other")
    gate.cli("deny", new["id"], "--user", "bo", "--reason", "not that")
    assert gate.question(held.id)["outcome"] == "refused"
    gate.cli("deny", gate.wait_for_question("append")["id"], "--user", "bo")
    answered(again)
    assert not held.trace.exists()


# --- together -----------------------------------------------------------------------------------------------------
def test_small_alike_questions_share_a_card_and_each_is_answered(gateway):
    gate = gateway(people)
    token = gate.token("dev")
    calls = [append(gate, token, "n%d" % n) for n in range(3)]
    questions = wait_for(lambda: (lambda all: len(all) == 3 and all)(gate.questions()), 20, "three questions")
    assert len({one["batch"] for one in questions}) == 1 and questions[0]["batch"]
    long = append(gate, token, "y" * 2000)
    big = wait_for(lambda: [one for one in gate.questions() if one["args"]["text"].startswith("y")], 20, "the long one")
    assert big[0]["batch"] is None
    gate.cli("deny", big[0]["id"], "--user", "bo")
    answered(long)
    ids = [one["id"] for one in questions]
    gate.cli("deny", ids[0], "--user", "bo")
    told = gate.run("approve", *ids, "--user", "bo", "--json")
    assert told.returncode == 1 and "denied by bo" in told.stderr and len(json.loads(told.stdout)) == 2
    [answered(one) for one in calls]
    assert len((gate.files / "trace").read_text().splitlines()) == 2


def test_a_task_asks_only_so_much_at_a_time(gateway):
    gate = gateway(lambda gate: people(gate) + "[approvals]\nmax_open_run = 3\n")
    token = gate.token("dev")
    calls = [append(gate, token, "n%d" % n) for n in range(3)]
    questions = wait_for(lambda: (lambda all: len(all) == 3 and all)(gate.questions()), 20, "three questions")
    refused = answered(append(gate, token, "one more"))
    assert "NOT EXECUTED" in refused and "3 questions of this task" in refused
    gate.cli("deny", *[one["id"] for one in questions], "--user", "ana")
    [answered(one) for one in calls]


# --- attention ----------------------------------------------------------------------------------------------------
def test_what_is_always_allowed_is_proposed_as_a_rule(gateway):
    gate = gateway(people)
    token = gate.token("dev")
    for n in range(3):
        held = Held(gate, token, "n%d" % n)
        gate.cli("approve", held.id, "--user", "bo")
        done(held)
    digest = gate.cli("policy", "digest")
    [tool] = [one for one in digest["counts"] if one["of"] == "tool"]
    assert (tool["asks"], tool["allowed"], tool["allow_percent"], tool["group"]) == (3, 3, 100, "dev")
    assert tool["answer_p50_seconds"] is not None
    assert any(one["of"] == "gate" and one["name"] == "dangerous_writes" for one in digest["counts"])
    [spare] = digest["digest"]
    assert spare["allowed"] == 3 and spare["question"] == held.id
    assert gate.run("policy", "take", held.id, "--rule", "1", "--user", "dee").returncode == 1
    gate.cli("policy", "take", held.id, "--rule", "1", "--user", "bo")
    assert '"isError": false' in answered(append(gate, token, "no question"))
    assert gate.cli("policy", "digest")["digest"] == []
    assert gate.run("policy", "take", held.id, "--rule", "1", "--user", "bo").returncode == 1
    assert "3 in 30 days, 100 %" in gate.cli("status")["asked"]
