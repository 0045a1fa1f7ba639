//! `login`: a way into the console.

use serde_json::Value;

use super::Failure;
use super::client::{Client, text};
use super::output::Output;
use crate::text::printable;

pub(super) async fn run(client: &Client, out: Output) -> Result<(), Failure> {
    let link = client.post(&["links"], Value::Null).await?;
    out.print(&link, || printable(text(&link, "url")))
}
