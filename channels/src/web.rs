//! The web channel: what the console and the terminal show, as items that can be followed.
//!
//! An item keeps its place and can change; the newest state of each is stored. A follower says up
//! to which change it has seen everything, and gets the rest, then what happens from there on. Text
//! that is still being written is told as it comes and stored once it is whole.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{broadcast, watch};

use crate::db::{Db, DbError};
use crate::inbox::{Received, Said};

/// How many changes a follower may be behind before it reads them from the database again.
const BEHIND: usize = 1024;
/// How many stored changes are read at a time.
const PAGE: u64 = 200;
/// The longest text under way that is kept for late followers, in bytes.
const WRITING: usize = 256 * 1024;

/// The newest state of one thing that people see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The number of its last change; over all places, growing.
    pub seq: i64,
    /// Where it stands: items are shown in this order.
    pub pos: i64,
    /// Its id, unique within its place.
    pub id: String,
    /// Where it is shown.
    pub place: String,
    /// When it was first shown.
    pub at: Timestamp,
    /// What it is.
    pub body: Body,
}

/// What people can see in a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Body {
    /// What a person said.
    Person {
        /// Who.
        by: String,
        /// What.
        text: String,
    },
    /// What the agent said.
    Agent {
        /// What.
        text: String,
        /// It comes from a script rather than from a model.
        script: bool,
    },
    /// What the agent does, in the gateway's own words.
    Tool {
        /// The action, as the log names it.
        action: String,
        /// `server__tool`.
        tool: String,
        /// The arguments with secrets masked.
        args: Value,
        /// How it goes.
        state: ToolState,
        /// The question that was put about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        question: Option<String>,
    },
    /// How a task goes.
    Run {
        /// Which.
        run: String,
        /// How.
        state: RunState,
        /// What a person should know: why it failed, or what it waits for.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// A word of the gateway itself.
    Notice {
        /// What.
        text: String,
    },
}

/// How a tool call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolState {
    /// It is being done.
    Running,
    /// A person is asked.
    Waiting,
    /// It was done.
    Ok,
    /// It failed.
    Error,
    /// It was not done.
    Refused,
    /// Whether it was done is not known.
    Unknown,
}

/// How a task goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits for its turn.
    Queued,
    /// The agent works.
    Working,
    /// It waits for a person.
    Waiting,
    /// It is over.
    Done,
    /// It is over and could not do its work.
    Failed,
    /// A person stopped it.
    Stopped,
}

/// What a follower is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Live {
    /// An item is new or has changed.
    Item(Item),
    /// An item is being written: `text` follows the first `from` characters of it.
    Writing {
        /// Where.
        place: String,
        /// Which item it will be.
        id: String,
        /// How many characters were told before.
        from: usize,
        /// What follows.
        text: String,
    },
    /// What was being written will not be: it begins again, or never comes.
    Dropped {
        /// Where.
        place: String,
        /// Which.
        id: String,
    },
}

/// A message that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SayError {
    /// The same id, and other words.
    #[error("a message with the id `{0}` says something else; give each message an id of its own")]
    Taken(String),
    /// It cannot be stored.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The web channel.
#[derive(Debug)]
pub struct Web {
    db: Db,
    /// Changes are stored and told one after the other.
    order: tokio::sync::Mutex<()>,
    live: broadcast::Sender<Live>,
    writing: Mutex<BTreeMap<(String, String), String>>,
    arrived: watch::Sender<i64>,
}

impl Web {
    /// The name of this channel.
    pub const NAME: &str = "web";

    /// The channel over its tables.
    pub fn new(db: Db) -> Arc<Self> {
        Arc::new(Self {
            db,
            order: tokio::sync::Mutex::default(),
            live: broadcast::Sender::new(BEHIND),
            writing: Mutex::default(),
            arrived: watch::Sender::new(0),
        })
    }

    /// Takes what a person said: into the inbox, and as an item, in one step. The same message
    /// again changes nothing.
    ///
    /// # Errors
    /// [`SayError`].
    pub async fn say(&self, said: Said) -> Result<Received, SayError> {
        let _one = self.order.lock().await;
        let (received, item) = self.db.receive(&said).await?;
        if received.said.text != said.text || received.said.by != said.by {
            return Err(SayError::Taken(said.external_id));
        }
        if let Some(item) = item {
            let _ = self.live.send(Live::Item(item));
            self.arrived.send_replace(received.seq);
        }
        Ok(received)
    }

