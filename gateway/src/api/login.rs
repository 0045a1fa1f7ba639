//! Links for browsers, and who one is.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use policy::ids::UserName;
use policy::record::About;
use serde_json::{Value, json};

use super::{Api, Entrance, Refused, Who, noted};
use crate::console::sessions::Origin;

/// A link that logs its first user in, for the start-up output; `None` where nobody can be meant:
/// there is not exactly one owner.
///
/// # Errors
/// [`Refused`], if it cannot be made or recorded.
pub async fn console_link(api: &Api) -> Result<Option<String>, Refused> {
    let Ok(who) = Who::at_socket(&api.broker.config.now(), &HeaderMap::new()) else {
        return Ok(None);
    };
    match who.named() {
        Ok(person) => {
            let link = make(api, person, Origin::Start, "portcullis".to_owned()).await;
            link.map(Some)
        }
        Err(_) => Ok(None),
    }
}

async fn make(api: &Api, person: &UserName, origin: Origin, by: String) -> Result<String, Refused> {
    let (secret, id) = api.sessions.link(person, origin, Timestamp::now()).await?;
    let what = format!("login link {id} made for `{person}`");
    noted(&api.broker, by, About::Login, what).await?;
    // A fragment: the secret is in no request line, no log of a proxy and no `Referer`.
    Ok(format!("{}/login#{secret}", api.url))
}

/// A link for this person: on the socket for a browser, in the console for another device.
pub(super) async fn link(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
) -> Result<Json<Value>, Refused> {
    let origin = match who.entrance() {
        Entrance::Socket => Origin::Command,
        Entrance::Console { origin, .. } => *origin,
    };
    let person = who.named()?;
    let url = make(&api, person, origin, format!("user:{person}")).await?;
    Ok(Json(json!({ "url": url, "minutes": 10 })))
}

pub(super) async fn me(Extension(who): Extension<Who>) -> Result<Json<Value>, Refused> {
    Ok(Json(
        json!({ "user": who.named()?, "role": who.role().as_str() }),
    ))
}

/// Ends the session that asks for it.
pub(super) async fn leave(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Entrance::Console { session, .. } = who.entrance() else {
        let text = "there is no session on the socket to leave";
        return Err(Refused::new(StatusCode::BAD_REQUEST, text));
    };
    api.sessions.end(session, Timestamp::now()).await?;
    let what = format!("logged out of session {session} of the console");
    noted(&api.broker, who.label(), About::Login, what).await?;
    let mut response = Json(json!({ "id": session, "ended": true })).into_response();
    if let Some(cookie) = api.sessions.set_cookie(None, &headers) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}
