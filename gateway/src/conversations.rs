//! Conversations: their labels, and the run that their work belongs to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use policy::decision::Grant;
use policy::destination::Known;
use policy::ids::{ActionId, ConversationId, RunId};
use policy::label::{Label, Labels, Provenance};

use crate::identity::Principal;
use crate::keys::short_id;

/// A run ends after this long without a call.
const RUN_IDLE: SignedDuration = SignedDuration::from_mins(60);
/// A run ends after this long in any case.
pub const RUN_LONGEST: SignedDuration = SignedDuration::from_hours(8);

/// What is known of one conversation. Deciding and taking labels happen under its lock.
#[derive(Debug, Default)]
pub struct Conversation {
    /// What it has read.
    pub labels: Labels,
    /// What people allowed for the present run.
    pub grants: Vec<Grant>,
    /// What its people wrote, and what trusted sources told it.
    pub known: Known,
    /// It has been permitted to read something; after a start, it may have been.
    pub read: bool,
    /// How often each label was taken.
    taken: BTreeMap<Label, u64>,
    /// The labels of calls whose answers are not handed over.
    underway: BTreeMap<ActionId, BTreeSet<Label>>,
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    id: RunId,
    began: Timestamp,
    last: Timestamp,
}

impl Conversation {
    /// Takes a label; the first provenance stays.
    pub fn take(&mut self, label: Label, from: &Provenance) {
        self.labels.add(label, from);
        *self.taken.entry(label).or_default() += 1;
        if let Some(brought) = self.underway.get_mut(&from.action) {
            brought.insert(label);
        }
    }

    /// How often each label was taken: whether one came again is known by it.
    pub fn taken(&self) -> BTreeMap<Label, u64> {
        self.taken.clone()
    }

    /// The labels of calls whose answers are not handed over.
    pub fn underway(&self) -> BTreeSet<Label> {
        self.underway.values().flatten().copied().collect()
    }

    /// Whether something was read in it, from wherever.
    pub fn has_read(&self) -> bool {
        self.read || self.labels != Labels::default()
    }

    /// The run that a call at this time belongs to. A hosted call says which; outside it is a new one
    /// where the last has ended.
    pub fn run_of(&mut self, principal: &Principal, now: Timestamp) -> RunId {
        match principal.run() {
            None => self.run(now),
            Some(run) => {
                self.hosted(run, now);
                run.clone()
            }
        }
    }

    /// A hosted run is the present one.
    pub fn hosted(&mut self, run: &RunId, now: Timestamp) {
        if self.run.as_ref().is_none_or(|present| present.id != *run) {
            self.begin(run.clone(), now);
        }
    }

    fn begin(&mut self, id: RunId, now: Timestamp) {
        self.grants.clear();
        self.run = Some(Run {
            id,
            began: now,
            last: now,
        });
    }

    fn run(&mut self, now: Timestamp) -> RunId {
        if let Some(run) = &mut self.run {
            // A clock that jumped back ends no run, and prolongs none.
            if now.duration_since(run.last) < RUN_IDLE
                && now.duration_since(run.began) < RUN_LONGEST
            {
                run.last = run.last.max(now);
                return run.id.clone();
            }
        }
        let id = RunId::new(format!("run_{}", short_id(12)));
        self.begin(id.clone(), now);
        id
    }

    /// Adds a grant of the present run; grants of another are of no use and dropped.
    pub fn grant(&mut self, grant: Grant) {
        if self.run.as_ref().is_some_and(|run| run.id == grant.run) {
            self.grants.push(grant);
        }
    }
}

/// All conversations.
#[derive(Debug, Default)]
pub struct Conversations {
    all: Mutex<HashMap<ConversationId, Arc<Mutex<Conversation>>>>,
}

impl Conversations {
    /// With the labels that were read back from the log, and with what is known.
    pub fn new(
        labels: BTreeMap<ConversationId, Labels>,
        known: BTreeMap<ConversationId, Known>,
    ) -> Self {
        let mut all: HashMap<ConversationId, Conversation> = HashMap::new();
        for (id, labels) in labels {
            all.entry(id).or_default().labels = labels;
        }
        for (id, known) in known {
            let one = all.entry(id).or_default();
            (one.known, one.read) = (known, true);
        }
        let all = all.into_iter();
        Self {
            all: Mutex::new(
                all.map(|(id, one)| (id, Arc::new(Mutex::new(one))))
                    .collect(),
            ),
        }
    }

    /// Every conversation since the start, and those before it that have labels or of which something
    /// is known.
    pub fn list(&self) -> BTreeMap<ConversationId, Labels> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = all
            .iter()
            .map(|(id, one)| (id.clone(), one.clone()))
            .collect();
        all.into_iter()
            .map(|(id, one)| (id, lock(&one).labels.clone()))
            .collect()
    }

    /// One conversation.
    pub fn get(&self, id: &ConversationId) -> Arc<Mutex<Conversation>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(id.clone()).or_default().clone()
    }
}

/// A call whose answer is not handed over yet. As long as it is held, no person's word takes the
/// call's labels off the conversation: its answer may still come.
#[derive(Debug)]
pub struct Underway {
    conversation: Arc<Mutex<Conversation>>,
    action: ActionId,
}

impl Underway {
    /// Of an action that was permitted just now; `held` is what the conversation's lock guards.
    pub fn begin(
        conversation: Arc<Mutex<Conversation>>,
        held: &mut Conversation,
        action: &ActionId,
        labels: &BTreeSet<Label>,
    ) -> Self {
        held.underway.insert(action.clone(), labels.clone());
        Self {
            conversation,
            action: action.clone(),
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        lock(&self.conversation).underway.remove(&self.action);
    }
}

/// The lock of a conversation. What it guards stays whole when a holder panics.
pub fn lock(conversation: &Mutex<Conversation>) -> MutexGuard<'_, Conversation> {
    conversation.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_after_an_hour_of_silence_and_after_eight_hours_in_any_case() {
        let at = |minute: i64| Timestamp::from_second(minute * 60).unwrap();
        let mut conversation = Conversation::default();
        let first = conversation.run(at(0));
        assert_eq!(conversation.run(at(59)), first);
        assert_eq!(conversation.run(at(118)), first);
        let second = conversation.run(at(178));
        assert_ne!(second, first);
        for minute in (178..178 + 480).step_by(30) {
            assert_eq!(conversation.run(at(minute)), second);
        }
        assert_ne!(conversation.run(at(178 + 480)), second);
    }
}
