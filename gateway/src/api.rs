//! `/api/v1`: what people ask of the gateway, from the command line and from the console.
//!
//! The same routes twice: on the owner's socket, and on the network for a session of the console.
//! Who asks is a [`Who`]; what they may see and do is decided here, route by route. An agent's token
//! is no person's, and answers nothing.

pub(crate) mod approvals;
pub(crate) mod audit;
pub mod card;
mod conversations;
pub mod events;
pub(crate) mod groups;
mod login;
mod openapi;
pub(crate) mod pins;
pub(crate) mod rules;
pub(crate) mod servers;
mod tokens;
mod who;

use std::sync::Arc;
use std::time::Instant;

use ::groups::Groups;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Json, Router};
use channels::web::Web;
use policy::record::{About, Event};
use serde_json::json;
use tokio::sync::broadcast;

use crate::approvals::DecideError;
use crate::audit::Write;
use crate::audit::index::Index;
use crate::broker::Broker;
use crate::console::sessions::{Found, LinkError, Sessions};
use crate::db::{Db, DbError};
use crate::door::recorded;
use crate::peer::Peer;

pub use login::console_link;
pub use who::{Entrance, Who};

/// What the routes work on.
#[derive(Debug)]
pub struct Api {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The database, to read the log from.
    pub db: Db,
    /// Where in it what is found.
    pub index: Index,
    /// What people say and see.
    pub web: Arc<Web>,
    /// Who is at a browser.
    pub sessions: Sessions,
    /// The groups with an agent.
    pub groups: Arc<Groups>,
    /// Which questions change.
    pub changes: Arc<events::Changes>,
    /// The names of servers whose state has changed.
    pub servers: broadcast::Sender<String>,
    /// Where people reach it.
    pub url: String,
    /// Since when.
    pub since: Instant,
}

/// Every route below `/api/v1`, as `openapi.json` tells them.
fn routes() -> [(&'static str, MethodRouter<Arc<Api>>); 32] {
    [
        ("/approvals", get(approvals::list)),
        ("/approvals/{id}", get(approvals::one)),
        ("/approvals/{id}/approve", post(approvals::approve)),
        ("/approvals/{id}/deny", post(approvals::deny)),
        ("/approvals/{id}/edit", post(approvals::edit)),
        ("/approvals/{id}/rules", get(approvals::rules)),
        ("/attention", get(rules::attention)),
        ("/audit", get(audit::list)),
        ("/audit/settle", post(audit::settle)),
        ("/audit/{id}", get(audit::one)),
        ("/conversations", get(conversations::list)),
        (
            "/conversations/{id}/declassify",
            post(conversations::declassify),
        ),
        ("/events", get(events::stream)),
        ("/groups", get(groups::list)),
        ("/groups/{group}/items", get(groups::items)),
        ("/groups/{group}/messages", post(groups::say)),
        ("/groups/{group}/stop", post(groups::stop)),
        ("/links", post(login::link)),
        ("/me", get(login::me)),
        ("/openapi.json", get(openapi::document)),
        ("/pins", get(pins::list)),
        ("/pins/{server}/accept", post(pins::accept)),
        ("/pins/{server}/keep", post(pins::keep)),
        ("/rules", get(rules::list).post(rules::take)),
        ("/rules/{id}", delete(rules::revoke)),
        ("/servers", get(servers::list)),
        ("/session", delete(login::leave)),
        ("/status", get(servers::status)),
        ("/tokens", get(tokens::list).post(tokens::issue)),
        ("/tokens/{id}", delete(tokens::revoke)),
        ("/tools", get(servers::tools)),
        ("/", get(async || Refused::nothing_there())),
    ]
}

fn router(api: Arc<Api>) -> Router {
    let router = routes()
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| {
            router.route(path, methods)
        });
    router
        .fallback(async || Refused::nothing_there())
        .with_state(api)
}

/// The routes on the owner's socket.
pub fn socket(api: Arc<Api>) -> Router {
    let routes = router(api.clone()).layer(from_fn_with_state(api, only_the_owner));
    Router::new().nest("/api/v1", routes)
}

/// The routes on the network.
pub fn network(api: Arc<Api>) -> Router {
    let routes = router(api.clone())
        .layer(from_fn_with_state(api, only_a_person))
        .layer(map_response(not_kept));
    Router::new().nest("/api/v1", routes)
}

