//! Answers of allowed actions that are not known to be in their callers' hands.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use policy::action::{Action, Digest};
use policy::ids::{ActionId, ConversationId, RunId};
use tokio::sync::watch;

use crate::approvals::Answer;
use crate::conversations::Underway;

/// How long the answer of an action waits for a caller whose stream broke.
const KEPT: SignedDuration = SignedDuration::from_mins(30);
/// The most answers that wait for the callers of one conversation; the oldest go first.
const MOST: usize = 256;
/// The most bytes of these, but the newest is kept however long it is.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// An allowed action that may change something, until its answer is in the caller's hands.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// Which.
    pub action: ActionId,
    run: RunId,
    conversation: ConversationId,
    present: Arc<AtomicUsize>,
    /// What came of it, once something did.
    pub answer: watch::Receiver<Option<Answer>>,
    since: Timestamp,
    /// Its labels stay as long as its answer may be handed over.
    _underway: Arc<Option<Underway>>,
}

impl Flight {
    /// How long its answer is; `None` while there is none.
    fn bytes(&self) -> Option<usize> {
        self.answer.borrow().as_ref().map(|answer| match answer {
            Answer::Result(text) | Answer::Error(text) | Answer::Refused(text) => text.len(),
        })
    }
}

/// All of them, by what makes two calls the same one.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Digest, Flight>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An action begins; `present` counts the caller's streams.
    pub(super) fn begin(
        &self,
        sameness: Digest,
        action: &Action,
        present: Arc<AtomicUsize>,
        answer: watch::Receiver<Option<Answer>>,
        underway: Arc<Option<Underway>>,
    ) {
        let flight = Flight {
            action: action.id.clone(),
            run: action.run.clone(),
            conversation: action.conversation.clone(),
            present,
            answer,
            since: Timestamp::now(),
            _underway: underway,
        };
        let mut all = self.lock();
        trim(&mut all, &action.conversation);
        all.insert(sameness, flight);
    }

    /// An action has its answer: makes room for it.
    pub(super) fn ended(&self, conversation: &ConversationId) {
        trim(&mut self.lock(), conversation);
    }

    /// The identical action whose caller is not there any more. A restarted agent is the only one of
    /// its run, whoever still seems to be there.
    pub(super) fn abandoned(&self, sameness: &Digest, resumed: bool) -> Option<Flight> {
        self.lock()
            .get(sameness)
            .filter(|flight| resumed || flight.present.load(Ordering::SeqCst) == 0)
            .cloned()
    }

    /// A run is over: nobody comes for its answers.
    pub(super) fn run_over(&self, run: &RunId) {
        self.lock().retain(|_, flight| flight.run != *run);
    }

    /// The answer of an action is in its caller's hands. The one of a later, identical action is
    /// still owed.
    pub(super) fn redeem(&self, sameness: &Digest, action: &ActionId) {
        let mut all = self.lock();
        if all.get(sameness).is_some_and(|one| one.action == *action) {
            all.remove(sameness);
        }
    }
}

/// Forgets what is too old, and of a conversation what is too much. What has no answer yet stays:
/// requests under way have a limit of their own.
fn trim(all: &mut HashMap<Digest, Flight>, conversation: &ConversationId) {
    let now = Timestamp::now();
    all.retain(|_, flight| flight.since.duration_until(now) < KEPT);
    let mut ended: Vec<(Timestamp, Digest, usize)> = all
        .iter()
        .filter(|(_, flight)| flight.conversation == *conversation)
        .filter_map(|(key, flight)| Some((flight.since, key.clone(), flight.bytes()?)))
        .collect();
    ended.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
    let mut bytes = 0_usize;
    for (n, (_, key, more)) in ended.into_iter().enumerate() {
        bytes = bytes.saturating_add(more);
        if n > 0 && (n >= MOST || bytes > MOST_BYTES) {
            all.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::action::{Kind, Method};

    fn flown(flights: &Flights, token: &str, name: &str, bytes: usize) -> Digest {
        let action = Action {
            id: ActionId::new(format!("act_{name}")),
            kind: Kind::Mcp,
            group: "work".parse().unwrap(),
            conversation: ConversationId::new(token),
            run: RunId::new("run_1"),
            principal: token.to_owned(),
            server: "files".to_owned(),
            method: Method::Call,
            name: name.to_owned(),
            args: serde_json::Value::Null,
            meta: None,
            definition: Digest::of(b"definition"),
            identity: Digest::of(b"identity"),
        };
        let (tell, answer) = watch::channel(None);
        flights.begin(
            action.sameness(),
            &action,
            Arc::default(),
            answer,
            Arc::default(),
        );
        if bytes > 0 {
            tell.send_replace(Some(Answer::Result("x".repeat(bytes))));
            flights.ended(&action.conversation);
        }
        action.sameness()
    }

    #[test]
    fn the_oldest_answers_of_a_conversation_make_room() {
        let flights = Flights::default();
        let other = flown(&flights, "token:b", "other", 10);
        let open = flown(&flights, "token:a", "open", 0);
        let first = flown(&flights, "token:a", "first", MOST_BYTES / 2);
        let second = flown(&flights, "token:a", "second", MOST_BYTES / 2);
        assert!(flights.abandoned(&first, false).is_some());
        let long = flown(&flights, "token:a", "long", MOST_BYTES + 1);
        for (key, kept) in [(&first, false), (&second, false), (&long, true)] {
            assert_eq!(flights.abandoned(key, false).is_some(), kept);
        }
        let many: Vec<Digest> = (0..MOST)
            .map(|n| flown(&flights, "token:a", &n.to_string(), 1))
            .collect();
        assert!(flights.abandoned(&long, false).is_none());
        for key in many.iter().chain([&open, &other]) {
            assert!(flights.abandoned(key, false).is_some());
        }
    }
}
