//! The agent's own loop: model → tool calls → model, until the model has nothing more to call.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent::{Begin, Event, Failure, Message, Role};

use crate::gateway::Gateway;
use crate::mcp::Mcp;
use crate::model::{Answer, Model, Stop};
use crate::outbox::Outbox;
use crate::tools::{Tools, calls, not_done};
use crate::{Failed, Patience};

/// What people said while the agent worked, and the turn in which they said the last of it.
#[derive(Debug, Default)]
pub(crate) struct Said(Mutex<(u64, Vec<Message>)>);

impl Said {
    /// Keeps more for the next turn of the model.
    pub(crate) fn add(&self, seq: u64, messages: Vec<Message>) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.0 = seq;
        said.1.extend(messages);
    }

    fn take(&self) -> Option<(u64, Vec<Message>)> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (seq, messages) = (said.0, std::mem::take(&mut said.1));
        (!messages.is_empty()).then_some((seq, messages))
    }
}

/// Works until the last message is the model's and nothing is left to answer.
///
/// # Errors
/// Why the run failed, for people.
pub(crate) async fn run(
    gateway: &Gateway,
    patience: &Patience,
    begin: Begin,
    said: &Said,
    outbox: &Outbox,
) -> Result<(), Failed> {
    let limits = begin.limits;
    let tools = Tools::list(Mcp(gateway)).await.map_err(|error| Failed {
        failure: Failure::Agent,
        text: format!("the tools cannot be listed: {error}"),
    })?;
    let model = Model {
        gateway,
        name: &begin.model,
        system: &begin.system,
        tools: tools.definitions(),
        max_tokens: limits.max_tokens,
        stall: patience.stall,
        retry: patience.retry,
    };
    let mut messages = begin.history;
    let mut worked = Worked::new(limits.seconds);
    let mut turns = limits.turns;

    // Calls that were open when the agent was restarted.
    if let Some(last) = messages.last().filter(|last| last.role == Role::Assistant) {
        let open = calls(last);
        if !open.is_empty() {
            let results = tools.answer(&open, &begin.results, true, &limits, outbox);
            let content = results.await;
            report(&mut messages, Role::User, content, outbox).await;
        }
    }
    let mut paused = false;
    loop {
        if let Some((seq, more)) = said.take() {
            outbox.event(Event::Heard { seq }).await;
            messages.extend(more);
        }
        match messages.last() {
            None => return Err(failed(Failure::Agent, "there is nothing to answer")),
            Some(last) if last.role == Role::Assistant && !paused => return Ok(()),
            Some(_) => {}
        }
        let Some(left) = turns.checked_sub(1) else {
            return Err(out_of_turns(limits.turns));
        };
        turns = left;
        let Answer { content, stop } = worked.on(model.ask(&messages, outbox)).await?;
        if stop == Stop::Refusal {
            let text = "the model declines to answer this; say it differently";
            return Err(failed(Failure::Refused, text));
        }
        if content.is_empty() {
            return ended(stop, limits.max_tokens);
        }
        let answer = report(&mut messages, Role::Assistant, content, outbox).await;
        paused = stop == Stop::Pause;
        let asked = calls(&answer);
        if asked.is_empty() {
            if stop == Stop::Length {
                return ended(stop, limits.max_tokens);
            }
            continue;
        }
        paused = false;
        if turns == 0 {
            // Nobody would read the results: better not done than done unseen.
            let why = "not executed: the run's limit of turns is reached";
            let results = asked.iter().map(|call| not_done(call, why)).collect();
            report(&mut messages, Role::User, results, outbox).await;
            return Err(out_of_turns(limits.turns));
        }
        // Nothing is called that is not stored: an agent that is started again must find the call, or
        // the model would ask for it a second time.
        outbox.empty().await;
        let results = tools.answer(&asked, &[], false, &limits, outbox).await;
        report(&mut messages, Role::User, results, outbox).await;
    }
}

/// Adds a message to the conversation, here and at the gateway.
async fn report(
    messages: &mut Vec<Message>,
    role: Role,
    content: Vec<serde_json::Value>,
    outbox: &Outbox,
) -> Message {
    let message = Message { role, content };
    messages.push(message.clone());
    let event = Event::Message {
        message: message.clone(),
    };
    outbox.event(event).await;
    message
}

fn ended(stop: Stop, max_tokens: u32) -> Result<(), Failed> {
    if stop != Stop::Length {
        return Ok(());
    }
    let text = format!("the model's answer was cut off at the limit of {max_tokens} tokens");
    Err(failed(Failure::Limit, &text))
}

fn out_of_turns(turns: u32) -> Failed {
    let text = format!("the limit of {turns} turns of the model is reached; say more to go on");
    failed(Failure::Limit, &text)
}

fn failed(failure: Failure, text: &str) -> Failed {
    let text = text.to_owned();
    Failed { failure, text }
}

/// Counts the time of work. Time inside tool calls is not counted: a person may have been waited
/// for, and the gateway limits how long a server may take.
#[derive(Debug)]
struct Worked {
    limit: u64,
    left: Duration,
}

impl Worked {
    fn new(limit: u64) -> Self {
        Self {
            limit,
            left: Duration::from_secs(limit),
        }
    }

    async fn on<T>(&mut self, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let began = Instant::now();
        let done = tokio::time::timeout(self.left, work).await;
        self.left = self.left.saturating_sub(began.elapsed());
        done.unwrap_or_else(|_| {
            let limit = self.limit;
            let text =
                format!("the limit of {limit} seconds of work is reached; say more to go on");
            Err(failed(Failure::Limit, &text))
        })
    }
}
