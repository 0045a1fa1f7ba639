//! Queue, runs and agents, together.
//!
//! One worker per group takes its runs one after the other; one reader takes the inbox. Whatever
//! changes a group's queue or run holds the room's `order`, changes the database first, then what
//! is in memory, then what people see.

mod inbox;
mod room;
mod show;
mod speak;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use agent::{Message, Role};
use channels::web::{RunState, Web};
use jiff::Timestamp;
use policy::ids::{GroupName, RunId};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bounds::RUNS;
use crate::db::{Change, Db, DbError, Entry, Run};
use crate::history::{Kind, closing};
use crate::host::{Host, RunKey, Settings};
use crate::intake::Progress;
use crate::life::{Life, State, Step};
use room::{Live, Phase, Room};

pub use speak::{EventError, NotServed};

/// All groups.
pub struct Groups {
    /// Itself, for what must go on when nobody waits for it any more.
    me: Weak<Self>,
    db: Db,
    web: Arc<Web>,
    host: Arc<dyn Host>,
    rooms: BTreeMap<GroupName, Arc<Room>>,
    slots: Arc<Semaphore>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.rooms.keys().map(GroupName::as_str);
        f.debug_set().entries(names).finish()
    }
}

/// How a group does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: GroupName,
    /// The provider's name of its model.
    pub model: String,
    /// The model is a script.
    pub script: bool,
    /// Who may speak; empty: everybody with access.
    pub members: Vec<String>,
    /// How the run at the head of its queue does.
    pub state: Option<RunState>,
    /// Messages that no agent has heard.
    pub queued: usize,
}

impl Groups {
    /// The groups of the configuration, over their tables.
    ///
    /// # Errors
    /// [`DbError`], if what is stored cannot be read.
    pub async fn open(
        db: Db,
        web: Arc<Web>,
        host: Arc<dyn Host>,
        groups: Vec<Settings>,
        stopping: CancellationToken,
        tasks: TaskTracker,
    ) -> Result<Arc<Self>, DbError> {
        // What cannot be read stops the start rather than a group.
        db.read_up_to().await?;
        db.all_open().await?;
        let rooms = groups.into_iter().map(|settings| {
            let name = settings.name.clone();
            (name, Arc::new(Room::new(settings)))
        });
        Ok(Arc::new_cyclic(|me| Self {
            me: me.clone(),
            db,
            web,
            host,
            rooms: rooms.collect(),
            slots: Arc::new(Semaphore::new(RUNS)),
            stopping,
            tasks,
        }))
    }

    /// Closes what the gateway's last life left open; then goes on, in tasks of its own that end when
    /// the gateway stops, with what was under way, and with reading the inbox.
    pub async fn start(self: &Arc<Self>) {
        let mut recovered = self.recover().await;
        let groups = self.clone();
        self.tasks.spawn(async move {
            while let Err(error) = recovered {
                tracing::error!("what was under way in the groups cannot be read: {error}");
                if groups.pause().await.is_break() {
                    return;
                }
                recovered = groups.recover().await;
            }
            for room in groups.rooms.values() {
                groups.tasks.spawn(groups.clone().work(room.clone()));
            }
            groups.read().await;
        });
    }

    /// The runs that an agent was started for and that are not over: they go on with
    /// [`Groups::start`].
    ///
    /// # Errors
    /// [`DbError`], if they cannot be read.
    pub async fn under_way(&self) -> Result<Vec<RunKey>, DbError> {
        let open = self.db.all_open().await?.into_iter();
        let going = open.filter(|run| {
            run.life.state != State::Queued && self.rooms.contains_key(&run.key.group)
        });
        Ok(going.map(|run| run.key).collect())
    }

    /// Stops the run at the head of a group's queue; the next one follows. False: there was none.
    ///
    /// # Errors
    /// [`DbError`]; nothing was stopped then.
    pub async fn stop(&self, group: &GroupName, by: &str) -> Result<bool, DbError> {
        let (Some(groups), Some(room)) = (self.me.upgrade(), self.rooms.get(group).cloned()) else {
            return Ok(false);
        };
        let words = format!("stopped by `{by}`");
        // Whoever asked may be gone before it is done.
        let stopped = self.tasks.spawn(async move {
            let _one = room.order.lock().await;
            let open = groups.db.open(&room.settings.name).await?;
            let Some(run) = open.into_iter().next() else {
                return Ok(false);
            };
            let step = groups.step(Some(&room), &run, Step::Stop, Some(words));
            let stopped = step.await?.is_some();
            room.wake.notify_one();
            Ok(stopped)
        });
        stopped.await.unwrap_or(Err(DbError::Unreadable("queue")))
    }

    /// The broker holds a question of this run, or holds none any more.
    pub fn waiting(self: &Arc<Self>, run: &RunId, waits: bool) {
        let Some(room) = self.room_of(run) else {
            return;
        };
        room.live(|live| live.waits = waits);
        let (groups, run) = (self.clone(), run.clone());
        self.tasks.spawn(async move {
            let _one = room.order.lock().await;
            if let Err(error) = groups.settle(&room, &run).await {
                tracing::error!("that run `{run}` waits, or does not, was not stored: {error}");
            }
        });
    }

    /// How all groups do.
    pub async fn status(&self) -> Vec<GroupStatus> {
        let mut all = Vec::new();
        for (name, room) in &self.rooms {
            let open = self.db.open(name).await.unwrap_or_default();
            let settings = &room.settings;
            all.push(GroupStatus {
                name: name.clone(),
                model: settings.model.clone(),
                script: settings.script,
                members: settings.members.clone(),
                state: open.first().map(|run| show::state(run.life.state)),
                queued: self.db.queued(name).await.unwrap_or_default(),
            });
        }
        all
    }

