//! Tokens for agents outside: the owner's business.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use policy::ids::GroupName;
use policy::record::About;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Refused, Who, noted};
use crate::config::Role;
use crate::identity::IssueError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issue {
    group: GroupName,
    #[serde(default)]
    name: Option<String>,
    ttl_seconds: u64,
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Json<Value>, Refused> {
    if who.role() != Role::Owner {
        let text = "only an owner lists tokens";
        return Err(Refused::new(StatusCode::FORBIDDEN, text));
    }
    Ok(Json(json!(api.broker.identity.list())))
}

pub(super) async fn issue(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Json(body): Json<Issue>,
) -> Result<Json<Value>, Refused> {
    let by = who.owner("issues tokens")?;
    if !api.broker.config.now().groups.contains_key(&body.group) {
        return Err(Refused::new(
            StatusCode::NOT_FOUND,
            format!("there is no group `{}`", body.group),
        ));
    }
    let ttl = Duration::from_secs(body.ttl_seconds);
    let issued = api
        .broker
        .identity
        .issue(body.group, body.name.unwrap_or_default(), ttl)
        .await;
    let (issued, token) = issued.map_err(|error| match error {
        IssueError::Lifetime => Refused::new(StatusCode::BAD_REQUEST, error.to_string()),
        IssueError::Unsigned(_) | IssueError::Db(_) | IssueError::Over => {
            Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    })?;
    let what = format!("token {} issued for group `{}`", issued.id, issued.group);
    noted(&api.broker, format!("user:{by}"), About::Token, what).await?;
    let mut shown = json!(issued);
    if let Some(members) = shown.as_object_mut() {
        members.insert("token".to_owned(), Value::String(token));
    }
    Ok(Json(shown))
}

pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let by = who.owner("revokes tokens")?;
    match api.broker.identity.revoke(&id).await? {
        Some(true) => {
            let what = format!("token {id} revoked");
            noted(&api.broker, format!("user:{by}"), About::Token, what).await?;
            Ok(Json(json!({ "id": id, "revoked": true })))
        }
        Some(false) => Err(Refused::new(
            StatusCode::CONFLICT,
            format!("`{id}` was revoked before"),
        )),
        None => Err(Refused::new(
            StatusCode::NOT_FOUND,
            format!("there is no token `{id}`"),
        )),
    }
}
