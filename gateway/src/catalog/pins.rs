//! Which definitions of a server were pinned, and how it differs from them now.
//!
//! The first listing of a server as it is configured is trusted and pinned. From then on that is what
//! is served, until a person takes over something else. One [`Pin`] is the whole state; it is
//! changed by what the server shows ([`Pin::see`]) and by what a person answers ([`Pin::answer`]),
//! and does no input or output.

use std::collections::BTreeSet;

use jiff::Timestamp;
use policy::action::Digest;
use policy::pin::{Key, Moved};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::listing::{Definition, Definitions, Listing, Raw, Shown};

/// The most answers *keep it* that are remembered; of more the oldest are asked about again.
const MOST_KEPT: usize = 256;
/// The most changes of one pin that are told in the log: a server that is another one each time it is
/// looked at must not fill it.
const MOST_TOLD: usize = 32;

/// How a definition differs from the pinned one.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Which.
    pub key: Key,
    /// What was pinned; `None` for a new one.
    pub was: Option<Definition>,
    /// What the server shows, or showed; `None` for one that is gone.
    pub is: Option<Definition>,
    /// The server shows the pinned one again.
    pub returned: bool,
    /// Under which name it was pinned before, as far as the rest of it says so.
    pub renamed: Option<String>,
}

impl Difference {
    /// It by its digests.
    pub fn moved(&self) -> Moved {
        let digest = |one: &Option<Definition>| one.as_ref().map(|one| one.digest.clone());
        Moved {
            key: self.key.clone(),
            was: digest(&self.was),
            is: digest(&self.is),
        }
    }
}

/// What a person answers to a server that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Take over what it is now.
    Accept,
    /// Serve on what was pinned, and do not ask about this again.
    Keep,
}

/// The digest over some differences: what an answer is bound to.
pub fn question(differences: &[Difference]) -> Digest {
    let all: Vec<Moved> = differences.iter().map(Difference::moved).collect();
    Digest::of_json(&serde_json::to_value(all).unwrap_or_default())
}

/// The pin of one server, with what the server showed last.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    pub(super) state: State,
    pub(super) seen: Raw,
}

/// What is stored of a pin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// What is served.
    held: Raw,
    /// Since when.
    pub(super) since: Timestamp,
    /// By whose word; nobody's for a first sight.
    pub(super) by: Option<String>,
    /// Definitions that differ from the pinned ones, the newest of each, until somebody answers: also
    /// when the server shows the pinned one again.
    differing: Vec<(Key, Box<RawValue>)>,
    /// What a person does not want; `None` is that it is gone.
    kept: Vec<(Key, Option<Digest>)>,
    /// The questions that are in the log.
    told: Vec<Digest>,
}

impl Pin {
    /// Trust on first use.
    pub(super) fn first(seen: Raw, now: Timestamp) -> Self {
        let state = State {
            held: seen.clone(),
            since: now,
            by: None,
            differing: Vec::new(),
            kept: Vec::new(),
            told: Vec::new(),
        };
        Self { state, seen }
    }

    /// A stored pin; where it is not known what the server showed last, it is taken for what was pinned
    /// until it is asked.
    pub(super) fn again(state: State, seen: Option<Raw>) -> Self {
        let seen = seen.unwrap_or_else(|| state.held.clone());
        Self { state, seen }
    }

    /// Takes what the server shows now.
    pub(super) fn see(&mut self, seen: Raw) {
        let (held, now) = (self.state.held.definitions(), seen.definitions());
        for (key, was) in &held {
            let Some(is) = now.get(key).filter(|is| is.digest != was.digest) else {
                continue;
            };
            if !self.is_kept(key, Some(&is.digest)) {
                self.state.differing.retain(|(other, _)| other != key);
                self.state.differing.push((key.clone(), is.raw.clone()));
            }
        }
        self.seen = seen;
    }

    /// What waits for a person.
    pub(super) fn differences(&self) -> Vec<Difference> {
        let (held, now) = (self.state.held.definitions(), self.seen.definitions());
        let keys: BTreeSet<&Key> = held.keys().chain(now.keys()).collect();
        let mut open: Vec<Difference> = keys
            .into_iter()
            .filter_map(|key| self.difference(key, held.get(key), now.get(key)))
            .collect();
        let gone: Vec<(Key, Option<Digest>)> = open
            .iter()
            .filter(|one| one.is.is_none())
            .map(|one| (one.key.clone(), one.was.as_ref().map(nameless)))
            .collect();
        for one in open.iter_mut().filter(|one| one.was.is_none()) {
            let body = one.is.as_ref().map(nameless);
            let mut before = gone.iter();
            one.renamed = before
                .find(|(key, was)| key.what == one.key.what && *was == body)
                .map(|(key, _)| key.name.clone());
        }
        open
    }

