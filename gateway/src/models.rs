//! The models' door, `/llm/anthropic`: an agent's token in, the provider's key out.
//!
//! A request is passed on as it came and answered as it is answered, piece by piece; the key is in
//! no log, no error and no answer of ours. Every call takes the broker's way, in
//! [`crate::broker`]: it is decided and recorded before it is sent, and closed with what it took.

mod answer;
mod meter;
mod provider;
mod relay;
mod request;
mod script;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::{Extension, Router};
use bytes::Bytes;
use policy::action::Digest;
use policy::decision::Permit;
use policy::ids::{ConversationId, ModelName};

use crate::broker::Broker;
use crate::config::{Config, ModelRef};
use crate::db::Db;
use crate::db::usage::Usage;
use crate::identity::Principal;
use crate::secrets::Kept;

pub use answer::unauthorized;
pub use provider::{Answered, Broken, SendError};
pub use relay::Ledger;
pub(crate) use relay::whole;
pub use request::{Asked, Route, Unreadable};

use provider::Provider;

/// Where the routes are.
pub const PREFIX: &str = "/llm/";
/// The longest body of a request to a model, in bytes: what the API of Anthropic takes.
pub const MAX_BODY: usize = 32 * 1024 * 1024;
/// The most calls of one conversation at a time.
const AT_ONCE: usize = 16;
/// The longest query, in bytes.
const MAX_QUERY: usize = 1024;

/// A request to a model, as it is passed on.
#[derive(Debug)]
pub struct Incoming {
    /// Where to.
    pub route: Route,
    /// What follows the path, as it came.
    pub query: Option<String>,
    /// The caller's headers; few of them are passed on.
    pub headers: HeaderMap,
    /// The body, as it came.
    pub body: Bytes,
    /// What was read of it.
    pub asked: Asked,
}

/// All providers, and what their calls took.
#[derive(Debug)]
pub struct Models {
    providers: BTreeMap<ModelName, Provider>,
    groups: BTreeMap<policy::ids::GroupName, ModelRef>,
    db: Db,
    busy: Mutex<HashMap<ConversationId, usize>>,
}

impl Models {
    /// Of a configuration.
    ///
    /// # Errors
    /// A sentence, if this machine cannot speak HTTPS.
    pub fn new(config: &Config, db: Db, kept: &Arc<Kept>) -> Result<Self, String> {
        let mut providers = BTreeMap::new();
        for (name, model) in &config.models {
            providers.insert(name.clone(), Provider::new(name, model, kept)?);
        }
        let named = |(name, group): (&policy::ids::GroupName, &crate::config::Group)| {
            Some((name.clone(), group.model.clone()?))
        };
        Ok(Self {
            providers,
            groups: config.groups.iter().filter_map(named).collect(),
            db,
            busy: Mutex::default(),
        })
    }

    /// The model of a group, and what its provider is.
    pub fn of(&self, group: &policy::ids::GroupName) -> Option<(&ModelRef, Digest)> {
        let named = self.groups.get(group)?;
        let provider = self.providers.get(&named.provider)?;
        Some((named, provider.identity()))
    }

    /// What a provider is.
    pub fn identity(&self, provider: &ModelName) -> Option<Digest> {
        self.providers.get(provider).map(Provider::identity)
    }

    /// Sends a permitted call to its provider. Only the broker does.
    ///
    /// # Errors
    /// [`SendError`], if there is no answer.
    pub(crate) async fn send(
        &self,
        permit: &Permit,
        incoming: &Incoming,
    ) -> Result<Answered, SendError> {
        let server = permit.action().server.strip_prefix("model:");
        let name = server.and_then(|name| name.parse::<ModelName>().ok());
        let provider = name.and_then(|name| self.providers.get(&name));
        match provider {
            Some(provider) => provider.send(incoming).await,
            None => Err(SendError::Unreachable),
        }
    }

