//! `portcullis-agent`: the side of an agent that runs inside its sandbox.
//!
//! It dials home ([`link`]) and drives a core: its own loop ([`native`]), or any program
//! ([`command`]). It holds one credential, its run's token, and never writes it anywhere.

mod command;
mod gateway;
mod link;
mod mcp;
mod model;
mod native;
mod outbox;
mod pause;
mod sse;
mod start;
mod tools;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use agent::{Ask, Begin, Event, Failure, Turn, VERSION};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use link::Ended;
use outbox::Outbox;
use start::{Core, Start};

/// Told to stop by a signal.
const STOPPED: u8 = 143;

/// How the run failed, as it is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failed {
    failure: Failure,
    text: String,
}

/// How long is waited for others.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For the model to say anything.
    stall: Duration,
    /// Before the model is asked again, at first.
    retry: Duration,
    /// For the gateway to come back.
    gone: Duration,
}

/// How the process ends.
#[derive(Debug)]
enum End {
    /// Everything was reported, or nothing is expected any more.
    Finished,
    /// The link to the gateway has ended.
    Link(Ended),
    /// By a signal.
    Stopped,
}

fn main() -> ExitCode {
    let start = match start::read() {
        Ok(start) => start,
        Err(start::Wrong::Shown(text)) => {
            log(&text);
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            log(&format!("portcullis-agent: {wrong}"));
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let end = match runtime {
        Ok(runtime) => runtime.block_on(run(&start)),
        Err(error) => Err(error),
    };
    match end {
        Ok(End::Finished | End::Link(Ended::Over)) => ExitCode::SUCCESS,
        Ok(End::Stopped) => ExitCode::from(STOPPED),
        Ok(End::Link(ended @ (Ended::Gone(_) | Ended::Odd(_)))) => {
            log(&format!("portcullis-agent: {ended}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            log(&format!("portcullis-agent: cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line into the agent's log, if somebody still reads it.
fn log(line: &str) {
    _ = writeln!(std::io::stderr(), "{line}");
}

/// Both directions of the link and the core, side by side; what ends first ends all.
async fn run(start: &Start) -> std::io::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (hand, mut asks) = mpsc::channel(64);
    let gone = start.patience.gone;
    let work = async {
        let Some((seq, begin)) = first(&mut asks).await else {
            return End::Finished;
        };
        let outbox = Outbox::new(begin.next_event);
        tokio::select! {
            biased;
            () = work(start, seq, begin, asks, &outbox) => End::Finished,
            ended = link::deliver(&start.gateway, &outbox, gone) => End::Link(ended),
        }
    };
    let end = tokio::select! {
        biased;
        _ = terminate.recv() => End::Stopped,
        _ = interrupt.recv() => End::Stopped,
        end = work => end,
        ended = link::turns(&start.gateway, &hand, gone) => End::Link(ended),
    };
    Ok(end)
}

/// What to work on and in which turn it came, unless the run is stopped before it begins.
async fn first(asks: &mut mpsc::Receiver<Turn>) -> Option<(u64, Begin)> {
    loop {
        let turn = asks.recv().await?;
        match turn.ask {
            Ask::Begin(begin) => return Some((turn.seq, *begin)),
            Ask::Stop { .. } => return None,
            Ask::Say { .. } => {}
        }
    }
}

/// Drives the core to its end and waits until that is stored, unless people say stop.
async fn work(start: &Start, seq: u64, begin: Begin, asks: mpsc::Receiver<Turn>, outbox: &Outbox) {
    let core = start.core.name();
    outbox
        .event(Event::Hello {
            protocol: VERSION,
            core,
        })
        .await;
    let ended = if begin.protocol == VERSION {
        match &start.core {
            Core::Native => own_loop(start, begin, asks, outbox).await,
            Core::Command(program) => {
                let turn = Turn {
                    seq,
                    ask: Ask::Begin(Box::new(begin)),
                };
                command::run(&start.gateway, program, turn, asks, outbox).await
            }
        }
    } else {
        let (theirs, failure) = (begin.protocol, Failure::Agent);
        let text = format!(
            "the gateway speaks version {theirs} and the agent version {VERSION}; install both from one release"
        );
        Some(Event::Failed { failure, text })
    };
    if let Some(event) = ended {
        outbox.event(event).await;
        outbox.empty().await;
    }
}

/// The own loop, until it ends or people say stop. What it was doing is dropped then: calls that
/// wait are taken back by their closed connections.
async fn own_loop(
    start: &Start,
    begin: Begin,
    mut asks: mpsc::Receiver<Turn>,
    outbox: &Outbox,
) -> Option<Event> {
    let said = native::Said::default();
    let heard = async {
        while let Some(turn) = asks.recv().await {
            match turn.ask {
                Ask::Say { messages } => said.add(turn.seq, messages),
                Ask::Stop { .. } => return,
                // For an agent that was restarted; this one was not.
                Ask::Begin(_) => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = heard => None,
        done = native::run(&start.gateway, &start.patience, begin, &said, outbox) => {
            Some(match done {
                Ok(()) => Event::Done,
                Err(Failed { failure, text }) => Event::Failed { failure, text },
            })
        }
    }
}
