//! What the gateway itself answers, in the form of the Anthropic API, so that every SDK can read it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::SendError;
use crate::broker::ModelRefused;

/// The body of an error.
pub(super) fn body(kind: &str, message: &str) -> Value {
    json!({ "type": "error", "error": { "type": kind, "message": message } })
}

/// An error of the gateway.
pub(super) fn error(status: StatusCode, kind: &str, message: &str) -> Response {
    (status, Json(body(kind, message))).into_response()
}

pub(super) fn too_large() -> Response {
    let text = "the request is longer than 32 MiB";
    error(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", text)
}

pub(super) fn busy(message: &str) -> Response {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
    let soon = HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

/// Without a good token.
pub fn unauthorized() -> Response {
    error(
        StatusCode::UNAUTHORIZED,
        "authentication_error",
        "the token is not accepted",
    )
}

/// A call that has no answer of a provider.
pub(super) fn refused(refused: &ModelRefused) -> Response {
    let message = refused.to_string();
    let (status, kind) = match refused {
        ModelRefused::NoModel | ModelRefused::Denied(_) => {
            (StatusCode::FORBIDDEN, "permission_error")
        }
        ModelRefused::NoRecord(_) => (StatusCode::SERVICE_UNAVAILABLE, "api_error"),
        ModelRefused::Send(SendError::Silent) => (StatusCode::GATEWAY_TIMEOUT, "timeout_error"),
        ModelRefused::Send(
            SendError::NoKey | SendError::Unreachable | SendError::Redirect | SendError::Broke,
        ) => (StatusCode::BAD_GATEWAY, "api_error"),
    };
    error(status, kind, &message)
}
