//! What an agent may report: a pure check of each event against what its run has come to.
//!
//! The agent may have been taken over. It can say what a model could have said, and results of
//! calls that are open; it cannot speak for people, reorder the conversation or leave it in a
//! state in which no provider takes it.

pub(crate) mod blocks;

use std::collections::{BTreeMap, BTreeSet};

use agent::{Event, Events, Failure, Message, Role, VERSION};
use serde_json::Value;

use crate::bounds::{
    DELTA_BYTES, EVENTS, EVENTS_PER_LAUNCH, LINE_CHARS, MESSAGE_BYTES, RUN_BYTES, RUN_MESSAGES,
};
use crate::life::{Life, State, Step};

/// What a run has come to.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) life: Life,
    /// The number of the last event that was taken.
    pub(crate) last_event: u64,
    /// The number that is stored: text that streams is not.
    pub(crate) stored_event: u64,
    /// Tool calls of the last message, while it has no results.
    pub(crate) calls: Vec<String>,
    /// Those results that were reported one by one.
    pub(crate) results: BTreeMap<String, Value>,
    /// The ids of all tool calls of the run.
    pub(crate) used: BTreeSet<String>,
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// The last message is the model's and asks for nothing.
    pub(crate) answered: bool,
    /// The item that is being written.
    pub(crate) writing: Option<u64>,
}

/// What follows from an event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// The conversation goes on with this.
    Store {
        role: Role,
        content: Vec<Value>,
        /// The number of the item that shows it.
        item: Option<u64>,
    },
    /// A result is kept until its message comes.
    Keep { id: String, block: Value },
    /// What was said in the turns up to this one stands in the conversation from here.
    Hear { turn: u64 },
    /// More of a text that is being written.
    Write { item: u64, text: String },
    /// It will not be.
    Drop { item: u64 },
    /// A line for people.
    Line(String),
    /// The run is over; with words, it failed.
    Over(Option<String>),
}

