//! The way back: every piece leaves as it comes. Whatever ends it (the last piece, a provider that
//! breaks off, a caller that goes away, the gateway's stop) closes the record, once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use policy::record::{Event, Outcome};
use tokio::runtime::Handle;

use super::meter::Meter;
use super::provider::{Answered, Broken, Pieces};
use super::{Slot, answer};
use crate::audit::{Opens, Write};
use crate::broker::Broker;
use crate::conversations::Underway;
use crate::db::usage::{Tokens, Usage};
use crate::fault;

/// How long an answer may go on once the gateway is stopping.
const GRACE: Duration = Duration::from_secs(5);

/// The open record of a call. Dropped, it is closed: the caller has gone.
#[derive(Debug)]
#[must_use = "dropped, it says that the caller has gone"]
pub struct Ledger {
    broker: Arc<Broker>,
    usage: Option<Usage>,
    meter: Meter,
    problem: Option<String>,
    handle: Handle,
    underway: Option<Underway>,
}

impl Ledger {
    /// Of a call whose record has just been written; `usage` is filled in at the end.
    pub fn open(broker: Arc<Broker>, usage: Usage) -> Self {
        Self {
            broker,
            usage: Some(usage),
            meter: Meter::new(""),
            problem: None,
            handle: Handle::current(),
            underway: None,
        }
    }

    /// The labels of the call stay as long as its answer is passed on.
    pub fn keeps(&mut self, underway: Option<Underway>) {
        self.underway = underway;
    }

    /// The provider has answered; what it says is read from here on.
    pub fn answered(&mut self, answered: &Answered) {
        let kind = answered.headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        self.meter = Meter::new(kind.unwrap_or_default());
        self.problem.clone_from(&answered.problem);
        if let Some(usage) = &mut self.usage {
            usage.status = answered.status.as_u16();
        }
    }

    /// It has ended without an answer of the provider.
    pub fn failed(mut self, why: &str) {
        self.close(Outcome::Error, Some(why));
    }

    /// It has ended: with all of its pieces, or in the middle.
    fn ended(&mut self, broken: Option<Broken>) {
        if let Some(broken) = broken {
            return self.close(Outcome::Error, Some(&broken.to_string()));
        }
        self.meter.end();
        self.close_as_read("the answer ended before its end");
    }

    fn close_as_read(&mut self, otherwise: &str) {
        let problem = self.problem.take();
        let told = problem.or_else(|| self.meter.error().map(str::to_owned));
        match told {
            Some(told) => self.close(Outcome::Error, Some(&told)),
            None if self.meter.ended() => self.close(Outcome::Ok, None),
            None => self.close(Outcome::Error, Some(otherwise)),
        }
    }

    fn close(&mut self, outcome: Outcome, why: Option<&str>) {
        let Some(mut usage) = self.usage.take() else {
            return;
        };
        usage.at = Timestamp::now();
        usage.tokens = self.meter.tokens();
        let took = took(usage.tokens);
        let detail = why.map_or_else(|| took.clone(), |why| format!("{why}; {took}"));
        let closed = Event::Closed {
            outcome,
            detail: Some(self.broker.masked_of_models(&detail)),
            result: (outcome == Outcome::Ok).then(|| self.meter.digest().into()),
        };
        let broker = self.broker.clone();
        let write = Write::new(usage.action.as_str(), closed).opens(Opens::Ends);
        self.broker.tasks.spawn_on(
            async move {
                fault::point("model.over").await;
                broker.audit.write_later(write).await;
                fault::point("model.closed").await;
                broker.models.count(usage).await;
            },
            &self.handle,
        );
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.usage.is_some() {
            self.close_as_read("the caller went away");
        }
    }
}

/// What a call took, in words.
fn took(tokens: Tokens) -> String {
    let Tokens {
        input,
        output,
        cache_read,
        cache_write,
    } = tokens;
    if cache_read == 0 && cache_write == 0 {
        return format!("{input} tokens in, {output} out");
    }
    format!(
        "{input} tokens in, {output} out, {cache_read} from the cache and {cache_write} into it"
    )
}

/// An answer on its way.
struct Relay {
    pieces: Pieces,
    ledger: Ledger,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    over: bool,
    _slot: Slot,
}

/// Passes an answer back.
pub(super) fn response(
    answered: Answered,
    ledger: Ledger,
    slot: Slot,
    broker: &Arc<Broker>,
) -> Response {
    let stopping = broker.stopping.clone();
    let relay = Relay {
        pieces: answered.pieces,
        ledger,
        stopping: Box::pin(async move {
            stopping.cancelled().await;
            tokio::time::sleep(GRACE).await;
        }),
        over: false,
        _slot: slot,
    };
    let body = Body::from_stream(futures::stream::unfold(relay, next));
    with_head(body, answered.status, answered.headers)
}

fn with_head(body: Body, status: StatusCode, headers: HeaderMap) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Reads an answer to its end, for the gateway itself; nothing if it is longer than `most` bytes or
/// breaks off.
pub(crate) async fn whole(
    mut answered: Answered,
    mut ledger: Ledger,
    most: usize,
) -> Option<Bytes> {
    let mut all = Vec::new();
    while let Some(piece) = answered.pieces.next().await {
        match piece {
            Ok(piece) if all.len() + piece.len() <= most => {
                ledger.meter.see(&piece);
                all.extend_from_slice(&piece);
            }
            Ok(_) => {
                ledger.close(Outcome::Error, Some("the answer is too long"));
                return None;
            }
            Err(broken) => {
                ledger.ended(Some(broken));
                return None;
            }
        }
    }
    ledger.ended(None);
    Some(all.into())
}

async fn next(mut relay: Relay) -> Option<(Result<Bytes, Broken>, Relay)> {
    if relay.over {
        return None;
    }
    let piece = tokio::select! {
        piece = relay.pieces.next() => piece,
        () = &mut relay.stopping => Some(Err(Broken::Stopping)),
    };
    match piece {
        Some(Ok(piece)) => {
            relay.ledger.meter.see(&piece);
            Some((Ok(piece), relay))
        }
        None => {
            relay.ledger.ended(None);
            None
        }
        Some(Err(broken)) => {
            relay.over = true;
            let last = last_words(&relay.ledger.meter, broken);
            relay.ledger.ended(Some(broken));
            // What came before leaves first: an error throws away what the connection still holds.
            tokio::task::yield_now().await;
            Some((last, relay))
        }
    }
}

/// An answer that broke off: in a stream an event says so, as the API's own errors do; where none can
/// follow, the connection breaks as the provider's did.
fn last_words(meter: &Meter, broken: Broken) -> Result<Bytes, Broken> {
    if !meter.between_lines() {
        return Err(broken);
    }
    let body = answer::body("api_error", &broken.to_string());
    // The empty line ends whatever was begun.
    Ok(format!("\nevent: error\ndata: {body}\n\n").into())
}
