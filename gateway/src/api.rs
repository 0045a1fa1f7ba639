//! `/api/v1` on the owner's socket: what the command line asks for.
//!
//! On the network these routes answer nobody yet: an agent's token is no person's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use channels::inbox::Said;
use channels::web::{Item, SayError, Web};
use groups::Groups;
use policy::approval::Scope;
use policy::ids::{GroupName, UserName};
use policy::record::Event;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::approvals::{DecideError, Shown};
use crate::audit::Write;
use crate::broker::Broker;
use crate::config::{Group, Role};
use crate::identity::IssueError;
use crate::peer::Peer;

/// What the routes work on.
#[derive(Debug)]
pub struct Api {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The groups with an agent.
    pub groups: Arc<Groups>,
    /// Where it listens, for `status`.
    pub url: String,
    /// Since when.
    pub since: Instant,
}

/// The routes of the owner's socket.
pub fn router(api: Arc<Api>) -> Router {
    let routes = Router::new()
        .route("/approvals", get(approvals))
        .route("/approvals/{id}", get(approval))
        .route("/approvals/{id}/approve", post(approve))
        .route("/approvals/{id}/deny", post(deny))
        .route("/tokens", get(tokens).post(issue))
        .route("/tokens/{id}", delete(revoke))
        .route("/servers", get(servers))
        .route("/tools", get(tools))
        .route("/status", get(status))
        .route("/audit/settle", post(settle))
        .route("/groups/{group}/items", get(items))
        .route("/groups/{group}/messages", post(say))
        .route("/groups/{group}/stop", post(stop))
        .fallback(async || Refused::new(StatusCode::NOT_FOUND, "there is no such route"))
        .layer(axum::middleware::from_fn_with_state(
            api.clone(),
            only_the_owner,
        ))
        .with_state(api);
    Router::new().nest("/api/v1", routes)
}

/// Lets nobody in whom we started: neither a server nor its children speak for the owner.
async fn only_the_owner(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    // Nor does what a secret's `command` started, which has no supervisor.
    let mut ours = api.broker.upstreams.supervisors();
    ours.push(std::process::id());
    if let Err(reason) = peer.may_speak(&ours) {
        let attempt = format!("{} {}", request.method(), request.uri().path());
        let principal = format!("process {} of user {}", peer.pid, peer.uid);
        refused(&api.broker, principal, attempt).await;
        return Refused::new(StatusCode::FORBIDDEN, reason).into_response();
    }
    next.run(request).await
}

/// Records an attempt that was refused outside any action. It is on the disk when this returns, so
/// before whoever tried is answered; where the log cannot be written, the refusal stands.
pub async fn refused(broker: &Broker, principal: String, attempt: String) {
    tracing::warn!(principal, "refused: {attempt}");
    let id = format!("ref_{}", uuid::Uuid::now_v7().simple());
    let write = Write::new(id, Event::Refused { principal, attempt });
    if let Err(error) = broker.audit.write(write).await {
        tracing::error!("{error}");
    }
}

/// Records what somebody did to the gateway itself.
async fn noted(broker: &Broker, by: String, what: String) -> Result<(), Refused> {
    let id = format!("note_{}", uuid::Uuid::now_v7().simple());
    let written = broker
        .audit
        .write(Write::new(id, Event::Noted { by, what }))
        .await;
    written.map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// An answer that says no, as `{"error": …}`.
#[derive(Debug)]
struct Refused(StatusCode, String);

impl Refused {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self(status, text.into())
    }
}

