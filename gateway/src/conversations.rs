//! Conversations: their labels, and the run that their work belongs to.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use policy::decision::Grant;
use policy::destination::Known;
use policy::ids::{ConversationId, RunId};
use policy::label::Labels;

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
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    id: RunId,
    began: Timestamp,
    last: Timestamp,
}

impl Conversation {
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
            all.entry(id).or_default().known = known;
        }
        let all = all.into_iter();
        Self {
            all: Mutex::new(
                all.map(|(id, one)| (id, Arc::new(Mutex::new(one))))
                    .collect(),
            ),
        }
    }

    /// One conversation.
    pub fn get(&self, id: &ConversationId) -> Arc<Mutex<Conversation>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(id.clone()).or_default().clone()
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
