//! What the agent reports: kept in order until the gateway has stored it.
//!
//! Whoever reports waits when too much is on its way; text that streams never waits, and is left
//! out instead, since the whole message follows.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent::{Event, Numbered};
use tokio::sync::Notify;

/// The most events that wait to be acknowledged.
const MOST: usize = 256;
/// The most bytes of one piece of streamed text.
const MOST_TEXT: usize = 64 * 1024;
/// How long streamed text is gathered before it is sent.
const GATHER: Duration = Duration::from_millis(50);
/// The most events sent at once, and the bytes after which no more are added.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 512 * 1024;

/// The events that are not acknowledged yet.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Something is to be sent.
    filled: Notify,
    /// Something that does not stream is to be sent.
    pressing: Notify,
    /// Something was acknowledged.
    emptied: Notify,
}

#[derive(Debug)]
struct State {
    next: u64,
    /// Events up to this number were sent and stay as they are.
    sent: u64,
    queue: VecDeque<Numbered>,
}

impl Outbox {
    /// An outbox whose first event has this number.
    pub(crate) fn new(next: u64) -> Self {
        Self {
            state: Mutex::new(State {
                next,
                sent: 0,
                queue: VecDeque::new(),
            }),
            filled: Notify::new(),
            pressing: Notify::new(),
            emptied: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports more text of the model's, or drops it when there is no room.
    pub(crate) fn delta(&self, text: &str) {
        let mut state = self.lock();
        let (sent, full) = (state.sent, state.queue.len() >= MOST);
        match state.queue.back_mut() {
            Some(Numbered {
                n,
                event: Event::Delta { text: before },
            }) if *n > sent => {
                if before.len() + text.len() <= MOST_TEXT {
                    before.push_str(text);
                }
            }
            _ if full => {}
            _ => state.push(Event::Delta {
                text: text.to_owned(),
            }),
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Reports something, once there is room.
    pub(crate) async fn event(&self, event: Event) {
        let mut event = Some(event);
        loop {
            let emptied = self.emptied.notified();
            {
                let mut state = self.lock();
                if state.queue.len() < MOST
                    && let Some(event) = event.take()
                {
                    state.push(event);
                }
            }
            if event.is_none() {
                self.filled.notify_one();
                self.pressing.notify_one();
                return;
            }
            emptied.await;
        }
    }

    /// Reports something that people read while they wait.
    pub(crate) async fn status(&self, text: String) {
        self.event(Event::Status { text }).await;
    }

    /// Waits until everything was acknowledged.
    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().queue.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// The next events to send, not more than `most`, once there are any.
    pub(crate) async fn batch(&self, most: usize) -> Vec<Numbered> {
        loop {
            let streams = {
                let state = self.lock();
                let streams = |one: &Numbered| matches!(one.event, Event::Delta { .. });
                (!state.queue.is_empty()).then(|| state.queue.iter().all(streams))
            };
            match streams {
                None => self.filled.notified().await,
                Some(false) => break,
                Some(true) => {
                    _ = tokio::time::timeout(GATHER, self.pressing.notified()).await;
                    break;
                }
            }
        }
        let mut state = self.lock();
        let mut bytes = 0;
        let mut batch = Vec::new();
        for one in state.queue.iter().take(most.min(BATCH)) {
            if bytes > BATCH_BYTES {
                break;
            }
            bytes += size(one);
            batch.push(one.clone());
        }
        state.sent = batch.last().map_or(state.sent, |last| last.n);
        batch
    }

    /// Forgets what the gateway has stored; whether that was anything.
    pub(crate) fn acknowledged(&self, upto: u64) -> bool {
        let mut state = self.lock();
        let before = state.queue.len();
        // Only what was sent can be stored.
        let upto = upto.min(state.sent);
        state.queue.retain(|one| one.n > upto);
        let fewer = state.queue.len() < before;
        drop(state);
        if fewer {
            self.emptied.notify_waiters();
        }
        fewer
    }

    /// Puts something else in the place of an event that the gateway cannot take, and of all after it.
    pub(crate) fn replace(&self, n: u64, event: Event) {
        let mut state = self.lock();
        state.queue.retain(|one| one.n < n);
        state.queue.push_back(Numbered { n, event });
        drop(state);
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }
}

impl State {
    fn push(&mut self, event: Event) {
        let n = self.next;
        self.next += 1;
        self.queue.push_back(Numbered { n, event });
    }
}

/// About how long an event is on the wire.
fn size(one: &Numbered) -> usize {
    serde_json::to_vec(one).map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn texts(batch: &[Numbered]) -> Vec<(u64, String)> {
        let text = |one: &Numbered| {
            let (Event::Delta { text } | Event::Status { text }) = &one.event else {
                panic!("{one:?}")
            };
            (one.n, text.clone())
        };
        batch.iter().map(text).collect()
    }

    #[tokio::test]
    async fn streamed_text_is_gathered_and_what_was_sent_stays_as_it_was() {
        let outbox = Outbox::new(5);
        outbox.delta("a");
        outbox.delta("b");
        let first = outbox.batch(64).await;
        assert_eq!(texts(&first), [(5, "ab".to_owned())]);
        outbox.delta("c");
        let again = outbox.batch(64).await;
        assert_eq!(texts(&again), [(5, "ab".to_owned()), (6, "c".to_owned())]);
        assert!(outbox.acknowledged(5));
        assert!(!outbox.acknowledged(5));
        assert!(!outbox.acknowledged(4));
        assert_eq!(texts(&outbox.batch(64).await), [(6, "c".to_owned())]);
    }

    #[tokio::test]
    async fn a_full_outbox_makes_reports_wait_and_drops_streamed_text() {
        let outbox = Outbox::new(1);
        for _ in 0..MOST {
            outbox.status("s".to_owned()).await;
        }
        outbox.delta("lost");
        let mut waiting = Box::pin(outbox.status("late".to_owned()));
        assert!(waiting.as_mut().now_or_never().is_none());
        let batch = outbox.batch(64).await;
        assert_eq!(batch.len(), BATCH);
        assert!(outbox.acknowledged(u64::MAX));
        waiting.await;
        let left = outbox
            .lock()
            .queue
            .iter()
            .map(|one| one.n)
            .collect::<Vec<_>>();
        let whole: Vec<u64> = (u64::try_from(BATCH).unwrap() + 1..=257).collect();
        assert_eq!(left, whole);
    }

    #[tokio::test]
    async fn endless_text_is_bounded_while_nobody_takes_it() {
        let outbox = Outbox::new(1);
        for _ in 0..1000 {
            outbox.delta(&"x".repeat(1000));
        }
        let batch = outbox.batch(64).await;
        assert!(size(&batch[0]) <= MOST_TEXT + 100);
    }
}
