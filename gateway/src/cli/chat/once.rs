//! One message, its answer, and the end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::Failure;
use super::super::approvals::whole;
use super::super::client::{Client, rows, text};
use super::super::output::{Output, complain};
use super::super::stream::Events;
use super::super::watch;
use super::{newest, of, pos, say};
use crate::text::{printable, printable_lines};

/// What is known of the answer so far.
#[derive(Debug, Default)]
struct Answer {
    /// Where the message stands, once it is shown.
    asked_at: Option<i64>,
    /// What the agent said, by its place.
    said: BTreeMap<i64, Value>,
    /// How tasks ended: their item, by id.
    ended: BTreeMap<String, Value>,
}

pub(super) async fn run(
    group: &str,
    message: &str,
    client: &Client,
    out: Output,
) -> Result<(), Failure> {
    let (_, after) = newest(client, group, 1).await?;
    let asked = say(client, group, message).await?;
    let mut events = Events::open(client, Some(group), Some(after)).await?;
    let (mut answer, mut open) = (Answer::default(), BTreeSet::new());
    loop {
        let event = events.next().await?;
        if event.name != "item" {
            held(
                watch::told(&mut open, event, client).await,
                group,
                &open,
                out,
            );
            continue;
        }
        let item = event.data;
        let id = text(&item, "id");
        match of(&item, "type") {
            "person" if id == asked => answer.asked_at = Some(pos(&item)),
            "agent" => drop(answer.said.insert(pos(&item), item)),
            "run" if matches!(of(&item, "state"), "done" | "failed" | "stopped") => {
                answer.ended.insert(id.to_owned(), item);
            }
            "notice" if asked.replace("in_", "refused_") == id => {
                return Err(Failure::Failed(printable(of(&item, "text"))));
            }
            _ => {}
        }
        if let Some(run) = answer.end(client, group).await? {
            return tell(&answer, &run, out);
        }
    }
}

impl Answer {
    /// The task that took the message, once it has ended: one that began after it was said, or the
    /// one that was under way, if nothing is left that no agent has heard.
    async fn end(&self, client: &Client, group: &str) -> Result<Option<Value>, Failure> {
        let Some(asked_at) = self.asked_at else {
            return Ok(None);
        };
        let later = self.ended.values().find(|run| pos(run) > asked_at);
        if later.is_some() || self.ended.is_empty() {
            return Ok(later.cloned());
        }
        let groups = client.get(&["groups"], &[]).await?;
        let group = rows(&groups).iter().find(|one| text(one, "name") == group);
        let idle = group.is_some_and(|group| {
            let queued = group.get("queued").and_then(Value::as_i64);
            queued == Some(0) && group.get("state").is_none_or(Value::is_null)
        });
        let last = self.ended.values().max_by_key(|run| pos(run)).cloned();
        Ok(last.filter(|_| idle))
    }
}

/// Says on standard error which questions keep the answer, and where they are decided.
fn held(questions: Vec<Value>, group: &str, open: &BTreeSet<String>, out: Output) {
    for question in questions {
        let id = text(&question, "id");
        if text(&question, "group") == group && open.contains(id) {
            let card = whole(&question, jiff::Timestamp::now(), out);
            let id = printable(id);
            complain(&format!(
                "{card}held until a person decides: `portcullis approve {id}`, `portcullis deny {id}`, or in the console"
            ));
        }
    }
}

fn tell(answer: &Answer, run: &Value, out: Output) -> Result<(), Failure> {
    let of_run = format!("msg_{}_", of(run, "run"));
    let asked_at = answer.asked_at.unwrap_or_default();
    let said: Vec<&str> = answer
        .said
        .iter()
        .filter(|(pos, item)| **pos > asked_at && text(item, "id").starts_with(&of_run))
        .map(|(_, item)| of(item, "text"))
        .collect();
    let (state, last) = (of(run, "state"), said.last().copied().unwrap_or_default());
    let value = json!({ "run": of(run, "run"), "state": state, "answer": last, "messages": said, "error": of(run, "text") });
    if state == "done" || out.json {
        out.print(&value, || printable_lines(last))?;
    }
    match state {
        "done" => Ok(()),
        _ if out.json => Err(Failure::Told(1)),
        _ => {
            let why = printable(of(run, "text"));
            Err(Failure::Failed(format!(
                "no answer, the task {state}: {why}"
            )))
        }
    }
}
