use expect_test::expect;
use serde_json::json;

use super::*;
use crate::audit::read::told;

#[test]
fn a_story_tells_what_was_read_who_answered_what_ran_and_what_came_back() {
    let digest = "0".repeat(64);
    let why = |decision: &str| {
        json!({
            "decision": decision, "gates": ["public_sink"], "lifted": [], "rules": ["letters"],
            "reasons": ["it can reach strangers"], "adds": [],
        })
    };
    let events = [
        json!({
            "event": "decided",
            "facts": {
                "action": {
                    "id": "act_7", "kind": "mcp", "group": "work", "conversation": "token:tok_1", "run": "run_1",
                    "principal": "token:tok_1 (laptop)", "server": "mail", "method": "tools/call", "name": "send",
                    "args": {"to": "ana@example.org"}, "definition": digest, "identity": digest,
                },
                "traits": {"public_source": true, "secret_data": true, "public_sink": true,
                           "dangerous_writes": true, "read_only": false},
                "labels": {"untrusted": {"action": "act_3", "tool": "web__fetch", "at": "2026-01-02T03:00:00Z"}},
                "contains_secrets": false, "changed": false, "credentials": [], "grants": [],
                "now": "2026-01-02T03:04:05Z",
            },
            "why": why("ask"), "approval": "q7", "revision": "1",
        }),
        json!({"event": "answered", "approval": "q7", "state": "approved", "by": "ana", "reason": "she waits for it"}),
        json!({"event": "released", "why": why("ask")}),
        json!({"event": "closed", "outcome": "ok", "result": {
            "digest": digest, "size": 12, "told": {"content": [{"type": "text", "text": "sent"}]}}}),
    ];
    let entries: Vec<(Entry, Event)> = (1_i64..)
        .zip(events)
        .map(|(seq, event)| {
            let (id, at) = ("act_7".to_owned(), 1_767_323_045_000 + seq * 1000);
            let entry = Entry::seal(seq, id, at, event.to_string(), String::new());
            (entry, serde_json::from_value(event).unwrap())
        })
        .collect();
    let raw: Vec<Entry> = entries.iter().map(|(entry, _)| entry.clone()).collect();
    let steps = steps(&entries);
    expect![[r#"
        Before, at 2026-01-02 03:00:00 UTC, the conversation read what strangers wrote: web__fetch (act_3).
        At 2026-01-02 03:04:06 UTC, token:tok_1 (laptop) asked for mail__send in group work with {"to":"ana@example.org"}.
        At 2026-01-02 03:04:06 UTC, a person had to decide: it can reach strangers [letters].
        At 2026-01-02 03:04:06 UTC, question q7 was put to the people who may answer it.
        At 2026-01-02 03:04:07 UTC, ana said yes to question q7: "she waits for it".
        At 2026-01-02 03:04:08 UTC, decided again, and begun: a person had to decide: it can reach strangers [letters].
        At 2026-01-02 03:04:09 UTC, what came back of 12 bytes: {"content":[{"text":"sent","type":"text"}]}.
        At 2026-01-02 03:04:09 UTC, it was done."#]]
    .assert_eq(&sentences(&told(&raw).unwrap(), &steps).join("\n"));
}