    /// Closes what the last life of the gateway left open.
    async fn recover(&self) -> Result<(), DbError> {
        for run in self.db.all_open().await? {
            if !self.rooms.contains_key(&run.key.group) {
                let words = "this group is not in the configuration any more".to_owned();
                self.step(None, &run, Step::Fail, Some(words)).await?;
            }
        }
        self.say_rest(None).await?;
        self.show_refusals().await?;
        self.show_queues().await
    }

    fn room_of(&self, run: &RunId) -> Option<Arc<Room>> {
        let mut rooms = self.rooms.values();
        let found = rooms.find(|room| room.live(|live| live.key.run == *run) == Some(true));
        found.cloned()
    }

    /// What a run has come to, as it is stored.
    async fn progress(&self, run: &Run) -> Result<Progress, DbError> {
        let mut progress = Progress::new(run.life);
        progress.last_event = run.last_event;
        progress.stored_event = run.last_event;
        for one in self.db.messages(&run.key.run).await? {
            progress.stored(one.message.role, &one.message.content, one.bytes);
        }
        progress.results = self.db.results(&run.key.run).await?.into_iter().collect();
        Ok(progress)
    }

    /// Takes a run one step on, by the gateway's own doing: stores it, with what closes the
    /// conversation if it is over; then shows it. Nothing, if the step cannot happen. The caller
    /// holds the room's order; without a room the group is gone.
    async fn step(
        &self,
        room: Option<&Room>,
        run: &Run,
        step: Step,
        words: Option<String>,
    ) -> Result<Option<Life>, DbError> {
        let id = &run.key.run;
        let live = room.and_then(|room| {
            room.live(|live| (live.key.run == *id).then(|| live.progress.clone()))
        });
        let mut progress = match live.flatten() {
            Some(progress) => progress,
            None => self.progress(run).await?,
        };
        let before = progress.life;
        let step = progress.recovered(step);
        let Some(after) = before.after(step) else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        // Who waited in vain is in the conversation all the same; of a group that is gone, everybody.
        if before.state == State::Queued || room.is_none() {
            entries.push(Entry::AllSaid);
        }
        let note = match after.state {
            State::Stopped => Some(
                "[A person stopped the task above before it was done. Do not go on with it unless asked to.]",
            ),
            State::Failed => Some("[The task above ended with an error before it was done.]"),
            State::Queued | State::Starting | State::Working | State::Waiting | State::Done => None,
        };
        if after.state.is_over() {
            let message = closing(&progress, note);
            // Results that people's words would come between stand first.
            if let Some(message) = message {
                if progress.calls.is_empty() {
                    entries.push(Entry::Own(Kind::Note, message, None));
                } else {
                    entries.insert(0, Entry::Own(Kind::Note, message, None));
                }
            }
        }
        progress.life = after;
        let change = Change {
            key: &run.key,
            before,
            after,
            events: (progress.stored_event, progress.last_event),
            entries,
            keep: Vec::new(),
            error: words.filter(|_| after.state != State::Done),
            at: Timestamp::now(),
        };
        self.db.change(change).await?;
        progress.stored_event = progress.last_event;
        if let Some(room) = room {
            room.live(|live| {
                if live.key.run == *id {
                    live.advance(progress);
                }
            });
            if after.state.is_over() {
                self.drop_writing(room);
            }
        }
        // It has happened, seen or not; what is over is shown again by the worker.
        if let Err(error) = self.show_run(id, None).await {
            tracing::error!("how run `{id}` does cannot be shown: {error}");
        }
        Ok(Some(after))
    }

    /// Makes state and questions of a run agree. The caller holds the room's order.
    async fn settle(&self, room: &Room, id: &RunId) -> Result<(), DbError> {
        let waits = room.live(|live| {
            let state = live.progress.life.state;
            let off = live.waits != (state == State::Waiting)
                && matches!(state, State::Working | State::Waiting);
            (live.key.run == *id && off).then_some(live.waits)
        });
        let Some(waits) = waits.flatten() else {
            return Ok(());
        };
        let step = if waits { Step::Waits } else { Step::GoesOn };
        let Some(run) = self.db.run(id).await? else {
            return Ok(());
        };
        if self.step(Some(room), &run, step, None).await?.is_some() {
            // Who waits for a person keeps nobody else from working.
            let slots = self.slots.clone();
            room.live(|live| {
                live.permit = if waits {
                    None
                } else {
                    slots.try_acquire_owned().ok()
                };
            });
        }
        Ok(())
    }

    /// Waits before another try; breaks when everything ends.
    async fn pause(&self) -> std::ops::ControlFlow<()> {
        let pause = tokio::time::sleep(crate::bounds::RETRY);
        match self.stopping.run_until_cancelled(pause).await {
            Some(()) => std::ops::ControlFlow::Continue(()),
            None => std::ops::ControlFlow::Break(()),
        }
    }
}

/// What a person said, for the model.
fn said(text: &str) -> Vec<Message> {
    vec![Message::text(Role::User, text)]
}

/// A run that is being worked on, as it begins.
fn live(run: &Run, progress: Progress, unheard: Vec<crate::db::Said>) -> Live {
    let mut live = Live::new(run.key.clone(), progress);
    for one in unheard {
        live.say(one.seq, said(&one.text));
    }
    live
}
