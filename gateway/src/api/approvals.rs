//! Questions: listed, shown, answered.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use policy::approval::Scope;
use serde::Deserialize;
use serde_json::Value;

use super::card::{Card, cards};
use super::{Api, Refused, Who, refused};
use crate::approvals::{DecideError, Shown};
use crate::broker::{Offer, Taken};
use crate::fault;

#[derive(Debug, Deserialize)]
pub(super) struct Which {
    #[serde(default)]
    all: bool,
}

/// The open questions that a person sees, newest first: all of them, however many were settled since.
pub(crate) async fn open(api: &Api, who: &Who) -> Result<Vec<Shown>, Refused> {
    api.broker.approvals.tick(jiff::Timestamp::now()).await;
    let mut list = api.broker.approvals.list_open().await?;
    list.retain(|shown| who.may_see(&api.broker.config.now(), shown.group()));
    Ok(list)
}

/// The newest settled questions that a person sees.
pub(crate) async fn settled(api: &Api, who: &Who, limit: usize) -> Result<Vec<Shown>, Refused> {
    let keep = |shown: &Shown| who.may_see(&api.broker.config.now(), shown.group());
    Ok(api.broker.approvals.list_settled(limit, keep).await?)
}

/// One question, if it is this person's to see. One that is not theirs is none.
pub(crate) async fn find(api: &Api, who: &Who, id: &str) -> Result<Shown, Refused> {
    let shown = api.broker.approvals.show(id).await?;
    let shown = shown.filter(|shown| who.may_see(&api.broker.config.now(), shown.group()));
    shown.ok_or_else(|| DecideError::Unknown(id.to_owned()).into())
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Card>>, Refused> {
    const MOST: usize = 1000;
    let mut seen = open(&api, &who).await?;
    if which.all {
        seen.extend(settled(&api, &who, MOST).await?);
        seen.sort_by_key(|shown| std::cmp::Reverse(shown.asked_at));
    }
    Ok(Json(cards(&api, seen).await?))
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Json<Card>, Refused> {
    card(&api, &who, &id).await.map(Json)
}

/// One question with all that a person should know of it.
pub(crate) async fn card(api: &Api, who: &Who, id: &str) -> Result<Card, Refused> {
    let shown = find(api, who, id).await?;
    let card = cards(api, vec![shown]).await?.pop();
    card.ok_or_else(|| DecideError::Unknown(id.to_owned()).into())
}

/// The person who decides, if that may be done here and by them.
pub(super) async fn decider(api: &Api, who: &Who, question: &str) -> Result<String, Refused> {
    let name = who.named()?;
    if let Some(why) = who.barred(&api.broker.config.now()) {
        return Err(Refused::new(StatusCode::FORBIDDEN, why));
    }
    let group = find(api, who, question).await?.group().to_owned();
    if !who.may_decide(&api.broker.config.now(), &group) {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!("`{name}` is no approver of this group"),
        ));
    }
    Ok(name.to_string())
}

/// Records an answer that came too late, or second: whoever gave it may believe that it counts.
async fn took(
    api: &Api,
    by: &str,
    verb: &str,
    id: &str,
    answered: Result<(), DecideError>,
) -> Result<(), DecideError> {
    if let Err(late @ DecideError::Settled { .. }) = &answered {
        let attempt = format!("{verb} {id}: {late}");
        refused(&api.broker, format!("user:{by}"), attempt).await;
    }
    answered
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approve {
    #[serde(rename = "for")]
    scope: Scope,
    #[serde(default)]
    run_anyway: bool,
    /// Of *always*: which of the proposed rules, and its condition as it was shown.
    #[serde(default)]
    rule: Option<String>,
    #[serde(default)]
    when: Option<String>,
    /// For how long the rule counts.
    #[serde(default)]
    ttl_seconds: Option<u64>,
}

pub(super) async fn approve(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Json(body): Json<Approve>,
) -> Result<Json<Card>, Refused> {
    let by = decider(&api, &who, &id).await?;
    let answered = match body.scope {
        Scope::Once | Scope::Run => {
            let (by, anyway) = (by.clone(), body.run_anyway);
            api.broker.approve(&id, by, body.scope, anyway).await
        }
        Scope::Always => {
            let taken = taken(body.rule, body.when, body.ttl_seconds)?;
            let (by, anyway) = (by.clone(), body.run_anyway);
            api.broker.approve_always(&id, by, &taken, anyway).await
        }
    };
    took(&api, &by, "approve", &id, answered).await?;
    fault::point("api.approved").await;
    card(&api, &who, &id).await.map(Json)
}

/// Which rule is taken, and for how long.
pub(super) fn taken(
    rule: Option<String>,
    when: Option<String>,
    ttl_seconds: Option<u64>,
) -> Result<Taken, Refused> {
    let width = rule.ok_or_else(|| {
        let text = "`rule` is missing: which of the proposed rules, by its `width`";
        Refused::new(StatusCode::BAD_REQUEST, text)
    })?;
    let lasts = lasts(ttl_seconds)?;
    Ok(Taken { width, when, lasts })
}

/// How long a rule counts: thirty days, where nothing else is said.
fn lasts(ttl_seconds: Option<u64>) -> Result<Duration, Refused> {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = ttl_seconds.unwrap_or(30 * DAY);
    if (60..=366 * DAY).contains(&seconds) {
        return Ok(Duration::from_secs(seconds));
    }
    let text = "a rule of this kind counts for a minute to a year";
    Err(Refused::new(StatusCode::BAD_REQUEST, text))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lasts {
    #[serde(default)]
    ttl_seconds: Option<u64>,
}

/// The rules that would let the call through.
pub(super) async fn rules(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Query(query): Query<Lasts>,
) -> Result<Json<Vec<Offer>>, Refused> {
    find(&api, &who, &id).await?;
    let lasts = lasts(query.ttl_seconds)?;
    Ok(Json(api.broker.offers(&id, lasts).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    args: Value,
}

/// Allows the call with other arguments; answers with the new question.
pub(super) async fn edit(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Json(body): Json<Edit>,
) -> Result<Json<Card>, Refused> {
    let by = decider(&api, &who, &id).await?;
    let new = api.broker.edit(&id, by, body.args).await?;
    card(&api, &who, new.as_str()).await.map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deny {
    #[serde(default)]
    reason: Option<String>,
}

pub(super) async fn deny(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Json(body): Json<Deny>,
) -> Result<Json<Card>, Refused> {
    const LONGEST: usize = 4000;
    let reason = body.reason.filter(|reason| !reason.trim().is_empty());
    if reason
        .as_ref()
        .is_some_and(|reason| reason.chars().count() > LONGEST)
    {
        let text = format!("the reason is longer than {LONGEST} characters; say it shorter");
        return Err(Refused::new(StatusCode::BAD_REQUEST, text));
    }
    let by = decider(&api, &who, &id).await?;
    let answered = api.broker.deny(&id, by.clone(), reason).await;
    took(&api, &by, "deny", &id, answered).await?;
    fault::point("api.denied").await;
    card(&api, &who, &id).await.map(Json)
}
