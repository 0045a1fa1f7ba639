use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use policy::action::{Action, Digest};
use policy::approval::State;
use policy::decision::Question;
use policy::record;
use serde_json::Value;

use super::*;
use crate::db::approvals::Decided;
use policy::action::{Kind, Method};
use policy::decision::{Decision, Why};
use policy::ids::{ActionId, ConversationId, RunId};

fn action(name: &str) -> Action {
    Action {
        id: ActionId::new(format!("act_{name}")),
        kind: Kind::Mcp,
        group: "work".parse().unwrap(),
        conversation: ConversationId::new("token:tok_1"),
        run: RunId::new("run_1"),
        principal: "token:tok_1".to_owned(),
        server: "files".to_owned(),
        method: Method::Call,
        name: name.to_owned(),
        args: serde_json::json!({ "a": 1 }),
        definition: Digest::of(b"definition"),
        meta: None,
        identity: Digest::of(b"identity"),
    }
}

async fn open(data: &std::path::Path) -> (Approvals, Vec<Arc<Held>>, Db) {
    let keys = Arc::new(Keys::open(data).unwrap());
    let db = Db::open(data).await.unwrap();
    let (audit, _writer) = Audit::start(db.clone(), keys.clone(), None).await.unwrap();
    let day = Duration::from_hours(24);
    let mut config = crate::config::Config::empty();
    (config.approvals.expire, config.approvals.max_open) = (day, 10);
    let live = crate::live::Live::new(config);
    let (approvals, to_run) = Approvals::open(db.clone(), keys, audit, live, Vec::new())
        .await
        .unwrap();
    (approvals, to_run, db)
}

async fn ask(approvals: &Approvals, name: &str) -> Arc<Held> {
    let why = Why {
        decision: Decision::Ask,
        gates: [].into(),
        lifted: [].into(),
        rules: Vec::new(),
        reasons: Vec::new(),
        adds: [].into(),
        people: 1,
    };
    let shown = (name.to_owned(), Value::Null);
    let question = Question {
        action: action(name),
        why,
    };
    approvals
        .ask(approvals.new_id(), question, shown, Timestamp::now())
        .await
        .unwrap()
}

#[tokio::test]
async fn nobody_is_told_of_a_void_that_is_not_stored() {
    let data = tempfile::tempdir().unwrap();
    let (approvals, _, db) = open(data.path()).await;
    let held = ask(&approvals, "one").await;
    db.close().await;
    let no = Answer::Refused("no".to_owned());
    let why = "why".to_owned();
    let void = approvals.void(&held, record::Outcome::Refused, why, no);
    void.await.unwrap_err();
    assert!(!held.is_answered());
}

#[tokio::test]
async fn a_no_that_was_stored_before_a_crash_is_told_after_it() {
    let data = tempfile::tempdir().unwrap();
    let (approvals, _, db) = open(data.path()).await;
    let (denied, approved) = (ask(&approvals, "one").await, ask(&approvals, "two").await);
    for (held, to) in [(&denied, State::Denied), (&approved, State::Approved)] {
        let decided = Decided {
            by: Some("ana".to_owned()),
            reason: Some("not today".to_owned()),
            scope: None,
            at: Timestamp::now(),
        };
        // As far as the gateway came: the state is stored, the answer is not.
        assert!(
            db.question_move(held.id.as_str(), State::Pending, to, Some(&decided))
                .await
                .unwrap()
        );
    }
    drop(approvals);
    db.close().await;

    let (approvals, to_run, _) = open(data.path()).await;
    let again = approvals.find(&action("one").sameness()).unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), again.answered()).await;
    let Ok(Answer::Refused(words)) = answer else {
        panic!("no answer: {answer:?}");
    };
    assert!(words.contains("not today"), "{words}");
    let to_run: Vec<&str> = to_run.iter().map(|held| held.id.as_str()).collect();
    assert_eq!(to_run, [approved.id.as_str()]);
}
