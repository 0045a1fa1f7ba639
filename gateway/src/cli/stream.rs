//! What happens in a running instance, as it happens: the events of `/api/v1/events` over the
//! owner's socket, taken up again where they broke.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use super::client::Client;
use super::output::complain;

/// An event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Value,
    id: Option<i64>,
}

/// The events from a change on.
#[derive(Debug)]
pub(super) struct Events<'a> {
    client: &'a Client,
    group: Option<&'a str>,
    after: Option<i64>,
    stream: Option<reqwest::Response>,
    rest: Vec<u8>,
    ready: VecDeque<Event>,
}

impl<'a> Events<'a> {
    /// Begins to follow; nothing that happens after this returns is missed.
    pub(super) async fn open(
        client: &'a Client,
        group: Option<&'a str>,
        after: Option<i64>,
    ) -> Result<Self, Failure> {
        let mut events = Self {
            client,
            group,
            after,
            stream: None,
            rest: Vec::new(),
            ready: VecDeque::new(),
        };
        events.connect().await?;
        Ok(events)
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let after = self.after.map(|after| after.to_string());
        let mut query = Vec::new();
        query.extend(after.as_deref().map(|after| ("after", after)));
        query.extend(self.group.map(|group| ("group", group)));
        self.rest.clear();
        self.stream = Some(self.client.open(&["events"], &query).await?);
        Ok(())
    }

    /// The next event. An instance that stops is waited for; one that refuses is a failure.
    ///
    /// Whoever drops this future before it is ready loses nothing.
    pub(super) async fn next(&mut self) -> Result<Event, Failure> {
        const WAIT: Duration = Duration::from_millis(500);
        let mut told = false;
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let Some(id) = event.id {
                    self.after = Some(id);
                }
                return Ok(event);
            }
            let more = match &mut self.stream {
                Some(stream) => stream.chunk().await.ok().flatten(),
                None => None,
            };
            if let Some(bytes) = more {
                self.take(&bytes);
                continue;
            }
            self.stream = None;
            tokio::time::sleep(WAIT).await;
            match self.connect().await {
                Ok(()) => told = false,
                Err(failure) if !told => {
                    complain(&format!("{failure}; waiting for it"));
                    told = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Cuts what came into events.
    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(at) = self.rest.windows(2).position(|two| two == b"\n\n") {
            let rest = self.rest.split_off(at + 2);
            let whole = std::mem::replace(&mut self.rest, rest);
            self.ready.extend(read(&String::from_utf8_lossy(&whole)));
        }
    }
}

/// Ctrl-C from now on, none lost: not even one that comes while nobody waits for it.
pub(super) fn interrupts() -> Result<Signal, Failure> {
    signal(SignalKind::interrupt()).map_err(|error| Failure::of(&error))
}

/// One event from its lines; `None` if it is only a comment.
fn read(text: &str) -> Option<Event> {
    let mut event = Event::default();
    let mut data = None;
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("event", name)) => name.clone_into(&mut event.name),
            Some(("id", id)) => event.id = id.parse().ok(),
            Some(("data", text)) => data = serde_json::from_str(text).ok(),
            Some(_) | None => {}
        }
    }
    event.data = data?;
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_and_a_comment_is_none() {
        let event = read("event: item\nid: 7\ndata: {\"a\":1}\n\n").unwrap();
        assert_eq!((event.name.as_str(), event.id), ("item", Some(7)));
        assert_eq!(event.data, serde_json::json!({"a": 1}));
        assert_eq!(read(": \n\n"), None);
    }
}