/// No browser and no proxy keeps what was answered.
async fn not_kept(mut response: Response) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

/// Lets nobody in whom we started: neither a server nor its children speak for the owner.
async fn only_the_owner(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    // Nor does what a secret's `command` started, which has no supervisor.
    let mut ours = api.broker.upstreams.supervisors();
    ours.push(std::process::id());
    if let Err(reason) = peer.may_speak(&ours) {
        let principal = format!("process {} of user {}", peer.pid, peer.uid);
        refused(&api.broker, principal, attempt(&request)).await;
        return Refused::new(StatusCode::FORBIDDEN, reason).into_response();
    }
    let who = match Who::at_socket(&api.broker.config.now(), request.headers()) {
        Ok(who) => who,
        Err(refused) => return refused.into_response(),
    };
    let (by, attempt) = (who.label(), attempt(&request));
    request.extensions_mut().insert(who);
    tell(&api, by, attempt, next.run(request).await).await
}

/// Lets in one of our own pages, with the person at it.
pub(crate) async fn only_a_person(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let who = match person(&api, request.headers()).await {
        Ok(who) => who,
        Err(refused) => return refused.into_response(),
    };
    let (by, attempt) = (who.label(), attempt(&request));
    request.extensions_mut().insert(who);
    tell(&api, by, attempt, next.run(request).await).await
}

/// Records that a person was told no, if they were.
async fn tell(api: &Api, by: String, attempt: String, response: Response) -> Response {
    if response.status() != StatusCode::FORBIDDEN {
        return response;
    }
    refused(&api.broker, by, attempt).await;
    recorded(response)
}

/// The person at the page that makes a request with these headers.
pub(crate) async fn person(api: &Api, headers: &HeaderMap) -> Result<Who, Refused> {
    // Where a browser says who makes it ask, it has to be a page of ours. Not in the log: any page
    // that somebody looks at could fill it.
    let sites = headers.get_all("sec-fetch-site");
    if sites.iter().any(|site| site != "same-origin") {
        let text = "another site may not ask for this";
        return Err(Refused::new(StatusCode::FORBIDDEN, text));
    }
    let text = match api.sessions.of(headers, jiff::Timestamp::now()).await? {
        Found::Person(session) => return Ok(Who::at_console(session)),
        Found::CookieAlone => {
            "the cookie does nothing without the page's token; open the console and log in"
        }
        Found::Nobody => "nobody is logged in here; `portcullis login` prints a link",
    };
    Err(Refused::new(StatusCode::UNAUTHORIZED, text))
}

/// What a request tried, for the log.
pub(crate) fn attempt(request: &Request) -> String {
    let text = format!("{} {}", request.method(), request.uri().path());
    text.chars().take(200).collect()
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
pub(crate) async fn noted(
    broker: &Broker,
    by: String,
    about: About,
    what: String,
) -> Result<(), Refused> {
    let write = Write::noted(by, Some(about), what);
    let written = broker.audit.write(write).await;
    written.map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// An answer that says no, as `{"error": …}`.
#[derive(Debug)]
pub struct Refused(StatusCode, String);

impl Refused {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self(status, text.into())
    }

    pub(crate) fn nothing_there() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is no such route")
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.0
    }

    /// What it says.
    pub fn text(&self) -> &str {
        &self.1
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(json!({ "error": self.1 }))).into_response();
        if self.0 == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static(r#"Bearer realm="portcullis""#);
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<DecideError> for Refused {
    fn from(error: DecideError) -> Self {
        let status = match &error {
            DecideError::Unknown(_) | DecideError::NoRule(_) => StatusCode::NOT_FOUND,
            DecideError::OnceOnly(..) | DecideError::Edit(_) => StatusCode::BAD_REQUEST,
            DecideError::Settled { .. }
            | DecideError::Twice(_)
            | DecideError::NotProposed(_)
            | DecideError::NoProposal(..)
            | DecideError::Ruled(_)
            | DecideError::Full(_)
            | DecideError::Ask(_)
            | DecideError::Unmoved(_) => StatusCode::CONFLICT,
            DecideError::Db(_) | DecideError::Record(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl From<DbError> for Refused {
    fn from(error: DbError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<channels::db::DbError> for Refused {
    fn from(error: channels::db::DbError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<LinkError> for Refused {
    fn from(error: LinkError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}
