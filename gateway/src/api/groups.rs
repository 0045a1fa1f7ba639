//! Groups: what is said in them and shown of them.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use channels::inbox::Said;
use channels::web::{Item, RunState, SayError, Web};
use policy::ids::{GroupName, UserName};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Api, Refused, Who};
use crate::fault;

/// A group as people see it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    /// Its name.
    pub(crate) name: GroupName,
    /// Its model; `None` where its agents are all outside.
    pub(crate) model: Option<String>,
    /// The model is a script.
    pub(crate) script: bool,
    /// Who may speak to its agent; nobody named is everybody with access.
    pub(crate) members: Vec<UserName>,
    /// How its run goes, while one is under way.
    pub(crate) state: Option<RunState>,
    /// How many messages wait for theirs.
    pub(crate) queued: usize,
    /// Whether who asks may speak in it.
    pub(crate) may_speak: bool,
}

/// The groups that a person sees.
pub(crate) async fn seen(api: &Api, who: &Who) -> Vec<Group> {
    let working = api.groups.status().await;
    let config = &api.broker.config.now();
    let groups = config.groups.iter();
    groups
        .filter(|(name, _)| who.may_see(config, name.as_str()))
        .map(|(name, group)| {
            let working = working.iter().find(|one| one.name == *name);
            Group {
                name: name.clone(),
                model: working.map(|one| one.model.clone()),
                script: working.is_some_and(|one| one.script),
                members: group.members.clone(),
                state: working.and_then(|one| one.state),
                queued: working.map_or(0, |one| one.queued),
                may_speak: who.may_speak(config, name.as_str()),
            }
        })
        .collect()
}

/// The name of a group that this person sees. One that is not theirs is none.
pub(crate) fn theirs(api: &Api, who: &Who, group: &str) -> Result<GroupName, Refused> {
    let config = &api.broker.config.now();
    let name = group.parse::<GroupName>().ok();
    name.filter(|name| config.groups.contains_key(name) && who.may_see(config, group))
        .ok_or_else(|| {
            let group: String = group.chars().take(100).collect();
            Refused::new(
                StatusCode::NOT_FOUND,
                format!("there is no group `{group}`"),
            )
        })
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Json<Vec<Group>> {
    Json(seen(&api, &who).await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    #[serde(default)]
    before: Option<i64>,
    #[serde(default)]
    limit: Option<u64>,
}

/// A page of what is shown in a group, and the number up to which it knows every change.
pub(crate) async fn page(
    api: &Api,
    group: &GroupName,
    before: Option<i64>,
    limit: u64,
) -> Result<(Vec<Item>, i64), Refused> {
    // The number first: a change that comes in between is told once more by the events, not missed.
    let newest = api.web.newest().await?;
    let items = api.web.page(group.as_str(), before, limit).await?;
    Ok((items, newest))
}

pub(super) async fn items(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(group): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Refused> {
    const USUAL: u64 = 50;
    const MOST: u64 = 500;
    let group = theirs(&api, &who, &group)?;
    let limit = which.limit.unwrap_or(USUAL).min(MOST);
    let (items, newest) = page(&api, &group, which.before, limit).await?;
    Ok(Json(json!({ "items": items, "newest": newest })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Say {
    /// The client's own id of the message: the same one again is the same message.
    id: String,
    text: String,
}

fn speaker<'a>(api: &Api, who: &'a Who, group: &GroupName) -> Result<&'a UserName, Refused> {
    let name = who.named()?;
    if who.may_speak(&api.broker.config.now(), group.as_str()) {
        return Ok(name);
    }
    let text = format!("`{name}` is no member of group `{group}`");
    Err(Refused::new(StatusCode::FORBIDDEN, text))
}

pub(super) async fn say(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(group): Path<String>,
    Json(body): Json<Say>,
) -> Result<Json<Value>, Refused> {
    const LONGEST: usize = 64 * 1024;
    let group = theirs(&api, &who, &group)?;
    let by = speaker(&api, &who, &group)?;
    let wrong = |text: &str| Err(Refused::new(StatusCode::BAD_REQUEST, text));
    if body.id.is_empty() || body.id.len() > 64 || !body.id.bytes().all(|b| b.is_ascii_graphic()) {
        return wrong("the `id` of a message is 1 to 64 visible ASCII characters");
    }
    if body.text.trim().is_empty() {
        return wrong("the message is empty; write something in `text`");
    }
    if body.text.len() > LONGEST {
        return wrong("the message is longer than 64 KiB; send it in parts");
    }
    let said = Said {
        channel: Web::NAME.to_owned(),
        place: group.to_string(),
        // Ids are each person's own: nobody takes another's away.
        external_id: format!("{by}:{}", body.id),
        by: by.to_string(),
        text: body.text,
        at: jiff::Timestamp::now(),
    };
    match api.web.say(said).await {
        Ok(received) => {
            fault::point("say.stored").await;
            Ok(Json(json!({ "seq": received.seq })))
        }
        Err(error @ SayError::Taken(_)) => {
            Err(Refused::new(StatusCode::CONFLICT, error.to_string()))
        }
        Err(SayError::Db(error)) => Err(error.into()),
    }
}

pub(super) async fn stop(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(group): Path<String>,
) -> Result<Json<Value>, Refused> {
    let group = theirs(&api, &who, &group)?;
    let by = speaker(&api, &who, &group)?;
    let stopped = api.groups.stop(&group, by.as_str()).await;
    let stopped = stopped
        .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(json!({ "stopped": stopped })))
}
