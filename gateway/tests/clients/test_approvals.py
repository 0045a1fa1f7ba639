"""Who may answer a question, how many it takes, and what an answer does, from the command line and the API."""

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
