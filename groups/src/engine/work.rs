//! A group's worker: its runs, one after the other.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Groups, Phase, Room, live};
use crate::bounds::{BACKOFF, GRACE, HELLO};
use crate::db::{DbError, Run};
use crate::host::{Launched, RunKey};
use crate::life::{Life, State, Step};

/// How the time with an agent ended.
enum End {
    /// The run is over.
    Over,
    /// It is not, and the agent is gone: why, for operators.
    Lost(String),
    /// The gateway ends; the run goes on in its next life.
    Closing,
}

impl Groups {
    /// Works until everything ends.
    pub(super) async fn work(self: Arc<Self>, room: Arc<Room>) {
        while !self.stopping.is_cancelled() {
            match self.next(&room).await {
                Ok(true) => {}
                Ok(false) => {
                    self.stopping
                        .run_until_cancelled(room.wake.notified())
                        .await;
                }
                Err(error) => {
                    let group = &room.settings.name;
                    tracing::error!("the queue of group `{group}` stands still: {error}");
                    if self.pause().await.is_break() {
                        return;
                    }
                }
            }
        }
    }

    /// Works on the run at the head of the queue; false: there was none.
    async fn next(&self, room: &Arc<Room>) -> Result<bool, DbError> {
        let group = &room.settings.name;
        self.say_rest(Some(group)).await?;
        let Some(run) = self.db.open(group).await?.into_iter().next() else {
            return Ok(false);
        };
        let permit = if let Ok(permit) = self.slots.clone().try_acquire_owned() {
            permit
        } else {
            if run.life.state == State::Queued {
                self.put_run(&run, None).await?;
            }
            let permit = self.slots.clone().acquire_owned();
            match self.stopping.run_until_cancelled(permit).await {
                Some(Ok(permit)) => permit,
                Some(Err(_)) | None => return Ok(false),
            }
        };
        let worked = self.run(room, &run, permit).await;
        room.set_live(None);
        worked?;
        Ok(true)
    }

    /// Works on a run until it is over, or everything ends.
    async fn run(
        &self,
        room: &Arc<Room>,
        run: &Run,
        permit: OwnedSemaphorePermit,
    ) -> Result<(), DbError> {
        let mut step = match run.life.state {
            State::Queued => Step::Launch,
            State::Starting
            | State::Working
            | State::Waiting
            | State::Done
            | State::Failed
            | State::Stopped => Step::Resume,
        };
        let mut permit = Some(permit);
        loop {
            let Some((life, phase)) = self.begin(room, run, step, &mut permit).await? else {
                return Ok(());
            };
            match self.attend(room, &run.key, life, phase, step).await {
                End::Over | End::Closing => return Ok(()),
                End::Lost(how) => {
                    tracing::warn!(run.id = %run.key.run, "the agent of run `{}` is gone: {how}", run.key.run);
                    step = Step::Lost;
                }
            }
        }
    }

