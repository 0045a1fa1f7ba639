//! Lists and capabilities: from the catalog, never from an action.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Caller, Mcp, call, wire};
use crate::catalog::{Item, Listing};
use crate::upstreams::UpstreamError;

/// How long a list waits for a server that never told what it offers. One that is slower is left
/// out; its clients hear of it when it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the endpoint says it is.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) capabilities: Value,
    pub(super) server_info: Value,
    pub(super) instructions: Option<String>,
}

pub(super) async fn offer(mcp: &Arc<Mcp>, scope: Option<&str>) -> Result<Offer, String> {
    let Some(server) = scope else {
        return Ok(Offer {
            capabilities: json!({
                "tools": { "listChanged": true },
                "prompts": { "listChanged": true },
                "resources": { "listChanged": true, "subscribe": true },
                "completions": {},
            }),
            server_info: json!({ "name": "portcullis", "title": "Portcullis", "version": env!("CARGO_PKG_VERSION") }),
            instructions: Some(
                "Tools of several servers, as server__tool. A risky call waits for a person; until then it is not executed. \
                 Do not work around a refusal."
                    .to_owned(),
            ),
        });
    };
    let listing = mcp
        .broker
        .catalog
        .get(server)
        .await
        .map_err(|error| error.to_string())?;
    let mut capabilities = Map::new();
    for name in ["tools", "prompts", "resources", "completions"] {
        if let Some(declared) = listing.capabilities.get(name) {
            let mut declared = declared.clone();
            if let (Some(members), true) = (declared.as_object_mut(), name != "completions") {
                members.insert("listChanged".to_owned(), Value::Bool(true));
            }
            capabilities.insert(name.to_owned(), declared);
        }
    }
    Ok(Offer {
        capabilities: Value::Object(capabilities),
        server_info: listing.server_info.clone(),
        instructions: listing.instructions.clone(),
    })
}

/// The answer to `tools/list` and its like, raw.
pub(super) async fn list(
    mcp: &Arc<Mcp>,
    caller: &Caller,
    method: &str,
) -> Result<String, UpstreamError> {
    let listings = listings(mcp, caller).await?;
    let scope = caller.scope.as_deref();
    let mut items = Vec::new();
    for (server, listing) in &listings {
        let name = |item: &Item| match scope {
            Some(_) => item.raw.get().to_owned(),
            None => wire::with_member(&item.raw, "name", format!("{server}__{}", item.name).into()),
        };
        let uri = |item: &Item, member: &str| match scope {
            Some(_) => item.raw.get().to_owned(),
            None => wire::with_member(
                &item.raw,
                member,
                call::public_uri(scope, server, &item.name).into(),
            ),
        };
        match method {
            "tools/list" => items.extend(listing.tools.iter().map(|tool| name(&tool.item))),
            "prompts/list" => items.extend(listing.prompts.iter().map(name)),
            "resources/list" => items.extend(listing.resources.iter().map(|item| uri(item, "uri"))),
            _ => items.extend(
                listing
                    .templates
                    .iter()
                    .map(|item| uri(item, "uriTemplate")),
            ),
        }
    }
    let member = match method {
        "tools/list" => "tools",
        "prompts/list" => "prompts",
        "resources/list" => "resources",
        _ => "resourceTemplates",
    };
    let items = items.join(",");
    Ok(if caller.modern() {
        // What a list holds depends on who asks (SEP-2549).
        format!(
            r#"{{"resultType":"complete","{member}":[{items}],"ttlMs":0,"cacheScope":"private"}}"#
        )
    } else {
        format!(r#"{{"{member}":[{items}]}}"#)
    })
}

/// The server that lists a resource under a URI which does not name it. Two of a caller's servers
/// that do are none: neither may speak for the other.
pub(super) async fn server_of(mcp: &Arc<Mcp>, caller: &Caller, uri: &str) -> Option<String> {
    let listings = listings(mcp, caller).await.ok()?;
    let mut servers = listings.into_iter().filter_map(|(server, listing)| {
        let has = listing.resources.iter().any(|item| item.name == uri);
        has.then_some(server)
    });
    match (servers.next(), servers.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}

/// The listings of the servers that a caller may use, in the order of their names.
async fn listings(
    mcp: &Arc<Mcp>,
    caller: &Caller,
) -> Result<Vec<(String, Arc<Listing>)>, UpstreamError> {
    let catalog = &mcp.broker.catalog;
    if let Some(server) = &caller.scope {
        return Ok(vec![(server.clone(), catalog.get(server).await?)]);
    }
    let config = mcp.broker.config.now();
    let group = config.groups.get(&caller.principal.group);
    let mut servers: Vec<&str> = group
        .map(|group| {
            group
                .servers
                .iter()
                .map(policy::ids::ServerName::as_str)
                .collect()
        })
        .unwrap_or_default();
    servers.sort_unstable();
    servers.dedup();
    let asked = servers.into_iter().map(async |server| {
        let listing = tokio::time::timeout(PATIENCE, catalog.get(server))
            .await
            .ok()?;
        match listing {
            Ok(listing) => Some((server.to_owned(), listing)),
            Err(error) => {
                tracing::warn!(
                    server.name = server,
                    "the tools of `{server}` are not listed: {error}"
                );
                None
            }
        }
    });
    Ok(futures::future::join_all(asked)
        .await
        .into_iter()
        .flatten()
        .collect())
}