/// Why events are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The run is over, or a process that is gone sent them.
    #[error("the run is over, or a newer agent works on it")]
    Stale,
    /// They cannot be what an agent reports.
    #[error("{0}")]
    Shape(&'static str),
    /// It is too much: the run ends here.
    #[error("{0}")]
    TooMuch(&'static str),
}

impl Progress {
    /// A run without messages.
    pub(crate) fn new(life: Life) -> Self {
        Self {
            life,
            last_event: 0,
            stored_event: 0,
            calls: Vec::new(),
            results: BTreeMap::new(),
            used: BTreeSet::new(),
            messages: 0,
            bytes: 0,
            answered: false,
            writing: None,
        }
    }

    /// The number after which the newest agent's events begin.
    fn base(&self) -> u64 {
        u64::from(self.life.launch) * EVENTS_PER_LAUNCH
    }

    /// The number of the next event.
    pub(crate) fn next_event(&self) -> u64 {
        self.last_event.max(self.base()) + 1
    }

    /// What really happens where an agent was lost: one that has answered was done.
    pub(crate) fn recovered(&self, step: Step) -> Step {
        let gone = matches!(step, Step::Resume | Step::Lost);
        if gone && self.answered {
            Step::Done
        } else {
            step
        }
    }

    /// Notes a message that was stored for this run.
    pub(crate) fn stored(&mut self, role: Role, content: &[Value], bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
        self.calls.clear();
        self.results.clear();
        if role == Role::Assistant {
            let ids = content.iter().filter(|block| block["type"] == "tool_use");
            let ids = ids.filter_map(|block| block.get("id")?.as_str());
            self.calls = ids.map(str::to_owned).collect();
            self.used.extend(self.calls.iter().cloned());
        }
        self.answered = role == Role::Assistant && self.calls.is_empty();
    }

    /// Takes a report, of which what was taken before is left out. `told` is the number of the last
    /// turn that the agent was given.
    pub(crate) fn take(&mut self, events: Events, told: u64) -> Result<Vec<Effect>, Refused> {
        if events.events.len() > EVENTS {
            return Err(Refused::Shape("too many events in one report"));
        }
        let mut effects = Vec::new();
        let mut before = 0;
        for numbered in events.events {
            let n = numbered.n;
            if n <= before {
                return Err(Refused::Shape("the numbers of events grow"));
            }
            before = n;
            if n <= self.base() {
                return Err(Refused::Stale);
            }
            if n > self.base() + EVENTS_PER_LAUNCH {
                return Err(Refused::TooMuch("the agent reported too many events"));
            }
            if n > self.last_event {
                self.last_event = n;
                self.one(n, numbered.event, told, &mut effects)?;
            }
        }
        Ok(effects)
    }

    fn one(
        &mut self,
        n: u64,
        event: Event,
        told: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        match (self.life.state, &event) {
            (State::Starting, Event::Hello { .. } | Event::Failed { .. })
            | (State::Working | State::Waiting, _) => {}
            (State::Starting, _) => return Err(Refused::Shape("`hello` comes first")),
            (State::Queued | State::Done | State::Failed | State::Stopped, _) => {
                return Err(Refused::Stale);
            }
        }
        match event {
            Event::Hello { protocol, .. } if protocol != VERSION => {
                let text = format!(
                    "the agent speaks version {protocol} of the protocol and the gateway {VERSION}; \
                     use the agent that came with this gateway"
                );
                self.over(Step::Fail, Some(text), effects);
            }
            Event::Hello { .. } => self.step(Step::Hello),
            Event::Delta { text } if text.len() > DELTA_BYTES => {
                return Err(Refused::Shape("a piece of text is too long"));
            }
            Event::Delta { text } => {
                let item = *self.writing.get_or_insert(n);
                effects.push(Effect::Write { item, text });
            }
            Event::Message { message } => self.message(n, &message, effects)?,
            Event::Heard { seq } => {
                if seq > told {
                    return Err(Refused::Shape("this turn was not given"));
                }
                if !self.calls.is_empty() {
                    return Err(Refused::Shape("the results of tool calls come first"));
                }
                effects.push(Effect::Hear { turn: seq });
                // What people say is to be answered.
                self.answered = false;
            }
            Event::Result { block } => {
                let (id, block) = blocks::result(&block)?;
                if !self.calls.contains(&id) {
                    return Err(Refused::Shape("a result without a call"));
                }
                if !self.results.contains_key(&id) {
                    self.results.insert(id.clone(), block.clone());
                    let all = self.results.values().map(size).sum::<usize>();
                    if all > MESSAGE_BYTES {
                        return Err(Refused::TooMuch("the results of tool calls are too long"));
                    }
                    effects.push(Effect::Keep { id, block });
                }
            }
            Event::Status { text } => {
                self.drop_writing(effects);
                effects.push(Effect::Line(line(&text)));
            }
            Event::Done => self.over(Step::Done, None, effects),
            Event::Failed { failure, text } => {
                let text = match line(&text) {
                    text if text.is_empty() => words(failure).to_owned(),
                    // It can write what it likes, and is not to be taken for the gateway.
                    text => format!("{}; the agent says: {text}", words(failure)),
                };
                self.over(Step::Fail, Some(text), effects);
            }
        }
        Ok(())
    }

    fn message(
        &mut self,
        n: u64,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refused> {
        let content = match message.role {
            Role::Assistant => {
                if !self.calls.is_empty() {
                    return Err(Refused::Shape("the results of tool calls come first"));
                }
                let (content, calls) = blocks::assistant(&message.content)?;
                if calls.iter().any(|call| self.used.contains(call)) {
                    return Err(Refused::Shape("an id of a tool call is used again"));
                }
                content
            }
            Role::User => {
                let results = message.content.iter().map(blocks::result);
                let results = results.collect::<Result<Vec<_>, _>>()?;
                let ids: BTreeSet<&String> = results.iter().map(|(id, _)| id).collect();
                if results.is_empty()
                    || ids.len() != results.len()
                    || ids != self.calls.iter().collect()
                {
                    return Err(Refused::Shape("each open tool call has one result"));
                }
                results.into_iter().map(|(_, block)| block).collect()
            }
        };
        let bytes = content.iter().map(size).sum::<usize>();
        if bytes > MESSAGE_BYTES || self.bytes + bytes > RUN_BYTES {
            return Err(Refused::TooMuch(
                "the agent wrote more than a task may hold",
            ));
        }
        if self.messages >= RUN_MESSAGES {
            return Err(Refused::TooMuch("the agent wrote too many messages"));
        }
        let shown = message.role == Role::Assistant && !said(&content).is_empty();
        let item = match (shown, self.writing.take()) {
            (true, writing) => Some(writing.unwrap_or(n)),
            (false, Some(item)) => {
                effects.push(Effect::Drop { item });
                None
            }
            (false, None) => None,
        };
        // Nothing of a message of blanks is left: no provider takes it.
        if content.is_empty() {
            return Ok(());
        }
        self.stored(message.role, &content, bytes);
        effects.push(Effect::Store {
            role: message.role,
            content,
            item,
        });
        Ok(())
    }

    fn step(&mut self, step: Step) {
        if let Some(life) = self.life.after(step) {
            self.life = life;
        }
    }

    fn over(&mut self, step: Step, words: Option<String>, effects: &mut Vec<Effect>) {
        self.step(step);
        self.drop_writing(effects);
        effects.push(Effect::Over(words));
    }

    fn drop_writing(&mut self, effects: &mut Vec<Effect>) {
        if let Some(item) = self.writing.take() {
            effects.push(Effect::Drop { item });
        }
    }
}

/// The text of a message, as people read it.
pub(crate) fn said(content: &[Value]) -> String {
    let texts = content.iter().filter(|block| block["type"] == "text");
    texts
        .filter_map(|block| block.get("text")?.as_str())
        .collect()
}

/// How long a block is as JSON, in bytes.
pub(crate) fn size(block: &Value) -> usize {
    block.to_string().len()
}

/// What an agent wrote for people, as one line.
fn line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let line: String = text.chars().map(clean).collect();
    line.trim().chars().take(LINE_CHARS).collect()
}

/// Whether a run ended with this because the provider refused what it was sent.
pub(crate) fn is_refusal(error: &str) -> bool {
    error.starts_with(words(Failure::Refused))
}

fn words(failure: Failure) -> &'static str {
    match failure {
        Failure::Credential => {
            "the model's provider does not accept the key; check the configuration"
        }
        Failure::Overloaded => "the model's provider has no room now; write again later",
        Failure::Refused => "the model's provider refuses the request",
        Failure::Provider => "nothing sensible came from the model's provider; write again later",
        Failure::Limit => "a limit of the task was reached",
        Failure::Agent => "the agent failed",
    }
}
