//! Conversations: the labels they carry, and a person's word that takes these off.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use policy::ids::{ConversationId, GroupName};
use policy::label::{Label, Provenance};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Api, Refused, Who, refused};
use crate::broker::Declassify;

/// A label and where it came from.
#[derive(Debug, Serialize)]
struct Carried {
    label: Label,
    #[serde(flatten)]
    from: Provenance,
}

/// A conversation as people see it.
#[derive(Debug, Serialize)]
pub(super) struct Conversation {
    id: ConversationId,
    group: GroupName,
    labels: Vec<Carried>,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Json<Vec<Conversation>> {
    let config = &api.broker.config.now();
    let all = api.broker.conversations.list();
    let seen = all.into_iter().filter_map(|(id, labels)| {
        let group = api.broker.group_of(&id)?;
        who.may_see(config, group.as_str()).then(|| Conversation {
            labels: [
                (Label::Untrusted, labels.untrusted),
                (Label::Secret, labels.secret),
            ]
            .into_iter()
            .filter_map(|(label, from)| Some(Carried { label, from: from? }))
            .collect(),
            id,
            group,
        })
    });
    Json(seen.collect())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    reason: String,
}

pub(super) async fn declassify(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Json(body): Json<Body>,
) -> Result<Json<Value>, Refused> {
    const LONGEST: usize = 4000;
    let broker = &api.broker;
    let name = who.named()?;
    if let Some(why) = who.barred(&broker.config.now()) {
        return Err(Refused::new(StatusCode::FORBIDDEN, why));
    }
    let reason = body.reason.trim();
    if reason.is_empty() || reason.chars().count() > LONGEST {
        let text = format!("say why, in 1 to {LONGEST} characters");
        return Err(Refused::new(StatusCode::BAD_REQUEST, text));
    }
    let conversation = ConversationId::new(id);
    let group = broker
        .group_of(&conversation)
        .filter(|group| who.may_see(&broker.config.now(), group.as_str()))
        .ok_or_else(|| {
            let text = "there is no such conversation; `portcullis status` lists those with labels";
            Refused::new(StatusCode::NOT_FOUND, text)
        })?;
    if !who.may_decide(&broker.config.now(), group.as_str()) {
        let attempt = format!("declassify {conversation}");
        refused(broker, format!("user:{name}"), attempt).await;
        let text = format!("`{name}` is no approver of this group");
        return Err(Refused::new(StatusCode::FORBIDDEN, text));
    }
    let request = Declassify {
        conversation: conversation.clone(),
        group,
        by: name.to_string(),
        reason: reason.to_owned(),
    };
    // It goes on when who asked has gone: the record and what is in memory change together.
    let doing = broker.clone();
    let done = broker
        .tasks
        .spawn(async move { doing.declassify(request).await })
        .await;
    let failed = |text: String| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text);
    let done = done
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    if done.removed.is_empty() && done.labels.names().is_empty() {
        let text = format!("`{conversation}` carries no labels");
        return Err(Refused::new(StatusCode::CONFLICT, text));
    }
    if done.removed.is_empty() {
        let text = format!(
            "calls are under way that bring {} again; try when they have ended",
            done.labels.names().join(" and ")
        );
        return Err(Refused::new(StatusCode::CONFLICT, text));
    }
    Ok(Json(json!({
        "conversation": conversation,
        "removed": done.removed,
        "labels": done.labels.names(),
    })))
}
