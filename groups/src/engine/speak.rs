//! Speaking with agents: what they are told, and what they report.

use std::sync::Arc;

use agent::{Acked, Ask, Begin, Events, Message, Turn, VERSION};
use futures::Stream;
use futures::stream::unfold;
use jiff::Timestamp;
use policy::ids::RunId;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::show::item;
use super::{Groups, Room};
use crate::bounds::{AT_ONCE, LINES_EVERY};
use crate::db::{Change, DbError, Entry, conversation_of};
use crate::history::{Kind, budget, closing, window};
use crate::intake::{Effect, Progress, Refused};
use crate::life::Step;

/// Why an agent is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// There is no such run that an agent works on: end.
    #[error("this run is over")]
    NoRun,
    /// Try again when something has ended.
    #[error("this run has {AT_ONCE} requests under way; try again")]
    TooMany,
}

/// Why events were not taken. None of one report was, then.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The run is over, or another agent works on it: end.
    #[error("this run is over, or works with a newer agent")]
    NoRun,
    /// They cannot be what an agent reports: end.
    #[error("the events cannot be taken: {0}")]
    Invalid(&'static str),
    /// They are more than a run may hold: the run has failed.
    #[error("the run has ended: {0}")]
    TooMuch(&'static str),
    /// They could not be stored: report them again.
    #[error("the events could not be stored; report them again")]
    Db(#[from] DbError),
}

/// Where a stream of turns is.
struct Following {
    groups: Arc<Groups>,
    room: Arc<Room>,
    run: RunId,
    launch: u32,
    stream: u64,
    look: watch::Receiver<()>,
    after: u64,
    _place: OwnedSemaphorePermit,
}

impl Groups {
    /// A place for one request of a run's agent: to be had before more of it is read than who asks.
    ///
    /// # Errors
    /// [`NotServed`].
    pub fn place(&self, run: &RunId) -> Result<OwnedSemaphorePermit, NotServed> {
        let room = self.room_of(run).ok_or(NotServed::NoRun)?;
        let place = room.places.clone().try_acquire_owned();
        place.map_err(|_| NotServed::TooMany)
    }

    /// What is wanted of the agent of a run, beyond what it has; ends when the run is over, with a
    /// newer agent, or when the agent asks anew.
    ///
    /// # Errors
    /// [`NotServed`].
    pub fn turns(
        self: &Arc<Self>,
        run: &RunId,
        after: u64,
    ) -> Result<impl Stream<Item = Turn> + Send + use<>, NotServed> {
        let place = self.place(run)?;
        let room = self.room_of(run).ok_or(NotServed::NoRun)?;
        let following = room.live(|live| {
            live.streams += 1;
            // The stream before it is to see that it is not the newest any more.
            live.look.send_replace(());
            Following {
                groups: self.clone(),
                room: room.clone(),
                run: run.clone(),
                launch: live.progress.life.launch,
                stream: live.streams,
                look: live.look.subscribe(),
                after,
                _place: place,
            }
        });
        let following = following.ok_or(NotServed::NoRun)?;
        Ok(unfold(following, |mut following| async move {
            let turn = following.next().await?;
            Some((turn, following))
        }))
    }

    /// Takes what an agent reports: all of it or nothing, and what it has reported before once.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn events(&self, run: &RunId, events: Events) -> Result<Acked, EventError> {
        let groups = self.me.upgrade().ok_or(EventError::NoRun)?;
        let run = run.clone();
        // Whoever reports may be gone before it is done.
        let taken = self
            .tasks
            .spawn(async move { groups.take_events(&run, events).await });
        taken.await.unwrap_or(Err(EventError::NoRun))
    }

    async fn take_events(&self, run: &RunId, events: Events) -> Result<Acked, EventError> {
        let room = self.room_of(run).ok_or(EventError::NoRun)?;
        let _one = room.order.lock().await;
        let now = room.live(|live| {
            (live.key.run == *run).then(|| (live.progress.clone(), live.told, live.key.clone()))
        });
        let Some((before, told, key)) = now.flatten() else {
            return Err(EventError::NoRun);
        };
        let mut progress = before.clone();
        let effects = match progress.take(events, told) {
            Ok(effects) => effects,
            Err(Refused::Stale) => return Err(EventError::NoRun),
            Err(Refused::Shape(what)) => {
                tracing::warn!(run.id = %run, "the agent of run `{run}` reported what it cannot: {what}");
                return Err(EventError::Invalid(what));
            }
            Err(Refused::TooMuch(what)) => {
                if let Some(stored) = self.db.run(run).await? {
                    let words = Some(what.to_owned());
                    self.step(Some(&room), &stored, Step::Fail, words).await?;
                }
                return Err(EventError::TooMuch(what));
            }
        };
        if let Some((change, heard)) = change(&room, &key, &before, &progress, &effects) {
            self.db.change(change).await?;
            progress.stored_event = progress.last_event;
            room.live(|live| {
                live.turns.retain(|told| told.turn.seq > heard);
            });
        }
        let acked = progress.last_event;
        let over = progress.life.state.is_over();
        room.live(|live| live.advance(progress));
        let streams = |effect: &Effect| matches!(effect, Effect::Write { .. });
        let quick = !effects.is_empty() && effects.iter().all(streams);
        self.show(&room, run, effects, quick).await?;
        if !over {
            self.settle(&room, run).await?;
        }
        Ok(Acked { acked })
    }

    /// Shows what follows from a report; and what could not be shown when it came before.
    async fn show(
        &self,
        room: &Room,
        run: &RunId,
        effects: Vec<Effect>,
        quick: bool,
    ) -> Result<(), DbError> {
        let place = room.settings.name.as_str();
        let conversation = conversation_of(&room.settings.name);
        let mut line = None;
        let mut cleared = false;
        for effect in effects {
            match effect {
                Effect::Write { item: n, text } => {
                    cleared = true;
                    self.web.write(place, &item(run.as_str(), n), &text);
                }
                Effect::Drop { item: n } => {
                    self.web.drop_writing(place, &item(run.as_str(), n));
                }
                Effect::Store { item: n, .. } => {
                    cleared = true;
                    if n.is_some() {
                        self.show_messages(Some(&conversation)).await?;
                    }
                }
                Effect::Line(text) => (line, cleared) = (Some(text), false),
                Effect::Keep { .. } | Effect::Hear { .. } | Effect::Over(_) => {}
            }
        }
        if !quick {
            self.show_messages(Some(&conversation)).await?;
        }
        let now = Instant::now();
        let line = room.live(|live| {
            let soon = live.lined.is_some_and(|at| now - at < LINES_EVERY);
            match line {
                Some(text) if !soon && !cleared => {
                    (live.lined, live.line) = (Some(now), true);
                    Some(text)
                }
                // Where the model goes on, an old line is taken away.
                _ if cleared && live.line => {
                    live.line = false;
                    Some(String::new())
                }
                _ => None,
            }
        });
        match line.flatten() {
            Some(text) if text.is_empty() => match self.db.run(run).await? {
                Some(stored) => self.put_run(&stored, None).await,
                None => Ok(()),
            },
            None if quick => Ok(()),
            line => self.show_run(run, line).await,
        }
    }

    /// Everything that an agent begins with.
    async fn begin_with(&self, room: &Room, run: &RunId) -> Result<Option<Turn>, DbError> {
        let _one = room.order.lock().await;
        let now = room
            .live(|live| (live.key.run == *run).then(|| (live.progress.clone(), live.key.clone())));
        let Some((progress, key)) = now.flatten() else {
            return Ok(None);
        };
        let budget = budget(self.db.refused(&key.group).await?);
        let stored = self.db.end(&key, budget).await?;
        let settings = &room.settings;
        let begin = Begin {
            protocol: VERSION,
            run: run.as_str().to_owned(),
            group: settings.name.as_str().to_owned(),
            model: settings.model.clone(),
            system: settings.system.clone(),
            history: window(stored, run.as_str(), budget),
            next_event: progress.next_event(),
            results: progress.results.into_values().collect(),
            resumed: progress.life.launch > 1,
            limits: settings.limits,
        };
        Ok(Some(Turn {
            seq: 1,
            ask: Ask::Begin(Box::new(begin)),
        }))
    }
}

impl Following {
    async fn next(&mut self) -> Option<Turn> {
        if self.after == 0 {
            let begin = self.groups.begin_with(&self.room, &self.run).await;
            let begin = begin.unwrap_or_else(|error| {
                tracing::error!("run `{}` cannot be read: {error}", self.run);
                None
            });
            self.after = 1;
            return begin;
        }
        loop {
            self.look.mark_unchanged();
            let turn = self.room.live(|live| {
                let newest = live.key.run == self.run
                    && live.progress.life.launch == self.launch
                    && live.streams == self.stream;
                if !newest {
                    return None;
                }
                let mut turns = live.turns.iter().map(|told| &told.turn);
                let turn = turns.find(|turn| turn.seq > self.after).cloned();
                if turn.is_none() && live.progress.life.state.is_over() {
                    return None;
                }
                Some(turn)
            });
            if let Some(turn) = turn.flatten()? {
                self.after = turn.seq;
                return Some(turn);
            }
            let stopping = self.groups.stopping.clone();
            let changed = self.look.changed();
            stopping.run_until_cancelled(changed).await?.ok()?;
        }
    }
}

/// What a report changes in the database, and up to which turn it was heard; nothing, if it only
/// streams.
fn change<'a>(
    room: &Room,
    key: &'a crate::host::RunKey,
    before: &Progress,
    after: &Progress,
    effects: &[Effect],
) -> Option<(Change<'a>, u64)> {
    let mut entries = Vec::new();
    let mut keep = Vec::new();
    let mut error = None;
    let mut heard = 0;
    for effect in effects {
        match effect {
            Effect::Store {
                role,
                content,
                item,
            } => {
                let message = Message {
                    role: *role,
                    content: content.clone(),
                };
                entries.push(Entry::Own(Kind::Agent, message, *item));
            }
            // A result whose message came in the same report is in there.
            Effect::Keep { id, block } if after.results.contains_key(id) => {
                keep.push((id.clone(), block.clone()));
            }
            Effect::Hear { turn } => {
                let said = room.live(|live| {
                    let told = live.turns.iter();
                    let told = told.filter(|told| (heard + 1..=*turn).contains(&told.turn.seq));
                    told.filter_map(|told| told.said).collect::<Vec<_>>()
                });
                entries.extend(said.unwrap_or_default().into_iter().map(Entry::Said));
                heard = heard.max(*turn);
            }
            Effect::Over(words) => {
                let note = words
                    .as_ref()
                    .map(|_| "[The task above ended with an error before it was done.]");
                if let Some(message) = closing(after, note) {
                    entries.push(Entry::Own(Kind::Note, message, None));
                }
                error.clone_from(words);
            }
            Effect::Keep { .. } | Effect::Write { .. } | Effect::Drop { .. } | Effect::Line(_) => {}
        }
    }
    if entries.is_empty() && keep.is_empty() && before.life == after.life {
        return None;
    }
    let change = Change {
        key,
        before: before.life,
        after: after.life,
        events: (before.stored_event, after.last_event),
        entries,
        keep,
        error,
        at: Timestamp::now(),
    };
    Some((change, heard))
}
