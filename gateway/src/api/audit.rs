//! The log, story by story.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use policy::record::{Entry, Event, Story};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Api, Refused, Who};
use crate::audit::read;

/// Which stories to tell. What is empty says nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    /// How many at most.
    pub(crate) limit: Option<usize>,
    /// Only those before this position.
    pub(crate) before: Option<i64>,
    /// Only those in which this text occurs.
    pub(crate) text: String,
    /// Only those of this group.
    pub(crate) group: String,
    /// Only those decided so.
    pub(crate) decision: String,
    /// Only those that ended so.
    pub(crate) outcome: String,
    /// Only those of this kind.
    pub(crate) kind: String,
}

impl Wanted {
    fn fits(&self, story: &Story) -> bool {
        let is = |wanted: &str, name: &str| wanted.is_empty() || wanted == name;
        is(&self.group, &story.group)
            && is(&self.decision, story.decision.as_str())
            && is(&self.outcome, story.outcome.as_str())
            && is(&self.kind, kind(story))
    }
}

/// The name of a story's kind. What somebody did to the gateway itself is of none of the five.
pub(crate) fn kind(story: &Story) -> &'static str {
    use policy::action::Kind;
    if story.group.is_empty() && story.conversation.is_empty() {
        return "gateway";
    }
    match story.kind {
        Kind::Mcp => "mcp",
        Kind::Model => "model",
        Kind::Network => "network",
        Kind::Local => "local",
        Kind::Host => "host",
    }
}

/// A page of the log.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Page {
    /// The stories, newest first.
    pub(crate) stories: Vec<Story>,
    /// The position to go on before, if there may be more.
    pub(crate) next: Option<i64>,
}

/// The stories that a person sees.
pub(crate) async fn page(api: &Api, who: &Who, wanted: &Wanted) -> Result<Page, Refused> {
    const USUAL: usize = 50;
    const MOST: usize = 200;
    api.broker.audit.settle().await;
    let limit = wanted.limit.unwrap_or(USUAL).min(MOST);
    let text = Some(wanted.text.as_str()).filter(|text| !text.is_empty());
    let config = &api.broker.config;
    let keep = |story: &Story| who.may_see(config, &story.group) && wanted.fits(story);
    let (stories, next) = read::page(&api.db, text, wanted.before, limit, keep).await?;
    Ok(Page { stories, next })
}

/// One story, entry by entry, if it is this person's to read. One that is not is none.
pub(crate) async fn tell(
    api: &Api,
    who: &Who,
    id: &str,
) -> Result<(Story, Vec<(Entry, Event)>), Refused> {
    api.broker.audit.settle().await;
    let entries = read::entries(&api.db, id).await?;
    let raw: Vec<Entry> = entries.iter().map(|(entry, _)| entry.clone()).collect();
    let story = read::told(&raw);
    let story = story.filter(|story| who.may_see(&api.broker.config, &story.group));
    let story = story.ok_or_else(|| {
        let text = format!("the log knows no action or question `{id}`");
        Refused::new(StatusCode::NOT_FOUND, text)
    })?;
    Ok((story, entries))
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page>, Refused> {
    page(&api, &who, &wanted).await.map(Json)
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let (story, entries) = tell(&api, &who, &id).await?;
    let entries: Vec<Value> = entries
        .iter()
        .map(|(entry, event)| {
            json!({ "seq": entry.seq, "at": entry.at, "event": event, "hash": entry.hash, "prev": entry.prev })
        })
        .collect();
    Ok(Json(json!({ "story": story, "entries": entries })))
}

/// Returns when the log holds all that was done before.
pub(super) async fn settle(State(api): State<Arc<Api>>) -> Json<Value> {
    api.broker.audit.settle().await;
    Json(json!({ "settled": true }))
}
