//! What happens, as it happens: server-sent events that can be resumed.
//!
//! Items are resumed by their number. Questions and servers have none: whoever connects is told
//! which questions are open, and so misses nothing either.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, Sse};
use channels::web::Live;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Interval;

use super::card::Card;
use super::{Api, Entrance, Refused, Who, approvals, servers};
use crate::approvals::{Held, Watcher};

/// Whoever is silent for longer is taken for gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How many changes of questions a follower may be behind before it is told all of them again.
const BEHIND: usize = 256;

/// Tells followers which questions changed.
#[derive(Debug)]
pub struct Changes(broadcast::Sender<String>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::Sender::new(BEHIND))
    }
}

impl Watcher for Changes {
    fn changed<'a>(&'a self, held: &'a Held) -> BoxFuture<'a, ()> {
        let _ = self.0.send(held.id.to_string());
        Box::pin(std::future::ready(()))
    }
}

/// What a follower is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// In the chat.
    Live(Live),
    /// A question is new or has changed.
    Question(Box<Card>),
    /// The questions that are open, all of them.
    Open(Vec<String>),
    /// A server is in another state.
    Server(Value),
    /// Nothing happened for a while.
    Beat,
}

type Items = Pin<Box<dyn Stream<Item = Result<Live, channels::db::DbError>> + Send>>;

struct Follower {
    api: Arc<Api>,
    who: Who,
    /// The one place whose items are wanted; none is all.
    place: Option<String>,
    items: Option<Items>,
    questions: broadcast::Receiver<String>,
    servers: broadcast::Receiver<String>,
    beat: Interval,
    ready: VecDeque<Told>,
}

/// Which items are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// None.
    None,
    /// Those of every group that the person sees.
    All,
    /// Those of one.
    Of(String),
}

/// Follows everything that a person sees, from a change on.
pub(crate) fn follow(
    api: &Arc<Api>,
    who: Who,
    items: Which,
    after: i64,
) -> impl Stream<Item = Told> + Send + use<> {
    let place = match &items {
        Which::Of(place) => Some(place.clone()),
        Which::None | Which::All => None,
    };
    let mut beat = tokio::time::interval(HEARTBEAT);
    beat.reset();
    let follower = Follower {
        items: (items != Which::None).then(|| -> Items { Box::pin(api.web.follow(after)) }),
        // Listened to before what is open is read: what comes in between is told twice, not missed.
        questions: api.changes.0.subscribe(),
        servers: api.servers.subscribe(),
        api: api.clone(),
        who,
        place,
        beat,
        ready: VecDeque::new(),
    };
    let first = futures::stream::once(async move {
        let mut follower = follower;
        follower.sync().await.then_some(follower)
    });
    first.flat_map(|follower| {
        futures::stream::unfold(follower, |follower| async move {
            let mut follower = follower?;
            let next = follower.next().await?;
            Some((next, Some(follower)))
        })
    })
}

impl Follower {
    /// `None` ends the stream; whoever wants more connects again.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let items = async {
                match &mut self.items {
                    Some(items) => items.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.api.broker.stopping.cancelled() => return None,
                live = items => {
                    let live = live?.map_err(|error| tracing::warn!("a follower is let go: {error}")).ok()?;
                    if self.sees(&live) {
                        return Some(Told::Live(live));
                    }
                }
                question = self.questions.recv() => match question {
                    Ok(id) => self.question(&id).await,
                    Err(RecvError::Lagged(_)) => if !self.sync().await { return None },
                    Err(RecvError::Closed) => return None,
                },
                server = self.servers.recv() => match server {
                    Ok(name) => self.server(&name),
                    Err(RecvError::Lagged(_)) => self.all_servers(),
                    Err(RecvError::Closed) => return None,
                },
                _ = self.beat.tick() => {
                    if !self.still_here().await {
                        return None;
                    }
                    return Some(Told::Beat);
                }
            }
        }
    }

    /// Whether the session that asked still counts.
    async fn still_here(&mut self) -> bool {
        match self.who.entrance() {
            Entrance::Socket => true,
            Entrance::Console { session, .. } => {
                self.api
                    .sessions
                    .lives(session, jiff::Timestamp::now())
                    .await
            }
        }
    }

    fn sees(&self, live: &Live) -> bool {
        let place = match live {
            Live::Item(item) => &item.place,
            Live::Writing { place, .. } | Live::Dropped { place, .. } => place,
        };
        self.place.as_ref().is_none_or(|only| only == place)
            && self.who.may_see(&self.api.broker.config.now(), place)
    }

    async fn question(&mut self, id: &str) {
        if let Ok(card) = approvals::card(&self.api, &self.who, id).await {
            self.ready.push_back(Told::Question(Box::new(card)));
        }
    }

    /// Tells which questions are open, and each of them.
    async fn sync(&mut self) -> bool {
        let cards = async {
            let open = approvals::open(&self.api, &self.who).await?;
            super::card::cards(&self.api, open).await
        };
        match cards.await {
            Ok(cards) => {
                let ids = cards.iter().map(|card| card.shown.id.clone()).collect();
                self.ready.push_back(Told::Open(ids));
                let cards = cards.into_iter().map(|card| Told::Question(Box::new(card)));
                self.ready.extend(cards);
                true
            }
            Err(refused) => {
                tracing::warn!("a follower is let go: {}", refused.text());
                false
            }
        }
    }

    fn server(&mut self, name: &str) {
        let seen = servers::seen(&self.api, &self.who);
        let mut of_name = seen.into_iter().filter(|server| server["name"] == name);
        self.ready.extend(of_name.next().map(Told::Server));
    }

    fn all_servers(&mut self) {
        let seen = servers::seen(&self.api, &self.who);
        self.ready.extend(seen.into_iter().map(Told::Server));
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct From {
    /// Everything up to this change was seen.
    pub(crate) after: Option<i64>,
    /// Only items of this group.
    pub(crate) group: Option<String>,
}

impl From {
    /// From where on: what a stream that broke says goes before what it was first asked with.
    pub(crate) fn after(&self, headers: &HeaderMap) -> Option<i64> {
        let last = headers.get("last-event-id");
        let last = last.and_then(|id| id.to_str().ok()?.parse().ok());
        last.or(self.after)
    }
}

pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refused> {
    let items = match &from.group {
        Some(group) => Which::Of(super::groups::theirs(&api, &who, group)?.to_string()),
        None => Which::All,
    };
    let after = match from.after(&headers) {
        Some(after) => after,
        None => api.web.newest().await?,
    };
    let told = follow(&api, who, items, after).map(|told| Ok(event(told)));
    Ok(Sse::new(told))
}

fn event(told: Told) -> Event {
    let (name, id, data) = match told {
        Told::Live(Live::Item(item)) => ("item", Some(item.seq), json!(item)),
        Told::Live(Live::Writing {
            place,
            id,
            from,
            text,
        }) => {
            let data = json!({ "place": place, "id": id, "from": from, "text": text });
            ("writing", None, data)
        }
        Told::Live(Live::Dropped { place, id }) => {
            ("dropped", None, json!({ "place": place, "id": id }))
        }
        Told::Question(card) => ("approval", None, json!(card)),
        Told::Open(ids) => ("open", None, json!({ "ids": ids })),
        Told::Server(server) => ("server", None, server),
        Told::Beat => return Event::default().comment(""),
    };
    let event = Event::default().event(name).data(data.to_string());
    match id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}
