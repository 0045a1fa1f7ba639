//! Who waits for what: replies and progress find their request, events find the gateway.
//!
//! Whatever a server sends, this holds at most one entry per request of ours and a fixed number of
//! events a second; the rest is dropped and counted.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, value::RawValue};
use tokio::{
    sync::{Notify, mpsc, mpsc::UnboundedSender, oneshot},
    time::{Instant, sleep},
};

use super::{
    Event, List, Reply, UpstreamError, lock,
    message::{self, Incoming},
};

/// The events with content a server may cause per second.
const EVENTS_PER_SECOND: u32 = 200;
/// The longest event with content, in bytes.
const MAX_EVENT: usize = 64 * 1024;
/// How often a changed list is told at most.
const LIST_INTERVAL: Duration = Duration::from_millis(200);

/// What comes from one connection, sorted.
#[derive(Debug)]
pub(super) struct Inbox {
    server: String,
    events: UnboundedSender<Event>,
    last_id: AtomicU64,
    waiting: Mutex<Waiting>,
    second: Mutex<(Instant, u32)>,
    changed: [AtomicBool; 3],
    wake: Notify,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    requests: HashMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    reply: oneshot::Sender<Result<Reply, UpstreamError>>,
    progress: Option<mpsc::Sender<Value>>,
    sent: Arc<AtomicBool>,
}

/// A request that was given an id.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) reply: oneshot::Receiver<Result<Reply, UpstreamError>>,
}

impl Inbox {
    pub(super) fn new(server: String, events: UnboundedSender<Event>) -> Arc<Self> {
        Arc::new(Self {
            server,
            events,
            last_id: AtomicU64::new(0),
            waiting: Mutex::default(),
            second: Mutex::new((Instant::now(), 0)),
            changed: Default::default(),
            wake: Notify::new(),
            dropped: AtomicU64::new(0),
        })
    }

    /// Gives a request its id; its progress token is the same number.
    pub(super) fn open(
        &self,
        progress: Option<mpsc::Sender<Value>>,
        sent: Arc<AtomicBool>,
    ) -> Result<Ticket, UpstreamError> {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return Err(UpstreamError::unsent("its connection has just ended"));
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (tx, reply) = oneshot::channel();
        waiting.requests.insert(
            id,
            Entry {
                reply: tx,
                progress,
                sent,
            },
        );
        Ok(Ticket { id, reply })
    }

    /// From now on the server may have it; false if nobody waits for it any more.
    pub(super) fn mark_sent(&self, id: u64) -> bool {
        let waiting = lock(&self.waiting);
        let entry = waiting.requests.get(&id);
        entry.is_some_and(|entry| {
            entry.sent.store(true, Ordering::Release);
            true
        })
    }

    /// Nobody waits any more; true if the server should be told.
    pub(super) fn withdraw(&self, id: u64) -> bool {
        let entry = lock(&self.waiting).requests.remove(&id);
        entry.is_some_and(|entry| entry.sent.load(Ordering::Acquire))
    }

    /// Ends all waits: `error` for what was sent, unsent for the rest.
    pub(super) fn close(&self, error: &UpstreamError) {
        let requests = {
            let mut waiting = lock(&self.waiting);
            waiting.closed = true;
            std::mem::take(&mut waiting.requests)
        };
        for entry in requests.into_values() {
            let sent = entry.sent.load(Ordering::Acquire);
            let error = if sent {
                error.clone()
            } else {
                UpstreamError::unsent("it has just ended")
            };
            _ = entry.reply.send(Err(error));
        }
    }

    /// Sorts one message or batch, and returns what must be answered to the server.
    pub(super) fn receive(&self, raw: &[u8]) -> Vec<Vec<u8>> {
        let Some(messages) = message::split(raw) else {
            self.drop_one();
            return Vec::new();
        };
        messages
            .into_iter()
            .filter_map(|message| self.sort(message, None))
            .collect()
    }

    /// Sorts the body of the answer to request `id`: an error without an id is about that one.
    pub(super) fn receive_for(&self, id: u64, raw: &[u8]) {
        for message in message::split(raw).into_iter().flatten() {
            self.sort(message, Some(id));
        }
    }

