//! A person takes labels off a conversation.
//!
//! Labels that something under way brings stay: a call that was permitted before may still be
//! answered after, and what it tells is then in the conversation again.

use std::collections::BTreeSet;

use policy::ids::{ConversationId, GroupName};
use policy::label::{Label, Labels};
use policy::record::Event;

use super::{Broker, NoRecord};
use crate::audit::Write;
use crate::conversations::lock;

/// Whose conversation, who takes its labels off, and why.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which.
    pub conversation: ConversationId,
    /// Its group.
    pub group: GroupName,
    /// The person.
    pub by: String,
    /// In their words.
    pub reason: String,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declassified {
    /// The labels that are gone.
    pub removed: BTreeSet<Label>,
    /// The labels that are still there.
    pub labels: Labels,
}

impl Broker {
    /// The group of a conversation that there is.
    pub fn group_of(&self, id: &ConversationId) -> Option<GroupName> {
        if let Some(token) = id.as_str().strip_prefix("token:") {
            let mut tokens = self.identity.list().into_iter();
            let found = tokens.find(|issued| issued.id == token);
            return found.map(|issued| issued.group);
        }
        let name = id.as_str().strip_prefix("group:")?;
        let name = name.parse::<GroupName>().ok()?;
        self.config.now().groups.contains_key(&name).then_some(name)
    }

    /// Takes off what labels it can; the record of it is on the disk before any decision is made
    /// without them. Where there are none to take off, nothing is recorded.
    ///
    /// # Errors
    /// [`NoRecord`]; then they are all still there.
    pub async fn declassify(&self, request: Request) -> Result<Declassified, NoRecord> {
        let conversation = self.conversations.get(&request.conversation);
        let owed = self.owed(&request.conversation);
        let (written, removed, taken) = {
            let held = lock(&conversation);
            let stay: BTreeSet<Label> = held.underway().union(&owed).copied().collect();
            let removed: BTreeSet<Label> = held.labels.all().difference(&stay).copied().collect();
            if removed.is_empty() {
                let labels = held.labels.clone();
                return Ok(Declassified { removed, labels });
            }
            let id = format!("dcl_{}", uuid::Uuid::now_v7().simple());
            let event = Event::Declassified {
                conversation: request.conversation.clone(),
                group: request.group,
                by: request.by,
                reason: request.reason,
                labels: held.labels.without(&stay),
            };
            let write = Write {
                loses: Some((request.conversation, removed.clone())),
                ..Write::new(id, event)
            };
            // Under the lock: a label that is taken from here on is written after this, and stays.
            (self.audit.give(write)?, removed, held.taken())
        };
        written.await?;
        let mut held = lock(&conversation);
        let now = held.taken();
        let removed: BTreeSet<Label> = removed
            .into_iter()
            .filter(|label| now.get(label) == taken.get(label))
            .collect();
        held.labels = held.labels.without(&removed);
        let labels = held.labels.clone();
        Ok(Declassified { removed, labels })
    }

    /// The labels of approved actions whose answers are not handed over.
    fn owed(&self, id: &ConversationId) -> BTreeSet<Label> {
        let mut owed = BTreeSet::new();
        for held in self.approvals.of_conversation(id) {
            if held.state().is_open() {
                continue;
            }
            let config = self.config.now();
            let traits = self.traits_of(&config, &held.action);
            // A server inside says only with its answer what that brings.
            let inside = self.upstreams.inside(&held.action.server).is_some();
            let group = config.groups.get(&held.action.group);
            if inside || traits.public_source.holds() {
                owed.insert(Label::Untrusted);
            }
            if inside
                || traits.secret_data.holds()
                || group.is_none_or(|group| group.contains_secrets)
            {
                owed.insert(Label::Secret);
            }
        }
        owed
    }
}
