//! `chat`: a group's conversation on a terminal, or one message and its answer.

mod lines;
mod once;

use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::client::Client;
use super::output::Output;

#[derive(Debug, Args)]
pub(super) struct Chat {
    /// The group.
    #[arg(long, value_name = "NAME")]
    group: String,
    /// Say this, print the answer, and end.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

pub(super) async fn run(chat: Chat, client: &Client, out: Output) -> Result<(), Failure> {
    match &chat.message {
        Some(text) => once::run(&chat.group, text, client, out).await,
        None => lines::run(&chat.group, client, out).await,
    }
}

/// Says something; the id of the item that shows it.
async fn say(client: &Client, group: &str, text: &str) -> Result<String, Failure> {
    let id = uuid::Uuid::now_v7().simple().to_string();
    let body = json!({ "id": id, "text": text });
    let said = client.post(&["groups", group, "messages"], body).await?;
    let seq = said.get("seq").and_then(Value::as_i64).unwrap_or_default();
    Ok(format!("in_{seq}"))
}

/// The newest items of a group, and the number up to which they are true.
async fn newest(client: &Client, group: &str, limit: u64) -> Result<(Vec<Value>, i64), Failure> {
    let limit = limit.to_string();
    let page = client
        .get(&["groups", group, "items"], &[("limit", &limit)])
        .await?;
    let newest = page.get("newest").and_then(Value::as_i64);
    let items = page.get("items").and_then(Value::as_array).cloned();
    Ok((items.unwrap_or_default(), newest.unwrap_or_default()))
}

/// A member of an item's body as text.
fn of<'a>(item: &'a Value, name: &str) -> &'a str {
    let member = item.get("body").and_then(|body| body.get(name));
    member.and_then(Value::as_str).unwrap_or_default()
}

fn pos(item: &Value) -> i64 {
    item.get("pos").and_then(Value::as_i64).unwrap_or_default()
}