impl axum::response::IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<DecideError> for Refused {
    fn from(error: DecideError) -> Self {
        let status = match &error {
            DecideError::Unknown(_) => StatusCode::NOT_FOUND,
            DecideError::Settled { .. } | DecideError::Unmoved(_) => StatusCode::CONFLICT,
            DecideError::Db(_) | DecideError::Record(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<crate::db::DbError> for Refused {
    fn from(error: crate::db::DbError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

/// Who speaks over the owner's socket: `--user`, else the only owner there is.
fn user(broker: &Broker, headers: &HeaderMap) -> Result<(UserName, Role), Refused> {
    let users = &broker.config.users;
    if let Some(named) = headers.get("x-portcullis-user") {
        let named = named
            .to_str()
            .ok()
            .and_then(|name| name.parse::<UserName>().ok());
        let known = named.and_then(|name| users.get(&name).map(|user| (name, user.role)));
        return known.ok_or_else(|| {
            Refused::new(
                StatusCode::BAD_REQUEST,
                "`--user` is nobody of the configuration",
            )
        });
    }
    let mut owners = users.iter().filter(|(_, user)| user.role == Role::Owner);
    match (owners.next(), owners.next()) {
        (Some((name, user)), None) => Ok((name.clone(), user.role)),
        _ => Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "say who you are with `--user`: there is not exactly one owner",
        )),
    }
}

/// Whether a person may decide for a group: its approvers and the owners; where it names no
/// approvers, everybody who is one.
fn may_decide(group: Option<&Group>, name: &UserName, role: Role) -> bool {
    match (role, group) {
        (Role::Owner, _) => true,
        (Role::Approver, Some(group)) if group.approvers.is_empty() => true,
        (Role::Approver | Role::Member, Some(group)) => group.approvers.contains(name),
        (Role::Approver | Role::Member, None) => false,
    }
}

/// The person who decides, if that may be done here and by them.
async fn decider(api: &Api, headers: &HeaderMap, question: &str) -> Result<String, Refused> {
    let broker = &api.broker;
    let (name, role) = user(broker, headers)?;
    if !broker.config.approvals.cli {
        let text =
            "the configuration says `[approvals] cli = false`: decide in a channel or the console";
        return Err(Refused::new(StatusCode::FORBIDDEN, text));
    }
    let row = broker.approvals.show(question).await?;
    let row = row.ok_or_else(|| DecideError::Unknown(question.to_owned()))?;
    let group = row.group().parse::<GroupName>().ok();
    let group = group.and_then(|group| broker.config.groups.get(&group));
    if !may_decide(group, &name, role) {
        refused(broker, format!("user:{name}"), format!("decide {question}")).await;
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!("`{name}` is no approver of this group"),
        ));
    }
    Ok(name.to_string())
}

#[derive(Debug, Deserialize)]
struct Which {
    #[serde(default)]
    all: bool,
}

async fn approvals(
    State(api): State<Arc<Api>>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Shown>>, Refused> {
    api.broker.approvals.tick(jiff::Timestamp::now()).await;
    Ok(Json(api.broker.approvals.list(which.all).await?))
}

async fn approval(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Refused> {
    let shown = api.broker.approvals.show(&id).await?;
    Ok(Json(shown.ok_or_else(|| DecideError::Unknown(id))?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Approve {
    #[serde(rename = "for")]
    scope: Scope,
    #[serde(default)]
    run_anyway: bool,
}

async fn approve(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Approve>,
) -> Result<Json<Shown>, Refused> {
    let by = decider(&api, &headers, &id).await?;
    api.broker
        .approve(&id, by, body.scope, body.run_anyway)
        .await?;
    approval(State(api), Path(id)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deny {
    #[serde(default)]
    reason: Option<String>,
}

async fn deny(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Deny>,
) -> Result<Json<Shown>, Refused> {
    let by = decider(&api, &headers, &id).await?;
    api.broker.deny(&id, by, body.reason).await?;
    approval(State(api), Path(id)).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Issue {
    group: GroupName,
    #[serde(default)]
    name: Option<String>,
    ttl_seconds: u64,
}

async fn issue(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Json(body): Json<Issue>,
) -> Result<Json<Value>, Refused> {
    let (by, role) = user(&api.broker, &headers)?;
    if role != Role::Owner {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "only an owner issues tokens",
        ));
    }
    if !api.broker.config.groups.contains_key(&body.group) {
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
    noted(
        &api.broker,
        format!("user:{by}"),
        format!("token {} issued for group `{}`", issued.id, issued.group),
    )
    .await?;
    let mut shown = json!(issued);
    if let Some(members) = shown.as_object_mut() {
        members.insert("token".to_owned(), Value::String(token));
    }
    Ok(Json(shown))
}

async fn tokens(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(json!(api.broker.identity.list()))
}

async fn revoke(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let (by, role) = user(&api.broker, &headers)?;
    if role != Role::Owner {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "only an owner revokes tokens",
        ));
    }
    match api.broker.identity.revoke(&id).await? {
        Some(true) => {
            noted(
                &api.broker,
                format!("user:{by}"),
                format!("token {id} revoked"),
            )
            .await?;
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

async fn servers(State(api): State<Arc<Api>>) -> Json<Value> {
    let servers = api.broker.upstreams.status().into_iter().map(|status| {
        let listing = api.broker.catalog.known(&status.name);
        let tools: Vec<String> = listing
            .iter()
            .flat_map(|listing| listing.tools.iter().map(|tool| tool.item.name.clone()))
            .collect();
        let mut shown = json!(status);
        if let Some(members) = shown.as_object_mut() {
            members.insert("tools".to_owned(), json!(tools));
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
        }
        shown
    });
    Json(servers.collect())
}

async fn tools(State(api): State<Arc<Api>>) -> Json<Value> {
    let mut all = Vec::new();
    for status in api.broker.upstreams.status() {
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

fn group_of(api: &Api, group: &str) -> Result<GroupName, Refused> {
    let name = group.parse::<GroupName>().ok();
    let known = name.filter(|name| api.broker.config.groups.contains_key(name));
    known.ok_or_else(|| {
        Refused::new(
            StatusCode::NOT_FOUND,
            format!("there is no group `{group}`"),
        )
    })
}

#[derive(Debug, Deserialize)]
struct Page {
    before: Option<i64>,
    limit: Option<u64>,
}

async fn items(
    State(api): State<Arc<Api>>,
    Path(group): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Refused> {
    const MOST: u64 = 200;
    let group = group_of(&api, &group)?;
    let web = &api.broker.hosted.web;
    let failed = |error: channels::db::DbError| {
        Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    let newest = web.newest().await.map_err(failed)?;
    let limit = page.limit.unwrap_or(MOST).min(MOST);
    let items: Vec<Item> = web
        .page(group.as_str(), page.before, limit)
        .await
        .map_err(failed)?;
    Ok(Json(json!({ "items": items, "newest": newest })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Say {
    id: String,
    text: String,
}

async fn say(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Path(group): Path<String>,
    Json(body): Json<Say>,
) -> Result<Json<Value>, Refused> {
    let (by, _) = user(&api.broker, &headers)?;
    let group = group_of(&api, &group)?;
    let said = Said {
        channel: Web::NAME.to_owned(),
        place: group.to_string(),
        external_id: body.id,
        by: by.to_string(),
        text: body.text,
        at: jiff::Timestamp::now(),
    };
    let received = api.broker.hosted.web.say(said).await;
    let received = received.map_err(|error| match error {
        SayError::Taken(_) => Refused(StatusCode::CONFLICT, error.to_string()),
        SayError::Db(_) => Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    })?;
    Ok(Json(json!({ "seq": received.seq })))
}

async fn stop(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Path(group): Path<String>,
) -> Result<Json<Value>, Refused> {
    let (by, _) = user(&api.broker, &headers)?;
    let group = group_of(&api, &group)?;
    let stopped = api.groups.stop(&group, by.as_str()).await;
    let stopped =
        stopped.map_err(|error| Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(Json(json!({ "stopped": stopped })))
}

/// Returns when the log holds all that was done before.
async fn settle(State(api): State<Arc<Api>>) -> Json<Value> {
    api.broker.audit.settle().await;
    Json(json!({ "settled": true }))
}

async fn status(State(api): State<Arc<Api>>) -> Json<Value> {
    let broker = &api.broker;
    let states: Vec<Value> = broker
        .upstreams
        .status()
        .iter()
        .map(|one| json!({ "name": one.name, "state": one.state }))
        .collect();
    // Figures are no reason to hide how the instance does.
    let usage = match broker.models.totals(jiff::Timestamp::UNIX_EPOCH).await {
        Ok(totals) => totals.iter().map(usage_of).collect(),
        Err(error) => {
            tracing::error!("what models took cannot be read: {error}");
            Vec::new()
        }
    };
    let groups: Vec<&str> = broker.config.groups.keys().map(GroupName::as_str).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "url": api.url,
        "uptime_seconds": api.since.elapsed().as_secs(),
        "configuration": broker.config.revision,
        "groups": groups,
        "agents": crate::hosted::NO_SANDBOX,
        "servers": states,
        "open_approvals": broker.approvals.open_count(),
        "records_waiting": broker.audit.waiting(),
        "models": usage,
    }))
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
