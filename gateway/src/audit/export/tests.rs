use std::sync::Arc;

use policy::action::Kind;
use policy::approval::State;
use policy::decision::Decision;
use policy::ids::{ActionId, QuestionId};
use policy::record::{Answer, Outcome, Story};

use serde_json::json;

use super::*;
use crate::audit::{Audit, Write as Record};

pub(crate) fn story() -> Story {
    let entry = Entry::seal(
        7,
        "act_7".to_owned(),
        1_767_323_045_000,
        r#"{"event":"noted","by":"user:ana","what":"something"}"#.to_owned(),
        Entry::GENESIS.to_owned(),
    );
    Story {
        id: ActionId::new("act_7"),
        kind: Kind::Mcp,
        group: "work".into(),
        conversation: "token:tok_1".into(),
        principal: "token:tok_1 (laptop)".into(),
        tool: "mail__send".into(),
        args: json!({"to": "ana@example.org"}),
        decision: Decision::Ask,
        rules: vec!["dangerous_writes".into()],
        labels: vec!["untrusted".into()],
        approval: Some(QuestionId::new("q7")),
        answer: Some(Answer {
            id: QuestionId::new("q7"),
            state: State::Approved,
            by: Some("ana".into()),
            reason: Some("fine, go".into()),
            agreed: Vec::new(),
        }),
        outcome: Outcome::Ok,
        reasons: vec!["it may change something that cannot be undone".into()],
        ..Story::begin(&entry).unwrap()
    }
}

async fn log() -> (tempfile::TempDir, Db) {
    let data = tempfile::tempdir().unwrap();
    let keys = Arc::new(Keys::open(data.path()).unwrap());
    let db = Db::open(data.path()).await.unwrap();
    let (audit, writer) = Audit::start(db.clone(), keys, None).await.unwrap();
    for n in 1..=5 {
        let write = Record::noted("user:ana", None, format!("thing {n}"));
        audit.write(write).await.unwrap();
    }
    drop(audit);
    writer.await.unwrap();
    (data, db)
}

async fn exported(data: &Path, format: Format) -> String {
    let mut out = Vec::new();
    export(data, format, Span::default(), &mut out)
        .await
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[tokio::test]
async fn an_export_is_checked_without_its_database_and_every_change_to_it_is_found() {
    let (data, _db) = log().await;
    let key = Keys::open_public(data.path()).unwrap().unwrap();
    let text = exported(data.path(), Format::Jsonl).await;
    let checked = check(text.as_bytes(), Some(&key)).unwrap();
    assert_eq!((checked.records, checked.signed_to), (5, 5));

    let lines: Vec<&str> = text.lines().collect();
    let without = |n: usize| {
        let mut lines = lines.clone();
        lines.remove(n);
        lines.join("\n")
    };
    for n in 0..lines.len() {
        let record = lines[n].contains("\"record\"");
        let last = n == lines.len() - 1;
        let fails = check(without(n).as_bytes(), Some(&key)).is_err();
        assert!(fails || !(record || last || n == 0), "line {n} removed");
        let changed = text.replace(lines[n], &lines[n].replacen("thing", "thinq", 1));
        assert!(
            changed == text || check(changed.as_bytes(), Some(&key)).is_err(),
            "line {n}"
        );
    }
    let other = tempfile::tempdir().unwrap();
    let other = Keys::open(other.path()).unwrap().public;
    assert!(check(text.as_bytes(), Some(&other)).is_err());
    // Who writes it anew after the fifth has no signature for it.
    let forged = Entry::seal(6, "x".into(), 0, "{}".into(), checked.head.clone());
    let record = serde_json::to_string(&Line::Record(forged.clone())).unwrap();
    let end = serde_json::to_string(&Line::End {
        records: 6,
        hash: forged.hash,
    })
    .unwrap();
    let mut longer: Vec<&str> = lines[..lines.len() - 1].to_vec();
    longer.extend([record.as_str(), end.as_str()]);
    assert_eq!(
        check(longer.join("\n").as_bytes(), Some(&key))
            .unwrap()
            .signed_to,
        5
    );
}

#[tokio::test]
async fn a_log_that_does_not_fit_is_not_signed_for_others() {
    let (data, db) = log().await;
    db.by_hand("DROP TRIGGER IF EXISTS audit_stays").await;
    db.by_hand("UPDATE audit SET body = replace(body, 'thing 2', 'thing 9')")
        .await;
    let mut out = Vec::new();
    let bad = export(data.path(), Format::Jsonl, Span::default(), &mut out).await;
    assert!(matches!(bad, Err(ExportError::Bad(bad)) if bad.seq == 2));
}

#[tokio::test]
async fn a_span_leaves_out_what_is_before_and_after_it() {
    let (data, _db) = log().await;
    let future = Some(Timestamp::MAX);
    for (span, records) in [
        (
            Span {
                since: future,
                until: None,
            },
            0,
        ),
        (
            Span {
                since: None,
                until: Some(Timestamp::UNIX_EPOCH),
            },
            0,
        ),
        (
            Span {
                since: Some(Timestamp::UNIX_EPOCH),
                until: future,
            },
            5,
        ),
    ] {
        for format in [Format::Jsonl, Format::Csv, Format::Ocsf] {
            let mut out = Vec::new();
            let written = export(data.path(), format, span, &mut out).await.unwrap();
            assert_eq!(written, records, "{format:?} {span:?}");
        }
    }
    let csv = exported(data.path(), Format::Csv).await;
    assert_eq!(csv.lines().count(), 6);
    assert!(matches!(
        serde_json::from_str(
            exported(data.path(), Format::Ocsf)
                .await
                .lines()
                .next()
                .unwrap()
        ),
        Ok(serde_json::Value::Object(_))
    ));
}