    fn difference(
        &self,
        key: &Key,
        was: Option<&Definition>,
        now: Option<&Definition>,
    ) -> Option<Difference> {
        let difference = |is: Option<Definition>, returned| {
            Some(Difference {
                key: key.clone(),
                was: was.cloned(),
                is,
                returned,
                renamed: None,
            })
        };
        let Some(was) = was else {
            let new = now.filter(|now| !self.is_kept(key, Some(&now.digest)));
            return new.and_then(|new| difference(Some(new.clone()), false));
        };
        let Some(now) = now else {
            if self.is_kept(key, None) {
                return None;
            }
            return difference(None, false);
        };
        let mut differing = self.state.differing.iter();
        let (_, raw) = differing.find(|(other, _)| other == key)?;
        let value: serde_json::Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let is = Definition {
            digest: Digest::of_json(&value),
            raw: raw.clone(),
        };
        difference(Some(is), now.digest == was.digest)
    }

    fn is_kept(&self, key: &Key, is: Option<&Digest>) -> bool {
        let mut kept = self.state.kept.iter();
        kept.any(|(other, digest)| other == key && digest.as_ref() == is)
    }

    /// Does as a person says of some differences.
    pub(super) fn answer(
        &mut self,
        word: Word,
        differences: &[Difference],
        by: &str,
        now: Timestamp,
    ) {
        let state = &mut self.state;
        for one in differences {
            let is = one.is.as_ref();
            state.differing.retain(|(key, _)| *key != one.key);
            match word {
                Word::Accept => {
                    state.held.put(&one.key, is);
                    // Against another pin, what was not wanted is another question.
                    state.kept.retain(|(key, _)| *key != one.key);
                }
                Word::Keep => {
                    let is = is.map(|is| is.digest.clone());
                    state.kept.push((one.key.clone(), is));
                }
            }
        }
        let more = state.kept.len().saturating_sub(MOST_KEPT);
        state.kept.drain(..more);
        if word == Word::Accept {
            // Who the server says it is comes with the first thing of it that is taken over.
            state.held.server_info = self.seen.server_info.clone();
            (state.since, state.by) = (now, Some(by.to_owned()));
            state.told.clear();
        }
        // What was taken over may be another already.
        self.see(self.seen.clone());
    }

    /// Whether a question is to be told in the log, where it is not yet.
    pub(super) fn tell(&mut self, question: &Digest) -> bool {
        let told = &mut self.state.told;
        if told.contains(question) || told.len() >= MOST_TOLD {
            return false;
        }
        told.push(question.clone());
        true
    }

    /// Digests over all that is pinned and over the set of its names.
    pub(super) fn digests(&self) -> (Digest, Digest) {
        digests(&self.state.held.definitions())
    }

    /// The same of what the server shows now.
    pub(super) fn shown_digests(&self) -> (Digest, Digest) {
        digests(&self.seen.definitions())
    }

    /// What clients are told of the server.
    pub(super) fn listing(&self) -> Listing {
        let (held, now) = (self.state.held.definitions(), self.seen.definitions());
        let changed = held.iter().filter(|(key, was)| {
            let differs = now.get(*key).is_some_and(|is| is.digest != was.digest);
            let mut open = self.state.differing.iter();
            differs || open.any(|(other, _)| other == *key)
        });
        let shown = Shown {
            changed: changed.map(|(key, _)| key.clone()).collect(),
            open: self.differences(),
            hidden: now
                .iter()
                .filter(|(key, _)| !held.contains_key(*key))
                .map(|(key, new)| (key.clone(), new.clone()))
                .collect(),
            now: now
                .into_iter()
                .map(|(key, definition)| (key, definition.digest))
                .collect(),
            hints: self.seen.hints(),
        };
        self.state.held.listing(&self.seen, shown)
    }
}

fn digests(all: &Definitions) -> (Digest, Digest) {
    let whole: Vec<(&Key, &Digest)> = all.iter().map(|(key, one)| (key, &one.digest)).collect();
    let names: Vec<&Key> = all.keys().collect();
    let digest =
        |value: serde_json::Result<serde_json::Value>| Digest::of_json(&value.unwrap_or_default());
    (
        digest(serde_json::to_value(whole)),
        digest(serde_json::to_value(names)),
    )
}

/// Digest over a definition without its name.
fn nameless(definition: &Definition) -> Digest {
    let mut value = definition.value();
    if let Some(members) = value.as_object_mut() {
        members.remove("name");
    }
    Digest::of_json(&value)
}

#[cfg(test)]
mod tests;
