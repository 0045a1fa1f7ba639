//! The console's routes, and who is let in to which part of a page.

use std::sync::Arc;

use askama::Template;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use policy::record::About;
use serde::Deserialize;
use serde_json::json;

use super::assets::{self, ADDRESSES, Addresses};
use super::sessions::{Found, NoEntry, TOKEN_HEADER};
use super::view::page;
use super::{chat, inbox, live, log, rules, state};
use crate::api::{self, Api, Refused};

/// No script, style or frame but our own; nothing inline, nothing from elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All routes of the console.
pub fn router(api: Arc<Api>) -> Router {
    let pages = Router::new()
        .route("/", get(chat::first))
        .route("/g/{group}", get(chat::of_group))
        .route("/inbox", get(inbox::inbox))
        .route("/inbox/{id}", get(inbox::question))
        .route("/audit", get(log::list))
        .route("/audit/{id}", get(log::story))
        .route("/rules", get(rules::rules))
        .route("/servers", get(state::servers))
        .route("/status", get(state::status))
        .layer(from_fn_with_state(api.clone(), let_in))
        .with_state(api.clone());
    let open = Router::new()
        .route("/login", get(login).post(redeem))
        .route("/assets/{version}/{name}", get(assets::serve))
        .layer(DefaultBodyLimit::max(4096))
        .with_state(api.clone());
    let events = Router::new()
        .route("/live", get(live::stream))
        .layer(from_fn_with_state(api.clone(), api::only_a_person))
        .with_state(api);
    pages.merge(open).merge(events).layer(from_fn(strict))
}

/// What every answer of the console says to a browser.
async fn strict(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        (
            "permissions-policy",
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

#[derive(Template)]
#[template(path = "shell.html")]
struct Shell {
    assets: &'static Addresses,
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    assets: &'static Addresses,
}

/// With the page's token: the person, to the page's content. With a cookie alone: the shell, which
/// holds nothing. With neither: to the login.
async fn let_in(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    if request.headers().contains_key(TOKEN_HEADER) {
        return match api::person(&api, request.headers()).await {
            Ok(who) => {
                request.extensions_mut().insert(who);
                next.run(request).await
            }
            Err(refused) => refused.into_response(),
        };
    }
    match api.sessions.of(request.headers(), Timestamp::now()).await {
        Ok(Found::CookieAlone) => page(&Shell { assets: &ADDRESSES }),
        Ok(Found::Nobody | Found::Person(_)) => Redirect::to("/login").into_response(),
        Err(error) => Refused::from(error).into_response(),
    }
}

async fn login() -> Response {
    page(&Login { assets: &ADDRESSES })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redeem {
    secret: String,
}

/// Uses a one-time link up. The answer's cookie and token are in no other place.
async fn redeem(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Json(body): Json<Redeem>,
) -> Result<Response, Refused> {
    /// More attempts with one link than this are not written to the log.
    const TOLD: i64 = 10;
    // A form of another site cannot send JSON; a browser that says who asks must say that it is us.
    let sites = headers.get_all("sec-fetch-site");
    if sites.iter().any(|site| site != "same-origin") {
        return Err(Refused::new(
            StatusCode::FORBIDDEN,
            "another site may not log in here",
        ));
    }
    let begun = match api.sessions.redeem(&body.secret, Timestamp::now()).await {
        Ok(begun) => begun,
        Err(error) => {
            match &error {
                NoEntry::Used {
                    link,
                    person,
                    times,
                } if *times <= TOLD => {
                    let attempt = format!("log in once more by {link} of `{person}`");
                    api::refused(&api.broker, "a browser".to_owned(), attempt).await;
                    let text = error.to_string();
                    let response = Refused::new(StatusCode::FORBIDDEN, text).into_response();
                    return Ok(crate::door::recorded(response));
                }
                NoEntry::Used { .. } => {}
                NoEntry::NotValid => tracing::warn!("a login with a link that is none"),
                NoEntry::Db(error) => tracing::error!("nobody can log in: {error}"),
            }
            return Err(Refused::new(StatusCode::FORBIDDEN, error.to_string()));
        }
    };
    let (person, session) = (&begun.session.person, &begun.session.id);
    let what = format!("logged in to the console as session {session}");
    api::noted(&api.broker, format!("user:{person}"), About::Login, what).await?;
    let body = Json(json!({ "token": begun.token, "user": person }));
    let mut response = body.into_response();
    let cookie = api.sessions.set_cookie(Some(&begun), &headers);
    let cookie = cookie.ok_or_else(|| {
        Refused::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the cookie cannot be made",
        )
    })?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}
