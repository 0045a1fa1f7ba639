//! A group and the run it works on, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use agent::{Ask, Message, Turn};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::bounds::AT_ONCE;
use crate::host::{RunKey, Settings};
use crate::intake::Progress;
use crate::life::State;

/// A group.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) settings: Settings,
    /// One change of its queue and runs at a time.
    pub(super) order: tokio::sync::Mutex<()>,
    /// There may be something to do.
    pub(super) wake: Notify,
    /// What its agent may have under way.
    pub(super) places: Arc<Semaphore>,
    live: Mutex<Option<Live>>,
}

/// The run that an agent works on.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) key: RunKey,
    pub(super) progress: Progress,
    /// What the agent was told after it began, and has not heard.
    pub(super) turns: VecDeque<Told>,
    /// The number of the last turn.
    pub(super) told: u64,
    /// The broker holds a question.
    pub(super) waits: bool,
    /// When the agent last reported something, or the run came to where it is.
    pub(super) moved: Instant,
    /// When a line for people was last shown, and whether it still is.
    pub(super) lined: Option<Instant>,
    pub(super) line: bool,
    /// Counts the streams of turns: the newest is served.
    pub(super) streams: u64,
    /// Changes whenever a stream has to look again.
    pub(super) look: watch::Sender<()>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// A turn and the number of what was said in it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) turn: Turn,
    pub(super) said: Option<i64>,
}

/// What the worker has to know of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The agent has not said that it is there.
    Starting,
    /// It works.
    Working,
    /// It waits for a person.
    Waiting,
    /// It is over; the agent may end by itself.
    Over,
    /// It is over, and the agent is to be ended.
    Stopped,
}

impl Room {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            order: tokio::sync::Mutex::default(),
            wake: Notify::new(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            live: Mutex::default(),
        }
    }

    /// Does something with the run that is worked on, if there is one.
    pub(super) fn live<T>(&self, with: impl FnOnce(&mut Live) -> T) -> Option<T> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.as_mut().map(with)
    }

    /// Another run is worked on, or none.
    pub(super) fn set_live(&self, live: Option<Live>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }

    /// Whether this person may speak.
    pub(super) fn admits(&self, person: &str) -> bool {
        let members = &self.settings.members;
        members.is_empty() || members.iter().any(|member| member == person)
    }
}

impl Live {
    pub(super) fn new(key: RunKey, progress: Progress) -> Self {
        Self {
            key,
            progress,
            turns: VecDeque::new(),
            // The first turn is the beginning.
            told: 1,
            waits: false,
            moved: Instant::now(),
            lined: None,
            line: false,
            streams: 0,
            look: watch::Sender::new(()),
            phase: watch::Sender::new(Phase::Starting),
            permit: None,
        }
    }

    /// Tells the agent what a person said.
    pub(super) fn say(&mut self, said: i64, messages: Vec<Message>) {
        self.tell(Ask::Say { messages }, Some(said));
    }

    fn tell(&mut self, ask: Ask, said: Option<i64>) {
        self.told += 1;
        let turn = Turn {
            seq: self.told,
            ask,
        };
        self.turns.push_back(Told { turn, said });
        self.look.send_replace(());
    }

    /// The run has come to this.
    pub(super) fn advance(&mut self, progress: Progress) {
        let launch = self.progress.life.launch;
        let phase = match progress.life.state {
            State::Queued | State::Starting => Phase::Starting,
            State::Working => Phase::Working,
            State::Waiting => Phase::Waiting,
            State::Done | State::Failed => Phase::Over,
            State::Stopped => Phase::Stopped,
        };
        if phase == Phase::Stopped {
            let reason = "a person stopped the task".to_owned();
            self.tell(Ask::Stop { reason }, None);
        }
        // Told at every report, for whoever counts the time without one; but what follows another start
        // is the business of whoever starts.
        if progress.life.launch == launch {
            self.phase.send_replace(phase);
        }
        self.progress = progress;
        self.moved = Instant::now();
        self.look.send_replace(());
    }
}
