//! `approvals --watch`: questions as they come and go.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::Failure;
use super::approvals::{ended, whole};
use super::client::{Client, text};
use super::output::{self, Output};
use super::stream::{Event, Events, interrupts};
use crate::text::printable_json;

pub(super) async fn watch(client: &Client, out: Output) -> Result<(), Failure> {
    let mut interrupts = interrupts()?;
    let mut open = BTreeSet::new();
    let mut events = Events::open(client, None, None).await?;
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = interrupts.recv() => return Ok(()),
        };
        for question in told(&mut open, event, client).await {
            if out.json {
                output::say(&format!("{}\n", printable_json(&question.to_string())))?;
            } else if open.contains(text(&question, "id")) {
                output::say(&format!("{}\n", whole(&question, Timestamp::now(), out)))?;
            } else {
                output::say(&ended(&question, out))?;
            }
        }
    }
}

/// The questions that an event says came or went.
pub(super) async fn told(open: &mut BTreeSet<String>, event: Event, client: &Client) -> Vec<Value> {
    match event.name.as_str() {
        "approval" => {
            let id = text(&event.data, "id").to_owned();
            let is_open = matches!(text(&event.data, "state"), "pending" | "caller_gone");
            let changed = if is_open {
                open.insert(id)
            } else {
                open.remove(&id)
            };
            changed.then_some(event.data).into_iter().collect()
        }
        // All that are open: what was answered while nobody was connected is not among them.
        "open" => {
            let ids = event.data.get("ids").and_then(Value::as_array);
            let now: BTreeSet<&str> = ids
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let gone: Vec<String> = open
                .iter()
                .filter(|id| !now.contains(id.as_str()))
                .cloned()
                .collect();
            let mut questions = Vec::new();
            for id in gone {
                open.remove(&id);
                questions.extend(client.get(&["approvals", &id], &[]).await);
            }
            questions
        }
        _ => Vec::new(),
    }
}
