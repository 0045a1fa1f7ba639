//! The log, story by story.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use policy::record::{Entry, Event, Story};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Api, Refused, Who};
pub(crate) use crate::audit::find::{Wanted, kind};
use crate::audit::index::FindError;
use crate::audit::read;
use crate::config::Role;

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
    let config = &api.broker.config.now();
    let groups = (who.role() != Role::Owner).then(|| {
        let names = config.groups.keys().map(ToString::to_string);
        names
            .filter(|name| who.may_see(config, name))
            .collect::<Vec<_>>()
    });
    let may_see = |story: &Story| who.may_see(config, &story.group);
    let (stories, next) = api
        .index
        .find(wanted, groups.as_deref(), limit, may_see)
        .await?;
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
    let story = story.filter(|story| who.may_see(&api.broker.config.now(), &story.group));
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
    if let Err(error) = api.index.catch_up().await {
        tracing::error!("the index over the log cannot be written: {error}");
    }
    Json(json!({ "settled": true }))
}

impl From<FindError> for Refused {
    fn from(error: FindError) -> Self {
        let status = match &error {
            FindError::Time(_) => StatusCode::BAD_REQUEST,
            FindError::Db(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
