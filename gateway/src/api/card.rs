//! A question with all that a person should know before they answer it: the effect first, then
//! every argument, then what the conversation had read and which call brought that in.
//!
//! Written from what was decided on and from the configuration: nothing of it is the agent's choice
//! of words but the arguments themselves, and nothing the server's but the tool's name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use policy::action::Method;
use policy::decision::{Decision, Facts, Grant, Policy, Why, explain};
use policy::ids::{ActionId, ServerName, UserName};
use policy::label::{Label, Provenance};
use serde::Serialize;
use serde_json::Value;

use super::{Api, Refused};
use crate::approvals::destinations::says;
use crate::approvals::{LIFTED, Shown};
use crate::audit::read;

/// A question as people are shown it.
#[derive(Clone, Debug, Serialize)]
pub struct Card {
    /// The question.
    #[serde(flatten)]
    pub shown: Shown,
    /// What its server calls the tool, where a person said that its words can be trusted.
    pub title: Option<String>,
    /// Whom or what it reaches, as far as arguments say so.
    pub destinations: Vec<Destination>,
    /// What the conversation had read.
    pub because: Vec<Because>,
    /// The gates that are closed.
    pub gates: Vec<String>,
    /// The rules that had a say.
    pub rules: Vec<String>,
    /// Who asked.
    pub principal: String,
    /// Who may answer.
    pub approvers: Vec<UserName>,
    /// For how long a yes may count (`once`, `run`, `always`), and `edit` where arguments can be changed.
    pub choices: Vec<&'static str>,
}

/// An argument that names whom or what an action reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// The argument.
    pub name: String,
    /// What it says.
    pub value: String,
}

/// A label, and the call that put it there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Because {
    /// Which label.
    pub label: Label,
    /// The call, as the log names it.
    pub action: ActionId,
    /// Its tool.
    pub tool: String,
    /// When.
    pub at: Timestamp,
}

impl Because {
    fn new(label: Label, from: &Provenance) -> Self {
        Self {
            label,
            action: from.action.clone(),
            tool: from.tool.clone(),
            at: from.at,
        }
    }
}

/// What a decision's conversation had read, with where it came from.
pub fn because(facts: &Facts) -> Vec<Because> {
    let labels = &facts.labels;
    let pairs = [
        (Label::Untrusted, &labels.untrusted),
        (Label::Secret, &labels.secret),
    ];
    let mut all: Vec<Because> = pairs
        .into_iter()
        .filter_map(|(label, from)| Some(Because::new(label, from.as_ref()?)))
        .collect();
    all.sort_by_key(|because| because.at);
    all
}

/// The cards of some questions.
///
/// # Errors
/// [`Refused`], if the log cannot be read.
pub async fn cards(api: &Api, questions: Vec<Shown>) -> Result<Vec<Card>, Refused> {
    let actions = questions.iter().map(|shown| shown.action.clone()).collect();
    let mut decided = read::decided(&api.db, actions).await?;
    let card = |shown: Shown| {
        let decided = decided.remove(&shown.action);
        card(api, shown, decided)
    };
    Ok(questions.into_iter().map(card).collect())
}

fn card(api: &Api, shown: Shown, decided: Option<(Facts, Why)>) -> Card {
    let config = api.broker.config.now();
    let approvers: Vec<UserName> = config
        .approvers(&shown.group)
        .into_iter()
        .cloned()
        .collect();
    let Some((facts, why)) = decided else {
        return Card {
            approvers,
            choices: vec!["once"],
            destinations: destinations(&shown.args, &[]),
            shown,
            title: None,
            because: Vec::new(),
            gates: Vec::new(),
            rules: Vec::new(),
            principal: String::new(),
        };
    };
    let action = &facts.action;
    let server = action.server.parse::<ServerName>().ok();
    let server = server.and_then(|server| config.servers.get(&server));
    let named = server
        .and_then(|server| server.tools.get(&action.name))
        .map_or(&[][..], |tool| &tool.destinations);
    // It would stand where the reader looks first.
    let trusted = server.is_some_and(|server| server.titles_trusted);
    Card {
        title: trusted
            .then(|| title(api, &action.server, &action.name))
            .flatten(),
        destinations: destinations(&shown.args, named),
        because: because(&facts),
        gates: why
            .gates
            .iter()
            .map(|gate| gate.as_str().to_owned())
            .collect(),
        choices: choices(&api.broker.policy().policy, &shown, &facts),
        approvers,
        rules: why.rules,
        principal: action.principal.clone(),
        shown,
    }
}

