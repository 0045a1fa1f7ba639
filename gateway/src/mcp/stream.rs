//! What is said to one caller: numbered events that can be followed, and followed again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Receipt};

/// The most events that are kept for a caller that is not there; the oldest go first, the answer
/// last.
const KEPT: usize = 256;
/// The most bytes of these, but the newest is kept however long it is.
const KEPT_BYTES: usize = 1024 * 1024;
/// The id of a session's own log, whose events go to one stream alone.
pub(super) const OWN: &str = "own";
/// How often a silent stream says that it is there. Load balancers and SDKs give up after a minute
/// or more.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// The events of one request, or of a session's own stream.
#[derive(Debug)]
pub(super) struct Log {
    id: String,
    inner: Mutex<Inner>,
    version: watch::Sender<u64>,
    /// How many follow it; shared with the broker. One that is back may be so before it is noticed
    /// that it was gone.
    pub present: Arc<AtomicUsize>,
    /// Cancelled by the caller.
    pub cancel: CancellationToken,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<(u64, Bytes)>,
    /// How long the events are together.
    bytes: usize,
    next: u64,
    ended: bool,
    receipt: Option<Receipt>,
    /// The streams of a log whose events go to one alone: the last that came.
    streams: Vec<u64>,
    /// The last event that went to one of these.
    sent: u64,
}

impl Log {
    /// An empty log.
    pub(super) fn new(id: String) -> Arc<Self> {
        Arc::new(Self {
            id,
            inner: Mutex::new(Inner {
                next: 1,
                ..Inner::default()
            }),
            version: watch::Sender::new(0),
            present: Arc::default(),
            cancel: CancellationToken::new(),
        })
    }

