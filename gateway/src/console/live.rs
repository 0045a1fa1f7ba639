//! What happens, as parts of pages: the same events as `/api/v1/events`, rendered.

use std::convert::Infallible;
use std::sync::Arc;

use askama::Template as _;
use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use channels::web::Live;
use futures::{Stream, StreamExt as _};
use serde_json::json;

use super::cards::CardView;
use super::chat;
use crate::api::events::{From, Told, Which, follow};
use crate::api::{Api, Refused, Who, groups};

/// The stream of a page: of one group's chat, or of what every page shows.
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let which = match &from.group {
        Some(group) => Which::Of(groups::theirs(&api, &who, group)?.to_string()),
        None => Which::None,
    };
    let after = from.after(&headers).unwrap_or_default();
    let told = follow(&api, who.clone(), which, after);
    // What cannot be told ends the stream: whoever connects again is told it then, and not never.
    let events = told
        .then(move |told| {
            let (api, who) = (api.clone(), who.clone());
            async move { event(&api, &who, told).await }
        })
        .take_while(|event| std::future::ready(event.is_some()))
        .filter_map(|event| std::future::ready(event.map(Ok)));
    Ok(Sse::new(events))
}

async fn event(api: &Api, who: &Who, told: Told) -> Option<Event> {
    let (name, id, data) = match told {
        Told::Live(Live::Item(item)) => {
            let seq = item.seq;
            let view = chat::views(api, who, vec![item]).await.ok()?.pop()?;
            let html = view.render().ok()?;
            let data = json!({ "id": view.id, "pos": view.pos, "html": html });
            ("item", Some(seq), data)
        }
        Told::Live(Live::Writing { id, from, text, .. }) => (
            "writing",
            None,
            json!({ "id": id, "from": from, "text": text }),
        ),
        Told::Live(Live::Dropped { id, .. }) => ("dropped", None, json!({ "id": id })),
        Told::Question(card) => {
            let view = CardView::new(api, who, &card);
            let html = view.render().ok()?;
            let data = json!({ "id": view.id, "open": view.open, "html": html });
            ("approval", None, data)
        }
        Told::Open(ids) => ("open", None, json!({ "ids": ids })),
        Told::Server(server) => {
            let name = server.get("name");
            ("server", None, json!({ "name": name }))
        }
        Told::Beat => return Some(Event::default().comment("")),
    };
    let event = Event::default().event(name).data(data.to_string());
    Some(match id {
        Some(id) => event.id(id.to_string()),
        None => event,
    })
}
