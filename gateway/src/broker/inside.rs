//! An action on a server inside the gateway: who calls goes in typed, labels come back typed, and
//! nothing of the result is handed over before its labels are on the disk.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use jiff::Timestamp;
use policy::action::{Action, Method};
use policy::decision::Permit;
use policy::label::{Label, Provenance};
use policy::record::{Event, Outcome};
use tokio::time::timeout;

use super::{Broker, results, unknown};
use crate::approvals::Answer;
use crate::audit::{NoRecord, Write};
use crate::fault;
use crate::upstreams::in_process::{Caller, Inside};

/// What an action told, where its labels cannot be stored.
pub(super) fn withheld(why: &impl std::fmt::Display) -> (Answer, Outcome, Option<String>) {
    let text = format!("UNKNOWN. It was done, and what it told is withheld: {why}.");
    (
        Answer::Refused(text),
        Outcome::Unknown,
        Some(why.to_string()),
    )
}

impl Broker {
    /// Does a permitted action inside. It is not cancelled on the way: what is stored is stored.
    pub(super) async fn perform_inside(
        &self,
        permit: &Permit,
        inside: Inside,
    ) -> (Answer, Outcome, Option<String>) {
        let action = permit.action();
        let absent = || {
            (
                Answer::Error(unknown(action.method).to_string()),
                Outcome::Error,
                None,
            )
        };
        if action.method != Method::Call {
            return absent();
        }
        let conversation = self.conversations.get(&action.conversation);
        let caller = Caller {
            group: action.group.clone(),
            conversation: action.conversation.clone(),
            principal: action.principal.clone(),
            labels: super::lock(&conversation).labels.clone(),
            now: Timestamp::now(),
        };
        let limit = self.deadline(&action.server);
        let told = match timeout(limit, inside.call(caller, &action.name, &action.args)).await {
            Ok(Some(told)) => told,
            Ok(None) => return absent(),
            Err(_) => {
                let text = "UNKNOWN. It was not done in time. It may or may not have happened: look before you try again.";
                let detail = format!("it was not done within {limit:?}");
                return (
                    Answer::Refused(text.to_owned()),
                    Outcome::Unknown,
                    Some(detail),
                );
            }
        };
        let untrusted = told.labels.contains(&Label::Untrusted);
        let config = self.config.now();
        let admin = config
            .groups
            .get(&action.group)
            .is_none_or(|group| group.admin);
        if untrusted && admin {
            let text = "WITHHELD. It was done, and what it tells holds what strangers wrote; this group is a clean room.";
            let detail = "what strangers wrote is withheld from a clean room".to_owned();
            return (
                Answer::Refused(text.to_owned()),
                Outcome::Refused,
                Some(detail),
            );
        }
        fault::point("inside.done").await;
        if let Err(no_record) = self.label(action, told.labels).await {
            return withheld(&no_record);
        }
        fault::point("inside.labelled").await;
        let raw = told.result.to_string();
        let outcome = if super::is_error(&raw) {
            Outcome::Error
        } else {
            Outcome::Ok
        };
        let answer = Answer::Result(raw);
        let (answer, outcome, detail) = self.hand_over(permit, answer, outcome, None).await;
        if untrusted && !permit.adds().contains(&Label::Untrusted) {
            return (results::fence(action, answer).await, outcome, detail);
        }
        (answer, outcome, detail)
    }

    /// Takes the labels of a result. They are on the disk when this returns, even those that the
    /// conversation has already: the record that brought them may still be on its way there.
    pub(super) async fn label(
        &self,
        action: &Action,
        labels: BTreeSet<Label>,
    ) -> Result<(), NoRecord> {
        if labels.is_empty() {
            return Ok(());
        }
        let from = Provenance {
            action: action.id.clone(),
            tool: self.shown_tool(action),
            at: Timestamp::now(),
        };
        {
            let conversation = self.conversations.get(&action.conversation);
            let mut conversation = conversation.lock().unwrap_or_else(PoisonError::into_inner);
            for label in &labels {
                conversation.take(*label, &from);
            }
        }
        let taken = labels
            .iter()
            .map(|label| (action.conversation.clone(), *label, from.clone()))
            .collect();
        let write = Write::new(action.id.as_str(), Event::Labelled { labels });
        self.audit
            .write(Write {
                labels: taken,
                ..write
            })
            .await
    }
}
