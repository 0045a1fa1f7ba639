//! The servers, and how the instance does.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::view::{Text, Time, Word, page};
use crate::api::{Api, Entrance, Refused, Who, servers};

struct Server {
    name: String,
    transport: Text,
    state: Word,
    since: Option<Time>,
    calls: u64,
    under_way: u64,
    tools: Vec<Text>,
    last_error: Option<Text>,
    /// How many differences from its pin wait for an answer.
    differences: u64,
    warnings: Vec<Text>,
}

fn word(state: &str) -> Word {
    let (text, tone) = match state {
        "ready" | "running" => ("ready", "good"),
        "starting" => ("starting", "careful"),
        "failed" => ("failed", "bad"),
        "idle" => ("idle", "faint"),
        _ => ("stopped", "faint"),
    };
    Word { text, tone }
}

impl From<Value> for Server {
    fn from(server: Value) -> Self {
        let text = |name: &str| server.get(name).and_then(Value::as_str);
        let number = |name: &str| server.get(name).and_then(Value::as_u64).unwrap_or(0);
        let tools = server.get("tools").and_then(Value::as_array);
        Self {
            name: text("name").unwrap_or_default().to_owned(),
            transport: Text::line(text("transport").unwrap_or_default()),
            state: word(text("state").unwrap_or_default()),
            since: text("since").and_then(|at| Some(at.parse::<jiff::Timestamp>().ok()?.into())),
            calls: number("calls"),
            under_way: number("in_flight"),
            tools: tools
                .into_iter()
                .flatten()
                .filter_map(|tool| tool.as_str().map(Text::line))
                .collect(),
            last_error: text("last_error").map(Text::lines),
            differences: number("differences"),
            warnings: server
                .get("warnings")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|warning| warning.as_str().map(Text::line))
                .collect(),
        }
    }
}

#[derive(Template)]
#[template(path = "servers.html")]
struct Servers {
    servers: Vec<Server>,
}

/// The servers.
pub(super) async fn servers(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Response {
    let seen = servers::seen(&api, &who).into_iter();
    page(&Servers {
        servers: seen.map(Server::from).collect(),
    })
}

#[derive(Template)]
#[template(path = "status.html")]
struct Status {
    lines: Vec<(String, Text)>,
    caution: Option<&'static str>,
    me: String,
    role: &'static str,
    by_command: bool,
    url: String,
    group: Option<String>,
}

/// How the instance does, and who one is.
pub(super) async fn status(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Response, Refused> {
    let told = servers::told(&api, &who).await?;
    let members = told.as_object().into_iter().flatten();
    let members = members.filter(|(name, _)| name.as_str() != "agents");
    let lines = members.map(|(name, value)| {
        let name = name.trim_end_matches("_seconds").replace('_', " ");
        (name.clone(), Text::line(&words(&name, value)))
    });
    let origin = match who.entrance() {
        Entrance::Console { origin, .. } => Some(*origin),
        Entrance::Socket => None,
    };
    let config = &api.broker.config.now();
    let hosted = config.groups.values().any(|group| group.model.is_some());
    let mut groups = config.groups.keys().map(ToString::to_string);
    Ok(page(&Status {
        lines: lines
            .filter(|(_, value)| !value.to_string().is_empty())
            .collect(),
        caution: hosted.then_some(crate::hosted::NO_SANDBOX),
        me: who.named()?.to_string(),
        role: who.role().as_str(),
        by_command: origin == Some(super::sessions::Origin::Command),
        url: api.url.clone(),
        group: groups.find(|group| who.may_see(config, group)),
    }))
}

/// A value of the status as a person reads it.
fn words(name: &str, value: &Value) -> String {
    match value {
        Value::Number(seconds) if name == "uptime" => span(seconds.as_u64().unwrap_or(0)),
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) => items
            .iter()
            .map(|item| {
                let member = |name: &str| item.get(name).and_then(Value::as_str);
                match (item.as_str(), member("name"), member("state")) {
                    (Some(text), ..) => text.to_owned(),
                    (None, Some(name), Some(state)) => format!("{name} ({state})"),
                    (None, _, _) => item.to_string(),
                }
            })
            .collect::<Vec<_>>()
            .join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}
