//! The two directions of `/agent/v1`: what the gateway wants, and what the agent reports. Both go
//! on through broken connections, and end when the run is over or the gateway is gone.

use std::time::{Duration, Instant};

use agent::{Acked, Event, Events, Failure, Turn};
use reqwest::StatusCode;
use tokio::sync::mpsc;

use crate::gateway::Gateway;
use crate::outbox::Outbox;
use crate::pause::Pause;
use crate::sse::{self, Broken, Stream};

/// The longest turn: a whole conversation.
const MAX_TURN: usize = 64 * 1024 * 1024;
/// How long the gateway may be silent; it says that it is there every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);
const POST_TIMEOUT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// Why the link has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    /// The gateway knows the run no longer.
    #[error("the gateway says that this run is over")]
    Over,
    /// Nothing from it for too long.
    #[error("the gateway was gone for {} seconds", .0.as_secs_f32())]
    Gone(Duration),
    /// It does not speak this protocol.
    #[error("the gateway's answer is not understood: {0}; use the agent that came with it")]
    Odd(String),
}

/// Counts the time without a sign of life.
#[derive(Debug)]
struct Life {
    last: Instant,
    most: Duration,
    pause: Pause,
}

impl Life {
    fn new(most: Duration) -> Self {
        Self {
            last: Instant::now(),
            most,
            pause: Pause::new(FIRST_PAUSE, MOST_PAUSE),
        }
    }

    fn sign(&mut self) {
        self.last = Instant::now();
        self.pause.reset();
    }

    /// Waits before the next try, if there is to be one.
    async fn wait(&mut self) -> Result<(), Ended> {
        let Some(left) = self.most.checked_sub(self.last.elapsed()) else {
            return Err(Ended::Gone(self.most));
        };
        tokio::time::sleep(self.pause.next().min(left)).await;
        Ok(())
    }
}

/// What a status says of the run.
fn verdict(status: StatusCode) -> Result<bool, Ended> {
    match status.as_u16() {
        200..300 => Ok(true),
        401 | 404 | 410 => Err(Ended::Over),
        408 | 425 | 429 | 500.. => Ok(false),
        other => Err(Ended::Odd(format!("HTTP {other}"))),
    }
}

/// Hands on what the gateway wants, each turn once and in order.
pub(crate) async fn turns(gateway: &Gateway, asks: &mpsc::Sender<Turn>, gone: Duration) -> Ended {
    let mut life = Life::new(gone);
    let mut last = 0;
    loop {
        if let Err(ended) = follow(gateway, asks, &mut last, &mut life).await {
            return ended;
        }
        if let Err(ended) = life.wait().await {
            return ended;
        }
    }
}

async fn follow(
    gateway: &Gateway,
    asks: &mpsc::Sender<Turn>,
    last: &mut u64,
    life: &mut Life,
) -> Result<(), Ended> {
    let request = gateway.get(&format!("/agent/v1/turns?after={last}"));
    let request = request.header(reqwest::header::ACCEPT, "text/event-stream");
    let Ok(Ok(response)) = tokio::time::timeout(SILENCE, request.send()).await else {
        return Ok(());
    };
    if !verdict(response.status())? {
        return Ok(());
    }
    if !sse::is_stream(&response) {
        return Err(Ended::Odd("no stream of events".to_owned()));
    }
    let mut stream = Stream::new(response, MAX_TURN, SILENCE);
    loop {
        match stream.alive().await {
            Ok(()) => life.sign(),
            Err(Broken::Cut | Broken::Silent) => return Ok(()),
            Err(broken @ Broken::TooLong(_)) => return Err(Ended::Odd(broken.to_string())),
        }
        while let Some(data) = stream.ready() {
            let turn: Turn = serde_json::from_slice(&data)
                .map_err(|_| Ended::Odd("a turn that cannot be read".to_owned()))?;
            if turn.seq <= *last {
                continue;
            }
            *last = turn.seq;
            if asks.send(turn).await.is_err() {
                // The work is over; what is left to report decides when it ends.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Sends what is in the outbox until the gateway has stored it; ends only with the link.
pub(crate) async fn deliver(gateway: &Gateway, outbox: &Outbox, gone: Duration) -> Ended {
    let mut most = usize::MAX;
    loop {
        let events = outbox.batch(most).await;
        let mut life = Life::new(gone);
        loop {
            match post(gateway, &events).await {
                Ok(Posted::Stored(upto)) if outbox.acknowledged(upto) => {
                    most = usize::MAX;
                    break;
                }
                Ok(Posted::TooLong) if events.len() > 1 => {
                    most = events.len() / 2;
                    break;
                }
                Ok(Posted::TooLong) => {
                    let first = events.first().map_or(0, |first| first.n);
                    let text = "a message is longer than the gateway takes".to_owned();
                    let failure = Failure::Limit;
                    outbox.replace(first, Event::Failed { failure, text });
                    break;
                }
                Ok(Posted::Stored(_) | Posted::Later) => {}
                Err(ended) => return ended,
            }
            if let Err(ended) = life.wait().await {
                return ended;
            }
        }
    }
}

enum Posted {
    Stored(u64),
    TooLong,
    Later,
}

async fn post(gateway: &Gateway, events: &[agent::Numbered]) -> Result<Posted, Ended> {
    let body = Events {
        events: events.to_vec(),
    };
    let sent = gateway.post("/agent/v1/events").json(&body);
    let Ok(answer) = sent.timeout(POST_TIMEOUT).send().await else {
        return Ok(Posted::Later);
    };
    if answer.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return Ok(Posted::TooLong);
    }
    if !verdict(answer.status())? {
        return Ok(Posted::Later);
    }
    let acked = answer.json::<Acked>().await;
    Ok(acked.map_or(Posted::Later, |acked| Posted::Stored(acked.acked)))
}
