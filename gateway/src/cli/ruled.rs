//! `policy rules`, `policy digest`, `policy take`, `policy revoke`: what people's *always* made, and
//! where their attention goes.

use std::fmt::Write as _;

use jiff::Timestamp;
use policy::rule::Rule;
use serde_json::{Value, json};

use super::Failure;
use super::approvals::{Offers, offers_told};
use super::client::{Client, rows, shown, text};
use super::output::{Output, utc_text};
use super::policy::Ruled;
use crate::config::Paths;
use crate::db::Db;
use crate::text::printable;

pub(super) async fn run(command: Ruled, client: &Client, out: Output) -> Result<(), Failure> {
    match command {
        Ruled::Rules => {
            let rules = client.get(&["rules"], &[]).await?;
            out.print(&rules, || table(&rules, out))
        }
        Ruled::Digest => {
            let digest = client.get(&["attention"], &[]).await?;
            out.print(&digest, || attention(&digest, out))
        }
        Ruled::Take { id, rule, ttl } => {
            let offers = Offers::of(&id, ttl, client).await?;
            let mut body = offers.body(rule, out)?;
            body.insert("question".to_owned(), json!(id));
            let rules = client.post(&["rules"], Value::Object(body)).await?;
            out.print(&rules, || table(&rules, out))
        }
        Ruled::Revoke { id } => {
            let rule = client.delete(&["rules", &id]).await?;
            out.print(&rule, || {
                format!("revoked: {}\n", printable(text(&rule, "words")))
            })
        }
    }
}

/// The rules of this kind that count, read from the data directory; none, where nothing ran there.
pub(super) async fn stored(paths: &Paths) -> Vec<Rule> {
    let Ok(db) = Db::open_to_read(&paths.data).await else {
        return Vec::new();
    };
    let kept = db.always().await.unwrap_or_default();
    db.close().await;
    let now = Timestamp::now();
    let counts = kept.into_iter().filter(|one| one.counts(now));
    counts.map(|one| one.rule).collect()
}

fn table(rules: &Value, out: Output) -> String {
    let lines = rows(rules).iter().map(|rule| {
        vec![
            text(rule, "id").into(),
            text(rule, "state").into(),
            utc_text(text(rule, "until")).into(),
            shown(rule, "by").into(),
            printable(text(rule, "words")).into(),
        ]
    });
    out.table(
        &["QUESTION", "STATE", "UNTIL (UTC)", "BY", "LETS THROUGH"],
        lines.collect(),
        "no rule came of an `always`",
    )
}

fn attention(digest: &Value, out: Output) -> String {
    let counts = rows(digest.get("counts").unwrap_or(&Value::Null));
    let lines = counts.iter().map(|count| {
        let percent = match count.get("allow_percent").and_then(Value::as_u64) {
            Some(percent) => format!("{percent} %"),
            None => "-".to_owned(),
        };
        let took = match count.get("answer_p50_seconds").and_then(Value::as_i64) {
            Some(seconds) => format!("{seconds} s"),
            None => "-".to_owned(),
        };
        vec![
            shown(count, "group").into(),
            text(count, "of").into(),
            printable(text(count, "name")).into(),
            shown(count, "asks").into(),
            percent.into(),
            took.into(),
        ]
    });
    let mut told = out.table(
        &["GROUP", "OF", "NAME", "ASKS", "ALLOWED", "ANSWERED IN"],
        lines.collect(),
        "nothing was asked in the last 30 days",
    );
    for spare in rows(digest.get("digest").unwrap_or(&Value::Null)) {
        let _ = write!(
            told,
            "\n{} in group {}: {} asks, all allowed. Take one of these rules with `portcullis policy take {} --rule N`:\n\n{}",
            printable(text(spare, "tool")),
            printable(text(spare, "group")),
            shown(spare, "allowed"),
            printable(text(spare, "question")),
            offers_told(rows(spare.get("rules").unwrap_or(&Value::Null))),
        );
    }
    told
}
