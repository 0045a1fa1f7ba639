//! What groups need of the gateway: agents that are started and ended.

use std::time::Duration;

use agent::Limits;
use futures::future::BoxFuture;
use policy::ids::{ConversationId, GroupName, RunId};

/// A group, as the configuration has it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name; also its place in the web channel.
    pub name: GroupName,
    /// The provider's name of the model.
    pub model: String,
    /// The model is a script: people are told so.
    pub script: bool,
    /// Who the agent is and for whom it works.
    pub system: String,
    /// How much an agent may do in one run.
    pub limits: Limits,
    /// How long its agent may report nothing while no person is waited for: then it is ended, and
    /// started again.
    pub silence: Duration,
    /// Who may speak; empty: everybody with access.
    pub members: Vec<String>,
}

/// What the gateway does for groups.
pub trait Host: Send + Sync + 'static {
    /// Starts the agent of a run, with a new token; the tokens of the run before it die, and the
    /// old process of the same run is gone before. Bounded in time by the gateway.
    fn launch(&self, run: &RunKey) -> BoxFuture<'_, Result<Box<dyn Launched>, LaunchError>>;
    /// A member of a group wrote this, in a message with this number. Said before an agent can know of
    /// it; after a crash perhaps twice.
    fn heard<'a>(
        &'a self,
        conversation: &'a ConversationId,
        by: &'a str,
        message: i64,
        text: &'a str,
    ) -> BoxFuture<'a, ()>;
    /// The run is over: its tokens die, its open questions are withdrawn. Said at least once for
    /// each run that was launched, after a crash perhaps twice.
    fn over(&self, run: &RunKey) -> BoxFuture<'_, ()>;
}

/// An agent that was started. Dropped without [`Launched::stop`] only when everything ends.
pub trait Launched: Send {
    /// Waits until nothing of it is left. May be asked again.
    fn ended(&mut self) -> BoxFuture<'_, Ended>;
    /// Ends it, and waits until nothing of it is left.
    fn stop(&mut self) -> BoxFuture<'_, ()>;
}

/// Which run, and for whom it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunKey {
    /// The run: `<group>-<number of its first message>`.
    pub run: RunId,
    /// Its group.
    pub group: GroupName,
    /// Its conversation: `group:<name>`.
    pub conversation: ConversationId,
    /// Who asked.
    pub person: String,
}

/// How an agent ended, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended(pub String);

/// Why an agent was not started, for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LaunchError(pub String);