/// For how long a yes may count. What would be asked again at once is not offered.
fn choices(policy: &Policy, shown: &Shown, facts: &Facts) -> Vec<&'static str> {
    let action = &facts.action;
    let mut granted = facts.clone();
    granted.grants.push(Grant {
        question: shown.id.clone(),
        run: action.run.clone(),
        tool: action.tool(),
        definition: action.definition.clone(),
        identity: action.identity.clone(),
        lifts: LIFTED.into(),
        until: Timestamp::MAX,
    });
    let mut choices = vec!["once"];
    let call = action.method == Method::Call && facts.credentials.is_empty();
    if shown.people == 1 && explain(policy, &granted).decision == Decision::Allow {
        choices.push("run");
        if call {
            choices.push("always");
        }
    }
    if call && shown.args.as_object().is_some_and(|args| !args.is_empty()) {
        choices.push("edit");
    }
    choices
}

/// What a server calls a tool of its own.
fn title(api: &Api, server: &str, tool: &str) -> Option<String> {
    const LONGEST: usize = 80;
    let listing = api.broker.catalog.known(server)?;
    let raw: BTreeMap<String, Value> =
        serde_json::from_str(listing.tool(tool)?.item.raw.get()).ok()?;
    let annotated = raw.get("annotations").and_then(|hints| hints.get("title"));
    let title = raw.get("title").or(annotated)?.as_str()?.trim();
    (!title.is_empty()).then(|| title.chars().take(LONGEST).collect())
}

/// The arguments that say so by the configuration, else by their usual names.
fn destinations(args: &Value, named: &[String]) -> Vec<Destination> {
    let Some(args) = args.as_object() else {
        return Vec::new();
    };
    let said = args.iter().filter(|(name, _)| says(name, named));
    said.filter_map(|(name, value)| {
        let value = plain(value)?;
        let name = name.clone();
        Some(Destination { name, value })
    })
    .collect()
}

/// A text or a list of texts as such, anything else as JSON: what is left out here, because an agent
/// gave it an odd form or hid it behind others, would not be looked for below.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            Some(texts.map_or_else(|| value.to_string(), |texts| texts.join(", ")))
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn destinations_are_what_is_configured_else_what_is_usual() {
        let args = json!({
            "body": "x", "To": "a@b", "cc": ["c", "d"], "url": "", "path": null, "room": "r",
        });
        let shown = |named: &[String]| {
            let all = destinations(&args, named);
            let all = all.iter().map(|one| format!("{}={}", one.name, one.value));
            all.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&[]), "To=a@b cc=c, d");
        assert_eq!(shown(&["room".to_owned()]), "room=r");
    }

    #[test]
    fn no_destination_hides_behind_others_or_in_an_odd_form() {
        let decoys = ["account", "address", "bcc", "cc", "channel", "destination"];
        let mut args: serde_json::Map<String, Value> = decoys
            .iter()
            .map(|name| ((*name).to_owned(), json!("boss@ok")))
            .collect();
        args.insert("to".to_owned(), json!([{"email": "evil"}]));
        let all = destinations(&Value::Object(args), &[]);
        assert_eq!(all.len(), 7);
        let to = all.iter().find(|one| one.name == "to").unwrap();
        assert_eq!(to.value, r#"[{"email":"evil"}]"#);
    }
}