    /// Changes whenever something arrived.
    pub fn arrivals(&self) -> watch::Receiver<i64> {
        self.arrived.subscribe()
    }

    /// What arrived after this number, oldest first.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn received(&self, after: i64, limit: u64) -> Result<Vec<Received>, DbError> {
        self.db.received(after, limit).await
    }

    /// Shows an item, or its new state. Stored when this returns.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn put(&self, place: &str, id: &str, body: Body) -> Result<Item, DbError> {
        let _one = self.order.lock().await;
        let item = self.db.put(place, id, body, Timestamp::now()).await?;
        self.texts().remove(&(place.to_owned(), id.to_owned()));
        let _ = self.live.send(Live::Item(item.clone()));
        Ok(item)
    }

    /// More of a text that is being written.
    pub fn write(&self, place: &str, id: &str, more: &str) {
        let mut texts = self.texts();
        let text = texts.entry((place.to_owned(), id.to_owned())).or_default();
        if text.len() + more.len() > WRITING {
            return;
        }
        let from = text.chars().count();
        text.push_str(more);
        let _ = self.live.send(Live::Writing {
            place: place.to_owned(),
            id: id.to_owned(),
            from,
            text: more.to_owned(),
        });
    }

    /// Drops a text that was being written.
    pub fn drop_writing(&self, place: &str, id: &str) {
        if self
            .texts()
            .remove(&(place.to_owned(), id.to_owned()))
            .is_some()
        {
            let _ = self.live.send(Live::Dropped {
                place: place.to_owned(),
                id: id.to_owned(),
            });
        }
    }

    fn texts(&self) -> MutexGuard<'_, BTreeMap<(String, String), String>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest items of a place before a position, in the order in which they are shown.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn page(
        &self,
        place: &str,
        before: Option<i64>,
        limit: u64,
    ) -> Result<Vec<Item>, DbError> {
        self.db.page(place, before, limit).await
    }

    /// One item.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn item(&self, place: &str, id: &str) -> Result<Option<Item>, DbError> {
        self.db.item(place, id).await
    }

    /// The number of the newest change.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn newest(&self) -> Result<i64, DbError> {
        self.db.newest().await
    }

    /// Everything that changed after `after`, and what changes from now on. Ends with the first
    /// error.
    pub fn follow(
        self: &Arc<Self>,
        after: i64,
    ) -> impl Stream<Item = Result<Live, DbError>> + use<> {
        let state = Follower {
            web: self.clone(),
            live: self.live.subscribe(),
            seen: after,
            ready: VecDeque::new(),
            behind: true,
        };
        futures::stream::try_unfold(state, |mut state| async move {
            let next = state.next().await?;
            Ok(next.map(|live| (live, state)))
        })
    }
}

struct Follower {
    web: Arc<Web>,
    live: broadcast::Receiver<Live>,
    seen: i64,
    ready: VecDeque<Live>,
    behind: bool,
}

impl Follower {
    async fn next(&mut self) -> Result<Option<Live>, DbError> {
        loop {
            if let Some(live) = self.ready.pop_front() {
                return Ok(Some(live));
            }
            if self.behind {
                self.catch_up().await?;
                continue;
            }
            match self.live.recv().await {
                Ok(Live::Item(item)) if item.seq <= self.seen => {}
                Ok(live) => {
                    if let Live::Item(item) = &live {
                        self.seen = item.seq;
                    }
                    return Ok(Some(live));
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
            }
        }
    }

    async fn catch_up(&mut self) -> Result<(), DbError> {
        let page = self.web.db.changed(self.seen, PAGE).await?;
        if let Some(last) = page.last() {
            self.seen = last.seq;
            self.ready.extend(page.into_iter().map(Live::Item));
            return Ok(());
        }
        // What was told while we read is in the texts already: a piece that is told twice begins
        // where it began the first time.
        let texts = self.web.texts();
        self.ready
            .extend(texts.iter().map(|((place, id), text)| Live::Writing {
                place: place.clone(),
                id: id.clone(),
                from: 0,
                text: text.clone(),
            }));
        self.behind = false;
        Ok(())
    }
}
