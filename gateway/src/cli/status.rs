//! `servers`, `status`: how the instance does.

use std::time::Duration;

use serde_json::Value;

use super::Failure;
use super::client::{Client, rows, shown, text};
use super::output::{Cell, Output, short, span};
use crate::config::Paths;

pub(super) async fn servers(client: &Client, out: Output) -> Result<(), Failure> {
    let value = client.get(&["servers"], &[]).await?;
    out.print(&value, || {
        let rows = rows(&value)
            .iter()
            .map(|server| {
                let tools = match server.get("tools") {
                    Some(Value::Array(tools)) => tools.len().to_string(),
                    Some(_) | None => shown(server, "tools"),
                };
                vec![
                    text(server, "name").into(),
                    Cell::word(text(server, "state")),
                    shown(server, "transport").into(),
                    tools.into(),
                    pins(server).into(),
                    short(&shown(server, "last_error"), 100).into(),
                ]
            })
            .collect();
        out.table(
            &["NAME", "STATE", "TRANSPORT", "TOOLS", "PINS", "LAST ERROR"],
            rows,
            "no servers; write `[mcp_servers.NAME]` in the configuration",
        )
    })
}

/// Whether a server is what was pinned of it.
fn pins(server: &Value) -> String {
    match server.get("differences").and_then(Value::as_u64) {
        None | Some(0) => "-".to_owned(),
        Some(count) => format!("{count} changed: `tools diff`"),
    }
}

pub(super) async fn status(paths: &Paths, client: &Client, out: Output) -> Result<(), Failure> {
    let value = client.get(&["status"], &[]).await?;
    out.print(&value, || {
        let mut lines: Vec<Vec<Cell>> =
            vec![vec!["data".into(), paths.data.display().to_string().into()]];
        for (name, member) in value.as_object().into_iter().flatten() {
            let shown = match member {
                Value::Number(seconds) if name == "uptime_seconds" => span(
                    Duration::from_secs_f64(seconds.as_f64().unwrap_or_default().max(0.0)),
                ),
                Value::Array(items) if items.iter().any(Value::is_object) => items
                    .iter()
                    .map(|item| {
                        let state = text(item, "state");
                        let name = text(item, "name");
                        if state.is_empty() {
                            name.to_owned()
                        } else {
                            format!("{name} ({state})")
                        }
                    })
                    .collect::<Vec<_>>()
                    .join(", "),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_) => shown(&value, name),
            };
            let name = name.trim_end_matches("_seconds").replace('_', " ");
            lines.push(vec![name.into(), shown.into()]);
        }
        out.lines(lines)
    })
}