    fn sort(&self, raw: &RawValue, about: Option<u64>) -> Option<Vec<u8>> {
        let Ok(message) = serde_json::from_str::<Incoming<'_>>(raw.get()) else {
            self.drop_one();
            return None;
        };
        match (message.method, message.id) {
            (Some(method), Some(id)) => return Some(message::answer(id, &method)),
            (Some(method), None) => self.notified(&method, message.params),
            (None, id) => {
                let id = id.and_then(|id| id.get().parse().ok());
                let id = id.or(about.filter(|_| id.is_none() && message.error.is_some()));
                let entry = id.and_then(|id: u64| lock(&self.waiting).requests.remove(&id));
                let Some(entry) = entry else {
                    self.drop_one();
                    return None;
                };
                _ = entry.reply.send(reply(message.result, message.error));
            }
        }
        None
    }

    fn notified(&self, method: &str, params: Option<&RawValue>) {
        let server = self.server.clone();
        match method {
            "notifications/progress" => self.progressed(params),
            "notifications/tools/list_changed" => self.list_changed(List::Tools),
            "notifications/prompts/list_changed" => self.list_changed(List::Prompts),
            "notifications/resources/list_changed" => self.list_changed(List::Resources),
            "notifications/resources/updated" => {
                self.tell(params, |params| Event::ResourceUpdated { server, params });
            }
            "notifications/message" => self.tell(params, |params| Event::Log { server, params }),
            _ => {}
        }
    }

    fn progressed(&self, params: Option<&RawValue>) {
        let params = params.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        let Some(params) = params else { return };
        let Some(token) = params.get("progressToken").and_then(Value::as_u64) else {
            return;
        };
        let sender = lock(&self.waiting)
            .requests
            .get(&token)
            .and_then(|e| e.progress.clone());
        if sender.is_some_and(|sender| sender.try_send(params).is_err()) {
            self.drop_one();
        }
    }

    fn list_changed(&self, what: List) {
        let [tools, prompts, resources] = &self.changed;
        let changed = match what {
            List::Tools => tools,
            List::Prompts => prompts,
            List::Resources => resources,
        };
        changed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn tell(&self, params: Option<&RawValue>, event: impl FnOnce(Value) -> Event) {
        let fits = params.is_none_or(|raw| raw.get().len() <= MAX_EVENT);
        if !fits || !self.within_rate() {
            return self.drop_one();
        }
        let params = params.and_then(|raw| serde_json::from_str(raw.get()).ok());
        _ = self.events.send(event(params.unwrap_or(Value::Null)));
    }

    fn within_rate(&self) -> bool {
        let mut second = lock(&self.second);
        let now = Instant::now();
        if now.duration_since(second.0) >= Duration::from_secs(1) {
            *second = (now, 0);
        }
        second.1 += 1;
        second.1 <= EVENTS_PER_SECOND
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// What was dropped: garbage, unwanted replies, floods.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Tells of changed lists, the first change at once and a burst as one more.
    pub(super) async fn announce(self: Arc<Self>) {
        loop {
            self.wake.notified().await;
            let lists = [List::Tools, List::Prompts, List::Resources];
            for (what, changed) in lists.into_iter().zip(&self.changed) {
                if changed.swap(false, Ordering::AcqRel) {
                    let server = self.server.clone();
                    _ = self.events.send(Event::ListChanged { server, what });
                }
            }
            sleep(LIST_INTERVAL).await;
        }
    }
}

fn reply(result: Option<&RawValue>, error: Option<&RawValue>) -> Result<Reply, UpstreamError> {
    match (result, error) {
        (_, Some(error)) => serde_json::from_str(error.get())
            .map(Reply::Error)
            .map_err(|_| UpstreamError::Protocol("its error is no JSON".to_owned())),
        (Some(result), None) => Ok(Reply::Result(result.to_owned())),
        (None, None) => Err(UpstreamError::Protocol(
            "neither a result nor an error".to_owned(),
        )),
    }
}