    /// Hides the keys of the providers in a text.
    pub fn mask(&self, text: &str) -> String {
        let hide = |text: String, provider: &Provider| provider.mask(text);
        self.providers.values().fold(text.to_owned(), hide)
    }

    /// Stores what a call took. That it cannot be stored stops nothing: the log has it.
    pub(crate) async fn count(&self, usage: Usage) {
        if let Err(error) = self.db.usage_add(usage).await {
            tracing::error!("what a model call took cannot be stored: {error}");
        }
    }

    /// What the calls of every group took since a moment.
    ///
    /// # Errors
    /// [`crate::db::DbError`], if it cannot be read.
    pub async fn totals(
        &self,
        since: jiff::Timestamp,
    ) -> Result<Vec<crate::db::usage::Total>, crate::db::DbError> {
        self.db.usage_totals(since).await
    }

    fn slot(self: &Arc<Self>, conversation: ConversationId) -> Option<Slot> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = busy.entry(conversation.clone()).or_default();
        if *calls >= AT_ONCE {
            return None;
        }
        *calls += 1;
        drop(busy);
        Some(Slot {
            models: self.clone(),
            conversation,
        })
    }
}

/// One of the calls that a conversation may have at a time.
#[derive(Debug)]
struct Slot {
    models: Arc<Models>,
    conversation: ConversationId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let busy = &self.models.busy;
        let mut busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(calls) = busy.get_mut(&self.conversation) {
            *calls -= 1;
            if *calls == 0 {
                busy.remove(&self.conversation);
            }
        }
    }
}

/// The routes below [`PREFIX`]; the door has said whose they are.
pub fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/llm/anthropic/{*rest}", axum::routing::any(handle))
        .with_state(broker)
}

async fn handle(
    State(broker): State<Arc<Broker>>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Response {
    // Before the body is read, which may be large.
    let Some(slot) = broker.models.slot(principal.conversation()) else {
        let text = format!("this conversation has {AT_ONCE} calls of models under way; try again");
        return answer::busy(&text);
    };
    let incoming = match read(request).await {
        Ok(incoming) => incoming,
        Err(refused) => return refused,
    };
    match broker.pass_to_model(&principal, &incoming).await {
        Ok((answered, ledger)) => relay::response(answered, ledger, slot, &broker),
        Err(refused) => answer::refused(&refused),
    }
}

/// Takes a request apart, or says what is wrong with it.
async fn read(request: Request) -> Result<Incoming, Response> {
    let (parts, body) = request.into_parts();
    let route = match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/llm/anthropic/v1/messages") => Route::Messages,
        (&Method::POST, "/llm/anthropic/v1/messages/count_tokens") => Route::CountTokens,
        (&Method::GET, "/llm/anthropic/v1/models") => Route::Models,
        _ => {
            let text = "the gateway passes on POST /v1/messages, POST /v1/messages/count_tokens and GET /v1/models";
            return Err(answer::error(
                StatusCode::NOT_FOUND,
                "not_found_error",
                text,
            ));
        }
    };
    let query = parts.uri.query().map(str::to_owned);
    let invalid =
        |text: &str| answer::error(StatusCode::BAD_REQUEST, "invalid_request_error", text);
    if query.as_ref().is_some_and(|query| query.len() > MAX_QUERY) {
        return Err(invalid("the query is too long"));
    }
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return Err(answer::too_large());
    };
    if route == Route::Models {
        return Ok(Incoming {
            route,
            query,
            headers: parts.headers,
            body: Bytes::new(),
            asked: Asked::nothing(),
        });
    }
    // Megabytes are read beside, not in the way of other calls.
    let reading = body.clone();
    let asked = tokio::task::spawn_blocking(move || Asked::read(&reading)).await;
    match asked {
        Ok(Ok(asked)) => Ok(Incoming {
            route,
            query,
            headers: parts.headers,
            body,
            asked,
        }),
        Ok(Err(error)) => Err(invalid(&error.to_string())),
        Err(_) => Err(invalid("the body cannot be read")),
    }
}
