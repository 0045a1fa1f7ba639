//! `/agent/v1`: what the gateway wants of a hosted agent, and what that reports. Only for the token
//! of a run.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use agent::Events;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures::StreamExt as _;
use groups::{EventError, Groups, NotServed};
use policy::ids::RunId;
use serde::Deserialize;

use crate::api;
use crate::broker::Broker;
use crate::fault;
use crate::identity::{Credential, Principal};

/// How often a silent stream says that it is there.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// What the routes work on.
#[derive(Clone, Debug)]
struct Agents {
    broker: Arc<Broker>,
    groups: Arc<Groups>,
}

/// Whose token it was.
#[derive(Clone, Debug)]
struct Speaker {
    run: RunId,
    launch: u64,
}

/// The routes, behind the door.
pub fn router(broker: &Arc<Broker>, groups: Arc<Groups>) -> Router {
    let agents = Agents {
        broker: broker.clone(),
        groups,
    };
    Router::new()
        .route("/agent/v1/turns", get(turns))
        .route(
            "/agent/v1/events",
            post(events).layer(axum::middleware::from_fn_with_state(
                agents.clone(),
                not_too_many,
            )),
        )
        .layer(axum::middleware::from_fn_with_state(
            agents.clone(),
            only_runs,
        ))
        .with_state(agents)
}

/// Lets nobody in but the agent of a run: an outside token is refused, and it is in the log.
async fn only_runs(
    State(agents): State<Agents>,
    Extension(principal): Extension<Principal>,
    mut request: Request,
    next: Next,
) -> Response {
    let Credential::Run { run, launch, .. } = &principal.by else {
        let attempt = format!("{} {}", request.method(), request.uri().path());
        api::refused(&agents.broker, principal.label(), attempt).await;
        return StatusCode::FORBIDDEN.into_response();
    };
    request.extensions_mut().insert(Speaker {
        run: run.clone(),
        launch: *launch,
    });
    next.run(request).await
}

/// Reads a report only where there is room for it.
async fn not_too_many(
    State(agents): State<Agents>,
    Extension(speaker): Extension<Speaker>,
    request: Request,
    next: Next,
) -> Response {
    match agents.groups.place(&speaker.run) {
        Ok(_place) => next.run(request).await,
        Err(error) => not_served(error),
    }
}

fn not_served(error: NotServed) -> Response {
    let status = match error {
        NotServed::NoRun => StatusCode::GONE,
        NotServed::TooMany => StatusCode::TOO_MANY_REQUESTS,
    };
    (status, format!("{error}\n")).into_response()
}

#[derive(Debug, Deserialize)]
struct Since {
    #[serde(default)]
    after: u64,
}

async fn turns(
    State(agents): State<Agents>,
    Extension(speaker): Extension<Speaker>,
    Query(Since { after }): Query<Since>,
) -> Response {
    let Agents { broker, groups } = agents;
    let turns = match groups.turns(&speaker.run, after) {
        Ok(turns) => turns,
        Err(error) => return not_served(error),
    };
    // Another process speaks for the run, or nobody does, or the gateway stops.
    let speaks = broker.identity.runs.speaks(&speaker.run, speaker.launch);
    let stopping = broker.stopping.clone();
    let until = async move {
        tokio::select! {
            () = speaks.cancelled() => {}
            () = stopping.cancelled() => {}
        }
    };
    let events = turns.take_until(Box::pin(until)).filter_map(async |turn| {
        let event = Event::default().id(turn.seq.to_string()).json_data(&turn);
        if let Err(error) = &event {
            tracing::error!("a turn cannot be written: {error}");
        }
        event.ok().map(Ok::<_, Infallible>)
    });
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(COMMENT_EVERY).text("still there"))
        .into_response()
}

async fn events(
    State(agents): State<Agents>,
    Extension(speaker): Extension<Speaker>,
    Json(events): Json<Events>,
) -> Response {
    match agents.groups.events(&speaker.run, events).await {
        Ok(acked) => {
            fault::point("events.stored").await;
            Json(acked).into_response()
        }
        Err(error) => refused(&error),
    }
}

/// What an agent does with a status is in its protocol.
fn refused(error: &EventError) -> Response {
    let status = match error {
        EventError::NoRun | EventError::TooMuch(_) => StatusCode::GONE,
        EventError::Invalid(_) => StatusCode::BAD_REQUEST,
        EventError::Db(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{error}\n")).into_response()
}
