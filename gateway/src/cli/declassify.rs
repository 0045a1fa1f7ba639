//! `declassify`: takes the labels off a conversation, with a reason.

use clap::Args;
use serde_json::{Value, json};

use super::Failure;
use super::client::{Client, rows, text};
use super::output::Output;
use crate::text::printable;

#[derive(Debug, Args)]
pub(super) struct Declassify {
    /// The conversation's id, such as `group:work` or `token:tok_…`.
    conversation: String,
    /// Why what it has read does no harm; in the log.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) async fn run(
    declassify: Declassify,
    client: &Client,
    out: Output,
) -> Result<(), Failure> {
    let Declassify {
        conversation,
        reason,
    } = declassify;
    let body = json!({ "reason": reason });
    let path = ["conversations", conversation.as_str(), "declassify"];
    let done = client.post(&path, body).await?;
    out.print(&done, || {
        let names = |key| {
            let all = rows(done.get(key).unwrap_or(&Value::Null)).iter();
            let all = all.filter_map(Value::as_str).map(printable);
            all.collect::<Vec<_>>().join(", ")
        };
        let id = printable(text(&done, "conversation"));
        match names("labels") {
            left if left.is_empty() => format!("{id}: took off {}\n", names("removed")),
            left => format!(
                "{id}: took off {}; still there, for calls under way bring it: {left}\n",
                names("removed")
            ),
        }
    })
}
