use expect_test::expect;
use policy::action::Kind;
use policy::approval::State;
use policy::decision::Decision;
use policy::ids::{ActionId, QuestionId};
use policy::record::Answer;
use serde_json::json;

use super::*;

fn story() -> Story {
    Story {
        seq: 7,
        id: ActionId::new("act_7"),
        at: "2026-01-02T03:04:05Z".parse().unwrap(),
        kind: Kind::Mcp,
        group: "work".into(),
        conversation: "token:tok_1".into(),
        principal: "token:tok_1 (laptop)".into(),
        tool: "mail__send".into(),
        meta: None,
        args: json!({"to": "ana@example.org", "body": "hi\u{202e}\nthere"}),
        decision: Decision::Ask,
        rules: vec!["dangerous_writes".into()],
        labels: vec!["untrusted".into()],
        approval: Some(QuestionId::new("q7")),
        answer: Some(Answer {
            id: QuestionId::new("q7"),
            state: State::Approved,
            by: Some("ana".into()),
            reason: None,
            agreed: Vec::new(),
        }),
        outcome: Outcome::Ok,
        hash: "bb".into(),
        prev: "aa".into(),
        reasons: vec!["it may change something that cannot be undone".into()],
        adds: [].into(),
        detail: None,
        closed_at: "2026-01-02T03:05:05Z".parse().ok(),
        result: None,
        about: None,
    }
}

#[test]
fn a_story_is_shown_whole_and_cannot_deceive() {
    expect![[r#"
        id            act_7
        seq           7
        at            2026-01-02 03:04:05 UTC
        closed at     2026-01-02 03:05:05 UTC
        group         work
        conversation  token:tok_1
        principal     token:tok_1 (laptop)
        what          mail__send
        decision      ask
        rules         dangerous_writes
        labels        untrusted
        why           it may change something that cannot be undone
        approval      q7: approved by ana
        outcome       ok
        hash          bb
        prev          aa
        arguments
          {
            "to": "ana@example.org",
            "body": "hi\u{202e}\nthere"
          }
    "#]]
    .assert_eq(&show(&story(), Output::new(false)));
}
