//! The network's door: which hosts, which origins, whose credentials.

mod refusals;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures::StreamExt as _;

use crate::api::{self, Api};
use crate::broker::Broker;
use crate::console;
use crate::hosted;
use crate::identity::Principal;
use crate::mcp::{self, Mcp};
use crate::models;

pub(crate) use refusals::{Refusals, recorded};

/// What the door knows.
#[derive(Debug)]
pub struct Door {
    broker: Arc<Broker>,
    /// Allowed values of `Host`, in lower case.
    hosts: Vec<String>,
    /// Allowed values of `Origin`, in lower case.
    origins: Vec<String>,
    /// Who was turned away.
    pub(crate) refusals: Arc<Refusals>,
}

impl Door {
    /// A door for a listener at this address.
    pub fn new(broker: Arc<Broker>, listen: SocketAddr) -> Self {
        let port = listen.port();
        let mut hosts = vec![listen.to_string()];
        if listen.ip().is_loopback() || listen.ip().is_unspecified() {
            hosts.extend([
                format!("127.0.0.1:{port}"),
                format!("localhost:{port}"),
                format!("[::1]:{port}"),
            ]);
        }
        if port == 80 {
            let bare: Vec<String> = hosts
                .iter()
                .filter_map(|host| host.strip_suffix(":80").map(str::to_owned))
                .collect();
            hosts.extend(bare);
        }
        let mut origins: Vec<String> = hosts.iter().map(|host| format!("http://{host}")).collect();
        if let Some(url) = &broker.config.now().public_url {
            let url = url.trim_end_matches('/').to_ascii_lowercase();
            hosts.extend(url.split_once("://").map(|(_, host)| host.to_owned()));
            origins.push(url);
        }
        Self {
            broker,
            hosts,
            origins,
            refusals: Arc::default(),
        }
    }

    fn host_allowed(&self, headers: &HeaderMap, authority: Option<&str>) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let named = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().ok(),
            (None, _) => authority,
            (Some(_), Some(_)) => None,
        };
        // A request line with a full address must name the same host.
        let same = authority.is_none_or(|authority| {
            named.is_some_and(|named| named.eq_ignore_ascii_case(authority))
        });
        same && named.is_some_and(|named| self.hosts.contains(&named.to_ascii_lowercase()))
    }

    fn origin_allowed(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::ORIGIN).iter().all(|origin| {
            origin
                .to_str()
                .is_ok_and(|origin| self.origins.contains(&origin.to_ascii_lowercase()))
        })
    }
}

/// All routes of the network.
pub fn router(broker: &Arc<Broker>, mcp: Arc<Mcp>, people: Arc<Api>, door: Door) -> Router {
    let door = Arc::new(door);
    let endpoint = || get(mcp::get).post(mcp::post).delete(mcp::delete);
    let inside = Router::new()
        .route("/mcp", endpoint())
        .route("/mcp/{server}", endpoint())
        .with_state(mcp)
        .merge(hosted::router(broker, people.groups.clone()))
        .fallback(async || StatusCode::NOT_FOUND)
        .layer(DefaultBodyLimit::max(broker.config.now().max_body))
        .merge(models::router(broker.clone()))
        .layer(from_fn_with_state(door.clone(), credential));
    // People have no bearer token: whoever brings one here is an agent.
    let people_only = api::network(people.clone())
        .layer(DefaultBodyLimit::max(broker.config.now().max_body))
        .merge(console::router(people))
        .layer(from_fn_with_state(door.clone(), no_agent));
    Router::new()
        .merge(people_only)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready).with_state(broker.clone()))
        .route("/.well-known/{*rest}", get(async || StatusCode::NOT_FOUND))
        .fallback_service(inside)
        .layer(from_fn_with_state(door, known_host))
}

async fn ready(State(broker): State<Arc<Broker>>) -> Response {
    if broker.stopping.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match broker.audit.waiting() {
        0 => "ready\n".into_response(),
        waiting => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the log cannot be written: {waiting} records wait\n"),
        )
            .into_response(),
    }
}

/// Refuses every host that is not ours (DNS rebinding) and every foreign origin, on every route.
async fn known_host(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let authority = request
        .uri()
        .authority()
        .map(axum::http::uri::Authority::as_str);
    let source = Refusals::source(&request);
    let ours =
        door.host_allowed(request.headers(), authority) && door.origin_allowed(request.headers());
    if !ours {
        let response = StatusCode::FORBIDDEN.into_response();
        door.refusals.count(source, &response);
        return response;
    }
    let mut response = next.run(request).await;
    door.refusals.count(source, &response);
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // Pages say what they need.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    response
}

/// The one token that a request carries. Where SDKs of model providers call, it may stand where they
/// put a key, too; twice, it is the same.
fn token(headers: &HeaderMap, to_model: bool) -> Option<&str> {
    let one = |name: &str| {
        let mut all = headers.get_all(name).iter();
        match (all.next(), all.next()) {
            (Some(one), None) => Some(one.to_str().ok()),
            (None, _) => None,
            (Some(_), Some(_)) => Some(None),
        }
    };
    let bearer = one("authorization").map(|header| {
        let (scheme, token) = header?.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    });
    let key = if to_model { one("x-api-key") } else { None };
    match (bearer, key) {
        (Some(bearer), Some(key)) => bearer.filter(|bearer| key == Some(bearer)),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => None,
    }
}

/// Whose token a request carries.
#[expect(clippy::result_large_err, reason = "it is the answer, made once")]
fn bearer(door: &Door, headers: &HeaderMap, to_model: bool) -> Result<Principal, Response> {
    let token = token(headers, to_model);
    let Some(Ok(principal)) = token.map(|token| door.broker.identity.check(token)) else {
        let mut response = if to_model {
            models::unauthorized()
        } else {
            Response::new(Body::from("unauthorized\n"))
        };
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let challenge = if token.is_some() {
            r#"Bearer realm="portcullis", error="invalid_token""#
        } else {
            r#"Bearer realm="portcullis""#
        };
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        );
        return Err(response);
    };
    Ok(principal)
}

/// Lets in who has a good token, with who that is.
async fn credential(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let to_model = request.uri().path().starts_with(models::PREFIX);
    let principal = match bearer(&door, request.headers(), to_model) {
        Ok(principal) => principal,
        Err(unauthorized) => return unauthorized,
    };
    // Said before the body is read: a client that is told early need not send it.
    let length = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let most = if to_model {
        models::MAX_BODY
    } else {
        door.broker.config.now().max_body
    };
    if length.is_some_and(|length| length > most as u64) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let revoked = door.broker.identity.revocation(&principal);
    request.extensions_mut().insert(principal);
    let response = tokio::select! {
        response = next.run(request) => response,
        () = revoked.cancelled() => return StatusCode::UNAUTHORIZED.into_response(),
    };
    if !is_stream(response.headers()) {
        return response;
    }
    // A stream ends with its token.
    response.map(|body| {
        let events = body.into_data_stream();
        Body::from_stream(events.take_until(revoked.cancelled_owned()))
    })
}

/// Providers of models name a character set, too.
fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// People's routes, asked for with an agent's token: no, and it is in the log.
async fn no_agent(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    if !request.headers().contains_key(header::AUTHORIZATION) {
        return next.run(request).await;
    }
    match bearer(&door, request.headers(), false) {
        Ok(principal) => {
            api::refused(&door.broker, principal.label(), api::attempt(&request)).await;
            recorded(StatusCode::FORBIDDEN.into_response())
        }
        Err(unauthorized) => unauthorized,
    }
}