    /// Takes a run to its next agent; nothing, if it is over instead.
    async fn begin(
        &self,
        room: &Arc<Room>,
        run: &Run,
        step: Step,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Option<(Life, watch::Receiver<Phase>)>, DbError> {
        let _one = room.order.lock().await;
        // A person may have stopped it, or the agent may have been done after all.
        let Some(now) = self.db.run(&run.key.run).await? else {
            return Ok(None);
        };
        self.drop_writing(room);
        let waits = room.live(|live| live.waits).unwrap_or_default();
        *permit = room
            .live(|live| live.permit.take())
            .flatten()
            .or(permit.take());
        let words = "the agent ended again and again before it was done; \
                     the gateway's log says how. Write again to try anew"
            .to_owned();
        let Some(life) = self.step(Some(room), &now, step, Some(words)).await? else {
            return Ok(None);
        };
        if life.state.is_over() {
            return Ok(None);
        }
        let now = Run { life, ..now };
        let progress = self.progress(&now).await?;
        let unheard = self.db.said(&now.key.run).await?;
        let mut begun = live(&now, progress, unheard);
        begun.permit = permit
            .take()
            .or_else(|| self.slots.clone().try_acquire_owned().ok());
        begun.waits = waits;
        let phase = begun.phase.subscribe();
        room.set_live(Some(begun));
        if step != Step::Launch {
            // A line of the agent that is gone says nothing any more.
            self.put_run(&now, None).await?;
        }
        Ok(Some((life, phase)))
    }

    /// Starts an agent and stays with it to its end.
    async fn attend(
        &self,
        room: &Room,
        key: &RunKey,
        life: Life,
        mut phase: watch::Receiver<Phase>,
        step: Step,
    ) -> End {
        if step == Step::Lost {
            let nth = usize::try_from(life.lost).unwrap_or(usize::MAX);
            let pause = BACKOFF.get(nth.saturating_sub(1)).or(BACKOFF.last());
            let pause = tokio::time::sleep(pause.copied().unwrap_or_default());
            tokio::select! {
                () = pause => {}
                _ = over(&mut phase) => return End::Over,
                () = self.stopping.cancelled() => return End::Closing,
            }
        }
        let mut launched = match self.host.launch(key).await {
            Ok(launched) => launched,
            Err(error) => return End::Lost(format!("it cannot be started: {error}")),
        };
        let end = self.watch(room, launched.as_mut(), &mut phase).await;
        match end {
            ControlFlow::Break(Phase::Stopped) => {
                // Nothing it holds is good any more, before it is ended.
                self.host.over(key).await;
                launched.stop().await;
                End::Over
            }
            ControlFlow::Break(Phase::Over | Phase::Starting | Phase::Working | Phase::Waiting) => {
                self.host.over(key).await;
                if timeout(GRACE, launched.ended()).await.is_err() {
                    launched.stop().await;
                }
                End::Over
            }
            ControlFlow::Continue(end) => {
                launched.stop().await;
                end
            }
        }
    }

    async fn watch(
        &self,
        room: &Room,
        launched: &mut dyn Launched,
        phase: &mut watch::Receiver<Phase>,
    ) -> ControlFlow<Phase, End> {
        let mut greeted = phase.clone();
        let silent = async {
            let hello = greeted.wait_for(|phase| *phase != Phase::Starting);
            if timeout(HELLO, hello).await.is_err() {
                return HELLO;
            }
            silent(room).await
        };
        tokio::select! {
            biased;
            how = over(phase) => ControlFlow::Break(how),
            () = self.stopping.cancelled() => ControlFlow::Continue(End::Closing),
            ended = launched.ended() => ControlFlow::Continue(End::Lost(ended.0)),
            after = silent => {
                let seconds = after.as_secs();
                ControlFlow::Continue(End::Lost(format!("it said nothing for {seconds} seconds")))
            }
        }
    }

    /// What the agent was writing is not shown any more.
    pub(super) fn drop_writing(&self, room: &Room) {
        let writing = room.live(|live| {
            let item = live.progress.writing.take()?;
            Some(super::show::item(live.key.run.as_str(), item))
        });
        if let Some(item) = writing.flatten() {
            self.web.drop_writing(room.settings.name.as_str(), &item);
        }
    }
}

/// Waits until the agent has reported nothing for as long as it may, and says how long that is.
async fn silent(room: &Room) -> Duration {
    let most = room.settings.silence;
    loop {
        let since = room.live(|live| match live.progress.life.state {
            // As long as a person takes.
            State::Waiting => Instant::now(),
            State::Queued
            | State::Starting
            | State::Working
            | State::Done
            | State::Failed
            | State::Stopped => live.moved,
        });
        let until = since.unwrap_or_else(Instant::now) + most;
        if until <= Instant::now() {
            return most;
        }
        sleep_until(until).await;
    }
}

/// Waits until the run is over.
async fn over(phase: &mut watch::Receiver<Phase>) -> Phase {
    let over = phase.wait_for(|phase| matches!(phase, Phase::Over | Phase::Stopped));
    // Nobody can change it any more only when it was taken from the room.
    over.await.map_or(Phase::Over, |phase| *phase)
}
