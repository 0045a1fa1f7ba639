//! Servers, their tools, and how the instance does.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use policy::ids::GroupName;
use serde_json::{Value, json};

use super::{Api, Refused, Who};

/// Whether a server is granted to a group that this person sees.
fn granted(api: &Api, who: &Who, server: &str) -> bool {
    let config = &api.broker.config;
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
    seen.map(|status| {
        let listing = api.broker.catalog.known(&status.name);
        let tools: Vec<String> = listing
            .iter()
            .flat_map(|listing| listing.tools.iter().map(|tool| tool.item.name.clone()))
            .collect();
        let mut shown = json!(status);
        if let Some(members) = shown.as_object_mut() {
            members.insert("tools".to_owned(), json!(tools));
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
            let raw: Value = serde_json::from_str(tool.item.raw.get()).unwrap_or_default();
            let member = |name: &str| raw.get(name).cloned().unwrap_or_default();
            all.push(json!({
                "name": format!("{}__{}", status.name, tool.item.name),
                "server": status.name,
                "title": member("title"),
                "description": member("description"),
                "annotations": member("annotations"),
                "digest": tool.item.digest,
            }));
        }
    }
    Json(Value::Array(all))
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
    let groups: Vec<&str> = broker
        .config
        .groups
        .keys()
        .map(GroupName::as_str)
        .filter(|group| who.may_see(&broker.config, group))
        .collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "url": api.url,
        "uptime_seconds": api.since.elapsed().as_secs(),
        "configuration": broker.config.revision,
        "groups": groups,
        "servers": states,
        "open_approvals": super::approvals::open(api, who).await?.len(),
    }))
}

pub(super) async fn status(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Json<Value>, Refused> {
    told(&api, &who).await.map(Json)
}
