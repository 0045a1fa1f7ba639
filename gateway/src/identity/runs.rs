//! Hosted runs that are under way, and the one agent process of each that may speak for it.
//!
//! In memory alone: a run's token dies with the run and with the gateway. Whether a run is under way
//! is what [`groups`] says; it is told here before anything that depends on it.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use policy::action::Digest;
use policy::ids::{ConversationId, GroupName, RunId};
use tokio_util::sync::CancellationToken;

use super::{Credential, Principal};

/// A run of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosted {
    /// Its id.
    pub run: RunId,
    /// The group whose grants it has.
    pub group: GroupName,
    /// The conversation whose labels it has.
    pub conversation: ConversationId,
    /// The person it works for.
    pub person: String,
}

#[derive(Debug)]
struct Open {
    hosted: Hosted,
    launch: u64,
    /// The id of the newest token; none before the first.
    token: Option<String>,
    /// Cancelled when another process takes over, or the run ends.
    speaks: CancellationToken,
    /// Cancelled when the run is over and what it asked is withdrawn.
    over: CancellationToken,
    begun: HashSet<Digest>,
}

/// The runs that are under way.
#[derive(Debug, Default)]
pub struct Runs {
    open: RwLock<HashMap<RunId, Open>>,
}

impl Runs {
    fn read(&self) -> RwLockReadGuard<'_, HashMap<RunId, Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<RunId, Open>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run is under way, with the actions that it has begun so far. One that is known stays as it is.
    pub fn open(&self, hosted: Hosted, begun: HashSet<Digest>) {
        let mut open = self.write();
        open.entry(hosted.run.clone()).or_insert_with(|| Open {
            hosted,
            launch: 0,
            token: None,
            speaks: CancellationToken::new(),
            over: CancellationToken::new(),
            begun,
        });
    }

    /// Another process speaks for a run from now on, with the token of this id; `None` if the run is
    /// over.
    pub(super) fn launch(&self, run: &RunId, token: String) -> Option<u64> {
        let mut all = self.write();
        let open = all.get_mut(run)?;
        open.speaks.cancel();
        open.speaks = CancellationToken::new();
        open.launch += 1;
        open.token = Some(token);
        Some(open.launch)
    }

    /// A run is over: nobody speaks for it any more. What it does still goes on until what this
    /// returns is cancelled.
    pub fn over(&self, run: &RunId) -> Option<CancellationToken> {
        let open = self.write().remove(run)?;
        open.speaks.cancel();
        Some(open.over)
    }

    /// Cancelled when what a run does is to end with it.
    pub fn until_over(&self, run: &RunId) -> CancellationToken {
        let all = self.read();
        all.get(run)
            .map_or_else(cancelled, |open| open.over.clone())
    }

    /// Whether a run is under way.
    pub fn is_open(&self, run: &RunId) -> bool {
        self.read().contains_key(run)
    }

    /// The person that a run works for, while it is under way.
    pub fn person(&self, run: &RunId) -> Option<String> {
        let all = self.read();
        all.get(run).map(|open| open.hosted.person.clone())
    }

    /// For whom a token of this id speaks.
    pub(super) fn who(&self, run: &RunId, token: &str) -> Option<Principal> {
        let all = self.read();
        let open = all.get(run)?;
        (open.token.as_deref() == Some(token)).then(|| Principal {
            group: open.hosted.group.clone(),
            by: Credential::Run {
                run: run.clone(),
                launch: open.launch,
                person: open.hosted.person.clone(),
                conversation: open.hosted.conversation.clone(),
            },
        })
    }

    /// Cancelled when this process may no longer speak for its run.
    pub fn speaks(&self, run: &RunId, launch: u64) -> CancellationToken {
        let all = self.read();
        let open = all.get(run).filter(|open| open.launch == launch);
        open.map_or_else(cancelled, |open| open.speaks.clone())
    }

    /// A run has begun an action.
    pub fn began(&self, run: &RunId, action: Digest) {
        if let Some(open) = self.write().get_mut(run) {
            open.begun.insert(action);
        }
    }

    /// Whether a run has begun an identical action before.
    pub fn has_begun(&self, run: &RunId, action: &Digest) -> bool {
        let all = self.read();
        all.get(run).is_some_and(|open| open.begun.contains(action))
    }
}

fn cancelled() -> CancellationToken {
    let token = CancellationToken::new();
    token.cancel();
    token
}
