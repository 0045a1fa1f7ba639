//! What people see of runs: each thing once, whatever happens in between.
//!
//! What is to be shown is stored together with what it follows from; then it is shown, under an id
//! of its own, so that showing it again changes nothing; then it is noted as shown.

use channels::web::{Body, RunState};
use policy::ids::{ConversationId, GroupName, RunId};

use super::Groups;
use crate::db::{self, DbError, Run};
use crate::intake::said;
use crate::life::State;

impl Groups {
    /// Shows the state of a run, if people see another one; with a line, in any case.
    pub(super) async fn show_run(&self, id: &RunId, line: Option<String>) -> Result<(), DbError> {
        let Some(run) = self.db.run(id).await? else {
            return Ok(());
        };
        let shown = self.db.shown(id).await?;
        if line.is_some() || shown != name(run.life.state) {
            self.put_run(&run, line).await?;
        }
        Ok(())
    }

    /// Shows a run as it is.
    pub(super) async fn put_run(&self, run: &Run, line: Option<String>) -> Result<(), DbError> {
        let state = run.life.state;
        let text = match state {
            State::Queued => Some("waits for its turn".to_owned()),
            State::Starting | State::Working => line,
            State::Waiting => Some("waits for a person".to_owned()),
            State::Done => None,
            State::Failed | State::Stopped => run.error.clone(),
        };
        let id = run.key.run.as_str();
        let body = Body::Run {
            run: id.to_owned(),
            state: self::state(state),
            text,
        };
        let place = run.key.group.as_str();
        self.web.put(place, &format!("run_{id}"), body).await?;
        self.db.show(&run.key.run, name(state)).await
    }

    /// Shows what agents said, in one conversation or in all.
    pub(super) async fn show_messages(
        &self,
        conversation: Option<&ConversationId>,
    ) -> Result<(), DbError> {
        for one in self.db.unshown(conversation).await? {
            let mut rooms = self.rooms.iter();
            let room = rooms.find(|(name, _)| name.as_str() == one.group);
            let body = Body::Agent {
                text: said(&one.content),
                script: room.is_some_and(|(_, room)| room.settings.script),
            };
            let id = item(&one.run, one.item);
            self.web.put(&one.group, &id, body).await?;
            self.db.seen(one.seq).await?;
        }
        Ok(())
    }

    /// Tells people which messages were not taken, and why.
    pub(super) async fn show_refusals(&self) -> Result<(), DbError> {
        for (seq, place, text) in self.db.refusals().await? {
            let body = Body::Notice { text };
            self.web
                .put(&place, &format!("refused_{seq}"), body)
                .await?;
            self.db.told(seq).await?;
        }
        Ok(())
    }

    /// Says, to the gateway and to people, what was stored of a group, or of all, and not said.
    pub(super) async fn say_rest(&self, group: Option<&GroupName>) -> Result<(), DbError> {
        for run in self.db.unclosed(group).await? {
            self.host.over(&run.key).await;
            self.db.closed(&run.key.run).await?;
        }
        let conversation = group.map(db::conversation_of);
        self.show_messages(conversation.as_ref()).await?;
        for run in self.db.stale(group).await? {
            self.put_run(&run, None).await?;
        }
        Ok(())
    }

    /// Shows who waits, whether that was said or not.
    pub(super) async fn show_queues(&self) -> Result<(), DbError> {
        for room in self.rooms.values() {
            let open = self.db.open(&room.settings.name).await?;
            for run in open.iter().skip(1) {
                let id = format!("run_{}", run.key.run);
                let shown = self.web.item(run.key.group.as_str(), &id).await?;
                if shown.is_none() {
                    self.put_run(run, None).await?;
                }
            }
        }
        Ok(())
    }
}

/// The id of the item that shows a message of the agent, written or being written.
pub(super) fn item(run: &str, n: u64) -> String {
    format!("msg_{run}_{n}")
}

/// What people see of a state.
pub(super) fn state(state: State) -> RunState {
    match state {
        State::Queued => RunState::Queued,
        State::Starting | State::Working => RunState::Working,
        State::Waiting => RunState::Waiting,
        State::Done => RunState::Done,
        State::Failed => RunState::Failed,
        State::Stopped => RunState::Stopped,
    }
}

/// The name under which it is noted that people see this state.
fn name(state: State) -> &'static str {
    match state {
        State::Starting => State::Working.name(),
        State::Queued
        | State::Working
        | State::Waiting
        | State::Done
        | State::Failed
        | State::Stopped => state.name(),
    }
}
