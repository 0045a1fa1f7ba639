//! Which arguments name whom or what a call reaches.

use policy::action::Action;
use policy::ids::ServerName;
use serde_json::Value;

use crate::config::Config;

/// Names of arguments that usually say whom or what a call reaches.
const USUAL: [&str; 20] = [
    "to",
    "cc",
    "bcc",
    "recipient",
    "recipients",
    "email",
    "address",
    "url",
    "uri",
    "host",
    "channel",
    "destination",
    "target",
    "repo",
    "repository",
    "path",
    "file",
    "phone",
    "account",
    "webhook",
];

/// Whether an argument says so: by the configuration, else by its usual name.
pub fn says(name: &str, named: &[String]) -> bool {
    if named.is_empty() {
        USUAL.contains(&name.to_ascii_lowercase().as_str())
    } else {
        named.iter().any(|one| one == name)
    }
}

/// The arguments of an action that say so.
pub fn of(config: &Config, action: &Action) -> Vec<String> {
    let server = action.server.parse::<ServerName>().ok();
    let server = server.and_then(|server| config.servers.get(&server));
    let tool = server.and_then(|server| server.tools.get(&action.name));
    let named = tool.map_or(&[][..], |tool| &tool.destinations);
    let args = action.args.as_object().into_iter().flatten();
    let said = args.filter(|(name, value)| says(name, named) && **value != Value::Null);
    said.map(|(name, _)| name.clone()).collect()
}
