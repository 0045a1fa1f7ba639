//! Servers, their tools, and how the instance does.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use policy::action::Digest;
use policy::ids::GroupName;
use policy::pin::{Key, What};
use serde_json::{Value, json};

use super::pins::Standing;
use super::{Api, Refused, Who};

/// Whether a server is granted to a group that this person sees.
pub(super) fn granted(api: &Api, who: &Who, server: &str) -> bool {
    let config = &api.broker.config.now();
    who.may_see(config, "")
        || config.groups.iter().any(|(name, group)| {
            who.may_see(config, name.as_str())
                && group.servers.iter().any(|one| one.as_str() == server)
        })
}

/// The servers that a person sees, each as `/servers` tells it.
pub(crate) fn seen(api: &Api, who: &Who) -> Vec<Value> {
    let all = api.broker.upstreams.status().into_iter();
    let seen = all.filter(|status| granted(api, who, &status.name));
    let warnings = super::pins::warnings(api, who);
    seen.map(|status| {
        let listing = api.broker.catalog.known(&status.name);
        let tools: Vec<String> = listing
            .iter()
            .flat_map(|listing| listing.tools.iter().map(|tool| tool.item.name.clone()))
            .collect();
        let differences = listing.as_ref().map_or(0, |one| one.differences().len());
        let mut shown = json!(status);
        if let Some(members) = shown.as_object_mut() {
            let doubled = listing.map(|listing| listing.doubled.clone());
            if let Some(doubled) = doubled.filter(|doubled| !doubled.is_empty())
                && status.last_error.is_none()
            {
                let names: Vec<String> = doubled.into_iter().collect();
                let text = format!(
                    "it lists more than one tool named {}; only the first is taken",
                    names.join(", ")
                );
                members.insert("last_error".to_owned(), Value::String(text));
            }
            members.insert("tools".to_owned(), json!(tools));
            members.insert("differences".to_owned(), json!(differences));
            let own = warnings.iter().filter(|one| one.server == status.name);
            let own: Vec<String> = own
                .map(|one| format!("`{}` {}", one.tool, one.text))
                .collect();
            members.insert("warnings".to_owned(), json!(own));
        }
        shown
    })
    .collect()
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Json<Vec<Value>> {
    Json(seen(&api, &who))
}

pub(super) async fn tools(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Json<Value> {
    let mut all = Vec::new();
    for status in api.broker.upstreams.status() {
        if !granted(&api, &who, &status.name) {
            continue;
        }
        // Asks a server that never told; one that cannot be started is seen in `servers`.
        let Ok(listing) = api.broker.catalog.get(&status.name).await else {
            continue;
        };
        for tool in &listing.tools {
            let key = Key::new(What::Tool, tool.item.name.as_str());
            let standing = if !listing.is_shown(&key) {
                Standing::Gone
            } else if listing.is_changed(&key) {
                Standing::Changed
            } else {
                Standing::Pinned
            };
            let raw: Value = serde_json::from_str(tool.item.raw.get()).unwrap_or_default();
            all.push(row(&status.name, &tool.item.name, &raw, standing));
        }
        // No agent is told of these; who looks after the servers is.
        for (name, new) in listing.hidden(What::Tool) {
            all.push(row(&status.name, name, &new.value(), Standing::New));
        }
    }
    Json(Value::Array(all))
}

fn row(server: &str, name: &str, raw: &Value, standing: Standing) -> Value {
    let member = |name: &str| raw.get(name).cloned().unwrap_or_default();
    json!({
        "name": format!("{server}__{name}"),
        "server": server,
        "state": standing,
        "title": member("title"),
        "description": member("description"),
        "annotations": member("annotations"),
        "digest": Digest::of_json(raw),
    })
}

/// How the instance does, as far as a person sees it.
pub(crate) async fn told(api: &Api, who: &Who) -> Result<Value, Refused> {
    let broker = &api.broker;
    let states: Vec<Value> = broker
        .upstreams
        .status()
        .iter()
        .filter(|one| granted(api, who, &one.name))
        .map(|one| json!({ "name": one.name, "state": one.state }))
        .collect();
    // Figures are no reason to hide how the instance does.
    let usage = match broker.models.totals(jiff::Timestamp::UNIX_EPOCH).await {
        Ok(totals) => totals
            .iter()
            .filter(|total| who.may_see(&broker.config.now(), &total.group))
            .map(usage_of)
            .collect(),
        Err(error) => {
            tracing::error!("what models took cannot be read: {error}");
            Vec::new()
        }
    };
    let standing = broker.config.standing();
    let config = broker.config.now();
    let groups: Vec<&str> = config
        .groups
        .keys()
        .map(GroupName::as_str)
        .filter(|group| who.may_see(&config, group))
        .collect();
    let changed = super::pins::open(api, who).await.into_iter();
    let changed: Vec<String> = changed.map(|pin| pin.server).collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "url": api.url,
        "uptime_seconds": api.since.elapsed().as_secs(),
        "configuration": config.revision,
        "configuration_refused": standing.refused,
        "restart_needed": standing.restart,
        "groups": groups,
        "servers": states,
        "agents": crate::hosted::NO_SANDBOX,
        "changed_servers": changed,
        "open_approvals": super::approvals::open(api, who).await?.len(),
        "asked": super::rules::in_short(api, who).await?,
        "records_waiting": broker.audit.waiting(),
        "models": usage,
    }))
}

pub(super) async fn status(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Json<Value>, Refused> {
    told(&api, &who).await.map(Json)
}

/// What a group's calls to a model took so far.
fn usage_of(total: &crate::db::usage::Total) -> Value {
    json!({
        "name": format!("{}: {}/{}", total.group, total.provider, total.model),
        "state": format!("{} calls, {} tokens in, {} out", total.calls, total.input, total.output),
        "group": total.group,
        "provider": total.provider,
        "model": total.model,
        "calls": total.calls,
        "input_tokens": total.input,
        "output_tokens": total.output,
        "cache_read_tokens": total.cache_read,
        "cache_write_tokens": total.cache_write,
    })
}