    /// Whether this is the log of that id.
    pub(super) fn is(&self, id: &str) -> bool {
        self.id == id
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event: one JSON-RPC message.
    pub(super) fn push(&self, message: impl Into<Bytes>) {
        {
            let mut inner = self.lock();
            if inner.ended {
                return;
            }
            let number = inner.next;
            inner.next += 1;
            let message = message.into();
            inner.bytes += message.len();
            inner.events.push_back((number, message));
            while inner.events.len() > KEPT || (inner.bytes > KEPT_BYTES && inner.events.len() > 1)
            {
                let oldest = inner.events.pop_front();
                inner.bytes -= oldest.map_or(0, |(_, message)| message.len());
            }
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// Lets whoever waits for a first event go on without one: it may take long.
    pub(super) fn hold(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Adds the last event, or none, and ends the log.
    pub(super) fn end(&self, message: Option<Bytes>, receipt: Option<Receipt>) {
        {
            let mut inner = self.lock();
            if inner.ended {
                return;
            }
            if let Some(message) = message {
                let number = inner.next;
                inner.next += 1;
                inner.bytes += message.len();
                inner.events.push_back((number, message));
            }
            inner.ended = true;
            inner.receipt = receipt;
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// Whether somebody follows it.
    pub(super) fn followed(&self) -> bool {
        self.present.load(Ordering::SeqCst) > 0
    }

    /// Whether nothing more comes.
    pub(super) fn ended(&self) -> bool {
        self.lock().ended
    }

    /// How long its events are together, once it has ended.
    pub(super) fn ended_bytes(&self) -> Option<usize> {
        let inner = self.lock();
        inner.ended.then_some(inner.bytes)
    }

    /// The answer, if it is the only event: it can go out as plain JSON.
    pub(super) fn only_answer(&self) -> Option<Bytes> {
        let inner = self.lock();
        match (inner.ended, inner.events.len(), inner.next) {
            (true, 1, 2) => inner.events.front().map(|(_, message)| message.clone()),
            _ => None,
        }
    }

    /// The last event, once the log has ended.
    pub(super) fn answer(&self) -> Option<Bytes> {
        let inner = self.lock();
        if inner.ended {
            inner.events.back().map(|(_, message)| message.clone())
        } else {
            None
        }
    }

    /// Waits until there is an event, or the end.
    pub(super) async fn begun(&self) {
        let mut version = self.version.subscribe();
        let _ = version.wait_for(|version| *version > 0).await;
    }

    /// Waits for the end.
    pub(super) async fn finished(&self) {
        let mut version = self.version.subscribe();
        let _ = version.wait_for(|_| self.ended()).await;
    }

    fn after(&self, seen: u64) -> Vec<(u64, Bytes)> {
        self.lock()
            .events
            .iter()
            .filter(|(number, _)| *number > seen)
            .cloned()
            .collect()
    }

    /// The last event that some stream was given, where each goes to one alone.
    pub(super) fn sent(&self) -> u64 {
        self.lock().sent
    }

    fn take_receipt(&self) -> Option<Receipt> {
        self.lock().receipt.take()
    }
}

/// A stream's turn on a log whose events go to one alone. A message must not go out on several
/// streams of a session (MCP, *Multiple Connections*); the newest gets it, for of an older one it may
/// not be known yet that it broke.
#[derive(Debug)]
struct Turn {
    log: Arc<Log>,
    number: u64,
    passed: bool,
}

impl Turn {
    fn new(log: Arc<Log>) -> Self {
        let number = {
            let mut inner = log.lock();
            let number = inner.streams.last().map_or(1, |last| last + 1);
            inner.streams.push(number);
            number
        };
        Self {
            log,
            number,
            passed: false,
        }
    }

    /// What this stream is to send now, after what it has seen.
    fn take(&mut self, seen: u64) -> Vec<(u64, Bytes)> {
        let mut inner = self.log.lock();
        if inner.streams.last() != Some(&self.number) {
            self.passed = true;
            return Vec::new();
        }
        // What others sent meanwhile is not sent again. What a client asks for again is.
        let seen = if std::mem::take(&mut self.passed) {
            seen.max(inner.sent)
        } else {
            seen
        };
        let events = inner.events.iter().filter(|(number, _)| *number > seen);
        let events: Vec<(u64, Bytes)> = events.cloned().collect();
        if let Some((last, _)) = events.last() {
            inner.sent = inner.sent.max(*last);
        }
        events
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.log.lock();
        inner.streams.retain(|one| *one != self.number);
        drop(inner);
        self.log.version.send_modify(|version| *version += 1);
    }
}

/// How a log is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Events carry ids, and the first says so with no data (SEP-1699, from 2025-11-25 on).
    pub primed: bool,
    /// Events carry ids.
    pub ids: bool,
}

/// A response body that follows a log. The receipt is redeemed when the transport has asked for
/// what comes after the last event, so has taken that.
pub(super) struct Follow {
    inner: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    guards: Vec<Guard>,
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow")
            .field("guards", &self.guards)
            .finish_non_exhaustive()
    }
}

/// Notes that the caller went away, unless it got everything.
#[derive(Debug)]
pub(super) struct Guard {
    log: Arc<Log>,
    broker: Arc<Broker>,
    cancels: bool,
    complete: bool,
}

impl Guard {
    /// Somebody follows a log; `cancels` if its going away cancels the request (2026-07-28).
    pub(super) fn new(log: Arc<Log>, broker: Arc<Broker>, cancels: bool) -> Self {
        log.present.fetch_add(1, Ordering::SeqCst);
        Self {
            log,
            broker,
            cancels,
            complete: false,
        }
    }

    /// What it follows.
    pub(super) fn log(&self) -> Arc<Log> {
        self.log.clone()
    }

    fn delivered(&mut self) {
        self.complete = true;
        if let Some(receipt) = self.log.take_receipt() {
            let broker = self.broker.clone();
            self.broker
                .tasks
                .spawn(async move { broker.redeem(&receipt).await });
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.complete {
            self.log.present.fetch_sub(1, Ordering::SeqCst);
            if self.cancels && !self.broker.stopping.is_cancelled() {
                self.log.cancel.cancel();
            }
        }
    }
}

impl Follow {
    /// Follows as server-sent events, from after an event on.
    pub(super) fn events(guard: Guard, seen: u64, style: Style) -> Self {
        let log = guard.log.clone();
        let turn = log.is(OWN).then(|| Turn::new(log.clone()));
        let first = if style.primed && (seen == 0 || turn.is_some()) {
            Bytes::from(format!("id: {}.{seen}\nretry: 1000\ndata: \n\n", log.id))
        } else {
            Bytes::from_static(b": portcullis\n\n")
        };
        let version = log.version.subscribe();
        let state = (log, version, seen, VecDeque::from([first]), turn);
        let inner = futures::stream::unfold(
            state,
            move |(log, mut version, mut seen, mut ready, mut turn)| async move {
                loop {
                    if let Some(next) = ready.pop_front() {
                        return Some((next, (log, version, seen, ready, turn)));
                    }
                    version.mark_unchanged();
                    let ended = log.ended();
                    let events = match &mut turn {
                        Some(turn) => turn.take(seen),
                        None => log.after(seen),
                    };
                    for (number, message) in events {
                        seen = number;
                        ready.push_back(frame(&log.id, number, &message, style.ids));
                    }
                    if !ready.is_empty() {
                        continue;
                    }
                    if ended {
                        return None;
                    }
                    match tokio::time::timeout(COMMENT_EVERY, version.changed()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return None,
                        Err(_) => ready.push_back(Bytes::from_static(b": waiting\n\n")),
                    }
                }
            },
        );
        Self {
            inner: Box::pin(inner),
            guards: vec![guard],
        }
    }

    /// The answer alone, as JSON.
    pub(super) fn json(guard: Guard, answer: Bytes) -> Self {
        Self::batch(vec![guard], answer)
    }

    /// Several answers together, as JSON.
    pub(super) fn batch(guards: Vec<Guard>, answers: Bytes) -> Self {
        Self {
            inner: Box::pin(futures::stream::iter([answers])),
            guards,
        }
    }
}

fn frame(log: &str, number: u64, message: &Bytes, ids: bool) -> Bytes {
    let mut out = Vec::with_capacity(message.len() + 64);
    if ids {
        out.extend_from_slice(format!("id: {log}.{number}\n").as_bytes());
    }
    out.extend_from_slice(b"event: message\ndata: ");
    // JSON on one line: our own is, and a server's raw line breaks are only white space there.
    out.extend(message.iter().map(|byte| {
        if matches!(byte, b'\n' | b'\r') {
            b' '
        } else {
            *byte
        }
    }));
    out.extend_from_slice(b"\n\n");
    out.into()
}

impl Stream for Follow {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.inner.as_mut().poll_next(cx) {
            Poll::Ready(None) => {
                self.guards.iter_mut().for_each(Guard::delivered);
                Poll::Ready(None)
            }
            Poll::Ready(Some(next)) => Poll::Ready(Some(Ok(next))),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_long_events_is_not_kept_and_the_answer_is() {
        let log = Log::new("one".to_owned());
        for _ in 0..100 {
            log.push(vec![b' '; KEPT_BYTES / 4]);
        }
        log.end(Some(Bytes::from_static(b"answer")), None);
        let kept = log.after(0);
        assert_eq!(kept.len(), 5);
        assert_eq!(log.ended_bytes(), Some(KEPT_BYTES + 6));
        assert_eq!(log.answer().as_deref(), Some(&b"answer"[..]));
    }

    #[test]
    fn an_event_goes_to_the_newest_stream_alone() {
        let log = Log::new(OWN.to_owned());
        let numbers = |turn: &mut Turn, seen: &mut u64| {
            let events = turn.take(*seen);
            *seen = events.last().map_or(*seen, |(number, _)| *number);
            let numbers: Vec<u64> = events.into_iter().map(|(number, _)| number).collect();
            numbers
        };
        log.push("one");
        let (mut first, mut a) = (Turn::new(log.clone()), log.sent());
        assert_eq!(numbers(&mut first, &mut a), [1]);
        let (mut second, mut b) = (Turn::new(log.clone()), log.sent());
        log.push("two");
        assert_eq!(numbers(&mut first, &mut a), [0; 0]);
        assert_eq!(numbers(&mut second, &mut b), [2]);
        drop(second);
        log.push("three");
        assert_eq!(numbers(&mut first, &mut a), [3]);
        // One that broke, and comes back for what it did not see.
        let (mut third, mut c) = (Turn::new(log.clone()), 1);
        assert_eq!(numbers(&mut third, &mut c), [2, 3]);
    }
}
